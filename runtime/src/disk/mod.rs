//! The disk: files with positioned reads and writes, names, and what is durable when.
//!
//! The calls are synchronous. In production they block, so long ones belong on a dedicated thread
//! ([`crate::task::spawn_dedicated`]); in a simulation they return at once, and the caller sleeps for
//! [`File::sync_cost`] before it reports a sync as done.
//!
//! What survives a loss of power, on every disk:
//! - bytes and length of a file, once [`File::sync`] after them has returned `Ok`;
//! - a name that was created, renamed or removed, once [`Disk::sync_dir`] of its directory has returned `Ok`;
//! - anything else may or may not survive, in any order, down to single sectors of 512 bytes.
//!
//! After a failed sync nothing may be assumed about the file, and a second sync that succeeds proves nothing (the
//! kernel marks the pages clean): stop using it.

mod memory;
mod real;
mod wipe;

pub use memory::MemDisk;
pub use real::RealDisk;
pub use wipe::{Space, wipe};

use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The smallest unit that a disk writes as a whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// How [`Disk::open`] treats a file that is, or is not, there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; only reads.
    Read,
    /// It must exist; reads and writes.
    ReadWrite,
    /// Created when missing; an existing one keeps its bytes. Reads and writes.
    Create,
    /// It must not exist. Reads and writes.
    CreateNew,
}

/// An open file. Dropping the last handle closes it; closing makes nothing durable.
#[expect(
    clippy::len_without_is_empty,
    reason = "a file's emptiness is no question that anyone asks"
)]
pub trait File: Send + Sync + fmt::Debug {
    /// Reads into `buffer` from `offset`; returns how many bytes, which may be fewer than asked for; 0 at or past the end.
    ///
    /// # Errors
    /// An unreadable sector, or a handle from before a simulated crash.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends first, and those of [`File::read_at`].
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    buffer = buffer.get_mut(count..).unwrap_or_default();
                    offset = offset.saturating_add(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` at `offset`, growing the file when it ends before (a gap reads as zeros). Not durable.
    ///
    /// # Errors
    /// `StorageFull`, or the device failed; some of the bytes may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// [`File::write_at`] of several pieces one after the other, in one system call where there is one.
    ///
    /// # Errors
    /// As [`File::write_at`].
    fn write_vectored_at(&self, pieces: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        for piece in pieces {
            self.write_at(piece, offset)?;
            offset = offset.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    /// Makes the file `len` bytes long at least, the new part zeros whose blocks are already on the disk, so that later
    /// writes there and their syncs change no metadata. Blocks for as long as writing that many bytes takes.
    ///
    /// # Errors
    /// `StorageFull`, or the device failed.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Makes the file `len` bytes long at least and takes the space for that, which may be quicker than
    /// [`File::allocate`]; the first writes there may be slower. For space that is given back, not written.
    ///
    /// # Errors
    /// `StorageFull`, or the device failed.
    fn set_aside(&self, len: u64) -> io::Result<()> {
        self.allocate(len)
    }

    /// Cuts or extends (with zeros that take no space) the file to `len` bytes. Not durable.
    ///
    /// # Errors
    /// The device failed.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The file's length in bytes.
    ///
    /// # Errors
    /// The device failed.
    fn len(&self) -> io::Result<u64>;

    /// Makes every byte written so far, and the length, durable.
    ///
    /// # Errors
    /// Nothing may be assumed about what was written since the last successful sync; never retry.
    fn sync(&self) -> io::Result<()>;

    /// How long the last sync took in simulated time: sleep for so long before reporting it. Zero on a real disk, where
    /// the call itself has taken the time.
    fn sync_cost(&self) -> Duration {
        Duration::ZERO
    }
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The last component of the path.
    pub name: String,
    /// A directory; otherwise a file.
    pub is_dir: bool,
    /// Length in bytes; 0 for a directory.
    pub len: u64,
}

/// Names and files. Paths are absolute or relative to the working directory, as the caller likes, but always the same.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens a file; see [`OpenMode`]. A created name is durable after [`Disk::sync_dir`] of its directory.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, `PermissionDenied` ...; the text names the path. Whatever it is, nothing has changed:
    /// see [`changed_nothing`].
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Creates a directory and those above it that are missing. Syncs nothing.
    ///
    /// # Errors
    /// As [`Disk::open`].
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// [`Disk::create_dir_all`] whose names are durable when it returns. The directories above are synced also when all
    /// of them exist: an earlier start may have made them and died before it synced.
    ///
    /// # Errors
    /// As [`Disk::create_dir_all`] and [`Disk::sync_dir`]. A directory above that we may not read is not ours, and left
    /// alone.
    fn create_dir_all_durably(&self, path: &Path) -> io::Result<()> {
        self.create_dir_all(path)?;
        for above in path
            .ancestors()
            .skip(1)
            .filter(|above| !above.as_os_str().is_empty())
        {
            match self.sync_dir(above) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Gives `from` the name `to`, atomically replacing a file of that name.
    ///
    /// # Errors
    /// As [`Disk::open`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name; its space is free once the last handle is closed.
    ///
    /// # Errors
    /// As [`Disk::open`].
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `DirectoryNotEmpty`, and as [`Disk::open`].
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Whether a file or directory of that name is there.
    ///
    /// # Errors
    /// When it cannot be told, for instance without the permission to look.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// What is in a directory, sorted by name.
    ///
    /// # Errors
    /// As [`Disk::open`]; `InvalidData` for a name that is not UTF-8.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;

    /// Makes the names in the directory durable: creations, renames and removals.
    ///
    /// # Errors
    /// Nothing may be assumed about those names; never retry, unless [`changed_nothing`] says that it did not come to a sync.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the file `path` (created when missing) for this process alone, until the result is dropped or the process
    /// dies.
    ///
    /// # Errors
    /// `WouldBlock` when another process holds it; the text says so.
    fn lock(&self, path: &Path) -> io::Result<DirLock>;

    /// Bytes that this process may still write on the file system that holds `path`.
    ///
    /// # Errors
    /// As [`Disk::open`].
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;

    /// The whole content of a file.
    ///
    /// # Errors
    /// As [`Disk::open`] and [`File::read_at`].
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// Holds a directory for one process; see [`Disk::lock`].
pub struct DirLock(#[expect(dead_code, reason = "only its drop counts")] Box<dyn Send + Sync>);

impl DirLock {
    pub(crate) fn new(held: impl Send + Sync + 'static) -> Self {
        Self(Box::new(held))
    }
}

impl fmt::Debug for DirLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DirLock")
    }
}

/// Says what was tried on which path, keeping the kind.
fn describe(error: &io::Error, action: &str, path: &Path) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot {action} {}: {error}", path.display()),
    )
}

/// A call that failed before it could change anything; see [`changed_nothing`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct ChangedNothing(String);

/// [`describe`] for a call that has certainly changed nothing.
fn describe_harmless(error: &io::Error, action: &str, path: &Path) -> io::Error {
    harmless(describe(error, action, path))
}

/// Marks the failure of a call that has certainly changed nothing.
pub(crate) fn harmless(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), ChangedNothing(error.to_string()))
}

/// Whether a call failed for want of space: the disk is full, or what this user may take of it.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    let kind = error.kind();
    matches!(
        kind,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Whether the call that failed has certainly changed nothing: a file or a directory could not be opened, made or looked at,
/// for instance because the process has no file descriptor left. Nothing that was written before is in doubt, so the same
/// may be tried again. `false` says nothing.
#[must_use]
pub fn changed_nothing(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<ChangedNothing>())
}
