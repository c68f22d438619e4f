//! One record of the node's log: bytes to values and back. No I/O here.
//!
//! ```text
//!   offset  bytes
//!        0  4   crc       CRC32C of everything after this field, body included (padding not)
//!        4  4   chain     crc of the record before this one; the segment's own `chain` for its first record
//!        8  4   length    bytes of body
//!       12  1   kind      see `Kind`
//!       13  1   flags     0 = the body is plain, 1 or 3 = it is sealed, see `Form`
//!       14  2   zero
//!       16  4   group     the group, or 0 for records of the node
//!       20  4   log       low half of the log's identity: a record of another log never passes
//!       24  8   position  of this record in the log: the segment's base plus the offset in the file
//!       32  8   synced    everything before this position was on disk when this record was written
//!       40  ..  body      then zeros up to a multiple of 8
//! ```
//!
//! All integers are little endian. Why each field is there:
//!
//! - `crc` finds rot and torn writes; `position` and `log` stale bytes of a reused segment and misdirected writes.
//! - `chain` finds a stale record that is sound in itself: after a torn tail was cut and written anew, what remains
//!   further on of the old tail does not continue the new one.
//! - `synced` tells a torn tail from damage. A batch is written only after the one before it was synced, so a later record
//!   that names a `synced` beyond the bad one proves that the bad one was once safely on disk.
//! - A batch starts on a sector of its own (a multiple of 512): writing it never touches a sector that holds synced records.
//!   The next record stands right after the padding, or, where a batch ended there, at the next multiple of 512.

use bytes::Bytes;
use halyard_format::checksum;
use halyard_format::codec::{self, Malformed, Reader};
use halyard_format::flip::{self, Flip};

/// Bytes before the body.
pub(crate) const HEADER_BYTES: usize = 40;
/// Records start at multiples of this.
pub(crate) const ALIGN: u64 = 8;
/// Batches and segments' first records start at multiples of this.
pub(crate) const BATCH_ALIGN: u64 = 512;
/// Bytes of a header that are authenticated with a sealed body: everything but the checksum.
pub(crate) const CONTEXT_BYTES: usize = HEADER_BYTES - 4;

/// How a body stands in the file; the numbers are the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Form {
    /// As it is.
    Plain = 0,
    /// Sealed as version 1 of the format did.
    First = 1,
    /// Sealed with its life's own key, and with the header bound to it: version 2.
    Bound = 3,
}

impl Form {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Plain,
            1 => Self::First,
            3 => Self::Bound,
            _ => return None,
        })
    }
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// An entry with a payload for the machine.
    Normal = 1,
    /// An entry with which a new leader starts its term.
    Blank = 2,
    /// An entry that changes the membership.
    Membership = 3,
    /// The group's vote.
    Vote = 4,
    /// The group's entries from an index on are void.
    Truncate = 5,
    /// The group's vote, membership and the entry after which its log starts.
    Checkpoint = 6,
    /// Nothing but `synced`: written when the log comes to rest, so that damage to its very end is told from a torn tail; and,
    /// as a boot record (see [`boot_body`]; eight random bytes before 2026-12), before anything else whenever the log was
    /// opened. With [`START`] and a sequence (u64) it is a
    /// start record: segments of lower sequences are not needed any more, and may be gone.
    Mark = 7,
    /// The group is gone.
    Drop = 8,
}

/// What the body of a start record begins with.
pub(crate) const START: [u8; 8] = *b"LOGSTART";

/// The body of a start record.
pub(crate) fn start_body(sequence: u64) -> Bytes {
    Bytes::from([START, sequence.to_le_bytes()].concat())
}

/// The sequence in the body of a mark that is a start record.
pub(crate) fn start_of(body: &[u8]) -> Option<u64> {
    let sequence = body.strip_prefix(&START)?.first_chunk::<8>()?;
    (body.len() == 16).then(|| u64::from_le_bytes(*sequence))
}

/// What the body of a boot record begins with.
const BOOT: [u8; 8] = *b"LOGBOOTS";

