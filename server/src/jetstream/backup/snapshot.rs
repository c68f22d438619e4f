//! `STREAM.SNAPSHOT`: a stream and its consumers as they are at one applied index, in chunks to a subject of the client.
//!
//! ```text
//! request {deliver_subject, chunk_size, window_size, no_consumers, jsck} -> {config, state}
//!          (the first chunk waits until the client has subscribed)
//! then     chunk, its reply subject $JS.SNAPSHOT.ACK.<stream>.<id>.<bytes>.<number>    as far as the window is open
//!          an ack on that subject opens the window by its bytes
//! at last  an empty message with a status: 204; 408 No Interest; 408 No Flow Response; 500 and why
//! ```
//!
//! A last chunk that is not full has no reply subject; when it is the only one, the empty message has no status either, as
//! the peer's.
//!
//! The stream goes on meanwhile: what is sent comes from a view of it, read and compressed on a thread for blocking
//! work, a piece at a time. Memory is the view (a reference for each message that no segment holds yet) and what the
//! window lets stand in the client's connection. A client that does not answer for [`PATIENCE`] is given up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use futures::future::poll_fn;
use futures::task::AtomicWaker;
use halyard_backup::archive;
use halyard_backup::consumer::State;
use halyard_backup::s2::Encoder;
use halyard_engine::{Error, StreamId, StreamView};
use halyard_runtime::task;
use halyard_runtime::time::{self, Duration, Instant, Timestamp};
use serde::{Deserialize, Serialize};
use std::task::Poll;

use super::advisory::{News, Teller};
use super::consumer::state_of;
use super::desk::Seat;
use crate::broker::{Account, Delivered, Publish, Sink, Subscription, subject};
use crate::jetstream::api::errors::{ApiError, table};
use crate::jetstream::api::json;
use crate::jetstream::api::request::Request;
use crate::jetstream::api::types::{self, reply};
use crate::jetstream::config::StreamConfig;
use crate::jetstream::consumer::ConsumerConfig;
use crate::jetstream::group::Machine;
use crate::jetstream::handle::{GroupHandle, StreamHandle};
use crate::jetstream::service::JetStream;

/// How long the first chunk waits for a subscription to exactly its subject. Tools subscribe when they have the answer,
/// and what would match it before (an inbox with a wildcard) is not where they want it.
const SUBSCRIBES_WITHIN: Duration = Duration::from_secs(2);
/// How often that is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// How long the client may stay silent with the window closed.
const PATIENCE: Duration = Duration::from_secs(5);
const CHUNK_BYTES: usize = 128 << 10;
const CHUNK_BYTES_MIN: usize = 1 << 10;
const CHUNK_BYTES_MAX: usize = 1 << 20;
const WINDOW_BYTES: usize = 8 << 20;
const WINDOW_BYTES_MIN: usize = 1 << 20;
const WINDOW_BYTES_MAX: usize = 32 << 20;
/// Compressed bytes that one piece of work makes, about.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes of messages that one piece of work reads at most, but for one message.
const PIECE_READ_BYTES: usize = 8 << 20;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SnapshotRequest {
    deliver_subject: String,
    no_consumers: bool,
    chunk_size: i64,
    window_size: i64,
    jsck: bool,
}

/// The answer before the first chunk.
#[derive(Serialize)]
struct Prepared {
    config: StreamConfig,
    state: types::State,
}

/// Answers the request and starts the backup. `None`: answered.
pub(in crate::jetstream) async fn snapshot(
    service: &Arc<JetStream>,
    request: &Request,
    name: &str,
) -> Option<Vec<u8>> {
    match prepare(service, request, name).await {
        Ok((answer, backup)) => {
            let body = reply("stream_snapshot", &Ok::<_, ApiError>(answer));
            super::answer(service, request, &backup.account, &body);
            backup.tell_of_start();
            // Nobody waits for it: it ends by itself, at the latest when the client falls silent.
            drop(task::spawn(backup.run()));
            None
        }
        Err(refusal) => Some(reply::<()>("stream_snapshot", &Err(refusal))),
    }
}

