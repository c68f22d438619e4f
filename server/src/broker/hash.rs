//! A fast keyed hash of subjects and tokens.
//!
//! The key is drawn when an account is made, so that a client cannot prepare subjects that collide, and so that the
//! simulator gets the same hashes from the same seed. Not for anything that leaves the process.

use std::hash::{BuildHasher, Hasher};

const FIRST: u64 = 0x9e37_79b9_7f4a_7c15;
const SECOND: u64 = 0xc2b2_ae3d_27d4_eb4f;

/// Both halves of the full product: each input bit reaches each output bit.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the two halves of 128 bits are taken on purpose"
)]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product as u64) ^ ((product >> 64) as u64)
}

#[inline]
fn word(bytes: Option<&[u8; 8]>) -> u64 {
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Hashes `bytes` under `key`.
#[inline]
#[must_use]
pub(crate) fn hash(key: u64, bytes: &[u8]) -> u64 {
    let mut state = key ^ FIRST;
    let mut rest = bytes;
    while let Some((chunk, behind)) = rest.split_first_chunk::<16>() {
        state = fold(
            word(chunk.first_chunk()) ^ SECOND,
            word(chunk.last_chunk()) ^ state,
        );
        rest = behind;
    }
    // The last up to 15 bytes as two words that may overlap.
    let (low, high) = if rest.len() >= 8 {
        (word(rest.first_chunk()), word(rest.last_chunk()))
    } else if let (Some(first), Some(last)) = (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        (
            u64::from(u32::from_le_bytes(*first)),
            u64::from(u32::from_le_bytes(*last)),
        )
    } else {
        let tail = rest
            .iter()
            .fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        (tail, 0)
    };
    state = fold(low ^ SECOND, high ^ state);
    fold(state ^ FIRST, key ^ SECOND ^ bytes.len() as u64)
}

/// Makes hashers of one key, for maps keyed by tokens.
#[derive(Clone, Copy)]
pub(crate) struct Keyed(pub(crate) u64);

/// Folds what a key writes into one word.
pub(crate) struct KeyedHasher(u64);

impl BuildHasher for Keyed {
    type Hasher = KeyedHasher;
    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher(self.0)
    }
}

impl Hasher for KeyedHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(self.0, bytes);
    }
    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = fold(self.0 ^ value, FIRST);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn lengths_positions_and_keys_all_count() {
        let mut seen = BTreeSet::new();
        let data = [7_u8; 64];
        for length in 0..data.len() {
            for key in 0..4 {
                assert!(
                    seen.insert(hash(key, &data[..length])),
                    "length {length}, key {key}"
                );
            }
        }
        for position in 0..40 {
            let mut changed = [7_u8; 40];
            changed[position] = 8;
            assert!(seen.insert(hash(0, &changed)), "position {position}");
        }
    }
}