/// The body of a boot record: how often the log was opened, this time included, and random bytes.
pub(crate) fn boot_body(boots: u64, salt: u64) -> Bytes {
    Bytes::from([BOOT, boots.to_le_bytes(), salt.to_le_bytes()].concat())
}

/// How often the log was opened, from the body of a mark that is a boot record.
pub(crate) fn boots_of(body: &[u8]) -> Option<u64> {
    let boots = body.strip_prefix(&BOOT)?.first_chunk::<8>()?;
    (body.len() == 24).then(|| u64::from_le_bytes(*boots))
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Normal,
            2 => Self::Blank,
            3 => Self::Membership,
            4 => Self::Vote,
            5 => Self::Truncate,
            6 => Self::Checkpoint,
            7 => Self::Mark,
            8 => Self::Drop,
            _ => return None,
        })
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) crc: u32,
    pub(crate) chain: u32,
    pub(crate) length: u32,
    pub(crate) kind: Kind,
    pub(crate) form: Form,
    pub(crate) group: u32,
    pub(crate) log: u32,
    pub(crate) position: u64,
    pub(crate) synced: u64,
}

impl Header {
    /// Writes the header for a body given in two parts, and returns its bytes and crc.
    pub(crate) fn encode(&self, head: &[u8], payload: &[u8]) -> ([u8; HEADER_BYTES], u32) {
        debug_assert_eq!(
            self.length as usize,
            head.len() + payload.len(),
            "the header tells the length of the body"
        );
        let context = self.context();
        let mut out = [0; HEADER_BYTES];
        put(&mut out, 4, &context);
        let mut crc = checksum::sum(&context);
        crc = checksum::append(crc, head);
        crc = checksum::append(crc, payload);
        put(&mut out, 0, &crc.to_le_bytes());
        (out, crc)
    }

    /// What is authenticated with a sealed body: the header without its checksum.
    pub(crate) fn context(&self) -> [u8; CONTEXT_BYTES] {
        let mut out = [0; CONTEXT_BYTES];
        put(&mut out, 0, &self.chain.to_le_bytes());
        put(&mut out, 4, &self.length.to_le_bytes());
        put(&mut out, 8, &[self.kind as u8, self.form as u8]);
        put(&mut out, 12, &self.group.to_le_bytes());
        put(&mut out, 16, &self.log.to_le_bytes());
        put(&mut out, 20, &self.position.to_le_bytes());
        put(&mut out, 28, &self.synced.to_le_bytes());
        out
    }

    /// Reads a header; the body is not looked at.
    fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Malformed> {
        let mut fields = Reader::new(bytes);
        let (crc, chain, length) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let (kind, form, zero) = (fields.u8()?, fields.u8()?, fields.u16()?);
        let kind = Kind::from_byte(kind).ok_or(Malformed("a record of an unknown kind"))?;
        let form = Form::from_byte(form).filter(|_| zero == 0);
        let form = form.ok_or(Malformed("a record with unknown fields"))?;
        let header = Self {
            crc,
            chain,
            length,
            kind,
            form,
            group: fields.u32()?,
            log: fields.u32()?,
            position: fields.u64()?,
            synced: fields.u64()?,
        };
        debug_assert!(fields.is_empty(), "a header has no more fields");
        Ok(header)
    }
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    let place = out.get_mut(at..at + bytes.len());
    place
        .expect("the fields fit what they are put into")
        .copy_from_slice(bytes);
}

/// The bytes that a record takes in the file, padding to [`ALIGN`] included.
pub(crate) fn framed_bytes(body_bytes: u64) -> u64 {
    let framed = (HEADER_BYTES as u64 + body_bytes).next_multiple_of(ALIGN);
    debug_assert!(
        framed >= HEADER_BYTES as u64 + body_bytes,
        "only padding is added"
    );
    framed
}

/// A record that was found sound in itself. Whether it continues the log is for the caller to see (`chain`).
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) header: Header,
    pub(crate) body: &'a [u8],
}

