//! Points of time as the API writes them: RFC 3339 with up to nine digits of a second, in UTC.

use halyard_runtime::time::Timestamp;
use serde::{Deserialize, Deserializer, Serializer};

/// What an empty stream shows as the time of its first and last message.
pub const ZERO: &str = "0001-01-01T00:00:00Z";

const NANOS: i64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

/// Appends `time` as `2026-11-23T17:39:26.019384424Z`; trailing zeros of the fraction are left out.
pub fn write(out: &mut Vec<u8>, time: Timestamp) {
    let nanos = time.as_nanos();
    let seconds = nanos.div_euclid(NANOS);
    let fraction = nanos.rem_euclid(NANOS);
    let (year, month, day) = civil(seconds.div_euclid(DAY_SECONDS));
    let clock = seconds.rem_euclid(DAY_SECONDS);
    digits(out, year, 4);
    out.push(b'-');
    digits(out, month, 2);
    out.push(b'-');
    digits(out, day, 2);
    out.push(b'T');
    digits(out, clock / 3600, 2);
    out.push(b':');
    digits(out, clock / 60 % 60, 2);
    out.push(b':');
    digits(out, clock % 60, 2);
    if fraction != 0 {
        out.push(b'.');
        digits(out, fraction, 9);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    out.push(b'Z');
}

/// [`write`] into a new string.
#[must_use]
pub fn format(time: Timestamp) -> String {
    let mut out = Vec::with_capacity(30);
    write(&mut out, time);
    String::from_utf8(out).unwrap_or_default()
}

/// [`format`], or [`ZERO`] for no time.
#[must_use]
pub fn format_option(time: Option<Timestamp>) -> String {
    time.map_or_else(|| ZERO.to_string(), format)
}

/// Reads RFC 3339 with any offset. `None`: it is not one, or beyond what 64 bits of nanoseconds hold.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = bytes.get(range)?;
        part.iter().try_fold(0_i64, |sum, b| {
            b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0'))
        })
    };
    let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|byte| wanted.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let mut at = 19;
    let mut fraction = 0;
    if is(at, b".") {
        at += 1;
        let mut scale = NANOS / 10;
        while let Some(digit) = bytes.get(at).filter(|byte| byte.is_ascii_digit()) {
            fraction += i64::from(digit - b'0') * scale;
            scale /= 10;
            at += 1;
        }
    }
    let offset = match bytes.get(at)? {
        b'Z' | b'z' if bytes.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == at + 6 && is(at + 3, b":") => {
            let seconds = number(at + 1..at + 3)? * 3600 + number(at + 4..at + 6)? * 60;
            if *sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    let seconds =
        days(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second - offset;
    let nanos = seconds.checked_mul(NANOS)?.checked_add(fraction)?;
    Some(Timestamp::from_nanos(nanos))
}

/// For `#[serde(with = ...)]`-less optional times in requests.
///
/// # Errors
/// The text is not RFC 3339.
pub fn deserialize_option<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<Option<Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(input)? else {
        return Ok(None);
    };
    if text == ZERO {
        return Ok(None);
    }
    parse(&text)
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom(format!("parsing time {text:?}")))
}

/// The other way: absent is the wire's zero time.
///
/// # Errors
/// Only the serializer's own.
pub fn serialize_option<S: Serializer>(
    time: &Option<Timestamp>,
    out: S,
) -> Result<S::Ok, S::Error> {
    out.serialize_str(&format_option(*time))
}

fn digits(out: &mut Vec<u8>, value: i64, width: usize) {
    let start = out.len();
    out.resize(start + width, b'0');
    let mut rest = value;
    for place in out.iter_mut().skip(start).rev() {
        *place = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
}

/// Days since 1970-01-01 of a day of the Gregorian calendar (years counted from March, 400-year eras).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The other way.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_points() {
        assert_eq!(format(Timestamp::from_nanos(0)), "1970-01-01T00:00:00Z");
        assert_eq!(
            format(Timestamp::from_nanos(1_500_000_000)),
            "1970-01-01T00:00:01.5Z"
        );
        let text = "2026-11-23T17:39:26.019384424Z";
        assert_eq!(parse(text).map(format).as_deref(), Some(text));
        assert_eq!(
            parse("2000-02-29T23:59:59+01:00").map(format).as_deref(),
            Some("2000-02-29T22:59:59Z")
        );
        for bad in [
            "",
            "2026-11-23",
            "2026-13-23T00:00:00Z",
            "2026-11-23T17:39:26",
            "2026-11-23T17:39:26Zx",
            "9999-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parse_undoes_format(nanos in 0_i64..i64::MAX) {
            let time = Timestamp::from_nanos(nanos);
            prop_assert_eq!(parse(&format(time)), Some(time));
        }
    }
}
