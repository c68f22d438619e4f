//! The message blocks in a backup of nats-server up to 2.14, and the index beside them.
//!
//! ```text
//! block   record*
//! record  length u32, bit 31: has headers | sequence u64 | time i64 | subject length u16 | subject
//!         | headers length u32, if it has any | headers | payload | checksum 8 bytes
//!
//! index   11 | version 1-3 | messages | bytes | first: sequence, time | last: sequence, time
//!         | subjects: count, (length, name, messages, block, and the last block if messages > 1)*
//!         | blocks: count, (number, bytes, first: sequence, time | last: sequence, time | deleted: count
//!           | TTLs, from version 2 | schedules, from version 3 | set of deleted, if any)* | ... | checksum 8 bytes
//! set     22 | version 2 | nodes u32 | members u32 | (base u64 | 32 words u64 | height u16)*
//! ```
//!
//! Fixed numbers are little endian, those of the index LEB128, its times zigzag. Bit 63 of a record's sequence: erased,
//! its bytes are random. Bit 62: a tombstone, the message of that sequence is gone. What a limit per subject removed
//! has neither; only the index knows. Checksums are HighwayHash-64 under the SHA-256 of `<stream>-<block>` (records:
//! over sequence to time, subject, headers, payload) or of `<stream>` (the index, over all before it).

use std::collections::VecDeque;

use bytes::Bytes;
use halyard_format::Malformed;
use halyard_format::codec;
use highway::{HighwayHash, HighwayHasher, Key};
use sha2::{Digest, Sha256};

use crate::item::{Item, MESSAGE_BYTES_MAX, Message, Refused, SUBJECT_BYTES_MAX};

const HEADER_BYTES: usize = 22;
const CHECKSUM_BYTES: usize = 8;
/// Bytes of a record.
const RECORD_BYTES: std::ops::RangeInclusive<usize> =
    HEADER_BYTES + CHECKSUM_BYTES..=MESSAGE_BYTES_MAX + SUBJECT_BYTES_MAX + 64;
const HAS_HEADERS: u32 = 1 << 31;
const ERASED: u64 = 1 << 63;
const TOMBSTONE: u64 = 1 << 62;

/// The key of checksums.
#[must_use]
pub fn key(name: &str) -> Key {
    let digest = Sha256::digest(name.as_bytes());
    let (words, rest) = digest.as_slice().as_chunks::<8>();
    assert!(rest.is_empty(), "SHA-256 gives 32 bytes");
    let mut key = [0; 4];
    key.iter_mut()
        .zip(words)
        .for_each(|(to, word)| *to = u64::from_le_bytes(*word));
    Key(key)
}

/// The checksum of a document, as `meta.sum` has it.
#[must_use]
pub fn checksum_text(name: &str, document: &[u8]) -> String {
    let sum = HighwayHasher::new(key(name)).hash64(document);
    sum.to_le_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What stands before a record's subject.
struct Fields<'a> {
    length: u32,
    seq: u64,
    time: i64,
    subject_len: u16,
    /// Sequence and time, as the checksum covers them.
    covered: &'a [u8],
}

impl<'a> Fields<'a> {
    fn read(header: &'a [u8; HEADER_BYTES]) -> Result<Self, Malformed> {
        let mut fields = codec::Reader::new(header);
        let length = fields.u32()?;
        let covered = fields.take(16)?;
        let mut stamp = codec::Reader::new(covered);
        Ok(Self {
            length,
            seq: stamp.u64()?,
            time: stamp.u64()?.cast_signed(),
            subject_len: fields.u16()?,
            covered,
        })
    }
}

/// Reads one block as it comes in pieces.
#[derive(Debug)]
pub struct Reader {
    number: u64,
    key: [u64; 4],
    pending: Vec<u8>,
    at: usize,
    /// Where in the block `pending` starts.
    offset: u64,
}

impl Reader {
    /// Of the block with that number in that stream.
    #[must_use]
    pub fn new(stream: &str, number: u64) -> Self {
        Self {
            number,
            key: key(&format!("{stream}-{number}")).0,
            pending: Vec::new(),
            at: 0,
            offset: 0,
        }
    }

