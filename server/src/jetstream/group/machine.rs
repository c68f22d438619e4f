//! What applying an entry does: every command in order, at the entry's time. Total and deterministic.
//!
//! The first failure of the store ends the machine: from there on every command is answered [`Reply::Unknown`], nothing
//! is flushed, and the driver stops serving. What was acknowledged before is in the log.
//!
//! Damage that a command meets while reading its stream halts that stream alone (docs/decisions/damaged-stream.md): its
//! commands change nothing from there on and are answered [`Reply::Unknown`], until the stream is deleted, purged as a
//! whole, or the file is repaired and the machine opened again. What of it can be read is still served, and all other
//! streams go on. Meanwhile nothing is flushed, so the log keeps every command that the halted stream has not taken. A panic
//! in a command of one stream halts it, too (`halt`), until the stream is deleted.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use halyard_engine::{Erase, Finished, Job, JobDone, SEQUENCE_MAX, Store, StreamId};
use halyard_raft::{self as raft, Standing};
use halyard_runtime::time::Timestamp;

use super::command::{self, Batch, Command, Publish, StreamCreate, StreamUpdate};
use super::erasures::Erasures;
use super::halt::{Contained, Halt};
use super::records::{RecordSum, Unsaved, batches_key};
use crate::jetstream::checkpoint::{checkpoint_at, standing_of};
use crate::jetstream::config::{Compression, StreamConfig};
use crate::jetstream::consumer;
use crate::jetstream::limits::EXPIRED_PER_TICK_MAX;
use crate::jetstream::stream::headers;
use crate::jetstream::stream::machine::{Fault, Held};
use crate::jetstream::stream::publish::Stored;
use crate::jetstream::stream::{Refusal, Stream, Turn};

/// The answer to one command.
#[derive(Debug)]
pub enum Reply {
    /// A message was stored under this sequence.
    Stored(u64),
    /// A message had been stored before, under this sequence.
    Duplicate(u64),
    /// A member of an atomic batch waits for the rest: an empty answer.
    Staged,
    /// An atomic batch was stored.
    Batch {
        /// Sequence of its last member.
        last: u64,
        /// Members.
        count: u64,
        /// Its id, for the acknowledgement.
        id: Box<[u8]>,
    },
    /// Done, nothing to tell.
    Done,
    /// So many messages were removed.
    Removed(u64),
    /// The consumers' answer.
    Consumer(consumer::Reply),
    /// Nothing changed, and this is why.
    Refused(Refusal),
    /// There is no such stream in this group.
    NoStream,
    /// Not known: the machine stopped before or at it. Answered by silence.
    Unknown,
}

/// The answers to one entry.
#[derive(Debug, Default)]
pub struct Applied {
    /// One for each command, in order.
    pub replies: Vec<Reply>,
    /// What the leader's driver should do besides answering.
    pub effects: Vec<(StreamId, consumer::Effect)>,
}

/// The state of one group.
pub struct Machine {
    pub(super) store: Store,
    pub(super) streams: BTreeMap<StreamId, Stream>,
    /// When something is due, at the latest; an entry may be too early, never too late.
    deadlines: BTreeSet<(Timestamp, StreamId)>,
    registered: BTreeMap<StreamId, Timestamp>,
    pub(super) time: Timestamp,
    pub(super) erasures: Erasures,
    standing: Standing,
    /// What all streams hold together, as of the last command.
    pub(super) held: Held,
    /// Bytes of the entries applied since the last cut.
    logged_bytes: u64,
    fault: Option<Fault>,
    /// An entry is being applied: seen from outside, one was not to its end.
    pub(super) is_applying: bool,
    pub(super) halted: BTreeMap<StreamId, Halt>,
    pub(super) unsaved: Unsaved,
    pub(super) record_sum: RecordSum,
}

impl Machine {
    /// A machine over an opened store, as its records say.
    ///
    /// # Errors
    /// The store failed, or holds a record that cannot be read.
    pub fn open(store: Store) -> Result<Self, super::records::OpenError> {
        Self::open_with(store, None)
    }

