//! A store on a simulated disk, the model beside it, and the log of changes that a group would have: what a crash test
//! needs to lose power at any I/O operation and go on.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use halyard_engine::{Error, Job, JobDone, Options, Store};
use halyard_runtime::disk::Disk;
use halyard_runtime::sim::{DiskFaults, SimDisk};

use crate::model::{FILTERS, Model, Naive, Op};

pub const DIR: &str = "store";

/// SplitMix64: a history is its seed.
#[derive(Clone)]
pub struct Draw(pub u64);

impl Draw {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
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
    pub options: Options,
    pub store: Store,
    pub model: Model,
    pub log: Vec<Op>,
    /// The state and the digest after so many changes.
    pub states: Vec<(Model, u64)>,
    /// The power went by [`SimDisk::crash_after`].
    pub struck: Arc<AtomicBool>,
    /// A flush and a piece of maintenance at most.
    pub out: Vec<Out>,
}

fn open(disk: &SimDisk, options: &Options) -> Result<Store, Error> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Store::open(disk, Path::new(DIR), options.clone()).map(|(store, _)| store)
}

impl World {
    pub fn new(seed: u64, options: Options) -> Self {
        let disk = SimDisk::new(seed, DiskFaults::default());
        let store = open(&disk, &options).unwrap();
        // The directory itself is the node's to make durable.
        disk.sync_dir(Path::new("")).unwrap();
        let struck = Arc::new(AtomicBool::new(false));
        let flag = struck.clone();
        disk.on_crash(move || flag.store(true, Ordering::Relaxed));
        let states = vec![(Model::default(), store.digest())];
        let mut world = Self {
            disk,
            options,
            store,
            model: Model::default(),
            log: Vec::new(),
            states,
            struck,
            out: Vec::new(),
        };
        for stream in 1..4 {
            world.change(&Op::Create { stream, first: 1 });
        }
        world
    }

    pub fn change(&mut self, op: &Op) {
        self.model.apply(&mut self.store, op);
        self.log.push(op.clone());
        self.states.push((self.model.clone(), self.store.digest()));
    }

    /// Opens what is on the disk, whose power may go again while doing so, and checks that it is the state of the applied
    /// index that it claims; then replays the log.
    pub fn recover(&mut self, draw: &mut Draw) {
        if draw.one_in(3) {
            self.disk.crash_after(draw.below(12));
            let opened = open(&self.disk, &self.options);
            self.disk.cancel_crash();
            if !self.struck.swap(false, Ordering::Relaxed) {
                opened.unwrap();
                self.disk.power_loss();
            }
        }
        self.out.clear();
        let before = self.store.applied() as usize;
        self.store = open(&self.disk, &self.options).unwrap();
        let applied = self.store.applied() as usize;
        assert!(
            applied >= before,
            "the durable index went from {before} to {applied}"
        );
        let (model, digest) = self.states[applied].clone();
        self.model = model;
        assert_eq!(self.store.digest(), digest);
        self.model.compare(&self.store, &self.options);
        for (number, op) in self.log.clone()[applied..].iter().enumerate() {
            self.model.apply(&mut self.store, op);
            assert_eq!(self.store.digest(), self.states[applied + number + 1].1);
        }
        assert_eq!(self.model, self.states.last().unwrap().0);
    }

    /// Runs one job, if there is one, with changes while it is out; `true` if it went well.
    pub fn job(
        &mut self,
        draw: &mut Draw,
        flush: bool,
        crash_after: Option<u64>,
    ) -> Option<Result<(), Error>> {
        let job = if flush {
            self.store.begin_flush(self.log.len() as u64)
        } else {
            self.store.begin_maintenance()
        }?;
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
                reason: "no power".into(),
            }));
        }
        if !early && crash_after.is_none() {
            changes(self);
        }
        Some(self.store.finish(done).map(|_| ()))
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
            0 => drop(self.store.cut(self.log.len() as u64)),
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
            let flush = self.store.begin_flush(self.log.len() as u64);
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

    /// The bytes of every message that was erased, where they tell it from all others.
    pub fn canaries(&self) -> Vec<Vec<u8>> {
        let mut canaries = Vec::new();
        for (number, op) in self.log.iter().enumerate() {
            let is_erasing = matches!(
                op,
                Op::Drop { erase: true, .. }
                    | Op::Delete { erase: true, .. }
                    | Op::Purge { erase: true, .. }
            );
            if !is_erasing {
                continue;
            }
            let (before, after) = (&self.states[number].0, &self.states[number + 1].0);
            for (id, stream) in &before.streams {
                let left = after.streams.get(id);
                let gone = stream.messages.iter().filter(|(seq, message)| {
                    left.and_then(|left| left.messages.get(seq)) != Some(message)
                });
                canaries.extend(gone.filter_map(|(_, message)| canary(*id, message)));
            }
        }
        canaries
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
