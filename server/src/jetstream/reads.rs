//! Direct gets on their way from the thread that brought them to one that may wait for a group's lock and the disk.
//!
//! They are taken in the order in which they came, a few at a time, and what a few are answered leaves in one write for each
//! connection. Two tasks serve them, so that a long one does not stop all. Bounded: beyond [`REQUESTS_WAITING_MAX`] requests or
//! [`REQUEST_BYTES_WAITING_MAX`] bytes they are dropped, as other requests are.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use halyard_runtime::task;
use halyard_runtime::time::{Duration, Instant};
use parking_lot::Mutex;

use super::api::direct;
use super::limits::{REQUEST_BYTES_WAITING_MAX, REQUESTS_WAITING_MAX};
use super::service::JetStream;
use crate::broker::{Account, FlushScope, Publish};

/// Tasks that serve at one time.
const SERVERS_MAX: usize = 2;
/// Requests that are answered between two looks at what else there is to do, and how long that may take before the next one.
const BATCH: usize = 16;
const BATCH_TIME: Duration = Duration::from_millis(2);

/// One request, owned.
pub(super) struct Read {
    account: Arc<Account>,
    /// The subject behind `DIRECT.GET.`.
    rest: Box<str>,
    reply: Bytes,
    headers: Bytes,
    payload: Bytes,
}

#[derive(Default)]
struct Waiting {
    reads: VecDeque<Read>,
    bytes: usize,
    servers: usize,
}

/// The direct gets that wait.
#[derive(Default)]
pub(super) struct Reads(Mutex<Waiting>);

impl Reads {
    /// Takes a request; it is answered soon.
    pub(super) fn push(&self, service: &Arc<JetStream>, read: Read) {
        {
            let mut waiting = self.0.lock();
            let bytes = waiting.bytes + read.bytes();
            if waiting.reads.len() >= REQUESTS_WAITING_MAX || bytes > REQUEST_BYTES_WAITING_MAX {
                drop(waiting);
                tracing::warn!("direct gets are dropped: too many wait");
                service.advise_limit_reached(&read.account);
                return;
            }
            waiting.bytes = bytes;
            waiting.reads.push_back(read);
            if waiting.servers >= SERVERS_MAX {
                return;
            }
            waiting.servers += 1;
        }
        // It ends by itself, when nothing waits.
        let server = Server {
            service: Arc::downgrade(service),
            is_counted: true,
        };
        drop(service.lanes.requests.spawn(server.run()));
    }
}

impl Read {
    pub(super) fn new(account: &Arc<Account>, rest: &str, message: &Publish<'_>) -> Self {
        Self {
            account: Arc::clone(account),
            rest: rest.into(),
            reply: Bytes::copy_from_slice(message.reply.unwrap_or_default()),
            headers: Bytes::copy_from_slice(message.headers),
            payload: Bytes::copy_from_slice(message.payload),
        }
    }

    const fn bytes(&self) -> usize {
        self.rest.len() + self.reply.len() + self.headers.len() + self.payload.len()
    }
}

/// One task that serves; counted until it has seen that nothing waits, or is dropped, whatever ends it.
struct Server {
    service: Weak<JetStream>,
    is_counted: bool,
}

impl Server {
    async fn run(mut self) {
        while self.serve_some() {
            task::yield_now().await;
        }
    }

    /// Whether there may be more.
    fn serve_some(&mut self) -> bool {
        let Some(service) = self.service.upgrade() else {
            return false;
        };
        let started = Instant::now();
        let _scope = FlushScope::new();
        for _ in 0..BATCH {
            let Some(read) = self.next(&service.reads) else {
                return false;
            };
            let message = Publish::new(&[], &read.payload)
                .with_reply(Some(&read.reply))
                .with_headers(&read.headers);
            let _ = direct::answer(&service, &read.account, &read.rest, &message);
            if started.elapsed() > BATCH_TIME {
                break;
            }
        }
        true
    }

    fn next(&mut self, reads: &Reads) -> Option<Read> {
        let mut waiting = reads.0.lock();
        let Some(read) = waiting.reads.pop_front() else {
            // Under the lock: what comes from here on has another task made for it.
            waiting.servers -= 1;
            self.is_counted = false;
            return None;
        };
        waiting.bytes -= read.bytes();
        Some(read)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(service) = self.service.upgrade().filter(|_| self.is_counted) {
            service.reads.0.lock().servers -= 1;
        }
    }
}
