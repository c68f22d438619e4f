//! The reply subject of a delivery, and what clients send there.
//!
//! ```text
//! v1  $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time ns>.<to come>
//! v2  $JS.ACK.<domain or _>.<account hash>.<stream>.<consumer>. ... the same ... [.<more>]
//! ```
//!
//! Version 1 is written; both are understood. Parsing allocates nothing: it runs once for each consumed message.

use halyard_runtime::time::Timestamp;

use crate::jetstream::api::json;
use crate::jetstream::consumer::command::Verb;
use crate::jetstream::stream::headers::go_duration;

/// What every ack subject starts with.
pub const PREFIX: &[u8] = b"$JS.ACK.";
/// Tokens of version 1, and the fewest of version 2.
const TOKENS_V1: usize = 9;
const TOKENS_V2: usize = 11;

/// A parsed ack subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckSubject<'a> {
    /// `<stream>.<consumer>`: one lookup finds the consumer.
    pub key: &'a [u8],
    /// Sequence in the stream. What is no number is one that was never delivered.
    pub stream_seq: u64,
    /// Sequence in the consumer, the same.
    pub consumer_seq: u64,
    /// When the message was stored.
    pub stored: Option<Timestamp>,
}

/// Reads an ack subject. `None`: it is none.
pub fn parse(subject: &[u8]) -> Option<AckSubject<'_>> {
    if !subject.starts_with(PREFIX) {
        return None;
    }
    // Where each token starts; more than version 2 needs are not looked at.
    let mut starts = [0_usize; TOKENS_V2 + 1];
    let mut count = 1;
    for (at, byte) in subject.iter().enumerate() {
        if *byte == b'.' {
            if let Some(start) = starts.get_mut(count) {
                *start = at + 1;
            }
            count += 1;
        }
    }
    let first = match count {
        TOKENS_V1 => 2,
        TOKENS_V2.. => 4,
        _ => return None,
    };
    let token = |number: usize| -> Option<&[u8]> {
        let start = *starts.get(number)?;
        let end = match starts.get(number + 1) {
            Some(next) if number + 1 < count => next - 1,
            _ => subject.len(),
        };
        subject.get(start..end)
    };
    let key_end = starts.get(first + 2)?.checked_sub(1)?;
    Some(AckSubject {
        key: subject.get(*starts.get(first)?..key_end)?,
        stream_seq: number(token(first + 3)?).unwrap_or(u64::MAX),
        consumer_seq: number(token(first + 4)?).unwrap_or(u64::MAX),
        stored: token(first + 5)
            .and_then(number)
            .and_then(|nanos| i64::try_from(nanos).ok())
            .map(Timestamp::from_nanos),
    })
}

/// Appends the part that changes with each delivery to a prefix that ends with a dot.
pub fn write(
    out: &mut Vec<u8>,
    count: u32,
    stream_seq: u64,
    consumer_seq: u64,
    time: Timestamp,
    unseen: u64,
) {
    put_number(out, u64::from(count));
    out.push(b'.');
    put_number(out, stream_seq);
    out.push(b'.');
    put_number(out, consumer_seq);
    out.push(b'.');
    put_number(out, u64::try_from(time.as_nanos()).unwrap_or(0));
    out.push(b'.');
    put_number(out, unseen);
}

/// Appends a decimal number.
pub fn put_number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
        at -= 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// What a client says with an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// For the log.
    Verb(Verb<'a>),
    /// Done, and a request for more: the body of a pull request.
    Next(&'a [u8]),
}

/// Reads the body of an ack. Anything that is no verb counts as an ack of nothing: `None`.
pub fn answer(body: &[u8]) -> Option<Answer<'_>> {
    let rest = |verb: &[u8]| body.strip_prefix(verb).map(<[u8]>::trim_ascii);
    if body.is_empty() || body == b"+ACK" || body == b"+OK" {
        return Some(Answer::Verb(Verb::Ack));
    }
    if let Some(rest) = rest(b"-NAK") {
        return Some(Answer::Verb(Verb::Nak(delay(rest))));
    }
    if body == b"+WPI" {
        return Some(Answer::Verb(Verb::Progress));
    }
    if let Some(rest) = rest(b"+NXT") {
        return Some(Answer::Next(rest));
    }
    if let Some(rest) = rest(b"+TERM") {
        return Some(Answer::Verb(Verb::Term(
            std::str::from_utf8(rest).unwrap_or_default(),
        )));
    }
    None
}

