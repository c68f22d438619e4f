//! `STREAM.RESTORE`: a stream from a backup, in chunks from the client, straight into the log.
//!
//! ```text
//! request {config, state} -> {deliver_subject}        the name is taken, nobody sees the stream
//! then     chunk on that subject -> empty reply       as soon as the log has room for more
//! at last  empty chunk -> the answer of a create      what went wrong on the way, too
//! ```
//!
//! The steps, each of which may be the last before a crash:
//!
//! 1. meta: the name, its subjects and an id, phase `Restoring`;
//! 2. the group makes the stream, then messages and consumers arrive in its log, then the limits apply;
//! 3. meta: phase `Live`. From here on it is a stream like any other, and the client is told.
//!
//! A start drops what is `Restoring` (the group's stream, then meta's entry), and so does a backup that is refused, or a
//! client that falls silent for [`PATIENCE`]. Nothing is spooled: no bytes of the backup lie outside the log and the store.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::task::Poll;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::poll_fn;
use futures::task::AtomicWaker;
use halyard_backup::import::{Importer, Step};
use halyard_backup::item::{Consumer, Item, Refused, Stated};
use halyard_runtime::task;
use halyard_runtime::time::{self, Duration, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RULES;
use super::advisory::{News, Teller};
use super::consumer::restored;
use super::desk::{Seat, Sign};
use crate::broker::{Account, Delivered, Publish, Sink, Subscription};
use crate::jetstream::api::errors::{ApiError, table};
use crate::jetstream::api::json;
use crate::jetstream::api::request::Request;
use crate::jetstream::api::types::{Created, reply};
use crate::jetstream::change::Change;
use crate::jetstream::config::StreamConfig;
use crate::jetstream::group::Reply;
use crate::jetstream::group::command::Kind;
use crate::jetstream::handle::GroupHandle;
use crate::jetstream::inbox::Waiter;
use crate::jetstream::meta::Assignment;
use crate::jetstream::service::JetStream;
use crate::jetstream::stream::restore as body;

/// How long the client may stay silent.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of messages that one command brings, about.
const COMMAND_BYTES: usize = 1 << 20;
/// Commands on their way through the log: the next is read meanwhile.
const IN_FLIGHT_MAX: usize = 4;
/// Chunks that wait; a client that sends more without waiting for replies is refused.
const WAITING_CHUNKS_MAX: usize = 1024;
/// Bytes that wait; the same.
const WAITING_BYTES_MAX: usize = 32 << 20;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RestoreRequest {
    config: Value,
    state: Value,
}

#[derive(Serialize)]
struct Ready {
    deliver_subject: String,
}

/// Answers the request and starts the restore. `None`: answered.
pub(in crate::jetstream) async fn restore(
    service: &Arc<JetStream>,
    request: &Request,
    name: &str,
) -> Option<Vec<u8>> {
    match prepare(service, request, name).await {
        Ok(Some((session, deliver_subject))) => {
            let ready = Ready { deliver_subject };
            let body = reply("stream_restore", &Ok::<_, ApiError>(ready));
            super::answer(service, request, &session.account, &body);
            session.teller.tell(&News::RestoreCreate);
            // Nobody waits for it: it ends by itself, at the latest when the client falls silent.
            drop(task::spawn(session.run()));
            None
        }
        Ok(None) => None,
        Err(refusal) => Some(reply::<()>("stream_restore", &Err(refusal))),
    }
}

/// `None`: nobody knows whether the name was taken; a start sorts it out.
async fn prepare(
    service: &Arc<JetStream>,
    request: &Request,
    name: &str,
) -> Result<Option<(Session, String)>, ApiError> {
    if json::is_nothing(&request.payload) {
        return Err(table::BAD_REQUEST.error());
    }
    let asked: RestoreRequest = json::parse(&request.payload, service.strict())?;
    let mut config: StreamConfig = json::from_value(asked.config, service.strict())?;
    // The subject is what permissions hang on.
    if config.name.is_empty() {
        name.clone_into(&mut config.name);
    }
    if config.name != name {
        return Err(table::STREAM_MISMATCH.error());
    }
    if service.stream(&request.account, name).is_some() {
        return Err(table::STREAM_NAME_EXIST_RESTORE_FAILED.error());
    }
    let stated = match asked.state {
        Value::Null => None,
        state => Some(json::from_value::<Stated>(state, false)?),
    };
    let seat = service.desk().wait_for_restore().await;
    let mut seat = seat.ok_or_else(|| {
        table::STREAM_RESTORE.with("too many restores run at this time".to_owned())
    })?;
    let assignment = match service
        .begin_restore(&request.account, config, &mut seat)
        .await
    {
        Change::Done(assignment) => assignment,
        Change::Refused(refusal) => return Err(refusal),
        Change::Unknown => return Ok(None),
    };
    let account = service.broker().account_or_create(&request.account);
    let deliver = format!("$JS.SNAPSHOT.RESTORE.{name}.{}", super::random_id());
    let intake = Arc::new(Intake::default());
    service.desk().watch(&intake.sign);
    let subscription = match account.subscribe(deliver.as_bytes(), None, intake.clone()) {
        Ok(subscription) => subscription,
        Err(error) => {
            service.abandon_restore(&request.account, &assignment).await;
            let subject = format!("{deliver}: {error}");
            return Err(table::RESTORE_SUBSCRIBE_FAILED.with(subject));
        }
    };
    tracing::info!("restore of stream {name} of {} begins", request.account);
    let group = service.group(assignment.storage()).clone();
    let session = Session {
        teller: Teller::new(service, request, &account),
        account,
        service: Arc::downgrade(service),
        filling: Filling::new(group, &assignment, stated),
        assignment,
        intake,
        subscription,
        seat: Some(seat),
    };
    Ok(Some((session, deliver)))
}

/// One restore on its way.
struct Session {
    teller: Teller,
    account: Arc<Account>,
    service: Weak<JetStream>,
    assignment: Assignment,
    filling: Filling,
    intake: Arc<Intake>,
    subscription: Arc<Subscription>,
    /// Given back as soon as nothing will come of it.
    seat: Option<Seat>,
}

/// Why a restore goes no further.
enum Stop {
    /// The backup, or this server, refuses: the answer.
    Refused(ApiError),
    /// The server is stopping, or its group has failed.
    Unknown,
}

impl Stop {
    fn refused(why: impl std::fmt::Display) -> Self {
        Self::Refused(table::STREAM_RESTORE.with(why))
    }
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::refused(refused)
    }
}

