//! Three replicas in the simulator, over a transport that delays, loses and cuts; kills and power cuts.
//!
//! What must hold: no acknowledged proposal is lost, every replica applies the same entries at the same indexes, and once
//! everything is healed they converge and take proposals again.

#![allow(clippy::panic, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use halyard_raft::{
    Answer, Error, Group, GroupId, LogId, Machine, Node, NodeId, NodeOptions, Peer, ProposeError,
    Transport,
};
use halyard_runtime::disk::Disk;
use halyard_runtime::sim::{self, DiskFaults, SimDisk};
use halyard_runtime::{event, random, time};
use parking_lot::Mutex;

const GROUP: GroupId = GroupId(1);
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

#[derive(Default)]
struct Ledger(Vec<(u64, u64)>);

impl Machine for Ledger {
    type Reply = u64;
    fn apply(&mut self, at: LogId, payload: &Bytes) -> u64 {
        let serial = u64::from_le_bytes(payload[..8].try_into().expect("eight bytes"));
        self.0.push((at.index, serial));
        at.index
    }
}

/// What all machines share outside of their memory: who runs, and which ways are cut.
#[derive(Default)]
struct Cluster {
    running: BTreeMap<NodeId, (Arc<Node>, Group<Ledger>)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    acked: BTreeMap<u64, u64>,
    /// What any replica has ever applied at an index.
    applied: BTreeMap<u64, u64>,
    serial: u64,
}

/// Hands requests from one simulated machine to another, late, or never.
struct Wire {
    from: NodeId,
    cluster: Arc<Mutex<Cluster>>,
}

impl Transport for Wire {
    fn call(&self, to: NodeId, _: &Peer, group: GroupId, request: Bytes, ttl: Duration) -> Answer {
        let (from, cluster) = (self.from, Arc::clone(&self.cluster));
        Box::pin(async move {
            let lost = || std::io::Error::from(std::io::ErrorKind::TimedOut);
            time::sleep(Duration::from_micros(200 + random::below(2000))).await;
            let node = {
                let cluster = cluster.lock();
                let cut = cluster.cut.contains(&(from, to)) || random::below(50) == 0;
                if cut {
                    None
                } else {
                    cluster.running.get(&to).map(|(node, _)| Arc::clone(node))
                }
            };
            let Some(node) = node else {
                time::sleep(ttl).await;
                return Err(lost());
            };
            let reply = node.handle(group, request).await;
            time::sleep(Duration::from_micros(200 + random::below(2000))).await;
            if cluster.lock().cut.contains(&(to, from)) {
                time::sleep(ttl).await;
                return Err(lost());
            }
            Ok(reply)
        })
    }
}

async fn life(id: NodeId, disk: SimDisk, cluster: Arc<Mutex<Cluster>>) {
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let wire = Wire {
        from: id,
        cluster: Arc::clone(&cluster),
    };
    let options = NodeOptions {
        segment_bytes: 64 << 10,
        first_segment_bytes: 16 << 10,
        transport: Arc::new(wire),
        ..NodeOptions::new(disk, Path::new("/store"), id)
    };
    let node = match Node::open(options) {
        Ok(node) => Arc::new(node),
        Err(Error::Io { .. }) => return, // the power went again
        Err(error) => panic!("{error}"),
    };
    let founders = NODES
        .into_iter()
        .map(|node| (node, Peer::default()))
        .collect();
    let machine = Arc::new(Mutex::new(Ledger::default()));
    let Ok(group) = node.start_replica(GROUP, machine, 0, &founders).await else {
        return;
    };
    event!("{id} runs, {} applied", group.applied());
    cluster.lock().running.insert(id, (node, group.clone()));
    let mut leadership = group.leadership();
    loop {
        let now = *leadership.borrow_and_update();
        event!(
            "{id}: term {} leader {:?} {}",
            now.term,
            now.leader,
            now.am_leader
        );
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// Proposes through whoever seems to lead, a few at a time.
async fn client(cluster: Arc<Mutex<Cluster>>) {
    loop {
        let groups: Vec<Group<Ledger>> = {
            let cluster = cluster.lock();
            cluster
                .running
                .values()
                .map(|(_, group)| group.clone())
                .collect()
        };
        let leader = groups
            .into_iter()
            .find(|group| group.leadership().borrow().am_leader);
        if let Some(group) = leader {
            let proposals: Vec<_> = (0..1 + random::below(4))
                .map(|_| {
                    let serial = {
                        let mut cluster = cluster.lock();
                        cluster.serial += 1;
                        cluster.serial
                    };
                    (
                        serial,
                        group.propose(Bytes::copy_from_slice(&serial.to_le_bytes())),
                    )
                })
                .collect();
            for (serial, proposal) in proposals {
                match time::timeout(Duration::from_secs(2), proposal).await {
                    Ok(Ok(index)) => {
                        event!("acked {serial} at {index}");
                        cluster.lock().acked.insert(serial, index);
                    }
                    Ok(Err(error)) => event!("{serial}: {error}"),
                    Err(_) => event!("{serial}: no answer"),
                }
            }
        }
        time::sleep(Duration::from_millis(1 + random::below(20))).await;
    }
}

/// Every index holds one entry, on whichever replica and in whichever life.
fn check(cluster: &mut Cluster) {
    let Cluster {
        running,
        applied,
        acked,
        ..
    } = cluster;
    for (_, group) in running.values() {
        for (index, serial) in &group.machine().lock().0 {
            let first = applied.entry(*index).or_insert(*serial);
            assert_eq!(first, serial, "two entries at index {index}");
        }
    }
    for (serial, index) in acked.iter() {
        assert!(
            applied.get(index).is_none_or(|there| there == serial),
            "{serial} was acknowledged at {index}"
        );
    }
}

fn run_seed(seed: u64) -> sim::Outcome<usize> {
    sim::run(seed, Duration::from_secs(600), move || async move {
        let cluster = Arc::new(Mutex::new(Cluster::default()));
        let machines = NODES.map(|id| {
            let machine = sim::Node::new(
                &format!("n{id}"),
                IpAddr::V4(Ipv4Addr::new(10, 0, 0, id.0 as u8)),
            );
            let sync_time = (Duration::from_micros(50), Duration::from_millis(4));
            let disk = SimDisk::new(
                seed * 10 + id.0,
                DiskFaults {
                    sync_time,
                    ..DiskFaults::default()
                },
            );
            machine.attach(&disk);
            drop(machine.spawn(life(id, disk.clone(), Arc::clone(&cluster))));
            (id, machine, disk)
        });
        let user = sim::Node::new("user", IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100)));
        drop(user.spawn(client(Arc::clone(&cluster))));
        time::sleep(Duration::from_secs(2)).await;
        for _ in 0..12 {
            let (id, machine, disk) = &machines[random::below(3) as usize];
            match random::below(4) {
                0 => {
                    let other = NODES[random::below(3) as usize];
                    event!("cut {id} -> {other}");
                    cluster.lock().cut.insert((*id, other));
                }
                1 => {
                    event!("heal");
                    cluster.lock().cut.clear();
                }
                _ => {
                    event!("restart {id}");
                    cluster.lock().running.remove(id);
                    if random::below(2) == 0 {
                        machine.kill()
                    } else {
                        machine.power_off()
                    }
                    time::sleep(Duration::from_millis(random::below(1500))).await;
                    machine.start();
                    drop(machine.spawn(life(*id, disk.clone(), Arc::clone(&cluster))));
                }
            }
            time::sleep(Duration::from_millis(200 + random::below(1500))).await;
            check(&mut cluster.lock());
        }
        cluster.lock().cut.clear();
        time::sleep(Duration::from_secs(10)).await;
        user.kill();
        time::sleep(Duration::from_secs(3)).await;
        let mut cluster = cluster.lock();
        check(&mut cluster);
        let views: Vec<_> = cluster
            .running
            .values()
            .map(|(_, group)| group.machine().lock().0.clone())
            .collect();
        assert_eq!(views.len(), 3);
        assert!(
            views.windows(2).all(|pair| pair[0] == pair[1]),
            "the replicas differ"
        );
        let held: BTreeMap<u64, u64> = views[0]
            .iter()
            .map(|(index, serial)| (*serial, *index))
            .collect();
        for (serial, index) in &cluster.acked {
            assert_eq!(
                held.get(serial),
                Some(index),
                "acknowledged {serial} at {index}"
            );
        }
        cluster.acked.len()
    })
}

