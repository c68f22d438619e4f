//! The header block of a message: `NATS/1.0[ status[ description]] CRLF (Name: value CRLF)* CRLF`.
//!
//! The broker never refuses a message for its header block (the real server does not look inside either), so reading is
//! total: whatever the bytes are, [`Headers`] yields the lines that make sense and skips the others. Names are compared
//! byte by byte: `nats-msg-id` is not `Nats-Msg-Id`. Of several lines of one name, [`Headers::get`] returns the first.

use super::encoder::{self, Out};

/// How every header block starts.
pub const VERSION: &[u8] = b"NATS/1.0";
/// An empty header block.
pub const EMPTY: &[u8] = b"NATS/1.0\r\n\r\n";

/// A read-only view of a header block. Copies nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    block: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Looks at a block as it stood in the message, whatever it holds.
    #[must_use]
    pub const fn new(block: &'a [u8]) -> Self {
        Self { block }
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.block
    }

    /// Whether the block starts with the version and ends with an empty line.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        self.block.starts_with(VERSION)
            && self.block.ends_with(b"\r\n\r\n")
            && self.status_line().is_some()
    }

    /// The status and description behind the version, if any: `503`, `No Responders`.
    #[must_use]
    pub fn status(&self) -> Option<(u16, &'a [u8])> {
        let line = trimmed(self.status_line()?);
        let end = line.iter().position(|&b| b == b' ').unwrap_or(line.len());
        let (code, description) = line.split_at(end);
        let [a, b, c] = code else { return None };
        let mut value = 0_u16;
        for digit in [a, b, c] {
            if !digit.is_ascii_digit() {
                return None;
            }
            value = value * 10 + u16::from(digit - b'0');
        }
        Some((value, trimmed(description)))
    }

    /// Name and value of each line, in order; values without blanks around them.
    pub fn iter(&self) -> Iter<'a> {
        // The first line is the version's, whatever it says.
        Iter {
            rest: line_of(self.block).1,
        }
    }

    /// The value of the first line with this name.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    fn status_line(&self) -> Option<&'a [u8]> {
        line_of(self.block).0.strip_prefix(VERSION)
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The lines of a header block; see [`Headers::iter`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let (line, rest) = line_of(self.rest);
            self.rest = rest;
            let Some(colon) = memchr::memchr(b':', line) else {
                continue;
            };
            let (name, value) = line.split_at(colon);
            if !name.is_empty() {
                return Some((name, trimmed(value.get(1..).unwrap_or_default())));
            }
        }
        None
    }
}

/// The first line without its CRLF (or LF), and what is behind it.
fn line_of(block: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'\n', block) {
        Some(end) => {
            let line = block.get(..end).unwrap_or_default();
            let rest = block.get(end + 1..).unwrap_or_default();
            (line.strip_suffix(b"\r").unwrap_or(line), rest)
        }
        None => (block, &[]),
    }
}

fn trimmed(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}

/// A name or value that would break the block apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a header name or value holds a line end, or the name is empty or holds a colon")]
pub struct Unprintable;

/// Builds a header block.
///
/// ```
/// use halyard_net::proto::headers::Builder;
/// let block = Builder::new().header(b"Nats-Msg-Id", b"7")?.finish();
/// assert_eq!(block, b"NATS/1.0\r\nNats-Msg-Id: 7\r\n\r\n");
/// # Ok::<(), halyard_net::proto::headers::Unprintable>(())
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    block: Vec<u8>,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// A block without status.
    #[must_use]
    pub fn new() -> Self {
        Self {
            block: b"NATS/1.0\r\n".to_vec(),
        }
    }

    /// A block with a status and, if not empty, a description; line ends in it become blanks.
    #[must_use]
    pub fn status(code: u16, description: &str) -> Self {
        let mut block = VERSION.to_vec();
        block.push(b' ');
        encoder::number(&mut block, u64::from(code));
        if !description.is_empty() {
            block.push(b' ');
            block.extend(
                description
                    .bytes()
                    .map(|b| if b == b'\r' || b == b'\n' { b' ' } else { b }),
            );
        }
        block.extend_from_slice(b"\r\n");
        Self { block }
    }

    /// Adds a line.
    ///
    /// # Errors
    /// [`Unprintable`] when name or value would break the block; nothing is added.
    pub fn header(mut self, name: &[u8], value: &[u8]) -> Result<Self, Unprintable> {
        if !is_name(name) || !is_value(value) {
            return Err(Unprintable);
        }
        line(&mut self.block, name, value);
        Ok(self)
    }

    /// Adds a line with a number.
    ///
    /// # Errors
    /// As [`Self::header`].
    pub fn number(mut self, name: &[u8], value: u64) -> Result<Self, Unprintable> {
        if !is_name(name) {
            return Err(Unprintable);
        }
        self.block.extend_from_slice(name);
        self.block.extend_from_slice(b": ");
        encoder::number(&mut self.block, value);
        self.block.extend_from_slice(b"\r\n");
        Ok(self)
    }

    /// The finished block.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.block.extend_from_slice(b"\r\n");
        self.block
    }
}

