//! Which messages waiting requests get: redeliveries first, then what the cursor finds, one message to each in turn.

use std::collections::VecDeque;

use super::command::Grant;
use super::machine::{Changes, Consumer};
use super::messages::Messages;

/// Messages that one command selects at most: applying it must stay short. The leader asks again.
pub const SELECT_MESSAGES_MAX: usize = 4096;
/// Bytes that one command selects at most, where sizes are looked at.
pub const SELECT_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// One message for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Sequence in the stream.
    pub stream_seq: u64,
    /// Sequence in the consumer.
    pub consumer_seq: u64,
    /// How often it was sent, this time included.
    pub count: u32,
    /// Number of the request in the command.
    pub grant: u32,
    /// Messages that are still to come after it.
    pub unseen: u64,
}

/// What became of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Messages that it may still get.
    pub batch: u32,
    /// Bytes that it may still get; 0 is no limit.
    pub max_bytes: u64,
    /// The next message did not fit into what was left of its bytes.
    pub too_big: bool,
}

impl Outcome {
    /// A request that got nothing yet.
    pub const fn of(grant: &Grant) -> Self {
        Self {
            batch: grant.batch,
            max_bytes: grant.max_bytes,
            too_big: false,
        }
    }
}

impl Delivery {
    /// Bytes of the changing part of its ack subject: clients of the peer count them too.
    pub fn ack_digits(&self) -> u64 {
        const TIME_DIGITS: u64 = 19;
        const DOTS: u64 = 4;
        let digits = |number: u64| number.checked_ilog10().map_or(1, |log| u64::from(log) + 1);
        let numbers = [
            u64::from(self.count),
            self.stream_seq,
            self.consumer_seq,
            self.unseen,
        ];
        TIME_DIGITS + DOTS + numbers.into_iter().map(digits).sum::<u64>()
    }
}

/// What a deliver command selected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// In the order in which they are sent.
    pub deliveries: Vec<Delivery>,
    /// One for each grant, in their order.
    pub outcomes: Vec<Outcome>,
    /// There may be more at once: it stopped at its own limit.
    pub more: bool,
}

impl Consumer {
    /// Selects messages for the grants and remembers them as delivered.
    pub fn select(
        &mut self,
        grants: &[Grant],
        stream: &str,
        messages: &dyn Messages,
        to: &mut Changes<'_>,
    ) -> Selection {
        let mut outcomes: Vec<Outcome> = grants.iter().map(Outcome::of).collect();
        let mut selection = Selection::default();
        if self.is_paused(to.now) {
            selection.outcomes = outcomes;
            return selection;
        }
        // `$JS.ACK.<stream>.<consumer>.`
        let ack_bytes = (10 + stream.len() + self.config.name.len()) as u64;
        let sized = grants.iter().any(|grant| grant.max_bytes > 0);
        let mut turns: VecDeque<u32> = (0_u32..).take(grants.len()).collect();
        turns.retain(|at| {
            outcomes
                .get(*at as usize)
                .is_some_and(|grant| grant.batch > 0)
        });
        let mut unseen = self.unseen(messages);
        let mut bytes = 0;
        while !turns.is_empty() {
            if selection.deliveries.len() >= SELECT_MESSAGES_MAX || bytes >= SELECT_BYTES_MAX {
                selection.more = true;
                break;
            }
            let Some((seq, is_new)) = self.next(messages, to) else {
                break;
            };
            let after = unseen.saturating_sub(u64::from(is_new));
            let mut delivery = Delivery {
                stream_seq: seq,
                consumer_seq: self.delivered().consumer.saturating_add(1),
                count: self.sent_before(seq).saturating_add(1),
                grant: 0,
                unseen: after,
            };
            let size = match sized {
                true => messages.size(seq).unwrap_or(0) + ack_bytes + delivery.ack_digits(),
                false => 0,
            };
            let Some(grant) = fitting(&mut turns, &mut outcomes, size) else {
                break;
            };
            delivery.grant = grant;
            if is_new {
                self.cursor.pass(seq);
            }
            unseen = after;
            self.deliver(seq, to.now);
            bytes += size;
            selection.deliveries.push(delivery);
        }
        selection.outcomes = outcomes;
        selection
    }

    /// The next message to send, and whether it was never sent before.
    fn next(&mut self, messages: &dyn Messages, to: &mut Changes<'_>) -> Option<(u64, bool)> {
        while let Some(seq) = self.pending.next_queued() {
            if messages.contains(seq) {
                return Some((seq, false));
            }
            self.lost(seq, to);
        }
        if !self.has_room() {
            return None;
        }
        self.cursor
            .peek(&self.filters, messages)
            .map(|seq| (seq, true))
    }
}

/// The request whose turn it is and that has room for the message; those before it that have not are finished.
pub(super) fn fitting(
    turns: &mut VecDeque<u32>,
    outcomes: &mut [Outcome],
    size: u64,
) -> Option<u32> {
    while let Some(at) = turns.pop_front() {
        let Some(outcome) = outcomes.get_mut(at as usize) else {
            continue;
        };
        if outcome.max_bytes > 0 && size > outcome.max_bytes {
            outcome.too_big = true;
            continue;
        }
        outcome.batch -= 1;
        if outcome.max_bytes > 0 {
            outcome.max_bytes -= size;
            if outcome.max_bytes == 0 && outcome.batch > 0 {
                outcome.too_big = true;
            }
        }
        if outcome.batch > 0 && !outcome.too_big {
            turns.push_back(at);
        }
        return Some(at);
    }
    None
}
