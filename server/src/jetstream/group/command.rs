//! The bytes of a group's log entry: one batch of commands.
//!
//! ```text
//! batch    time i64 | count u32 | command*          time: the leader's clock, nanoseconds since the Unix epoch
//! command  kind u8 | len u32 | body                 len: bytes of the body
//! publish  stream u64 | flags u8 | subject_len u16 | headers_len u32 | subject | headers | payload
//! others   stream u64 | a body of their own (postcard; a consumer's is the consumer's business, that of a restore
//!          stands in `stream::restore`)
//! ```
//!
//! All integers little endian. A publish is encoded once, by the thread of the connection that sent it; the same bytes
//! lie in the log and are the record in the store. An entry with a command that this release does not know is not applied at all
//! ([`check`]): the group stops on this replica before it, as a replica that skipped it would differ from those that did not.

use std::ops::Range;

use bytes::Bytes;
use halyard_engine::StreamId;
use halyard_runtime::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::jetstream::config::StreamConfig;
use crate::jetstream::consumer;
use crate::jetstream::plain;
use crate::jetstream::stream::restore;

/// Bytes before the first command.
pub const BATCH_HEADER_BYTES: usize = 12;
/// Bytes before a command's body.
pub const COMMAND_HEADER_BYTES: usize = 5;
/// Bytes of a publish before its record.
pub const PUBLISH_HEADER_BYTES: usize = 15;

/// What a command is. Numbers are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Store one message.
    Publish = 1,
    /// Time has passed: run what is due.
    Tick = 2,
    /// Make a stream.
    StreamCreate = 3,
    /// Change a stream's configuration.
    StreamUpdate = 4,
    /// Drop a stream and its messages.
    StreamDelete = 5,
    /// Remove messages by filter, sequence, number.
    Purge = 6,
    /// Remove one message.
    MessageDelete = 7,
    /// Something of a consumer of the stream.
    Consumer = 8,
    /// A part of a backup, for a stream that nobody sees yet.
    Restore = 20,
    /// A replica has erased what was asked for.
    Erased = 9,
    /// How many bytes the group's streams may hold.
    Limit = 21,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Publish,
            2 => Self::Tick,
            3 => Self::StreamCreate,
            4 => Self::StreamUpdate,
            5 => Self::StreamDelete,
            6 => Self::Purge,
            7 => Self::MessageDelete,
            8 => Self::Consumer,
            20 => Self::Restore,
            21 => Self::Limit,
            9 => Self::Erased,
            _ => return None,
        })
    }
}

/// Bytes that are no command of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a command of this version: {0}")]
pub struct CommandError(pub &'static str);

/// A message to store, in place in the entry's buffer.
#[derive(Debug, Clone)]
pub struct Publish {
    /// The stream that captures it.
    pub stream: StreamId,
    /// subject ++ headers ++ payload.
    pub record: Bytes,
    /// Bytes of the subject.
    pub subject_len: u16,
    /// Bytes of the headers, their final empty line included; 0 is none.
    pub headers_len: u32,
}

impl Publish {
    /// The subject.
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

    /// The same message with another header block, of less than 4 GiB.
    #[must_use]
    pub fn with_headers(&self, headers: &[u8]) -> Self {
        let body = usize::from(self.subject_len) + self.headers_len as usize;
        let payload = self.record.get(body..);
        let payload = payload.expect("a record ends with its payload");
        let headers_len = u32::try_from(headers.len());
        Self {
            record: Bytes::from([self.subject(), headers, payload].concat()),
            headers_len: headers_len.expect("headers are shorter than 4 GiB"),
            ..*self
        }
    }

    /// Bytes of headers and payload.
    #[must_use]
    pub fn size(&self) -> usize {
        self.record.len() - usize::from(self.subject_len)
    }
}

/// The body of [`Kind::StreamCreate`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamCreate {
    /// The configuration as JSON: its fields grow with versions.
    #[serde(with = "config_as_json")]
    pub config: StreamConfig,
    /// When it was asked for, nanoseconds since the Unix epoch.
    pub created: i64,
}

/// The body of [`Kind::StreamUpdate`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamUpdate {
    /// The whole new configuration.
    #[serde(with = "config_as_json")]
    pub config: StreamConfig,
}

