//! The entry of one stream in a segment: its state at the flush, where its pages and subjects are, what died.
//!
//!   entry  id | kind: 0 dropped, 1 present; then, if present:
//!          born | first | last | messages | bytes | last time (signed)
//!          | part: messages (0: none) | base | first - base | last - first | bytes | first time (signed) | last time (signed)
//!          |       pages: count | (seq gap, time delta (signed), offset gap, rows block length, body block length)*
//!          | subjects: rows | blocks: (offset, length, first name)*
//!          | dead runs since the previous flush: count | (gap, length - 1)*
//!          | expiries: count | (seq gap, time (signed))*
//!
//! All varints. `born` is the ordinal of the flush that first wrote the stream: entries of segments that end before it
//! belong to a dropped stream of the same id. `base` is what posting lists count from, not above `first`. A dead run is of the stream; those below `first` are not kept.

use halyard_format::codec::{Malformed, Reader, put_bytes, put_signed, put_varint, sum};
use halyard_runtime::time::Timestamp;

use crate::block::BlockRef;
use crate::message::StreamId;
use crate::runs::Runs;

/// A stream's counters at a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamMeta {
    pub(crate) born: u64,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) last_time: Timestamp,
}

/// Where one page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageRef {
    pub(crate) first_seq: u64,
    pub(crate) first_time: Timestamp,
    /// The rows block; the body block follows it.
    pub(crate) offset: u64,
    pub(crate) rows_len: u32,
    pub(crate) body_len: u32,
}

/// The messages of one stream in one segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PartMeta {
    pub(crate) messages: u64,
    /// What posting lists count from; not above `first_seq`.
    pub(crate) base: u64,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) bytes: u64,
    pub(crate) first_time: Timestamp,
    pub(crate) last_time: Timestamp,
    pub(crate) pages: Vec<PageRef>,
}

/// One block of the subject table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableRef {
    pub(crate) block: BlockRef,
    pub(crate) first_name: Box<[u8]>,
}

/// A stream that is there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Present {
    pub(crate) meta: StreamMeta,
    pub(crate) part: PartMeta,
    /// Rows of the subject table.
    pub(crate) subjects: u32,
    pub(crate) tables: Vec<TableRef>,
    pub(crate) dead: Runs,
    pub(crate) expiries: Vec<(u64, Timestamp)>,
}

/// One stream in a segment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StreamEntry {
    pub(crate) id: StreamId,
    /// `None`: the stream was dropped.
    pub(crate) present: Option<Present>,
}

pub(crate) fn put_entry(out: &mut Vec<u8>, entry: &StreamEntry) {
    put_varint(out, entry.id.0);
    let Some(present) = &entry.present else {
        put_varint(out, 0);
        return;
    };
    put_varint(out, 1);
    let meta = &present.meta;
    for number in [
        meta.born,
        meta.first_seq,
        meta.last_seq,
        meta.messages,
        meta.bytes,
    ] {
        put_varint(out, number);
    }
    put_signed(out, meta.last_time.as_nanos());
    put_part(out, &present.part);
    put_varint(out, present.subjects.into());
    put_varint(out, present.tables.len() as u64);
    for table in &present.tables {
        put_varint(out, table.block.offset);
        put_varint(out, table.block.len.into());
        put_bytes(out, &table.first_name);
    }
    put_varint(out, present.dead.run_count() as u64);
    let mut next = 0;
    for run in present.dead.iter() {
        put_varint(out, run.start() - next);
        put_varint(out, run.end() - run.start());
        next = run.end() + 1;
    }
    put_varint(out, present.expiries.len() as u64);
    let mut next = 0;
    for (seq, expires) in &present.expiries {
        put_varint(out, seq - next);
        put_signed(out, expires.as_nanos());
        next = seq + 1;
    }
}

