//! Remembered counts: how many messages the filters of a consumer match in each stretch of sequences.
//!
//!   filters  group*     group   64 buckets, and their sums      bucket   512 sequences: alive, matching
//!
//!   known    the last count: from where to where, alive, matching
//!
//! A consumer asks again and again what is still to come from a sequence that rises, and where its filters match many
//! subjects that lie on both sides of it, the index of subjects alone does not tell (`pending.rs`). So what was counted
//! is kept. Nothing needs to keep it right: a message never changes and a sequence is never given again, so a bucket
//! with as many messages alive as when it was counted has the same messages, and its count still holds. So it is with
//! the last count: while nothing of it has died, only the rows between the two and those since are counted. Only what
//! had been given out is remembered.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::error::Error;
use crate::filter::Filters;
use crate::segment::Cache;
use crate::stream::Stream;

/// Sequences of one bucket: as many rows are read again when one of them has gone.
const BUCKET_SEQS: u64 = if cfg!(test) { 8 } else { 512 };
const BUCKETS: usize = if cfg!(test) { 4 } else { 64 };
const GROUP_SEQS: u64 = BUCKET_SEQS * BUCKETS as u64;
/// Sets of filters whose counts one stream remembers. Ten million messages cost each about 80 KB.
const SETS_MAX: usize = if cfg!(test) { 3 } else { 256 };
/// `Bucket::alive` of a bucket that was never counted.
const UNKNOWN: u16 = u16::MAX;

const _: () = assert!(BUCKET_SEQS < UNKNOWN as u64, "a bucket's counters fit");

#[derive(Debug, Clone, Copy)]
struct Bucket {
    alive: u16,
    matching: u16,
}

#[derive(Debug)]
struct Group {
    /// Of all buckets together, when they were last all known.
    alive: u64,
    matching: u64,
    buckets: [Bucket; BUCKETS],
}

impl Group {
    fn new() -> Self {
        let unknown = Bucket {
            alive: UNKNOWN,
            matching: 0,
        };
        Self {
            alive: u64::MAX,
            matching: 0,
            buckets: [unknown; BUCKETS],
        }
    }
}

/// One count: of the messages in the span so many were alive, and so many of these matched.
#[derive(Debug, Clone, Copy)]
struct Known {
    span: Span,
    alive: u64,
    matching: u64,
}

/// What is remembered for one set of filters.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) filters: Filters,
    groups: BTreeMap<u64, Group>,
    /// The last count.
    known: Option<Known>,
    /// What it cost to count by tables, or how much too much that was.
    pub(crate) tables_nanos: u64,
}

impl Set {
    /// Whether a count was remembered.
    pub(crate) fn was_counted(&self) -> bool {
        self.known.is_some()
    }
}

/// How to count by what is remembered and by rows.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What is known at the start.
    base: u64,
    /// What to count and add to it.
    add: Vec<Span>,
    /// What to count and subtract from it.
    subtract: Vec<Span>,
    /// About how many rows must be read.
    pub(crate) unread: u64,
}

/// The remembered counts of one stream.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Most recently used last.
    sets: RefCell<Vec<Set>>,
}

impl Counts {
    /// Takes a set out, to be put back by [`Counts::put`].
    pub(crate) fn take(&self, filters: &Filters) -> Set {
        let mut sets = self.sets.borrow_mut();
        match sets.iter().rposition(|set| set.filters == *filters) {
            Some(at) => sets.remove(at),
            None => Set {
                filters: filters.clone(),
                groups: BTreeMap::new(),
                known: None,
                tables_nanos: 0,
            },
        }
    }

    pub(crate) fn put(&self, set: Set) {
        let mut sets = self.sets.borrow_mut();
        if sets.len() >= SETS_MAX {
            sets.remove(0);
        }
        sets.push(set);
        assert!(sets.len() <= SETS_MAX, "what is remembered is bounded");
    }

    /// Memory on the heap, about, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        let sets = self.sets.borrow();
        let groups = sets.iter().map(|set| set.groups.len()).sum::<usize>();
        sets.capacity() * size_of::<Set>() + groups * (size_of::<Group>() + 16)
    }
}

/// Sequences, both ends included; none if the second is below the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    from: u64,
    to: u64,
}

impl Span {
    pub(crate) fn new(from: u64, to: u64) -> Self {
        Self { from, to }
    }

    pub(crate) fn ends(self) -> (u64, u64) {
        (self.from, self.to)
    }

    /// Whether all of `first..=last` is in it.
    pub(crate) fn holds(self, first: u64, last: u64) -> bool {
        Self::new(first, last).is_in(self)
    }

