//! Lanes: threads of their own for tasks that compute, or wait for the disk, for long between two awaits.
//!
//! The runtime's workers serve sockets; what keeps one of them for a second keeps its sockets for a second. Tasks of a lane have
//! threads that nobody else depends on, and the system's scheduler divides the processors among all. In a simulation a lane is
//! no more than a name: its tasks are tasks of the one thread.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;

use crate::task::{self, JoinHandle};

/// Threads for tasks of one kind. Dropping it drops its tasks, at their next await.
pub struct Lane {
    runtime: Option<tokio::runtime::Runtime>,
}

impl Lane {
    /// A lane of so many threads (at least one) called `name`. Its tasks may use timers, and no sockets.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new(name: &str, threads: usize) -> io::Result<Self> {
        if crate::in_sim() {
            return Ok(Self { runtime: None });
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name(name)
            .enable_time()
            .build()?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// Runs `future` as a task of this lane, and so whatever that spawns.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match &self.runtime {
            Some(runtime) => JoinHandle::of(runtime.spawn(future)),
            None => task::spawn(future),
        }
    }

    /// Runs `future` where it is awaited, but whatever it spawns, and the timers that it makes, belong to this lane.
    pub async fn within<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let _entered = self.runtime.as_ref().map(tokio::runtime::Runtime::enter);
            future.as_mut().poll(cx)
        })
        .await
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not waited for: the last who holds a lane may be one of its tasks.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread() -> String {
        std::thread::current().name().unwrap_or_default().to_owned()
    }

    #[test]
    fn what_a_lane_runs_spawns_on_it() {
        task::block_on(1, async {
            let lane = Lane::new("lane", 1).expect("a thread");
            assert_eq!(lane.spawn(async { thread() }).await, Ok("lane".to_owned()));
            let nested = lane.spawn(async { task::spawn(async { thread() }).await });
            assert_eq!(nested.await, Ok(Ok("lane".to_owned())));
            let here = thread();
            let (outer, inner) = lane
                .within(async { (thread(), task::spawn(async { thread() }).await) })
                .await;
            assert_eq!((outer, inner), (here.clone(), Ok("lane".to_owned())));
            assert_ne!(task::spawn(async { thread() }).await, Ok("lane".to_owned()));
            let waits = lane.spawn(std::future::pending::<()>());
            drop(lane);
            assert!(waits.await.is_err());
        })
        .expect("a runtime");
    }
}
