//! What a store is in the middle of, and the short steps that lead from one stage to the next.
//!
//!   flush        idle -> cut -> frozen -> job out -> (adopting) -> idle
//!   maintenance  idle -> counting -> planning -> ready -> job out -> idle
//!                                     a merge: -> job out -> written -> swap job out -> (adopting) -> idle
//!
//! A flush and a piece of maintenance may be out at one time, but of those that write the manifest (a flush, and the swap
//! that puts a merged segment in the place of its inputs) only one. So manifests follow one another, each made from the
//! one before.
//!
//! Nothing here is long: a cut is O(1) whatever has changed since the last one, and everything that goes through many
//! streams is done in steps of as many as the caller says ([`Store::step`]). Between steps the store serves and changes
//! as ever. A stream that is about to change before its turn is frozen first, so the frozen state is that of the cut.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::flush::Frozen;
use crate::job::{Job, Place, Reserve, Work};
use crate::lifecycle::{SegmentState, Upkeep};
use crate::manifest::Manifest;
use crate::merge::{MergePlan, View};
use crate::message::StreamId;
use crate::segment::{Segment, Written};
use crate::store::Store;
use crate::stream::Stream;

/// Where a flush is. While its job is out it is frozen.
#[derive(Debug, Default)]
pub(crate) enum FlushStage {
    #[default]
    Idle,
    /// What changed before the cut is being frozen.
    Cut(Cut),
    /// To be written, or to be written again because the disk was full.
    Frozen(Arc<Frozen>),
}

/// A state that is being frozen.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) frozen: Frozen,
    /// Dropped before the cut.
    pub(crate) dropped: BTreeMap<StreamId, View>,
    /// Changed before the cut; some of them may have had their turn.
    pub(crate) pending: Vec<StreamId>,
    /// Records that belong to it may still come: see [`Store::keep`].
    pub(crate) is_open: bool,
}

/// A merged segment that no manifest names yet, and what it replaces.
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) written: Written,
    pub(crate) inputs: MergeInputs,
}

/// What a merge was planned over.
#[derive(Debug, Clone)]
pub(crate) struct MergeInputs {
    pub(crate) ids: Vec<u64>,
    /// The last flush that was durable then: what that had removed is not in the merged segment.
    pub(crate) durable: u64,
}

/// Views for a merge are being collected.
#[derive(Debug)]
pub(crate) struct Planning {
    pub(crate) plan: MergePlan,
    pub(crate) inputs: MergeInputs,
    /// The last stream whose view was taken: first of those that are there, then of those dropped since the last cut.
    done: Option<StreamId>,
    is_at_dropped: bool,
}

/// Maintenance that is ready to go, or out.
#[derive(Debug)]
pub(crate) enum Chore {
    Reap(Vec<PathBuf>),
    /// Make the reserve as long as it should be.
    Reserve,
    Scrub(Arc<Segment>, u64),
    /// Write the manifest again: sealed as files are now, and both copies sound.
    Reseal,
    Merge(MergePlan, MergeInputs),
}

/// Where maintenance is.
#[derive(Debug, Default)]
pub(crate) enum Maintenance {
    #[default]
    Idle,
    /// What is alive in the segments is counted again, so that the choice is good.
    Counting(BTreeSet<StreamId>),
    Planning(Planning),
    Ready(Chore),
    /// A job is out that writes no manifest. With inputs it is a merge.
    Out(Option<MergeInputs>),
    /// The reserve's job is out; a flush could want to release what it takes.
    Reserving,
    Written(Merged),
    Swapping(Merged),
    Resealing,
}

impl Cut {
    /// Every stream has had its turn.
    fn is_frozen(&self) -> bool {
        self.pending.is_empty() && self.dropped.is_empty()
    }
}

impl Upkeep {
    /// Freezes a stream that changed before the cut and has not had its turn. Must come before any change of it.
    pub(crate) fn settle(&mut self, stream: &mut Stream) {
        let FlushStage::Cut(cut) = &mut self.flush else {
            return;
        };
        if stream.dirty == Some(cut.frozen.ordinal) {
            let id = stream.id;
            cut.frozen.streams.push((id, Some(stream.freeze())));
        }
    }

    /// Whether something waits for [`Store::step`].
    fn has_steps(&self) -> bool {
        let is_freezing = match &self.flush {
            FlushStage::Cut(cut) => !cut.is_open || !cut.is_frozen(),
            FlushStage::Idle | FlushStage::Frozen(_) => false,
        };
        is_freezing
            || !self.adopting.is_empty()
            || matches!(
                self.maintenance,
                Maintenance::Counting(_) | Maintenance::Planning(_)
            )
    }

