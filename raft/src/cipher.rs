//! Encryption at rest of the log: which key encrypts the body of a record. The ciphers are [`halyard_format::cipher`]'s.
//!
//! ```text
//!   bound form   life (16) | ciphertext | tag (16)      flags 3; what is written
//!   first form   life (4)  | ciphertext | tag (16)      flags 1; what releases up to 0.1 wrote, only read
//! ```
//!
//! A *life* is one opening of one log, named by random bytes that are drawn when the log is opened and stand before each
//! body sealed in it.
//!
//! **Bound form.** Each life has a key of its own, derived from the master key, the cipher and the life's 128 random bits;
//! the nonce is the record's position and four zeros. So a nonce could repeat under one key only if one life sealed one
//! position twice, and it cannot: the writer goes forward only, and after a write or sync that failed it never writes
//! again. What may well happen is that two lives write one position: a crash cuts a torn tail and the next life goes on in
//! its place; an old image of the disk is put back and started; one image is cloned many times; several servers or stores
//! have the same key in their configuration, and positions start at 0 in each. All of these are different lives, hence
//! different keys, but for a collision of 128 random bits: after 2^32 openings one in 2^65. A key seals at most one record
//! for each 8 bytes of one opening's log, far below what either cipher allows. The record's header (all of it but the
//! checksum, which is about the sealed bytes) is authenticated with the body, so that a record opens in its place, group
//! and log only, as the kind that it was.
//!
//! **First form.** One key for all lives, the nonce being the position and 32 random bits for the life: two lives that wrote
//! the same position had the same nonce once in 2^32. For crashes that is rare, for a thousand clones of one image (half a
//! million pairs) it is one in ten thousand, and in both ciphers one repeated nonce tells the difference of two records
//! and lets records be forged. Hence the bound form. Logs with records of the first form are read, and are let go as after
//! a change of the key.
//!
//! What this does not cover: a running machine that is frozen with its memory and resumed twice is one life twice.

use std::fmt;

use halyard_format::cipher::{DataKey, NonceBytes, TAG_BYTES};
use halyard_format::{Cipher, Encryption, Key};
use halyard_runtime::random;
use parking_lot::Mutex;

use crate::wal::record::{CONTEXT_BYTES, Form};

const LIFE_BYTES: usize = 16;
const FIRST_LIFE_BYTES: usize = 4;
/// Separates the log's keys from whatever else is derived from the same master key.
const LIVES: &[u8] = b"halyard node log, keys of lives";
const FIRST_PURPOSE: &[u8] = b"halyard node log";

/// What is derived from one master key.
struct Master {
    lives: Key,
    /// Keys of the first form, as [`Cipher::ALL`].
    first: [DataKey; 2],
}

impl Master {
    fn new(key: &Key) -> Self {
        let first = key.derive(FIRST_PURPOSE);
        Self {
            lives: key.derive(LIVES),
            first: Cipher::ALL.map(|cipher| DataKey::new(cipher, &first)),
        }
    }

    fn life(&self, cipher: Cipher, life: &[u8; LIFE_BYTES]) -> DataKey {
        let mut named = [cipher.number(); LIFE_BYTES + 1];
        let (_, rest) = named.split_at_mut(1);
        rest.copy_from_slice(life);
        DataKey::new(cipher, &self.lives.derive(&named))
    }
}

/// A body that was opened.
pub(crate) struct Opened {
    pub(crate) body: Vec<u8>,
    /// Sealed in the form, with the key and with the cipher of now.
    pub(crate) is_current: bool,
}

/// Seals with a key derived from a master key, and opens what the previous master key has sealed as well.
pub(crate) struct Sealing {
    /// The one that seals, then the previous one.
    masters: Vec<Master>,
    cipher: Cipher,
    life: [u8; LIFE_BYTES],
    key: DataKey,
    /// The life that was opened last: a log has long runs of one.
    last: Mutex<Option<OtherLife>>,
}

