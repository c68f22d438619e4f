//! The configuration of a stream as it travels in JSON: names, order and omission of the fields are the wire's.
//!
//! Fields of features that this server does not have yet are kept as raw values, only so that validation can
//! refuse them by name; they never reach the machine.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// What makes a message leave its stream, besides limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// Only limits remove messages.
    #[default]
    Limits,
    /// A message goes when every consumer that wants it has acknowledged it.
    Interest,
    /// A message goes with its first acknowledgement.
    WorkQueue,
}

/// Where messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// On disk: an acknowledged message survives the loss of power.
    #[default]
    File,
    /// In memory: gone with the process.
    Memory,
}

/// What happens to a publish that would exceed a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Discard {
    /// The oldest messages make room.
    #[default]
    Old,
    /// The publish is refused.
    New,
}

impl<'de> Deserialize<'de> for Discard {
    /// In any case of letters, as only this one of the names may be written.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = required(from)?;
        match text.to_ascii_lowercase().as_str() {
            "old" => Ok(Self::Old),
            "new" => Ok(Self::New),
            _ => Err(D::Error::custom(format_args!(
                "unknown discard policy {text:?}"
            ))),
        }
    }
}

/// A name; `null` is none.
fn required<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.ok_or_else(|| D::Error::custom("a name is expected"))
}

/// How segments are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Yes. (The name is the wire's; which method is the store's own affair.)
    S2,
}

/// When a publish is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PersistMode {
    /// When it is durable.
    #[default]
    #[serde(alias = "")]
    Default,
    /// Before it is durable; not supported.
    Async,
}

/// Defaults and caps that a stream gives its consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumerLimits {
    /// Nanoseconds without activity after which a consumer goes; 0 is no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inactive_threshold: i64,
    /// Largest number of messages that wait for acknowledgement; 0 is no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_ack_pending: i64,
}

/// Wishes about the nodes that hold a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Name of the cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// Tags that the servers have; `!tag` for those that they must not have. An empty list is a wish, too, and is shown as
    /// `{}`; none is not.
    #[serde(default, skip_serializing_if = "has_no_tags")]
    pub tags: Option<Vec<String>>,
    /// Only for requests that move a leader; refused in a configuration.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub preferred: String,
}

/// The configuration of a stream. Limits: -1 is unlimited; durations are nanoseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// Name, unique in the account.
    #[serde(default)]
    pub name: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it captures; wildcards are welcome, overlaps are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// What makes messages leave, besides limits.
    #[serde(default)]
    pub retention: Retention,
    /// Consumers at one time.
    #[serde(default)]
    pub max_consumers: i64,
    /// Messages.
    #[serde(default)]
    pub max_msgs: i64,
    /// Bytes of all messages.
    #[serde(default)]
    pub max_bytes: i64,
    /// Age of a message, 0 is for ever.
    #[serde(default)]
    pub max_age: i64,
    /// Messages of one subject.
    #[serde(default)]
    pub max_msgs_per_subject: i64,
    /// Bytes of headers and payload of one message.
    #[serde(default)]
    pub max_msg_size: i64,
    /// What happens at a limit.
    #[serde(default)]
    pub discard: Discard,
    /// Where messages are kept.
    #[serde(default)]
    pub storage: Storage,
    /// Copies.
    #[serde(default)]
    pub num_replicas: i64,
    /// Publishers get no acknowledgement.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_ack: bool,
    /// How long a message id is remembered.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub duplicate_window: i64,
    /// Wishes about the nodes that hold it; kept, one server has no choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// The stream that this one copies; not supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Value>,
    /// The streams that this one gathers; not supported yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Value>,
    /// How segments are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// Sequence of the first message; 0 is 1. It counts when the stream is made: an update keeps it, and changes nothing.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub first_seq: u64,
    /// Renames subjects on their way in; not supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_transform: Option<Value>,
    /// Publishes again what was stored; not supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub republish: Option<Value>,
    /// Messages may be read by the direct API.
    #[serde(default)]
    pub allow_direct: bool,
    /// A mirror answers direct reads of its origin; kept, has no effect without a mirror.
    #[serde(default)]
    pub mirror_direct: bool,
    /// `discard: new` also for `max_msgs_per_subject`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub discard_new_per_subject: bool,
    /// Nothing may change any more.
    #[serde(default)]
    pub sealed: bool,
    /// Single messages cannot be deleted.
    #[serde(default)]
    pub deny_delete: bool,
    /// The stream cannot be purged.
    #[serde(default)]
    pub deny_purge: bool,
    /// A publish may replace what came before by its `Nats-Rollup` header.
    #[serde(default)]
    pub allow_rollup_hdrs: bool,
    /// Defaults and caps for consumers.
    #[serde(default)]
    pub consumer_limits: ConsumerLimits,
    /// A publish may carry its own age limit in `Nats-TTL`.
    #[serde(default)]
    pub allow_msg_ttl: bool,
    /// How long the marker of a subject stays whose last message went by age, nanoseconds; 0 is no marker. Markers count
    /// in whole seconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub subject_delete_marker_ttl: i64,
    /// Messages count; not supported yet.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_msg_counter: bool,
    /// All-or-nothing batches.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_atomic: bool,
    /// Messages that publish others later; not supported yet.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_msg_schedules: bool,
    /// When a publish is acknowledged.
    #[serde(default, skip_serializing_if = "is_default_persist_mode")]
    pub persist_mode: PersistMode,
    /// Flow-controlled batches; not supported yet.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_batched: bool,
    /// Free key-value pairs; `_nats.` is reserved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl StreamConfig {
    /// A limit of the wire (-1 or 0 is unlimited) as an option.
    #[must_use]
    pub fn limit(value: i64) -> Option<u64> {
        u64::try_from(value).ok().filter(|limit| *limit > 0)
    }

    /// What the reader of a response sees beside what was asked for.
    #[must_use]
    pub fn for_response(&self) -> Self {
        let mut config = self.clone();
        config.metadata.insert(
            "_nats.ver".into(),
            super::super::limits::NATS_VERSION.into(),
        );
        config.metadata.insert(
            "_nats.level".into(),
            super::super::limits::API_LEVEL.to_string(),
        );
        config
    }
}

fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::ref_option, reason = "serde asks for a reference")]
fn has_no_tags(tags: &Option<Vec<String>>) -> bool {
    tags.as_ref().is_none_or(Vec::is_empty)
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn is_zero_u64(value: &u64) -> bool {
    *value == 0
}

fn is_default_persist_mode(value: &PersistMode) -> bool {
    *value == PersistMode::Default
}
