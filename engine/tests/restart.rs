//! Random operations with flushes, maintenance and restarts, against the naive model: after each restart the store is at
//! the state of its durable applied index, and replaying what came after makes it equal again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod model;

use std::path::Path;
use std::sync::Arc;

use halyard_engine::{Job, JobDone, Options, Store};
use halyard_runtime::disk::{Disk, MemDisk};
use model::{Model, Op, ops};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Change(Op),
    Flush,
    Maintain,
    /// Lets the job that is out do its work; `finish` comes with the next `Finish`.
    Run,
    Finish,
    Restart,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => ops().prop_map(Step::Change),
        3 => Just(Step::Flush),
        3 => Just(Step::Maintain),
        3 => Just(Step::Run),
        3 => Just(Step::Finish),
        1 => Just(Step::Restart),
    ]
}

struct World {
    disk: Arc<dyn Disk>,
    options: Options,
    store: Store,
    model: Model,
    /// Changes by index - 1, and the state and digest before each.
    log: Vec<Op>,
    states: Vec<(Model, u64)>,
    job: Option<Job>,
    done: Option<JobDone>,
}

impl World {
    fn new(options: Options) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let (store, _) = Store::open(disk.clone(), Path::new("store"), options.clone()).unwrap();
        let states = vec![(Model::default(), store.digest())];
        let mut world = Self {
            disk,
            options,
            store,
            model: Model::default(),
            log: Vec::new(),
            states,
            job: None,
            done: None,
        };
        for stream in 1..4 {
            world.change(&Op::Create { stream, first: 1 });
        }
        world
    }

    fn change(&mut self, op: &Op) {
        self.model.apply(&mut self.store, op);
        self.log.push(op.clone());
        self.states.push((self.model.clone(), self.store.digest()));
    }

    fn finish(&mut self) {
        if let Some(job) = self.job.take() {
            self.done = Some(job.run());
        }
        if let Some(done) = self.done.take() {
            self.store.finish(done).unwrap();
        }
    }

    fn restart(&mut self) {
        // Whatever was out is lost.
        (self.job, self.done) = (None, None);
        let (store, report) =
            Store::open(self.disk.clone(), Path::new("store"), self.options.clone()).unwrap();
        self.store = store;
        let applied = self.store.applied() as usize;
        assert_eq!(report.applied as usize, applied);
        let (model, digest) = self.states[applied].clone();
        self.model = model;
        assert_eq!(self.store.digest(), digest);
        self.model.compare(&self.store, &self.options);
        self.store.check().unwrap();
        for (number, op) in self.log[applied..].iter().enumerate() {
            self.model.apply(&mut self.store, op);
            assert_eq!(
                self.store.digest(),
                self.states[applied + number + 1].1,
                "the digest is that of the first run"
            );
        }
        assert_eq!(&self.model, &self.states.last().unwrap().0);
        self.model.compare(&self.store, &self.options);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Change(op) => self.change(op),
            Step::Flush if self.job.is_none() && self.done.is_none() => {
                self.job = self.store.begin_flush(self.log.len() as u64);
            }
            Step::Maintain if self.job.is_none() && self.done.is_none() => {
                self.job = self.store.begin_maintenance();
            }
            Step::Run => {
                if let Some(job) = self.job.take() {
                    self.done = Some(job.run());
                }
            }
            Step::Finish => self.finish(),
            Step::Restart => self.restart(),
            Step::Flush | Step::Maintain => {}
        }
    }
}

fn small() -> Options {
    Options {
        merge_width: 2,
        reserve_bytes: 0,
        ..Options::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn restarts_lose_nothing(steps in prop::collection::vec(steps(), 1..200)) {
        let mut world = World::new(small());
        for (number, step) in steps.iter().enumerate() {
            world.step(step);
            if number % 32 == 0 || matches!(step, Step::Finish) {
                world.model.compare(&world.store, &world.options);
                world.store.check().unwrap();
            }
        }
        world.finish();
        world.model.compare(&world.store, &world.options);
        world.restart();
    }
}
