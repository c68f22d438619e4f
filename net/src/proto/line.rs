//! Control lines: where one ends, which verb it starts with, which arguments it has.
//!
//! One rule keeps the outcome independent of how the bytes were cut: an error is a property of a *prefix* of the input.
//! Whatever [`find`] refuses in a complete line, [`check_prefix`] refuses as soon as the offending byte is there,
//! and nothing else. Both look at the bytes in the same order: verb, separator, blanks, arguments.

use super::error::ProtoError;
use crate::caps;

/// How far the line at the start of the input has been looked at, so that no byte is searched twice.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Bytes known to hold no LF; when `found`, the position of the LF.
    scanned: usize,
    found: bool,
    /// Blanks behind the verb of a line that has not ended.
    blanks: usize,
    /// Bytes that the whole operation takes (line, payload, CRLF), once the line has been understood.
    pub(super) need: usize,
}

impl Progress {
    /// Position of the LF that ends the first line, if it has arrived.
    #[inline]
    pub(super) fn line_end(&mut self, input: &[u8]) -> Option<usize> {
        if self.found {
            return Some(self.scanned);
        }
        debug_assert!(
            self.scanned <= input.len(),
            "bytes were taken away from an incomplete line"
        );
        let at = memchr::memchr(b'\n', input.get(self.scanned..)?);
        match at {
            Some(at) => {
                self.scanned += at;
                self.found = true;
                Some(self.scanned)
            }
            None => {
                self.scanned = input.len();
                None
            }
        }
    }

    /// While a payload is on its way: how many bytes are needed in all.
    ///
    /// # Errors
    /// [`ProtoError::UnknownOperation`] when the byte behind the payload is there and wrong.
    #[inline]
    pub(super) fn still_awaited(&self, input: &[u8]) -> Result<Option<usize>, ProtoError> {
        if input.len() >= self.need {
            return Ok(None);
        }
        match input.get(self.need - 2) {
            None | Some(b'\r') => Ok(Some(self.need)),
            Some(_) => Err(ProtoError::UnknownOperation),
        }
    }

    /// The operation is over: the next line starts from nothing.
    #[inline]
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// What may follow a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    /// At least one blank, then arguments.
    Blank,
    /// Arguments, with or without a blank before.
    Arguments,
    /// Anything up to the line's end; it is ignored.
    Ignored,
}

/// One verb of a side's vocabulary. `K` is that side's own enum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verb<K> {
    pub(super) name: &'static [u8],
    pub(super) follow: Follow,
    pub(super) kind: K,
}

/// Splits a complete line (without its LF) into verb and arguments.
///
/// # Errors
/// [`ProtoError::UnknownOperation`] when no verb fits; [`ProtoError::ControlLineTooLong`] when the arguments, or the
/// blanks before them, are longer than `max` bytes.
pub(super) fn find<'a, K: Copy>(
    verbs: &[Verb<K>],
    line: &'a [u8],
    max: usize,
) -> Result<(K, &'a [u8]), ProtoError> {
    let verb = verbs
        .iter()
        .find(|verb| starts_with(line, verb.name))
        .ok_or(ProtoError::UnknownOperation)?;
    let rest = line.get(verb.name.len()..).unwrap_or_default();
    let rest = rest.strip_suffix(b"\r").unwrap_or(rest);
    if verb.follow == Follow::Blank && !line.get(verb.name.len()).is_some_and(|&b| is_blank(b)) {
        return Err(ProtoError::UnknownOperation);
    }
    Ok((verb.kind, arguments(rest, verb.follow, max)?))
}

/// Says whether a line that has not ended yet can still become a good one. Looks at each byte once: `progress` remembers
/// how many blanks behind the verb were counted.
///
/// # Errors
/// The ones of [`find`], as soon as they are certain.
pub(super) fn check_prefix<K>(
    verbs: &[Verb<K>],
    progress: &mut Progress,
    prefix: &[u8],
    max: usize,
) -> Result<(), ProtoError> {
    let fits = |verb: &&Verb<K>| {
        let shared = verb.name.len().min(prefix.len());
        starts_with(prefix, &verb.name[..shared])
    };
    let verb = verbs
        .iter()
        .find(fits)
        .ok_or(ProtoError::UnknownOperation)?;
    let Some(&next) = prefix.get(verb.name.len()) else {
        return Ok(());
    };
    if verb.follow == Follow::Blank && !is_blank(next) {
        return Err(ProtoError::UnknownOperation);
    }
    let rest = prefix.get(verb.name.len()..).unwrap_or_default();
    let rest = rest.strip_suffix(b"\r").unwrap_or(rest);
    if verb.follow != Follow::Ignored {
        let uncounted = rest.get(progress.blanks..).unwrap_or_default();
        progress.blanks += blanks(uncounted);
    }
    if progress.blanks > max || rest.len() > progress.blanks + max {
        return Err(ProtoError::ControlLineTooLong);
    }
    Ok(())
}

