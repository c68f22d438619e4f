//! The flush: everything that changed since the last one, of all streams at once, becomes one segment.
//!
//! A cut says which applied index it is; the state of then is frozen stream by stream (tails and the chunks of changed
//! subjects are shared, counters copied); the job writes the segment, syncs it, and swaps the manifest; then the segment takes over
//! from the frozen tails, again stream by stream. A message that was removed before the freeze is never written. A crash at any step leaves the old
//! manifest or the new one, and a file that no manifest names is overwritten and removed later.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use halyard_runtime::contain::{contain, panic_if_planted};

use crate::checkpoint::Checkpoint;
use crate::digest::Digest;
use crate::error::Error;
use crate::merge::View;
use crate::message::StreamId;
use crate::options::{Options, Overhead};
use crate::runs::Runs;
use crate::segment::entry::StreamMeta;
use crate::segment::postings::PostingsBuilder;
use crate::segment::writer::{Incoming, IncomingSubject, SegmentWriter};
use crate::stream::Stream;
use crate::subjects::{Chunk, Totals};
use crate::tail::Tail;

/// One changed stream at the freeze.
#[derive(Debug, Clone)]
pub(crate) struct FrozenStream {
    id: StreamId,
    meta: StreamMeta,
    overhead: Overhead,
    tail: Arc<Tail>,
    /// What died since the flush before: see [`Stream::fresh_dead`].
    dead: Runs,
    /// What the stream's start had passed since the flush before: see [`Stream::passed_dead`].
    passed: Runs,
    /// Those with changed subjects, in the order of names.
    chunks: Vec<Arc<Chunk>>,
}

/// What one flush writes.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    pub(crate) ordinal: u64,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) digest: Digest,
    /// In the order in which they were frozen. A stream may have been dropped (`None`) and made again.
    pub(crate) streams: Vec<(StreamId, Option<FrozenStream>)>,
    pub(crate) records: BTreeMap<Bytes, Option<Bytes>>,
    /// Of the streams that were dropped before it what the durable state has.
    pub(crate) dropped: Vec<(StreamId, View)>,
}

impl Frozen {
    /// Only the applied index moved: a manifest is enough.
    pub(crate) fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.records.is_empty()
    }

    /// About how long the segment will be, rather more than less.
    pub(crate) fn bytes(&self) -> u64 {
        let stream = |stream: &Option<FrozenStream>| match stream {
            Some(stream) => {
                let subjects = stream.subjects();
                let rows = subjects.map(|(name, _)| 2 * name.len() as u64 + 64);
                stream.tail.weight() + rows.sum::<u64>() + 1024
            }
            None => 16,
        };
        let record = |(key, value): (&Bytes, &Option<Bytes>)| {
            (key.len() + value.as_ref().map_or(0, Bytes::len) + 16) as u64
        };
        let streams = self.streams.iter();
        4096 + streams.map(|(_, it)| stream(it)).sum::<u64>()
            + self.records.iter().map(record).sum::<u64>()
    }

    /// Writes everything into `writer`, streams ascending.
    pub(crate) fn write(&self, writer: &mut SegmentWriter) -> Result<(), Error> {
        // A stream that was made again comes after the drop of its namesake, and is what there is.
        let streams: BTreeMap<StreamId, Option<&FrozenStream>> = {
            let dropped = self.streams.iter().filter(|(_, stream)| stream.is_none());
            let present = self.streams.iter().filter(|(_, stream)| stream.is_some());
            let ordered = dropped.chain(present);
            ordered.map(|(id, stream)| (*id, stream.as_ref())).collect()
        };
        for (id, stream) in streams {
            match stream {
                // What one stream holds must not keep the others from being written for ever.
                Some(stream) => {
                    contain(|| stream.write(writer)).map_err(|panic| Error::Broken {
                        stream: id,
                        what: panic.to_string(),
                    })??;
                }
                None => writer.dropped(id)?,
            }
        }
        writer.records(self.records.iter())
    }
}

impl Stream {
    /// The counters, as a segment keeps them.
    pub(crate) fn meta(&self) -> StreamMeta {
        StreamMeta {
            born: self.born,
            first_seq: self.first_seq,
            last_seq: self.last_seq,
            messages: self.messages,
            bytes: self.bytes,
            last_time: self.last_time,
        }
    }