    /// Takes the next bytes. Call [`Reader::read`] until it has no more before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        self.offset += self.at as u64;
        self.pending.drain(..self.at);
        self.at = 0;
        self.pending.extend_from_slice(bytes);
    }

    /// Whether the block may end here.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.at == self.pending.len()
    }

    fn damaged(&self, what: &str) -> Refused {
        let (block, at) = (self.number, self.offset + self.at as u64);
        Refused::with(format!("message block {block}, byte {at}: {what}"))
    }

    /// The next message or deletion; `None`: more bytes are needed.
    ///
    /// # Errors
    /// The block is damaged.
    pub fn read(&mut self) -> Result<Option<Item>, Refused> {
        loop {
            let rest = self.pending.get(self.at..).unwrap_or_default();
            let Some(header) = rest.first_chunk::<HEADER_BYTES>() else {
                return Ok(None);
            };
            let fields = Fields::read(header).map_err(|Malformed(what)| self.damaged(what))?;
            let length = fields.length;
            let len = (length & !HAS_HEADERS) as usize;
            if !RECORD_BYTES.contains(&len) {
                return Err(self.damaged("the length of a record cannot be"));
            }
            let Some(record) = rest.get(..len) else {
                return Ok(None);
            };
            let (seq, time) = (fields.seq, fields.time);
            if seq & ERASED != 0 || seq == 0 {
                self.at += len;
                if seq & !ERASED != 0 {
                    return Ok(Some(Item::Deleted(seq & !(ERASED | TOMBSTONE))));
                }
                continue;
            }
            let subject_len = usize::from(fields.subject_len);
            let parts = split(record, subject_len, length & HAS_HEADERS != 0);
            let (subject, headers, payload) =
                parts.ok_or_else(|| self.damaged("a record is shorter than its parts"))?;
            let mut hasher = HighwayHasher::new(Key(self.key));
            hasher.append(fields.covered);
            for part in [subject, headers, payload] {
                hasher.append(part);
            }
            let sum = hasher.finalize64().to_le_bytes();
            if record.last_chunk::<CHECKSUM_BYTES>() != Some(&sum) {
                return Err(self.damaged("a record does not match its checksum"));
            }
            let item = if seq & TOMBSTONE != 0 {
                Item::Deleted(seq & !TOMBSTONE)
            } else {
                Item::Message(Message {
                    seq,
                    time,
                    subject_len,
                    headers_len: headers.len(),
                    record: Bytes::from([subject, headers, payload].concat()),
                })
            };
            self.at += len;
            return Ok(Some(item));
        }
    }
}

fn split(record: &[u8], subject_len: usize, has_headers: bool) -> Option<(&[u8], &[u8], &[u8])> {
    let end = record.len().checked_sub(CHECKSUM_BYTES)?;
    let (subject, rest) = record
        .get(HEADER_BYTES..end)?
        .split_at_checked(subject_len)?;
    if !has_headers {
        return Some((subject, &[], rest));
    }
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (headers, payload) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    Some((subject, headers, payload))
}

/// Sequences that an index says are deleted: words of 64, each with the sequence of its lowest bit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DeletedSet(VecDeque<(u64, u64)>);