    /// A machine over a store that lacks something: records that cannot be read, or that belong to a stream that is not there,
    /// are left out and told. It is only to be read.
    ///
    /// # Errors
    /// The store failed.
    pub fn open_past_damage(
        store: Store,
        told: &mut Vec<String>,
    ) -> Result<Self, super::records::OpenError> {
        Self::open_with(store, Some(told))
    }

    fn open_with(
        store: Store,
        told: Option<&mut Vec<String>>,
    ) -> Result<Self, super::records::OpenError> {
        let standing = match (standing_of(&store), &told) {
            (Ok(standing), _) => standing,
            (Err(_), Some(_)) => store.applied().into(),
            (Err(error), None) => return Err(error.into()),
        };
        let mut machine = Self {
            standing,
            record_sum: RecordSum::new(&store),
            store,
            streams: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            registered: BTreeMap::new(),
            time: Timestamp::EPOCH,
            erasures: Erasures::default(),
            held: Held::default(),
            logged_bytes: 0,
            fault: None,
            is_applying: false,
            halted: BTreeMap::new(),
            unsaved: Unsaved::default(),
        };
        machine.load(told)?;
        machine.recount();
        for id in machine.streams.keys().copied().collect::<Vec<_>>() {
            if machine.store.last_seq(id) > SEQUENCE_MAX {
                machine.break_stream(id, &beyond(machine.store.last_seq(id)));
                continue;
            }
            machine.attempt(id, |machine| machine.register(id))?;
        }
        Ok(machine)
    }

    /// The store, for reads.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The store, for flushes and maintenance; everything else goes through entries.
    pub const fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// One stream.
    #[must_use]
    pub fn stream(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(&id)
    }

