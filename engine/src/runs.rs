//! A set of sequences kept as runs: the sequences of a stream that hold no message.
//!
//! Runs are sorted, disjoint and maximal, in chunks of at most 512 with the sum of each chunk beside it, so that counting
//! the members of a range touches chunk sums and two chunks, whatever the number of runs. Memory is 16 bytes for each
//! run; neighbours merge, so a million deletes in a row are one run.
//!
//! A clone shares the chunks, and each is copied when one of the two changes it: a merge takes its view of a stream while
//! everybody waits.

use std::ops::RangeInclusive;
use std::sync::Arc;

const RUNS_PER_CHUNK: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    start: u64,
    end: u64,
}

impl Run {
    fn len(self) -> u64 {
        self.end - self.start + 1
    }
}

#[derive(Debug, Clone, Default)]
struct Chunk {
    runs: Vec<Run>,
    /// Members of all runs in the chunk.
    members: u64,
}

/// Sorted runs of sequences.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runs {
    /// No chunk is empty.
    chunks: Vec<Arc<Chunk>>,
}

impl PartialEq for Runs {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Runs {
    /// How many runs there are.
    pub(crate) fn run_count(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.runs.len()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Every run, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.runs.iter())
            .map(|run| run.start..=run.end)
    }

    /// Runs that end at or after `from`, ascending, uncut.
    pub(crate) fn iter_from(&self, from: u64) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        let first = self.chunk_reaching(from);
        let chunks = self.chunks.get(first..).expect("a place among them");
        chunks
            .iter()
            .flat_map(|chunk| chunk.runs.iter())
            .map(|run| run.start..=run.end)
            .skip_while(move |run| *run.end() < from)
    }

    /// The first chunk whose last run ends at or after `seq`.
    fn chunk_reaching(&self, seq: u64) -> usize {
        self.chunks
            .partition_point(|chunk| chunk.runs.last().is_some_and(|run| run.end < seq))
    }

    /// The run that holds `seq`.
    fn find(&self, seq: u64) -> Option<Run> {
        let chunk = self.chunks.get(self.chunk_reaching(seq))?;
        let at = chunk.runs.partition_point(|run| run.end < seq);
        chunk.runs.get(at).copied().filter(|run| run.start <= seq)
    }

    pub(crate) fn contains(&self, seq: u64) -> bool {
        self.find(seq).is_some()
    }

    /// The first sequence at or after `seq` that is not a member.
    pub(crate) fn next_gap(&self, seq: u64) -> u64 {
        self.find(seq).map_or(seq, |run| run.end.saturating_add(1))
    }

    /// The last sequence at or before `seq` that is not a member; 0 if there is none.
    pub(crate) fn previous_gap(&self, seq: u64) -> u64 {
        self.find(seq)
            .map_or(seq, |run| run.start.saturating_sub(1))
    }

    /// Members inside the range.
    pub(crate) fn count_in(&self, range: RangeInclusive<u64>) -> u64 {
        let (from, to) = (*range.start(), *range.end());
        if from > to {
            return 0;
        }
        let mut count = 0;
        for chunk in self
            .chunks
            .get(self.chunk_reaching(from)..)
            .expect("a place among them")
        {
            let (Some(first), Some(last)) = (chunk.runs.first(), chunk.runs.last()) else {
                unreachable!("no chunk is empty");
            };
            if first.start > to {
                break;
            }
            if first.start >= from && last.end <= to {
                count += chunk.members;
                continue;
            }
            let at = chunk.runs.partition_point(|run| run.end < from);
            for run in chunk.runs.get(at..).expect("a place among them") {
                if run.start > to {
                    break;
                }
                count += run.end.min(to) - run.start.max(from) + 1;
            }
        }
        count
    }

    /// Adds every sequence of the range; those that are members already stay.
    pub(crate) fn insert(&mut self, range: RangeInclusive<u64>) {
        let mut run = Run {
            start: *range.start(),
            end: *range.end(),
        };
        assert!(run.start <= run.end, "a run holds at least one sequence");
        // Everything that overlaps or touches the new run becomes part of it.
        let touch = run.start.saturating_sub(1);
        let at = self.chunk_reaching(touch);
        let Some(chunk) = self.chunks.get_mut(at).map(Arc::make_mut) else {
            self.push_last(run);
            return;
        };
        let from = chunk.runs.partition_point(|have| have.end < touch);
        let reach = run.end.saturating_add(1);
        let count = chunk
            .runs
            .iter()
            .skip(from)
            .take_while(|have| have.start <= reach)
            .count();
        let spills = from + count == chunk.runs.len();
        let mut removed = 0;
        for have in chunk.runs.drain(from..from + count) {
            run = Run {
                start: run.start.min(have.start),
                end: run.end.max(have.end),
            };
            removed += have.len();
        }
        chunk.members -= removed;
        if spills {
            run = self.absorb_after(at, run);
        }
        let chunk = self.chunks.get_mut(at).map(Arc::make_mut);
        let chunk = chunk.expect("the chunk that the run belongs to");
        chunk.runs.insert(from, run);
        chunk.members += run.len();
        let (before, after) = (from.checked_sub(1), from + 1);
        debug_assert!(
            before
                .and_then(|at| chunk.runs.get(at))
                .is_none_or(|before| before.end < run.start)
                && chunk
                    .runs
                    .get(after)
                    .is_none_or(|after| run.end < after.start),
            "runs rise and do not touch"
        );
        self.split_if_full(at);
        debug_assert!(
            self.contains(*range.start()) && self.contains(*range.end()),
            "what was added is there"
        );
    }

    /// Takes the runs that `run` reaches out of the chunks after number `at`.
    fn absorb_after(&mut self, at: usize, mut run: Run) -> Run {
        while let Some(next) = self.chunks.get_mut(at + 1).map(Arc::make_mut) {
            let reach = run.end.saturating_add(1);
            let count = next
                .runs
                .iter()
                .take_while(|have| have.start <= reach)
                .count();
            for have in next.runs.drain(..count) {
                run.end = run.end.max(have.end);
                next.members -= have.len();
            }
            if !next.runs.is_empty() {
                break;
            }
            self.chunks.remove(at + 1);
        }
        run
    }

    fn push_last(&mut self, run: Run) {
        let last = self.chunks.last().and_then(|chunk| chunk.runs.last());
        debug_assert!(
            last.is_none_or(|last| last.end < run.start),
            "the last run is behind all others"
        );
        match self
            .chunks
            .last_mut()
            .filter(|chunk| chunk.runs.len() < RUNS_PER_CHUNK)
        {
            Some(chunk) => {
                let chunk = Arc::make_mut(chunk);
                chunk.runs.push(run);
                chunk.members += run.len();
            }
            None => self.chunks.push(Arc::new(Chunk {
                runs: vec![run],
                members: run.len(),
            })),
        }
    }

    fn split_if_full(&mut self, at: usize) {
        let Some(chunk) = self
            .chunks
            .get_mut(at)
            .filter(|chunk| chunk.runs.len() > RUNS_PER_CHUNK)
            .map(Arc::make_mut)
        else {
            return;
        };
        let runs = chunk.runs.split_off(RUNS_PER_CHUNK / 2);
        let members = runs.iter().map(|run| run.len()).sum();
        chunk.members -= members;
        assert!(
            !chunk.runs.is_empty() && !runs.is_empty(),
            "no chunk is empty"
        );
        self.chunks
            .insert(at + 1, Arc::new(Chunk { runs, members }));
    }

    /// Takes every member below `floor` out and returns them.
    pub(crate) fn remove_below(&mut self, floor: u64) -> Vec<RangeInclusive<u64>> {
        let keep = self.chunk_reaching(floor);
        let mut removed: Vec<_> = self
            .chunks
            .drain(..keep)
            .flat_map(|chunk| Arc::unwrap_or_clone(chunk).runs)
            .map(|run| run.start..=run.end)
            .collect();
        let Some(chunk) = self.chunks.first_mut().map(Arc::make_mut) else {
            return removed;
        };
        let gone = chunk.runs.partition_point(|run| run.end < floor);
        for run in chunk.runs.drain(..gone) {
            chunk.members -= run.len();
            removed.push(run.start..=run.end);
        }
        assert!(
            !chunk.runs.is_empty(),
            "a chunk that reaches the floor keeps a run"
        );
        if let Some(first) = chunk.runs.first_mut().filter(|run| run.start < floor) {
            assert!(first.end >= floor, "runs below the floor are gone");
            chunk.members -= floor - first.start;
            removed.push(first.start..=floor - 1);
            first.start = floor;
        }
        removed
    }

    /// Adds every run of `other`.
    pub(crate) fn union(&mut self, other: &Self) {
        for run in other.iter() {
            self.insert(run);
        }
    }

    /// Memory on the heap, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        let runs: usize = self
            .chunks
            .iter()
            .map(|chunk| chunk.runs.capacity() * size_of::<Run>() + size_of::<Chunk>() + 16)
            .sum();
        runs + self.chunks.capacity() * 8
    }
}

