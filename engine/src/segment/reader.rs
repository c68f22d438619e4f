//! Reads one segment: its index, and which streams are in it. What belongs to one stream is a [`super::part::Part`].
//!
//! Every block is verified when it is read, and decoded once while the cache keeps it. Reads are positioned reads: an
//! unreadable sector is an error with its file and offset, and everything else goes on.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use halyard_format::Encryption;
use halyard_format::codec::{Malformed, Reader};
use halyard_runtime::disk::{Disk, File, OpenMode};

use crate::block::{BlockReader, BlockRef, HEADER_BYTES, Kind, Mended};
use crate::error::Error;
use crate::file_key::SealedWith;
use crate::manifest::ManifestSegment;
use crate::segment::entry::{PageRef, StreamEntry, read_entry};
use crate::segment::guard::{self, GUARD_BLOCK_BYTES, Trailer};
use crate::segment::row::{PageStart, Row, decode_rows};
use crate::segment::writer::{SEGMENT_MAGIC, TRAILER_BYTES, segment_id};

/// An immutable file of messages.
#[derive(Debug)]
pub(crate) struct Segment {
    blocks: BlockReader,
    /// The flushes that it covers.
    pub(crate) lo: u64,
    pub(crate) hi: u64,
    pub(crate) messages: u64,
    entry_blocks: Vec<BlockRef>,
    record_blocks: Vec<BlockRef>,
    /// Where the root block starts, the last one.
    root_at: u64,
    root_len: u32,
    /// For its first copy of the index, where the second cannot be read.
    file: Arc<dyn File>,
    first: OnceLock<Option<Root>>,
    /// First bytes of the keys of its records, once they were asked for.
    kinds: OnceLock<BTreeSet<u8>>,
}

