//! Merging: neighbouring segments become one, without what has died.
//!
//! Neighbours in time, so the ranges of a stream in different segments stay disjoint and in order. A merge may only drop
//! what is dead in the *durable* state: after a crash the store starts from there, and replays deletes of messages that
//! must then still be there. The same code rewrites a single segment: to erase, to take space back, to change the key.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;
use crate::message::StreamId;
use crate::options::Overhead;
use crate::runs::Runs;
use crate::segment::entry::{Present, StreamEntry, StreamMeta};
use crate::segment::postings::PostingsBuilder;
use crate::segment::writer::{Incoming, IncomingSubject, SegmentWriter};
use crate::segment::{Cache, MergedTables, Part, Segment};
use crate::stream::Stream;

/// Blocks that a merge keeps decoded.
const MERGE_CACHE_BYTES: usize = 4 << 20;

/// What is dead of one stream in the durable state.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// The stream is there since this flush: older entries are a namesake's.
    pub(crate) born: u64,
    /// Where the stream starts.
    pub(crate) first_seq: u64,
    /// Dead now.
    dead: Runs,
    /// Dead, and passed by the stream's start since the last flush.
    passed: Runs,
    /// Of all these, what died since the last flush.
    fresh: Runs,
}

impl View {
    /// The durable view of a stream. It stays right until the next flush begins, even when the stream is dropped.
    pub(crate) fn of(stream: &Stream) -> Self {
        Self {
            born: stream.born,
            first_seq: stream.durable_first,
            dead: stream.dead.clone(),
            passed: stream.passed_dead.clone(),
            fresh: stream.fresh_dead.clone(),
        }
    }

    /// A flush was taken back before which this died, and was passed.
    pub(crate) fn thaw(&mut self, dead: &Runs, passed: &Runs) {
        self.fresh.union(dead);
        self.passed.union(passed);
    }

    fn is_dead(&self, seq: u64) -> bool {
        let is_dead_now = || self.dead.contains(seq) || self.passed.contains(seq);
        seq < self.first_seq || (is_dead_now() && !self.fresh.contains(seq))
    }
}

/// What to merge, and what is dead.
#[derive(Debug)]
pub(crate) struct MergePlan {
    /// Neighbours, oldest first.
    pub(crate) inputs: Vec<Arc<Segment>>,
    /// The segments after them: a record that one of these has too is out of date here, and may hold what was erased.
    pub(crate) later: Vec<Arc<Segment>>,
    /// Streams that are there, ascending.
    pub(crate) views: Vec<(StreamId, View)>,
    /// Streams whose drop is not durable, which come before namesakes in `views`; all others are gone.
    pub(crate) dropped: Vec<(StreamId, View)>,
    /// No older segment is left out, so nothing needs to be remembered as gone.
    pub(crate) is_oldest: bool,
    pub(crate) overhead: Overhead,
    /// Space is short, and the reserve's is what it takes; it gives back more.
    pub(crate) uses_reserve: bool,
}

/// One stream's entries in the inputs, oldest first.
type Entries = BTreeMap<StreamId, Vec<(usize, Option<Present>)>>;

impl MergePlan {
    /// Writes the merged segment.
    pub(crate) fn write(mut self, writer: &mut SegmentWriter) -> Result<(), Error> {
        let mut views: BTreeMap<_, _> = std::mem::take(&mut self.views).into_iter().collect();
        views.extend(std::mem::take(&mut self.dropped));
        let mut entries = Entries::new();
        for (number, input) in self.inputs.iter().enumerate() {
            input.entries(|StreamEntry { id, present }| {
                entries.entry(id).or_default().push((number, present));
                Ok(())
            })?;
        }
        let io = Cache::new(MERGE_CACHE_BYTES);
        for (id, entries) in entries {
            self.write_stream(writer, &io, id, entries, views.get(&id))?;
        }
        let mut records = BTreeMap::new();
        for input in &self.inputs {
            input.records(|key, value| {
                records.insert(key, value);
            })?;
        }
        if self.is_oldest {
            records.retain(|_, value: &mut Option<Bytes>| value.is_some());
        }
        for later in self.later.iter().rev() {
            if records.is_empty() {
                break;
            }
            later.records(|key, _| {
                records.remove(&key);
            })?;
        }
        writer.records(records.iter())
    }

