//! Points of time as the API writes them: RFC 3339 with up to nine digits of a second, ours in UTC, a client's as it came.

use halyard_runtime::time::Timestamp;
use jiff::SignedDuration;
use jiff::civil::{Date, DateTime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What an empty stream shows as the time of its first and last message.
pub const ZERO: &str = "0001-01-01T00:00:00Z";

const NANOS: i64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
/// The zero of Go's times, the first moment of year 1, in seconds since the Unix epoch.
const ZERO_SECONDS: i64 = -62_135_596_800;

/// Appends `time` as `2026-11-23T17:39:26.019384424Z`; trailing zeros of the fraction are left out.
pub fn write(out: &mut Vec<u8>, time: Timestamp) {
    let nanos = time.as_nanos();
    write_clock(out, nanos.div_euclid(NANOS), nanos.rem_euclid(NANOS));
    out.push(b'Z');
}

/// Day and clock, without a zone; of years that have more or less than four digits the nearest.
fn write_clock(out: &mut Vec<u8>, seconds: i64, fraction: i64) {
    let at = EPOCH.saturating_add(SignedDuration::from_secs(seconds));
    digits(out, i64::from(at.year().max(0)), 4);
    out.push(b'-');
    digits(out, at.month().into(), 2);
    out.push(b'-');
    digits(out, at.day().into(), 2);
    out.push(b'T');
    digits(out, at.hour().into(), 2);
    out.push(b':');
    digits(out, at.minute().into(), 2);
    out.push(b':');
    digits(out, at.second().into(), 2);
    if fraction != 0 {
        out.push(b'.');
        digits(out, fraction, 9);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// [`write`] into a new string.
#[must_use]
pub fn format(time: Timestamp) -> String {
    let mut out = Vec::with_capacity(30);
    write(&mut out, time);
    String::from_utf8(out).expect("digits and signs are text")
}

/// [`format`], or [`ZERO`] for no time.
#[must_use]
pub fn format_option(time: Option<Timestamp>) -> String {
    time.map_or_else(|| ZERO.to_string(), format)
}

/// Reads a time that the API wrote. `None`: it is none.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    Moment::parse(text).map(Moment::timestamp)
}

/// A point of time as a client wrote it: years 0 to 9999, with its offset from UTC, which is shown again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since the Unix epoch.
    seconds: i64,
    /// Nanoseconds beyond them.
    nanos: u32,
    /// Seconds by which the client's clock is ahead of UTC.
    offset: i32,
}

impl Moment {
    /// Reads RFC 3339 as Go's JSON reader does: an hour may have one digit, a comma may begin the fraction, an offset may
    /// reach 24:60. `None`: it is not that.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let two = |at: usize, max: i64| number(bytes, at, 2).filter(|value| *value <= max);
        let is = |at: usize, wanted: u8| bytes.get(at) == Some(&wanted);
        // Where the clock's minutes begin.
        let minute = if is(12, b':') { 13 } else { 14 };
        let colons = is(minute - 1, b':') && is(minute + 2, b':');
        if !(is(4, b'-') && is(7, b'-') && is(10, b'T') && colons) {
            return None;
        }
        let day = day(
            number(bytes, 0, 4)?,
            number(bytes, 5, 2)?,
            number(bytes, 8, 2)?,
        )?;
        let hour = number(bytes, 11, minute - 12).filter(|hour| *hour < 24)?;
        let clock = hour * 3600 + two(minute, 59)? * 60 + two(minute + 3, 59)?;
        let (mut at, mut nanos) = (minute + 5, 0);
        if is(at, b'.') || is(at, b',') {
            let fraction = bytes.get(at + 1..)?.iter();
            let count = fraction.take_while(|byte| byte.is_ascii_digit()).count();
            let known = count.min(9);
            nanos = number(bytes, at + 1, known)? * 10_i64.pow(9 - u32::try_from(known).ok()?);
            at += 1 + count;
            if count == 0 {
                return None;
            }
        }
        let offset = match bytes.get(at)? {
            b'Z' if bytes.len() == at + 1 => 0,
            sign @ (b'+' | b'-') if bytes.len() == at + 6 && is(at + 3, b':') => {
                let seconds = two(at + 1, 24)? * 3600 + two(at + 4, 60)? * 60;
                if *sign == b'+' { seconds } else { -seconds }
            }
            _ => return None,
        };
        Some(Self {
            seconds: day * DAY_SECONDS + clock - offset,
            nanos: u32::try_from(nanos).ok()?,
            offset: i32::try_from(offset).ok()?,
        })
    }

    /// The same point in 64 bits of nanoseconds; the nearest that they hold for one outside the years 1677 to 2262.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        let nanos = self
            .seconds
            .saturating_mul(NANOS)
            .saturating_add(i64::from(self.nanos));
        Timestamp::from_nanos(nanos)
    }

    /// Nanoseconds from `time` until then: at most (and at least) what 64 bits hold.
    #[must_use]
    pub fn nanos_after(self, time: Timestamp) -> i64 {
        let nanos = i128::from(self.seconds) * i128::from(NANOS) + i128::from(self.nanos);
        let after = nanos - i128::from(time.as_nanos());
        i64::try_from(after).unwrap_or(if after < 0 { i64::MIN } else { i64::MAX })
    }

    /// The same point, shown in UTC.
    #[must_use]
    pub const fn in_utc(self) -> Self {
        Self { offset: 0, ..self }
    }

    /// Whether it is the zero of Go's times, which stands for none.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.nanos == 0 && self.seconds == ZERO_SECONDS
    }
}

