//! A group of one voter that becomes one of three while it takes proposals, in the simulator. What the machines are told of
//! their replicas, and a store that is ahead of its log because it has just taken another replica's snapshot.

#![allow(clippy::panic, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use halyard_raft::{
    Answer, Error, Group, GroupId, LogId, Machine, Membership, Node, NodeId, NodeOptions, Peer,
    Standing, Transport,
};
use halyard_runtime::disk::{Disk, MemDisk};
use halyard_runtime::sim::{self, DiskFaults, SimDisk};
use halyard_runtime::{task, time};
use parking_lot::Mutex;

const GROUP: GroupId = GroupId(1);
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// Remembers every entry, and where it stands.
#[derive(Default)]
struct Ledger {
    entries: Vec<(u64, u64)>,
    standing: Standing,
}

impl Machine for Ledger {
    type Reply = u64;

    fn apply(&mut self, at: LogId, payload: &Bytes) -> u64 {
        let serial = u64::from_le_bytes(payload[..8].try_into().expect("eight bytes"));
        self.entries.push((at.index, serial));
        self.standing.at = at;
        at.index
    }

    fn membership(&mut self, membership: &Membership) {
        self.standing.membership = membership.clone();
    }
}

/// Who runs.
type Running = Arc<Mutex<BTreeMap<NodeId, (Arc<Node>, Group<Ledger>)>>>;

/// Hands requests from one simulated machine to another.
struct Wire(Running);

impl Transport for Wire {
    fn call(&self, to: NodeId, _: &Peer, group: GroupId, request: Bytes, ttl: Duration) -> Answer {
        let running = Arc::clone(&self.0);
        Box::pin(async move {
            time::sleep(Duration::from_micros(500)).await;
            let node = running.lock().get(&to).map(|(node, _)| Arc::clone(node));
            let Some(node) = node else {
                time::sleep(ttl).await;
                return Err(std::io::ErrorKind::TimedOut.into());
            };
            Ok(node.handle(group, request).await)
        })
    }
}

async fn life(id: NodeId, disk: SimDisk, running: Running) {
    let options = NodeOptions {
        segment_bytes: 64 << 10,
        first_segment_bytes: 16 << 10,
        transport: Arc::new(Wire(Arc::clone(&running))),
        ..NodeOptions::new(Arc::new(disk), Path::new("/store"), id)
    };
    let node = Arc::new(Node::open(options).expect("a sound log"));
    let machine = Arc::new(Mutex::new(Ledger::default()));
    // The first one founds the group alone, and starts it in the same way after it has grown.
    let group = match id == NODES[0] {
        true => node.start_group(GROUP, machine, 0).await,
        false => {
            node.start_replica(GROUP, machine, 0, &BTreeMap::new())
                .await
        }
    };
    let group = group.expect("the group starts");
    running.lock().insert(id, (node, group.clone()));
    let mut leadership = group.leadership();
    while leadership.changed().await.is_ok() {}
}

fn leader(running: &Running) -> Option<Group<Ledger>> {
    let running = running.lock();
    let mut groups = running.values().map(|(_, group)| group.clone());
    groups.find(|group| group.leadership().borrow().am_leader)
}

/// Proposes one after the other; who was answered is noted.
async fn client(running: Running, acked: Arc<Mutex<BTreeMap<u64, u64>>>) {
    for serial in 1u64.. {
        if let Some(group) = leader(&running) {
            let proposal = group.propose(Bytes::copy_from_slice(&serial.to_le_bytes()));
            if let Ok(Ok(index)) = time::timeout(Duration::from_secs(2), proposal).await {
                acked.lock().insert(serial, index);
            }
        }
        time::sleep(Duration::from_millis(8)).await;
    }
}

#[test]
fn a_group_of_one_grows_to_three_under_load() {
    let outcome = sim::run(5, Duration::from_secs(120), || async {
        let running = Running::default();
        let machines = NODES.map(|id| {
            let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, id.0 as u8));
            let machine = sim::Node::new(&format!("n{id}"), address);
            let disk = SimDisk::new(id.0, DiskFaults::default());
            machine.attach(&disk);
            drop(machine.spawn(life(id, disk.clone(), Arc::clone(&running))));
            (id, machine, disk)
        });
        time::sleep(Duration::from_secs(1)).await;
        let acked = Arc::new(Mutex::new(BTreeMap::new()));
        let load = task::spawn(client(Arc::clone(&running), Arc::clone(&acked)));
        time::sleep(Duration::from_secs(1)).await;
        let alone = acked.lock().len();
        assert!(alone > 50, "it takes proposals alone: {alone}");
        let first = leader(&running).expect("a leader");
        for id in &NODES[1..] {
            let added = first.add_learner(*id, Peer::default()).await;
            added.expect("added");
        }
        let voters = BTreeSet::from(NODES);
        first.change_voters(&voters).await.expect("changed");
        time::sleep(Duration::from_secs(2)).await;
        let grown = acked.lock().len();
        assert!(grown > alone + 50, "it takes proposals meanwhile: {grown}");
        drop(first);

        // The first one goes: the others must notice it by themselves.
        running.lock().remove(&NODES[0]);
        machines[0].1.power_off();
        time::sleep(Duration::from_secs(3)).await;
        let without = acked.lock().len();
        assert!(without > grown + 50, "two of three are enough: {without}");
        machines[0].1.start();
        let (id, machine, disk) = &machines[0];
        drop(machine.spawn(life(*id, disk.clone(), Arc::clone(&running))));
        time::sleep(Duration::from_secs(3)).await;
        load.abort();
        time::sleep(Duration::from_secs(2)).await;

        let running = running.lock();
        let held = running.values().map(|(_, group)| {
            let machine = group.machine().lock();
            let replicas = machine.standing.membership.replicas();
            assert_eq!(replicas.voters, voters, "each machine knows its replicas");
            machine.entries.clone()
        });
        let held: Vec<_> = held.collect();
        assert_eq!(held.len(), 3);
        assert!(held.windows(2).all(|pair| pair[0] == pair[1]), "all agree");
        let by_serial: BTreeMap<u64, u64> = held[0]
            .iter()
            .map(|(index, serial)| (*serial, *index))
            .collect();
        for (serial, index) in acked.lock().iter() {
            assert_eq!(
                by_serial.get(serial),
                Some(index),
                "{serial} was acknowledged"
            );
        }
    });
    outcome.result.expect("no panic");
}

