//! A digest of a store's history: equal on replicas that applied the same commands with the same effects.
//!
//! It folds in what each change did (sequence given, bytes, messages removed), not only what was asked, so replicas that
//! decide differently diverge in the very next digest. O(1) for each change; durable with each flush.

use crate::hash::{hash, mix};

/// Kinds of change, so that equal operands of different changes differ.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    CreateStream = 1,
    DropStream,
    Append,
    Skip,
    Delete,
    Purge,
    Put,
    RemoveRecord,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest(pub(crate) u64);

impl Digest {
    /// Of an empty store.
    pub(crate) const EMPTY: Self = Self(0x6861_6c79_6172_6421);

    pub(crate) fn fold(&mut self, change: Change, operands: &[u64]) {
        let mut state = mix(self.0 ^ (change as u64), 0x9e37_79b9_7f4a_7c15);
        for &operand in operands {
            state = mix(
                state ^ operand,
                0xd6e8_feb8_6659_fd93 ^ state.rotate_left(32),
            );
        }
        self.0 = state;
    }

    pub(crate) fn fold_bytes(&mut self, change: Change, key: &[u8], value: &[u8]) {
        self.fold(change, &[hash(key, 1), hash(value, 2)]);
    }
}

/// A digest of one record: sums of these tell states apart, in whatever order the records came about.
#[must_use]
pub fn record_digest(key: &[u8], value: &[u8]) -> u64 {
    mix(
        hash(key, 3) ^ 0x9e37_79b9_7f4a_7c15,
        hash(value, 4) ^ 0xd6e8_feb8_6659_fd93,
    )
}