    /// Whether a job is out beside which no flush may run.
    fn writes_manifest(&self) -> bool {
        matches!(
            self.maintenance,
            Maintenance::Swapping(_) | Maintenance::Reserving | Maintenance::Resealing
        )
    }

    /// Whether a job may be out, or what one wrote is on its way.
    pub(crate) fn is_busy(&self) -> bool {
        let is_idle = matches!(self.maintenance, Maintenance::Idle);
        self.is_flush_out || !is_idle || !self.adopting.is_empty()
    }

    /// Whether a flush that is not durable yet writes a record whose key begins with `prefix`.
    pub(crate) fn freezes_record(&self, prefix: &[u8]) -> bool {
        let records = match &self.flush {
            FlushStage::Idle => return false,
            FlushStage::Cut(cut) => &cut.frozen.records,
            FlushStage::Frozen(frozen) => &frozen.records,
        };
        records.keys().any(|key| key.starts_with(prefix))
    }

    /// A stream was dropped while views for a merge are collected: the durable state still has it.
    pub(crate) fn note_dropped_view(&mut self, id: StreamId, view: &View) {
        if let Maintenance::Planning(planning) = &mut self.maintenance {
            planning.plan.dropped.push((id, view.clone()));
        }
    }

    /// The manifest in which a merged segment has taken the place of its inputs.
    fn swapped_manifest(&self, merged: &Merged) -> Manifest {
        let (segment, ids) = (&merged.written.0, &merged.inputs.ids);
        let mut manifest = self.next_manifest();
        let mut listed = crate::job::listed(segment);
        listed.rewrite_after = self.late_marks(&merged.inputs).last().copied();
        let at = manifest
            .segments
            .iter()
            .position(|listed| ids.contains(&listed.id));
        let before = manifest.segments.len();
        manifest.segments.retain(|listed| !ids.contains(&listed.id));
        assert_eq!(
            before - manifest.segments.len(),
            ids.len(),
            "all inputs of a merge are listed until the swap"
        );
        let at = at.expect("a merge has inputs");
        manifest.segments.insert(at, listed);
        assert!(
            manifest.segments.is_sorted_by(|a, b| a.hi < b.lo),
            "segments stand in the order of their flushes"
        );
        manifest.version += 1;
        manifest
    }

    /// The marks that a merge's inputs got after it was planned: for flushes that were not durable then. Ascending.
    pub(crate) fn late_marks(&self, inputs: &MergeInputs) -> Vec<u64> {
        let states = self.segments.iter();
        let inside = states.filter(|state| inputs.ids.contains(&state.segment.id()));
        let marks = inside.flat_map(|state| &state.marks).copied();
        let late: BTreeSet<u64> = marks.filter(|&after| after > inputs.durable).collect();
        late.into_iter().collect()
    }
}

/// Starting.
impl Store {
    /// Marks everything applied so far as what the next flush writes; `checkpoint` is its place in the log. O(1).
    /// Whether there is a flush to write now: after [`Store::records_done`], [`Store::step`] prepares it and
    /// [`Store::take_job`] starts it.
    ///
    /// `false` when nothing was applied since the last one, a flush is out, steps are left to do, a stream is broken, or the
    /// store is poisoned. After a flush that found the disk full this asks for the same one again, or for one of the state of
    /// now if something was removed since.
    pub fn cut(&mut self, checkpoint: impl Into<Checkpoint>) -> bool {
        let checkpoint = checkpoint.into();
        let applied = checkpoint.applied;
        let upkeep = &mut self.upkeep;
        if upkeep.poisoned.is_some() || upkeep.is_flush_out || upkeep.writes_manifest() {
            return false;
        }
        if !self.broken.is_empty() {
            return false;
        }
        if upkeep.space.no_room && upkeep.removed_since_cut && !upkeep.has_steps() {
            self.thaw();
        }
        let upkeep = &mut self.upkeep;
        match &upkeep.flush {
            FlushStage::Idle => {}
            FlushStage::Cut(_) => return true,
            FlushStage::Frozen(_) => {
                upkeep.is_flush_wanted = true;
                return true;
            }
        }
        let durable = upkeep.manifest.applied;
        assert!(applied >= durable, "the applied index never goes back");
        let nothing = upkeep.dirty.is_empty()
            && upkeep.dropped.is_empty()
            && upkeep.records.is_empty()
            && !upkeep.erase_waits;
        if upkeep.has_steps() || (nothing && applied == durable) {
            return false;
        }
        let frozen = Frozen {
            ordinal: upkeep.ordinal,
            checkpoint,
            digest: self.digest,
            streams: Vec::with_capacity(upkeep.dirty.len() + upkeep.dropped.len()),
            records: std::mem::take(&mut upkeep.records),
            dropped: Vec::new(),
        };
        upkeep.flush = FlushStage::Cut(Cut {
            frozen,
            dropped: std::mem::take(&mut upkeep.dropped),
            pending: std::mem::take(&mut upkeep.dirty),
            is_open: true,
        });
        upkeep.ordinal += 1;
        upkeep.space.frozen_weight = std::mem::take(&mut upkeep.dirty_weight);
        upkeep.removed_since_cut = false;
        upkeep.erase_waits = false;
        upkeep.is_flush_wanted = true;
        true
    }