impl Segment {
    /// Opens a segment: reads its trailer and its root.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &Path,
        encryption: Option<&Encryption>,
    ) -> Result<Self, Error> {
        let file = disk
            .open(path, OpenMode::Read)
            .map_err(|error| Error::io(path, error))?;
        Self::of_file(file, path, encryption)
    }

    /// The segment that the manifest lists: its own bytes and no more, where others stand behind them.
    pub(crate) fn open_listed(
        disk: &dyn Disk,
        path: &Path,
        encryption: Option<&Encryption>,
        listed: &ManifestSegment,
    ) -> Result<Self, Error> {
        let failed = |error| Error::io(path, error);
        if !disk.exists(path).map_err(failed)? {
            return Err(Error::corrupt(path, 0, "the file is missing"));
        }
        let file = disk.open(path, OpenMode::Read).map_err(failed)?;
        let len = file.len().map_err(failed)?;
        let segment = Self::of_bytes(file, path, len.min(listed.file_bytes), encryption)?;
        // One that has lost its end was found by the first copy of its index: its trailer says how long it was.
        if (segment.id(), segment.lo, segment.hi) != (listed.id, listed.lo, listed.hi) {
            let what = "the segment is not the one that the manifest names";
            return Err(Error::corrupt(path, 0, what));
        }
        if len > listed.file_bytes {
            segment.blocks.note_mended(Mended::Longer);
        }
        Ok(segment)
    }

    /// A segment in a file that is open already; `path` is for errors.
    pub(crate) fn of_file(
        file: Arc<dyn File>,
        path: &Path,
        encryption: Option<&Encryption>,
    ) -> Result<Self, Error> {
        let len = file.len().map_err(|error| Error::io(path, error))?;
        Self::of_bytes(file, path, len, encryption)
    }

    /// A segment in the first `len` bytes of a file.
    fn of_bytes(
        file: Arc<dyn File>,
        path: &Path,
        len: u64,
        encryption: Option<&Encryption>,
    ) -> Result<Self, Error> {
        let (magic, at_front) = (SEGMENT_MAGIC, file.clone());
        let opened = BlockReader::with_header_at(at_front, path, len, 0, magic, encryption);
        let blocks = opened.or_else(|error| {
            // A header with a sound sum that says so is no damage.
            if matches!(error, Error::NewerVersion { .. }) {
                return Err(error);
            }
            let copy = || {
                let id = segment_id(&path.file_name()?.to_string_lossy())?;
                let at = guard::find(&file, len, id)?.header_at;
                let (magic, file) = (SEGMENT_MAGIC, file.clone());
                BlockReader::with_header_at(file, path, len, at, magic, encryption).ok()
            };
            let blocks = copy().ok_or(error)?;
            blocks.note_mended(Mended::Copy);
            Ok::<_, Error>(blocks)
        });
        Self::read(blocks?, file)
    }

    fn read(blocks: BlockReader, file: Arc<dyn File>) -> Result<Self, Error> {
        let found = root_at_end(&blocks).and_then(|at| Ok((read_root_at(&blocks, at)?, at)));
        let (root, root_ref) = found.or_else(|error| {
            let first = || {
                let at = guard::find(&file, blocks.len(), blocks.tag())?.root;
                Some((read_root_at(&blocks, at).ok()?, at))
            };
            let found = first().ok_or(error)?;
            blocks.note_mended(Mended::Copy);
            Ok::<_, Error>(found)
        })?;
        Ok(Self {
            blocks,
            file,
            lo: root.lo,
            hi: root.hi,
            messages: root.messages,
            entry_blocks: root.entry_blocks,
            record_blocks: root.record_blocks,
            root_at: root_ref.offset,
            root_len: root_ref.len,
            first: OnceLock::new(),
            kinds: OnceLock::new(),
        })
    }

    /// A segment of which these blocks of the index are sound.
    pub(super) fn of_remains(
        (blocks, file): (BlockReader, Arc<dyn File>),
        (lo, hi): (u64, u64),
        entry_blocks: Vec<BlockRef>,
        record_blocks: Vec<BlockRef>,
    ) -> Self {
        Self {
            root_at: blocks.len(),
            root_len: 0,
            blocks,
            file,
            lo,
            hi,
            messages: 0,
            entry_blocks,
            record_blocks,
            first: OnceLock::from(None),
            kinds: OnceLock::new(),
        }
    }

    /// The first copy of the root, if there is one.
    fn first_root(&self) -> Option<&Root> {
        let read = || {
            let at = guard::find(&self.file, self.blocks.len(), self.blocks.tag())?.root;
            read_root_at(&self.blocks, at).ok()
        };
        self.first.get_or_init(read).as_ref()
    }

    /// A block of the index, from its other copy if it must be.
    fn read_index(&self, number: usize, block: BlockRef, kind: Kind) -> Result<Bytes, Error> {
        self.blocks.read(block, kind).or_else(|error| {
            let other = || {
                let root = self.first_root()?;
                let blocks = match kind {
                    Kind::Streams => &root.entry_blocks,
                    _ => &root.record_blocks,
                };
                let other = blocks.get(number).filter(|other| **other != block)?;
                self.blocks.read(*other, kind).ok()
            };
            let bytes = other().ok_or(error)?;
            self.blocks.note_mended(Mended::Copy);
            Ok(bytes)
        })
    }

    /// Opens the header of a segment and no more.
    pub(crate) fn check_key(
        disk: &dyn Disk,
        path: &Path,
        encryption: Option<&Encryption>,
    ) -> Result<(), Error> {
        BlockReader::open(disk, path, SEGMENT_MAGIC, encryption).map(|_| ())
    }

    pub(crate) fn id(&self) -> u64 {
        self.blocks.tag()
    }

    pub(crate) fn path(&self) -> &Path {
        self.blocks.path()
    }

    /// The file's length in bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.blocks.len()
    }

    /// How it is sealed.
    pub(crate) fn sealed_with(&self) -> SealedWith {
        self.blocks.sealed_with()
    }

    /// Its blocks, for who reads them past the cache.
    pub(crate) fn blocks(&self) -> &BlockReader {
        &self.blocks
    }

    /// Calls `each` for every stream, ascending.
    pub(crate) fn entries(
        &self,
        mut each: impl FnMut(StreamEntry) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (number, &block) in self.entry_blocks.iter().enumerate() {
            let bytes = self.read_index(number, block, Kind::Streams)?;
            let mut reader = Reader::new(&bytes);
            while !reader.is_empty() {
                let entry = read_entry(&mut reader)
                    .map_err(|Malformed(what)| self.blocks.corrupt(block.offset, what))?;
                each(entry)?;
            }
        }
        Ok(())
    }

    /// Calls `each` for every record that changed, by key; `None` is removed.
    pub(crate) fn records(&self, mut each: impl FnMut(Bytes, Option<Bytes>)) -> Result<(), Error> {
        for (number, &block) in self.record_blocks.iter().enumerate() {
            let bytes = self.read_index(number, block, Kind::Records)?;
            let mut reader = Reader::new(&bytes);
            while !reader.is_empty() {
                let record = read_record(&mut reader);
                let (key, value) =
                    record.map_err(|Malformed(what)| self.blocks.corrupt(block.offset, what))?;
                each(
                    Bytes::copy_from_slice(key),
                    value.map(Bytes::copy_from_slice),
                );
            }
        }
        Ok(())
    }

    /// Whether it has a value of a record whose key starts with `prefix`. Cheap where it has no key of that first byte.
    pub(crate) fn holds_record(&self, prefix: &[u8]) -> Result<bool, Error> {
        let kinds = match self.kinds.get() {
            Some(kinds) => kinds,
            None => {
                let mut kinds = BTreeSet::new();
                self.records(|key, value| {
                    kinds.extend(key.first().filter(|_| value.is_some()).copied());
                })?;
                self.kinds.get_or_init(|| kinds)
            }
        };
        if prefix.first().is_some_and(|kind| !kinds.contains(kind)) {
            return Ok(false);
        }
        let mut holds = false;
        self.records(|key, value| holds |= value.is_some() && key.starts_with(prefix))?;
        Ok(holds)
    }

    /// Where the first block starts.
    pub(crate) const fn scrub_start() -> u64 {
        HEADER_BYTES as u64
    }

    /// Whether any of `from..to` belongs to what all streams need: entries, records, root or trailer.
    pub(crate) fn is_index(&self, from: u64, to: u64) -> bool {
        let mut blocks = self.entry_blocks.iter().chain(&self.record_blocks);
        let hits =
            |block: &BlockRef| block.offset < to && block.offset + u64::from(block.len) > from;
        from < HEADER_BYTES as u64 || to > self.root_at || blocks.any(hits)
    }

    /// Where blocks start as far as the entries tell, sorted: where to go on after a block whose length cannot be trusted.
    pub(crate) fn known_starts(&self) -> Vec<u64> {
        let mut starts: Vec<u64> = self
            .entry_blocks
            .iter()
            .chain(&self.record_blocks)
            .map(|block| block.offset)
            .chain([self.root_at])
            .collect();
        // What cannot be read of them is found when their blocks are verified.
        let _ = self.entries(|StreamEntry { present, .. }| {
            let Some(present) = present else {
                return Ok(());
            };
            for page in &present.part.pages {
                starts.extend([page.offset, page.offset + u64::from(page.rows_len)]);
            }
            starts.extend(present.tables.iter().map(|table| table.block.offset));
            Ok(())
        });
        starts.sort_unstable();
        starts
    }

    /// What of it is not as it was written and known all the same: it should be written anew.
    pub(crate) fn mended(&self) -> Option<Mended> {
        self.blocks.mended()
    }

    /// The block at `offset` that the store does not open without, if it can be read all the same: one flipped bit of it, or all
    /// of one of its two copies, is known. Its length.
    fn known_at(&self, offset: u64) -> Option<u64> {
        let is_there = |(_, block): &(usize, BlockRef)| block.offset == offset;
        for (blocks, kind) in [
            (&self.entry_blocks, Kind::Streams),
            (&self.record_blocks, Kind::Records),
        ] {
            if let Some((number, block)) = blocks.iter().copied().enumerate().find(is_there) {
                let read = self.read_index(number, block, kind).ok();
                return read.map(|_| u64::from(block.len));
            }
        }
        if offset == self.root_at {
            return Some(u64::from(self.root_len));
        }
        // Where the first copy is what is used, all behind it is the second one and what helps to find that.
        if offset > self.root_at {
            self.blocks.note_mended(Mended::Copy);
            return Some(self.file_bytes() - offset);
        }
        let mut table = None;
        let _ = self.entries(|StreamEntry { present, .. }| {
            let tables = present.map(|present| present.tables).unwrap_or_default();
            let here = tables.iter().map(|table| table.block);
            table = table.or(here.into_iter().find(|block| block.offset == offset));
            Ok(())
        });
        if let Some(table) = table {
            let read = self.blocks.read(table, Kind::Subjects).ok();
            return read.map(|_| u64::from(table.len));
        }
        // The first copy, of which the second is what is used.
        let second = self.entry_blocks.iter().chain(&self.record_blocks);
        let second = second.map(|block| block.offset).min();
        let second = second.unwrap_or(self.root_at).min(self.root_at);
        let guard_at = second.checked_sub(GUARD_BLOCK_BYTES)?;
        let guard = BlockRef {
            offset: guard_at,
            len: GUARD_BLOCK_BYTES as u32,
        };
        self.blocks.read(guard, Kind::Guard).ok()?;
        let copy = self.root_at + u64::from(self.root_len) - second;
        if offset + copy < guard_at || offset >= guard_at {
            return None;
        }
        self.blocks.note_mended(Mended::Copy);
        Some(guard_at - offset)
    }

    /// Verifies the block at `offset`; the next one's offset, `None` at the end. One that is known although it is damaged passes:
    /// the segment is written anew because of it.
    pub(crate) fn scrub(&self, offset: u64) -> Result<Option<u64>, Error> {
        let next = self.blocks.verify_at(offset).or_else(|error| {
            let known = self.known_at(offset);
            known.map(|len| offset + len).ok_or(error)
        })?;
        Ok((next + (TRAILER_BYTES as u64) < self.file_bytes()).then_some(next))
    }

    /// The rows of a page.
    pub(crate) fn rows(&self, page: &PageRef) -> Result<Vec<Row>, Error> {
        let block = BlockRef {
            offset: page.offset,
            len: page.rows_len,
        };
        let (kind, bytes) = self.blocks.read_rows(block)?;
        let malformed = |Malformed(what)| self.blocks.corrupt(block.offset, what);
        let rows = match kind {
            Kind::Page => {
                let (start, rows) = PageStart::split(&bytes).map_err(malformed)?;
                if (start.seq, start.time) != (page.first_seq, page.first_time) {
                    return Err(malformed(Malformed(
                        "the page is not the one that belongs here",
                    )));
                }
                rows
            }
            _ => &bytes,
        };
        decode_rows(rows, page.first_seq, page.first_time).map_err(malformed)
    }

    /// Reads one block and decodes it.
    pub(crate) fn decode<T>(
        &self,
        block: BlockRef,
        kind: Kind,
        decode: impl FnOnce(&Bytes) -> Result<T, Malformed>,
    ) -> Result<T, Error> {
        let bytes = self.blocks.read(block, kind)?;
        decode(&bytes).map_err(|Malformed(what)| self.blocks.corrupt(block.offset, what))
    }
}

