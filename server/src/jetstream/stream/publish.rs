//! One publish: every condition first, then the message is stored, then it pushes others out.
//!
//! The order of the conditions is the peer's, so that a message that breaks several gets the same refusal; with one
//! exception: a known message id comes before the expected sequences. A publisher that repeats a message whose
//! acknowledgement it has lost repeats its condition too, which the message itself has broken; it is told that its message is
//! there, where the peer says "wrong last sequence" (docs/differences.md).

use halyard_engine::{Append, Erase, Filters, Overhead};
use halyard_runtime::time::Timestamp;

use super::expiry::expiry;
use super::headers::{self, Asked, Ttl};
use super::machine::{Fault, Outcome, Stream, Turn};
use super::marker::life_span;
use super::message_id::MessageId;
use crate::jetstream::api::errors::{ApiError, table};
use crate::jetstream::config::{Discard, Retention, Storage, StreamConfig};
use crate::jetstream::group::command::Publish;
use crate::jetstream::limits::HEADER_BYTES_MAX;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It has this sequence.
    As(u64),
    /// It was stored before, under this sequence.
    Duplicate(u64),
    /// It waits for the rest of its atomic batch.
    Staged,
    /// Its atomic batch was stored.
    Batch {
        /// Sequence of the last member.
        last: u64,
        /// Members.
        count: u64,
    },
}

/// What a rollup replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rollup {
    Subject,
    All,
}

impl Stream {
    /// Stores one message, or says why not.
    ///
    /// # Errors
    /// The store failed.
    pub fn publish(&mut self, turn: &mut Turn<'_>, mut publish: Publish) -> Outcome<Stored> {
        // A reference of its own, so that what the headers say outlives the message's move into the store.
        let original = publish.clone();
        let asked = headers::parse(original.headers());
        if let Err(refusal) = check_size(&self.config, &publish) {
            return Ok(Err(refusal.into()));
        }
        if let Some(id) = asked.batch_id {
            return self.publish_in_batch(turn, publish, id);
        }
        let shape = check_shape(&self.config, &publish, &asked);
        if let Err(refusal) = shape.and_then(|()| check_ttl_allowed(&self.config, &asked)) {
            return Ok(Err(refusal.into()));
        }
        let id = asked.msg_id.map(MessageId::of);
        if let Some(seq) = id.and_then(|id| self.dedupe.find(id, turn.now)) {
            return Ok(Ok(Stored::Duplicate(seq)));
        }
        if let Some(refusal) = self.check_expected(turn, &publish, &asked, &[])? {
            return Ok(Err(refusal.into()));
        }
        if let Err(refusal) = check_rollup(&self.config, asked.rollup) {
            return Ok(Err(refusal.into()));
        }
        let ttl = match life_span(&self.config, &mut publish, &asked) {
            Ok(ttl) => ttl,
            Err(refusal) => return Ok(Err(refusal.into())),
        };
        if let Some(refusal) = self.check_held(turn, &[]) {
            return Ok(Err(refusal.into()));
        }
        if let Some(refusal) = self.check_room(turn, &publish, asked.rollup.is_some(), &[])? {
            return Ok(Err(refusal.into()));
        }
        let seq = self.store_checked(turn, publish, &asked, id, ttl)?;
        Ok(Ok(Stored::As(seq)))
    }

    /// Stores a message whose every condition holds; its sequence. `id` is the hash of its id, if it has one.
    pub(super) fn store_checked(
        &mut self,
        turn: &mut Turn<'_>,
        publish: Publish,
        asked: &Asked<'_>,
        id: Option<MessageId>,
        ttl: Option<Ttl>,
    ) -> Result<u64, Fault> {
        let rollup = check_rollup(&self.config, asked.rollup);
        let rollup = rollup.expect("checked before, as every condition");
        let expires = ttl.map(|ttl| expiry(ttl, turn.now));
        let (seq, stored) = self.store(turn, &publish, expires)?;
        if let Some(id) = id {
            self.dedupe.remember(id, seq, turn.now);
        }
        if self.last_msg_id.set(id.zip(asked.msg_id)) {
            self.touch();
        }
        if let Some(rollup) = rollup {
            self.roll_up(turn, rollup, publish.subject(), seq)?;
        }
        if stored {
            self.make_room(turn, publish.subject())?;
        }
        Ok(seq)
    }

    /// Whether it was stored, or only took a sequence because nobody wants it.
    pub(super) fn store(
        &self,
        turn: &mut Turn<'_>,
        publish: &Publish,
        expires: Option<Timestamp>,
    ) -> Result<(u64, bool), Fault> {
        if self.config.retention == Retention::Interest
            && !self.consumers.has_interest(publish.subject())
        {
            return Ok((turn.store.skip(self.id, 1)?, false));
        }
        let message = Append {
            record: publish.record.clone(),
            subject_len: publish.subject_len,
            headers_len: publish.headers_len,
            time: turn.now,
            expires,
        };
        Ok((turn.store.append(self.id, message)?, true))
    }

