//! The message log store of one group: no sockets, no consensus, no clock; I/O only through the Disk door.
#![deny(missing_docs, clippy::indexing_slicing)]

mod digest;
mod error;
mod filter;
mod hash;
mod lifecycle;
mod limits;
mod message;
mod options;
mod query;
mod removal;
mod runs;
mod segment;
mod store;
mod stream;
mod subjects;
mod tail;

pub use error::Error;
pub use filter::{Filter, FilterError, Filters};
pub use lifecycle::{ErasureProgress, Finished, Job, JobDone, Report};
pub use message::{Append, Erase, Message, Purge, StreamId, StreamState, SubjectTotals};
pub use options::{Cipher, Encryption, Key, Options, Overhead};
pub use store::Store;

pub use halyard_runtime::time::Timestamp;
