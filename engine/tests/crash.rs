//! Power losses, process deaths and failures of the disk at every I/O operation, full disks: after each the store is
//! exactly at the state of its durable applied index, replay makes it equal to the model, and what was erased is nowhere
//! on the disk.
//!
//! A test run has more than 12,000 histories. HALYARD_HISTORIES=n makes it about n; HALYARD_SEED=n runs one seed. The long
//! mode: `HALYARD_HISTORIES=200000 cargo test --release -p halyard-engine --test crash`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod history;
mod model;
mod world;

use halyard_engine::{Error, Options};
use halyard_runtime::sim::Failure;
use history::options;
use world::{Draw, Kind, Out, World};

/// Histories of one run without HALYARD_HISTORIES.
const ALL: u64 = 12_000;

fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        text.parse::<u64>().ok()
    };
    match (number("HALYARD_SEED"), number("HALYARD_HISTORIES")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(all)) => 0..(all * count).div_ceil(ALL),
        (None, None) => 0..count,
    }
}

/// Runs each seed and names the one that fails.
fn each_seed(count: u64, run: impl Fn(u64)) {
    for seed in seeds(count) {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed)));
        if let Err(panic) = result {
            eprintln!("replay with HALYARD_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn histories_with_crashes_a() {
    each_seed(6000, |seed| history::run(seed, &mut Draw::new(seed)));
}

#[test]
fn histories_with_crashes_b() {
    each_seed(6000, |seed| {
        history::run(seed, &mut Draw::new(seed ^ 0xB000_0000));
    });
}

/// What strikes one operation.
#[derive(Clone, Copy, Debug)]
enum Strike {
    PowerLoss,
    Fails(Failure),
    /// From that operation to the end of the job.
    StaysFull,
}

/// One history, struck at its `at`-th operation; returns how many it has.
fn struck(seed: u64, strike: Option<(Strike, u64)>) -> u64 {
    let mut draw = Draw::new(seed ^ 0xE0E0);
    let mut options = options(&mut draw);
    options.scrub_bytes = 1 << 20;
    let mut world = World::new(seed, options);
    let start = world.disk.operations();
    let mut left = strike;
    for round in 0..6 {
        for _ in 0..12 {
            let op = draw.op();
            world.change(&op);
        }
        let before = world.disk.operations();
        let mut quiet = Draw::new(u64::MAX);
        let crash_after = match left {
            Some((Strike::PowerLoss, at)) => Some(at),
            Some((Strike::Fails(how), at)) => {
                world.disk.fail_after(at, how, false);
                None
            }
            Some((Strike::StaysFull, at)) => {
                world.disk.fail_after(at, Failure::Full, true);
                None
            }
            None => None,
        };
        let kind = if round % 2 == 0 {
            Kind::Flush
        } else {
            Kind::Maintenance
        };
        let result = world.job(&mut quiet, kind, crash_after);
        let has_failed = world.disk.cancel_failure();
        match result {
            // Nothing is lost, and the next try goes through.
            Some(Err(error)) if error.passes() => {
                assert!(has_failed, "a disk with space is not full");
                world.compare();
                left = None;
            }
            Some(Err(error)) => {
                assert!(
                    !matches!(
                        left,
                        Some((Strike::Fails(Failure::Full) | Strike::StaysFull, _))
                    ),
                    "a full disk is no reason to stop: {error}"
                );
                if matches!(left, Some((Strike::Fails(_), _))) {
                    world.compare();
                    world.disk.power_loss();
                }
                world.recover(&mut quiet);
                left = None;
            }
            _ if has_failed => left = None,
            _ => {
                let done = world.disk.operations() - before;
                left = left.and_then(|(strike, at)| Some((strike, at.checked_sub(done)?)));
            }
        }
    }
    let operations = world.disk.operations() - start;
    world.end();
    operations
}

/// What a driver does, in small pieces and any order: two jobs out at one time, changes between any two steps.
fn driven_history(seed: u64) -> World {
    let mut draw = Draw::new(seed);
    let options = options(&mut draw);
    let mut world = World::new(seed, options);
    for _ in 0..40 + draw.below(260) {
        if draw.one_in(3) {
            for _ in 0..draw.below(6) {
                let op = draw.op();
                world.change(&op);
            }
        }
        let crash_after = draw.one_in(8).then(|| draw.below(24));
        let lives = world.drive(&mut draw, crash_after).unwrap();
        if !lives || draw.one_in(120) {
            if lives && draw.one_in(4) {
                world.disk.process_died();
            } else if lives {
                world.disk.power_loss();
            }
            world.recover(&mut draw);
        } else if draw.one_in(20) {
            world.model.compare(&world.store, &world.options);
            world.store.check().unwrap();
        }
    }
    world
}

#[test]
fn driven_histories_with_crashes_a() {
    each_seed(2500, |seed| {
        let mut world = driven_history(seed ^ 0xD000_0000);
        world.come_home();
        world.end();
    });
}

#[test]
fn driven_histories_with_crashes_b() {
    each_seed(2500, |seed| {
        let mut world = driven_history(seed ^ 0xDB00_0000);
        world.come_home();
        world.end();
    });
}

/// A merge is out; a flush is cut, frozen in steps, written and adopted beside it. Then both end, in either order, and the
/// power goes at each I/O operation in turn.
#[test]
fn a_flush_beside_a_merge_and_a_crash_at_every_operation() {
    let merges = std::cell::Cell::new(0);
    each_seed(24, |seed| {
        let run = |crash_at: Option<u64>| -> u64 {
            let mut draw = Draw::new(seed ^ 0xF1A5);
            let options = Options {
                merge_width: 3,
                // The first piece of maintenance is to be the merge.
                reserve_bytes: 0,
                ..options(&mut draw)
            };
            let mut world = World::new(seed, options);
            for _ in 0..3 {
                changes(&mut world, &mut draw, 14);
                world.note_cut();
                let flush = world.store.begin_flush(world.log.len() as u64);
                world.store.finish(flush.unwrap().run()).unwrap();
            }
            let Some(merge) = world.store.begin_maintenance() else {
                return 0;
            };
            merges.set(merges.get() + 1);
            world.out.push(Out::Job(merge));
            changes(&mut world, &mut draw, 5);
            world.note_cut();
            assert!(world.store.cut(world.log.len() as u64), "beside a merge");
            world.store.records_done();
            while world.store.step(1) {
                changes(&mut world, &mut draw, 1);
            }
            let flush = world.store.take_job().expect("beside a merge");
            world.out.push(Out::Job(flush));
            let start = world.disk.operations();
            let mut left = crash_at;
            let (first, second) = if seed % 2 == 0 { (0, 1) } else { (1, 0) };
            let mut lives = |world: &mut World, which: usize| {
                let before = world.disk.operations();
                let lives = world.run(which, left);
                let took = world.disk.operations() - before;
                left = left.and_then(|left| left.checked_sub(took));
                lives
            };
            let mut is_up = lives(&mut world, first) && lives(&mut world, second);
            if is_up {
                // Taken in in the order in which they ended, or in the other one.
                let order = if seed % 4 < 2 {
                    [first, 0]
                } else {
                    [second, 0]
                };
                for which in order {
                    changes(&mut world, &mut draw, 3);
                    world.accept(which).unwrap();
                    if world.out.len() == 1 {
                        world.store.look_for_maintenance();
                        let next = world.store.take_job();
                        assert!(next.is_none(), "the swap waits for the flush");
                    }
                }
                while world.store.step(1) {
                    changes(&mut world, &mut draw, 1);
                }
                let swap = world.store.begin_maintenance().expect("the swap");
                assert!(!swap.is_flush());
                world.out.push(Out::Job(swap));
                assert!(!world.store.cut(world.log.len() as u64), "one manifest");
                is_up = lives(&mut world, 0);
            }
            if is_up {
                world.accept(0).unwrap();
                // Streams still read the inputs: their files stay.
                world.store.look_for_maintenance();
                assert!(world.store.take_job().is_none());
                while world.store.step(1) {
                    changes(&mut world, &mut draw, 1);
                    world.model.compare(&world.store, &world.options);
                }
            } else {
                world.recover(&mut Draw::new(u64::MAX));
            }
            let operations = world.disk.operations() - start;
            world.end();
            operations
        };
        let operations = run(None);
        for crash_at in 0..operations.min(40) {
            run(Some(crash_at));
        }
    });
    let is_single = seeds(24).count() == 1;
    assert!(is_single || merges.get() > 100, "most come to a merge");
}

fn changes(world: &mut World, draw: &mut Draw, count: u64) {
    for _ in 0..count {
        let op = draw.op();
        world.change(&op);
    }
}

/// One history, cut at each of its I/O operations in turn.
#[test]
fn a_crash_at_every_operation() {
    each_seed(12, |seed| {
        for at in 0..struck(seed, None) {
            struck(seed, Some((Strike::PowerLoss, at)));
        }
    });
}

/// The same with one operation that fails, or finds the disk full once or from then on.
#[test]
fn a_failure_of_every_operation() {
    each_seed(6, |seed| {
        for at in 0..struck(seed, None) {
            struck(seed, Some((Strike::Fails(Failure::Device), at)));
            struck(seed, Some((Strike::Fails(Failure::Full), at)));
            struck(seed, Some((Strike::StaysFull, at)));
        }
    });
}

#[test]
fn a_full_disk_refuses_and_recovers_by_itself() {
    each_seed(300, |seed| {
        let mut draw = Draw::new(seed ^ 0xF011);
        let mut world = World::new(
            seed,
            Options {
                reserve_bytes: 0,
                merge_width: 2,
                ..Options::default()
            },
        );
        for _ in 0..4 {
            for _ in 0..draw.below(40) {
                let op = draw.op();
                world.change(&op);
            }
            let used: u64 = world.disk.files().iter().map(|(_, len)| len).sum();
            let room = draw.below(4000);
            world
                .disk
                .set_faults(|faults| faults.capacity_bytes = used + room);
            let flush = draw.one_in(2);
            if let Some(Err(error)) = world.job(
                &mut draw,
                if flush {
                    Kind::Flush
                } else {
                    Kind::Maintenance
                },
                None,
            ) {
                assert!(matches!(error, Error::Full { .. }), "{error}");
                // A rewrite that found no room says nothing about messages.
                assert!(!flush || matches!(world.store.accepting(), Err(Error::Full { .. })));
            }
            // Everything still works in memory, and once there is space the flush goes through.
            let op = draw.op();
            world.change(&op);
            world.compare();
            world
                .disk
                .set_faults(|faults| faults.capacity_bytes = u64::MAX);
            if draw.one_in(2) {
                if let Some(result) = world.job(&mut draw, Kind::Flush, None) {
                    result.unwrap();
                }
                world.store.look_at_space();
                world.store.accepting().unwrap();
            } else if draw.one_in(2) {
                world.disk.power_loss();
                world.recover(&mut draw);
            }
        }
        world.end();
    });
}

#[test]
fn the_first_failed_write_or_sync_poisons() {
    each_seed(300, |seed| {
        let mut draw = Draw::new(seed ^ 0x5011);
        let mut world = World::new(
            seed,
            Options {
                reserve_bytes: 0,
                merge_width: 2,
                ..Options::default()
            },
        );
        let mut poisoned = false;
        for _ in 0..5 {
            for _ in 0..draw.below(20) {
                let op = draw.op();
                world.change(&op);
            }
            let (write, sync) = if draw.one_in(2) {
                (400_000, 0)
            } else {
                (0, 400_000)
            };
            world.disk.set_faults(|faults| {
                faults.write_error_ppm = write;
                faults.sync_error_ppm = sync;
            });
            let flush = draw.one_in(2);
            let result = world.job(
                &mut draw,
                if flush {
                    Kind::Flush
                } else {
                    Kind::Maintenance
                },
                None,
            );
            world.disk.set_faults(|faults| {
                faults.write_error_ppm = 0;
                faults.sync_error_ppm = 0;
            });
            if let Some(Err(_)) = result {
                poisoned = true;
                assert!(matches!(
                    world.store.accepting(),
                    Err(Error::Poisoned { .. })
                ));
                assert!(matches!(
                    world.store.put(b"k", Default::default()),
                    Err(Error::Poisoned { .. })
                ));
                assert!(world.store.begin_flush(world.log.len() as u64).is_none());
                assert!(world.store.begin_maintenance().is_none());
                world.compare();
                world.disk.power_loss();
                world.recover(&mut draw);
            }
        }
        if seed == 0 {
            assert!(poisoned, "the faults of this test strike");
        }
        world.end();
    });
}