    /// Whether any of `first..=last` is in it.
    pub(crate) fn meets(self, first: u64, last: u64) -> bool {
        self.from <= last && first <= self.to
    }

    fn of_group(number: u64) -> Self {
        let from = number * GROUP_SEQS;
        Self {
            from,
            to: from.saturating_add(GROUP_SEQS - 1),
        }
    }

    fn of_bucket(group: u64, bucket: usize) -> Self {
        let from = group * GROUP_SEQS + bucket as u64 * BUCKET_SEQS;
        Self {
            from,
            to: from.saturating_add(BUCKET_SEQS - 1),
        }
    }

    fn is_in(self, other: Self) -> bool {
        other.from <= self.from && self.to <= other.to
    }

    pub(crate) fn cut(self, other: Self) -> Self {
        Self {
            from: self.from.max(other.from),
            to: self.to.min(other.to),
        }
    }
}

impl Stream {
    fn alive_in(&self, span: Span) -> u64 {
        self.count_live(span.from, span.to)
    }

    /// The way that needs the fewest rows to count the live messages at or after `from` that the filters match. `all` is
    /// how many match anywhere, if that is known.
    pub(crate) fn plan(&self, set: &mut Set, from: u64, all: Option<u64>) -> Plan {
        assert!(from > self.first_seq, "there is something before it");
        let first_group = self.first_seq / GROUP_SEQS;
        set.groups = set.groups.split_off(&first_group);
        let before = Span::new(self.first_seq, from - 1);
        let after = Span::new(from, self.last_seq);
        let mut plans = vec![(0, vec![after], vec![])];
        plans.extend(all.map(|all| (all, vec![], vec![before])));
        let known = set.known.filter(|known| {
            self.alive_in(known.span) == known.alive && known.span.meets(from, self.last_seq)
        });
        if let Some(Known { span, matching, .. }) = known {
            let since = Span::new(span.to + 1, self.last_seq);
            let missing = Span::new(from, span.from.saturating_sub(1));
            let passed = Span::new(span.from, from - 1);
            plans.push((matching, vec![missing, since], vec![passed]));
        }
        let plans = plans.into_iter().map(|(base, add, subtract)| {
            let spans = add.iter().chain(&subtract);
            let unread = spans.map(|&span| self.unread(set, span)).sum();
            Plan {
                base,
                add,
                subtract,
                unread,
            }
        });
        let cheapest = plans.min_by_key(|plan| plan.unread);
        cheapest.expect("the span itself can always be counted")
    }

    /// Counts by rows and by what is remembered of them.
    pub(crate) fn count_by_plan(
        &self,
        io: &Cache,
        set: &mut Set,
        plan: Plan,
    ) -> Result<u64, Error> {
        let mut count = plan.base;
        for span in plan.add {
            count += self.count_span(io, set, span)?;
        }
        for span in plan.subtract {
            count = count.saturating_sub(self.count_span(io, set, span)?);
        }
        Ok(count)
    }

    /// Remembers a count of everything at or after `from`.
    pub(crate) fn remember(&self, set: &mut Set, from: u64, matching: u64) {
        let span = Span::new(from, self.last_seq);
        set.known = Some(Known {
            span,
            alive: self.alive_in(span),
            matching,
        });
    }

    /// Counts about so many of the rows that the plan misses, the last ones first, so that they are remembered.
    pub(crate) fn read_ahead(
        &self,
        io: &Cache,
        set: &mut Set,
        plan: &Plan,
        rows: u64,
    ) -> Result<(), Error> {
        let mut left = rows;
        for &span in plan.add.iter().chain(&plan.subtract) {
            if span.from > span.to {
                continue;
            }
            for number in (span.from / GROUP_SEQS..=span.to / GROUP_SEQS).rev() {
                let group = Span::of_group(number);
                if left == 0 {
                    return Ok(());
                }
                if group.is_in(span) {
                    let unread = self.unread(set, group);
                    if unread > 0 {
                        self.count_group(io, set, number, span)?;
                    }
                    left = left.saturating_sub(unread);
                }
            }
        }
        Ok(())
    }