async fn prepare(
    service: &Arc<JetStream>,
    request: &Request,
    name: &str,
) -> Result<(Prepared, Backup), ApiError> {
    if json::is_nothing(&request.payload) {
        return Err(table::BAD_REQUEST.error());
    }
    let handle = service
        .stream(&request.account, name)
        .ok_or_else(|| table::STREAM_NOT_FOUND.error())?;
    let asked: SnapshotRequest = json::parse(&request.payload, service.strict())?;
    if !subject::is_valid_literal(asked.deliver_subject.as_bytes()) {
        return Err(table::SNAPSHOT_DELIVER_SUBJECT_INVALID.error());
    }
    let refuse = |error: String| table::STREAM_SNAPSHOT.with(error);
    let seat = service
        .desk()
        .snapshot()
        .ok_or_else(|| refuse("too many backups run at this time".to_owned()))?;
    // What was acknowledged before the request is part of it.
    handle.group().inbox().caught_up(Some(handle.id())).await;
    let taken = take(&handle, asked.no_consumers);
    let absent = || match handle.lacks() {
        Some(fault) => handle.unreadable(&fault),
        None => table::STREAM_NOT_FOUND.error(),
    };
    let taken = taken.ok_or_else(absent)?;
    let (config, created, view, consumers) = taken.map_err(|error| refuse(error.to_string()))?;
    let mut view = Box::new(view);
    if asked.jsck {
        let held = handle.clone();
        let work = task::spawn_blocking(move || {
            let outcome = check(&view, &held);
            (view, outcome)
        });
        let (checked, outcome) = work.await.map_err(|error| refuse(error.to_string()))?;
        outcome.map_err(refuse)?;
        view = checked;
    }
    let state = types::State::new(view.state(), consumers.len());
    tracing::info!(
        "backup of stream {name} of {}: {} messages up to {}, made {}",
        request.account,
        state.messages,
        state.last_seq,
        crate::jetstream::api::timestamp::format(created),
    );
    let size = |asked: i64, or: usize, min: usize, max: usize| match usize::try_from(asked) {
        Ok(asked) if asked > 0 => asked.clamp(min, max),
        _ => or,
    };
    let id = super::random_id();
    let chunk_bytes = size(
        asked.chunk_size,
        CHUNK_BYTES,
        CHUNK_BYTES_MIN,
        CHUNK_BYTES_MAX,
    );
    let backup = Backup {
        teller: Teller::new(service, request, handle.account()),
        account: handle.account().clone(),
        group: Arc::downgrade(handle.group()),
        stream: handle.id(),
        name: name.to_owned(),
        deliver: asked.deliver_subject.into_bytes(),
        acks: format!("$JS.SNAPSHOT.ACK.{name}.{id}"),
        chunk_bytes,
        window_bytes: size(
            asked.window_size,
            WINDOW_BYTES,
            WINDOW_BYTES_MIN,
            WINDOW_BYTES_MAX,
        ),
        writer: Writer::new(Some(view), state.clone(), consumers),
        _seat: seat,
    };
    Ok((Prepared { config, state }, backup))
}

/// A consumer's configuration and how far it got.
pub(super) type Seen = (ConsumerConfig, State);
type Taken = (StreamConfig, Timestamp, StreamView, Vec<Seen>);

/// Everything at one applied index. `None`: the stream has gone.
fn take(handle: &StreamHandle, no_consumers: bool) -> Option<Result<Taken, Error>> {
    handle.group().write(|machine| {
        let now = machine.time();
        let stream = machine.stream(handle.id())?;
        let (config, created) = (stream.config().clone(), stream.created());
        let consumers = if no_consumers {
            Vec::new()
        } else {
            let all = stream.consumers().iter();
            all.map(|one| (one.config().clone(), state_of(one, now)))
                .collect()
        };
        let view = machine.store_mut().view(handle.id());
        Some(view.map(|view| (config, created, view, consumers)))
    })
}

/// Reads everything once: every checksum on the way is verified. What was erased under the view is no damage.
fn check(view: &StreamView, handle: &StreamHandle) -> Result<(), String> {
    let mut next = view.first_at_or_after(0);
    while let Some(seq) = next {
        if let Err(error) = view.get(seq) {
            let again = |machine: &Machine| machine.store().get(handle.id(), seq);
            let again = handle.group().read(again);
            again.map_err(|_| format!("message {seq} is damaged: {error}"))?;
        }
        next = view.first_at_or_after(seq + 1);
    }
    Ok(())
}

/// One backup on its way.
struct Backup {
    teller: Teller,
    account: Arc<Account>,
    group: Weak<GroupHandle>,
    stream: StreamId,
    name: String,
    deliver: Vec<u8>,
    /// What the subjects of acks begin with.
    acks: String,
    chunk_bytes: usize,
    window_bytes: usize,
    writer: Writer,
    _seat: Seat,
}

/// How a backup ends: what stands in the status line.
enum End {
    Complete,
    NoInterest,
    NoFlow,
    Failed(String),
}

impl Backup {
    fn tell_of_start(&self) {
        if let Some(state) = &self.writer.state {
            self.teller.tell(&News::SnapshotCreate(state));
        }
    }

