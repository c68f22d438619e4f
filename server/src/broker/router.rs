//! A publisher's memory of where its subjects lead.
//!
//! Looking a subject up in the trie costs some hundred nanoseconds and clones the route; most publishers use few subjects
//! many times. A router keeps routes in a small table, each valid while its generation stands. Only a subject that is
//! seen a second time is admitted: inboxes and ack subjects, each used once, neither allocate nor push others out.

use std::sync::Arc;

use halyard_runtime::random;

use super::account::{Account, Outcome};
use super::message::Publish;
use super::route::Route;

/// Slots of a new table, of a full-grown one, and the factor between.
const SLOTS_MIN: usize = 8;
const SLOTS_MAX: usize = 512;
const SLOTS_GROWTH: usize = 4;
/// Marks of subjects seen once.
const SEEN: usize = 256;

struct Slot {
    hash: u64,
    generation: u64,
    generation_index: usize,
    subject: Box<[u8]>,
    route: Route,
}

/// Publishes into one account, remembering routes.
pub struct Router {
    account: Arc<Account>,
    slots: Vec<Option<Box<Slot>>>,
    seen: Vec<u16>,
    scratch: Route,
    draw: u64,
    matches: u64,
    cache_hits: u64,
}

impl Router {
    /// A router that remembers nothing yet; it allocates with the first message.
    #[must_use]
    pub const fn new(account: Arc<Account>) -> Self {
        Self {
            account,
            slots: Vec::new(),
            seen: Vec::new(),
            scratch: Route {
                plain: Vec::new(),
                groups: Vec::new(),
            },
            draw: 0,
            matches: 0,
            cache_hits: 0,
        }
    }

    /// The account that it publishes into.
    #[must_use]
    pub const fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Sends a message to everybody interested.
    #[inline]
    pub fn publish(&mut self, message: &Publish<'_>) -> Outcome {
        self.matches = self.matches.wrapping_add(1);
        let hash = self.account.hash(message.route);
        let at = slot_index(hash, self.slots.len());
        if let Some(Some(slot)) = self.slots.get(at)
            && slot.hash == hash
            && slot.generation == self.account.generation(slot.generation_index)
            && *slot.subject == *message.route
        {
            self.cache_hits = self.cache_hits.wrapping_add(1);
            let delivered = self.account.deliver(&slot.route, message, &mut self.draw);
            return Outcome { delivered };
        }
        self.publish_uncached(hash, message)
    }

    /// Moves the counters of this router to the account. Called now and then: once for each batch.
    pub fn settle(&mut self) {
        if self.matches > 0 {
            self.account.count_matches(self.matches, self.cache_hits);
            (self.matches, self.cache_hits) = (0, 0);
        }
    }

    /// Forgets every route and gives the memory back.
    pub fn forget(&mut self) {
        self.settle();
        *self = Self::new(Arc::clone(&self.account));
    }

    #[cold]
    fn publish_uncached(&mut self, hash: u64, message: &Publish<'_>) -> Outcome {
        if self.draw == 0 {
            self.draw = random::u64() | 1;
        }
        let generation_index = self.account.generation_index(message.route);
        // Read before the lookup: a change in between makes the route stale at once, never wrongly valid.
        let generation = self.account.generation(generation_index);
        let mut route = std::mem::take(&mut self.scratch);
        self.account.collect(message.route, &mut route);
        let delivered = self.account.deliver(&route, message, &mut self.draw);
        if self.admits(hash) {
            let subject = message.route.into();
            let slot = Box::new(Slot {
                hash,
                generation,
                generation_index,
                subject,
                route,
            });
            self.insert(slot);
        } else {
            route.clear();
            self.scratch = route;
        }
        Outcome { delivered }
    }

    /// Whether this subject was seen before (or a rare other one that leaves the same mark).
    fn admits(&mut self, hash: u64) -> bool {
        if self.seen.is_empty() {
            self.seen.resize(SEEN, 0);
        }
        let mark = ((hash >> 48) as u16) | 1;
        let Some(seen) = self.seen.get_mut((hash >> 32) as usize % SEEN) else {
            return false;
        };
        std::mem::replace(seen, mark) == mark
    }

    fn insert(&mut self, slot: Box<Slot>) {
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS_MIN, || None);
        }
        let taken = |slots: &[Option<Box<Slot>>]| {
            let held = slots.get(slot_index(slot.hash, slots.len()));
            held.is_some_and(|held| held.as_ref().is_some_and(|held| held.hash != slot.hash))
        };
        while taken(&self.slots) && self.slots.len() < SLOTS_MAX {
            let mut larger = Vec::new();
            larger.resize_with(self.slots.len() * SLOTS_GROWTH, || None);
            for held in self.slots.drain(..).flatten() {
                let at = slot_index(held.hash, larger.len());
                if let Some(place) = larger.get_mut(at) {
                    *place = Some(held);
                }
            }
            self.slots = larger;
        }
        let at = slot_index(slot.hash, self.slots.len());
        if let Some(place) = self.slots.get_mut(at) {
            *place = Some(slot);
        }
    }
}

/// Tables are of a power of two.
#[inline]
const fn slot_index(hash: u64, slots: usize) -> usize {
    (hash as usize) & slots.wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::naive::Recorder;
    use crate::broker::{Broker, Publish};

    #[test]
    fn remembers_only_what_comes_twice() {
        let broker = Broker::new();
        let recorder = Arc::new(Recorder::default());
        broker
            .global()
            .subscribe(b">", None, recorder.clone())
            .unwrap();
        let mut router = Router::new(broker.global());
        for number in 0..1000 {
            router.publish(&Publish::new(format!("inbox.{number}").as_bytes(), b""));
        }
        let held = router.slots.iter().flatten().count();
        assert!(
            held < 20,
            "subjects used once take no slots, but {held} did"
        );
        for _ in 0..3 {
            router.publish(&Publish::new(b"often", b""));
        }
        assert_eq!(router.cache_hits, 1);
        assert_eq!(recorder.take().len(), 1003);
    }

    #[test]
    fn many_subjects_fill_the_table_and_no_more() {
        let broker = Broker::new();
        let recorder = Arc::new(Recorder::default());
        broker
            .global()
            .subscribe(b"s.*", None, recorder.clone())
            .unwrap();
        let mut router = Router::new(broker.global());
        for round in 0..6 {
            for number in 0..2000 {
                let subject = format!("s.{number}");
                let outcome = router.publish(&Publish::new(subject.as_bytes(), b""));
                assert_eq!(outcome.delivered, 1, "round {round}");
            }
        }
        assert!(router.slots.len() <= SLOTS_MAX);
        assert_eq!(recorder.take().len(), 12_000);
    }

    #[test]
    fn a_change_of_interest_is_seen_by_the_next_message() {
        let broker = Broker::new();
        let account = broker.global();
        let recorder = Arc::new(Recorder::default());
        let mut router = Router::new(Arc::clone(&account));
        let mut send = || router.publish(&Publish::new(b"a.b", b"")).delivered;
        for _ in 0..3 {
            assert_eq!(send(), 0);
        }
        let literal = account.subscribe(b"a.b", None, recorder.clone()).unwrap();
        assert_eq!((send(), send()), (1, 1));
        let any = account.subscribe(b"*.b", None, recorder).unwrap();
        assert_eq!((send(), send()), (2, 2));
        assert!(account.unsubscribe(&literal));
        assert_eq!((send(), send()), (1, 1));
        assert!(account.unsubscribe(&any));
        assert_eq!((send(), send()), (0, 0));
    }
}
