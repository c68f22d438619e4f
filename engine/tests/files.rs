//! What the files promise: damage is named and contained, keys are kept and changed, old formats open, erased names go.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod model;
mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use halyard_engine::{
    Append, Cipher, Encryption, Erase, Error, FOREVER, Filters, Key, Options, Purge, Store,
    StreamId, Timestamp, inspect,
};
use halyard_runtime::disk::{Disk, OpenMode};
use halyard_runtime::sim::{DiskFaults, SimDisk};
use world::DIR;

const STREAM: StreamId = StreamId(1);

fn options() -> Options {
    Options {
        reserve_bytes: 0,
        ..Options::default()
    }
}

fn encrypted(key: u8, previous: Option<u8>) -> Options {
    let encryption = Encryption {
        cipher: Cipher::Aes256Gcm,
        key: Key([key; 32]),
        previous: previous.map(|key| Key([key; 32])),
    };
    Options {
        encryption: Some(encryption),
        ..options()
    }
}

fn open(disk: &SimDisk, options: &Options) -> Result<Store, Error> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Store::open(disk, Path::new(DIR), options.clone()).map(|(store, _)| store)
}

fn message(subject: &str, payload: &[u8], time: i64) -> Append {
    let record = [subject.as_bytes(), payload].concat();
    Append {
        record: record.into(),
        subject_len: subject.len() as u16,
        headers_len: 0,
        time: Timestamp::from_nanos(time),
        expires: None,
    }
}

fn flush(store: &mut Store) {
    let job = store.begin_flush(store.applied() + 1).unwrap();
    store.finish(job.run()).unwrap();
}

/// Flushes and maintains until nothing is left to do.
fn settle(store: &mut Store) {
    flush(store);
    while let Some(job) = store.begin_maintenance() {
        store.finish(job.run()).unwrap();
    }
}

/// `segments` segments of `each` messages of 200 bytes over 10 subjects.
fn fill(store: &mut Store, segments: u64, each: u64) {
    store.create_stream(STREAM, 1).unwrap();
    for segment in 0..segments {
        for number in 0..each {
            let at = segment * each + number;
            let payload = format!("canary-{at:06}-").repeat(14);
            let subject = format!("orders.{}", at % 10);
            store
                .append(STREAM, message(&subject, payload.as_bytes(), at as i64))
                .unwrap();
        }
        flush(store);
    }
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let files = disk.files().into_iter().map(|(path, _)| path);
    files
        .filter(|path| path.to_string_lossy().contains("segment-"))
        .collect()
}

#[test]
fn every_flipped_bit_is_found_and_only_its_range_is_lost() {
    let disk = SimDisk::new(1, DiskFaults::default());
    let mut store = open(&disk, &options()).unwrap();
    fill(&mut store, 2, 600);
    let path = segments(&disk).remove(0);
    let len = disk
        .files()
        .iter()
        .find(|(file, _)| *file == path)
        .unwrap()
        .1;
    let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut unreadable = 0;
    let mut refused = 0;
    for offset in (0..len).step_by(997) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        disk.damage(&path, offset, &[byte[0] ^ 0x10]);
        let found = inspect::check(&shared, Path::new(DIR), &options()).unwrap();
        assert!(
            !found.damage.is_empty(),
            "a flipped bit at {offset} of {len} is not found"
        );
        match open(&disk, &options()) {
            Err(Error::Corrupt { file, .. }) => {
                assert_eq!(file, path);
                refused += 1;
            }
            Err(error) => panic!("{error}"),
            Ok(store) => {
                let lost = (1..=1200).filter(|&seq| match store.get(STREAM, seq) {
                    Ok(Some(message)) => {
                        let want = format!("canary-{:06}-", seq - 1).repeat(14);
                        assert_eq!(message.payload(), want.as_bytes());
                        false
                    }
                    Ok(None) => panic!("message {seq} is missing without an error"),
                    Err(Error::Corrupt { file, .. }) => {
                        assert_eq!(file, path);
                        true
                    }
                    Err(error) => panic!("{error}"),
                });
                let lost = lost.count();
                assert!(lost <= 170, "one flipped bit took {lost} messages");
                unreadable += usize::from(lost > 0);
            }
        }
        disk.damage(&path, offset, &byte);
    }
    assert!(
        unreadable > 100,
        "most bytes are payload: {unreadable} lost a page, {refused} refused to open"
    );
    assert!(
        inspect::check(&shared, Path::new(DIR), &options())
            .unwrap()
            .damage
            .is_empty()
    );
}

