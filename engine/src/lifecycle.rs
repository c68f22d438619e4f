//! Opening a store, and the jobs that write it down.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use halyard_runtime::disk::Disk;

use crate::digest::Digest;
use crate::error::Error;
use crate::message::{Erase, StreamId};
use crate::options::Options;
use crate::removal::Removal;
use crate::segment::Cache;
use crate::store::Store;
use crate::stream::Stream;

/// What opening a store found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments that the manifest names.
    pub segments: usize,
    /// Messages in all streams.
    pub messages: u64,
    /// Files that no manifest names: left by a crash, to be overwritten and removed by maintenance.
    pub leftovers: usize,
}

/// What a finished job achieved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finished {
    /// The applied index that the durable manifest now covers.
    pub applied: u64,
    /// Bytes that the job wrote.
    pub bytes_written: u64,
}

/// How far erasure has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErasureProgress {
    /// A delete or purge with [`Erase::Yes`] waits for the next flush.
    pub waits_for_flush: bool,
    /// Segments that must be rewritten.
    pub segments: usize,
    /// Freed files that must be overwritten.
    pub files: usize,
}

impl ErasureProgress {
    /// Nothing erased is left on this store's disk.
    #[must_use]
    pub fn is_done(&self) -> bool {
        *self == Self::default()
    }
}

/// Work with the disk, to be run away from the store.
#[derive(Debug)]
pub struct Job {}

/// The result of a job, for [`Store::finish`].
#[derive(Debug)]
pub struct JobDone {}

impl Job {
    /// Does all the I/O. Blocks.
    #[must_use]
    pub fn run(self) -> JobDone {
        JobDone {}
    }
}

impl Store {
    /// Opens the store in `dir`, creating it when there is none.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Corrupt`], [`Error::NewerVersion`], [`Error::WrongKey`]: nothing was changed.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
    ) -> Result<(Self, Report), Error> {
        disk.create_dir_all(dir)
            .map_err(|error| Error::io(dir, error))?;
        let store = Self {
            disk,
            dir: dir.to_owned(),
            options,
            streams: Default::default(),
            records: Default::default(),
            io: Cache,
            digest: Digest::EMPTY,
        };
        Ok((store, Report::default()))
    }

    /// The applied index that the durable manifest covers: replay starts after it.
    #[must_use]
    pub fn applied(&self) -> u64 {
        0
    }

    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Whether publishes should be accepted: asked by the leader before it proposes, never while applying.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Poisoned`].
    pub fn accepting(&self) -> Result<(), Error> {
        self.check_writable()
    }

    pub(crate) fn mark_created(&mut self, _id: StreamId) {}
    pub(crate) fn mark_dropped(&mut self, _stream: Stream, _erase: Erase) {}
    pub(crate) fn note_dirty(&mut self, _id: StreamId) {}
    pub(crate) fn note_record(&mut self, _key: &Bytes, _value: Option<&Bytes>) {}
    pub(crate) fn note_removal(
        &mut self,
        _id: StreamId,
        _removal: &Removal,
        _erase: Erase,
    ) -> Result<(), Error> {
        Ok(())
    }

    /// Memory that a flush would free, roughly, in bytes.
    #[must_use]
    pub fn dirty_bytes(&self) -> usize {
        self.streams
            .values()
            .map(|stream| stream.tail.weight() as usize)
            .sum()
    }

    /// Starts writing everything applied so far; `applied` is the log index of the last applied entry. `None` when there
    /// is nothing to write, or a job is out.
    pub fn begin_flush(&mut self, applied: u64) -> Option<Job> {
        let _ = applied;
        None
    }

    /// Starts the most useful piece of background work: erasure, compaction, scrubbing. `None` when there is none.
    pub fn begin_maintenance(&mut self) -> Option<Job> {
        None
    }

    /// Takes in what a job did.
    ///
    /// # Errors
    /// What the job met; a failed write or sync poisons the store.
    pub fn finish(&mut self, done: JobDone) -> Result<Finished, Error> {
        let _ = done;
        Ok(Finished::default())
    }

    /// How far erasure has come.
    #[must_use]
    pub fn erasure_pending(&self) -> ErasureProgress {
        ErasureProgress::default()
    }
}
