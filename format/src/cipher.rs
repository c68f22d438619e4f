//! Encryption at rest: the cipher, the master key, and the one way in which bytes are encrypted and decrypted.
//!
//! Which key encrypts what, and why no key ever has one nonce twice, is the business of the files: segments and manifests have
//! a key for each file (`halyard_engine`, `file_key`), the log one for each time that it was opened (`halyard_raft`, `cipher`).
//! Both derive from, or are wrapped by, the same [`Key`].

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::{hmac, pbkdf2};

use crate::codec::Malformed;

/// Bytes that encryption adds.
pub const TAG_BYTES: usize = 16;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes of every key.
pub const KEY_BYTES: usize = 32;

/// Rounds of the derivation of a master key from a passphrase. Part of the format: another number is another key.
const PASSPHRASE_ROUNDS: std::num::NonZeroU32 = std::num::NonZeroU32::new(600_000).expect("not 0");
/// The same for everybody, as part of the format: a salt of its own would be one more file that must not be lost.
const PASSPHRASE_SALT: &[u8] = b"halyard master key from a passphrase, 1";

/// Which AEAD encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cipher {
    /// ChaCha20-Poly1305: fast everywhere.
    #[default]
    ChaCha20Poly1305,
    /// AES-256-GCM: fast where the CPU has AES.
    Aes256Gcm,
}

impl Cipher {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::ChaCha20Poly1305, Self::Aes256Gcm];

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
            Self::Aes256Gcm => "AES-256-GCM",
        }
    }

    /// The number of a cipher in files; never 0, which is no cipher.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::ChaCha20Poly1305 => 1,
            Self::Aes256Gcm => 2,
        }
    }

    /// The cipher of a number in a file; 0 is none.
    ///
    /// # Errors
    /// No cipher has this number.
    pub const fn of_number(number: u8) -> Result<Option<Self>, Malformed> {
        match number {
            0 => Ok(None),
            1 => Ok(Some(Self::ChaCha20Poly1305)),
            2 => Ok(Some(Self::Aes256Gcm)),
            _ => Err(Malformed("a number of no known cipher")),
        }
    }

    const fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Self::Aes256Gcm => &AES_256_GCM,
        }
    }
}

/// A 256-bit master key. It wraps other keys or has them derived from it, and never touches the disk itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub [u8; KEY_BYTES]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// The master key that a secret of the configuration stands for: 64 hexadecimal digits are the key itself; any other
    /// text is a passphrase, stretched by PBKDF2-HMAC-SHA256, which takes some tenths of a second on purpose.
    #[must_use]
    pub fn from_secret(secret: &str) -> Self {
        if let Some(key) = from_hex(secret) {
            return Self(key);
        }
        let mut key = [0; KEY_BYTES];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            PASSPHRASE_ROUNDS,
            PASSPHRASE_SALT,
            secret.as_bytes(),
            &mut key,
        );
        Self(key)
    }

    /// Names the key without telling it.
    #[must_use]
    pub fn id(&self) -> u64 {
        let [b0, b1, b2, b3, b4, b5, b6, b7, ..] = self.derive(b"halyard master key").0;
        u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7])
    }

    /// Another key that depends on this one and on `purpose`, and tells neither of them nor of a key for another purpose.
    #[must_use]
    pub fn derive(&self, purpose: &[u8]) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), purpose);
        let bytes = tag.as_ref().first_chunk::<KEY_BYTES>();
        Self(*bytes.expect("SHA-256 gives 32 bytes"))
    }
}

fn from_hex(text: &str) -> Option<[u8; KEY_BYTES]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * KEY_BYTES {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut key = [0; KEY_BYTES];
    for (to, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = *pair else { return None };
        *to = u8::try_from(digit(high)? * 16 + digit(low)?).ok()?;
    }
    Some(key)
}

/// Encryption at rest of everything that a node keeps on its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// For what is written.
    pub cipher: Cipher,
    /// The master key of what is written.
    pub key: Key,
    /// Decrypts what was written before the last change of the key; it is rewritten under `key`.
    pub previous: Option<Key>,
}

/// The bytes, their place or their key are not what they were when they were encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it does not decrypt with this key in this place")]
pub struct Undecipherable;

/// 96 bits that no key may be used with twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonceBytes(pub [u8; NONCE_BYTES]);

impl NonceBytes {
    /// Made of a place in a file, and of four more bytes.
    #[inline]
    #[must_use]
    pub fn at(place: u64, [e0, e1, e2, e3]: [u8; 4]) -> Self {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = place.to_le_bytes();
        Self([b0, b1, b2, b3, b4, b5, b6, b7, e0, e1, e2, e3])
    }
}

/// A key that encrypts data with one cipher.
pub struct DataKey(LessSafeKey);

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

