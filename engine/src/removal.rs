//! How messages leave a stream: one by one, by purge, by limits. Accepting costs O(1) or O(matches); space comes back when
//! layers are rewritten.

use bytes::Bytes;
use halyard_runtime::time::Timestamp;

use crate::error::Error;
use crate::filter::Filters;
use crate::limits::SUBJECTS_PER_BLOCK;
use crate::message::Purge;
use crate::segment::{Cache, Part};
use crate::stream::{Place, Stream};
use crate::subjects::SubjectNumber;

/// What a removal needs to know of a message: everything but its payload.
#[derive(Debug, Clone, Copy)]
struct Victim {
    seq: u64,
    size: u64,
    expires: Option<Timestamp>,
    subject: SubjectNumber,
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
    /// Messages by subject number.
    counts: Vec<u32>,
}

impl Prefix {
    fn add(&mut self, subject: SubjectNumber, count: u32) {
        let at = subject.0 as usize;
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        if let Some(have) = self.counts.get_mut(at) {
            *have += count;
        }
    }
}

impl Stream {
    fn victim(&self, io: &Cache, seq: u64) -> Result<Option<Victim>, Error> {
        let Some(place) = self.find(io, seq)? else {
            return Ok(None);
        };
        let subject = self
            .subjects
            .find(&place.subject(io)?)
            .ok_or_else(|| self.contradiction(seq))?;
        Ok(Some(self.victim_at(&place, seq, subject)))
    }

    fn victim_at(&self, place: &Place<'_>, seq: u64, subject: SubjectNumber) -> Victim {
        Victim {
            seq,
            size: place.size(self.overhead),
            expires: place.expires(),
            subject,
        }
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
        let Some(victim) = self.victim(io, seq)? else {
            return Ok(Removal::default());
        };
        let totals = self.subjects.totals(victim.subject);
        let last = if totals.last == seq && totals.messages > 1 {
            let below = self.previous_of_below(io, victim.subject, seq - 1)?;
            below.ok_or_else(|| self.contradiction(seq))?
        } else {
            totals.last
        };
        let mut gone = Vec::new();
        if totals.messages == 1 {
            gone.push(Bytes::copy_from_slice(self.subjects.name(victim.subject)));
        }
        self.settle_subject(victim.subject, 1, seq, seq, last);
        self.forget(victim);
        Ok(Removal {
            messages: 1,
            first: seq,
            last: seq,
            gone: Some(gone),
        })
    }

    /// Takes `count` messages, all in `from..=to`, from the subject's totals; the subject's last message is now `last`.
    fn settle_subject(
        &mut self,
        subject: SubjectNumber,
        count: u32,
        from: u64,
        to: u64,
        last: u64,
    ) {
        let before = self.subjects.totals(subject);
        let after = self.subjects.subtract(subject, count);
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
        assert!(self.messages > 0);
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
        if !purge.filters.is_everything() {
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
        let prefix = self.describe_prefix(io, below)?;
        let mut gone = Vec::new();
        for (number, &count) in prefix
            .counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            let subject = SubjectNumber(number as u32);
            let totals = self.subjects.totals(subject);
            if totals.messages == count {
                gone.push(Bytes::copy_from_slice(self.subjects.name(subject)));
            }
            self.settle_subject(subject, count, first, below - 1, totals.last);
        }
        assert!(self.bytes >= prefix.bytes);
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
                self.describe_complete_part(io, part, &mut prefix)?;
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
                    let subject = self.subjects.find(entry.subject());
                    prefix.add(subject.ok_or_else(|| self.contradiction(entry.seq))?, 1);
                    prefix.bytes += self.overhead.size(entry.record.len(), entry.headers_len);
                }
            }
        }
        Ok(prefix)
    }

    fn describe_complete_part(
        &self,
        io: &Cache,
        part: &Part,
        prefix: &mut Prefix,
    ) -> Result<(), Error> {
        prefix.bytes += part.bytes();
        let mut unknown = false;
        part.subject_counts(io, &mut |name, count| match self.subjects.find(name) {
            Some(subject) => prefix.add(subject, u32::try_from(count).unwrap_or(u32::MAX)),
            None => unknown = true,
        })?;
        if unknown {
            Err(self.contradiction(part.first_seq()))
        } else {
            Ok(())
        }
    }

    fn describe_rows(
        &self,
        io: &Cache,
        part: &Part,
        below: u64,
        prefix: &mut Prefix,
    ) -> Result<(), Error> {
        let mut known: Vec<Option<SubjectNumber>> = vec![None; part.subject_count() as usize];
        for page in part.page_at(self.first_seq)..part.page_count() {
            for row in part.rows(io, page)?.iter() {
                if row.seq >= below {
                    return Ok(());
                }
                if !self.is_live(row.seq) {
                    continue;
                }
                let at = row.subject as usize;
                if known.get(at).is_none_or(Option::is_none) {
                    let block = at / SUBJECTS_PER_BLOCK;
                    let slots = known.iter_mut().skip(block * SUBJECTS_PER_BLOCK);
                    for (row, slot) in part.table(io, block)?.iter().zip(slots) {
                        *slot = self.subjects.find(&row.name);
                    }
                }
                let subject = known.get(at).copied().flatten();
                prefix.add(subject.ok_or_else(|| self.contradiction(row.seq))?, 1);
                prefix.bytes += self.overhead.size(row.body_len as usize, row.headers_len);
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
        let mut subjects = Vec::new();
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
                        victims.extend(place.map(|place| self.victim_at(&place, seq, subject)));
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
                subjects.push((subject, (victims.len() - before) as u32));
            }
        }
        let mut gone = Vec::new();
        for (subject, count) in subjects {
            let totals = self.subjects.totals(subject);
            if totals.messages == count {
                gone.push(Bytes::copy_from_slice(self.subjects.name(subject)));
            }
            self.settle_subject(subject, count, 0, below - 1, totals.last);
        }
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
