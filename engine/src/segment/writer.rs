//! Writes one segment, front to back: for each stream its pages, posting lists and subject table; then the stream
//! entries, the records, the root, then these once more behind a guard, and the trailer that says where the root is.
//!
//!   trailer (40 B)  magic 8 B | root offset u64 | root length u32 | file length u64 | segment id u64 | crc u32
//!   root            lowest flush | highest flush | messages | stream blocks: (offset, length)* | record blocks: same
//!
//! The name is durable before the first byte is written, so that no crash can leave message bytes in a file without a
//! name, which nothing could find and overwrite. A file without a good trailer was never named by a manifest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use halyard_format::codec::{put_bytes, put_varint};
use halyard_runtime::disk::{Disk, OpenMode};
use halyard_runtime::time::Timestamp;

use crate::block::{BlockRef, BlockWriter, Kind, Magic};
use crate::error::Error;
use crate::limits::{PAGE_BYTES, SUBJECTS_PER_BLOCK};
use crate::message::StreamId;
use crate::options::Options;
use crate::runs::Runs;
use crate::segment::entry::{
    PageRef, PartMeta, Present, StreamEntry, StreamMeta, TableRef, put_entry,
};
use crate::segment::guard;
use crate::segment::postings::{ChunkRef, PostingsBuilder, encode_index};
use crate::segment::reader::Segment;
use crate::segment::row::{PageStart, Row, RowsWriter};
use crate::segment::table::{ListPlace, Local, SubjectRow, TableWriter, fits_inside};
use crate::subjects::Totals;

pub(crate) const SEGMENT_MAGIC: Magic = Magic(*b"HALYSEG1");
pub(crate) const TRAILER_MAGIC: [u8; 8] = *b"HALYEND1";
pub(crate) const TRAILER_BYTES: usize = 40;
/// An index of so many bytes is written twice in any case; a larger one if it is small beside the messages.
const COPY_BYTES_MAX: u64 = 1 << 20;
/// Stream entries and records are collected to about so many bytes.
const TABLE_BLOCK_BYTES: usize = 64 * 1024;

/// The file name of a segment.
pub(crate) fn segment_name(id: u64) -> String {
    format!("segment-{id:016x}")
}

/// The id in a segment's file name.
pub(crate) fn segment_id(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("segment-")?, 16).ok()
}

/// One message on its way into a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming<'a> {
    pub(crate) stream: StreamId,
    pub(crate) seq: u64,
    pub(crate) time: Timestamp,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) subject: u32,
    pub(crate) subject_len: u16,
    pub(crate) headers_len: u32,
    pub(crate) record: &'a [u8],
    /// What it counts for in the stream's bytes.
    pub(crate) size: u64,
}

/// A subject on its way into the table.
#[derive(Debug)]
pub(crate) struct IncomingSubject {
    pub(crate) name: Bytes,
    pub(crate) postings: Option<PostingsBuilder>,
    pub(crate) totals: Totals,
}

/// A segment that is being written.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    blocks: BlockWriter,
    path: PathBuf,
    id: u64,
    lo: u64,
    hi: u64,
    messages: u64,
    entries: Vec<StreamEntry>,
    entry_bytes: Vec<u8>,
    entry_blocks: Vec<BlockRef>,
    record_blocks: Vec<BlockRef>,
    /// What is in these blocks, for the second copy.
    index: Vec<(Kind, Vec<u8>)>,
    /// For the guard; empty where the header holds a key.
    header: Vec<u8>,
    body: Vec<u8>,
    rows: RowsWriter,
    page: Option<(u64, Timestamp)>,
    part: PartMeta,
    expiries: Vec<(u64, Timestamp)>,
}

impl SegmentWriter {
    /// Creates the file of segment `id`, which covers the flushes `lo..=hi`; `bytes` is about how long it will be.
    pub(crate) fn create(
        disk: &dyn Disk,
        dir: &Path,
        id: u64,
        (lo, hi): (u64, u64),
        bytes: u64,
        options: &Options,
    ) -> Result<Self, Error> {
        assert!(lo <= hi, "a segment covers at least one flush");
        let path = dir.join(segment_name(id));
        let file = disk
            .open(&path, OpenMode::CreateNew)
            .map_err(|error| Error::io(&path, error))?;
        disk.sync_dir(dir).map_err(|error| Error::io(dir, error))?;
        let mut blocks = BlockWriter::new(file, &path, SEGMENT_MAGIC, id, options);
        let header = match blocks.is_sealed() {
            true => Vec::new(),
            false => blocks.header(),
        };
        if options.overwrite_freed {
            blocks.keep_length_ahead(bytes)?;
        }
        Ok(Self {
            blocks,
            path,
            id,
            lo,
            hi,
            messages: 0,
            entries: Vec::new(),
            entry_bytes: Vec::new(),
            entry_blocks: Vec::new(),
            record_blocks: Vec::new(),
            index: Vec::new(),
            header,
            body: Vec::new(),
            rows: RowsWriter::default(),
            page: None,
            part: PartMeta::default(),
            expiries: Vec::new(),
        })
    }

