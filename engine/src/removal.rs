//! How messages leave a stream: one by one, by purge, by limits. Accepting costs O(1) or O(matches); space comes back when
//! layers are rewritten.

use std::collections::BTreeMap;

use bytes::Bytes;
use halyard_runtime::time::Timestamp;

use crate::error::Error;
use crate::filter::Filters;
use crate::limits::SUBJECTS_PER_BLOCK;
use crate::message::Purge;
use crate::segment::{Cache, Part};
use crate::stream::{Place, Stream};
use crate::subjects::SubjectPlace;

/// What a removal needs to know of a message: everything but its payload.
#[derive(Debug, Clone, Copy)]
struct Victim {
    seq: u64,
    size: u64,
    expires: Option<Timestamp>,
}

/// What was removed.
#[derive(Debug, Default)]
pub(crate) struct Removal {
    pub(crate) messages: u64,
    /// The lowest and the highest sequence that went; meaningless when `messages` is 0.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Subjects that have no message any more; `None`: every subject of the stream.
    pub(crate) gone: Option<Vec<Bytes>>,
}

/// What leaves with a whole prefix of the stream.
#[derive(Default)]
struct Prefix {
    bytes: u64,
    /// Messages by subject.
    counts: BTreeMap<Bytes, u32>,
}

impl Prefix {
    fn add(&mut self, subject: &[u8], count: u64) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        match self.counts.get_mut(subject) {
            Some(have) => *have = have.saturating_add(count),
            None => drop(self.counts.insert(Bytes::copy_from_slice(subject), count)),
        }
    }
}

impl Stream {
    fn victim_at(&self, place: &Place<'_>, seq: u64) -> Victim {
        Victim {
            seq,
            size: place.size(self.overhead),
            expires: place.expires(),
        }
    }

    /// The subject of message `seq`, which is known while it has a message.
    fn subject_of_message(&self, seq: u64, subject: &[u8]) -> Result<SubjectPlace, Error> {
        let found = self.subjects.find(subject);
        found.ok_or_else(|| self.contradiction(seq))
    }

    #[cold]
    fn contradiction(&self, seq: u64) -> Error {
        let what = format!(
            "message {seq} of stream {} has a subject that the index does not know",
            self.id.0
        );
        Error::corrupt(std::path::Path::new("segments"), 0, what)
    }

    /// Removes one message.
    pub(crate) fn remove(&mut self, io: &Cache, seq: u64) -> Result<Removal, Error> {
        let Some(place) = self.find(io, seq)? else {
            return Ok(Removal::default());
        };
        let victim = self.victim_at(&place, seq);
        let subject = self.subject_of_message(seq, &place.subject(io)?)?;
        let totals = self.subjects.totals(subject);
        let last = if totals.last == seq && totals.messages > 1 {
            let below = self.previous_of_below(io, subject, seq - 1)?;
            below.ok_or_else(|| self.contradiction(seq))?
        } else {
            totals.last
        };
        let mut gone = Vec::new();
        if totals.messages == 1 {
            gone.push(Bytes::copy_from_slice(self.subjects.name(subject)));
        }
        self.settle_subject(subject, 1, seq, seq, last);
        self.forget(victim);
        Ok(Removal {
            messages: 1,
            first: seq,
            last: seq,
            gone: Some(gone),
        })
    }

    /// Takes `count` messages, all in `from..=to`, from the subject's totals; the subject's last message is now `last`.
    fn settle_subject(&mut self, subject: SubjectPlace, count: u32, from: u64, to: u64, last: u64) {
        let before = self.subjects.totals(subject);
        let after = self.subjects.subtract(subject, count);
        debug_assert_eq!(
            before.messages - count,
            after.messages,
            "a subject loses what is taken from it"
        );
        if after.messages == 0 {
            return;
        }
        if after.messages == 1 {
            self.subjects.set_bounds(subject, last, false, last);
        } else if before.first >= from && before.first <= to {
            self.subjects
                .set_bounds(subject, (to + 1).min(last), true, last);
        } else {
            self.subjects
                .set_bounds(subject, before.first, before.first_is_bound, last);
        }
    }