#[test]
fn a_scrub_finds_rot_and_a_good_copy_heals_it() {
    let disk = SimDisk::new(2, DiskFaults::default());
    let mut store = open(
        &disk,
        &Options {
            scrub_bytes: 64 << 10,
            ..options()
        },
    )
    .unwrap();
    fill(&mut store, 1, 2000);
    let path = segments(&disk).remove(0);
    let good = disk.read(&path).unwrap();
    disk.break_sector(&path, 150_000);
    let mut rounds = 0;
    let damage = loop {
        let job = store.begin_scrub().unwrap();
        rounds += 1;
        if let Some(damage) = store.finish(job.run()).unwrap().damage.pop() {
            break damage.to_string();
        }
        assert!(rounds < 100);
    };
    assert!(rounds > 1, "the rate is bounded");
    assert!(damage.contains("unreadable"), "{damage}");
    assert_eq!(store.damage().len(), 1);
    // What is intact keeps serving, and goes on taking messages.
    assert!(store.get(STREAM, 1).unwrap().is_some());
    store
        .append(STREAM, message("orders.1", b"more", 9999))
        .unwrap();
    settle(&mut store);
    let copy = disk.open(Path::new("copy"), OpenMode::CreateNew).unwrap();
    copy.write_at(&good, 0).unwrap();
    let mut wrong = good;
    wrong[140_000] ^= 1;
    let bad = disk.open(Path::new("bad"), OpenMode::CreateNew).unwrap();
    bad.write_at(&wrong, 0).unwrap();
    assert!(matches!(
        store.replace_segment(&path, bad),
        Err(Error::Corrupt { .. })
    ));
    store.replace_segment(&path, copy).unwrap();
    assert!(store.damage().is_empty());
    store.check().unwrap();
}

#[test]
fn an_unreadable_sector_is_an_error_of_its_range() {
    let disk = SimDisk::new(3, DiskFaults::default());
    let mut store = open(&disk, &options()).unwrap();
    fill(&mut store, 1, 1000);
    let path = segments(&disk).remove(0);
    disk.break_sector(&path, 60_000);
    let mut store = open(&disk, &options()).unwrap();
    let lost = (1..=1000)
        .filter(|&seq| store.get(STREAM, seq).is_err())
        .count();
    assert!(lost > 0 && lost < 170, "{lost}");
    // Deleting needs no payload.
    for seq in 1..=1000 {
        store.delete(STREAM, seq, Erase::No).unwrap();
    }
    assert_eq!(store.state(STREAM).unwrap().messages, 0);
}

#[test]
fn plaintext_never_reaches_the_disk() {
    let disk = SimDisk::new(4, DiskFaults::default());
    let mut store = open(&disk, &encrypted(1, None)).unwrap();
    fill(&mut store, 3, 500);
    store
        .put(b"canary-record", bytes::Bytes::from_static(b"canary-value"))
        .unwrap();
    settle(&mut store);
    for needle in [&b"canary"[..], b"orders."] {
        assert_eq!(disk.find(needle), [], "{}", String::from_utf8_lossy(needle));
    }
    store.check().unwrap();
    let plain = SimDisk::new(4, DiskFaults::default());
    fill(&mut open(&plain, &options()).unwrap(), 1, 10);
    assert!(
        !plain.find(b"canary").is_empty(),
        "the search finds what is there"
    );
}

