//! Damaged and hostile files of the store: whatever the bytes, opening and reading end in a value or a typed error.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot go on without ends it"
)]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use halyard_engine::{
    Append, Error, Filter, Filters, Options, Store, StreamId, Timestamp, decoders,
};
use halyard_runtime::disk::{Disk, MemDisk, OpenMode};

const STREAM: StreamId = StreamId(1);

fn open(disk: &Arc<dyn Disk>) -> Result<Store, Error> {
    let options = Options {
        reserve_bytes: 0,
        ..Options::default()
    };
    Store::open(disk.clone(), Path::new("store"), options).map(|(store, _)| store)
}

/// The files of a small store with two segments.
fn files() -> Vec<(String, Vec<u8>)> {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let mut store = open(&disk).unwrap();
    store.create_stream(STREAM, 1).unwrap();
    for index in 1..=2u64 {
        for number in 0..40u64 {
            let record = Bytes::from(format!("s.{}payload", number % 7));
            let time = Timestamp::from_nanos(number as i64);
            let append = Append {
                record,
                subject_len: 3,
                headers_len: 0,
                time,
                expires: None,
            };
            store.append(STREAM, append).unwrap();
        }
        let job = store.begin_flush(index).unwrap();
        store.finish(job.run()).unwrap();
    }
    let names = disk
        .list(Path::new("store"))
        .unwrap()
        .into_iter()
        .map(|entry| entry.name);
    names
        .map(|name| {
            (
                name.clone(),
                disk.read(&Path::new("store").join(name)).unwrap(),
            )
        })
        .collect()
}

#[test]
fn decoders_end() {
    bolero::check!().for_each(|bytes: &[u8]| decoders::run_all(bytes));
}

#[test]
fn damaged_files_are_typed_errors() {
    let files = files();
    bolero::check!()
        .with_type::<(u8, Vec<(u16, u8)>, Option<u16>)>()
        .for_each(|(which, edits, cut)| {
            let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
            disk.create_dir_all(Path::new("store")).unwrap();
            for (number, (name, bytes)) in files.iter().enumerate() {
                let mut bytes = bytes.clone();
                if number == usize::from(*which) % files.len() {
                    if let Some(cut) = cut {
                        bytes.truncate(usize::from(*cut) % (bytes.len() + 1));
                    }
                    for (at, value) in edits {
                        let len = bytes.len().max(1);
                        if let Some(byte) = bytes.get_mut(usize::from(*at) % len) {
                            *byte = *value;
                        }
                    }
                }
                let file = disk
                    .open(&Path::new("store").join(name), OpenMode::CreateNew)
                    .unwrap();
                file.write_at(&bytes, 0).unwrap();
            }
            let Ok(mut store) = open(&disk) else { return };
            for seq in 0..=81 {
                let _ = store.get(STREAM, seq);
            }
            let filters = Filters::from(Filter::parse(b"s.*").unwrap());
            let _ = store.next_matching(STREAM, &filters, 20);
            let _ = store.count_matching(STREAM, &filters, 20);
            let _ = store.subjects(STREAM, &filters, None, 100);
            let _ = store.check();
            for _ in 0..80 {
                let _ = store.remove_first(STREAM);
            }
        });
}
