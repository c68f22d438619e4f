//! Numbers and byte strings to bytes and back: little endian, LEB128 varints, every read checked.

/// The bytes do not decode; the caller adds file and offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Signed numbers near zero stay short.
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what `put_*` wrote.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes that were not read yet.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
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

    pub(crate) fn signed(&mut self) -> Result<i64, Malformed> {
        let raw = self.varint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed("a number beyond 32 bits"))
    }

    /// A count of things that take at least one byte each: bounds what a decoder may allocate.
    pub(crate) fn count(&mut self) -> Result<usize, Malformed> {
        let count =
            usize::try_from(self.varint()?).map_err(|_| Malformed("a count beyond memory"))?;
        if count > self.rest.len() {
            return Err(Malformed("a count beyond the bytes that follow"));
        }
        Ok(count)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(Malformed("the bytes end early"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.count()?;
        self.take(len)
    }

    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed("bytes after the end"))
        }
    }
}

/// Adds two stored numbers; a sum beyond 64 bits is damage.
pub(crate) fn sum(a: u64, b: u64) -> Result<u64, Malformed> {
    a.checked_add(b).ok_or(Malformed("a sum beyond 64 bits"))
}

#[cfg(test)]
mod tests {
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
}
