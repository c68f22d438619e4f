//! What is left of a segment whose index or end cannot be read: every sound block is found by its checksum, wherever it stands.
//!
//! Entries of streams that are still there say all that they say elsewhere. A page of another stream says itself whose it is
//! and what it counts from ([`PageStart`]); pages of files from before 2026-12-01 do not, and are of no use without their entry.
//! What had been deleted is not in the pages. Sequences between two rows of a page, or between two pages that follow one
//! another, were deleted before the segment was written; of others that are missing nothing is known.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use halyard_format::Encryption;
use halyard_format::codec::Reader;
use halyard_runtime::disk::{Disk, OpenMode};
use halyard_runtime::time::Timestamp;

use crate::block::{BlockReader, BlockRef, HEADER_BYTES, Kind};
use crate::error::Error;
use crate::manifest::ManifestSegment;
use crate::message::StreamId;
use crate::options::Overhead;
use crate::runs::Runs;
use crate::segment::entry::{PageRef, PartMeta, Present, StreamEntry, StreamMeta, read_entry};
use crate::segment::reader::Segment;
use crate::segment::row::{PageStart, Row, decode_rows};
use crate::segment::writer::SEGMENT_MAGIC;

/// Pages of one stream without an entry.
#[derive(Debug, Default)]
pub(crate) struct Loose {
    pub(crate) part: PartMeta,
    /// Sequences between the pages' rows that held no message when they were written.
    pub(crate) dead: Runs,
    pub(crate) expiries: Vec<(u64, Timestamp)>,
    /// Where the last page ends.
    end: u64,
}

/// A damaged segment as far as it can be read.
#[derive(Debug)]
pub(crate) struct Remains {
    pub(crate) segment: Segment,
    pub(crate) loose: BTreeMap<StreamId, Loose>,
    /// Messages in sound pages that do not say whose they are.
    pub(crate) nameless: u64,
}

impl Loose {
    /// What a stream has of it.
    pub(crate) fn present(self, meta: StreamMeta) -> Present {
        Present {
            meta,
            part: self.part,
            subjects: 0,
            tables: Vec::new(),
            dead: self.dead,
            expiries: self.expiries,
        }
    }

    fn add(&mut self, page: Page, body: BlockRef, body_bytes: usize, overhead: Overhead) {
        let Page { start, rows, block } = page;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return;
        };
        let fits = |row: &Row| row.body_start as usize + row.body_len as usize <= body_bytes;
        let rises = self.part.messages == 0 || first.seq > self.part.last_seq;
        if !rises || !fits(last) {
            return;
        }
        if self.part.messages == 0 {
            self.part.first_seq = first.seq;
            self.part.base = first.seq;
            self.part.first_time = start.time;
        } else if self.end == block.offset && first.seq > self.part.last_seq + 1 {
            self.dead.insert(self.part.last_seq + 1..=first.seq - 1);
        }
        for (row, next) in rows.iter().zip(rows.iter().skip(1)) {
            if next.seq > row.seq + 1 {
                self.dead.insert(row.seq + 1..=next.seq - 1);
            }
        }
        for row in &rows {
            self.part.bytes += overhead.size(row.body_len as usize, row.headers_len);
            self.expiries
                .extend(row.expires.map(|expires| (row.seq, expires)));
        }
        self.part.messages += rows.len() as u64;
        self.part.last_seq = last.seq;
        self.part.last_time = last.time;
        self.part.pages.push(PageRef {
            first_seq: start.seq,
            first_time: start.time,
            offset: block.offset,
            rows_len: block.len,
            body_len: body.len,
        });
        self.end = body.offset + u64::from(body.len);
    }
}

/// A rows block whose body is still to come.
struct Page {
    start: PageStart,
    rows: Vec<Row>,
    block: BlockRef,
}

#[derive(Default)]
struct Walk {
    entry_blocks: Vec<BlockRef>,
    record_blocks: Vec<BlockRef>,
    /// Streams whose entries were found.
    entries: BTreeSet<StreamId>,
    loose: BTreeMap<StreamId, Loose>,
    nameless: u64,
    page: Option<Page>,
}

