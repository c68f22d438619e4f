//! What a flush keeps of the machine beside the messages, as small records of the store.
//!
//! ```text
//! g                        time i64                       the group's committed time
//! s | id u64               configuration, creation, hash of the last message id (postcard around JSON)
//! h | id u64 | n u32       one generation of hashes of remembered message ids
//! d | id u64 | n u32       the same with the ids themselves, as before there were hashes; read, never written
//! e                        how far each replica is with erasing (postcard)
//! e | id u64               what was asked to be erased in a stream, also a dropped one (postcard)
//! b | id u64               open atomic batches (postcard)
//! c | id u64 | n u32       one consumer, in its own encoding
//! l                        bytes u64 that all streams together may hold; none for no limit
//! ```
//!
//! Numbers in keys are big endian, so that they sort. Records are written with the cut of a flush, or of a stream
//! that changes before its turn right before that, and become durable with the flush: they and the messages are of the
//! same applied index.

use bytes::Bytes;
use halyard_engine::{Store, StreamId, record_digest};
use halyard_runtime::contain::panic_if_planted;
use halyard_runtime::time::Timestamp;

use super::erasures;
use super::machine::Machine;
use crate::jetstream::stream::Stream;
use crate::jetstream::stream::dedupe::Record;
use crate::jetstream::stream::machine::Fault;

const GROUP: &[u8] = b"g";
const STREAM: u8 = b's';
const IDS: u8 = b'h';
const PLAIN_IDS: u8 = b'd';
const ERASURES: u8 = b'e';
const BATCHES: u8 = b'b';
const CONSUMER: u8 = b'c';
const LIMIT: &[u8] = b"l";

/// Why a group cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Fault),
    /// Where it stands in the log.
    #[error(transparent)]
    Standing(#[from] halyard_raft::BadStanding),
    /// A record that no version wrote. Nothing is changed.
    #[error("record {key} of the group's store cannot be read ({what}); restore it from a backup")]
    Record {
        /// Its key, escaped.
        key: String,
        /// What it should hold.
        what: &'static str,
    },
}

/// Streams whose records must be written with the next flush.
#[derive(Debug)]
pub(super) struct Unsaved {
    /// Number of the cut to come.
    cut: u64,
    /// Changed since the last cut.
    changed: Vec<StreamId>,
    /// Changed before the last cut and perhaps not saved yet.
    saving: Vec<StreamId>,
}

impl Default for Unsaved {
    fn default() -> Self {
        Self {
            cut: 1,
            changed: Vec::new(),
            saving: Vec::new(),
        }
    }
}

impl Unsaved {
    /// The stream is about to change. What the last cut still needs of it is saved first, as it is.
    ///
    /// # Errors
    /// The store failed.
    pub(super) fn note(
        &mut self,
        store: &mut Store,
        sum: &mut RecordSum,
        stream: &mut Stream,
    ) -> Result<(), Fault> {
        let since = stream.unsaved_since();
        if since == self.cut {
            return Ok(());
        }
        if since > 0 {
            save(store, sum, stream)?;
        }
        stream.set_unsaved_since(self.cut);
        self.changed.push(stream.id());
        Ok(())
    }
}

/// The digest of all records: a sum, so that it says nothing of when each of them was written last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordSum(u64);

impl RecordSum {
    /// What a record counts for. The number of a generation of message ids is not the same everywhere: a start forgets how many
    /// there have been.
    fn of(key: &[u8], value: &[u8]) -> u64 {
        let key = match key.first() {
            Some(&IDS) => key.get(..1 + size_of::<u64>()).unwrap_or(key),
            _ => key,
        };
        record_digest(key, value)
    }

    /// That of a store that was opened.
    pub(super) fn new(store: &Store) -> Self {
        let records = store.records(&[]);
        Self(records.fold(0, |sum, (key, value)| {
            sum.wrapping_add(Self::of(key, value))
        }))
    }

    pub(super) const fn value(self) -> u64 {
        self.0
    }

    /// Writes or removes a record.
    fn keep(&mut self, store: &mut Store, key: &[u8], value: Option<Bytes>) -> Result<(), Fault> {
        let of = |value: Option<&Bytes>| value.map_or(0, |value| Self::of(key, value));
        let (before, after) = (of(store.record(key).as_ref()), of(value.as_ref()));
        store.keep(key, value)?;
        self.0 = self.0.wrapping_sub(before).wrapping_add(after);
        Ok(())
    }

    /// Removes a record for good.
    fn forget(&mut self, store: &mut Store, key: &[u8]) -> Result<(), Fault> {
        let before = store.record(key).map_or(0, |value| Self::of(key, &value));
        store.forget(key)?;
        self.0 = self.0.wrapping_sub(before);
        Ok(())
    }
}

