//! What a publisher asks for in `Nats-*` headers: conditions, deduplication, rollup, its own age limit.
//!
//! One pass over the header block, nothing copied. Names are matched exactly, as the peer does; the first of several
//! equal names counts, and an empty value asks for nothing, as if the line were not there.

use crate::jetstream::api::errors::{ApiError, table};
use crate::jetstream::limits::API_LEVEL;

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
    /// `Nats-Batch-Sequence`: which member, from 1; `None` also if it is no number.
    pub batch_seq: Option<u64>,
    /// `Nats-Batch-Commit`: the last member. An empty one is an error of the batch, so it is kept.
    pub batch_commit: Option<&'a [u8]>,
    /// `Nats-Required-Api-Level`; only members of a batch are held to it.
    pub required_level: Option<&'a [u8]>,
    /// `Nats-Incr`, and why it is refused.
    pub counts: Option<Refused>,
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
    /// `Nats-Incr` that is no number.
    Increment,
    /// `Nats-Schedule`, `Nats-Schedule-Time-Zone`.
    Schedule,
    /// `Nats-Scheduler`, `Nats-Schedule-Next`: what only a schedule writes.
    Scheduler,
    /// `Nats-Stream-Source`.
    StreamSource,
}

impl Refused {
    /// What the publisher is told.
    #[must_use]
    pub const fn error(self) -> ApiError {
        match self {
            Self::Counter => table::MESSAGE_INCR_DISABLED.error(),
            Self::Increment => table::MESSAGE_INCR_INVALID.error(),
            Self::Schedule => table::MESSAGE_SCHEDULES_DISABLED.error(),
            Self::Scheduler => table::MESSAGE_SCHEDULES_SCHEDULER_INVALID.error(),
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
    let (mut last_seq, mut last_subject_seq, mut batch_seq) = (None, None, None);
    let (mut counter, mut schedule, mut scheduler, mut source) = (None, None, None, None);
    for (name, value) in pairs(headers) {
        let Some(name) = name.strip_prefix(b"Nats-") else {
            continue;
        };
        let place = match name {
            b"Msg-Id" => &mut asked.msg_id,
            b"Expected-Stream" => &mut asked.expected_stream,
            b"Expected-Last-Msg-Id" => &mut asked.expected_last_msg_id,
            b"Expected-Last-Sequence" => &mut last_seq,
            b"Expected-Last-Subject-Sequence" => &mut last_subject_seq,
            b"Expected-Last-Subject-Sequence-Subject" => &mut asked.expected_subject,
            b"Rollup" => &mut asked.rollup,
            b"TTL" => &mut asked.ttl,
            b"Incr" => &mut counter,
            b"Batch-Id" => &mut asked.batch_id,
            b"Batch-Sequence" => &mut batch_seq,
            b"Batch-Commit" => &mut asked.batch_commit,
            b"Required-Api-Level" => &mut asked.required_level,
            b"Schedule" | b"Schedule-Time-Zone" => &mut schedule,
            b"Scheduler" | b"Schedule-Next" => &mut scheduler,
            b"Stream-Source" => &mut source,
            _ => continue,
        };
        place.get_or_insert(value);
    }
    for place in [
        &mut asked.msg_id,
        &mut asked.expected_stream,
        &mut asked.expected_last_msg_id,
        &mut asked.expected_subject,
        &mut asked.rollup,
        &mut asked.ttl,
        &mut asked.batch_id,
        &mut asked.required_level,
    ] {
        *place = given(*place);
    }
    asked.expected_last_seq = given(last_seq).map(expected);
    asked.expected_last_subject_seq = given(last_subject_seq).map(expected);
    asked.batch_seq = batch_seq.and_then(number);
    asked.counts = given(counter).map(|value| match is_increment(value) {
        true => Refused::Counter,
        false => Refused::Increment,
    });
    asked.refused = [
        (schedule, Refused::Schedule),
        (scheduler, Refused::Scheduler),
        (source, Refused::StreamSource),
    ]
    .into_iter()
    .find_map(|(value, refused)| given(value).map(|_| refused));
    asked
}

/// A value that is not empty.
fn given(value: Option<&[u8]>) -> Option<&[u8]> {
    value.filter(|value| !value.is_empty())
}

/// A whole number of any size, with or without a sign.
fn is_increment(value: &[u8]) -> bool {
    let digits = value.strip_prefix(b"-").or(value.strip_prefix(b"+"));
    let digits = digits.unwrap_or(value);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// Whether this server's API is of that level or a later one; text that is no number is none.
#[must_use]
pub fn has_level(required: &[u8]) -> bool {
    str::from_utf8(required)
        .ok()
        .and_then(|level| level.parse::<i64>().ok())
        .is_some_and(|level| level <= i64::from(API_LEVEL))
}

/// Names and values of a header block; lines without a colon are passed over. Blanks before a value do not count, what is
/// behind it does, as with the peer.
pub fn pairs(headers: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers
        .split(|byte| *byte == b'\n')
        .skip(1)
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = line.split_at_checked(colon)?;
            let mut value = value.get(1..)?;
            value = value.strip_suffix(b"\r").unwrap_or(value);
            while let Some(rest) = value.strip_prefix(b" ") {
                value = rest;
            }
            Some((name, value))
        })
}

/// The block without the lines of that name.
#[must_use]
pub fn without(headers: &[u8], name: &[u8]) -> Vec<u8> {
    let is_named = |line: &[u8]| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.first() == Some(&b':'))
    };
    let lines = headers.split_inclusive(|byte| *byte == b'\n');
    let kept = lines
        .enumerate()
        .filter(|(at, line)| *at == 0 || !is_named(line));
    kept.flat_map(|(_, line)| line).copied().collect()
}

