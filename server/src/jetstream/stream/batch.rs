//! Atomic batches: messages that are stored all together with their last one, or not at all.
//!
//! Members wait here, in replicated state, until the batch commits. Every condition is checked at the commit, against the
//! stream and the members before it, and only then is the first one stored; one entry of the log holds the commit, so
//! readers see all or none. A member out of order, or a pause that is too long, abandons the batch.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use halyard_engine::StreamId;
use halyard_runtime::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::headers::{self, Asked};
use super::machine::{Outcome, Stream, Turn};
use super::marker::life_span;
use super::message_id::MessageId;
use super::publish::{Stored, check_rollup, check_shape};
use crate::jetstream::api::errors::{ApiError, table};
use crate::jetstream::group::command::Publish;
use crate::jetstream::limits::{
    BATCH_ID_BYTES_MAX, BATCH_IDLE, BATCH_MESSAGES_MAX, BATCHES_OPEN_MAX,
};

/// The members of one batch so far.
#[derive(Debug, Clone)]
struct Open {
    messages: Vec<Publish>,
    touched: Timestamp,
}

/// The open batches of one stream.
#[derive(Debug, Default)]
pub(super) struct Batches {
    open: BTreeMap<Box<[u8]>, Open>,
    dirty: bool,
}

/// How they lie in the store: (id, last touched, members).
type Saved = Vec<(Vec<u8>, i64, Vec<SavedMember>)>;

#[derive(Serialize, Deserialize)]
struct SavedMember {
    record: Vec<u8>,
    subject_len: u16,
    headers_len: u32,
}

impl Batches {
    /// The record if it changed since the last call; empty if nothing is open.
    pub(super) fn take_record(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        let member = |publish: &Publish| SavedMember {
            record: publish.record.to_vec(),
            subject_len: publish.subject_len,
            headers_len: publish.headers_len,
        };
        let saved: Saved = self
            .open
            .iter()
            .map(|(id, open)| {
                let members = open.messages.iter().map(member).collect();
                (id.to_vec(), open.touched.as_nanos(), members)
            })
            .collect();
        Some(match saved.is_empty() {
            true => Vec::new(),
            false => postcard::to_allocvec(&saved).unwrap_or_default(),
        })
    }

    /// Takes the record back; whether it could be read.
    pub(super) fn load(&mut self, stream: StreamId, record: &[u8]) -> bool {
        let Ok(saved) = postcard::from_bytes::<Saved>(record) else {
            return false;
        };
        for (id, touched, members) in saved {
            let message = |member: SavedMember| Publish {
                stream,
                record: Bytes::from(member.record),
                subject_len: member.subject_len,
                headers_len: member.headers_len,
            };
            let open = Open {
                messages: members.into_iter().map(message).collect(),
                touched: Timestamp::from_nanos(touched),
            };
            self.open.insert(id.into(), open);
        }
        true
    }

    /// Whether none is open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Abandons those that have waited for too long.
    pub(super) fn forget_idle(&mut self, now: Timestamp) {
        let before = self.open.len();
        self.open
            .retain(|_, open| now.as_nanos().saturating_sub(open.touched.as_nanos()) <= BATCH_IDLE);
        self.dirty |= self.open.len() != before;
    }
}

impl Stream {
    /// Takes one member; commits with the last.
    pub(super) fn publish_in_batch(
        &mut self,
        turn: &mut Turn<'_>,
        publish: Publish,
        id: &[u8],
    ) -> Outcome<Stored> {
        if !self.config.allow_atomic {
            return Ok(Err(table::ATOMIC_PUBLISH_DISABLED.error().into()));
        }
        self.batches.forget_idle(turn.now);
        self.batches.dirty = true;
        let taken = self.take_member(turn.now, &publish, id);
        let messages = match taken {
            Ok(None) => return Ok(Ok(Stored::Staged)),
            Ok(Some(messages)) => messages,
            Err(refusal) => {
                self.batches.open.remove(id);
                return Ok(Err(refusal.into()));
            }
        };
        if let Some(refusal) = self.check_members(turn, &messages)? {
            return Ok(Err(refusal.into()));
        }
        let count = messages.len() as u64;
        turn.store.check_sequences(self.id, count)?;
        let mut last = 0;
        for mut message in messages {
            let block = message.headers().to_vec();
            let asked = headers::parse(&block);
            // It was read before, by `check_members`.
            let ttl = life_span(&self.config, &mut message, &asked).unwrap_or_default();
            let id = asked.msg_id.map(MessageId::of);
            last = self.store_checked(turn, message, &asked, id, ttl)?;
        }
        Ok(Ok(Stored::Batch { last, count }))
    }

