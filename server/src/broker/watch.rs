//! Who wants to know when interest in a subject appears or goes: push consumers, and pull requests waiting for messages.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::subject;

/// Called with whether there is interest now. It must not block; it may publish, subscribe and watch.
pub type Notify = dyn Fn(bool) + Send + Sync;

const UNKNOWN: u8 = 2;

pub(super) struct Watch {
    pub(super) id: u64,
    pub(super) subject: Box<[u8]>,
    notify: Box<Notify>,
    /// What it was last told: 0, 1 or [`UNKNOWN`].
    last: AtomicU8,
}

impl Watch {
    /// Tells it about a change; says nothing if nothing has changed.
    pub(super) fn tell(&self, interest: bool) {
        if self.last.swap(u8::from(interest), Ordering::AcqRel) != u8::from(interest) {
            (self.notify)(interest);
        }
    }
}

/// The watches of one account, sorted by subject.
#[derive(Default)]
pub(super) struct Watches {
    by_subject: BTreeMap<Box<[u8]>, Vec<Arc<Watch>>>,
    next_id: u64,
}

impl Watches {
    pub(super) fn is_empty(&self) -> bool {
        self.by_subject.is_empty()
    }

    pub(super) fn add(&mut self, subject: &[u8], notify: Box<Notify>) -> Arc<Watch> {
        self.next_id += 1;
        let last = AtomicU8::new(UNKNOWN);
        let watch = Arc::new(Watch {
            id: self.next_id,
            subject: subject.into(),
            notify,
            last,
        });
        self.by_subject
            .entry(subject.into())
            .or_default()
            .push(Arc::clone(&watch));
        watch
    }

    pub(super) fn remove(&mut self, watch: &Watch) {
        if let Some(list) = self.by_subject.get_mut(&watch.subject) {
            list.retain(|held| held.id != watch.id);
            if list.is_empty() {
                self.by_subject.remove(&watch.subject);
            }
        }
    }

    /// Adds the watches whose subject `filter` matches to `found`.
    pub(super) fn matching(&self, filter: &[u8], found: &mut Vec<Arc<Watch>>) {
        if subject::is_literal(filter) {
            found.extend(self.by_subject.get(filter).into_iter().flatten().cloned());
            return;
        }
        // Everything that a filter matches begins with what stands before its first wildcard.
        let stem = subject::tokens(filter)
            .take_while(|token| *token != subject::ANY_TOKEN && *token != subject::ANY_TAIL)
            .fold(0, |length, token| length + token.len() + 1);
        let stem = filter.get(..stem).unwrap_or(filter);
        let from = self
            .by_subject
            .range::<[u8], _>((Bound::Included(stem), Bound::Unbounded));
        for (subject, list) in from.take_while(|(subject, _)| subject.starts_with(stem)) {
            if subject::matches(filter, subject) {
                found.extend(list.iter().cloned());
            }
        }
    }
}
