//! Publishers: one at a time or a window at a time, with and without message ids.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use halyard_net::proto::headers;
use halyard_runtime::time::Instant;
use halyard_runtime::{event, random};
use serde_json::Value;

use super::{Stage, pause, percent};
use crate::client::{Answer, Client};
use crate::history::{Outcome, Publish};
use crate::js::{self, Failure};
use crate::options::{Mode, PublisherPlan, StreamKind};
use crate::random::filler;

/// How long a publisher waits for an acknowledgement.
const PATIENCE: Duration = Duration::from_secs(3);

/// Publishes until its plan or the run ends; what has a message id is sent until it is answered.
pub(crate) async fn run(stage: Arc<Stage>, plan: PublisherPlan, publisher: usize) {
    let mut sent = 0;
    // Numbers of publishes that have an id and no answer.
    let mut unanswered: Vec<usize> = Vec::new();
    // Numbers of publishes that have an id and were sent before.
    let mut earlier: Vec<usize> = Vec::new();
    let mut client = stage.connect().await;
    loop {
        if client.is_closed() {
            client = stage.connect().await;
        }
        let window = match plan.mode {
            Mode::Synchronous => 1,
            Mode::Pipelined(window) => window,
        };
        let mut batch = std::mem::take(&mut unanswered);
        while batch.len() < window && sent < plan.messages_max && !stage.is_stopped() {
            sent += 1;
            batch.push(invent(&stage, &plan, publisher, client.number));
        }
        if batch.is_empty() {
            return;
        }
        if plan.msg_ids {
            let old = usize::try_from(random::below(earlier.len().max(1) as u64)).unwrap_or(0);
            earlier.extend_from_slice(&batch);
            // A client that has forgotten what it sent sends it again, much later.
            let repeats = percent(10) && earlier.get(old).is_some_and(|old| !batch.contains(old));
            batch.extend(earlier.get(old).filter(|_| repeats));
        }
        let waiting: Vec<(usize, Answer)> = batch
            .into_iter()
            .map(|number| (number, send(&stage, &client, number)))
            .collect();
        let deadline = Instant::now() + PATIENCE;
        let mut silent = false;
        for (number, answer) in waiting {
            settle(&stage, number, answer, deadline - Instant::now()).await;
            let history = stage.history.lock();
            let publish = history.publishes.get(number);
            if let Some(publish) = publish.filter(|publish| publish.outcome == Outcome::Unknown) {
                silent = true;
                unanswered.extend(publish.msg_id.is_some().then_some(number));
            }
        }
        if silent && percent(50) {
            // As a client would whose pings are not answered: the connection may be half-open.
            client = stage.connect().await;
        }
        pause(plan.pause).await;
    }
}

/// Every part of a message that must vanish with it holds one of these, followed by the part and the number.
pub(crate) const CANARY: &str = "canary-";
/// Bytes that follow it.
pub(crate) const CANARY_MORE: usize = 9;

/// The payload.
pub(crate) const PAYLOAD: char = 'p';
/// A header.
pub(crate) const HEADER: char = 'h';
/// The message id.
pub(crate) const ID: char = 'i';
/// The subject, where it is the message's own.
pub(crate) const SUBJECT: char = 's';
/// The payload of a message in a stream that comes and goes; numbered by themselves.
pub(crate) const PASSING: char = 't';

pub(crate) fn canary(part: char, number: u64) -> String {
    format!("{CANARY}{part}{number:08}")
}

/// Makes up the next message and writes it down.
fn invent(stage: &Stage, plan: &PublisherPlan, publisher: usize, connection: u64) -> usize {
    let len = usize::try_from(random::below(plan.payload_max + 1)).unwrap_or(0);
    let subject_number = random::below(4);
    let mut history = stage.history.lock();
    let number = history.publishes.len();
    let invoked = history.tick();
    let mut payload = format!("{number}|{}", canary(PAYLOAD, number as u64)).into_bytes();
    payload.extend_from_slice(&filler(number as u64, len));
    let msg_id = plan
        .msg_ids
        .then(|| format!("id-{}", canary(ID, number as u64)));
    let planned = stage.options.streams.get(plan.stream);
    let name = planned.map_or("", |stream| &stream.name);
    let is_purged = planned.is_some_and(|stream| stream.kind == StreamKind::Purged);
    let mut subject = format!("{name}.{publisher}.{subject_number}");
    if is_purged && number.is_multiple_of(4) {
        // A subject of its own, whose neighbours in the alphabet share only its first letters.
        let mixed = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        subject = format!("{subject}.{mixed:06x}{}", canary(SUBJECT, number as u64));
    }
    history.publishes.push(Publish {
        stream: plan.stream,
        subject,
        headers: header_block(number, msg_id.as_deref()),
        msg_id,
        payload: payload.into(),
        connection,
        invoked,
        attempts: 0,
        outcome: Outcome::Unknown,
        seq: 0,
        duplicate: false,
    });
    number
}

/// Some messages have headers of their own; those with an id always have one.
fn header_block(number: usize, msg_id: Option<&str>) -> Bytes {
    let mut lines: Vec<(&[u8], String)> = Vec::new();
    if let Some(id) = msg_id {
        lines.push((b"Nats-Msg-Id", id.to_owned()));
    }
    if number.is_multiple_of(3) {
        lines.push((b"Weather", canary(HEADER, number as u64)));
    }
    if lines.is_empty() {
        return Bytes::new();
    }
    let block = lines
        .iter()
        .try_fold(headers::Builder::new(), |block, (name, value)| {
            block.header(name, value.as_bytes())
        });
    block.map(|block| block.finish().into()).unwrap_or_default()
}

fn send(stage: &Stage, client: &Client, number: usize) -> Answer {
    let mut history = stage.history.lock();
    let publish = history
        .publishes
        .get_mut(number)
        .expect("it was written down");
    publish.attempts += 1;
    let (subject, headers, payload) = (
        publish.subject.clone(),
        publish.headers.clone(),
        publish.payload.clone(),
    );
    drop(history);
    client.ask(&subject, &headers, &payload)
}

/// Waits for the answer and writes it down.
async fn settle(stage: &Stage, number: usize, answer: Answer, patience: Duration) {
    let result = match answer.within(patience).await {
        Ok(delivery) => js::result(&delivery),
        Err(unknown) => Err(unknown.into()),
    };
    let mut history = stage.history.lock();
    let order = history.tick();
    let publish = history
        .publishes
        .get_mut(number)
        .expect("it was written down");
    match result {
        Ok(ack) => {
            let seq = ack.get("seq").and_then(Value::as_u64).unwrap_or(0);
            let duplicate = ack
                .get("duplicate")
                .and_then(Value::as_bool)
                .unwrap_or(false);
            event!("publish {number} is {seq} {duplicate}");
            if !matches!(publish.outcome, Outcome::Done { .. }) {
                publish.outcome = Outcome::Done { order };
                (publish.seq, publish.duplicate) = (seq, duplicate);
            } else if seq != publish.seq || !duplicate {
                let first = publish.seq;
                let text = format!(
                    "publish {number} was stored as {first}, sent again it is {seq} (duplicate: {duplicate})"
                );
                history.contradictions.push(text);
            }
        }
        Err(Failure::Unknown) => event!("publish {number} is unknown"),
        Err(Failure::Refused(code, text)) => {
            event!("publish {number} is refused: {code} {text}");
            if matches!(publish.outcome, Outcome::Done { .. }) {
                return;
            }
            publish.outcome = Outcome::Refused(format!("{code} {text}"));
        }
    }
}
