//! The checkers are checked: with a bug switched on, some seed of a bounded number breaks a promise.

use halyard_sim::{Options, Plant, run};

/// Plays seeds with the bug until one breaks a promise; the number of seeds that it took.
fn found_within(plant: Plant, most: u64) -> u64 {
    for seed in 0..most {
        let report = run(Options::from_seed(seed).with_plant(plant));
        if !report.is_good() {
            println!("{}: seed {seed}\n{report}", plant.name());
            return seed + 1;
        }
    }
    panic!("{} escaped {most} seeds", plant.name());
}

#[test]
fn a_lying_sync_is_found() {
    found_within(Plant::LyingSync, 10);
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    found_within(Plant::AckBeforeSync, 40);
}

#[test]
fn a_changed_byte_is_found() {
    found_within(Plant::FlippedByte, 5);
}
