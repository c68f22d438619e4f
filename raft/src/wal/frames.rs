//! A batch of records as the bytes that go to the disk in one write.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use halyard_runtime::disk::File;

use super::record::{self, BATCH_ALIGN, Draft, Form, HEADER_BYTES, Header};
use super::segment::{self, HEADER_BLOCK};
use super::writer::{Item, Tail, Wal};
use crate::cipher::Sealing;

/// Payloads shorter than this are copied next to their headers: one long piece is cheaper to write than many short ones.
const COPY_BYTES_MAX: usize = 2048;
/// The system takes at most 1024 pieces in one write.
const PIECES_MAX: usize = 1000;

/// The bytes of a batch on their way: headers, heads and short payloads in one buffer, long payloads where they are.
#[derive(Default)]
pub(super) struct Frames {
    buffer: Vec<u8>,
    /// What to write, in order: pieces of `buffer`, and payloads of the batch's items.
    pieces: Vec<Piece>,
    /// Where each record stands.
    pub(super) positions: Vec<u64>,
    /// All of the batch, with the padding behind it.
    pub(super) bytes: u64,
    /// crc of the last record.
    pub(super) chain: u32,
    /// Start in `buffer` of the piece that is still growing.
    open: usize,
}

enum Piece {
    Buffer { from: usize, to: usize },
    Payload { item: usize },
}

impl Frames {
    /// Makes the bytes of a batch.
    pub(super) fn encode(&mut self, wal: &Wal, tail: &Tail, batch: &[Item]) {
        self.buffer.clear();
        self.pieces.clear();
        self.positions.clear();
        self.open = 0;
        self.chain = tail.chain;
        let start = tail.position();
        let synced = wal.synced.load(Ordering::Acquire);
        assert!(
            start.is_multiple_of(BATCH_ALIGN),
            "no batch touches a sector of another"
        );
        assert!(synced <= start, "what is written now is not synced yet");
        let mut position = start;
        for (at, item) in batch.iter().enumerate() {
            debug_assert!(
                position.is_multiple_of(record::ALIGN),
                "records are padded to a multiple of 8"
            );
            self.positions.push(position);
            position += self.push(wal, position, synced, at, &item.draft);
        }
        let end = position.next_multiple_of(BATCH_ALIGN);
        self.pad(end - position);
        self.close_piece();
        self.bytes = end - start;
        debug_assert!(
            self.positions.is_sorted_by(|a, b| a < b),
            "records stand one behind the other"
        );
    }

    /// Adds one record and returns how many bytes it takes.
    fn push(&mut self, wal: &Wal, position: u64, synced: u64, at: usize, draft: &Draft) -> u64 {
        let head = draft.head.as_slice();
        let mut header = Header {
            crc: 0,
            chain: self.chain,
            length: 0,
            kind: draft.kind,
            form: Form::Plain,
            group: draft.group,
            log: wal.log as u32,
            position,
            synced,
        };
        let body_bytes = match &wal.layout.cipher {
            Some(cipher) if draft.body_bytes() > 0 => {
                self.put_sealed(&mut header, cipher, head, &draft.payload)
            }
            _ if draft.payload.len() < COPY_BYTES_MAX => {
                self.put(&mut header, head, &draft.payload, None)
            }
            _ => self.put(&mut header, head, &draft.payload, Some(at)),
        };
        debug_assert_eq!(
            u64::from(header.length),
            body_bytes,
            "the header tells the length of the body"
        );
        let framed = record::framed_bytes(body_bytes);
        self.pad(framed - HEADER_BYTES as u64 - body_bytes);
        framed
    }

    /// Writes header and body; a payload that stays where it is becomes a piece of its own.
    fn put(
        &mut self,
        header: &mut Header,
        head: &[u8],
        payload: &[u8],
        stays: Option<usize>,
    ) -> u64 {
        let body_bytes = head.len() + payload.len();
        header.length =
            u32::try_from(body_bytes).expect("longer payloads are refused when they are proposed");
        let (bytes, crc) = header.encode(head, payload);
        self.chain = crc;
        self.buffer.extend_from_slice(&bytes);
        self.buffer.extend_from_slice(head);
        match stays {
            None => self.buffer.extend_from_slice(payload),
            Some(item) => {
                self.close_piece();
                self.pieces.push(Piece::Payload { item });
            }
        }
        body_bytes as u64
    }

    /// Writes header and sealed body. Nothing is copied twice: the body is sealed where it is written from.
    fn put_sealed(
        &mut self,
        header: &mut Header,
        cipher: &Sealing,
        head: &[u8],
        payload: &[u8],
    ) -> u64 {
        let body_bytes = head.len() + payload.len() + Sealing::OVERHEAD_BYTES;
        header.form = Form::Bound;
        header.length =
            u32::try_from(body_bytes).expect("longer payloads are refused when they are proposed");
        let start = self.buffer.len();
        self.buffer.resize(start + HEADER_BYTES, 0);
        let context = header.context();
        cipher.seal(header.position, &context, head, payload, &mut self.buffer);
        let (_, record) = self.buffer.split_at_mut(start);
        let (place, body) = record.split_at_mut(HEADER_BYTES);
        let (bytes, crc) = header.encode(body, &[]);
        place.copy_from_slice(&bytes);
        self.chain = crc;
        body_bytes as u64
    }

    fn pad(&mut self, count: u64) {
        self.buffer.resize(self.buffer.len() + count as usize, 0);
    }

    fn close_piece(&mut self) {
        let to = self.buffer.len();
        assert!(to >= self.open, "the buffer only grows");
        if to > self.open {
            self.pieces.push(Piece::Buffer {
                from: self.open,
                to,
            });
            self.open = to;
        }
    }

    /// Puts the header of a new segment before the batch.
    pub(super) fn open_segment(&mut self, header: &segment::Header) {
        assert_eq!(self.open, self.buffer.len(), "the batch is complete");
        let from = self.buffer.len();
        self.buffer.extend_from_slice(&header.encode());
        assert_eq!(
            (self.buffer.len() - from) as u64,
            HEADER_BLOCK,
            "the batch stands right behind the header"
        );
        self.pieces.insert(
            0,
            Piece::Buffer {
                from,
                to: self.buffer.len(),
            },
        );
    }

    /// Writes everything at `offset`.
    pub(super) fn write(
        &self,
        file: &Arc<dyn File>,
        mut offset: u64,
        batch: &[Item],
    ) -> std::io::Result<()> {
        debug_assert!(
            offset.is_multiple_of(BATCH_ALIGN),
            "no batch touches a sector of another"
        );
        for pieces in self.pieces.chunks(PIECES_MAX) {
            let slices: Vec<IoSlice<'_>> = pieces
                .iter()
                .map(|piece| IoSlice::new(self.slice(piece, batch)))
                .collect();
            file.write_vectored_at(&slices, offset)?;
            offset += slices.iter().map(|slice| slice.len() as u64).sum::<u64>();
        }
        Ok(())
    }

    fn slice<'a>(&'a self, piece: &Piece, batch: &'a [Item]) -> &'a [u8] {
        match piece {
            Piece::Buffer { from, to } => {
                let piece = self.buffer.get(*from..*to);
                piece.expect("a piece of what was put into the buffer")
            }
            Piece::Payload { item } => {
                let item = batch.get(*item);
                item.expect("a payload of this batch")
                    .draft
                    .payload
                    .as_ref()
            }
        }
    }
}
