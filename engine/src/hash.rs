//! A hash of bytes with a fixed seed for digests: the same on every node and every run. It is no checksum, and no hash for
//! tables: whoever chooses the bytes can make them collide ([`crate::HashKey`] is for tables).
//!
//! A folded-multiply hash: 16 bytes for each multiplication, overlapping reads at the end, so that a subject of 20 to
//! 30 bytes costs two or three multiplications.

const K0: u64 = 0x9e37_79b9_7f4a_7c15;
const K1: u64 = 0xd6e8_feb8_6659_fd93;
const K2: u64 = 0xa076_1d64_78bd_642f;

/// Multiplies to 128 bits and folds the halves: one mixing step.
#[inline]
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[inline]
fn word(bytes: &[u8]) -> u64 {
    match bytes.first_chunk::<8>() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => 0,
    }
}

#[inline]
fn half(bytes: &[u8]) -> u64 {
    match bytes.first_chunk::<4>() {
        Some(chunk) => u64::from(u32::from_le_bytes(*chunk)),
        None => 0,
    }
}

#[inline]
fn tail(bytes: &[u8], count: usize) -> &[u8] {
    bytes
        .get(bytes.len().saturating_sub(count)..)
        .unwrap_or_default()
}

/// Hashes `bytes`; `seed` tells tables apart.
#[inline]
pub(crate) fn hash(bytes: &[u8], seed: u64) -> u64 {
    let len = bytes.len();
    let mut state = seed ^ K0;
    let mut rest = bytes;
    while rest.len() > 16 {
        let (head, next) = rest.split_at(16);
        state = mix(word(head) ^ K1, word(tail(head, 8)) ^ state);
        rest = next;
    }
    let (a, b) = match rest.len() {
        9..=16 => (word(rest), word(tail(rest, 8))),
        4..=8 => (half(rest), half(tail(rest, 4))),
        1..=3 => {
            let first = u64::from(rest.first().copied().unwrap_or(0));
            let middle = u64::from(rest.get(rest.len() / 2).copied().unwrap_or(0));
            let last = u64::from(rest.last().copied().unwrap_or(0));
            (first << 16 | middle << 8 | last, 0)
        }
        _ => (0, 0),
    };
    mix(mix(a ^ K1, b ^ state) ^ K2, len as u64 ^ K1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_length_and_every_byte_counts() {
        let mut seen = BTreeSet::new();
        let bytes: Vec<u8> = (0..100u8).collect();
        for len in 0..=bytes.len() {
            let mut copy = bytes[..len].to_vec();
            assert!(seen.insert(hash(&copy, 0)));
            for at in 0..len {
                copy[at] ^= 0x80;
                assert!(seen.insert(hash(&copy, 0)), "len {len} at {at}");
                copy[at] ^= 0x80;
            }
        }
    }

    #[test]
    fn numbered_subjects_spread_over_the_low_bits() {
        let mut slots = vec![0u32; 1 << 12];
        for i in 0..1u32 << 16 {
            let name = format!("$KV.bucket.key-{i}");
            slots[(hash(name.as_bytes(), 0) & 0xfff) as usize] += 1;
        }
        // 16 expected in each; a Poisson tail beyond 48 would be a broken hash.
        assert!(slots.iter().all(|&count| count < 48 && count > 0));
    }
}