/// Writes the records of one stream that changed since they were last written.
fn save(store: &mut Store, sum: &mut RecordSum, stream: &mut Stream) -> Result<(), Fault> {
    let id = stream.id();
    stream.set_unsaved_since(0);
    if let Some(record) = stream.take_record() {
        sum.keep(store, &key(STREAM, id), Some(record.into()))?;
    }
    panic_if_planted("panic-in-records", id == StreamId(1));
    for record in stream.take_ids() {
        match record {
            Record::Put(number, bytes) => {
                sum.keep(store, &numbered(IDS, id, number), Some(bytes.into()))?;
            }
            Record::Remove(number) => sum.keep(store, &numbered(IDS, id, number), None)?,
        }
    }
    if let Some(record) = stream.take_batches() {
        let record = (!record.is_empty()).then(|| record.into());
        sum.keep(store, &key(BATCHES, id), record)?;
    }
    let mut changed = Vec::new();
    stream
        .consumers_mut()
        .take_dirty(|number, bytes| changed.push((number, bytes)));
    for (number, bytes) in changed {
        sum.keep(
            store,
            &numbered(CONSUMER, id, number),
            bytes.map(Into::into),
        )?;
    }
    Ok(())
}

impl Machine {
    /// The store has made a cut: what it needs beside the messages is written now, or stream by stream.
    ///
    /// # Errors
    /// The store failed.
    pub(super) fn open_cut(&mut self) -> Result<(), Fault> {
        self.save_group()?;
        let unsaved = &mut self.unsaved;
        assert!(unsaved.saving.is_empty(), "the cut before has its records");
        unsaved.saving = std::mem::take(&mut unsaved.changed);
        unsaved.cut += 1;
        Ok(())
    }

    /// A digest of everything applied so far, records included: the same on every replica at the same entry, however often each
    /// has flushed. `None` where it cannot be told now: while a cut waits for its records, or something is not as it should be.
    ///
    /// # Errors
    /// The store failed.
    pub fn digest(&mut self) -> Result<Option<u64>, Fault> {
        if self.fault().is_some() || !self.halted().is_empty() || self.store.is_cut_open() {
            return Ok(None);
        }
        self.save_group()?;
        for id in self.unsaved.changed.clone() {
            if let Some(stream) = self.streams.get_mut(&id) {
                save(&mut self.store, &mut self.record_sum, stream)?;
            }
        }
        self.unsaved.changed.clear();
        let records = self.record_sum.value();
        Ok(Some(self.store.digest().rotate_left(32) ^ records))
    }

    /// What is of no stream.
    fn save_group(&mut self) -> Result<(), Fault> {
        let time = self.time.as_nanos().to_le_bytes();
        self.record_sum
            .keep(&mut self.store, GROUP, Some(time.to_vec().into()))?;
        let limit = self.held.bytes_max.map(u64::to_le_bytes);
        self.record_sum.keep(
            &mut self.store,
            LIMIT,
            limit.map(|limit| limit.to_vec().into()),
        )?;
        self.save_erasures()
    }

    /// Writes the records of so many streams that the last cut waits for. Whether there are more.
    ///
    /// # Errors
    /// The store failed.
    pub(super) fn save_some(&mut self, streams_max: usize) -> Result<bool, Fault> {
        for _ in 0..streams_max {
            let Some(id) = self.unsaved.saving.pop() else {
                return Ok(false);
            };
            if self.store.is_broken(id) {
                // The flush waits until it is gone.
                continue;
            }
            self.attempt(id, |machine| {
                let saved = 1..machine.unsaved.cut;
                let waits = |stream: &&mut Stream| saved.contains(&stream.unsaved_since());
                match machine.streams.get_mut(&id).filter(waits) {
                    Some(stream) => save(&mut machine.store, &mut machine.record_sum, stream),
                    None => Ok(()),
                }
            })?;
        }
        Ok(!self.unsaved.saving.is_empty())
    }

    fn save_erasures(&mut self) -> Result<(), Fault> {
        for record in self.erasures.take_records() {
            match record {
                erasures::Record::Replicas(bytes) => {
                    self.record_sum
                        .keep(&mut self.store, &[ERASURES], Some(bytes.into()))?;
                }
                erasures::Record::Stream(id, bytes) => {
                    self.record_sum.keep(
                        &mut self.store,
                        &key(ERASURES, id),
                        Some(bytes.into()),
                    )?;
                }
                erasures::Record::Forgotten(id) => {
                    self.record_sum
                        .keep(&mut self.store, &key(ERASURES, id), None)?;
                }
            }
        }
        Ok(())
    }

