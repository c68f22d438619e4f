//! A fixed handful of seeds, each played twice: every promise is kept, and the same seed gives the same trace.
//!
//! `HALYARD_SIM_SEEDS=from..to` plays that range in place of the handful (`cargo sim --range from..to` does the same
//! with a line for each).

use halyard_sim::{Options, run_twice};

/// Chosen so that together they meet every kind of stream and fault.
const HANDFUL: std::ops::Range<u64> = 0..8;

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("HALYARD_SIM_SEEDS") else {
        return HANDFUL;
    };
    let (from, to) = text
        .split_once("..")
        .expect("HALYARD_SIM_SEEDS is from..to");
    let number = |text: &str| text.parse().expect("HALYARD_SIM_SEEDS holds numbers");
    number(from)..number(to)
}

#[test]
fn every_promise_is_kept_and_every_trace_repeats() {
    let mut acknowledged = 0;
    for seed in seeds() {
        let report = run_twice(Options::from_seed(seed));
        assert!(
            report.is_good(),
            "{:#?}\n{report}\nreplay: cargo sim {seed} --trace",
            report.options
        );
        acknowledged += report.tally.acknowledged;
    }
    assert!(acknowledged > 0, "nothing was ever acknowledged");
}
