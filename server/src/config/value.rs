//! The values of the configuration language, and what a setting makes of them.
//!
//! A value keeps its place in the file, so that every conversion can say where it failed. Conversions accept just what
//! NATS accepts, plus one thing: a scalar that came out of an environment variable may stand for a string, because a
//! password of digits is no less a password.

use std::cell::Cell;
use std::time::Duration;

use super::position::{Position, Problem};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Where it begins.
    pub at: Position,
    /// What it is.
    pub kind: Kind,
    /// The text of a variable of the environment, if it came from one.
    pub raw: Option<String>,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `true`, `yes`, `on` and their opposites.
    Bool(bool),
    /// A whole number; units are multiplied out.
    Integer(i64),
    /// A number with a decimal point.
    Float(f64),
    /// `2014-01-02T10:11:12Z`, as written. No setting takes one.
    Date(String),
    /// Text in any of the four forms.
    String(String),
    /// `[ … ]`
    List(Vec<Value>),
    /// `{ … }`
    Map(Map),
}

/// The entries of a map, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Map {
    /// Later entries win over earlier ones with the same key.
    pub entries: Vec<Entry>,
}

/// One key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key as written.
    pub key: String,
    /// Where the key begins.
    pub at: Position,
    /// Its value.
    pub value: Value,
    /// Whether a `$key` later in the file refers to it: it need not be a setting then.
    pub used: Cell<bool>,
}

impl Value {
    fn expected(&self, what: &str) -> Problem {
        self.at
            .problem(format!("expected {what}, found {}", self.kind.describe()))
    }

    /// Truth.
    pub fn bool(&self) -> Result<bool, Problem> {
        match self.kind {
            Kind::Bool(value) => Ok(value),
            _ => Err(self.expected("true or false")),
        }
    }

    /// A whole number.
    pub fn integer(&self) -> Result<i64, Problem> {
        match self.kind {
            Kind::Integer(value) => Ok(value),
            _ => Err(self.expected("a whole number")),
        }
    }

    /// Text.
    pub fn string(&self) -> Result<&str, Problem> {
        match (&self.kind, &self.raw) {
            (Kind::String(text), _) => Ok(text),
            (Kind::Bool(_) | Kind::Integer(_) | Kind::Float(_) | Kind::Date(_), Some(raw)) => {
                Ok(raw)
            }
            (Kind::List(_) | Kind::Map(_), _) => Err(self.expected("a string")),
            _ => Err(self.at.problem(format!(
                "expected a string, found {}; put it in quotes",
                self.kind.describe()
            ))),
        }
    }

    /// The entries of a map.
    pub fn map(&self) -> Result<&Map, Problem> {
        match &self.kind {
            Kind::Map(map) => Ok(map),
            _ => Err(self.expected("a map { … }")),
        }
    }

    /// The values of a list.
    pub fn list(&self) -> Result<&[Self], Problem> {
        match &self.kind {
            Kind::List(values) => Ok(values),
            _ => Err(self.expected("a list [ … ]")),
        }
    }

    /// A whole number of at least zero.
    pub fn count(&self) -> Result<u64, Problem> {
        let value = self.integer()?;
        u64::try_from(value)
            .map_err(|_| self.at.problem(format!("must not be negative, is {value}")))
    }

    /// Bytes: a number, or a string with one of the units K, M, G, T (powers of 1024).
    pub fn bytes(&self) -> Result<u64, Problem> {
        let Kind::String(text) = &self.kind else {
            return self.count();
        };
        let bad = || {
            self.at
                .problem(format!("\"{text}\" is not a size: use 1000, 64MB or 2GiB"))
        };
        let digits_len = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, unit) = text.split_at(digits_len);
        let shift = match unit.to_ascii_uppercase().as_str() {
            "" => 0,
            "K" | "KB" | "KIB" => 10,
            "M" | "MB" | "MIB" => 20,
            "G" | "GB" | "GIB" => 30,
            "T" | "TB" | "TIB" => 40,
            _ => return Err(bad()),
        };
        let value: u64 = digits.parse().map_err(|_| bad())?;
        value.checked_mul(1 << shift).ok_or_else(bad)
    }

    /// A duration: a string like "2m30s". A bare number is seconds, as NATS has it; `warn` hears of it.
    pub fn duration(&self, warn: &mut Vec<Problem>) -> Result<Duration, Problem> {
        match &self.kind {
            Kind::Integer(seconds) => {
                let seconds = u64::try_from(*seconds)
                    .map_err(|_| self.at.problem("a duration must not be negative"))?;
                warn.push(
                    self.at
                        .problem(format!("{seconds} is read as seconds; write {seconds}s")),
                );
                Ok(Duration::from_secs(seconds))
            }
            Kind::Float(seconds) => Duration::try_from_secs_f64(*seconds)
                .map_err(|_| self.at.problem("a duration must not be negative")),
            Kind::String(text) => parse_duration(text).ok_or_else(|| {
                self.at.problem(format!(
                    "\"{text}\" is not a duration: use 300ms, 10s or 2m30s"
                ))
            }),
            _ => Err(self.expected("a duration like 2m30s")),
        }
    }

    /// A string, or a list of strings.
    pub fn strings(&self) -> Result<Vec<String>, Problem> {
        match &self.kind {
            Kind::List(values) => values
                .iter()
                .map(|v| v.string().map(str::to_owned))
                .collect(),
            _ => self.string().map(|text| vec![text.to_owned()]),
        }
    }
}

impl Kind {
    fn describe(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => format!("the number {value}"),
            Self::Float(value) => format!("the number {value}"),
            Self::Date(text) => format!("the date {text}"),
            Self::String(text) => format!("the string \"{text}\""),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

/// Reads `1h2m3.5s` and the like: one or more numbers, each with one of the units h m s ms us µs ns.
///
/// `None` for anything else, negative durations included.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(unit_at);
        let unit_len = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        let nanos = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" | "μs" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        total = total.checked_add(scale(number, nanos)?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

/// `number` (digits with at most one point) times `unit_nanos`, exact; what is below a nanosecond is cut.
fn scale(number: &str, unit_nanos: u64) -> Option<Duration> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut nanos = u128::from(whole) * u128::from(unit_nanos);
    let mut place = u128::from(unit_nanos);
    for digit in fraction.chars() {
        place /= 10;
        nanos += u128::from(digit.to_digit(10)?) * place;
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    let rest = u32::try_from(nanos % 1_000_000_000).ok()?;
    Some(Duration::new(seconds, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let ms = Duration::from_millis;
        assert_eq!(parse_duration("2m30s"), Some(ms(150_000)));
        assert_eq!(parse_duration("1.5s"), Some(ms(1500)));
        assert_eq!(parse_duration(".5s"), Some(ms(500)));
        assert_eq!(parse_duration("1h"), Some(ms(3_600_000)));
        assert_eq!(parse_duration("300us"), Some(Duration::from_micros(300)));
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
        for bad in [
            "",
            "1",
            "1x",
            "s",
            ".s",
            "-1s",
            "1.2.3s",
            "1s2",
            "99999999999999999999h",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
