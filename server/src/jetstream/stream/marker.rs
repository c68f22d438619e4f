//! Markers: what is left of a subject whose last message went by age, so that who watches it learns that it ended.
//!
//! A marker is a message without a body that the stream stores in place of the last one. It lives for a while of its own
//! and leaves nothing behind. So that no message can hide behind an older one that outlives it, a message that asks for a
//! shorter life than a marker's gets the marker's.

use bytes::Bytes;
use halyard_engine::{Store, StreamId};

use super::expiry::expiry;
use super::headers::{self, Asked, Ttl, go_seconds, pairs, parse_ttl};
use super::machine::{Fault, Stream, Turn};
use crate::jetstream::api::errors::{ApiError, table};
use crate::jetstream::config::StreamConfig;
use crate::jetstream::consumer::Effect;
use crate::jetstream::group::command::Publish;

const NANOS: i64 = 1_000_000_000;

impl Stream {
    /// The subject that gets a marker when this message goes by age; `None`: none does.
    pub(super) fn marked_subject(&self, store: &Store, seq: u64) -> Result<Option<Bytes>, Fault> {
        // A sealed stream takes no new message, this one neither.
        if marker_seconds(&self.config).is_none() || self.config.sealed {
            return Ok(None);
        }
        let Some(subject) = store.subject_of(self.id, seq)? else {
            return Ok(None);
        };
        if store.subject_messages(self.id, &subject) != 1 {
            return Ok(None);
        }
        if halyard_runtime::planted("missing-marker") && seq.is_multiple_of(4) {
            return Ok(None);
        }
        let says_so = match store.get(self.id, seq) {
            Ok(message) => message.is_some_and(|message| tells_an_end(message.headers())),
            // Not known, since its bytes are damaged. That it ended is worth telling twice.
            Err(Fault::Corrupt { .. }) => false,
            Err(error) => return Err(error),
        };
        Ok((!says_so).then_some(subject))
    }

    /// Stores the marker of a subject that has no message any more. One that a full stream has no room for is left out:
    /// limits hold.
    pub(super) fn store_marker(
        &mut self,
        turn: &mut Turn<'_>,
        subject: &[u8],
    ) -> Result<(), Fault> {
        let Some(seconds) = marker_seconds(&self.config) else {
            return Ok(());
        };
        let Some(marker) = marker(self.id, subject, seconds) else {
            return Ok(());
        };
        if self.check_room(turn, &marker, false, &[])?.is_some() {
            return Ok(());
        }
        let expires = expiry(Ttl::Nanos(seconds.saturating_mul(NANOS)), turn.now);
        let (_, stored) = self.store(turn, &marker, Some(expires))?;
        if self.last_msg_id.set(None) {
            self.touch();
        }
        if stored {
            self.make_room(turn, subject)?;
            let news = (self.id, Effect::Stored);
            if turn.effects.last() != Some(&news) {
                turn.effects.push(news);
            }
        }
        Ok(())
    }
}

/// The life span that a message asks for, in `publish` too if it has to be longer than asked.
///
/// # Errors
/// It cannot be read.
pub(super) fn life_span(
    config: &StreamConfig,
    publish: &mut Publish,
    asked: &Asked<'_>,
) -> Result<Option<Ttl>, ApiError> {
    let Some(text) = asked.ttl else {
        return Ok(None);
    };
    let ttl = parse_ttl(text).ok_or_else(|| table::MESSAGE_TTL_INVALID.error())?;
    match (ttl, marker_seconds(config)) {
        // With one message a subject nothing can come to light.
        (Ttl::Nanos(nanos), Some(least))
            if nanos / NANOS < least && config.max_msgs_per_subject != 1 =>
        {
            *publish = with_life_span(publish, least);
            Ok(Some(Ttl::Nanos(least.saturating_mul(NANOS))))
        }
        _ => Ok(Some(ttl)),
    }
}

/// How long markers live; `None`: the stream has none.
fn marker_seconds(config: &StreamConfig) -> Option<i64> {
    Some(config.subject_delete_marker_ttl / NANOS).filter(|seconds| *seconds > 0)
}

/// Whether the message itself says that its subject ended: a marker, or a key that was purged.
fn tells_an_end(block: &[u8]) -> bool {
    let first = |wanted: &[u8]| {
        let mut all = pairs(block).filter(|(name, _)| *name == wanted);
        all.next().map_or(&b""[..], |(_, value)| value)
    };
    !first(b"Nats-Marker-Reason").is_empty() || first(b"KV-Operation") == b"PURGE"
}

/// The marker of a subject; `None` for a subject that is longer than a message can say.
fn marker(stream: StreamId, subject: &[u8], seconds: i64) -> Option<Publish> {
    let headers = format!(
        "NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: {}\r\nNats-Rollup: sub\r\n\r\n",
        go_seconds(seconds)
    );
    Some(Publish {
        stream,
        subject_len: u16::try_from(subject.len()).ok()?,
        headers_len: u32::try_from(headers.len()).ok()?,
        record: Bytes::from([subject, headers.as_bytes()].concat()),
    })
}

/// The message with a life span of so many seconds as its last header.
fn with_life_span(publish: &Publish, seconds: i64) -> Publish {
    let block = headers::without(publish.headers(), b"Nats-TTL");
    let line = format!("Nats-TTL: {seconds}\r\n\r\n");
    let kept = block.strip_suffix(b"\r\n").unwrap_or(&block);
    publish.with_headers(&[kept, line.as_bytes()].concat())
}
