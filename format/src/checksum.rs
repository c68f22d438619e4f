//! The one checksum of every file: CRC32C, in hardware where there is any.

use crate::codec::{self, Malformed};
use crate::flip::{self, Flip};

/// Bytes of a checksum in a file.
pub const SUM_BYTES: usize = 4;

/// The sum of `bytes`.
#[inline]
#[must_use]
pub fn sum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// The sum of what `sum` is the sum of, followed by `bytes`.
#[inline]
#[must_use]
pub fn append(sum: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(sum, bytes)
}

/// Appends the sum of all that is in `out`.
pub fn close(out: &mut Vec<u8>) {
    let sum = sum(out);
    out.extend_from_slice(&sum.to_le_bytes());
}

/// What stands before the sum with which `bytes` end, if that is its sum.
///
/// # Errors
/// The sum is another, or the bytes are too few to end with one.
pub fn closed(bytes: &[u8]) -> Result<&[u8], Malformed> {
    let end = bytes.len().checked_sub(SUM_BYTES);
    let end = end.ok_or(Malformed("the bytes end early"))?;
    let (covered, _) = bytes.split_at(end);
    if codec::u32_at(bytes, end)? == sum(covered) {
        Ok(covered)
    } else {
        Err(Malformed("the checksum does not match"))
    }
}

/// Mends the one bit that has flipped in bytes that end with their sum; whether there was one.
pub fn mend(bytes: &mut [u8]) -> bool {
    let Some(end) = bytes.len().checked_sub(SUM_BYTES) else {
        return false;
    };
    let (covered, stored) = bytes.split_at_mut(end);
    let found = sum(covered);
    let Ok(want) = codec::u32_at(stored, 0) else {
        return false;
    };
    match flip::find(want, found, end) {
        Some(Flip::Covered { byte, mask }) => {
            let byte = covered.get_mut(byte);
            *byte.expect("the flipped bit is in the bytes that the sum covers") ^= mask;
        }
        Some(Flip::Sum) => stored.copy_from_slice(&found.to_le_bytes()),
        None => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_crc32c_and_can_be_made_piece_by_piece() {
        assert_eq!(sum(b"123456789"), 0xe306_9283);
        assert_eq!(append(sum(b"1234"), b"56789"), 0xe306_9283);
    }

    #[test]
    fn closed_bytes_open_and_one_flipped_bit_is_mended() {
        let mut bytes = b"what is summed".to_vec();
        close(&mut bytes);
        assert_eq!(closed(&bytes), Ok(&b"what is summed"[..]));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(closed(&changed).is_err(), "bit {bit}");
            assert!(mend(&mut changed), "bit {bit}");
            assert_eq!(changed, bytes);
        }
        assert!(!mend(&mut bytes) && !mend(&mut [1, 2, 3]));
        assert!(closed(&[1, 2, 3]).is_err());
    }
}
