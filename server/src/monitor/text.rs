//! Times and durations as the monitor writes them.

use halyard_runtime::time::{Duration, Timestamp};
use serde::{Serialize, Serializer};

/// A point in time as RFC 3339 in UTC, down to the nanosecond, without zeros at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(pub(super) Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0.as_nanos())) {
            Ok(time) => serializer.collect_str(&time),
            Err(_) => serializer.serialize_str("0001-01-01T00:00:00Z"),
        }
    }
}

/// How long something has been up: `1y2d3h4m5s`, without the units in front that are zero.
pub(super) fn uptime(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, s) = (seconds / 60, seconds % 60);
    let (hours, m) = (minutes / 60, minutes % 60);
    let (days, h) = (hours / 24, hours % 24);
    let (y, d) = (days / 365, days % 365);
    if y > 0 {
        format!("{y}y{d}d{h}h{m}m{s}s")
    } else if d > 0 {
        format!("{d}d{h}h{m}m{s}s")
    } else if h > 0 {
        format!("{h}h{m}m{s}s")
    } else if m > 0 {
        format!("{m}m{s}s")
    } else {
        format!("{s}s")
    }
}

/// A round trip time: `649µs`, `1.074ms`, `1.5s`; exact to the microsecond.
pub(super) fn round_trip(duration: Duration) -> String {
    let micros = duration.as_micros();
    let (value, places, unit) = if micros < 1000 {
        return format!("{micros}µs");
    } else if micros < 1_000_000 {
        (micros, 3, "ms")
    } else {
        (micros, 6, "s")
    };
    let scale = 10_u128.pow(places);
    let fraction = format!("{:0width$}", value % scale, width = places as usize);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}{unit}", value / scale)
}

/// What lies between two points, zero if they are the wrong way round.
pub(super) fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    let nanos = later.as_nanos().saturating_sub(earlier.as_nanos());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_times() {
        let up = |seconds| uptime(Duration::from_secs(seconds));
        assert_eq!(up(0), "0s");
        assert_eq!(up(61), "1m1s");
        assert_eq!(up(3600), "1h0m0s");
        assert_eq!(up(366 * 86400 + 5), "1y1d0h0m5s");
        let rtt = |micros| round_trip(Duration::from_micros(micros));
        assert_eq!(rtt(649), "649µs");
        assert_eq!(rtt(1074), "1.074ms");
        assert_eq!(rtt(20_000), "20ms");
        assert_eq!(rtt(1_500_000), "1.5s");
        let time = Time(Timestamp::from_nanos(1_136_214_245_120_000_000));
        assert_eq!(
            serde_json::to_string(&time).unwrap(),
            "\"2006-01-02T15:04:05.12Z\""
        );
    }
}
