//! What time takes: messages older than the stream's age limit, and those whose own life span has ended.

use halyard_engine::{Erase, Filters};
use halyard_runtime::time::Timestamp;

use super::machine::{Fault, Stream, Turn};
use crate::jetstream::limits::EXPIRED_PER_TICK_MAX;

/// The life span of a message that never expires. The end of time itself is how the store writes "none".
pub(super) const FOREVER: Timestamp = Timestamp::from_nanos(i64::MAX - 1);

/// How often a stream that mixes an age limit with messages that never expire is looked at, nanoseconds.
const RECHECK: i64 = 250_000_000;

impl Stream {
    /// Runs what is due at `turn.now`: ages, life spans, the consumers' timers.
    ///
    /// # Errors
    /// The store failed.
    pub fn tick(&mut self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        self.expire(turn)?;
        self.dedupe.forget(turn.now);
        self.with_consumers(turn, |consumers, ctx| consumers.tick(ctx))
    }

    /// When [`tick`](Self::tick) has something to do next. It may turn out to be nothing.
    ///
    /// # Errors
    /// The store failed.
    pub fn next_deadline(
        &self,
        store: &halyard_engine::Store,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Fault> {
        let mut next = self.consumers.next_deadline();
        let mut earlier = |time: Timestamp| next = Some(next.map_or(time, |next| next.min(time)));
        if self.config.max_age > 0 {
            let state = store.state(self.id)?;
            if state.messages > 0 {
                let due = state
                    .first_time
                    .as_nanos()
                    .saturating_add(self.config.max_age);
                // Still there though due: the first message lives for ever. Look again a little later.
                let floor = if self.config.allow_msg_ttl {
                    now.as_nanos() + RECHECK
                } else {
                    0
                };
                earlier(Timestamp::from_nanos(due.max(floor)));
            }
        }
        if self.config.allow_msg_ttl
            && let Some((time, _)) = store.next_expiry(self.id)
            && time != FOREVER
        {
            earlier(time);
        }
        Ok(next)
    }

    pub(super) fn expire(&mut self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        if self.config.allow_msg_ttl {
            self.expire_own(turn)?;
        }
        if self.config.max_age > 0 {
            self.expire_age(turn)?;
        }
        Ok(())
    }

    /// Messages with a life span of their own.
    fn expire_own(&mut self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        for _ in 0..EXPIRED_PER_TICK_MAX {
            match turn.store.next_expiry(self.id) {
                Some((time, seq)) if time <= turn.now => {
                    turn.store.delete(self.id, seq, Erase::No)?;
                    self.removed_one(turn, seq)?;
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// Messages older than the stream's age limit: a floor that rises, one step for any number of messages.
    fn expire_age(&mut self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        let newest_gone = turn.now.as_nanos().saturating_sub(self.config.max_age);
        let alive = Timestamp::from_nanos(newest_gone.saturating_add(1));
        let floor = turn.store.seq_at_time(self.id, alive)?;
        let state = turn.store.state(self.id)?;
        if state.messages == 0 || floor <= state.first_seq {
            return Ok(());
        }
        if self.config.allow_msg_ttl {
            return self.expire_age_singly(turn, floor);
        }
        let purge = halyard_engine::Purge {
            filters: Filters::everything(),
            below: Some(floor),
            keep: None,
        };
        turn.store.purge(self.id, &purge, Erase::No)?;
        self.removed_front(turn)
    }

    /// The same where some messages may live for ever.
    fn expire_age_singly(&mut self, turn: &mut Turn<'_>, floor: u64) -> Result<(), Fault> {
        let mut next = 0;
        let mut removed = 0;
        while removed < EXPIRED_PER_TICK_MAX {
            let Some(seq) = turn
                .store
                .first_at_or_after(self.id, next)
                .filter(|seq| *seq < floor)
            else {
                break;
            };
            next = seq + 1;
            let message = turn.store.get(self.id, seq)?;
            if message.is_some_and(|message| message.expires != Some(FOREVER)) {
                turn.store.delete(self.id, seq, Erase::No)?;
                removed += 1;
            }
        }
        if removed > 0 {
            self.removed_many(turn)
        } else {
            Ok(())
        }
    }
}
