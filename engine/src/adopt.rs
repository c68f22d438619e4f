//! Jobs come home: what one wrote is durable and counts as such at once, and then streams are given their parts of it.
//!
//! The second half is done in steps (`stages.rs`). Until its turn a stream reads what it read before: the frozen tail, or the
//! inputs of a merge, whose files are freed only when the last stream has left them.

use std::path::PathBuf;
use std::sync::Arc;

use halyard_runtime::contain::contain;

use crate::error::Error;
use crate::flush::Frozen;
use crate::job::{JobDone, JobKind, Outcome};
use crate::lifecycle::{Finished, SegmentState, Upkeep};
use crate::manifest::Manifest;
use crate::message::StreamId;
use crate::segment::entry::{Present, StreamEntry};
use crate::segment::{Part, Segment, Written};
use crate::stages::{FlushStage, Maintenance, Merged};
use crate::store::Store;

/// A durable segment that streams are being given their parts of.
#[derive(Debug)]
pub(crate) struct Adopting {
    segment: Arc<Segment>,
    entries: std::vec::IntoIter<StreamEntry>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The frozen tails give way. Kept to be freed at the end.
    Flush(Arc<Frozen>),
    /// These segments give way, and their files go when no stream reads them any more.
    Merge(Vec<u64>, Vec<PathBuf>),
}

/// What a flush leaves in memory: freeing it takes time that nobody needs to wait for.
#[derive(Debug)]
pub struct Retired {
    _frozen: Arc<Frozen>,
}

impl Upkeep {
    /// Erased messages are in a tail that was frozen: the segment that it becomes must be rewritten.
    pub(crate) fn mark_frozen(&mut self) {
        let flushed = self
            .adopting
            .iter()
            .find(|adopting| matches!(adopting.source, Source::Flush(_)));
        match flushed.map(|adopting| adopting.segment.id()) {
            Some(segment) => self.mark_rewrite(segment),
            None => self.erase_frozen = Some(self.ordinal),
        }
    }

    /// Files of segments that a merge has replaced and streams have not left yet.
    pub(crate) fn giving_way(&self) -> usize {
        let files = self.adopting.iter().map(|adopting| match &adopting.source {
            Source::Flush(_) => 0,
            Source::Merge(_, files) => files.len(),
        });
        files.sum()
    }

    /// The segment that stands for `segment` in the manifest: a stream may not have left a merge's input yet.
    pub(crate) fn current(&self, segment: u64) -> u64 {
        let replaced = self.adopting.iter().find(|adopting| {
            matches!(&adopting.source, Source::Merge(replaced, _) if replaced.contains(&segment))
        });
        replaced.map_or(segment, |adopting| adopting.segment.id())
    }
}

impl Store {
    /// Takes in what a job did, steps included: O(streams in the segment that it wrote).
    ///
    /// # Errors
    /// As [`Store::accept`].
    pub fn finish(&mut self, done: JobDone) -> Result<Finished, Error> {
        let finished = self.accept(done)?;
        while self.step(usize::MAX) {}
        self.upkeep.retired = None;
        Ok(finished)
    }

