//! What a change of a consumer means to the world: published by the leader after commit, dropped on replay.

use super::command::ConsumerId;

/// Why an atomic batch was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abandoned {
    /// A member was missing.
    Incomplete,
    /// It had more members than a batch may have.
    Large,
    /// Nobody went on with it.
    Timeout,
    /// A member asked for what this server does not have.
    Unsupported,
}

impl Abandoned {
    /// As an advisory says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Large => "large",
            Self::Timeout => "timeout",
            Self::Unsupported => "unsupported",
        }
    }
}

/// Something that the leader tells others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A message was delivered as often as allowed, without an ack.
    MaxDeliveries {
        /// Whose.
        id: ConsumerId,
        /// Which message.
        stream_seq: u64,
        /// How often.
        deliveries: u32,
    },
    /// A client refused a message.
    Naked {
        /// Whose.
        id: ConsumerId,
        /// Which message.
        stream_seq: u64,
        /// The delivery.
        consumer_seq: u64,
        /// How often it was sent.
        deliveries: u32,
    },
    /// A message will not be delivered again.
    Terminated {
        /// Whose.
        id: ConsumerId,
        /// Which message.
        stream_seq: u64,
        /// The delivery.
        consumer_seq: u64,
        /// How often it was sent.
        deliveries: u32,
        /// The client's words, or the server's.
        reason: String,
    },
    /// A message was acknowledged; for consumers that sample their ack times only.
    Acked {
        /// Whose.
        id: ConsumerId,
        /// Which message.
        stream_seq: u64,
        /// The delivery.
        consumer_seq: u64,
        /// How often it was sent.
        deliveries: u32,
        /// Nanoseconds from the last delivery to the ack.
        ack_nanos: u64,
    },
    /// Messages went back to the queue, or room appeared: waiting requests may be served.
    Ready {
        /// Whose.
        id: ConsumerId,
    },
    /// An atomic batch of the stream was given up: its members are not stored.
    BatchAbandoned {
        /// The client's name for it.
        batch: Box<[u8]>,
        /// Why.
        why: Abandoned,
    },
    /// The stream took a message of its own: there may be something to deliver.
    Stored,
    /// The consumer is new, or its configuration is.
    Changed {
        /// Which.
        id: ConsumerId,
        /// It was not there before.
        is_new: bool,
    },
    /// The stream is gone, and its consumers with it.
    StreamDeleted,
    /// The consumer is gone.
    Deleted {
        /// Whose.
        id: ConsumerId,
    },
}
