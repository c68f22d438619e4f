//! Reads one segment: what is in it, and the part of it that belongs to one stream.
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
use halyard_runtime::time::Timestamp;

use crate::block::{BlockReader, BlockRef, HEADER_BYTES, Kind};
use crate::error::Error;
use crate::file_key::SealedWith;
use crate::limits::{PAGE_BYTES, SUBJECTS_PER_BLOCK};
use crate::segment::cache::{Cache, Cached};
use crate::segment::cursor::TableCursor;
use crate::segment::entry::{PageRef, PartMeta, Present, StreamEntry, TableRef, read_entry};
use crate::segment::guard::{self, GUARD_BLOCK_BYTES, Trailer};
use crate::segment::postings::{ChunkRef, RunReader, SeqRun, decode_index, decode_runs};
use crate::segment::row::{Row, decode_rows};
use crate::segment::table::{ListPlace, Local, RawList, RawLocal, SubjectRow, decode_table};
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

    /// A segment in a file that is open already; `path` is for errors.
    pub(crate) fn of_file(
        file: Arc<dyn File>,
        path: &Path,
        encryption: Option<&Encryption>,
    ) -> Result<Self, Error> {
        let opened = BlockReader::of_file(file.clone(), path, SEGMENT_MAGIC, encryption);
        let blocks = opened.or_else(|error| {
            // A header with a sound sum that says so is no damage.
            if matches!(error, Error::NewerVersion { .. }) {
                return Err(error);
            }
            let copy = || {
                let id = segment_id(&path.file_name()?.to_string_lossy())?;
                let len = file.len().ok()?;
                let at = guard::find(&file, len, id)?.header_at;
                let (magic, file) = (SEGMENT_MAGIC, file.clone());
                BlockReader::with_header_at(file, path, len, at, magic, encryption).ok()
            };
            let blocks = copy().ok_or(error)?;
            blocks.note_mended();
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
            blocks.note_mended();
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
            self.blocks.note_mended();
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

    /// Whether one flipped bit of it was mended in memory: it should be written anew.
    pub(crate) fn is_mended(&self) -> bool {
        self.blocks.is_mended()
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
        self.blocks.note_mended();
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

    fn decode<T>(
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

/// The part of a segment that belongs to one stream.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) segment: Arc<Segment>,
    meta: PartMeta,
    subjects: u32,
    tables: Vec<TableRef>,
    /// Messages that were alive when they were last counted.
    pub(crate) live: u64,
}

impl Part {
    /// The part that a stream entry describes, messages or not.
    pub(crate) fn new(segment: Arc<Segment>, present: Present) -> Self {
        let live = present.part.messages;
        Self {
            segment,
            meta: present.part,
            subjects: present.subjects,
            tables: present.tables,
            live,
        }
    }

    /// Where its pages and its subject table are.
    pub(crate) fn places(&self) -> (&PartMeta, &[TableRef]) {
        (&self.meta, &self.tables)
    }

    pub(crate) fn first_seq(&self) -> u64 {
        self.meta.first_seq
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.meta.last_seq
    }

    pub(crate) fn last_time(&self) -> Timestamp {
        self.meta.last_time
    }

    pub(crate) fn messages(&self) -> u64 {
        self.meta.messages
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.meta.bytes
    }

    pub(crate) fn subject_count(&self) -> u32 {
        self.subjects
    }

    pub(crate) fn page_count(&self) -> usize {
        self.meta.pages.len()
    }

    /// The number of the page that holds the first row at or after `seq`, if any does.
    pub(crate) fn page_at(&self, seq: u64) -> usize {
        if seq > self.meta.last_seq {
            return self.page_count();
        }
        self.meta
            .pages
            .partition_point(|page| page.first_seq <= seq)
            .saturating_sub(1)
    }

    /// The number of the first page that starts at or after `time`.
    pub(crate) fn page_at_time(&self, time: Timestamp) -> usize {
        self.meta
            .pages
            .partition_point(|page| page.first_time < time)
    }

    fn page(&self, page: usize) -> Result<&PageRef, Error> {
        let found = self.meta.pages.get(page);
        found.ok_or_else(|| {
            self.segment
                .blocks
                .corrupt(0, format!("page {page} is beyond the part"))
        })
    }

    /// The rows of a page.
    pub(crate) fn rows(&self, io: &Cache, page: usize) -> Result<Arc<[Row]>, Error> {
        let page = self.page(page)?;
        let id = self.segment.id();
        if let Some(Cached::Rows(rows)) = io.get(id, page.offset) {
            return Ok(rows);
        }
        let rows = self.read_rows(page)?;
        io.put(id, page.offset, Cached::Rows(rows.clone()));
        Ok(rows)
    }

    fn read_rows(&self, page: &PageRef) -> Result<Arc<[Row]>, Error> {
        let block = BlockRef {
            offset: page.offset,
            len: page.rows_len,
        };
        let rows = self.segment.decode(block, Kind::Rows, |bytes| {
            decode_rows(bytes, page.first_seq, page.first_time)
        })?;
        Ok(rows.into())
    }

    /// The record of one row of a page, sharing the page's bytes.
    pub(crate) fn record(&self, io: &Cache, page: usize, row: &Row) -> Result<Bytes, Error> {
        let body = self.body(io, page)?;
        let range = row.body_start as usize..row.body_start as usize + row.body_len as usize;
        if body.get(range.clone()).is_none() {
            let what = format!("the record of message {} ends after its page", row.seq);
            return Err(self.segment.blocks.corrupt(self.page(page)?.offset, what));
        }
        Ok(body.slice(range))
    }

    /// The rows of a page do not fit its body or its subjects.
    #[cold]
    pub(crate) fn contradiction(&self, page: usize, seq: u64) -> Error {
        let offset = self.meta.pages.get(page).map_or(0, |page| page.offset);
        self.segment.blocks.corrupt(
            offset,
            format!("the row of message {seq} does not fit its page"),
        )
    }

    /// The records of a page.
    pub(crate) fn body(&self, io: &Cache, page: usize) -> Result<Bytes, Error> {
        let block = body_ref(self.page(page)?);
        let id = self.segment.id();
        if let Some(Cached::Body(body)) = io.get(id, block.offset) {
            return Ok(body);
        }
        let body = self.segment.blocks.read(block, Kind::Body)?;
        io.put(id, block.offset, Cached::Body(body.clone()));
        Ok(body)
    }

    /// One block of the subject table.
    pub(crate) fn table(&self, io: &Cache, number: usize) -> Result<Arc<[SubjectRow]>, Error> {
        let table = self.tables.get(number);
        let table = table.ok_or_else(|| {
            self.segment
                .blocks
                .corrupt(0, format!("no subject block {number}"))
        })?;
        let id = self.segment.id();
        if let Some(Cached::Subjects(rows)) = io.get(id, table.block.offset) {
            return Ok(rows);
        }
        let base = self.meta.base;
        let rows = self.segment.decode(table.block, Kind::Subjects, |bytes| {
            decode_table(bytes, base)
        })?;
        let rows: Arc<[SubjectRow]> = rows.into();
        io.put(id, table.block.offset, Cached::Subjects(rows.clone()));
        Ok(rows)
    }

    /// Blocks of the subject table.
    pub(crate) fn tables(&self) -> &[TableRef] {
        &self.tables
    }

    /// What posting lists count from.
    pub(crate) fn base(&self) -> u64 {
        self.meta.base
    }

    /// The subject's bytes.
    pub(crate) fn subject_name(&self, io: &Cache, subject: u32) -> Result<Bytes, Error> {
        let rows = self.table(io, subject as usize / SUBJECTS_PER_BLOCK)?;
        let row = rows.get(subject as usize % SUBJECTS_PER_BLOCK);
        Ok(row.ok_or_else(|| self.no_subject(subject))?.name.clone())
    }

    /// A row names a subject that the table does not have.
    #[cold]
    pub(crate) fn no_subject(&self, subject: u32) -> Error {
        self.segment
            .blocks
            .corrupt(0, format!("no subject of number {subject}"))
    }

    /// The subject of a row by the cheaper way: its record, where the page is small (and likely in use), else the table.
    pub(crate) fn subject_of(&self, io: &Cache, page: usize, row: &Row) -> Result<Bytes, Error> {
        let is_small = self.page(page)?.body_len as usize <= 2 * PAGE_BYTES;
        if is_small && let Ok(record) = self.record(io, page, row) {
            return Ok(record.slice(..usize::from(row.subject_len).min(record.len())));
        }
        // Also when the payload is damaged: that must not keep its message from being deleted.
        self.subject_name(io, row.subject)
    }

    /// The page's records, to take the names of its rows from ([`Row::name_in`]), where that is cheaper than the table.
    /// Also `None` when they are damaged: what the table knows does not depend on them.
    pub(crate) fn names(&self, io: &Cache, page: usize) -> Result<Option<Bytes>, Error> {
        let is_small = self.page(page)?.body_len as usize <= 2 * PAGE_BYTES;
        Ok(is_small.then(|| self.body(io, page).ok()).flatten())
    }

    /// The subject's row, if it changed in this segment.
    pub(crate) fn subject_row(&self, io: &Cache, name: &[u8]) -> Result<Option<SubjectRow>, Error> {
        let after = self
            .tables
            .partition_point(|table| *table.first_name <= *name);
        let Some(number) = after.checked_sub(1) else {
            return Ok(None);
        };
        let rows = self.table(io, number)?;
        let found = rows.binary_search_by(|row| (*row.name).cmp(name)).ok();
        Ok(found.and_then(|at| rows.get(at)).cloned())
    }

    /// The subject's sequences in this part, dead ones included.
    pub(crate) fn postings(&self, io: &Cache, name: &[u8]) -> Result<Option<Postings<'_>>, Error> {
        let row = self.subject_row(io, name)?;
        row.and_then(|row| row.local)
            .map(|local| self.postings_of(io, local))
            .transpose()
    }

    /// The sequences that a table row describes.
    pub(crate) fn postings_of(&self, io: &Cache, local: Local) -> Result<Postings<'_>, Error> {
        let source = match &local.list {
            None => Source::Runs(
                [SeqRun {
                    start: local.first,
                    end: local.first,
                }]
                .into(),
            ),
            Some(ListPlace::Inside(bytes)) => Source::Runs(self.decode_list(0, bytes)?.into()),
            Some(ListPlace::Index(block)) => Source::Chunks(self.chunk_index(io, *block)?),
        };
        Ok(Postings {
            part: self,
            local,
            source,
        })
    }

    /// Calls `each` with every run of a row's messages here that reaches into the range, ascending.
    pub(crate) fn runs_in(
        &self,
        io: &Cache,
        local: &RawLocal<'_>,
        (from, to): (u64, u64),
        mut each: impl FnMut(SeqRun),
    ) -> Result<(), Error> {
        match local.list {
            RawList::None => each(SeqRun {
                start: local.first,
                end: local.first,
            }),
            RawList::Inside(bytes) => {
                let malformed = |Malformed(what)| self.segment.blocks.corrupt(0, what);
                let mut runs = RunReader::new(bytes, self.meta.base);
                while let Some(run) = runs.read().map_err(malformed)? {
                    if run.start > to {
                        break;
                    }
                    if run.end >= from {
                        each(run);
                    }
                }
            }
            RawList::Index(block) => {
                let chunks = self.chunk_index(io, block)?;
                let first = chunks.partition_point(|chunk| chunk.first <= from);
                let end = chunks.partition_point(|chunk| chunk.first <= to);
                for chunk in chunks.get(first.saturating_sub(1)..end).unwrap_or_default() {
                    let runs = self.chunk_runs(io, chunk.block)?;
                    let reaching = runs.iter().skip_while(|run| run.end < from);
                    reaching
                        .take_while(|run| run.start <= to)
                        .copied()
                        .for_each(&mut each);
                }
            }
        }
        Ok(())
    }

    fn decode_list(&self, offset: u64, bytes: &[u8]) -> Result<Vec<SeqRun>, Error> {
        decode_runs(bytes, self.meta.base)
            .map_err(|Malformed(what)| self.segment.blocks.corrupt(offset, what))
    }

    fn chunk_index(&self, io: &Cache, block: BlockRef) -> Result<Arc<[ChunkRef]>, Error> {
        let id = self.segment.id();
        if let Some(Cached::Index(chunks)) = io.get(id, block.offset) {
            return Ok(chunks);
        }
        let chunks: Arc<[ChunkRef]> = self
            .segment
            .decode(block, Kind::PostingIndex, decode_index)?
            .into();
        io.put(id, block.offset, Cached::Index(chunks.clone()));
        Ok(chunks)
    }

    fn chunk_runs(&self, io: &Cache, block: BlockRef) -> Result<Arc<[SeqRun]>, Error> {
        let id = self.segment.id();
        if let Some(Cached::Runs(runs)) = io.get(id, block.offset) {
            return Ok(runs);
        }
        let base = self.meta.base;
        let runs = self
            .segment
            .decode(block, Kind::Postings, |bytes| decode_runs(bytes, base))?;
        let runs: Arc<[SeqRun]> = runs.into();
        io.put(id, block.offset, Cached::Runs(runs.clone()));
        Ok(runs)
    }

    /// Calls `each` with every subject that has messages here, and how many, dead ones included.
    pub(crate) fn subject_counts(&self, each: &mut dyn FnMut(&[u8], u64)) -> Result<(), Error> {
        let mut rows = TableCursor::new(self);
        while rows.advance()? {
            if let (Some(name), Some(local)) = (rows.name(), rows.local()) {
                each(name, local.messages);
            }
        }
        Ok(())
    }
}

fn body_ref(page: &PageRef) -> BlockRef {
    BlockRef {
        offset: page.offset + u64::from(page.rows_len),
        len: page.body_len,
    }
}

#[derive(Debug)]
enum Source {
    Runs(Arc<[SeqRun]>),
    Chunks(Arc<[ChunkRef]>),
}

/// One subject's sequences in one part, dead ones included.
#[derive(Debug)]
pub(crate) struct Postings<'a> {
    part: &'a Part,
    local: Local,
    source: Source,
}

impl Postings<'_> {
    pub(crate) fn count(&self) -> u64 {
        self.local.messages
    }

    /// The runs that may hold `seq` or what is next to it, and the number of their chunk.
    fn runs_at(&self, io: &Cache, seq: u64) -> Result<(Arc<[SeqRun]>, usize), Error> {
        match &self.source {
            Source::Runs(runs) => Ok((runs.clone(), 0)),
            Source::Chunks(chunks) => {
                let at = chunks
                    .partition_point(|chunk| chunk.first <= seq)
                    .saturating_sub(1);
                self.runs_of(io, at).map(|runs| (runs, at))
            }
        }
    }

    fn runs_of(&self, io: &Cache, chunk: usize) -> Result<Arc<[SeqRun]>, Error> {
        match &self.source {
            Source::Runs(runs) if chunk == 0 => Ok(runs.clone()),
            Source::Runs(_) => Ok([].into()),
            Source::Chunks(chunks) => match chunks.get(chunk) {
                Some(chunk) => self.part.chunk_runs(io, chunk.block),
                None => Ok([].into()),
            },
        }
    }

    /// The first sequence at or after `from`.
    pub(crate) fn next(&mut self, io: &Cache, from: u64) -> Result<Option<u64>, Error> {
        if from > self.local.last {
            return Ok(None);
        }
        let (runs, chunk) = self.runs_at(io, from)?;
        let at = runs.partition_point(|run| run.end < from);
        if let Some(run) = runs.get(at) {
            return Ok(Some(run.start.max(from)));
        }
        Ok(self
            .runs_of(io, chunk + 1)?
            .first()
            .map(|run| run.start.max(from)))
    }

    /// The last sequence at or before `up_to`.
    pub(crate) fn previous(&mut self, io: &Cache, up_to: u64) -> Result<Option<u64>, Error> {
        if up_to < self.local.first {
            return Ok(None);
        }
        let (runs, _) = self.runs_at(io, up_to)?;
        let at = runs.partition_point(|run| run.start <= up_to);
        Ok(at
            .checked_sub(1)
            .and_then(|at| runs.get(at))
            .map(|run| run.end.min(up_to)))
    }

    /// Calls `each` with every run, ascending.
    pub(crate) fn runs(&self, io: &Cache, mut each: impl FnMut(SeqRun)) -> Result<(), Error> {
        let count = match &self.source {
            Source::Runs(_) => 1,
            Source::Chunks(chunks) => chunks.len(),
        };
        for chunk in 0..count {
            self.runs_of(io, chunk)?.iter().copied().for_each(&mut each);
        }
        Ok(())
    }
}
