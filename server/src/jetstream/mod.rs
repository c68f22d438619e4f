//! Streams and consumers: subscribers like any other, whose state is decided in a replicated log.

pub mod api;
pub mod consumer;
