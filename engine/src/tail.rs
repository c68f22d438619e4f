//! Messages of one stream that are applied and not yet in a segment, with their own posting lists.
//!
//! A tail belongs to a generation: the messages between two flushes. The active one grows and loses entries; when a flush
//! begins it is frozen as it is, shared with the flush job, and a new one starts. The records are the very buffers that
//! the log wrote. An entry is one cache line; a subject's first message of a generation costs a posting and its name, later
//! ones four bytes each.
//!
//! A tail does not know which of its entries have died after it was frozen: callers ask the stream.

use std::collections::VecDeque;

use bytes::Bytes;
use halyard_runtime::time::Timestamp;

use crate::error::Error;
use crate::limits::TAIL_ENTRIES_MAX;
use crate::message::Append;
use crate::names::Names;
use crate::options::HashKey;

/// A tail with room for more messages gives it back when it is empty.
const ENTRIES_KEPT: usize = 16;

/// `TailEntry::expires` of a message without a TTL of its own.
const NEVER: i64 = i64::MAX;

#[derive(Debug, Clone)]
pub(crate) struct TailEntry {
    pub(crate) record: Bytes,
    pub(crate) seq: u64,
    time: i64,
    expires: i64,
    pub(crate) headers_len: u32,
    pub(crate) subject_len: u16,
    is_dead: bool,
}

const _: () = assert!(
    size_of::<TailEntry>() <= 72,
    "about one cache line for each message"
);

impl TailEntry {
    pub(crate) fn subject(&self) -> &[u8] {
        let subject = self.record.get(..usize::from(self.subject_len));
        subject.expect("a record begins with its subject")
    }

    pub(crate) fn time(&self) -> Timestamp {
        Timestamp::from_nanos(self.time)
    }

    pub(crate) fn expires(&self) -> Option<Timestamp> {
        (self.expires != NEVER).then_some(Timestamp::from_nanos(self.expires))
    }
}

/// Where one subject's messages are: numbers of entries, ascending.
#[derive(Debug)]
struct Posting {
    first: u32,
    rest: Vec<u32>,
}

#[derive(Debug)]
pub(crate) struct Tail {
    entries: VecDeque<TailEntry>,
    /// Entries that were removed from the front; entry number = index + popped.
    popped: u32,
    /// The subjects; their numbers are the slots of their postings.
    subjects: Names,
    postings: Vec<Posting>,
    live_bytes: u64,
    pushed: u32,
}

impl Tail {
    /// Another one under the same key.
    pub(crate) fn fresh(&self) -> Self {
        Self::new(self.subjects.key().clone())
    }

    /// Nothing; `key` decides the slots of its subjects.
    pub(crate) fn new(key: HashKey) -> Self {
        Self {
            entries: VecDeque::new(),
            popped: 0,
            subjects: Names::new(key),
            postings: Vec::new(),
            live_bytes: 0,
            pushed: 0,
        }
    }