#[test]
fn a_wrong_key_is_a_clear_error_and_changes_nothing() {
    let disk = SimDisk::new(5, DiskFaults::default());
    fill(&mut open(&disk, &encrypted(1, None)).unwrap(), 2, 50);
    let before: Vec<_> = disk
        .files()
        .iter()
        .map(|(path, _)| disk.read(path).unwrap())
        .collect();
    for wrong in [encrypted(2, None), encrypted(2, Some(3)), options()] {
        let error = open(&disk, &wrong).unwrap_err();
        assert!(
            matches!(&error, Error::WrongKey { file, .. } if file.ends_with("manifest")),
            "{error}"
        );
    }
    let after: Vec<_> = disk
        .files()
        .iter()
        .map(|(path, _)| disk.read(path).unwrap())
        .collect();
    assert_eq!(before, after);
}

#[test]
fn a_key_is_rotated_by_maintenance() {
    let disk = SimDisk::new(6, DiskFaults::default());
    let stages = [
        options(),
        encrypted(1, None),
        encrypted(2, Some(1)),
        encrypted(2, None),
        encrypted(3, Some(2)),
    ];
    for (number, stage) in stages.iter().enumerate() {
        let mut store = open(&disk, stage).unwrap();
        if number == 0 {
            fill(&mut store, 2, 100);
        }
        store
            .append(STREAM, message("orders.new", b"canary-new", 1_000_000))
            .unwrap();
        settle(&mut store);
        store.check().unwrap();
        assert_eq!(store.state(STREAM).unwrap().messages, 201 + number as u64);
    }
    assert_eq!(
        disk.find(b"canary"),
        [],
        "nothing is plain any more, freed space included"
    );
    assert!(matches!(
        open(&disk, &encrypted(2, None)),
        Err(Error::WrongKey { .. })
    ));
}

#[test]
fn a_change_of_the_cipher_rewrites_everything() {
    let disk = SimDisk::new(7, DiskFaults::default());
    fill(&mut open(&disk, &encrypted(1, None)).unwrap(), 3, 100);
    let mut other = encrypted(1, None);
    if let Some(encryption) = &mut other.encryption {
        encryption.cipher = Cipher::ChaCha20Poly1305;
    }
    let cipher_of = |name: &Path| disk.read(name).unwrap()[10];
    assert!(segments(&disk).iter().all(|name| cipher_of(name) == 2));
    let mut store = open(&disk, &other).unwrap();
    let left = store.resealing();
    assert_eq!((left.segments, left.manifest), (3, true), "{left:?}");
    settle(&mut store);
    assert!(store.resealing().is_done(), "{:?}", store.resealing());
    assert_eq!(store.state(STREAM).unwrap().messages, 300);
    let mut files = segments(&disk);
    files.push(Path::new(DIR).join("manifest"));
    for file in files {
        assert_eq!(cipher_of(&file), 1, "{}", file.display());
    }
}

/// The old files, too: a view may still read them, and until they are overwritten whoever has the old key can.
#[test]
fn a_change_of_the_key_is_complete_when_no_file_under_the_old_one_is_left() {
    let disk = SimDisk::new(12, DiskFaults::default());
    fill(&mut open(&disk, &encrypted(1, None)).unwrap(), 3, 100);
    let old = segments(&disk);
    let is_left = || old.iter().any(|path| disk.exists(path).unwrap());
    let mut store = open(&disk, &encrypted(2, Some(1))).unwrap();
    let maintain = |store: &mut Store| {
        while let Some(job) = store.begin_maintenance() {
            store.finish(job.run()).unwrap();
            let left = store.resealing();
            assert!(!(left.is_done() && is_left()), "{left:?}");
        }
    };
    let view = store.view(STREAM).unwrap();
    flush(&mut store);
    maintain(&mut store);
    let left = store.resealing();
    assert_eq!((left.segments, left.manifest), (0, false), "{left:?}");
    assert!(is_left() && left.files > 0, "the view reads them: {left:?}");
    drop(view);
    maintain(&mut store);
    assert!(store.resealing().is_done() && !is_left());
}

