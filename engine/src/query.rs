//! What is asked of a stream by subject: next and last match of filters, totals. (Counts: `pending.rs`.)
//!
//! The subject index answers most of it from memory. Where a subject lies on both sides of the sequence in question (a
//! *straddler*), its posting lists in the layers decide. Few straddlers are looked up one by one; many of them mean that
//! matches are frequent, and then walking the row columns reaches the next one sooner (expected distance is messages /
//! straddlers).

use bytes::Bytes;

use crate::error::Error;
use crate::filter::{Filter, Filters};
use crate::limits::{PROBE_MESSAGES, STRADDLERS_MAX, SUBJECTS_PER_BLOCK};
use crate::message::SubjectTotals;
use crate::segment::{Cache, Part};
use crate::stream::Stream;
use crate::subjects::SubjectPlace;
use crate::tail::Tail;

/// A scan asks the subject table for names when it goes through more than one in so many of a part's subjects.
const ROWS_FOR_TABLE: u64 = 8;

/// Remembers for each subject number of one part whether the filters match it.
struct PartMatches<'a> {
    part: &'a Part,
    filters: &'a Filters,
    /// 0: not looked at; 1: no; 2: yes.
    known: Vec<u8>,
}

impl<'a> PartMatches<'a> {
    fn new(part: &'a Part, filters: &'a Filters) -> Self {
        Self {
            part,
            filters,
            known: vec![0; part.subject_count() as usize],
        }
    }

    fn matches(&mut self, io: &Cache, subject: u32) -> Result<bool, Error> {
        let known = self.known.get(subject as usize).copied();
        // A row may name what the table does not have: that is told when the table is read.
        let known = known.unwrap_or(0);
        if known > 0 {
            return Ok(known == 2);
        }
        // Its whole block of the table at once: subjects come in any order, and a block is costly to decode.
        let block = subject as usize / SUBJECTS_PER_BLOCK;
        let names = self.part.table(io, block)?;
        let known = self.known.iter_mut().skip(block * SUBJECTS_PER_BLOCK);
        for (row, known) in names.iter().zip(known) {
            *known = 1 + u8::from(self.filters.matches(&row.name));
        }
        match self.known.get(subject as usize) {
            Some(&known) if known > 0 => Ok(known == 2),
            _ => Err(self.part.no_subject(subject)),
        }
    }
}

impl Stream {
    fn tails(&self) -> impl DoubleEndedIterator<Item = &Tail> {
        self.frozen.as_deref().into_iter().chain([&self.tail])
    }

    /// The tails that had messages of the subject, with the slots of its postings.
    pub(crate) fn tails_of(&self, name: &[u8]) -> impl DoubleEndedIterator<Item = (&Tail, u32)> {
        self.tails()
            .filter_map(move |tail| Some((tail, tail.slot_of(name)?)))
    }

    /// The subject's first live sequence at or after `from`.
    pub(crate) fn next_of(
        &self,
        io: &Cache,
        subject: SubjectPlace,
        from: u64,
    ) -> Result<Option<u64>, Error> {
        let totals = self.subjects.totals(subject);
        let mut from = from.max(self.first_seq).max(totals.first);
        if from > totals.last {
            return Ok(None);
        }
        if (from == totals.first && !totals.first_is_bound) || from == totals.last {
            return Ok(Some(from));
        }
        if totals.messages == 1 {
            return Ok(Some(totals.last));
        }
        let name = self.subjects.name(subject);
        let start = self.parts.partition_point(|part| part.last_seq() < from);
        for part in self.parts.get(start..).unwrap_or_default() {
            let Some(mut postings) = part.postings(io, name)? else {
                continue;
            };
            while let Some(seq) = postings.next(io, from)? {
                if self.is_live(seq) {
                    return Ok(Some(seq));
                }
                from = self.dead.next_gap(seq + 1);
            }
        }
        for (tail, slot) in self.tails_of(name) {
            while let Some(seq) = tail.next_of(slot, from) {
                if self.is_live(seq) {
                    return Ok(Some(seq));
                }
                from = self.dead.next_gap(seq + 1);
            }
        }
        Ok(None)
    }

    /// The subject's last live sequence at or before `up_to`.
    pub(crate) fn previous_of(
        &self,
        io: &Cache,
        subject: SubjectPlace,
        up_to: u64,
    ) -> Result<Option<u64>, Error> {
        let totals = self.subjects.totals(subject);
        if up_to >= totals.last {
            return Ok(Some(totals.last));
        }
        self.previous_of_below(io, subject, up_to)
    }

