//! One stream: which sequences hold messages, its counters, and the layers where the messages are.
//!
//!   parts of segments (oldest first, disjoint ranges) | frozen tail (being flushed) | active tail
//!
//! A sequence holds a message if it lies in `first_seq..=last_seq` and is not in `dead`. Layers may physically hold more:
//! what is dead there is invisible at once and goes when the layer is rewritten.
//!
//! Every change first computes what can fail (a lookup in a damaged segment) and then changes the state without a way to
//! fail in between, so an error leaves the stream as it was.
//!
//! Reading order: this file (state, append, read), `query.rs` (subjects and filters), `removal.rs` (delete, purge).

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use halyard_runtime::time::Timestamp;

use crate::counts::Counts;
use crate::error::Error;
use crate::lost::{Lacking, Layers};
use crate::message::{Append, FOREVER, Message, StreamId, StreamState};
use crate::options::{Options, Overhead};
use crate::runs::Runs;
use crate::segment::{Cache, Part, Row};
use crate::subjects::Subjects;
use crate::tail::{Tail, TailEntry};

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) overhead: Overhead,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) last_time: Timestamp,
    /// Sequences above `first_seq` without a message.
    pub(crate) dead: Runs,
    /// Sequences that died since the last flush began, but not those that `first_seq` simply passed.
    pub(crate) fresh_dead: Runs,
    /// Runs that `dead` lost since the last flush began because `first_seq` passed them: together with `dead` and
    /// `fresh_dead` they tell what was dead in the durable state, which is all that a merge may drop.
    pub(crate) passed_dead: Runs,
    /// `first_seq` in the durable state.
    pub(crate) durable_first: u64,
    /// Ordinal of the flush that first writes this stream: segments that end before it hold a namesake.
    pub(crate) born: u64,
    /// The flush that must write it, if it has changed since the last one that did.
    pub(crate) dirty: Option<u64>,
    pub(crate) subjects: Subjects,
    /// Messages whose own TTL ends: when, and their sequences.
    pub(crate) expiry: BTreeSet<(Timestamp, u64)>,
    /// What an age limit passes over: messages that live for ever, and what died above the first of them, so that both
    /// together are few runs.
    pub(crate) ageless: Runs,
    /// Parts with messages.
    pub(crate) parts: Vec<Part>,
    /// Parts that only hold rows of subjects.
    pub(crate) bare: Vec<Part>,
    /// Segments that could not be opened, of a store that was opened past damage.
    pub(crate) lacking: Arc<[Lacking]>,
    /// What was counted for filters.
    pub(crate) counts: Counts,
    pub(crate) frozen: Option<Arc<Tail>>,
    pub(crate) tail: Tail,
}

/// Where a message is.
pub(crate) enum Place<'a> {
    Tail(&'a TailEntry),
    Part {
        part: &'a Part,
        page: usize,
        row: Row,
    },
}

impl Place<'_> {
    pub(crate) fn time(&self) -> Timestamp {
        match self {
            Self::Tail(entry) => entry.time(),
            Self::Part { row, .. } => row.time,
        }
    }

    pub(crate) fn expires(&self) -> Option<Timestamp> {
        match self {
            Self::Tail(entry) => entry.expires(),
            Self::Part { row, .. } => row.expires,
        }
    }

    pub(crate) fn size(&self, overhead: Overhead) -> u64 {
        match self {
            Self::Tail(entry) => overhead.size(entry.record.len(), entry.headers_len),
            Self::Part { row, .. } => overhead.size(row.body_len as usize, row.headers_len),
        }
    }

    /// The subject, without reading the payload.
    pub(crate) fn subject(&self, io: &Cache) -> Result<Bytes, Error> {
        match self {
            Self::Tail(entry) => Ok(entry.record.slice(..usize::from(entry.subject_len))),
            Self::Part { part, page, row } => part.subject_of(io, *page, row),
        }
    }
}

impl Stream {
    pub(crate) fn new(id: StreamId, first_seq: u64, born: u64, options: &Options) -> Self {
        assert!(first_seq > 0, "sequences start at one");
        Self {
            id,
            overhead: options.overhead,
            first_seq,
            last_seq: first_seq - 1,
            messages: 0,
            bytes: 0,
            last_time: Timestamp::EPOCH,
            dead: Runs::default(),
            fresh_dead: Runs::default(),
            passed_dead: Runs::default(),
            durable_first: first_seq,
            born,
            dirty: None,
            subjects: Subjects::default(),
            expiry: BTreeSet::new(),
            ageless: Runs::default(),
            parts: Vec::new(),
            bare: Vec::new(),
            lacking: Arc::new([]),
            counts: Counts::default(),
            frozen: None,
            tail: Tail::new(options.hash_key.clone()),
        }
    }

