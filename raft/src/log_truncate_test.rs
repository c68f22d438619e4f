//! Entries that were voided keep no segment of the log: not while it runs, and not after a restart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use halyard_runtime::disk::{Disk, MemDisk};
use halyard_runtime::{sim, task, time};
use openraft::storage::{IOFlushed, RaftLogStorage as _};
use openraft::type_config::TypeConfigExt as _;
use parking_lot::Mutex;

use crate::adapter::IntoRaft as _;
use crate::entry::{Command, Entry, Payload};
use crate::ids::{GroupId, LogId, NodeId};
use crate::log_store::LogStore;
use crate::types::Types;
use crate::wal::image::GroupLog;
use crate::wal::writer::Layout;
use crate::wal::{Wal, keeper, recovery, writer};

const DIR: &str = "/log";

/// An open log of two groups.
struct Live {
    wal: Arc<Wal>,
    stores: [LogStore; 2],
    tasks: [task::JoinHandle<()>; 2],
}

fn id(term: u64, index: u64) -> LogId {
    LogId {
        term,
        leader: NodeId(1),
        index,
    }
}

impl Live {
    fn open(disk: &Arc<dyn Disk>) -> Self {
        let layout = Layout {
            segment_bytes: 4096,
            first_segment_bytes: 4096,
            cipher: None,
        };
        let mut opened =
            recovery::open(disk, Path::new(DIR), &NodeId(1).into(), &layout).expect("sound");
        let synced = opened.tail.position();
        let wal = Arc::new(Wal::new(
            Arc::clone(disk),
            DIR.into(),
            opened.log,
            NodeId(1),
            layout,
            opened.segments,
            (synced, opened.boots),
        ));
        let stores = [0, 1].map(|id| {
            let state = Mutex::new(opened.groups.remove(&id).unwrap_or_default());
            let id = GroupId(id);
            let log = Arc::new(GroupLog { id, state });
            wal.logs.lock().insert(id.0, Arc::clone(&log));
            let wal = Arc::clone(&wal);
            LogStore { wal, log }
        });
        let tasks = [
            task::spawn(writer::run(Arc::clone(&wal), opened.tail)),
            task::spawn(keeper::run(Arc::clone(&wal))),
        ];
        Self { wal, stores, tasks }
    }

    async fn append(&self, group: usize, id: LogId) {
        let (sender, flushed) = Types::oneshot();
        let payload = Bytes::from(vec![id.index as u8; 700]);
        let payload = Payload::Normal(Command { payload, ticket: 0 });
        let appended = [Entry { id, payload }.into_raft()];
        let mut store = self.stores[group].clone();
        let handed_in = store.append(appended, IOFlushed::signal(sender)).await;
        handed_in.expect("handed in");
        flushed.await.expect("told").expect("on disk");
    }

    /// So many entries of the first group, of which a new leader has only the first four.
    async fn append_and_void(&self, entries: u64) {
        for index in 0..entries {
            self.append(0, id(1, index)).await;
        }
        let last = Some(id(1, 3).into_raft());
        let voided = self.stores[0].clone().truncate_after(last).await;
        voided.expect("handed in");
    }

    /// Lets the log of a group start after an entry, and fills segments with the other group until the oldest ones can go.
    async fn purge(&self, last: LogId) {
        let purged = self.stores[0].clone().purge(last.into_raft()).await;
        purged.expect("handed in");
        time::sleep(Duration::from_millis(300)).await;
    }

    /// Which entries of the group are in the way of letting everything before now go.
    fn held_up_to(&self) -> Option<u64> {
        let segments = self.wal.segments.lock();
        let end = segments.used.back().map_or(0, |last| last.end);
        segments.holders_before(end).get(&0).copied()
    }

    async fn close(self) {
        self.wal.shut_down();
        for task in self.tasks {
            task.await.expect("no panic");
        }
    }
}

#[test]
fn voided_entries_keep_no_segment() {
    let outcome = sim::run(1, Duration::from_secs(60), || async {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        disk.create_dir_all(Path::new(DIR)).expect("a directory");
        let live = Live::open(&disk);
        live.append_and_void(12).await;
        for index in 0..12 {
            live.append(1, id(1, index)).await;
        }
        assert_eq!(live.held_up_to(), Some(4), "only what is still in the log");
        live.close().await;

        let live = Live::open(&disk);
        assert_eq!(live.held_up_to(), Some(4), "as before the restart");
        live.purge(id(1, 3)).await;
        assert_eq!(live.held_up_to(), None);
        let oldest = live.wal.segments.lock().holders();
        assert!(oldest.iter().all(|(group, _)| *group == 1), "{oldest:?}");
        live.close().await;
    });
    outcome.result.expect("no panic");
}

/// The segment of the first entries goes while those that were voided stand in a later one: what was written in their place
/// must be read, not what they say of where the log starts.
#[test]
fn what_was_written_in_place_of_voided_entries_is_read() {
    let outcome = sim::run(1, Duration::from_secs(60), || async {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        disk.create_dir_all(Path::new(DIR)).expect("a directory");
        let live = Live::open(&disk);
        live.append_and_void(8).await;
        for index in 4..6 {
            live.append(0, id(2, index)).await;
        }
        live.purge(id(1, 3)).await;
        assert!(
            live.wal
                .segments
                .lock()
                .used
                .front()
                .is_some_and(|oldest| oldest.sequence > 1)
        );
        live.close().await;

        let live = Live::open(&disk);
        let (start, last) = {
            let state = live.stores[0].log.state.lock();
            (state.start(), state.last())
        };
        assert_eq!((start, last), (4, Some(id(2, 5))));
        for index in 4..6 {
            let entry = live.stores[0].entry(index).expect("readable");
            assert_eq!(entry.id, id(2, index));
        }
        live.close().await;
    });
    outcome.result.expect("no panic");
}
