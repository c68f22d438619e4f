//! One client connection: protocol in, deliveries out.
