//! Names with numbers: the first name that is put in has number 0, the next new one 1, and so on. Nothing is taken out.
//!
//!   slots  open addressing: hash (32 bits) | number (32 bits); no name is touched on a miss
//!   arena  the names back to back, and where each ends

use std::hash::{BuildHasher, Hasher};

use crate::options::HashKey;

const EMPTY: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Names {
    arena: Vec<u8>,
    ends: Vec<usize>,
    slots: Vec<u64>,
    key: HashKey,
}

impl Names {
    /// No names; `key` decides their slots.
    pub(crate) fn new(key: HashKey) -> Self {
        Self {
            arena: Vec::new(),
            ends: Vec::new(),
            slots: Vec::new(),
            key,
        }
    }

    pub(crate) const fn key(&self) -> &HashKey {
        &self.key
    }

    fn hash(&self, name: &[u8]) -> u64 {
        let mut hasher = self.key.0.build_hasher();
        hasher.write(name);
        hasher.finish()
    }

    fn name(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let before = number.checked_sub(1).and_then(|at| self.ends.get(at));
        // The first name starts where the arena does.
        let start = before.copied().unwrap_or(0);
        let end = self
            .ends
            .get(number)
            .expect("only names that are there have a number");
        let name = self.arena.get(start..*end);
        name.expect("names stand one behind the other")
    }

    /// The number of the name: `Ok` if it has one, otherwise where in `slots` it belongs.
    fn probe(&self, name: &[u8], hashed: u64) -> Result<u32, usize> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hashed as usize & mask;
        loop {
            match self.slots.get(at) {
                None | Some(&EMPTY) => return Err(at),
                Some(&slot) if slot >> 32 == hashed >> 32 && self.name(slot as u32) == name => {
                    return Ok(slot as u32);
                }
                Some(_) => at = (at + 1) & mask,
            }
        }
    }

    pub(crate) fn find(&self, name: &[u8]) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        self.probe(name, self.hash(name)).ok()
    }

    /// The number of the name, which gets one if it has none; `true`: it is new. There are at most `u32::MAX` names.
    pub(crate) fn find_or_add(&mut self, name: &[u8]) -> (u32, bool) {
        // At most three quarters full: short probes.
        if (self.ends.len() + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let hashed = self.hash(name);
        match self.probe(name, hashed) {
            Ok(number) => (number, false),
            Err(at) => {
                let number = u32::try_from(self.ends.len()).expect("fewer names than 2^32");
                self.arena.extend_from_slice(name);
                self.ends.push(self.arena.len());
                let slot = self.slots.get_mut(at);
                *slot.expect("a table with room has a free slot") =
                    hashed >> 32 << 32 | u64::from(number);
                debug_assert_eq!(self.name(number), name, "the name stands where it was put");
                (number, true)
            }
        }
    }

    fn grow(&mut self) {
        self.slots = vec![EMPTY; (self.slots.len() * 2).max(8)];
        let mask = self.slots.len() - 1;
        for number in 0..self.ends.len() as u32 {
            let hashed = self.hash(self.name(number));
            let mut at = hashed as usize & mask;
            while self.slots.get(at).is_some_and(|&slot| slot != EMPTY) {
                at = (at + 1) & mask;
            }
            let slot = self.slots.get_mut(at);
            *slot.expect("a larger table has a free slot") = hashed >> 32 << 32 | u64::from(number);
        }
        assert!(
            self.slots.len().is_power_of_two() && self.ends.len() < self.slots.len(),
            "a table has free slots, or a search would not end"
        );
    }

    /// Forgets every name and keeps the room.
    pub(crate) fn clear(&mut self) {
        self.arena.clear();
        self.ends.clear();
        self.slots.fill(EMPTY);
    }

    /// Memory on the heap, about, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.arena.len() + self.ends.len() * size_of::<usize>() + self.slots.len() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_keeps_its_number() {
        let mut names = Names::new(HashKey::default());
        assert_eq!(names.find(b"a"), None);
        for round in 0..2 {
            for number in 0..5000u32 {
                let name = format!("orders.{}", number * 7919 % 5003);
                assert_eq!(names.find_or_add(name.as_bytes()), (number, round == 0));
            }
        }
        assert_eq!(names.find(b"orders.0"), Some(0));
        assert_eq!(names.find(b"orders"), None);
        assert_eq!(names.find_or_add(b""), (5000, true));
        assert_eq!(names.find(b""), Some(5000));
    }
}
