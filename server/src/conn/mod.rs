//! One client connection: protocol in, deliveries out.
//!
//! Reading order: `session` (the protocol, pure), `keepalive` (its timers), `outbound` (what waits to be written and how
//! it gets out), `driver` (the task), `listener`; [`Front`] is what all connections share, [`Registry`] who is there.

mod buffers;
mod connection;
mod driver;
mod front;
mod keepalive;
mod link;
mod listener;
mod outbound;
mod output;
mod pipe;
mod registry;
mod session;
mod trace;

pub use connection::{ClientNames, ConnectionSnapshot, LastSubscription, Peer, Transport};
pub use front::Front;
pub use pipe::InProcess;
pub use registry::{Registry, Totals};

pub(crate) use listener::{accept, connect_in_process};
