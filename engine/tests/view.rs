//! A view says what was there, whatever happens to its stream afterwards.

#![allow(clippy::unwrap_used, reason = "what a test does not expect ends it")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use halyard_engine::{
    Append, Erase, Error, Options, Purge, Store, StreamId, StreamView, Timestamp,
};
use halyard_runtime::disk::{Disk, MemDisk};

const S: StreamId = StreamId(1);

fn append(store: &mut Store, number: u64) {
    let subject = format!("s.{}", number % 5);
    let record = format!("{subject}body {number}");
    let append = Append {
        record: Bytes::from(record),
        subject_len: subject.len() as u16,
        headers_len: 0,
        time: Timestamp::from_nanos(number as i64),
        expires: number
            .is_multiple_of(7)
            .then_some(Timestamp::from_nanos(1 << 40)),
    };
    store.append(S, append).unwrap();
}

fn flush(store: &mut Store, applied: u64) {
    let done = store.begin_flush(applied).unwrap().run();
    store.finish(done).unwrap();
}

fn maintain(store: &mut Store) {
    while let Some(job) = store.begin_maintenance() {
        store.finish(job.run()).unwrap();
    }
}

/// Sequence and record of every message.
fn read(view: &StreamView) -> Result<Vec<(u64, Bytes)>, Error> {
    let mut all = Vec::new();
    let mut next = view.first_at_or_after(0);
    while let Some(seq) = next {
        let message = view.get(seq)?.unwrap();
        assert_eq!(message.seq, seq);
        all.push((seq, message.record));
        next = view.first_at_or_after(seq + 1);
    }
    assert_eq!(all.len() as u64, view.state().messages);
    Ok(all)
}

fn store(disk: &Arc<MemDisk>) -> Store {
    let options = Options {
        merge_width: 3,
        reserve_bytes: 0,
        ..Options::default()
    };
    let (mut store, _) = Store::open(disk.clone(), Path::new("/s"), options).unwrap();
    store.create_stream(S, 1).unwrap();
    // Two segments, a frozen tail in between, an active one; holes in each.
    for number in 1..=900 {
        append(&mut store, number);
        if number % 300 == 0 && number < 900 {
            flush(&mut store, number);
        }
    }
    for seq in (50..900).step_by(9) {
        store.delete(S, seq, Erase::No).unwrap();
    }
    store
}

#[test]
fn a_view_outlives_deletes_purges_and_merges() {
    let disk = Arc::new(MemDisk::new());
    let mut store = store(&disk);
    let job = store.begin_flush(900).unwrap();
    for number in 901..=1000 {
        append(&mut store, number);
    }
    // Not by the view: what it has read it would remember, whatever became of the files.
    let before: Vec<(u64, Bytes)> = (1..=1000)
        .filter_map(|seq| store.get(S, seq).unwrap())
        .map(|message| (message.seq, message.record))
        .collect();
    let view = store.view(S).unwrap();
    store.finish(job.run()).unwrap();
    let everything = Purge::default();
    store.purge(S, &everything, Erase::No).unwrap();
    for number in 1001..=1010 {
        append(&mut store, number);
    }
    flush(&mut store, 1010);
    maintain(&mut store);
    assert_eq!(read(&view).unwrap(), before);
    let files = disk.list(Path::new("/s")).unwrap().len();
    drop(view);
    maintain(&mut store);
    assert!(
        disk.list(Path::new("/s")).unwrap().len() < files,
        "the files go with the view"
    );
    assert_eq!(read(&store.view(S).unwrap()).unwrap().len(), 10);
}

#[test]
fn erasure_does_not_wait_for_a_view() {
    let disk = Arc::new(MemDisk::new());
    let mut store = store(&disk);
    flush(&mut store, 900);
    let view = store.view(S).unwrap();
    store.delete(S, 1, Erase::Yes).unwrap();
    flush(&mut store, 901);
    maintain(&mut store);
    assert!(store.erasure_pending().is_done());
    assert!(
        matches!(read(&view), Err(Error::Corrupt { .. })),
        "an error, not zeros"
    );
    // What still lives is read from the store.
    assert!(store.get(S, 2).unwrap().is_some());
}
