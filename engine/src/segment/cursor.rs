//! Reads subject tables forward, one row after the other or from name to name, past the block cache.
//!
//!   TableCursor   one table: the current row, whose name is in a buffer that each row changes from where it differs
//!   MergedTables  several tables as one, by name
//!
//! Who goes through a whole table (opening, merging, counting) asks for each block once: in the cache it would only take
//! the place of what is asked for again. Nothing is allocated for a row. Blocks that lie one after the other are read
//! together, more of them the longer the cursor goes on without a gap; each is verified on its own.

use bytes::Bytes;
use halyard_format::codec::{Malformed, Reader};

use crate::block::{BlockRef, Kind};
use crate::error::Error;
use crate::segment::part::Part;
use crate::segment::table::{RawList, RawLocal, RawRow};
use crate::subjects::Totals;

/// Blocks that one read fetches at most.
const BLOCKS_TOGETHER_MAX: usize = 64;
/// Bytes that one read fetches at most, unless a block is larger.
const READ_BYTES_MAX: u64 = 64 * 1024;

/// Blocks that were read together.
#[derive(Debug, Default)]
struct Ahead {
    bytes: Bytes,
    /// Where they start in the file.
    offset: u64,
}

impl Ahead {
    fn block(&self, block: BlockRef) -> Option<Bytes> {
        let start = usize::try_from(block.offset.checked_sub(self.offset)?).ok()?;
        let end = start.checked_add(block.len as usize)?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }
}

/// Where the posting list of the current row is.
#[derive(Debug, Clone, Copy)]
enum List {
    None,
    /// From and to in the block.
    Inside(usize, usize),
    Index(BlockRef),
}

/// Goes through the subject table of one part. Starts before the first row.
#[derive(Debug)]
pub(crate) struct TableCursor<'a> {
    pub(crate) part: &'a Part,
    /// The number of the block that comes after the current one.
    next_block: usize,
    ahead: Ahead,
    /// Blocks of the next read.
    together: usize,
    block: Bytes,
    /// Where the next row starts in the block.
    at: usize,
    /// Rows before the next one in the table.
    next_number: usize,
    has_row: bool,
    name: Vec<u8>,
    messages: u64,
    first: u64,
    last: u64,
    list: List,
    totals: Totals,
    /// Blocks decoded so far, as a measure of what it cost.
    pub(crate) blocks_read: u64,
}

impl<'a> TableCursor<'a> {
    pub(crate) fn new(part: &'a Part) -> Self {
        Self {
            part,
            next_block: 0,
            ahead: Ahead::default(),
            together: 1,
            block: Bytes::new(),
            at: 0,
            next_number: 0,
            has_row: false,
            name: Vec::new(),
            messages: 0,
            first: 0,
            last: 0,
            list: List::None,
            totals: Totals {
                messages: 0,
                first: 0,
                first_is_bound: false,
                last: 0,
            },
            blocks_read: 0,
        }
    }

    /// The name of the current row; `None` before the first and after the last.
    #[inline]
    pub(crate) fn name(&self) -> Option<&[u8]> {
        self.has_row.then_some(&*self.name)
    }

    /// The stream's totals in the current row.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// The number of the current row in the part.
    pub(crate) fn number(&self) -> usize {
        self.next_number.saturating_sub(1)
    }

