//! What can go wrong, by blame: the disk or its owner ([`Error`]), or this one proposal ([`ProposeError`]).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use halyard_runtime::disk::changed_nothing;

use crate::ids::{GroupId, NodeId};

/// A node or a group cannot start or go on. Each message names the path and the way out; nothing was overwritten.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk is full.
    #[error(
        "{}: no space left on the disk ({action}); nothing was lost or overwritten: free space there, or choose another \
         store directory", path.display()
    )]
    Full {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// This user may not write there.
    #[error(
        "{}: permission denied ({action}); make the directory writable for the user that runs the server, or choose \
         another store directory", path.display()
    )]
    Unwritable {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// Another process has the directory.
    #[error(
        "{}: the store is in use by another process; stop that server, or give this one a store directory of its own",
        path.display()
    )]
    InUse {
        /// The store.
        path: PathBuf,
    },
    /// The log was written by a newer release.
    #[error(
        "{}: written by a newer release (log format {found}, this release reads up to {supported}); run that release or a \
         later one; nothing was changed", path.display()
    )]
    NewerVersion {
        /// The segment.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format that this release reads.
        supported: u32,
    },
    /// The log belongs to another node.
    #[error(
        "{}: this log belongs to node {found}, and this is node {expected}; give the server the node id it had, or a store \
         directory of its own", path.display()
    )]
    ForeignNode {
        /// The segment.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who asked.
        expected: NodeId,
    },
    /// Bytes that were safely on disk have changed since.
    #[error(
        "{}: damaged at byte {offset}: {what}; the records after it cannot be trusted and nothing was skipped or changed: \
         restore this file from a copy, or, in a cluster, start with an empty store directory so that the node fetches its \
         data from the others", file.display()
    )]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where in it, in bytes from its start.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The log and the machine's own store do not fit together.
    #[error(
        "{}: group {group} has applied entry {applied}, but its log holds {first} to {last}; the log and the store must come \
         from the same moment: restore both from the same copy", path.display()
    )]
    Mismatch {
        /// The log directory.
        path: PathBuf,
        /// The group.
        group: GroupId,
        /// What the machine says it has applied.
        applied: u64,
        /// First entry in the log.
        first: u64,
        /// Last entry in the log.
        last: u64,
    },
    /// A committed entry asks for something that this release does not know. The group stands before it.
    #[error(
        "{}: entry {index} of group {group} was written by a newer release ({what}); run that release or a later one; \
         nothing was skipped or changed", path.display()
    )]
    Unreadable {
        /// The log directory.
        path: PathBuf,
        /// The group.
        group: GroupId,
        /// The entry.
        index: u64,
        /// What is not known.
        what: String,
    },
    /// The encryption key does not open the log.
    #[error(
        "{}: the record at byte {offset} does not open with the configured encryption key; configure the key (or the previous \
         key) that the store was written with; nothing was changed", file.display()
    )]
    WrongKey {
        /// The segment.
        file: PathBuf,
        /// Where in it.
        offset: u64,
    },
    /// Any other failure of the disk.
    #[error("{}: {action}: {source}; check the disk and its mount, then start again", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A file could not be opened or made, for instance for want of file descriptors. Nothing was written, so a running log
    /// tries again.
    #[error(
        "{}: {action}: {source}; nothing was written, and a running server tries again by itself: check the limit of open \
         files, then the disk", path.display()
    )]
    Unavailable {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// An earlier write or sync failed: nothing more is written by this process.
    #[error(
        "the log takes no more writes since an earlier failure: {0}; restart the server once the disk is sound"
    )]
    Poisoned(Arc<Self>),
    /// A thread of the log panicked: a bug of ours, and nobody may wait for it any longer.
    #[error(
        "the thread {thread} panicked, which is a bug: please report it with what it printed; what was acknowledged is on \
         the disk"
    )]
    Panicked {
        /// Its name.
        thread: &'static str,
    },
    /// Consensus itself stopped.
    #[error("group {group} stopped: {reason}")]
    Group {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// The node was shut down.
    #[error("the node has been shut down")]
    Stopped,
}

impl Error {
    /// Sorts a failure of the disk by what its owner can do about it.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { action, path }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Unwritable { action, path }
            }
            // What should be there and is not is another matter.
            kind if kind != io::ErrorKind::NotFound && changed_nothing(&source) => {
                Self::Unavailable {
                    action,
                    path,
                    source: Arc::new(source),
                }
            }
            _ => Self::Io {
                action,
                path,
                source: Arc::new(source),
            },
        }
    }
}

impl Error {
    /// What a running log does when a new file of it could not be made: it has changed nothing that counts, so it waits and
    /// tries again. Also when it is not allowed to: somebody may have taken the permission by mistake.
    pub(crate) const fn passes(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Unavailable { .. })
    }

    /// The failure to open or make a file.
    pub(crate) fn opening(action: &'static str, path: &Path, source: io::Error) -> Self {
        match Self::io(action, path, source.kind().into()) {
            full @ Self::Full { .. } => full,
            _ => Self::Unavailable {
                action,
                path: path.to_path_buf(),
                source: Arc::new(source),
            },
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Full { .. } => io::ErrorKind::StorageFull,
            Error::Unwritable { .. } => io::ErrorKind::PermissionDenied,
            Error::Corrupt { .. } | Error::WrongKey { .. } | Error::Mismatch { .. } => {
                io::ErrorKind::InvalidData
            }
            Error::Io { source, .. } | Error::Unavailable { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// Why one proposal was not applied, or not known to be.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Refused, nothing was written: another node leads, or none does.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// Written, but leadership was lost or the node stopped before the outcome was known: it may yet be applied.
    #[error("the outcome is not known")]
    Unknown,
    /// Refused, nothing was written: the disk is full. Proposals are taken again when there is space.
    #[error("{}: the disk is full; free space there and publishing goes on by itself", path.display())]
    Full {
        /// The log directory.
        path: PathBuf,
    },
    /// Refused, nothing was written: too many proposals are waiting.
    #[error("too many proposals are in flight")]
    Overloaded,
    /// Refused, nothing was written: the payload is longer than an entry may be.
    #[error("an entry of {bytes} bytes is too long: at most {bytes_max}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The longest entry.
        bytes_max: usize,
    },
    /// The log failed: see [`Error::Poisoned`].
    #[error("{0}")]
    Poisoned(Arc<Error>),
    /// The group or the node was shut down.
    #[error("the group has been shut down")]
    Stopped,
}