/// Checksums have no key: who can write to the disk can make a block that passes them.
#[test]
fn a_plain_block_in_a_sealed_file_is_not_read() {
    let disk = SimDisk::new(13, DiskFaults::default());
    fill(&mut open(&disk, &encrypted(1, None)).unwrap(), 1, 50);
    let path = segments(&disk).remove(0);
    let bytes = disk.read(&path).unwrap();
    // The first block follows the header; its frame says two lengths, equal in a plain block, the kind and no flags.
    let (tag, at) = (&bytes[16..24], 128_u64);
    let block = &bytes[128..];
    let len: [u8; 4] = *block.first_chunk().unwrap();
    let stored = &block[16..16 + u32::from_le_bytes(len) as usize];
    let frame = [len, len, [block[8], 0, 0, 0]].concat();
    let crc = crc32c::crc32c(&[tag, &at.to_le_bytes(), &frame, stored].concat());
    disk.damage(&path, at, &[&frame[..], &crc.to_le_bytes()].concat());
    let shared: Arc<dyn Disk> = Arc::new(disk);
    let found = inspect::check(&shared, Path::new(DIR), &encrypted(1, None)).unwrap();
    let told: Vec<_> = found
        .damage
        .iter()
        .map(|one| one.error.to_string())
        .collect();
    assert!(
        told.iter()
            .any(|error| error.contains("a plain block in an encrypted file")),
        "{told:?}"
    );
}

#[test]
fn the_manifest_of_an_empty_store_is_sealed_with_the_new_key_too() {
    let disk = SimDisk::new(8, DiskFaults::default());
    drop(open(&disk, &encrypted(1, None)).unwrap());
    let mut store = open(&disk, &encrypted(2, Some(1))).unwrap();
    assert!(!store.resealing().is_done());
    settle(&mut store);
    assert!(store.resealing().is_done());
    drop(store);
    open(&disk, &encrypted(2, None)).unwrap();
}

#[test]
fn a_segment_under_another_key_is_named_before_anything_is_opened() {
    let disk = SimDisk::new(9, DiskFaults::default());
    fill(&mut open(&disk, &encrypted(1, None)).unwrap(), 2, 50);
    let real: Arc<dyn Disk> = Arc::new(disk.clone());
    let dir = Path::new(DIR);
    // The flush writes the manifest with the new key; the two segments are still under the old one.
    let mut store = open(&disk, &encrypted(2, Some(1))).unwrap();
    store
        .append(STREAM, message("orders.new", b"new", 1_000_000))
        .unwrap();
    flush(&mut store);
    assert_eq!(store.resealing().segments, 2);
    drop(store);
    let both = encrypted(2, Some(1));
    inspect::check_key(&real, dir, &both).unwrap();
    for wrong in [encrypted(2, None), encrypted(1, None), options()] {
        let error = inspect::check_key(&real, dir, &wrong).unwrap_err();
        assert!(matches!(error, Error::WrongKey { .. }), "{error}");
    }
    let error = inspect::check_key(&real, dir, &encrypted(2, None)).unwrap_err();
    assert!(error.to_string().contains("segment-"), "{error}");
}

#[test]
fn a_newer_version_is_refused() {
    let disk = SimDisk::new(7, DiskFaults::default());
    fill(&mut open(&disk, &options()).unwrap(), 1, 10);
    for path in [segments(&disk).remove(0), Path::new(DIR).join("manifest")] {
        let before = disk.read(&path).unwrap();
        // The manifest has a second header at its end, which a newer program would write alike.
        let copy = path.ends_with("manifest").then_some(before.len() - 128);
        let headers: Vec<usize> = std::iter::once(0).chain(copy).collect();
        for &at in &headers {
            let mut header = before[at..at + 124].to_vec();
            header[8..10].copy_from_slice(&9u16.to_le_bytes());
            header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
            disk.damage(&path, at as u64, &header);
        }
        match open(&disk, &options()) {
            Err(Error::NewerVersion {
                file,
                found: 9,
                supported: 2,
            }) => assert_eq!(file, path),
            other => panic!("{other:?}"),
        }
        for &at in &headers {
            disk.damage(&path, at as u64, &before[at..at + 128]);
        }
    }
    open(&disk, &options()).unwrap();
}

