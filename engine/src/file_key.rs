//! The keys of files: a master key wraps one random key for each file; the file's key seals its blocks.
//!
//! Nonces. A file's key is 256 random bits, drawn when the writer of the file is made and held by nobody else; the writer
//! goes forward only, and a file that could not be finished is begun anew under another name with another key. So a key
//! seals each offset at most once, and the offset is the nonce: the same offset in another file, in the same file name
//! used again, or on a disk that was put back to an older image and written anew, is another key's. The master key itself
//! seals nothing but those 32 byte keys, each under 96 random bits: with 2^32 files (a file for each flush, every second
//! for a century) two of them share a nonce once in 2^33. What is sealed is bound to its place: the header's first 32 bytes
//! (kind, format, cipher, id, key id) to the wrapped key, the file's id and the block's frame to each block.
//!
//! The cipher itself, and the master key, are [`halyard_format::cipher`]'s. Losing the 128 bytes of a file's header loses the file, which is what overwriting counts on.

use halyard_format::cipher::{
    DataKey, KEY_BYTES, NONCE_BYTES, NonceBytes, TAG_BYTES, Undecipherable,
};
use halyard_format::{Cipher, Encryption, Key, Malformed};
use halyard_runtime::random;

/// Nonce, wrapped key and tag in a file header.
pub(crate) const WRAPPED_BYTES: usize = NONCE_BYTES + KEY_BYTES + TAG_BYTES;

/// How a file is sealed: which master key wraps its own, and the number of the cipher. Two zeros are a plain file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SealedWith {
    pub(crate) key_id: u64,
    pub(crate) cipher: u8,
}

impl SealedWith {
    /// How new files are.
    pub(crate) fn new(encryption: Option<&Encryption>) -> Self {
        encryption.map_or(Self::default(), |encryption| Self {
            key_id: encryption.key.id(),
            cipher: encryption.cipher.number(),
        })
    }

    /// The cipher; `None` for a plain file.
    pub(crate) fn cipher(self) -> Result<Option<Cipher>, Malformed> {
        Cipher::of_number(self.cipher)
    }
}

/// The key of one file.
#[derive(Debug)]
pub(crate) struct FileKey(DataKey);

impl FileKey {
    /// A new random key, and its wrapped form for the header; `context` is bound to it.
    pub(crate) fn create(encryption: &Encryption, context: &[u8]) -> (Self, [u8; WRAPPED_BYTES]) {
        let (mut key, mut nonce) = (Key([0; KEY_BYTES]), NonceBytes([0; NONCE_BYTES]));
        random::fill(&mut key.0);
        random::fill(&mut nonce.0);
        let mut wrapped_key = key.0;
        let master = DataKey::new(encryption.cipher, &encryption.key);
        let tag = master.encrypt(nonce, context, &mut wrapped_key);
        let mut wrapped = [0; WRAPPED_BYTES];
        let (nonce_place, rest) = wrapped.split_at_mut(NONCE_BYTES);
        let (key_place, tag_place) = rest.split_at_mut(KEY_BYTES);
        nonce_place.copy_from_slice(&nonce.0);
        key_place.copy_from_slice(&wrapped_key);
        tag_place.copy_from_slice(&tag);
        (Self(DataKey::new(encryption.cipher, &key)), wrapped)
    }

    /// Unwraps the key of a file.
    pub(crate) fn open(
        cipher: Cipher,
        master: &Key,
        wrapped: &[u8; WRAPPED_BYTES],
        context: &[u8],
    ) -> Result<Self, Undecipherable> {
        let (nonce, wrapped_key) = wrapped
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(Undecipherable)?;
        let mut key = wrapped_key.to_vec();
        DataKey::new(cipher, master).decrypt(NonceBytes(*nonce), context, &mut key)?;
        let key = <[u8; KEY_BYTES]>::try_from(key).map_err(|_| Undecipherable)?;
        Ok(Self(DataKey::new(cipher, &Key(key))))
    }

    /// Encrypts the block `bytes`, which goes to `offset`, in place and appends the tag.
    pub(crate) fn seal(&self, offset: u64, context: &[u8], bytes: &mut Vec<u8>) {
        let tag = self.0.encrypt(nonce(offset), context, bytes);
        bytes.extend_from_slice(&tag);
    }

    /// Decrypts what [`FileKey::seal`] encrypted.
    pub(crate) fn open_block(
        &self,
        offset: u64,
        context: &[u8],
        bytes: &mut Vec<u8>,
    ) -> Result<(), Undecipherable> {
        self.0.decrypt(nonce(offset), context, bytes)
    }
}

/// A file's key meets each offset once.
fn nonce(offset: u64) -> NonceBytes {
    NonceBytes::at(offset, [0; 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Equal bytes at one place of two files, and at two places of one file, have nothing in common; neither have the
    /// wrapped keys. Whoever draws the same key or nonce twice is noticed by nothing else: it all opens again.
    #[test]
    fn no_two_files_share_a_key_and_no_two_blocks_a_nonce() {
        for cipher in Cipher::ALL {
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
        assert_eq!(open(129, b"frame"), Err(Undecipherable));
        assert_eq!(open(128, b"other"), Err(Undecipherable));
    }
}
