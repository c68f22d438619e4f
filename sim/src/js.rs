//! The JetStream API over a raw client.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use halyard_server::jetstream::api::timestamp;
use serde_json::{Value, json};

use crate::client::{Client, Delivery, Unknown};
use crate::options::{ConsumerPlan, MortalPlan, StreamKind, StreamPlan};

/// How long an API request may take.
pub(crate) const API_PATIENCE: Duration = Duration::from_secs(5);

/// How long message ids are remembered: longer than any run.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(3600);

/// Why an API request has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody knows what became of it.
    Unknown,
    /// The server refused it: `err_code` and text.
    Refused(u64, String),
}

impl From<Unknown> for Failure {
    fn from(_: Unknown) -> Self {
        Self::Unknown
    }
}

/// JetStream's "stream not found".
pub(crate) const STREAM_NOT_FOUND: u64 = 10059;
/// JetStream's "no message found".
pub(crate) const NO_MESSAGE: u64 = 10037;

/// Sends a request to `$JS.API.` + `what`.
pub(crate) async fn api(client: &Client, what: &str, body: &Value) -> Result<Value, Failure> {
    let payload = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let subject = format!("$JS.API.{what}");
    let answer = client
        .request(&subject, b"", &payload, API_PATIENCE)
        .await?;
    result(&answer)
}

/// Reads an answer: a status without content (503) leaves the outcome unknown, an `error` is a refusal.
pub(crate) fn result(answer: &Delivery) -> Result<Value, Failure> {
    if answer.status().is_some() {
        return Err(Failure::Unknown);
    }
    let Ok(value) = serde_json::from_slice::<Value>(&answer.payload) else {
        let text = String::from_utf8_lossy(&answer.payload).into_owned();
        return Err(Failure::Refused(0, format!("not JSON: {text}")));
    };
    match value.get("error") {
        None => Ok(value),
        Some(error) => {
            let code = error.get("err_code").and_then(Value::as_u64).unwrap_or(0);
            let text = error
                .get("description")
                .and_then(Value::as_str)
                .unwrap_or("");
            // Unavailable, without quorum, shutting down: the server promises nothing.
            let status = error.get("code").and_then(Value::as_u64).unwrap_or(0);
            if status == 503 {
                Err(Failure::Unknown)
            } else {
                Err(Failure::Refused(code, text.to_owned()))
            }
        }
    }
}

/// The configuration of a planned stream.
pub(crate) fn stream_config(plan: &StreamPlan) -> Value {
    let mut config = json!({
        "name": plan.name,
        "subjects": [format!("{}.>", plan.name)],
        "storage": "file",
        "num_replicas": 1,
        "retention": "limits",
        "duplicate_window": nanos(DUPLICATE_WINDOW),
    });
    match plan.kind {
        StreamKind::Limited(messages) => config["max_msgs"] = messages.into(),
        StreamKind::WorkQueue => config["retention"] = "workqueue".into(),
        StreamKind::Plain | StreamKind::Purged => {}
    }
    config
}

pub(crate) async fn create_mortal(client: &Client, plan: &MortalPlan) -> Result<Value, Failure> {
    let config = json!({
        "name": plan.name,
        "subjects": [format!("{}.>", plan.name)],
        "storage": "file",
        "max_age": nanos(plan.max_age),
        "max_msgs_per_subject": if plan.one_per_subject { 1 } else { -1 },
        "allow_msg_ttl": true,
        "subject_delete_marker_ttl": nanos(plan.marker),
    });
    api(client, &format!("STREAM.CREATE.{}", plan.name), &config).await
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) async fn create_stream(client: &Client, plan: &StreamPlan) -> Result<Value, Failure> {
    api(
        client,
        &format!("STREAM.CREATE.{}", plan.name),
        &stream_config(plan),
    )
    .await
}

pub(crate) async fn delete_stream(client: &Client, name: &str) -> Result<Value, Failure> {
    api(client, &format!("STREAM.DELETE.{name}"), &Value::Null).await
}

pub(crate) async fn stream_info(client: &Client, name: &str) -> Result<Value, Failure> {
    api(client, &format!("STREAM.INFO.{name}"), &Value::Null).await
}

/// Whether a stream, or what is left of a deleted one, has nothing more to erase.
pub(crate) async fn is_erased(client: &Client, name: &str) -> Result<bool, Failure> {
    match api(client, &format!("STREAM.ERASURE.{name}"), &Value::Null).await {
        Ok(answer) => Ok(answer.get("done").and_then(Value::as_bool).unwrap_or(false)),
        Err(Failure::Refused(STREAM_NOT_FOUND, _)) => Ok(true),
        Err(failure) => Err(failure),
    }
}

/// Removes everything below `seq`.
pub(crate) async fn purge_below(client: &Client, name: &str, seq: u64) -> Result<Value, Failure> {
    api(
        client,
        &format!("STREAM.PURGE.{name}"),
        &json!({ "seq": seq }),
    )
    .await
}

pub(crate) async fn delete_message(
    client: &Client,
    name: &str,
    seq: u64,
    erase: bool,
) -> Result<Value, Failure> {
    let body = json!({ "seq": seq, "no_erase": !erase });
    api(client, &format!("STREAM.MSG.DELETE.{name}"), &body).await
}

pub(crate) async fn create_consumer(
    client: &Client,
    stream: &str,
    plan: &ConsumerPlan,
) -> Result<Value, Failure> {
    let config = json!({
        "durable_name": plan.name,
        "ack_policy": "explicit",
        "ack_wait": nanos(plan.ack_wait),
        "deliver_policy": "all",
        "max_ack_pending": 1000,
        "num_replicas": 1,
    });
    let body = json!({ "stream_name": stream, "config": config, "action": "" });
    api(
        client,
        &format!("CONSUMER.CREATE.{stream}.{}", plan.name),
        &body,
    )
    .await
}

pub(crate) async fn consumer_info(
    client: &Client,
    stream: &str,
    name: &str,
) -> Result<Value, Failure> {
    api(
        client,
        &format!("CONSUMER.INFO.{stream}.{name}"),
        &Value::Null,
    )
    .await
}

/// A message as a stream holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) seq: u64,
    pub(crate) subject: String,
    pub(crate) headers: Bytes,
    pub(crate) payload: Bytes,
    /// When the server stored it, nanoseconds of its clock.
    pub(crate) time: i64,
}

/// The message at `seq`, or `None` when there is none.
pub(crate) async fn message(
    client: &Client,
    name: &str,
    seq: u64,
) -> Result<Option<Stored>, Failure> {
    let body = json!({ "seq": seq });
    let value = match api(client, &format!("STREAM.MSG.GET.{name}"), &body).await {
        Err(Failure::Refused(NO_MESSAGE, _)) => return Ok(None),
        other => other?,
    };
    let unreadable = || Failure::Refused(0, format!("unreadable message: {value}"));
    let message = value.get("message").ok_or_else(unreadable)?;
    let text = |key: &str| message.get(key).and_then(Value::as_str);
    let decode = |text| BASE64.decode(text).ok().map(Bytes::from);
    let bytes = |key: &str| decode(text(key).unwrap_or(""));
    Ok(Some(Stored {
        seq: message
            .get("seq")
            .and_then(Value::as_u64)
            .ok_or_else(unreadable)?,
        subject: text("subject").ok_or_else(unreadable)?.to_owned(),
        headers: bytes("hdrs").ok_or_else(unreadable)?,
        payload: bytes("data").ok_or_else(unreadable)?,
        time: text("time")
            .and_then(timestamp::parse)
            .ok_or_else(unreadable)?
            .as_nanos(),
    }))
}
