//! Encryption at rest: a master key wraps one random key for each file; the file's key seals its blocks.
//!
//! Nonces. A file's key is 256 random bits, drawn when the writer of the file is made and held by nobody else; the writer
//! goes forward only, and a file that could not be finished is begun anew under another name with another key. So a key
//! seals each offset at most once, and the offset is the nonce: the same offset in another file, in the same file name
//! used again, or on a disk that was put back to an older image and written anew, is another key's. The master key itself
//! seals nothing but those 32 byte keys, each under 96 random bits: with 2^32 files (a file for each flush, every second
//! for a century) two of them share a nonce once in 2^33. What is sealed is bound to its place: the header's first 32 bytes
//! (kind, format, cipher, id, key id) to the wrapped key, the file's id and the block's frame to each block.
//!
//! Losing the 128 bytes of a file's header loses the file, which is what overwriting counts on.

use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::{hmac, pbkdf2};

use halyard_runtime::random;

use crate::options::{Cipher, Encryption, Key};

/// Rounds of the derivation of a master key from a passphrase. Part of the format: another number is another key.
const PASSPHRASE_ROUNDS: std::num::NonZeroU32 = std::num::NonZeroU32::new(600_000).expect("not 0");
/// The same for everybody, as part of the format: a salt of its own would be one more file that must not be lost.
const PASSPHRASE_SALT: &[u8] = b"halyard master key from a passphrase, 1";

/// Bytes that sealing adds.
pub(crate) const TAG_BYTES: usize = 16;
/// Nonce, wrapped key and tag in a file header.
pub(crate) const WRAPPED_BYTES: usize = 12 + 32 + TAG_BYTES;

/// The bytes cannot be opened with this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed;

fn algorithm(cipher: Cipher) -> &'static Algorithm {
    match cipher {
        Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        Cipher::Aes256Gcm => &AES_256_GCM,
    }
}

fn bind(cipher: Cipher, key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(algorithm(cipher), key).expect("both ciphers take 32 bytes"))
}

/// The number of a cipher in a file header; 0 is none.
pub(crate) fn cipher_number(cipher: Option<Cipher>) -> u8 {
    match cipher {
        None => 0,
        Some(Cipher::ChaCha20Poly1305) => 1,
        Some(Cipher::Aes256Gcm) => 2,
    }
}

/// The cipher of a number in a file header.
pub(crate) fn cipher_of(number: u8) -> Option<Option<Cipher>> {
    match number {
        0 => Some(None),
        1 => Some(Some(Cipher::ChaCha20Poly1305)),
        2 => Some(Some(Cipher::Aes256Gcm)),
        _ => None,
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
        let mut key = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            PASSPHRASE_ROUNDS,
            PASSPHRASE_SALT,
            secret.as_bytes(),
            &mut key,
        );
        Self(key)
    }
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut key = [0; 32];
    for (to, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = *pair else { return None };
        *to = u8::try_from(digit(high)? * 16 + digit(low)?).ok()?;
    }
    Some(key)
}

/// How a file is sealed: which master key wraps its own, and which cipher. Two zeros are a plain file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SealedWith {
    pub(crate) key_id: u64,
    pub(crate) cipher: u8,
}

impl SealedWith {
    /// How new files are.
    pub(crate) fn new(encryption: Option<&Encryption>) -> Self {
        Self {
            key_id: encryption.map_or(0, |encryption| key_id(&encryption.key)),
            cipher: cipher_number(encryption.map(|encryption| encryption.cipher)),
        }
    }
}

/// Names a master key without telling it.
pub(crate) fn key_id(key: &Key) -> u64 {
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, &key.0),
        b"halyard master key",
    );
    tag.as_ref()
        .first_chunk::<8>()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The key of one file.
pub(crate) struct FileKey(LessSafeKey);

impl std::fmt::Debug for FileKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileKey(..)")
    }
}

fn nonce(offset: u64) -> Nonce {
    let mut bytes = [0; 12];
    for (to, from) in bytes.iter_mut().zip(offset.to_le_bytes()) {
        *to = from;
    }
    Nonce::assume_unique_for_key(bytes)
}

