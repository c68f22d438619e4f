//! The configuration of a consumer, exactly as the API's JSON has it.
//!
//! Field order, names and omission rules are those that clients see from the peer, so that tools that compare
//! configurations byte for byte keep working. What a value means and which combinations are legal: `check.rs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::jetstream::api::timestamp::Moment;

/// A consumer without a durable name that nobody uses goes after this, nanoseconds.
const INACTIVE_THRESHOLD: i64 = 5_000_000_000;

/// Where a new consumer starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliverPolicy {
    /// At the first message of the stream.
    #[default]
    All,
    /// At the last message that matches.
    Last,
    /// After what the stream holds now.
    New,
    /// At `opt_start_seq`.
    ByStartSequence,
    /// At the first message stored at `opt_start_time` or later.
    ByStartTime,
    /// With the last message of each subject that matches, then what comes.
    LastPerSubject,
}

/// Which acknowledgements are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AckPolicy {
    /// None: a message is done once it is sent.
    #[default]
    None,
    /// One for a message acknowledges everything before it too.
    All,
    /// One for each message.
    Explicit,
    /// By flow-control replies (durable mirrors and sources); refused for now.
    FlowControl,
}

/// How fast stored messages are replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayPolicy {
    /// As fast as possible.
    #[default]
    Instant,
    /// With the gaps that the messages had when they were stored.
    Original,
}

/// Who among several waiting pull requests is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriorityPolicy {
    /// In turn.
    #[default]
    None,
    /// Only once a backlog exceeds what the request asks for.
    Overflow,
    /// One client at a time.
    PinnedClient,
    /// The lowest number first.
    Prioritized,
}

/// The configuration of a consumer. Durations are nanoseconds; zero or empty means "not set".
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "the fields are the protocol's own; FEATURES of the peer's API describe them"
)]
pub struct ConsumerConfig {
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub durable_name: String,
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub name: String,
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub description: String,
    pub deliver_policy: DeliverPolicy,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero_u64")]
    pub opt_start_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opt_start_time: Option<Moment>,
    pub ack_policy: AckPolicy,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub ack_wait: i64,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub max_deliver: i64,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub backoff: Vec<i64>,
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub filter_subject: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub filter_subjects: Vec<String>,
    pub replay_policy: ReplayPolicy,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero_u64")]
    pub rate_limit_bps: u64,
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub sample_freq: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub max_waiting: i64,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub max_ack_pending: i64,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub flow_control: bool,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub headers_only: bool,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub max_batch: i64,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub max_expires: i64,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub max_bytes: i64,
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub deliver_subject: String,
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub deliver_group: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub idle_heartbeat: i64,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub inactive_threshold: i64,
    #[serde(deserialize_with = "nullable")]
    pub num_replicas: i64,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub mem_storage: bool,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub direct: bool,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub sourcing: bool,
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_until: Option<Moment>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub priority_groups: Vec<String>,
    #[serde(skip_serializing_if = "is_no_policy")]
    pub priority_policy: PriorityPolicy,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub priority_timeout: i64,
}

impl ConsumerConfig {
    /// Pushed to `deliver_subject`, not pulled.
    pub fn is_push(&self) -> bool {
        !self.deliver_subject.is_empty()
    }

    /// The queue group that listens on the deliver subject of a push consumer. `None`: listeners outside of any group.
    pub fn listeners(&self) -> Option<&[u8]> {
        Some(self.deliver_group.as_bytes()).filter(|group| !group.is_empty())
    }

    /// The threshold of one that goes with its users: without a wish it is the usual one.
    pub fn fill_in_threshold(&mut self) {
        if self.inactive_threshold == 0 && !self.is_durable() {
            self.inactive_threshold = INACTIVE_THRESHOLD;
        }
    }

    /// Outlives its users: it has a durable name.
    pub fn is_durable(&self) -> bool {
        !self.durable_name.is_empty()
    }

    /// The filters, whichever field they came in. Empty: every message.
    pub fn filters(&self) -> impl Iterator<Item = &str> {
        let one = (!self.filter_subject.is_empty()).then_some(self.filter_subject.as_str());
        one.into_iter()
            .chain(self.filter_subjects.iter().map(String::as_str))
    }

    /// How long a delivery may stay without an answer when it is the `count`-th one (1 = the first).
    pub fn wait_after(&self, count: u32) -> std::time::Duration {
        let last = self.backoff.len().saturating_sub(1);
        let at = (count.max(1) as usize - 1).min(last);
        let nanos = self.backoff.get(at).copied().unwrap_or(self.ack_wait);
        std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }

    /// How many deliveries may wait for an answer. `None`: any number.
    pub fn pending_max(&self) -> Option<usize> {
        if self.ack_policy == AckPolicy::None {
            return None;
        }
        usize::try_from(self.max_ack_pending)
            .ok()
            .filter(|max| *max > 0)
    }

    /// How often a message is delivered at most. `None`: no limit.
    pub fn deliver_max(&self) -> Option<u32> {
        u32::try_from(self.max_deliver).ok().filter(|max| *max > 0)
    }

    /// The share of acknowledgements that are reported as metrics, in percent.
    pub fn sample_percent(&self) -> u32 {
        self.sample_freq.trim_end_matches('%').parse().unwrap_or(0)
    }

    /// The API level that a server needs to serve this configuration.
    pub fn required_level(&self) -> u32 {
        let pauses = self.pause_until.is_some_and(|until| !until.is_zero());
        let has_priorities =
            self.priority_policy != PriorityPolicy::None || self.priority_timeout != 0;
        if self.ack_policy == AckPolicy::FlowControl || self.sourcing {
            4
        } else {
            u32::from(pauses || has_priorities)
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero_u64(value: &u64) -> bool {
    *value == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_no_policy(value: &PriorityPolicy) -> bool {
    *value == PriorityPolicy::None
}

/// Clients in dynamic languages send `null` for what they leave out.
fn nullable<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}
