//! Filling a stream from a backup: what a log entry brings of it.
//!
//! ```text
//! body      step u8 | ...
//! messages  1 | (seq u64 | time i64 | subject length u16 | headers length u32 | record length u32 | record)*
//! deleted   2 | (seq u64)*              messages that an earlier entry brought and that had been deleted
//! consumer  3 | a consumer, in its own encoding
//! finish    4 | last_seq u64 | messages u64      what the backup states: all is there, limits apply from here on
//! ```
//!
//! All integers little endian. Messages keep their sequences and times; an id is remembered and a life span runs as if
//! each had been published at its time. Nobody sees the stream before the meta group says that it is whole, and what is
//! refused here is dropped with the stream.

use bytes::Bytes;
use halyard_engine::{Append, Erase};
use halyard_runtime::time::Timestamp;

use super::expiry::expiry;
use super::headers;
use super::machine::{Fault, Outcome, Stream, Turn};
use super::message_id::MessageId;
use crate::jetstream::api::errors::table;
use crate::jetstream::consumer::Restored;

const MESSAGES: u8 = 1;
const DELETED: u8 = 2;
const CONSUMER: u8 = 3;
const FINISH: u8 = 4;

/// Whether a body begins with a step that this release knows.
#[must_use]
pub const fn is_step(step: u8) -> bool {
    matches!(step, MESSAGES | DELETED | CONSUMER | FINISH)
}

/// One message on its way into the log.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Its sequence.
    pub seq: u64,
    /// When it was stored.
    pub time: Timestamp,
    /// Bytes of the subject at the start of `record`.
    pub subject_len: u16,
    /// Bytes of the header block after it.
    pub headers_len: u32,
    /// Subject, headers and payload.
    pub record: &'a [u8],
}

/// Begins a body of messages.
pub fn start_messages(body: &mut Vec<u8>) {
    body.clear();
    body.push(MESSAGES);
}

/// Appends a message to such a body. Records are smaller than 4 GiB.
pub fn put_message(body: &mut Vec<u8>, message: &Message<'_>) {
    let len = u32::try_from(message.record.len()).expect("the reader of backups bounds it");
    body.extend_from_slice(&message.seq.to_le_bytes());
    body.extend_from_slice(&message.time.as_nanos().to_le_bytes());
    body.extend_from_slice(&message.subject_len.to_le_bytes());
    body.extend_from_slice(&message.headers_len.to_le_bytes());
    body.extend_from_slice(&len.to_le_bytes());
    body.extend_from_slice(message.record);
}

/// The body that removes messages.
#[must_use]
pub fn deleted(sequences: &[u64]) -> Vec<u8> {
    let mut body = vec![DELETED];
    for seq in sequences {
        body.extend_from_slice(&seq.to_le_bytes());
    }
    body
}

/// The body that brings a consumer.
#[must_use]
pub fn consumer(restored: &Restored) -> Vec<u8> {
    let mut body = vec![CONSUMER];
    body.extend_from_slice(&restored.to_bytes());
    body
}

/// The body that ends it: the last sequence, and how many messages there are at most.
#[must_use]
pub fn finish(last_seq: u64, messages: u64) -> Vec<u8> {
    let mut body = vec![FINISH];
    body.extend_from_slice(&last_seq.to_le_bytes());
    body.extend_from_slice(&messages.to_le_bytes());
    body
}

impl Stream {
    /// Takes one part of a backup.
    ///
    /// # Errors
    /// The store failed.
    pub fn restore(&mut self, turn: &mut Turn<'_>, body: &Bytes) -> Outcome<()> {
        let refuse = |what: String| Ok(Err(table::STREAM_RESTORE.with(what).into()));
        let step = body.first().copied().unwrap_or(0);
        let mut fields = Fields { body, at: 1 };
        match step {
            MESSAGES => {
                let before = turn.store.stream_bytes(self.id);
                while !fields.is_empty() {
                    let Some((seq, append)) = fields.message() else {
                        return refuse("a message of another version".to_owned());
                    };
                    // Messages come back whole and at once: none beyond the limit.
                    let size = self
                        .overhead()
                        .size(append.record.len(), append.headers_len);
                    let grown = turn.store.stream_bytes(self.id) - before;
                    if turn.group.is_full_with(grown + size) {
                        let refusal = match self.config.in_memory() {
                            true => table::MEMORY_RESOURCES_EXCEEDED,
                            false => table::STORAGE_RESOURCES_EXCEEDED,
                        };
                        return Ok(Err(refusal.error().into()));
                    }
                    if let Some(what) = self.restore_message(turn, seq, append)? {
                        return refuse(what);
                    }
                }
            }
            DELETED => {
                while let Some(seq) = fields.u64() {
                    turn.store.delete(self.id, seq, Erase::No)?;
                }
            }
            CONSUMER => {
                let restored = body.get(1..).unwrap_or_default();
                let Ok(restored) = Restored::decode(restored) else {
                    return refuse("a consumer of another version".to_owned());
                };
                let name = restored.config.name.clone();
                let taken =
                    self.with_consumers(turn, |consumers, ctx| consumers.restore(restored, ctx))?;
                if let Err(why) = taken {
                    return refuse(format!("consumer {name:?}: {}", why.description));
                }
            }
            FINISH => {
                let (Some(last), Some(most)) = (fields.u64(), fields.u64()) else {
                    return refuse("an end of another version".to_owned());
                };
                if let Some(what) = self.finish_restore(turn, last, most)? {
                    return refuse(what);
                }
            }
            _ => return refuse("a step of another version".to_owned()),
        }
        Ok(Ok(()))
    }

