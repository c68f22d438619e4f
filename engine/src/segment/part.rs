//! The part of a segment that belongs to one stream: its pages of rows and bodies, and its subject table.

use std::sync::Arc;

use bytes::Bytes;
use halyard_format::codec::Malformed;
use halyard_runtime::time::Timestamp;

use crate::block::{BlockRef, Kind};
use crate::error::Error;
use crate::limits::{PAGE_BYTES, SUBJECTS_PER_BLOCK};
use crate::segment::cache::{Cache, Cached};
use crate::segment::cursor::TableCursor;
use crate::segment::entry::{PageRef, PartMeta, Present, TableRef};
use crate::segment::postings::{ChunkRef, RunReader, SeqRun, decode_index, decode_runs};
use crate::segment::reader::Segment;
use crate::segment::row::Row;
use crate::segment::sequences::Postings;
use crate::segment::table::{Local, RawList, RawLocal, SubjectRow, decode_table};

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
                .blocks()
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
        let rows = io.noted(self.read_rows(page))?;
        io.put(id, page.offset, Cached::Rows(rows.clone()));
        Ok(rows)
    }

    fn read_rows(&self, page: &PageRef) -> Result<Arc<[Row]>, Error> {
        Ok(self.segment.rows(page)?.into())
    }

    /// The record of one row of a page, sharing the page's bytes.
    pub(crate) fn record(&self, io: &Cache, page: usize, row: &Row) -> Result<Bytes, Error> {
        let body = self.body(io, page)?;
        let range = row.body_start as usize..row.body_start as usize + row.body_len as usize;
        if body.get(range.clone()).is_none() {
            let what = format!("the record of message {} ends after its page", row.seq);
            return io.noted(Err(self
                .segment
                .blocks()
                .corrupt(self.page(page)?.offset, what)));
        }
        Ok(body.slice(range))
    }

    /// The rows of a page do not fit its body or its subjects.
    #[cold]
    pub(crate) fn contradiction(&self, page: usize, seq: u64) -> Error {
        let offset = self.meta.pages.get(page).map_or(0, |page| page.offset);
        self.segment.blocks().corrupt(
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
        let body = io.noted(self.segment.blocks().read(block, Kind::Body))?;
        io.put(id, block.offset, Cached::Body(body.clone()));
        Ok(body)
    }

    /// One block of the subject table.
    pub(crate) fn table(&self, io: &Cache, number: usize) -> Result<Arc<[SubjectRow]>, Error> {
        let table = self.tables.get(number);
        let table = table.ok_or_else(|| {
            self.segment
                .blocks()
                .corrupt(0, format!("no subject block {number}"))
        })?;
        let id = self.segment.id();
        if let Some(Cached::Subjects(rows)) = io.get(id, table.block.offset) {
            return Ok(rows);
        }
        let base = self.meta.base;
        let rows = io.noted(self.segment.decode(table.block, Kind::Subjects, |bytes| {
            decode_table(bytes, base)
        }))?;
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
            .blocks()
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
        Postings::new(self, io, local)
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
                let malformed = |Malformed(what)| self.segment.blocks().corrupt(0, what);
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

    /// A posting list that stands at `offset`.
    pub(crate) fn decode_list(&self, offset: u64, bytes: &[u8]) -> Result<Vec<SeqRun>, Error> {
        decode_runs(bytes, self.meta.base)
            .map_err(|Malformed(what)| self.segment.blocks().corrupt(offset, what))
    }

    /// Where the chunks of a long posting list are.
    pub(crate) fn chunk_index(
        &self,
        io: &Cache,
        block: BlockRef,
    ) -> Result<Arc<[ChunkRef]>, Error> {
        let id = self.segment.id();
        if let Some(Cached::Index(chunks)) = io.get(id, block.offset) {
            return Ok(chunks);
        }
        let chunks = self.segment.decode(block, Kind::PostingIndex, decode_index);
        let chunks: Arc<[ChunkRef]> = io.noted(chunks)?.into();
        io.put(id, block.offset, Cached::Index(chunks.clone()));
        Ok(chunks)
    }

    /// One chunk of a long posting list.
    pub(crate) fn chunk_runs(&self, io: &Cache, block: BlockRef) -> Result<Arc<[SeqRun]>, Error> {
        let id = self.segment.id();
        if let Some(Cached::Runs(runs)) = io.get(id, block.offset) {
            return Ok(runs);
        }
        let base = self.meta.base;
        let runs = self
            .segment
            .decode(block, Kind::Postings, |bytes| decode_runs(bytes, base));
        let runs: Arc<[SeqRun]> = io.noted(runs)?.into();
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
