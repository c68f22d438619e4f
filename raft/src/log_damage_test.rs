//! Every byte of a small log is changed in turn, every sector lost, swapped or stale, every file cut or missing: each must
//! be noticed, or must change nothing that is read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use halyard_runtime::disk::{Disk, MemDisk, OpenMode};
use halyard_runtime::sim;
use halyard_runtime::task;
use openraft::storage::{IOFlushed, RaftLogStorage as _};
use parking_lot::Mutex;

use crate::adapter::IntoRaft as _;
use crate::entry::{Command, Entry, Payload};
use crate::error::Error;
use crate::ids::{GroupId, LogId, NodeId, Vote};
use crate::log_store::LogStore;
use crate::wal::image::{GroupLog, plain_draft};
use crate::wal::record::Kind;
use crate::wal::writer::{Done, Item, Layout, Wal};
use crate::wal::{keeper, recovery, writer};

const DIR: &str = "/log";

fn layout() -> Layout {
    Layout {
        segment_bytes: 4096,
        first_segment_bytes: 2048,
        cipher: None,
    }
}

fn id(index: u64) -> LogId {
    LogId {
        term: 1,
        leader: NodeId(1),
        index,
    }
}

fn vote() -> Vote {
    Vote {
        term: 1,
        node: NodeId(1),
        committed: true,
    }
}

/// An open log of two groups, and what runs it.
struct Live {
    wal: Arc<Wal>,
    stores: [LogStore; 2],
    tasks: [task::JoinHandle<()>; 2],
}

impl Live {
    fn open(disk: Arc<dyn Disk>) -> Self {
        let mut opened = recovery::open(&disk, Path::new(DIR), &NodeId(1).into(), &layout())
            .expect("a sound log");
        let synced = opened.tail.position();
        let wal = Arc::new(Wal::new(
            disk,
            DIR.into(),
            opened.log,
            NodeId(1),
            layout(),
            opened.segments,
            (synced, opened.boots),
        ));
        let tasks = [
            task::spawn(writer::run(Arc::clone(&wal), opened.tail)),
            task::spawn(keeper::run(Arc::clone(&wal))),
        ];
        let stores = [0, 1].map(|id| LogStore {
            wal: Arc::clone(&wal),
            log: Arc::new(GroupLog {
                id: GroupId(id),
                state: Mutex::new(opened.groups.remove(&id).unwrap_or_default()),
            }),
        });
        Self { wal, stores, tasks }
    }

    /// An entry in a batch of its own.
    async fn append(&self, group: usize, index: u64, payload: Vec<u8>) {
        let (sender, flushed) =
            <crate::types::Types as openraft::type_config::TypeConfigExt>::oneshot();
        let payload = Bytes::from(payload);
        let entry = Entry {
            id: id(index),
            payload: Payload::Normal(Command { payload, ticket: 0 }),
        };
        self.stores[group]
            .clone()
            .append([entry.into_raft()], IOFlushed::signal(sender))
            .await
            .expect("handed in");
        flushed.await.expect("told").expect("on disk");
    }

    async fn close(self) {
        self.wal.submit([Item {
            draft: plain_draft(Kind::Mark, 0),
            of: None,
            done: Done::Nobody,
        }]);
        self.wal.shut_down();
        for task in self.tasks {
            task.await.expect("no panic");
        }
    }
}

/// A log of two groups over three segments, closed properly.
async fn write(disk: Arc<dyn Disk>) {
    disk.create_dir_all(Path::new(DIR)).expect("a directory");
    let live = Live::open(disk);
    for mut store in live.stores.clone() {
        store.save_vote(&vote().into_raft()).await.expect("saved");
    }
    for index in 0..12 {
        let payload = vec![index as u8; 150 + index as usize * 40];
        live.append(index as usize % 2, index / 2, payload).await;
        if index == 8 {
            // Its checkpoint stands in a later segment than entries that are still needed.
            live.stores[0]
                .clone()
                .purge(id(1).into_raft())
                .await
                .expect("handed in");
        }
    }
    // For a spare to be made.
    halyard_runtime::time::sleep(Duration::from_millis(20)).await;
    live.close().await;
}

type Read = BTreeMap<u32, (Option<Vote>, Option<LogId>, Vec<(LogId, Bytes)>)>;

