//! From the subject of a request to who answers it.
//!
//! The API is a subscriber like any other. The thread that brings a request only hands it over: direct reads wait in a queue
//! (`reads`), everything else is a task of its own, since it may wait for the log; both run on threads for requests. Requests
//! beyond [`REQUESTS_WAITING_MAX`] or [`REQUEST_BYTES_WAITING_MAX`] bytes are dropped, as the peer does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::errors::{ApiError, table};
use super::{account, direct, message, stream};
use crate::broker::{Account, Delivered, Publish, Publisher, Sink, Subscription, WriteNumber};
use crate::jetstream::consumer;
use crate::jetstream::consumer::leader::Directory;
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
    /// The subject behind the prefix: `STREAM.INFO.S`.
    pub subject: String,
    /// Where the answer goes.
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

    /// Whether the client needs a newer API than this server's: the refusal if so.
    #[must_use]
    pub fn required_level(&self) -> Option<ApiError> {
        required_level(&self.headers)
    }
}

/// The refusal of a request that needs a newer API than this server's.
pub(super) fn required_level(block: &[u8]) -> Option<ApiError> {
    let (_, level) = headers::pairs(block).find(|(name, _)| *name == b"Nats-Required-Api-Level")?;
    let is_met = level.is_empty() || headers::has_level(level);
    (!is_met).then(|| table::REQUIRED_API_LEVEL.error())
}

/// The API as a subscriber of one account.
pub struct Api {
    account: Arc<Account>,
    service: std::sync::Weak<JetStream>,
    waiting: Arc<Waiting>,
    prefix_len: usize,
}

/// Requests that wait to be answered.
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

impl Api {
    /// The API of `account`, whose requests begin with `prefix_len` bytes of prefix.
    #[must_use]
    pub fn new(account: Arc<Account>, service: &Arc<JetStream>, prefix_len: usize) -> Self {
        Self {
            account,
            service: Arc::downgrade(service),
            waiting: Arc::default(),
            prefix_len,
        }
    }

    fn take(&self, service: &Arc<JetStream>, subject: &str, message: &Publish<'_>, reply: &[u8]) {
        let Some(seat) = Seat::take(&self.waiting, message.size()) else {
            tracing::warn!("JetStream API requests are dropped: too many wait");
            return;
        };
        let request = Request {
            account: self.account.name().into(),
            subject: subject.to_owned(),
            reply: Bytes::copy_from_slice(reply),
            headers: Bytes::copy_from_slice(message.headers),
            payload: Bytes::copy_from_slice(message.payload),
        };
        let last_write = last_write(message);
        let account = self.account.clone();
        let lane = &service.lanes.requests;
        let service = service.clone();
        let answering = lane.spawn(async move {
            let _seat = seat;
            let counted = service.counters().begin();
            if let Some(handle) = request.stream(&service) {
                handle.caught_up_with(last_write).await;
            }
            let answer = answer(&service, &request).await;
            counted.end(answer.as_deref());
            if let Some(answer) = answer {
                account.publish(&Publish::new(&request.reply, &answer));
            }
        });
        // Nobody waits for it: it answers by itself.
        drop(answering);
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
        let client = message.origin.client();
        const NO_WAIT: &[u8] = b"no_wait";
        let body = message.payload;
        if !body
            .windows(NO_WAIT.len())
            .any(|part| part.eq_ignore_ascii_case(NO_WAIT))
        {
            directory.pull(key.as_bytes(), client, reply, body);
            return;
        }
        let name = key.split('.').next().unwrap_or_default();
        let handle = service.stream(self.account.name(), name);
        let (key, reply) = (key.to_owned(), Bytes::copy_from_slice(reply));
        let body = Bytes::copy_from_slice(body);
        let then = move || directory.pull(key.as_bytes(), client, &reply, &body);
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
        let Some(seat) = Seat::take(&self.waiting, message.size()) else {
            tracing::warn!("JetStream API requests are dropped: too many wait");
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
        let subject = message.route.get(self.prefix_len..).unwrap_or_default();
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
            if let (Some(reply), Some(directory)) =
                (message.reply, service.directories().of(&self.account))
            {
                self.pull(&service, key, directory, message, reply);
            }
            return Delivered::Accepted;
        }
        if let Some(reply) = message.reply {
            self.take(&service, subject, message, reply);
        }
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
