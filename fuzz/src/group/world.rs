//! Two machines behind the doors of the API.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use halyard_backup::consumer::{Pending, Position, State};
use halyard_backup::item::{self, Stated};
use halyard_engine::{Filters, Options, Store, StreamId};
use halyard_raft::{LogId, Machine as _};
use halyard_runtime::disk::MemDisk;
use halyard_runtime::time::Timestamp;
use halyard_server::jetstream::api::json;
use halyard_server::jetstream::backup::RULES;
use halyard_server::jetstream::backup::consumer::{restored, state_of};
use halyard_server::jetstream::config::{
    Defaults, StreamConfig, check_create, check_restore, check_update, normalize,
};
use halyard_server::jetstream::consumer::command::{Ack, Verb};
use halyard_server::jetstream::consumer::request::{CreateRequest, Form, prepare};
use halyard_server::jetstream::consumer::{Action, Command, Grant, StoreMessages};
use halyard_server::jetstream::group::command::{
    self, Erased, Kind, MessageDelete, Purge, StreamCreate, StreamUpdate, encode_cold,
};
use halyard_server::jetstream::group::{Machine, Reply};
use halyard_server::jetstream::stream::restore as body;

use super::op::{Backup, ConsumerShape, ConsumerState, FILTERS, Op, SUBJECTS, StreamShape, pick};
use crate::number::{NOW, Number};

/// Names that streams have; one stream each at one time.
const NAMES: [&str; 3] = ["A", "B", "C"];
const CONSUMERS: [&str; 3] = ["x", "y", "z"];
/// Messages that a purge keeps are looked up one by one: so many are enough.
const KEEP_MAX: u64 = 1000;

/// The machines, and the log that made them.
pub struct World {
    disk: Arc<MemDisk>,
    /// Flushes, merges, restarts.
    machine: Machine,
    /// Only applies.
    other: Machine,
    log: Vec<Bytes>,
    now: i64,
    streams: BTreeMap<&'static str, StreamId>,
    next_id: u64,
}

fn open(disk: &Arc<MemDisk>) -> Machine {
    Machine::open(open_store(disk)).expect("its records can be read")
}

fn open_store(disk: &Arc<MemDisk>) -> Store {
    let options = Options {
        reserve_bytes: 0,
        merge_width: 2,
        ..Options::default()
    };
    let opened = Store::open(disk.clone(), Path::new("/g"), options);
    opened.expect("a store opens").0
}

impl Default for World {
    /// With one stream that takes everything, so that most of what is done finds something to do.
    fn default() -> Self {
        let disk = Arc::new(MemDisk::new());
        let mut world = Self {
            machine: open(&disk),
            disk,
            other: open(&Arc::new(MemDisk::new())),
            log: Vec::new(),
            now: NOW,
            streams: BTreeMap::new(),
            next_id: 1,
        };
        let config = StreamConfig {
            name: "A".to_owned(),
            subjects: vec!["A.>".to_owned()],
            allow_msg_ttl: true,
            allow_rollup_hdrs: true,
            allow_atomic: true,
            ..StreamConfig::default()
        };
        world.make("A", normalize(config, &Defaults::default()));
        world
    }
}

impl World {
    /// Does one step, and looks whether all is well.
    ///
    /// # Panics
    /// When it is not.
    pub fn step(&mut self, op: &Op) {
        self.perform(op);
        for machine in [&self.machine, &self.other] {
            assert!(machine.fault().is_none(), "{:?}", machine.fault());
            assert!(machine.halted().is_empty(), "{:?}", machine.halted());
        }
        let digests =
            [&mut self.machine, &mut self.other].map(|machine| machine.digest().expect("readable"));
        assert_eq!(digests[0], digests[1], "both decide the same");
        let (one, other) = (self.machine.store(), self.other.store());
        for id in self.streams.values() {
            assert_eq!(one.state(*id).ok(), other.state(*id).ok());
        }
    }