/// Everything that the log says, or why it does not open.
fn read(disk: &Arc<dyn Disk>) -> Result<Read, Error> {
    let opened = recovery::open(disk, Path::new(DIR), &NodeId(1).into(), &layout())?;
    let synced = opened.tail.position();
    let wal = Arc::new(Wal::new(
        Arc::clone(disk),
        DIR.into(),
        opened.log,
        NodeId(1),
        layout(),
        opened.segments,
        (synced, opened.boots),
    ));
    let mut all = Read::new();
    for (id, state) in opened.groups {
        let (vote, purged, range) = (state.vote, state.purged, state.start()..state.end());
        let log = Arc::new(GroupLog {
            id: GroupId(id),
            state: Mutex::new(state),
        });
        let store = LogStore {
            wal: Arc::clone(&wal),
            log,
        };
        let entries = range.map(|index| {
            let entry = store.entry(index).expect("what opened can be read");
            let Payload::Normal(command) = entry.payload else {
                panic!("only payloads were written")
            };
            (entry.id, command.payload)
        });
        all.insert(id, (vote, purged, entries.collect()));
    }
    Ok(all)
}

type Files = Vec<(std::path::PathBuf, Vec<u8>)>;

fn files(disk: &Arc<dyn Disk>) -> Files {
    let list = disk.list(Path::new(DIR)).expect("a directory");
    let paths = list
        .into_iter()
        .map(|entry| Path::new(DIR).join(entry.name));
    paths
        .map(|path| (path.clone(), disk.read(&path).expect("a file")))
        .collect()
}

fn restore(files: &Files) -> Arc<dyn Disk> {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    disk.create_dir_all(Path::new(DIR)).expect("a directory");
    for (path, bytes) in files {
        let file = disk.open(path, OpenMode::CreateNew).expect("a file");
        file.write_at(bytes, 0).expect("written");
    }
    disk
}

/// Whatever bit of a log has flipped, the log opens, and as it was; the bytes that were read are mended on the disk.
#[test]
fn every_flipped_bit_is_mended_or_harmless() {
    let outcome = sim::run(1, Duration::from_secs(10), || async {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        write(Arc::clone(&disk)).await;
        let files = files(&disk);
        let whole = read(&restore(&files)).expect("the log opens");
        assert_eq!(
            whole
                .values()
                .map(|(_, _, entries)| entries.len())
                .sum::<usize>(),
            10
        );
        let (mut mended, mut harmless) = (0, 0);
        for (at, (path, bytes)) in files.iter().enumerate() {
            for offset in (0..bytes.len()).step_by(2) {
                let mut changed = files.clone();
                changed[at].1[offset] ^= 1 << (offset / 2 % 8);
                let disk = restore(&changed);
                let read = read(&disk).unwrap_or_else(|error| panic!("{offset}: {error}"));
                assert!(
                    read == whole,
                    "{}:{offset}: read as something else",
                    path.display()
                );
                let found = disk.read(path).expect("a file");
                match found[offset] == bytes[offset] {
                    true => mended += 1,
                    false => harmless += 1,
                }
            }
        }
        (mended, harmless, files.len())
    });
    let (mended, harmless, files) = outcome.result.expect("no panic");
    assert!(
        files >= 3 && mended > 2000 && harmless > 500,
        "{mended} mended, {harmless} harmless, {files} files"
    );
}

#[test]
fn every_changed_byte_is_noticed_or_harmless() {
    let outcome = sim::run(1, Duration::from_secs(10), || async {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        write(Arc::clone(&disk)).await;
        let files = files(&disk);
        let whole = read(&restore(&files)).expect("the log opens");
        let mut found = 0;
        for (at, (path, bytes)) in files.iter().enumerate() {
            for offset in (0..bytes.len()).step_by(3) {
                let mut changed = files.clone();
                changed[at].1[offset] ^= 3 << (offset / 3 % 7);
                let place = format!("{}:{offset}", path.display());
                found += usize::from(noticed(&changed, &whole, &place));
            }
        }
        found
    });
    let found = outcome.result.expect("no panic");
    assert!(found > 1100, "{found} noticed");
}

/// What the note beside the log is for: a spare that is gone is made anew, and an end that is gone is noticed.
#[test]
fn a_lost_spare_is_made_anew_and_a_lost_end_is_noticed() {
    let outcome = sim::run(4, Duration::from_secs(10), || async {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        write(Arc::clone(&disk)).await;
        let files = files(&disk);
        let whole = read(&restore(&files)).expect("the log opens");
        let is_blank = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        assert!(files.iter().any(|(path, _)| path.ends_with("end")));
        let spare = files.iter().position(|(_, bytes)| is_blank(bytes));
        let spare = spare.expect("a spare");
        let mut changed = files.clone();
        let (path, bytes) = changed.remove(spare);
        // Another one follows it, as after a flush.
        let next = path.with_file_name(crate::wal::segment::file_name(99));
        changed.push((next, bytes));
        assert!(!noticed(&changed, &whole, "without the first spare"));
        let last = files
            .iter()
            .rposition(|(path, bytes)| path.to_string_lossy().contains("log-") && !is_blank(bytes));
        let last = last.expect("a segment in use");
        let mut changed = files;
        let sectors: Vec<usize> = (0..changed[last].1.len())
            .step_by(512)
            .filter(|at| !is_blank(&changed[last].1[*at..*at + 512]))
            .collect();
        for at in sectors.iter().rev().take(2) {
            changed[last].1[*at..*at + 512].fill(0);
        }
        assert!(noticed(&changed, &whole, "without its last two sectors"));
    });
    outcome.result.expect("no panic");
}

