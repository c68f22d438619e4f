//! Space of a group: what there is room for, when the disk is asked again, and who is told that there is none.
//!
//! The store says how many bytes of messages it may still take, and the disk how many are free; both are asked now and then,
//! and what was proposed since is counted against them. Where messages have no room they are refused, and nothing else is:
//! deletes, purges and acknowledgements make room.

use std::time::Duration;

use halyard_runtime::time::Instant;

use super::{Driver, SHORT_INTERVAL};
use crate::broker::FlushScope;
use crate::jetstream::api::errors::table;
use crate::jetstream::handle::GroupHandle;
use crate::jetstream::inbox::Gathered;

/// The disk is asked for its free space after so many seconds, or after so many parts of what there was room for have been
/// taken since.
const SPACE_LOOK: (Duration, u64) = (Duration::from_secs(1), 8);
/// A group counts as short of space for so long after it has refused a message.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// What the driver remembers of the space.
pub(super) struct Space {
    looked_at: Instant,
    /// Bytes proposed since then.
    taken: u64,
    /// Whether it was last said that space is short, and when.
    told: (bool, Instant),
    /// The longest entry that was refused a moment ago, and when: room is made for it, though shorter ones may still have some.
    wanted: Option<(Instant, u64)>,
}

impl Space {
    pub(super) fn new() -> Self {
        Self {
            looked_at: Instant::now(),
            taken: 0,
            told: (false, Instant::now()),
            wanted: None,
        }
    }

    /// Bytes were proposed.
    pub(super) const fn took(&mut self, bytes: u64) {
        self.taken = self.taken.saturating_add(bytes);
    }

    /// Whether what is known of the free space, for `room` bytes, is too old, or too much was written since. If so it is about
    /// to be asked for.
    fn is_stale(&mut self, room: u64, is_short: bool) -> bool {
        let (seconds, part) = SPACE_LOOK;
        let taken = self.taken.saturating_mul(part) >= room;
        let longest = if is_short { SHORT_INTERVAL } else { seconds };
        if !taken && self.looked_at.elapsed() < longest {
            return false;
        }
        self.looked_at = Instant::now();
        self.taken = 0;
        true
    }

    /// Bytes of messages for which there was no room a moment ago.
    pub(super) fn wanted(&self) -> u64 {
        let recent = self.wanted.filter(|(at, _)| at.elapsed() < REFUSED_FOR);
        recent.map_or(0, |(_, bytes)| bytes)
    }

    /// There was room for an entry, and there is for one so long.
    fn accepted(&mut self, room: u64) {
        self.wanted = self.wanted.filter(|(_, wanted)| *wanted > room);
    }

    /// There was none for one so long.
    fn refused(&mut self, bytes: u64) {
        self.wanted = Some((Instant::now(), bytes.max(self.wanted())));
    }

    /// Whether messages were refused a moment ago: large ones may be where small ones still have room.
    fn has_refused(&self) -> bool {
        self.wanted() > 0
    }

    /// Says when messages begin to be refused, and when that is over, but not each time at the brink. Whether it said the first.
    fn tell(&mut self, group: &GroupHandle, is_full: bool) -> bool {
        let (told, since) = self.told;
        if is_full == told || since.elapsed() < SPACE_LOOK.0 {
            return false;
        }
        self.told = (is_full, Instant::now());
        let name = group.name();
        if is_full {
            tracing::error!(
                "the {name} group: too little space is left: messages are refused until there is more; free some, or delete or \
                 purge streams"
            );
        } else {
            tracing::info!("the {name} group: there is space again, messages are taken");
        }
        is_full
    }
}

impl Driver {
    /// Sees to it that messages in what was gathered have room, or are refused.
    pub(super) fn make_sure_of_space(&mut self, gathered: &mut Gathered) {
        if !gathered.has_messages() {
            return;
        }
        let bytes = gathered.entry_bytes() as u64;
        if self.has_space(bytes) {
            let room = self.seen.room.saturating_sub(self.bytes_in_flight as u64);
            self.space.accepted(room);
        } else {
            self.refuse_messages(gathered);
            assert!(!gathered.has_messages(), "what was refused is not written");
        }
    }

    /// Whether messages of an entry so long have room in the store and in the log.
    fn has_space(&self, bytes: u64) -> bool {
        let is_full = self.seen.is_full || self.group.raft().is_full();
        !is_full && self.bytes_in_flight as u64 + bytes <= self.seen.room
    }

    /// Whether the log has no room for what is on its way: nobody knows when it will be written, and a stop waits no longer.
    /// Who waits for an answer gets none.
    pub(super) fn waits_for_space(&self) -> bool {
        self.group.raft().is_full()
    }

    /// Whether space is what is missing.
    pub(super) fn is_short(&self) -> bool {
        self.seen.is_full || self.group.raft().is_full() || self.space.wanted() > self.seen.room
    }

    /// A full disk: tells who sent messages that they were not written. What is gathered with them goes on: deletes, purges
    /// and acknowledgements make room, and must not fail because somebody publishes at the same time.
    fn refuse_messages(&mut self, gathered: &mut Gathered) {
        self.space.refused(gathered.entry_bytes() as u64);
        self.note_space();
        let mut messages = gathered.take_messages();
        let scope = FlushScope::new();
        let refusal = table::INSUFFICIENT_RESOURCES.error();
        self.answers
            .refuse(&mut messages, &refusal, &mut self.leader);
        drop(scope);
    }

    /// Whether the store should ask the disk how much is free.
    pub(super) fn space_is_stale(&mut self) -> bool {
        let is_short = self.is_short();
        self.space.is_stale(self.seen.room, is_short)
    }

    /// Tells the group and people whether messages are refused, or were a moment ago.
    pub(super) fn note_space(&mut self) {
        let is_full = self.seen.is_full || self.space.has_refused();
        self.group.set_refusing(is_full);
        if self.space.tell(&self.group, is_full) {
            self.leader.out_of_storage();
        }
    }
}