    /// Reads everything back. With `told`, what cannot be read is left out and told, as the store lacks some of it.
    pub(super) fn load(&mut self, mut told: Option<&mut Vec<String>>) -> Result<(), OpenError> {
        let told = &mut told;
        let is_plain = self.load_streams(told)?;
        for (key, record) in collect(self, &[ERASURES]) {
            let stream = split(&key).map(|(id, _)| id);
            if !self.erasures.load(stream, &record) {
                pass(damaged(&key, "what is to be erased"), told)?;
            }
        }
        for (key, record) in collect(self, &[BATCHES]) {
            let stream = split(&key).and_then(|(id, _)| self.streams.get_mut(&id));
            if !stream.is_some_and(|stream| stream.load_batches(&record)) {
                pass(damaged(&key, "batches of a known stream"), told)?;
            }
        }
        for (key, record) in collect(self, &[CONSUMER]) {
            let loaded = split(&key).and_then(|(id, number)| {
                let stream = self.streams.get_mut(&id)?;
                stream.consumers_mut().load(number, &record).ok()
            });
            if loaded.is_none() {
                pass(damaged(&key, "a known stream's consumer"), told)?;
            }
        }
        if is_plain && told.is_none() {
            // Message ids in the clear, from before there were hashes, leave the disk once the next flush has these.
            for stream in self.streams.values_mut() {
                self.unsaved
                    .note(&mut self.store, &mut self.record_sum, stream)?;
            }
            self.store.erase_records(&[STREAM])?;
            self.store.erase_records(&[PLAIN_IDS])?;
        }
        Ok(())
    }

    /// Streams and the message ids that they remember; whether any of it was in the clear.
    fn load_streams(&mut self, told: &mut Option<&mut Vec<String>>) -> Result<bool, OpenError> {
        let mut is_plain = false;
        if let Some(time) = self.store.record(GROUP) {
            match time.first_chunk::<8>() {
                Some(time) => self.time = Timestamp::from_nanos(i64::from_le_bytes(*time)),
                None => pass(damaged(GROUP, "a time"), told)?,
            }
        }
        if let Some(limit) = self.store.record(LIMIT) {
            let limit = limit
                .first_chunk::<8>()
                .ok_or_else(|| damaged(LIMIT, "a number of bytes"))?;
            self.held.bytes_max = Some(u64::from_le_bytes(*limit));
        }
        for (key, record) in collect(self, &[STREAM]) {
            let loaded = split(&key).and_then(|(id, _)| Some((id, Stream::load(id, &record)?)));
            let Some((id, loaded)) = loaded else {
                pass(damaged(&key, "a stream"), told)?;
                continue;
            };
            is_plain |= loaded.is_plain;
            self.note_compression(loaded.stream.config());
            self.streams.insert(id, loaded.stream);
        }
        for (key, record) in collect(self, &[PLAIN_IDS]) {
            is_plain = true;
            let found = split(&key).and_then(|(id, number)| {
                let stream = self.streams.get_mut(&id)?;
                Some(stream.ids_mut().load_plain(number, &record))
            });
            if found != Some(true) {
                pass(damaged(&key, "message ids of a known stream"), told)?;
            }
            if told.is_none() {
                self.record_sum.keep(&mut self.store, &key, None)?;
            }
        }
        for (key, record) in collect(self, &[IDS]) {
            let found = split(&key).and_then(|(id, number)| {
                let stream = self.streams.get_mut(&id)?;
                Some(stream.ids_mut().load(number, &record))
            });
            if found != Some(true) {
                pass(damaged(&key, "message ids of a known stream"), told)?;
            }
        }
        Ok(is_plain)
    }

    /// Removes every record of a stream that is dropped.
    pub(super) fn remove_records(&mut self, id: StreamId) -> Result<(), Fault> {
        for prefix in keys_of(id) {
            for (key, _) in collect(self, &prefix) {
                self.record_sum.forget(&mut self.store, &key)?;
            }
        }
        Ok(())
    }
}

fn collect(machine: &Machine, prefix: &[u8]) -> Vec<(Vec<u8>, bytes::Bytes)> {
    machine
        .store
        .records(prefix)
        .map(|(key, record)| (key.to_vec(), record.clone()))
        .collect()
}

fn key(kind: u8, id: StreamId) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

/// How the keys of all of a stream's records begin.
pub(super) fn keys_of(id: StreamId) -> [Vec<u8>; 5] {
    [STREAM, IDS, PLAIN_IDS, BATCHES, CONSUMER].map(|kind| key(kind, id))
}

/// The key of a stream's open atomic batches, the one record that holds messages.
pub(super) fn batches_key(id: StreamId) -> Vec<u8> {
    key(BATCHES, id)
}

fn numbered(kind: u8, id: StreamId, number: u32) -> Vec<u8> {
    let mut key = key(kind, id);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Stream and number of a key; 0 for a key without a number.
fn split(key: &[u8]) -> Option<(StreamId, u32)> {
    let (id, rest) = key.get(1..)?.split_first_chunk::<8>()?;
    let number = rest
        .first_chunk::<4>()
        .map_or(0, |number| u32::from_be_bytes(*number));
    Some((StreamId(u64::from_be_bytes(*id)), number))
}

/// A record that cannot be read: an error, or only told.
fn pass(error: OpenError, told: &mut Option<&mut Vec<String>>) -> Result<(), OpenError> {
    match told {
        Some(told) => {
            told.push(error.to_string());
            Ok(())
        }
        None => Err(error),
    }
}

fn damaged(key: &[u8], what: &'static str) -> OpenError {
    OpenError::Record {
        key: key.escape_ascii().to_string(),
        what,
    }
}