    /// Takes one message out of the counters and out of sight. Its subject is settled.
    fn forget(&mut self, victim: Victim) {
        assert!(self.messages > 0, "a message that is there is counted");
        assert!(
            self.bytes >= victim.size,
            "a stream holds the bytes of its messages"
        );
        self.messages -= 1;
        self.bytes -= victim.size;
        if let Some(expires) = victim.expires {
            self.expiry.remove(&(expires, victim.seq));
        }
        self.tail.kill(victim.seq);
        if self.messages == 0 {
            self.empty();
        } else if victim.seq == self.first_seq {
            self.set_first(self.dead.next_gap(victim.seq + 1));
        } else {
            self.note_dead(victim.seq..=victim.seq);
        }
    }

    /// No message is left: the stream starts after its last sequence.
    fn empty(&mut self) {
        self.set_first(self.last_seq + 1);
        self.messages = 0;
        self.bytes = 0;
        self.subjects.clear();
        self.expiry.clear();
        self.tail.clear();
        debug_assert_eq!(
            self.first_seq,
            self.last_seq + 1,
            "an empty stream starts behind its last sequence"
        );
    }

    pub(crate) fn purge(&mut self, io: &Cache, purge: &Purge) -> Result<Removal, Error> {
        if self.messages == 0 {
            return Ok(Removal::default());
        }
        let end = self.last_seq + 1;
        let mut below = purge.below.unwrap_or(end).min(end);
        if let Some(keep) = purge.keep.filter(|&keep| keep > 0) {
            below = below.min(self.keep_from(io, &purge.filters, below, keep)?);
        }
        // A filter that matches all there is costs no more than none.
        let all = || self.candidates(&purge.filters).count() == self.subjects.len();
        if !purge.filters.is_everything() && (below != end || !all()) {
            return self.purge_matching(io, &purge.filters, below);
        }
        self.purge_below(io, below)
    }

    /// The sequence of the `keep`-th last match below `below`; 0 when there are not more than `keep`.
    fn keep_from(
        &self,
        io: &Cache,
        filters: &Filters,
        below: u64,
        keep: u64,
    ) -> Result<u64, Error> {
        if filters.is_everything() {
            return Ok(self.nth_last(below, keep));
        }
        let mut at = below;
        for _ in 0..keep {
            match self.last_matching(io, filters, at.saturating_sub(1))? {
                Some(seq) => at = seq,
                None => return Ok(0),
            }
        }
        Ok(at)
    }

