//! The store of one group: streams, and the machine's own small records.
//!
//! Single writer (`&mut self`), reads by `&self`, no threads, locks or clock. Every call is short; what takes long is a
//! [`Job`] that runs elsewhere without borrowing the store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use halyard_format::checksum;
use halyard_runtime::contain::panic_if_planted;
use halyard_runtime::disk::Disk;
use halyard_runtime::time::Timestamp;

use crate::broken::Broken;
use crate::digest::{Change, Digest};
use crate::error::Error;
use crate::filter::{Filter, Filters};
use crate::lifecycle::Upkeep;
use crate::limits::{RECORD_BYTES_MAX, SEQUENCE_MAX, SUBJECT_BYTES_MAX};
use crate::message::{Append, Erase, Message, Purge, StreamId, StreamState, SubjectTotals};
use crate::options::Options;
use crate::segment::Cache;
use crate::stream::Stream;

/// The message log store of one group.
#[derive(Debug)]
pub struct Store {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    pub(crate) records: BTreeMap<Bytes, Bytes>,
    pub(crate) io: Cache,
    pub(crate) digest: Digest,
    pub(crate) upkeep: Upkeep,
    /// Streams whose state in memory is not to be believed.
    pub(crate) broken: BTreeMap<StreamId, Broken>,
}

impl Store {
    fn stream(&self, id: StreamId) -> Result<&Stream, Error> {
        self.streams.get(&id).ok_or(Error::NoSuchStream(id))
    }

    /// Creates a stream whose first message will have sequence `first_seq` (at least 1).
    ///
    /// # Errors
    /// [`Error::StreamExists`]; [`Error::Limit`] for a sequence beyond [`SEQUENCE_MAX`]; [`Error::Poisoned`].
    pub fn create_stream(&mut self, id: StreamId, first_seq: u64) -> Result<(), Error> {
        self.check_writable()?;
        check_seq(first_seq)?;
        if self.streams.contains_key(&id) {
            return Err(Error::StreamExists(id));
        }
        let first_seq = first_seq.max(1);
        let stream = Stream::new(id, first_seq, self.upkeep.ordinal, &self.options);
        self.streams.insert(id, stream);
        self.digest.fold(Change::CreateStream, &[id.0, first_seq]);
        self.mark_created(id);
        Ok(())
    }

    /// Removes a stream with all its messages; O(1) but for the memory that is freed.
    ///
    /// # Errors
    /// [`Error::NoSuchStream`]; [`Error::Poisoned`].
    pub fn drop_stream(&mut self, id: StreamId, erase: Erase) -> Result<(), Error> {
        self.check_writable()?;
        let mut stream = self.streams.remove(&id).ok_or(Error::NoSuchStream(id))?;
        self.upkeep.settle(&mut stream);
        self.digest.fold(
            Change::DropStream,
            &[id.0, stream.last_seq, stream.messages],
        );
        self.mark_dropped(stream, erase);
        Ok(())
    }

    /// Whether the stream is there.
    #[must_use]
    pub fn has_stream(&self, id: StreamId) -> bool {
        self.streams.contains_key(&id)
    }

