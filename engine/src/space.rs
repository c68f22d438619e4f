//! Room on the disk: how much there is, what is set aside, and for how many more messages that is enough.
//!
//! Every message that is taken must be written once more, by a flush; until then the log keeps it, and nothing that was
//! deleted since gives any space. So a flush must never be what finds no room. Two things see to that:
//!
//! - The store's `reserve` file holds more than a flush writes. It grows with the store, up to
//!   [`crate::Options::reserve_bytes`], gives its space to a flush that finds none, and is taken again afterwards. Without it
//!   no message is taken, unless there is plenty of space.
//! - Messages are refused ([`Store::accepting`], [`Store::room`]) while less than [`Store::low_bytes`] is free: what a
//!   rewrite of a segment may need, which is how the space of deleted messages comes back.
//!
//! What the disk says is as old as the last look: [`Store::look_at_space`], and the end of each job.

use crate::error::Error;
use crate::lifecycle::{SegmentState, Upkeep};
use crate::store::Store;

/// The shortest reserve of a store that holds anything.
const RESERVE_MIN: u64 = 256 * 1024;
/// With so many times the whole reserve and what is not flushed free it does not matter how much of the reserve is taken.
const PLENTY: u64 = 2;
/// What a rewritten segment has beyond its messages, roughly.
const SEGMENT_OVERHEAD: u64 = 64 * 1024;

/// What is known of the room on the disk.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Free bytes at the last look; `None`: the disk did not tell.
    pub(crate) free: Option<u64>,
    /// Bytes of the reserve's file.
    pub(crate) held: u64,
    /// The last flush found the disk full.
    pub(crate) no_room: bool,
    /// A merge of so many bytes found the disk full: smaller ones go first, and such ones once something has changed.
    pub(crate) no_room_for: Option<u64>,
    /// Bytes of messages for which there should be room; see [`Store::want_room`].
    pub(crate) wanted: u64,
    /// Memory of what the flush under way writes.
    pub(crate) frozen_weight: u64,
}

impl Upkeep {
    /// What a flush would write of everything that is applied, roughly.
    fn unflushed(&self) -> u64 {
        self.dirty_weight + self.space.frozen_weight
    }

    fn file_bytes(&self) -> impl Iterator<Item = u64> {
        self.segments.iter().map(|state| state.segment.file_bytes())
    }
}

impl Store {
    /// Asks the disk how much is free.
    pub fn look_at_space(&mut self) {
        let free = self.disk.free_bytes(&self.dir).ok();
        let space = &mut self.upkeep.space;
        if free
            .zip(space.free)
            .is_none_or(|(now, before)| now > before)
        {
            space.no_room_for = None;
        }
        space.free = free;
    }

    /// Free bytes at the last look.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.upkeep.space.free.unwrap_or(u64::MAX)
    }

    /// Below so many free bytes messages are refused: half of the largest segment, as a segment is rewritten once more than
    /// half of it is dead; but no more than a small part of the disk, and no less than a part of the reserve.
    #[must_use]
    pub fn low_bytes(&self) -> u64 {
        let reserve = self.options.reserve_bytes;
        let largest = self.upkeep.file_bytes().max().unwrap_or(0);
        let most = reserve.max(self.options.segment_bytes_max / 2);
        (largest / 2).clamp(reserve / 4, most)
    }

    /// How long the reserve should be by now: of an empty store nothing, then with what is stored, up to all.
    pub(crate) fn reserve_wanted(&self) -> u64 {
        let stored = self.upkeep.file_bytes().sum::<u64>() + self.upkeep.unflushed();
        if stored == 0 {
            return 0;
        }
        let grown = stored.checked_next_power_of_two().unwrap_or(u64::MAX);
        grown.max(RESERVE_MIN).min(self.options.reserve_bytes)
    }

    /// Whether the reserve should be made longer, or gives back what is too much, and can be.
    pub(crate) fn reserve_is_due(&self) -> bool {
        let (wanted, space) = (self.reserve_wanted(), &self.upkeep.space);
        let missing = wanted.saturating_sub(space.held);
        let fits = space
            .free
            .is_none_or(|free| free >= missing.saturating_add(self.low_bytes()));
        (missing > 0 && fits) || space.held > self.options.reserve_bytes
    }

    /// Bytes of messages that may still be taken: each of them is written to the log and then by a flush.
    #[must_use]
    pub fn room(&self) -> u64 {
        let (space, reserve) = (&self.upkeep.space, self.options.reserve_bytes);
        if space.no_room {
            return 0;
        }
        let (Some(free), true) = (space.free, reserve > 0) else {
            return u64::MAX;
        };
        let (low, unflushed) = (self.low_bytes(), self.upkeep.unflushed());
        let is_plenty = free / PLENTY >= reserve.saturating_add(unflushed);
        if free < low || (space.held < self.reserve_wanted() && !is_plenty) {
            return 0;
        }
        let all = free.saturating_add(space.held);
        all.saturating_sub(low).saturating_sub(unflushed) / 2
    }

    /// Whether publishes should be accepted. Asked by the leader before it proposes, never while applying: replicas must
    /// not decide differently because their disks do.
    ///
    /// # Errors
    /// [`Error::Full`] while there is no [`Store::room`]; [`Error::Poisoned`].
    pub fn accepting(&self) -> Result<(), Error> {
        self.check_writable()?;
        match self.room() {
            0 => Err(Error::Full {
                path: self.dir.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether a flush would have something removed become durable, which is what gives its space back.
    #[must_use]
    pub fn frees_by_flush(&self) -> bool {
        self.upkeep.removed_since_cut
    }

    /// Says that messages of so many bytes wait for room, which is then made where something deleted holds it; 0 for none.
    pub const fn want_room(&mut self, bytes: u64) {
        self.upkeep.space.wanted = bytes;
    }

    /// Space is what is missing: maintenance does what gives some.
    pub(crate) fn is_short(&self) -> bool {
        let wanted = self.upkeep.space.wanted.max(1);
        self.options.reserve_bytes > 0 && self.room() < wanted
    }

    /// Bytes that a rewrite may take: what is free, but for what a flush needs.
    pub(crate) fn free_for_rewrites(&self) -> u64 {
        let free = self.upkeep.space.free.unwrap_or(u64::MAX);
        free.saturating_sub(self.upkeep.unflushed())
    }

    /// The same with the reserve: for a rewrite that gives back more than it takes, as long as no flush needs that.
    pub(crate) fn free_with_reserve(&self) -> u64 {
        let space = &self.upkeep.space;
        let usable = match space.no_room {
            true => 0,
            false => space.held,
        };
        self.free_for_rewrites().saturating_add(usable)
    }
}

impl SegmentState {
    /// About how long the segment will be when it is rewritten.
    pub(crate) fn live_bytes(&self) -> u64 {
        let (all, live) = (self.segment.messages, self.live);
        if all == 0 {
            // Records only.
            return self.segment.file_bytes();
        }
        let bytes = u128::from(self.segment.file_bytes()) * u128::from(live) / u128::from(all);
        u64::try_from(bytes).unwrap_or(u64::MAX) + SEGMENT_OVERHEAD
    }

    /// Nothing in it is alive.
    pub(crate) fn is_dead(&self) -> bool {
        !self.is_damaged && self.live == 0 && self.segment.messages > 0
    }

    /// So much of it is dead that a rewrite is worth its work where space is short: an eighth.
    pub(crate) fn is_worn(&self) -> bool {
        let dead = self.segment.messages.saturating_sub(self.live);
        !self.is_damaged && dead > 0 && dead.saturating_mul(8) >= self.segment.messages
    }
}
