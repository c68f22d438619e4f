//! What a backup holds, whichever its format, and why one cannot be read.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Longest subject, bytes.
pub const SUBJECT_BYTES_MAX: usize = 4096;
/// Headers and payload of one message at most: what a server of NATS takes from a client.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// The description of one consumer, or of the stream, at most.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// The counters of a stream, as a backup states them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stated {
    /// Messages.
    pub messages: u64,
    /// Their bytes, as streams count them.
    pub bytes: u64,
    /// Sequence of the first message; `last_seq + 1` if there is none.
    pub first_seq: u64,
    /// The last sequence that was given out.
    pub last_seq: u64,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its sequence.
    pub seq: u64,
    /// When it was stored, in nanoseconds since the Unix epoch.
    pub time: i64,
    /// Bytes of the subject at the start of `record`.
    pub subject_len: usize,
    /// Bytes of the header block after the subject.
    pub headers_len: usize,
    /// Subject, headers and payload, one after the other.
    pub record: Bytes,
}

impl Message {
    /// The subject.
    #[must_use]
    pub fn subject(&self) -> &[u8] {
        self.record.get(..self.subject_len).unwrap_or_default()
    }

    /// The header block, empty for none.
    #[must_use]
    pub fn headers(&self) -> &[u8] {
        let end = self.subject_len + self.headers_len;
        self.record.get(self.subject_len..end).unwrap_or_default()
    }
}

/// A consumer: its configuration as JSON, its state.
#[derive(Debug, Clone, PartialEq)]
pub struct Consumer {
    /// The name under which the archive has it.
    pub name: String,
    /// Its configuration.
    pub config: serde_json::Value,
    /// How far it got; `None`: it is as new.
    pub state: Option<crate::consumer::State>,
}

/// One thing of a backup, in the order of the archive.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// The counters; once, before the first message.
    Stated(Stated),
    /// A consumer.
    Consumer(Box<Consumer>),
    /// A message.
    Message(Message),
    /// A message that an earlier part of the archive holds is gone.
    Deleted(u64),
}

/// Why an archive cannot be restored. The text is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub Cow<'static, str>);

impl Refused {
    /// A refusal with a fixed text.
    #[must_use]
    pub const fn because(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// A refusal with details.
    #[must_use]
    pub fn with(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}
