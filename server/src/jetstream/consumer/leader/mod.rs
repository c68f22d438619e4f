//! What only the leader of a group does for consumers: waiting requests, push delivery, acks on their way into the log.
//!
//! Reading order: [`ack_subject`] and [`pull`] (what clients send), [`status`] (what they get besides messages),
//! [`intake`] (events from the threads of connections), [`directory`] (from names to consumers), [`push`] (windows and
//! heartbeats), [`ahead`] (what was sent before the log knows), [`worker`] (one consumer's waiting side), `choose` (what goes
//! out next), [`send`] (messages on their way out), [`desk`] (all of a group), `seat` (where the group's driver meets it).
//!
//! Nothing here is replicated: when the leader goes, requests and windows go with it, and clients ask again. Only two
//! things reach the log: which messages were sent, and what clients answered, in the order in which they happened.

pub mod ack_subject;
pub mod ahead;
mod choose;
mod clock;
pub mod desk;
pub mod directory;
pub mod intake;
pub mod pull;
pub mod push;
pub mod send;
mod serve;
pub mod status;
pub mod worker;

mod seat;

#[cfg(test)]
mod desk_test;

pub use desk::{Desk, HALTED, Host, View};
pub use directory::{Directories, Directory, Puller};
pub use intake::{Address, Event, Intake};
pub use seat::Leader;

/// Names a command that the leader side has proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(pub u64);
