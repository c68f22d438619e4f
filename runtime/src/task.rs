//! Tasks: what runs at the same time as something else.
//!
//! [`spawn`] for ordinary tasks; [`spawn_blocking`] for a short blocking call; [`spawn_dedicated`] for work that blocks
//! all the time (the log writer, flush and compaction), which gets an OS thread of its own. In a simulation all of them
//! are tasks on one thread, and blocking calls simply run.
//!
//! What others depend on is wrapped in [`vital`]: its panic is told, and nobody waits for what is gone.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Why a task gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// It was aborted, or its runtime went away.
    Cancelled,
    /// It panicked.
    Panicked,
}

impl JoinError {
    /// True when the task panicked, false when it was cancelled.
    pub fn is_panic(self) -> bool {
        self == Self::Panicked
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "the task was cancelled",
            Self::Panicked => "the task panicked",
        })
    }
}

impl std::error::Error for JoinError {}

impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> Self {
        Self::other(error)
    }
}

/// Waits for a task's result when awaited; dropping it lets the task run on.
#[derive(Debug)]
#[must_use = "await it, abort it, or drop it knowing that the task runs on"]
pub struct JoinHandle<T>(Joined<T>);

#[derive(Debug)]
enum Joined<T> {
    Task(tokio::task::JoinHandle<T>),
    #[cfg(feature = "sim")]
    Simulated(madsim::task::JoinHandle<T>),
    Thread {
        result: tokio::sync::oneshot::Receiver<Result<T, JoinError>>,
        wake: Arc<ThreadWaker>,
    },
}

impl<T> JoinHandle<T> {
    /// Of a task of tokio's.
    pub(crate) const fn of(handle: tokio::task::JoinHandle<T>) -> Self {
        Self(Joined::Task(handle))
    }

    #[cfg(feature = "sim")]
    pub(crate) fn simulated(handle: madsim::task::JoinHandle<T>) -> Self {
        Self(Joined::Simulated(handle))
    }

    /// Asks the task to stop; it is dropped at its next await, or has finished before.
    pub fn abort(&self) {
        match &self.0 {
            Joined::Task(handle) => handle.abort(),
            #[cfg(feature = "sim")]
            Joined::Simulated(handle) => handle.abort(),
            Joined::Thread { wake, .. } => {
                wake.aborted.store(true, Ordering::Release);
                wake.thread_wake();
            }
        }
    }

    /// True when the result is there.
    pub fn is_finished(&self) -> bool {
        match &self.0 {
            Joined::Task(handle) => handle.is_finished(),
            #[cfg(feature = "sim")]
            Joined::Simulated(handle) => handle.is_finished(),
            Joined::Thread { result, .. } => !result.is_empty() || result.is_terminated(),
        }
    }
}

impl<T> Unpin for JoinHandle<T> {}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            Joined::Task(handle) => Pin::new(handle)
                .poll(cx)
                .map_err(|error| join_error(&error)),
            // A panic ends the whole simulation, so a task that gives no result was cancelled.
            #[cfg(feature = "sim")]
            Joined::Simulated(handle) => {
                Pin::new(handle).poll(cx).map_err(|_| JoinError::Cancelled)
            }
            Joined::Thread { result, .. } => Pin::new(result)
                .poll(cx)
                .map(|sent| sent.unwrap_or(Err(JoinError::Cancelled))),
        }
    }
}

fn join_error(error: &tokio::task::JoinError) -> JoinError {
    if error.is_panic() {
        JoinError::Panicked
    } else {
        JoinError::Cancelled
    }
}

/// Runs `future` as a task of its own.
///
/// # Panics
/// When called outside a runtime.
#[expect(clippy::disallowed_methods, reason = "the door to tasks")]
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[cfg(feature = "sim")]
    if crate::in_sim() {
        return JoinHandle::simulated(crate::sim::spawn(future));
    }
    JoinHandle(Joined::Task(tokio::spawn(future)))
}

/// Lets every other task that is ready run once.
pub async fn yield_now() {
    tokio::task::yield_now().await;
}

/// Runs a call that blocks for a while on a thread kept for such calls; in a simulation it runs in place.
///
/// # Errors
/// When the call panicked, or the runtime is shutting down.
#[expect(clippy::disallowed_methods, reason = "the door to blocking calls")]
pub async fn spawn_blocking<R, F>(call: F) -> Result<R, JoinError>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    if crate::in_sim() {
        yield_now().await;
        return Ok(call());
    }
    tokio::task::spawn_blocking(call)
        .await
        .map_err(|error| join_error(&error))
}

