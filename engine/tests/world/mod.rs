//! A store on a simulated disk, the model beside it, and the log of changes that a group would have: what a crash test
//! needs to lose power at any I/O operation and go on.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use halyard_engine::{Error, Job, JobDone, Options, Store};
use halyard_runtime::disk::{Disk, MemDisk, OpenMode};
use halyard_runtime::sim::{DiskFaults, SimDisk};

use crate::model::{FILTERS, Model, Naive, Op};

pub const DIR: &str = "store";

/// SplitMix64: a history is its seed; or, from a fuzzer, its bytes and then what follows from a seed of zero.
#[derive(Clone)]
pub struct Draw {
    state: u64,
    bytes: std::collections::VecDeque<u8>,
}

impl Draw {
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
            bytes: Default::default(),
        }
    }

    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self {
            state: 0,
            bytes: bytes.iter().copied().collect(),
        }
    }

    pub fn next(&mut self) -> u64 {
        if let Some(byte) = self.bytes.pop_front() {
            // Most draws are below 256; two bytes reach the others far enough.
            let high = self.bytes.pop_front().unwrap_or(0);
            return u64::from(byte) | u64::from(high) << 8;
        }
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    pub fn op(&mut self) -> Op {
        let stream = 1 + self.below(3);
        let byte = |draw: &mut Self| draw.below(256) as u8;
        match self.below(56) {
            0 => Op::Create {
                stream,
                first: 1 + self.below(9),
            },
            1 => Op::Drop {
                stream,
                erase: self.one_in(2),
            },
            2 => Op::AppendAt {
                stream,
                gap: self.below(9) as u8,
                subject: byte(self),
            },
            3 => Op::Skip {
                stream,
                count: self.below(5) as u8,
            },
            4..=11 => Op::Delete {
                stream,
                at: self.below(1 << 16) as u16,
                erase: self.one_in(2),
            },
            12..=14 => Op::Purge {
                stream,
                filter: self.below(FILTERS.len() as u64) as u8,
                below: self.one_in(2).then(|| self.below(1 << 16) as u16),
                keep: self.one_in(2).then(|| self.below(6) as u8),
                erase: self.one_in(2),
            },
            15..=17 => Op::RemoveFirst { stream },
            18..=20 => Op::Put {
                key: byte(self),
                len: byte(self),
            },
            21 => Op::Remove { key: byte(self) },
            _ => Op::Append {
                stream,
                subject: byte(self),
                headers: if self.one_in(2) {
                    0
                } else {
                    self.below(20) as u8
                },
                payload: self.below(60) as u16,
                ttl: self.one_in(9).then(|| byte(self)),
            },
        }
    }
}

/// A job that is out: to be run, or run and to be taken in.
pub enum Out {
    Job(Job),
    Done(JobDone),
}

pub struct World {
    pub disk: SimDisk,
    pub dir: PathBuf,
    pub options: Options,
    pub store: Store,
    pub model: Model,
    pub log: Vec<Op>,
    /// The digest after so many changes.
    digests: Vec<u64>,
    /// The state wherever a flush began: what a manifest may say.
    states: BTreeMap<usize, Model>,
    canaries: Vec<Vec<u8>>,
    /// The power went by [`SimDisk::crash_after`].
    pub struck: Arc<AtomicBool>,
    /// A flush and a piece of maintenance at most.
    pub out: Vec<Out>,
    /// So many of the filters are asked at each comparison, in turn.
    compared: u8,
}

fn try_open(disk: &SimDisk, dir: &Path, options: &Options) -> Result<Store, Error> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Store::open(disk, dir, options.clone()).map(|(store, _)| store)
}

impl World {
    pub fn new(seed: u64, options: Options) -> Self {
        let disk = SimDisk::new(seed, DiskFaults::default());
        let struck = Arc::new(AtomicBool::new(false));
        let flag = struck.clone();
        disk.on_crash(move || flag.store(true, Ordering::Relaxed));
        Self::on(disk, struck, Path::new(DIR), options, 0)
    }

    /// Another store on the same disk.
    pub fn beside(&self, dir: &str, options: Options) -> Self {
        Self::on(
            self.disk.clone(),
            self.struck.clone(),
            Path::new(dir),
            options,
            1 << 40,
        )
    }

    /// Times, by which messages are told apart, start after `clock`.
    fn on(
        disk: SimDisk,
        struck: Arc<AtomicBool>,
        dir: &Path,
        options: Options,
        clock: i64,
    ) -> Self {
        let store = try_open(&disk, dir, &options).unwrap();
        // The directory itself is the node's to make durable.
        disk.sync_dir(Path::new("")).unwrap();
        let model = Model {
            clock,
            ..Model::default()
        };
        let mut world = Self {
            disk,
            dir: dir.to_owned(),
            options,
            digests: vec![store.digest()],
            store,
            states: BTreeMap::from([(0, model.clone())]),
            model,
            log: Vec::new(),
            canaries: Vec::new(),
            struck,
            out: Vec::new(),
            compared: 0,
        };
        for stream in 1..4 {
            world.change(&Op::Create { stream, first: 1 });
        }
        world
    }

