//! Whose turn it is among those who wait: everybody gets the same number of bytes, however large single messages are.
//!
//! Fair queueing: a virtual clock counts the bytes that everybody has been served. A turn begins at the clock, or at the end of
//! the turn before of the same key, whichever is later, and is as long as its bytes; the turn with the earliest end is next.
//! So who comes anew with little is next, and cannot make up for the time in which it had nothing to say. Whoever leaves is
//! remembered until the clock has caught up with it: one large message after the other, each brought when the one before is
//! gone, earns nobody more than a long queue does.

use std::collections::{BTreeMap, BTreeSet};

/// An order of turns among keys.
#[derive(Debug)]
pub(super) struct Turns<K> {
    /// By end and number of the arrival: the key, and where its turn begins.
    waiting: BTreeMap<(u64, u64), (K, u64)>,
    /// Where the next turn begins of those who have left and are ahead of the clock.
    ahead: BTreeMap<K, u64>,
    /// The same by that, to forget them in time.
    ahead_by_time: BTreeSet<(u64, K)>,
    /// The latest begin of a turn that was served.
    clock: u64,
    arrivals: u64,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            ahead: BTreeMap::new(),
            ahead_by_time: BTreeSet::new(),
            clock: 0,
            arrivals: 0,
        }
    }
}

impl<K: Ord + Copy> Turns<K> {
    /// One that did not wait until now waits for a turn of so many bytes.
    pub(super) fn enter(&mut self, key: K, bytes: usize) {
        let begin = match self.ahead.remove(&key) {
            Some(time) => {
                self.ahead_by_time.remove(&(time, key));
                time.max(self.clock)
            }
            None => self.clock,
        };
        self.insert(key, begin, bytes);
    }

    /// Who is next.
    pub(super) fn first(&self) -> Option<K> {
        self.waiting.first_key_value().map(|(_, (key, _))| *key)
    }

    /// The one who was next has had its turn, which had become `bytes` long; it goes on waiting for another one, or leaves.
    pub(super) fn served(&mut self, bytes: usize, next: Option<usize>) {
        let Some((_, (key, begin))) = self.waiting.pop_first() else {
            return;
        };
        let end = begin.saturating_add((bytes as u64).max(1));
        self.clock = self.clock.max(begin);
        match next {
            Some(bytes) => self.insert(key, end, bytes),
            None => {
                self.ahead.insert(key, end);
                self.ahead_by_time.insert((end, key));
            }
        }
        while let Some((time, key)) = self.ahead_by_time.first().copied()
            && time <= self.clock
        {
            self.ahead_by_time.pop_first();
            self.ahead.remove(&key);
        }
    }

    fn insert(&mut self, key: K, begin: u64, bytes: usize) {
        self.arrivals += 1;
        // Far from its end after exabytes.
        let end = begin.saturating_add((bytes as u64).max(1));
        self.waiting.insert((end, self.arrivals), (key, begin));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_with_little_is_next() {
        let mut turns = Turns::default();
        for key in 1..=20 {
            turns.enter(key, 1 << 20);
        }
        turns.enter(98, 100);
        assert_eq!(turns.first(), Some(98), "also at the beginning");
        turns.served(100, None);
        for _ in 0..110 {
            turns.served(1 << 20, Some(1 << 20));
        }
        turns.enter(99, 100);
        assert_eq!(turns.first(), Some(99));
    }

    #[test]
    fn who_leaves_after_each_turn_gets_no_more_than_its_share() {
        let mut turns = Turns::default();
        // 1 always waits and brings little; 2 and 3 bring one large message at a time.
        let bytes = |key| if key == 1 { 1000 } else { 100_000 };
        for key in [1, 2, 3] {
            turns.enter(key, bytes(key));
        }
        let mut served = BTreeMap::new();
        for _ in 0..10_000 {
            let key = turns.first().expect("somebody waits");
            *served.entry(key).or_insert(0) += bytes(key);
            turns.served(bytes(key), (key == 1).then_some(1000));
            if key != 1 {
                turns.enter(key, bytes(key));
            }
        }
        let share: usize = served[&1];
        for key in [2, 3] {
            assert!(served[&key].abs_diff(share) <= 200_000, "{served:?}");
        }
    }

    #[test]
    fn nobody_is_remembered_for_ever() {
        let mut turns = Turns::default();
        turns.enter(0_u64, 1000);
        for key in 1..1000 {
            turns.enter(key, 10);
            while turns.first() != Some(0) {
                turns.served(10, None);
            }
            turns.served(1000, Some(1000));
        }
        assert!(turns.ahead.len() <= 101, "{}", turns.ahead.len());
        assert_eq!(turns.ahead.len(), turns.ahead_by_time.len());
    }
}
