//! What is left of damaged segments: what reads meet is damage at once, bytes behind the end harm nobody, and of a file
//! without its end every sound page is brought out.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use halyard_engine::{
    Append, Cipher, Encryption, Erase, Error, Key, Mended, Options, Store, StreamId, Timestamp,
    inspect,
};
use halyard_runtime::disk::{Disk, MemDisk, OpenMode};

const DIR: &str = "store";
const EACH: u64 = 100;

fn options() -> Options {
    Options {
        reserve_bytes: 0,
        ..Options::default()
    }
}

fn encrypted() -> Options {
    let encryption = Encryption {
        cipher: Cipher::Aes256Gcm,
        key: Key([7; 32]),
        previous: None,
    };
    Options {
        encryption: Some(encryption),
        ..options()
    }
}

fn open(disk: &Arc<dyn Disk>, options: &Options) -> Store {
    let opened = Store::open(disk.clone(), Path::new(DIR), options.clone());
    opened.unwrap().0
}

fn payload(stream: u64, seq: u64) -> String {
    format!("{stream}-{seq}-").repeat(100)
}

fn append(store: &mut Store, stream: u64, seq: u64) {
    let payload = payload(stream, seq);
    let record = [b"a.b", payload.as_bytes()].concat();
    let append = Append {
        record: record.into(),
        subject_len: 3,
        headers_len: 0,
        time: Timestamp::from_nanos(seq as i64),
        expires: None,
    };
    assert_eq!(store.append(StreamId(stream), append).unwrap(), seq);
}

fn flush(store: &mut Store) {
    let job = store.begin_flush(store.applied() + 1).unwrap();
    store.finish(job.run()).unwrap();
}

/// Streams 1 and 2 in three segments; in the second one message 150 is deleted before it is flushed, message 120 afterwards.
/// Stream 3 begins in the last.
fn fill(disk: &Arc<dyn Disk>, options: &Options) -> Vec<PathBuf> {
    let mut store = open(disk, options);
    for stream in [1, 2] {
        store.create_stream(StreamId(stream), 1).unwrap();
    }
    for segment in 0..3 {
        if segment == 2 {
            store.create_stream(StreamId(3), 1).unwrap();
            store.delete(StreamId(1), 120, Erase::No).unwrap();
        }
        for stream in [1, 2] {
            for number in 1..=EACH {
                append(&mut store, stream, segment * EACH + number);
            }
        }
        if segment == 1 {
            store.delete(StreamId(1), 150, Erase::No).unwrap();
        }
        if segment == 2 {
            append(&mut store, 3, 1);
        }
        flush(&mut store);
    }
    let stats = inspect::stats(disk, Path::new(DIR), options).unwrap();
    let files: Vec<PathBuf> = stats.segments.into_iter().map(|one| one.file).collect();
    assert_eq!(files.len(), 3);
    files
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(MemDisk::new())
}

fn change(disk: &Arc<dyn Disk>, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.read(path).unwrap();
    change(&mut bytes);
    let file = disk.open(path, OpenMode::ReadWrite).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    file.write_at(&bytes, 0).unwrap();
}

/// The sequences of a stream that are read, each as it was written, and the different errors of the others.
fn read(store: &Store, stream: u64, up_to: u64) -> (BTreeSet<u64>, BTreeSet<String>) {
    let (mut found, mut errors) = (BTreeSet::new(), BTreeSet::new());
    for seq in 1..=up_to {
        match store.get(StreamId(stream), seq) {
            Ok(Some(message)) => {
                assert_eq!(message.payload(), payload(stream, seq).as_bytes());
                assert_eq!(message.subject(), b"a.b");
                assert_eq!(message.time.as_nanos(), seq as i64);
                found.insert(seq);
            }
            Ok(None) => {}
            Err(error @ Error::Corrupt { .. }) => drop(errors.insert(error.to_string())),
            Err(error) => panic!("{error}"),
        }
    }
    (found, errors)
}

#[test]
fn what_a_read_meets_is_damage_until_a_scrub_finds_it_sound() {
    let disk = disk();
    let files = fill(&disk, &options());
    change(&disk, &files[0], |bytes| bytes[5000] ^= 4);
    let mut store = open(&disk, &options());
    assert!(store.damage().is_empty());
    let (found, errors) = read(&store, 1, EACH);
    assert!(!found.is_empty() && errors.len() == 1, "{errors:?}");
    let told: Vec<String> = store.damage().iter().map(ToString::to_string).collect();
    assert_eq!(BTreeSet::from_iter(told), errors, "at once, and once");
    store.look_for_maintenance();
    assert_eq!(store.damage().len(), 1);
    while store.begin_maintenance().is_some() {}
    // The scrub meets the same place, and says nothing new.
    let scrub = |store: &mut Store| {
        let mut told = 0;
        for _ in 0..files.len() {
            while let Some(job) = store.begin_maintenance() {
                store.finish(job.run()).unwrap();
            }
            let job = store.begin_scrub().unwrap();
            told += store.finish(job.run()).unwrap().damage.len();
        }
        told
    };
    assert_eq!(scrub(&mut store), 0);
    assert_eq!(store.damage().len(), 1);
    change(&disk, &files[0], |bytes| bytes[5000] ^= 4);
    scrub(&mut store);
    assert!(store.damage().is_empty(), "{:?}", store.damage());
}

