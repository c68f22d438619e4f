//! Memory for each subject: a message of 128 B on each, then opened by a fresh process.

use std::path::Path;

use halyard_engine::{Options, Store};
use halyard_runtime::measure;

use crate::fixture::{Bench, STREAM, Scratch, disk, files, name_of, options};
use crate::meter::Cost;
use crate::report::{Page, Rows};
use crate::stage;

pub(crate) fn all(page: &mut Page, counts: &[u64]) {
    let columns: Vec<_> = counts
        .iter()
        .map(|count| {
            let dir = Scratch::new("subjects");
            let mut rows = stage("subjects-build", &[dir.text(), count.to_string()]);
            rows.extend(stage("subjects-open", &[dir.text()]));
            (format!("{} M subjects", count / 1_000_000), rows)
        })
        .collect();
    page.table("one message of 128 B on each subject", &columns, None);
}

pub(crate) fn build(dir: &Path, count: u64) -> Rows {
    let mut rows = Rows::default();
    let mut bench = Bench::open(dir);
    bench.store.create_stream(STREAM, 1).unwrap();
    bench.fill(count, count, 128);
    rows.add("append, each", bench.filled.appending.each(count));
    let (count_files, bytes) = files(dir);
    rows.add(
        "files, bytes on disk for each subject",
        format!("{count_files}, {}", bytes / count),
    );
    rows
}

pub(crate) fn open(dir: &Path) -> Rows {
    let mut rows = Rows::default();
    // Opening reads all tables, which fills the cache: without one, what is left is the index.
    let uncached = Options {
        cache_bytes: 0,
        ..options()
    };
    let before = measure::private_bytes().unwrap();
    let (cost, (store, _)) = Cost::of(|| Store::open(disk(), dir, uncached).unwrap());
    let grown = measure::private_bytes().unwrap() - before;
    let subjects = store.state(STREAM).unwrap().subjects;
    let names = (0..subjects).map(|subject| name_of(subject).len() as u64);
    let name_bytes: u64 = names.sum();
    rows.add("open", cost);
    rows.add(
        "index bytes for each subject, of them its name",
        format!(
            "{:.0}, {:.1}",
            store.index_bytes(STREAM) as f64 / subjects as f64,
            name_bytes as f64 / subjects as f64
        ),
    );
    rows.add(
        "memory of the process for each subject, after opening without a cache",
        format!("{:.0}", grown as f64 / subjects as f64),
    );
    rows
}
