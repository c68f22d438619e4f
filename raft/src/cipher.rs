//! The seam for encryption at rest: what seals the bodies of the log's records.

/// Seals record bodies with a key that this crate never sees. Implementations choose nonces that never repeat under one
/// key, whatever the position: after a torn tail was cut, a position is written again with other bytes.
pub trait Cipher: Send + Sync + 'static {
    /// By how many bytes a sealed body is longer than a plain one (nonce and tag).
    fn overhead_bytes(&self) -> usize;

    /// Seals `head` followed by `payload`; the result is exactly [`Cipher::overhead_bytes`] longer. `position` is bound into
    /// the result, so that it opens at no other place.
    fn seal(&self, position: u64, head: &[u8], payload: &[u8]) -> Vec<u8>;

    /// Opens a sealed body; `None` when the key, the position or any byte is not the one it was sealed with.
    fn open(&self, position: u64, sealed: &[u8]) -> Option<Vec<u8>>;
}