    /// Whether the last cut waits for records: see [`Store::keep`].
    #[must_use]
    pub fn is_cut_open(&self) -> bool {
        matches!(&self.upkeep.flush, FlushStage::Cut(cut) if cut.is_open)
    }

    /// Sets or removes one of the machine's own records that only repeats what it has decided before: the digest does
    /// not tell whether, or how often. Between a cut and [`Store::records_done`] the record belongs to the cut and must be
    /// of its state; it has not been set or removed since.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn keep(&mut self, key: &[u8], value: Option<Bytes>) -> Result<(), Error> {
        self.check_writable()?;
        let key = Bytes::copy_from_slice(key);
        match &value {
            Some(value) => drop(self.records.insert(key.clone(), value.clone())),
            None => drop(self.records.remove(&key)),
        }
        match &mut self.upkeep.flush {
            FlushStage::Cut(cut) if cut.is_open => {
                assert!(
                    !self.upkeep.records.contains_key(&key),
                    "a record of the cut comes before those of the next"
                );
                cut.frozen.records.insert(key, value);
            }
            _ => self.upkeep.note_record(key, value),
        }
        Ok(())
    }

    /// The last cut has all its records.
    pub fn records_done(&mut self) {
        if let FlushStage::Cut(cut) = &mut self.upkeep.flush {
            cut.is_open = false;
        }
    }

    /// Looks for the most useful piece of maintenance: mending the manifest, overwriting freed files, erasure, taking space back, merging.
    /// [`Store::step`] prepares it, [`Store::take_job`] starts it.
    pub fn look_for_maintenance(&mut self) {
        self.take_met();
        self.look_at_space();
        let (is_short, reserve_is_due) = (self.is_short(), self.reserve_is_due());
        let upkeep = &mut self.upkeep;
        if upkeep.poisoned.is_some() || !matches!(upkeep.maintenance, Maintenance::Idle) {
            return;
        }
        upkeep.release_spared();
        if upkeep.mend_manifest && matches!(upkeep.flush, FlushStage::Idle) {
            upkeep.maintenance = Maintenance::Ready(Chore::Reseal);
        } else if !upkeep.garbage.is_empty() {
            // One after the other where space is short, so that the first one's is there at once.
            let count = if is_short { 1 } else { upkeep.garbage.len() };
            let files: Vec<PathBuf> = upkeep.garbage.drain(..count).collect();
            upkeep.reaping = files.len();
            upkeep.maintenance = Maintenance::Ready(Chore::Reap(files));
        } else if reserve_is_due {
            upkeep.maintenance = Maintenance::Ready(Chore::Reserve);
        } else if upkeep.adopting.is_empty()
            && matches!(upkeep.flush, FlushStage::Idle)
            && self.broken.is_empty()
        {
            // A flush that is not durable comes first: what is dead in it may not be dropped.
            let stale = std::mem::take(&mut upkeep.stale);
            upkeep.maintenance = Maintenance::Counting(stale);
        }
    }

    /// The next job, if one is ready: run it, and give what it returns to [`Store::accept`] or [`Store::finish`].
    pub fn take_job(&mut self) -> Option<Job> {
        self.take_maintenance().or_else(|| self.take_flush())
    }

    /// The next job, if it is a flush.
    pub fn take_flush(&mut self) -> Option<Job> {
        let upkeep = &mut self.upkeep;
        let FlushStage::Frozen(frozen) = &upkeep.flush else {
            return None;
        };
        let is_free =
            upkeep.poisoned.is_none() && !upkeep.is_flush_out && !upkeep.writes_manifest();
        if !is_free || !upkeep.is_flush_wanted || !self.broken.is_empty() {
            return None;
        }
        let frozen = frozen.clone();
        upkeep.is_flush_out = true;
        upkeep.is_flush_wanted = false;
        let work = Work::Flush {
            frozen,
            segment: upkeep.take_segment_id(),
            manifest: upkeep.next_manifest(),
        };
        Some(self.job(work))
    }

    pub(crate) fn take_maintenance(&mut self) -> Option<Job> {
        let (wanted, low) = (self.reserve_wanted(), self.low_bytes());
        let upkeep = &mut self.upkeep;
        if upkeep.poisoned.is_some() {
            return None;
        }
        let reserve = Reserve {
            wanted,
            low,
            most: self.options.reserve_bytes,
        };
        let (next, work) = match std::mem::take(&mut upkeep.maintenance) {
            Maintenance::Written(merged) if !upkeep.is_flush_out => {
                let manifest = upkeep.swapped_manifest(&merged);
                (Maintenance::Swapping(merged), Work::Swap { manifest })
            }
            Maintenance::Ready(Chore::Reserve) if !upkeep.is_flush_out => {
                (Maintenance::Reserving, Work::Reserve(reserve))
            }
            Maintenance::Ready(Chore::Reseal) if !upkeep.is_flush_out => {
                let mut manifest = upkeep.next_manifest();
                manifest.version += 1;
                (Maintenance::Resealing, Work::Swap { manifest })
            }
            Maintenance::Ready(Chore::Reap(files)) => {
                (Maintenance::Out(None), Work::Reap { files })
            }
            Maintenance::Ready(Chore::Scrub(segment, offset)) => {
                let is_start = offset == Segment::scrub_start();
                let work = Work::Scrub {
                    segment,
                    offset,
                    manifest: is_start.then(|| upkeep.manifest.clone()),
                };
                (Maintenance::Out(None), work)
            }
            Maintenance::Ready(Chore::Merge(plan, inputs)) => {
                let segment = upkeep.take_segment_id();
                (
                    Maintenance::Out(Some(inputs)),
                    Work::Merge { plan, segment },
                )
            }
            other => {
                upkeep.maintenance = other;
                return None;
            }
        };
        upkeep.maintenance = next;
        Some(self.job(work))
    }

    fn job(&self, work: Work) -> Job {
        let place = Place {
            disk: self.disk.clone(),
            dir: self.dir.clone(),
            options: self.options.clone(),
        };
        Job { place, work }
    }

    /// Cut, steps and job in one: O(changed streams and subjects). `None` when there is nothing to flush, a flush is out,
    /// a merged segment is taking its place, or the store is poisoned.
    pub fn begin_flush(&mut self, checkpoint: impl Into<Checkpoint>) -> Option<Job> {
        while self.step(usize::MAX) {}
        if !self.cut(checkpoint) {
            return None;
        }
        self.records_done();
        while self.step(usize::MAX) {}
        self.take_flush()
    }

    /// Look, steps and job in one. `None` when there is nothing to do, maintenance is out, or the store is poisoned.
    pub fn begin_maintenance(&mut self) -> Option<Job> {
        while self.step(usize::MAX) {}
        self.look_for_maintenance();
        while self.step(usize::MAX) {}
        self.take_maintenance()
    }

    /// Starts verifying the next [`crate::Options::scrub_bytes`] of the segments, round and round; the caller sets the
    /// pace. `None` when there is no segment, maintenance is out or waits, or the store is poisoned.
    pub fn begin_scrub(&mut self) -> Option<Job> {
        if !matches!(self.upkeep.maintenance, Maintenance::Idle) {
            return None;
        }
        let (id, offset) = self.upkeep.scrub.unwrap_or((0, Segment::scrub_start()));
        let segments = self.upkeep.segments.iter().map(|state| &state.segment);
        let next = segments.filter(|segment| segment.id() >= id);
        let segment = next.min_by_key(|segment| segment.id())?.clone();
        let offset = if segment.id() == id {
            offset
        } else {
            Segment::scrub_start()
        };
        self.upkeep.maintenance = Maintenance::Ready(Chore::Scrub(segment, offset));
        self.take_maintenance()
    }
}

