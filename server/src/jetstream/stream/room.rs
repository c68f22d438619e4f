//! Limits on number and bytes: what a stored message pushes out.

use halyard_engine::{Erase, Filters};

use super::machine::{Fault, Stream, Turn};
use crate::jetstream::config::{Discard, StreamConfig};
use crate::jetstream::limits::EXPIRED_PER_TICK_MAX;

/// Subjects looked at in one step while a smaller limit is enforced.
const SUBJECTS_PER_STEP: usize = 4096;

impl Stream {
    /// After a message of `subject` was stored: its subject's limit first, then the stream's, oldest first.
    /// Of a stream that refuses what does not fit only the subject's limit pushes messages out.
    pub(super) fn make_room(&mut self, turn: &mut Turn<'_>, subject: &[u8]) -> Result<(), Fault> {
        if let Some(max) = StreamConfig::limit(self.config.max_msgs_per_subject) {
            while let Some(totals) = turn.store.subject_totals(self.id, subject)? {
                if totals.messages <= max {
                    break;
                }
                turn.store.delete(self.id, totals.first_seq, Erase::No)?;
                self.removed_one(turn, totals.first_seq)?;
            }
        }
        self.trim(turn)
    }

    /// After the configuration changed: everything that no longer fits goes. A stream that refuses what does not fit keeps what
    /// it has, and refuses until there is room.
    pub(super) fn fit(&mut self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        if let Some(max) = StreamConfig::limit(self.config.max_msgs_per_subject) {
            self.fit_subjects(turn, max)?;
        }
        self.trim(turn)?;
        self.expire(turn, &mut { EXPIRED_PER_TICK_MAX })
    }

    fn fit_subjects(&mut self, turn: &mut Turn<'_>, max: u64) -> Result<(), Fault> {
        let mut after: Option<bytes::Bytes> = None;
        let mut removed = false;
        loop {
            let everything = Filters::everything();
            let page =
                turn.store
                    .subjects(self.id, &everything, after.as_deref(), SUBJECTS_PER_STEP)?;
            let Some(last) = page.last() else {
                break;
            };
            after = Some(last.subject.clone());
            for totals in page.iter().filter(|totals| totals.messages > max) {
                let Ok(filters) = Filters::parse(&[&totals.subject]) else {
                    continue;
                };
                let purge = halyard_engine::Purge {
                    filters,
                    below: None,
                    keep: Some(max),
                };
                removed |= turn.store.purge(self.id, &purge, Erase::No)? > 0;
            }
        }
        if removed {
            self.removed_many(turn)
        } else {
            Ok(())
        }
    }

    /// The stream's own limits: the oldest messages go until the rest fits.
    fn trim(&mut self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        let messages = StreamConfig::limit(self.config.max_msgs);
        let bytes = StreamConfig::limit(self.config.max_bytes);
        if self.config.discard == Discard::New || (messages.is_none() && bytes.is_none()) {
            return Ok(());
        }
        let mut removed = false;
        loop {
            let state = turn.store.state(self.id)?;
            let over = messages.is_some_and(|max| state.messages > max)
                || bytes.is_some_and(|max| state.bytes > max);
            if !over || state.messages == 0 {
                break;
            }
            turn.store.remove_first(self.id)?;
            removed = true;
        }
        if removed {
            self.removed_front(turn)
        } else {
            Ok(())
        }
    }
}
