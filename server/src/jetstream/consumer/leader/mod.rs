//! What only the leader of a group does for consumers: waiting requests, push delivery, acks on their way into the log.
//!
//! Reading order: [`ack_subject`] and [`pull`] (what clients send), [`status`] (what they get besides messages),
//! [`intake`] (events from the threads of connections), [`directory`] (from names to consumers), [`push`] (windows and
//! heartbeats), [`worker`] (one consumer's waiting side), [`send`] (messages on their way out), [`desk`] (all of a
//! group, driven by the group's driver).
//!
//! Nothing here is replicated: when the leader goes, requests and windows go with it, and clients ask again. Only two
//! things reach the log: which messages were selected, and what clients answered.

pub mod ack_subject;
pub mod desk;
pub mod directory;
pub mod intake;
pub mod pull;
pub mod push;
pub mod send;
pub mod status;
pub mod worker;

pub use desk::{Host, Leader, View};
pub use directory::Directory;
pub use intake::{Address, Intake};

/// Names a command that the leader side has proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(pub u64);