#[test]
fn a_damaged_copy_of_the_manifest_is_reported_and_mended() {
    let path = Path::new(DIR).join("manifest");
    for sector in [0, 8] {
        let disk = SimDisk::new(8, DiskFaults::default());
        let mut store = open(&disk, &options()).unwrap();
        fill(&mut store, 1, 10);
        // While it is open, a scrub finds it; before the next opening, that does.
        for while_open in [true, false] {
            disk.damage(&path, sector * 512, &[0xee; 512]);
            if while_open {
                let job = store.begin_scrub().unwrap();
                let found = store
                    .finish(job.run())
                    .unwrap()
                    .damage
                    .remove(0)
                    .to_string();
                assert!(
                    found.contains("manifest") && found.contains("nothing is lost"),
                    "{found}"
                );
            } else {
                store = open(&disk, &options()).unwrap();
            }
            assert_eq!(store.damage().len(), 1, "{:?}", store.damage());
            settle(&mut store);
            assert!(store.damage().is_empty());
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let check = inspect::check(&shared, Path::new(DIR), &options()).unwrap();
            assert!(check.damage.is_empty(), "{:?}", check.damage);
        }
        store.check().unwrap();
    }
}

#[test]
fn a_store_without_its_manifest_is_not_an_empty_store() {
    let disk = SimDisk::new(8, DiskFaults::default());
    fill(&mut open(&disk, &options()).unwrap(), 1, 10);
    disk.remove_file(&Path::new(DIR).join("manifest")).unwrap();
    let before = disk.files();
    assert!(matches!(
        open(&disk, &options()),
        Err(Error::Corrupt { .. })
    ));
    assert_eq!(disk.files(), before, "nothing was overwritten");
}

#[test]
fn names_of_purged_subjects_leave_the_disk() {
    for way in 0..4 {
        let disk = SimDisk::new(9, DiskFaults::default());
        let mut store = open(&disk, &options()).unwrap();
        store.create_stream(STREAM, 1).unwrap();
        for round in 0..4 {
            for number in 0..50 {
                let subject = format!("person.{}", ["alice-canary", "bob", "carol"][number % 3]);
                store
                    .append(STREAM, message(&subject, b"payload", round))
                    .unwrap();
            }
            flush(&mut store);
            // A row without messages of its own: only totals.
            let first = store
                .subject_totals(STREAM, b"person.alice-canary")
                .unwrap()
                .unwrap()
                .first_seq;
            store.delete(STREAM, first, Erase::No).unwrap();
            flush(&mut store);
        }
        match way {
            0 => {
                let purge = Purge {
                    filters: Filters::parse(&["person.alice-canary"]).unwrap(),
                    ..Purge::default()
                };
                store.purge(STREAM, &purge, Erase::Yes).unwrap();
            }
            1 => {
                store.purge(STREAM, &Purge::default(), Erase::Yes).unwrap();
            }
            2 => store.drop_stream(STREAM, Erase::Yes).unwrap(),
            _ => {
                while let Some(seq) = store.last_for_subject(STREAM, b"person.alice-canary") {
                    store.delete(STREAM, seq, Erase::Yes).unwrap();
                }
            }
        }
        assert!(!store.erasure_pending().is_done());
        settle(&mut store);
        assert!(store.erasure_pending().is_done());
        assert_eq!(disk.find(b"alice-canary"), [], "way {way}");
        store.check().unwrap();
    }
}

