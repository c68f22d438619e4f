//! The checkers are checked: with a bug switched on, one of a few seeds breaks a promise.
//!
//! These bugs show quickly; `cargo sim --range A..B --once --plant NAME` counts for all of them (sim/README.md has the
//! figures).

use halyard_sim::{Options, Plant, run};

/// Whether one of the first `most` seeds breaks a promise with the bug. Any change of the server deals the cards anew: `most` is
/// three times what one seed in so many takes.
fn is_found(plant: Plant, most: u64) -> bool {
    (0..most).any(|seed| !run(Options::from_seed(seed).with_plant(plant)).is_good())
}

#[test]
fn a_lying_sync_is_found() {
    assert!(is_found(Plant::LyingSync, 5));
}

#[test]
fn an_unwritten_sector_is_found() {
    assert!(is_found(Plant::LostWrite, 5));
}

#[test]
fn a_changed_byte_is_found() {
    assert!(is_found(Plant::FlippedByte, 5));
}

#[test]
fn a_life_that_ends_early_is_found() {
    assert!(is_found(Plant::EarlyExpiry, 45));
}

#[test]
fn a_missing_marker_is_found() {
    assert!(is_found(Plant::MissingMarker, 30));
}

#[test]
fn plaintext_on_an_encrypted_disk_is_found() {
    assert!(is_found(Plant::ForgottenKey, 15));
}

#[test]
fn a_delete_that_is_answered_and_not_done_is_found() {
    assert!(is_found(Plant::ForgottenDelete, 36));
}

#[test]
fn an_erasure_that_leaves_the_log_alone_is_found() {
    assert!(is_found(Plant::ErasureForgetsLog, 15));
}

#[test]
fn a_restore_that_shows_half_a_stream_is_found() {
    assert!(is_found(Plant::HalfRestored, 30));
}
