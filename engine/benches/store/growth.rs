//! The same questions of stores with more and more messages over one million subjects.

use std::path::Path;

use halyard_engine::{Erase, Filter, Filters, Options, Purge, Store};
use halyard_runtime::measure;

use crate::fixture::{Bench, STREAM, Scratch, disk, files, forget, name_of, options, scatter};
use crate::meter::{Cost, Spread};
use crate::report::{Page, Rows};
use crate::{MILLION, stage};

const SUBJECTS: u64 = MILLION;

pub(crate) fn all(page: &mut Page, sizes: &[u64]) {
    let columns: Vec<_> = sizes
        .iter()
        .map(|count| {
            let dir = Scratch::new("growth");
            let mut rows = stage("build", &[dir.text(), count.to_string()]);
            rows.extend(stage("open", &[dir.text()]));
            rows.extend(stage("ask", &[dir.text(), count.to_string()]));
            (format!("{} M", count / MILLION), rows)
        })
        .collect();
    page.table(
        "messages of 128 B over 1 M subjects",
        &columns,
        Some(("grows with", &grows_with)),
    );
}

/// The order of growth of each row, from the code: n messages, s subjects, S segments; logarithms of base 2 if no other.
fn grows_with(row: &str) -> &'static str {
    match row {
        "append, each" => "O(log s)",
        "flush, each" => "O(log of what one flush holds)",
        "merge, each" => "O(log4 of n / a flush), until segments are full",
        "written for each stored byte: flush, merges" => "as the two rows above",
        "the store waits at most: flush, merge, taking in" => {
            "O(streams and chunks of subjects that changed since the last flush)"
        }
        "files, bytes on disk for each message" => "files: O(n / 1 GiB + log n)",
        "open, cold" | "open, warm" => "O(s S); O(n / 240) places of pages",
        "index bytes for each subject" => "O(1)",
        "memory of the process after opening" => "O(s); a sixth of a byte for each message",
        "last of a subject" => "O(log s)",
        "purge of one subject" => "O(its messages, S log s)",
        "delete, scattered" => "O(S log s)",
        "remove the first (limits)" => "O(log s) amortised",
        "purge of everything" => "O(1), and O(s) to free the index",
        _ if row.contains(" get, ") || row.contains("get") => "O(log S + log n), one page",
        _ if row.starts_with("next of one subject") => "O(S log s)",
        _ if row.starts_with("next of `orders.*.N`") => "O(places where a match could be, S log s)",
        _ if row.starts_with("next of `orders.7.*`") => {
            "O(subjects of the filter), then O(rows left)"
        }
        _ if row.starts_with("count of `>`") => "O(log dead runs)",
        _ if row.ends_with("from the start") => {
            "O(places where a match could be); a prefix O(s / 512)"
        }
        _ if row.ends_with("for the first time") => {
            "O(S x subjects of the filter) where many straddle"
        }
        _ if row.ends_with("once more") => "O(n / 32,768), and the rows since the last count",
        _ => "",
    }
}

pub(crate) fn build(dir: &Path, count: u64) -> Rows {
    let mut rows = Rows::default();
    let mut bench = Bench::open(dir);
    bench.store.create_stream(STREAM, 1).unwrap();
    bench.fill(count, SUBJECTS, 128);
    let filled = bench.filled;
    let stored = filled.stored_bytes as f64;
    rows.add("append, each", filled.appending.each(count));
    rows.add("flush, each", filled.flushing.each(count));
    rows.add("merge, each", filled.merging.each(count));
    rows.add(
        "written for each stored byte: flush, merges",
        format!(
            "{:.2}, {:.2}",
            filled.flush_bytes as f64 / stored,
            filled.merge_bytes as f64 / stored
        ),
    );
    let [begin_flush, begin_merge, finish] = filled.longest;
    rows.add(
        "the store waits at most: flush, merge, taking in",
        format!("{begin_flush}, {begin_merge}, {finish}"),
    );
    let (number, bytes) = files(dir);
    rows.add(
        "files, bytes on disk for each message",
        format!("{number}, {:.0}", bytes as f64 / count as f64),
    );
    rows
}

pub(crate) fn open(dir: &Path) -> Rows {
    let mut rows = Rows::default();
    let before = measure::private_bytes().unwrap();
    let (store, _) = Store::open(disk(), dir, options()).unwrap();
    let grown = measure::private_bytes().unwrap() - before;
    let index = store.index_bytes(STREAM) as u64;
    drop(store);
    let open = |_| drop(Store::open(disk(), dir, options()).unwrap());
    rows.add("open, cold", Spread::of_each(3, || forget(dir), open));
    rows.add("open, warm", Spread::of(3, 1, open));
    rows.add("index bytes for each subject", index / SUBJECTS);
    rows.add(
        "memory of the process after opening",
        format!("{} MB", grown >> 20),
    );
    rows
}

fn filters(text: &str) -> Filters {
    Filters::from(Filter::parse(text.as_bytes()).unwrap())
}

