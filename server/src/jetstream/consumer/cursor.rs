//! Where a consumer stands in its stream: the next message to look at, and the messages that it starts with.

use std::collections::VecDeque;

use bytes::BufMut;
use halyard_engine::{Filters, SEQUENCE_MAX};
use halyard_format::codec::{self, Malformed, Reader, put_varint};

use super::config::{ConsumerConfig, DeliverPolicy};
use super::messages::Messages;

/// The next message to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Messages to deliver first, in increasing order: the last of each subject when the consumer was made.
    first: VecDeque<u64>,
    /// Then everything from here on that matches.
    next: u64,
}

impl Cursor {
    /// Where a new consumer starts.
    pub fn start(config: &ConsumerConfig, filters: &Filters, messages: &dyn Messages) -> Self {
        let (first_seq, end) = (messages.first_seq(), messages.last_seq() + 1);
        let mut first = VecDeque::new();
        let next = match config.deliver_policy {
            DeliverPolicy::All => first_seq,
            DeliverPolicy::New => end,
            DeliverPolicy::Last => messages.last_matching(filters).unwrap_or(end),
            // It may lie beyond the end: what comes before it is then passed over.
            DeliverPolicy::ByStartSequence => {
                let start = config.opt_start_seq.min(SEQUENCE_MAX);
                start.max(first_seq.min(end))
            }
            DeliverPolicy::ByStartTime => config.opt_start_time.map_or(end, |time| {
                messages.seq_at_time(time.timestamp()).max(first_seq)
            }),
            DeliverPolicy::LastPerSubject => {
                first = messages.last_of_each_subject(filters).into();
                end
            }
        };
        assert!(next >= 1, "sequences start at 1");
        Self { first, next }
    }

    /// At a sequence, with nothing to deliver before.
    pub const fn at(next: u64) -> Self {
        Self {
            first: VecDeque::new(),
            next,
        }
    }

    /// At `next`, with `first` (rising, all before `next`) to deliver before.
    pub fn resume(next: u64, first: Vec<u64>) -> Self {
        assert!(
            first.last().is_none_or(|last| *last < next),
            "what comes first comes before"
        );
        Self {
            first: first.into(),
            next,
        }
    }

    /// Where it goes on after the messages to deliver first.
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// The messages to deliver first.
    pub fn first(&self) -> impl Iterator<Item = u64> {
        self.first.iter().copied()
    }

    /// The lowest sequence that may still be delivered.
    pub fn position(&self) -> u64 {
        self.first.front().copied().unwrap_or(self.next)
    }

    /// Whether a message that matches is still to come.
    pub fn covers(&self, seq: u64) -> bool {
        seq >= self.next || self.first.binary_search(&seq).is_ok()
    }

    /// Whether it is one of the messages to deliver first.
    pub fn lists(&self, seq: u64) -> bool {
        self.first.binary_search(&seq).is_ok()
    }

    /// The next message, which stays the next one.
    pub fn peek(&self, filters: &Filters, messages: &dyn Messages) -> Option<u64> {
        let held = self
            .first
            .iter()
            .copied()
            .find(|seq| messages.contains(*seq));
        held.or_else(|| messages.next_matching(filters, self.next))
    }

    /// The next message behind `after`, for who has sent what is up to there already.
    pub fn peek_after(
        &self,
        after: u64,
        filters: &Filters,
        messages: &dyn Messages,
    ) -> Option<u64> {
        let passed = self.first.partition_point(|seq| *seq <= after);
        let mut held = self.first.range(passed..).copied();
        let held = held.find(|seq| messages.contains(*seq));
        held.or_else(|| messages.next_matching(filters, self.next.max(after.saturating_add(1))))
    }

    /// How many messages behind `after` are still to come. Exact.
    pub fn count_after(&self, after: u64, filters: &Filters, messages: &dyn Messages) -> u64 {
        let passed = self.first.partition_point(|seq| *seq <= after);
        let first = self.first.len().saturating_sub(passed) as u64;
        first + messages.count_matching(filters, self.next.max(after.saturating_add(1)))
    }

    /// Goes on behind a message that `peek` returned.
    pub fn pass(&mut self, seq: u64) {
        while self.first.front().is_some_and(|front| *front <= seq) {
            self.first.pop_front();
        }
        if self.first.is_empty() {
            // The list is of the time of creation: what comes after it starts at `next`, which lies behind all of it.
            self.next = self.next.max(seq + 1);
        }
    }

    /// Messages below `first_seq` are gone.
    pub fn raise(&mut self, first_seq: u64) {
        while self.first.front().is_some_and(|front| *front < first_seq) {
            self.first.pop_front();
        }
        self.next = self.next.max(first_seq);
    }

    /// One message is gone.
    pub fn forget(&mut self, seq: u64) {
        if let Ok(at) = self.first.binary_search(&seq) {
            self.first.remove(at);
        }
    }

    /// Forgets what is gone from the messages that it starts with.
    pub fn retain(&mut self, messages: &dyn Messages) {
        self.first.retain(|seq| messages.contains(*seq));
    }

    /// How many messages are still to come. Exact.
    pub fn count(&self, filters: &Filters, messages: &dyn Messages) -> u64 {
        self.first.len() as u64 + messages.count_matching(filters, self.next)
    }

    /// Appends its bytes.
    pub fn encode(&self, out: &mut impl BufMut) {
        put_varint(out, self.next);
        put_varint(out, self.first.len() as u64);
        let mut before = 0;
        for seq in &self.first {
            put_varint(out, seq - before);
            before = *seq;
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// The bytes are no cursor.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let next = reader.varint()?;
        let count = reader.count()?;
        let mut first = VecDeque::with_capacity(count);
        let mut before = 0_u64;
        for _ in 0..count {
            before = codec::sum(before, reader.varint()?)?;
            first.push_back(before);
        }
        if next == 0 || first.back().is_some_and(|last| *last >= next) {
            return Err(Malformed("messages behind the cursor's end"));
        }
        Ok(Self { first, next })
    }
}