/// Reads the record at the start of `bytes`, which is to stand at `position` of log `log`.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn decode(bytes: &[u8], log: u32, position: u64) -> Result<Record<'_>, &'static str> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err("the file ends inside a record");
    };
    let header = Header::decode(head).map_err(|Malformed(what)| what)?;
    if header.position != position || header.log != log {
        return Err("a record that belongs elsewhere");
    }
    let Some(body) = rest.get(..header.length as usize) else {
        return Err("the file ends inside a record");
    };
    let (_, checked) = head.split_at(4);
    if checksum::append(checksum::sum(checked), body) != header.crc {
        return Err("the checksum does not match");
    }
    Ok(Record { header, body })
}

/// The header of a record whose body may be damaged, if the header fits its place.
pub(crate) fn peek(bytes: &[u8], log: u32, position: u64) -> Option<Header> {
    let header = Header::decode(bytes.first_chunk::<HEADER_BYTES>()?).ok()?;
    (header.position == position && header.log == log).then_some(header)
}

/// The one bit that must have flipped in the record at the start of `bytes` for it not to be sound: its byte, and the byte as
/// it was. `None` where there is none. `chain` is that of the record before, where it is known.
pub(crate) fn mend(
    bytes: &[u8],
    log: u32,
    position: u64,
    chain: Option<u32>,
) -> Option<(usize, u8)> {
    let head = bytes.first_chunk::<HEADER_BYTES>()?;
    // Most of a header is known beforehand: what differs there in more than one bit is no record of this place.
    let mut known: Vec<(usize, u8)> = vec![(14, 0), (15, 0)];
    known.extend((20..).zip(log.to_le_bytes()));
    known.extend((24..).zip(position.to_le_bytes()));
    known.extend((4..).zip(chain.into_iter().flat_map(u32::to_le_bytes)));
    let differs = |(at, byte): (usize, u8)| {
        let found = head.get(at).copied().unwrap_or(0);
        (found != byte).then_some((at, byte, (found ^ byte).count_ones()))
    };
    let differing: Vec<_> = known.into_iter().filter_map(differs).collect();
    let mended = |at: usize, byte: u8| {
        let mut head = *head;
        let length = codec::u32_at(&head, 8).ok()? as usize;
        let mut body = bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(length)?);
        let changed;
        if let Some(in_head) = head.get_mut(at) {
            *in_head = byte;
            let length = codec::u32_at(&head, 8).ok()? as usize;
            body = bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(length)?);
        } else {
            let mut copy = body?.to_vec();
            *copy.get_mut(at - HEADER_BYTES)? = byte;
            changed = copy;
            body = Some(&changed);
        }
        let sum = checksum::append(checksum::sum(head.get(4..)?), body?);
        let is_sound = sum == codec::u32_at(&head, 0).ok()? && Header::decode(&head).is_ok();
        is_sound.then_some((at, byte))
    };
    match differing.as_slice() {
        [(at, byte, 1)] => return mended(*at, *byte),
        [] => {}
        _ => return None,
    }
    let length = codec::u32_at(head, 8).ok()? as usize;
    let covered = HEADER_BYTES
        .checked_add(length)
        .and_then(|end| bytes.get(4..end));
    if let Some(covered) = covered {
        match flip::find(
            codec::u32_at(head, 0).ok()?,
            checksum::sum(covered),
            covered.len(),
        ) {
            Some(Flip::Covered { byte, mask }) => {
                let at = byte + 4;
                return mended(at, bytes.get(at)? ^ mask);
            }
            Some(Flip::Sum) => {
                let sum = checksum::sum(covered).to_le_bytes();
                let mut bytes = (0..).zip(head.iter().zip(sum));
                let (at, (_, byte)) = bytes.find(|(_, (found, byte))| *found != byte)?;
                return mended(at, byte);
            }
            None => {}
        }
    }
    // A length of which a bit has flipped says where the record ends, so the sum cannot be compared before it is known.
    (8..12)
        .flat_map(|at| (0..8).map(move |bit| (at, bit)))
        .find_map(|(at, bit)| mended(at, head.get(at)? ^ (1 << bit)))
}