    /// The `Nats-Expected-*` conditions that need the state, as it will be after the members `before` it.
    pub(super) fn check_expected(
        &self,
        turn: &Turn<'_>,
        publish: &Publish,
        asked: &Asked<'_>,
        before: &[Publish],
    ) -> Result<Option<ApiError>, Fault> {
        if asked.expected_subject.is_some() && asked.expected_last_subject_seq.is_none() {
            let refusal = table::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_INVALID.error();
            return Ok(Some(refusal));
        }
        if let Some(refusal) = self.check_expected_of_subject(turn, publish, asked, before)? {
            return Ok(Some(refusal));
        }
        if let Some(expected) = asked.expected_last_seq {
            let last = turn.store.last_seq(self.id) + before.len() as u64;
            if !expected.is(last) {
                return Ok(Some(table::STREAM_WRONG_LAST_SEQUENCE.with(last)));
            }
            if !before.is_empty() {
                // Only the first member can expect anything of the stream as a whole.
                return Ok(Some(table::STREAM_WRONG_LAST_SEQUENCE_CONSTANT.error()));
            }
        }
        if let Err(refusal) = check_features(asked) {
            return Ok(Some(refusal));
        }
        if let Some(expected) = asked.expected_last_msg_id
            && !self.last_msg_id.is(expected)
        {
            let text = self.last_msg_id.text(turn.store, self.id);
            let last = String::from_utf8_lossy(&text);
            return Ok(Some(table::STREAM_WRONG_LAST_MSG_ID.with(last)));
        }
        Ok(None)
    }

    fn check_expected_of_subject(
        &self,
        turn: &Turn<'_>,
        publish: &Publish,
        asked: &Asked<'_>,
        before: &[Publish],
    ) -> Result<Option<ApiError>, Fault> {
        let Some(expected) = asked.expected_last_subject_seq else {
            return Ok(None);
        };
        // What a member is to expect of a subject that another one writes was not known to the publisher. A filter with
        // wildcards asks for the stream as it was before the batch.
        let wanted = asked.expected_subject.unwrap_or(publish.subject());
        if before.iter().any(|one| one.subject() == wanted) {
            return Ok(Some(table::STREAM_WRONG_LAST_SEQUENCE_CONSTANT.error()));
        }
        let last = match asked.expected_subject {
            None => turn.store.last_for_subject(self.id, publish.subject()),
            Some(filter) => match Filters::parse(&[filter]) {
                Ok(filters) => turn.store.last_matching(self.id, &filters, u64::MAX)?,
                // Nothing matches what is no filter.
                Err(_) if !expected.is(0) => None,
                Err(_) => {
                    let refusal = table::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_INVALID.error();
                    return Ok(Some(refusal));
                }
            },
        };
        let last = last.unwrap_or(0);
        Ok((!expected.is(last)).then(|| table::STREAM_WRONG_LAST_SEQUENCE.with(last)))
    }

    /// Whether the streams of the group, with the members `before` a message, are still below what they may hold. The message
    /// that crosses the limit is taken, as by the peer: a stream that may fill it to the last byte goes on turning over.
    pub(super) fn check_held(&self, turn: &Turn<'_>, before: &[Publish]) -> Option<ApiError> {
        let own = turn.store.stream_bytes(self.id);
        let mut after = own + before.iter().map(|one| self.message_size(one)).sum::<u64>();
        if self.config.discard == Discard::Old
            && let Some(max) = StreamConfig::limit(self.config.max_bytes)
        {
            // What does not fit pushes others out.
            after = after.min(max.max(own));
        }
        turn.group
            .is_full_with(after - own)
            .then(|| table::INSUFFICIENT_RESOURCES.error())
    }

