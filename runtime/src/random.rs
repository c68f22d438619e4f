//! Randomness: unpredictable in production, a function of the seed in a simulation.
//!
//! Good enough for tokens, nonces and names in production (the thread's ChaCha generator, seeded by the system).
//! Nothing replicated may depend on it.

use rand::Rng;

/// A uniformly random number.
#[expect(clippy::disallowed_methods, reason = "the door to randomness")]
#[inline]
pub fn u64() -> u64 {
    #[cfg(feature = "sim")]
    if crate::in_sim() {
        return crate::sim::random_u64();
    }
    rand::random()
}

/// A uniformly random number in `0..bound`.
///
/// # Panics
/// When `bound` is zero.
pub fn below(bound: u64) -> u64 {
    assert!(bound > 0, "no number is below zero");
    // Reject the tail of the range that would make small numbers likelier.
    let zone = u64::MAX - (u64::MAX % bound);
    loop {
        let drawn = u64();
        if drawn < zone {
            return drawn % bound;
        }
    }
}

/// Fills `buffer` with random bytes.
#[expect(clippy::disallowed_methods, reason = "the door to randomness")]
pub fn fill(buffer: &mut [u8]) {
    #[cfg(feature = "sim")]
    if crate::in_sim() {
        return crate::sim::random_fill(buffer);
    }
    rand::rng().fill_bytes(buffer);
}
