//! A hundred thousand streams in one store: a stream is keyed state, not a file.

use std::path::Path;

use halyard_engine::{Store, StreamId};
use halyard_runtime::measure;

use crate::fixture::{Bench, Scratch, append, disk, files, forget, options};
use crate::meter::{Cost, Spread};
use crate::report::{Page, Rows};
use crate::stage;

pub(crate) fn all(page: &mut Page, count: u64) {
    let dir = Scratch::new("streams");
    let mut rows = stage("streams", &[dir.text(), count.to_string()]);
    rows.extend(stage("streams-open", &[dir.text(), count.to_string()]));
    page.table(
        &format!("{count} streams in one store"),
        &[("figure".to_owned(), rows)],
        None,
    );
}

/// One message on each of `which`, then a flush of them all.
fn touch(bench: &mut Bench, rows: &mut Rows, what: &str, which: impl Iterator<Item = u64> + Clone) {
    bench.filled = crate::fixture::Filled::default();
    let appends: Vec<_> = which
        .map(|id| (id, append("orders.1", &[b'x'; 128], 1)))
        .collect();
    let count = appends.len() as u64;
    let (cost, ()) = Cost::of(|| {
        for (id, append) in appends {
            bench.store.append(StreamId(id), append).unwrap();
        }
    });
    rows.add(format!("{what}: append, each"), cost.each(count));
    bench.flush();
    rows.add(
        format!("{what}: flush; the store waits to begin, to take in"),
        format!(
            "{}; {}, {}",
            bench.filled.flushing, bench.filled.longest[0], bench.filled.longest[2]
        ),
    );
    rows.add(
        format!("{what}: bytes that the flush writes for each stream"),
        bench.filled.flush_bytes / count,
    );
}

pub(crate) fn run(dir: &Path, count: u64) -> Rows {
    let mut rows = Rows::default();
    let mut bench = Bench::open(dir);
    let (cost, ()) = Cost::of(|| {
        for id in 1..=count {
            bench.store.create_stream(StreamId(id), 1).unwrap();
        }
    });
    rows.add("create, each", cost.each(count));
    touch(&mut bench, &mut rows, "all, first message", 1..=count);
    for _ in 0..3 {
        touch(&mut bench, &mut Rows::default(), "again", 1..=count);
    }
    touch(&mut bench, &mut rows, "all again", 1..=count);
    let some = (1..=count).step_by(100);
    touch(&mut bench, &mut rows, "one in a hundred", some);
    let (before, _) = files(dir);
    bench.maintain();
    rows.add(
        "merge of all; the store waits to begin, to take in",
        format!(
            "{}; {}, {}",
            bench.filled.merging, bench.filled.longest[1], bench.filled.longest[2]
        ),
    );
    let (after, bytes) = files(dir);
    rows.add(
        "files before and after the merge; bytes for each stream",
        format!("{before}, {after}; {}", bytes / count),
    );
    rows
}

pub(crate) fn open(dir: &Path, count: u64) -> Rows {
    let mut rows = Rows::default();
    let before = measure::private_bytes().unwrap();
    let (store, _) = Store::open(disk(), dir, options()).unwrap();
    let grown = measure::private_bytes().unwrap() - before;
    drop(store);
    let open = |_| drop(Store::open(disk(), dir, options()).unwrap());
    rows.add("open, cold", Spread::of_each(3, || forget(dir), open));
    rows.add(
        "memory of the process for each stream, after opening",
        format!("{} B", grown / count),
    );
    rows
}