    /// Adds a message of the current stream; sequences rise.
    pub(crate) fn push(&mut self, message: Incoming<'_>) -> Result<(), Error> {
        if self.page.is_some() && self.body.len() + message.record.len() > PAGE_BYTES {
            self.close_page()?;
        }
        if self.page.is_none() {
            self.page = Some((message.seq, message.time));
            self.rows.start(PageStart {
                stream: message.stream,
                seq: message.seq,
                time: message.time,
            });
        }
        if self.part.messages == 0 {
            self.part.first_seq = message.seq;
            self.part.first_time = message.time;
        }
        assert!(
            self.part.messages == 0 || message.seq > self.part.last_seq,
            "sequences rise"
        );
        debug_assert!(
            usize::from(message.subject_len) + message.headers_len as usize <= message.record.len(),
            "subject and headers are parts of the record"
        );
        let body_len = u32::try_from(message.record.len());
        self.rows.push(&Row {
            seq: message.seq,
            time: message.time,
            expires: message.expires,
            subject: message.subject,
            subject_len: message.subject_len,
            headers_len: message.headers_len,
            body_start: 0,
            body_len: body_len.expect("a record is shorter than 4 GiB"),
        });
        self.body.extend_from_slice(message.record);
        self.part.messages += 1;
        self.part.last_seq = message.seq;
        self.part.last_time = message.time;
        self.part.bytes += message.size;
        self.expiries
            .extend(message.expires.map(|expires| (message.seq, expires)));
        Ok(())
    }

    fn close_page(&mut self) -> Result<(), Error> {
        let Some((first_seq, first_time)) = self.page.take() else {
            return Ok(());
        };
        assert!(
            self.part.messages > 0
                && self.part.first_seq <= first_seq
                && first_seq <= self.part.last_seq,
            "a page has a row, and lies within its part"
        );
        let rows = self.blocks.append(Kind::Page, &self.rows.bytes)?;
        let body = self.blocks.append(Kind::Body, &self.body)?;
        assert_eq!(
            rows.offset + u64::from(rows.len),
            body.offset,
            "a page's blocks are neighbours"
        );
        let page = PageRef {
            first_seq,
            first_time,
            offset: rows.offset,
            rows_len: rows.len,
            body_len: body.len,
        };
        self.part.pages.push(page);
        self.body.clear();
        Ok(())
    }

    /// Ends the current stream: its subjects in order (their numbers are what messages named), its state, what died.
    /// `base` is what the posting lists count from.
    pub(crate) fn finish_stream(
        &mut self,
        id: StreamId,
        meta: StreamMeta,
        base: u64,
        subjects: Vec<IncomingSubject>,
        dead: Runs,
    ) -> Result<(), Error> {
        self.close_page()?;
        let count = u32::try_from(subjects.len()).expect("fewer subjects than 2^32");
        let mut tables = Vec::new();
        let mut table = TableWriter::default();
        for subject in subjects {
            let local = match subject.postings {
                Some(postings) if postings.count > 0 => Some(self.put_postings(postings)?),
                _ => None,
            };
            table.push(
                &SubjectRow {
                    name: subject.name,
                    local,
                    totals: subject.totals,
                },
                base,
            );
            if table.rows == SUBJECTS_PER_BLOCK {
                self.put_table(&mut table, &mut tables)?;
            }
        }
        self.put_table(&mut table, &mut tables)?;
        let mut part = std::mem::take(&mut self.part);
        part.base = if part.messages == 0 { 0 } else { base };
        assert!(
            part.base <= part.first_seq && part.first_seq <= part.last_seq,
            "sequences count from the part's base, and rise"
        );
        assert!(
            part.pages.is_empty() == (part.messages == 0),
            "messages stand in pages"
        );
        assert!(
            part.pages
                .is_sorted_by(|a, b| a.first_seq < b.first_seq && a.offset < b.offset),
            "pages stand in the order of their messages"
        );
        self.messages += part.messages;
        let expiries = std::mem::take(&mut self.expiries);
        let present = Present {
            meta,
            part,
            subjects: count,
            tables,
            dead,
            expiries,
        };
        self.put_stream(StreamEntry {
            id,
            present: Some(present),
        })
    }

    /// Says that a stream was dropped.
    pub(crate) fn dropped(&mut self, id: StreamId) -> Result<(), Error> {
        self.put_stream(StreamEntry { id, present: None })
    }

    fn put_stream(&mut self, entry: StreamEntry) -> Result<(), Error> {
        assert!(
            self.entries.last().is_none_or(|last| last.id < entry.id),
            "streams are sorted"
        );
        put_entry(&mut self.entry_bytes, &entry);
        self.entries.push(entry);
        if self.entry_bytes.len() >= TABLE_BLOCK_BYTES {
            self.close_entries()?;
        }
        Ok(())
    }

