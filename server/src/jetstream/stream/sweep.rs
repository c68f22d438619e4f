//! A stream that keeps messages for its consumers, after what they want has changed: what nobody needs any more goes.
//!
//! Acks and deletes of consumers release the messages that they are about. Where a stream begins to keep messages for its
//! consumers, or a consumer gets other filters, any message may have lost its last reader: all of them are looked at, in
//! order, so many with one entry, and the rest with the ticks that follow at once.
//!
//! A stream that begins to keep by interest drops what its consumers are done with. What none of them ever wanted stays, as
//! with the peer: nobody has asked for it to go. A consumer that gives a subject up asks for that.

use halyard_engine::{Erase, Filters, Purge};
use serde::{Deserialize, Serialize};

use super::machine::{Fault, Stream, Turn};
use crate::jetstream::config::Retention;
use crate::jetstream::limits::SWEPT_PER_ENTRY_MAX;

/// How far such a look has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sweep {
    next: u64,
    /// Messages of subjects that no consumer wants go, too.
    takes_unwanted: bool,
}

impl Stream {
    /// Looks at every message from now on, beginning with the first.
    pub(super) fn begin_sweep(
        &mut self,
        turn: &mut Turn<'_>,
        takes_unwanted: bool,
    ) -> Result<(), Fault> {
        self.touch();
        self.sweeping = None;
        if self.config.retention != Retention::Interest {
            return Ok(());
        }
        if self.consumers.is_empty() {
            let everything = Purge {
                filters: Filters::everything(),
                below: None,
                keep: None,
            };
            turn.store.purge(self.id, &everything, Erase::No)?;
            return Ok(());
        }
        self.sweep_from_first(turn, takes_unwanted)
    }

    /// A backup may bring messages that its consumers are done with: in a stream that keeps messages for them these go.
    pub(super) fn sweep_restored(&mut self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        if self.config.retention == Retention::Limits || self.consumers.is_empty() {
            return Ok(());
        }
        self.sweep_from_first(turn, false)
    }

    fn sweep_from_first(&mut self, turn: &mut Turn<'_>, takes_unwanted: bool) -> Result<(), Fault> {
        self.sweeping = Some(Sweep {
            next: 0,
            takes_unwanted,
        });
        self.sweep(turn, &mut { SWEPT_PER_ENTRY_MAX })
    }

    /// Looks at the next messages, at most `budget`, and takes them from it.
    pub(super) fn sweep(&mut self, turn: &mut Turn<'_>, budget: &mut usize) -> Result<(), Fault> {
        let Some(mut sweep) = self.sweeping else {
            return Ok(());
        };
        self.touch();
        while *budget > 0 {
            let seq = turn.store.first_at_or_after(self.id, sweep.next);
            let Some(seq) = seq.filter(|seq| !self.consumers.want_all_from(*seq)) else {
                self.sweeping = None;
                return Ok(());
            };
            *budget -= 1;
            let subject = turn.store.subject_of(self.id, seq)?;
            let subject = subject.expect("the message was just found");
            let stays = self.consumers.is_needed(seq, &subject)
                || !(sweep.takes_unwanted || self.consumers.has_interest(&subject));
            if !stays {
                turn.store.delete(self.id, seq, Erase::No)?;
                self.removed_one(turn, seq)?;
            }
            sweep.next = seq.saturating_add(1);
            self.sweeping = Some(sweep);
        }
        Ok(())
    }
}
