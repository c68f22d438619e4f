//! What a flush keeps of the machine beside the messages, as small records of the store.
//!
//! ```text
//! g                        time i64                       the group's committed time
//! s | id u64               configuration, creation, last message id (postcard around JSON)
//! d | id u64 | n u32       one generation of remembered message ids
//! b | id u64               open atomic batches (postcard)
//! c | id u64 | n u32       one consumer, in its own encoding
//! ```
//!
//! Numbers in keys are big endian, so that they sort. Records are written right before a flush begins and become
//! durable with it: they and the messages are of the same applied index.

use halyard_engine::StreamId;
use halyard_runtime::time::Timestamp;

use super::machine::Machine;
use crate::jetstream::stream::Stream;
use crate::jetstream::stream::dedupe::Record;
use crate::jetstream::stream::machine::Fault;

const GROUP: &[u8] = b"g";
const STREAM: u8 = b's';
const IDS: u8 = b'd';
const BATCHES: u8 = b'b';
const CONSUMER: u8 = b'c';

/// Why a group cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Fault),
    /// A record that no version wrote. Nothing is changed.
    #[error("record {key} of the group's store cannot be read ({what}); restore it from a backup")]
    Record {
        /// Its key, escaped.
        key: String,
        /// What it should hold.
        what: &'static str,
    },
}

impl Machine {
    /// Writes what changed since the last flush; call right before one begins.
    ///
    /// # Errors
    /// The store failed.
    pub fn save_records(&mut self) -> Result<(), Fault> {
        let time = self.time.as_nanos().to_le_bytes();
        self.store.put(GROUP, time.to_vec().into())?;
        for (id, stream) in &mut self.streams {
            if let Some(record) = stream.take_record() {
                self.store.put(&key(STREAM, *id), record.into())?;
            }
            for record in stream.take_ids() {
                match record {
                    Record::Put(number, bytes) => {
                        self.store.put(&numbered(IDS, *id, number), bytes.into())?;
                    }
                    Record::Remove(number) => {
                        self.store.remove(&numbered(IDS, *id, number))?;
                    }
                }
            }
            match stream.take_batches() {
                Some(record) if record.is_empty() => {
                    self.store.remove(&key(BATCHES, *id))?;
                }
                Some(record) => self.store.put(&key(BATCHES, *id), record.into())?,
                None => {}
            }
            let mut changed = Vec::new();
            stream
                .consumers_mut()
                .take_dirty(|number, bytes| changed.push((number, bytes)));
            for (number, bytes) in changed {
                let key = numbered(CONSUMER, *id, number);
                match bytes {
                    Some(bytes) => self.store.put(&key, bytes.into())?,
                    None => {
                        self.store.remove(&key)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads everything back.
    pub(super) fn load(&mut self) -> Result<(), OpenError> {
        if let Some(time) = self.store.record(GROUP) {
            let time = time
                .first_chunk::<8>()
                .ok_or_else(|| damaged(GROUP, "a time"))?;
            self.time = Timestamp::from_nanos(i64::from_le_bytes(*time));
        }
        for (key, record) in collect(self, &[STREAM]) {
            let (id, _) = split(&key).ok_or_else(|| damaged(&key, "a stream's key"))?;
            let stream = Stream::load(id, &record).ok_or_else(|| damaged(&key, "a stream"))?;
            self.note_compression(stream.config());
            self.streams.insert(id, stream);
        }
        for (key, record) in collect(self, &[IDS]) {
            let (id, number) =
                split(&key).ok_or_else(|| damaged(&key, "the key of message ids"))?;
            let stream = self
                .streams
                .get_mut(&id)
                .ok_or_else(|| damaged(&key, "ids of a known stream"))?;
            if !stream.ids_mut().load(number, &record) {
                return Err(damaged(&key, "message ids"));
            }
        }
        for (key, record) in collect(self, &[BATCHES]) {
            let (id, _) = split(&key).ok_or_else(|| damaged(&key, "the key of batches"))?;
            let stream = self.streams.get_mut(&id);
            if !stream.is_some_and(|stream| stream.load_batches(&record)) {
                return Err(damaged(&key, "batches of a known stream"));
            }
        }
        for (key, record) in collect(self, &[CONSUMER]) {
            let (id, number) = split(&key).ok_or_else(|| damaged(&key, "a consumer's key"))?;
            let stream = self
                .streams
                .get_mut(&id)
                .ok_or_else(|| damaged(&key, "a known stream's consumer"))?;
            stream
                .consumers_mut()
                .load(number, &record)
                .map_err(|_| damaged(&key, "a consumer"))?;
        }
        Ok(())
    }

    /// Removes every record of a stream that is dropped.
    pub(super) fn remove_records(&mut self, id: StreamId) -> Result<(), Fault> {
        for kind in [STREAM, IDS, BATCHES, CONSUMER] {
            for (key, _) in collect(self, &key(kind, id)) {
                self.store.remove(&key)?;
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

fn damaged(key: &[u8], what: &'static str) -> OpenError {
    OpenError::Record {
        key: key.escape_ascii().to_string(),
        what,
    }
}
