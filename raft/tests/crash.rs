//! A whole group in the simulator: proposals, flushes, `kill -9`, power cuts at any operation of the disk, restarts.
//!
//! What must hold: every acknowledged proposal is applied exactly once, at the index that it was acknowledged with, in
//! every later life; proposals of one life are applied in the order of the calls; nothing is applied that was never
//! proposed; and the same seed gives the same trace.

#![allow(clippy::panic, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use halyard_raft::{
    Cipher, Encryption, Error, Group, GroupId, Key, LogId, Machine, Node, NodeId, NodeOptions,
    ProposeError,
};
use halyard_runtime::sim::{self, DiskFaults, SimDisk};
use halyard_runtime::{event, random, task, time};
use parking_lot::Mutex;

const GROUP: GroupId = GroupId(1);

/// What outlives the machine: its own store (as of the last flush), and what the world was told.
#[derive(Default)]
struct World {
    /// The durable store: entries by index, up to `flushed`.
    stored: Vec<(u64, u64)>,
    flushed: u64,
    /// Serial numbers in the order in which they were proposed, over all lives.
    proposed: u64,
    /// Acknowledged serial numbers and the index of each.
    acked: BTreeMap<u64, u64>,
}

/// Keeps the serial numbers of what was applied.
struct Ledger(Vec<(u64, u64)>);

impl Machine for Ledger {
    type Reply = u64;
    fn apply(&mut self, at: LogId, payload: &Bytes) -> u64 {
        let serial = u64::from_le_bytes(payload[..8].try_into().expect("eight bytes"));
        assert!(
            payload[8..].iter().all(|byte| *byte == serial as u8),
            "the payload is what was proposed"
        );
        self.0.push((at.index, serial));
        at.index
    }
}

fn payload(serial: u64) -> Bytes {
    let filler = random::below(if random::below(8) == 0 { 9000 } else { 300 }) as usize;
    let mut bytes = serial.to_le_bytes().to_vec();
    bytes.resize(8 + filler, serial as u8);
    Bytes::from(bytes)
}

/// Checks one life's machine against everything that the world knows.
fn check(entries: &[(u64, u64)], world: &World) {
    assert!(
        entries.windows(2).all(|pair| pair[0].0 < pair[1].0),
        "in the order of the log"
    );
    let mut serials: Vec<u64> = entries.iter().map(|(_, serial)| *serial).collect();
    assert!(serials.is_sorted(), "in the order of the calls");
    serials.dedup();
    assert_eq!(serials.len(), entries.len(), "each once");
    assert!(
        serials.iter().all(|serial| *serial <= world.proposed),
        "nothing else"
    );
    let by_serial: BTreeMap<u64, u64> = entries
        .iter()
        .map(|(index, serial)| (*serial, *index))
        .collect();
    for (serial, index) in &world.acked {
        assert_eq!(
            by_serial.get(serial),
            Some(index),
            "acknowledged {serial} at {index}"
        );
    }
}

fn options(disk: SimDisk, encryption: Option<Encryption>) -> NodeOptions {
    NodeOptions {
        segment_bytes: 32 << 10,
        first_segment_bytes: 8 << 10,
        encryption,
        ..NodeOptions::new(Arc::new(disk), Path::new("/store"), NodeId(1))
    }
}

const LIVES: u64 = 8;

/// How the log is sealed in a life of a run with encryption: it gets a key, which is changed, in the middle of crashes.
fn encryption(life: u64) -> Option<Encryption> {
    match life {
        0 | 1 => None,
        2..5 => Some(Encryption {
            cipher: Cipher::ChaCha20Poly1305,
            key: Key([1; 32]),
            previous: None,
        }),
        _ => Some(Encryption {
            cipher: Cipher::Aes256Gcm,
            key: Key([2; 32]),
            previous: Some(Key([1; 32])),
        }),
    }
}

/// One life of the server; ends when the disk does.
async fn life(disk: SimDisk, world: Arc<Mutex<World>>, encryption: Option<Encryption>) {
    let node = match Node::open(options(disk, encryption)) {
        Ok(node) => node,
        Err(Error::Io { .. }) => return, // the power went again
        Err(error) => panic!("{error}"),
    };
    event!("opened {:?}", node.report());
    let (stored, flushed) = {
        let world = world.lock();
        (world.stored.clone(), world.flushed)
    };
    let machine = Arc::new(Mutex::new(Ledger(stored)));
    let Ok(group) = node.start_group(GROUP, Arc::clone(&machine), flushed).await else {
        return;
    };
    event!("started, {} applied", group.applied());
    check(&machine.lock().0, &world.lock());
    loop {
        for _ in 0..1 + random::below(5) {
            propose(&group, &world);
        }
        if random::below(10) == 0 {
            flush(&group, &world);
        }
        if random::below(40) == 0 {
            node.retire_log();
        }
        if random::below(3) > 0 {
            time::sleep(Duration::from_micros(random::below(4000))).await;
        } else {
            task::yield_now().await;
        }
    }
}

fn propose(group: &Group<Ledger>, world: &Arc<Mutex<World>>) {
    let serial = {
        let mut world = world.lock();
        world.proposed += 1;
        world.proposed
    };
    let proposal = group.propose(payload(serial));
    let world = Arc::clone(world);
    drop(task::spawn(async move {
        match proposal.await {
            Ok(index) => {
                event!("acked {serial} at {index}");
                world.lock().acked.insert(serial, index);
            }
            Err(ProposeError::NotLeader { .. } | ProposeError::TooLarge { .. }) => {
                panic!("a lone voter leads")
            }
            Err(error) => event!("{serial}: {error}"),
        }
    }));
}

