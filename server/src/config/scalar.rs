//! What a word without quotes is: truth, number, date, or else a string.

use super::position::{Position, Problem};
use super::value::Kind;

/// Suffixes of whole numbers: `k` and its like are powers of 1000, `kb` and `kib` of 1024.
const UNITS: [(char, u32); 6] = [('k', 1), ('m', 2), ('g', 3), ('t', 4), ('p', 5), ('e', 6)];

/// Says what `word`, found at `at`, is.
///
/// # Errors
/// A whole number that does not fit into 64 bits with its unit.
pub(super) fn classify(word: &str, at: &Position) -> Result<Kind, Problem> {
    for (text, value) in [
        ("true", true),
        ("yes", true),
        ("on", true),
        ("false", false),
        ("no", false),
        ("off", false),
    ] {
        if word.eq_ignore_ascii_case(text) {
            return Ok(Kind::Bool(value));
        }
    }
    if let Some(number) = integer(word) {
        return number
            .map(Kind::Integer)
            .ok_or_else(|| at.problem(format!("the number {word} does not fit into 64 bits")));
    }
    if let Some(number) = float(word) {
        return Ok(Kind::Float(number));
    }
    if is_date(word) {
        return Ok(Kind::Date(word.to_owned()));
    }
    Ok(Kind::String(word.to_owned()))
}

/// `None`: not a whole number. `Some(None)`: one that does not fit.
fn integer(word: &str) -> Option<Option<i64>> {
    let unsigned = word.strip_prefix('-').unwrap_or(word);
    let digits_len = unsigned
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(unsigned.len());
    let (digits, suffix) = unsigned.split_at(digits_len);
    if digits.is_empty() {
        return None;
    }
    let factor = unit(suffix)?;
    let sign = if unsigned.len() < word.len() { -1 } else { 1 };
    let number = digits.parse::<i64>().ok().and_then(|n| n.checked_mul(sign));
    Some(number.and_then(|n| n.checked_mul(factor)))
}

fn unit(suffix: &str) -> Option<i64> {
    let suffix = suffix.to_ascii_lowercase();
    let mut chars = suffix.chars();
    let Some(letter) = chars.next() else {
        return Some(1);
    };
    let (_, power) = UNITS.iter().find(|(unit, _)| *unit == letter)?;
    match chars.as_str() {
        "" => Some(1000_i64.pow(*power)),
        "b" | "i" | "ib" => Some(1024_i64.pow(*power)),
        _ => None,
    }
}

fn float(word: &str) -> Option<f64> {
    let unsigned = word.strip_prefix('-').unwrap_or(word);
    let (whole, fraction) = unsigned.split_once('.')?;
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    word.parse().ok().filter(|number: &f64| number.is_finite())
}

fn is_date(word: &str) -> bool {
    let shape = "dddd-dd-ddTdd:dd:ddZ";
    word.len() == shape.len()
        && word
            .bytes()
            .zip(shape.bytes())
            .all(|(found, wanted)| match wanted {
                b'd' => found.is_ascii_digit(),
                other => found == other,
            })
}
