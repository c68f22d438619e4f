//! The compressed stream around an archive: S2, which extends the Snappy framing format.
//!
//! ```text
//! stream  identifier | chunk*
//! chunk   kind u8 | length u24 | body
//!   ff    identifier: "S2sTwO" or "sNaPpY"
//!   00    crc u32 | block: a varint of the decoded length, then literals, copies and (S2 only) repeats
//!   01    crc u32 | the bytes themselves
//!   80-fe to be skipped (padding fe, an index 99); 02-7f are an error
//! ```
//!
//! The crc is a masked CRC32C of the decoded bytes. Blocks have at most 4 MiB decoded; one is decoded at a time, so
//! memory is two blocks. A whole stream may grow by [`EXPANSION_MAX`] at most beyond [`EXPANSION_FREE_BYTES`]. What we
//! write is plain Snappy in blocks of 64 KiB under S2's identifier: every reader takes it.

use halyard_format::checksum;

use crate::item::Refused;

const IDENTIFIER: [u8; 6] = *b"S2sTwO";
const SNAPPY: [u8; 6] = *b"sNaPpY";
const COMPRESSED: u8 = 0x00;
const PLAIN: u8 = 0x01;
const IDENTIFIES: u8 = 0xff;
const FIRST_SKIPPABLE: u8 = 0x80;
/// Kind and length.
const HEADER_BYTES: usize = 4;
const CRC_BYTES: usize = 4;
/// Decoded bytes of one block at most, as the format says.
const BLOCK_BYTES_MAX: usize = 4 << 20;
/// Bytes of one chunk at most: a block that does not compress, and the format's overhead.
const CHUNK_BYTES_MAX: usize = BLOCK_BYTES_MAX + BLOCK_BYTES_MAX / 6 + 64;
/// Decoded bytes for one encoded byte, beyond [`EXPANSION_FREE_BYTES`]: more is no backup.
const EXPANSION_MAX: u64 = 4096;
/// Decoded bytes that any stream may have.
const EXPANSION_FREE_BYTES: u64 = 1 << 30;
/// Decoded bytes of the blocks that are written.
pub const WRITTEN_BLOCK_BYTES: usize = 64 << 10;

/// Decodes a stream as it comes in pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What was pushed and is not decoded.
    pending: Vec<u8>,
    /// Bytes of `pending` that are done with.
    at: usize,
    identified: bool,
    encoded: u64,
    decoded: u64,
}

impl Decoder {
    /// Takes the next bytes of the stream. Call [`Decoder::next`] until it has no more before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.drain(..self.at);
        self.at = 0;
        self.pending.extend_from_slice(bytes);
        self.encoded += bytes.len() as u64;
    }

    /// Decodes one chunk into `out`, which is cleared first; `false`: more bytes are needed.
    ///
    /// # Errors
    /// This is not such a stream, or it is damaged.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, Refused> {
        out.clear();
        loop {
            let rest = self.pending.get(self.at..).unwrap_or_default();
            let Some(&[kind, l0, l1, l2]) = rest.first_chunk::<HEADER_BYTES>() else {
                return Ok(false);
            };
            let len = usize::from(l0) | usize::from(l1) << 8 | usize::from(l2) << 16;
            if !self.identified && kind != IDENTIFIES {
                return Err(Refused::because("not a backup: it is no S2 stream"));
            }
            if len > CHUNK_BYTES_MAX {
                return Err(Refused::because("a compressed chunk is too long"));
            }
            let Some(body) = rest.get(HEADER_BYTES..HEADER_BYTES + len) else {
                return Ok(false);
            };
            match kind {
                IDENTIFIES if body == IDENTIFIER || body == SNAPPY => self.identified = true,
                COMPRESSED | PLAIN => {
                    let (crc, data) = body
                        .split_first_chunk::<CRC_BYTES>()
                        .ok_or(Refused::because("a compressed chunk is too short"))?;
                    if kind == PLAIN {
                        if data.len() > BLOCK_BYTES_MAX {
                            return Err(Refused::because("a block is too long"));
                        }
                        out.extend_from_slice(data);
                    } else {
                        decode_block(data, out)?;
                    }
                    if masked_crc(out) != u32::from_le_bytes(*crc) {
                        return Err(Refused::because(
                            "a compressed chunk does not match its checksum",
                        ));
                    }
                }
                FIRST_SKIPPABLE..=0xfe => {}
                _ => return Err(Refused::because("a compressed chunk is of an unknown kind")),
            }
            self.at += HEADER_BYTES + len;
            self.decoded += out.len() as u64;
            let grown = self.decoded.saturating_sub(EXPANSION_FREE_BYTES);
            if grown > self.encoded.saturating_mul(EXPANSION_MAX) {
                return Err(Refused::because(
                    "it grows beyond measure when it is decompressed",
                ));
            }
            if !out.is_empty() {
                return Ok(true);
            }
        }
    }

    /// Whether everything that was pushed has been decoded: where a stream may end.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.identified && self.at == self.pending.len()
    }
}

