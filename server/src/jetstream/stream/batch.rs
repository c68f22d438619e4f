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
use super::publish::{Rollup, Stored, check_features, check_rollup, check_shape, check_size};
use crate::jetstream::api::errors::{ApiError, table};
use crate::jetstream::consumer::effect::{Abandoned, Effect};
use crate::jetstream::group::command::Publish;
use crate::jetstream::limits::{
    BATCH_ID_BYTES_MAX, BATCH_IDLE, BATCH_MESSAGES_MAX, BATCHES_OPEN_MAX, GROUP_BATCHES_OPEN_MAX,
};
use crate::jetstream::plain;

/// The commit of a message that ends a batch and is not stored with it.
const END: &[u8] = b"eob";

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
            false => plain::record(&saved),
        })
    }

    /// Takes the record back; whether it could be read.
    pub(super) fn load(&mut self, stream: StreamId, record: &[u8]) -> bool {
        let Ok(saved) = postcard::from_bytes::<Saved>(record) else {
            return false;
        };
        let is_whole = |member: &SavedMember| {
            let known = usize::from(member.subject_len) + member.headers_len as usize;
            known <= member.record.len()
        };
        if !saved
            .iter()
            .all(|(_, _, members)| members.iter().all(is_whole))
        {
            return false;
        }
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

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// When the first of them is abandoned if nobody goes on with it.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let ends = |open: &Open| open.touched.as_nanos().saturating_add(BATCH_IDLE + 1);
        let first = self.open.values().map(ends).min();
        first.map(Timestamp::from_nanos)
    }

    /// Abandons those that have waited for too long.
    pub(super) fn forget_idle(&mut self, stream: StreamId, now: Timestamp, effects: &mut Effects) {
        let is_idle =
            |open: &mut Open| now.as_nanos().saturating_sub(open.touched.as_nanos()) > BATCH_IDLE;
        for (batch, _) in self.open.extract_if(.., |_, open| is_idle(open)) {
            let why = Abandoned::Timeout;
            effects.push((stream, Effect::BatchAbandoned { batch, why }));
            self.dirty = true;
        }
    }
}

/// What the leader's driver should do besides answering.
type Effects = Vec<(StreamId, Effect)>;

/// A member that was not taken.
struct Unfit {
    refusal: ApiError,
    then: Then,
}

/// What that means to its batch.
enum Then {
    /// It waits for another member instead.
    GoesOn,
    /// It is over, without a word.
    Ends,
    /// It is over, and whoever listens hears why.
    Abandoned(Abandoned),
}

impl Then {
    const fn because(self, refusal: ApiError) -> Unfit {
        Unfit {
            refusal,
            then: self,
        }
    }
}

