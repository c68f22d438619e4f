//! Core NATS over a server in the same process, by clients that speak bare protocol lines.

mod delivery;
mod protocol;
mod raw;
