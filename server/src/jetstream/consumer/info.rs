//! What the API tells about a consumer. Field order and omissions are those of the peer.

use halyard_runtime::time::Timestamp;
use serde::Serialize;

use super::config::ConsumerConfig;
use super::machine::{Consumer, Position};
use super::messages::Messages;
use super::set::Start;
use crate::jetstream::api::timestamp;
use crate::jetstream::api::types::is_about_the_server;
use crate::jetstream::limits::{API_LEVEL, NATS_VERSION};

/// What only the leader knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Presence {
    /// Pull requests that wait.
    pub waiting: usize,
    /// Deliveries or answers are on their way into the log.
    pub is_behind: bool,
    /// Somebody listens on the deliver subject.
    pub push_bound: bool,
    /// How far a consumer without acks got; its replicated position is older.
    pub reached: Option<(Position, Timestamp)>,
    /// Messages that are still to come, as such a consumer stands now.
    pub unseen: Option<u64>,
}

/// `consumer_seq`, `stream_seq`, `last_active`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Sequence {
    consumer_seq: u64,
    stream_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_active: Option<String>,
}

impl Sequence {
    fn new(position: Position, at: Option<Timestamp>) -> Self {
        Self {
            consumer_seq: position.consumer,
            stream_seq: position.stream,
            last_active: at.map(timestamp::format),
        }
    }
}

/// The body of CONSUMER.INFO and of the answer to CONSUMER.CREATE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConsumerInfo {
    stream_name: String,
    name: String,
    created: String,
    config: ConsumerConfig,
    delivered: Sequence,
    ack_floor: Sequence,
    num_ack_pending: usize,
    num_redelivered: usize,
    num_waiting: usize,
    num_pending: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    push_bound: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_remaining: Option<i64>,
    ts: String,
}

impl ConsumerInfo {
    /// Gathers it. `now` is the wall clock of whoever answers.
    pub fn new(
        stream: &str,
        consumer: &Consumer,
        presence: &Presence,
        messages: &dyn Messages,
        now: Timestamp,
    ) -> Self {
        let (delivered, delivered_at, floor, acked_at) = match presence.reached {
            Some((reached, at)) if reached.consumer > consumer.delivered().consumer => {
                (reached, Some(at), reached, None)
            }
            _ => (
                consumer.delivered(),
                consumer.delivered_at(),
                consumer.floor(),
                consumer.acked_at(),
            ),
        };
        let until = consumer.config().pause_until;
        let until = until.filter(|_| consumer.is_paused(now));
        Self {
            stream_name: stream.to_owned(),
            name: consumer.config().name.clone(),
            created: timestamp::format(consumer.created()),
            config: shown(consumer.config()),
            delivered: Sequence::new(delivered, delivered_at),
            ack_floor: Sequence::new(floor, acked_at),
            num_ack_pending: consumer.unacked(),
            num_redelivered: consumer.redelivered(),
            num_waiting: presence.waiting,
            num_pending: presence.unseen.unwrap_or_else(|| consumer.unseen(messages)),
            push_bound: presence.push_bound,
            paused: until.is_some(),
            pause_remaining: until.map(|until| until.nanos_after(now)),
            ts: timestamp::format(now),
        }
    }
}

impl ConsumerInfo {
    /// The same of a consumer that nothing was delivered to yet: what whoever made it is told, however fast it was served.
    #[must_use]
    pub fn at_start(mut self, start: Start) -> Self {
        self.delivered = Sequence::new(start.at, None);
        self.ack_floor = Sequence::new(start.at, None);
        self.num_ack_pending = 0;
        self.num_redelivered = 0;
        self.num_pending = start.unseen;
        self
    }

    /// As a list shows it: without what the server says about itself.
    #[must_use]
    pub fn as_listed(mut self) -> Self {
        self.config
            .metadata
            .retain(|key, _| !is_about_the_server(key));
        self
    }
}

/// The configuration as replies show it: with the server's own metadata.
pub fn shown(config: &ConsumerConfig) -> ConsumerConfig {
    let mut shown = config.clone();
    // One below zero is none, and still asked for.
    shown.priority_timeout = shown.priority_timeout.max(0);
    let own = [
        ("_nats.level", API_LEVEL.to_string()),
        ("_nats.req.level", config.required_level().to_string()),
        ("_nats.ver", NATS_VERSION.to_owned()),
    ];
    shown
        .metadata
        .extend(own.map(|(key, value)| (key.to_owned(), value)));
    shown
}