fn on_runtime<T>(test: impl Future<Output = T>) -> T {
    task::block_on(2, async {
        time::timeout(Duration::from_secs(60), test)
            .await
            .expect("the test ends")
    })
    .expect("a runtime")
}

/// The standing of a store that has taken a snapshot of a group of three at an entry.
fn snapshot_at(index: u64) -> Standing {
    let mut bytes = vec![1];
    let log_id = |index: u64| [5, 2, index].map(u64::to_le_bytes).concat();
    bytes.extend(log_id(index));
    bytes.push(1);
    bytes.extend(log_id(index - 1));
    let count = |count: u32| count.to_le_bytes();
    bytes.extend([count(1), count(3)].concat());
    bytes.extend(NODES.map(|id| id.0.to_le_bytes()).concat());
    bytes.extend(count(3));
    for id in NODES {
        bytes.extend(id.0.to_le_bytes());
        bytes.extend(count(0));
    }
    Standing::decode(index, &bytes).expect("as documented")
}

/// The store was made durable, and the process ended before the log was shortened.
#[test]
fn a_log_that_is_behind_its_stores_snapshot_goes_on_after_it() {
    on_runtime(async {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let open = || {
            let options = NodeOptions {
                segment_bytes: 64 << 10,
                first_segment_bytes: 16 << 10,
                ..NodeOptions::new(Arc::clone(&disk), Path::new("/store"), NODES[0])
            };
            Node::open(options).expect("a sound log")
        };
        let ledger = || Arc::new(Mutex::new(Ledger::default()));
        let node = open();
        let group = node.start_group(GROUP, ledger(), 0).await.expect("starts");
        for serial in 0u64..5 {
            let proposal = group.propose(Bytes::copy_from_slice(&serial.to_le_bytes()));
            proposal.await.expect("applied");
        }
        node.shutdown().await;
        drop((group, node));

        let standing = snapshot_at(100);
        for round in 0..2 {
            let node = open();
            let machine = ledger();
            let started = node
                .start_replica(
                    GROUP,
                    Arc::clone(&machine),
                    standing.clone(),
                    &BTreeMap::new(),
                )
                .await;
            let group = started.unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert_eq!(group.applied(), 100);
            assert!(
                machine.lock().entries.is_empty(),
                "nothing is applied again"
            );
            assert_eq!(
                machine.lock().standing.membership.replicas().voters.len(),
                3
            );
            while group.replicas().voters.len() != 3 {
                time::sleep(Duration::from_millis(1)).await;
            }
            node.shutdown().await;
        }

        // Its own log after that fits to nothing that is older, or of another leader.
        let node = open();
        let nobody = BTreeMap::new();
        let older = node.start_replica(GROUP, ledger(), snapshot_at(50), &nobody);
        let older = older.await.map(|_| ());
        assert!(
            matches!(older, Err(Error::Mismatch { applied: 50, .. })),
            "{older:?}"
        );
        node.shutdown().await;
    });
}

/// A log that was lost or copied from an earlier time is no snapshot: nothing says what is missing.
#[test]
fn a_lone_voter_whose_log_is_behind_is_refused() {
    on_runtime(async {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let options = NodeOptions::new(disk, Path::new("/store"), NODES[0]).in_memory();
        let node = Node::open(options).expect("a new log");
        let machine = Arc::new(Mutex::new(Ledger::default()));
        let group = node.start_group(GroupId(2), Arc::clone(&machine), 0).await;
        let proposal = group.expect("starts").propose(Bytes::from_static(&[0; 8]));
        proposal.await.expect("applied");
        let mut standing = machine.lock().standing.clone();
        standing.at.index += 9;
        let lost = node.start_group(GROUP, machine, standing).await.map(|_| ());
        assert!(matches!(lost, Err(Error::Mismatch { .. })), "{lost:?}");
        let others = Arc::new(Mutex::new(Ledger::default()));
        let lost = node.start_group(GroupId(3), others, snapshot_at(100)).await;
        assert!(lost.is_err(), "without a vote it may have voted already");
        node.shutdown().await;
    });
}
