//! Bytes on their way out, in order: gathered in buffers, large bodies shared with other receivers, written in pieces.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};

use bytes::Bytes;

use super::buffers;
use super::link::Link;
use crate::caps;

/// A queue of bytes. Empty, it owns no memory.
#[derive(Default)]
pub(super) struct Output {
    /// Full pieces, oldest first.
    queue: VecDeque<Piece>,
    /// What is being gathered, behind the queue.
    tail: Vec<u8>,
    /// Bytes of the first piece (of the tail, if the queue is empty) that are written.
    skip: usize,
    /// Bytes not yet written.
    length: usize,
}

enum Piece {
    Owned(Vec<u8>),
    Shared(Bytes),
}

/// How far a write came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Everything left.
    Done,
    /// The link took less.
    Blocked,
    /// The link is broken.
    Failed,
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Output {
    /// Bytes not yet written.
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends what `write` puts into the buffer (it only appends); returns it.
    #[inline]
    pub(super) fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        if self.tail.len() >= caps::CHUNK_BYTES {
            let full = std::mem::replace(&mut self.tail, buffers::take());
            self.queue.push_back(Piece::Owned(full));
        } else if self.tail.capacity() == 0 {
            self.tail = buffers::take();
        }
        let before = self.tail.len();
        write(&mut self.tail);
        self.length += self.tail.len() - before;
        let appended = self.tail.get(before..);
        appended.expect("writing only appends")
    }

    /// Appends bytes without a copy.
    pub(super) fn append_shared(&mut self, bytes: Bytes) {
        if self.queue.is_empty() && self.skip > 0 {
            // What is skipped must stay with its piece.
            self.queue
                .push_back(Piece::Owned(std::mem::take(&mut self.tail)));
        } else if self.tail.len() < self.tail.capacity() / 4 {
            // A control line alone must not keep a large buffer waiting with it.
            self.queue
                .push_back(Piece::Owned(self.tail.as_slice().to_vec()));
            self.tail.clear();
        } else {
            self.queue
                .push_back(Piece::Owned(std::mem::take(&mut self.tail)));
        }
        self.length += bytes.len();
        self.queue.push_back(Piece::Shared(bytes));
    }

    /// Puts `newer` behind what is here.
    pub(super) fn append_all(&mut self, mut newer: Self) {
        assert!(newer.skip == 0, "only the older part has been written to");
        if self.is_empty() {
            *self = newer;
            return;
        }
        if newer.is_empty() {
            return;
        }
        if !self.tail.is_empty() {
            self.queue
                .push_back(Piece::Owned(std::mem::take(&mut self.tail)));
        }
        self.queue.append(&mut newer.queue);
        self.tail = newer.tail;
        self.length += newer.length;
    }

    /// Writes as much as the link takes.
    pub(super) fn write(&mut self, link: &dyn Link) -> Progress {
        while !self.is_empty() {
            let (count, progress) = self.write_once(link);
            self.drop_front(count);
            if progress != Progress::Done {
                return progress;
            }
        }
        Progress::Done
    }

    fn write_once(&self, link: &dyn Link) -> (usize, Progress) {
        if self.queue.is_empty() {
            let rest = self.tail.get(self.skip..);
            let rest = rest.expect("no more is skipped than was there");
            return write_pieces(link, &[IoSlice::new(rest)], rest.len());
        }
        let mut pieces = [IoSlice::new(&[]); caps::WRITE_PIECES];
        let (mut skip, mut whole, mut count) = (self.skip, 0, 0);
        let queued = self.queue.iter().map(Piece::bytes);
        for (place, bytes) in pieces.iter_mut().zip(queued.chain([self.tail.as_slice()])) {
            let rest = bytes.get(std::mem::take(&mut skip)..);
            let rest = rest.expect("no more is skipped than the first piece has");
            *place = IoSlice::new(rest);
            whole += rest.len();
            count += 1;
        }
        write_pieces(link, pieces.get(..count).unwrap_or_default(), whole)
    }

    /// Forgets bytes that are written.
    fn drop_front(&mut self, count: usize) {
        assert!(count <= self.length, "no more is written than there is");
        self.length -= count;
        self.skip += count;
        while let Some(front) = self.queue.front() {
            let Some(beyond) = self.skip.checked_sub(front.bytes().len()) else {
                return;
            };
            self.skip = beyond;
            if let Some(Piece::Owned(buffer)) = self.queue.pop_front() {
                buffers::give(buffer);
            }
        }
        if self.is_empty() {
            buffers::give(std::mem::take(&mut self.tail));
            *self = Self::default();
        }
    }
}

fn write_pieces(link: &dyn Link, pieces: &[IoSlice<'_>], whole: usize) -> (usize, Progress) {
    loop {
        return match link.try_write(pieces) {
            Ok(count) if count == whole => (count, Progress::Done),
            Ok(count) => (count, Progress::Blocked),
            Err(error) if error.kind() == ErrorKind::WouldBlock => (0, Progress::Blocked),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => (0, Progress::Failed),
        };
    }
}
