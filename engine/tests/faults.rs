//! Damage of every kind at every place of a small store: each answer is right, or an error that names the file; what was
//! not damaged keeps serving; nothing is changed by what fails; the offline check finds the place and says what it took.
//!
//! HALYARD_SEED=n takes another store; HALYARD_STRIDE=1 changes every single byte of every variant (the plain store's
//! always).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod model;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use halyard_engine::{
    Affected, Cipher, Encryption, Error, Key, Options, Store, StreamId, Timestamp, inspect,
};
use halyard_runtime::disk::{Disk, MemDisk, OpenMode, SECTOR_BYTES};
use halyard_runtime::sim::{DiskFaults, SimDisk};
use model::{FILTERS, Model, Op, filters};
use world::{DIR, Draw, World};

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn plain() -> Options {
    Options {
        reserve_bytes: 0,
        merge_width: 4,
        ..Options::default()
    }
}

fn variants() -> [(&'static str, Options); 3] {
    let encryption = Encryption {
        cipher: Cipher::ChaCha20Poly1305,
        key: Key([3; 32]),
        previous: None,
    };
    [
        ("plain", plain()),
        (
            "compressed",
            Options {
                compress: true,
                ..plain()
            },
        ),
        (
            "encrypted",
            Options {
                encryption: Some(encryption),
                ..plain()
            },
        ),
    ]
}

/// A store with several segments, one of them merged, its model, and each earlier content of its files.
struct Case {
    options: Options,
    model: Model,
    files: Files,
    older: Vec<Files>,
}

fn read_files(disk: &dyn Disk) -> Files {
    let entries = disk.list(Path::new(DIR)).unwrap();
    let paths = entries
        .into_iter()
        .map(|entry| Path::new(DIR).join(entry.name));
    paths
        .map(|path| (path.clone(), disk.read(&path).unwrap()))
        .collect()
}

fn case(options: Options) -> Case {
    let seed = number("HALYARD_SEED").unwrap_or(11);
    let mut draw = Draw::new(seed);
    let mut world = World::new(seed, options);
    let mut older = Vec::new();
    for round in 0..7 {
        for _ in 0..14 {
            // A stream that goes away takes what the test wants to look at with it.
            let op = std::iter::repeat_with(|| draw.op())
                .find(|op| !matches!(op, Op::Drop { .. }))
                .unwrap();
            world.change(&op);
        }
        if round == 1 {
            world.change(&Op::Drop {
                stream: 3,
                erase: false,
            });
            world.change(&Op::Create {
                stream: 3,
                first: 5,
            });
        }
        let job = world.store.begin_flush(world.log.len() as u64).unwrap();
        world.store.finish(job.run()).unwrap();
        if round == 4 {
            while let Some(job) = world.store.begin_maintenance() {
                world.store.finish(job.run()).unwrap();
            }
        }
        older.push(read_files(&world.disk));
    }
    let files = older.pop().unwrap();
    // What no manifest names is of no interest.
    let live: BTreeSet<PathBuf> = {
        let disk: Arc<dyn Disk> = Arc::new(world.disk.clone());
        let stats = inspect::stats(&disk, Path::new(DIR), &world.options).unwrap();
        stats.segments.into_iter().map(|each| each.file).collect()
    };
    let manifest = Path::new(DIR).join("manifest");
    let files: Files = files
        .into_iter()
        .filter(|(path, _)| live.contains(path) || *path == manifest)
        .collect();
    assert!(files.len() >= 4, "several segments: {:?}", files.keys());
    Case {
        options: world.options.clone(),
        model: world.model,
        files,
        older,
    }
}

fn place(files: &Files) -> Arc<dyn Disk> {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    disk.create_dir_all(Path::new(DIR)).unwrap();
    for (path, bytes) in files {
        let file = disk.open(path, OpenMode::CreateNew).unwrap();
        file.write_at(bytes, 0).unwrap();
    }
    disk
}

fn open(disk: &Arc<dyn Disk>, options: &Options) -> Result<Store, Error> {
    Store::open(disk.clone(), Path::new(DIR), options.clone()).map(|(store, _)| store)
}

/// An error may only be one that names a file of the store.
fn named(error: &Error, at: &str) -> PathBuf {
    let file = match error {
        Error::Corrupt { file, .. }
        | Error::NewerVersion { file, .. }
        | Error::WrongKey { file, .. }
        | Error::Io { path: file, .. } => file.clone(),
        other => panic!("{at}: {other}"),
    };
    assert!(
        file.starts_with(DIR) && file != Path::new(DIR),
        "{at}: names no file: {error}"
    );
    file
}

/// What was asked in vain.
#[derive(Default)]
struct Seen {
    failed: u64,
    lost: BTreeSet<(u64, u64)>,
    files: BTreeSet<PathBuf>,
}

impl Seen {
    /// The answer is `want`, or an error with a name.
    fn expect<T: PartialEq + std::fmt::Debug>(
        &mut self,
        have: Result<T, Error>,
        want: &T,
        at: &str,
        question: impl Fn() -> String,
    ) -> bool {
        match have {
            Ok(have) => {
                assert!(
                    have == *want,
                    "{at}: {}: {have:?}, not {want:?}",
                    question()
                );
                true
            }
            Err(error) => {
                self.failed += 1;
                self.files.insert(named(&error, at));
                false
            }
        }
    }
}

/// Asks everything that the model can answer.
fn ask(store: &Store, model: &Model, at: &str) -> Seen {
    let mut seen = Seen::default();
    let ids: Vec<u64> = store.stream_ids().map(|id| id.0).collect();
    let want: Vec<u64> = model.streams.keys().copied().collect();
    assert_eq!(ids, want, "{at}: streams");
    let records: Vec<(Vec<u8>, _)> = store
        .records(b"")
        .map(|(key, value)| (key.to_vec(), value.clone()))
        .collect();
    let want: Vec<_> = model.records.clone().into_iter().collect();
    assert_eq!(records, want, "{at}: records");
    for (&stream, target) in &model.streams {
        let id = StreamId(stream);
        let state = store
            .state(id)
            .map(|state| (state.messages, state.first_seq, state.last_seq));
        let want = (
            target.messages.len() as u64,
            target.first_seq(),
            target.last_seq,
        );
        seen.expect(state, &want, at, || format!("state of {stream}"));
        for seq in target.first_seq().saturating_sub(1)..=target.last_seq + 1 {
            let have = store
                .get(id, seq)
                .map(|found| found.map(|found| (found.record.clone(), found.time, found.expires)));
            let want = target.messages.get(&seq).map(|message| {
                let expires = message.expires.map(Timestamp::from_nanos);
                (
                    message.record.clone(),
                    Timestamp::from_nanos(message.time),
                    expires,
                )
            });
            if !seen.expect(have, &want, at, || format!("message {seq} of {stream}")) {
                seen.lost.insert((stream, seq));
            }
        }
        for number in 0..FILTERS.len() as u8 {
            let filters = filters(number);
            let hits = target.matching(&filters);
            for from in [
                0,
                target.first_seq() + 2,
                target.last_seq / 2,
                target.last_seq,
            ] {
                let question = || format!("{filters:?} from {from} of {stream}");
                let next = hits.iter().find(|seq| **seq >= from).copied();
                seen.expect(store.next_matching(id, &filters, from), &next, at, question);
                let last = hits.iter().rfind(|seq| **seq <= from).copied();
                seen.expect(store.last_matching(id, &filters, from), &last, at, question);
                let count = hits.iter().filter(|seq| **seq >= from).count() as u64;
                seen.expect(
                    store.count_matching(id, &filters, from),
                    &count,
                    at,
                    question,
                );
            }
            let mut subjects: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
            for seq in &hits {
                *subjects
                    .entry(target.messages[seq].subject().to_vec())
                    .or_default() += 1;
            }
            let have = store.subjects(id, &filters, None, 100).map(|page| {
                let pairs = page
                    .into_iter()
                    .map(|each| (each.subject.to_vec(), each.messages));
                pairs.collect::<BTreeMap<_, _>>()
            });
            seen.expect(have, &subjects, at, || format!("subjects of {stream}"));
        }
        for message in target.messages.values().step_by(5) {
            let first = target
                .messages
                .iter()
                .find(|(_, other)| other.time >= message.time);
            let want = first.map_or(target.last_seq + 1, |(seq, _)| *seq);
            let time = Timestamp::from_nanos(message.time);
            seen.expect(store.seq_at_time(id, time), &want, at, || {
                format!("time of {stream}")
            });
        }
    }
    seen
}

/// Opens, asks and checks a store of which `changed` is not as it was written. Returns what was lost, `None` where it does
/// not open.
fn examine(case: &Case, disk: &Arc<dyn Disk>, at: &str) -> Option<Seen> {
    let before = read_files(&**disk);
    let opened = open(disk, &case.options);
    let seen = match &opened {
        Ok(store) => Some(ask(store, &case.model, at)),
        Err(error) => {
            named(error, at);
            None
        }
    };
    let check = inspect::check(disk, Path::new(DIR), &case.options);
    assert!(
        read_files(&**disk) == before,
        "{at}: reading changed something"
    );
    let damage = match check {
        Ok(check) => check.damage,
        Err(error) => {
            named(&error, at);
            assert!(
                opened.is_err(),
                "{at}: opens, and the check does not: {error}"
            );
            return seen;
        }
    };
    assert!(!damage.is_empty(), "{at}: the check finds nothing");
    for each in &damage {
        named(&each.error, at);
    }
    let seen = seen?;
    for (stream, seq) in &seen.lost {
        let says = damage
            .iter()
            .flat_map(|each| &each.affected)
            .any(|affected| {
                matches!(affected, Affected::Messages { stream: of, first, last }
                if of.0 == *stream && (first..=last).contains(&seq))
            });
        assert!(
            says,
            "{at}: message {seq} of {stream} is lost, and the check says {damage:?}"
        );
    }
    Some(seen)
}

#[derive(Default)]
struct Tally {
    refused: u64,
    lost: u64,
    harmless: u64,
}

impl Tally {
    fn count(&mut self, seen: Option<Seen>) {
        match seen {
            None => self.refused += 1,
            Some(seen) if seen.failed > 0 => self.lost += 1,
            Some(_) => self.harmless += 1,
        }
    }
}

#[test]
fn every_changed_byte() {
    for (name, options) in variants() {
        let case = case(options);
        let stride = if name == "plain" { 1 } else { 5 };
        let stride = number("HALYARD_STRIDE").unwrap_or(stride) as usize;
        let mut tally = Tally::default();
        for (path, bytes) in &case.files {
            for offset in (0..bytes.len()).step_by(stride) {
                let disk = place(&case.files);
                let file = disk.open(path, OpenMode::ReadWrite).unwrap();
                let changed = bytes[offset] ^ 1 << (offset % 8);
                file.write_at(&[changed], offset as u64).unwrap();
                let at = format!("{name}: {}:{offset}", path.display());
                tally.count(examine(&case, &disk, &at));
            }
        }
        let Tally {
            refused,
            lost,
            harmless,
        } = tally;
        // One flipped bit of a header, an index or a trailer is mended: a store in the clear always opens.
        assert!(
            (refused == 0 || name != "plain") && lost > 10 && harmless > 10,
            "{name}: {refused} refused, {lost} lost something, {harmless} nothing"
        );
    }
}

/// What may stand where a sector should.
fn replacements(case: &Case, path: &Path, at: usize) -> Vec<(String, Vec<u8>)> {
    let len = (case.files[path].len() - at).min(SECTOR_BYTES);
    let mut draw = Draw::new(at as u64);
    let mut all = vec![
        ("zeros".to_owned(), vec![0; len]),
        ("ones".to_owned(), vec![0xff; len]),
        (
            "noise".to_owned(),
            (0..len).map(|_| draw.next() as u8).collect(),
        ),
    ];
    // Reads and writes that went to another place of this file or of another one.
    for (other, bytes) in &case.files {
        for from in (0..bytes.len()).step_by(SECTOR_BYTES) {
            let mut sector = bytes[from..(from + SECTOR_BYTES).min(bytes.len())].to_vec();
            sector.resize(len, 0);
            all.push((format!("{}:{from}", other.display()), sector));
        }
    }
    // What the place held before, in this file or in one that had the space.
    for (age, files) in case.older.iter().enumerate() {
        for (other, bytes) in files {
            let mut sector = bytes.get(at..).unwrap_or_default().to_vec();
            sector.resize(len, 0);
            all.push((format!("{} at age {age}", other.display()), sector));
        }
    }
    let now = &case.files[path][at..at + len];
    all.retain(|(_, bytes)| bytes != now);
    all
}

#[test]
fn every_sector_lost_swapped_or_stale() {
    for (name, options) in variants() {
        let case = case(options);
        for (path, bytes) in &case.files {
            for at in (0..bytes.len()).step_by(SECTOR_BYTES) {
                for (what, sector) in replacements(&case, path, at) {
                    let disk = place(&case.files);
                    let file = disk.open(path, OpenMode::ReadWrite).unwrap();
                    file.write_at(&sector, at as u64).unwrap();
                    let at = format!("{name}: {}:{at} is {what}", path.display());
                    examine(&case, &disk, &at);
                }
            }
        }
    }
}

#[test]
fn every_unreadable_sector() {
    for (name, options) in variants() {
        let case = case(options);
        for (path, bytes) in &case.files {
            for at in (0..bytes.len()).step_by(SECTOR_BYTES) {
                let disk = SimDisk::new(1, DiskFaults::default());
                disk.create_dir_all(Path::new(DIR)).unwrap();
                for (path, bytes) in &case.files {
                    let file = disk.open(path, OpenMode::CreateNew).unwrap();
                    file.write_at(bytes, 0).unwrap();
                }
                disk.break_sector(path, at as u64);
                let disk: Arc<dyn Disk> = Arc::new(disk);
                let at = format!("{name}: {}:{at} is unreadable", path.display());
                let store = match open(&disk, &case.options) {
                    Ok(store) => store,
                    Err(error) => {
                        assert_eq!(named(&error, &at), *path, "{at}");
                        continue;
                    }
                };
                let seen = ask(&store, &case.model, &at);
                assert!(
                    seen.files.iter().all(|file| file == path),
                    "{at}: {:?}",
                    seen.files
                );
                let check = inspect::check(&disk, Path::new(DIR), &case.options).unwrap();
                assert!(!check.damage.is_empty(), "{at}: the check finds nothing");
            }
        }
    }
}

#[test]
fn files_that_are_missing_empty_or_cut() {
    let case = case(plain());
    for (path, bytes) in &case.files {
        let mut files = case.files.clone();
        files.remove(path);
        let disk = place(&files);
        assert!(examine(&case, &disk, &format!("{} is missing", path.display())).is_none());
        for len in 0..bytes.len() {
            let is_manifest = path.ends_with("manifest");
            if is_manifest && len == bytes.len() - 128 {
                // As it was written before the second header came.
                continue;
            }
            let mut files = case.files.clone();
            files.get_mut(path).unwrap().truncate(len);
            let disk = place(&files);
            let at = format!("{} is cut to {len}", path.display());
            // What is cut behind the first copy of a segment's index has lost nothing.
            let seen = examine(&case, &disk, &at);
            let is_right = seen.is_none_or(|seen| is_manifest || seen.failed == 0);
            assert!(is_right, "{at}: opens");
        }
    }
}

/// A file in the place of another, and each file as it was at an earlier moment.
#[test]
fn files_swapped_or_of_an_earlier_moment() {
    let case = case(plain());
    for path in case.files.keys() {
        for (other, bytes) in &case.files {
            if path == other {
                continue;
            }
            let mut files = case.files.clone();
            files.insert(path.clone(), bytes.clone());
            let at = format!("{} is {}", path.display(), other.display());
            assert!(examine(&case, &place(&files), &at).is_none(), "{at}: opens");
        }
    }
    // An earlier manifest is a sound store of an earlier applied index, or names segments that are gone. The log, which
    // goes on from a later index, is what tells: see `start_group`.
    for (age, older) in case.older.iter().enumerate() {
        let manifest = Path::new(DIR).join("manifest");
        let mut files = case.files.clone();
        files.insert(manifest.clone(), older[&manifest].clone());
        match open(&place(&files), &case.options) {
            Ok(store) => assert!(store.applied() < 98 + 3 + 2, "age {age}"),
            Err(error) => {
                named(&error, &format!("the manifest of age {age}"));
            }
        }
    }
}

/// Changes of a damaged store: each does what it should or fails and changes nothing; merges drop nothing; and with the
/// good bytes back, everything is there.
#[test]
fn a_damaged_store_goes_on() {
    let (mut failed, mut went) = (0, 0);
    for (name, options) in variants() {
        let case = case(Options {
            merge_width: 2,
            ..options
        });
        for (path, bytes) in case
            .files
            .iter()
            .filter(|(path, _)| !path.ends_with("manifest"))
        {
            for place_at in (128..bytes.len()).step_by(37) {
                let at = format!("{name}: {}:{place_at}", path.display());
                let disk = place(&case.files);
                let file = disk.open(path, OpenMode::ReadWrite).unwrap();
                file.write_at(&[bytes[place_at] ^ 0x40], place_at as u64)
                    .unwrap();
                let Ok(mut store) = open(&disk, &case.options) else {
                    continue;
                };
                let mut model = case.model.clone();
                let mut draw = Draw::new(place_at as u64);
                let mut index = 1000;
                for _ in 0..40 {
                    let op = draw.op();
                    let before = store.digest();
                    match model.try_apply(&mut store, &op) {
                        Ok(()) => went += 1,
                        Err(error) => {
                            assert_eq!(named(&error, &at), *path, "{at}");
                            assert_eq!(store.digest(), before, "{at}: {op:?} failed by halves");
                            failed += 1;
                        }
                    }
                    index += 1;
                    let job = match draw.below(12) {
                        0 => store.begin_flush(index),
                        1 => store.begin_maintenance(),
                        2 => store.begin_scrub(),
                        _ => None,
                    };
                    if let Some(job) = job
                        && let Err(error) = store.finish(job.run())
                    {
                        assert_eq!(named(&error, &at), *path, "{at}");
                    }
                }
                ask(&store, &model, &at);
                if let Some(job) = store.begin_flush(index) {
                    store.finish(job.run()).unwrap();
                }
                drop(store);
                let Ok(store) = open(&disk, &case.options) else {
                    panic!("{at}: does not open any more");
                };
                ask(&store, &model, &at);
                // The good bytes come back, if the file is still a part of the store.
                if let Ok(file) = disk.open(path, OpenMode::ReadWrite) {
                    file.write_at(bytes, 0).unwrap();
                }
                let store = open(&disk, &case.options).unwrap();
                let seen = ask(&store, &model, &at);
                assert_eq!(seen.failed, 0, "{at}: {:?}", seen.files);
                store.check().unwrap();
            }
        }
    }
    assert!(
        failed > 10 && went > 1000,
        "{failed} failed, {went} went well"
    );
}
