//! The guard between the two copies of a segment's index, so that what one place does to a file takes at most one of them.
//!
//!   file    ... | streams, records, root | guard block | streams, records, root again | trailer
//!   guard   a trailer for the first root (40 B) | the file's header again (128 B; zeros in an encrypted file) | zeros to 4096
//!
//! It is looked for only where the header, the trailer or the second copy cannot be read, by its magic and checksum, from the end
//! of the file. The header of an encrypted file has the only copy of its key, so that overwriting its first bytes is enough to
//! erase it; therefore that is not here. Segments from before 2026-12 have no guard and their index once.

use std::sync::Arc;

use halyard_format::checksum;
use halyard_format::codec::{Malformed, Reader};
use halyard_runtime::disk::File;

use crate::block::{BlockRef, FRAME_BYTES, HEADER_BYTES};
use crate::segment::writer::{TRAILER_BYTES, TRAILER_MAGIC};

/// Bytes of its content: so much lies between the copies.
pub(crate) const GUARD_BYTES: usize = 4096;
/// Bytes of its block.
pub(crate) const GUARD_BLOCK_BYTES: u64 = (GUARD_BYTES + FRAME_BYTES) as u64;
/// Bytes that are searched at one time.
const PIECE_BYTES: u64 = 1 << 20;

/// A guard that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guard {
    /// The first copy of the root.
    pub(crate) root: BlockRef,
    /// Where the copy of the header is.
    pub(crate) header_at: u64,
}

/// A trailer, as at the end of a file and in a guard.
pub(crate) fn trailer(root: BlockRef, len: u64, id: u64) -> Vec<u8> {
    let mut trailer = TRAILER_MAGIC.to_vec();
    trailer.extend_from_slice(&root.offset.to_le_bytes());
    trailer.extend_from_slice(&root.len.to_le_bytes());
    trailer.extend_from_slice(&len.to_le_bytes());
    trailer.extend_from_slice(&id.to_le_bytes());
    checksum::close(&mut trailer);
    assert_eq!(trailer.len(), TRAILER_BYTES);
    trailer
}

/// The content of a guard.
pub(crate) fn content(root: BlockRef, len: u64, id: u64, header: &[u8]) -> Vec<u8> {
    let mut guard = trailer(root, len, id);
    guard.extend_from_slice(header);
    assert!(guard.len() <= TRAILER_BYTES + HEADER_BYTES);
    guard.resize(GUARD_BYTES, 0);
    guard
}

/// The guard of segment `id` in a file of `len` bytes.
pub(crate) fn find(file: &Arc<dyn File>, len: u64, id: u64) -> Option<Guard> {
    let mut end = len;
    while end > 0 {
        let from = end.saturating_sub(PIECE_BYTES);
        // A trailer that begins in this piece may end in the one after it.
        let until = (end + TRAILER_BYTES as u64).min(len);
        let mut bytes = vec![0; usize::try_from(until - from).ok()?];
        if file.read_exact_at(&mut bytes, from).is_ok() {
            let places = bytes.windows(TRAILER_BYTES).enumerate().rev();
            let mut guards = places.filter_map(|(at, bytes)| read(bytes, from + at as u64, id));
            if let Some(guard) = guards.find(|guard| guard.header_at < len) {
                return Some(guard);
            }
        }
        end = from;
    }
    None
}

/// What a trailer says.
#[derive(Debug)]
pub(crate) struct Trailer {
    pub(crate) root: BlockRef,
    /// Of the whole file.
    pub(crate) len: u64,
    pub(crate) id: u64,
}

impl Trailer {
    /// Reads the trailer of [`trailer`].
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(checksum::closed(bytes)?);
        if reader.array()? != TRAILER_MAGIC {
            return Err(Malformed("no trailer"));
        }
        let (offset, len) = (reader.u64()?, reader.u32()?);
        let trailer = Self {
            root: BlockRef { offset, len },
            len: reader.u64()?,
            id: reader.u64()?,
        };
        reader.end()?;
        Ok(trailer)
    }
}

fn read(bytes: &[u8], at: u64, id: u64) -> Option<Guard> {
    // Quickly, as it is asked for each byte of a file.
    if !bytes.starts_with(&TRAILER_MAGIC) {
        return None;
    }
    let trailer = Trailer::read(bytes).ok().filter(|found| found.id == id)?;
    let root = trailer.root;
    // The trailer at the end of the file is not behind its root by a frame.
    let end = root.offset.checked_add(u64::from(root.len))?;
    let is_guard = end.checked_add(FRAME_BYTES as u64)? == at;
    is_guard.then_some(Guard {
        root,
        header_at: at + TRAILER_BYTES as u64,
    })
}