    /// What the current row says of the subject's messages in this part.
    pub(crate) fn local(&self) -> Option<RawLocal<'_>> {
        (self.has_row && self.messages > 0).then(|| RawLocal {
            messages: self.messages,
            first: self.first,
            last: self.last,
            list: match self.list {
                List::None => RawList::None,
                List::Inside(from, to) => {
                    let list = self.block.get(from..to);
                    RawList::Inside(list.expect("it was found in this block"))
                }
                List::Index(block) => RawList::Index(block),
            },
        })
    }

    /// The current block, which [`TableCursor::local`] lies in.
    pub(crate) fn block(&self) -> &Bytes {
        &self.block
    }

    /// Goes to the next row; `false` after the last.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<bool, Error> {
        while self.at >= self.block.len() {
            if !self.enter(self.next_block)? {
                self.has_row = false;
                return Ok(false);
            }
        }
        self.decode_row()
            .map_err(|Malformed(what)| self.malformed(what))?;
        Ok(true)
    }

    /// Goes forward to the row of that name; `false` if there is none, and then the cursor is somewhere before the next
    /// name. Names that are asked for come in ascending order.
    pub(crate) fn seek(&mut self, name: &[u8]) -> Result<bool, Error> {
        match self.name() {
            Some(current) if current == name => return Ok(true),
            Some(current) if current > name => return Ok(false),
            _ => {}
        }
        let tables = self.part.tables();
        let starts_by = |block: usize| {
            let table = tables.get(block);
            table.is_some_and(|table| *table.first_name <= *name)
        };
        if starts_by(self.next_block) {
            // The last block that starts by then: most often this one, else in ever longer steps.
            let (mut low, mut step) = (self.next_block, 1);
            while starts_by(low + step) {
                low += step;
                step *= 2;
            }
            let within = tables.get(low..tables.len().min(low + step));
            let after = within
                .unwrap_or_default()
                .partition_point(|table| *table.first_name <= *name);
            self.enter(low + after.max(1) - 1)?;
        }
        while self.at < self.block.len() {
            self.advance()?;
            if *self.name >= *name {
                return Ok(*self.name == *name);
            }
        }
        // All of the block is before it, and the next block after it.
        self.has_row = false;
        Ok(false)
    }

    /// Goes before the first row again.
    pub(crate) fn rewind(&mut self) {
        self.next_block = 0;
        self.block = Bytes::new();
        self.at = 0;
        self.next_number = 0;
        self.has_row = false;
    }

    /// Goes before the first row of a block; `false` if there is none of that number.
    #[cold]
    fn enter(&mut self, number: usize) -> Result<bool, Error> {
        let tables = self.part.tables();
        let Some(table) = tables.get(number) else {
            return Ok(false);
        };
        let is_next = number == self.next_block;
        let stored = match self.ahead.block(table.block) {
            Some(stored) => stored,
            None => {
                let more = (self.together * 2).min(BLOCKS_TOGETHER_MAX);
                self.together = if is_next { more } else { 1 };
                self.fetch(number)?
            }
        };
        let blocks = self.part.segment.blocks();
        self.block = blocks.open_block(table.block, stored, Kind::Subjects)?;
        self.at = 0;
        self.next_block = number + 1;
        self.blocks_read += 1;
        // Blocks are in order too: what follows may rely on it. A gap is only entered by names that were compared.
        let is_before = !self.has_row || !is_next || *self.name < *table.first_name;
        if !is_before {
            return Err(blocks.corrupt(table.block.offset, "subjects out of order"));
        }
        self.has_row = false;
        self.next_number = number * crate::limits::SUBJECTS_PER_BLOCK;
        Ok(true)
    }

    /// Reads a block, and those behind it that belong to the same read.
    fn fetch(&mut self, number: usize) -> Result<Bytes, Error> {
        let blocks = self.part.segment.blocks();
        let mut tables = self.part.tables().iter().skip(number);
        let first = tables
            .next()
            .map_or(BlockRef::default(), |table| table.block);
        let mut len = u64::from(first.len);
        for table in tables.take(self.together - 1) {
            let more = len + u64::from(table.block.len);
            if first.offset.checked_add(len) != Some(table.block.offset) || more > READ_BYTES_MAX {
                break;
            }
            len = more;
        }
        if len > u64::from(first.len) {
            // What cannot be read together is tried alone: it may be the one behind that is damaged.
            if let Ok(bytes) = blocks.read_raw(first.offset, len as usize) {
                let bytes = Bytes::from(bytes);
                self.ahead = Ahead {
                    bytes,
                    offset: first.offset,
                };
                if let Some(stored) = self.ahead.block(first) {
                    return Ok(stored);
                }
            }
            self.together = 1;
        }
        let bytes = blocks.read_raw(first.offset, first.len as usize)?;
        Ok(bytes.into())
    }

    #[inline]
    fn decode_row(&mut self) -> Result<(), Malformed> {
        let rest = self.block.get(self.at..);
        let rest = rest.expect("the next row is not behind the block");
        let mut reader = Reader::new(rest);
        let previous = (self.at > 0).then_some(&*self.name);
        let row = RawRow::read(&mut reader, previous, self.part.base())?;
        if self.at == 0 && row.suffix != self.first_name() {
            return Err(Malformed("a block of subjects starts with another name"));
        }
        self.name.truncate(row.shared);
        self.name.extend_from_slice(row.suffix);
        self.totals = row.totals;
        self.messages = 0;
        if let Some(local) = row.local {
            self.messages = local.messages;
            self.first = local.first;
            self.last = local.last;
            self.list = match local.list {
                RawList::None => List::None,
                RawList::Inside(bytes) => {
                    let from = bytes.as_ptr() as usize - self.block.as_ptr() as usize;
                    List::Inside(from, from + bytes.len())
                }
                RawList::Index(block) => List::Index(block),
            };
        }
        self.at = self.block.len() - reader.left();
        self.has_row = true;
        self.next_number += 1;
        Ok(())
    }

    /// The first name of the current block, as the index of blocks has it.
    fn first_name(&self) -> &[u8] {
        let table = self.part.tables().get(self.next_block.saturating_sub(1));
        table.map_or(&[], |table| &*table.first_name)
    }

    #[cold]
    fn malformed(&mut self, what: &'static str) -> Error {
        self.has_row = false;
        let tables = self.part.tables();
        let table = tables.get(self.next_block.saturating_sub(1));
        let offset = table.map_or(0, |table| table.block.offset);
        self.part.segment.blocks().corrupt(offset, what)
    }
}