/// Snappy's mask over a CRC32C.
fn masked_crc(bytes: &[u8]) -> u32 {
    checksum::sum(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

const DAMAGED: Refused = Refused::because("a compressed block is damaged");

/// Reads the elements of a block.
struct Elements<'a>(&'a [u8]);

impl Elements<'_> {
    fn byte(&mut self) -> Result<usize, Refused> {
        self.number(1)
    }

    /// A little-endian number of up to four bytes.
    fn number(&mut self, bytes: usize) -> Result<usize, Refused> {
        let (number, rest) = self.0.split_at_checked(bytes).ok_or(DAMAGED)?;
        self.0 = rest;
        let number = number.iter().rev();
        Ok(number.fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }
}

/// Decodes one block into `out`, which is empty.
fn decode_block(block: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
    let mut elements = Elements(block);
    let mut len = 0;
    for shift in (0..28).step_by(7) {
        let byte = elements.byte()?;
        len |= (byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
        if shift == 21 {
            return Err(DAMAGED);
        }
    }
    if len > BLOCK_BYTES_MAX {
        return Err(Refused::because("a block is too long"));
    }
    out.reserve(len);
    let mut offset = 0;
    while !elements.0.is_empty() {
        let tag = elements.byte()?;
        let count = match tag & 3 {
            0 => {
                literal(&mut elements, tag, len, out)?;
                continue;
            }
            1 => {
                let low = elements.byte()?;
                let short = tag >> 2 & 7;
                match (tag >> 5) << 8 | low {
                    0 => repeat(&mut elements, short)?,
                    far => {
                        offset = far;
                        short + 4
                    }
                }
            }
            2 => {
                offset = elements.number(2)?;
                (tag >> 2) + 1
            }
            _ => {
                offset = elements.number(4)?;
                (tag >> 2) + 1
            }
        };
        copy(out, offset, count, len)?;
    }
    if out.len() == len {
        Ok(())
    } else {
        Err(DAMAGED)
    }
}

fn literal(
    elements: &mut Elements<'_>,
    tag: usize,
    len: usize,
    out: &mut Vec<u8>,
) -> Result<(), Refused> {
    let count = match tag >> 2 {
        long @ 60.. => elements.number(long - 59)?,
        short => short,
    };
    let count = count.checked_add(1).ok_or(DAMAGED)?;
    let (bytes, rest) = elements.0.split_at_checked(count).ok_or(DAMAGED)?;
    if bytes.len() > len - out.len() {
        return Err(DAMAGED);
    }
    out.extend_from_slice(bytes);
    elements.0 = rest;
    Ok(())
}

/// The length of a copy from where the one before copied: S2's extension.
fn repeat(elements: &mut Elements<'_>, short: usize) -> Result<usize, Refused> {
    Ok(match short {
        5 => elements.number(1)? + 8,
        6 => elements.number(2)? + 260,
        7 => elements.number(3)? + 65_540,
        _ => short + 4,
    })
}

/// Copies `count` bytes from `offset` bytes back; the source may reach into what is being copied.
fn copy(out: &mut Vec<u8>, offset: usize, count: usize, len: usize) -> Result<(), Refused> {
    let start = out.len().checked_sub(offset).ok_or(DAMAGED)?;
    if offset == 0 || count > len - out.len() {
        return Err(DAMAGED);
    }
    let mut left = count;
    while left > 0 {
        // Each round doubles what may be copied at once.
        let step = left.min(out.len() - start);
        out.extend_from_within(start..start + step);
        left -= step;
    }
    Ok(())
}

/// Compresses a stream as it comes in pieces.
pub struct Encoder {
    encoder: snap::raw::Encoder,
    /// What is not a whole block yet.
    pending: Vec<u8>,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// Begins a stream in `out`.
    #[must_use]
    pub fn new(out: &mut Vec<u8>) -> Self {
        put_chunk(out, IDENTIFIES, &[&IDENTIFIER]);
        Self {
            encoder: snap::raw::Encoder::new(),
            pending: Vec::with_capacity(WRITTEN_BLOCK_BYTES),
            scratch: vec![0; snap::raw::max_compress_len(WRITTEN_BLOCK_BYTES)],
        }
    }

    /// Takes the next bytes of the stream; whole blocks are appended to `out`.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = WRITTEN_BLOCK_BYTES - self.pending.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == WRITTEN_BLOCK_BYTES {
                self.flush(out);
            }
        }
    }

    /// Appends what is left as a block.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        if self.pending.is_empty() {
            return;
        }
        let crc = masked_crc(&self.pending).to_le_bytes();
        let packed = self.encoder.compress(&self.pending, &mut self.scratch).ok();
        match packed.and_then(|len| self.scratch.get(..len)) {
            // Less than an eighth saved is not worth the decoding.
            Some(packed) if packed.len() < self.pending.len() - self.pending.len() / 8 => {
                put_chunk(out, COMPRESSED, &[&crc, packed]);
            }
            _ => put_chunk(out, PLAIN, &[&crc, &self.pending]),
        }
        self.pending.clear();
    }
}

