//! Numbers and byte strings to bytes and back, every read checked: past the end, and for what was never written, a reader gives
//! a typed error, never a value that was not there.
//!
//! Two families. *Fixed* integers are little endian and of their own width ([`Fields`], [`Reader::u64`] and its neighbours, byte
//! strings behind a `u32` length): the log's records and what replicas say to each other. *Varints* are LEB128, small numbers
//! short ([`put_varint`], [`Reader::varint`] and its neighbours, byte strings behind a varint length): segments and records.

use bytes::BufMut;

/// The bytes do not decode; the caller adds file and offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(
    /// What is wrong, in words.
    pub &'static str,
);

const ENDS_EARLY: Malformed = Malformed("the bytes end early");

/// Appends an unsigned integer, 7 bits to a byte.
#[inline]
pub fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Appends a signed integer; those near zero stay short.
#[inline]
pub fn put_signed(out: &mut impl BufMut, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Appends a byte string behind its length, a varint.
#[inline]
pub fn put_bytes(out: &mut impl BufMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Writes fields of fixed width, one after the other.
#[derive(Debug, Default)]
pub struct Fields(
    /// What is written so far.
    pub Vec<u8>,
);

impl Fields {
    /// Appends a byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    /// Appends four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends a byte string behind its length, a `u32`.
    ///
    /// # Panics
    /// The string has 4 GiB or more.
    pub fn long_bytes(&mut self, value: &[u8]) -> &mut Self {
        self.u32(u32::try_from(value.len()).expect("a field shorter than 4 GiB"));
        self.0.extend_from_slice(value);
        self
    }
}

/// The four bytes at `at`.
///
/// # Errors
/// They are not all there.
#[inline]
pub fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    Ok(u32::from_le_bytes(array_at(bytes, at)?))
}

/// The eight bytes at `at`.
///
/// # Errors
/// They are not all there.
#[inline]
pub fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Malformed> {
    Ok(u64::from_le_bytes(array_at(bytes, at)?))
}

#[inline]
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Malformed> {
    let rest = bytes.get(at..).ok_or(ENDS_EARLY)?;
    rest.first_chunk::<N>().copied().ok_or(ENDS_EARLY)
}

/// Reads what [`Fields`] and the `put_` functions wrote.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from their start.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether all is read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes were not read yet.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.rest.len()
    }

    /// All that was not read yet.
    pub const fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    /// So many bytes, as an array.
    ///
    /// # Errors
    /// The bytes end early.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// The bytes end early.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes.
    ///
    /// # Errors
    /// The bytes end early.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    ///
    /// # Errors
    /// The bytes end early.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// The bytes end early.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// A byte that is 0 or 1.
    ///
    /// # Errors
    /// The bytes end early, or it is neither.
    pub fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag that is neither 0 nor 1")),
        }
    }

    /// A byte string of [`Fields::long_bytes`].
    ///
    /// # Errors
    /// The bytes end early.
    pub fn long_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    /// An integer of [`put_varint`].
    ///
    /// # Errors
    /// It does not end, or has more than 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        // Most numbers are one byte.
        if let [byte, rest @ ..] = self.rest
            && *byte < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    #[inline]
    fn long_varint(&mut self) -> Result<u64, Malformed> {
        // Of up to eight bytes at once: where the first one without the mark is, and their bits moved together.
        if let Some(word) = self.rest.first_chunk::<8>() {
            let word = u64::from_le_bytes(*word);
            let ends = !word & 0x8080_8080_8080_8080;
            if ends != 0 {
                let len = ends.trailing_zeros() / 8 + 1;
                let bits = word & (u64::MAX >> (64 - 8 * len)) & 0x7f7f_7f7f_7f7f_7f7f;
                let pairs = (bits & 0x007f_007f_007f_007f) | (bits & 0x7f00_7f00_7f00_7f00) >> 1;
                let fours = (pairs & 0x0000_3fff_0000_3fff) | (pairs & 0x3fff_0000_3fff_0000) >> 2;
                let value = (fours & 0x0fff_ffff) | (fours >> 32) << 28;
                self.rest = self.rest.get(len as usize..).unwrap_or_default();
                return Ok(value);
            }
        }
        self.longest_varint()
    }

    /// Also near the end of the bytes.
    fn longest_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (at, &byte) in self.rest.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                return Err(Malformed("a number beyond 64 bits"));
            }
            value |= bits << (7 * at);
            if byte < 0x80 {
                self.rest = self.rest.get(at + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(Malformed("a number that does not end"))
    }

    /// An integer of [`put_signed`].
    ///
    /// # Errors
    /// As [`Reader::varint`].
    pub fn signed(&mut self) -> Result<i64, Malformed> {
        let raw = self.varint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// An integer of [`put_varint`] that fits 32 bits.
    ///
    /// # Errors
    /// As [`Reader::varint`], or it does not fit.
    #[inline]
    pub fn varint_u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed("a number beyond 32 bits"))
    }

    /// A varint that counts things of at least one byte each: bounds what a decoder may allocate.
    ///
    /// # Errors
    /// As [`Reader::varint`], or it is more than the bytes that follow.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        let count =
            usize::try_from(self.varint()?).map_err(|_| Malformed("a count beyond memory"))?;
        if count > self.rest.len() {
            return Err(Malformed("a count beyond the bytes that follow"));
        }
        Ok(count)
    }

    /// So many bytes.
    ///
    /// # Errors
    /// The bytes end early.
    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A byte string of [`put_bytes`].
    ///
    /// # Errors
    /// The bytes end early.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.count()?;
        self.take(len)
    }

    /// A byte string of [`put_bytes`] that is text.
    ///
    /// # Errors
    /// The bytes end early, or are not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| Malformed("a text that is not UTF-8"))
    }

    /// The next of numbers that rise and are written as differences, in varints; `before` is the one before it, `None` at
    /// first.
    ///
    /// # Errors
    /// As [`Reader::varint`], or it does not rise.
    pub fn rising(&mut self, before: &mut Option<u64>) -> Result<u64, Malformed> {
        let delta = self.varint()?;
        if delta == 0 && before.is_some() {
            return Err(Malformed("numbers that do not rise"));
        }
        let next = sum(before.unwrap_or(0), delta)?;
        *before = Some(next);
        Ok(next)
    }

    /// That everything was read.
    ///
    /// # Errors
    /// Bytes are left.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed("bytes after the end"))
        }
    }
}

