//! Bytes on the wire: the NATS text protocol, sans-io. Knows no streams.
