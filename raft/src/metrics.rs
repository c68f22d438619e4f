//! What monitoring may see of the log.

use std::sync::atomic::{AtomicU64, Ordering};

/// Running totals, kept by the log's writer.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    syncs: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    /// One batch was written and synced.
    pub(crate) fn batch(&self, records: u64, bytes: u64) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The state of a node's log at one moment. Counts are since the node was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogMetrics {
    /// Batches that were synced.
    pub syncs: u64,
    /// Records written.
    pub records: u64,
    /// Bytes written, headers and padding included.
    pub bytes_written: u64,
    /// Bytes that the log holds now.
    pub bytes_held: u64,
    /// Segment files in use.
    pub segments: u64,
    /// True while the disk is full and proposals are refused.
    pub full: bool,
    /// Damaged places that were found and are still in the log.
    pub damaged: u64,
}

impl LogMetrics {
    pub(crate) fn of(counters: &Counters) -> Self {
        Self {
            syncs: counters.syncs.load(Ordering::Relaxed),
            records: counters.records.load(Ordering::Relaxed),
            bytes_written: counters.bytes.load(Ordering::Relaxed),
            ..Self::default()
        }
    }
}
