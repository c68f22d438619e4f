//! The manifest: which segments are the store, and up to which applied index.
//!
//!   file      header (the tag is the manifest's version) | block | zeros to a multiple of 4096 | the same block again
//!   manifest  version | applied | digest (8 B) | next flush | next segment
//!             | segments: count | (id, lowest flush, highest flush, file bytes, rewrite: 0 or flush + 1)*
//!
//! Written under another name, synced, renamed over the old one, directory synced: a crash leaves the old one or the new
//! one. One damaged copy of the block is no damage. `rewrite`: once that flush is durable, the segment must be rewritten
//! because it holds erased messages.

use std::path::Path;

use halyard_runtime::disk::{Disk, OpenMode};

use crate::block::{BlockReader, BlockRef, BlockWriter, HEADER_BYTES, Kind, Magic};
use crate::codec::{Malformed, Reader, put_varint};
use crate::crypto::SealedWith;
use crate::digest::Digest;
use crate::error::Error;
use crate::options::Options;

pub(crate) const MANIFEST_NAME: &str = "manifest";
const NEW_NAME: &str = "manifest.new";
const MANIFEST_MAGIC: Magic = Magic(*b"HALYMAN1");
const ALIGN_BYTES: u64 = 4096;

/// A segment as the manifest knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ManifestSegment {
    pub(crate) id: u64,
    pub(crate) lo: u64,
    pub(crate) hi: u64,
    pub(crate) file_bytes: u64,
    /// The flush after which it must be rewritten.
    pub(crate) rewrite_after: Option<u64>,
}

/// The durable state of a store, but for what is in the segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) version: u64,
    pub(crate) applied: u64,
    pub(crate) digest: Digest,
    pub(crate) next_ordinal: u64,
    pub(crate) next_segment: u64,
    pub(crate) segments: Vec<ManifestSegment>,
}

impl Manifest {
    pub(crate) fn empty() -> Self {
        Self {
            version: 0,
            applied: 0,
            digest: Digest::EMPTY,
            next_ordinal: 1,
            next_segment: 1,
            segments: Vec::new(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.version);
        put_varint(&mut out, self.applied);
        out.extend_from_slice(&self.digest.0.to_le_bytes());
        put_varint(&mut out, self.next_ordinal);
        put_varint(&mut out, self.next_segment);
        put_varint(&mut out, self.segments.len() as u64);
        for segment in &self.segments {
            for number in [segment.id, segment.lo, segment.hi, segment.file_bytes] {
                put_varint(&mut out, number);
            }
            put_varint(
                &mut out,
                segment.rewrite_after.map_or(0, |ordinal| ordinal + 1),
            );
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let (version, applied) = (reader.varint()?, reader.varint()?);
        let digest = reader
            .take(8)?
            .first_chunk::<8>()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let (next_ordinal, next_segment) = (reader.varint()?, reader.varint()?);
        let mut segments: Vec<ManifestSegment> = Vec::new();
        for _ in 0..reader.count()? {
            let segment = ManifestSegment {
                id: reader.varint()?,
                lo: reader.varint()?,
                hi: reader.varint()?,
                file_bytes: reader.varint()?,
                rewrite_after: reader.varint()?.checked_sub(1),
            };
            if segment.lo > segment.hi || segments.last().is_some_and(|last| last.hi >= segment.lo)
            {
                return Err(Malformed("segments overlap"));
            }
            segments.push(segment);
        }
        reader.end()?;
        Ok(Self {
            version,
            applied,
            digest: Digest(digest),
            next_ordinal,
            next_segment,
            segments,
        })
    }

    /// Replaces the manifest in `dir`; durable when it returns. Returns the bytes written.
    pub(crate) fn store(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        options: &Options,
    ) -> Result<u64, Error> {
        let (path, new) = (dir.join(MANIFEST_NAME), dir.join(NEW_NAME));
        let file = disk
            .open(&new, OpenMode::Create)
            .map_err(|error| Error::io(&new, error))?;
        file.set_len(0).map_err(|error| Error::io(&new, error))?;
        let mut blocks = BlockWriter::new(file, &new, MANIFEST_MAGIC, self.version, options);
        let bytes = self.encode();
        blocks.append(Kind::Manifest, &bytes)?;
        let gap = blocks.len().next_multiple_of(ALIGN_BYTES) - blocks.len();
        blocks.append_raw(&vec![0; gap as usize]);
        blocks.append(Kind::Manifest, &bytes)?;
        let len = blocks.finish()?;
        disk.rename(&new, &path)
            .map_err(|error| Error::io(&path, error))?;
        disk.sync_dir(dir).map_err(|error| Error::io(dir, error))?;
        Ok(len)
    }

    /// Reads the manifest of `dir`, and how its file is sealed; `None` when there is none.
    pub(crate) fn load(
        disk: &dyn Disk,
        dir: &Path,
        options: &Options,
    ) -> Result<Option<(Self, SealedWith)>, Error> {
        let path = dir.join(MANIFEST_NAME);
        if !disk
            .exists(&path)
            .map_err(|error| Error::io(&path, error))?
        {
            return Ok(None);
        }
        let blocks = BlockReader::open(disk, &path, MANIFEST_MAGIC, options.encryption.as_ref())?;
        let first = read_copy(&blocks, HEADER_BYTES as u64);
        let mut found = first;
        let mut at = ALIGN_BYTES;
        while found.is_err() && at < blocks.len() {
            if let Ok(copy) = read_copy(&blocks, at) {
                found = Ok(copy);
            }
            at += ALIGN_BYTES;
        }
        let manifest = found?;
        if manifest.version != blocks.tag() {
            return Err(blocks.corrupt(0, "the header belongs to another manifest"));
        }
        Ok(Some((manifest, blocks.sealed_with())))
    }
}

fn read_copy(blocks: &BlockReader, offset: u64) -> Result<Manifest, Error> {
    let frame = blocks.read_raw(offset, 4)?;
    let len = crate::block::le_u32(&frame, 0).saturating_add(crate::block::FRAME_BYTES as u32);
    let bytes = blocks.read(BlockRef { offset, len }, Kind::Manifest)?;
    Manifest::decode(&bytes).map_err(|Malformed(what)| blocks.corrupt(offset, what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use halyard_runtime::disk::MemDisk;

    #[test]
    fn one_damaged_copy_is_no_damage() {
        let disk = MemDisk::new();
        let (dir, options) = (Path::new("s"), Options::default());
        disk.create_dir_all(dir).unwrap();
        assert_eq!(Manifest::load(&disk, dir, &options).unwrap(), None);
        let segment = ManifestSegment {
            id: 7,
            lo: 1,
            hi: 4,
            file_bytes: 1 << 40,
            rewrite_after: Some(0),
        };
        let manifest = Manifest {
            applied: 99,
            segments: vec![segment; 1],
            ..Manifest::empty()
        };
        manifest.store(&disk, dir, &options).unwrap();
        assert_eq!(
            Manifest::load(&disk, dir, &options).unwrap(),
            Some((manifest.clone(), SealedWith::default()))
        );
        let file = disk
            .open(&dir.join(MANIFEST_NAME), OpenMode::ReadWrite)
            .unwrap();
        file.write_at(&[0xff; 8], HEADER_BYTES as u64).unwrap();
        assert_eq!(
            Manifest::load(&disk, dir, &options).unwrap(),
            Some((manifest, SealedWith::default()))
        );
        file.write_at(&[0xff; 8], ALIGN_BYTES + 9).unwrap();
        assert!(matches!(
            Manifest::load(&disk, dir, &options),
            Err(Error::Corrupt { .. })
        ));
    }
}
