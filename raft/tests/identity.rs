//! Who a node is: drawn once, kept, and another incarnation where what it had promised is gone.

#![allow(clippy::panic, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use halyard_raft::{Error, Group, GroupId, Identity, LogImage, Node, NodeId, NodeOptions};
use halyard_runtime::disk::{Disk, MemDisk, OpenMode};
use halyard_runtime::{task, time};
use parking_lot::Mutex;

use common::Count;

const DIR: &str = "/store";
const GROUP: GroupId = GroupId(1);

fn disk() -> Arc<dyn Disk> {
    Arc::new(MemDisk::new())
}

fn open(disk: &Arc<dyn Disk>, id: Option<NodeId>) -> Result<Node, Error> {
    let options = NodeOptions {
        segment_bytes: 8 << 10,
        first_segment_bytes: 4 << 10,
        ..NodeOptions::new(Arc::clone(disk), Path::new(DIR), id)
    };
    Node::open(options)
}

async fn start(node: &Node) -> Group<Count> {
    let machine = Arc::new(Mutex::new(Count::default()));
    let group = node.start_group(GROUP, machine, 0).await;
    group.expect("the group starts")
}

/// One life: how many entries there were, and one more. Who it was.
async fn live(disk: &Arc<dyn Disk>, id: Option<NodeId>) -> (u64, Identity) {
    let node = open(disk, id).expect("it opens");
    let group = start(&node).await;
    let before = group.machine().lock().0;
    let proposal = group.propose(Bytes::from_static(b"one more"));
    assert_eq!(proposal.await.expect("applied"), before + 1);
    assert_eq!(group.me(), node.identity().node);
    let voters = group.replicas().voters;
    assert!(voters.into_iter().eq([group.me()]), "alone under its name");
    let identity = node.identity().clone();
    node.shutdown().await;
    (before, identity)
}

fn on_runtime<T>(test: impl Future<Output = T>) -> T {
    task::block_on(2, async {
        time::timeout(Duration::from_secs(60), test)
            .await
            .expect("the test ends")
    })
    .expect("a runtime")
}

fn remove_log(disk: &Arc<dyn Disk>) {
    let dir = Path::new(DIR).join("log");
    for entry in disk.list(&dir).expect("listed") {
        disk.remove_file(&dir.join(entry.name)).expect("removed");
    }
}

#[test]
fn a_name_is_drawn_once_and_every_opening_is_counted() {
    on_runtime(async {
        let (disk, other) = (disk(), disk());
        assert_eq!(
            Identity::read(&disk, Path::new(DIR)).expect("readable"),
            None
        );
        let (_, first) = live(&disk, None).await;
        assert!(first.node.node() > 0);
        assert_eq!((first.node.incarnation(), first.boots), (1, 1));
        for boots in 2..20 {
            let (before, again) = live(&disk, None).await;
            assert_eq!(before, boots - 1);
            let expected = Identity {
                boots,
                ..first.clone()
            };
            assert_eq!(again, expected);
            if boots == 10 {
                // What stood in the oldest segments goes; the count stays.
                let node = open(&disk, None).expect("it opens");
                let group = start(&node).await;
                for _ in 0..20 {
                    let long = group.propose(Bytes::from(vec![7; 3000]));
                    long.await.expect("applied");
                }
                assert_eq!(node.identity().boots, 11);
                node.shutdown().await;
                break;
            }
        }
        let image = LogImage::read(&disk, Path::new(DIR), None).expect("readable");
        assert_eq!(image.boots, 11);
        let read = Identity::read(&disk, Path::new(DIR)).expect("readable");
        assert_eq!(
            read.map(|read| (read.node, read.log)),
            Some((first.node, first.log))
        );
        let (_, second) = live(&other, None).await;
        assert_ne!(second.node, first.node, "another directory, another node");
    });
}

#[test]
fn a_directory_of_before_there_were_names_gets_one_and_keeps_everything() {
    on_runtime(async {
        let disk = disk();
        for before in 0..5 {
            let (found, _) = live(&disk, Some(NodeId(1))).await;
            assert_eq!(found, before);
        }
        let (found, named) = live(&disk, None).await;
        assert_eq!(found, 5);
        assert!(named.node.node() > 0);
        assert_eq!(named.former, [NodeId(1)]);
        let (found, again) = live(&disk, None).await;
        assert_eq!((found, again.node), (6, named.node));
        let node = open(&disk, None).expect("it opens");
        assert_eq!(node.scrub_log(u64::MAX).found, []);
        node.shutdown().await;
        drop(node);
        // The note is lost, and segments of both names are there.
        let note = Path::new(DIR).join("identity");
        disk.remove_file(&note).expect("removed");
        let (found, again) = live(&disk, None).await;
        assert_eq!((found, again.node), (7, named.node));
        assert_eq!(again.former, [NodeId(1)]);
        let other = open(&disk, Some(NodeId(2))).map(|_| ());
        assert!(matches!(other, Err(Error::ForeignNode { .. })), "{other:?}");
    });
}

#[test]
fn a_log_that_is_gone_makes_another_incarnation() {
    on_runtime(async {
        let disk = disk();
        let (_, first) = live(&disk, None).await;
        remove_log(&disk);
        let (found, second) = live(&disk, None).await;
        assert_eq!(found, 0);
        assert_eq!(second.node.node(), first.node.node(), "the same node");
        assert_eq!(second.node.incarnation(), 2, "that has promised nothing");
        assert_ne!(second.log, first.log);
        let (found, third) = live(&disk, None).await;
        assert_eq!((found, third.node), (1, second.node));
    });
}

/// The start goes on from what is sound, and may not write anything before it knows that all is.
#[test]
fn a_log_that_cannot_be_opened_gets_no_name() {
    on_runtime(async {
        let disk = disk();
        live(&disk, Some(NodeId(1))).await;
        let first = Path::new(DIR).join("log/log-0000000000000001");
        let file = disk.open(&first, OpenMode::ReadWrite).expect("there");
        file.write_at(&[0xff; 64], 520).expect("room");
        let failed = open(&disk, None).map(|_| ());
        assert!(matches!(failed, Err(Error::Corrupt { .. })), "{failed:?}");
        let note = disk.exists(&Path::new(DIR).join("identity"));
        assert!(!note.expect("asked"), "nothing was written");
    });
}

#[test]
fn a_lost_note_is_made_anew_from_the_log() {
    on_runtime(async {
        let disk = disk();
        let (_, first) = live(&disk, None).await;
        let note = Path::new(DIR).join("identity");
        disk.remove_file(&note).expect("there");
        let (found, second) = live(&disk, None).await;
        assert_eq!((found, second.node), (1, first.node));
        let file = disk.open(&note, OpenMode::ReadWrite).expect("written anew");
        file.write_at(&[0xff; 8192], 0).expect("room");
        let (found, third) = live(&disk, None).await;
        assert_eq!((found, third.node), (2, first.node));
    });
}