    /// Adds a member; all of them if it was the last.
    fn take_member(
        &mut self,
        now: Timestamp,
        publish: &Publish,
        id: &[u8],
    ) -> Result<Option<Vec<Publish>>, ApiError> {
        let asked = headers::parse(publish.headers());
        if id.is_empty() || id.len() > BATCH_ID_BYTES_MAX {
            return Err(table::ATOMIC_PUBLISH_INVALID_BATCH_ID.error());
        }
        let Some(seq) = asked.batch_seq.filter(|seq| *seq > 0) else {
            return Err(table::ATOMIC_PUBLISH_MISSING_SEQ.error());
        };
        if seq == 1 && !self.batches.open.contains_key(id) {
            if self.batches.open.len() >= BATCHES_OPEN_MAX {
                return Err(table::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT.error());
            }
            let open = Open {
                messages: Vec::new(),
                touched: now,
            };
            self.batches.open.insert(id.into(), open);
        }
        let open = self.batches.open.get_mut(id);
        let incomplete = || table::ATOMIC_PUBLISH_INCOMPLETE_BATCH.error();
        let open = open
            .filter(|open| open.messages.len() as u64 + 1 == seq)
            .ok_or_else(incomplete)?;
        if seq > BATCH_MESSAGES_MAX {
            return Err(table::ATOMIC_PUBLISH_TOO_LARGE_BATCH.with(BATCH_MESSAGES_MAX));
        }
        open.touched = now;
        let stored = match asked.batch_commit {
            None | Some(b"1") => true,
            Some(b"eob") => false,
            Some(_) => return Err(table::ATOMIC_PUBLISH_INVALID_BATCH_COMMIT.error()),
        };
        if stored {
            open.messages.push(publish.clone());
        } else if let Some(last) = open.messages.last_mut() {
            mark_last(last);
        }
        if asked.batch_commit.is_none() {
            return Ok(None);
        }
        Ok(self.batches.open.remove(id).map(|open| open.messages))
    }

    /// Every condition of every member, in order, against the stream and the members before it.
    fn check_members(
        &self,
        turn: &Turn<'_>,
        messages: &[Publish],
    ) -> Result<Option<ApiError>, super::machine::Fault> {
        let mut ids = BTreeSet::new();
        for (at, message) in messages.iter().enumerate() {
            let asked = headers::parse(message.headers());
            let before = messages.get(..at).unwrap_or_default();
            if let Err(refusal) = check_member(&self.config, message, &asked, at) {
                return Ok(Some(refusal));
            }
            if let Some(id) = asked.msg_id
                && (!ids.insert(id) || self.dedupe.find(MessageId::of(id), turn.now).is_some())
            {
                let refusal = table::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE.error();
                return Ok(Some(refusal));
            }
            if let Some(refusal) = self.check_expected(turn, message, &asked, before)? {
                return Ok(Some(refusal));
            }
            if let Err(refusal) = check_rollup(&self.config, asked.rollup) {
                return Ok(Some(refusal));
            }
            if let Some(refusal) = self.check_room(turn, message, before)? {
                return Ok(Some(refusal));
            }
        }
        Ok(None)
    }
}

/// Conditions of a member that need no state.
fn check_member(
    config: &crate::jetstream::config::StreamConfig,
    publish: &Publish,
    asked: &Asked<'_>,
    at: usize,
) -> Result<(), ApiError> {
    let unsupported = |name: &str| Err(table::ATOMIC_PUBLISH_UNSUPPORTED_HEADER_BATCH.with(name));
    if asked.expected_last_msg_id.is_some() {
        return unsupported("Nats-Expected-Last-Msg-Id");
    }
    if asked.expected_last_seq.is_some() && at > 0 {
        return unsupported("Nats-Expected-Last-Sequence");
    }
    check_shape(config, publish, asked)?;
    match asked.ttl {
        Some(_) if !config.allow_msg_ttl => Err(table::MESSAGE_TTL_DISABLED.error()),
        Some(ttl) if headers::parse_ttl(ttl).is_none() => Err(table::MESSAGE_TTL_INVALID.error()),
        _ => Ok(()),
    }
}

/// The last stored member of a batch carries the commit, also where a message that is not stored brought it.
fn mark_last(last: &mut Publish) {
    const LINE: &[u8] = b"Nats-Batch-Commit: 1\r\n\r\n";
    let Some(headers) = last.headers().strip_suffix(b"\r\n") else {
        return;
    };
    let body = usize::from(last.subject_len) + last.headers_len as usize;
    let payload = last.record.get(body..).unwrap_or_default();
    let record = [last.subject(), headers, LINE, payload].concat();
    let headers_len = u32::try_from(headers.len() + LINE.len());
    last.headers_len = headers_len.expect("headers are shorter than 4 GiB");
    last.record = Bytes::from(record);
}