    /// Whether the sequence holds a message.
    pub(crate) fn is_live(&self, seq: u64) -> bool {
        self.first_seq <= seq && seq <= self.last_seq && !self.dead.contains(seq)
    }

    /// Messages in the range.
    pub(crate) fn count_live(&self, from: u64, to: u64) -> u64 {
        let (from, to) = (from.max(self.first_seq), to.min(self.last_seq));
        if from > to {
            return 0;
        }
        to - from + 1 - self.dead.count_in(from..=to)
    }

    pub(crate) fn first_at_or_after(&self, seq: u64) -> Option<u64> {
        let seq = self.dead.next_gap(seq.max(self.first_seq));
        (seq <= self.last_seq).then_some(seq)
    }

    /// Whether some message lives for ever. What died beside them does not count: opening forgets it.
    pub(crate) fn has_eternal(&self) -> bool {
        let mut runs = self.ageless.iter();
        runs.any(|run| {
            let live = self.first_at_or_after(*run.start());
            live.is_some_and(|live| live <= *run.end())
        })
    }

    /// The first message at or after `seq` that does not live for ever.
    pub(crate) fn first_ageing(&self, seq: u64) -> Option<u64> {
        let mut live = self.first_at_or_after(seq)?;
        loop {
            let ageing = self.ageless.next_gap(live);
            if ageing == live {
                return Some(live);
            }
            live = self.first_at_or_after(ageing)?;
        }
    }

    pub(crate) fn last_at_or_before(&self, seq: u64) -> Option<u64> {
        let seq = self.dead.previous_gap(seq.min(self.last_seq));
        (seq >= self.first_seq && seq > 0).then_some(seq)
    }

    /// Stores a message at `seq`; sequences between it and the last one stay empty.
    pub(crate) fn append(&mut self, seq: u64, append: Append) -> Result<(), Error> {
        assert!(seq > self.last_seq, "checked by the store");
        let size = self.overhead.size(append.record.len(), append.headers_len);
        let expires = append.expires;
        let time = append.time;
        let name = append.record.get(..usize::from(append.subject_len));
        let name = name.expect("a record begins with its subject");
        self.tail.check_room()?;
        self.subjects.add(name, seq)?;
        self.tail.push(seq, append);
        self.skip_to(seq - 1);
        self.last_seq = seq;
        self.last_time = time;
        self.messages += 1;
        self.bytes += size;
        debug_assert!(
            self.first_seq <= seq && self.messages <= self.last_seq - self.first_seq + 1,
            "each message has a sequence of its own"
        );
        if let Some(expires) = expires {
            self.note_expiry(seq, expires);
        }
        Ok(())
    }

    /// Remembers when a message goes by itself.
    pub(crate) fn note_expiry(&mut self, seq: u64, expires: Timestamp) {
        if expires == FOREVER {
            self.ageless.insert(seq..=seq);
        } else {
            self.expiry.insert((expires, seq));
        }
    }

    /// Notes that sequences between the first and the last hold no message any more.
    pub(crate) fn note_dead(&mut self, run: RangeInclusive<u64>) {
        assert!(
            *run.start() >= self.first_seq,
            "what is below the stream's start is not between its first and last"
        );
        self.dead.insert(run.clone());
        if !self.ageless.is_empty() {
            self.ageless.insert(run.clone());
        }
        self.fresh_dead.insert(run);
    }

    /// Gives out the sequences up to `seq` without messages.
    pub(crate) fn skip_to(&mut self, seq: u64) {
        if seq <= self.last_seq {
            return;
        }
        if self.messages == 0 {
            self.set_first(seq + 1);
        } else {
            self.note_dead(self.last_seq + 1..=seq);
        }
        self.last_seq = seq;
    }

    /// Moves the stream's start; what died below it needs no run any more.
    pub(crate) fn set_first(&mut self, first_seq: u64) {
        assert!(
            first_seq >= self.first_seq,
            "a stream starts later and later"
        );
        self.first_seq = first_seq;
        for run in self.dead.remove_below(first_seq) {
            self.passed_dead.insert(run);
        }
        debug_assert!(
            self.dead
                .iter()
                .next()
                .is_none_or(|run| *run.start() >= first_seq),
            "runs below the start have passed"
        );
        self.ageless.remove_below(first_seq);
    }

    /// The part that may hold `seq`.
    fn part_at(&self, seq: u64) -> Option<&Part> {
        let at = self.parts.partition_point(|part| part.last_seq() < seq);
        self.parts.get(at).filter(|part| part.first_seq() <= seq)
    }