#[test]
fn three_replicas_lose_nothing_and_agree() {
    let seeds: u64 = std::env::var("SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(6);
    let first: u64 = std::env::var("FIRST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0);
    let mut acked = 0;
    for seed in first..first + seeds {
        let outcome = run_seed(seed);
        if outcome.result.is_err() {
            let tail = outcome.trace.len().saturating_sub(60);
            eprintln!("{}", outcome.trace[tail..].join("\n"));
        }
        acked += outcome
            .result
            .unwrap_or_else(|panic| panic!("seed {seed}: {panic}"));
    }
    println!("{seeds} seeds: {acked} acknowledged");
    assert!(
        acked as u64 > seeds * 100,
        "long enough to mean something: {acked}"
    );
}

#[test]
fn three_replicas_are_deterministic() {
    let (first, second) = (run_seed(3), run_seed(3));
    assert_eq!(first.trace_hash(), second.trace_hash());
}

#[test]
fn an_idle_leader_renews_its_lease() {
    let outcome = sim::run(9, Duration::from_secs(60), || async {
        let cluster = Arc::new(Mutex::new(Cluster::default()));
        for id in NODES {
            let machine = sim::Node::new(
                &format!("n{id}"),
                IpAddr::V4(Ipv4Addr::new(10, 0, 0, id.0 as u8)),
            );
            let disk = SimDisk::new(id.0, DiskFaults::default());
            machine.attach(&disk);
            drop(machine.spawn(life(id, disk, Arc::clone(&cluster))));
        }
        time::sleep(Duration::from_secs(3)).await;
        let groups: Vec<_> = cluster
            .lock()
            .running
            .values()
            .map(|(_, group)| group.clone())
            .collect();
        let leader = groups
            .iter()
            .find(|group| group.leadership().borrow().am_leader)
            .expect("a leader")
            .clone();
        let follower = groups
            .iter()
            .find(|group| !group.leadership().borrow().am_leader)
            .expect("a follower");
        let refused = follower.propose(Bytes::from_static(&[0; 8])).await;
        assert!(
            matches!(refused, Err(ProposeError::NotLeader { leader: Some(_) })),
            "{refused:?}"
        );
        leader.barrier().await.expect("it leads");
        let mut last = 0;
        for serial in 0..50u64 {
            let proposals = [
                leader.propose(Bytes::copy_from_slice(&serial.to_le_bytes())),
                leader.propose(Bytes::copy_from_slice(&serial.to_le_bytes())),
            ];
            for proposal in proposals {
                let index = proposal.await.expect("applied");
                assert!(index > last);
                last = index;
            }
            time::sleep(Duration::from_millis(random::below(700))).await;
        }
        assert_eq!(leader.replicas().voters.len(), 3);
    });
    outcome.result.expect("no panic");
}