/// Runs `future` on an OS thread of its own, so that it may block on the disk without holding up a worker.
///
/// It may await channels, timers and sockets: when called on a runtime, that runtime's timers and sockets serve the new
/// thread as well. In a simulation it is a plain task.
///
/// # Errors
/// When the system gives no thread.
#[expect(clippy::disallowed_methods, reason = "the door to threads")]
pub fn spawn_dedicated<F>(name: &str, future: F) -> io::Result<JoinHandle<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[cfg(feature = "sim")]
    if crate::in_sim() {
        return Ok(JoinHandle::simulated(crate::sim::spawn(future)));
    }
    let (sender, result) = tokio::sync::oneshot::channel();
    let wake = Arc::new(ThreadWaker::default());
    let runtime = tokio::runtime::Handle::try_current().ok();
    let thread_wake = Arc::clone(&wake);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _entered = runtime.as_ref().map(tokio::runtime::Handle::enter);
            let run = std::panic::AssertUnwindSafe(|| drive(&thread_wake, future));
            let outcome = match std::panic::catch_unwind(run) {
                Ok(Some(value)) => Ok(value),
                Ok(None) => Err(JoinError::Cancelled),
                Err(_) => Err(JoinError::Panicked),
            };
            // Nobody may be waiting any more, which is no error.
            let _ = sender.send(outcome);
        })?;
    Ok(JoinHandle(Joined::Thread { result, wake }))
}

/// Runs `future`; should it panic, `lost` is called, on its thread. For what must not be lost in silence.
pub fn vital<F: Future>(future: F, lost: impl FnOnce()) -> impl Future<Output = F::Output> {
    let watch = PanicWatch(Some(lost));
    async move {
        let _watch = watch;
        future.await
    }
}

/// Calls what it holds when it is dropped by a panic, and not by an end.
struct PanicWatch<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for PanicWatch<F> {
    fn drop(&mut self) {
        if let Some(lost) = self.0.take().filter(|_| std::thread::panicking()) {
            lost();
        }
    }
}

/// Wakes a dedicated thread. A wake-up that comes while the thread is busy is remembered in `notified`.
#[derive(Debug, Default)]
struct ThreadWaker {
    notified: AtomicBool,
    aborted: AtomicBool,
    thread: std::sync::OnceLock<std::thread::Thread>,
}

impl ThreadWaker {
    fn thread_wake(&self) {
        // One unpark for many wake-ups: only the first since the thread last looked does the system call.
        if !self.notified.swap(true, Ordering::AcqRel)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.thread_wake();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.thread_wake();
    }
}

/// Polls `future` on this thread until it is done, parking in between; `None` when it was aborted.
fn drive<F: Future>(wake: &Arc<ThreadWaker>, future: F) -> Option<F::Output> {
    wake.thread.get_or_init(std::thread::current);
    let waker = Waker::from(Arc::clone(wake));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if wake.aborted.load(Ordering::Acquire) {
            return None;
        }
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return Some(value);
        }
        // `swap` and not `load`: a wake-up between the poll and the park has set it and left a park token.
        while !wake.notified.swap(false, Ordering::AcqRel) {
            std::thread::park();
        }
    }
}

/// Starts a production runtime with `worker_threads` threads (at least one), runs `future` on it to its end, and stops
/// whatever still runs. For `main` and for tests.
///
/// # Errors
/// When the system refuses the threads or the poller.
pub fn block_on<F: Future>(worker_threads: usize, future: F) -> io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads.max(1))
        .thread_name("halyard-worker")
        .enable_all()
        .build()?;
    let output = runtime.block_on(future);
    // A blocking call that never returns must not hold up the exit of the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(output)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

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
        block_on(1, async {
            assert!(spawn(vital(async {}, note())).await.is_ok());
            let aborted = spawn(vital(std::future::pending::<()>(), note()));
            aborted.abort();
            assert!(aborted.await.is_err());
            assert_eq!(lost.load(Ordering::Relaxed), 0);
            let planned = async { panic!("as planned by the test") };
            assert!(spawn(vital(planned, note())).await.is_err());
            assert_eq!(lost.load(Ordering::Relaxed), 1);
            let planned = async { panic!("as planned by the test") };
            let thread = spawn_dedicated("panics", vital(planned, note()));
            assert!(thread.expect("a thread").await.is_err());
            assert_eq!(lost.load(Ordering::Relaxed), 2);
        })
        .expect("a runtime");
    }
}