    /// Where a live message is; `None` when the sequence holds none.
    pub(crate) fn find(&self, io: &Cache, seq: u64) -> Result<Option<Place<'_>>, Error> {
        if !self.is_live(seq) {
            return Ok(None);
        }
        if let Some(entry) = self.tail.get(seq) {
            return Ok(Some(Place::Tail(entry)));
        }
        if let Some(entry) = self.frozen.as_ref().and_then(|frozen| frozen.get(seq)) {
            return Ok(Some(Place::Tail(entry)));
        }
        let Some(part) = self.part_at(seq) else {
            return io.noted(Err(self.lost(seq)));
        };
        let page = part.page_at(seq);
        let rows = part.rows(io, page)?;
        match rows
            .binary_search_by_key(&seq, |row| row.seq)
            .ok()
            .and_then(|at| rows.get(at))
        {
            Some(&row) => Ok(Some(Place::Part { part, page, row })),
            None => io.noted(Err(
                part.lost(page, rows.iter().map(|row| row.seq).rfind(|at| *at < seq))
            )),
        }
    }

    /// A live sequence is in no layer: the files contradict each other.
    #[cold]
    fn lost(&self, seq: u64) -> Error {
        let layers = Layers {
            range: (self.first_seq, self.last_seq),
            parts: &self.parts,
            lacking: &self.lacking,
        };
        layers.lost(seq)
    }

    pub(crate) fn get(&self, io: &Cache, seq: u64) -> Result<Option<Message>, Error> {
        let Some(place) = self.find(io, seq)? else {
            return Ok(None);
        };
        let (time, expires, size) = (place.time(), place.expires(), place.size(self.overhead));
        let (record, subject_len, headers_len) = match place {
            Place::Tail(entry) => (entry.record.clone(), entry.subject_len, entry.headers_len),
            Place::Part { part, page, row } => (
                part.record(io, page, &row)?,
                row.subject_len,
                row.headers_len,
            ),
        };
        Ok(Some(Message {
            seq,
            time,
            expires,
            record,
            subject_len,
            headers_len,
            size,
        }))
    }

    /// The first sequence whose message has a time at or after `time`; `last_seq + 1` if there is none.
    pub(crate) fn seq_at_time(&self, io: &Cache, time: Timestamp) -> Result<u64, Error> {
        let none = self.last_seq + 1;
        let found = self.physical_at_time(io, time)?;
        Ok(found
            .and_then(|seq| self.first_at_or_after(seq))
            .unwrap_or(none))
    }

    fn physical_at_time(&self, io: &Cache, time: Timestamp) -> Result<Option<u64>, Error> {
        let at = self.parts.partition_point(|part| part.last_time() < time);
        if let Some(part) = self.parts.get(at) {
            // Pages before it end before `time`; equal times may start in the page before.
            for page in part.page_at_time(time).saturating_sub(1)..part.page_count() {
                let rows = part.rows(io, page)?;
                let row = rows.partition_point(|row| row.time < time);
                if let Some(row) = rows.get(row) {
                    return Ok(Some(row.seq));
                }
            }
        }
        for tail in self.frozen.as_deref().into_iter().chain([&self.tail]) {
            let at = tail.entries().partition_point(|entry| entry.time() < time);
            if let Some(entry) = tail.entries().get(at) {
                return Ok(Some(entry.seq));
            }
        }
        Ok(None)
    }

    pub(crate) fn state(&self, io: &Cache) -> Result<StreamState, Error> {
        let first_time = match self.find(io, self.first_seq) {
            Ok(Some(place)) => place.time(),
            Ok(None) => Timestamp::EPOCH,
            // Its page is damaged: the counters are known all the same, and when the page begins.
            Err(Error::Corrupt { .. }) => self.page_time(self.first_seq),
            Err(error) => return Err(error),
        };
        Ok(StreamState {
            messages: self.messages,
            bytes: self.bytes,
            first_seq: self.first_seq,
            first_time,
            last_seq: self.last_seq,
            last_time: self.last_time,
            subjects: self.subjects.len() as u64,
            // Of a store that was opened past damage the counters need not agree.
            deleted: (self.last_seq + 1)
                .saturating_sub(self.first_seq)
                .saturating_sub(self.messages),
        })
    }

    /// The time of the first message of the page that holds `seq`, by the index alone.
    fn page_time(&self, seq: u64) -> Timestamp {
        let part = self.parts.iter().find(|part| part.last_seq() >= seq);
        let time = part.and_then(|part| {
            let (meta, _) = part.places();
            meta.pages
                .get(part.page_at(seq))
                .map(|page| page.first_time)
        });
        time.unwrap_or(Timestamp::EPOCH)
    }

    /// Sequences between first and last without a message, in the range, at most `limit` of them.
    pub(crate) fn deleted(&self, from: u64, to: u64, limit: usize) -> Vec<u64> {
        let (from, to) = (from.max(self.first_seq), to.min(self.last_seq));
        let runs = self
            .dead
            .iter_from(from)
            .take_while(|run| *run.start() <= to);
        runs.flat_map(|run| (*run.start()).max(from)..=(*run.end()).min(to))
            .take(limit)
            .collect()
    }
}
