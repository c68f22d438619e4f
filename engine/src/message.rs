//! The values that go in and out: stream ids, messages, and what a stream looks like from outside.

use bytes::Bytes;
use halyard_runtime::time::Timestamp;

use crate::filter::Filters;

/// A stream's identity inside its group's store. Never a name: names belong to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// The expiry of a message that lives for ever, whatever the age limit of its stream says.
pub const FOREVER: Timestamp = Timestamp::from_nanos(i64::MAX - 1);

/// A message to store. The record is kept as it is: the very bytes that the log wrote.
#[derive(Debug, Clone)]
pub struct Append {
    /// Subject, headers and payload, one after the other.
    pub record: Bytes,
    /// Bytes of the subject at the start of `record`.
    pub subject_len: u16,
    /// Bytes of the header block after the subject; 0 for none.
    pub headers_len: u32,
    /// The leader's time of the entry; never before the stream's last message.
    pub time: Timestamp,
    /// When this message's own TTL ends, if it has one; [`FOREVER`] for one that no age limit takes.
    pub expires: Option<Timestamp>,
}

/// A stored message. Clones share the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its sequence in the stream.
    pub seq: u64,
    /// When it was stored (the leader's time).
    pub time: Timestamp,
    /// When its own TTL ends, if it has one.
    pub expires: Option<Timestamp>,
    /// Subject, headers and payload, one after the other.
    pub record: Bytes,
    /// Bytes of the subject at the start of `record`.
    pub subject_len: u16,
    /// Bytes of the header block after the subject; 0 for none.
    pub headers_len: u32,
    /// What it counts for in [`StreamState::bytes`].
    pub(crate) size: u64,
}

impl Message {
    /// The subject's bytes.
    #[must_use]
    pub fn subject(&self) -> &[u8] {
        let subject = self.record.get(..usize::from(self.subject_len));
        subject.expect("a record begins with its subject")
    }

    /// The header block, empty for none.
    #[must_use]
    pub fn headers(&self) -> &[u8] {
        let start = usize::from(self.subject_len);
        let headers = self.record.get(start..start + self.headers_len as usize);
        headers.expect("a record has its headers behind its subject")
    }

    /// The payload's bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let start = usize::from(self.subject_len) + self.headers_len as usize;
        let payload = self.record.get(start..);
        payload.expect("a record ends with its payload")
    }

    /// The payload, sharing the record's bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> Bytes {
        let start = usize::from(self.subject_len) + self.headers_len as usize;
        self.record.slice(start.min(self.record.len())..)
    }

    /// What the message counts for in [`StreamState::bytes`]: record plus the overhead of [`crate::Options`].
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Whether deleted bytes must also vanish from the disk (DESIGN section 5), or only from sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erase {
    /// Unreadable at once; space comes back when compaction gets there.
    No,
    /// Unreadable at once, and rewritten and overwritten by the next maintenance jobs.
    Yes,
}

/// What a purge removes: messages that match `filters`, below `below`, but not the last `keep` of them.
#[derive(Debug, Clone, Default)]
pub struct Purge {
    /// Which subjects; the empty set is every subject.
    pub filters: Filters,
    /// Only sequences below this one.
    pub below: Option<u64>,
    /// Spare the last so many of the matching messages.
    pub keep: Option<u64>,
}

/// A stream's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamState {
    /// Messages that can be read.
    pub messages: u64,
    /// Their sizes ([`Message::size`]) together.
    pub bytes: u64,
    /// Sequence of the first message; `last_seq + 1` when there is none.
    pub first_seq: u64,
    /// Time of the first message; the epoch when there is none.
    pub first_time: Timestamp,
    /// The last sequence that was given out, stored or skipped.
    pub last_seq: u64,
    /// Time of the last message that was stored, even if it has gone since; the epoch when there was none.
    pub last_time: Timestamp,
    /// Subjects that have messages.
    pub subjects: u64,
    /// Sequences between first and last without a message.
    pub deleted: u64,
}

/// One subject of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectTotals {
    /// The subject.
    pub subject: Bytes,
    /// Messages that can be read.
    pub messages: u64,
    /// Sequence of the first of them.
    pub first_seq: u64,
    /// Sequence of the last of them.
    pub last_seq: u64,
}
