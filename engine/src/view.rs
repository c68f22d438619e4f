//! One stream as it is now, to be read later and elsewhere: what a backup copies.
//!
//! A view shares what the store has: open segments, the frozen tail, the records of the active tail. Making one costs
//! a copy of the stream's indexes of pages and dead runs, and a reference for each message that no segment holds yet.
//! Whatever happens to the stream afterwards, the view still says what was there.
//!
//! It holds segments open and keeps their files from being overwritten, with one exception: erasure does not wait for
//! a reader. A page that was erased under a view is an error there ([`Error::Corrupt`]); a message of it that still
//! lives can be read from the store, where it has the same bytes under the same sequence.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::error::Error;
use crate::lost::{Lacking, Layers};
use crate::message::{Message, StreamId, StreamState};
use crate::options::Overhead;
use crate::runs::Runs;
use crate::segment::{Cache, Part};
use crate::store::Store;
use crate::tail::{Tail, TailEntry};

/// Decoded blocks that a view keeps: it reads forward, so the page it stands in is enough.
const VIEW_CACHE_BYTES: usize = 4 << 20;

/// Files that views read from: what is here is not overwritten while the view lives.
#[derive(Debug, Default)]
pub(crate) struct Pins(Vec<Weak<[PathBuf]>>);

impl Pins {
    fn add(&mut self, files: &Arc<[PathBuf]>) {
        self.0.retain(|pinned| pinned.strong_count() > 0);
        self.0.push(Arc::downgrade(files));
    }

    /// Splits off the files that no view reads from.
    pub(crate) fn take_free(&mut self, files: &mut Vec<PathBuf>) -> Vec<PathBuf> {
        let pinned: Vec<Arc<[PathBuf]>> = self.0.iter().filter_map(Weak::upgrade).collect();
        if pinned.is_empty() {
            self.0.clear();
            return std::mem::take(files);
        }
        let is_pinned = |file: &PathBuf| pinned.iter().any(|held| held.contains(file));
        let (held, free) = std::mem::take(files).into_iter().partition(is_pinned);
        *files = held;
        free
    }
}

/// One stream at one moment.
#[derive(Debug)]
pub struct StreamView {
    state: StreamState,
    overhead: Overhead,
    dead: Runs,
    parts: Vec<Part>,
    lacking: Arc<[Lacking]>,
    frozen: Option<Arc<Tail>>,
    /// The active tail's messages, ascending.
    tail: Vec<TailEntry>,
    io: Cache,
    /// Keeps the files of `parts` from being overwritten.
    _pin: Arc<[PathBuf]>,
}

impl Store {
    /// The stream as it is now. O(pages, dead runs and messages that are in no segment yet).
    ///
    /// # Errors
    /// As [`Store::state`].
    pub fn view(&mut self, id: StreamId) -> Result<StreamView, Error> {
        let stream = self.streams.get(&id).ok_or(Error::NoSuchStream(id))?;
        let state = stream.state(&self.io)?;
        let files: Arc<[PathBuf]> = stream
            .parts
            .iter()
            .map(|part| part.segment.path().to_owned())
            .collect();
        let view = StreamView {
            state,
            overhead: stream.overhead,
            dead: stream.dead.clone(),
            parts: stream.parts.clone(),
            lacking: stream.lacking.clone(),
            frozen: stream.frozen.clone(),
            tail: stream.tail.iter_from(0).cloned().collect(),
            io: Cache::new(VIEW_CACHE_BYTES),
            _pin: files.clone(),
        };
        self.upkeep.pins.add(&files);
        Ok(view)
    }
}

impl StreamView {
    /// The stream's counters.
    #[must_use]
    pub const fn state(&self) -> &StreamState {
        &self.state
    }

    /// The first sequence at or after `seq` that holds a message.
    #[must_use]
    pub fn first_at_or_after(&self, seq: u64) -> Option<u64> {
        let seq = self.dead.next_gap(seq.max(self.state.first_seq));
        (seq <= self.state.last_seq).then_some(seq)
    }

    /// Reads one message; `None` when the sequence holds none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Io`] when its page cannot be read: damage, or it was erased since.
    pub fn get(&self, seq: u64) -> Result<Option<Message>, Error> {
        if self.first_at_or_after(seq) != Some(seq) {
            return Ok(None);
        }
        let own = self.tail.binary_search_by_key(&seq, |entry| entry.seq).ok();
        let entry = own
            .and_then(|at| self.tail.get(at))
            .or_else(|| self.frozen.as_ref().and_then(|frozen| frozen.get(seq)));
        if let Some(entry) = entry {
            return Ok(Some(self.message(
                seq,
                entry.record.clone(),
                (entry.subject_len, entry.headers_len),
                (entry.time(), entry.expires()),
            )));
        }
        let at = self.parts.partition_point(|part| part.last_seq() < seq);
        let part = self.parts.get(at).filter(|part| part.first_seq() <= seq);
        let layers = Layers {
            range: (self.state.first_seq, self.state.last_seq),
            parts: &self.parts,
            lacking: &self.lacking,
        };
        let part = part.ok_or_else(|| layers.lost(seq))?;
        let page = part.page_at(seq);
        let rows = part.rows(&self.io, page)?;
        let row = rows
            .binary_search_by_key(&seq, |row| row.seq)
            .ok()
            .and_then(|at| rows.get(at))
            .ok_or_else(|| part.lost(page, rows.iter().map(|row| row.seq).rfind(|at| *at < seq)))?;
        let record = part.record(&self.io, page, row)?;
        Ok(Some(self.message(
            seq,
            record,
            (row.subject_len, row.headers_len),
            (row.time, row.expires),
        )))
    }

    fn message(
        &self,
        seq: u64,
        record: Bytes,
        (subject_len, headers_len): (u16, u32),
        (time, expires): (crate::Timestamp, Option<crate::Timestamp>),
    ) -> Message {
        Message {
            seq,
            time,
            expires,
            size: self.overhead.size(record.len(), headers_len),
            record,
            subject_len,
            headers_len,
        }
    }
}
