//! Many deliveries, one write: sinks touched inside a scope are flushed once, when the outermost scope ends.
//!
//! The scope belongs to the thread. It is not `Send`, so that the compiler keeps it from living across an `await`.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;

use super::message::{Pressure, Sink};

#[derive(Default)]
struct Deferred {
    depth: usize,
    sinks: Vec<Arc<dyn Sink>>,
    pressure: Pressure,
}

thread_local! {
    static DEFERRED: RefCell<Deferred> = RefCell::default();
}

/// While one lives on this thread, flushes wait; they happen when the outermost ends.
pub struct FlushScope {
    stays_on_its_thread: PhantomData<*const ()>,
}

impl FlushScope {
    /// Opens a scope.
    #[must_use]
    pub fn new() -> Self {
        DEFERRED.with_borrow_mut(|deferred| deferred.depth = deferred.depth.saturating_add(1));
        Self {
            stays_on_its_thread: PhantomData,
        }
    }

    /// Ends the scope and says how much the flushed sinks still hold back (always `Low` for an inner scope).
    pub fn finish(self) -> Pressure {
        drop(self);
        DEFERRED.with_borrow_mut(|deferred| std::mem::take(&mut deferred.pressure))
    }
}

impl Default for FlushScope {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for FlushScope {
    fn drop(&mut self) {
        let outermost = DEFERRED.with_borrow_mut(|deferred| {
            if deferred.depth == 1 {
                deferred.pressure = Pressure::Low;
                return true;
            }
            deferred.depth = deferred.depth.saturating_sub(1);
            false
        });
        if outermost {
            flush_all();
            DEFERRED.with_borrow_mut(|deferred| deferred.depth = 0);
        }
    }
}

/// Flushes what was deferred, and what those flushes defer in turn.
fn flush_all() {
    loop {
        let mut batch = DEFERRED.with_borrow_mut(|deferred| std::mem::take(&mut deferred.sinks));
        if batch.is_empty() {
            return;
        }
        let mut pressure = Pressure::Low;
        for sink in batch.drain(..) {
            pressure = pressure.max(sink.flush());
        }
        DEFERRED.with_borrow_mut(|deferred| {
            deferred.pressure = deferred.pressure.max(pressure);
            // Keep the allocation for the next batch, unless a flush has deferred something meanwhile.
            if deferred.sinks.is_empty() {
                deferred.sinks = batch;
            }
        });
    }
}

/// Has `sink` flushed when the scope ends, or at once if there is none.
///
/// A sink defers itself when it goes from empty to not empty, not for each message. It holds none of its locks here.
pub fn defer(sink: Arc<dyn Sink>) {
    let now = DEFERRED.with_borrow_mut(|deferred| {
        if deferred.depth == 0 {
            return Some(sink);
        }
        deferred.sinks.push(sink);
        None
    });
    if let Some(sink) = now {
        sink.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::broker::{Delivered, Publish, Subscription};

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Sink for Counter {
        fn deliver(&self, _: &Subscription, _: &Publish<'_>) -> Delivered {
            Delivered::Accepted
        }
        fn flush(&self) -> Pressure {
            self.0.fetch_add(1, Ordering::Relaxed);
            Pressure::High
        }
    }

    #[test]
    fn flushes_wait_for_the_outermost_scope() {
        let sink = Arc::new(Counter::default());
        let count = || sink.0.load(Ordering::Relaxed);
        defer(sink.clone());
        assert_eq!(count(), 1, "no scope: at once");

        let outer = FlushScope::new();
        let inner = FlushScope::new();
        defer(sink.clone());
        assert_eq!(inner.finish(), Pressure::Low);
        assert_eq!(count(), 1);
        assert_eq!(outer.finish(), Pressure::High);
        assert_eq!(count(), 2);
        assert_eq!(
            FlushScope::new().finish(),
            Pressure::Low,
            "pressure is of one scope"
        );
    }
}