impl From<Timestamp> for Moment {
    fn from(time: Timestamp) -> Self {
        let nanos = time.as_nanos();
        Self {
            seconds: nanos.div_euclid(NANOS),
            nanos: u32::try_from(nanos.rem_euclid(NANOS)).unwrap_or(0),
            offset: 0,
        }
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = Vec::with_capacity(36);
        write_clock(
            &mut out,
            self.seconds + i64::from(self.offset),
            i64::from(self.nanos),
        );
        if self.offset == 0 {
            out.push(b'Z');
        } else {
            out.push(if self.offset > 0 { b'+' } else { b'-' });
            let minutes = i64::from(self.offset.unsigned_abs()) / 60;
            digits(&mut out, minutes / 60, 2);
            out.push(b':');
            digits(&mut out, minutes % 60, 2);
        }
        f.write_str(&String::from_utf8_lossy(&out))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let wrong = || serde::de::Error::custom(format_args!("parsing time {text:?}"));
        Self::parse(&text).ok_or_else(wrong)
    }
}

/// So many decimal digits from `at` on.
fn number(bytes: &[u8], at: usize, count: usize) -> Option<i64> {
    bytes
        .get(at..at + count)?
        .iter()
        .try_fold(0_i64, |sum, byte| {
            byte.is_ascii_digit()
                .then(|| sum * 10 + i64::from(byte - b'0'))
        })
}

/// Days since 1970-01-01 of a day of the calendar. `None`: there is no such day.
fn day(year: i64, month: i64, day: i64) -> Option<i64> {
    let (year, month, day) = (year.try_into(), month.try_into(), day.try_into());
    let date = Date::new(year.ok()?, month.ok()?, day.ok()?).ok()?;
    Some(date.duration_since(EPOCH.date()).as_hours() / 24)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What it is shown as.
    fn shown(text: &str) -> Option<String> {
        Moment::parse(text).map(|moment| moment.to_string())
    }

    #[test]
    fn known_points() {
        assert_eq!(format(Timestamp::from_nanos(0)), "1970-01-01T00:00:00Z");
        assert_eq!(
            format(Timestamp::from_nanos(1_500_000_000)),
            "1970-01-01T00:00:01.5Z"
        );
        for text in [
            "2026-11-23T17:39:26.019384424Z",
            "2000-02-29T23:59:59+01:00",
            "2000-02-29T23:59:59-23:59",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "1600-06-01T00:00:00Z",
        ] {
            assert_eq!(shown(text).as_deref(), Some(text));
        }
        let odd = "2020-01-01T7:00:00,5Z";
        assert_eq!(shown(odd).as_deref(), Some("2020-01-01T07:00:00.5Z"));
        let cut = "2020-01-01T00:00:00.1234567899Z";
        assert_eq!(
            shown(cut).as_deref(),
            Some("2020-01-01T00:00:00.123456789Z")
        );
        assert_eq!(
            shown("2020-01-01T00:00:00+00:00").as_deref(),
            Some("2020-01-01T00:00:00Z")
        );
    }

    #[test]
    fn what_is_no_time_is_none() {
        for bad in [
            "",
            "2026-11-23",
            "2026-13-23T00:00:00Z",
            "2026-00-23T00:00:00Z",
            "2026-11-23T17:39:26",
            "2026-11-23T17:39:26Zx",
            "2026-02-30T00:00:00Z",
            "2021-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2026-11-23T17:39:60Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23 17:39:26Z",
            "2026-11-23t17:39:26Z",
            "2026-11-23T17:39:26z",
            "2026-11-23T17:39:26.Z",
            "2026-11-23T17:39:26+25:00",
            "2026-11-23T17:39:26+01:61",
            "2026-11-23T:39:26Z",
            "2026-11-23T7:9:26Z",
            "2026-11-23T17:39:26+0100",
            "10000-01-01T00:00:00Z",
        ] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_64_bits_do_not_hold_is_the_nearest() {
        let nanos = |text: &str| Moment::parse(text).unwrap().timestamp().as_nanos();
        assert_eq!(nanos("9999-12-31T23:59:59Z"), i64::MAX);
        assert_eq!(nanos("0000-01-01T00:00:00Z"), i64::MIN);
        let after = |text: &str, nanos: i64| {
            let time = Timestamp::from_nanos(nanos);
            Moment::parse(text).unwrap().nanos_after(time)
        };
        assert_eq!(after("9999-12-31T23:59:59Z", i64::MAX), i64::MAX);
        assert_eq!(after("1970-01-01T00:00:01Z", 1), 999_999_999);
        assert_eq!(after("0001-01-01T00:00:00Z", 0), i64::MIN);
        assert!(Moment::parse(ZERO).unwrap().is_zero());
        assert!(!Moment::parse("0001-01-01T00:00:01Z").unwrap().is_zero());
        assert!(
            Moment::parse("0001-01-01T01:00:00+01:00")
                .unwrap()
                .is_zero()
        );
    }

    proptest! {
        #[test]
        fn parse_undoes_format(nanos in i64::MIN / 2..i64::MAX) {
            let time = Timestamp::from_nanos(nanos);
            prop_assert_eq!(Moment::parse(&format(time)).map(Moment::timestamp), Some(time));
            let moment = Moment::from(time);
            prop_assert_eq!(Moment::parse(&moment.to_string()), Some(moment));
        }
    }
}