fn put_part(out: &mut Vec<u8>, part: &PartMeta) {
    put_varint(out, part.messages);
    if part.messages == 0 {
        return;
    }
    put_varint(out, part.base);
    put_varint(out, part.first_seq - part.base);
    put_varint(out, part.last_seq - part.first_seq);
    put_varint(out, part.bytes);
    put_signed(out, part.first_time.as_nanos());
    put_signed(out, part.last_time.as_nanos());
    put_varint(out, part.pages.len() as u64);
    let (mut seq, mut time, mut end) = (part.first_seq, part.first_time.as_nanos(), 0);
    for page in &part.pages {
        put_varint(out, page.first_seq - seq);
        put_signed(out, page.first_time.as_nanos().wrapping_sub(time));
        put_varint(out, page.offset - end);
        put_varint(out, page.rows_len.into());
        put_varint(out, page.body_len.into());
        seq = page.first_seq;
        time = page.first_time.as_nanos();
        end = page.offset + u64::from(page.rows_len) + u64::from(page.body_len);
    }
}

pub(crate) fn read_entry(reader: &mut Reader<'_>) -> Result<StreamEntry, Malformed> {
    let id = StreamId(reader.varint()?);
    match reader.varint()? {
        0 => return Ok(StreamEntry { id, present: None }),
        1 => {}
        _ => return Err(Malformed("an unknown kind of stream entry")),
    }
    let meta = StreamMeta {
        born: reader.varint()?,
        first_seq: reader.varint()?,
        last_seq: reader.varint()?,
        messages: reader.varint()?,
        bytes: reader.varint()?,
        last_time: Timestamp::from_nanos(reader.signed()?),
    };
    let extent = meta
        .last_seq
        .checked_add(1)
        .and_then(|end| end.checked_sub(meta.first_seq));
    if meta.first_seq == 0 || extent.is_none_or(|extent| extent < meta.messages) {
        return Err(Malformed("a stream's counters contradict each other"));
    }
    let part = read_part(reader)?;
    let subjects = reader.varint_u32()?;
    let mut tables = Vec::new();
    for _ in 0..reader.count()? {
        let block = BlockRef {
            offset: reader.varint()?,
            len: reader.varint_u32()?,
        };
        tables.push(TableRef {
            block,
            first_name: reader.bytes()?.into(),
        });
    }
    let mut dead = Runs::default();
    let mut next = 0;
    for _ in 0..reader.count()? {
        let start = sum(next, reader.varint()?)?;
        let end = sum(start, reader.varint()?)?;
        next = sum(end, 1)?;
        dead.insert(start..=end);
    }
    let mut expiries = Vec::new();
    let mut next = 0;
    for _ in 0..reader.count()? {
        let seq = sum(next, reader.varint()?)?;
        expiries.push((seq, Timestamp::from_nanos(reader.signed()?)));
        next = sum(seq, 1)?;
    }
    Ok(StreamEntry {
        id,
        present: Some(Present {
            meta,
            part,
            subjects,
            tables,
            dead,
            expiries,
        }),
    })
}

fn read_part(reader: &mut Reader<'_>) -> Result<PartMeta, Malformed> {
    let messages = reader.varint()?;
    if messages == 0 {
        return Ok(PartMeta::default());
    }
    let base = reader.varint()?;
    let first_seq = sum(base, reader.varint()?)?;
    let last_seq = sum(first_seq, reader.varint()?)?;
    let bytes = reader.varint()?;
    let first_time = Timestamp::from_nanos(reader.signed()?);
    let last_time = Timestamp::from_nanos(reader.signed()?);
    let mut pages = Vec::new();
    let (mut seq, mut time, mut end) = (first_seq, first_time.as_nanos(), 0);
    for _ in 0..reader.count()? {
        seq = sum(seq, reader.varint()?)?;
        time = time.wrapping_add(reader.signed()?);
        let offset = sum(end, reader.varint()?)?;
        let (rows_len, body_len) = (reader.varint_u32()?, reader.varint_u32()?);
        end = sum(offset, u64::from(rows_len) + u64::from(body_len))?;
        pages.push(PageRef {
            first_seq: seq,
            first_time: Timestamp::from_nanos(time),
            offset,
            rows_len,
            body_len,
        });
    }
    if pages.is_empty() || seq > last_seq {
        return Err(Malformed("a part's pages contradict its range"));
    }
    Ok(PartMeta {
        messages,
        base,
        first_seq,
        last_seq,
        bytes,
        first_time,
        last_time,
        pages,
    })
}
