//! Cursors over subject tables: every row, every seek, and damage that is named where it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use halyard_runtime::disk::MemDisk;
use halyard_runtime::time::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::{Append, Options, Store, StreamId};

const S: StreamId = StreamId(1);

/// A store with one segment for each list of names; each name has as many messages as it is in the list.
fn store(segments: &[Vec<u16>], compress: bool) -> Store {
    store_on(&Arc::new(MemDisk::new()), segments, compress)
}

fn store_on(disk: &Arc<MemDisk>, segments: &[Vec<u16>], compress: bool) -> Store {
    let options = Options {
        compress,
        merge_width: 100,
        ..Options::default()
    };
    let (mut store, _) = Store::open(disk.clone(), Path::new("s"), options).unwrap();
    store.create_stream(S, 1).unwrap();
    for (number, names) in segments.iter().enumerate() {
        for at in names {
            let name = name(*at);
            let append = Append {
                record: name.clone().into(),
                subject_len: name.len() as u16,
                headers_len: 0,
                time: Timestamp::EPOCH,
                expires: None,
            };
            store.append(S, append).unwrap();
        }
        if let Some(job) = store.begin_flush(number as u64 + 1) {
            store.finish(job.run()).unwrap();
        }
    }
    store
}

/// Short and long names, names that start with others.
fn name(at: u16) -> String {
    match at % 4 {
        0 => format!("a.{}", at / 4),
        1 => format!("a.{}.{}", at / 64, "x".repeat(usize::from(at % 64))),
        2 => "b".repeat(usize::from(at / 4 % 300) + 1),
        _ => format!("{at:05}"),
    }
}

fn rows(part: &Part, store: &Store) -> Vec<crate::segment::table::SubjectRow> {
    let blocks = 0..part.tables().len();
    let rows = blocks.flat_map(|block| part.table(&store.io, block).unwrap().to_vec());
    rows.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_cursor_has_the_rows_of_the_table(
        names in prop::collection::vec(0u16..2000, 1..1500),
        compress in any::<bool>(),
    ) {
        let store = store(&[names], compress);
        for part in &store.streams[&S].parts {
            let mut cursor = TableCursor::new(part);
            for (number, row) in rows(part, &store).iter().enumerate() {
                prop_assert!(cursor.advance().unwrap());
                prop_assert_eq!(cursor.name(), Some(&*row.name));
                prop_assert_eq!(cursor.totals(), row.totals);
                prop_assert_eq!(cursor.local().map(|local| local.keep(cursor.block())), row.local.clone());
                prop_assert_eq!(cursor.number(), number);
            }
            prop_assert!(!cursor.advance().unwrap());
            prop_assert_eq!(cursor.name(), None);
            prop_assert_eq!(cursor.blocks_read as usize, part.tables().len());
        }
    }

    #[test]
    fn seeking_finds_what_is_there(
        names in prop::collection::vec(0u16..4000, 1..1500),
        mut wanted in prop::collection::vec(0u16..4000, 0..200),
        in_a_row in 0u16..200,
    ) {
        let store = store(&[names], false);
        let part = &store.streams[&S].parts[0];
        let rows = rows(part, &store);
        wanted.extend(1000..1000 + in_a_row);
        let mut wanted: Vec<String> = wanted.into_iter().map(name).collect();
        wanted.sort();
        let mut cursor = TableCursor::new(part);
        for _ in 0..2 {
            for name in &wanted {
                let want = rows.iter().position(|row| row.name == name.as_bytes());
                prop_assert_eq!(cursor.seek(name.as_bytes()).unwrap(), want.is_some(), "{}", name);
                if let Some(at) = want {
                    prop_assert_eq!(cursor.name(), Some(name.as_bytes()));
                    prop_assert_eq!(cursor.number(), at);
                    prop_assert_eq!(cursor.totals(), rows[at].totals);
                }
            }
            let read = cursor.blocks_read;
            prop_assert!(read as usize <= part.tables().len(), "no block is decoded twice");
            cursor.blocks_read = 0;
            cursor.rewind();
        }
    }

    #[test]
    fn merged_tables_have_each_name_once(
        segments in prop::collection::vec(prop::collection::vec(0u16..500, 1..300), 1..6),
    ) {
        let store = store(&segments, false);
        let parts = &store.streams[&S].parts;
        let mut want: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
        for (at, part) in parts.iter().enumerate() {
            for row in rows(part, &store) {
                want.entry(row.name.to_vec()).or_default().push(at);
            }
        }
        let mut tables = MergedTables::new(parts.iter());
        for (name, here) in want {
            prop_assert!(tables.advance().unwrap());
            prop_assert_eq!(tables.name(), name);
            prop_assert_eq!(tables.here().map(|(at, _)| at).collect::<Vec<_>>(), here);
        }
        prop_assert!(!tables.advance().unwrap());
    }
}

/// What goes through all tables keeps nothing of them, and counts by tables neither.
#[test]
fn walks_leave_the_cache_alone() {
    let disk = Arc::new(MemDisk::new());
    let segments: Vec<Vec<u16>> = (0..3).map(|_| (0..2000).collect()).collect();
    drop(store_on(&disk, &segments, false));
    let (store, _) = Store::open(disk, Path::new("s"), Options::default()).unwrap();
    assert_eq!(store.io.len(), 0);
    let filters = crate::Filters::parse(&["a.*"]).unwrap();
    let stream = &store.streams[&S];
    let from = (3000, crate::pending::Side::After);
    let counted = stream.count_by_tables(&store.io, &filters, from, u64::MAX);
    assert_eq!(
        counted.unwrap().map(|counted| counted.count),
        Some(500 + 250)
    );
    assert_eq!(store.io.len(), 0);
}