impl Remains {
    /// Reads a damaged segment forward, block by block.
    ///
    /// # Errors
    /// Nothing of it can be read: it is not there, or its header is gone and it was encrypted.
    pub(crate) fn read(
        disk: &dyn Disk,
        path: &Path,
        encryption: Option<&Encryption>,
        listed: &ManifestSegment,
        overhead: Overhead,
    ) -> Result<Self, Error> {
        let file = disk
            .open(path, OpenMode::Read)
            .map_err(|error| Error::io(path, error))?;
        let len = file.len().map_err(|error| Error::io(path, error))?;
        let len = len.min(listed.file_bytes);
        let magic = SEGMENT_MAGIC;
        let opened = BlockReader::with_header_at(file.clone(), path, len, 0, magic, encryption);
        let mut lost_header = None;
        let blocks = match opened {
            Ok(blocks) if blocks.tag() == listed.id => blocks,
            // Written before encryption was turned on, it may be plain; a sealed block is none without its key.
            Err(error @ Error::Corrupt { .. }) => {
                lost_header = Some(error);
                BlockReader::headless(file.clone(), path, len, listed.id)
            }
            Ok(blocks) => return Err(blocks.corrupt(0, "the header belongs to another segment")),
            Err(error) => return Err(error),
        };
        let mut walk = Walk::default();
        let mut at = HEADER_BYTES as u64;
        while at < len {
            match blocks.block_at(at) {
                Ok((kind, bytes, next)) => {
                    let block = BlockRef {
                        offset: at,
                        len: (next - at) as u32,
                    };
                    walk.see(kind, &bytes, block, overhead);
                    at = next;
                }
                Err(_) => {
                    walk.page = None;
                    let Some(next) = blocks.block_after(at + 1) else {
                        break;
                    };
                    at = next;
                }
            }
        }
        let Walk {
            entry_blocks,
            record_blocks,
            entries,
            mut loose,
            nameless,
            ..
        } = walk;
        if let (Some(error), true, true) = (lost_header, entries.is_empty(), loose.is_empty()) {
            return Err(error);
        }
        loose.retain(|id, loose| !entries.contains(id) && loose.part.messages > 0);
        let segment = Segment::of_remains(
            (blocks, Arc::clone(&file)),
            (listed.lo, listed.hi),
            entry_blocks,
            record_blocks,
        );
        Ok(Self {
            segment,
            loose,
            nameless,
        })
    }

    /// Messages that it has for streams without an entry.
    pub(crate) fn messages(&self) -> u64 {
        self.loose.values().map(|loose| loose.part.messages).sum()
    }
}

impl Walk {
    fn see(&mut self, kind: Kind, bytes: &Bytes, block: BlockRef, overhead: Overhead) {
        let page = self.page.take();
        match kind {
            Kind::Page => {
                let page = PageStart::split(bytes).and_then(|(start, rows)| {
                    let rows = decode_rows(rows, start.seq, start.time)?;
                    Ok(Page { start, rows, block })
                });
                self.page = page.ok();
            }
            Kind::Rows => {
                let rows = decode_rows(bytes, 1, Timestamp::EPOCH);
                self.nameless += rows.map_or(0, |rows| rows.len() as u64);
            }
            Kind::Body => {
                if let Some(page) = page {
                    let loose = self.loose.entry(page.start.stream).or_default();
                    loose.add(page, block, bytes.len(), overhead);
                }
            }
            Kind::Streams => self.see_entries(bytes, block),
            Kind::Records => self.record_blocks.push(block),
            Kind::Subjects
            | Kind::Postings
            | Kind::PostingIndex
            | Kind::Root
            | Kind::Manifest
            | Kind::Guard => {}
        }
    }

    /// The index is there twice: a block counts once.
    fn see_entries(&mut self, bytes: &[u8], block: BlockRef) {
        let mut reader = Reader::new(bytes);
        let mut ids = Vec::new();
        while !reader.is_empty() {
            match read_entry(&mut reader) {
                Ok(StreamEntry { id, .. }) => ids.push(id),
                Err(_) => return,
            }
        }
        if ids.iter().all(|id| !self.entries.contains(id)) {
            self.entries.extend(ids);
            self.entry_blocks.push(block);
        }
    }
}
