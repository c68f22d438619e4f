//! How many messages filters match from a sequence on: what is still to come for a consumer (`num_pending`).
//!
//! From the cheapest on:
//!
//!   sums      from the start, or everything: chunks of the subject index
//!   subjects  few candidates: the index, and the posting lists of those that lie on both sides (straddlers)
//!   tables    many straddlers: the index and the subject table of each part, side by side in the order of names
//!   rows      what is remembered of earlier counts, and the rows that are missing for it (`counts.rs`)
//!
//! Tables cost as much as there are matching subjects, rows as much as there are messages that were not counted before.
//! How many these are is known, so the tables are tried for as long as they stay below that. A count by either is
//! remembered: the next one reads what lies between the two. Where it does not help, because messages went, a count by
//! tables also reads some rows, no more than it costs itself, until those that are remembered do.

use crate::counts::{Set, Span};
use crate::error::Error;
use crate::filter::{Filter, Filters};
use crate::limits::{CANDIDATES_MAX, STRADDLERS_MAX};
use crate::segment::{Cache, Part, TableCursor};
use crate::stream::Stream;
use crate::subjects::SubjectPlace;

// About how much CPU time it takes, in nanoseconds.

/// A row, read for the first time, with its share of the page.
const ROW_NANOS: u64 = 130;
/// A subject that the filters match.
const CANDIDATE_NANOS: u64 = 40;
/// A straddler, with its postings in the tails.
const STRADDLER_NANOS: u64 = 100;
/// A block of a subject table.
const BLOCK_NANOS: u64 = 4000;

/// What rows cost at most to be counted without a look at the tables.
const ROWS_FIRST_NANOS: u64 = if cfg!(test) { 10 * ROW_NANOS } else { 200_000 };
/// Straddlers between two looks at what they cost.
const STRADDLERS_BETWEEN: u64 = if cfg!(test) { 4 } else { 256 };

/// The subject table of a part.
struct Table<'a> {
    cursor: TableCursor<'a>,
    /// Every message of the part is alive.
    is_complete: bool,
}

/// Which messages of a straddler are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Those that are asked for.
    After,
    /// The others, to be taken from the subject's total.
    Before,
}

/// A count, and about what it took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByTables {
    pub(crate) count: u64,
    nanos: u64,
}

impl Stream {
    /// Messages that the filters match, if sums tell without a walk over subjects.
    fn matched_by_sums(&self, filters: &Filters) -> Option<u64> {
        let is_summed = |filter: &Filter| filter.depth().is_some() || filter.literal().is_some();
        let is_known = !filters.has_overlap() && filters.as_slice().iter().all(is_summed);
        is_known.then(|| self.matched(filters))
    }

    /// Messages that the filters match.
    pub(crate) fn matched(&self, filters: &Filters) -> u64 {
        if filters.has_overlap() {
            let messages = |subject| u64::from(self.subjects.totals(subject).messages);
            return self.candidates(filters).map(messages).sum();
        }
        let counts = filters.as_slice().iter();
        counts
            .map(|filter| self.subjects.count(filter).messages)
            .sum()
    }

    pub(crate) fn count_matching(
        &self,
        io: &Cache,
        filters: &Filters,
        from: u64,
    ) -> Result<u64, Error> {
        let Some(from) = self.first_at_or_after(from) else {
            return Ok(0);
        };
        if filters.is_everything() {
            return Ok(self.count_live(from, self.last_seq));
        }
        let all = self.matched_by_sums(filters);
        match all {
            Some(all) if from == self.first_seq || all == 0 => return Ok(all),
            // They match every message there is.
            Some(all) if all == self.messages => return Ok(self.count_live(from, self.last_seq)),
            _ => {}
        }
        if let Some(count) = self.count_by_subjects(io, filters, from)? {
            return Ok(count);
        }
        if from == self.first_seq {
            return Ok(self.matched(filters));
        }
        let mut set = self.counts.take(filters);
        let count = self.count_straddlers(io, &mut set, from, all);
        self.counts.put(set);
        count
    }

    /// Counts subject by subject, if there are not too many.
    fn count_by_subjects(
        &self,
        io: &Cache,
        filters: &Filters,
        from: u64,
    ) -> Result<Option<u64>, Error> {
        let mut count = 0;
        let mut straddlers = Vec::new();
        for (number, subject) in self.candidates_since(filters, from).enumerate() {
            if number >= CANDIDATES_MAX || straddlers.len() > STRADDLERS_MAX {
                return Ok(None);
            }
            let totals = self.subjects.totals(subject);
            if from <= totals.first {
                count += u64::from(totals.messages);
            } else if from <= totals.last {
                match totals.messages {
                    1 => count += 1,
                    _ => straddlers.push(subject),
                }
            }
        }
        for subject in straddlers {
            count += self.count_of(io, subject, from)?;
        }
        Ok(Some(count))
    }

    /// Counts where many subjects lie on both sides.
    fn count_straddlers(
        &self,
        io: &Cache,
        set: &mut Set,
        from: u64,
        all: Option<u64>,
    ) -> Result<u64, Error> {
        let plan = self.plan(set, from, all);
        let rows_nanos = plan.unread.saturating_mul(ROW_NANOS);
        let by_tables = if rows_nanos > ROWS_FIRST_NANOS.max(set.tables_nanos) {
            let side = self.cheaper_side(from);
            let counted = self.count_by_tables(io, &set.filters, (from, side), rows_nanos)?;
            set.tables_nanos = counted.map_or(rows_nanos, |counted| counted.nanos);
            counted
        } else {
            None
        };
        let count = match by_tables {
            Some(ByTables { count, nanos }) => {
                if set.was_counted() {
                    // For the next time. Rows that cannot be read are not missing from what was counted.
                    let _ = self.read_ahead(io, set, &plan, nanos / ROW_NANOS);
                }
                count
            }
            None => self.count_by_plan(io, set, plan)?,
        };
        self.remember(set, from, count);
        Ok(count)
    }