impl FileKey {
    /// A new random key, and its wrapped form for the header; `context` is bound to it.
    pub(crate) fn create(encryption: &Encryption, context: &[u8]) -> (Self, [u8; WRAPPED_BYTES]) {
        let (mut key, mut wrap_nonce) = ([0; 32], [0; 12]);
        random::fill(&mut key);
        random::fill(&mut wrap_nonce);
        let mut sealed = key;
        let master = bind(encryption.cipher, &encryption.key.0);
        let tag = master
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(wrap_nonce),
                Aad::from(context),
                &mut sealed,
            )
            .expect("32 bytes are not too long to seal");
        let mut wrapped = [0; WRAPPED_BYTES];
        let pieces = wrap_nonce.iter().chain(&sealed).chain(tag.as_ref());
        for (to, from) in wrapped.iter_mut().zip(pieces) {
            *to = *from;
        }
        (Self(bind(encryption.cipher, &key)), wrapped)
    }

    /// Unwraps the key of a file.
    pub(crate) fn open(
        cipher: Cipher,
        master: &Key,
        wrapped: &[u8; WRAPPED_BYTES],
        context: &[u8],
    ) -> Result<Self, Sealed> {
        let (wrap_nonce, sealed) = wrapped.split_first_chunk::<12>().ok_or(Sealed)?;
        let mut bytes = sealed.to_vec();
        let key = bind(cipher, &master.0)
            .open_in_place(
                Nonce::assume_unique_for_key(*wrap_nonce),
                Aad::from(context),
                &mut bytes,
            )
            .map_err(|_| Sealed)?;
        let key = key.first_chunk::<32>().ok_or(Sealed)?;
        Ok(Self(bind(cipher, key)))
    }

    /// Seals `bytes` in place and appends the tag.
    pub(crate) fn seal(&self, offset: u64, context: &[u8], bytes: &mut Vec<u8>) {
        self.0
            .seal_in_place_append_tag(nonce(offset), Aad::from(context), bytes)
            .expect("a block is not too long to seal");
    }

    /// Opens what [`FileKey::seal`] sealed.
    pub(crate) fn open_block(
        &self,
        offset: u64,
        context: &[u8],
        bytes: &mut Vec<u8>,
    ) -> Result<(), Sealed> {
        let len = self
            .0
            .open_in_place(nonce(offset), Aad::from(context), bytes)
            .map_err(|_| Sealed)?
            .len();
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

    /// Equal bytes at one place of two files, and at two places of one file, have nothing in common; neither have the
    /// wrapped keys. Whoever draws the same key or nonce twice is noticed by nothing else: it all opens again.
    #[test]
    fn no_two_files_share_a_key_and_no_two_blocks_a_nonce() {
        for cipher in [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm] {
            let encryption = Encryption {
                cipher,
                key: Key([1; 32]),
                previous: None,
            };
            let create = || FileKey::create(&encryption, b"header");
            let ((one, wrapped_one), (other, wrapped_other)) = (create(), create());
            let sealed = |key: &FileKey, offset| {
                let mut bytes = vec![0; 4096];
                key.seal(offset, b"frame", &mut bytes);
                bytes
            };
            let first = sealed(&one, 128);
            let streams = [
                sealed(&other, 128),
                sealed(&one, 128 + (1 << 40)),
                sealed(&one, 129),
                vec![0; first.len()],
            ];
            for (number, stream) in streams.iter().enumerate() {
                let equal = first.iter().zip(stream).filter(|(a, b)| a == b).count();
                // Of two unrelated streams one byte in 256 is equal.
                assert!(equal < 64, "{cipher:?}, stream {number}: {equal} bytes");
            }
            assert_ne!(
                wrapped_one.first_chunk::<12>(),
                wrapped_other.first_chunk::<12>(),
                "the nonces under the master key"
            );
        }
    }

    #[test]
    fn what_was_sealed_opens_in_its_place_only() {
        let encryption = Encryption {
            cipher: Cipher::Aes256Gcm,
            key: Key([1; 32]),
            previous: None,
        };
        let (key, wrapped) = FileKey::create(&encryption, b"header");
        let mut sealed = b"payload".to_vec();
        key.seal(128, b"frame", &mut sealed);
        let unwrap = |master: u8, context: &[u8]| {
            FileKey::open(encryption.cipher, &Key([master; 32]), &wrapped, context)
        };
        assert!(unwrap(2, b"header").is_err() && unwrap(1, b"another").is_err());
        let again = unwrap(1, b"header").unwrap();
        let open = |offset, context: &[u8]| {
            let mut bytes = sealed.clone();
            again
                .open_block(offset, context, &mut bytes)
                .map(|()| bytes)
        };
        assert_eq!(open(128, b"frame"), Ok(b"payload".to_vec()));
        assert_eq!(open(129, b"frame"), Err(Sealed));
        assert_eq!(open(128, b"other"), Err(Sealed));
    }

    const PASSPHRASE_KEY: &str = "58cf78e7bfc0d7a0a58058cfe5794de9e52e7072526bfe2e270b1a8d985cb38c";
}
