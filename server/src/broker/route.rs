//! Lists of subscriptions: everybody whose filter is the same, and everybody who gets a message.
//!
//! A filter has one or two subscriptions as a rule and now and then a hundred thousand. Both must be cheap: a few stand
//! in one sorted array, many in a tree, so that joining and leaving never cost the length of the list.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::subscription::Subscription;

/// So many stand in an array at most.
const FEW_MAX: usize = 64;

/// A map in the order of its keys: an array while it is short, a tree when it is long.
pub(super) enum Sorted<K, V> {
    Few(Vec<(K, V)>),
    Many(BTreeMap<K, V>),
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<K: Ord, V> Sorted<K, V> {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    /// The value of `key`; `make` gives a new one its key.
    fn get_or_insert<Q>(&mut self, key: &Q, make: impl FnOnce() -> (K, V)) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        if let Self::Few(few) = self
            && few.len() >= FEW_MAX
        {
            *self = Self::Many(std::mem::take(few).into_iter().collect());
        }
        match self {
            Self::Few(few) => {
                let found = few.binary_search_by(|(held, _)| held.borrow().cmp(key));
                let at = found.unwrap_or_else(|at| {
                    few.insert(at, make());
                    at
                });
                few.get_mut(at).map(|(_, value)| value)
            }
            Self::Many(many) => {
                // Two lookups for a new key only.
                if !many.contains_key(key) {
                    let (key, value) = make();
                    many.insert(key, value);
                }
                many.get_mut(key)
            }
        }
    }

    fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Few(few) => {
                let at = few.binary_search_by(|(held, _)| held.borrow().cmp(key));
                few.get_mut(at.ok()?).map(|(_, value)| value)
            }
            Self::Many(many) => many.get_mut(key),
        }
    }

    fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Few(few) => {
                let at = few.binary_search_by(|(held, _)| held.borrow().cmp(key));
                let (_, value) = few.remove(at.ok()?);
                if few.capacity() > 16 && few.len() < few.capacity() / 4 {
                    few.shrink_to(few.capacity() / 2);
                }
                Some(value)
            }
            Self::Many(many) => {
                let value = many.remove(key);
                if many.len() < FEW_MAX / 2 {
                    *self = Self::Few(std::mem::take(many).into_iter().collect());
                }
                value
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few.iter().map(|(key, value)| (key, value))), None),
            Self::Many(many) => (None, Some(many.iter())),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }
}

/// Subscriptions by their id, and so in the order in which they were made.
type Members = Sorted<u64, Arc<Subscription>>;

/// Subscriptions of one filter.
#[derive(Default)]
pub(super) struct Entries {
    plain: Members,
    groups: Sorted<Box<[u8]>, Members>,
}

impl Entries {
    pub(super) fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.groups.is_empty()
    }

    pub(super) fn insert(&mut self, subscription: &Arc<Subscription>) {
        let members = match subscription.queue() {
            None => Some(&mut self.plain),
            Some(queue) => self
                .groups
                .get_or_insert(queue, || (queue.into(), Members::default())),
        };
        let id = subscription.id();
        if let Some(members) = members {
            members.get_or_insert(&id, || (id, Arc::clone(subscription)));
        }
    }

    /// Takes one out; whether it was there.
    pub(super) fn remove(&mut self, subscription: &Subscription) -> bool {
        let id = subscription.id();
        let Some(queue) = subscription.queue() else {
            return self.plain.remove(&id).is_some();
        };
        let Some(members) = self.groups.get_mut(queue) else {
            return false;
        };
        let removed = members.remove(&id).is_some();
        if members.is_empty() {
            self.groups.remove(queue);
        }
        removed
    }

    pub(super) fn for_each(&self, visit: &mut dyn FnMut(&Arc<Subscription>)) {
        for (_, subscription) in self.plain.iter() {
            visit(subscription);
        }
        for (_, members) in self.groups.iter() {
            members.iter().for_each(|(_, member)| visit(member));
        }
    }
}

/// Everybody who gets a message: each plain subscription, and one member of each group.
#[derive(Default)]
pub(crate) struct Route {
    pub(crate) plain: Vec<Arc<Subscription>>,
    /// In the order of their names, each once.
    pub(crate) groups: Vec<Group>,
}

/// The members of one queue group.
pub(crate) struct Group {
    pub(crate) queue: Box<[u8]>,
    pub(crate) members: Vec<Arc<Subscription>>,
}

impl Route {
    /// Empties it, keeping its memory for the next match.
    pub(crate) fn clear(&mut self) {
        self.plain.clear();
        self.groups.clear();
    }

    /// Adds the subscriptions of one more filter; filters that differ share their group by its name.
    pub(super) fn extend_from(&mut self, entries: &Entries) {
        self.plain
            .extend(entries.plain.iter().map(|(_, member)| Arc::clone(member)));
        if entries.groups.is_empty() {
            return;
        }
        let is_merge = !self.groups.is_empty();
        self.groups.reserve(entries.groups.len());
        for (queue, members) in entries.groups.iter() {
            self.groups.push(Group {
                queue: queue.clone(),
                members: members.iter().map(|(_, held)| Arc::clone(held)).collect(),
            });
        }
        if is_merge {
            // Two sorted runs: the sort finds and merges them in one go.
            self.groups
                .sort_by(|left, right| left.queue.cmp(&right.queue));
            self.groups.dedup_by(|next, kept| {
                let same = next.queue == kept.queue;
                if same {
                    kept.members.append(&mut next.members);
                }
                same
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_become_many_and_few_again() {
        let mut sorted: Sorted<u64, u64> = Sorted::default();
        let mut model = BTreeMap::new();
        // Three rounds of growing well beyond the bound and of shrinking to nothing, in different orders.
        for round in [7_u64, 11, 13] {
            let size = FEW_MAX as u64 * 4;
            for step in 0..size {
                let key = step * round % size;
                assert!(sorted.get_or_insert(&key, || (key, step)).is_some());
                model.entry(key).or_insert(step);
                assert_eq!(sorted.len(), model.len());
            }
            assert!(matches!(sorted, Sorted::Many(_)));
            assert!(sorted.iter().eq(model.iter()));
            for step in 0..size {
                let key = (step * 5 + round) % size;
                assert_eq!(sorted.remove(&key), model.remove(&key));
                assert_eq!(sorted.get_mut(&key), None);
                assert!(sorted.iter().eq(model.iter()));
            }
            assert!(sorted.is_empty() && matches!(sorted, Sorted::Few(_)));
        }
    }
}
