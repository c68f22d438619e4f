//! Streams that a panic left half changed, and what the store does about one: nothing of it is written, the others go on.
//!
//! All streams of a store share its upkeep (what is dirty, the flush in preparation, which segments hold what is dead), and a
//! panic in the middle of one stream's change leaves three kinds of traces:
//!
//! - The stream's own state: counters, tail, subjects. It is never written again. [`Store::discard_stream`] removes it without
//!   a look inside.
//! - Counters of the upkeep that decide only when something happens (weight of what is dirty, live messages of a segment).
//!   They may be off by what the one command did; all their arithmetic saturates.
//! - What decides what is written: the frozen state of a flush. A stream enters it by one push of a complete value, so it is
//!   in it as it was at the cut, or not at all.
//!
//! Since the third could lack the stream, no flush is written while any stream is broken, and no merge is planned, which
//! asks each stream what is dead. The manifest's applied index stays below the command that panicked, the log keeps it and
//! all that follows, and the next start meets the same panic at the same entry, or, with a mended program, none. Dropping the
//! stream ends that: what the durable state holds of it is dropped by a replay of the log, too.

use std::sync::Arc;

use halyard_runtime::contain::contain;

use crate::damage::Damage;
use crate::digest::Change;
use crate::error::Error;
use crate::message::{Erase, StreamId};
use crate::stages::{FlushStage, Maintenance};
use crate::store::Store;
use crate::stream::Stream;

/// Why a stream is broken.
#[derive(Debug)]
pub(crate) struct Broken {
    what: String,
}

impl Store {
    /// The state of this stream is not to be believed: a change of it panicked. Nothing is flushed until it is discarded.
    pub fn break_stream(&mut self, id: StreamId, what: &str) {
        self.broken.entry(id).or_insert_with(|| Broken {
            what: what.to_owned(),
        });
        // A merge that is being planned would ask the stream what is dead.
        match std::mem::take(&mut self.upkeep.maintenance) {
            Maintenance::Counting(stale) => self.upkeep.stale.extend(stale),
            Maintenance::Planning(_) => {}
            other => self.upkeep.maintenance = other,
        }
    }

    /// The broken streams, and what their panics said.
    pub fn broken(&self) -> impl Iterator<Item = (StreamId, &str)> {
        let all = self.broken.iter();
        all.map(|(id, broken)| (*id, broken.what.as_str()))
    }

    /// Whether the stream is broken.
    #[must_use]
    pub fn is_broken(&self, id: StreamId) -> bool {
        self.broken.contains_key(&id)
    }

    /// Removes a broken stream, and from a flush in preparation the records whose keys begin with one of `records`.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn discard_stream(
        &mut self,
        id: StreamId,
        erase: Erase,
        records: &[&[u8]],
    ) -> Result<(), Error> {
        self.check_writable()?;
        self.strip_frozen(id, records);
        self.broken.remove(&id);
        self.digest.fold(Change::DropStream, &[id.0]);
        if let Some(stream) = self.streams.remove(&id) {
            self.mark_dropped(stream, erase);
        }
        Ok(())
    }

    /// Takes the stream out of the flush in preparation, which is then as if it had not changed since the flush before: its
    /// drop comes later in the log. A flush that is out was frozen before the stream broke, and stays as it is.
    fn strip_frozen(&mut self, id: StreamId, records: &[&[u8]]) {
        if self.upkeep.is_flush_out {
            return;
        }
        let frozen = match &mut self.upkeep.flush {
            FlushStage::Idle => return,
            FlushStage::Cut(cut) => {
                cut.pending.retain(|one| *one != id);
                &mut cut.frozen
            }
            FlushStage::Frozen(frozen) => Arc::make_mut(frozen),
        };
        frozen
            .streams
            .retain(|(one, stream)| *one != id || stream.is_none());
        let is_of_it = |key: &[u8]| records.iter().any(|prefix| key.starts_with(prefix));
        frozen.records.retain(|key, _| !is_of_it(key));
    }

    /// A flush met a stream that it cannot write.
    pub(crate) fn flush_broke(&mut self, id: StreamId, what: &str) {
        if self.streams.contains_key(&id) {
            self.break_stream(id, what);
        } else {
            // It was dropped meanwhile.
            self.strip_frozen(id, &[]);
        }
    }

    /// A merge of these segments panicked: they stay as they are, and are not tried again before the next start. What to say.
    pub(crate) fn merge_broke(&mut self, segments: &[u64], what: &str) -> Vec<Damage> {
        let states = self.upkeep.segments.iter();
        let inputs = states.filter(|state| segments.contains(&state.segment.id()));
        let paths: Vec<_> = inputs
            .map(|state| state.segment.path().to_owned())
            .collect();
        let what = format!("merging it panicked, which is a bug: {what}");
        let mut told = Vec::new();
        for path in &paths {
            let error = Error::corrupt(path, 0, what.clone());
            self.upkeep.set_damaged(error.clone());
            let affected = Vec::new();
            told.push(Damage { error, affected });
        }
        told
    }

    /// Lets one stream do a step of the upkeep, if it is sound; a panic breaks it.
    pub(crate) fn with_sound<T>(
        &mut self,
        id: StreamId,
        step: impl FnOnce(&mut crate::lifecycle::Upkeep, &mut Stream) -> T,
    ) -> Option<T> {
        if self.broken.contains_key(&id) {
            return None;
        }
        let stream = self.streams.get_mut(&id)?;
        let upkeep = &mut self.upkeep;
        match contain(|| step(upkeep, stream)) {
            Ok(done) => Some(done),
            Err(panic) => {
                self.break_stream(id, &panic.to_string());
                None
            }
        }
    }
}