/// The delay of a nak, nanoseconds: `{"delay": ns}` or a duration as Go writes it. What is neither, or less than nothing, is no
/// delay.
fn delay(text: &[u8]) -> u64 {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Options {
        delay: i64,
    }
    let nanos = match text.first() {
        Some(b'{') => json::parse_one::<Options>(text).map_or(0, |options| options.delay),
        _ => str::from_utf8(text).ok().and_then(go_duration).unwrap_or(0),
    };
    u64::try_from(nanos).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let one = parse(b"$JS.ACK.S.C.1.22.333.1795455966799888943.0").unwrap();
        assert_eq!(
            (one.key, one.stream_seq, one.consumer_seq),
            (&b"S.C"[..], 22, 333)
        );
        for two in [
            &b"$JS.ACK._.hash.S.C.1.22.333.1795455966799888943.0"[..],
            b"$JS.ACK._.hash.S.C.1.22.333.1795455966799888943.0.more.and.more",
        ] {
            assert_eq!(parse(two), Some(one), "{}", String::from_utf8_lossy(two));
        }
        for bad in [
            &b"$JS.ACK.S.C.1.22.333.1795455966799888943"[..],
            b"$JS.ACK",
            b"",
        ] {
            assert_eq!(parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
        for odd in [
            &b"$JS.ACK.S.C.1.x.333.1.0"[..],
            b"$JS.ACK.S.C.1..333.1.0",
            b"$JS.ACK.S.C.1.99999999999999999999999.333.1.0",
        ] {
            let odd = parse(odd).unwrap();
            assert_eq!((odd.stream_seq, odd.consumer_seq), (u64::MAX, 333));
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut subject = b"$JS.ACK.orders.worker.".to_vec();
        write(&mut subject, 2, u64::MAX, 10, Timestamp::from_nanos(12), 0);
        assert_eq!(
            subject,
            b"$JS.ACK.orders.worker.2.18446744073709551615.10.12.0"
        );
        let parsed = parse(&subject).unwrap();
        assert_eq!((parsed.stream_seq, parsed.consumer_seq), (u64::MAX, 10));
    }

    #[test]
    fn bodies() {
        let verb = |body: &'static [u8]| answer(body);
        assert_eq!(verb(b""), Some(Answer::Verb(Verb::Ack)));
        assert_eq!(verb(b"+ACK"), Some(Answer::Verb(Verb::Ack)));
        assert_eq!(verb(b"-NAK"), Some(Answer::Verb(Verb::Nak(0))));
        assert_eq!(
            verb(b"-NAK {\"delay\": 5}"),
            Some(Answer::Verb(Verb::Nak(5)))
        );
        assert_eq!(
            verb(b"-NAK 1m0.5s"),
            Some(Answer::Verb(Verb::Nak(60_500_000_000)))
        );
        for (body, nanos) in [
            (&b"-NAK +60s"[..], 60_000_000_000),
            (b"-NAK -60s", 0),
            (b"-NAK60s", 60_000_000_000),
            (b"-NAK .5h", 1_800_000_000_000),
            (b"-NAK {\"DELAY\":7,\"x\":1}", 7),
            (b"-NAK {\"delay\":-1}", 0),
            (b"-NAK {\"delay\":\"60s\"}", 0),
            (b"-NAK {} {\"delay\":7}", 0),
            (b"-NAK 60", 0),
        ] {
            assert_eq!(verb(body), Some(Answer::Verb(Verb::Nak(nanos))));
        }
        assert_eq!(verb(b"+WPI"), Some(Answer::Verb(Verb::Progress)));
        assert_eq!(verb(b"+NXT 5"), Some(Answer::Next(b"5")));
        assert_eq!(verb(b"+TERM bad"), Some(Answer::Verb(Verb::Term("bad"))));
        assert_eq!(verb(b"nonsense"), None);
    }
}