#[test]
fn values_that_a_record_had_leave_the_disk_when_that_is_asked() {
    let disk = SimDisk::new(10, DiskFaults::default());
    let mut store = open(&disk, &options()).unwrap();
    let put = |store: &mut Store, key: &[u8], value: &'static [u8]| {
        store.put(key, bytes::Bytes::from_static(value)).unwrap();
    };
    put(&mut store, b"b-1", b"canary-first");
    put(&mut store, b"b-2", b"canary-other");
    flush(&mut store);
    put(&mut store, b"b-1", b"canary-second");
    put(&mut store, b"c-1", b"canary-plain");
    flush(&mut store);
    // Records stand in the index of a segment, which is kept twice.
    assert_eq!(disk.find(b"canary-first").len(), 4, "cache and platter");

    store.erase_records(b"x").unwrap();
    assert!(
        store.erasure_pending().is_done(),
        "no record is of that kind"
    );
    store.erase_records(b"b-1").unwrap();
    assert!(store.erasure_pending().waits_for_flush);
    settle(&mut store);
    assert!(store.erasure_pending().is_done());
    assert_eq!(disk.find(b"canary-first"), []);
    for kept in [&b"canary-second"[..], b"canary-other", b"canary-plain"] {
        assert!(!disk.find(kept).is_empty(), "what it is now stays");
    }
    store.remove(b"b-1").unwrap();
    store.erase_records(b"b-1").unwrap();
    // Nothing changed since, and still it takes a flush.
    let mut store = {
        flush(&mut store);
        drop(store);
        open(&disk, &options()).unwrap()
    };
    assert_eq!(store.erasure_up_to(store.flushes()).segments, 1);
    settle(&mut store);
    assert!(store.erasure_pending().is_done());
    assert_eq!(disk.find(b"canary-second"), []);
    assert_eq!(store.record(b"b-2").unwrap(), &b"canary-other"[..]);
    assert_eq!(store.record(b"b-1"), None);
}

/// What was asked for before some flush is told apart from what came later, and comes first.
#[test]
fn erasure_up_to_a_flush_does_not_wait_for_what_comes_after_it() {
    let disk = SimDisk::new(11, DiskFaults::default());
    let mut store = open(&disk, &options()).unwrap();
    store.create_stream(STREAM, 1).unwrap();
    for number in 0..3 {
        for half in ["one", "two"] {
            let append = message("s", format!("canary-{number}-{half}").as_bytes(), number);
            store.append(STREAM, append).unwrap();
        }
        flush(&mut store);
    }
    store.delete(STREAM, 5, Erase::Yes).unwrap();
    flush(&mut store);
    let flushed = store.flushes();
    // More in the segment that is due, and no flush yet: that must neither put it off nor get lost.
    store.delete(STREAM, 6, Erase::Yes).unwrap();
    store.delete(STREAM, 1, Erase::Yes).unwrap();
    assert_eq!(store.erasure_up_to(flushed).segments, 1);
    assert_eq!(store.erasure_pending().segments, 2);
    while !store.erasure_up_to(flushed).is_done() {
        let job = store.begin_maintenance().unwrap();
        let progress = store.erasure_up_to(flushed);
        assert!(
            !progress.is_done(),
            "a job that is out is not done: {progress:?}"
        );
        store.finish(job.run()).unwrap();
    }
    assert_eq!(disk.find(b"canary-2-one"), []);
    assert_eq!(store.erasure_pending().segments, 2);
    for left in [&b"canary-0-one"[..], b"canary-2-two"] {
        assert!(!disk.find(left).is_empty());
    }
    settle(&mut store);
    assert!(store.erasure_pending().is_done());
    for gone in [&b"canary-0-one"[..], b"canary-2-two"] {
        assert_eq!(disk.find(gone), []);
    }
    assert!(!disk.find(b"canary-0-two").is_empty());
}

