//! The keyed hash of subjects and tokens.
//!
//! The key is drawn when an account is made, so that a client cannot prepare subjects that collide, and so that the
//! simulator gets the same hashes from the same seed. Not for anything that leaves the process.

use std::hash::{BuildHasher, Hasher};

use ahash::{AHasher, RandomState};
use halyard_runtime::random;

/// A key: makes the hashers of maps whose keys are a client's words.
#[derive(Clone)]
pub(crate) struct Keyed(RandomState);

impl Keyed {
    /// A key that nobody outside knows.
    #[must_use]
    pub(crate) fn draw() -> Self {
        Self::with(std::array::from_fn(|_| random::u64()))
    }

    fn with([first, second, third, fourth]: [u64; 4]) -> Self {
        Self(RandomState::with_seeds(first, second, third, fourth))
    }

    /// Hashes `bytes` under this key.
    #[inline]
    #[must_use]
    pub(crate) fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(bytes);
        hasher.finish()
    }
}

impl BuildHasher for Keyed {
    type Hasher = AHasher;

    fn build_hasher(&self) -> AHasher {
        self.0.build_hasher()
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
        let keys: Vec<Keyed> = (0..4).map(|key| Keyed::with([key, 1, 2, 3])).collect();
        for length in 0..data.len() {
            for key in &keys {
                assert!(seen.insert(key.hash(&data[..length])), "length {length}");
            }
        }
        for position in 0..40 {
            let mut changed = [7_u8; 40];
            changed[position] = 8;
            assert!(seen.insert(keys[0].hash(&changed)), "position {position}");
        }
    }

    /// Words that make a factor of a multiplication zero whatever the key is: each constant of the hash that stood
    /// here before, and its neighbours, as either half of a token.
    #[test]
    fn no_chosen_half_makes_the_other_half_irrelevant() {
        let key = Keyed::with([11, 12, 13, 14]);
        for constant in [0, 0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f, u64::MAX] {
            let mut hashes = BTreeSet::new();
            for other in 0..1000_u64 {
                let halves = [constant.to_le_bytes(), other.to_le_bytes()];
                hashes.insert(key.hash(&halves.concat()));
                let halves = [other.to_le_bytes(), constant.to_le_bytes()];
                hashes.insert(key.hash(&halves.concat()));
            }
            // One token may be made twice where the constant is a small number itself.
            assert!(hashes.len() >= 1999, "{constant:x}: {}", hashes.len());
        }
    }
}