    /// Changes records behind the machine's back, and opens it again; `false`: it is refused. A change is a record's number, a
    /// place in it and what stands there; after these come whole records of any bytes.
    ///
    /// # Panics
    /// When the store, whose bytes are sound, does not open.
    pub fn tamper(&mut self, changes: &[(u8, u16, u8)], others: &[(Vec<u8>, Vec<u8>)]) -> bool {
        self.flush();
        let mut store = open_store(&self.disk);
        let records = store.records(&[]);
        let mut records: Vec<_> = records
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect();
        for (number, at, byte) in changes {
            let number = usize::from(*number) % records.len().max(1);
            let Some((_, value)) = records.get_mut(number) else {
                continue;
            };
            let at = usize::from(*at) % (value.len() + 1);
            match value.get_mut(at) {
                Some(place) => *place = *byte,
                None => value.truncate(usize::from(*byte)),
            }
        }
        for (key, value) in records.iter().chain(others) {
            store
                .put(key, Bytes::copy_from_slice(value))
                .expect("a record is taken");
        }
        let applied = store.applied();
        if let Some(job) = store.begin_flush(applied) {
            store.finish(job.run()).expect("a flush is written");
        }
        match Machine::open(open_store(&self.disk)) {
            Ok(machine) => {
                self.machine = machine;
                true
            }
            Err(_) => false,
        }
    }

    /// Does one step over state that may be anything: a stream may halt, the machine goes on.
    ///
    /// # Panics
    /// When it does not.
    pub fn endure(&mut self, op: &Op) {
        match op {
            Op::Flush | Op::Maintain | Op::Restart => {
                if let Ok(Some(job)) = self.machine.begin_flush() {
                    // A stream that cannot be written is told by an error.
                    let _ = self.machine.accept(job.run());
                }
            }
            // What the doors look at is not what they would see.
            Op::Read { .. } => {}
            op => self.perform(op),
        }
        assert!(self.machine.fault().is_none(), "{:?}", self.machine.fault());
    }

    fn perform(&mut self, op: &Op) {
        match op {
            Op::Create { stream, config } => self.create(pick(&NAMES, *stream), config),
            Op::Update { stream, config } => self.update(pick(&NAMES, *stream), config),
            Op::Delete { stream } => {
                if let Some(id) = self.streams.remove(pick(&NAMES, *stream)) {
                    self.command(Kind::StreamDelete, id, b"$G");
                }
            }
            Op::Publish {
                stream,
                subject,
                headers,
                body,
            } => self.publish(pick(&NAMES, *stream), *subject, headers, *body),
            Op::Tick(step) => {
                self.now = self.now.saturating_add(step.i64());
                self.command(Kind::Tick, StreamId(0), &[]);
            }
            Op::Clock(now) => self.now = now.i64(),
            Op::Erased { up_to } => {
                let erased = Erased {
                    node: 1,
                    up_to: up_to.u64(),
                    replicas: vec![1],
                };
                self.command(Kind::Erased, StreamId(0), &encode_cold(&erased));
            }
            Op::Flush => self.flush(),
            Op::Maintain => self.maintain(),
            Op::Restart => self.restart(),
            Op::Restore {
                stream,
                config,
                backup,
            } => self.restore(pick(&NAMES, *stream), config, backup),
            Op::Raw { kind, stream, body } => self.raw(*kind, *stream, body),
            Op::Purge { stream, .. }
            | Op::MessageDelete { stream, .. }
            | Op::Consumer { stream, .. }
            | Op::ConsumerDelete { stream, .. }
            | Op::Pull { stream, .. }
            | Op::Ack { stream, .. }
            | Op::Progress { stream, .. }
            | Op::Pause { stream, .. }
            | Op::Read { stream, .. } => {
                let name = pick(&NAMES, *stream);
                if let Some(id) = self.streams.get(name).copied() {
                    self.perform_in(name, id, op);
                }
            }
        }
    }

    fn perform_in(&mut self, name: &'static str, id: StreamId, op: &Op) {
        match op {
            Op::Purge {
                filter,
                below,
                keep,
                ..
            } => {
                let filter = pick(&FILTERS, *filter);
                let purge = Purge {
                    filter: match filter {
                        "" => String::new(),
                        filter => format!("{name}.{filter}"),
                    },
                    below: below.u64(),
                    keep: keep.u64().min(KEEP_MAX),
                };
                self.command(Kind::Purge, id, &encode_cold(&purge));
            }
            Op::MessageDelete { seq, erase, .. } => {
                let (seq, erase) = (seq.u64(), *erase);
                let delete = MessageDelete { seq, erase };
                self.command(Kind::MessageDelete, id, &encode_cold(&delete));
            }
            Op::Consumer {
                name: consumer,
                action,
                config,
                ..
            } => self.consumer(name, id, pick(&CONSUMERS, *consumer), *action, config),
            Op::Read { seq, time, .. } => {
                for machine in [&self.machine, &self.other] {
                    read(machine, name, id, seq.u64(), *time);
                }
            }
            _ => self.use_consumer(id, op),
        }
    }

