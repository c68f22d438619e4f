//! What filters match among the subjects of a stream.
//!
//! A filter that is literal at first and then only asks for a number of tokens (`orders.>`, `orders.*`, `orders.*.>`) is
//! counted by the sums of the chunks inside its range; only the chunks at both ends are looked into. Any other filter is
//! walked, but not through what cannot match: from `orders.7.sent` the walk of `orders.*.paid` goes on at `orders.7/`,
//! behind everything below `orders.7.`. So it costs as much as the filter has matches and places where one could be.

use crate::filter::Filter;
use crate::subjects::chunk::{Chunk, Counted, Depth};
use crate::subjects::index::{Node, SubjectPlace, Subjects};

/// Subjects that a walk looks at one after the other before it searches for the place where it goes on.
const STEPS_BEFORE_SEARCH: usize = 3;

impl Subjects {
    /// Position in `order` and in that chunk where `name` is or belongs.
    pub(super) fn ordered_position(&self, name: &[u8]) -> (usize, usize) {
        let after = self.order.partition_point(|node| *node.start <= *name);
        let at = after.saturating_sub(1);
        let Some(chunk) = self.number(at) else {
            return (0, 0);
        };
        (at, self.chunk(chunk).partition_point(0, |have| have < name))
    }

    /// Every subject at or after `name`, in order.
    pub(crate) fn iter_from(&self, name: &[u8]) -> impl Iterator<Item = SubjectPlace> + '_ {
        let (at, within) = self.ordered_position(name);
        let chunks = self.order.get(at..).unwrap_or_default();
        let places = chunks.iter().flat_map(|&Node { chunk, .. }| {
            let all = 0..self.chunk(chunk).len() as u32;
            all.map(move |within| SubjectPlace { chunk, within })
        });
        places.skip(within)
    }

    /// One past the last chunk that may hold names that start with `prefix`, in `order`.
    fn end_of(&self, prefix: &[u8]) -> usize {
        self.order
            .partition_point(|node| *node.start <= *prefix || node.start.starts_with(prefix))
    }

    /// What the filter matches, and how many messages that has.
    pub(crate) fn count(&self, filter: &Filter) -> Counted {
        let mut sum = Counted::default();
        let mut walk = self.matching(filter);
        while walk.at < walk.end {
            match walk.whole_chunk() {
                Some(counted) => {
                    sum += counted;
                    walk.enter(walk.at + 1);
                }
                None => walk.count_chunk(&mut sum),
            }
        }
        for subject in walk {
            sum += self.counted(subject);
        }
        sum
    }

    fn counted(&self, subject: SubjectPlace) -> Counted {
        Counted {
            subjects: 1,
            messages: self.totals(subject).messages.into(),
        }
    }

    /// Every subject that the filter matches, in order.
    pub(crate) fn matching<'a>(&'a self, filter: &'a Filter) -> Matching<'a> {
        self.matching_since(filter, 0)
    }

    /// Subjects that the filter matches, in order, all that have a message at or after `since` and perhaps others.
    pub(crate) fn matching_since<'a>(&'a self, filter: &'a Filter, since: u64) -> Matching<'a> {
        let mut walk = Matching {
            subjects: self,
            filter,
            since,
            only: None,
            at: 0,
            within: 0,
            start: 0,
            end: 0,
            target: Vec::new(),
        };
        if let Some(name) = filter.literal() {
            walk.only = self.find(name);
            return walk;
        }
        let (at, within) = self.ordered_position(filter.prefix());
        walk.end = self.end_of(filter.prefix());
        walk.start = at;
        walk.enter(at);
        if walk.at == at {
            walk.within = within;
        }
        walk
    }
}

/// A walk over the subjects that a filter matches, in the order of names.
pub(crate) struct Matching<'a> {
    subjects: &'a Subjects,
    filter: &'a Filter,
    /// Chunks without a message at or after it are passed over.
    since: u64,
    /// The one subject of a literal filter.
    only: Option<SubjectPlace>,
    /// The current chunk in `order`, and the next subject in it.
    at: usize,
    within: usize,
    /// The first chunk of the filter's range, and one past the last.
    start: usize,
    end: usize,
    /// Where the walk goes on.
    target: Vec<u8>,
}

impl<'a> Matching<'a> {
    fn number(&self) -> Option<u32> {
        let number = self.subjects.number(self.at);
        number.filter(|_| self.at < self.end)
    }