impl DeletedSet {
    /// Takes the lowest one out.
    pub fn pop(&mut self) -> Option<u64> {
        let (base, word) = self.0.front_mut()?;
        let bit = word.trailing_zeros();
        let seq = base.checked_add(u64::from(bit));
        *word &= word.wrapping_sub(1);
        if *word == 0 {
            self.0.pop_front();
        }
        seq
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads what an index says is deleted. `None`: its checksum does not hold (its server encrypted it, perhaps), or another
/// version wrote it; the blocks tell most of it anyway.
#[must_use]
pub fn read_index(stream: &str, index: &[u8]) -> Option<DeletedSet> {
    let (body, sum) = index.split_last_chunk::<CHECKSUM_BYTES>()?;
    if HighwayHasher::new(key(stream)).hash64(body).to_le_bytes() != *sum {
        return None;
    }
    deleted(body).ok()
}

fn deleted(body: &[u8]) -> Result<DeletedSet, Malformed> {
    let mut fields = codec::Reader::new(body);
    let (magic, version) = (fields.u8()?, fields.u8()?);
    if magic != 11 || !(1..=3).contains(&version) {
        return Err(Malformed("an index of another version"));
    }
    for _ in 0..6 {
        fields.varint()?;
    }
    for _ in 0..fields.varint()? {
        fields.bytes()?;
        let messages = fields.varint()?;
        fields.varint()?;
        if messages > 1 {
            fields.varint()?;
        }
    }
    let mut deleted = DeletedSet::default();
    for _ in 0..fields.varint()? {
        for _ in 0..6 {
            fields.varint()?;
        }
        let count = fields.varint()?;
        for _ in 1..version {
            fields.varint()?;
        }
        if count > 0 {
            set(&mut fields, &mut deleted)?;
        }
    }
    Ok(deleted)
}

fn set(fields: &mut codec::Reader<'_>, deleted: &mut DeletedSet) -> Result<(), Malformed> {
    if fields.array()? != [22, 2] {
        return Err(Malformed("a set of another version"));
    }
    let (nodes, _members) = (fields.u32()?, fields.u32()?);
    for _ in 0..nodes {
        let base = fields.u64()?;
        for word in 0..32 {
            let bits = fields.u64()?;
            if bits != 0 {
                deleted.0.push_back((codec::sum(base, word * 64)?, bits));
            }
        }
        fields.u16()?;
    }
    Ok(())
}

/// Makes records for tests.
#[cfg(test)]
pub(crate) mod build {
    use super::*;

    /// One record of block `number`.
    pub(crate) fn record(
        stream: &str,
        number: u64,
        (seq, time): (u64, i64),
        [subject, headers, payload]: [&[u8]; 3],
    ) -> Vec<u8> {
        let mut out = vec![0; 4];
        out.extend_from_slice(&seq.to_le_bytes());
        out.extend_from_slice(&time.to_le_bytes());
        let mut hasher = HighwayHasher::new(key(&format!("{stream}-{number}")));
        hasher.append(&out[4..]);
        out.extend_from_slice(&(subject.len() as u16).to_le_bytes());
        out.extend_from_slice(subject);
        if !headers.is_empty() {
            out.extend_from_slice(&(headers.len() as u32).to_le_bytes());
            out.extend_from_slice(headers);
        }
        out.extend_from_slice(payload);
        for part in [subject, headers, payload] {
            hasher.append(part);
        }
        out.extend_from_slice(&hasher.finalize64().to_le_bytes());
        let flag = if headers.is_empty() { 0 } else { HAS_HEADERS };
        let len = (out.len() as u32 | flag).to_le_bytes();
        out[..4].copy_from_slice(&len);
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::build::record;
    use super::*;

    fn read(bytes: &[u8], step: usize) -> Result<(Vec<Item>, bool), Refused> {
        let (mut reader, mut items) = (Reader::new("A", 1), Vec::new());
        for piece in bytes.chunks(step) {
            reader.push(piece);
            while let Some(item) = reader.read()? {
                items.push(item);
            }
        }
        Ok((items, reader.is_at_end()))
    }

    #[test]
    fn a_record_of_the_peer() {
        // Stream A, block 1, written by nats-server 2.12.8.
        let hex = "490000800100000000000000 8f92c434ade2eb18 0300 612e31 1e000000 4e4154532f312e300d0a582d493a20310d0a\
                   466f6f3a206261720d0a0d0a 626f64792031 5758251618 37cf3e";
        let bytes = crate::hostile_test::unhex(hex);
        for step in [1, 1000] {
            let (items, whole) = read(&bytes, step).unwrap();
            let [Item::Message(message)] = items.as_slice() else {
                panic!("{items:?}")
            };
            assert!(whole);
            assert_eq!((message.seq, message.subject()), (1, &b"a.1"[..]));
            assert_eq!(message.headers(), b"NATS/1.0\r\nX-I: 1\r\nFoo: bar\r\n\r\n");
            assert!(message.record.ends_with(b"body 1"));
        }
        // The length of the headers is not covered; where it is wrong, the headers are none, which the importer sees.
        for at in (0..25).chain(29..bytes.len()) {
            let mut wrong = bytes.clone();
            wrong[at] ^= 4;
            let outcome = read(&wrong, 1000);
            assert!(
                !matches!(outcome, Ok((items, true)) if items.len() == 1),
                "byte {at}"
            );
        }
    }

    #[test]
    fn what_is_gone_is_said() {
        let bytes = [
            record("A", 1, (5, 1), [b"s", b"", b"x"]),
            record("A", 1, (3 | TOMBSTONE, 1), [b"", b"", b""]),
            record("A", 1, (4 | ERASED, 0), [b"", b"", b"random"]),
            record("A", 1, (0, 0), [b"", b"", b""]),
        ]
        .concat();
        let (items, _) = read(&bytes, 11).unwrap();
        assert!(matches!(
            items.as_slice(),
            [Item::Message(_), Item::Deleted(3), Item::Deleted(4)]
        ));
    }

    #[test]
    fn impossible_lengths_are_refused() {
        let mut bytes = record("A", 1, (5, 1), [b"s", b"", b"x"]);
        for len in [0_u32, 29, u32::MAX, 80 << 20] {
            bytes[..4].copy_from_slice(&len.to_le_bytes());
            assert!(read(&bytes, 100).is_err(), "{len}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes, 50);
            let mut index = vec![11, 3];
            index.extend_from_slice(&bytes);
            let sum = HighwayHasher::new(key("A")).hash64(&index);
            index.extend_from_slice(&sum.to_le_bytes());
            if let Some(mut set) = read_index("A", &index) {
                while set.pop().is_some() {}
            }
        }
    }
}