impl Stream {
    /// Takes one member; commits with the last.
    pub(super) fn publish_in_batch(
        &mut self,
        turn: &mut Turn<'_>,
        mut publish: Publish,
        id: &[u8],
    ) -> Outcome<Stored> {
        if !self.config.allow_atomic {
            return Ok(Err(table::ATOMIC_PUBLISH_DISABLED.error().into()));
        }
        self.batches.forget_idle(self.id, turn.now, turn.effects);
        self.batches.dirty = true;
        let taken = self.take_member(turn, &mut publish, id);
        let messages = match taken {
            Ok(None) => return Ok(Ok(Stored::Staged)),
            Ok(Some(messages)) => messages,
            Err(Unfit { refusal, then }) => {
                self.end_batch(turn, id, &then);
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
            let ttl = life_span(&self.config, &mut message, &asked);
            let ttl = ttl.expect("read before, by `check_members`");
            let id = asked.msg_id.map(MessageId::of);
            last = self.store_checked(turn, message, &asked, id, ttl)?;
        }
        Ok(Ok(Stored::Batch { last, count }))
    }

    /// Lets a batch go, as far as one of its members wants that.
    fn end_batch(&mut self, turn: &mut Turn<'_>, id: &[u8], then: &Then) {
        if matches!(then, Then::GoesOn) {
            return;
        }
        if let (Some((batch, _)), Then::Abandoned(why)) = (self.batches.open.remove_entry(id), then)
        {
            let why = *why;
            let effect = Effect::BatchAbandoned { batch, why };
            turn.effects.push((self.id, effect));
        }
    }

    /// Adds a member; all of them if it was the last.
    fn take_member(
        &mut self,
        turn: &Turn<'_>,
        publish: &mut Publish,
        id: &[u8],
    ) -> Result<Option<Vec<Publish>>, Unfit> {
        let record = publish.clone();
        let asked = headers::parse(record.headers());
        let (seq, is_end) = self.check_place(publish, &asked, id)?;
        if asked.required_level.is_some() {
            // It was for this server, and is for no reader.
            let block = headers::without(publish.headers(), b"Nats-Required-Api-Level");
            *publish = publish.with_headers(&block);
        }
        if seq == 1 && !is_end && !self.batches.open.contains_key(id) {
            let refused = |refusal| Then::Ends.because(refusal);
            self.open_batch(turn, id).map_err(refused)?;
        }
        let open = self.batches.open.get_mut(id);
        let open = open
            .filter(|open| open.messages.len() as u64 + 1 == seq)
            .ok_or_else(|| {
                let refusal = table::ATOMIC_PUBLISH_INCOMPLETE_BATCH.error();
                Then::Abandoned(Abandoned::Incomplete).because(refusal)
            })?;
        open.touched = turn.now;
        if !is_end {
            open.messages.push(publish.clone());
        } else if let Some(last) = open.messages.last_mut() {
            mark_last(last);
        }
        if asked.batch_commit.is_none() {
            return Ok(None);
        }
        Ok(self.batches.open.remove(id).map(|open| open.messages))
    }

    /// Conditions of a member that make it one at all: its number in the batch, and whether it is only the batch's end.
    fn check_place(
        &self,
        publish: &Publish,
        asked: &Asked<'_>,
        id: &[u8],
    ) -> Result<(u64, bool), Unfit> {
        if id.len() > BATCH_ID_BYTES_MAX {
            return Err(Then::Ends.because(table::ATOMIC_PUBLISH_INVALID_BATCH_ID.error()));
        }
        check_size(&self.config, publish).map_err(|refusal| Then::GoesOn.because(refusal))?;
        let Some(seq) = asked.batch_seq else {
            return Err(Then::GoesOn.because(table::ATOMIC_PUBLISH_MISSING_SEQ.error()));
        };
        let is_end = asked.batch_commit == Some(END);
        // The end of a batch is no member of it; one that has the number 0 ends no batch of any length.
        if seq.wrapping_sub(u64::from(is_end)) > BATCH_MESSAGES_MAX {
            let open = self.batches.open.get(id);
            let follows = open.is_none_or(|open| open.messages.len() as u64 + 1 == seq);
            return Err(match follows {
                true => Then::Abandoned(Abandoned::Large)
                    .because(table::ATOMIC_PUBLISH_TOO_LARGE_BATCH.with(BATCH_MESSAGES_MAX)),
                false => Then::Abandoned(Abandoned::Incomplete)
                    .because(table::ATOMIC_PUBLISH_INCOMPLETE_BATCH.error()),
            });
        }
        if (seq != 1 || is_end) && !self.batches.open.contains_key(id) {
            let refusal = table::ATOMIC_PUBLISH_INCOMPLETE_BATCH.error();
            return Err(Then::Abandoned(Abandoned::Incomplete).because(refusal));
        }
        if !matches!(asked.batch_commit, None | Some(b"1" | END)) {
            return Err(Then::Ends.because(table::ATOMIC_PUBLISH_INVALID_BATCH_COMMIT.error()));
        }
        if asked
            .required_level
            .is_some_and(|level| !headers::has_level(level))
        {
            let then = Then::Abandoned(Abandoned::Unsupported);
            return Err(then.because(table::REQUIRED_API_LEVEL.error()));
        }
        Ok((seq, is_end))
    }

    /// Begins a batch: so many may be open in a stream, and in all of them, for each waits in memory.
    fn open_batch(&mut self, turn: &Turn<'_>, id: &[u8]) -> Result<(), ApiError> {
        if self.batches.open.len() >= BATCHES_OPEN_MAX
            || turn.group.batches >= GROUP_BATCHES_OPEN_MAX
        {
            return Err(table::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT.error());
        }
        if turn.group.is_full_with(0) {
            return Err(table::INSUFFICIENT_RESOURCES.error());
        }
        let open = Open {
            messages: Vec::new(),
            touched: turn.now,
        };
        self.batches.open.insert(id.into(), open);
        Ok(())
    }

    /// Every condition of every member, in order, against the stream and the members before it.
    fn check_members(
        &self,
        turn: &Turn<'_>,
        messages: &[Publish],
    ) -> Result<Option<ApiError>, super::machine::Fault> {
        let all_but_last = messages.len().saturating_sub(1);
        if let Some(refusal) =
            self.check_held(turn, messages.get(..all_but_last).unwrap_or_default())
        {
            return Ok(Some(refusal));
        }
        let mut ids = BTreeSet::new();
        for (at, message) in messages.iter().enumerate() {
            let asked = headers::parse(message.headers());
            let before = messages.get(..at).unwrap_or_default();
            if let Err(refusal) = check_member(&self.config, message, &asked) {
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
            let rollup = match check_rollup(&self.config, asked.rollup) {
                Ok(rollup) => rollup,
                Err(refusal) => return Ok(Some(refusal)),
            };
            if let Err(refusal) = check_rollup_in(rollup, message.subject(), before) {
                return Ok(Some(refusal));
            }
            if let Some(refusal) = self.check_room(turn, message, rollup.is_some(), before)? {
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
) -> Result<(), ApiError> {
    if asked.expected_last_msg_id.is_some() {
        let name = "Nats-Expected-Last-Msg-Id";
        return Err(table::ATOMIC_PUBLISH_UNSUPPORTED_HEADER_BATCH.with(name));
    }
    check_shape(config, publish, asked)?;
    check_features(asked)?;
    match asked.ttl {
        Some(_) if !config.allow_msg_ttl => Err(table::MESSAGE_TTL_DISABLED.error()),
        Some(ttl) if headers::parse_ttl(ttl).is_none() => Err(table::MESSAGE_TTL_INVALID.error()),
        _ => Ok(()),
    }
}

/// A rollup would take members of its own batch away, which the publisher is told are stored.
fn check_rollup_in(
    rollup: Option<Rollup>,
    subject: &[u8],
    before: &[Publish],
) -> Result<(), ApiError> {
    let refuse = |what: &str| Err(table::STREAM_ROLLUP_FAILED.with(what));
    match rollup {
        Some(Rollup::Subject) if before.iter().any(|one| one.subject() == subject) => {
            refuse("batch rollup sub invalid")
        }
        Some(Rollup::All) if !before.is_empty() => refuse("batch rollup all invalid"),
        _ => Ok(()),
    }
}

/// The last stored member of a batch carries the commit, also where a message that is not stored brought it.
fn mark_last(last: &mut Publish) {
    const LINE: &[u8] = b"Nats-Batch-Commit: 1\r\n\r\n";
    let Some(headers) = last.headers().strip_suffix(b"\r\n") else {
        return;
    };
    *last = last.with_headers(&[headers, LINE].concat());
}
