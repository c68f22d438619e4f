//! [`Messages`] over a stream of the engine.

use std::cell::RefCell;

use halyard_engine::{Error, Filters, Store, StreamId};
use halyard_runtime::time::Timestamp;

use super::messages::Messages;

/// Subjects asked for at one time.
const SUBJECTS_PAGE: usize = 4096;

/// The messages of one stream of a store.
///
/// An answer that the disk refuses reads as "nothing there"; the error is kept, and whoever applied a command must ask
/// [`StoreMessages::error`] afterwards and stop serving from the store if there is one.
pub struct StoreMessages<'a> {
    store: &'a Store,
    id: StreamId,
    error: RefCell<Option<Error>>,
}

impl<'a> StoreMessages<'a> {
    /// Looks at a stream.
    pub const fn new(store: &'a Store, id: StreamId) -> Self {
        Self {
            store,
            id,
            error: RefCell::new(None),
        }
    }

    /// The first error since this was made.
    pub fn error(self) -> Option<Error> {
        self.error.into_inner()
    }

    fn answer<T>(&self, answer: Result<T, Error>, otherwise: T) -> T {
        match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.error.borrow_mut().get_or_insert(error);
                otherwise
            }
        }
    }
}

impl Messages for StoreMessages<'_> {
    fn first_seq(&self) -> u64 {
        self.store
            .first_at_or_after(self.id, 1)
            .unwrap_or_else(|| self.last_seq() + 1)
    }

    fn last_seq(&self) -> u64 {
        self.store.last_seq(self.id)
    }

    fn contains(&self, seq: u64) -> bool {
        self.store.first_at_or_after(self.id, seq) == Some(seq)
    }

    fn next_matching(&self, filters: &Filters, from: u64) -> Option<u64> {
        if filters.is_everything() {
            return self.store.first_at_or_after(self.id, from);
        }
        self.answer(self.store.next_matching(self.id, filters, from), None)
    }

    fn last_matching(&self, filters: &Filters) -> Option<u64> {
        self.answer(self.store.last_matching(self.id, filters, u64::MAX), None)
    }

    fn count_matching(&self, filters: &Filters, from: u64) -> u64 {
        self.answer(self.store.count_matching(self.id, filters, from), 0)
    }

    fn last_of_each_subject(&self, filters: &Filters) -> Vec<u64> {
        let mut last = Vec::new();
        let mut after = None;
        loop {
            let found = self
                .store
                .subjects(self.id, filters, after.as_deref(), SUBJECTS_PAGE);
            let page = self.answer(found, Vec::new());
            last.extend(page.iter().map(|totals| totals.last_seq));
            if page.len() < SUBJECTS_PAGE {
                break;
            }
            after = page.last().map(|totals| totals.subject.clone());
        }
        last.sort_unstable();
        last
    }

    fn seq_at_time(&self, time: Timestamp) -> u64 {
        self.answer(self.store.seq_at_time(self.id, time), self.last_seq() + 1)
    }

    fn size(&self, seq: u64) -> Option<u64> {
        let message = self.answer(self.store.get(self.id, seq), None)?;
        Some(message.record.len() as u64)
    }

    fn with_subject(&self, seq: u64, look: &mut dyn FnMut(&[u8])) -> bool {
        let subject = self.answer(self.store.subject_of(self.id, seq), None);
        subject.inspect(|subject| look(subject)).is_some()
    }
}
