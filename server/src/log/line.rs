//! One line of the log, as NATS writes it.

use std::fmt::Write;

use halyard_runtime::time::Timestamp;
use jiff::tz::TimeZone;

/// What kind of line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    Fatal,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Label {
    fn text(self) -> &'static str {
        match self {
            Self::Fatal => "FTL",
            Self::Error => "ERR",
            Self::Warn => "WRN",
            Self::Info => "INF",
            Self::Debug => "DBG",
            Self::Trace => "TRC",
        }
    }

    /// The colour on a terminal, as the code of an escape sequence.
    fn colour(self) -> &'static str {
        match self {
            Self::Fatal | Self::Error => "31",
            Self::Warn => "0;93",
            Self::Info => "32",
            Self::Debug => "36",
            Self::Trace => "33",
        }
    }
}

/// How lines look.
#[derive(Debug)]
pub(super) struct Style {
    /// The time zone of the line's date; `None`: no date.
    zone: Option<TimeZone>,
    colour: bool,
    json: bool,
    pid: u32,
}

impl Style {
    pub(super) fn new(time: bool, utc: bool, colour: bool) -> Self {
        let zone = time.then(|| {
            if utc {
                TimeZone::UTC
            } else {
                TimeZone::system()
            }
        });
        Self {
            zone,
            colour,
            json: false,
            pid: std::process::id(),
        }
    }

    /// The same as JSON objects.
    pub(super) fn json(mut self) -> Self {
        self.json = true;
        self
    }

    /// The line with its end. Line ends within the text stay as they are.
    pub(super) fn line(&self, label: Label, text: &str, now: Timestamp) -> String {
        if self.json {
            return self.object(label, text, now);
        }
        let mut line = String::with_capacity(text.len() + 64);
        // Writing to a string cannot fail.
        let _ = write!(line, "[{}] ", self.pid);
        if let Some(zone) = &self.zone {
            push_time(&mut line, now, zone);
        }
        let _ = match self.colour {
            true => write!(
                line,
                "[\u{1b}[{}m{}\u{1b}[0m] ",
                label.colour(),
                label.text()
            ),
            false => write!(line, "[{}] ", label.text()),
        };
        line.push_str(text);
        line.push('\n');
        line
    }
}

impl Style {
    fn object(&self, label: Label, text: &str, now: Timestamp) -> String {
        let at = jiff::Timestamp::from_nanosecond(i128::from(now.as_nanos())).ok();
        let time = at.filter(|_| self.zone.is_some()).map(|at| at.to_string());
        let mut line = serde_json::json!({
            "time": time,
            "level": label.text(),
            "pid": self.pid,
            "msg": text,
        })
        .to_string();
        line.push('\n');
        line
    }
}

fn push_time(line: &mut String, now: Timestamp, zone: &TimeZone) {
    let Ok(at) = jiff::Timestamp::from_nanosecond(i128::from(now.as_nanos())) else {
        return;
    };
    let at = zone.to_datetime(at);
    let _ = write!(
        line,
        "{:04}/{:02}/{:02} {:02}:{:02}:{:02}.{:06} ",
        at.year(),
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.subsec_nanosecond() / 1000
    );
}

/// What a rotated file's name ends with: `2006.01.02.15.04.05.000000000`, in UTC so that names sort by age.
pub(super) fn backup_suffix(now: Timestamp) -> String {
    let Ok(at) = jiff::Timestamp::from_nanosecond(i128::from(now.as_nanos())) else {
        return now.as_nanos().to_string();
    };
    let at = TimeZone::UTC.to_datetime(at);
    format!(
        "{:04}.{:02}.{:02}.{:02}.{:02}.{:02}.{:09}",
        at.year(),
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.subsec_nanosecond()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_in_utc_and_in_colour() {
        let now = Timestamp::from_nanos(1_136_214_245_123_456_789);
        let pid = std::process::id();
        let line = Style::new(true, true, false).line(Label::Info, "text", now);
        assert_eq!(
            line,
            format!("[{pid}] 2006/01/02 15:04:05.123456 [INF] text\n")
        );
        let line = Style::new(false, true, true).line(Label::Error, "text", now);
        assert_eq!(line, format!("[{pid}] [\u{1b}[31mERR\u{1b}[0m] text\n"));
        let line = Style::new(true, true, false)
            .json()
            .line(Label::Warn, "a \"b\"", now);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({
            "time": "2006-01-02T15:04:05.123456789Z", "level": "WRN", "pid": pid, "msg": "a \"b\""
        });
        assert_eq!(value, expected);
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
        assert_eq!(backup_suffix(now), "2006.01.02.15.04.05.123456789");
    }
}