    fn use_consumer(&mut self, stream: StreamId, op: &Op) {
        let (Op::ConsumerDelete { consumer, .. }
        | Op::Pull { consumer, .. }
        | Op::Ack { consumer, .. }
        | Op::Progress { consumer, .. }
        | Op::Pause { consumer, .. }) = op
        else {
            return;
        };
        let found = self.machine.stream(stream);
        let found = found.and_then(|found| found.consumers().find(pick(&CONSUMERS, *consumer)));
        let Some(found) = found else { return };
        let id = found.id();
        let waiting: Vec<u64> = found.unanswered().map(|(seq, _)| seq).collect();
        let command = match op {
            Op::Pull { grants, .. } => Command::Deliver {
                id,
                grants: grants
                    .iter()
                    .map(|(batch, bytes)| Grant {
                        batch: batch.u32(),
                        max_bytes: bytes.u64(),
                    })
                    .collect(),
            },
            Op::Ack {
                pending,
                seq,
                consumer_seq,
                verb,
                delay,
                ..
            } => {
                let known = pending.filter(|_| !waiting.is_empty());
                let ack = Ack {
                    stream_seq: known.map_or(seq.u64(), |at| pick(&waiting, at)),
                    consumer_seq: consumer_seq.u64(),
                    verb: match verb % 4 {
                        0 => Verb::Ack,
                        1 => Verb::Nak(delay.u64()),
                        2 => Verb::Progress,
                        _ => Verb::Term("why"),
                    },
                };
                let acks = vec![ack];
                Command::Acks { id, acks }
            }
            Op::Progress {
                consumer_seq,
                stream_seq,
                ..
            } => Command::Progress {
                id,
                consumer_seq: consumer_seq.u64(),
                stream_seq: stream_seq.u64(),
            },
            Op::Pause { until, .. } => Command::Pause {
                id,
                until: Some(Timestamp::from_nanos(until.i64()).into()),
            },
            _ => Command::Delete { id },
        };
        self.command(Kind::Consumer, stream, &command.to_bytes());
    }

    /// A configuration as the API reads it.
    fn config(shape: &StreamShape, name: &str) -> Option<StreamConfig> {
        let config: StreamConfig = json::from_value(shape.json(name), true).ok()?;
        Some(normalize(config, &Defaults::default()))
    }

    fn create(&mut self, name: &'static str, shape: &StreamShape) {
        let Some(config) = Self::config(shape, name) else {
            return;
        };
        if !self.streams.contains_key(name) && check_create(&config, &Defaults::default()).is_ok() {
            self.make(name, config);
        }
    }

    fn make(&mut self, name: &'static str, config: StreamConfig) -> StreamId {
        let id = StreamId(self.next_id);
        self.next_id += 1;
        let create = StreamCreate {
            config,
            created: self.now,
        };
        self.command(Kind::StreamCreate, id, &encode_cold(&create));
        self.streams.insert(name, id);
        id
    }

    fn update(&mut self, name: &'static str, shape: &StreamShape) {
        let id = self.streams.get(name).copied();
        let (Some(id), Some(mut config)) = (id, Self::config(shape, name)) else {
            return;
        };
        let Some(stream) = self.machine.stream(id) else {
            return;
        };
        let old = stream.config();
        if check_update(old, &config, &Defaults::default()).is_err() {
            return;
        }
        config.first_seq = old.first_seq;
        let update = StreamUpdate { config };
        self.command(Kind::StreamUpdate, id, &encode_cold(&update));
    }