/// The golden stores of every format version open for ever. HALYARD_GOLDEN=write makes those that are not there (of a new version).
#[test]
fn golden_stores_open() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let real: Arc<dyn Disk> = Arc::new(halyard_runtime::disk::RealDisk);
    for (name, options) in [
        ("store-v1", options()),
        ("store-v1-encrypted", encrypted(1, None)),
        ("store-v2", options()),
        ("store-v2-encrypted", encrypted(1, None)),
    ] {
        let options = Options {
            compress: name.contains("encrypted"),
            overwrite_freed: false,
            ..options
        };
        let dir = root.join(name);
        let writes = std::env::var("HALYARD_GOLDEN").is_ok_and(|what| what == "write");
        if writes && !real.exists(&dir).unwrap() {
            let (mut store, _) = Store::open(real.clone(), &dir, options.clone()).unwrap();
            write_golden(&mut store);
        }
        // Opening may not change a store, so the checked-in one can be opened where it is.
        let stats = inspect::stats(&real, &dir, &options).unwrap();
        assert_eq!(stats.streams.len(), 2, "{stats:?}");
        assert!(
            inspect::check(&real, &dir, &options)
                .unwrap()
                .damage
                .is_empty()
        );
        let mut lines = Vec::new();
        inspect::dump(&real, &dir, &options, None, &mut |dumped| {
            lines.push(match dumped {
                inspect::Dumped::Record(key, value) => {
                    format!(
                        "record {} = {}",
                        String::from_utf8_lossy(key),
                        String::from_utf8_lossy(value)
                    )
                }
                inspect::Dumped::Message(id, message) => format!(
                    "{} {} {} {:?} {} | {} | {}",
                    id.0,
                    message.seq,
                    message.time.as_nanos(),
                    message.expires.map(Timestamp::as_nanos),
                    String::from_utf8_lossy(message.subject()),
                    message.headers().escape_ascii(),
                    message.payload().escape_ascii(),
                ),
                inspect::Dumped::Unreadable(..) => panic!("{dumped:?}"),
            });
            true
        })
        .unwrap();
        // The same content in all of them.
        let expected = root.join("store-v1.txt");
        let text = String::from_utf8(real.read(&expected).unwrap()).unwrap();
        assert_eq!(lines, text.lines().collect::<Vec<_>>());
    }
}

fn write_golden(store: &mut Store) {
    for (id, first) in [(1, 1), (2, 100)] {
        store.create_stream(StreamId(id), first).unwrap();
    }
    store.create_stream(StreamId(3), 1).unwrap();
    for round in 0..3i64 {
        for number in 0..30i64 {
            let id = StreamId(1 + number as u64 % 3);
            let subject = format!("golden.{}", number % 7);
            let mut append = message(
                &subject,
                format!("NATS/1.0\r\n\r\n{round}/{number}").as_bytes(),
                round * 100 + number,
            );
            append.headers_len = if number % 4 == 0 { 12 } else { 0 };
            append.expires = (number % 11 == 0).then_some(Timestamp::from_nanos(1 << 40));
            store.append(id, append).unwrap();
        }
        store
            .put(
                format!("key.{round}").as_bytes(),
                format!("value {round}").into(),
            )
            .unwrap();
        flush(store);
        store
            .delete(StreamId(1), 2 + round as u64, Erase::No)
            .unwrap();
        store.skip(StreamId(2), 3).unwrap();
    }
    let purge = Purge {
        filters: Filters::parse(&["golden.3"]).unwrap(),
        ..Purge::default()
    };
    store.purge(StreamId(1), &purge, Erase::No).unwrap();
    store.drop_stream(StreamId(3), Erase::No).unwrap();
    store.remove(b"key.1").unwrap();
    flush(store);
}

/// A machine decides by it, so it must not depend on whether the store was opened since.
#[test]
fn what_lives_for_ever_is_known_alike_after_opening() {
    let disk = SimDisk::new(5, DiskFaults::default());
    let mut store = open(&disk, &options()).unwrap();
    store.create_stream(STREAM, 1).unwrap();
    for number in 0..4 {
        let append = Append {
            expires: (number == 1).then_some(FOREVER),
            ..message("a", b"x", number)
        };
        store.append(STREAM, append).unwrap();
    }
    assert!(store.has_life_spans(STREAM));
    store.delete(STREAM, 2, Erase::No).unwrap();
    store.delete(STREAM, 3, Erase::No).unwrap();
    let before = store.has_life_spans(STREAM);
    flush(&mut store);
    drop(store);
    let store = open(&disk, &options()).unwrap();
    assert_eq!((before, store.has_life_spans(STREAM)), (false, false));
}