    fn sides(&self, from: u64) -> [(Side, Span); 2] {
        [
            (Side::After, Span::new(from, self.last_seq)),
            (Side::Before, Span::new(self.first_seq, from - 1)),
        ]
    }

    /// The side whose tables have less to be read.
    fn cheaper_side(&self, from: u64) -> Side {
        let rows = |part: &Part, span: Span| {
            let subjects = u64::from(part.subject_count());
            // Where it is not a sum, posting lists are gone through.
            let is_sum = span.holds(part.first_seq(), part.last_seq()) && self.is_complete(part);
            if is_sum { subjects } else { 2 * subjects }
        };
        let cost = |&(_, span): &(Side, Span)| {
            let parts = self.parts.iter();
            parts
                .filter(|part| span.meets(part.first_seq(), part.last_seq()))
                .map(|part| rows(part, span))
                .sum::<u64>()
        };
        let sides = self.sides(from);
        let cheaper = sides.iter().min_by_key(|&side| cost(side));
        cheaper.map_or(Side::After, |&(side, _)| side)
    }

    /// Counts subject by subject, in the order of names, so that each block of a subject table is decoded once for each
    /// filter; `None` as soon as that would cost more than `nanos_max`.
    pub(crate) fn count_by_tables(
        &self,
        io: &Cache,
        filters: &Filters,
        (from, side): (u64, Side),
        nanos_max: u64,
    ) -> Result<Option<ByTables>, Error> {
        let mut sides = self.sides(from).into_iter();
        let Some((_, span)) = sides.find(|&(each, _)| each == side) else {
            return Ok(None);
        };
        let parts = self.parts.iter();
        let mut tables: Vec<Table<'_>> = parts
            .filter(|part| span.meets(part.first_seq(), part.last_seq()))
            .map(|part| Table {
                cursor: TableCursor::new(part),
                is_complete: self.is_complete(part),
            })
            .collect();
        let expected = self.matching_subjects(filters);
        let cost = |candidates: u64, straddlers: u64, tables: &[Table<'_>]| {
            let blocks: u64 = tables.iter().map(|table| table.cursor.blocks_read).sum();
            candidates * CANDIDATE_NANOS + straddlers * STRADDLER_NANOS + blocks * BLOCK_NANOS
        };
        let (mut count, mut candidates, mut straddlers) = (0, 0, 0);
        for number in 0..filters.as_slice().len() {
            tables.iter_mut().for_each(|table| table.cursor.rewind());
            for subject in self.candidates_of(filters, number, from) {
                candidates += 1;
                let totals = self.subjects.totals(subject);
                let messages = u64::from(totals.messages);
                if from <= totals.first {
                    count += messages;
                    continue;
                }
                if from > totals.last {
                    continue;
                }
                if messages == 1 {
                    count += 1;
                    continue;
                }
                let here = self.count_in_tables(io, &mut tables, subject, span)?;
                count += match side {
                    Side::After => here,
                    Side::Before => messages.saturating_sub(here),
                };
                straddlers += 1;
                if straddlers % STRADDLERS_BETWEEN == 0 {
                    let nanos = cost(candidates, straddlers, &tables);
                    // The rest as what was until now, where it is known how much that is.
                    let rest = expected.map_or(0, |all| all.saturating_sub(candidates));
                    let in_all = nanos.saturating_add(nanos.saturating_mul(rest) / candidates);
                    if in_all > nanos_max {
                        return Ok(None);
                    }
                }
            }
        }
        let nanos = cost(candidates, straddlers, &tables);
        Ok(Some(ByTables { count, nanos }))
    }

    /// How many subjects the filters match, if sums tell.
    fn matching_subjects(&self, filters: &Filters) -> Option<u64> {
        if filters.has_overlap() {
            return None;
        }
        let filters_in_order = filters.as_slice().iter();
        let subjects = filters_in_order.map(|filter| {
            let is_summed = filter.depth().is_some() || filter.literal().is_some();
            is_summed.then(|| self.subjects.count(filter).subjects)
        });
        subjects.sum()
    }

    /// The subject's messages in the span.
    fn count_in_tables(
        &self,
        io: &Cache,
        tables: &mut [Table<'_>],
        subject: SubjectPlace,
        span: Span,
    ) -> Result<u64, Error> {
        let name = self.subjects.name(subject);
        let mut count = 0;
        for table in tables {
            if !table.cursor.seek(name)? {
                continue;
            }
            let Some(local) = table.cursor.local() else {
                continue;
            };
            if table.is_complete && span.holds(local.first, local.last) {
                count += local.messages;
                continue;
            }
            if !span.meets(local.first, local.last) {
                continue;
            }
            let part = table.cursor.part;
            part.runs_in(io, &local, span.ends(), |run| {
                let (from, to) = span.cut(Span::new(run.start, run.end)).ends();
                count += match table.is_complete {
                    true => to - from + 1,
                    false => self.count_live(from, to),
                };
            })?;
        }
        let (from, to) = span.ends();
        for (tail, slot) in self.tails_of(name) {
            let postings = tail.postings_from(slot, from);
            let live = postings.take_while(|&seq| seq <= to);
            count += live.filter(|&seq| self.is_live(seq)).count() as u64;
        }
        Ok(count)
    }
}