impl DataKey {
    /// `key` as a key of `cipher`.
    ///
    /// # Panics
    /// Never: both ciphers take 32 bytes.
    #[must_use]
    pub fn new(cipher: Cipher, key: &Key) -> Self {
        let key = UnboundKey::new(cipher.algorithm(), &key.0);
        Self(LessSafeKey::new(key.expect("both ciphers take 32 bytes")))
    }

    /// Encrypts `bytes` in place. Gives the tag, which belongs behind them; it proves `context`, too.
    ///
    /// The caller sees to it that this key never meets `nonce` again.
    ///
    /// # Panics
    /// More bytes than the cipher takes at once: 64 GiB.
    #[inline]
    #[must_use]
    pub fn encrypt(&self, nonce: NonceBytes, context: &[u8], bytes: &mut [u8]) -> [u8; TAG_BYTES] {
        let nonce = Nonce::assume_unique_for_key(nonce.0);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(context), bytes);
        let tag = tag.expect("far below the cipher's limit of 64 GiB");
        let tag = tag.as_ref().first_chunk::<TAG_BYTES>();
        *tag.expect("both ciphers have tags of 16 bytes")
    }

    /// Decrypts bytes with their tag behind them in place, and cuts the tag off.
    ///
    /// # Errors
    /// Key, nonce, context or any byte is not the one that they were encrypted with; `bytes` are worth nothing then.
    #[inline]
    pub fn decrypt(
        &self,
        nonce: NonceBytes,
        context: &[u8],
        bytes: &mut Vec<u8>,
    ) -> Result<(), Undecipherable> {
        let nonce = Nonce::assume_unique_for_key(nonce.0);
        let plain = self.0.open_in_place(nonce, Aad::from(context), bytes);
        let len = plain.map_err(|_| Undecipherable)?.len();
        debug_assert_eq!(len + TAG_BYTES, bytes.len(), "only the tag goes");
        bytes.truncate(len);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_key_or_a_passphrase() {
        let digits = "000102030405060708090a0b0c0d0e0fF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF";
        let Key(key) = Key::from_secret(digits);
        assert_eq!((key[1], key[15], key[16], key[31]), (1, 15, 0xf0, 0xff));
        assert_eq!(Key::from_secret(&digits.to_lowercase()), Key(key));
        // Part of the format: a store written with a passphrase must open for ever.
        let hex = |Key(key): Key| -> String { key.iter().map(|b| format!("{b:02x}")).collect() };
        assert_eq!(hex(Key::from_secret("a passphrase")), PASSPHRASE_KEY);
        let almost = digits.replace('F', "g");
        assert_ne!(
            Key::from_secret(&almost),
            Key(key),
            "no key, so a passphrase"
        );
    }

    #[test]
    fn numbers_of_ciphers_are_the_format() {
        assert_eq!(Cipher::of_number(0), Ok(None));
        for cipher in Cipher::ALL {
            assert_eq!(Cipher::of_number(cipher.number()), Ok(Some(cipher)));
        }
        assert_eq!(Cipher::ALL.map(Cipher::number), [1, 2]);
        assert!(Cipher::of_number(3).is_err());
    }

    #[test]
    fn bytes_decrypt_with_their_key_nonce_and_context_only() {
        for cipher in Cipher::ALL {
            let key = Key([1; KEY_BYTES]);
            let (data, nonce) = (DataKey::new(cipher, &key), NonceBytes::at(128, [0; 4]));
            let mut encrypted = b"payload".to_vec();
            let tag = data.encrypt(nonce, b"context", &mut encrypted);
            encrypted.extend_from_slice(&tag);
            let decrypt = |data: &DataKey, nonce, context: &[u8], bytes: &[u8]| {
                let mut bytes = bytes.to_vec();
                data.decrypt(nonce, context, &mut bytes).map(|()| bytes)
            };
            let whole = Ok(b"payload".to_vec());
            assert_eq!(decrypt(&data, nonce, b"context", &encrypted), whole);
            let (other, place) = (
                DataKey::new(cipher, &key.derive(b"other")),
                NonceBytes::at(129, [0; 4]),
            );
            let fails = Err(Undecipherable);
            assert_eq!(decrypt(&other, nonce, b"context", &encrypted), fails);
            assert_eq!(decrypt(&data, place, b"context", &encrypted), fails);
            assert_eq!(decrypt(&data, nonce, b"another", &encrypted), fails);
            for len in 0..encrypted.len() {
                assert_eq!(decrypt(&data, nonce, b"context", &encrypted[..len]), fails);
            }
        }
    }

    const PASSPHRASE_KEY: &str = "58cf78e7bfc0d7a0a58058cfe5794de9e52e7072526bfe2e270b1a8d985cb38c";
}
