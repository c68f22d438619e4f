//! The index itself: chunks in the order of names.
//!
//! One subject is found by two binary searches, over where chunks start and inside of one. There is no hash table beside
//! them: it would cost a third as much memory again. The index never holds a message or a posting: those are in the tail
//! and in the segments.

use crate::error::Error;
use crate::limits::SUBJECT_MESSAGES_MAX;
use crate::subjects::chunk::{Chunk, Counted, Totals};

/// Where a subject is, until a subject comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubjectPlace {
    pub(super) chunk: u32,
    pub(super) within: u32,
}

/// Where a chunk stands in the order.
#[derive(Debug)]
pub(super) struct Node {
    /// No name of the chunk is before it and no name of the chunk in front is at or after it: the first name when the
    /// chunk was made, and nothing for the first chunk of all.
    pub(super) start: Box<[u8]>,
    /// Its number in `chunks`.
    pub(super) chunk: u32,
}

/// The subject index of one stream.
#[derive(Debug, Default)]
pub(crate) struct Subjects {
    count: usize,
    /// Chunks in name order. None of them is empty.
    pub(super) order: Vec<Node>,
    chunks: Vec<Chunk>,
    free: Vec<u32>,
}

impl Subjects {
    /// Subjects with messages.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn chunk(&self, chunk: u32) -> &Chunk {
        self.chunks
            .get(chunk as usize)
            .expect("the order names chunks")
    }

    /// The number of the chunk at that position.
    pub(super) fn number(&self, at: usize) -> Option<u32> {
        Some(self.order.get(at)?.chunk)
    }

    fn chunk_mut(&mut self, chunk: u32) -> &mut Chunk {
        self.chunks
            .get_mut(chunk as usize)
            .expect("the order names chunks")
    }

    /// The subject's bytes.
    pub(crate) fn name(&self, subject: SubjectPlace) -> &[u8] {
        self.chunk(subject.chunk).name(subject.within as usize)
    }

    /// Its totals.
    pub(crate) fn totals(&self, subject: SubjectPlace) -> Totals {
        self.chunk(subject.chunk).totals(subject.within as usize)
    }

    /// Finds a subject by name. O(log n).
    pub(crate) fn find(&self, name: &[u8]) -> Option<SubjectPlace> {
        let (at, within) = self.ordered_position(name);
        let place = SubjectPlace {
            chunk: self.number(at)?,
            within: within as u32,
        };
        let chunk = self.chunk(place.chunk);
        (within < chunk.len() && chunk.name(within) == name).then_some(place)
    }

    /// Counts one more message, `seq`, of the subject; `seq` is above every other of the stream.
    pub(crate) fn add(&mut self, name: &[u8], seq: u64) -> Result<(), Error> {
        let (at, within) = self.ordered_position(name);
        let Some(number) = self.number(at) else {
            return self.insert((at, within), name, seq);
        };
        let chunk = self.chunk_mut(number);
        if within >= chunk.len() || chunk.name(within) != name {
            return self.insert((at, within), name, seq);
        }
        if chunk.totals(within).messages >= SUBJECT_MESSAGES_MAX {
            return Err(Error::Limit {
                what: "messages of a subject",
                limit: SUBJECT_MESSAGES_MAX.into(),
            });
        }
        chunk.add_message(within, seq);
        Ok(())
    }

    /// A new subject, at its position.
    fn insert(
        &mut self,
        (mut at, mut within): (usize, usize),
        name: &[u8],
        seq: u64,
    ) -> Result<(), Error> {
        let totals = Totals {
            messages: 1,
            first: seq,
            first_is_bound: false,
            last: seq,
        };
        self.check_room()?;
        self.count += 1;
        if let Some(number) = self.number(at)
            && self.chunk(number).is_full()
        {
            let len = self.chunk(number).len();
            if at + 1 == self.order.len() && within == len {
                // Names that come in order fill their chunks: do not halve them.
                self.chunk_mut(number).shrink();
                (at, within) = (at + 1, 0);
            } else {
                let upper = self.chunk_mut(number).split_off(len / 2);
                let start = upper.name(0).into();
                self.push_chunk(at + 1, start, upper);
                if within > len / 2 {
                    (at, within) = (at + 1, within - len / 2);
                }
            }
        }
        if at == self.order.len() {
            self.push_chunk(at, name.into(), Chunk::default());
        }
        let number = self.number(at).expect("it was there or was pushed");
        let chunk = self.chunk_mut(number);
        chunk.insert(within, name, totals);
        chunk.touch(within);
        Ok(())
    }

    fn check_room(&self) -> Result<(), Error> {
        if self.count < u32::MAX as usize {
            return Ok(());
        }
        Err(Error::Limit {
            what: "subjects of a stream",
            limit: u32::MAX.into(),
        })
    }

    fn push_chunk(&mut self, at: usize, start: Box<[u8]>, chunk: Chunk) {
        let number = self.free.pop().unwrap_or_else(|| {
            if self.chunks.is_empty() {
                // Most streams need no more.
                self.chunks.reserve_exact(1);
                self.order.reserve_exact(1);
            }
            self.chunks.push(Chunk::default());
            (self.chunks.len() - 1) as u32
        });
        *self.chunk_mut(number) = chunk;
        let start = if at == 0 { Box::default() } else { start };
        let node = Node {
            start,
            chunk: number,
        };
        self.order.insert(at, node);
    }

    /// Counts messages less. `first` and `last` are then put right by the caller, who knows the postings; a subject
    /// without messages is gone, and every place with it.
    pub(crate) fn subtract(&mut self, subject: SubjectPlace, count: u32) -> Totals {
        let goes = self.totals(subject).messages == count;
        let at = goes.then(|| self.order_of(subject.chunk));
        let chunk = self.chunk_mut(subject.chunk);
        let totals = chunk.subtract(subject.within as usize, count);
        if let Some(at) = at {
            self.count -= 1;
            self.tidy(at);
        }
        totals
    }

    /// Where the chunk stands in the order.
    fn order_of(&self, number: u32) -> usize {
        self.ordered_position(self.chunk(number).name(0)).0
    }

    /// A subject has left the chunk at that position.
    fn tidy(&mut self, at: usize) {
        if self.count == 0 {
            return self.clear();
        }
        let Some(number) = self.number(at) else {
            return;
        };
        if self.chunk(number).is_empty() {
            self.drop_chunk(at);
            return;
        }
        if let Some(next) = self.number(at + 1)
            && self.chunk(number).is_sparse_with(self.chunk(next))
        {
            let absorbed = std::mem::take(self.chunk_mut(next));
            self.chunk_mut(number).append(&absorbed);
            self.drop_chunk(at + 1);
        }
    }

    fn drop_chunk(&mut self, at: usize) {
        let number = self.order.remove(at).chunk;
        if let Some(first) = self.order.first_mut() {
            first.start = Box::default();
        }
        let left = std::mem::take(self.chunk_mut(number)).total();
        assert_eq!(
            left,
            Counted::default(),
            "a chunk's sum is that of its subjects"
        );
        self.free.push(number);
    }

    /// Sets where the subject's messages start and end.
    pub(crate) fn set_bounds(
        &mut self,
        subject: SubjectPlace,
        first: u64,
        is_bound: bool,
        last: u64,
    ) {
        let chunk = self.chunk_mut(subject.chunk);
        chunk.set_bounds(subject.within as usize, first, is_bound, last);
    }

    /// Forgets every subject. An empty index owns no memory.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds a subject with known totals; names come in ascending order (recovery).
    pub(crate) fn load(&mut self, name: &[u8], totals: Totals) -> Result<(), Error> {
        self.check_room()?;
        let last = self.order.last().map(|node| node.chunk);
        if last.is_none_or(|last| self.chunk(last).is_full()) {
            self.shrink_last();
            self.push_chunk(self.order.len(), name.into(), Chunk::default());
        }
        let last = self.order.last().map(|node| node.chunk);
        let chunk = self.chunk_mut(last.expect("it was there or was pushed"));
        chunk.insert(chunk.len(), name, totals);
        self.count += 1;
        Ok(())
    }

    /// Everything is loaded, or the last chunk is full.
    pub(crate) fn shrink_last(&mut self) {
        if let Some(last) = self.order.last().map(|node| node.chunk) {
            self.chunk_mut(last).shrink();
        }
    }

    /// Takes the subjects that changed since the last call and still have messages, in the order of names.
    pub(crate) fn take_touched(&mut self) -> Vec<SubjectPlace> {
        let mut taken = Vec::new();
        for &Node { chunk, .. } in &self.order {
            let found = self.chunks.get_mut(chunk as usize);
            let found = found.expect("the order names chunks");
            found.take_touched(|within| {
                let within = within as u32;
                taken.push(SubjectPlace { chunk, within });
            });
        }
        taken
    }

    /// Memory on the heap, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(Chunk::heap_bytes).sum();
        let starts: usize = self.order.iter().map(|node| node.start.len()).sum();
        chunks
            + starts
            + self.chunks.capacity() * size_of::<Chunk>()
            + self.order.capacity() * size_of::<Node>()
            + self.free.capacity() * size_of::<u32>()
    }

    /// Cross-checks the parts; the text says what is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut previous: Option<&[u8]> = None;
        let mut seen = 0;
        for Node { start, chunk } in &self.order {
            let number = *chunk;
            let chunk = self.chunk(number);
            chunk.check()?;
            let follows = match previous {
                Some(previous) => *previous < **start && **start <= *chunk.name(0),
                None => start.is_empty(),
            };
            if chunk.is_empty() || !follows {
                return Err(format!("chunk {number} is empty or out of order"));
            }
            previous = Some(chunk.name(chunk.len() - 1));
            seen += chunk.len();
        }
        if seen != self.count {
            return Err(format!("{seen} subjects in order, {} counted", self.count));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn name(key: u16) -> Vec<u8> {
        format!(
            "{}.k{}",
            ["a", "ab", "b", "c.d"][usize::from(key % 4)],
            key / 4
        )
        .into_bytes()
    }

    fn compare(index: &Subjects, model: &BTreeMap<Vec<u8>, (u32, u64)>) {
        index.check().unwrap();
        let have: Vec<_> = index
            .iter_from(b"")
            .map(|s| index.name(s).to_vec())
            .collect();
        assert_eq!(have, model.keys().cloned().collect::<Vec<_>>());
        for (name, (messages, last)) in model {
            let totals = index.totals(index.find(name).unwrap());
            assert_eq!((totals.messages, totals.last), (*messages, *last));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn behaves_as_a_map(ops in prop::collection::vec((any::<bool>(), 0u16..480), 1..900)) {
            let (mut index, mut model) = (Subjects::default(), BTreeMap::new());
            for (at, (is_add, key)) in ops.into_iter().enumerate() {
                let (seq, name) = (at as u64 + 1, name(key));
                if is_add {
                    index.add(&name, seq).unwrap();
                    let entry = model.entry(name).or_insert((0, 0));
                    *entry = (entry.0 + 1, seq);
                } else if let Some(entry) = model.get_mut(&name) {
                    index.subtract(index.find(&name).unwrap(), 1);
                    entry.0 -= 1;
                    if entry.0 == 0 {
                        model.remove(&name);
                    }
                }
            }
            compare(&index, &model);
        }
    }

    #[test]
    fn thousands_come_and_go() {
        let (mut index, mut model) = (Subjects::default(), BTreeMap::new());
        for step in 0..20_000u64 {
            let name = format!("x.{}", step * 7919 % 5003).into_bytes();
            index.add(&name, step + 1).unwrap();
            let entry = model.entry(name).or_insert((0u32, 0u64));
            *entry = (entry.0 + 1, step + 1);
        }
        compare(&index, &model);
        assert!(index.order.len() > 9);
        let names: Vec<_> = model.keys().cloned().collect();
        for name in names.iter().filter(|name| name.len() % 2 == 0) {
            let (messages, _) = model.remove(name).unwrap();
            index.subtract(index.find(name).unwrap(), messages);
        }
        compare(&index, &model);
        // What is left is close together again.
        let before = index.order.len();
        for name in names.iter().skip(1) {
            if let Some((messages, _)) = model.remove(name) {
                index.subtract(index.find(name).unwrap(), messages);
            }
        }
        compare(&index, &model);
        assert!(before > 9 && index.order.len() == 1);
    }

    #[test]
    fn an_index_is_as_large_as_its_subjects() {
        let mut index = Subjects::default();
        for step in 0..30_000u64 {
            let name = format!("orders.{:09}", step * 7919 % 30_011);
            index.add(name.as_bytes(), step + 1).unwrap();
        }
        let grown = index.heap_bytes() / 30_000;
        assert!(grown < 24 + 16 + 16, "{grown} bytes for each subject");
        let mut loaded = Subjects::default();
        for subject in index.iter_from(b"") {
            let (name, totals) = (index.name(subject), index.totals(subject));
            loaded.load(name, totals).unwrap();
        }
        let settled = loaded.heap_bytes() / 30_000;
        assert!(settled < 24 + 16 + 4, "{settled} bytes for each subject");
        loaded.check().unwrap();
    }

    #[test]
    fn touched_subjects_are_told_once() {
        let mut index = Subjects::default();
        index.add(b"b", 1).unwrap();
        index.add(b"a", 2).unwrap();
        index.add(b"b", 3).unwrap();
        let touched = index.take_touched();
        let names: Vec<_> = touched.into_iter().map(|place| index.name(place)).collect();
        assert_eq!(names, [b"a", b"b"]);
        assert!(index.take_touched().is_empty());
        index.subtract(index.find(b"b").unwrap(), 1);
        assert_eq!(index.take_touched().len(), 1);
        index.subtract(index.find(b"a").unwrap(), 1);
        assert!(
            index.take_touched().is_empty(),
            "a subject without messages needs no row"
        );
    }
}