    /// About how many messages must be read to count the span.
    fn unread(&self, set: &Set, span: Span) -> u64 {
        if span.from > span.to {
            return 0;
        }
        let groups = span.from / GROUP_SEQS..=span.to / GROUP_SEQS;
        let unread = groups.map(|number| {
            let whole = Span::of_group(number);
            let alive = self.alive_in(whole.cut(span));
            match set.groups.get(&number) {
                Some(group) if alive > 0 => {
                    if whole.is_in(span) && group.alive == alive {
                        return 0;
                    }
                    let buckets = group.buckets.iter().enumerate();
                    let unread = buckets.map(|(at, bucket)| {
                        let whole = Span::of_bucket(number, at);
                        let alive = self.alive_in(whole.cut(span));
                        let is_known = whole.is_in(span) && u64::from(bucket.alive) == alive;
                        if is_known { 0 } else { alive }
                    });
                    unread.sum()
                }
                _ => alive,
            }
        });
        unread.sum()
    }

    fn count_span(&self, io: &Cache, set: &mut Set, span: Span) -> Result<u64, Error> {
        if span.from > span.to {
            return Ok(0);
        }
        let mut count = 0;
        for number in span.from / GROUP_SEQS..=span.to / GROUP_SEQS {
            let whole = Span::of_group(number);
            let alive = self.alive_in(whole.cut(span));
            if alive == 0 {
                continue;
            }
            if whole.is_in(span)
                && let Some(group) = set.groups.get(&number)
                && group.alive == alive
            {
                count += group.matching;
                continue;
            }
            count += self.count_group(io, set, number, span)?;
        }
        Ok(count)
    }

    /// Counts the part of a group that lies in the span, and remembers the buckets that lie in it as a whole.
    fn count_group(
        &self,
        io: &Cache,
        set: &mut Set,
        number: u64,
        span: Span,
    ) -> Result<u64, Error> {
        let mut group = set.groups.remove(&number).unwrap_or_else(Group::new);
        let result = self.count_buckets(io, &set.filters, &mut group, (number, span));
        if Span::of_group(number).is_in(span) && result.is_ok() {
            let buckets = group.buckets.iter();
            group.alive = buckets.clone().map(|bucket| u64::from(bucket.alive)).sum();
            group.matching = buckets.map(|bucket| u64::from(bucket.matching)).sum();
            assert_eq!(
                group.alive,
                self.alive_in(Span::of_group(number)),
                "every bucket was counted"
            );
        }
        set.groups.insert(number, group);
        result
    }

    fn count_buckets(
        &self,
        io: &Cache,
        filters: &Filters,
        group: &mut Group,
        (number, span): (u64, Span),
    ) -> Result<u64, Error> {
        // Neighbours that must be read are read in one go.
        let mut unread: Option<Span> = None;
        let mut count = 0;
        for at in 0..BUCKETS {
            let whole = Span::of_bucket(number, at);
            let here = whole.cut(span);
            if here.from > here.to {
                continue;
            }
            let alive = self.alive_in(here);
            let bucket = group.buckets.get(at).copied();
            let known = bucket.filter(|bucket| {
                whole.is_in(span) && (u64::from(bucket.alive) == alive || alive == 0)
            });
            match known {
                Some(bucket) if alive > 0 => count += u64::from(bucket.matching),
                Some(_) => {
                    if let Some(bucket) = group.buckets.get_mut(at) {
                        *bucket = Bucket {
                            alive: 0,
                            matching: 0,
                        };
                    }
                }
                None => {
                    let from = unread.map_or(here.from, |unread| unread.from);
                    unread = Some(Span { from, to: here.to });
                    continue;
                }
            }
            if let Some(unread) = unread.take() {
                count += self.read_buckets(io, filters, group, (number, unread))?;
            }
        }
        if let Some(unread) = unread {
            count += self.read_buckets(io, filters, group, (number, unread))?;
        }
        Ok(count)
    }

    fn read_buckets(
        &self,
        io: &Cache,
        filters: &Filters,
        group: &mut Group,
        (number, span): (u64, Span),
    ) -> Result<u64, Error> {
        let mut matching = [0u16; BUCKETS];
        let mut count = 0;
        self.scan(io, filters, (span.from, span.to), &mut |seq, is_match| {
            if is_match {
                count += 1;
                let at = (seq - number * GROUP_SEQS) / BUCKET_SEQS;
                if let Some(matching) = matching.get_mut(at as usize) {
                    *matching += 1;
                }
            }
            true
        })?;
        for (at, (bucket, matching)) in group.buckets.iter_mut().zip(matching).enumerate() {
            let whole = Span::of_bucket(number, at);
            if whole.is_in(span) && whole.to <= self.last_seq {
                let alive = self.alive_in(whole) as u16;
                assert!(matching <= alive, "what matches is alive");
                *bucket = Bucket { alive, matching };
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
#[path = "counts_test.rs"]
mod tests;