    /// Stores one message; why not, if it cannot be.
    fn restore_message(
        &mut self,
        turn: &mut Turn<'_>,
        seq: u64,
        mut append: Append,
    ) -> Result<Option<String>, Fault> {
        let record = append.record.clone();
        let start = usize::from(append.subject_len);
        let block = record.get(start..start + append.headers_len as usize);
        let asked = headers::parse(block.unwrap_or_default());
        let time = append.time;
        if self.config.allow_msg_ttl {
            let ttl = asked.ttl.and_then(headers::parse_ttl);
            append.expires = ttl.map(|ttl| expiry(ttl, time));
        }
        match turn.store.append_at(self.id, seq, append) {
            Ok(()) => {}
            Err(Fault::OutOfOrder { seq, last }) => {
                return Ok(Some(format!("message {seq} comes after message {last}")));
            }
            Err(Fault::Limit { what, limit }) => {
                return Ok(Some(format!("message {seq}: {what} beyond {limit}")));
            }
            Err(fault) => return Err(fault),
        }
        let recent = time.as_nanos().saturating_add(self.config.duplicate_window);
        let id = asked.msg_id.map(MessageId::of);
        if let Some(id) = id
            && time <= turn.now
            && recent >= turn.now.as_nanos()
        {
            self.dedupe.remember(id, seq, time);
        }
        if self.last_msg_id.set(id.zip(asked.msg_id)) {
            self.touch();
        }
        Ok(None)
    }

    /// All is there: gives out the sequences after the last message, then the limits apply.
    fn finish_restore(
        &mut self,
        turn: &mut Turn<'_>,
        last_seq: u64,
        messages: u64,
    ) -> Result<Option<String>, Fault> {
        let behind = last_seq.saturating_sub(turn.store.last_seq(self.id));
        if behind > 0 {
            match turn.store.skip(self.id, behind) {
                Err(Fault::Limit { what, limit }) => {
                    return Ok(Some(format!("its last {what} is beyond {limit}")));
                }
                skipped => skipped?,
            };
        }
        self.fit(turn)?;
        let held = self.state(turn.store)?.messages;
        if held > messages {
            return Ok(Some(format!(
                "it holds {held} messages, its state says {messages}"
            )));
        }
        self.sweep_restored(turn)?;
        Ok(None)
    }
}

/// Reads a body.
struct Fields<'a> {
    body: &'a Bytes,
    at: usize,
}

impl Fields<'_> {
    const fn is_empty(&self) -> bool {
        self.at >= self.body.len()
    }

    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.body.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(*bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.fixed().map(u64::from_le_bytes)
    }

    fn message(&mut self) -> Option<(u64, Append)> {
        let seq = self.u64()?;
        let time = i64::from_le_bytes(self.fixed()?);
        let subject_len = u16::from_le_bytes(self.fixed()?);
        let headers_len = u32::from_le_bytes(self.fixed()?);
        let len = u32::from_le_bytes(self.fixed()?) as usize;
        let end = self.at.checked_add(len)?;
        let envelope = usize::from(subject_len).checked_add(headers_len as usize)?;
        if end > self.body.len() || envelope > len {
            return None;
        }
        let record = self.body.slice(self.at..end);
        self.at = end;
        let append = Append {
            record,
            subject_len,
            headers_len,
            time: Timestamp::from_nanos(time),
            expires: None,
        };
        Some((seq, append))
    }
}