    async fn run(mut self) {
        let start = self.writer.time();
        let acks = Arc::new(Acks::default());
        let filter = format!("{}.*.*", self.acks);
        let subscription = match self
            .account
            .subscribe(filter.as_bytes(), None, acks.clone())
        {
            Ok(subscription) => subscription,
            Err(error) => {
                tracing::error!("backup of stream {}: {filter}: {error}", self.name);
                return;
            }
        };
        let (end, is_short) = match self.send_all(&acks).await {
            Ok(is_short) => (End::Complete, is_short),
            Err(end) => (end, false),
        };
        self.account.unsubscribe(&subscription);
        let status = match &end {
            End::Complete => "204".to_owned(),
            End::NoInterest => "408 No Interest".to_owned(),
            End::NoFlow => "408 No Flow Response".to_owned(),
            End::Failed(why) => format!("500 {}", why.replace(['\r', '\n'], " ")),
        };
        if matches!(end, End::Complete) {
            tracing::info!("backup of stream {} is complete", self.name);
            self.teller.tell(&News::SnapshotComplete(start));
        } else {
            tracing::warn!("backup of stream {} ended early: {status}", self.name);
        }
        let headers = format!("NATS/1.0 {status}\r\n\r\n");
        let headers = if is_short { &[] } else { headers.as_bytes() };
        let last = Publish::new(&self.deliver, &[]).with_headers(headers);
        self.account.publish(&last);
    }

    /// Whether all went into one chunk that is not full.
    async fn send_all(&mut self, acks: &Acks) -> Result<bool, End> {
        wait_for_subscriber(self.account.clone(), self.deliver.clone()).await?;
        let (mut waiting, mut sent, mut number) = (Vec::new(), 0_u64, 0_u64);
        loop {
            let more = self.fill(&mut waiting).await?;
            let mut rest = waiting.as_slice();
            while rest.len() >= self.chunk_bytes || (!more && !rest.is_empty()) {
                let (chunk, later) = rest.split_at(self.chunk_bytes.min(rest.len()));
                rest = later;
                acks.wait(sent + chunk.len() as u64, self.window_bytes as u64)
                    .await?;
                sent += chunk.len() as u64;
                let mut ack = None;
                if chunk.len() == self.chunk_bytes {
                    number += 1;
                    ack = Some(format!("{}.{}.{number}", self.acks, chunk.len()));
                }
                let reply = ack.as_ref().map(String::as_bytes);
                let message = Publish::new(&self.deliver, chunk).with_reply(reply);
                if self.account.publish(&message).delivered == 0 {
                    return Err(End::NoInterest);
                }
            }
            let done = waiting.len() - rest.len();
            waiting.drain(..done);
            if !more {
                return Ok(number == 0);
            }
        }
    }

    /// Appends the next compressed bytes to `waiting`; whether there are more.
    async fn fill(&mut self, waiting: &mut Vec<u8>) -> Result<bool, End> {
        let mut out = std::mem::take(waiting);
        loop {
            let mut writer = std::mem::take(&mut self.writer);
            let worked = task::spawn_blocking(move || {
                let outcome = writer.fill(&mut out);
                (writer, out, outcome)
            });
            let Ok((writer, filled, outcome)) = worked.await else {
                return Err(End::Failed("the server is stopping".to_owned()));
            };
            (self.writer, out) = (writer, filled);
            match outcome {
                Ok(more) => {
                    *waiting = out;
                    return Ok(more);
                }
                Err((seq, error)) => self.reread(seq, &error, &mut out)?,
            }
        }
    }

    /// What was erased under the view may still live in the stream: with the same bytes, since messages never change.
    fn reread(&mut self, seq: u64, error: &Error, out: &mut Vec<u8>) -> Result<(), End> {
        let found = self
            .group
            .upgrade()
            .map(|group| group.read(|machine| machine.store().get(self.stream, seq)));
        match found {
            Some(Ok(Some(message))) => {
                self.writer.put(&message, out);
                Ok(())
            }
            Some(Ok(None)) => Err(End::Failed(format!(
                "message {seq} was erased while the backup ran; start it again"
            ))),
            Some(Err(_)) | None => Err(End::Failed(format!("message {seq}: {error}"))),
        }
    }
}

