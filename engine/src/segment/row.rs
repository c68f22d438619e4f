//! The rows of one page: what is known of each message without its payload.
//!
//!   row  seq gap | time delta (signed) | subject number | subject length x 2 + has expiry | headers length | record length
//!        | expiry - time (signed, only if it has one)
//!
//!   page start  stream | first seq | first time (signed): before the rows, so that a page is known without the index
//!
//! All varints. The gap is to the previous row's sequence + 1 (first row: to the page's first sequence); the delta to the
//! previous row's time (first row: to the page's first time). Records lie one after the other in the page's body block.

use halyard_runtime::time::Timestamp;

use halyard_format::codec::{Malformed, Reader, put_signed, put_varint, sum};

use crate::message::StreamId;

/// One message of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) seq: u64,
    pub(crate) time: Timestamp,
    pub(crate) expires: Option<Timestamp>,
    /// Number of its subject in the part's subject table.
    pub(crate) subject: u32,
    pub(crate) subject_len: u16,
    pub(crate) headers_len: u32,
    /// Where its record starts in the page's body.
    pub(crate) body_start: u32,
    pub(crate) body_len: u32,
}

/// Whose rows they are, and what the first row counts from: so that a page can be read where the index is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageStart {
    pub(crate) stream: StreamId,
    pub(crate) seq: u64,
    pub(crate) time: Timestamp,
}

impl PageStart {
    fn put(self, out: &mut Vec<u8>) {
        put_varint(out, self.stream.0);
        put_varint(out, self.seq);
        put_signed(out, self.time.as_nanos());
    }

    /// The start and the rows behind it.
    pub(crate) fn split(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut reader = Reader::new(bytes);
        let start = Self {
            stream: StreamId(reader.varint()?),
            seq: reader.varint()?,
            time: Timestamp::from_nanos(reader.signed()?),
        };
        Ok((start, reader.take_rest()))
    }
}

impl Row {
    /// Its subject in the records of its page; `None` if they are too short for it.
    pub(crate) fn name_in<'a>(&self, records: &'a [u8]) -> Option<&'a [u8]> {
        let start = self.body_start as usize;
        let end = start + usize::from(self.subject_len);
        records.get(start..end)
    }
}

/// Encodes the rows of one page as they come.
#[derive(Debug, Default)]
pub(crate) struct RowsWriter {
    pub(crate) bytes: Vec<u8>,
    next_seq: u64,
    time: i64,
}

impl RowsWriter {
    /// Starts a page at its first row's sequence and time.
    pub(crate) fn start(&mut self, start: PageStart) {
        self.bytes.clear();
        start.put(&mut self.bytes);
        self.next_seq = start.seq;
        self.time = start.time.as_nanos();
    }

    pub(crate) fn push(&mut self, row: &Row) {
        assert!(
            row.seq >= self.next_seq && row.seq < u64::MAX,
            "sequences rise"
        );
        put_varint(&mut self.bytes, row.seq - self.next_seq);
        put_signed(&mut self.bytes, row.time.as_nanos().wrapping_sub(self.time));
        put_varint(&mut self.bytes, row.subject.into());
        put_varint(
            &mut self.bytes,
            u64::from(row.subject_len) << 1 | u64::from(row.expires.is_some()),
        );
        put_varint(&mut self.bytes, row.headers_len.into());
        put_varint(&mut self.bytes, row.body_len.into());
        if let Some(expires) = row.expires {
            put_signed(
                &mut self.bytes,
                expires.as_nanos().wrapping_sub(row.time.as_nanos()),
            );
        }
        self.next_seq = row.seq + 1;
        self.time = row.time.as_nanos();
    }
}

/// Decodes the rows of a page that starts with `seq` and `time`.
pub(crate) fn decode_rows(bytes: &[u8], seq: u64, time: Timestamp) -> Result<Vec<Row>, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut rows = Vec::with_capacity(bytes.len() / 8);
    let (mut next_seq, mut time, mut body_start) = (seq, time.as_nanos(), 0u32);
    while !reader.is_empty() {
        let seq = sum(next_seq, reader.varint()?)?;
        time = time.wrapping_add(reader.signed()?);
        let subject = reader.varint_u32()?;
        let lengths = reader.varint()?;
        let subject_len =
            u16::try_from(lengths >> 1).map_err(|_| Malformed("a subject beyond 16 bits"))?;
        let headers_len = reader.varint_u32()?;
        let body_len = reader.varint_u32()?;
        if u64::from(subject_len) + u64::from(headers_len) > u64::from(body_len) {
            return Err(Malformed("a record shorter than its subject and headers"));
        }
        let expires = match lengths & 1 {
            1 => Some(Timestamp::from_nanos(time.wrapping_add(reader.signed()?))),
            _ => None,
        };
        let time = Timestamp::from_nanos(time);
        rows.push(Row {
            seq,
            time,
            expires,
            subject,
            subject_len,
            headers_len,
            body_start,
            body_len,
        });
        body_start = body_start
            .checked_add(body_len)
            .ok_or(Malformed("a page beyond 32 bits"))?;
        next_seq = sum(seq, 1)?;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip() {
        let mut rows = Vec::new();
        let mut body_start = 0;
        for at in 0..300u32 {
            let expires =
                (at % 7 == 0).then_some(Timestamp::from_nanos(-5 + i64::from(at) * 1_000_000_007));
            let row = Row {
                seq: u64::from(at * at) + 10,
                time: Timestamp::from_nanos(i64::from(at) * 999_999_937),
                expires,
                subject: at * 77,
                subject_len: at as u16,
                headers_len: at % 3,
                body_start,
                body_len: at * 2 + 2,
            };
            body_start += row.body_len;
            rows.push(row);
        }
        let mut writer = RowsWriter::default();
        let start = PageStart {
            stream: StreamId(7),
            seq: rows[0].seq,
            time: rows[0].time,
        };
        writer.start(start);
        rows.iter().for_each(|row| writer.push(row));
        let (found, bytes) = PageStart::split(&writer.bytes).unwrap();
        assert_eq!(found, start);
        let decoded = decode_rows(bytes, rows[0].seq, rows[0].time).unwrap();
        assert_eq!(decoded, rows);
    }
}
