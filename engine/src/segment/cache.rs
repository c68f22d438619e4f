//! Decoded blocks of segments, kept in memory up to a budget.
//!
//! Two generations: what is used goes to the young one; when that holds half of the budget it becomes the old one, and
//! what was in the old one is dropped. No order of a hash map and no clock decides what stays.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;
use crate::segment::postings::{ChunkRef, SeqRun};
use crate::segment::row::Row;
use crate::segment::table::SubjectRow;

/// Places of damage that are remembered until they are taken; the scrub finds the others.
const MET_MAX: usize = 64;

/// A decoded block.
#[derive(Debug, Clone)]
pub(crate) enum Cached {
    Body(Bytes),
    Rows(Arc<[Row]>),
    Subjects(Arc<[SubjectRow]>),
    Runs(Arc<[SeqRun]>),
    Index(Arc<[ChunkRef]>),
}

impl Cached {
    fn weight(&self) -> usize {
        64 + match self {
            Self::Body(bytes) => bytes.len(),
            Self::Rows(rows) => size_of_val(&**rows),
            Self::Subjects(rows) => rows
                .iter()
                .map(|row| size_of::<SubjectRow>() + row.name.len() + 32)
                .sum(),
            Self::Runs(runs) => size_of_val(&**runs),
            Self::Index(chunks) => size_of_val(&**chunks),
        }
    }
}

#[derive(Debug, Default)]
struct Generations {
    young: BTreeMap<(u64, u64), Cached>,
    old: BTreeMap<(u64, u64), Cached>,
    young_bytes: usize,
}

/// The cache of one store. Not shared between threads: jobs read without it.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    generations: RefCell<Generations>,
    budget_bytes: usize,
    /// Damage that reads have met, each place once, until it is taken.
    met: RefCell<Vec<Error>>,
}

impl Cache {
    pub(crate) fn new(budget_bytes: usize) -> Self {
        Self {
            generations: RefCell::default(),
            budget_bytes,
            met: RefCell::default(),
        }
    }

    /// Lets the outcome of a read pass, and remembers the damage that it met.
    pub(crate) fn noted<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        outcome.inspect_err(|error| self.note(error))
    }

    #[cold]
    fn note(&self, error: &Error) {
        let Error::Corrupt { file, offset, .. } = error else {
            return;
        };
        let mut met = self.met.borrow_mut();
        let is_same = |known: &Error| matches!(known, Error::Corrupt { file: of, offset: at, .. } if of == file && at == offset);
        if met.len() < MET_MAX && !met.iter().any(is_same) {
            met.push(error.clone());
        }
    }

    /// Damage that reads have met since it was last taken.
    pub(crate) fn met(&self) -> Vec<Error> {
        self.met.borrow().clone()
    }

    /// The same, which is then forgotten here.
    pub(crate) fn take_met(&self) -> Vec<Error> {
        std::mem::take(&mut *self.met.borrow_mut())
    }

    /// The block at `offset` of that segment.
    pub(crate) fn get(&self, segment: u64, offset: u64) -> Option<Cached> {
        let key = (segment, offset);
        let mut generations = self.generations.borrow_mut();
        if let Some(found) = generations.young.get(&key) {
            return Some(found.clone());
        }
        let found = generations.old.remove(&key)?;
        drop(generations);
        self.put(segment, offset, found.clone());
        Some(found)
    }

    pub(crate) fn put(&self, segment: u64, offset: u64, block: Cached) {
        let weight = block.weight();
        if weight > self.budget_bytes / 4 {
            return;
        }
        let mut generations = self.generations.borrow_mut();
        if generations.young_bytes + weight > self.budget_bytes / 2 {
            generations.old = std::mem::take(&mut generations.young);
            generations.young_bytes = 0;
        }
        generations.young_bytes += weight;
        generations.young.insert((segment, offset), block);
    }

    /// Blocks in it.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let generations = self.generations.borrow();
        generations.young.len() + generations.old.len()
    }

    /// Forgets everything (a segment's bytes were replaced).
    pub(crate) fn clear(&self) {
        *self.generations.borrow_mut() = Generations::default();
    }
}
