//! Appending, and what a flush and the merges after it write.

use crate::fixture::{Bench, STREAM, Scratch, sequential_rate};
use crate::report::{Page, Rows};
use crate::{MILLION, stage};

pub(crate) fn all(page: &mut Page) {
    let cases = [
        (128, 10, MILLION),
        (128, MILLION, MILLION),
        (1024, 10, 400_000),
        (1024, MILLION, 400_000),
    ];
    let columns: Vec<_> = cases
        .into_iter()
        .map(|(payload, subjects, count)| {
            let rows = stage(
                "append",
                &[payload, subjects, count].map(|number| number.to_string()),
            );
            let name = if subjects == 10 {
                format!("{payload} B, 10 subjects")
            } else {
                format!("{payload} B, a new subject each")
            };
            (name, rows)
        })
        .collect();
    page.table("append, no log", &columns, None);
}

pub(crate) fn run(payload: u64, subjects: u64, count: u64) -> Rows {
    let mut rows = Rows::default();
    let dir = Scratch::new("append");
    let disk_rate = sequential_rate(&dir.0);
    let mut bench = Bench::open(&dir.0);
    bench.store.create_stream(STREAM, 1).unwrap();
    bench.fill(count, subjects, payload as usize);
    let filled = bench.filled;
    let stored = filled.stored_bytes as f64;
    let [begin_flush, begin_merge, finish] = filled.longest;
    rows.add("append, each message", filled.appending.each(count));
    rows.add("flush, each message", filled.flushing.each(count));
    rows.add("merge, each message", filled.merging.each(count));
    let wall = filled.appending.wall + filled.flushing.wall;
    rows.add(
        "append and flush, one thread",
        format!(
            "{:.2} M msg/s, {:.0} MB/s",
            count as f64 / wall.as_secs_f64() / 1e6,
            stored / wall.as_secs_f64() / 1e6
        ),
    );
    let flush_rate = filled.flush_bytes as f64 / filled.flushing.wall.as_secs_f64();
    rows.add(
        "a flush writes, of the disk's own rate",
        format!(
            "{:.0} of {:.0} MB/s, {:.0} %",
            flush_rate / 1e6,
            disk_rate / 1e6,
            100.0 * flush_rate / disk_rate
        ),
    );
    rows.add(
        "written for each stored byte: flush, merges",
        format!(
            "{:.3}, {:.2}",
            filled.flush_bytes as f64 / stored,
            filled.merge_bytes as f64 / stored
        ),
    );
    rows.add(
        "the store waits at most: flush, merge, taking in",
        format!("{begin_flush}, {begin_merge}, {finish}"),
    );
    rows
}
