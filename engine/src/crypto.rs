//! Encryption at rest: a master key wraps one random key for each file; the file's key seals its blocks.
//!
//! A file's key seals each offset at most once (files are never changed in place), so the offset is the nonce. Losing the
//! 128 bytes of a file's header loses the file, which is what overwriting counts on.

use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;

use halyard_runtime::random;

use crate::options::{Cipher, Encryption, Key};

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
