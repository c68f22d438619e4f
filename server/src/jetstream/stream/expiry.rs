//! What time takes: messages older than the stream's age limit, and those whose own life span has ended.
//!
//! Everything is decided from the time of the entry that is applied, and costs what it removes: the store knows which life
//! span ends next, and which message is the next that an age limit takes. One entry removes so many messages and leaves
//! the rest to the next, which follows at once since its time has passed.

use halyard_engine::{Erase, FOREVER, Filters, Store, StreamId};
use halyard_runtime::contain::panic_if_planted;
use halyard_runtime::time::Timestamp;

use super::headers::Ttl;
use super::machine::{Fault, Stream, Turn};
use crate::jetstream::limits::SWEPT_PER_ENTRY_MAX;

/// The last moment at which a message with an end can end.
const LAST: i64 = FOREVER.as_nanos() - 1;

impl Stream {
    /// Runs what is due at `turn.now`: ages, life spans, the consumers' timers. Removes at most `budget` messages one by
    /// one, and takes them from it.
    ///
    /// # Errors
    /// The store failed.
    pub fn tick(&mut self, turn: &mut Turn<'_>, budget: &mut usize) -> Result<(), Fault> {
        self.expire(turn, budget)?;
        self.dedupe.forget(turn.now);
        panic_if_planted("panic-in-tick", self.id == StreamId(1));
        self.batches.forget_idle(self.id, turn.now, turn.effects);
        let most = (*budget).min(SWEPT_PER_ENTRY_MAX);
        let mut looks = most;
        self.sweep(turn, &mut looks)?;
        *budget -= most - looks;
        self.with_consumers(turn, |consumers, ctx| consumers.tick(ctx))
    }

    /// When [`tick`](Self::tick) has something to do next.
    ///
    /// # Errors
    /// The store failed.
    pub fn next_deadline(&self, store: &Store) -> Result<Option<Timestamp>, Fault> {
        let mut next = self.consumers.next_deadline();
        let mut earlier = |time: Timestamp| next = Some(next.map_or(time, |next| next.min(time)));
        if self.config.max_age > 0
            && let Some(seq) = store.first_ageing(self.id, 0)
            && let Some(stored) = store.time_of(self.id, seq)?
        {
            earlier(self.age_ends(stored));
        }
        if let Some((time, _)) = store.next_expiry(self.id) {
            earlier(time);
        }
        if let Some(time) = self.batches.next_deadline() {
            earlier(time);
        }
        if self.sweeping.is_some() {
            earlier(Timestamp::EPOCH);
        }
        Ok(next)
    }

    /// When a message that was stored at `now` has something to do with, at the earliest: what came before it is known.
    pub fn deadline_of_new(&self, store: &Store, now: Timestamp) -> Option<Timestamp> {
        let age = (self.config.max_age > 0).then(|| self.age_ends(now));
        let own = self
            .config
            .allow_msg_ttl
            .then(|| store.next_expiry(self.id));
        let own = own.flatten().map(|(time, _)| time);
        let batch = self.batches.next_deadline();
        age.into_iter().chain(own).chain(batch).min()
    }

    fn age_ends(&self, stored: Timestamp) -> Timestamp {
        Timestamp::from_nanos(stored.as_nanos().saturating_add(self.config.max_age))
    }

    pub(super) fn expire(&mut self, turn: &mut Turn<'_>, budget: &mut usize) -> Result<(), Fault> {
        if self.config.allow_msg_ttl {
            self.expire_own(turn, budget)?;
        }
        if self.config.max_age > 0 {
            self.expire_age(turn, budget)?;
        }
        Ok(())
    }

    /// Messages with a life span of their own, in the order in which they end.
    fn expire_own(&mut self, turn: &mut Turn<'_>, budget: &mut usize) -> Result<(), Fault> {
        while *budget > 0 {
            match turn.store.next_expiry(self.id) {
                Some((time, seq)) if time <= turn.now => {
                    *budget -= 1;
                    self.expire_one(turn, seq)?;
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// Removes one message; its subject gets a marker if it was the last and the stream keeps markers.
    fn expire_one(&mut self, turn: &mut Turn<'_>, seq: u64) -> Result<(), Fault> {
        let marked = self.marked_subject(turn.store, seq)?;
        turn.store.delete(self.id, seq, Erase::No)?;
        self.removed_one(turn, seq)?;
        match marked {
            Some(subject) => self.store_marker(turn, &subject),
            None => Ok(()),
        }
    }

    /// Messages older than the stream's age limit.
    fn expire_age(&mut self, turn: &mut Turn<'_>, budget: &mut usize) -> Result<(), Fault> {
        let newest_gone = turn.now.as_nanos().saturating_sub(self.config.max_age);
        let alive = Timestamp::from_nanos(newest_gone.saturating_add(1));
        let floor = turn.store.seq_at_time(self.id, alive)?;
        let Some(first) = turn
            .store
            .first_ageing(self.id, 0)
            .filter(|seq| *seq < floor)
        else {
            return Ok(());
        };
        if self.config.subject_delete_marker_ttl > 0 || turn.store.has_life_spans(self.id) {
            return self.expire_age_singly(turn, first, floor, budget);
        }
        // A floor that rises, one step for any number of messages.
        let purge = halyard_engine::Purge {
            filters: Filters::everything(),
            below: Some(floor),
            keep: None,
        };
        turn.store.purge(self.id, &purge, Erase::No)?;
        self.removed_front(turn)
    }

    /// The same where some messages live for ever, or leave a marker.
    fn expire_age_singly(
        &mut self,
        turn: &mut Turn<'_>,
        first: u64,
        floor: u64,
        budget: &mut usize,
    ) -> Result<(), Fault> {
        let mut next = Some(first);
        while let Some(seq) = next.filter(|seq| *seq < floor && *budget > 0) {
            *budget -= 1;
            self.expire_one(turn, seq)?;
            next = turn.store.first_ageing(self.id, seq + 1);
        }
        Ok(())
    }
}

/// When a message with a life span of its own goes.
pub(super) fn expiry(ttl: Ttl, now: Timestamp) -> Timestamp {
    match ttl {
        Ttl::Nanos(nanos) if halyard_runtime::planted("early-expiry") => {
            Timestamp::from_nanos(now.as_nanos() + nanos - 1_000_000_000)
        }
        Ttl::Never => FOREVER,
        Ttl::Nanos(nanos) => Timestamp::from_nanos(now.as_nanos().saturating_add(nanos).min(LAST)),
    }
}