/// A life before this one, whose key was found.
struct OtherLife {
    life: [u8; LIFE_BYTES],
    key: DataKey,
    is_current: bool,
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealing")
    }
}

impl Sealing {
    /// Begins a life: for one opening of one log, never for two.
    pub(crate) fn new(encryption: &Encryption) -> Self {
        let newest = Master::new(&encryption.key);
        let mut life = [0; LIFE_BYTES];
        random::fill(&mut life);
        let key = newest.life(encryption.cipher, &life);
        let previous = encryption.previous.as_ref().map(Master::new);
        Self {
            masters: std::iter::once(newest).chain(previous).collect(),
            cipher: encryption.cipher,
            life,
            key,
            last: Mutex::default(),
        }
    }

    /// By how many bytes a sealed body is longer than a plain one; one of the first form is shorter.
    pub(crate) const OVERHEAD_BYTES: usize = LIFE_BYTES + TAG_BYTES;

    /// Appends the sealed body made of `head` followed by `payload`: [`Sealing::OVERHEAD_BYTES`] longer than both.
    /// `position` must not have been sealed by this value before; it and `context` are bound into the result.
    pub(crate) fn seal(
        &self,
        position: u64,
        context: &[u8; CONTEXT_BYTES],
        head: &[u8],
        payload: &[u8],
        out: &mut Vec<u8>,
    ) {
        let before = out.len();
        out.extend_from_slice(&self.life);
        let start = out.len();
        out.extend_from_slice(head);
        out.extend_from_slice(payload);
        let (_, body) = out.split_at_mut(start);
        debug_assert_eq!(body.len(), head.len() + payload.len());
        let tag = self
            .key
            .encrypt(NonceBytes::at(position, [0; 4]), context, body);
        out.extend_from_slice(&tag);
        debug_assert_eq!(
            out.len() - before,
            head.len() + payload.len() + Self::OVERHEAD_BYTES,
            "a sealed body is as much longer as its header says"
        );
    }

    /// Opens a sealed body; `None` when the key, the place or any byte is not the one that it was sealed with.
    pub(crate) fn open(
        &self,
        form: Form,
        position: u64,
        context: &[u8; CONTEXT_BYTES],
        sealed: &[u8],
    ) -> Option<Opened> {
        match form {
            Form::Plain => None,
            Form::First => self.open_first(position, sealed),
            Form::Bound => self.open_bound(position, context, sealed),
        }
    }

    fn open_bound(
        &self,
        position: u64,
        context: &[u8; CONTEXT_BYTES],
        sealed: &[u8],
    ) -> Option<Opened> {
        let (life, body) = sealed.split_first_chunk::<LIFE_BYTES>()?;
        let open = |key: &DataKey, is_current| {
            let body = open_with(key, NonceBytes::at(position, [0; 4]), context, body)?;
            Some(Opened { body, is_current })
        };
        if *life == self.life {
            return open(&self.key, true);
        }
        let mut last = self.last.lock();
        if let Some(known) = last.as_ref().filter(|known| known.life == *life) {
            return open(&known.key, known.is_current);
        }
        for (age, master) in self.masters.iter().enumerate() {
            for cipher in Cipher::ALL {
                let key = master.life(cipher, life);
                let is_current = age == 0 && cipher == self.cipher;
                if let Some(opened) = open(&key, is_current) {
                    *last = Some(OtherLife {
                        life: *life,
                        key,
                        is_current,
                    });
                    return Some(opened);
                }
            }
        }
        None
    }

    fn open_first(&self, position: u64, sealed: &[u8]) -> Option<Opened> {
        let (life, body) = sealed.split_first_chunk::<FIRST_LIFE_BYTES>()?;
        let mut keys = self.masters.iter().flat_map(|master| &master.first);
        keys.find_map(|key| {
            let body = open_with(key, NonceBytes::at(position, *life), &[], body)?;
            Some(Opened {
                body,
                is_current: false,
            })
        })
    }
}

