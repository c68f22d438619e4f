//! Encryption at rest of the log: what seals the bodies of its records.
//!
//! A sealed body is `life (4) | ciphertext | tag (16)`. The nonce is the record's position followed by `life`, which is
//! drawn at random when the cipher is made, that is, whenever the log is opened. A position is sealed once in a life; in a
//! later life it is sealed again only where a crash had cut a torn tail, and then under another `life`.

use std::fmt;

use halyard_runtime::random;
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;

const LIFE_BYTES: usize = 4;
const TAG_BYTES: usize = 16;
/// Separates the log's key from whatever else is derived from the same master key.
const PURPOSE: &[u8] = b"halyard node log";

/// Which cipher seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
    /// AES-256 in Galois/counter mode.
    Aes256Gcm,
}

/// Encryption of a node's log.
#[derive(Clone, PartialEq, Eq)]
pub struct Encryption {
    /// Seals new records.
    pub algorithm: Algorithm,
    /// The master key, from which the log's own keys are derived.
    pub master: [u8; 32],
    /// Opens what was sealed before the last rotation.
    pub previous: Option<[u8; 32]>,
}

// Keys never reach a log line by way of `{:?}`.
impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Seals with a key derived from a master key, and opens what the previous master key has sealed as well.
pub(crate) struct Sealing {
    keys: Vec<LessSafeKey>,
    life: [u8; LIFE_BYTES],
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealing")
    }
}

impl Sealing {
    /// A cipher for one opening of one log: make a new one whenever a node is opened. Opens what either algorithm sealed.
    pub(crate) fn new(encryption: &Encryption) -> Self {
        let algorithms = match encryption.algorithm {
            Algorithm::ChaCha20Poly1305 => [&CHACHA20_POLY1305, &AES_256_GCM],
            Algorithm::Aes256Gcm => [&AES_256_GCM, &CHACHA20_POLY1305],
        };
        let derive = |master: &[u8; 32]| {
            let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, master), PURPOSE);
            algorithms.map(|algorithm| {
                LessSafeKey::new(
                    UnboundKey::new(algorithm, key.as_ref()).expect("both ciphers take 32 bytes"),
                )
            })
        };
        let keys = std::iter::once(&encryption.master)
            .chain(&encryption.previous)
            .flat_map(derive)
            .collect();
        let mut life = [0; LIFE_BYTES];
        random::fill(&mut life);
        Self { keys, life }
    }
}

fn nonce(position: u64, life: [u8; LIFE_BYTES]) -> Nonce {
    let mut bytes = [0; 12];
    let (place, end) = bytes.split_at_mut(8);
    place.copy_from_slice(&position.to_le_bytes());
    end.copy_from_slice(&life);
    Nonce::assume_unique_for_key(bytes)
}

impl Sealing {
    /// By how many bytes a sealed body is longer than a plain one.
    pub(crate) fn overhead_bytes(&self) -> usize {
        LIFE_BYTES + TAG_BYTES
    }

    /// Seals `head` followed by `payload`. `position` is bound into the result, so that it opens at no other place.
    pub(crate) fn seal(&self, position: u64, head: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(head.len() + payload.len() + self.overhead_bytes());
        for part in [&self.life, head, payload] {
            sealed.extend_from_slice(part);
        }
        let key = self.keys.first().expect("a master key");
        let (_, body) = sealed.split_at_mut(LIFE_BYTES);
        let tag = key.seal_in_place_separate_tag(nonce(position, self.life), Aad::empty(), body);
        sealed.extend_from_slice(
            tag.expect("a record is shorter than the cipher's limit")
                .as_ref(),
        );
        sealed
    }

    /// Opens a sealed body; `None` when the key, the position or any byte is not the one it was sealed with.
    pub(crate) fn open(&self, position: u64, sealed: &[u8]) -> Option<Vec<u8>> {
        let (life, body) = sealed.split_first_chunk::<LIFE_BYTES>()?;
        self.keys.iter().find_map(|key| {
            let mut bytes = body.to_vec();
            let length = key
                .open_in_place(nonce(position, *life), Aad::empty(), &mut bytes)
                .ok()?
                .len();
            bytes.truncate(length);
            Some(bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [[u8; 32]; 2] = [[1; 32], [2; 32]];

    fn sealing(algorithm: Algorithm, master: &[u8; 32], previous: Option<&[u8; 32]>) -> Sealing {
        Sealing::new(&Encryption {
            algorithm,
            master: *master,
            previous: previous.copied(),
        })
    }

    #[test]
    fn what_was_sealed_opens_in_its_place_only() {
        for algorithm in [Algorithm::ChaCha20Poly1305, Algorithm::Aes256Gcm] {
            let cipher = sealing(algorithm, &KEYS[0], None);
            let sealed = cipher.seal(512, b"head", b"payload");
            assert_eq!(sealed.len(), 11 + cipher.overhead_bytes());
            assert!(!sealed.windows(4).any(|window| window == b"payl"));
            let again = sealing(algorithm, &KEYS[0], None);
            assert_eq!(
                again.open(512, &sealed).as_deref(),
                Some(&b"headpayload"[..])
            );
            assert_eq!(again.open(520, &sealed), None);
            for at in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(again.open(512, &changed), None, "byte {at}");
            }
        }
    }

    #[test]
    fn the_previous_key_opens_and_another_does_not() {
        let sealed = sealing(Algorithm::Aes256Gcm, &KEYS[0], None).seal(8, b"", b"x");
        let rotated = sealing(Algorithm::Aes256Gcm, &KEYS[1], Some(&KEYS[0]));
        assert_eq!(rotated.open(8, &sealed).as_deref(), Some(&b"x"[..]));
        let other = sealing(Algorithm::ChaCha20Poly1305, &KEYS[0], None);
        assert_eq!(
            other.open(8, &sealed).as_deref(),
            Some(&b"x"[..]),
            "the algorithm may be changed"
        );
        assert_eq!(
            sealing(Algorithm::Aes256Gcm, &KEYS[1], None).open(8, &sealed),
            None
        );
        let second = sealing(Algorithm::Aes256Gcm, &KEYS[0], None).seal(8, b"", b"x");
        assert_ne!(second, sealed, "each life has its own nonces");
    }
}
