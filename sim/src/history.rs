//! Everything that clients did and saw in one run.
//!
//! The counter `order` is true real-time order: what has the smaller number happened before. A request's outcome may stay
//! unknown for ever; unknown is never read as "did not happen".

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::checkers::View;

/// What became of a request that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No answer: it may or may not have happened, and may still happen.
    Unknown,
    /// The server said that it is done.
    Done {
        /// When.
        order: u64,
    },
    /// The server said that it did not happen.
    Refused(String),
}

/// One message that a client wanted to have in a stream, with all its attempts.
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    /// Index into [`crate::Options::streams`].
    pub(crate) stream: usize,
    pub(crate) subject: String,
    pub(crate) msg_id: Option<String>,
    pub(crate) headers: Bytes,
    pub(crate) payload: Bytes,
    /// The connection of the first attempt.
    pub(crate) connection: u64,
    /// When the first attempt was made.
    pub(crate) invoked: u64,
    pub(crate) attempts: u32,
    pub(crate) outcome: Outcome,
    /// What the answer said, when it said that it is stored.
    pub(crate) seq: u64,
    /// The answer said that it was already there.
    pub(crate) duplicate: bool,
}

/// What an admin wanted to have removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// One message.
    One(u64),
    /// Everything below a sequence.
    Below(u64),
}

impl Target {
    pub(crate) fn covers(self, seq: u64) -> bool {
        match self {
            Self::One(one) => seq == one,
            Self::Below(end) => seq < end,
        }
    }
}

/// A delete or a purge.
#[derive(Clone, Debug)]
pub(crate) struct Removal {
    pub(crate) stream: usize,
    pub(crate) target: Target,
    /// Whether the bytes must vanish, too.
    pub(crate) erase: bool,
    pub(crate) outcome: Outcome,
}

/// A message that a consumer was given.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Index into [`crate::Options::consumers`].
    pub(crate) consumer: usize,
    pub(crate) seq: u64,
    /// How many times the server says that it has delivered it.
    pub(crate) delivered: u64,
    pub(crate) subject: String,
    pub(crate) headers: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) connection: u64,
    /// The how-manieth message of that connection.
    pub(crate) arrived: u64,
}

/// An acknowledgement that a client sent.
#[derive(Clone, Debug)]
pub(crate) struct Acked {
    pub(crate) consumer: usize,
    pub(crate) seq: u64,
    /// The connection over which it went.
    pub(crate) connection: u64,
    /// The how-manieth message of that connection was the confirmation; `None` when none came or was asked for.
    pub(crate) confirmed: Option<u64>,
}

/// How long a message wants to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    /// As long as the stream lets it.
    Stream,
    /// So many seconds at most.
    Seconds(u64),
    /// For ever, whatever the stream's age limit.
    Forever,
}

/// A message that ends by itself.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    /// Index into [`crate::Options::mortals`].
    pub(crate) stream: usize,
    pub(crate) subject: String,
    pub(crate) span: Span,
    pub(crate) outcome: Outcome,
    /// What the answer said.
    pub(crate) seq: u64,
    /// When it was stored by the server's clock, if a client could read it.
    pub(crate) time: Option<i64>,
    /// A client did not find it any more; this is the time of a message that was stored afterwards.
    pub(crate) gone_by: Option<i64>,
}

/// What is known of a stream that admins make and delete.
#[derive(Clone, Debug, Default)]
pub(crate) struct Existence {
    /// What the last answered request left; `None` before the first.
    pub(crate) exists: Option<bool>,
    /// A request is under way.
    pub(crate) unknown: bool,
    /// A request was never answered. It may have happened at any time since, so nothing is known any more.
    pub(crate) abandoned: bool,
    /// Numbers of the messages that were acknowledged in it.
    pub(crate) messages: Vec<u64>,
}

/// What must be found, in the end, of a stream that was backed up and deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Something before its deletion was not answered: nothing is promised.
    #[default]
    Unknown,
    /// It was deleted, and no restore of it came to its end.
    Gone,
    /// The end of its restore was not answered.
    AllOrNothing,
    /// Its restore was answered.
    Restored,
}

/// A stream that is backed up and restored.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    /// What it held when it was backed up.
    pub(crate) held: Option<View>,
    pub(crate) fate: Fate,
}

/// The record of a run.
#[derive(Debug, Default)]
pub(crate) struct History {
    next_order: u64,
    pub(crate) publishes: Vec<Publish>,
    pub(crate) removals: Vec<Removal>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) acked: Vec<Acked>,
    pub(crate) existence: BTreeMap<String, Existence>,
    pub(crate) lives: Vec<Life>,
    /// Streams that archivists made, by name.
    pub(crate) archives: BTreeMap<String, Archive>,
    /// Messages that were sent to streams that come and go.
    pub(crate) passing: u64,
    /// Numbers of those that were acknowledged in a stream that was then deleted.
    pub(crate) passed: Vec<u64>,
    /// Answers to repeated publishes that say something else than the first answer did.
    pub(crate) contradictions: Vec<String>,
}

impl History {
    /// The next moment.
    pub(crate) fn tick(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }

    /// A sequence of the stream that was acknowledged, picked by `draw`.
    pub(crate) fn some_seq(&self, stream: usize, draw: u64) -> Option<u64> {
        let done = |publish: &&Publish| {
            publish.stream == stream && matches!(publish.outcome, Outcome::Done { .. })
        };
        let known: Vec<u64> = self
            .publishes
            .iter()
            .filter(done)
            .map(|publish| publish.seq)
            .collect();
        let index = usize::try_from(draw.checked_rem(known.len() as u64)?).ok()?;
        known.get(index).copied()
    }
}
