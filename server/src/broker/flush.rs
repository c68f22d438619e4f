//! Many deliveries, one write: sinks touched inside a scope are flushed once, when the outermost scope ends.
//!
//! The scope belongs to the thread. It is not `Send`, so that the compiler keeps it from living across an `await`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

use super::message::{Pressure, Sink};

#[derive(Default)]
struct Deferred {
    depth: usize,
    sinks: VecDeque<Arc<dyn Sink>>,
    pressed: Pressed,
}

/// The sinks that hold back much after a flush.
#[derive(Default)]
pub struct Pressed {
    /// They, to be asked for relief, and how much each holds back.
    pub sinks: Vec<(Pressure, Arc<dyn Sink>)>,
    /// How much the worst of them holds back.
    pub pressure: Pressure,
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

    /// What was deferred last is flushed first.
    pub fn turn_round(&self) {
        DEFERRED.with_borrow_mut(|deferred| deferred.sinks.make_contiguous().reverse());
    }

    /// Ends the scope and says which of the flushed sinks hold back much (none for an inner scope).
    pub fn finish(self) -> Pressed {
        drop(self);
        DEFERRED.with_borrow_mut(|deferred| std::mem::take(&mut deferred.pressed))
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
                deferred.pressed = Pressed::default();
                return true;
            }
            deferred.depth = deferred.depth.saturating_sub(1);
            false
        });
        if !outermost {
            return;
        }
        let _ended = Ended;
        if !std::thread::panicking() {
            return flush_all();
        }
        // What was deferred before somebody's bug belongs to others.
        if std::panic::catch_unwind(flush_all).is_err() {
            tracing::error!("a flush has panicked");
        }
    }
}

/// Ends the outermost scope, also where a flush panics.
struct Ended;

impl Drop for Ended {
    fn drop(&mut self) {
        DEFERRED.with_borrow_mut(|deferred| deferred.depth = 0);
    }
}

/// Sinks that are being flushed; those that a panic leaves are flushed with the next scope of the thread.
struct Batch(VecDeque<Arc<dyn Sink>>);

impl Drop for Batch {
    fn drop(&mut self) {
        DEFERRED.with_borrow_mut(|deferred| {
            if deferred.sinks.is_empty() {
                // With its allocation.
                deferred.sinks = std::mem::take(&mut self.0);
            } else {
                deferred.sinks.append(&mut self.0);
            }
        });
    }
}

/// Flushes what was deferred, and what those flushes defer in turn.
fn flush_all() {
    loop {
        let sinks = DEFERRED.with_borrow_mut(|deferred| std::mem::take(&mut deferred.sinks));
        if sinks.is_empty() {
            return;
        }
        let mut batch = Batch(sinks);
        while let Some(sink) = batch.0.pop_front() {
            let pressure = sink.flush();
            if pressure != Pressure::Low {
                DEFERRED.with_borrow_mut(|deferred| deferred.pressed.add(sink, pressure));
            }
        }
    }
}

impl Pressed {
    fn add(&mut self, sink: Arc<dyn Sink>, pressure: Pressure) {
        self.pressure = self.pressure.max(pressure);
        self.sinks.push((pressure, sink));
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
        deferred.sinks.push_back(sink);
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
            Pressure::Soft
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
        assert_eq!(inner.finish().sinks.len(), 0);
        assert_eq!(count(), 1);
        let pressed = outer.finish();
        assert_eq!((pressed.sinks.len(), pressed.pressure), (1, Pressure::Soft));
        assert_eq!(count(), 2);
        assert_eq!(FlushScope::new().finish().sinks.len(), 0, "of one scope");
    }

    struct Faulty;

    impl Sink for Faulty {
        fn deliver(&self, _: &Subscription, _: &Publish<'_>) -> Delivered {
            Delivered::Accepted
        }
        fn flush(&self) -> Pressure {
            panic!("as planned by the test")
        }
    }

    #[test]
    fn a_panic_keeps_no_other_sink_from_being_flushed() {
        let sink = Arc::new(Counter::default());
        let count = || sink.0.load(Ordering::Relaxed);
        let in_scope = std::panic::catch_unwind(|| {
            let _scope = FlushScope::new();
            defer(sink.clone());
            panic!("as planned by the test");
        });
        assert!(in_scope.is_err());
        assert_eq!(count(), 1, "of the scope that the panic ended");
        let in_flush = std::panic::catch_unwind(|| {
            let _scope = FlushScope::new();
            defer(Arc::new(Faulty));
            defer(sink.clone());
        });
        assert!(in_flush.is_err());
        drop(FlushScope::new());
        assert_eq!(count(), 2, "of the next scope");
    }
}
