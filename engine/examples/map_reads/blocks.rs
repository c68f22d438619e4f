//! The blocks of segment files, found by walking them (docs/formats.md: a header of 128 bytes, then blocks without gaps).

use std::path::{Path, PathBuf};

use halyard_runtime::disk::{Disk, OpenMode, RealDisk};

const HEADER_BYTES: u64 = 128;
pub(crate) const FRAME_BYTES: usize = 16;

/// Where a block is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) file: usize,
    /// The file's tag, which the checksum covers.
    pub(crate) tag: u64,
    pub(crate) offset: u64,
    /// Frame and stored bytes.
    pub(crate) len: u32,
    pub(crate) kind: u8,
}

impl Block {
    /// Whether these bytes are this block: the work that every read of the store does.
    pub(crate) fn is_sound(&self, bytes: &[u8]) -> bool {
        let (frame, stored) = bytes.split_at(FRAME_BYTES);
        let crc = crc32c::crc32c(&self.tag.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &self.offset.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &frame[..FRAME_BYTES - 4]);
        crc32c::crc32c_append(crc, stored).to_le_bytes() == frame[FRAME_BYTES - 4..]
    }
}

/// All segment files of a store, and all their blocks.
pub(crate) fn walk(dir: &Path) -> (Vec<PathBuf>, Vec<Block>) {
    let names = RealDisk.list(dir).unwrap().into_iter();
    let files: Vec<PathBuf> = names
        .filter(|entry| entry.name.starts_with("segment-"))
        .map(|entry| dir.join(entry.name))
        .collect();
    let mut blocks = Vec::new();
    for (number, path) in files.iter().enumerate() {
        let file = RealDisk.open(path, OpenMode::Read).unwrap();
        let (len, mut header) = (file.len().unwrap(), [0; 24]);
        file.read_exact_at(&mut header, 0).unwrap();
        let tag = u64::from_le_bytes(header[16..24].try_into().unwrap());
        let (mut offset, mut frame) = (HEADER_BYTES, [0; FRAME_BYTES]);
        // The trailer is shorter than a frame and what it announces.
        while offset + 64 < len {
            file.read_exact_at(&mut frame, offset).unwrap();
            let stored = u32::from_le_bytes(frame[..4].try_into().unwrap());
            let block = Block {
                file: number,
                tag,
                offset,
                len: stored + FRAME_BYTES as u32,
                kind: frame[8],
            };
            blocks.push(block);
            offset += u64::from(block.len);
        }
    }
    assert!(!blocks.is_empty(), "no segments in {}", dir.display());
    (files, blocks)
}