    /// The sequence of the `nth` last live message below `below`, by bisection over counts; 0 if there is none.
    fn nth_last(&self, below: u64, nth: u64) -> u64 {
        let (mut low, mut high) = (self.first_seq, below);
        if self.count_live(low, below.saturating_sub(1)) < nth {
            return 0;
        }
        // Invariant: at least `nth` in low..below, fewer than `nth` in high..below.
        debug_assert!(low < high, "there are enough, so there is one");
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.count_live(middle, below - 1) >= nth {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Removes every message below `below`.
    fn purge_below(&mut self, io: &Cache, below: u64) -> Result<Removal, Error> {
        let Some(last) = self.last_at_or_before(below.saturating_sub(1)) else {
            return Ok(Removal::default());
        };
        let first = self.first_seq;
        let Some(new_first) = self.first_at_or_after(below) else {
            let messages = self.messages;
            self.empty();
            return Ok(Removal {
                messages,
                first,
                last,
                gone: None,
            });
        };
        let messages = self.count_live(first, last);
        assert!(
            messages < self.messages,
            "the message that becomes the first is not among them"
        );
        let prefix = self.describe_prefix(io, below)?;
        let mut gone = Vec::new();
        self.settle_subjects(&prefix.counts, (first, below - 1), &mut gone)?;
        assert!(
            self.bytes >= prefix.bytes,
            "a stream holds the bytes of its messages"
        );
        self.bytes -= prefix.bytes;
        self.messages -= messages;
        if !self.expiry.is_empty() {
            self.expiry.retain(|&(_, seq)| seq >= below);
        }
        self.tail.kill_below(below);
        self.set_first(new_first);
        Ok(Removal {
            messages,
            first,
            last,
            gone: Some(gone),
        })
    }

    /// Takes the counted messages, all in the range, from the totals of their subjects; a subject that keeps some keeps its
    /// last one. Nothing has changed if there is an error.
    fn settle_subjects(
        &mut self,
        counts: &BTreeMap<Bytes, u32>,
        (from, to): (u64, u64),
        gone: &mut Vec<Bytes>,
    ) -> Result<(), Error> {
        for (name, &count) in counts {
            let subject = self.subject_of_message(from, name)?;
            if self.subjects.totals(subject).messages < count {
                return Err(self.contradiction(from));
            }
        }
        for (name, &count) in counts {
            let subject = self.subjects.find(name).expect("it was there");
            let totals = self.subjects.totals(subject);
            if totals.messages == count {
                gone.push(Bytes::copy_from_slice(name));
            }
            self.settle_subject(subject, count, from, to, totals.last);
        }
        Ok(())
    }

    fn describe_prefix(&self, io: &Cache, below: u64) -> Result<Prefix, Error> {
        let mut prefix = Prefix::default();
        for part in self
            .parts
            .iter()
            .take_while(|part| part.first_seq() < below)
        {
            if part.last_seq() < self.first_seq {
                continue;
            }
            if part.last_seq() < below && self.is_complete(part) {
                prefix.bytes += part.bytes();
                part.subject_counts(&mut |name, count| prefix.add(name, count))?;
            } else {
                self.describe_rows(io, part, below, &mut prefix)?;
            }
        }
        for tail in self.frozen.as_deref().into_iter().chain([&self.tail]) {
            for entry in tail
                .iter_from(self.first_seq)
                .take_while(|entry| entry.seq < below)
            {
                if self.is_live(entry.seq) {
                    prefix.add(entry.subject(), 1);
                    prefix.bytes += self.overhead.size(entry.record.len(), entry.headers_len);
                }
            }
        }
        Ok(prefix)
    }

    fn describe_rows(
        &self,
        io: &Cache,
        part: &Part,
        below: u64,
        prefix: &mut Prefix,
    ) -> Result<(), Error> {
        let mut counts = vec![0_u32; part.subject_count() as usize];
        'pages: for page in part.page_at(self.first_seq)..part.page_count() {
            for row in part.rows(io, page)?.iter() {
                if row.seq >= below {
                    break 'pages;
                }
                if !self.is_live(row.seq) {
                    continue;
                }
                let count = counts.get_mut(row.subject as usize);
                *count.ok_or_else(|| self.contradiction(row.seq))? += 1;
                prefix.bytes += self.overhead.size(row.body_len as usize, row.headers_len);
            }
        }
        for (block, counts) in counts.chunks(SUBJECTS_PER_BLOCK).enumerate() {
            if counts.iter().all(|&count| count == 0) {
                continue;
            }
            let rows = part.table(io, block)?;
            for (row, &count) in rows.iter().zip(counts).filter(|(_, count)| **count > 0) {
                prefix.add(&row.name, count.into());
            }
        }
        Ok(())
    }

    /// Removes the messages below `below` whose subjects match.
    fn purge_matching(
        &mut self,
        io: &Cache,
        filters: &Filters,
        below: u64,
    ) -> Result<Removal, Error> {
        let mut victims = Vec::new();
        let mut counts = BTreeMap::new();
        for subject in self.candidates(filters) {
            let before = victims.len();
            let mut failed = None;
            self.postings_of(
                io,
                subject,
                0,
                below.saturating_sub(1),
                &mut |seq| match self.find(io, seq) {
                    Ok(place) => {
                        victims.extend(place.map(|place| self.victim_at(&place, seq)));
                        true
                    }
                    Err(error) => {
                        failed = Some(error);
                        false
                    }
                },
            )?;
            if let Some(error) = failed {
                return Err(error);
            }
            if victims.len() > before {
                let name = Bytes::copy_from_slice(self.subjects.name(subject));
                counts.insert(name, (victims.len() - before) as u32);
            }
        }
        let mut gone = Vec::new();
        self.settle_subjects(&counts, (0, below.saturating_sub(1)), &mut gone)?;
        victims.sort_unstable_by_key(|victim| victim.seq);
        let removal = Removal {
            messages: victims.len() as u64,
            first: victims.first().map_or(0, |victim| victim.seq),
            last: victims.last().map_or(0, |victim| victim.seq),
            gone: Some(gone),
        };
        for victim in victims {
            self.forget(victim);
        }
        Ok(removal)
    }
}