impl Session {
    async fn run(mut self) {
        let name = self.assignment.config.name.clone();
        let mut failed: Option<ApiError> = None;
        let (start, mut bytes) = (Timestamp::now(), 0);
        let outcome = loop {
            let Ok(chunk) = time::timeout(PATIENCE, self.intake.next()).await else {
                break Err(Stop::refused("the client sends nothing any more"));
            };
            let Chunk { reply, payload } = match chunk {
                Ok(chunk) => chunk,
                Err(why) => break Err(Stop::refused(why)),
            };
            if payload.is_empty() {
                let outcome = match failed.take() {
                    Some(why) => Err(Stop::Refused(why)),
                    None => self.complete().await,
                };
                if matches!(outcome, Err(Stop::Refused(_))) {
                    // Who is told may begin again at once, under the same name.
                    self.abandon().await;
                }
                match self.answer(&reply, outcome) {
                    Ok(()) => break Ok(()),
                    Err(stop) => break Err(stop),
                }
            }
            bytes += payload.len() as u64;
            // Tools read the refusal at the end only; until then what comes is dropped.
            if failed.is_none() {
                match self.filling.take(&payload).await {
                    Ok(()) => {}
                    Err(Stop::Refused(why)) => {
                        self.abandon().await;
                        failed = Some(why);
                    }
                    Err(stop) => break Err(stop),
                }
            }
            self.account.publish(&Publish::new(&reply, &[]));
        };
        self.account.unsubscribe(&self.subscription);
        match outcome {
            Ok(()) => {
                tracing::info!("restore of stream {name} is complete");
                self.teller.tell(&News::RestoreComplete(start, bytes));
            }
            Err(Stop::Refused(why)) => {
                tracing::warn!("restore of stream {name}: {}", why.description);
                self.abandon().await;
            }
            // The next start sorts it out.
            Err(Stop::Unknown) => {
                tracing::warn!("restore of stream {name}: the server is stopping")
            }
        }
    }