    /// Takes in what a job did; O(segments). What it wrote is durable and counts as such; [`Store::step`] then gives
    /// streams their parts of it.
    ///
    /// # Errors
    /// What the job met. [`Error::passes`]: nothing is lost, the next [`Store::cut`] tries again. [`Error::Corrupt`]: a merge
    /// met damage; the segment stays as it is. Any other poisons the store: it only serves reads.
    pub fn accept(&mut self, done: JobDone) -> Result<Finished, Error> {
        let upkeep = &mut self.upkeep;
        let maintenance = match done.kind {
            JobKind::Flush => {
                assert!(upkeep.is_flush_out, "a job that is finished was begun");
                upkeep.is_flush_out = false;
                Maintenance::Idle
            }
            JobKind::Maintenance => {
                let before = std::mem::take(&mut upkeep.maintenance);
                assert!(
                    matches!(
                        before,
                        Maintenance::Out(_)
                            | Maintenance::Reserving
                            | Maintenance::Swapping(_)
                            | Maintenance::Resealing
                    ),
                    "a job that is finished was begun"
                );
                upkeep.reaping = 0;
                before
            }
        };
        // After a failed write nothing more counts as durable, whatever the other job says: the next opening finds out.
        self.check_writable()?;
        let upkeep = &mut self.upkeep;
        let more = done.free.zip(upkeep.space.free);
        let has_grown = more.is_none_or(|(now, before)| now > before);
        upkeep.space.free = done.free;
        if has_grown || matches!(done.outcome, Ok(Outcome::Reaped | Outcome::Flushed { .. })) {
            upkeep.space.no_room_for = None;
        }
        upkeep.garbage.extend(done.leftovers);
        if done.released_reserve {
            upkeep.space.held = 0;
        }
        let mut finished = Finished {
            applied: 0,
            bytes_written: done.bytes_written,
            has_changed: match &done.outcome {
                Ok(Outcome::Reserved(held)) => held.is_some_and(|held| held != upkeep.space.held),
                Ok(Outcome::Scrubbed(_)) | Err(_) => false,
                Ok(_) => true,
            },
            damage: Vec::new(),
        };
        match (done.outcome, maintenance) {
            (Ok(Outcome::Flushed { written, manifest }), _) => self.flushed(written, manifest),
            (Ok(Outcome::Merged { written }), Maintenance::Out(Some(inputs))) => {
                self.upkeep.maintenance = Maintenance::Written(Merged { written, inputs });
            }
            (Ok(Outcome::Swapped { manifest }), Maintenance::Swapping(merged)) => {
                self.swapped(merged, manifest);
            }
            (Ok(Outcome::Swapped { manifest }), Maintenance::Resealing) => {
                self.upkeep.wrote_manifest(manifest, &self.dir);
            }
            (Ok(Outcome::Reserved(Some(held))), _) => self.upkeep.space.held = held,
            (Ok(Outcome::Scrubbed(scrubbed)), _) => {
                finished.damage = self.scrubbed(scrubbed);
            }
            (Ok(_), _) => {}
            (Err(Error::Job { what }), Maintenance::Out(Some(inputs))) => {
                finished.damage = self.merge_broke(&inputs.ids, &what);
            }
            (Err(error), maintenance) => {
                match (&error, maintenance) {
                    // The segment is there; its place in the manifest is tried again.
                    (passing, Maintenance::Swapping(merged)) if passing.passes() => {
                        self.upkeep.maintenance = Maintenance::Written(merged);
                    }
                    (Error::Full { .. }, Maintenance::Out(Some(inputs))) => {
                        self.upkeep.space.no_room_for = Some(self.upkeep.bytes_of(&inputs.ids));
                    }
                    _ => {}
                }
                let is_flush = done.kind == JobKind::Flush;
                return Err(self.failed(error, done.is_read_only_failure, is_flush));
            }
        }
        finished.applied = self.applied();
        Ok(finished)
    }

    fn flushed(&mut self, written: Option<Written>, manifest: Manifest) {
        let upkeep = &mut self.upkeep;
        assert!(
            matches!(upkeep.flush, FlushStage::Frozen(_)),
            "what is flushed was frozen"
        );
        let FlushStage::Frozen(frozen) = std::mem::take(&mut upkeep.flush) else {
            return;
        };
        assert_eq!(
            manifest.next_ordinal, upkeep.ordinal,
            "flushes become durable in order"
        );
        upkeep.wrote_manifest(manifest, &self.dir);
        upkeep.space.no_room = false;
        upkeep.space.frozen_weight = 0;
        let Some((segment, entries)) = written else {
            return;
        };
        assert!(
            entries.is_sorted_by(|a, b| a.id < b.id),
            "each stream has one entry in a segment"
        );
        assert!(
            upkeep
                .segments
                .last()
                .is_none_or(|last| last.segment.hi < segment.lo),
            "a flush comes behind those before it"
        );
        upkeep.segments.push(SegmentState {
            live: segment.messages,
            segment: segment.clone(),
            marks: upkeep.erase_frozen.take().into_iter().collect(),
            is_damaged: false,
        });
        upkeep.adopting.push_back(Adopting {
            segment,
            entries: entries.into_iter(),
            source: Source::Flush(frozen),
        });
    }