    pub fn change(&mut self, op: &Op) {
        let erased = erases(op).map(|id| (id, self.model.streams.get(&id).cloned()));
        self.model.apply(&mut self.store, op);
        if let Some((id, Some(before))) = erased {
            let left = self.model.streams.get(&id);
            let gone = before.messages.iter().filter(|(seq, message)| {
                left.and_then(|left| left.messages.get(seq)) != Some(message)
            });
            self.canaries
                .extend(gone.filter_map(|(_, message)| canary(id, message)));
        }
        self.log.push(op.clone());
        self.digests.push(self.store.digest());
    }

    /// Compares a third of what can be asked, and the next third the next time.
    pub fn compare(&mut self) {
        self.compared = self.compared.wrapping_add(1);
        self.model
            .compare_part(&self.store, &self.options, self.compared % 3, 3);
    }

    /// Opens what is on the disk, whose power may go again while doing so, and checks that it is the state of the applied
    /// index that it claims; then replays the log.
    pub fn recover(&mut self, draw: &mut Draw) {
        self.lose_power_again(draw);
        self.open_and_replay();
    }

    /// The power may go again while the store is being opened. Before any store of the disk is opened for good.
    pub fn lose_power_again(&mut self, draw: &mut Draw) {
        if draw.one_in(3) {
            self.disk.crash_after(draw.below(12));
            let opened = try_open(&self.disk, &self.dir, &self.options);
            self.disk.cancel_crash();
            if !self.struck.swap(false, Ordering::Relaxed) {
                opened.unwrap();
                self.disk.power_loss();
            }
        }
    }

    pub fn open_and_replay(&mut self) {
        self.out.clear();
        let before = self.store.applied() as usize;
        self.store = try_open(&self.disk, &self.dir, &self.options).unwrap();
        let applied = self.store.applied() as usize;
        assert!(
            applied >= before,
            "the durable index went from {before} to {applied}"
        );
        self.states = self.states.split_off(&applied);
        let model = self.states[&applied].clone();
        let latest = std::mem::replace(&mut self.model, model);
        assert_eq!(self.store.digest(), self.digests[applied]);
        self.compare();
        for (op, digest) in self.log[applied..].iter().zip(&self.digests[applied + 1..]) {
            self.model.apply(&mut self.store, op);
            assert_eq!(self.store.digest(), *digest);
        }
        assert_eq!(self.model, latest);
    }

    /// An orderly restart under other options.
    pub fn restart_with(&mut self, options: Options) {
        self.settle();
        self.options = options;
        self.open_and_replay();
    }

    /// Remembers the state of now: a manifest may say it once a flush that is cut now is durable.
    pub fn note_cut(&mut self) {
        self.states.insert(self.log.len(), self.model.clone());
    }

    /// Starts a job, if there is one.
    fn begin(&mut self, kind: Kind) -> Option<Job> {
        match kind {
            Kind::Flush => {
                self.note_cut();
                self.store.begin_flush(self.log.len() as u64)
            }
            Kind::Maintenance => self.store.begin_maintenance(),
            Kind::Scrub => self.store.begin_scrub(),
        }
    }

    /// Runs one job, if there is one, with changes while it is out. After an error of [`NO_POWER`] the world must recover.
    pub fn job(
        &mut self,
        draw: &mut Draw,
        kind: Kind,
        crash_after: Option<u64>,
    ) -> Option<Result<(), Error>> {
        let job = self.begin(kind)?;
        let early = draw.one_in(2);
        let mut changes = |world: &mut Self| {
            for _ in 0..draw.below(6) {
                let op = draw.op();
                world.change(&op);
            }
        };
        if early {
            changes(self);
        }
        if let Some(after) = crash_after {
            self.disk.crash_after(after);
        }
        let done: JobDone = job.run();
        self.disk.cancel_crash();
        if self.struck.swap(false, Ordering::Relaxed) {
            // Whatever the job says: there is no power.
            return Some(Err(Error::Poisoned {
                reason: NO_POWER.into(),
            }));
        }
        if !early && crash_after.is_none() {
            changes(self);
        }
        Some(self.store.finish(done).map(|finished| {
            assert!(finished.damage.is_empty(), "{:?}", finished.damage);
        }))
    }