/// A record that waits to be written: a short head that belongs to the log, then the payload as it was handed in.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) kind: Kind,
    pub(crate) group: u32,
    pub(crate) head: Head,
    pub(crate) payload: Bytes,
}

/// The fixed part of an entry's body, kept inline so that an entry costs no allocation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Head {
    bytes: [u8; Self::ENTRY_BYTES],
    used: u8,
}

impl Head {
    /// term, leader, index, committed.
    pub(crate) const ENTRY_BYTES: usize = 32;

    /// The head of an entry: its log id, and the last index known to be committed plus one (0 = none).
    pub(crate) fn entry(term: u64, leader: u64, index: u64, committed_end: u64) -> Self {
        let mut bytes = [0; Self::ENTRY_BYTES];
        put(&mut bytes, 0, &term.to_le_bytes());
        put(&mut bytes, 8, &leader.to_le_bytes());
        put(&mut bytes, 16, &index.to_le_bytes());
        put(&mut bytes, 24, &committed_end.to_le_bytes());
        Self { bytes, used: 32 }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.split_at(usize::from(self.used)).0
    }
}

impl Draft {
    /// Bytes of the body before sealing.
    pub(crate) fn body_bytes(&self) -> u64 {
        (self.head.as_slice().len() + self.payload.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(length: usize) -> Header {
        Header {
            crc: 0,
            chain: 7,
            length: length as u32,
            kind: Kind::Normal,
            form: Form::Plain,
            group: 3,
            log: 0x1234_5678,
            position: 4096,
            synced: 3584,
        }
    }

    fn record(head: &[u8], payload: &[u8]) -> (Vec<u8>, u32) {
        let (bytes, crc) = header(head.len() + payload.len()).encode(head, payload);
        ([bytes.as_slice(), head, payload].concat(), crc)
    }

    #[test]
    fn a_record_reads_back_as_it_was() {
        let (bytes, crc) = record(b"head", b"payload");
        let read = decode(&bytes, 0x1234_5678, 4096).expect("sound");
        assert_eq!(read.header, Header { crc, ..header(11) });
        assert_eq!(read.body, b"headpayload");
    }

    #[test]
    fn the_bytes_are_the_documented_ones() {
        let (bytes, crc) = record(b"", b"x");
        let expected = [
            &crc.to_le_bytes()[..],
            &[
                7, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0x78, 0x56, 0x34, 0x12,
            ],
            &[0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x0e, 0, 0, 0, 0, 0, 0, b'x'],
        ];
        assert_eq!(bytes, expected.concat());
        assert_eq!(crc, checksum::sum(&bytes[4..]));
        assert_eq!(framed_bytes(1), 48);
        assert_eq!(framed_bytes(8), 48);
    }

    #[test]
    fn every_flipped_bit_is_mended_and_two_are_not() {
        let (mut bytes, _) = record(b"head", &[5; 300]);
        bytes.resize(1000, 0xee);
        let whole = HEADER_BYTES + 304;
        for chain in [Some(7), None] {
            assert_eq!(mend(&[0; 512], 0x1234_5678, 4096, chain), None);
            for bit in 0..whole * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let expected = Some((bit / 8, bytes[bit / 8]));
                let mended = mend(&changed, 0x1234_5678, 4096, chain);
                assert_eq!(mended, expected, "bit {bit}");
                let other = (bit + 1234) % (whole * 8);
                changed[other / 8] ^= 1 << (other % 8);
                assert_eq!(
                    mend(&changed, 0x1234_5678, 4096, chain),
                    None,
                    "bits {bit} and {other}"
                );
            }
        }
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let (bytes, _) = record(b"head", b"payload");
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&changed, 0x1234_5678, 4096).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(
                decode(&bytes[..length], 0x1234_5678, 4096).is_err(),
                "cut to {length}"
            );
        }
        assert!(
            decode(&bytes, 0x1234_5678, 4104).is_err(),
            "in another place"
        );
        assert!(decode(&bytes, 1, 4096).is_err(), "in another log");
    }
}
