//! What erasure and a group's driver tell each other.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;

use futures::task::AtomicWaker;

/// What erasure wants of the driver of one group. The driver is woken by who gives an order.
#[derive(Debug, Default)]
pub struct Orders {
    flush_to: AtomicU64,
    rewrite_to: AtomicU64,
}

impl Orders {
    /// Flush, once this entry is applied.
    pub fn flush(&self, entry: u64) {
        self.flush_to.fetch_max(entry, Ordering::AcqRel);
    }

    /// Rewrite what holds anything erased before this flush of the store, without a pause.
    pub fn rewrite(&self, flush: u64) {
        self.rewrite_to.fetch_max(flush, Ordering::AcqRel);
    }

    /// The entry that must be flushed; 0 for none.
    #[must_use]
    pub fn flush_to(&self) -> u64 {
        self.flush_to.load(Ordering::Acquire)
    }

    /// The flush of the last order to rewrite; `None` when it was carried out.
    #[must_use]
    pub fn rewrite_to(&self) -> Option<u64> {
        let flush = self.rewrite_to.load(Ordering::Acquire);
        (flush > 0).then_some(flush)
    }

    /// Everything before this flush has been rewritten.
    pub fn rewritten(&self, flush: u64) {
        // A later order stays.
        let _ = self
            .rewrite_to
            .compare_exchange(flush, 0, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// Wakes the one task that erases.
#[derive(Debug, Default)]
pub struct Bell {
    rung: AtomicBool,
    waiting: AtomicWaker,
}

impl Bell {
    /// There is something to erase.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.waiting.wake();
        }
    }

    /// Waits until it rings, or has rung since the last call.
    pub async fn heard(&self) {
        poll_fn(|cx| {
            self.waiting.register(cx.waker());
            match self.rung.swap(false, Ordering::AcqRel) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_carried_out_takes_no_later_order_with_it() {
        let orders = Orders::default();
        assert_eq!((orders.flush_to(), orders.rewrite_to()), (0, None));
        orders.rewrite(5);
        orders.rewrite(7);
        orders.rewrite(6);
        assert_eq!(orders.rewrite_to(), Some(7));
        orders.rewritten(5);
        assert_eq!(orders.rewrite_to(), Some(7));
        orders.rewritten(7);
        assert_eq!(orders.rewrite_to(), None);
        orders.flush(9);
        orders.flush(8);
        assert_eq!(orders.flush_to(), 9);
    }
}
