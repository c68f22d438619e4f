//! What can go wrong in a store, by whose fault: the disk's, a damaged file's, the operator's, or the caller's.
//!
//! Bugs are asserts, never values of this type.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use halyard_runtime::disk;

use crate::message::StreamId;

/// An operation of the store failed. Cheap to clone, so that one failure can be told to everyone who waits.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The disk failed a call. After a failed write or sync the store is poisoned.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// Stored bytes are not what was written. What is intact keeps being served.
    #[error(
        "{} is damaged at byte {offset}: {what}; restore the file from a replica or a backup",
        file.display()
    )]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// What was expected there.
        what: String,
    },
    /// The disk is full. What is in memory stays; the next flush tries again.
    #[error("no space left for {}: free some or purge streams", path.display())]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// A file could not be opened or made, for instance for want of file descriptors. Nothing was written; what is in memory
    /// stays, and the next flush tries again.
    #[error("{}: {source}; nothing was written, it is tried again", path.display())]
    Unavailable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// An earlier write or sync failed: the store only serves reads until it is opened again.
    #[error("the store stopped after a failed write: {reason}")]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// A change of the state panicked before its end: what it left is used for nothing any more.
    #[error(
        "a change stopped half way because of a bug: please report it with what it printed; nothing of it was written, and a \
         start goes on before it"
    )]
    Panicked,
    /// Preparing or writing what one stream has changed panicked. The stream is broken ([`crate::Store::broken`]), the others
    /// are what they were.
    #[error(
        "stream {} cannot be written because of a bug ({what}): please report it; its messages stay in the log",
        stream.0
    )]
    Broken {
        /// The stream.
        stream: StreamId,
        /// What the panic said.
        what: String,
    },
    /// A job panicked.
    #[error("background work of the store stopped because of a bug ({what}): please report it")]
    Job {
        /// What the panic said.
        what: String,
    },
    /// The file was written by a later version of this program.
    #[error("{} has format version {found}, this program knows up to {supported}: use the newer program", file.display())]
    NewerVersion {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u16,
        /// The highest version that this program reads.
        supported: u16,
    },
    /// The file is encrypted with a key that was not given. Nothing was changed.
    #[error("{} is encrypted, and {what}", file.display())]
    WrongKey {
        /// The file.
        file: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// No stream of that id is in this store.
    #[error("no stream {0:?} in this store")]
    NoSuchStream(StreamId),
    /// A stream of that id is there already.
    #[error("stream {0:?} exists")]
    StreamExists(StreamId),
    /// `append_at` of a sequence that is not above the stream's last.
    #[error("sequence {seq} is not above the last one, {last}")]
    OutOfOrder {
        /// What was asked for.
        seq: u64,
        /// The stream's last sequence.
        last: u64,
    },
    /// A limit of this crate (see `limits`) was passed.
    #[error("{what} is above the limit of {limit}")]
    Limit {
        /// What was too large.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}

impl Error {
    /// The disk failed on `path`.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        if disk::is_full(&source) {
            return Self::Full {
                path: path.to_owned(),
            };
        }
        // What should be there and is not is another matter.
        if disk::changed_nothing(&source) && source.kind() != io::ErrorKind::NotFound {
            return Self::Unavailable {
                path: path.to_owned(),
                source: Arc::new(source),
            };
        }
        Self::Io {
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    /// Whether a job that met it has failed for now only: nothing that counts has changed, and the same is tried again.
    #[must_use]
    pub const fn passes(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Unavailable { .. })
    }

    /// Bytes of `file` are not what was written.
    pub(crate) fn corrupt(file: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt {
            file: file.to_owned(),
            offset,
            what: what.into(),
        }
    }
}