/// The body of [`Kind::Purge`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purge {
    /// Only subjects that match; empty is all.
    pub filter: String,
    /// Only sequences below it; 0 is all.
    pub below: u64,
    /// Leave so many of the last that match; 0 is none.
    pub keep: u64,
}

impl Purge {
    /// Whether it removes every message of the stream.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        (self.filter.is_empty() || self.filter == ">") && self.below == 0 && self.keep == 0
    }
}

/// The body of [`Kind::MessageDelete`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageDelete {
    /// Which one.
    pub seq: u64,
    /// Whether its bytes must be overwritten too.
    pub erase: bool,
}

/// The body of [`Kind::Erased`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// The replica.
    pub node: u64,
    /// It has overwritten everything that was to be erased up to this entry of the group.
    pub up_to: u64,
    /// The group's replicas as it knows them: a request is forgotten when all of these are done.
    pub replicas: Vec<u64>,
}

/// The body of [`Kind::Limit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Bytes that the group's streams together may hold; `None` is no limit.
    pub bytes: Option<u64>,
}

/// One command, decoded as far as the group needs; bodies stay slices of the entry.
#[derive(Debug, Clone)]
pub enum Command {
    /// Store one message.
    Publish(Publish),
    /// Run what is due.
    Tick,
    /// Make a stream.
    StreamCreate(StreamId, Box<StreamCreate>),
    /// Change a stream.
    StreamUpdate(StreamId, Box<StreamUpdate>),
    /// Drop a stream; the name of its account, empty where it is not known.
    StreamDelete(StreamId, Bytes),
    /// Remove messages.
    Purge(StreamId, Purge),
    /// Remove one message.
    MessageDelete(StreamId, MessageDelete),
    /// For the stream's consumers.
    Consumer(StreamId, Bytes),
    /// A part of a backup.
    Restore(StreamId, Bytes),
    /// A replica is done with erasing.
    Erased(Erased),
    /// How much the group's streams may hold.
    Limit(Limit),
}

impl Command {
    /// The one stream that it is about.
    #[must_use]
    pub const fn stream(&self) -> Option<StreamId> {
        match self {
            Self::Publish(publish) => Some(publish.stream),
            Self::Tick | Self::Erased(_) | Self::Limit(_) => None,
            Self::StreamCreate(id, _)
            | Self::StreamUpdate(id, _)
            | Self::StreamDelete(id, _)
            | Self::Purge(id, _)
            | Self::MessageDelete(id, _)
            | Self::Consumer(id, _)
            | Self::Restore(id, _) => Some(*id),
        }
    }
}

/// Starts a batch; its time and count are set by [`seal`].
pub fn start(batch: &mut Vec<u8>) {
    batch.clear();
    batch.resize(BATCH_HEADER_BYTES, 0);
}

/// Completes a batch of `count` commands.
pub fn seal(batch: &mut [u8], time: Timestamp, count: u32) {
    if let Some(place) = batch.get_mut(..8) {
        place.copy_from_slice(&time.as_nanos().to_le_bytes());
    }
    if let Some(place) = batch.get_mut(8..BATCH_HEADER_BYTES) {
        place.copy_from_slice(&count.to_le_bytes());
    }
}

/// Appends a publish. The caller keeps subjects below 64 KiB and records below 4 GiB.
pub fn put_publish(
    batch: &mut Vec<u8>,
    stream: StreamId,
    subject: &[u8],
    headers: &[u8],
    payload: &[u8],
) {
    let subject_len = u16::try_from(subject.len()).expect("protocol lines are shorter than 64 KiB");
    let headers_len = u32::try_from(headers.len()).expect("messages are smaller than 4 GiB");
    let body = PUBLISH_HEADER_BYTES + subject.len() + headers.len() + payload.len();
    put_header(batch, Kind::Publish, body);
    batch.extend_from_slice(&stream.0.to_le_bytes());
    batch.push(0);
    batch.extend_from_slice(&subject_len.to_le_bytes());
    batch.extend_from_slice(&headers_len.to_le_bytes());
    batch.extend_from_slice(subject);
    batch.extend_from_slice(headers);
    batch.extend_from_slice(payload);
}