    /// Freezes what changed since the last flush and starts a new generation. O(chunks of subjects).
    pub(crate) fn freeze(&mut self) -> FrozenStream {
        assert!(self.frozen.is_none(), "one flush at a time");
        let chunks = self.subjects.freeze();
        panic_if_planted("panic-in-freeze", self.id == StreamId(1));
        let fresh = self.tail.fresh();
        let tail = Arc::new(std::mem::replace(&mut self.tail, fresh));
        self.frozen = Some(tail.clone());
        self.dirty = None;
        let passed = std::mem::take(&mut self.passed_dead);
        let dead = std::mem::take(&mut self.fresh_dead);
        FrozenStream {
            id: self.id,
            meta: self.meta(),
            overhead: self.overhead,
            tail,
            dead,
            passed,
            chunks,
        }
    }
}

/// For taking it back.
impl FrozenStream {
    pub(crate) fn born(&self) -> u64 {
        self.meta.born
    }

    pub(crate) fn tail(&self) -> &Tail {
        &self.tail
    }

    pub(crate) fn dead(&self) -> &Runs {
        &self.dead
    }

    pub(crate) fn passed(&self) -> &Runs {
        &self.passed
    }
}

impl FrozenStream {
    /// The changed subjects, in the order of names.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = (&[u8], Totals)> {
        self.chunks.iter().flat_map(|chunk| chunk.touched())
    }

    fn write(&self, writer: &mut SegmentWriter) -> Result<(), Error> {
        panic_if_planted("panic-in-flush", self.id == StreamId(1));
        let base = self.first_live().unwrap_or(0);
        let mut numbers = vec![u32::MAX; self.tail.entries().len()];
        let mut rows = Vec::with_capacity(self.subjects().count());
        for (number, (name, totals)) in self.subjects().enumerate() {
            let slot = self.tail.slot_of(name);
            let mut postings = slot.map(|_| PostingsBuilder::new(base));
            for index in slot
                .into_iter()
                .flat_map(|slot| self.tail.live_indexes(slot))
            {
                let entry = self.tail.entries().get(index);
                if let (Some(entry), Some(postings)) = (entry, &mut postings) {
                    postings.push(entry.seq);
                }
                if let Some(at) = numbers.get_mut(index) {
                    *at = number as u32;
                }
            }
            rows.push(IncomingSubject {
                name: Bytes::copy_from_slice(name),
                postings,
                totals,
            });
        }
        for (entry, &subject) in self.tail.entries().iter().zip(&numbers) {
            if Tail::is_dead(entry) {
                continue;
            }
            assert!(
                subject != u32::MAX,
                "every live message has a subject that changed"
            );
            writer.push(Incoming {
                stream: self.id,
                seq: entry.seq,
                time: entry.time(),
                expires: entry.expires(),
                subject,
                subject_len: entry.subject_len,
                headers_len: entry.headers_len,
                record: &entry.record,
                size: self.overhead.size(entry.record.len(), entry.headers_len),
            })?;
        }
        let mut dead = self.dead.clone();
        dead.remove_below(self.meta.first_seq);
        writer.finish_stream(self.id, self.meta, base, rows, dead)
    }

    fn first_live(&self) -> Option<u64> {
        self.tail
            .entries()
            .iter()
            .find(|entry| !Tail::is_dead(entry))
            .map(|entry| entry.seq)
    }
}

/// Writes the segment of a flush; `None` when there is nothing to write.
pub(crate) fn write_segment(
    frozen: &Frozen,
    disk: &dyn halyard_runtime::disk::Disk,
    dir: &std::path::Path,
    id: u64,
    options: &Options,
) -> Result<Option<crate::segment::Written>, Error> {
    if frozen.is_empty() {
        return Ok(None);
    }
    let range = (frozen.ordinal, frozen.ordinal);
    let mut writer = SegmentWriter::create(disk, dir, id, range, frozen.bytes(), options)?;
    frozen.write(&mut writer)?;
    writer.finish(disk, options).map(Some)
}