    /// The ids of all streams, ascending.
    pub fn stream_ids(&self) -> impl Iterator<Item = StreamId> + '_ {
        self.streams.keys().copied()
    }

    /// Appends one message after the stream's last sequence, and returns its own.
    ///
    /// Readable at once; durable only with a flush that began later (the log covers the gap).
    ///
    /// # Errors
    /// [`Error::NoSuchStream`]; [`Error::Limit`] for a record that no file could hold, or a stream whose sequences have come
    /// to their end; [`Error::Poisoned`].
    /// Nothing has changed then.
    pub fn append(&mut self, id: StreamId, append: Append) -> Result<u64, Error> {
        self.check_writable()?;
        let stream = self.streams.get_mut(&id).ok_or(Error::NoSuchStream(id))?;
        let seq = check_seq(stream.last_seq.saturating_add(1))?;
        append_to(stream, &mut self.digest, &mut self.upkeep, seq, append)?;
        Ok(seq)
    }

    /// Appends one message at a sequence of the caller's (mirrors, restored streams); the sequences that it jumps over
    /// stay empty.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] when `seq` is not above the last one; those of [`Store::append`].
    pub fn append_at(&mut self, id: StreamId, seq: u64, append: Append) -> Result<(), Error> {
        self.check_writable()?;
        let stream = self.streams.get_mut(&id).ok_or(Error::NoSuchStream(id))?;
        if check_seq(seq)? <= stream.last_seq {
            return Err(Error::OutOfOrder {
                seq,
                last: stream.last_seq,
            });
        }
        append_to(stream, &mut self.digest, &mut self.upkeep, seq, append)?;
        Ok(())
    }

    /// Gives out `count` sequences without messages; returns the stream's last sequence.
    ///
    /// # Errors
    /// [`Error::NoSuchStream`]; [`Error::Limit`] when the sequences would overflow; [`Error::Poisoned`].
    pub fn skip(&mut self, id: StreamId, count: u64) -> Result<u64, Error> {
        self.check_writable()?;
        let stream = self.streams.get_mut(&id).ok_or(Error::NoSuchStream(id))?;
        let last = check_seq(stream.last_seq.saturating_add(count))?;
        self.upkeep.settle(stream);
        stream.skip_to(last);
        self.upkeep.note_dirty(stream);
        self.digest.fold(Change::Skip, &[id.0, last]);
        Ok(last)
    }

    /// Whether the stream can give out `count` more sequences.
    ///
    /// # Errors
    /// [`Error::NoSuchStream`]; [`Error::Limit`].
    pub fn check_sequences(&self, id: StreamId, count: u64) -> Result<(), Error> {
        check_seq(self.stream(id)?.last_seq.saturating_add(count)).map(drop)
    }

    /// Reads one message; `None` when the sequence holds none. O(1) from the tail, one page from a segment.
    ///
    /// # Errors
    /// [`Error::NoSuchStream`]; [`Error::Corrupt`] or [`Error::Io`] when its page cannot be read.
    pub fn get(&self, id: StreamId, seq: u64) -> Result<Option<Message>, Error> {
        self.stream(id)?.get(&self.io, seq)
    }

    /// The first sequence at or after `seq` that holds a message.
    #[must_use]
    pub fn first_at_or_after(&self, id: StreamId, seq: u64) -> Option<u64> {
        self.streams.get(&id)?.first_at_or_after(seq)
    }

    /// The last sequence at or before `seq` that holds a message.
    #[must_use]
    pub fn last_at_or_before(&self, id: StreamId, seq: u64) -> Option<u64> {
        self.streams.get(&id)?.last_at_or_before(seq)
    }

    /// The first sequence whose message was stored at or after `time`; last sequence + 1 if there is none.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn seq_at_time(&self, id: StreamId, time: Timestamp) -> Result<u64, Error> {
        self.stream(id)?.seq_at_time(&self.io, time)
    }

    /// The subject's last message. O(1), from memory.
    #[must_use]
    pub fn last_for_subject(&self, id: StreamId, subject: &[u8]) -> Option<u64> {
        let stream = self.streams.get(&id)?;
        let number = stream.subjects.find(subject)?;
        Some(stream.subjects.totals(number).last)
    }

    /// The last sequence ever given in the stream, whether the message is still there or not; 0 for none. O(1).
    #[must_use]
    pub fn last_seq(&self, id: StreamId) -> u64 {
        self.streams.get(&id).map_or(0, |stream| stream.last_seq)
    }

    /// The last message at or before `up_to` that the filters match.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn last_matching(
        &self,
        id: StreamId,
        filters: &Filters,
        up_to: u64,
    ) -> Result<Option<u64>, Error> {
        self.stream(id)?.last_matching(&self.io, filters, up_to)
    }

    /// The first message at or after `from` that the filters match.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn next_matching(
        &self,
        id: StreamId,
        filters: &Filters,
        from: u64,
    ) -> Result<Option<u64>, Error> {
        self.stream(id)?.next_matching(&self.io, filters, from)
    }

    /// How many messages at or after `from` the filters match.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn count_matching(&self, id: StreamId, filters: &Filters, from: u64) -> Result<u64, Error> {
        self.stream(id)?.count_matching(&self.io, filters, from)
    }

    /// Subjects that have messages and match, sorted, at most `limit` of them after `after`.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn subjects(
        &self,
        id: StreamId,
        filters: &Filters,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<SubjectTotals>, Error> {
        self.stream(id)?
            .subjects_page(&self.io, filters, after, limit)
    }

    /// How many subjects have messages and match, and of these, sorted, at most `limit` after the first `offset`, each with
    /// its number of messages. From memory; whole stretches of subjects before `offset` are passed over.
    ///
    /// # Errors
    /// [`Error::NoSuchStream`].
    pub fn subject_counts(
        &self,
        id: StreamId,
        filter: &Filter,
        offset: u64,
        limit: usize,
    ) -> Result<(u64, Vec<(Bytes, u64)>), Error> {
        Ok(self.stream(id)?.subject_counts(filter, offset, limit))
    }

    /// Goes on where [`Store::subject_counts`] has ended: the next `limit` subjects behind `after`.
    ///
    /// # Errors
    /// [`Error::NoSuchStream`].
    pub fn subject_counts_after(
        &self,
        id: StreamId,
        filter: &Filter,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, u64)>, Error> {
        Ok(self.stream(id)?.subject_counts_after(filter, after, limit))
    }

    /// One subject's totals; `None` when it has no message.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn subject_totals(
        &self,
        id: StreamId,
        subject: &[u8],
    ) -> Result<Option<SubjectTotals>, Error> {
        let stream = self.stream(id)?;
        stream
            .subjects
            .find(subject)
            .map(|number| stream.totals_of(&self.io, number))
            .transpose()
    }

    /// How many messages a subject has; 0 for none. O(1), from memory: for limits per subject.
    #[must_use]
    pub fn subject_messages(&self, id: StreamId, subject: &[u8]) -> u64 {
        let found = self
            .streams
            .get(&id)
            .and_then(|stream| Some((stream, stream.subjects.find(subject)?)));
        found.map_or(0, |(stream, number)| {
            stream.subjects.totals(number).messages.into()
        })
    }

    /// Removes one message; `false` when the sequence holds none.
    ///
    /// # Errors
    /// As [`Store::get`], and [`Error::Poisoned`]; nothing has changed then.
    pub fn delete(&mut self, id: StreamId, seq: u64, erase: Erase) -> Result<bool, Error> {
        self.check_writable()?;
        let stream = self.streams.get_mut(&id).ok_or(Error::NoSuchStream(id))?;
        self.upkeep.settle(stream);
        let weight = stream.tail.weight();
        let removal = stream.remove(&self.io, seq)?;
        panic_if_planted("panic-in-delete", id == StreamId(1));
        self.digest
            .fold(Change::Delete, &[id.0, seq, removal.messages]);
        self.note_removal(id, &removal, erase, weight);
        Ok(removal.messages > 0)
    }

    /// Removes the stream's first message (limits); returns its sequence, `None` when there is none.
    ///
    /// # Errors
    /// As [`Store::delete`].
    pub fn remove_first(&mut self, id: StreamId) -> Result<Option<u64>, Error> {
        let first = self.stream(id)?.first_at_or_after(0);
        if let Some(seq) = first {
            self.delete(id, seq, Erase::No)?;
        }
        Ok(first)
    }

    /// Removes what `purge` describes; returns how many messages. O(1) for everything, O(subjects) for a prefix of the
    /// stream, O(matches) otherwise.
    ///
    /// # Errors
    /// As [`Store::delete`].
    pub fn purge(&mut self, id: StreamId, purge: &Purge, erase: Erase) -> Result<u64, Error> {
        self.check_writable()?;
        let stream = self.streams.get_mut(&id).ok_or(Error::NoSuchStream(id))?;
        self.upkeep.settle(stream);
        let weight = stream.tail.weight();
        let removal = stream.purge(&self.io, purge)?;
        let after = (stream.first_seq, stream.bytes);
        self.digest
            .fold(Change::Purge, &[id.0, removal.messages, after.0, after.1]);
        self.note_removal(id, &removal, erase, weight);
        Ok(removal.messages)
    }

    /// The stream's counters.
    ///
    /// # Errors
    /// As [`Store::get`] (the first message's time is read).
    pub fn state(&self, id: StreamId) -> Result<StreamState, Error> {
        self.stream(id)?.state(&self.io)
    }

    /// What the stream's messages count for in [`StreamState::bytes`]; 0 for no such stream. O(1), from memory.
    #[must_use]
    pub fn stream_bytes(&self, id: StreamId) -> u64 {
        self.streams.get(&id).map_or(0, |stream| stream.bytes)
    }

    /// Sequences without a message between the stream's first and last, inside the range, at most `limit`.
    #[must_use]
    pub fn deleted(
        &self,
        id: StreamId,
        range: std::ops::RangeInclusive<u64>,
        limit: usize,
    ) -> Vec<u64> {
        let stream = self.streams.get(&id);
        stream.map_or_else(Vec::new, |stream| {
            stream.deleted(*range.start(), *range.end(), limit)
        })
    }

    /// The first message at or after `seq` that does not live for ever: the next that an age limit takes. Costs no more
    /// when many before it live for ever.
    #[must_use]
    pub fn first_ageing(&self, id: StreamId, seq: u64) -> Option<u64> {
        self.streams.get(&id)?.first_ageing(seq)
    }

    /// Whether any message has, or had, a life span of its own.
    #[must_use]
    pub fn has_life_spans(&self, id: StreamId) -> bool {
        let stream = self.streams.get(&id);
        stream.is_some_and(|stream| !stream.expiry.is_empty() || stream.has_eternal())
    }

    /// When a message was stored; `None` when the sequence holds none.
    ///
    /// # Errors
    /// As [`Store::get`]; the payload is not read.
    pub fn time_of(&self, id: StreamId, seq: u64) -> Result<Option<Timestamp>, Error> {
        let place = self.stream(id)?.find(&self.io, seq)?;
        Ok(place.map(|place| place.time()))
    }

    /// A message's subject; `None` when the sequence holds none.
    ///
    /// # Errors
    /// As [`Store::get`]; a payload that is damaged does not matter.
    pub fn subject_of(&self, id: StreamId, seq: u64) -> Result<Option<Bytes>, Error> {
        let place = self.stream(id)?.find(&self.io, seq)?;
        place.map(|place| place.subject(&self.io)).transpose()
    }

    /// The message whose own TTL ends first: when, and its sequence. Those that live for ever do not count, and a
    /// stream's maximum age is the caller's business.
    #[must_use]
    pub fn next_expiry(&self, id: StreamId) -> Option<(Timestamp, u64)> {
        self.streams.get(&id)?.expiry.first().copied()
    }

    /// Sets one of the machine's own records; durable with a flush that began later.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn put(&mut self, key: &[u8], value: Bytes) -> Result<(), Error> {
        self.check_writable()?;
        self.digest.fold_bytes(Change::Put, key, &value);
        let key = Bytes::copy_from_slice(key);
        self.upkeep.note_record(key.clone(), Some(value.clone()));
        self.records.insert(key, value);
        Ok(())
    }

    /// Removes a record; `false` when it was not there.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn remove(&mut self, key: &[u8]) -> Result<bool, Error> {
        self.check_writable()?;
        self.digest.fold_bytes(Change::RemoveRecord, key, &[]);
        let Some((key, _)) = self.records.remove_entry(key) else {
            return Ok(false);
        };
        self.upkeep.note_record(key, None);
        Ok(true)
    }

    /// Removes a record that [`Store::keep`] may have written, or not yet: how often there was a flush differs from replica to
    /// replica, so the digest does not tell. Unlike a removal by `keep` it belongs to the next cut.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn forget(&mut self, key: &[u8]) -> Result<(), Error> {
        self.check_writable()?;
        if let Some((key, _)) = self.records.remove_entry(key) {
            self.upkeep.note_record(key, None);
        }
        Ok(())
    }

    /// One record.
    #[must_use]
    pub fn record(&self, key: &[u8]) -> Option<Bytes> {
        self.records.get(key).cloned()
    }

    /// Records whose keys start with `prefix`, sorted by key.
    pub fn records<'a>(
        &'a self,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a Bytes)> + 'a {
        let from = self.records.range::<[u8], _>((
            std::ops::Bound::Included(prefix),
            std::ops::Bound::Unbounded,
        ));
        from.take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (&**key, value))
    }

    /// A digest of everything applied so far: equal on replicas at the same index.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest.0
    }

    /// Compresses the blocks of new segments, or no longer does. What is written already stays as it is.
    pub fn set_compress(&mut self, compress: bool) {
        self.options.compress = compress;
    }

    /// What the stream's indexes hold on the heap: subjects, dead runs, those that no age limit takes and remembered counts,
    /// in bytes. Messages of the tail and the order of expiry are not in it.
    #[must_use]
    pub fn index_bytes(&self, id: StreamId) -> usize {
        let stream = self.streams.get(&id);
        stream.map_or(0, |stream| {
            stream.subjects.heap_bytes()
                + stream.dead.heap_bytes()
                + stream.ageless.heap_bytes()
                + stream.counts.heap_bytes()
        })
    }

    /// Whether what is erased must be overwritten on the disk ([`Options::overwrite_freed`]).
    #[must_use]
    pub fn overwrites_freed(&self) -> bool {
        self.options.overwrite_freed
    }

    /// The directory of the store.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The sequence, if a message may have it.
