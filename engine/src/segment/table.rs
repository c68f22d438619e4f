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

use crate::block::BlockRef;
use crate::codec::{Malformed, Reader, put_bytes, put_varint, sum};
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
        put_bytes(out, row.name.get(shared..).unwrap_or_default());
        put_varint(out, row.local.as_ref().map_or(0, |local| local.messages));
        if let Some(local) = &row.local {
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

/// Decodes one block of a table whose part starts at `base`.
pub(crate) fn decode_table(bytes: &Bytes, base: u64) -> Result<Vec<SubjectRow>, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut rows: Vec<SubjectRow> = Vec::with_capacity(SUBJECTS_PER_BLOCK);
    // All names in one buffer that the rows share.
    let mut names: Vec<u8> = Vec::with_capacity(bytes.len() * 2);
    let mut ends = Vec::with_capacity(SUBJECTS_PER_BLOCK);
    let mut previous = 0..0;
    while !reader.is_empty() {
        let shared =
            usize::try_from(reader.varint()?).map_err(|_| Malformed("a prefix beyond the name"))?;
        if shared > previous.len() {
            return Err(Malformed("a prefix beyond the name"));
        }
        let start = names.len();
        names.extend_from_within(previous.start..previous.start + shared);
        names.extend_from_slice(reader.bytes()?);
        let name = start..names.len();
        if !rows.is_empty() && names.get(previous) >= names.get(name.clone()) {
            return Err(Malformed("subjects out of order"));
        }
        previous = name;
        ends.push(names.len());
        let local = decode_local(&mut reader, base)?;
        let totals = decode_totals(&mut reader, local.as_ref())?;
        rows.push(SubjectRow {
            name: Bytes::new(),
            local,
            totals,
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

fn decode_local(reader: &mut Reader<'_>, base: u64) -> Result<Option<Local>, Malformed> {
    let messages = reader.varint()?;
    if messages == 0 {
        return Ok(None);
    }
    let first = sum(base, reader.varint()?)?;
    if messages == 1 {
        return Ok(Some(Local {
            messages,
            first,
            last: first,
            list: None,
        }));
    }
    let last = sum(first, reader.varint()?)?;
    let list = match reader.varint()? {
        0 => ListPlace::Inside(Bytes::copy_from_slice(reader.bytes()?)),
        1 => ListPlace::Index(BlockRef {
            offset: reader.varint()?,
            len: reader.u32()?,
        }),
        _ => return Err(Malformed("an unknown place of a posting list")),
    };
    Ok(Some(Local {
        messages,
        first,
        last,
        list: Some(list),
    }))
}

fn decode_totals(reader: &mut Reader<'_>, local: Option<&Local>) -> Result<Totals, Malformed> {
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
    let (messages, first, last) = (reader.u32()?, reader.varint()?, reader.varint()?);
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