/// Where the trailer says that the root is.
fn root_at_end(blocks: &BlockReader) -> Result<BlockRef, Error> {
    let len = blocks.len();
    let at = len
        .checked_sub(TRAILER_BYTES as u64)
        .ok_or_else(|| blocks.corrupt(len, "no room for a trailer"))?;
    let trailer = blocks.read_summed(at, TRAILER_BYTES)?;
    let trailer = Trailer::read(&trailer)
        .map_err(|_| blocks.corrupt(at, "the trailer does not match its checksum"))?;
    if trailer.len != len || trailer.id != blocks.tag() {
        return Err(blocks.corrupt(at, "the trailer belongs to another file or length"));
    }
    Ok(trailer.root)
}

fn read_root_at(blocks: &BlockReader, at: BlockRef) -> Result<Root, Error> {
    let bytes = blocks.read(at, Kind::Root)?;
    read_root(&bytes).map_err(|Malformed(what)| blocks.corrupt(at.offset, what))
}

#[derive(Debug)]
struct Root {
    lo: u64,
    hi: u64,
    messages: u64,
    entry_blocks: Vec<BlockRef>,
    record_blocks: Vec<BlockRef>,
}

fn read_root(bytes: &[u8]) -> Result<Root, Malformed> {
    let mut reader = Reader::new(bytes);
    let (lo, hi, messages) = (reader.varint()?, reader.varint()?, reader.varint()?);
    let mut blocks = || -> Result<Vec<BlockRef>, Malformed> {
        (0..reader.count()?)
            .map(|_| {
                Ok(BlockRef {
                    offset: reader.varint()?,
                    len: reader.varint_u32()?,
                })
            })
            .collect()
    };
    let (entry_blocks, record_blocks) = (blocks()?, blocks()?);
    reader.end()?;
    Ok(Root {
        lo,
        hi,
        messages,
        entry_blocks,
        record_blocks,
    })
}

fn read_record<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], Option<&'a [u8]>), Malformed> {
    let key = reader.bytes()?;
    match reader.varint()? {
        0 => Ok((key, None)),
        1 => Ok((key, Some(reader.bytes()?))),
        _ => Err(Malformed("an unknown kind of record")),
    }
}
