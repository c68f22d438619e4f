//! Finds the one flipped bit that explains a CRC32C that does not match.
//!
//! CRC32C tells every error of up to three bits from no error at all, for everything shorter than 256 MiB. So one flipped bit
//! leaves a difference between the two sums that no other single bit and no pair of bits leaves: the bit is known, and what was
//! written is known with it. Larger damage leaves any difference at all; it looks like one flipped bit with a probability of
//! (number of bits) / 2^32. [`MEND_BYTES_MAX`] bounds that; whoever mends keeps to small and vital things.

/// Nothing longer is mended: at this length, other damage looks like one flipped bit in 1 of 4096 cases.
pub const MEND_BYTES_MAX: usize = 128 << 10;

/// The polynomial of CRC32C, lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Where the flipped bit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flip {
    /// In the bytes that the sum covers.
    Covered {
        /// Which of them.
        byte: usize,
        /// Its bit.
        mask: u8,
    },
    /// In the stored sum.
    Sum,
}

/// The bit that must have flipped for the sum of `len` bytes to be `computed` where `stored` is what it was. `None` when no
/// single bit explains it, when they are the same, or when `len` is above [`MEND_BYTES_MAX`].
#[must_use]
pub fn find(stored: u32, computed: u32, len: usize) -> Option<Flip> {
    let difference = stored ^ computed;
    if difference == 0 || len > MEND_BYTES_MAX {
        return None;
    }
    if difference.is_power_of_two() {
        return Some(Flip::Sum);
    }
    // The trace that a bit leaves depends on how many bits are summed from it on: the last bit's is one step from 1.
    let mut trace: u32 = 1;
    for steps in 1..=len * 8 {
        trace = (trace >> 1) ^ (POLYNOMIAL & (trace & 1).wrapping_neg());
        if trace == difference {
            let from_end = steps.div_ceil(8);
            return Some(Flip::Covered {
                byte: len - from_end,
                mask: 1 << (from_end * 8 - steps),
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit, as the definition says.
    fn crc32c(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
            }
        }
        !crc
    }

    #[test]
    fn every_single_bit_is_found() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let bytes: Vec<u8> = (0..97u8).map(|byte| byte.wrapping_mul(37)).collect();
        let stored = crc32c(&bytes);
        for byte in 0..bytes.len() {
            for bit in 0..8 {
                let mask = 1 << bit;
                let mut changed = bytes.clone();
                changed[byte] ^= mask;
                let found = find(stored, crc32c(&changed), changed.len());
                assert_eq!(found, Some(Flip::Covered { byte, mask }));
            }
        }
        for bit in 0..32 {
            let found = find(stored ^ (1 << bit), stored, bytes.len());
            assert_eq!(found, Some(Flip::Sum));
        }
    }

    #[test]
    fn more_than_one_bit_is_not_taken_for_one() {
        let bytes = vec![7; 300];
        let stored = crc32c(&bytes);
        assert_eq!(find(stored, stored, bytes.len()), None);
        for first in (0..2400).step_by(7) {
            for second in (first + 1..2400).step_by(61) {
                let mut changed = bytes.clone();
                changed[first / 8] ^= 1 << (first % 8);
                changed[second / 8] ^= 1 << (second % 8);
                assert_eq!(find(stored, crc32c(&changed), changed.len()), None);
            }
        }
    }
}