    fn close_entries(&mut self) -> Result<(), Error> {
        if !self.entry_bytes.is_empty() {
            let bytes = std::mem::take(&mut self.entry_bytes);
            self.put_index(Kind::Streams, bytes)?;
        }
        Ok(())
    }

    fn put_index(&mut self, kind: Kind, bytes: Vec<u8>) -> Result<(), Error> {
        assert!(!bytes.is_empty(), "a block of the index says something");
        let block = self.blocks.append(kind, &bytes)?;
        match kind {
            Kind::Streams => self.entry_blocks.push(block),
            _ => self.record_blocks.push(block),
        }
        self.index.push((kind, bytes));
        Ok(())
    }

    fn put_root(&mut self) -> Result<BlockRef, Error> {
        let mut root = Vec::new();
        for number in [self.lo, self.hi, self.messages] {
            put_varint(&mut root, number);
        }
        for blocks in [&self.entry_blocks, &self.record_blocks] {
            put_varint(&mut root, blocks.len() as u64);
            for block in blocks {
                put_varint(&mut root, block.offset);
                put_varint(&mut root, block.len.into());
            }
        }
        self.blocks.append(Kind::Root, &root)
    }

    /// The index again, behind a guard: a part of it that is large beside the messages only once.
    fn put_copy(&mut self) -> Result<BlockRef, Error> {
        let first = self.put_root()?;
        let here = self.blocks.len();
        assert_eq!(
            first.offset + u64::from(first.len),
            here,
            "the guard stands right behind the first root"
        );
        let guard = guard::content(first, here, self.id, &self.header);
        self.blocks.append_plain(Kind::Guard, &guard);
        let index = std::mem::take(&mut self.index);
        let bytes: u64 = index.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        if bytes <= COPY_BYTES_MAX.max(here / 8) {
            self.entry_blocks.clear();
            self.record_blocks.clear();
            for (kind, bytes) in index {
                self.put_index(kind, bytes)?;
            }
        }
        self.put_root()
    }

    fn put_table(
        &mut self,
        table: &mut TableWriter,
        tables: &mut Vec<TableRef>,
    ) -> Result<(), Error> {
        if table.rows > 0 {
            let block = self.blocks.append(Kind::Subjects, &table.bytes)?;
            tables.push(TableRef {
                block,
                first_name: table.first_name.as_slice().into(),
            });
            table.clear();
        }
        Ok(())
    }

    fn put_postings(&mut self, postings: PostingsBuilder) -> Result<Local, Error> {
        let (messages, first, last) = (postings.count, postings.first, postings.last);
        assert!(
            first <= last && messages <= last - first + 1,
            "each message has a sequence of its own"
        );
        if messages == 1 {
            return Ok(Local {
                messages,
                first,
                last,
                list: None,
            });
        }
        let mut chunks = postings.finish();
        if fits_inside(&chunks)
            && let Some(only) = chunks.pop()
        {
            let list = Some(ListPlace::Inside(only.bytes.into()));
            return Ok(Local {
                messages,
                first,
                last,
                list,
            });
        }
        let mut refs = Vec::with_capacity(chunks.len());
        for chunk in &chunks {
            let block = self.blocks.append(Kind::Postings, &chunk.bytes)?;
            refs.push(ChunkRef {
                first: chunk.first,
                before: chunk.before,
                block,
            });
        }
        let index = self
            .blocks
            .append(Kind::PostingIndex, &encode_index(&refs))?;
        Ok(Local {
            messages,
            first,
            last,
            list: Some(ListPlace::Index(index)),
        })
    }

    /// Adds the machine's records that changed (`None`: removed), sorted by key. After all streams.
    pub(crate) fn records<'a>(
        &mut self,
        records: impl Iterator<Item = (&'a Bytes, &'a Option<Bytes>)>,
    ) -> Result<(), Error> {
        let mut bytes = Vec::new();
        for (key, value) in records {
            put_bytes(&mut bytes, key);
            put_varint(&mut bytes, u64::from(value.is_some()));
            if let Some(value) = value {
                put_bytes(&mut bytes, value);
            }
            if bytes.len() >= TABLE_BLOCK_BYTES {
                self.put_index(Kind::Records, std::mem::take(&mut bytes))?;
            }
        }
        if !bytes.is_empty() {
            self.put_index(Kind::Records, bytes)?;
        }
        Ok(())
    }

    /// Writes the rest and syncs; the segment is complete and durable, and still in no manifest.
    pub(crate) fn finish(
        mut self,
        disk: &dyn Disk,
        options: &Options,
    ) -> Result<crate::segment::Written, Error> {
        self.close_entries()?;
        let root = self.put_copy()?;
        let len = self.blocks.len() + TRAILER_BYTES as u64;
        let trailer = guard::trailer(root, len, self.id);
        self.blocks.append_raw(&trailer);
        self.blocks.finish()?;
        let segment = Segment::open(disk, &self.path, options.encryption.as_ref())?;
        assert!(
            segment.id() == self.id && segment.messages == self.messages,
            "what was written reads back"
        );
        Ok((Arc::new(segment), self.entries))
    }
}