/// Appends any other command with an encoded body.
pub fn put(batch: &mut Vec<u8>, kind: Kind, stream: StreamId, body: &[u8]) {
    debug_assert_ne!(kind, Kind::Publish, "put_publish knows its shape");
    put_header(batch, kind, 8 + body.len());
    batch.extend_from_slice(&stream.0.to_le_bytes());
    batch.extend_from_slice(body);
}

fn put_header(batch: &mut Vec<u8>, kind: Kind, body: usize) {
    let body = u32::try_from(body).expect("a command is smaller than 4 GiB");
    batch.push(kind as u8);
    batch.extend_from_slice(&body.to_le_bytes());
}

/// Bytes that [`put_publish`] appends for a subject and so many bytes of headers and payload.
#[must_use]
pub const fn publish_bytes(subject: &[u8], size: usize) -> usize {
    COMMAND_HEADER_BYTES + PUBLISH_HEADER_BYTES + subject.len() + size
}

/// Where each of some commands lies, header included, and whether it brings messages: what a full disk refuses. `commands` are
/// those of a batch, without its header.
pub fn places(commands: &[u8]) -> impl Iterator<Item = (Range<usize>, bool)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let header = commands.get(at..at + COMMAND_HEADER_BYTES)?;
        let [kind, len @ ..] = header else {
            return None;
        };
        let len = u32::from_le_bytes(*len.first_chunk::<4>()?) as usize;
        let place = at..at + COMMAND_HEADER_BYTES + len;
        at = place.end;
        let kind = Kind::from_byte(*kind);
        Some((place, matches!(kind, Some(Kind::Publish | Kind::Restore))))
    })
}

/// Whether this release knows every command of an entry.
///
/// # Errors
/// The first that it does not know; nothing of such an entry may be applied.
pub fn check(entry: &Bytes) -> Result<(), CommandError> {
    let mut batch = Batch::open(entry)?;
    while let Some(place) = batch.next_place() {
        let (kind, body) = place?;
        let bytes = entry.get(body.clone()).unwrap_or_default();
        match Kind::from_byte(kind).ok_or(CommandError("unknown kind"))? {
            Kind::Publish => check_publish(bytes)?,
            Kind::Consumer => {
                let body = bytes.get(8..).ok_or(CommandError("no stream"))?;
                let command = consumer::Command::decode(body);
                command.map_err(|_| CommandError("unknown command of a consumer"))?;
            }
            Kind::Restore if bytes.get(8).is_none_or(|step| !restore::is_step(*step)) => {
                return Err(CommandError("unknown part of a backup"));
            }
            Kind::Restore | Kind::Tick | Kind::StreamDelete => {
                bytes.first_chunk::<8>().ok_or(CommandError("no stream"))?;
            }
            _ => {
                decode(kind, &entry.slice(body))?;
            }
        }
    }
    Ok(())
}

/// A publish with flags that no release before has set, or one that is cut off.
fn check_publish(body: &[u8]) -> Result<(), CommandError> {
    let cut_off = CommandError("cut off publish");
    let (header, record) = body
        .split_first_chunk::<PUBLISH_HEADER_BYTES>()
        .ok_or(cut_off)?;
    let [.., flags, l0, l1, h0, h1, h2, h3] = *header;
    if flags != 0 {
        return Err(CommandError("unknown flags of a publish"));
    }
    let subject = usize::from(u16::from_le_bytes([l0, l1]));
    let headers = u32::from_le_bytes([h0, h1, h2, h3]) as usize;
    match subject.saturating_add(headers) > record.len() {
        true => Err(cut_off),
        false => Ok(()),
    }
}

/// A batch being read.
pub struct Batch<'a> {
    entry: &'a Bytes,
    at: usize,
    left: u32,
    time: Timestamp,
}

impl<'a> Batch<'a> {
    /// Looks at the header of an entry.
    ///
    /// # Errors
    /// The entry is shorter than that.
    pub fn open(entry: &'a Bytes) -> Result<Self, CommandError> {
        let time = entry
            .first_chunk::<8>()
            .ok_or(CommandError("batch header"))?;
        let count = entry
            .get(8..BATCH_HEADER_BYTES)
            .and_then(|count| count.first_chunk::<4>());
        Ok(Self {
            entry,
            at: BATCH_HEADER_BYTES,
            left: u32::from_le_bytes(*count.ok_or(CommandError("batch header"))?),
            time: Timestamp::from_nanos(i64::from_le_bytes(*time)),
        })
    }

