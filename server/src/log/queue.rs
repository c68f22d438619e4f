//! Lines on their way to the log: threads that serve leave them here, and one thread writes them.
//!
//! A slow disk or terminal holds nobody up: what waits is bounded in bytes, and beyond that lines are counted and told as
//! lost.

use std::future::poll_fn;
use std::task::Poll;

use futures::task::AtomicWaker;
use halyard_runtime::time::Timestamp;
use parking_lot::Mutex;

use super::line::Label;

/// Bytes of text that wait to be written at most.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// One line, not yet in its form.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) label: Label,
    pub(super) text: String,
    pub(super) at: Timestamp,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<Line>,
    bytes: usize,
    lost: u64,
}

/// The lines that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    writer: AtomicWaker,
}

impl Queue {
    /// Leaves a line for the writer.
    pub(super) fn push(&self, line: Line) {
        {
            let mut waiting = self.waiting.lock();
            let bytes = waiting.bytes.saturating_add(line.text.len());
            if bytes > WAITING_BYTES_MAX {
                waiting.lost += 1;
                return;
            }
            waiting.bytes = bytes;
            waiting.lines.push(line);
        }
        self.writer.wake();
    }

    /// Takes what waits, in order; the last line tells of those that were lost.
    pub(super) fn take(&self) -> Vec<Line> {
        let Waiting {
            mut lines, lost, ..
        } = std::mem::take(&mut *self.waiting.lock());
        if lost > 0 {
            lines.push(Line {
                label: Label::Warn,
                text: format!("{lost} log lines were lost: the log is slower than the server"),
                at: Timestamp::now(),
            });
        }
        lines
    }

    /// Waits until there is something to take.
    pub(super) async fn filled(&self) {
        poll_fn(|cx| {
            self.writer.register(cx.waker());
            let waiting = self.waiting.lock();
            match waiting.lines.is_empty() && waiting.lost == 0 {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_what_is_lost_is_told() {
        let queue = Queue::default();
        let text = "x".repeat(WAITING_BYTES_MAX / 4);
        for _ in 0..7 {
            queue.push(Line {
                label: Label::Info,
                text: text.clone(),
                at: Timestamp::EPOCH,
            });
        }
        let taken = queue.take();
        assert_eq!(taken.len(), 5);
        assert!(taken[4].text.starts_with("3 log lines were lost"));
        assert!(queue.take().is_empty());
    }
}
