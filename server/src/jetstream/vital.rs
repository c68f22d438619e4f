//! Tasks that must not be lost in silence: when one panics, whoever depends on it is told, and so is the operator.

use halyard_runtime::task::{self, JoinHandle};

/// Calls what it holds when it is dropped by a panic, and not by an end.
struct Watch<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Watch<F> {
    fn drop(&mut self) {
        if let Some(lost) = self.0.take().filter(|_| std::thread::panicking()) {
            lost();
        }
    }
}

/// Runs `future` as a task. Should it panic, `lost` is called, on its thread.
pub(super) fn spawn(
    future: impl Future<Output = ()> + Send + 'static,
    lost: impl FnOnce() + Send + 'static,
) -> JoinHandle<()> {
    let watch = Watch(Some(lost));
    task::spawn(async move {
        let _watch = watch;
        future.await;
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn only_a_panic_is_a_loss() {
        let lost = Arc::new(AtomicU32::new(0));
        let note = || {
            let lost = Arc::clone(&lost);
            move || {
                lost.fetch_add(1, Ordering::Relaxed);
            }
        };
        task::block_on(1, async {
            assert!(spawn(async {}, note()).await.is_ok());
            let aborted = spawn(std::future::pending(), note());
            aborted.abort();
            assert!(aborted.await.is_err());
            assert_eq!(lost.load(Ordering::Relaxed), 0);
            let panics = spawn(async { panic!("as planned by the test") }, note());
            assert!(panics.await.is_err());
            assert_eq!(lost.load(Ordering::Relaxed), 1);
        })
        .unwrap();
    }
}