    /// As [`Stream::previous_of`], by postings alone: also right while the totals' `last` is being replaced.
    pub(crate) fn previous_of_below(
        &self,
        io: &Cache,
        subject: SubjectPlace,
        mut up_to: u64,
    ) -> Result<Option<u64>, Error> {
        let bottom = self.subjects.totals(subject).first.max(self.first_seq);
        let name = self.subjects.name(subject);
        for (tail, slot) in self.tails_of(name).rev() {
            while let Some(seq) = tail.previous_of(slot, up_to).filter(|&seq| seq >= bottom) {
                if self.is_live(seq) {
                    return Ok(Some(seq));
                }
                up_to = self.dead.previous_gap(seq - 1);
            }
        }
        for part in self.parts.iter().rev() {
            if part.last_seq() < bottom {
                break;
            }
            if part.first_seq() > up_to {
                continue;
            }
            let Some(mut postings) = part.postings(io, name)? else {
                continue;
            };
            while let Some(seq) = postings.previous(io, up_to)?.filter(|&seq| seq >= bottom) {
                if self.is_live(seq) {
                    return Ok(Some(seq));
                }
                up_to = self.dead.previous_gap(seq - 1);
            }
        }
        Ok(None)
    }

    /// Calls `each` for every live sequence of the subject in the range, ascending, until it says stop (`false`).
    pub(crate) fn postings_of(
        &self,
        io: &Cache,
        subject: SubjectPlace,
        from: u64,
        to: u64,
        each: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), Error> {
        let totals = self.subjects.totals(subject);
        let mut from = from.max(totals.first).max(self.first_seq);
        let to = to.min(totals.last);
        let name = self.subjects.name(subject);
        let start = self.parts.partition_point(|part| part.last_seq() < from);
        for part in self.parts.get(start..).unwrap_or_default() {
            if part.first_seq() > to {
                return Ok(());
            }
            let Some(mut postings) = part.postings(io, name)? else {
                continue;
            };
            while let Some(seq) = postings.next(io, from)?.filter(|&seq| seq <= to) {
                if self.is_live(seq) && !each(seq) {
                    return Ok(());
                }
                from = self.dead.next_gap(seq + 1);
            }
        }
        for (tail, slot) in self.tails_of(name) {
            for seq in tail.postings_from(slot, from).take_while(|&seq| seq <= to) {
                if self.is_live(seq) && !each(seq) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Live messages of the subject at or after `from`.
    pub(crate) fn count_of(
        &self,
        io: &Cache,
        subject: SubjectPlace,
        from: u64,
    ) -> Result<u64, Error> {
        let totals = self.subjects.totals(subject);
        if from <= totals.first {
            return Ok(u64::from(totals.messages));
        }
        if from > totals.last {
            return Ok(0);
        }
        let mut count = 0;
        let name = self.subjects.name(subject);
        let start = self.parts.partition_point(|part| part.last_seq() < from);
        for part in self.parts.get(start..).unwrap_or_default() {
            let Some(mut postings) = part.postings(io, name)? else {
                continue;
            };
            if from <= part.first_seq() && self.is_complete(part) {
                count += postings.count();
                continue;
            }
            let mut at = from;
            while let Some(seq) = postings.next(io, at)? {
                count += u64::from(self.is_live(seq));
                at = seq + 1;
            }
        }
        for (tail, slot) in self.tails_of(name) {
            let live = tail
                .postings_from(slot, from)
                .filter(|&seq| self.is_live(seq));
            count += live.count() as u64;
        }
        Ok(count)
    }

    /// Whether every message of the part is still alive.
    pub(crate) fn is_complete(&self, part: &Part) -> bool {
        part.first_seq() >= self.first_seq
            && self.count_live(part.first_seq(), part.last_seq()) == part.messages()
    }

    /// Every subject that some filter matches, each once, in the order of the filters and then of names.
    pub(crate) fn candidates<'a>(
        &'a self,
        filters: &'a Filters,
    ) -> impl Iterator<Item = SubjectPlace> + 'a {
        self.candidates_since(filters, 0)
    }

    /// The same without most of those whose last message is before `since`.
    pub(crate) fn candidates_since<'a>(
        &'a self,
        filters: &'a Filters,
        since: u64,
    ) -> impl Iterator<Item = SubjectPlace> + 'a {
        let numbers = 0..filters.as_slice().len();
        numbers.flat_map(move |number| self.candidates_of(filters, number, since))
    }

    /// Those of one of the filters that no filter before it matches, in the order of names.
    pub(crate) fn candidates_of<'a>(
        &'a self,
        filters: &'a Filters,
        number: usize,
        since: u64,
    ) -> impl Iterator<Item = SubjectPlace> + 'a {
        let filter = filters.as_slice().get(number).into_iter();
        let matching = filter.flat_map(move |filter| self.subjects.matching_since(filter, since));
        matching.filter(move |&subject| {
            number == 0
                || !filters.has_overlap()
                || !filters.matched_before(number, self.subjects.name(subject))
        })
    }

    pub(crate) fn next_matching(
        &self,
        io: &Cache,
        filters: &Filters,
        from: u64,
    ) -> Result<Option<u64>, Error> {
        let Some(from) = self.first_at_or_after(from) else {
            return Ok(None);
        };
        if filters.is_everything() {
            return Ok(Some(from));
        }
        if let Some(name) = filters.single_literal() {
            return match self.subjects.find(name) {
                Some(subject) => self.next_of(io, subject, from),
                None => Ok(None),
            };
        }
        if let Some(seq) = self.scan_next(io, filters, from, PROBE_MESSAGES)? {
            return Ok(Some(seq));
        }
        self.next_by_subjects(io, filters, from)
    }

    fn next_by_subjects(
        &self,
        io: &Cache,
        filters: &Filters,
        from: u64,
    ) -> Result<Option<u64>, Error> {
        let mut best = u64::MAX;
        let mut straddlers = Vec::new();
        for subject in self.candidates_since(filters, from) {
            let totals = self.subjects.totals(subject);
            if totals.last < from {
                continue;
            }
            if totals.first >= from && !totals.first_is_bound {
                best = best.min(totals.first);
            } else if totals.messages == 1 {
                best = best.min(totals.last);
            } else if totals.first < best {
                straddlers.push(subject);
                if straddlers.len() > STRADDLERS_MAX {
                    return self.scan_next(io, filters, from, u64::MAX);
                }
            }
        }
        for subject in straddlers {
            if self.subjects.totals(subject).first < best
                && let Some(seq) = self.next_of(io, subject, from)?
            {
                best = best.min(seq);
            }
        }
        Ok((best != u64::MAX).then_some(best))
    }

    /// Walks rows from `from` on, at most `budget` live ones.
    fn scan_next(
        &self,
        io: &Cache,
        filters: &Filters,
        from: u64,
        budget: u64,
    ) -> Result<Option<u64>, Error> {
        let mut left = budget;
        let mut found = None;
        let to = from.saturating_add(budget.saturating_mul(2));
        self.scan(io, filters, (from, to), &mut |seq, is_match| {
            if is_match {
                found = Some(seq);
                return false;
            }
            left -= 1;
            left > 0
        })?;
        Ok(found)
    }

    /// Calls `each` for every live message of the range with whether the filters match it, until it says stop.
    pub(crate) fn scan(
        &self,
        io: &Cache,
        filters: &Filters,
        (from, to): (u64, u64),
        each: &mut dyn FnMut(u64, bool) -> bool,
    ) -> Result<(), Error> {
        let start = self.parts.partition_point(|part| part.last_seq() < from);
        for part in self.parts.get(start..).unwrap_or_default() {
            if part.first_seq() > to {
                return Ok(());
            }
            let rows = to.min(part.last_seq()) - from.max(part.first_seq());
            // The table is read by blocks of names, which pays only for many rows.
            let mut matches = (rows >= u64::from(part.subject_count()) / ROWS_FOR_TABLE)
                .then(|| PartMatches::new(part, filters));
            for page in part.page_at(from)..part.page_count() {
                let rows = part.rows(io, page)?;
                let names = match &matches {
                    None => part.names(io, page)?,
                    Some(_) => None,
                };
                for row in rows.iter().filter(|row| row.seq >= from) {
                    if row.seq > to {
                        return Ok(());
                    }
                    if !self.is_live(row.seq) {
                        continue;
                    }
                    let name = names.as_ref().and_then(|names| row.name_in(names));
                    let is_match = match (&mut matches, name) {
                        (Some(matches), _) => matches.matches(io, row.subject)?,
                        (None, Some(name)) => filters.matches(name),
                        (None, None) => filters.matches(&part.subject_of(io, page, row)?),
                    };
                    if !each(row.seq, is_match) {
                        return Ok(());
                    }
                }
            }
        }
        for tail in self.tails() {
            for entry in tail.iter_from(from) {
                if entry.seq > to {
                    return Ok(());
                }
                if self.is_live(entry.seq) && !each(entry.seq, filters.matches(entry.subject())) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    pub(crate) fn last_matching(
        &self,
        io: &Cache,
        filters: &Filters,
        up_to: u64,
    ) -> Result<Option<u64>, Error> {
        let Some(up_to) = self.last_at_or_before(up_to) else {
            return Ok(None);
        };
        if filters.is_everything() {
            return Ok(Some(up_to));
        }
        let mut best = 0;
        for subject in self.candidates(filters) {
            let totals = self.subjects.totals(subject);
            if totals.last <= up_to {
                best = best.max(totals.last);
            } else if totals.first <= up_to
                && let Some(seq) = self.previous_of(io, subject, up_to)?
            {
                best = best.max(seq);
            }
        }
        Ok((best > 0).then_some(best))
    }

    /// The subject's exact totals.
    pub(crate) fn totals_of(
        &self,
        io: &Cache,
        subject: SubjectPlace,
    ) -> Result<SubjectTotals, Error> {
        let totals = self.subjects.totals(subject);
        let first = self
            .next_of(io, subject, totals.first)?
            .unwrap_or(totals.last);
        Ok(SubjectTotals {
            subject: Bytes::copy_from_slice(self.subjects.name(subject)),
            messages: totals.messages.into(),
            first_seq: first,
            last_seq: totals.last,
        })
    }

    pub(crate) fn subjects_page(
        &self,
        io: &Cache,
        filters: &Filters,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<SubjectTotals>, Error> {
        if let [only] = filters.as_slice() {
            let mut walk = self.subjects.matching(only);
            if let Some(after) = after {
                walk.pass_name(after);
            }
            return walk
                .take(limit)
                .map(|subject| self.totals_of(io, subject))
                .collect();
        }
        let start = after.unwrap_or_default();
        // Literal prefixes bound the range from both sides: nothing outside of it can match.
        let low = filters
            .as_slice()
            .iter()
            .map(|filter| filter.prefix())
            .min()
            .unwrap_or_default();
        let is_past = |name: &[u8]| {
            let mut prefixes = filters.as_slice().iter().map(|filter| filter.prefix());
            !filters.as_slice().is_empty()
                && prefixes.all(|prefix| name > prefix && !name.starts_with(prefix))
        };
        let mut page = Vec::new();
        for subject in self.subjects.iter_from(start.max(low)) {
            let name = self.subjects.name(subject);
            if page.len() >= limit || is_past(name) {
                break;
            }
            if after.is_none_or(|after| name > after) && filters.matches(name) {
                page.push(self.totals_of(io, subject)?);
            }
        }
        Ok(page)
    }

    /// Subjects that the filter matches: how many, and of those after the first `offset` at most `limit`.
    pub(crate) fn subject_counts(
        &self,
        filter: &Filter,
        offset: u64,
        limit: usize,
    ) -> (u64, Vec<(Bytes, u64)>) {
        let total = self.subjects.count(filter).subjects;
        let mut walk = self.subjects.matching(filter);
        if offset >= total || !walk.pass(offset) {
            return (total, Vec::new());
        }
        (total, self.named_counts(walk.take(limit)))
    }

    /// The next `limit` subjects that the filter matches behind `after`.
    pub(crate) fn subject_counts_after(
        &self,
        filter: &Filter,
        after: &[u8],
        limit: usize,
    ) -> Vec<(Bytes, u64)> {
        let mut walk = self.subjects.matching(filter);
        walk.pass_name(after);
        self.named_counts(walk.take(limit))
    }

    fn named_counts(&self, subjects: impl Iterator<Item = SubjectPlace>) -> Vec<(Bytes, u64)> {
        let counts = subjects.map(|subject| {
            let name = Bytes::copy_from_slice(self.subjects.name(subject));
            (name, self.subjects.totals(subject).messages.into())
        });
        counts.collect()
    }
}
