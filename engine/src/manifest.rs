//! The manifest: which segments are the store, and up to which applied index.
//!
//!   file      header (the tag is the manifest's version) | block | zeros to a multiple of 4096 | the same block again
//!             | the same header again
//!   manifest  version | applied | digest (8 B) | next flush | next segment
//!             | segments: count | (id, lowest flush, highest flush, file bytes, rewrite: 0 or flush + 1)*
//!             | standing: bytes, in the encoding of replication; missing where there is none, and before 2026-12
//!
//! Written under another name, synced, renamed over the old one, directory synced: a crash leaves the old one or the new
//! one. Whatever one sector does, one header and one block stay sound: the manifest is read from them, the damage is
//! reported, and the next maintenance writes the file anew. Of copies that are sound and differ (a sector that the disk
//! never wrote) the later version counts. Files from before the second header came are read as they are. `rewrite`: once that flush is durable, the segment must be rewritten
//! because it holds erased messages.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use halyard_format::codec::{Malformed, Reader, put_bytes, put_varint};
use halyard_runtime::disk::{Disk, OpenMode};

use crate::block::{BlockReader, BlockRef, BlockWriter, HEADER_BYTES, Kind, Magic, block_len};
use crate::digest::Digest;
use crate::error::Error;
use crate::file_key::SealedWith;
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
    /// See [`crate::Checkpoint`].
    pub(crate) standing: Bytes,
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
            standing: Bytes::new(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        assert!(
            self.segments.is_sorted_by(|a, b| a.hi < b.lo)
                && self.segments.iter().all(|one| one.lo <= one.hi),
            "segments stand in the order of their flushes"
        );
        assert!(
            self.segments
                .iter()
                .all(|one| one.id < self.next_segment && one.hi < self.next_ordinal),
            "no number is given out twice"
        );
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
        if !self.standing.is_empty() {
            put_bytes(&mut out, &self.standing);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let (version, applied) = (reader.varint()?, reader.varint()?);
        let digest = reader.u64()?;
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
        let standing = match reader.is_empty() {
            true => Bytes::new(),
            false => Bytes::copy_from_slice(reader.bytes()?),
        };
        reader.end()?;
        if segments.last().is_some_and(|last| last.hi >= next_ordinal) {
            return Err(Malformed("a segment of a flush that is still to come"));
        }
        Ok(Self {
            version,
            applied,
            digest: Digest(digest),
            next_ordinal,
            next_segment,
            segments,
            standing,
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
        let (bytes, header) = (self.encode(), blocks.header());
        blocks.append(Kind::Manifest, &bytes)?;
        let gap = blocks.len().next_multiple_of(ALIGN_BYTES) - blocks.len();
        blocks.append_raw(&vec![0; gap as usize]);
        blocks.append(Kind::Manifest, &bytes)?;
        blocks.append_raw(&header);
        let len = blocks.finish()?;
        disk.rename(&new, &path)
            .map_err(|error| Error::io(&path, error))?;
        // The new one may be what the next start finds: whatever it was that failed, this is not tried again.
        disk.sync_dir(dir).map_err(|error| Error::Io {
            path: dir.to_owned(),
            source: Arc::new(error),
        })?;
        Ok(len)
    }

    /// Reads the manifest of `dir`, and how its file is sealed; `None` when there is none.
    pub(crate) fn load(
        disk: &dyn Disk,
        dir: &Path,
        options: &Options,
    ) -> Result<Option<Loaded>, Error> {
        let path = dir.join(MANIFEST_NAME);
        let fail = |error| Error::io(&path, error);
        if !disk.exists(&path).map_err(fail)? {
            return Ok(None);
        }
        let file = disk.open(&path, OpenMode::Read).map_err(fail)?;
        let len = file.len().map_err(fail)?;
        let reader = |at| {
            let (magic, key) = (MANIFEST_MAGIC, options.encryption.as_ref());
            BlockReader::with_header_at(file.clone(), &path, len, at, magic, key)
        };
        let (front, back) = (reader(0), reader(len.saturating_sub(HEADER_BYTES as u64)));
        let mut damage = None;
        let mut newest: Option<Self> = None;
        let mut take = |blocks: &BlockReader, first_is_due: bool| {
            for (number, copy) in [first_copy(blocks), second_copy(blocks)]
                .into_iter()
                .enumerate()
            {
                match copy {
                    Ok(copy) => {
                        if newest
                            .as_ref()
                            .is_some_and(|newest| newest.version != copy.version)
                        {
                            let what = "the copies are of different versions";
                            damage.get_or_insert_with(|| blocks.corrupt(0, what));
                        }
                        if newest
                            .as_ref()
                            .is_none_or(|newest| newest.version < copy.version)
                        {
                            newest = Some(copy);
                        }
                    }
                    Err(error) if first_is_due || number > 0 => {
                        damage.get_or_insert(error);
                    }
                    Err(_) => {}
                }
            }
        };
        if let Ok(front) = &front {
            take(front, true);
        }
        if let Ok(back) = &back {
            take(back, front.is_ok());
        }
        let Some(manifest) = newest else {
            return Err(front.err().or(damage).unwrap_or_else(|| {
                Error::corrupt(&path, 0, "neither copy of the manifest is sound")
            }));
        };
        let sealed = front
            .as_ref()
            .or(back.as_ref())
            .map_or_else(|_| SealedWith::default(), BlockReader::sealed_with);
        let damage = match (front, back) {
            (Err(error @ Error::Corrupt { .. }), _) => Some(error),
            // What its copy at the end does not say is no version and no key.
            (Err(_), _) => Some(Error::corrupt(
                &path,
                0,
                "the header is not the one that was written",
            )),
            (Ok(front), Err(error)) => damage
                .or_else(|| mended(&front))
                .or_else(|| is_due_at_end(&front).then_some(error)),
            (Ok(front), Ok(back)) => damage
                .or_else(|| mended(&front))
                .or_else(|| mended(&back))
                .or_else(|| gap_damage(&front)),
        };
        Ok(Some(Loaded {
            manifest,
            sealed,
            damage,
        }))
    }
}

/// A flipped bit that was mended in memory.
fn mended(blocks: &BlockReader) -> Option<Error> {
    let what = blocks.mended()?;
    Some(blocks.corrupt(0, what.to_string()))
}

/// A manifest that was read.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) manifest: Manifest,
    /// How the file is sealed.
    pub(crate) sealed: SealedWith,
    /// One of its copies is not sound.
    pub(crate) damage: Option<Error>,
}

fn first_copy(blocks: &BlockReader) -> Result<Manifest, Error> {
    read_copy(blocks, HEADER_BYTES as u64).map(|(manifest, _)| manifest)
}

/// The copy at the first multiple of 4096 that holds one.
fn second_copy(blocks: &BlockReader) -> Result<Manifest, Error> {
    find_second(blocks).map(|(manifest, _)| manifest)
}

fn find_second(blocks: &BlockReader) -> Result<(Manifest, u64), Error> {
    let mut at = ALIGN_BYTES;
    while at < blocks.len() {
        if let Ok(found) = read_copy(blocks, at) {
            return Ok(found);
        }
        at += ALIGN_BYTES;
    }
    Err(blocks.corrupt(ALIGN_BYTES, "the second copy of the manifest is not sound"))
}

/// Whether a second header belongs at the end: files from before it end with the second block.
fn is_due_at_end(blocks: &BlockReader) -> bool {
    find_second(blocks).is_ok_and(|(_, end)| end != blocks.len())
}

/// What is wrong between the copies, where nothing but zeros belongs.
fn gap_damage(blocks: &BlockReader) -> Option<Error> {
    let (_, start) = read_copy(blocks, HEADER_BYTES as u64).ok()?;
    let len = start.next_multiple_of(ALIGN_BYTES) - start;
    let gap = match blocks.read_raw(start, len as usize) {
        Ok(gap) => gap,
        Err(error) => return Some(error),
    };
    let at = gap.iter().position(|byte| *byte != 0)? as u64;
    Some(blocks.corrupt(start + at, "not zero between the copies of the manifest"))
}

/// A sound copy and where it ends.
fn read_copy(blocks: &BlockReader, offset: u64) -> Result<(Manifest, u64), Error> {
    let frame = blocks.read_raw(offset, 4)?;
    let malformed = |Malformed(what)| blocks.corrupt(offset, what);
    let len = block_len(&frame).map_err(malformed)?;
    let len = u32::try_from(len).map_err(|_| malformed(Malformed("a block beyond 4 GiB")))?;
    let bytes = blocks.read(BlockRef { offset, len }, Kind::Manifest)?;
    let manifest = Manifest::decode(&bytes).map_err(malformed)?;
    if manifest.version != blocks.tag() {
        return Err(blocks.corrupt(offset, "the header belongs to another manifest"));
    }
    Ok((manifest, offset + u64::from(len)))
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
        let load = || Manifest::load(&disk, dir, &options);
        assert!(load().unwrap().is_none());
        let segment = ManifestSegment {
            id: 7,
            lo: 1,
            hi: 4,
            file_bytes: 1 << 40,
            rewrite_after: Some(0),
        };
        let manifest = Manifest {
            version: 6,
            applied: 99,
            next_ordinal: 5,
            next_segment: 8,
            segments: vec![segment; 1],
            standing: Bytes::from_static(b"standing"),
            ..Manifest::empty()
        };
        manifest.store(&disk, dir, &options).unwrap();
        let loaded = load().unwrap().unwrap();
        assert_eq!(loaded.manifest, manifest);
        assert!(loaded.damage.is_none());
        let path = dir.join(MANIFEST_NAME);
        let whole = disk.read(&path).unwrap();
        let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
        // Every sector of 512 bytes in turn: zeros, and what it held in the version before.
        let (mut zeroed, mut older) = (whole.clone(), whole.clone());
        zeroed.fill(0);
        let before = Manifest {
            version: 5,
            applied: 98,
            ..manifest.clone()
        };
        let other = MemDisk::new();
        other.create_dir_all(dir).unwrap();
        before.store(&other, dir, &options).unwrap();
        older.copy_from_slice(&other.read(&path).unwrap());
        for replacement in [zeroed, older] {
            for at in (0..whole.len()).step_by(512) {
                let range = at..(at + 512).min(whole.len());
                if replacement[range.clone()] == whole[range.clone()] {
                    continue;
                }
                file.write_at(&replacement[range.clone()], at as u64)
                    .unwrap();
                let loaded = load().unwrap().unwrap();
                assert_eq!(loaded.manifest, manifest, "sector at {at}");
                assert!(loaded.damage.is_some(), "sector at {at}");
                file.write_at(&whole, 0).unwrap();
            }
        }
        file.write_at(&[0xff; 8], HEADER_BYTES as u64).unwrap();
        file.write_at(&[0xff; 8], ALIGN_BYTES + 9).unwrap();
        assert!(matches!(load(), Err(Error::Corrupt { .. })));
    }

    /// As versions before the second header wrote it.
    #[test]
    fn a_file_without_the_second_header_is_sound() {
        let disk = MemDisk::new();
        let (dir, options) = (Path::new("s"), Options::default());
        disk.create_dir_all(dir).unwrap();
        let manifest = Manifest::empty();
        manifest.store(&disk, dir, &options).unwrap();
        let file = disk
            .open(&dir.join(MANIFEST_NAME), OpenMode::ReadWrite)
            .unwrap();
        file.set_len(file.len().unwrap() - HEADER_BYTES as u64)
            .unwrap();
        let loaded = Manifest::load(&disk, dir, &options).unwrap().unwrap();
        assert_eq!(loaded.manifest, manifest);
        assert!(loaded.damage.is_none());
    }
}