    pub(crate) fn first_seq(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.seq)
    }

    pub(crate) fn last_seq(&self) -> Option<u64> {
        self.entries.back().map(|entry| entry.seq)
    }

    /// Memory that a flush would free, roughly, in bytes.
    pub(crate) fn weight(&self) -> u64 {
        let postings = self.subjects.heap_bytes() + self.postings.len() * size_of::<Posting>();
        self.live_bytes
            + 64 * self.entries.len() as u64
            + 4 * u64::from(self.pushed)
            + postings as u64
    }

    /// Refuses when no entry number is left.
    pub(crate) fn check_room(&self) -> Result<(), Error> {
        if self.pushed >= TAIL_ENTRIES_MAX {
            return Err(Error::Limit {
                what: "messages between two flushes",
                limit: TAIL_ENTRIES_MAX.into(),
            });
        }
        Ok(())
    }

    /// Adds a message.
    pub(crate) fn push(&mut self, seq: u64, append: Append) {
        assert!(
            self.last_seq().is_none_or(|last| last < seq),
            "sequences rise"
        );
        assert!(self.pushed < TAIL_ENTRIES_MAX, "checked by the stream");
        let number = self.pushed;
        self.pushed += 1;
        self.live_bytes += append.record.len() as u64;
        let entry = TailEntry {
            record: append.record,
            seq,
            time: append.time.as_nanos(),
            expires: append.expires.map_or(NEVER, Timestamp::as_nanos),
            headers_len: append.headers_len,
            subject_len: append.subject_len,
            is_dead: false,
        };
        debug_assert_eq!(
            (number - self.popped) as usize,
            self.entries.len(),
            "an entry's number tells its index"
        );
        let (slot, is_new) = self.subjects.find_or_add(entry.subject());
        debug_assert_eq!(
            is_new,
            slot as usize == self.postings.len(),
            "a new name has the next slot"
        );
        self.entries.push_back(entry);
        if is_new {
            self.postings.push(Posting {
                first: number,
                rest: Vec::new(),
            });
        } else {
            let posting = self.postings.get_mut(slot as usize);
            posting.expect("every name has a posting").rest.push(number);
        }
    }

    fn index_of(&self, seq: u64) -> Option<usize> {
        let first = self.first_seq()?;
        let guess = usize::try_from(seq.checked_sub(first)?).ok()?;
        if self
            .entries
            .get(guess)
            .is_some_and(|entry| entry.seq == seq)
        {
            return Some(guess);
        }
        // Sequences were skipped somewhere before it.
        self.entries
            .binary_search_by_key(&seq, |entry| entry.seq)
            .ok()
    }

    /// The entry of that sequence, unless it died before the tail was frozen.
    pub(crate) fn get(&self, seq: u64) -> Option<&TailEntry> {
        self.entries
            .get(self.index_of(seq)?)
            .filter(|entry| !entry.is_dead)
    }

    /// Entries at or after `seq` that were alive when the tail was frozen.
    pub(crate) fn iter_from(&self, seq: u64) -> impl Iterator<Item = &TailEntry> {
        let at = self.position(seq);
        self.entries.range(at..).filter(|entry| !entry.is_dead)
    }

    /// The index of the first entry at or after `seq`.
    fn position(&self, seq: u64) -> usize {
        let Some(first) = self.first_seq() else {
            return 0;
        };
        let guess = usize::try_from(seq.saturating_sub(first)).unwrap_or(usize::MAX);
        match self.entries.get(guess) {
            Some(entry) if entry.seq == seq => guess,
            _ => self.entries.partition_point(|entry| entry.seq < seq),
        }
    }

    /// Drops the record of a message that is gone. Only for the active tail.
    pub(crate) fn kill(&mut self, seq: u64) {
        let Some(entry) = self.index_of(seq).and_then(|at| self.entries.get_mut(at)) else {
            return;
        };
        if entry.is_dead {
            return;
        }
        self.live_bytes -= entry.record.len() as u64;
        entry.record = Bytes::new();
        entry.is_dead = true;
        while self.entries.front().is_some_and(|entry| entry.is_dead) {
            self.entries.pop_front();
            self.popped += 1;
        }
        debug_assert!(self.popped <= self.pushed, "only what was pushed is popped");
        if self.entries.is_empty() {
            // Everything was consumed before a flush: nothing of it needs to stay, postings included.
            self.clear();
        }
    }

    /// Drops every message below `seq`. Only for the active tail.
    pub(crate) fn kill_below(&mut self, seq: u64) {
        while let Some(first) = self.first_seq().filter(|&first| first < seq) {
            self.kill(first);
        }
        debug_assert!(
            self.first_seq().is_none_or(|first| first >= seq),
            "nothing is left below"
        );
    }

    /// Forgets everything. Only for the active tail.
    pub(crate) fn clear(&mut self) {
        if self.entries.capacity() > ENTRIES_KEPT || self.postings.len() > ENTRIES_KEPT {
            *self = self.fresh();
            return;
        }
        // The next message finds room: a stream that is consumed at once is emptied again and again.
        self.entries.clear();
        self.subjects.clear();
        self.postings.clear();
        (self.popped, self.pushed, self.live_bytes) = (0, 0, 0);
    }

    /// Where the postings of a subject are, if it has had a message here.
    pub(crate) fn slot_of(&self, subject: &[u8]) -> Option<u32> {
        self.subjects.find(subject)
    }

    fn posting(&self, slot: u32) -> Option<&Posting> {
        self.postings.get(slot as usize)
    }

    fn seq_of(&self, number: u32) -> Option<u64> {
        let index = number.checked_sub(self.popped)?;
        self.entries.get(index as usize).map(|entry| entry.seq)
    }

    /// The subject's first sequence at or after `from`, dead ones included.
    pub(crate) fn next_of(&self, slot: u32, from: u64) -> Option<u64> {
        let posting = self.posting(slot)?;
        if let Some(seq) = self.seq_of(posting.first).filter(|&seq| seq >= from) {
            return Some(seq);
        }
        let at = posting
            .rest
            .partition_point(|&number| self.seq_of(number).is_none_or(|seq| seq < from));
        posting.rest.get(at).and_then(|&number| self.seq_of(number))
    }

    /// The subject's last sequence at or before `up_to`, dead ones included.
    pub(crate) fn previous_of(&self, slot: u32, up_to: u64) -> Option<u64> {
        let posting = self.posting(slot)?;
        let at = posting
            .rest
            .partition_point(|&number| self.seq_of(number).is_none_or(|seq| seq <= up_to));
        let number = match at.checked_sub(1) {
            Some(before) => posting.rest.get(before).copied()?,
            None => posting.first,
        };
        self.seq_of(number).filter(|&seq| seq <= up_to)
    }

    /// The subject's sequences at or after `from`, ascending, dead ones included.
    pub(crate) fn postings_from(&self, slot: u32, from: u64) -> impl Iterator<Item = u64> {
        let posting = self.posting(slot);
        let numbers = posting
            .into_iter()
            .flat_map(|posting| std::iter::once(&posting.first).chain(&posting.rest));
        numbers
            .filter_map(|&number| self.seq_of(number))
            .filter(move |&seq| seq >= from)
    }

    /// Indexes (into [`Tail::entries`]) of the entries of a slot that were alive at the freeze.
    pub(crate) fn live_indexes(&self, slot: u32) -> impl Iterator<Item = usize> {
        let posting = self.postings.get(slot as usize);
        let numbers = posting
            .into_iter()
            .flat_map(|posting| std::iter::once(&posting.first).chain(&posting.rest));
        numbers
            .filter_map(|&number| Some(number.checked_sub(self.popped)? as usize))
            .filter(|&index| self.entries.get(index).is_some_and(|entry| !entry.is_dead))
    }

    /// Every entry, dead ones included, by index.
    pub(crate) fn entries(&self) -> &VecDeque<TailEntry> {
        &self.entries
    }

    /// Whether the entry had died before the freeze.
    pub(crate) fn is_dead(entry: &TailEntry) -> bool {
        entry.is_dead
    }
}