    /// Every stream, in the order of the ids.
    pub fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams.values()
    }

    /// Committed time: that of the last entry.
    #[must_use]
    pub const fn time(&self) -> Timestamp {
        self.time
    }

    /// What was asked to be erased, and who is done. Always empty where freed space needs no overwriting: in memory.
    #[must_use]
    pub const fn erasures(&self) -> &Erasures {
        &self.erasures
    }

    /// What all streams hold together, and how much that may be.
    #[must_use]
    pub const fn held(&self) -> Held {
        self.held
    }

    /// Index of the last entry.
    #[must_use]
    pub const fn applied(&self) -> u64 {
        self.standing.at.index
    }

    /// The last entry, and the replicas as of then.
    #[must_use]
    pub const fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Why it stopped, if it did.
    #[must_use]
    pub const fn fault(&self) -> Option<&Fault> {
        match self.is_applying {
            true => Some(&Fault::Panicked),
            false => self.fault.as_ref(),
        }
    }

    /// The streams that take no more commands, and why.
    #[must_use]
    pub const fn halted(&self) -> &BTreeMap<StreamId, Halt> {
        &self.halted
    }

    /// Stops it: nothing is decided any more.
    pub fn stop(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// Bytes of the log that only the next flush makes unneeded, about.
    #[must_use]
    pub const fn logged_bytes(&self) -> u64 {
        self.logged_bytes
    }

    /// Marks the state of now as what the next flush writes. Whether there is one to write: [`Machine::step`] prepares
    /// it, the store's `take_job` starts it.
    ///
    /// # Errors
    /// The store failed.
    pub fn cut(&mut self) -> Result<bool, Fault> {
        if self.fault().is_some() || !self.halted.is_empty() {
            // The log below a flush may go, and with it what the halted streams have not taken.
            return Ok(false);
        }
        let was_open = self.store.is_cut_open();
        let is_wanted = self.store.cut(checkpoint_at(&self.standing));
        if !was_open && self.store.is_cut_open() {
            self.logged_bytes = 0;
            self.open_cut()?;
        }
        Ok(is_wanted)
    }

    /// Does a bounded piece of what a flush or maintenance needs of the state: about `streams_max` streams. Whether there
    /// is more to do.
    ///
    /// # Errors
    /// The store failed.
    pub fn step(&mut self, streams_max: usize) -> Result<bool, Fault> {
        if self.is_applying {
            return Err(Fault::Panicked);
        }
        if self.store.is_cut_open() {
            if !self.save_some(streams_max)? {
                self.store.records_done();
            }
            return Ok(true);
        }
        let more = self.store.step(streams_max);
        self.note_broken();
        Ok(more)
    }

    /// Takes in what a job of the store did.
    ///
    /// # Errors
    /// As [`Store::accept`]; a stream that the job found to be broken is halted then.
    pub fn accept(&mut self, done: JobDone) -> Result<Finished, Fault> {
        let finished = self.store.accept(done);
        self.note_broken();
        finished
    }

    /// A flush, all steps in one; `None` if there is nothing to flush or none may begin.
    ///
    /// # Errors
    /// The store failed.
    pub fn begin_flush(&mut self) -> Result<Option<Job>, Fault> {
        while self.step(usize::MAX)? {}
        if !self.cut()? {
            return Ok(None);
        }
        while self.step(usize::MAX)? {}
        Ok(self.store.take_flush())
    }

    /// When a tick has something to do. It may turn out to be nothing.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(time, _)| *time)
    }

    fn apply_batch(&mut self, entry: &Bytes) -> Result<Applied, Fault> {
        let mut applied = Applied::default();
        let batch = match Batch::open(entry) {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(
                    "entry {} of the log is not a batch: {error}",
                    self.applied()
                );
                return Ok(applied);
            }
        };
        self.time = self.time.max(batch.time());
        applied.replies.reserve(batch.left().min(1 << 20) as usize);
        for command in batch {
            let reply = match command {
                Ok(command) => self.run_contained(command, &mut applied.effects),
                Err(error) => {
                    tracing::error!("entry {} of the log: {error}", self.applied());
                    Ok(Reply::Unknown)
                }
            };
            match reply {
                Ok(reply) => applied.replies.push(reply),
                Err(fault) => {
                    applied.replies.push(Reply::Unknown);
                    self.fault = Some(fault);
                    break;
                }
            }
        }
        Ok(applied)
    }

    pub(super) fn run(
        &mut self,
        command: Command,
        effects: &mut Vec<(StreamId, consumer::Effect)>,
    ) -> Result<Reply, Fault> {
        match command {
            Command::Publish(publish) => self.publish(publish, effects),
            Command::Tick => self.tick(effects),
            Command::StreamCreate(id, create) => self.create(id, *create),
            Command::StreamUpdate(id, update) => {
                let StreamUpdate { config } = *update;
                self.note_compression(&config);
                self.with_stream(id, effects, |stream, turn| {
                    stream.update(turn, config)?;
                    Ok(Reply::Done)
                })
            }
            Command::StreamDelete(id, account) => {
                effects.push((id, consumer::Effect::StreamDeleted));
                self.drop_stream(id, &account)
            }
            Command::Purge(id, purge) => self.with_stream(id, effects, |stream, turn| {
                Ok(stream
                    .purge(turn, &purge)?
                    .map_or_else(Reply::Refused, Reply::Removed))
            }),
            Command::MessageDelete(id, delete) => self.with_stream(id, effects, |stream, turn| {
                Ok(stream
                    .delete(turn, delete)?
                    .map_or_else(Reply::Refused, |()| Reply::Done))
            }),
            Command::Consumer(id, body) => self.with_stream(id, effects, |stream, turn| {
                Ok(Reply::Consumer(stream.consume(turn, &body)?))
            }),
            Command::Restore(id, body) => self.with_stream(id, effects, |stream, turn| {
                Ok(stream
                    .restore(turn, &body)?
                    .map_or_else(Reply::Refused, |()| Reply::Done))
            }),
            Command::Erased(erased) => {
                self.erasures.done(&erased, self.time);
                Ok(Reply::Done)
            }
            Command::Limit(limit) => {
                self.held.bytes_max = limit.bytes;
                Ok(Reply::Done)
            }
        }
    }

    fn publish(
        &mut self,
        publish: Publish,
        effects: &mut Vec<(StreamId, consumer::Effect)>,
    ) -> Result<Reply, Fault> {
        let id = publish.stream;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(Reply::NoStream);
        };
        self.unsaved
            .note(&mut self.store, &mut self.record_sum, stream)?;
        let before = (self.store.stream_bytes(id), stream.open_batches());
        let mut turn = Turn {
            store: &mut self.store,
            now: self.time,
            effects,
            erased: false,
            group: self.held,
        };
        let record = publish.record.clone();
        let start = usize::from(publish.subject_len);
        let block = start..start + publish.headers_len as usize;
        let stored = stream.publish(&mut turn, publish);
        let erased = turn.erased;
        // What is stored later ends later, unless it says otherwise: nothing needs to be read.
        let deadline = stream.deadline_of_new(&self.store, self.time);
        self.count(id, before);
        if erased {
            self.ask_erasure(id)?;
        }
        let reply = match stored? {
            Ok(Stored::As(seq)) => Reply::Stored(seq),
            Ok(Stored::Staged) => Reply::Staged,
            Ok(Stored::Batch { last, count }) => {
                let asked = headers::parse(record.get(block).unwrap_or_default());
                let id = asked.batch_id.unwrap_or_default().into();
                Reply::Batch { last, count, id }
            }
            Ok(Stored::Duplicate(seq)) => return Ok(Reply::Duplicate(seq)),
            Err(refusal) => return Ok(Reply::Refused(refusal)),
        };
        self.note_deadline(id, deadline);
        Ok(reply)
    }

    fn with_stream(
        &mut self,
        id: StreamId,
        effects: &mut Vec<(StreamId, consumer::Effect)>,
        run: impl FnOnce(&mut Stream, &mut Turn<'_>) -> Result<Reply, Fault>,
    ) -> Result<Reply, Fault> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(Reply::NoStream);
        };
        self.unsaved
            .note(&mut self.store, &mut self.record_sum, stream)?;
        let before = (self.store.stream_bytes(id), stream.open_batches());
        let mut turn = Turn {
            store: &mut self.store,
            now: self.time,
            effects,
            erased: false,
            group: self.held,
        };
        let reply = run(stream, &mut turn);
        let erased = turn.erased;
        self.count(id, before);
        // Also where it then met damage: what has gone must vanish.
        if erased {
            self.ask_erasure(id)?;
        }
        let reply = reply?;
        self.register(id)?;
        Ok(reply)
    }

    /// Counts what all streams hold anew: nobody knows how far a change has come.
    pub(super) fn recount(&mut self) {
        let (store, held) = (&self.store, &mut self.held);
        let bytes = self.streams.keys().map(|id| store.stream_bytes(*id));
        held.bytes = bytes.fold(0, u64::saturating_add);
        held.batches = self.streams.values().map(Stream::open_batches).sum();
    }

    /// A stream that held so many bytes and open batches has changed, or has gone.
    fn count(&mut self, id: StreamId, (bytes, batches): (u64, usize)) {
        let stream = self.streams.get(&id);
        let batches_now = stream.map_or(0, Stream::open_batches);
        let held = &mut self.held;
        held.bytes = held.bytes + self.store.stream_bytes(id) - bytes;
        held.batches = held.batches + batches_now - batches;
    }

    /// The entry being applied removed messages of a stream whose bytes must vanish: those of its open batches that were
    /// written, too, since what is deleted may have been in one.
    pub(super) fn ask_erasure(&mut self, id: StreamId) -> Result<(), Fault> {
        if self.store.overwrites_freed() {
            self.store.erase_records(&batches_key(id))?;
            self.erasures.ask(id, self.applied(), self.time);
        }
        Ok(())
    }

    fn create(&mut self, id: StreamId, create: StreamCreate) -> Result<Reply, Fault> {
        // Proposed again after a restart that did not know whether the first had been committed.
        if self.streams.contains_key(&id) {
            return Ok(Reply::Done);
        }
        let first_seq = create.config.first_seq.max(1);
        // The door takes no such sequence; a log of before may hold one.
        let is_beyond = first_seq > SEQUENCE_MAX;
        self.store
            .create_stream(id, if is_beyond { 1 } else { first_seq })?;
        self.note_compression(&create.config);
        let created = Timestamp::from_nanos(create.created);
        let mut stream = Stream::new(id, create.config, created);
        self.unsaved
            .note(&mut self.store, &mut self.record_sum, &mut stream)?;
        self.streams.insert(id, stream);
        if is_beyond {
            self.break_stream(id, &beyond(first_seq));
        }
        Ok(Reply::Done)
    }

    /// One stream that asks for compression has all of the group's new segments compressed: they hold many streams.
    pub(super) fn note_compression(&mut self, config: &StreamConfig) {
        if config.compression == Compression::S2 {
            self.store.set_compress(true);
        }
    }

    fn drop_stream(&mut self, id: StreamId, account: &[u8]) -> Result<Reply, Fault> {
        let Some(mut stream) = self.streams.remove(&id) else {
            return Ok(Reply::NoStream);
        };
        self.unsaved
            .note(&mut self.store, &mut self.record_sum, &mut stream)?;
        self.forget_deadline(id);
        let before = (self.store.stream_bytes(id), stream.open_batches());
        if self.store.last_seq(id) > 0 || stream.open_batches() > 0 {
            self.ask_erasure(id)?;
        }
        if self.erasures.pending_in(id) {
            let account = String::from_utf8_lossy(account);
            self.erasures.dropped(id, &account, &stream.config().name);
        } else {
            self.erasures.forget(id);
        }
        self.remove_records(id)?;
        self.store.drop_stream(id, Erase::Yes)?;
        self.count(id, before);
        Ok(Reply::Done)
    }

    fn tick(&mut self, effects: &mut Vec<(StreamId, consumer::Effect)>) -> Result<Reply, Fault> {
        let due: Vec<StreamId> = self
            .deadlines
            .iter()
            .take_while(|(time, _)| *time <= self.time)
            .map(|(_, id)| *id)
            .collect();
        let mut budget = EXPIRED_PER_TICK_MAX;
        for id in due {
            if budget == 0 {
                // It stays due, so the next tick follows at once.
                break;
            }
            self.forget_deadline(id);
            let told = effects.len();
            let ticked = self.attempt(id, |machine| {
                machine.with_stream(id, effects, |stream, turn| {
                    stream.tick(turn, &mut budget)?;
                    Ok(Reply::Done)
                })
            })?;
            if matches!(ticked, Contained::Halted) {
                effects.truncate(told);
            }
        }
        Ok(Reply::Done)
    }

    /// Makes sure that the stream's next deadline is known. One that is already known and earlier stays: it costs a
    /// tick that finds nothing, less than moving it with each message.
    fn register(&mut self, id: StreamId) -> Result<(), Fault> {
        let Some(stream) = self.streams.get(&id) else {
            return Ok(());
        };
        let deadline = stream.next_deadline(&self.store)?;
        self.note_deadline(id, deadline);
        Ok(())
    }

    fn note_deadline(&mut self, id: StreamId, deadline: Option<Timestamp>) {
        let Some(deadline) = deadline else {
            return;
        };
        match self.registered.get(&id) {
            Some(known) if *known <= deadline => {}
            _ => {
                self.forget_deadline(id);
                self.registered.insert(id, deadline);
                self.deadlines.insert((deadline, id));
            }
        }
    }

    pub(super) fn forget_deadline(&mut self, id: StreamId) {
        if let Some(known) = self.registered.remove(&id) {
            self.deadlines.remove(&(known, id));
        }
    }
}

/// What is said of a stream whose sequences begin beyond what any may have.
fn beyond(seq: u64) -> String {
    format!("its sequences are at {seq}, beyond the last that there can be, {SEQUENCE_MAX}")
}

impl raft::Machine for Machine {
    type Reply = Applied;

    fn check(&self, payload: &Bytes) -> Result<(), raft::Unreadable> {
        command::check(payload).map_err(|error| raft::Unreadable(error.to_string()))
    }

    fn apply(&mut self, at: raft::LogId, payload: &Bytes) -> Applied {
        if self.fault().is_some() {
            return Applied::default();
        }
        let before = std::mem::replace(&mut self.standing.at, at);
        self.logged_bytes += payload.len() as u64;
        self.is_applying = true;
        // What panics outside of a stream's command leaves it set.
        let applied = self.apply_batch(payload);
        self.is_applying = false;
        match applied {
            Ok(applied) if self.fault.is_none() => applied,
            Ok(applied) => {
                self.standing.at = before;
                applied
            }
            Err(fault) => {
                self.standing.at = before;
                self.fault = Some(fault);
                Applied::default()
            }
        }
    }

    fn membership(&mut self, membership: &raft::Membership) {
        self.standing.membership = membership.clone();
    }
}