/// Steps.
impl Store {
    /// Does a bounded piece of what is left to do in memory: about `streams_max` streams. Whether there is more.
    pub fn step(&mut self, streams_max: usize) -> bool {
        if !self.upkeep.adopting.is_empty() {
            self.adopt_some(streams_max);
        } else if matches!(self.upkeep.flush, FlushStage::Cut(_)) {
            self.freeze_some(streams_max);
        } else {
            self.prepare_maintenance(streams_max);
        }
        self.upkeep.has_steps()
    }

    fn freeze_some(&mut self, streams_max: usize) {
        let FlushStage::Cut(mut cut) = std::mem::take(&mut self.upkeep.flush) else {
            return;
        };
        for _ in 0..streams_max {
            if let Some((id, view)) = cut.dropped.pop_first() {
                cut.frozen.streams.push((id, None));
                cut.frozen.dropped.push((id, view));
                continue;
            }
            let Some(id) = cut.pending.pop() else {
                break;
            };
            let of_cut = Some(cut.frozen.ordinal);
            let frozen = self.with_sound(id, |_, stream| {
                (stream.dirty == of_cut).then(|| stream.freeze())
            });
            if let Some(stream) = frozen.flatten() {
                cut.frozen.streams.push((id, Some(stream)));
            }
        }
        self.upkeep.flush = if cut.is_frozen() && !cut.is_open {
            FlushStage::Frozen(Arc::new(cut.frozen))
        } else {
            FlushStage::Cut(cut)
        };
    }