    /// Everything is there: makes the stream visible.
    async fn complete(&mut self) -> Result<Created, Stop> {
        self.filling.finish().await?;
        let service = self.service.upgrade().ok_or(Stop::Unknown)?;
        let account = self.account.name().to_owned();
        let seat = self.seat.as_mut().ok_or(Stop::Unknown)?;
        let finished = service.finish_restore(&account, &self.assignment, seat);
        match finished.await {
            Change::Done(handle) => {
                let info = service.stream_info(&handle).map_err(|_| Stop::Unknown)?;
                Ok(Created {
                    info,
                    did_create: true,
                })
            }
            Change::Refused(refusal) => Err(Stop::refused(refusal.description)),
            Change::Unknown => Err(Stop::Unknown),
        }
    }

    /// Tells the client; what stopped it otherwise.
    fn answer(&self, to: &[u8], outcome: Result<Created, Stop>) -> Result<(), Stop> {
        let body = match &outcome {
            Ok(created) => reply("stream_create", &Ok::<_, ApiError>(created)),
            Err(Stop::Refused(why)) => reply::<()>("stream_create", &Err(why.clone())),
            Err(Stop::Unknown) => Vec::new(),
        };
        if !body.is_empty() {
            self.account.publish(&Publish::new(to, &body));
        }
        outcome.map(|_| ())
    }

    /// Leaves nothing behind. A second time finds nothing.
    async fn abandon(&mut self) {
        self.filling.in_flight.clear();
        if let Some(service) = self.service.upgrade() {
            let account = self.account.name().to_owned();
            service.abandon_restore(&account, &self.assignment).await;
        }
        self.seat = None;
    }
}

/// From the bytes of a backup to commands in the log.
struct Filling {
    group: Arc<GroupHandle>,
    assignment: Assignment,
    importer: Importer,
    messages: Vec<u8>,
    deleted: Vec<u64>,
    /// They come after the messages, whose sequences they name.
    consumers: Vec<Consumer>,
    in_flight: VecDeque<oneshot::Receiver<Reply>>,
}

impl Filling {
    fn new(group: Arc<GroupHandle>, assignment: &Assignment, stated: Option<Stated>) -> Self {
        let mut messages = Vec::new();
        body::start_messages(&mut messages);
        Self {
            group,
            assignment: assignment.clone(),
            importer: Importer::new(RULES, stated),
            messages,
            deleted: Vec::new(),
            consumers: Vec::new(),
            in_flight: VecDeque::new(),
        }
    }

    /// Takes the next bytes.
    async fn take(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.importer.push(bytes);
        loop {
            match self.importer.step()? {
                Step::More => return Ok(()),
                Step::Again => task::yield_now().await,
                Step::Item(Item::Stated(_)) => {}
                Step::Item(Item::Consumer(consumer)) => self.consumers.push(*consumer),
                Step::Item(Item::Deleted(seq)) => self.deleted.push(seq),
                Step::Item(Item::Message(message)) => {
                    let too_long = |_| Stop::refused("a message is too long");
                    let message = body::Message {
                        seq: message.seq,
                        time: Timestamp::from_nanos(message.time),
                        subject_len: u16::try_from(message.subject_len).map_err(too_long)?,
                        headers_len: u32::try_from(message.headers_len).map_err(too_long)?,
                        record: &message.record,
                    };
                    body::put_message(&mut self.messages, &message);
                }
            }
            if self.messages.len() >= COMMAND_BYTES || self.deleted.len() * 8 >= COMMAND_BYTES {
                self.submit_pending().await?;
            }
        }
    }