    /// The leader's clock when it was sealed.
    #[must_use]
    pub const fn time(&self) -> Timestamp {
        self.time
    }

    /// Commands that are still to come.
    #[must_use]
    pub const fn left(&self) -> u32 {
        self.left
    }
}

impl Batch<'_> {
    /// Kind and body of the next command.
    fn next_place(&mut self) -> Option<Result<(u8, Range<usize>), CommandError>> {
        self.left = self.left.checked_sub(1)?;
        let header = self.entry.get(self.at..self.at + COMMAND_HEADER_BYTES);
        let (kind, len) = match header {
            Some([kind, len @ ..]) => (
                *kind,
                len.first_chunk::<4>()
                    .map_or(0, |len| u32::from_le_bytes(*len)),
            ),
            _ => {
                self.left = 0;
                return Some(Err(CommandError("cut off in a header")));
            }
        };
        let start = self.at + COMMAND_HEADER_BYTES;
        let end = start + len as usize;
        if end > self.entry.len() {
            self.left = 0;
            return Some(Err(CommandError("cut off in a body")));
        }
        self.at = end;
        Some(Ok((kind, start..end)))
    }
}

impl Iterator for Batch<'_> {
    type Item = Result<Command, CommandError>;

    fn next(&mut self) -> Option<Self::Item> {
        let command = match self.next_place()? {
            Ok((kind, body)) if kind == Kind::Publish as u8 => {
                decode_publish(self.entry, body).map(Command::Publish)
            }
            Ok((kind, body)) => decode(kind, &self.entry.slice(body)),
            Err(error) => Err(error),
        };
        Some(command)
    }
}

fn decode(kind: u8, body: &Bytes) -> Result<Command, CommandError> {
    let kind = Kind::from_byte(kind).ok_or(CommandError("unknown kind"))?;
    let (stream, rest) = body
        .split_first_chunk::<8>()
        .ok_or(CommandError("no stream"))?;
    let stream = StreamId(u64::from_le_bytes(*stream));
    Ok(match kind {
        Kind::Publish => return Err(CommandError("a publish is read in place")),
        Kind::Tick => Command::Tick,
        Kind::StreamCreate => Command::StreamCreate(stream, Box::new(decode_cold(rest)?)),
        Kind::StreamUpdate => Command::StreamUpdate(stream, Box::new(decode_cold(rest)?)),
        Kind::StreamDelete => Command::StreamDelete(stream, body.slice(8..)),
        Kind::Purge => Command::Purge(stream, decode_cold(rest)?),
        Kind::MessageDelete => Command::MessageDelete(stream, decode_cold(rest)?),
        Kind::Consumer => Command::Consumer(stream, body.slice(8..)),
        Kind::Restore => Command::Restore(stream, body.slice(8..)),
        Kind::Erased => Command::Erased(decode_cold(rest)?),
        Kind::Limit => Command::Limit(decode_cold(rest)?),
    })
}

/// Reads a publish in place: one reference to the entry's buffer for each message.
fn decode_publish(entry: &Bytes, body: Range<usize>) -> Result<Publish, CommandError> {
    let record = body.start.saturating_add(PUBLISH_HEADER_BYTES)..body.end;
    let header = entry
        .get(body.start..record.start.min(body.end))
        .unwrap_or_default();
    let Some(header) = header.first_chunk::<PUBLISH_HEADER_BYTES>() else {
        return Err(CommandError("cut off publish"));
    };
    let [
        s0,
        s1,
        s2,
        s3,
        s4,
        s5,
        s6,
        s7,
        _flags,
        l0,
        l1,
        h0,
        h1,
        h2,
        h3,
    ] = *header;
    let publish = Publish {
        stream: StreamId(u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7])),
        subject_len: u16::from_le_bytes([l0, l1]),
        headers_len: u32::from_le_bytes([h0, h1, h2, h3]),
        record: entry.slice(record),
    };
    let known = usize::from(publish.subject_len) + publish.headers_len as usize;
    if known > publish.record.len() {
        Err(CommandError("cut off publish"))
    } else {
        Ok(publish)
    }
}

fn decode_cold<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, CommandError> {
    postcard::from_bytes(body).map_err(|_| CommandError("body"))
}