/// Whether a header line may carry this name.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && memchr::memchr3(b'\r', b'\n', b':', name).is_none()
}

/// Whether a header line may carry this value.
#[must_use]
pub fn is_value(value: &[u8]) -> bool {
    memchr::memchr2(b'\r', b'\n', value).is_none()
}

/// Appends `Name: value CRLF`, unchecked: for constant names and values that cannot hold a line end.
pub fn line(out: &mut impl Out, name: &[u8], value: &[u8]) {
    debug_assert!(
        is_name(name) && is_value(value),
        "a header line that breaks its block"
    );
    out.put(name);
    out.put(b": ");
    out.put(value);
    out.put(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_three_digits_and_a_description() {
        for (block, expected) in [
            (
                b"NATS/1.0 503\r\n\r\n".as_slice(),
                Some((503, b"".as_slice())),
            ),
            (
                b"NATS/1.0 100 Idle Heartbeat\r\nA: b\r\n\r\n",
                Some((100, b"Idle Heartbeat")),
            ),
            (
                b"NATS/1.0   404   No Messages  \r\n\r\n",
                Some((404, b"No Messages")),
            ),
            (b"NATS/1.0503\r\n\r\n", Some((503, b""))),
            (b"NATS/1.0\r\n\r\n", None),
            (b"NATS/1.0 50\r\n\r\n", None),
            (b"NATS/1.0 5033\r\n\r\n", None),
            (b"NATS/1.0 5a3\r\n\r\n", None),
            (b"HTTP/1.1 503\r\n\r\n", None),
            (b"", None),
        ] {
            assert_eq!(
                Headers::new(block).status(),
                expected,
                "{}",
                block.escape_ascii()
            );
        }
        let built = Builder::status(408, "Request\r\nTimeout").finish();
        assert_eq!(built, b"NATS/1.0 408 Request  Timeout\r\n\r\n");
    }

    #[test]
    fn lines_that_make_no_sense_are_skipped() {
        let hostile =
            b"NATS/1.0\r\nnocolon\r\n: empty\r\n a : b \r\nA:1\nB::2:\r\nA: 2\r\n\r\nC: 3";
        let found: Vec<_> = Headers::new(hostile).iter().collect();
        let expected: [(&[u8], &[u8]); 5] = [
            (b" a ", b"b"),
            (b"A", b"1"),
            (b"B", b":2:"),
            (b"A", b"2"),
            (b"C", b"3"),
        ];
        assert_eq!(found, expected);
        assert_eq!(Headers::new(hostile).get(b"A"), Some(b"1".as_slice()));
        assert_eq!(Headers::new(hostile).get(b"a"), None);
        assert!(!Headers::new(hostile).is_well_formed());
        assert!(Headers::new(EMPTY).is_well_formed());
    }

    #[test]
    fn a_line_end_cannot_be_smuggled_in() {
        for (name, value) in [
            (b"A\r\nB".as_slice(), b"x".as_slice()),
            (b"A", b"x\r\nB: y"),
            (b"A", b"x\n"),
            (b"A:", b"x"),
            (b"", b"x"),
        ] {
            assert_eq!(Builder::new().header(name, value).unwrap_err(), Unprintable);
        }
    }
}
