//! Bytes on the wire: the NATS text protocol, sans-io. Knows no streams.
//!
//! Nothing here opens a socket, reads a clock or spawns a task: bytes go in, operations come out, and the other way round.
//! The same code serves connections of the server, clients inside a test and the simulator. It uses no other crate of this
//! workspace.

pub mod caps;
pub mod json;
pub mod proto;