    fn write_stream(
        &self,
        writer: &mut SegmentWriter,
        io: &Cache,
        id: StreamId,
        mut entries: Vec<(usize, Option<Present>)>,
        view: Option<&View>,
    ) -> Result<(), Error> {
        let Some((_, newest)) = entries.last() else {
            return Ok(());
        };
        let Some(newest) = newest else {
            // Dropped. Older segments may still hold it.
            return if self.is_oldest {
                Ok(())
            } else {
                writer.dropped(id)
            };
        };
        let meta = newest.meta;
        let Some(view) = view else {
            // Its drop is durable in a later segment, whose entry says so.
            return Ok(());
        };
        if view.born > meta.born {
            // A namesake that was dropped; the later one's entries are in later segments.
            return Ok(());
        }
        entries.retain(|(number, _)| {
            self.inputs
                .get(*number)
                .is_some_and(|input| input.hi >= meta.born)
        });
        let mut dead = Runs::default();
        let mut parts = Vec::new();
        for (number, present) in entries {
            let Some(input) = self.inputs.get(number) else {
                continue;
            };
            match present {
                // A drop between two entries: what is before it is gone.
                None => parts.clear(),
                Some(present) => {
                    dead.union(&present.dead);
                    parts.push(Part::new(input.clone(), present));
                }
            }
        }
        dead.remove_below(meta.first_seq);
        StreamMerge {
            io,
            view,
            parts,
            overhead: self.overhead,
        }
        .write(writer, id, meta, dead)
    }
}

/// The merge of one stream.
struct StreamMerge<'a> {
    io: &'a Cache,
    view: &'a View,
    parts: Vec<Part>,
    overhead: Overhead,
}

impl StreamMerge<'_> {
    fn write(
        &self,
        writer: &mut SegmentWriter,
        id: StreamId,
        meta: StreamMeta,
        dead: Runs,
    ) -> Result<(), Error> {
        let with_messages = self.parts.iter().filter(|part| part.messages() > 0);
        // Without messages nothing counts from it.
        let base = with_messages.map(Part::first_seq).min().unwrap_or(0);
        assert!(
            self.parts.is_sorted_by(|a, b| a.messages() == 0
                || b.messages() == 0
                || a.last_seq() < b.first_seq()),
            "the parts of a stream follow each other"
        );
        let (subjects, numbers) = self.subjects(base)?;
        for (part, numbers) in self.parts.iter().zip(&numbers) {
            self.copy_messages(writer, id, part, numbers)?;
        }
        writer.finish_stream(id, meta, base, subjects, dead)
    }

    /// Merges the subject tables: the new rows, and for each part the new number of each old one.
    fn subjects(&self, base: u64) -> Result<(Vec<IncomingSubject>, Vec<Vec<u32>>), Error> {
        let mut numbers: Vec<Vec<u32>> = self
            .parts
            .iter()
            .map(|part| vec![u32::MAX; part.subject_count() as usize])
            .collect();
        let mut rows = Vec::new();
        let mut tables = MergedTables::new(self.parts.iter());
        while tables.advance()? {
            let mut postings = PostingsBuilder::new(base);
            let mut totals = None;
            for (at, cursor) in tables.here() {
                totals = Some(cursor.totals());
                if let Some(local) = cursor.local() {
                    let list = cursor
                        .part
                        .postings_of(self.io, local.keep(cursor.block()))?;
                    list.runs(self.io, |run| {
                        (run.start..=run.end)
                            .filter(|&seq| !self.view.is_dead(seq))
                            .for_each(|seq| postings.push(seq));
                    })?;
                }
                let number = numbers.get_mut(at);
                if let Some(number) = number.and_then(|all| all.get_mut(cursor.number())) {
                    *number = rows.len() as u32;
                }
            }
            let Some(totals) = totals else { continue };
            // The newest row names the subject's last message: when that is gone, so is the subject.
            if postings.count > 0 || !self.view.is_dead(totals.last) {
                let postings = (postings.count > 0).then_some(postings);
                rows.push(IncomingSubject {
                    name: Bytes::copy_from_slice(tables.name()),
                    postings,
                    totals,
                });
            }
        }
        Ok((rows, numbers))
    }

    fn copy_messages(
        &self,
        writer: &mut SegmentWriter,
        id: StreamId,
        part: &Part,
        numbers: &[u32],
    ) -> Result<(), Error> {
        for page in 0..part.page_count() {
            let rows = part.rows(self.io, page)?;
            if rows.iter().all(|row| self.view.is_dead(row.seq)) {
                continue;
            }
            let body = part.body(self.io, page)?;
            for row in rows.iter().filter(|row| !self.view.is_dead(row.seq)) {
                let start = row.body_start as usize;
                let record = body.get(start..start + row.body_len as usize);
                let subject = numbers
                    .get(row.subject as usize)
                    .copied()
                    .filter(|&number| number != u32::MAX);
                let (Some(record), Some(subject)) = (record, subject) else {
                    return Err(part.contradiction(page, row.seq));
                };
                writer.push(Incoming {
                    stream: id,
                    seq: row.seq,
                    time: row.time,
                    expires: row.expires,
                    subject,
                    subject_len: row.subject_len,
                    headers_len: row.headers_len,
                    record,
                    size: self.overhead.size(record.len(), row.headers_len),
                })?;
            }
        }
        Ok(())
    }
}