/// Reads all segments again.
fn scrub_all(store: &mut Store) {
    for _ in 0..8 {
        let job = store.begin_scrub().unwrap();
        store.finish(job.run()).unwrap();
    }
}

#[test]
fn a_segment_cut_behind_its_first_index_is_whole_and_rewritten() {
    // Of the trailer, and of the blocks of the second copy.
    for cut in [10, 100, 150] {
        let disk = disk();
        let files = fill(&disk, &options());
        change(&disk, &files[1], |bytes| bytes.truncate(bytes.len() - cut));
        let mut store = open(&disk, &options());
        assert_eq!(store.mended(), [(files[1].clone(), Mended::Copy)]);
        scrub_all(&mut store);
        assert!(store.damage().is_empty(), "{cut}: {:?}", store.damage());
        assert_eq!(read(&store, 1, 3 * EACH).0.len() as u64, 3 * EACH - 2);
        while let Some(job) = store.begin_maintenance() {
            store.finish(job.run()).unwrap();
        }
        assert!(store.mended().is_empty());
    }
}

#[test]
fn bytes_behind_the_end_harm_nobody_and_are_rewritten() {
    for options in [options(), encrypted()] {
        let disk = disk();
        let files = fill(&disk, &options);
        change(&disk, &files[1], |bytes| bytes.extend([0xa5; 700]));
        let check = inspect::check(&disk, Path::new(DIR), &options).unwrap();
        assert_eq!(check.damage.len(), 1, "{:?}", check.damage);
        let mut store = open(&disk, &options);
        assert_eq!(store.mended(), [(files[1].clone(), Mended::Longer)]);
        assert_eq!(read(&store, 1, 3 * EACH).0.len() as u64, 3 * EACH - 2);
        // Reading all of it again finds nothing worse.
        scrub_all(&mut store);
        assert!(store.damage().is_empty(), "{:?}", store.damage());
        while let Some(job) = store.begin_maintenance() {
            store.finish(job.run()).unwrap();
        }
        assert!(store.mended().is_empty());
        let check = inspect::check(&disk, Path::new(DIR), &options).unwrap();
        assert!(check.damage.is_empty(), "{:?}", check.damage);
    }
}

#[test]
fn a_segment_without_its_end_gives_every_sound_page() {
    for options in [options(), encrypted()] {
        for cut in 0..3 {
            let disk = disk();
            let files = fill(&disk, &options);
            change(&disk, &files[cut], |bytes| bytes.truncate(bytes.len() / 2));
            let opened = Store::open_past_damage(disk.clone(), Path::new(DIR), options.clone());
            let (store, told) = opened.unwrap();
            let told: Vec<String> = told.iter().map(ToString::to_string).collect();
            assert!(
                told.iter().any(|one| one.contains("page by page")),
                "{told:?}"
            );
            let (found, errors) = read(&store, 1, 3 * EACH);
            let lost: Vec<u64> = (1..=3 * EACH)
                .filter(|seq| !found.contains(seq) && ![120, 150].contains(seq))
                .collect();
            // Its half is about all of the first stream's messages.
            assert!(lost.len() < 20, "cut {cut}: {lost:?}");
            assert!(errors.len() <= 1, "{errors:?}");
            // What was deleted before the pages were written stays so; of what was deleted later the last segment knows.
            assert!(!found.contains(&150), "cut {cut}");
            assert_eq!(found.contains(&120), cut == 2, "cut {cut}");
            let (found, errors) = read(&store, 2, 3 * EACH);
            let lost = 3 * EACH - found.len() as u64;
            assert!((EACH / 2..=EACH).contains(&lost), "cut {cut}: {lost}");
            let says =
                |error: &String| error.contains(" missing ") || error.contains(" in none of ");
            assert!(errors.len() <= 2 && errors.iter().all(says), "{errors:?}");
            let last = store.state(StreamId(1)).unwrap().last_seq;
            assert!(cut == 2 || last == 3 * EACH, "{last}");
        }
    }
}

#[test]
fn a_lost_middle_of_a_segment_costs_what_stood_there() {
    let disk = disk();
    let files = fill(&disk, &options());
    // The header, a piece in the middle, and the end with both copies of the index.
    change(&disk, &files[1], |bytes| {
        let len = bytes.len();
        bytes[..128].fill(0);
        bytes[20_000..21_000].fill(0xee);
        bytes.truncate(len - 6000);
    });
    let opened = Store::open_past_damage(disk.clone(), Path::new(DIR), options());
    let (store, _) = opened.unwrap();
    for stream in [1, 2] {
        let (found, _) = read(&store, stream, 3 * EACH);
        let lost = 3 * EACH - found.len() as u64;
        assert!(lost < 80, "stream {stream} lost {lost}");
    }
}