fn open_with(key: &DataKey, nonce: NonceBytes, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = sealed.to_vec();
    key.decrypt(nonce, context, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [[u8; 32]; 2] = [[1; 32], [2; 32]];
    const CONTEXT: [u8; CONTEXT_BYTES] = [5; CONTEXT_BYTES];

    fn sealing(cipher: Cipher, master: &[u8; 32], previous: Option<&[u8; 32]>) -> Sealing {
        Sealing::new(&Encryption {
            cipher,
            key: Key(*master),
            previous: previous.copied().map(Key),
        })
    }

    fn seal(with: &Sealing, position: u64, head: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        with.seal(position, &CONTEXT, head, payload, &mut out);
        out
    }

    fn open(with: &Sealing, position: u64, sealed: &[u8]) -> Option<(Vec<u8>, bool)> {
        with.open(Form::Bound, position, &CONTEXT, sealed)
            .map(|opened| (opened.body, opened.is_current))
    }

    #[test]
    fn what_was_sealed_opens_in_its_place_only() {
        for cipher in Cipher::ALL {
            let sealed = seal(&sealing(cipher, &KEYS[0], None), 512, b"head", b"payload");
            assert_eq!(sealed.len(), 11 + Sealing::OVERHEAD_BYTES);
            assert!(!sealed.windows(4).any(|window| window == b"payl"));
            let again = sealing(cipher, &KEYS[0], None);
            assert_eq!(
                open(&again, 512, &sealed),
                Some((b"headpayload".to_vec(), true))
            );
            assert_eq!(open(&again, 520, &sealed), None);
            for form in [Form::Plain, Form::First] {
                assert!(again.open(form, 512, &CONTEXT, &sealed).is_none());
            }
            let other = [6; CONTEXT_BYTES];
            assert!(again.open(Form::Bound, 512, &other, &sealed).is_none());
            for at in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(open(&again, 512, &changed), None, "byte {at}");
            }
        }
    }

    #[test]
    fn the_previous_key_opens_and_another_does_not() {
        let old = seal(&sealing(Cipher::Aes256Gcm, &KEYS[0], None), 8, b"", b"x");
        let rotated = sealing(Cipher::Aes256Gcm, &KEYS[1], Some(&KEYS[0]));
        let new = seal(&rotated, 8, b"", b"x");
        for _ in 0..2 {
            assert_eq!(open(&rotated, 8, &old), Some((b"x".to_vec(), false)));
            assert_eq!(open(&rotated, 8, &new), Some((b"x".to_vec(), true)));
        }
        let other_cipher = sealing(Cipher::ChaCha20Poly1305, &KEYS[0], None);
        assert_eq!(open(&other_cipher, 8, &old), Some((b"x".to_vec(), false)));
        let new_alone = sealing(Cipher::Aes256Gcm, &KEYS[1], None);
        assert_eq!(open(&new_alone, 8, &old), None);
        assert_eq!(open(&new_alone, 8, &new), Some((b"x".to_vec(), true)));
    }

    /// Two lives that write one position, for whatever reason, share no key: equal records have nothing in common.
    #[test]
    fn every_life_has_a_key_of_its_own() {
        for cipher in Cipher::ALL {
            let lives: Vec<Vec<u8>> = (0..2)
                .map(|_| seal(&sealing(cipher, &KEYS[0], None), 512, &[0; 32], &[0; 4096]))
                .collect();
            let [one, other] = lives.as_slice() else {
                unreachable!("two lives");
            };
            assert_ne!(one.first_chunk::<16>(), other.first_chunk::<16>());
            let equal = one.iter().zip(other).filter(|(a, b)| a == b).count();
            // The streams of one key and nonce would be equal throughout; of two keys one byte in 256 is.
            assert!(equal < 64, "{equal} of {} bytes are equal", one.len());
        }
    }
}
