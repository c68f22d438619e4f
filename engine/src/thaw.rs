//! Taking a flush back that found no room: the frozen state becomes part of the active one again.
//!
//! What is frozen is written as it was, also what was deleted since, as a replay after a crash deletes it again. So on a full
//! disk deletes would never make such a flush smaller. After a thaw the next flush is cut anew: it writes what is alive by
//! then, and may be as small as a manifest.
//!
//! Nothing on the disk knows of it: the durable state is the one before the flush, as if it had not been begun. The number
//! of the flush is not used again.

use std::sync::Arc;

use crate::flush::{Frozen, FrozenStream};
use crate::message::Append;
use crate::stages::FlushStage;
use crate::store::Store;
use crate::stream::Stream;
use crate::tail::TailEntry;

impl Store {
    /// Takes the last flush back, if it failed and is not being tried. O(messages that it was to write).
    pub(crate) fn thaw(&mut self) {
        assert!(
            !self.upkeep.is_flush_out,
            "a flush that is out stays frozen"
        );
        let FlushStage::Frozen(frozen) = std::mem::take(&mut self.upkeep.flush) else {
            return;
        };
        let frozen = match Arc::try_unwrap(frozen) {
            Ok(frozen) => frozen,
            Err(shared) => {
                self.upkeep.flush = FlushStage::Frozen(shared);
                return;
            }
        };
        let Frozen {
            streams,
            records,
            dropped,
            ..
        } = frozen;
        let upkeep = &mut self.upkeep;
        for (id, view) in dropped {
            // What was dropped first is what the durable state has.
            upkeep.dropped.insert(id, view);
        }
        for (id, was) in streams {
            let Some(was) = was else { continue };
            let view = upkeep.dropped.get_mut(&id);
            if let Some(view) = view.filter(|view| view.born == was.born()) {
                // It was dropped since.
                view.thaw(was.dead(), was.passed());
            }
            let found = self.streams.get_mut(&id);
            if let Some(stream) = found.filter(|stream| stream.born == was.born()) {
                let before = stream.tail.weight();
                stream.thaw(was);
                upkeep.dirty_weight += stream.tail.weight().saturating_sub(before);
                upkeep.note_dirty(stream);
            }
        }
        for (key, value) in records {
            if !upkeep.records.contains_key(&key) {
                upkeep.note_record(key, value);
            }
        }
        // What is erased was in memory only, but for the half-written file, which was overwritten.
        upkeep.erase_waits |= upkeep.erase_frozen.take().is_some();
        upkeep.space.frozen_weight = 0;
        upkeep.space.no_room = false;
        upkeep.is_flush_wanted = false;
    }
}

impl Stream {
    /// Takes back what was frozen.
    fn thaw(&mut self, was: FrozenStream) {
        assert!(self.frozen.is_some(), "it was frozen and is not durable");
        self.frozen = None;
        let mut tail = self.tail.fresh();
        let fresh = self.tail.fresh();
        let active = std::mem::replace(&mut self.tail, fresh);
        for entry in was
            .tail()
            .iter_from(self.first_seq)
            .chain(active.iter_from(self.first_seq))
        {
            if self.is_live(entry.seq) {
                tail.push(entry.seq, entry.append());
            }
        }
        self.tail = tail;
        self.fresh_dead.union(was.dead());
        self.passed_dead.union(was.passed());
        for (name, _) in was.subjects() {
            self.subjects.touch(name);
        }
    }
}

impl TailEntry {
    /// The message as it was appended.
    fn append(&self) -> Append {
        Append {
            record: self.record.clone(),
            subject_len: self.subject_len,
            headers_len: self.headers_len,
            time: self.time(),
            expires: self.expires(),
        }
    }
}
