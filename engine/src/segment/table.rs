//! The subject table of a part: every subject that changed in it, sorted, in blocks of 64.
//!
//!   row  shared prefix length | suffix | messages here (0: none)
//!        | first - part's first | last - first | posting list      only if messages here > 1 (one message: first only)
//!        | totals: 1 = as here, exactly | 0 or 2 (first is a lower bound) then messages, first, last
//!   list 0 then bytes (inside) | 1 then offset, length of the index block
//!
//! All varints. A subject's number in the part is its position in the table. The totals are the stream's, at the flush
//! that wrote the row: the newest row of a subject wins. A subject is gone when the message that its newest row calls the
//! last one is gone, so a subject that was purged needs no row, and its name need not stay anywhere.

use bytes::Bytes;
use halyard_format::codec::{Malformed, Reader, put_bytes, put_varint, sum};

use crate::block::BlockRef;
use crate::limits::{POSTINGS_INLINE_BYTES, SUBJECTS_PER_BLOCK};
use crate::segment::postings::Chunk;
use crate::subjects::Totals;

/// Where a posting list is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListPlace {
    Inside(Bytes),
    Index(BlockRef),
}

/// The messages of one subject in one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Local {
    pub(crate) messages: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// One message needs no list.
    pub(crate) list: Option<ListPlace>,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubjectRow {
    pub(crate) name: Bytes,
    pub(crate) local: Option<Local>,
    pub(crate) totals: Totals,
}

/// Whether a finished list fits inside the table.
pub(crate) fn fits_inside(chunks: &[Chunk]) -> bool {
    matches!(chunks, [only] if only.bytes.len() <= POSTINGS_INLINE_BYTES)
}

/// Encodes the rows of one block.
#[derive(Debug, Default)]
pub(crate) struct TableWriter {
    pub(crate) bytes: Vec<u8>,
    pub(crate) rows: usize,
    previous: Vec<u8>,
    pub(crate) first_name: Vec<u8>,
}

impl TableWriter {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.rows = 0;
        self.previous.clear();
    }

    pub(crate) fn push(&mut self, row: &SubjectRow, base: u64) {
        let shared = row
            .name
            .iter()
            .zip(&self.previous)
            .take_while(|(a, b)| a == b)
            .count();
        if self.rows == 0 {
            self.first_name = row.name.to_vec();
        } else {
            assert!(*row.name > *self.previous, "subjects are sorted");
        }
        let out = &mut self.bytes;
        put_varint(out, shared as u64);
        let suffix = row.name.get(shared..);
        put_bytes(out, suffix.expect("no name shares more than all of it"));
        put_varint(out, row.local.as_ref().map_or(0, |local| local.messages));
        if let Some(local) = &row.local {
            debug_assert!(
                base <= local.first && local.first <= local.last,
                "sequences count from the part's base, and rise"
            );
            put_varint(out, local.first - base);
            if local.messages > 1 {
                put_varint(out, local.last - local.first);
                match local.list.as_ref().expect("several messages have a list") {
                    ListPlace::Inside(bytes) => {
                        put_varint(out, 0);
                        put_bytes(out, bytes);
                    }
                    ListPlace::Index(block) => {
                        put_varint(out, 1);
                        put_varint(out, block.offset);
                        put_varint(out, block.len.into());
                    }
                }
            }
        }
        put_totals(out, row);
        self.previous.clear();
        self.previous.extend_from_slice(&row.name);
        self.rows += 1;
    }
}

fn put_totals(out: &mut Vec<u8>, row: &SubjectRow) {
    let totals = &row.totals;
    let is_same = row.local.as_ref().is_some_and(|local| {
        !totals.first_is_bound
            && (u64::from(totals.messages), totals.first, totals.last)
                == (local.messages, local.first, local.last)
    });
    if is_same {
        put_varint(out, 1);
        return;
    }
    put_varint(out, if totals.first_is_bound { 2 } else { 0 });
    put_varint(out, totals.messages.into());
    put_varint(out, totals.first);
    put_varint(out, totals.last);
}

/// The posting list of a row, where it lies in the block.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RawList<'a> {
    /// One message needs none.
    None,
    Inside(&'a [u8]),
    Index(BlockRef),
}

/// [`Local`] as it lies in the block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawLocal<'a> {
    pub(crate) messages: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) list: RawList<'a>,
}

/// One row as it lies in the block: nothing is copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawRow<'a> {
    /// So many bytes of the previous row's name, and then the suffix.
    pub(crate) shared: usize,
    pub(crate) suffix: &'a [u8],
    pub(crate) local: Option<RawLocal<'a>>,
    pub(crate) totals: Totals,
}

impl<'a> RawRow<'a> {
    /// Reads the next row of a table whose part starts at `base`; `previous` is the name before it, if any is.
    #[inline]
    pub(crate) fn read(
        reader: &mut Reader<'a>,
        previous: Option<&[u8]>,
        base: u64,
    ) -> Result<Self, Malformed> {
        let shared =
            usize::try_from(reader.varint()?).map_err(|_| Malformed("a prefix beyond the name"))?;
        let suffix = reader.bytes()?;
        let replaced = previous
            .unwrap_or_default()
            .get(shared..)
            .ok_or(Malformed("a prefix beyond the name"))?;
        if previous.is_some() && replaced >= suffix {
            return Err(Malformed("subjects out of order"));
        }
        let local = read_local(reader, base)?;
        let totals = read_totals(reader, local.as_ref())?;
        Ok(Self {
            shared,
            suffix,
            local,
            totals,
        })
    }
}

