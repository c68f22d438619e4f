//! From the subject of a request to who answers it.
//!
//! The API is a subscriber like any other. The thread that brings a request only hands it over: direct reads wait in a queue
//! (`reads`), everything else is done by a task, since it may wait for the log; both run on threads for requests. The requests
//! of one connection are answered one after the other, in the order in which they came: a client may send a create and what
//! builds on it without waiting in between. What waits is bounded in number and in bytes; beyond that requests are dropped and
//! an advisory says so, as by the peer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::errors::{ApiError, table};
use super::{account, direct, message, stream};
use crate::broker::{
    Account, ClientId, Delivered, Publish, Publisher, Sink, Subscription, WriteNumber,
};
use crate::jetstream::consumer;
use crate::jetstream::consumer::leader::{Directory, HALTED, Puller};
use crate::jetstream::handle::StreamHandle;
use crate::jetstream::limits::{REQUEST_BYTES_WAITING_MAX, REQUESTS_WAITING_MAX};
use crate::jetstream::reads::Read;
use crate::jetstream::service::JetStream;
use crate::jetstream::stream::headers;

/// What every subject of the API begins with.
pub const PREFIX: &str = "$JS.API.";

/// One request, owned: it may outlive the read that brought it.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who asks.
    pub account: Arc<str>,
    /// The connection that asks; `None` for one of the server's own.
    pub client: Option<ClientId>,
    /// The subject behind the prefix: `STREAM.INFO.S`.
    pub subject: String,
    /// Where the answer goes; empty where none is wanted.
    pub reply: Bytes,
    /// The header block, empty for none.
    pub headers: Bytes,
    /// The body.
    pub payload: Bytes,
}

impl Request {
    /// The tokens of the subject.
    #[must_use]
    pub fn tokens(&self) -> Vec<&str> {
        self.subject.split('.').collect()
    }

    /// The stream that it is about, if that is served.
    fn stream(&self, service: &JetStream) -> Option<Arc<StreamHandle>> {
        let name = match self.tokens().as_slice() {
            ["STREAM", .., name] | ["CONSUMER", "DURABLE", "CREATE", name, ..] => *name,
            ["CONSUMER", _, name, ..] => *name,
            _ => return None,
        };
        service.stream(&self.account, name)
    }

    /// Whether this server's API is new enough for the client.
    ///
    /// # Errors
    /// 10185: it needs a newer one.
    pub fn check_level(&self) -> Result<(), ApiError> {
        check_level(&self.headers)
    }

    /// Bytes that it holds while it waits.
    fn bytes(&self) -> usize {
        let variable = [self.reply.len(), self.headers.len(), self.payload.len()];
        size_of::<Self>() + self.subject.len() + variable.iter().sum::<usize>()
    }
}

/// Whether this server's API is new enough for a request with these headers.
///
/// # Errors
/// 10185: the client needs a newer one, or says what is no number.
pub fn check_level(block: &[u8]) -> Result<(), ApiError> {
    let asked = headers::pairs(block).find(|(name, _)| *name == b"Nats-Required-Api-Level");
    match asked {
        Some((_, level)) if !level.is_empty() && !headers::has_level(level) => {
            Err(table::REQUIRED_API_LEVEL.error())
        }
        _ => Ok(()),
    }
}

/// Requests that wait until what their client had published before has been stored.
#[derive(Debug, Default)]
struct Waiting {
    count: AtomicUsize,
    bytes: AtomicUsize,
}

/// One of them; counted until it is dropped, whatever ends it.
struct Seat {
    waiting: Arc<Waiting>,
    bytes: usize,
}