    fn publish(
        &mut self,
        name: &'static str,
        subject: u8,
        headers: &[super::op::Header],
        body: u8,
    ) {
        let Some(id) = self.streams.get(name).copied() else {
            return;
        };
        let subject = format!("{name}.{}", pick(&SUBJECTS, subject));
        let mut block = String::new();
        if !headers.is_empty() {
            block.push_str("NATS/1.0\r\n");
            headers.iter().for_each(|one| one.write(name, &mut block));
            block.push_str("\r\n");
        }
        let payload = vec![body; usize::from(body % 32)];
        self.apply(|batch| {
            command::put_publish(batch, id, subject.as_bytes(), block.as_bytes(), &payload);
        });
    }

    fn consumer(
        &mut self,
        stream: &str,
        id: StreamId,
        name: &str,
        action: u8,
        shape: &ConsumerShape,
    ) {
        let config = json::from_value(shape.json(stream, name), true);
        let (Ok(config), Some(found)) = (config, self.machine.stream(id)) else {
            return;
        };
        let request = CreateRequest {
            stream_name: stream.to_owned(),
            config,
            action: pick(
                &[Action::CreateOrUpdate, Action::Create, Action::Update],
                action,
            ),
            pedantic: false,
        };
        let Ok(create) = prepare(Form::Durable { name }, request, found.config()) else {
            return;
        };
        self.command(Kind::Consumer, id, &create.to_bytes(None));
    }

    fn restore(&mut self, name: &'static str, shape: &StreamShape, backup: &Backup) {
        let (first_seq, last_seq) = (backup.first_seq.u64(), backup.last_seq.u64());
        let stated = Stated {
            messages: backup.messages.len() as u64,
            bytes: 1 << 40,
            first_seq,
            last_seq,
        };
        let config = Self::config(shape, name);
        let Some(config) = config.filter(|config| {
            !self.streams.contains_key(name)
                && check_restore(config, &Defaults::default()).is_ok()
                && RULES.check_stated(&stated).is_ok()
        }) else {
            return;
        };
        let id = self.make(name, config.clone());
        let mut bodies = vec![messages(name, backup, &stated)];
        let deleted: Vec<u64> = backup.deleted.iter().map(|seq| seq.u64()).collect();
        bodies.push(body::deleted(&deleted));
        for (consumer, (shape, state)) in CONSUMERS.iter().zip(&backup.consumers) {
            let found = item::Consumer {
                name: (*consumer).to_owned(),
                config: shape.json(name, consumer),
                state: Some(consumer_state(state)),
            };
            let now = Timestamp::from_nanos(self.now);
            if let Ok(restored) = restored(found, &config, last_seq, now) {
                bodies.push(body::consumer(&restored));
            }
        }
        bodies.push(body::finish(last_seq, stated.messages));
        for body in bodies {
            if !matches!(self.command(Kind::Restore, id, &body), Some(Reply::Done)) {
                self.streams.remove(name);
                self.command(Kind::StreamDelete, id, b"$G");
                return;
            }
        }
    }

    /// What no door makes: it may do anything but end the machine.
    fn raw(&mut self, kind: u8, stream: u8, body: &[u8]) {
        const KINDS: [Kind; 5] = [
            Kind::Purge,
            Kind::MessageDelete,
            Kind::Consumer,
            Kind::Restore,
            Kind::Erased,
        ];
        if kind == u8::MAX {
            // Not even a batch.
            self.apply(|batch| batch.extend_from_slice(body));
            return;
        }
        let id = self.streams.get(pick(&NAMES, stream)).copied();
        let id = id.unwrap_or(StreamId(u64::from(stream) << 40));
        self.command(pick(&KINDS, kind), id, body);
    }

    fn command(&mut self, kind: Kind, id: StreamId, body: &[u8]) -> Option<Reply> {
        self.apply(|batch| command::put(batch, kind, id, body))
    }

