//! One subscription: a filter, perhaps a queue group, and the sink that takes its messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::message::{ClientId, Sink};

/// What is asked for when subscribing.
pub struct Subscribe<'a> {
    /// Subjects to match; may hold wildcards.
    pub filter: &'a [u8],
    /// Members of one group share its messages, each goes to one of them.
    pub queue: Option<&'a [u8]>,
    /// The subscriber's own name for it, shown in each delivery; empty inside the server.
    pub sid: &'a [u8],
    /// The connection it belongs to; `None` for the server itself.
    pub client: Option<ClientId>,
}

/// A live subscription of one account.
pub struct Subscription {
    id: u64,
    filter: Box<[u8]>,
    queue: Option<Box<[u8]>>,
    sid: Box<[u8]>,
    client: Option<ClientId>,
    sink: Arc<dyn Sink>,
    delivered: AtomicU64,
    max: AtomicU64,
    closed: AtomicBool,
}

impl Subscription {
    pub(super) fn new(id: u64, asked: &Subscribe<'_>, sink: Arc<dyn Sink>) -> Self {
        Self {
            id,
            filter: asked.filter.into(),
            queue: asked.queue.map(Into::into),
            sid: asked.sid.into(),
            client: asked.client,
            sink,
            delivered: AtomicU64::new(0),
            max: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// Unique in its account, rising in the order of subscribing.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The subjects that it matches.
    #[must_use]
    pub fn filter(&self) -> &[u8] {
        &self.filter
    }

    /// Its queue group.
    #[must_use]
    pub fn queue(&self) -> Option<&[u8]> {
        self.queue.as_deref()
    }

    /// The subscriber's own name for it.
    #[must_use]
    #[inline]
    pub fn sid(&self) -> &[u8] {
        &self.sid
    }

    /// The connection it belongs to.
    #[must_use]
    #[inline]
    pub const fn client(&self) -> Option<ClientId> {
        self.client
    }

    /// What takes its messages.
    #[must_use]
    #[inline]
    pub fn sink(&self) -> &dyn Sink {
        &*self.sink
    }

    /// Messages taken so far.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// After how many messages it ends; 0 is never.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Sets after how many messages, counted from its beginning, it ends.
    pub fn set_max(&self, max: u64) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Whether it has ended. A message that is already on its way may still meet an ended subscription.
    #[must_use]
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Marks it as ended; whether this call did so.
    pub(super) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::Relaxed)
    }

    /// Counts one message. `None`: it has ended, the message is not for it. `Some(true)`: this was its last.
    ///
    /// The sink serialises its calls (it counts under its own lock), hence no read-modify-write.
    #[inline]
    pub fn count(&self) -> Option<bool> {
        if self.is_closed() {
            return None;
        }
        let (count, max) = (self.delivered().wrapping_add(1), self.max());
        if max != 0 && count > max {
            return None;
        }
        self.delivered.store(count, Ordering::Relaxed);
        Some(count == max)
    }
}