impl Seat {
    /// `None`: too many, or too many bytes, wait.
    fn take(waiting: &Arc<Waiting>, bytes: usize) -> Option<Self> {
        let count = waiting.count.fetch_add(1, Ordering::AcqRel);
        let before = waiting.bytes.fetch_add(bytes, Ordering::AcqRel);
        let waiting = Arc::clone(waiting);
        let seat = Self { waiting, bytes };
        // A body that is larger than all goes alone.
        let fits = before == 0 || before + bytes <= REQUEST_BYTES_WAITING_MAX;
        (count < REQUESTS_WAITING_MAX && fits).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.waiting.count.fetch_sub(1, Ordering::AcqRel);
        self.waiting.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// A request, and the last message that its client had sent to a stream before.
struct Waits(Request, WriteNumber);

/// Requests that wait, by the connection that sent them.
#[derive(Default)]
struct Queues {
    /// Those of the server itself are one queue.
    waiting: BTreeMap<Option<ClientId>, VecDeque<Waits>>,
    /// How many there are, those under way included.
    count: usize,
    /// Their bytes.
    bytes: usize,
}

/// The API as a subscriber of one account.
pub struct Api {
    account: Arc<Account>,
    service: std::sync::Weak<JetStream>,
    queues: Arc<Mutex<Queues>>,
    behind: Arc<Waiting>,
    prefix: Arc<str>,
}

impl Api {
    /// The API of `account`, whose requests begin with `prefix`.
    #[must_use]
    pub fn new(account: Arc<Account>, service: &Arc<JetStream>, prefix: &str) -> Self {
        Self {
            account,
            service: Arc::downgrade(service),
            queues: Arc::default(),
            behind: Arc::default(),
            prefix: prefix.into(),
        }
    }

    fn take(&self, service: &Arc<JetStream>, subject: &str, message: &Publish<'_>) {
        let request = Request {
            account: self.account.name().into(),
            client: message.origin.client(),
            subject: subject.to_owned(),
            reply: Bytes::copy_from_slice(message.reply.unwrap_or_default()),
            headers: Bytes::copy_from_slice(message.headers),
            payload: Bytes::copy_from_slice(message.payload),
        };
        let bytes = request.bytes();
        let origin = message.origin.client();
        let request = Waits(request, last_write(message));
        let first = {
            let mut queues = self.queues.lock();
            let sum = queues.bytes.saturating_add(bytes);
            // A body that is larger than all goes alone.
            let fits = queues.bytes == 0 || sum <= REQUEST_BYTES_WAITING_MAX;
            if queues.count >= REQUESTS_WAITING_MAX || !fits {
                drop(queues);
                self.too_many(service);
                return;
            }
            (queues.count, queues.bytes) = (queues.count + 1, sum);
            match queues.waiting.get_mut(&origin) {
                Some(queue) => {
                    queue.push_back(request);
                    None
                }
                None => {
                    queues.waiting.insert(origin, VecDeque::new());
                    Some(request)
                }
            }
        };
        if let Some(request) = first {
            let queue = Queue {
                queues: Arc::clone(&self.queues),
                prefix: Arc::clone(&self.prefix),
                origin,
                bytes,
            };
            let answering = queue.answer(Arc::clone(service), Arc::clone(&self.account), request);
            // Nobody waits for it: it answers by itself.
            drop(service.lanes.requests.spawn(answering));
        }
    }

    fn too_many(&self, service: &JetStream) {
        tracing::warn!("JetStream API requests are dropped: too many wait");
        service.advise_limit_reached(&self.account);
    }
}

/// The task that answers one connection's requests. However it ends, nothing of it is counted any more.
struct Queue {
    queues: Arc<Mutex<Queues>>,
    prefix: Arc<str>,
    origin: Option<ClientId>,
    /// Of the request under way.
    bytes: usize,
}

impl Queue {
    async fn answer(mut self, service: Arc<JetStream>, account: Arc<Account>, first: Waits) {
        let mut next = Some(first);
        while let Some(Waits(request, last_write)) = next {
            let counted = service.counters().begin();
            if let Some(handle) = request.stream(&service) {
                handle.caught_up_with(last_write).await;
            }
            let answer = answer(&service, &request).await;
            counted.end(answer.as_deref());
            if let Some(answer) = answer {
                if !request.reply.is_empty() {
                    account.publish(&Publish::new(&request.reply, &answer));
                }
                let subject = format!("{}{}", self.prefix, request.subject);
                service.advise_audit(&account, self.origin, &subject, &request.payload, &answer);
            }
            next = self.next();
        }
    }

    /// Counts one request off; the next one of the queue.
    fn next(&mut self) -> Option<Waits> {
        let mut queues = self.queues.lock();
        queues.count -= 1;
        queues.bytes -= std::mem::take(&mut self.bytes);
        let next = queues.waiting.get_mut(&self.origin)?.pop_front();
        match &next {
            Some(Waits(request, _)) => self.bytes = request.bytes(),
            None => {
                queues.waiting.remove(&self.origin);
            }
        }
        next
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // At its proper end it holds nothing and its queue is gone; a queue of the same connection may be another's.
        if self.bytes == 0 {
            return;
        }
        let mut queues = self.queues.lock();
        let left = queues.waiting.remove(&self.origin).unwrap_or_default();
        queues.count -= 1 + left.len();
        queues.bytes -= self.bytes + left.iter().map(|one| one.0.bytes()).sum::<usize>();
    }
}

impl Api {
    /// Hands a pull request to its consumer. One that does not wait is not to miss what its client has just published.
    fn pull(
        &self,
        service: &Arc<JetStream>,
        key: &str,
        directory: Arc<Directory>,
        message: &Publish<'_>,
        reply: &[u8],
    ) {
        if service.has_halted() {
            let stream = service.stream(
                self.account.name(),
                key.split('.').next().unwrap_or_default(),
            );
            if stream.is_some_and(|stream| stream.is_halted()) {
                let headers = format!("NATS/1.0 {HALTED}\r\n\r\n");
                let refusal = Publish::new(reply, &[]).with_headers(headers.as_bytes());
                self.account.publish(&refusal);
                return;
            }
        }
        let client = message.origin.client();
        let needs_newer = check_level(message.headers).is_err();
        const NO_WAIT: &[u8] = b"no_wait";
        let body = message.payload;
        if !body
            .windows(NO_WAIT.len())
            .any(|part| part.eq_ignore_ascii_case(NO_WAIT))
        {
            let from = Puller {
                client,
                reply,
                needs_newer,
            };
            directory.pull(key.as_bytes(), &from, body);
            return;
        }
        let name = key.split('.').next().unwrap_or_default();
        let handle = service.stream(self.account.name(), name);
        let (key, reply) = (key.to_owned(), Bytes::copy_from_slice(reply));
        let body = Bytes::copy_from_slice(body);
        let then = move || {
            let from = Puller {
                client,
                reply: &reply,
                needs_newer,
            };
            directory.pull(key.as_bytes(), &from, &body);
        };
        self.after_own_writes(service, handle.as_ref(), message, then);
    }

    /// Does something once the stream has what the client had sent to it before this request: now, as a rule.
    fn after_own_writes(
        &self,
        service: &Arc<JetStream>,
        handle: Option<&Arc<StreamHandle>>,
        message: &Publish<'_>,
        then: impl FnOnce() + Send + 'static,
    ) {
        let last_write = last_write(message);
        let behind = handle.filter(|handle| handle.group().inbox().is_behind(last_write));
        let Some(handle) = behind.cloned() else {
            then();
            return;
        };
        let Some(seat) = Seat::take(&self.behind, message.size()) else {
            self.too_many(service);
            return;
        };
        let waiting = service.lanes.requests.spawn(async move {
            let _seat = seat;
            handle.caught_up_with(last_write).await;
            then();
        });
        // Nobody waits for it: it answers by itself.
        drop(waiting);
    }
}

/// The last message that the client had sent to a stream when it asked.
fn last_write(message: &Publish<'_>) -> WriteNumber {
    let publisher = message.origin.publisher();
    publisher.map_or(WriteNumber::NONE, Publisher::last_write)
}

impl Sink for Api {
    fn deliver(&self, _: &Subscription, message: &Publish<'_>) -> Delivered {
        let Some(service) = self.service.upgrade() else {
            return Delivered::Refused;
        };
        // What a consumer delivers, or an answer, is no request, wherever it is sent.
        if !message.origin.is_outside() {
            return Delivered::Refused;
        }
        let subject = message.route.get(self.prefix.len()..).unwrap_or_default();
        let Ok(subject) = str::from_utf8(subject) else {
            return Delivered::Refused;
        };
        if let Some(rest) = subject.strip_prefix("DIRECT.GET.") {
            let Some(handle) = direct::served(&service, &self.account, rest) else {
                return Delivered::Refused;
            };
            if message.reply.is_some() {
                let read = Read::new(&self.account, rest, message);
                let serves = service.clone();
                let then = move || serves.reads.push(&serves, read);
                self.after_own_writes(&service, Some(&handle), message, then);
            }
            return Delivered::Accepted;
        }
        if let Some(key) = subject.strip_prefix("CONSUMER.MSG.NEXT.") {
            let directory = service.directories().of(&self.account);
            if let (Some(reply), Some(directory)) = (message.reply, directory) {
                self.pull(&service, key, directory, message, reply);
            }
            return Delivered::Accepted;
        }
        self.take(&service, subject, message);
        Delivered::Accepted
    }
}

/// The answer; `None` is silence: nobody knows such a request, or nobody knows the outcome.
async fn answer(service: &Arc<JetStream>, request: &Request) -> Option<Vec<u8>> {
    let tokens = request.tokens();
    match tokens.as_slice() {
        ["INFO"] => Some(account::info(service, request).await),
        ["STREAM", "MSG", verb, name] => message::answer(service, request, verb, name).await,
        ["STREAM", verb @ ("NAMES" | "LIST")] => stream::list(service, request, verb).await,
        ["STREAM", verb, name] => stream::answer(service, request, verb, name).await,
        ["STREAM", first, second, name] => stream::absent(service, request, first, second, name),
        ["CONSUMER", ..] => consumer::api::answer(service, request).await,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_given_up_whatever_ends_the_request() {
        let waiting = Arc::new(Waiting::default());
        let large = Seat::take(&waiting, REQUEST_BYTES_WAITING_MAX * 2);
        assert!(large.is_some(), "one that is larger than all goes alone");
        assert!(Seat::take(&waiting, 1).is_none(), "and others wait for it");
        drop(large);
        let seat = Seat::take(&waiting, 1).expect("room");
        let ended = std::panic::catch_unwind(move || {
            let _seat = seat;
            panic!("as planned by the test");
        });
        assert!(ended.is_err());
        assert_eq!(waiting.count.load(Ordering::Relaxed), 0);
        assert_eq!(waiting.bytes.load(Ordering::Relaxed), 0);
        let most: Vec<_> = (0..REQUESTS_WAITING_MAX)
            .map(|_| Seat::take(&waiting, 0))
            .collect();
        assert!(most.iter().all(Option::is_some));
        assert!(Seat::take(&waiting, 0).is_none());
    }
}
