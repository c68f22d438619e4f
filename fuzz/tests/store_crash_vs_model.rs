//! The histories of engine/tests/crash.rs, drawn from a fuzzer's bytes in place of a seed: changes, jobs that lose their
//! power at some operation, full disks, repairs, other keys, two stores on one disk; against the naive model.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot go on without ends it"
)]

#[path = "../../engine/tests/history/mod.rs"]
mod history;
#[path = "../../engine/tests/model/mod.rs"]
mod model;
#[path = "../../engine/tests/world/mod.rs"]
mod world;

#[test]
fn store_equals_the_model_after_every_crash() {
    bolero::check!().for_each(|bytes: &[u8]| {
        history::run(1, &mut world::Draw::from_bytes(bytes));
    });
}