/// The arguments behind a verb, without the blanks before them.
#[inline]
pub(super) fn arguments(rest: &[u8], follow: Follow, max: usize) -> Result<&[u8], ProtoError> {
    let blanks = match follow {
        Follow::Ignored => 0,
        Follow::Blank | Follow::Arguments => blanks(rest),
    };
    let args = rest.get(blanks..).unwrap_or_default();
    if args.len() > max || blanks > max {
        return Err(ProtoError::ControlLineTooLong);
    }
    Ok(args)
}

#[inline]
fn blanks(text: &[u8]) -> usize {
    text.iter().take_while(|&&b| is_blank(b)).count()
}

fn starts_with(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(name))
}

#[inline]
fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Up to `N` arguments and how many there are; `None` if there are more.
#[inline]
pub(super) fn split<const N: usize>(args: &[u8]) -> Option<([&[u8]; N], usize)> {
    split_at::<N>(args, |byte| {
        byte <= b' ' && matches!(byte, b' ' | b'\t' | b'\r')
    })
}

/// The same for lines in which a stray CR is not a blank; `None` if there is one.
#[inline]
pub(super) fn split_strictly<const N: usize>(args: &[u8]) -> Option<([&[u8]; N], usize)> {
    let found = split_at::<N>(args, |byte| byte <= b' ' && matches!(byte, b' ' | b'\t'))?;
    // Arguments are short: a second look costs less than a branch for each byte of the first.
    if args.contains(&b'\r') {
        None
    } else {
        Some(found)
    }
}

#[inline]
fn split_at<const N: usize>(
    mut args: &[u8],
    is_separator: impl Fn(u8) -> bool,
) -> Option<([&[u8]; N], usize)> {
    let mut found: [&[u8]; N] = [&[]; N];
    let mut count = 0;
    loop {
        while let [first, rest @ ..] = args
            && is_separator(*first)
        {
            args = rest;
        }
        if args.is_empty() {
            return Some((found, count));
        }
        let end = args
            .iter()
            .position(|&b| is_separator(b))
            .unwrap_or(args.len());
        let (argument, rest) = args.split_at(end);
        *found.get_mut(count)? = argument;
        count += 1;
        args = rest;
    }
}

/// A size or count: decimal digits only, no sign, at most [`caps::NUMBER_DIGITS_MAX`] of them.
#[inline]
pub(super) fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > caps::NUMBER_DIGITS_MAX {
        return None;
    }
    let mut value = 0_u32;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u32::from(digit);
    }
    usize::try_from(value).ok()
}

/// Whether header block and payload of `total` bytes behind the line that ends at `end` are there, with their CRLF.
///
/// `Ok(None)`: complete. `Ok(Some(need))`: so many bytes are needed in all.
///
/// # Errors
/// [`ProtoError::UnknownOperation`] when the payload is not followed by CRLF, as soon as the wrong byte is there.
#[inline]
pub(super) fn payload_end(
    input: &[u8],
    end: usize,
    total: usize,
) -> Result<Option<usize>, ProtoError> {
    // All parts have at most nine digits or are lengths of buffers: no overflow.
    let behind = end + 1 + total;
    match input.get(behind..) {
        Some([b'\r', b'\n', ..]) => Ok(None),
        None | Some([] | [b'\r']) => Ok(Some(behind + 2)),
        Some(_) => Err(ProtoError::UnknownOperation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_plain_digits() {
        for (text, value) in [
            ("0", Some(0)),
            ("00002", Some(2)),
            ("999999999", Some(999_999_999)),
            ("1000000000", None),
            ("0000000002", None),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1x", None),
            ("0x1", None),
            ("/", None),
            (":", None),
            ("\u{0661}", None),
        ] {
            assert_eq!(number(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn arguments_are_split_at_blanks_and_stray_carriage_returns() {
        let split3 = |text: &'static str| {
            split::<3>(text.as_bytes()).map(|(found, count)| {
                found[..count]
                    .iter()
                    .map(|a| String::from_utf8_lossy(a).into_owned())
                    .collect()
            })
        };
        let some = |args: &[&str]| Some(args.iter().map(|&a| a.to_owned()).collect::<Vec<_>>());
        assert_eq!(split3(""), some(&[]));
        assert_eq!(split3(" \t "), some(&[]));
        assert_eq!(split3("a"), some(&["a"]));
        assert_eq!(split3(" a\t\tb \r c "), some(&["a", "b", "c"]));
        assert_eq!(split3("a b c d"), None);
        assert_eq!(split3("f\u{b}o\u{c}1 2"), some(&["f\u{b}o\u{c}1", "2"]));
    }
}