fn random_subject(number: u64) -> String {
    name_of(scatter(number) % SUBJECTS)
}

pub(crate) fn ask(dir: &Path, count: u64) -> Rows {
    let mut rows = Rows::default();
    ask_cold(dir, count, &mut rows);
    let (mut store, _) = Store::open(disk(), dir, options()).unwrap();
    ask_gets(&store, count, &mut rows);
    ask_next(&store, count, &mut rows);
    ask_counts(&store, count, &mut rows);
    ask_removals(&mut store, &mut rows);
    rows
}

fn ask_cold(dir: &Path, count: u64, rows: &mut Rows) {
    let uncached = Options {
        cache_bytes: 0,
        ..options()
    };
    let (store, _) = Store::open(disk(), dir, uncached).unwrap();
    let before = measure::traffic().unwrap().read;
    let get = |number| {
        let found = store.get(STREAM, 1 + scatter(number) % count).unwrap();
        assert!(found.is_some());
    };
    rows.add("random get, cold", Spread::of_each(60, || forget(dir), get));
    let next = |number| {
        let filters = filters(&random_subject(number));
        store.next_matching(STREAM, &filters, count / 3).unwrap();
    };
    rows.add(
        "next of one subject in a million, cold",
        Spread::of_each(60, || forget(dir), next),
    );
    let read = measure::traffic().unwrap().read - before;
    assert!(
        read > 60 * 4096,
        "a cold read comes from the device: {read}"
    );
}

fn ask_gets(store: &Store, count: u64, rows: &mut Rows) {
    let random = |number| {
        let found = store.get(STREAM, 1 + scatter(number) % count).unwrap();
        assert!(found.is_some());
    };
    rows.add("random get, warm", Spread::of(5, 2000, random));
    let sequential = |number| assert!(store.get(STREAM, number + 1).unwrap().is_some());
    rows.add("sequential get", Spread::of(5, 50_000, sequential));
}

fn ask_next(store: &Store, count: u64, rows: &mut Rows) {
    let next = |filters: &Filters| store.next_matching(STREAM, filters, count / 3).unwrap();
    let one = |number| {
        // The same two hundred each round: the first round warms the cache.
        next(&filters(&random_subject(number % 200)));
    };
    let _ = Spread::of(1, 200, one);
    rows.add(
        "next of one subject in a million, warm",
        Spread::of(5, 200, one),
    );
    let last = |number| {
        let found = store.last_for_subject(STREAM, random_subject(number).as_bytes());
        assert!(found.is_some());
    };
    rows.add("last of a subject", Spread::of(5, 2000, last));
    let wild = |number| {
        next(&filters(&format!(
            "orders.*.{}",
            scatter(number) % SUBJECTS
        )));
    };
    rows.add("next of `orders.*.N`, one subject", Spread::of(5, 4, wild));
    // All of its subjects end before: nothing is found, and nothing short of looking at each can tell.
    let past = filters("orders.7.*");
    rows.add(
        "next of `orders.7.*` past its last message",
        Spread::of(3, 1, |_| {
            store
                .next_matching(STREAM, &past, count - 20)
                .map(drop)
                .unwrap();
        }),
    );
}

fn ask_counts(store: &Store, count: u64, rows: &mut Rows) {
    for text in [
        ">",
        "orders.>",
        "orders.7.*",
        "*.7.>",
        "orders.*.*",
        "orders.*.123456",
    ] {
        let filters = filters(text);
        let from = |from: u64| {
            store
                .count_matching(STREAM, &filters, from)
                .map(drop)
                .unwrap()
        };
        let name = format!("count of `{}` from", text.replace("123456", "N"));
        rows.add(format!("{name} the start"), Spread::of(3, 1, |_| from(1)));
        let (first, ()) = Cost::of(|| from(count / 2));
        rows.add(format!("{name} the middle for the first time"), first);
        // As a consumer asks: from a sequence that rises.
        let again = Spread::of(3, 1, |number| from(count / 2 + 1000 * number));
        rows.add(format!("{name} about the middle once more"), again);
    }
}

fn ask_removals(store: &mut Store, rows: &mut Rows) {
    let purge = |store: &mut Store, filters| {
        let purge = Purge {
            filters,
            ..Purge::default()
        };
        store.purge(STREAM, &purge, Erase::No).unwrap()
    };
    let one = |number| {
        purge(store, filters(&random_subject(number)));
    };
    rows.add("purge of one subject", Spread::of(5, 40, one));
    let last = store.last_seq(STREAM);
    let delete = |number| {
        let seq = 1 + scatter(number + 77) % last;
        store.delete(STREAM, seq, Erase::No).map(drop).unwrap();
    };
    rows.add("delete, scattered", Spread::of(5, 400, delete));
    let first = |_| {
        store.remove_first(STREAM).map(drop).unwrap();
    };
    rows.add("remove the first (limits)", Spread::of(5, 4000, first));
    let (cost, removed) = Cost::of(|| purge(store, Filters::default()));
    assert!(removed > 0);
    rows.add("purge of everything", cost);
}