    fn chunk(&self) -> Option<&'a Chunk> {
        Some(self.subjects.chunk(self.number()?))
    }

    /// Goes to a chunk, or behind those that have nothing new enough.
    fn enter(&mut self, at: usize) {
        (self.at, self.within) = (at, 0);
        while self
            .chunk()
            .is_some_and(|chunk| chunk.last_max < self.since)
        {
            self.at += 1;
        }
    }

    fn name_at(&self, within: usize) -> Option<(SubjectPlace, &'a [u8])> {
        let number = self.number()?;
        let chunk = self.subjects.chunk(number);
        let place = SubjectPlace {
            chunk: number,
            within: within as u32,
        };
        (within < chunk.len()).then(|| (place, chunk.name(within)))
    }

    /// What the filter matches in the current chunk, if the walk is at its start, it lies inside of the filter's range
    /// and its sums tell.
    fn whole_chunk(&self) -> Option<Counted> {
        let is_inside = self.at > self.start && self.at + 1 < self.end && self.within == 0;
        let depth: Depth = self.filter.depth().filter(|_| is_inside)?;
        self.chunk()?.of_depth(depth)
    }

    /// Adds the matches of the rest of the current chunk, or of as much as the walk looks at before it leaves it.
    fn count_chunk(&mut self, sum: &mut Counted) {
        let at = self.at;
        while self.at == at {
            match self.step() {
                Some(Some(subject)) => *sum += self.subjects.counted(subject),
                Some(None) => {}
                None => break,
            }
        }
    }

    /// Passes over the next `count` matches; `false` when there are not so many.
    pub(crate) fn pass(&mut self, mut count: u64) -> bool {
        while count > 0 {
            match self.whole_chunk().filter(|chunk| chunk.subjects <= count) {
                Some(chunk) => {
                    count -= chunk.subjects;
                    self.enter(self.at + 1);
                }
                None => match self.next() {
                    Some(_) => count -= 1,
                    None => return false,
                },
            }
        }
        true
    }

    /// Goes on behind `name`.
    pub(crate) fn pass_name(&mut self, name: &[u8]) {
        if self.filter.literal().is_some_and(|literal| literal <= name) {
            self.only = None;
        }
        let (at, within) = self.subjects.ordered_position(name);
        if self.end > 0 && (at, within) > (self.at, self.within) {
            self.enter(at);
            if self.at == at {
                self.within = within;
            }
        }
        if self.name_at(self.within).is_some_and(|next| next.1 == name) {
            self.within += 1;
        }
    }

    /// Looks at one subject: `None` at the end, `Some(None)` if it does not match.
    fn step(&mut self) -> Option<Option<SubjectPlace>> {
        self.chunk()?;
        let Some((subject, name)) = self.name_at(self.within) else {
            self.enter(self.at + 1);
            return Some(None);
        };
        self.within += 1;
        let prefix = self.filter.prefix();
        if !name.starts_with(prefix) {
            if name > prefix {
                self.at = self.end;
            }
            return Some(None);
        }
        if self.filter.matches(name) {
            return Some(Some(subject));
        }
        if self.filter.next_candidate(name, &mut self.target) {
            self.seek();
        }
        Some(None)
    }

    /// Goes to the first subject at or after `target`, which is after the one that was looked at last.
    fn seek(&mut self) {
        for _ in 0..STEPS_BEFORE_SEARCH {
            match self.name_at(self.within) {
                Some((_, name)) if name < &*self.target => self.within += 1,
                Some(_) => return,
                None => break,
            }
        }
        let Some(chunk) = self.chunk() else { return };
        let is_before = |name: &[u8]| name < &*self.target;
        if !is_before(chunk.name(chunk.len() - 1)) {
            self.within = chunk.partition_point(self.within, is_before);
            return;
        }
        let later = self.subjects.order.get(self.at + 1..self.end);
        let passed = later
            .unwrap_or_default()
            .partition_point(|node| is_before(&node.start));
        // The last chunk that starts before the target may still hold it; the one after it starts at or after it.
        let at = self.at + passed.max(1);
        self.enter(at);
        if self.at == at
            && passed > 0
            && let Some(chunk) = self.chunk()
        {
            self.within = chunk.partition_point(0, |name| name < &*self.target);
        }
    }
}

impl Iterator for Matching<'_> {
    type Item = SubjectPlace;

    fn next(&mut self) -> Option<SubjectPlace> {
        if let Some(only) = self.only.take() {
            return Some(only);
        }
        loop {
            if let Some(subject) = self.step()? {
                return Some(subject);
            }
        }
    }
}

#[cfg(test)]
#[path = "walk_test.rs"]
mod tests;