/// A life span: `never`, whole seconds, or a Go duration, of at least one second. `None`: none of them.
#[must_use]
pub fn parse_ttl(value: &[u8]) -> Option<Ttl> {
    if value.eq_ignore_ascii_case(b"never") {
        return Some(Ttl::Never);
    }
    let text = str::from_utf8(value).ok()?;
    let nanos = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than three centuries are as many as there are nanoseconds.
        text.parse::<i64>().ok()?.saturating_mul(1_000_000_000)
    } else {
        go_duration(text)?
    };
    (nanos >= 1_000_000_000).then_some(Ttl::Nanos(nanos))
}

/// A Go duration such as `1h15m30.5s`, in nanoseconds. What is finer than a nanosecond is cut off.
#[must_use]
pub fn go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let mut total: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(unit_at)?;
        let unit_len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_len)?;
        total = total.checked_add(scaled(number, nanos_of(unit)?)?)?;
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Nanoseconds of a unit of time.
fn nanos_of(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        // The micro sign and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// A decimal number, at least one digit, times `scale`.
fn scaled(number: &str, scale: i128) -> Option<i128> {
    /// Digits behind the point that can matter: an hour has fewer than 10^13 nanoseconds.
    const FRACTION_DIGITS: usize = 18;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction = fraction.get(..FRACTION_DIGITS).unwrap_or(fraction);
    let digits = |text: &str| match text {
        "" => Some(0),
        text => text.parse::<i128>().ok(),
    };
    let power = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let whole = digits(whole)?.checked_mul(scale)?;
    whole.checked_add(digits(fraction)? * scale / power)
}

/// A number of seconds as Go writes such a duration: `90` is `1m30s`.
#[must_use]
pub fn go_seconds(seconds: i64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn expected(value: &[u8]) -> Expected {
    number(value).map_or(Expected::Nothing, Expected::Seq)
}

fn number(value: &[u8]) -> Option<u64> {
    // No sign.
    value.first().filter(|first| first.is_ascii_digit())?;
    str::from_utf8(value).ok()?.parse().ok()
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
        assert_eq!(parse_ttl(b"Never"), Some(Ttl::Never));
        assert_eq!(parse_ttl(b"+5s"), Some(Ttl::Nanos(5_000_000_000)));
        assert_eq!(parse_ttl(b"00005"), Some(Ttl::Nanos(5_000_000_000)));
        assert_eq!(parse_ttl(b"1.s"), Some(Ttl::Nanos(1_000_000_000)));
        assert_eq!(parse_ttl(b".5m"), Some(Ttl::Nanos(30_000_000_000)));
        assert_eq!(
            parse_ttl("1\u{b5}s2s".as_bytes()),
            Some(Ttl::Nanos(2_000_001_000))
        );
        assert_eq!(
            parse_ttl(b"2562047h"),
            Some(Ttl::Nanos(2_562_047 * 3600 * 1_000_000_000))
        );
        for eternal in [&b"9223372037"[..], b"9223372036854775807"] {
            assert_eq!(parse_ttl(eternal), Some(Ttl::Nanos(i64::MAX)));
        }
        let bad = [
            &b"0"[..],
            b"-1",
            b"",
            b"500ms",
            b"5 s",
            b"abc",
            b"s",
            b"1x",
            b"+5",
            b"-5s",
            b"1.5",
            b"1d",
            b"0x10",
            b"1_000",
            b"999ms",
            b"2562048h",
            b"9223372036854775808",
            b".s",
            b"1s1",
            b"-",
            b"+",
            b"1.2.3s",
        ];
        for bad in bad {
            assert_eq!(parse_ttl(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn seconds_as_go_writes_them() {
        let written = [1, 59, 60, 90, 3600, 3661, 360_000].map(go_seconds);
        let expected = ["1s", "59s", "1m0s", "1m30s", "1h0m0s", "1h1m1s", "100h0m0s"];
        assert_eq!(written, expected);
    }

    #[test]
    fn an_empty_value_asks_for_nothing() {
        let names = [
            "Msg-Id",
            "Expected-Stream",
            "Expected-Last-Msg-Id",
            "Expected-Last-Sequence",
            "Expected-Last-Subject-Sequence",
            "Expected-Last-Subject-Sequence-Subject",
            "Rollup",
            "TTL",
            "Incr",
            "Batch-Id",
            "Batch-Sequence",
            "Required-Api-Level",
            "Schedule",
            "Schedule-Time-Zone",
            "Scheduler",
            "Schedule-Next",
            "Stream-Source",
        ];
        for name in names {
            for empty in ["", " ", "   "] {
                // The first line of a name counts, also where it says nothing.
                let block = format!("NATS/1.0\r\nNats-{name}:{empty}\r\nNats-{name}: 3\r\n\r\n");
                assert_eq!(parse(block.as_bytes()), Asked::default(), "{name}");
            }
            let block = format!("NATS/1.0\r\nNats-{name}: 3\r\n\r\n");
            assert_ne!(parse(block.as_bytes()), Asked::default(), "{name}");
        }
    }

    #[test]
    fn a_level_is_a_number() {
        assert!(has_level(b"0") && has_level(API_LEVEL.to_string().as_bytes()));
        // One below zero demands nothing, as with the peer.
        assert!(!has_level(b"99") && !has_level(b"abc") && has_level(b"-1"));
    }
}
