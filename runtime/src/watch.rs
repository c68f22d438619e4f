//! A channel that holds one value and tells its receivers that it changed.
//!
//! Like `tokio::sync::watch`, but receivers are woken in the order in which they subscribed; tokio's picks one of
//! several lists by a generator that is seeded from a process-wide counter, so a second simulation in one process
//! would take another course.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

struct Shared<T> {
    value: RwLock<Versioned<T>>,
    ends: Mutex<Ends>,
}

struct Versioned<T> {
    value: T,
    version: u64,
}

#[derive(Default)]
struct Ends {
    waiting: BTreeMap<u64, Waker>,
    next_receiver: u64,
    senders: usize,
    receivers: usize,
}

impl<T> Shared<T> {
    fn wake_all(&self) {
        let waiting = std::mem::take(&mut self.ends.lock().waiting);
        waiting.into_values().for_each(Waker::wake);
    }
}

/// Makes a channel that holds `value`; the receiver has seen it.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        value: RwLock::new(Versioned { value, version: 0 }),
        ends: Mutex::new(Ends {
            senders: 1,
            ..Ends::default()
        }),
    });
    let receiver = Receiver::new(&shared, 0);
    (Sender(shared), receiver)
}

/// Changes the value. When the last sender is dropped, waiting receivers are told [`Closed`].
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// Replaces the value and wakes every receiver, whether or not it differs from the old one.
    pub fn send(&self, value: T) {
        self.send_if_modified(|old| {
            *old = value;
            true
        });
    }

    /// Changes the value in place; wakes the receivers when `change` returns true. Returns what it returned.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let changed = {
            let mut held = self.0.value.write();
            let changed = change(&mut held.value);
            held.version += u64::from(changed);
            changed
        };
        if changed {
            self.0.wake_all();
        }
        changed
    }

    /// The value, locked for reading: do not hold it over an await.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.value.read())
    }

    /// A new receiver, which has seen the present value.
    pub fn subscribe(&self) -> Receiver<T> {
        let version = self.0.value.read().version;
        Receiver::new(&self.0, version)
    }

    /// How many receivers there are.
    pub fn receiver_count(&self) -> usize {
        self.0.ends.lock().receivers
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.ends.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let last = {
            let mut ends = self.0.ends.lock();
            ends.senders -= 1;
            ends.senders == 0
        };
        if last {
            self.0.wake_all();
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender")
            .field(&self.0.value.read().value)
            .finish()
    }
}

/// Sees the value and waits for it to change.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
    id: u64,
}

impl<T> Receiver<T> {
    fn new(shared: &Arc<Shared<T>>, seen: u64) -> Self {
        let id = {
            let mut ends = shared.ends.lock();
            ends.receivers += 1;
            ends.next_receiver += 1;
            ends.next_receiver
        };
        Self {
            shared: Arc::clone(shared),
            seen,
            id,
        }
    }

    /// Waits until the value has changed since this receiver last saw it, and counts it as seen. Several changes count
    /// as one.
    ///
    /// # Errors
    /// [`Closed`] when it has seen the last value and every sender is gone.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        poll_fn(|cx| self.poll_changed(cx)).await
    }

    /// [`Receiver::changed`] for hand-written futures.
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        let mut ends = self.shared.ends.lock();
        // Read under the lock on `ends`: a sender that changes the value after this finds our waker.
        let version = self.shared.value.read().version;
        if version != self.seen {
            self.seen = version;
            return Poll::Ready(Ok(()));
        }
        if ends.senders == 0 {
            return Poll::Ready(Err(Closed));
        }
        ends.waiting.insert(self.id, cx.waker().clone());
        Poll::Pending
    }

    /// Waits until `wanted` holds for the value; returns at once when it already does.
    ///
    /// # Errors
    /// [`Closed`] when every sender is gone before that.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<(), Closed> {
        while !wanted(&self.borrow_and_update()) {
            self.changed().await?;
        }
        Ok(())
    }

    /// True when there is a value that this receiver has not seen.
    pub fn has_changed(&self) -> bool {
        self.shared.value.read().version != self.seen
    }

    /// The value, locked for reading: do not hold it over an await.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.value.read())
    }

    /// The value, which then counts as seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let held = self.shared.value.read();
        self.seen = held.version;
        Ref(held)
    }
}

/// A second receiver that has seen what the first has seen.
impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self::new(&self.shared, self.seen)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut ends = self.shared.ends.lock();
        ends.receivers -= 1;
        ends.waiting.remove(&self.id);
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver")
            .field(&self.shared.value.read().value)
            .finish()
    }
}

/// A look at the value; the channel is locked for reading while it lives.
pub struct Ref<'a, T>(RwLockReadGuard<'a, Versioned<T>>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(f)
    }
}

/// Every sender of a watch channel is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("every sender is gone")
    }
}

impl std::error::Error for Closed {}
