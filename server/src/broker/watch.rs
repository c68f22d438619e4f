//! Who wants to know when interest in a subject appears or goes: push consumers, and pull requests waiting for messages.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use super::subject;

/// Called with whether there is interest now. It must not block; it may publish, subscribe and watch.
pub type Notify = dyn Fn(bool) + Send + Sync;

const UNKNOWN: u8 = 2;

/// What counts as interest.
pub(super) enum Watched {
    /// Any subscription that matches.
    Interest,
    /// Subscriptions to the subject itself, in this queue group or in none.
    Listeners(Option<Box<[u8]>>),
}

pub(super) struct Watch {
    pub(super) id: u64,
    pub(super) subject: Box<[u8]>,
    pub(super) of: Watched,
    notify: Box<Notify>,
    /// What it was last told: 0, 1 or [`UNKNOWN`].
    last: AtomicU8,
    /// Changes since whoever tells it now began; 0: nobody does.
    pending: AtomicU32,
}

impl Watch {
    /// Tells it about a change; says nothing if nothing has changed. `look` says what is so now.
    ///
    /// One thread tells at a time, and looks again for those that come meanwhile: if each told what it had seen itself, the
    /// slower one would have the last word with the older news.
    pub(super) fn tell(&self, look: impl Fn() -> bool) {
        if self.pending.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        let mut seen = 1;
        loop {
            let now = u8::from(look());
            if self.last.swap(now, Ordering::AcqRel) != now {
                (self.notify)(now != 0);
            }
            let ended = self
                .pending
                .compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Acquire);
            match ended {
                Ok(_) => return,
                Err(more) => seen = more,
            }
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

    pub(super) fn add(&mut self, subject: &[u8], of: Watched, notify: Box<Notify>) -> Arc<Watch> {
        self.next_id += 1;
        let last = AtomicU8::new(UNKNOWN);
        let watch = Arc::new(Watch {
            id: self.next_id,
            subject: subject.into(),
            of,
            notify,
            last,
            pending: AtomicU32::new(0),
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use parking_lot::Mutex;

    use super::*;

    /// A client comes back with the same subject while its old connection is being closed by another thread, which has
    /// already looked.
    #[test]
    fn what_was_told_last_is_so() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&heard);
        let notify = Box::new(move |interest| note.lock().push(interest));
        let watch = Watches::default().add(b"in.box", Watched::Interest, notify);
        watch.tell(|| true);
        let interest = AtomicBool::new(false);
        watch.tell(|| {
            let seen = interest.swap(true, Ordering::AcqRel);
            if !seen {
                watch.tell(|| interest.load(Ordering::Acquire));
            }
            seen
        });
        assert_eq!(*heard.lock(), [true, false, true]);
    }
}
