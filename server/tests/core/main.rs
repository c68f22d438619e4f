//! Core NATS over a server in the same process, by clients that speak bare protocol lines.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail tests"
)]

mod delivery;
mod monitor;
mod protocol;
mod raw;
