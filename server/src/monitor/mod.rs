//! What the server tells about itself over HTTP.
