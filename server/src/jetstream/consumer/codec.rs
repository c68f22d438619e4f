//! Bytes of consumer commands and records: LEB128 integers, length-prefixed slices. Nothing here panics on bad input.

use bytes::BufMut;

/// The bytes are not what was written: a bug or a newer version, never a client's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unreadable consumer {what}")]
pub struct Unreadable {
    /// What was being read.
    pub what: &'static str,
}

/// Appends an unsigned integer, 7 bits to a byte.
pub fn put_u64(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8((value & 0x7f) as u8);
}

/// Appends a signed integer; small magnitudes stay short.
pub fn put_i64(out: &mut impl BufMut, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Appends a slice with its length.
pub fn put_bytes(out: &mut impl BufMut, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Reads what the functions above wrote.
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; `what` names them in errors.
    pub const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// The error for what cannot be.
    pub const fn unreadable(&self) -> Unreadable {
        Unreadable { what: self.what }
    }

    /// Whether all is read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// One byte.
    ///
    /// # Errors
    /// The input is too short.
    pub fn u8(&mut self) -> Result<u8, Unreadable> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| self.unreadable())?;
        self.rest = rest;
        Ok(*first)
    }

    /// An integer of [`put_u64`].
    ///
    /// # Errors
    /// The input is too short, or no integer.
    pub fn u64(&mut self) -> Result<u64, Unreadable> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.unreadable())
    }

    /// An integer of [`put_u64`] that fits 32 bits.
    ///
    /// # Errors
    /// The input is too short, or no such integer.
    pub fn u32(&mut self) -> Result<u32, Unreadable> {
        let value = self.u64()?;
        u32::try_from(value).map_err(|_| self.unreadable())
    }

    /// An integer of [`put_i64`].
    ///
    /// # Errors
    /// The input is too short, or no integer.
    pub fn i64(&mut self) -> Result<i64, Unreadable> {
        let value = self.u64()?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// A count of items of which each takes a byte or more: never more than there is input left.
    ///
    /// # Errors
    /// The input is too short.
    pub fn count(&mut self) -> Result<usize, Unreadable> {
        let value = self.u64()?;
        usize::try_from(value)
            .ok()
            .filter(|n| *n <= self.rest.len())
            .ok_or_else(|| self.unreadable())
    }

    /// The next of sequences that rise and are written as differences; `before` is the one before it, `None` at first.
    ///
    /// # Errors
    /// The input is too short, or the sequence does not rise.
    pub fn rising(&mut self, before: &mut Option<u64>) -> Result<u64, Unreadable> {
        let delta = self.u64()?;
        if delta == 0 && before.is_some() {
            return Err(self.unreadable());
        }
        let seq = before.unwrap_or(0).checked_add(delta);
        let seq = seq.ok_or_else(|| self.unreadable())?;
        *before = Some(seq);
        Ok(seq)
    }

    /// A slice of [`put_bytes`].
    ///
    /// # Errors
    /// The input is too short.
    pub fn bytes(&mut self) -> Result<&'a [u8], Unreadable> {
        let len = self.count()?;
        let (bytes, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| self.unreadable())?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A slice of [`put_bytes`] that is text.
    ///
    /// # Errors
    /// The input is too short, or not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Unreadable> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.unreadable())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_round_trip(unsigned: u64, signed: i64, bytes: Vec<u8>) {
            let mut out = Vec::new();
            put_u64(&mut out, unsigned);
            put_i64(&mut out, signed);
            put_bytes(&mut out, &bytes);
            let mut reader = Reader::new(&out, "test");
            prop_assert_eq!(reader.u64(), Ok(unsigned));
            prop_assert_eq!(reader.i64(), Ok(signed));
            prop_assert_eq!(reader.bytes(), Ok(bytes.as_slice()));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn garbage_is_an_error(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes, "test");
            while !reader.is_empty() {
                if reader.u64().is_err() || reader.bytes().is_err() {
                    break;
                }
            }
        }
    }
}