    /// The last bytes have come.
    async fn finish(&mut self) -> Result<(), Stop> {
        let stated = self.importer.finish()?;
        self.submit_pending().await?;
        for consumer in std::mem::take(&mut self.consumers) {
            let config = &self.assignment.config;
            let restored = restored(consumer, config, stated.last_seq, Timestamp::now())?;
            self.submit(&body::consumer(&restored)).await?;
        }
        let finish = body::finish(stated.last_seq, stated.messages);
        self.submit(&finish).await?;
        while let Some(first) = self.in_flight.pop_front() {
            answered(first).await?;
        }
        Ok(())
    }

    /// Proposes what has gathered: messages first, since what is deleted was among them or those before.
    async fn submit_pending(&mut self) -> Result<(), Stop> {
        let mut messages = std::mem::take(&mut self.messages);
        if messages.len() > 1 {
            self.submit(&messages).await?;
        }
        body::start_messages(&mut messages);
        self.messages = messages;
        let deleted = std::mem::take(&mut self.deleted);
        if !deleted.is_empty() {
            self.submit(&body::deleted(&deleted)).await?;
        }
        Ok(())
    }

    async fn submit(&mut self, body: &[u8]) -> Result<(), Stop> {
        if self.in_flight.len() >= IN_FLIGHT_MAX
            && let Some(first) = self.in_flight.pop_front()
        {
            answered(first).await?;
        }
        let (sender, receiver) = oneshot::channel();
        let id = self.assignment.stream_id();
        self.group
            .submit(Kind::Restore, id, body, Waiter::Call(sender));
        self.in_flight.push_back(receiver);
        Ok(())
    }
}

async fn answered(reply: oneshot::Receiver<Reply>) -> Result<(), Stop> {
    match reply.await {
        Ok(Reply::Done) => Ok(()),
        Ok(Reply::Refused(refusal)) => Err(Stop::Refused(*refusal)),
        _ => Err(Stop::Unknown),
    }
}

/// One chunk from the client.
struct Chunk {
    reply: Bytes,
    payload: Bytes,
}

/// Chunks that wait for their turn. A client waits for replies, so there are few.
#[derive(Default)]
struct Intake {
    sign: Arc<Sign>,
    waiting: Mutex<Waiting>,
    task: AtomicWaker,
}

#[derive(Default)]
struct Waiting {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    overflowed: bool,
}

impl Intake {
    /// The next chunk, or why there will be none.
    async fn next(&self) -> Result<Chunk, &'static str> {
        poll_fn(|cx| {
            self.task.register(cx.waker());
            let mut waiting = self.waiting.lock();
            // Too many came at once, and some are lost.
            if waiting.overflowed {
                return Poll::Ready(Err("more was sent than was asked for"));
            }
            if self.sign.is_gone(cx.waker()) {
                return Poll::Ready(Err("the client was silent while others waited"));
            }
            match waiting.chunks.pop_front() {
                Some(chunk) => {
                    waiting.bytes -= chunk.payload.len();
                    Poll::Ready(Ok(chunk))
                }
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl Sink for Intake {
    fn deliver(&self, _: &Subscription, message: &Publish<'_>) -> Delivered {
        if !message.origin.is_outside() {
            return Delivered::Refused;
        }
        self.sign.hear();
        let mut waiting = self.waiting.lock();
        let full = waiting.chunks.len() >= WAITING_CHUNKS_MAX
            || waiting.bytes + message.payload.len() > WAITING_BYTES_MAX;
        if full {
            waiting.overflowed = true;
        } else {
            waiting.bytes += message.payload.len();
            waiting.chunks.push_back(Chunk {
                reply: Bytes::copy_from_slice(message.reply.unwrap_or_default()),
                payload: Bytes::copy_from_slice(message.payload),
            });
        }
        drop(waiting);
        self.task.wake();
        Delivered::Accepted
    }
}