    fn prepare_maintenance(&mut self, streams_max: usize) {
        match std::mem::take(&mut self.upkeep.maintenance) {
            Maintenance::Counting(mut stale) => {
                for _ in 0..streams_max {
                    let Some(id) = stale.pop_first() else { break };
                    self.with_sound(id, Upkeep::recount);
                }
                self.upkeep.maintenance = if !self.broken.is_empty() {
                    self.upkeep.stale.extend(stale);
                    Maintenance::Idle
                } else if stale.is_empty() {
                    self.choose_merge()
                } else {
                    Maintenance::Counting(stale)
                };
            }
            Maintenance::Planning(planning) => {
                self.upkeep.maintenance = self.collect_views(planning, streams_max);
            }
            other => self.upkeep.maintenance = other,
        }
    }

    fn choose_merge(&self) -> Maintenance {
        let Some(range) = self.pick() else {
            // The segments first: each of them brings a new manifest.
            return if self.upkeep.is_manifest_foreign {
                Maintenance::Ready(Chore::Reseal)
            } else {
                Maintenance::Idle
            };
        };
        let states = self.upkeep.segments.get(range.clone());
        let states = states.expect("what was picked is there");
        let segments: Vec<_> = states.iter().map(|state| state.segment.clone()).collect();
        assert!(!segments.is_empty(), "a merge has inputs");
        let inputs = MergeInputs {
            ids: segments.iter().map(|segment| segment.id()).collect(),
            durable: self.upkeep.durable_ordinal(),
        };
        let later = self.upkeep.segments.iter().skip(range.end);
        let plan = MergePlan {
            inputs: segments,
            later: later.map(|state| state.segment.clone()).collect(),
            views: Vec::with_capacity(self.streams.len()),
            dropped: Vec::new(),
            is_oldest: range.start == 0,
            overhead: self.options.overhead,
            uses_reserve: self.is_short()
                && states.iter().map(SegmentState::live_bytes).sum::<u64>()
                    > self.free_for_rewrites(),
        };
        Maintenance::Planning(Planning {
            plan,
            inputs,
            done: None,
            is_at_dropped: false,
        })
    }

    /// Takes the durable views of the next streams. No flush becomes durable while this goes on, so all are of one state.
    fn collect_views(&self, mut planning: Planning, streams_max: usize) -> Maintenance {
        assert_eq!(
            planning.inputs.durable,
            self.upkeep.durable_ordinal(),
            "views are of one durable state"
        );
        let from = planning.done.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (from, Bound::Unbounded);
        let before = planning.done;
        let mut count = 0;
        if planning.is_at_dropped {
            for (&id, view) in self.upkeep.dropped.range(range).take(streams_max) {
                planning.plan.dropped.push((id, view.clone()));
                (planning.done, count) = (Some(id), count + 1);
            }
        } else {
            for (&id, stream) in self.streams.range(range).take(streams_max) {
                planning.plan.views.push((id, View::of(stream)));
                (planning.done, count) = (Some(id), count + 1);
            }
        }
        assert!(planning.done >= before, "streams are gone through once");
        if count == streams_max {
            return Maintenance::Planning(planning);
        }
        if planning.is_at_dropped {
            return Maintenance::Ready(Chore::Merge(planning.plan, planning.inputs));
        }
        planning.is_at_dropped = true;
        planning.done = None;
        Maintenance::Planning(planning)
    }
}
