//! Replicated logs: groups, the node's log on disk, snapshots, membership. The only crate that names openraft.
//!
//! A [`Node`] has one log on disk ([`wal`], in `dir/log`), shared by its groups. A [`Group`] is a replica set with a log of
//! its own in there and a [`Machine`] that applies its entries in order. The life of an entry:
//!
//! ```text
//!   Group::propose(bytes) -> openraft's core -> LogStore::append -> the node's log: batch, one write, one sync
//!     -> openraft: flushed, committed -> Machine::apply(the same bytes) -> Proposal resolves
//! ```
//!
//! The payload is never encoded again and never copied: the buffer that was proposed is the one that is written and applied.
//!
//! Of the other crates it uses `runtime` (disk, tasks, time) and `format` (numbers, checksums, encryption), and never `engine`:
//! what a machine stores is its own.
//!
//! Reading order: `ids`, `identity` (who a node is), `entry`, `members`, `standing`, `machine`, `error`, `wal` (the log, from its
//! records up), `adapter` and `types` (between these and openraft), `log_store`, `apply`, `group`, `node`, then `membership`,
//! `transport` and `message` (other nodes).

#![deny(missing_docs)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod adapter;
mod apply;
mod cipher;
mod codec;
mod entry;
mod error;
mod group;
mod identity;
mod ids;
#[cfg(test)]
mod log_damage_test;
#[cfg(test)]
mod log_model_test;
mod log_store;
#[cfg(test)]
mod log_truncate_test;
mod machine;
mod members;
mod membership;
mod message;
mod metrics;
mod node;
mod renew;
mod runtime;
mod standing;
mod transport;
mod types;
mod wal;

pub use error::{Error, ProposeError};
pub use group::{
    ENTRY_BYTES_MAX, Group, Leadership, PROPOSAL_BYTES_IN_FLIGHT_MAX, PROPOSALS_IN_FLIGHT_MAX,
    Proposal,
};
pub use halyard_format::{Cipher, Encryption, Key};
pub use identity::Identity;
pub use ids::{GroupId, LogId, NodeId};
pub use machine::{Machine, Unreadable};
pub use members::{Membership, Peer, Replicas};
pub use membership::ChangeError;
pub use metrics::LogMetrics;
pub use node::{LogPosition, Node, NodeOptions, OpenReport};
pub use renew::{Renewed, renew};
pub use standing::{BadStanding, Standing};
pub use transport::{Answer, NoPeers, Transport};
pub use wal::rescue::{EntryImage, GroupImage, LogImage};
pub use wal::scrub::{LogDamage, LogScrub};
