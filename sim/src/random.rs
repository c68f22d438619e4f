//! Draws that stand for a seed, outside of any simulation.

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range");
        low + self.next() % (high - low + 1)
    }

    /// A number from `low` to `high` whose order of magnitude is uniform.
    pub(crate) fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        assert!(0 < low && low <= high, "magnitudes are of positive numbers");
        let bits = self.between(u64::from(low.ilog2()), u64::from(high.ilog2()));
        let from = low.max(1 << bits);
        let to = high.min((2 << bits) - 1);
        self.between(from, to)
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }

    /// True in `share` of a hundred draws.
    pub(crate) fn percent(&mut self, share: u64) -> bool {
        self.between(0, 99) < share
    }
}

/// Bytes that stand for one message: anyone can make them again from its number.
pub(crate) fn filler(number: u64, len: usize) -> Vec<u8> {
    let mut draw = Draw::new(number ^ 0x5157_0001);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&draw.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
