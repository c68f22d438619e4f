//! The node's log against a list: proposals to two groups, flushes, power cuts at any operation of the disk, failing
//! operations and full disks. After each restart each group holds, in order and once, some of what was proposed to it, and
//! everything that was acknowledged.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot go on without ends it"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolero::TypeGenerator;
use bytes::Bytes;
use halyard_raft::{Error, Group, GroupId, LogId, Machine, Node, NodeId, NodeOptions};
use halyard_runtime::sim::{self, DiskFaults, Failure, SimDisk};
use halyard_runtime::{task, time};

const GROUPS: usize = 2;

#[derive(Clone, Debug, TypeGenerator)]
enum Op {
    Propose { group: bool, bytes: u16 },
    Flush(bool),
    Rest(u8),
}

#[derive(Clone, Debug, TypeGenerator)]
enum Strike {
    Power,
    Error,
    Full,
}

/// One life: what is done, what strikes the disk, and at which of its operations from the life's start on.
#[derive(Clone, Debug, TypeGenerator)]
struct Life {
    ops: Vec<Op>,
    strike: Strike,
    at: u8,
}

/// The numbers of the proposals, in order.
#[derive(Clone, Default)]
struct List(Vec<u64>);

impl Machine for List {
    type Reply = ();
    fn apply(&mut self, _: LogId, payload: &Bytes) {
        let (number, rest) = payload.split_first_chunk::<8>().unwrap();
        let number = u64::from_le_bytes(*number);
        assert!(
            rest.iter().all(|byte| *byte == number as u8),
            "not what was proposed"
        );
        self.0.push(number);
    }
}

/// What the world knows of one group.
#[derive(Default)]
struct Known {
    proposed: u64,
    acked: BTreeSet<u64>,
    stored: Vec<u64>,
    flushed: u64,
}

type World = Arc<Mutex<[Known; GROUPS]>>;

fn options(disk: &SimDisk) -> NodeOptions {
    NodeOptions {
        segment_bytes: 16 << 10,
        first_segment_bytes: 4 << 10,
        ..NodeOptions::new(Arc::new(disk.clone()), Path::new("/store"), NodeId(1))
    }
}

fn check(list: &List, known: &Known) {
    assert!(
        list.0.windows(2).all(|pair| pair[0] < pair[1]),
        "in order, once: {:?}",
        list.0
    );
    assert!(list.0.last().is_none_or(|last| *last <= known.proposed));
    for number in &known.acked {
        let found = list.0.binary_search(number);
        assert!(
            found.is_ok(),
            "{number} was acknowledged, there is {:?}",
            list.0
        );
    }
}

fn propose(group: &Group<List>, at: usize, bytes: u16, world: &World) {
    let number = {
        let mut world = world.lock().unwrap();
        world[at].proposed += 1;
        world[at].proposed
    };
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(8 + usize::from(bytes % 6000), number as u8);
    let proposal = group.propose(Bytes::from(payload));
    let world = Arc::clone(world);
    drop(task::spawn(async move {
        if proposal.await.is_ok() {
            world.lock().unwrap()[at].acked.insert(number);
        }
    }));
}

async fn life(disk: SimDisk, world: World, ops: Vec<Op>) {
    let node = match Node::open(options(&disk)) {
        Ok(node) => node,
        Err(Error::Io { .. } | Error::Full { .. } | Error::Unavailable { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    let mut groups = Vec::new();
    for at in 0..GROUPS {
        let (stored, flushed) = {
            let known = &world.lock().unwrap()[at];
            (known.stored.clone(), known.flushed)
        };
        let machine = Arc::new(parking_lot::Mutex::new(List(stored)));
        let id = GroupId(at as u32 + 1);
        let Ok(group) = node.start_group(id, Arc::clone(&machine), flushed).await else {
            return;
        };
        check(&machine.lock(), &world.lock().unwrap()[at]);
        groups.push(group);
    }
    for op in ops {
        match op {
            Op::Propose { group, bytes } => {
                let at = usize::from(group);
                propose(&groups[at], at, bytes, &world);
            }
            Op::Flush(group) => {
                let at = usize::from(group);
                let applied = groups[at].applied();
                {
                    let known = &mut world.lock().unwrap()[at];
                    known.stored = groups[at].machine().lock().0.clone();
                    known.flushed = applied;
                }
                groups[at].flushed(applied);
            }
            Op::Rest(tenths) => time::sleep(Duration::from_micros(u64::from(tenths) * 100)).await,
        }
    }
    time::sleep(Duration::from_millis(200)).await;
}

fn run(lives: Vec<Life>) {
    let outcome = sim::run(1, Duration::from_secs(600), move || async move {
        let node = sim::Node::new("node", IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
        let disk = SimDisk::new(1, DiskFaults::default());
        node.attach(&disk);
        let world = World::default();
        let quiet = Life {
            ops: Vec::new(),
            strike: Strike::Power,
            at: u8::MAX,
        };
        for Life {
            mut ops,
            strike,
            at,
        } in lives.into_iter().take(6).chain([quiet])
        {
            ops.truncate(60);
            match strike {
                Strike::Power if at < u8::MAX => disk.crash_after(at.into()),
                Strike::Power => {}
                Strike::Error => disk.fail_after(at.into(), Failure::Device, false),
                Strike::Full => disk.fail_after(at.into(), Failure::Full, false),
            }
            let running = node.spawn(life(disk.clone(), Arc::clone(&world), ops));
            let outcome = time::timeout(Duration::from_secs(30), running).await;
            assert!(
                !matches!(&outcome, Ok(Err(error)) if error.is_panic()),
                "{outcome:?}"
            );
            disk.cancel_crash();
            disk.cancel_failure();
            node.power_off();
            node.start();
        }
    });
    outcome.result.unwrap();
}

#[test]
fn the_log_keeps_what_it_acknowledged() {
    bolero::check!()
        .with_type::<Vec<Life>>()
        .for_each(|lives| run(lives.clone()));
}