/// The rows of several tables, by name. Starts before the first name.
#[derive(Debug)]
pub(crate) struct MergedTables<'a> {
    cursors: Vec<TableCursor<'a>>,
    /// Which of them have a row of the current name, ascending. Before the first name: all.
    here: Vec<usize>,
}

impl<'a> MergedTables<'a> {
    pub(crate) fn new(parts: impl Iterator<Item = &'a Part>) -> Self {
        let cursors: Vec<_> = parts.map(TableCursor::new).collect();
        Self {
            here: (0..cursors.len()).collect(),
            cursors,
        }
    }

    /// Goes to the next name; `false` after the last.
    pub(crate) fn advance(&mut self) -> Result<bool, Error> {
        for &at in &self.here {
            if let Some(cursor) = self.cursors.get_mut(at) {
                cursor.advance()?;
            }
        }
        self.here.clear();
        let mut lowest: Option<&[u8]> = None;
        for (at, cursor) in self.cursors.iter().enumerate() {
            let Some(name) = cursor.name() else { continue };
            let order = lowest.map_or(std::cmp::Ordering::Less, |lowest| name.cmp(lowest));
            if order.is_lt() {
                lowest = Some(name);
                self.here.clear();
            }
            if order.is_le() {
                self.here.push(at);
            }
        }
        Ok(lowest.is_some())
    }

    /// The current name.
    pub(crate) fn name(&self) -> &[u8] {
        let mut here = self.here();
        here.next()
            .and_then(|(_, cursor)| cursor.name())
            .unwrap_or_default()
    }

    /// The tables that have a row of the current name, and their numbers, ascending.
    pub(crate) fn here(&self) -> impl Iterator<Item = (usize, &TableCursor<'a>)> {
        let cursors = self.here.iter();
        cursors.filter_map(|&at| Some((at, self.cursors.get(at)?)))
    }
}

#[cfg(test)]
#[path = "cursor_test.rs"]
mod tests;