/// Opens the changed log: it must read as `whole`, or say what is wrong with which file, and change nothing. True when it
/// was noticed.
fn noticed(changed: &Files, whole: &Read, at: &str) -> bool {
    let disk = restore(changed);
    match read(&disk) {
        Ok(read) => {
            assert!(read == *whole, "{at}: read as something else");
            false
        }
        Err(
            Error::Corrupt { file, .. }
            | Error::NewerVersion { path: file, .. }
            | Error::ForeignNode { path: file, .. }
            | Error::Io { path: file, .. },
        ) => {
            assert!(file.starts_with(DIR) && file != Path::new(DIR), "{at}");
            assert!(files(&disk) == *changed, "{at}: changed by opening");
            true
        }
        Err(error) => panic!("{at}: {error}"),
    }
}

#[test]
fn files_that_are_missing_or_cut_and_sectors_that_are_not_what_was_written() {
    let outcome = sim::run(2, Duration::from_secs(10), || async {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        write(Arc::clone(&disk)).await;
        let files = files(&disk);
        let whole = read(&restore(&files)).expect("the log opens");
        let is_used = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0);
        let used = files.iter().filter(|(_, bytes)| is_used(bytes)).count();
        assert!(used > 3 && used < files.len(), "a spare is there");
        // The note of the end says what was; without it less is known, and nothing is wrong.
        let is_used = |path: &Path, bytes: &[u8]| is_used(bytes) && !path.ends_with("end");
        for (at, (path, bytes)) in files.iter().enumerate() {
            let mut changed = files.clone();
            changed.remove(at);
            let missing = format!("{} is missing", path.display());
            let found = noticed(&changed, &whole, &missing);
            assert!(found || !is_used(path, bytes), "{missing}");
            for len in (0..bytes.len()).step_by(64) {
                let mut changed = files.clone();
                changed[at].1.truncate(len);
                let cut = format!("{} is cut to {len}", path.display());
                let found = noticed(&changed, &whole, &cut);
                assert!(found || !is_used(path, bytes), "{cut}");
            }
            let all = files.iter().flat_map(|(_, bytes)| bytes.chunks(512));
            let replacements: Vec<&[u8]> = [[0; 512].as_slice(), [0xff; 512].as_slice()]
                .into_iter()
                .chain(all)
                .collect();
            for (sector, offset) in (0..bytes.len()).step_by(512).enumerate() {
                for (number, replacement) in replacements.iter().enumerate() {
                    let mut changed = files.clone();
                    changed[at].1[offset..offset + 512].copy_from_slice(replacement);
                    let what = format!("{} sector {sector}: {number}", path.display());
                    noticed(&changed, &whole, &what);
                }
            }
        }
    });
    outcome.result.expect("no panic");
}

/// Two lives that went on from one image of the disk wrote the same places of the same log. Whatever of the one a crash, or
/// whoever copied files, leaves behind what the other wrote does not continue it.
#[test]
fn what_another_life_wrote_at_the_same_place_is_not_read() {
    let outcome = sim::run(3, Duration::from_secs(10), || async {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        write(Arc::clone(&disk)).await;
        let image = files(&disk);
        let mut lives = Vec::new();
        for byte in [101, 102] {
            let disk = restore(&image);
            let live = Live::open(Arc::clone(&disk));
            for index in 6..12 {
                live.append(0, index, vec![byte; 300]).await;
            }
            live.close().await;
            lives.push(files(&disk));
        }
        let [one, other] = lives.as_slice() else {
            unreachable!("two lives");
        };
        assert_eq!(one.len(), other.len());
        let has = |read: &Read, byte: u8| {
            let (_, _, entries) = &read[&0];
            let mut payloads = entries.iter().map(|(_, payload)| payload.first());
            payloads.any(|first| first == Some(&byte))
        };
        let mut mixed = 0;
        for (at, (_, theirs)) in other.iter().enumerate() {
            for offset in (0..theirs.len()).step_by(512) {
                let mut changed = one.clone();
                let mine = &mut changed[at].1;
                if mine[offset..] == theirs[offset..] {
                    continue;
                }
                mine[offset..].copy_from_slice(&theirs[offset..]);
                mixed += 1;
                if let Ok(read) = read(&restore(&changed)) {
                    assert!(
                        !(has(&read, 101) && has(&read, 102)),
                        "file {at}, from {offset} on: two lives in one log"
                    );
                }
            }
        }
        mixed
    });
    let mixed = outcome.result.expect("no panic");
    assert!(mixed > 5, "{mixed}");
}