/// Adds two stored numbers; a sum beyond 64 bits is damage.
///
/// # Errors
/// The sum is beyond 64 bits.
pub fn sum(a: u64, b: u64) -> Result<u64, Malformed> {
    a.checked_add(b).ok_or(Malformed("a sum beyond 64 bits"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_round_trip() {
        let mut out = Vec::new();
        let values: Vec<u64> = (0..64)
            .flat_map(|bit| [1u64 << bit, (1u64 << bit) - 1, u64::MAX >> bit])
            .collect();
        for &value in &values {
            put_varint(&mut out, value);
            put_signed(&mut out, value as i64);
            put_signed(&mut out, (value as i64).wrapping_neg());
        }
        let mut reader = Reader::new(&out);
        for &value in &values {
            assert_eq!(reader.varint(), Ok(value));
            assert_eq!(reader.signed(), Ok(value as i64));
            assert_eq!(reader.signed(), Ok((value as i64).wrapping_neg()));
        }
        reader.end().unwrap();
        // Each also at the very end of the bytes, and before bytes that look like more of it.
        for &value in &values {
            for after in [&[][..], &[0xff; 12], &[0; 12]] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                out.extend_from_slice(after);
                let mut reader = Reader::new(&out);
                assert_eq!((reader.varint(), reader.left()), (Ok(value), after.len()));
            }
        }
    }

    #[test]
    fn damage_is_an_error() {
        assert!(Reader::new(&[0x80]).varint().is_err());
        assert!(Reader::new(&[0xff; 10]).varint().is_err());
        assert!(Reader::new(&[5, 1]).bytes().is_err());
        assert!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f])
                .count()
                .is_err()
        );
    }

    #[test]
    fn fields_round_trip_and_end_with_an_error() {
        let mut out = Fields::default();
        out.u8(1).u32(2).u64(3).long_bytes(b"four");
        let mut reader = Reader::new(&out.0);
        assert_eq!((reader.flag(), reader.u32()), (Ok(true), Ok(2)));
        assert_eq!(
            (reader.u64(), reader.long_bytes()),
            (Ok(3), Ok(&b"four"[..]))
        );
        assert_eq!(
            (reader.u8(), reader.u64()),
            (Err(ENDS_EARLY), Err(ENDS_EARLY))
        );
        assert_eq!((u32_at(&out.0, 1), u64_at(&out.0, 5)), (Ok(2), Ok(3)));
        assert_eq!(u32_at(&out.0, out.0.len() - 3), Err(ENDS_EARLY));
        assert_eq!(u64_at(&out.0, usize::MAX), Err(ENDS_EARLY));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_value_or_an_error(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while reader.varint().is_ok() && reader.text().is_ok() && reader.long_bytes().is_ok() {}
        }
    }
}
