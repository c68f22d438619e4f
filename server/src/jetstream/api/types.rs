//! The shapes of replies. Names, order and omission of the fields are the wire's.

use std::collections::BTreeMap;

use base64::Engine as _;
use halyard_engine::StreamState;
use halyard_runtime::time::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::timestamp;
use crate::jetstream::config::StreamConfig;
use crate::jetstream::plain;

/// What every reply's `type` begins with.
const TYPE_PREFIX: &str = "io.nats.jetstream.api.v1.";

/// A reply: its type, then either the body or the refusal.
#[must_use]
pub fn reply<T: Serialize>(kind: &str, outcome: &Result<T, ApiError>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Good<'a, T> {
        r#type: String,
        #[serde(flatten)]
        body: &'a T,
    }
    #[derive(Serialize)]
    struct Bad<'a> {
        r#type: String,
        error: &'a ApiError,
        #[serde(flatten)]
        rest: serde_json::Map<String, Value>,
    }
    let r#type = format!("{TYPE_PREFIX}{kind}_response");
    match outcome {
        Ok(body) => plain::json(&Good { r#type, body }),
        Err(error) => plain::json(&Bad {
            r#type,
            error,
            rest: zeros(kind),
        }),
    }
}

/// The fields that replies of this kind have also where they refuse.
fn zeros(kind: &str) -> serde_json::Map<String, Value> {
    let fields = match kind {
        "stream_info" => json!({"total": 0, "offset": 0, "limit": 0}),
        "stream_names" => json!({"total": 0, "offset": 0, "limit": 0, "streams": null}),
        "stream_list" => json!({"total": 0, "offset": 0, "limit": 0, "streams": []}),
        "consumer_names" | "consumer_list" => {
            json!({"total": 0, "offset": 0, "limit": 0, "consumers": []})
        }
        "stream_purge" => json!({"purged": 0}),
        "consumer_pause" => json!({"paused": false, "pause_until": timestamp::ZERO}),
        "stream_restore" => json!({"deliver_subject": ""}),
        _ => Value::Null,
    };
    match fields {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    }
}

/// `{"success":true}`.
#[derive(Debug, Serialize)]
pub struct Success {
    /// Always true.
    pub success: bool,
}

/// The answer of a purge.
#[derive(Debug, Serialize)]
pub struct Purged {
    /// Always true.
    pub success: bool,
    /// Messages that were removed.
    pub purged: u64,
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub struct Page<T> {
    /// Entries of the whole list.
    pub total: usize,
    /// Where this page begins.
    pub offset: usize,
    /// Entries of a page at most.
    pub limit: usize,
    /// The entries; names are `null` where there is none.
    pub streams: Option<Vec<T>>,
    /// Those that are there and of which nothing can be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// A page that was cut out of a list of `total`.
#[must_use]
pub fn page_of<T>(total: usize, offset: usize, limit: usize, here: Option<Vec<T>>) -> Page<T> {
    Page {
        total,
        offset: offset.min(total),
        limit,
        streams: here,
        missing: Vec::new(),
    }
}

/// The counters of a stream.
#[derive(Debug, Clone, Serialize)]
pub struct State {
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sequence of the first; of the next if there is none.
    pub first_seq: u64,
    /// Time of the first.
    pub first_ts: String,
    /// Last sequence that was given out.
    pub last_seq: u64,
    /// Time of the last.
    pub last_ts: String,
    /// Subjects that have messages.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_subjects: u64,
    /// Messages of each subject, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subjects: Option<BTreeMap<String, u64>>,
    /// Sequences without a message between first and last.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_deleted: u64,
    /// Which, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Vec<u64>>,
    /// Consumers.
    pub consumer_count: usize,
}

impl State {
    /// The wire's form of the store's counters.
    #[must_use]
    pub fn new(state: &StreamState, consumer_count: usize) -> Self {
        let time =
            |time: Timestamp| timestamp::format_option((time != Timestamp::EPOCH).then_some(time));
        let never = state.messages == 0 && state.last_seq == 0;
        Self {
            messages: state.messages,
            bytes: state.bytes,
            first_seq: if never { 0 } else { state.first_seq },
            first_ts: time(if state.messages == 0 {
                Timestamp::EPOCH
            } else {
                state.first_time
            }),
            last_seq: state.last_seq,
            last_ts: time(state.last_time),
            num_subjects: state.subjects,
            subjects: None,
            num_deleted: state.deleted,
            deleted: None,
            consumer_count,
        }
    }
}

/// Who leads a stream's group.
#[derive(Debug, Clone, Serialize)]
pub struct Cluster {
    /// The server's name.
    pub leader: String,
}

/// Everything about one stream.
#[derive(Debug, Clone, Serialize)]
pub struct StreamInfo {
    /// Its configuration.
    pub config: StreamConfig,
    /// When it was asked for.
    pub created: String,
    /// Its counters.
    pub state: State,
    /// Name of the JetStream domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Who leads its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Cluster>,
    /// When this was said.
    pub ts: String,
}

impl StreamInfo {
    /// As a list shows it: without what the server says about itself.
    #[must_use]
    pub fn as_listed(mut self) -> Self {
        self.config
            .metadata
            .retain(|key, _| !is_about_the_server(key));
        self
    }
}

/// Whether a key of metadata says what the server is, not what was asked for.
#[must_use]
pub fn is_about_the_server(key: &str) -> bool {
    matches!(key, "_nats.ver" | "_nats.level")
}

/// The answer of create and update.
#[derive(Debug, Serialize)]
pub struct Created {
    /// The stream.
    #[serde(flatten)]
    pub info: StreamInfo,
    /// Whether it was there before does not matter to the peer either: always true for a create.
    #[serde(skip_serializing_if = "is_false")]
    pub did_create: bool,
}

/// The answer of `STREAM.INFO`.
#[derive(Debug, Serialize)]
pub struct Info {
    /// Subjects that match, if asked for.
    pub total: usize,
    /// Where the page of subjects begins.
    pub offset: usize,
    /// Subjects in a page at most; 0 if not asked for.
    pub limit: usize,
    /// The stream.
    #[serde(flatten)]
    pub info: StreamInfo,
}

/// One stored message, as `STREAM.MSG.GET` shows it.
#[derive(Debug, Serialize)]
pub struct StoredMessage {
    /// Its subject.
    pub subject: String,
    /// Its sequence.
    pub seq: u64,
    /// Its headers, base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hdrs: String,
    /// Its payload, base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// When it was stored.
    pub time: String,
}

/// The answer of `STREAM.MSG.GET`.
#[derive(Debug, Serialize)]
pub struct Got {
    /// The message.
    pub message: StoredMessage,
}

/// What an account uses and may use.
#[derive(Debug, Serialize)]
pub struct AccountInfo {
    /// Bytes in memory streams.
    pub memory: u64,
    /// Bytes in file streams.
    pub storage: u64,
    /// Sum of the `max_bytes` of memory streams.
    pub reserved_memory: u64,
    /// Sum of the `max_bytes` of file streams.
    pub reserved_storage: u64,
    /// Streams.
    pub streams: usize,
    /// Consumers.
    pub consumers: usize,
    /// What it may use; -1 is unlimited.
    pub limits: AccountLimits,
    /// Name of the JetStream domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Counters of the API.
    pub api: ApiCounters,
}

/// What an account may use; -1 is unlimited.
#[derive(Debug, Serialize)]
pub struct AccountLimits {
    /// Bytes in memory streams.
    pub max_memory: i64,
    /// Bytes in file streams.
    pub max_storage: i64,
    /// Streams.
    pub max_streams: i64,
    /// Consumers of one stream.
    pub max_consumers: i64,
    /// Messages that wait for an ack of one consumer.
    pub max_ack_pending: i64,
    /// Bytes of one memory stream.
    pub memory_max_stream_bytes: i64,
    /// Bytes of one file stream.
    pub storage_max_stream_bytes: i64,
    /// Whether every stream must say its `max_bytes`.
    pub max_bytes_required: bool,
}

/// Counters of the API.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ApiCounters {
    /// Level of the API that is understood.
    pub level: u32,
    /// Requests so far.
    pub total: u64,
    /// Those that were refused.
    pub errors: u64,
    /// Those that are being answered.
    #[serde(skip_serializing_if = "is_zero")]
    pub inflight: u64,
}

/// Standard base64 with padding.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_beyond_the_end_begins_at_the_end() {
        assert_eq!(page_of::<u8>(3, 10, 2, None).offset, 3);
    }

    #[test]
    fn refusals_have_the_zeros_of_their_kind() {
        let refusal = Err::<(), _>(ApiError {
            code: 404,
            err_code: 10059,
            description: "stream not found".into(),
        });
        let text = |kind| String::from_utf8(reply(kind, &refusal)).unwrap();
        assert!(
            text("stream_purge").ends_with("},\"purged\":0}"),
            "{}",
            text("stream_purge")
        );
        assert!(text("stream_names").contains("\"streams\":null"));
        assert!(text("stream_delete").ends_with("found\"}}"));
    }
}