fn put_chunk(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let [l0, l1, l2, ..] = len.to_le_bytes();
    out.extend_from_slice(&[kind, l0, l1, l2]);
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Compresses a whole stream.
#[cfg(test)]
pub(super) fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out);
    encoder.push(bytes, &mut out);
    encoder.flush(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8], step: usize) -> Result<Vec<u8>, Refused> {
        let (mut decoder, mut all, mut out) = (Decoder::default(), Vec::new(), Vec::new());
        for piece in bytes.chunks(step.max(1)) {
            decoder.push(piece);
            while decoder.next(&mut out)? {
                all.extend_from_slice(&out);
            }
        }
        if decoder.is_at_end() {
            Ok(all)
        } else {
            Err(Refused::because("cut off"))
        }
    }

    /// One chunk around a block made by hand.
    fn framed(block: &[u8], decoded: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_chunk(&mut out, IDENTIFIES, &[&IDENTIFIER]);
        let crc = masked_crc(decoded).to_le_bytes();
        put_chunk(&mut out, COMPRESSED, &[&crc, block]);
        out
    }

    #[test]
    fn repeats_of_each_length() {
        // "ab", a copy from 2 back, then a repeat: 4 bytes, 8 + 1, 260 + 2, 65540 + 3.
        let cases: [(&[u8], usize); 4] = [
            (&[0b001, 0], 4),
            (&[5 << 2 | 1, 0, 1], 9),
            (&[6 << 2 | 1, 0, 2, 0], 262),
            (&[7 << 2 | 1, 0, 3, 0, 0], 65_543),
        ];
        for (tail, more) in cases {
            let len = 2 + 4 + more;
            let mut block = Vec::new();
            let mut rest = len;
            while rest >= 0x80 {
                block.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            block.push(rest as u8);
            block.extend_from_slice(&[1 << 2, b'a', b'b', 1, 2]);
            block.extend_from_slice(tail);
            let decoded = b"ab".repeat(len.div_ceil(2));
            let decoded = &decoded[..len];
            assert_eq!(decode(&framed(&block, decoded), 7).unwrap(), decoded);
        }
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        let good = encode(&b"some text, some text, some text".repeat(40));
        assert!(decode(&good, 5).is_ok());
        let mut wrong = good.clone();
        *wrong.last_mut().unwrap() ^= 1;
        assert!(decode(&wrong, 5).is_err());
        assert!(decode(&good[..good.len() - 1], 5).is_err());
        assert!(decode(b"PK\x03\x04 something else", 5).is_err());
        assert!(decode(&good[10..], 5).is_err(), "no identifier");
        let mut unknown = good.clone();
        unknown.extend_from_slice(&[2, 0, 0, 0]);
        assert!(decode(&unknown, 5).is_err());
        let mut padded = good.clone();
        padded.extend_from_slice(&[0xfe, 2, 0, 0, 0, 0]);
        padded.extend_from_slice(&good);
        assert_eq!(
            decode(&padded, 5).unwrap().len(),
            2 * 31 * 40,
            "streams may follow each other"
        );
    }

    #[test]
    fn a_block_that_claims_too_much_costs_nothing() {
        // 4 MiB + 1 decoded from five bytes.
        let block = [0x81, 0x80, 0x80, 0x02, 0];
        assert!(decode(&framed(&block, b""), 100).is_err());
        let block = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        assert!(decode(&framed(&block, b""), 100).is_err());
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        // One byte, then repeats up to 4 MiB: about 25 bytes that become 4 MiB.
        let len = BLOCK_BYTES_MAX;
        let mut block = vec![0x80, 0x80, 0x80, 0x02, 0, 0, 1, 1];
        let repeat = len - 1 - 4;
        let more = (repeat - 65_540).to_le_bytes();
        block.extend_from_slice(&[7 << 2 | 1, 0, more[0], more[1], more[2]]);
        let chunk = framed(&block, &vec![0; len]);
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        let mut total = 0_u64;
        let error = loop {
            decoder.push(&chunk);
            match decoder.next(&mut out) {
                Ok(_) => total += out.len() as u64,
                Err(error) => break error,
            }
            assert!(total < 3 << 30, "it is stopped");
        };
        assert!(error.to_string().contains("beyond measure"), "{error}");
    }

    proptest! {
        #[test]
        fn streams_round_trip(len in 0..200_000_usize, seed: u64, step in 1_usize..100_000) {
            // Noise and repetition in turns.
            let mut state = seed | 1;
            let bytes: Vec<u8> = (0..len)
                .map(|at| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    if at / 5000 % 2 == 0 { 7 } else { (state >> 56) as u8 }
                })
                .collect();
            prop_assert_eq!(decode(&encode(&bytes), step).unwrap(), bytes);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            let _ = decode_block(&bytes, &mut out);
            let _ = decode(&framed(&bytes, &out), 13);
        }
    }
}