    /// Damages a segment, perhaps, and has a good copy put in its place; `true` when the power went meanwhile.
    pub fn replace(&mut self, draw: &mut Draw, crash_after: Option<u64>) -> bool {
        let is_segment = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str());
            path.starts_with(&self.dir) && name.is_some_and(|name| name.starts_with("segment-"))
        };
        let mut files = self.disk.files();
        files.retain(|(path, _)| is_segment(path));
        let pick = draw.below(files.len() as u64) as usize;
        let Some((path, len)) = files.get(pick).cloned() else {
            return false;
        };
        let good = self.disk.read(&path).unwrap();
        if draw.one_in(2) && len > 0 {
            let at = draw.below(len);
            self.disk.damage(&path, at, &[!good[at as usize]]);
        }
        let source = MemDisk::new();
        let copy = source.open(Path::new("copy"), OpenMode::Create).unwrap();
        copy.write_at(&good, 0).unwrap();
        if let Some(after) = crash_after {
            self.disk.crash_after(after);
        }
        let replaced = self.store.replace_segment(&path, copy);
        self.disk.cancel_crash();
        let struck = self.struck.swap(false, Ordering::Relaxed);
        match replaced {
            _ if struck => {}
            Ok(()) => assert!(self.disk.read(&path).unwrap() == good),
            // A file that the store has no use for any more.
            Err(Error::Corrupt { .. } | Error::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        // What is still damaged is repaired before the world goes on.
        self.disk.damage(&path, 0, &good);
        struck
    }

    /// Runs one of the jobs that are out; `false` when the power went.
    pub fn run(&mut self, which: usize, crash_after: Option<u64>) -> bool {
        if !matches!(self.out[which], Out::Job(_)) {
            return true;
        }
        let Out::Job(job) = self.out.remove(which) else {
            return true;
        };
        if let Some(after) = crash_after {
            self.disk.crash_after(after);
        }
        let done = job.run();
        self.disk.cancel_crash();
        self.out.insert(which, Out::Done(done));
        !self.struck.swap(false, Ordering::Relaxed)
    }

    /// Takes in one of the jobs that are out, if it was run.
    pub fn accept(&mut self, which: usize) -> Result<(), Error> {
        if !matches!(self.out[which], Out::Done(_)) {
            return Ok(());
        }
        match self.out.remove(which) {
            Out::Done(done) => self.store.accept(done).map(|_| ()),
            Out::Job(_) => Ok(()),
        }
    }

    /// One thing that a driver does: cut, look, step, start, run, take in, in any order. `false` when the power went.
    pub fn drive(&mut self, draw: &mut Draw, crash_after: Option<u64>) -> Result<bool, Error> {
        let which = draw.below(self.out.len() as u64) as usize;
        match draw.below(10) {
            0 | 1 if self.store.is_cut_open() => self.store.records_done(),
            0 => {
                self.note_cut();
                self.store.cut(self.log.len() as u64);
            }
            1 => self.store.look_for_maintenance(),
            2..=4 => drop(self.store.step(1 + draw.below(3) as usize)),
            5 | 6 => self.out.extend(self.store.take_job().map(Out::Job)),
            _ if self.out.is_empty() => {}
            7 => return Ok(self.run(which, crash_after)),
            _ => self.accept(which)?,
        }
        assert!(self.out.len() <= 2, "a flush and a piece of maintenance");
        Ok(true)
    }

    /// Runs and takes in what is out.
    pub fn come_home(&mut self) {
        self.store.records_done();
        while !self.out.is_empty() {
            assert!(self.run(0, None));
            self.accept(0).unwrap();
        }
        while self.store.step(1) {}
    }

    /// Flushes and maintains until nothing is left to do.
    pub fn settle(&mut self) {
        for _ in 0..200 {
            let flush = self.begin(Kind::Flush);
            let is_flushed = flush.is_none();
            if let Some(job) = flush {
                self.store.finish(job.run()).unwrap();
            }
            match self.store.begin_maintenance() {
                Some(job) => self.store.finish(job.run()).map(|_| ()).unwrap(),
                None if is_flushed => return,
                None => {}
            }
        }
        panic!("maintenance does not come to an end");
    }

    /// The end of every history: everything can be asked, erasure comes to an end, and nothing erased is anywhere on
    /// the disk.
    pub fn end(&mut self) {
        self.model.compare(&self.store, &self.options);
        self.store.check().unwrap();
        self.settle();
        let pending = self.store.erasure_pending();
        assert!(pending.is_done(), "{pending:?}");
        for canary in &self.canaries {
            let found = self.disk.find(canary);
            assert!(
                found.is_empty(),
                "erased {} is at {found:?}",
                String::from_utf8_lossy(canary)
            );
        }
        self.model.compare(&self.store, &self.options);
        self.store.check().unwrap();
    }
}

/// Which job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Flush,
    Maintenance,
    Scrub,
}

/// What [`World::job`] says when the power went.
pub const NO_POWER: &str = "no power";

pub fn is_power_loss(error: &Error) -> bool {
    matches!(error, Error::Poisoned { reason } if reason == NO_POWER)
}

/// The stream of an erasing change.
fn erases(op: &Op) -> Option<u64> {
    match op {
        Op::Drop { stream, erase }
        | Op::Delete { stream, erase, .. }
        | Op::Purge { stream, erase, .. } => erase.then_some(*stream),
        _ => None,
    }
}

/// The tag that [`crate::model::message`] wrote into the payload, twice, if there was room for it: once could be the cut
/// end of another one before a byte of a block's frame.
pub fn canary(stream: u64, message: &Naive) -> Option<Vec<u8>> {
    let tag = format!("<{stream}:{}>", message.time).repeat(2);
    let payload = &message.record[message.subject_len + message.headers_len..];
    payload
        .windows(tag.len())
        .any(|window| window == tag.as_bytes())
        .then(|| tag.into_bytes())
}
