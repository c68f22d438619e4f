//! What a publisher asks for in `Nats-*` headers: conditions, deduplication, rollup, its own age limit.
//!
//! One pass over the header block, nothing copied. Names are matched exactly, as the peer does; the first of several
//! equal names counts.

use crate::jetstream::api::errors::{ApiError, table};

/// What a message's headers ask of the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked<'a> {
    /// `Nats-Msg-Id`: store it once.
    pub msg_id: Option<&'a [u8]>,
    /// `Nats-Expected-Stream`.
    pub expected_stream: Option<&'a [u8]>,
    /// `Nats-Expected-Last-Sequence`; text that is no number equals no sequence.
    pub expected_last_seq: Option<Expected>,
    /// `Nats-Expected-Last-Msg-Id`.
    pub expected_last_msg_id: Option<&'a [u8]>,
    /// `Nats-Expected-Last-Subject-Sequence`.
    pub expected_last_subject_seq: Option<Expected>,
    /// `Nats-Expected-Last-Subject-Sequence-Subject`: the filter of the condition above.
    pub expected_subject: Option<&'a [u8]>,
    /// `Nats-Rollup`.
    pub rollup: Option<&'a [u8]>,
    /// `Nats-TTL`.
    pub ttl: Option<&'a [u8]>,
    /// `Nats-Batch-Id`: a member of this atomic batch.
    pub batch_id: Option<&'a [u8]>,
    /// `Nats-Batch-Sequence`: which member, from 1; 0 if it is no number.
    pub batch_seq: Option<u64>,
    /// `Nats-Batch-Commit`: the last member.
    pub batch_commit: Option<&'a [u8]>,
    /// A header that only a feature understands which this server does not have.
    pub refused: Option<Refused>,
}

/// A sequence that a publisher expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// This one; 0 is none yet.
    Seq(u64),
    /// Not a number: nothing can fulfil it.
    Nothing,
}

impl Expected {
    /// Whether the sequence found is the one expected.
    #[must_use]
    pub fn is(self, seq: u64) -> bool {
        self == Self::Seq(seq)
    }
}

/// Headers of features that are off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// `Nats-Incr`.
    Counter,
    /// `Nats-Schedule`.
    Schedule,
    /// `Nats-Stream-Source`.
    StreamSource,
}

impl Refused {
    /// What the publisher is told.
    #[must_use]
    pub const fn error(self) -> ApiError {
        match self {
            Self::Counter => table::MESSAGE_INCR_DISABLED.error(),
            Self::Schedule => table::MESSAGE_SCHEDULES_DISABLED.error(),
            Self::StreamSource => table::MESSAGE_SOURCE_HDR_NOT_ALLOWED.error(),
        }
    }
}

/// How long a message wants to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// So many nanoseconds.
    Nanos(i64),
    /// For ever, even beyond the stream's age limit.
    Never,
}

/// Reads a header block (`NATS/1.0` line and final empty line included).
#[must_use]
pub fn parse(headers: &[u8]) -> Asked<'_> {
    let mut asked = Asked::default();
    for (name, value) in pairs(headers) {
        let Some(name) = name.strip_prefix(b"Nats-") else {
            continue;
        };
        match name {
            b"Msg-Id" => set(&mut asked.msg_id, value),
            b"Expected-Stream" => set(&mut asked.expected_stream, value),
            b"Expected-Last-Msg-Id" => set(&mut asked.expected_last_msg_id, value),
            b"Expected-Last-Sequence" => set(&mut asked.expected_last_seq, expected(value)),
            b"Expected-Last-Subject-Sequence" => {
                set(&mut asked.expected_last_subject_seq, expected(value));
            }
            b"Expected-Last-Subject-Sequence-Subject" => set(&mut asked.expected_subject, value),
            b"Rollup" => set(&mut asked.rollup, value),
            b"TTL" => set(&mut asked.ttl, value),
            b"Incr" => set(&mut asked.refused, Refused::Counter),
            b"Batch-Id" => set(&mut asked.batch_id, value),
            b"Batch-Sequence" => set(&mut asked.batch_seq, number(value).unwrap_or(0)),
            b"Batch-Commit" => set(&mut asked.batch_commit, value),
            b"Schedule" => set(&mut asked.refused, Refused::Schedule),
            b"Stream-Source" => set(&mut asked.refused, Refused::StreamSource),
            _ => {}
        }
    }
    asked
}

/// Names and values of a header block; lines without a colon are passed over.
pub fn pairs(headers: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers
        .split(|byte| *byte == b'\n')
        .skip(1)
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = line.split_at_checked(colon)?;
            Some((name, value.get(1..)?.trim_ascii()))
        })
}

/// A life span: `never`, whole seconds, or a Go duration of at least one second. `None`: none of them.
#[must_use]
pub fn parse_ttl(value: &[u8]) -> Option<Ttl> {
    if value == b"never" {
        return Some(Ttl::Never);
    }
    let text = str::from_utf8(value).ok()?;
    let nanos = match text.parse::<i64>() {
        Ok(seconds) => seconds.checked_mul(1_000_000_000)?,
        Err(_) => go_duration(text)?,
    };
    (nanos >= 1_000_000_000).then_some(Ttl::Nanos(nanos))
}

/// A Go duration such as `1h15m30.5s`, in nanoseconds.
#[must_use]
pub fn go_duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total: f64 = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let unit_len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_len)?;
        let scale: f64 = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    (total < 9e18).then_some(total as i64)
}

fn expected(value: &[u8]) -> Expected {
    number(value).map_or(Expected::Nothing, Expected::Seq)
}

fn number(value: &[u8]) -> Option<u64> {
    str::from_utf8(value).ok()?.parse().ok()
}

fn set<T>(place: &mut Option<T>, value: T) {
    if place.is_none() {
        *place = Some(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_by_exact_name() {
        let block = b"NATS/1.0\r\nnats-msg-id: no\r\nNats-Msg-Id: a\r\nNats-Msg-Id: b\r\nX: Nats-TTL: 5\r\n\
            Nats-Expected-Last-Sequence: 7\r\nNats-Expected-Last-Subject-Sequence: x\r\nNats-Rollup:sub\r\n\r\n";
        let asked = parse(block);
        assert_eq!(asked.msg_id, Some(&b"a"[..]));
        assert_eq!(asked.expected_last_seq, Some(Expected::Seq(7)));
        assert_eq!(asked.expected_last_subject_seq, Some(Expected::Nothing));
        assert_eq!(asked.rollup, Some(&b"sub"[..]));
        assert_eq!((asked.ttl, asked.refused), (None, None));
        assert_eq!(parse(b""), Asked::default());
    }

    #[test]
    fn life_spans() {
        assert_eq!(parse_ttl(b"never"), Some(Ttl::Never));
        assert_eq!(parse_ttl(b"5"), Some(Ttl::Nanos(5_000_000_000)));
        assert_eq!(parse_ttl(b"1m1.5s"), Some(Ttl::Nanos(61_500_000_000)));
        for bad in [&b"0"[..], b"-1", b"", b"500ms", b"5 s", b"abc", b"s", b"1x"] {
            assert_eq!(parse_ttl(bad), None, "{bad:?}");
        }
    }
}
