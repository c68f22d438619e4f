//! The index itself: chunks in the order of names.
//!
//! One subject is found by two binary searches, over where chunks start and inside of one. There is no hash table beside
//! them: it would cost a third as much memory again. The index never holds a message or a posting: those are in the tail
//! and in the segments.
//!
//! What a flush needs of it is the totals of each subject that has changed. They are not copied: the flush shares the
//! chunks that have changed, which costs as much as there are chunks, and a chunk that it still shares is copied when it
//! changes again (`docs/decisions/subjects-in-chunks.md`).

use std::sync::Arc;

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

/// A chunk, and when it changed.
#[derive(Debug, Default)]
struct Slot {
    /// Shared with a flush from the freeze on.
    chunk: Arc<Chunk>,
    /// The generation in which it changed last, which is the one that its flags are of.
    changed: u64,
}

/// The subject index of one stream.
#[derive(Debug)]
pub(crate) struct Subjects {
    count: usize,
    /// Chunks in name order. None of them is empty.
    pub(super) order: Vec<Node>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Counts freezes, from one.
    generation: u64,
}

impl Default for Subjects {
    fn default() -> Self {
        Self {
            count: 0,
            order: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            generation: 1,
        }
    }
}

impl Subjects {
    /// Subjects with messages.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn chunk(&self, chunk: u32) -> &Chunk {
        let slot = self.slots.get(chunk as usize);
        &slot.expect("the order names chunks").chunk
    }

    /// The number of the chunk at that position.
    pub(super) fn number(&self, at: usize) -> Option<u32> {
        Some(self.order.get(at)?.chunk)
    }

    /// The chunk, to be changed: a copy if a flush shares it. Its flags are of this generation from now on.
    fn chunk_mut(&mut self, chunk: u32) -> &mut Chunk {
        let generation = self.generation;
        let slot = self.slot_mut(chunk);
        let chunk = Arc::make_mut(&mut slot.chunk);
        if slot.changed != generation {
            slot.changed = generation;
            chunk.forget_touched();
        }
        chunk
    }

    fn slot_mut(&mut self, chunk: u32) -> &mut Slot {
        let slot = self.slots.get_mut(chunk as usize);
        slot.expect("the order names chunks")
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

    /// Notes that a subject has changed, if it is there.
    pub(crate) fn touch(&mut self, name: &[u8]) {
        if let Some(place) = self.find(name) {
            self.chunk_mut(place.chunk).touch(place.within as usize);
        }
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

    /// Puts a chunk whose flags are of this generation at a position.
    fn push_chunk(&mut self, at: usize, start: Box<[u8]>, chunk: Chunk) {
        let slot = Slot {
            chunk: Arc::new(chunk),
            changed: self.generation,
        };
        let number = if let Some(number) = self.free.pop() {
            *self.slot_mut(number) = slot;
            number
        } else {
            if self.slots.is_empty() {
                // Most streams need no more.
                self.slots.reserve_exact(1);
                self.order.reserve_exact(1);
            }
            self.slots.push(slot);
            (self.slots.len() - 1) as u32
        };
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
        let left = std::mem::take(&mut self.slot_mut(number).chunk);
        assert_eq!(
            left.total(),
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

    /// Adds a subject with known totals; names come in ascending order, and [`Subjects::loaded`] behind them (recovery).
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

    /// Everything is loaded, and nothing of it has changed.
    pub(crate) fn loaded(&mut self) {
        self.shrink_last();
        self.generation += 1;
    }

    fn shrink_last(&mut self) {
        if let Some(last) = self.order.last().map(|node| node.chunk) {
            self.chunk_mut(last).shrink();
        }
    }

    /// The chunks that changed since the last freeze, in the order of names. What changed in them and still has messages is
    /// [`Chunk::touched`]; a chunk may be without. O(chunks).
    pub(crate) fn freeze(&mut self) -> Vec<Arc<Chunk>> {
        let slots = self.order.iter().filter_map(|node| {
            let slot = self.slots.get(node.chunk as usize)?;
            (slot.changed == self.generation).then(|| slot.chunk.clone())
        });
        let frozen = slots.collect();
        self.generation += 1;
        frozen
    }

    /// Memory on the heap, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        let chunks = self.slots.iter().map(|slot| {
            let counters = 2 * size_of::<usize>();
            counters + size_of::<Chunk>() + slot.chunk.heap_bytes()
        });
        let starts: usize = self.order.iter().map(|node| node.start.len()).sum();
        chunks.sum::<usize>()
            + starts
            + self.slots.capacity() * size_of::<Slot>()
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
        loaded.loaded();
        assert!(loaded.freeze().is_empty());
        let settled = loaded.heap_bytes() / 30_000;
        assert!(settled < 24 + 16 + 4, "{settled} bytes for each subject");
        loaded.check().unwrap();
    }

    fn names_of(frozen: &[Arc<Chunk>]) -> Vec<&[u8]> {
        let touched = frozen.iter().flat_map(|chunk| chunk.touched());
        touched.map(|(name, _)| name).collect()
    }

    #[test]
    fn changed_subjects_are_frozen_once() {
        let mut index = Subjects::default();
        index.add(b"b", 1).unwrap();
        index.add(b"a", 2).unwrap();
        index.add(b"b", 3).unwrap();
        assert_eq!(names_of(&index.freeze()), [b"a", b"b"]);
        assert!(index.freeze().is_empty());
        index.subtract(index.find(b"b").unwrap(), 1);
        assert_eq!(names_of(&index.freeze()), [b"b"]);
        index.subtract(index.find(b"a").unwrap(), 1);
        let frozen = index.freeze();
        assert!(
            names_of(&frozen).is_empty(),
            "a subject without messages needs no row"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// What was frozen stays as it was, and is all that changed, wherever chunks are split and put together meanwhile.
        #[test]
        fn frozen_subjects_stay_as_they_were(
            ops in prop::collection::vec((0u8..3, 0u16..480), 1..900),
            freezes in prop::collection::vec(1usize..200, 1..8),
        ) {
            let (mut index, mut model) = (Subjects::default(), BTreeMap::new());
            let mut changed = BTreeMap::new();
            let mut frozen: Vec<(Vec<Arc<Chunk>>, Vec<_>)> = Vec::new();
            let (mut freezes, mut left) = (freezes.into_iter(), 100);
            for (at, (op, key)) in ops.into_iter().enumerate() {
                let (seq, name) = (at as u64 + 1, name(key));
                if op > 0 {
                    index.add(&name, seq).unwrap();
                    let entry = model.entry(name.clone()).or_insert((0, 0));
                    *entry = (entry.0 + 1, seq);
                    changed.insert(name, *entry);
                } else if let Some((messages, last)) = model.get_mut(&name) {
                    index.subtract(index.find(&name).unwrap(), 1);
                    *messages -= 1;
                    if *messages == 0 {
                        model.remove(&name);
                        changed.remove(&name);
                    } else {
                        changed.insert(name, (*messages, *last));
                    }
                }
                left -= 1;
                if left == 0 {
                    left = freezes.next().unwrap_or(60);
                    let want = std::mem::take(&mut changed).into_iter().collect();
                    frozen.push((index.freeze(), want));
                }
            }
            compare(&index, &model);
            for (chunks, want) in frozen {
                let touched = chunks.iter().flat_map(|chunk| chunk.touched());
                let have: Vec<_> = touched
                    .map(|(name, totals)| (name.to_vec(), (totals.messages, totals.last)))
                    .collect();
                prop_assert_eq!(have, want);
            }
        }
    }
}
