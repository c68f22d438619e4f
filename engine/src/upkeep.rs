//! Which segments to rewrite, and when: erasure first, then space, then the number of files.
//!
//! The number of files and how often a message is rewritten are bounded by [`tiers`]. A segment of which more than half is
//! dead is rewritten, so files hold at most twice the live data and what the last flush wrote.

use std::ops::Range;

use crate::error::Error;
use crate::file_key::SealedWith;
use crate::lifecycle::{SegmentState, Upkeep};
use crate::manifest::Manifest;
use crate::removal::Removal;
use crate::segment::Cache;
use crate::store::Store;
use crate::stream::Stream;
use crate::tiers;

/// Segments below this size are left to merges even when everything in them is dead.
const RECLAIM_BYTES_MIN: u64 = 64 * 1024;
/// Removals of more subjects than this mark every segment of the stream instead of looking each one up.
const GONE_LOOKUPS_MAX: usize = 256;

/// How far erasure has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErasureProgress {
    /// A delete, purge or drop with [`crate::Erase::Yes`] waits for a flush.
    pub waits_for_flush: bool,
    /// Segments that must be rewritten.
    pub segments: usize,
    /// Of these, segments that cannot be, because they are damaged.
    pub damaged: usize,
    /// Freed files that must be overwritten, or are being.
    pub files: usize,
}

impl ErasureProgress {
    /// Nothing that was erased is left in the files of this store.
    #[must_use]
    pub fn is_done(&self) -> bool {
        *self == Self::default()
    }
}

/// How far the files are from being sealed as [`crate::Options::encryption`] says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resealing {
    /// Segments that are plain, or sealed with the previous key or another cipher: maintenance rewrites them.
    pub segments: usize,
    /// Those of them that are damaged: they stay as they are.
    pub damaged: usize,
    /// The manifest.
    pub manifest: bool,
    /// Freed files that must be overwritten, as they may have been sealed otherwise; and jobs that may be at it.
    pub files: usize,
}

impl Resealing {
    /// Everything is sealed as it should be: the previous key is not needed for this store any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        *self == Self::default()
    }
}

impl Upkeep {
    pub(crate) fn take_segment_id(&mut self) -> u64 {
        self.next_segment += 1;
        self.next_segment - 1
    }

    /// The durable manifest with the marks of now.
    pub(crate) fn next_manifest(&self) -> Manifest {
        let mut manifest = self.manifest.clone();
        assert!(
            manifest.next_segment <= self.next_segment,
            "no segment's number is given out twice"
        );
        assert_eq!(
            manifest.segments.len(),
            self.segments.len(),
            "the manifest lists the segments in use"
        );
        manifest.next_segment = self.next_segment;
        for (listed, state) in manifest.segments.iter_mut().zip(&self.segments) {
            assert_eq!(
                listed.id,
                state.segment.id(),
                "the manifest lists the segments in use"
            );
            listed.rewrite_after = state.marks.last().copied();
        }
        manifest
    }

    pub(crate) fn state_mut(&mut self, segment: u64) -> Option<&mut SegmentState> {
        self.segments
            .iter_mut()
            .find(|state| state.segment.id() == segment)
    }

    /// Whether a merge of so many bytes may find room, as far as earlier ones tell.
    fn has_room(&self, bytes: u64) -> bool {
        self.space.no_room_for.is_none_or(|none| bytes < none)
    }

    /// Bytes of these segments' files.
    pub(crate) fn bytes_of(&self, ids: &[u64]) -> u64 {
        let segments = self.segments.iter().map(|state| &state.segment);
        let inside = segments.filter(|segment| ids.contains(&segment.id()));
        inside.map(|segment| segment.file_bytes()).sum()
    }

    /// The segment holds something erased that the next flush makes durable.
    pub(crate) fn mark_rewrite(&mut self, segment: u64) {
        let (after, segment) = (self.ordinal, self.current(segment));
        if let Some(state) = self.state_mut(segment) {
            // The earlier ones stay: what they stand for is due before.
            if state.marks.last() < Some(&after) {
                state.marks.push(after);
            }
        }
    }

    /// Whether something that was erased may still lie in a file.
    pub(crate) fn erases(&self) -> bool {
        let waits = self.erase_waits || self.erase_frozen.is_some();
        waits || self.segments.iter().any(|state| !state.marks.is_empty())
    }

    /// Spared files go too once no view reads them, or at once when erasure may concern them.
    pub(crate) fn release_spared(&mut self) {
        if !self.adopting.is_empty() {
            // A stream may not have left a merge's input yet.
            return;
        }
        if self.erases() {
            self.garbage.append(&mut self.spared);
        } else {
            self.garbage.extend(self.pins.take_free(&mut self.spared));
        }
    }