/// The machine's store becomes durable as of now.
fn flush(group: &Group<Ledger>, world: &Mutex<World>) {
    let applied = group.applied();
    {
        let machine = group.machine().lock();
        let mut world = world.lock();
        world.stored = machine
            .0
            .iter()
            .filter(|(index, _)| *index <= applied)
            .copied()
            .collect();
        world.flushed = applied;
    }
    group.flushed(applied);
}

/// Everything is sealed as it is configured, within a bounded time.
async fn await_sealed(node: &Node, group: &Group<Ledger>, world: &Mutex<World>) {
    for _ in 0..100 {
        let Some(position) = node.reseal_pending() else {
            return;
        };
        if !node.log_holders(position).is_empty() {
            flush(group, world);
        }
        time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the log is not sealed: {:?}", node.metrics());
}

fn assert_nothing_readable(disk: &SimDisk, world: &World) {
    let every = (world.proposed / 40).max(1) as usize;
    for serial in (1..=world.proposed).step_by(every) {
        let needle = [&serial.to_le_bytes()[..], &[serial as u8; 24]].concat();
        let found = disk.find(&needle);
        assert!(
            found.is_empty(),
            "payload {serial} is in {:?}",
            found.first()
        );
    }
}

fn run_seed(seed: u64, sealed: bool) -> sim::Outcome<(usize, u64)> {
    sim::run(seed, Duration::from_secs(300), move || async move {
        let node = sim::Node::new("node", IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
        let sync_time = (Duration::from_micros(50), Duration::from_millis(3));
        let disk = SimDisk::new(
            seed,
            DiskFaults {
                sync_time,
                ..DiskFaults::default()
            },
        );
        node.attach(&disk);
        let world = Arc::new(Mutex::new(World::default()));
        for number in 0..LIVES {
            if number == 2 {
                // What a log in the clear gave back before it had a key is out of its reach.
                disk.overwrite_freed();
            }
            let sealed = sealed.then(|| encryption(number)).flatten();
            let running = node.spawn(life(disk.clone(), Arc::clone(&world), sealed));
            if random::below(2) == 0 {
                disk.crash_after(random::below(300));
            }
            let lasts = Duration::from_micros(random::below(200_000));
            let ended = time::timeout(lasts, running).await;
            assert!(
                !matches!(&ended, Ok(Err(error)) if error.is_panic()),
                "seed {seed}"
            );
            disk.cancel_crash();
            if random::below(3) == 0 {
                node.kill()
            } else {
                node.power_off()
            }
            node.start();
        }
        // Safety was checked at each start; the last one shows that it also comes back to life.
        let last = Arc::new(Mutex::new(None));
        let (ended, seen) = (Arc::clone(&world), Arc::clone(&last));
        let disk_last = disk.clone();
        let checked = node.spawn(async move {
            let encryption = sealed.then(|| encryption(LIVES)).flatten();
            let opened = Node::open(options(disk_last.clone(), encryption.clone()));
            let node = opened.expect("the log opens");
            let (stored, flushed) = {
                let world = ended.lock();
                (world.stored.clone(), world.flushed)
            };
            let machine = Arc::new(Mutex::new(Ledger(stored)));
            let group = node
                .start_group(GROUP, Arc::clone(&machine), flushed)
                .await
                .expect("the group starts");
            check(&machine.lock().0, &ended.lock());
            let serial = {
                let mut world = ended.lock();
                world.proposed += 1;
                world.proposed
            };
            group
                .propose(payload(serial))
                .await
                .expect("it takes proposals");
            *seen.lock() = Some(machine.lock().0.len());
            if let Some(encryption) = encryption {
                await_sealed(&node, &group, &ended).await;
                node.shutdown().await;
                drop((group, node));
                assert_nothing_readable(&disk_last, &ended.lock());
                let new_alone = Encryption {
                    previous: None,
                    ..encryption
                };
                let opened = Node::open(options(disk_last, Some(new_alone)));
                opened.expect("the new key is enough").shutdown().await;
                return;
            }
            node.shutdown().await;
        });
        checked.await.expect("no panic");
        let applied = last.lock().take().expect("it came back to life");
        let acked = world.lock().acked.len() as u64;
        (applied, acked)
    })
}

#[test]
fn what_was_acknowledged_is_applied_exactly_once_in_order() {
    let seeds: u64 = std::env::var("SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(40);
    let first: u64 = std::env::var("FIRST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0);
    let (mut applied, mut acked) = (0, 0);
    for seed in first..first + seeds {
        // Every other one gets a key, and then another.
        let outcome = run_seed(seed, seed % 2 == 1);
        if outcome.result.is_err() {
            let tail = outcome.trace.len().saturating_sub(40);
            eprintln!("{}", outcome.trace[tail..].join("\n"));
        }
        let (entries, acks) = outcome
            .result
            .unwrap_or_else(|panic| panic!("seed {seed}: {panic}"));
        applied += entries;
        acked += acks;
    }
    println!("{seeds} seeds: {acked} acknowledged, {applied} applied at the end");
    assert!(acked > seeds * 20, "long enough to mean something");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for (seed, sealed) in [(5, true), (6, false)] {
        let (first, second) = (run_seed(seed, sealed), run_seed(seed, sealed));
        assert!(first.trace.len() > 20);
        assert_eq!(first.trace_hash(), second.trace_hash());
        assert_eq!(first.trace, second.trace);
    }
}
