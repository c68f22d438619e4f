//! The index itself: one subject by its name, in O(1).
//!
//!   slots    open addressing: hash (32 bits) | entry number (32 bits); no name is touched on a miss
//!   entries  40 bytes each: name, messages, first, last, chunk, tail slots; freed entries are used again
//!   names    one arena; rebuilt when more than half of it is garbage
//!   order    entry numbers sorted by name, in chunks of at most 512 with the sums of each chunk beside them
//!
//! A subject costs its name and about 56 bytes. The index never holds a message or a posting: those are in the tail and
//! in the segments.
//!
//! `first` may lag: when a subject's first message goes, `first` becomes a lower bound (`FIRST_IS_BOUND`), because the
//! exact one would need a posting lookup for each message that limits remove. `last` is always exact.

use crate::error::Error;
use crate::hash::hash;
use crate::limits::{SUBJECT_ARENA_BYTES_MAX, SUBJECT_MESSAGES_MAX};
use crate::subjects::chunk::{Chunk, Counted, IDS_PER_CHUNK, level_of};

/// No tail slot.
pub(crate) const NO_SLOT: u32 = u32::MAX;

const EMPTY: u64 = u64::MAX;
const NAME_OFFSET_BITS: u32 = 40;
/// Flag in `Entry::name`: `first` is only a lower bound.
const FIRST_IS_BOUND: u64 = 1 << 56;
/// Flag in `Entry::name`: changed since the last flush began.
const TOUCHED: u64 = 1 << 57;

/// The number of a subject in its stream; given again after the subject is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SubjectNumber(pub(crate) u32);

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Offset in the arena (40 bits), length (16 bits), flags (8 bits).
    name: u64,
    first: u64,
    last: u64,
    /// 0: the entry is free.
    messages: u32,
    chunk: u32,
    /// Where its postings are in the tails of even and odd generations.
    slots: [u32; 2],
}

const _: () = assert!(
    size_of::<Entry>() == 40,
    "a subject costs forty bytes and its name"
);

/// What is known of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) messages: u32,
    /// The first message; with `first_is_bound` only not after it.
    pub(crate) first: u64,
    pub(crate) first_is_bound: bool,
    pub(crate) last: u64,
}

/// The subject index of one stream.
#[derive(Debug, Default)]
pub(crate) struct Subjects {
    entries: Vec<Entry>,
    free: Vec<u32>,
    names: Vec<u8>,
    garbage_bytes: u64,
    slots: Vec<u64>,
    count: usize,
    /// Chunks in name order; numbers into `chunks`. None of them is empty.
    pub(super) order: Vec<u32>,
    chunks: Vec<Chunk>,
    free_chunks: Vec<u32>,
    touched: Vec<u32>,
}