    /// `count` messages that were counted as alive in the segment are not.
    pub(crate) fn uncount(&mut self, segment: u64, count: u64) {
        if let Some(state) = self.state_mut(segment) {
            state.live = state.live.saturating_sub(count);
        }
    }

    /// Marks every segment that holds bytes of what was removed: messages, or names of subjects that are gone.
    pub(crate) fn mark_erased(&mut self, stream: &Stream, io: &Cache, removal: &Removal) {
        for part in &stream.parts {
            if part.last_seq() >= removal.first && part.first_seq() <= removal.last {
                self.mark_rewrite(part.segment.id());
            }
        }
        if stream.frozen.is_some() {
            self.mark_frozen();
        }
        let names = removal.gone.as_deref();
        for part in stream.parts.iter().chain(&stream.bare) {
            let holds_name = match names {
                None => true,
                Some(names) if names.len() > GONE_LOOKUPS_MAX => true,
                // A table that cannot be read may hold the name.
                Some(names) => names
                    .iter()
                    .any(|name| !matches!(part.subject_row(io, name), Ok(None))),
            };
            if holds_name {
                self.mark_rewrite(part.segment.id());
            }
        }
    }

    /// All of the segment was read and verified: what was unreadable for a moment is no damage.
    pub(crate) fn set_sound(&mut self, segment: u64) {
        let Some(state) = self.state_mut(segment) else {
            return;
        };
        state.is_damaged = false;
        let path = state.segment.path().to_owned();
        self.damage
            .retain(|error| !matches!(error, Error::Corrupt { file, .. } if *file == path));
    }

    /// Whether that place is known to be damaged.
    pub(crate) fn knows_damage(&self, error: &Error) -> bool {
        let text = error.to_string();
        self.damage.iter().any(|have| have.to_string() == text)
    }

    pub(crate) fn set_damaged(&mut self, error: Error) {
        if let Error::Corrupt { file, .. } = &error {
            for state in self
                .segments
                .iter_mut()
                .filter(|state| state.segment.path() == file)
            {
                state.is_damaged = true;
            }
        }
        if !self.knows_damage(&error) {
            self.damage.push(error);
        }
    }

    /// Counts again what is alive of a stream that lost messages. Only what is durable counts, so it may have to wait.
    pub(crate) fn recount(&mut self, stream: &mut Stream) {
        if stream.dirty.is_some() || stream.frozen.is_some() {
            self.stale.insert(stream.id);
            return;
        }
        for at in 0..stream.parts.len() {
            let Some(part) = stream.parts.get(at) else {
                continue;
            };
            let live = stream
                .count_live(part.first_seq(), part.last_seq())
                .min(part.messages());
            let Some(part) = stream.parts.get_mut(at).filter(|part| part.live != live) else {
                continue;
            };
            let before = std::mem::replace(&mut part.live, live);
            let segment = part.segment.id();
            if let Some(state) = self.state_mut(segment) {
                state.live = (state.live + live).saturating_sub(before);
            }
        }
    }
}

impl Store {
    /// The range of segments to merge next, if any is worth it.
    pub(crate) fn pick(&self) -> Option<Range<usize>> {
        let segments = &self.upkeep.segments;
        let is_short = self.is_short();
        let room = self.free_for_rewrites();
        // Where space is short, what is all dead comes first: its rewrite takes no space and gives some.
        if is_short && let Some(first) = segments.iter().position(SegmentState::is_dead) {
            let dead: Vec<u64> = segments
                .iter()
                .skip(first)
                .take_while(|state| state.is_dead())
                .map(|state| state.segment.file_bytes())
                .collect();
            if self.upkeep.has_room(dead.iter().sum()) {
                return Some(first..first + dead.len());
            }
        }
        let usable = |state: &SegmentState| {
            let fits = state.live_bytes() <= room || state.segment.file_bytes() <= room;
            !state.is_damaged && fits && self.upkeep.has_room(state.segment.file_bytes())
        };
        if let Some(at) = self.oldest_due(&usable) {
            return Some(at..at + 1);
        }
        if is_short {
            return self.pick_worn().map(|at| at..at + 1);
        }
        let wasteful = |state: &SegmentState| {
            state.segment.file_bytes() >= RECLAIM_BYTES_MIN
                && state.live * 2 < state.segment.messages
        };
        let now = SealedWith::new(self.options.encryption.as_ref());
        // What was mended in memory is not mended in the file.
        let foreign = |state: &SegmentState| {
            state.segment.sealed_with() != now || state.segment.mended().is_some()
        };
        let first = |wanted: &dyn Fn(&SegmentState) -> bool| {
            segments
                .iter()
                .position(|state| usable(state) && wanted(state))
        };
        if let Some(at) = first(&wasteful).or_else(|| first(&foreign)) {
            return Some(at..at + 1);
        }
        let sizes = segments.iter().map(|state| {
            let bytes = state.segment.file_bytes();
            (!state.is_damaged).then_some(bytes)
        });
        let sizes: Vec<Option<u64>> = sizes.collect();
        let bounds = tiers::Bounds {
            width: self.options.merge_width,
            bytes_max: self.options.segment_bytes_max,
        };
        let spare = match self.options.reserve_bytes {
            0 => u64::MAX,
            _ => room.saturating_sub(self.low_bytes()),
        };
        tiers::pick(&sizes, bounds, |bytes| {
            bytes <= spare && self.upkeep.has_room(bytes)
        })
    }

