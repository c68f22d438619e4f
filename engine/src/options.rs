//! How a store is opened: sizes, and what protects its files.

use halyard_format::Encryption;

/// How many bytes a message counts for beyond its record, so that a stream's byte counter and `max_bytes` agree with
/// what users know from the peer's two stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overhead {
    /// For every message.
    pub message_bytes: u32,
    /// More for a message with headers.
    pub headers_bytes: u32,
}

impl Overhead {
    /// What the peer's file store counts.
    pub const FILE: Self = Self {
        message_bytes: 30,
        headers_bytes: 4,
    };
    /// What the peer's memory store counts.
    pub const MEMORY: Self = Self {
        message_bytes: 16,
        headers_bytes: 0,
    };

    /// What a message counts for: its record (subject, headers, payload) and what the store adds.
    #[must_use]
    pub fn size(self, record_len: usize, headers_len: u32) -> u64 {
        let headers = if headers_len > 0 {
            u64::from(self.headers_bytes)
        } else {
            0
        };
        record_len as u64 + u64::from(self.message_bytes) + headers
    }
}

/// The secret by which subjects are spread over hash tables in memory: without it nobody can choose subjects that
/// collide. It is in no file, and nothing that is stored or answered depends on it.
#[derive(Clone)]
pub struct HashKey(pub(crate) ahash::RandomState);

impl HashKey {
    /// A key of random words.
    #[must_use]
    pub fn new([first, second, third, fourth]: [u64; 4]) -> Self {
        Self(ahash::RandomState::with_seeds(first, second, third, fourth))
    }
}

impl Default for HashKey {
    /// A key that everybody knows, for tests and offline tools.
    fn default() -> Self {
        Self::new([1, 2, 3, 4])
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(..)")
    }
}

/// How a store is opened. `Options::default()` is right for tests and for a server's file storage without encryption.
#[derive(Debug, Clone)]
pub struct Options {
    /// What a message counts for.
    pub overhead: Overhead,
    /// Compress blocks with LZ4 where that makes them smaller.
    pub compress: bool,
    /// Seal every block; `None` stores plain bytes.
    pub encryption: Option<Encryption>,
    /// Memory for decoded blocks, in bytes.
    pub cache_bytes: usize,
    /// Segments are not merged into larger ones than this, in bytes.
    pub segment_bytes_max: u64,
    /// How many neighbouring segments of about the same size are merged into one.
    pub merge_width: usize,
    /// Overwrite every freed file that held messages before its name is removed. Without it, erasure covers live files
    /// only.
    pub overwrite_freed: bool,
    /// Bytes of disk that only deletes, purges and acknowledgements may use (see [`crate::Store::accepting`]).
    pub reserve_bytes: u64,
    /// Bytes that one maintenance job reads for scrubbing.
    pub scrub_bytes: u64,
    /// Spreads subjects over hash tables in memory.
    pub hash_key: HashKey,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            overhead: Overhead::FILE,
            compress: false,
            encryption: None,
            cache_bytes: 32 << 20,
            segment_bytes_max: 1 << 30,
            merge_width: 4,
            overwrite_freed: true,
            reserve_bytes: 16 << 20,
            scrub_bytes: 8 << 20,
            hash_key: HashKey::default(),
        }
    }
}