    /// A merged segment is in the manifest in place of its inputs.
    fn swapped(&mut self, merged: Merged, manifest: Manifest) {
        let Merged { written, inputs } = merged;
        let (segment, entries) = written;
        let upkeep = &mut self.upkeep;
        // Marks that came while the jobs ran are for a flush that was not durable when it was planned.
        let late = upkeep.late_marks(&inputs);
        let is_replaced = |state: &SegmentState| inputs.ids.contains(&state.segment.id());
        let at = upkeep.segments.iter().position(is_replaced);
        let replaced = upkeep.segments.iter().filter(|state| is_replaced(state));
        let mut files: Vec<PathBuf> = replaced
            .map(|state| state.segment.path().to_owned())
            .collect();
        assert_eq!(files.len(), inputs.ids.len(), "inputs stay until the swap");
        if !upkeep.erases() {
            upkeep.spared.append(&mut files);
        }
        upkeep.segments.retain(|state| !is_replaced(state));
        let state = SegmentState {
            live: segment.messages,
            segment: segment.clone(),
            marks: late,
            is_damaged: false,
        };
        let at = at.expect("a merge has inputs");
        upkeep.segments.insert(at, state);
        assert!(
            upkeep
                .segments
                .is_sorted_by(|a, b| a.segment.hi < b.segment.lo),
            "segments stand in the order of their flushes"
        );
        upkeep.wrote_manifest(manifest, &self.dir);
        upkeep.adopting.push_back(Adopting {
            segment,
            entries: entries.into_iter(),
            source: Source::Merge(inputs.ids, files),
        });
    }

    /// Gives the next streams their parts of the oldest segment that has some to give.
    pub(crate) fn adopt_some(&mut self, streams_max: usize) {
        let Some(mut adopting) = self.upkeep.adopting.pop_front() else {
            return;
        };
        for _ in 0..streams_max {
            let Some(StreamEntry { id, present }) = adopting.entries.next() else {
                break;
            };
            if let Some(present) = present {
                let (segment, source) = (&adopting.segment, &adopting.source);
                if let Err(panic) = contain(|| self.adopt(id, present, segment, source)) {
                    self.break_stream(id, &panic.to_string());
                }
            }
        }
        if !adopting.entries.as_slice().is_empty() {
            self.upkeep.adopting.push_front(adopting);
            return;
        }
        match adopting.source {
            Source::Flush(frozen) => self.upkeep.retired = Some(Retired { _frozen: frozen }),
            Source::Merge(_, files) => self.upkeep.garbage.extend(files),
        }
    }

    /// Gives a stream its part of a new segment, in place of what held the same messages until now.
    fn adopt(&mut self, id: StreamId, present: Present, segment: &Arc<Segment>, source: &Source) {
        let born = present.meta.born;
        let is_flush = matches!(source, Source::Flush(_));
        if is_flush
            && let Some(view) = self.upkeep.dropped.get_mut(&id)
            && view.born == born
        {
            // It was dropped while the job ran.
            view.first_seq = present.meta.first_seq;
        }
        let found = self.streams.get_mut(&id);
        let Some(stream) = found.filter(|stream| stream.born == born) else {
            self.upkeep.uncount(segment.id(), present.part.messages);
            return;
        };
        match source {
            Source::Flush(_) => {
                stream.frozen = None;
                stream.durable_first = present.meta.first_seq;
            }
            Source::Merge(replaced, _) => {
                let is_kept = |part: &Part| !replaced.contains(&part.segment.id());
                stream.parts.retain(is_kept);
                stream.bare.retain(is_kept);
            }
        }
        let (has_messages, has_rows) = (present.part.messages > 0, present.subjects > 0);
        let part = Part::new(segment.clone(), present);
        if has_messages {
            if !stream.is_complete(&part) {
                self.upkeep.stale.insert(id);
            }
            let parts = &mut stream.parts;
            let at = parts.partition_point(|have| have.first_seq() < part.first_seq());
            parts.insert(at, part);
        } else if has_rows {
            stream.bare.push(part);
        }
    }

    /// What the last flush left in memory, to be dropped where nobody waits for it.
    pub fn take_retired(&mut self) -> Option<Retired> {
        self.upkeep.retired.take()
    }
}