    /// The oldest mark first: marks that keep coming must not hold up what was asked for before them.
    fn oldest_due(&self, usable: &dyn Fn(&SegmentState) -> bool) -> Option<usize> {
        let durable = self.upkeep.durable_ordinal();
        let due = self.upkeep.segments.iter().enumerate();
        let due = due.filter_map(|(at, state)| {
            let after = *state.marks.first().filter(|after| **after <= durable)?;
            usable(state).then_some((after, at))
        });
        due.min().map(|(_, at)| at)
    }

    /// Where space is short: of the segments that are worn the one of which the smallest part is alive. It may take the
    /// reserve's space: what it gives back is more than what it took.
    fn pick_worn(&self) -> Option<usize> {
        let room = self.free_with_reserve();
        let worn = self.upkeep.segments.iter().enumerate();
        let worn = worn.filter(|(_, state)| {
            state.is_worn()
                && state.live_bytes() <= room
                && self.upkeep.has_room(state.segment.file_bytes())
        });
        let part = |state: &SegmentState| {
            u128::from(state.live) * 1_000_000 / u128::from(state.segment.messages.max(1))
        };
        worn.min_by_key(|(_, state)| part(state)).map(|(at, _)| at)
    }
}

impl Store {
    /// How far the files are from being sealed with the key and cipher of now. O(segments).
    #[must_use]
    pub fn resealing(&self) -> Resealing {
        let (upkeep, now) = (
            &self.upkeep,
            SealedWith::new(self.options.encryption.as_ref()),
        );
        let segments = upkeep.segments.iter();
        let foreign = segments.filter(|state| state.segment.sealed_with() != now);
        let mut left = Resealing {
            manifest: upkeep.is_manifest_foreign,
            files: upkeep.garbage.len()
                + upkeep.spared.len()
                + upkeep.giving_way()
                + usize::from(upkeep.is_busy()),
            ..Resealing::default()
        };
        for state in foreign {
            left.segments += 1;
            left.damaged += usize::from(state.is_damaged);
        }
        left
    }

    /// How far erasure has come.
    #[must_use]
    pub fn erasure_pending(&self) -> ErasureProgress {
        let upkeep = &self.upkeep;
        ErasureProgress {
            waits_for_flush: upkeep.erase_waits || upkeep.erase_frozen.is_some(),
            ..self.erasure_up_to(u64::MAX)
        }
    }

    /// The number of the last flush that is durable; 0 before the first.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.upkeep.durable_ordinal()
    }

    /// What is left to do of everything that was erased before flush number `flush` began, once that is durable.
    #[must_use]
    pub fn erasure_up_to(&self, flush: u64) -> ErasureProgress {
        let upkeep = &self.upkeep;
        let is_marked =
            |state: &&SegmentState| state.marks.first().is_some_and(|after| *after <= flush);
        let marked = upkeep.segments.iter().filter(is_marked);
        ErasureProgress {
            waits_for_flush: false,
            segments: marked.clone().count(),
            damaged: marked.filter(|state| state.is_damaged).count(),
            files: upkeep.garbage.len() + upkeep.reaping + upkeep.giving_way(),
        }
    }

    /// Has every value that a record whose key begins with `prefix` had until now erased: each segment that may hold one
    /// is rewritten once the next flush is durable. What the record holds at that flush stays. O(segments) where no
    /// segment has a record of that kind (of the same first byte), else their records are read.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn erase_records(&mut self, prefix: &[u8]) -> Result<(), Error> {
        self.check_writable()?;
        let holding = self.upkeep.segments.iter().map(|state| &state.segment);
        // A segment whose records cannot be read may hold one.
        let holding = holding.filter(|segment| segment.holds_record(prefix).unwrap_or(true));
        let holding: Vec<u64> = holding.map(|segment| segment.id()).collect();
        let upkeep = &mut self.upkeep;
        let is_frozen = upkeep.freezes_record(prefix);
        if is_frozen {
            upkeep.erase_frozen = Some(upkeep.ordinal);
        }
        upkeep.erase_waits |= is_frozen || !holding.is_empty();
        for segment in holding {
            upkeep.mark_rewrite(segment);
        }
        Ok(())
    }
}