fn check_seq(seq: u64) -> Result<u64, Error> {
    if seq > SEQUENCE_MAX {
        return Err(Error::Limit {
            what: "sequence",
            limit: SEQUENCE_MAX,
        });
    }
    Ok(seq)
}

fn append_to(
    stream: &mut Stream,
    digest: &mut Digest,
    upkeep: &mut Upkeep,
    seq: u64,
    append: Append,
) -> Result<(), Error> {
    let envelope = usize::from(append.subject_len) + append.headers_len as usize;
    if append.record.len() > RECORD_BYTES_MAX {
        return Err(Error::Limit {
            what: "bytes of a record",
            limit: RECORD_BYTES_MAX as u64,
        });
    }
    const _: () = assert!(
        u16::MAX as usize <= SUBJECT_BYTES_MAX,
        "subject_len cannot pass its limit"
    );
    assert!(
        envelope <= append.record.len(),
        "a record holds its subject and headers"
    );
    let (time, content) = (append.time, u64::from(checksum::sum(&append.record)));
    let operands = [stream.id.0, seq, time.as_nanos() as u64, content];
    upkeep.settle(stream);
    let weight = stream.tail.weight();
    stream.append(seq, append)?;
    panic_if_planted("panic-in-append", stream.id == StreamId(1));
    debug_assert_eq!(stream.last_seq, seq, "the newest message is the last");
    upkeep.dirty_weight += stream.tail.weight() - weight;
    upkeep.note_dirty(stream);
    digest.fold(Change::Append, &operands);
    Ok(())
}