/// Encodes the body of a command that is not a publish.
#[must_use]
pub fn encode_cold<T: Serialize>(body: &T) -> Vec<u8> {
    plain::record(body)
}

/// Postcard is positional; a configuration grows fields, so it travels as JSON inside.
mod config_as_json {
    use serde::{Deserialize, Deserializer, Serializer, de, ser};

    use crate::jetstream::config::StreamConfig;

    pub(super) fn serialize<S: Serializer>(
        config: &StreamConfig,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        let json = serde_json::to_vec(config).map_err(ser::Error::custom)?;
        out.serialize_bytes(&json)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<StreamConfig, D::Error> {
        let json = Vec::<u8>::deserialize(input)?;
        serde_json::from_slice(&json).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed(fill: impl FnOnce(&mut Vec<u8>) -> u32) -> Bytes {
        let mut batch = Vec::new();
        start(&mut batch);
        let count = fill(&mut batch);
        seal(&mut batch, Timestamp::from_nanos(77), count);
        Bytes::from(batch)
    }

    #[test]
    fn what_was_put_is_read() {
        let purge = Purge {
            filter: "a.>".into(),
            below: 9,
            keep: 0,
        };
        let create = StreamCreate {
            config: StreamConfig {
                name: "S".into(),
                max_msgs: 5,
                ..StreamConfig::default()
            },
            created: 3,
        };
        let entry = sealed(|batch| {
            put_publish(batch, StreamId(1), b"a.b", b"NATS/1.0\r\n\r\n", b"body");
            put(batch, Kind::Purge, StreamId(2), &encode_cold(&purge));
            put(
                batch,
                Kind::StreamCreate,
                StreamId(3),
                &encode_cold(&create),
            );
            put(batch, Kind::Consumer, StreamId(4), b"opaque");
            4
        });
        let mut batch = Batch::open(&entry).unwrap();
        assert_eq!(batch.time(), Timestamp::from_nanos(77));
        let Some(Ok(Command::Publish(publish))) = batch.next() else {
            panic!("a publish")
        };
        assert_eq!(
            (publish.subject(), publish.headers()),
            (&b"a.b"[..], &b"NATS/1.0\r\n\r\n"[..])
        );
        assert_eq!(publish.record.len(), 3 + 12 + 4);
        assert!(matches!(batch.next(), Some(Ok(Command::Purge(StreamId(2), p))) if p == purge));
        assert!(
            matches!(batch.next(), Some(Ok(Command::StreamCreate(StreamId(3), c))) if *c == create)
        );
        assert!(
            matches!(batch.next(), Some(Ok(Command::Consumer(StreamId(4), b))) if &b[..] == b"opaque")
        );
        assert!(batch.next().is_none());
    }

    #[test]
    fn what_a_later_release_may_write_is_noticed() {
        let known = sealed(|batch| {
            put_publish(batch, StreamId(1), b"a", b"", b"x");
            put(batch, Kind::Tick, StreamId(0), b"");
            put(batch, Kind::Consumer, StreamId(1), &[2, 9]);
            3
        });
        assert_eq!(check(&known), Ok(()));
        let unknown: [fn(&mut Vec<u8>); 5] = [
            |batch| batch.extend_from_slice(&[99, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]),
            |batch| put(batch, Kind::Consumer, StreamId(1), &[77]),
            |batch| put(batch, Kind::Restore, StreamId(1), &[77]),
            |batch| put(batch, Kind::Purge, StreamId(1), &[255; 3]),
            |batch| {
                put_publish(batch, StreamId(1), b"a", b"", b"x");
                let flags = batch.len() - 2 - 7;
                batch[flags] = 1;
            },
        ];
        for put_unknown in unknown {
            let entry = sealed(|batch| {
                put_publish(batch, StreamId(1), b"a", b"", b"x");
                put_unknown(batch);
                2
            });
            assert!(check(&entry).is_err(), "{entry:?}");
        }
        let shorter = known.slice(..known.len() - 1);
        assert!(check(&shorter).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let entry = Bytes::from(bytes);
            let _ = check(&entry);
            if let Ok(batch) = Batch::open(&entry) {
                // A count of four billion over a short entry must end at once.
                prop_assert!(batch.take(1000).count() <= 200);
            }
        }
    }
}