impl FromIterator<RangeInclusive<u64>> for Runs {
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u64>>>(iter: I) -> Self {
        let mut runs = Self::default();
        iter.into_iter().for_each(|run| runs.insert(run));
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn check(runs: &Runs, model: &BTreeSet<u64>, universe: u64) {
        let mut last_end = None;
        for run in runs.iter() {
            assert!(
                last_end.is_none_or(|end: u64| end + 1 < *run.start()),
                "maximal and sorted"
            );
            last_end = Some(*run.end());
        }
        for chunk in &runs.chunks {
            assert!(!chunk.runs.is_empty());
            assert_eq!(
                chunk.members,
                chunk.runs.iter().map(|run| run.len()).sum::<u64>()
            );
        }
        assert_eq!(
            runs.iter().flatten().collect::<Vec<_>>(),
            model.iter().copied().collect::<Vec<_>>()
        );
        for seq in (1..universe).step_by(7) {
            assert_eq!(runs.contains(seq), model.contains(&seq));
            assert_eq!(
                runs.next_gap(seq),
                (seq..).find(|s| !model.contains(s)).unwrap()
            );
            assert_eq!(
                runs.previous_gap(seq),
                (1..=seq).rev().find(|s| !model.contains(s)).unwrap_or(0)
            );
            let to = seq + universe / 3;
            assert_eq!(
                runs.count_in(seq..=to),
                model.range(seq..=to).count() as u64
            );
            assert_eq!(
                runs.iter_from(seq).next().map(|run| *run.end() >= seq),
                model.range(seq..).next().map(|_| true)
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn behaves_as_a_set(ops in prop::collection::vec((0u8..10, 1u64..300, 0u64..6), 1..300)) {
            let (mut runs, mut model) = (Runs::default(), BTreeSet::new());
            for (kind, at, len) in ops {
                if kind == 0 {
                    runs.remove_below(at / 4);
                    model = model.split_off(&(at / 4));
                } else {
                    runs.insert(at..=at + len);
                    model.extend(at..=at + len);
                }
            }
            check(&runs, &model, 320);
        }
    }

    #[test]
    fn many_chunks_split_merge_and_prune() {
        let (mut runs, mut model) = (Runs::default(), BTreeSet::new());
        // Every second sequence, in an order that hits the middle of chunks.
        for step in 0..5000u64 {
            let seq = (step * 2_654_435_761 % 5000) * 2 + 1;
            runs.insert(seq..=seq);
            model.insert(seq);
        }
        assert!(runs.chunks.len() > 8);
        check(&runs, &model, 400);
        runs.insert(2000..=8000);
        model.extend(2000..=8000);
        check(&runs, &model, 400);
        runs.remove_below(1234);
        check(&runs, &model.split_off(&1234), 3000);
        runs.insert(1..=20_000);
        assert_eq!(runs.run_count(), 1);
    }
}