impl Subjects {
    /// Subjects with messages.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    fn entry(&self, id: u32) -> &Entry {
        self.entries
            .get(id as usize)
            .expect("ids in tables name entries")
    }

    fn entry_mut(&mut self, id: u32) -> &mut Entry {
        self.entries
            .get_mut(id as usize)
            .expect("ids in tables name entries")
    }

    fn name_of(&self, entry: &Entry) -> &[u8] {
        let start = (entry.name & ((1 << NAME_OFFSET_BITS) - 1)) as usize;
        let len = ((entry.name >> NAME_OFFSET_BITS) & 0xffff) as usize;
        self.names.get(start..start + len).unwrap_or_default()
    }

    /// The subject's bytes.
    pub(crate) fn name(&self, subject: SubjectNumber) -> &[u8] {
        self.name_of(self.entry(subject.0))
    }

    /// Its totals.
    pub(crate) fn totals(&self, subject: SubjectNumber) -> Totals {
        let entry = self.entry(subject.0);
        Totals {
            messages: entry.messages,
            first: entry.first,
            first_is_bound: entry.name & FIRST_IS_BOUND != 0,
            last: entry.last,
        }
    }

    /// Where its postings are in the tail of that generation, if it ever had any there.
    pub(crate) fn tail_slot(&self, subject: SubjectNumber, generation: u64) -> u32 {
        let [even, odd] = self.entry(subject.0).slots;
        if generation & 1 == 0 { even } else { odd }
    }

    pub(crate) fn set_tail_slot(&mut self, subject: SubjectNumber, generation: u64, slot: u32) {
        let [even, odd] = &mut self.entry_mut(subject.0).slots;
        *(if generation & 1 == 0 { even } else { odd }) = slot;
    }

    /// Finds a subject by name.
    pub(crate) fn find(&self, name: &[u8]) -> Option<SubjectNumber> {
        if self.slots.is_empty() {
            return None;
        }
        self.find_hashed(name, hash(name, 0))
            .map(|(_, id)| SubjectNumber(id))
    }

    fn find_hashed(&self, name: &[u8], hash: u64) -> Option<(usize, u32)> {
        let mask = self.slots.len() - 1;
        let tag = hash >> 32;
        let mut at = hash as usize & mask;
        loop {
            let slot = *self.slots.get(at)?;
            if slot == EMPTY {
                return None;
            }
            if slot >> 32 == tag && self.name_of(self.entry(slot as u32)) == name {
                return Some((at, slot as u32));
            }
            at = (at + 1) & mask;
        }
    }

    /// Counts one more message, `seq`, of the subject; `seq` is above every other of the stream.
    pub(crate) fn add(&mut self, name: &[u8], seq: u64) -> Result<SubjectNumber, Error> {
        let hashed = hash(name, 0);
        let found = if self.slots.is_empty() {
            None
        } else {
            self.find_hashed(name, hashed)
        };
        let Some((_, id)) = found else {
            let totals = Totals {
                messages: 1,
                first: seq,
                first_is_bound: false,
                last: seq,
            };
            return self.create(name, hashed, totals);
        };
        let entry = self.entry_mut(id);
        if entry.messages >= SUBJECT_MESSAGES_MAX {
            return Err(Error::Limit {
                what: "messages of a subject",
                limit: SUBJECT_MESSAGES_MAX.into(),
            });
        }
        assert!(entry.last < seq, "sequences of a subject rise");
        entry.messages += 1;
        entry.last = seq;
        let chunk = entry.chunk;
        self.touch(id);
        self.chunk_mut(chunk).count_message(|| level_of(name), seq);
        Ok(SubjectNumber(id))
    }

    fn chunk_mut(&mut self, chunk: u32) -> &mut Chunk {
        self.chunks
            .get_mut(chunk as usize)
            .expect("entries name chunks")
    }

    pub(super) fn chunk(&self, chunk: u32) -> &Chunk {
        self.chunks
            .get(chunk as usize)
            .expect("the order names chunks")
    }

    fn touch(&mut self, id: u32) {
        let entry = self.entry_mut(id);
        if entry.name & TOUCHED == 0 {
            entry.name |= TOUCHED;
            self.touched.push(id);
        }
    }

    fn create(&mut self, name: &[u8], hashed: u64, totals: Totals) -> Result<SubjectNumber, Error> {
        let id = self.insert_entry(name, totals)?;
        self.insert_slot(hashed, id);
        self.insert_ordered(id);
        self.touch(id);
        Ok(SubjectNumber(id))
    }

    fn insert_entry(&mut self, name: &[u8], totals: Totals) -> Result<u32, Error> {
        self.tidy_names();
        let offset = self.names.len() as u64;
        if offset + name.len() as u64 > SUBJECT_ARENA_BYTES_MAX {
            return Err(Error::Limit {
                what: "bytes of subjects of a stream",
                limit: SUBJECT_ARENA_BYTES_MAX,
            });
        }
        self.names.extend_from_slice(name);
        let flag = if totals.first_is_bound {
            FIRST_IS_BOUND
        } else {
            0
        };
        let entry = Entry {
            name: offset | (name.len() as u64) << NAME_OFFSET_BITS | flag,
            first: totals.first,
            last: totals.last,
            messages: totals.messages,
            chunk: u32::MAX,
            slots: [NO_SLOT; 2],
        };
        self.count += 1;
        if let Some(id) = self.free.pop() {
            *self.entry_mut(id) = entry;
            return Ok(id);
        }
        let id = u32::try_from(self.entries.len()).map_err(|_| Error::Limit {
            what: "subjects of a stream",
            limit: u32::MAX.into(),
        })?;
        self.entries.push(entry);
        Ok(id)
    }

    fn insert_slot(&mut self, hashed: u64, id: u32) {
        // At most three quarters full: short probes.
        if self.count * 4 > self.slots.len() * 3 {
            self.grow_slots();
        }
        place(&mut self.slots, hashed, id);
    }

    fn grow_slots(&mut self) {
        let len = (self.slots.len() * 2).max(8);
        let mut slots = vec![EMPTY; len];
        for &slot in self.slots.iter().filter(|&&slot| slot != EMPTY) {
            let id = slot as u32;
            place(&mut slots, hash(self.name_of(self.entry(id)), 0), id);
        }
        self.slots = slots;
    }

    /// Takes the slot out and moves later ones of its probe sequence back, so that no tombstone is needed.
    fn remove_slot(&mut self, mut hole: usize) {
        let mask = self.slots.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots.get(at).copied().unwrap_or(EMPTY);
            if slot == EMPTY {
                break;
            }
            let home = hash(self.name_of(self.entry(slot as u32)), 0) as usize & mask;
            // It may move to the hole unless its home lies cyclically after the hole.
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                if let Some(place) = self.slots.get_mut(hole) {
                    *place = slot;
                }
                hole = at;
            }
        }
        if let Some(place) = self.slots.get_mut(hole) {
            *place = EMPTY;
        }
    }

    fn insert_ordered(&mut self, id: u32) {
        let (at, within) = self.ordered_position(self.name_of(self.entry(id)));
        let Some(&chunk) = self.order.get(at) else {
            self.push_chunk(at, vec![id]);
            return;
        };
        let is_end = at + 1 == self.order.len() && within == self.chunk(chunk).ids.len();
        if is_end && within >= IDS_PER_CHUNK {
            // Names that come in order fill their chunks: do not halve them.
            self.push_chunk(at + 1, vec![id]);
            return;
        }
        if self.chunk(chunk).ids.len() >= IDS_PER_CHUNK {
            let mut lower = std::mem::take(&mut self.chunk_mut(chunk).ids);
            lower.insert(within, id);
            let upper = lower.split_off(IDS_PER_CHUNK / 2);
            self.set_chunk(chunk, lower);
            self.push_chunk(at + 1, upper);
            return;
        }
        self.chunk_mut(chunk).ids.insert(within, id);
        self.count_in_chunk(chunk, id);
    }

    fn push_chunk(&mut self, at: usize, ids: Vec<u32>) {
        let number = self.free_chunks.pop().unwrap_or_else(|| {
            self.chunks.push(Chunk::default());
            (self.chunks.len() - 1) as u32
        });
        self.set_chunk(number, ids);
        self.order.insert(at, number);
    }

    /// Makes a chunk of those subjects and sums them up.
    fn set_chunk(&mut self, number: u32, ids: Vec<u32>) {
        assert!(!ids.is_empty(), "no chunk in the order is empty");
        *self.chunk_mut(number) = Chunk::of(ids);
        for at in 0..self.chunk(number).ids.len() {
            let id = self.chunk(number).ids.get(at).copied();
            self.count_in_chunk(number, id.expect("the loop ends with the ids"));
        }
    }

    /// Adds what is known of a subject to the sums of its chunk.
    fn count_in_chunk(&mut self, number: u32, id: u32) {
        let entry = self.entry_mut(id);
        entry.chunk = number;
        let (messages, last) = (u64::from(entry.messages), entry.last);
        let tokens = level_of(self.name_of(self.entry(id)));
        self.chunk_mut(number).count_subject(tokens, messages, last);
    }

    /// Counts one message less. `first` and `last` are then put right by the caller, who knows the postings; a subject
    /// without messages is gone.
    pub(crate) fn subtract(&mut self, subject: SubjectNumber, count: u32) -> Totals {
        let id = subject.0;
        let entry = self.entry_mut(id);
        assert!(
            entry.messages >= count,
            "a subject cannot lose more than it has"
        );
        entry.messages -= count;
        let chunk = entry.chunk;
        let tokens = level_of(self.name(subject));
        self.chunk_mut(chunk).uncount_messages(tokens, count.into());
        self.touch(id);
        let totals = self.totals(subject);
        if totals.messages == 0 {
            self.remove(id);
        }
        totals
    }

    /// Sets where the subject's messages start and end.
    pub(crate) fn set_bounds(
        &mut self,
        subject: SubjectNumber,
        first: u64,
        is_bound: bool,
        last: u64,
    ) {
        assert!(
            first <= last,
            "a subject with messages has a first and a last"
        );
        let entry = self.entry_mut(subject.0);
        entry.first = first;
        entry.last = last;
        entry.name = if is_bound {
            entry.name | FIRST_IS_BOUND
        } else {
            entry.name & !FIRST_IS_BOUND
        };
    }

    fn remove(&mut self, id: u32) {
        let entry = *self.entry(id);
        let name = self.name_of(&entry);
        let (name_bytes, tokens) = (name.len() as u64, level_of(name));
        let (slot, found) = self
            .find_hashed(name, hash(name, 0))
            .expect("entries have slots");
        assert_eq!(found, id, "a slot names its own entry");
        self.remove_slot(slot);
        let chunk = self.chunk_mut(entry.chunk);
        chunk.uncount_subject(tokens);
        chunk.ids.retain(|&have| have != id);
        if chunk.ids.is_empty() {
            let left = chunk.total();
            assert_eq!(
                left,
                Counted::default(),
                "a chunk's sum is that of its subjects"
            );
            self.order.retain(|&have| have != entry.chunk);
            self.free_chunks.push(entry.chunk);
        }
        self.garbage_bytes += name_bytes;
        self.entry_mut(id).slots = [NO_SLOT; 2];
        self.free.push(id);
        self.count -= 1;
        if self.count == 0 {
            self.reset();
        }
    }

    /// An empty index owns no memory. The list of touched entries goes too: subjects without messages are not flushed.
    fn reset(&mut self) {
        *self = Self::default();
    }

    /// Forgets every subject.
    pub(crate) fn clear(&mut self) {
        self.reset();
    }

    fn tidy_names(&mut self) {
        if self.garbage_bytes < 4096 || self.garbage_bytes * 2 < self.names.len() as u64 {
            return;
        }
        let mut names = Vec::with_capacity(self.names.len() - self.garbage_bytes as usize);
        for at in 0..self.entries.len() {
            let Some(entry) = self
                .entries
                .get(at)
                .copied()
                .filter(|entry| entry.messages > 0)
            else {
                continue;
            };
            let offset = names.len() as u64;
            names.extend_from_slice(self.name_of(&entry));
            if let Some(entry) = self.entries.get_mut(at) {
                entry.name = entry.name & !((1 << NAME_OFFSET_BITS) - 1) | offset;
            }
        }
        self.names = names;
        self.garbage_bytes = 0;
    }

    /// Adds a subject with known totals; names come in ascending order (recovery).
    pub(crate) fn load(&mut self, name: &[u8], totals: Totals) -> Result<(), Error> {
        let id = self.insert_entry(name, totals)?;
        self.insert_slot(hash(name, 0), id);
        match self
            .order
            .last()
            .copied()
            .filter(|&chunk| self.chunk(chunk).ids.len() < IDS_PER_CHUNK)
        {
            Some(chunk) => {
                self.chunk_mut(chunk).ids.push(id);
                self.count_in_chunk(chunk, id);
            }
            None => self.push_chunk(self.order.len(), vec![id]),
        }
        Ok(())
    }

    /// Makes room for `count` subjects, so that loading them does not grow tables step by step.
    pub(crate) fn reserve(&mut self, count: usize) {
        self.entries.reserve(count);
        let slots = ((self.count + count) * 4 / 3 + 1)
            .next_power_of_two()
            .max(8);
        if slots > self.slots.len() && self.count == 0 {
            self.slots = vec![EMPTY; slots];
        }
    }

    /// Takes the subjects that changed since the last call and still have messages, in no meaningful order.
    pub(crate) fn take_touched(&mut self) -> Vec<SubjectNumber> {
        let touched = std::mem::take(&mut self.touched);
        let mut taken = Vec::with_capacity(touched.len());
        for id in touched {
            let Some(entry) = self.entries.get_mut(id as usize) else {
                continue;
            };
            if entry.name & TOUCHED == 0 || entry.messages == 0 {
                continue;
            }
            entry.name &= !TOUCHED;
            taken.push(SubjectNumber(id));
        }
        taken
    }

    /// Memory on the heap, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        let ids: usize = self.chunks.iter().map(Chunk::heap_bytes).sum();
        self.entries.capacity() * size_of::<Entry>()
            + self.names.capacity()
            + self.slots.capacity() * 8
            + self.chunks.capacity() * size_of::<Chunk>()
            + ids
            + (self.order.capacity() + self.free.capacity() + self.touched.capacity()) * 4
    }

    /// Cross-checks the parts; the text says what is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut previous: Option<&[u8]> = None;
        let mut seen = 0;
        for &number in &self.order {
            let chunk = self.chunk(number);
            let mut counted = Chunk::default();
            for &id in &chunk.ids {
                let entry = self.entry(id);
                let name = self.name_of(entry);
                if previous.is_some_and(|previous| previous >= name) {
                    return Err("subjects out of order".into());
                }
                if entry.messages == 0 || entry.first > entry.last || entry.chunk != number {
                    return Err(format!("subject entry {id} is inconsistent"));
                }
                if self.find(name) != Some(SubjectNumber(id)) {
                    return Err(format!("subject entry {id} is not found by its name"));
                }
                counted.count_subject(level_of(name), entry.messages.into(), entry.last);
                previous = Some(name);
                seen += 1;
            }
            if chunk.ids.is_empty() || !chunk.agrees_with(&counted) {
                return Err(format!("chunk {number} is {counted:?}, says {chunk:?}"));
            }
        }
        if seen != self.count {
            return Err(format!("{seen} subjects in order, {} counted", self.count));
        }
        Ok(())
    }
}

