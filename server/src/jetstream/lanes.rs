//! The threads of JetStream: what it does must not keep a socket waiting.
//!
//! Applying an entry, preparing a flush, answering a request may take long, and all of them wait for the lock of their group.
//! Each data group has a thread for its consensus and its driver; requests, the meta group and what runs in the background
//! share two. The workers that serve sockets hand over and never take a group's lock.

use std::io;

use halyard_runtime::lane::Lane;

use super::config::Storage;

/// Threads for requests: one that takes long leaves the other.
const REQUEST_THREADS: usize = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct Lanes {
    /// Of the group on the disk.
    file: Lane,
    /// Of the group in memory.
    memory: Lane,
    /// Requests, the meta group, keepers.
    pub(super) requests: Lane,
}

impl Lanes {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            file: Lane::new("halyard-file", 1)?,
            memory: Lane::new("halyard-memory", 1)?,
            requests: Lane::new("halyard-request", REQUEST_THREADS)?,
        })
    }

    /// The lane of a data group.
    pub(super) const fn of(&self, storage: Storage) -> &Lane {
        match storage {
            Storage::File => &self.file,
            Storage::Memory => &self.memory,
        }
    }
}