/// Until somebody subscribes to exactly `deliver`, or for as long as that may take.
async fn wait_for_subscriber(account: Arc<Account>, deliver: Vec<u8>) -> Result<(), End> {
    let started = Instant::now();
    let is_there = || {
        let matching = account.matching(&deliver);
        matching.iter().any(|one| one.filter() == deliver)
    };
    while !is_there() {
        if started.elapsed() >= SUBSCRIBES_WITHIN {
            let somebody = account.interest(&deliver);
            return somebody.then_some(()).ok_or(End::NoInterest);
        }
        time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// Turns a view into compressed bytes, a piece at a time.
#[derive(Default)]
pub(super) struct Writer {
    view: Option<Box<StreamView>>,
    state: Option<types::State>,
    consumers: VecDeque<Seen>,
    encoder: Option<Encoder>,
    next: u64,
    scratch: Vec<u8>,
    time: Option<Timestamp>,
    messages: u64,
    is_done: bool,
}

impl Writer {
    /// Without a view there are no messages.
    pub(super) fn new(
        view: Option<Box<StreamView>>,
        state: types::State,
        consumers: Vec<Seen>,
    ) -> Self {
        Self {
            view,
            state: Some(state),
            consumers: consumers.into(),
            time: Some(Timestamp::now()),
            ..Self::default()
        }
    }

    /// Appends about [`PIECE_BYTES`]; whether there are more.
    ///
    /// # Errors
    /// The message of that sequence cannot be read.
    pub(super) fn fill(&mut self, out: &mut Vec<u8>) -> Result<bool, (u64, Error)> {
        let end = out.len() + PIECE_BYTES;
        let mut read = 0;
        if let Some(state) = self.state.take() {
            self.encoder = Some(Encoder::new(out));
            let time = self.time().as_nanos();
            archive::put_start(&mut self.scratch, &state, time);
            self.flush(out);
        }
        while let Some((config, state)) = self.consumers.pop_front() {
            let time = self.time().as_nanos();
            archive::put_consumer(&mut self.scratch, &config.name, &config, &state, time);
            self.flush(out);
            if out.len() >= end {
                return Ok(true);
            }
        }
        while let Some(view) = &self.view
            && let Some(seq) = view.first_at_or_after(self.next)
        {
            if out.len() >= end || read >= PIECE_READ_BYTES {
                return Ok(true);
            }
            // A sequence that the view lists holds a message.
            if let Some(message) = view.get(seq).map_err(|error| (seq, error))? {
                read += message.record.len();
                self.put(&message, out);
            }
            self.next = seq + 1;
        }
        self.view = None;
        if std::mem::replace(&mut self.is_done, true) {
            return Ok(false);
        }
        archive::put_end(&mut self.scratch);
        self.flush(out);
        if let Some(encoder) = &mut self.encoder {
            encoder.flush(out);
        }
        Ok(false)
    }

    /// Appends one message and goes on behind it.
    fn put(&mut self, message: &halyard_engine::Message, out: &mut Vec<u8>) {
        let parts = [message.subject(), message.headers(), message.payload()];
        archive::put_message(
            &mut self.scratch,
            message.seq,
            message.time.as_nanos(),
            parts,
        );
        self.flush(out);
        self.next = message.seq + 1;
        self.messages += 1;
    }

    /// Goes on behind a message that cannot be read.
    pub(super) const fn skip(&mut self, seq: u64) {
        self.next = seq + 1;
    }

    /// Messages that were written so far.
    pub(super) const fn messages(&self) -> u64 {
        self.messages
    }

    fn time(&self) -> Timestamp {
        self.time.unwrap_or(Timestamp::EPOCH)
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        if let Some(encoder) = &mut self.encoder {
            encoder.push(&self.scratch, out);
        }
        self.scratch.clear();
    }
}

/// Counts what the client has acknowledged.
#[derive(Default)]
struct Acks {
    bytes: AtomicU64,
    task: AtomicWaker,
}

impl Acks {
    /// Waits until `total` bytes may have been sent with so wide a window.
    async fn wait(&self, total: u64, window: u64) -> Result<(), End> {
        loop {
            let before = self.bytes.load(Ordering::Acquire);
            // A chunk that is larger than the window goes alone.
            if total.saturating_sub(before) <= window {
                return Ok(());
            }
            let change = poll_fn(|cx| {
                self.task.register(cx.waker());
                match self.bytes.load(Ordering::Acquire) == before {
                    true => Poll::Pending,
                    false => Poll::Ready(()),
                }
            });
            if time::timeout(PATIENCE, change).await.is_err() {
                return Err(End::NoFlow);
            }
        }
    }
}

impl Sink for Acks {
    /// The subject ends with the chunk's bytes and number; that of the number was sent.
    fn deliver(&self, _: &Subscription, message: &Publish<'_>) -> Delivered {
        if !message.origin.is_outside() {
            return Delivered::Refused;
        }
        let mut tokens = message.route.rsplit(|byte| *byte == b'.');
        let bytes = tokens.nth(1).and_then(|token| str::from_utf8(token).ok());
        let bytes = bytes.and_then(|bytes| bytes.parse::<u64>().ok());
        let bytes = bytes.unwrap_or(0).min(CHUNK_BYTES_MAX as u64);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.task.wake();
        Delivered::Accepted
    }
}
