//! The broker, as a library and as the `halyard` binary.
//!
//! In reading order; a module uses only what stands before it:
//!
//! - [`caps`], [`log`]: every limit of this crate; what a person reads while it runs.
//! - [`config`]: settings, typed, and where they come from.
//! - [`broker`]: accounts, interest, and the way of a message from a publisher to its subscribers. Pure.
//! - [`auth`]: who may connect, and as whom.
//! - [`conn`]: one client connection: protocol in, deliveries out.
//! - [`jetstream`]: streams and consumers; subscribers like any other.
//! - [`monitor`]: what the server tells about itself over HTTP.
//! - [`memory`]: the process's heap.
//! - [`run`]: starts and stops all of it; [`Server`] is what an embedding program holds.
//! - [`presence`]: pid file and ports file.
//! - [`signals`]: what the operating system asks of the binary.

pub mod caps;
pub mod log;

pub mod config;

pub mod broker;

pub mod auth;

pub mod conn;

pub mod jetstream;

pub mod monitor;

pub mod memory;

pub mod run;
pub use run::Server;

pub mod presence;
pub mod signals;