fn place(slots: &mut [u64], hashed: u64, id: u32) {
    let mask = slots.len() - 1;
    let mut at = hashed as usize & mask;
    while slots.get(at).is_some_and(|&slot| slot != EMPTY) {
        at = (at + 1) & mask;
    }
    if let Some(slot) = slots.get_mut(at) {
        *slot = hashed >> 32 << 32 | u64::from(id);
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
        fn behaves_as_a_map(ops in prop::collection::vec((any::<bool>(), 0u16..120), 1..600)) {
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
        // New names reuse what the gone ones left.
        let before = index.names.len();
        for step in 0..3000u64 {
            index
                .add(format!("y.{step}").as_bytes(), 30_000 + step)
                .unwrap();
        }
        assert!(index.names.len() < before + 3000 * 6);
        index.check().unwrap();
    }

    #[test]
    fn touched_subjects_are_told_once() {
        let mut index = Subjects::default();
        index.add(b"a", 1).unwrap();
        index.add(b"b", 2).unwrap();
        index.add(b"a", 3).unwrap();
        assert_eq!(index.take_touched().len(), 2);
        assert!(index.take_touched().is_empty());
        index.subtract(index.find(b"a").unwrap(), 1);
        assert_eq!(index.take_touched().len(), 1);
        index.subtract(index.find(b"b").unwrap(), 1);
        assert!(
            index.take_touched().is_empty(),
            "a subject without messages needs no row"
        );
    }
}