impl RawLocal<'_> {
    /// The same to be kept; `block` is what it was read from.
    pub(crate) fn keep(&self, block: &Bytes) -> Local {
        Local {
            messages: self.messages,
            first: self.first,
            last: self.last,
            list: match self.list {
                RawList::None => None,
                RawList::Inside(bytes) => Some(ListPlace::Inside(block.slice_ref(bytes))),
                RawList::Index(block) => Some(ListPlace::Index(block)),
            },
        }
    }
}

/// Decodes one block of a table whose part starts at `base`.
pub(crate) fn decode_table(bytes: &Bytes, base: u64) -> Result<Vec<SubjectRow>, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut rows: Vec<SubjectRow> = Vec::with_capacity(SUBJECTS_PER_BLOCK);
    // All names in one buffer that the rows share.
    let mut names: Vec<u8> = Vec::with_capacity(bytes.len() * 2);
    let mut ends = Vec::with_capacity(SUBJECTS_PER_BLOCK);
    let mut start = 0;
    while !reader.is_empty() {
        let previous = names.get(start..).filter(|_| !rows.is_empty());
        let row = RawRow::read(&mut reader, previous, base)?;
        let shared = start..start + row.shared;
        start = names.len();
        names.extend_from_within(shared);
        names.extend_from_slice(row.suffix);
        ends.push(names.len());
        rows.push(SubjectRow {
            name: Bytes::new(),
            local: row.local.map(|local| local.keep(bytes)),
            totals: row.totals,
        });
    }
    let names = Bytes::from(names);
    let mut start = 0;
    for (row, end) in rows.iter_mut().zip(ends) {
        row.name = names.slice(start..end);
        start = end;
    }
    Ok(rows)
}

#[inline]
fn read_local<'a>(reader: &mut Reader<'a>, base: u64) -> Result<Option<RawLocal<'a>>, Malformed> {
    let messages = reader.varint()?;
    if messages == 0 {
        return Ok(None);
    }
    let first = sum(base, reader.varint()?)?;
    if messages == 1 {
        return Ok(Some(RawLocal {
            messages,
            first,
            last: first,
            list: RawList::None,
        }));
    }
    let last = sum(first, reader.varint()?)?;
    let list = match reader.varint()? {
        0 => RawList::Inside(reader.bytes()?),
        1 => RawList::Index(BlockRef {
            offset: reader.varint()?,
            len: reader.varint_u32()?,
        }),
        _ => return Err(Malformed("an unknown place of a posting list")),
    };
    Ok(Some(RawLocal {
        messages,
        first,
        last,
        list,
    }))
}

#[inline]
fn read_totals(reader: &mut Reader<'_>, local: Option<&RawLocal<'_>>) -> Result<Totals, Malformed> {
    let mode = reader.varint()?;
    if mode == 1 {
        let local = local.ok_or(Malformed("totals as here, with nothing here"))?;
        let messages =
            u32::try_from(local.messages).map_err(|_| Malformed("messages beyond 32 bits"))?;
        return Ok(Totals {
            messages,
            first: local.first,
            first_is_bound: false,
            last: local.last,
        });
    }
    if mode != 0 && mode != 2 {
        return Err(Malformed("unknown totals"));
    }
    let (messages, first, last) = (reader.varint_u32()?, reader.varint()?, reader.varint()?);
    if messages == 0 || first > last {
        return Err(Malformed("totals of a subject without messages"));
    }
    Ok(Totals {
        messages,
        first,
        first_is_bound: mode == 2,
        last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_round_trip() {
        let mut rows = Vec::new();
        for at in 0..64u64 {
            let list = match at % 3 {
                0 => None,
                1 => Some(ListPlace::Inside(Bytes::from(vec![at as u8; at as usize]))),
                _ => Some(ListPlace::Index(BlockRef {
                    offset: at << 30,
                    len: 77,
                })),
            };
            let messages = if list.is_none() { 1 } else { at + 2 };
            let last = if messages == 1 { 100 + at } else { 5000 + at };
            let local = (at % 5 != 0).then_some(Local {
                messages,
                first: 100 + at,
                last,
                list,
            });
            let totals = match &local {
                Some(local) if at % 2 == 0 => Totals {
                    messages: local.messages as u32,
                    first: local.first,
                    first_is_bound: false,
                    last,
                },
                _ => Totals {
                    messages: 9,
                    first: 3,
                    first_is_bound: at % 4 == 1,
                    last: 9000,
                },
            };
            rows.push(SubjectRow {
                name: format!("orders.{at:03}.x").into(),
                local,
                totals,
            });
        }
        let mut writer = TableWriter::default();
        rows.iter().for_each(|row| writer.push(row, 100));
        let bytes = Bytes::from(writer.bytes);
        assert_eq!(decode_table(&bytes, 100).unwrap(), rows);
    }
}
