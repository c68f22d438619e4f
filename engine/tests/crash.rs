//! Power losses and process deaths at every I/O operation, full disks, failing syncs: after each the store is exactly at
//! the state of its durable applied index, replay makes it equal to the model, and what was erased is nowhere on the disk.
//!
//! A test run has some 10,000 histories. HALYARD_HISTORIES=n makes it n / 9,000 times as many; HALYARD_SEED=n runs one seed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod model;
mod world;

use halyard_engine::{Cipher, Encryption, Error, Key, Options};
use world::{Draw, World};

fn seeds(count: u64) -> Vec<u64> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    match (number("HALYARD_SEED"), number("HALYARD_HISTORIES")) {
        (Some(seed), _) => vec![seed],
        (None, Some(all)) => (0..(all * count).div_ceil(9000)).collect(),
        (None, None) => (0..count).collect(),
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

fn options(draw: &mut Draw) -> Options {
    let encryption = Encryption {
        cipher: if draw.one_in(2) {
            Cipher::ChaCha20Poly1305
        } else {
            Cipher::Aes256Gcm
        },
        key: Key([7; 32]),
        previous: None,
    };
    Options {
        merge_width: 2 + draw.below(2) as usize,
        reserve_bytes: 0,
        compress: draw.one_in(4),
        encryption: draw.one_in(6).then_some(encryption),
        ..Options::default()
    }
}

/// Some changes, a job that may lose its power, a recovery; again and again.
fn history(seed: u64) -> World {
    let mut draw = Draw(seed);
    let options = options(&mut draw);
    let mut world = World::new(seed, options);
    for _ in 0..1 + draw.below(7) {
        for _ in 0..draw.below(24) {
            let op = draw.op();
            world.change(&op);
        }
        let flush = !draw.one_in(3);
        let crash_after = draw.one_in(2).then(|| draw.below(24));
        let result = world.job(&mut draw, flush, crash_after);
        match result {
            Some(Err(_)) => world.recover(&mut draw),
            _ if draw.one_in(3) => {
                if draw.one_in(4) {
                    world.disk.process_died();
                } else {
                    world.disk.power_loss();
                }
                world.recover(&mut draw);
            }
            _ => {}
        }
    }
    world
}

fn end_of_history(mut world: World) {
    world.model.compare(&world.store, &world.options);
    world.store.check().unwrap();
    world.settle();
    let pending = world.store.erasure_pending();
    assert!(pending.is_done(), "{pending:?}");
    for canary in world.canaries() {
        let found = world.disk.find(&canary);
        assert!(
            found.is_empty(),
            "erased {} is at {found:?}",
            String::from_utf8_lossy(&canary)
        );
    }
    world.model.compare(&world.store, &world.options);
    world.store.check().unwrap();
}

#[test]
fn histories_with_crashes_a() {
    each_seed(4500, |seed| end_of_history(history(seed)));
}

#[test]
fn histories_with_crashes_b() {
    each_seed(4500, |seed| end_of_history(history(seed ^ 0xB000_0000)));
}

/// One history, cut at each of its I/O operations in turn.
#[test]
fn a_crash_at_every_operation() {
    each_seed(12, |seed| {
        let run = |crash_at: Option<u64>| -> u64 {
            let mut draw = Draw(seed ^ 0xE0E0);
            let options = options(&mut draw);
            let mut world = World::new(seed, options);
            let start = world.disk.operations();
            let mut left = crash_at;
            for round in 0..6 {
                for _ in 0..12 {
                    let op = draw.op();
                    world.change(&op);
                }
                let before = world.disk.operations();
                let mut quiet = Draw(u64::MAX);
                match world.job(&mut quiet, round % 2 == 0, left) {
                    Some(Err(_)) => {
                        world.recover(&mut quiet);
                        left = None;
                    }
                    _ => {
                        left =
                            left.and_then(|left| left.checked_sub(world.disk.operations() - before))
                    }
                }
            }
            let operations = world.disk.operations() - start;
            end_of_history(world);
            operations
        };
        let operations = run(None);
        for crash_at in 0..operations {
            run(Some(crash_at));
        }
    });
}

#[test]
fn a_full_disk_refuses_and_recovers_by_itself() {
    each_seed(300, |seed| {
        let mut draw = Draw(seed ^ 0xF011);
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
            if let Some(Err(error)) = world.job(&mut draw, flush, None) {
                assert!(matches!(error, Error::Full { .. }), "{error}");
                assert!(matches!(world.store.accepting(), Err(Error::Full { .. })));
            }
            // Everything still works in memory, and once there is space the flush goes through.
            let op = draw.op();
            world.change(&op);
            world.model.compare(&world.store, &world.options);
            world
                .disk
                .set_faults(|faults| faults.capacity_bytes = u64::MAX);
            if draw.one_in(2) {
                if let Some(result) = world.job(&mut draw, true, None) {
                    result.unwrap();
                }
                world.store.accepting().unwrap();
            } else if draw.one_in(2) {
                world.disk.power_loss();
                world.recover(&mut draw);
            }
        }
        end_of_history(world);
    });
}

#[test]
fn the_first_failed_write_or_sync_poisons() {
    each_seed(300, |seed| {
        let mut draw = Draw(seed ^ 0x5011);
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
            let result = world.job(&mut draw, flush, None);
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
                world.model.compare(&world.store, &world.options);
                world.disk.power_loss();
                world.recover(&mut draw);
            }
        }
        if seed == 0 {
            assert!(poisoned, "the faults of this test strike");
        }
        end_of_history(world);
    });
}