    /// With `discard: new`: whether the message fits without pushing another out, beside the members `before` it.
    pub(super) fn check_room(
        &self,
        turn: &Turn<'_>,
        publish: &Publish,
        is_rollup: bool,
        before: &[Publish],
    ) -> Result<Option<ApiError>, Fault> {
        if self.config.discard != Discard::New {
            return Ok(None);
        }
        let refuse = |what: &str| {
            Ok(Some(
                table::STREAM_STORE_FAILED.with(format!("maximum {what} exceeded")),
            ))
        };
        let mut replaces = 0;
        if let Some(max) = StreamConfig::limit(self.config.max_msgs_per_subject) {
            let earlier = before
                .iter()
                .filter(|one| one.subject() == publish.subject())
                .count() as u64;
            let totals = turn.store.subject_totals(self.id, publish.subject())?;
            let held = totals.as_ref().map_or(0, |totals| totals.messages);
            // A rollup takes the place of what is there: a key whose subject is full can be purged.
            if self.config.discard_new_per_subject && !is_rollup && held + earlier >= max {
                return refuse("messages per subject");
            }
            if let Some(totals) = totals.filter(|totals| totals.messages >= max) {
                // The oldest of its subject makes room for it.
                let oldest = turn.store.get(self.id, totals.first_seq)?;
                replaces = oldest.map_or(0, |message| message.size());
            }
        }
        let state = turn.store.state(self.id)?;
        let messages = state.messages + before.len() as u64;
        if StreamConfig::limit(self.config.max_msgs)
            .is_some_and(|max| replaces == 0 && messages >= max)
        {
            return refuse("messages");
        }
        let size = before.iter().map(|one| self.message_size(one)).sum::<u64>()
            + self.message_size(publish);
        if StreamConfig::limit(self.config.max_bytes)
            .is_some_and(|max| state.bytes - replaces + size > max)
        {
            return refuse("bytes");
        }
        Ok(None)
    }

    /// What the message would count for in the stream's bytes.
    fn message_size(&self, publish: &Publish) -> u64 {
        self.overhead()
            .size(publish.record.len(), publish.headers_len)
    }

    pub(super) const fn overhead(&self) -> Overhead {
        match self.config.storage {
            Storage::File => Overhead::FILE,
            Storage::Memory => Overhead::MEMORY,
        }
    }

    fn roll_up(
        &mut self,
        turn: &mut Turn<'_>,
        rollup: Rollup,
        subject: &[u8],
        seq: u64,
    ) -> Result<(), Fault> {
        let filters = match rollup {
            Rollup::All => Filters::everything(),
            Rollup::Subject => match Filters::parse(&[subject]) {
                Ok(filters) => filters,
                // A subject with wildcard tokens cannot be published; nothing older can have it.
                Err(_) => return Ok(()),
            },
        };
        let purge = halyard_engine::Purge {
            filters,
            below: Some(seq),
            keep: None,
        };
        if turn.store.purge(self.id, &purge, Erase::Yes)? > 0 {
            turn.erased = true;
            self.removed_many(turn)?;
        }
        Ok(())
    }
}

/// Conditions that need the configuration only.
pub(super) fn check_shape(
    config: &StreamConfig,
    publish: &Publish,
    asked: &Asked<'_>,
) -> Result<(), ApiError> {
    if config.sealed {
        return Err(table::STREAM_SEALED.error());
    }
    if let Some(counts) = asked.counts {
        return Err(counts.error());
    }
    if asked
        .expected_stream
        .is_some_and(|name| name != config.name.as_bytes())
    {
        return Err(table::STREAM_NOT_MATCH.error());
    }
    check_size(config, publish)
}

/// Whether a message asks for a feature that is off.
pub(super) fn check_features(asked: &Asked<'_>) -> Result<(), ApiError> {
    asked.refused.map_or(Ok(()), |refused| Err(refused.error()))
}

/// Conditions on the size of a message.
pub(super) fn check_size(config: &StreamConfig, publish: &Publish) -> Result<(), ApiError> {
    if StreamConfig::limit(config.max_msg_size).is_some_and(|max| publish.size() as u64 > max) {
        return Err(table::STREAM_MESSAGE_EXCEEDS_MAXIMUM.error());
    }
    if publish.headers().len() >= HEADER_BYTES_MAX {
        return Err(table::STREAM_HEADER_EXCEEDS_MAXIMUM.error());
    }
    Ok(())
}

/// Whether a message may have a life span of its own, if it asks for one that can be read.
fn check_ttl_allowed(config: &StreamConfig, asked: &Asked<'_>) -> Result<(), ApiError> {
    match asked.ttl.and_then(headers::parse_ttl) {
        Some(_) if !config.allow_msg_ttl => Err(table::MESSAGE_TTL_DISABLED.error()),
        _ => Ok(()),
    }
}

pub(super) fn check_rollup(
    config: &StreamConfig,
    asked: Option<&[u8]>,
) -> Result<Option<Rollup>, ApiError> {
    let Some(asked) = asked else {
        return Ok(None);
    };
    if !config.allow_rollup_hdrs || config.deny_purge {
        return Err(table::STREAM_ROLLUP_FAILED.with("rollup not permitted"));
    }
    match asked.to_ascii_lowercase().as_slice() {
        b"sub" => Ok(Some(Rollup::Subject)),
        b"all" => Ok(Some(Rollup::All)),
        _ => {
            let value = String::from_utf8_lossy(asked);
            Err(table::STREAM_ROLLUP_FAILED.with(format!("rollup value invalid: \"{value}\"")))
        }
    }
}
