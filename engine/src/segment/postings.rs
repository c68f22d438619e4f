//! Posting lists: the sequences of one subject in one part.
//!
//!   run    (gap << 1) | is long, then for a long run: length - 2
//!   list   run*                                   of at most 96 bytes, inside the subject table, or
//!          chunks of about 8 KiB in blocks of their own, and an index block: (first, messages before, block)*
//!
//! The gap is from one past the previous run's end to the run's start; the first run of a list or chunk counts from the
//! part's first sequence. A stream of one subject is one run however many messages it has.

use bytes::Bytes;

use halyard_format::codec::{Malformed, Reader, put_varint, sum};

/// A chunk is closed at about so many bytes.
const CHUNK_BYTES: usize = 8 * 1024;

/// Sequences in a row, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeqRun {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// One finished chunk of a list that is being built.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) first: u64,
    /// Messages of the list before this chunk.
    pub(crate) before: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Builds one list from ascending sequences.
#[derive(Debug)]
pub(crate) struct PostingsBuilder {
    base: u64,
    next: u64,
    run: Option<SeqRun>,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) count: u64,
    chunk_first: u64,
    chunk_before: u64,
    bytes: Vec<u8>,
    closed: Vec<Chunk>,
}

impl PostingsBuilder {
    /// `base`: the part's first sequence, or anything not above the first one pushed that readers will also know.
    pub(crate) fn new(base: u64) -> Self {
        Self {
            base,
            next: base,
            run: None,
            first: 0,
            last: 0,
            count: 0,
            chunk_first: 0,
            chunk_before: 0,
            bytes: Vec::new(),
            closed: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, seq: u64) {
        if self.count == 0 {
            self.first = seq;
        }
        assert!(self.count == 0 || seq > self.last, "postings rise");
        self.last = seq;
        match &mut self.run {
            Some(run) if run.end + 1 == seq => run.end = seq,
            _ => {
                self.close_run();
                self.run = Some(SeqRun {
                    start: seq,
                    end: seq,
                });
            }
        }
        self.count += 1;
    }

    fn close_run(&mut self) {
        let Some(run) = self.run.take() else { return };
        if self.bytes.is_empty() {
            self.chunk_first = run.start;
            self.next = self.base;
        }
        let is_long = run.end > run.start;
        assert!(
            self.next <= run.start && run.start <= run.end,
            "runs rise from the base on"
        );
        put_varint(
            &mut self.bytes,
            (run.start - self.next) << 1 | u64::from(is_long),
        );
        if is_long {
            put_varint(&mut self.bytes, run.end - run.start - 1);
        }
        self.next = run.end + 1;
        if self.bytes.len() >= CHUNK_BYTES {
            // `count` already holds every run closed so far: the pushed one is not counted yet.
            self.close_chunk();
        }
    }

    fn close_chunk(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            self.closed.push(Chunk {
                first: self.chunk_first,
                before: self.chunk_before,
                bytes,
            });
        }
        self.chunk_before = self.count;
    }

    /// The list: one chunk if it is short.
    pub(crate) fn finish(mut self) -> Vec<Chunk> {
        self.close_run();
        self.close_chunk();
        self.closed
    }
}

/// Reads the runs of one list or chunk, one after the other.
pub(crate) struct RunReader<'a> {
    reader: Reader<'a>,
    next: u64,
}

impl<'a> RunReader<'a> {
    pub(crate) fn new(bytes: &'a [u8], base: u64) -> Self {
        Self {
            reader: Reader::new(bytes),
            next: base,
        }
    }

    #[inline]
    pub(crate) fn read(&mut self) -> Result<Option<SeqRun>, Malformed> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let head = self.reader.varint()?;
        let start = sum(self.next, head >> 1)?;
        let end = if head & 1 == 1 {
            sum(start, sum(self.reader.varint()?, 1)?)?
        } else {
            start
        };
        self.next = sum(end, 1)?;
        Ok(Some(SeqRun { start, end }))
    }
}

/// Decodes one chunk.
pub(crate) fn decode_runs(bytes: &[u8], base: u64) -> Result<Vec<SeqRun>, Malformed> {
    let mut reader = RunReader::new(bytes, base);
    let mut runs = Vec::with_capacity(bytes.len());
    while let Some(run) = reader.read()? {
        runs.push(run);
    }
    Ok(runs)
}

/// One entry of an index block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkRef {
    pub(crate) first: u64,
    pub(crate) before: u64,
    pub(crate) block: crate::block::BlockRef,
}

pub(crate) fn encode_index(chunks: &[ChunkRef]) -> Vec<u8> {
    assert!(
        chunks.is_sorted_by(|a, b| a.first < b.first && a.before <= b.before),
        "chunks stand in the order of their sequences"
    );
    let mut out = Vec::new();
    for chunk in chunks {
        put_varint(&mut out, chunk.first);
        put_varint(&mut out, chunk.before);
        put_varint(&mut out, chunk.block.offset);
        put_varint(&mut out, chunk.block.len.into());
    }
    out
}

pub(crate) fn decode_index(bytes: &Bytes) -> Result<Vec<ChunkRef>, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut chunks: Vec<ChunkRef> = Vec::new();
    while !reader.is_empty() {
        let (first, before) = (reader.varint()?, reader.varint()?);
        let block = crate::block::BlockRef {
            offset: reader.varint()?,
            len: reader.varint_u32()?,
        };
        if chunks
            .last()
            .is_some_and(|last| last.first >= first || last.before >= before)
        {
            return Err(Malformed("chunks of a posting list out of order"));
        }
        chunks.push(ChunkRef {
            first,
            before,
            block,
        });
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(seqs: &[u64], base: u64) -> usize {
        let mut builder = PostingsBuilder::new(base);
        seqs.iter().for_each(|&seq| builder.push(seq));
        assert_eq!(builder.count, seqs.len() as u64);
        let chunks = builder.finish();
        let mut decoded = Vec::new();
        for chunk in &chunks {
            assert_eq!(chunk.before, decoded.len() as u64);
            let runs = decode_runs(&chunk.bytes, base).unwrap();
            assert_eq!(runs.first().unwrap().start, chunk.first);
            decoded.extend(runs.iter().flat_map(|run| run.start..=run.end));
        }
        assert_eq!(decoded, seqs);
        chunks.len()
    }

    proptest! {
        #[test]
        fn lists_round_trip(gaps in prop::collection::vec(prop_oneof![Just(1u64), 1u64..5, 1u64..100_000], 0..2000)) {
            let seqs: Vec<u64> = gaps.iter().scan(7, |seq, gap| { *seq += gap; Some(*seq) }).collect();
            round_trip(&seqs, 8.min(seqs.first().copied().unwrap_or(8)));
        }
    }

    #[test]
    fn long_lists_have_chunks_and_runs_are_short() {
        let scattered: Vec<u64> = (0..100_000u64).map(|at| 100 + at * 3).collect();
        assert!(round_trip(&scattered, 100) > 5);
        let run: Vec<u64> = (5..100_000).collect();
        assert_eq!(round_trip(&run, 5), 1);
    }
}
