//! One subject's sequences in one part of a segment, whether its posting list is one number, short, or long and in chunks.

use std::sync::Arc;

use crate::error::Error;
use crate::segment::cache::Cache;
use crate::segment::part::Part;
use crate::segment::postings::{ChunkRef, SeqRun};
use crate::segment::table::{ListPlace, Local};

#[derive(Debug)]
enum Source {
    Runs(Arc<[SeqRun]>),
    Chunks(Arc<[ChunkRef]>),
}

/// One subject's sequences in one part, dead ones included.
#[derive(Debug)]
pub(crate) struct Postings<'a> {
    part: &'a Part,
    local: Local,
    source: Source,
}

impl<'a> Postings<'a> {
    /// The sequences that a row of the part's subject table describes.
    pub(crate) fn new(part: &'a Part, io: &Cache, local: Local) -> Result<Self, Error> {
        let only = SeqRun {
            start: local.first,
            end: local.first,
        };
        let source = match &local.list {
            None => Source::Runs([only].into()),
            Some(ListPlace::Inside(bytes)) => Source::Runs(part.decode_list(0, bytes)?.into()),
            Some(ListPlace::Index(block)) => Source::Chunks(part.chunk_index(io, *block)?),
        };
        Ok(Self {
            part,
            local,
            source,
        })
    }
    pub(crate) fn count(&self) -> u64 {
        self.local.messages
    }

    /// The runs that may hold `seq` or what is next to it, and the number of their chunk.
    fn runs_at(&self, io: &Cache, seq: u64) -> Result<(Arc<[SeqRun]>, usize), Error> {
        match &self.source {
            Source::Runs(runs) => Ok((runs.clone(), 0)),
            Source::Chunks(chunks) => {
                let at = chunks
                    .partition_point(|chunk| chunk.first <= seq)
                    .saturating_sub(1);
                self.runs_of(io, at).map(|runs| (runs, at))
            }
        }
    }

    fn runs_of(&self, io: &Cache, chunk: usize) -> Result<Arc<[SeqRun]>, Error> {
        match &self.source {
            Source::Runs(runs) if chunk == 0 => Ok(runs.clone()),
            Source::Runs(_) => Ok([].into()),
            Source::Chunks(chunks) => match chunks.get(chunk) {
                Some(chunk) => self.part.chunk_runs(io, chunk.block),
                None => Ok([].into()),
            },
        }
    }

    /// The first sequence at or after `from`.
    pub(crate) fn next(&mut self, io: &Cache, from: u64) -> Result<Option<u64>, Error> {
        if from > self.local.last {
            return Ok(None);
        }
        let (runs, chunk) = self.runs_at(io, from)?;
        let at = runs.partition_point(|run| run.end < from);
        if let Some(run) = runs.get(at) {
            return Ok(Some(run.start.max(from)));
        }
        Ok(self
            .runs_of(io, chunk + 1)?
            .first()
            .map(|run| run.start.max(from)))
    }

    /// The last sequence at or before `up_to`.
    pub(crate) fn previous(&mut self, io: &Cache, up_to: u64) -> Result<Option<u64>, Error> {
        if up_to < self.local.first {
            return Ok(None);
        }
        let (runs, _) = self.runs_at(io, up_to)?;
        let at = runs.partition_point(|run| run.start <= up_to);
        Ok(at
            .checked_sub(1)
            .and_then(|at| runs.get(at))
            .map(|run| run.end.min(up_to)))
    }

    /// Calls `each` with every run, ascending.
    pub(crate) fn runs(&self, io: &Cache, mut each: impl FnMut(SeqRun)) -> Result<(), Error> {
        let count = match &self.source {
            Source::Runs(_) => 1,
            Source::Chunks(chunks) => chunks.len(),
        };
        for chunk in 0..count {
            self.runs_of(io, chunk)?.iter().copied().for_each(&mut each);
        }
        Ok(())
    }
}