    fn apply(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Option<Reply> {
        let mut batch = Vec::new();
        command::start(&mut batch);
        fill(&mut batch);
        command::seal(&mut batch, Timestamp::from_nanos(self.now), 1);
        let entry = Bytes::from(batch);
        self.log.push(entry.clone());
        let index = self.log.len() as u64;
        let at = LogId {
            index,
            term: 1,
            ..LogId::default()
        };
        self.other.apply(at, &entry);
        self.machine.apply(at, &entry).replies.pop()
    }

    fn flush(&mut self) {
        if let Some(job) = self.machine.begin_flush().expect("a flush begins") {
            self.machine.accept(job.run()).expect("a flush is written");
            self.prepare();
        }
    }

    fn maintain(&mut self) {
        self.prepare();
        self.machine.store_mut().look_for_maintenance();
        self.prepare();
        while let Some(job) = self.machine.store_mut().take_job() {
            let done = self.machine.accept(job.run()).expect("maintenance is done");
            assert!(done.damage.is_empty(), "{:?}", done.damage);
            self.prepare();
        }
    }

    fn prepare(&mut self) {
        while self.machine.step(2).expect("a step is done") {}
    }

    fn restart(&mut self) {
        self.machine = open(&self.disk);
        let from = self.machine.applied();
        let entries = (1_u64..).zip(&self.log);
        for (index, entry) in entries.filter(|(index, _)| *index > from) {
            self.machine.apply(
                LogId {
                    index,
                    term: 1,
                    ..LogId::default()
                },
                entry,
            );
        }
    }
}

fn messages(name: &str, backup: &Backup, stated: &Stated) -> Vec<u8> {
    let mut bytes = Vec::new();
    body::start_messages(&mut bytes);
    let mut last = 0;
    for (seq, time, subject, header) in &backup.messages {
        let seq = seq.u64();
        if seq <= last || !(stated.first_seq..=stated.last_seq).contains(&seq) {
            continue;
        }
        last = seq;
        let subject = format!("{name}.{}", pick(&SUBJECTS, *subject));
        let mut block = String::new();
        if let Some(header) = header {
            block.push_str("NATS/1.0\r\n");
            header.write(name, &mut block);
            block.push_str("\r\n");
        }
        let record = format!("{subject}{block}body");
        body::put_message(
            &mut bytes,
            &body::Message {
                seq,
                time: Timestamp::from_nanos(time.i64()),
                subject_len: subject.len() as u16,
                headers_len: block.len() as u32,
                record: record.as_bytes(),
            },
        );
    }
    bytes
}

fn consumer_state(state: &ConsumerState) -> State {
    let position = |(consumer, stream): (Number, Number)| Position {
        consumer: consumer.u64(),
        stream: stream.u64(),
    };
    let pending = state.pending.iter().map(|(seq, consumer_seq, since)| {
        let one = Pending {
            consumer_seq: consumer_seq.u64(),
            since: since.i64(),
        };
        (seq.u64(), one)
    });
    let redelivered = state.redelivered.iter();
    State {
        delivered: position(state.delivered),
        floor: position(state.floor),
        pending: pending.collect(),
        redelivered: redelivered
            .map(|(seq, count)| (seq.u64(), count.u32()))
            .collect(),
        first: state.first.iter().map(|seq| seq.u64()).collect(),
        next: state.next.u64(),
    }
}

/// Asks for everything near a sequence and a time.
fn read(machine: &Machine, name: &str, id: StreamId, seq: u64, time: Number) {
    let store = machine.store();
    let time = Timestamp::from_nanos(time.i64());
    store.state(id).expect("its counters");
    store.get(id, seq).expect("a message");
    store.seq_at_time(id, time).expect("a time");
    let _ = (
        store.first_at_or_after(id, seq),
        store.last_at_or_before(id, seq),
    );
    let _ = (store.first_ageing(id, seq), store.next_expiry(id));
    let _ = store.deleted(id, seq..=u64::MAX, 4);
    let _ = store.deleted(id, 0..=seq, 4);
    for filter in FILTERS {
        let filters = match filter {
            "" => Filters::everything(),
            filter => Filters::parse(&[format!("{name}.{filter}")]).expect("a filter"),
        };
        store.next_matching(id, &filters, seq).expect("the next");
        store.last_matching(id, &filters, seq).expect("the last");
        store.count_matching(id, &filters, seq).expect("a count");
        store.subjects(id, &filters, None, 10).expect("subjects");
    }
    let stream = machine.stream(id).expect("it is there");
    let messages = StoreMessages::new(store, id);
    for consumer in stream.consumers().iter() {
        let _ = consumer.unseen(&messages);
        let _ = consumer.has_next(&messages, time);
        let _ = consumer.redelivered();
        let _ = state_of(consumer, time);
    }
    assert!(messages.error().is_none());
}
