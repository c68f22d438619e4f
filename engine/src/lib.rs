//! The message log store of one group: no sockets, no consensus, no clock; I/O only through the Disk door.
//!
//!   append, delete, put ...  ->  Store: streams (subject index, dead runs, counters) and records in memory
//!                                  |  begin_flush -> Job::run -> finish
//!   segment 1 | segment 2 | ...  <-+    one segment for all streams that changed; the manifest names the segments
//!                  begin_maintenance -> merges neighbours, drops the dead, erases, overwrites what was freed
//!
//! The log of the group makes an entry durable; the store makes it durable a second time with the next flush, and says up
//! to which applied index ([`Store::applied`]), so that the log may go. Recovery is the manifest's state and the log's
//! entries after it, whatever the size of the data.
//!
//! Of the other crates it uses `runtime` (the disk, time as a value) and `format` (numbers, checksums, encryption).
//!
//! Reading order: `message`, `filter` (values); `store` (everything one can ask); `stream`, `query`, `pending`,
//! `removal` (one stream); `runs`, `subjects`, `names`, `tail` (its parts in memory); `segment`, `block` (its parts on disk); `flush`, `merge`,
//! `manifest`, `recovery`, `job`, `upkeep`, `tiers`, `stages`, `adopt`, `lifecycle` (how it gets there and back); `view` (one stream at one
//! moment). docs/formats.md has every byte.
#![deny(missing_docs)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod error;
mod limits;
mod message;
mod options;

mod filter;

mod store;

pub mod inspect;

mod counts;
mod pending;
mod query;
mod removal;
mod stream;

mod digest;
mod hash;
mod names;
mod runs;
mod subjects;
mod tail;

mod block;
mod file_key;
mod segment;

mod adopt;
mod broken;
mod check;
mod checkpoint;
mod damage;
mod flush;
mod job;
mod lifecycle;
mod lost;
mod manifest;
mod merge;
mod recovery;
mod space;
mod stages;
mod thaw;
mod tiers;
mod upkeep;
mod view;

#[doc(hidden)]
pub mod decoders;

pub use adopt::Retired;
pub use block::Mended;
pub use checkpoint::Checkpoint;
pub use damage::{Affected, Damage};
pub use digest::record_digest;
pub use error::Error;
pub use filter::{Filter, FilterError, Filters};
pub use halyard_format::{Cipher, Encryption, Key};
pub use halyard_runtime::time::Timestamp;
pub use job::{Job, JobDone};
pub use lifecycle::{Finished, Report};
pub use limits::SEQUENCE_MAX;
pub use message::{Append, Erase, FOREVER, Message, Purge, StreamId, StreamState, SubjectTotals};
pub use options::{HashKey, Options, Overhead};
pub use store::Store;
pub use upkeep::{ErasureProgress, Resealing};
pub use view::StreamView;
