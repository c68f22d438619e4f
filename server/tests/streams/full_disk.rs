//! A full disk under running publishes: streams, consumers, flushes, merges and the log on one disk of limited size, in
//! simulated time.
//!
//! What must hold: a publish is acknowledged and kept, or refused with 10023, and nothing in between; what makes room goes
//! on; and when there is room again, publishes are taken again without anybody's help.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use halyard_runtime::disk::Disk;
use halyard_runtime::sim::{self, DiskFaults, SimDisk};
use halyard_runtime::task;
use halyard_runtime::time::{self, Duration, Instant};
use halyard_server::Server;
use halyard_server::jetstream::Tuning;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::raw::Raw;
use crate::{api, request};

/// Bytes of a message.
pub(crate) const MESSAGE_BYTES: usize = 2000;
/// Publishes that are sent before their answers are read.
const WINDOW: u64 = 16;
/// How long it may take until publishes are taken again once there is room.
const RECOVERS_WITHIN: Duration = Duration::from_secs(30);

pub(crate) const MIB: u64 = 1 << 20;
/// Everything small, so that a disk of a few MiB is to it what a disk of some GiB is to a server.
const TUNING: Tuning = Tuning {
    log_segment_bytes: 256 << 10,
    first_log_segment_bytes: 256 << 10,
    flush_bytes: 512 << 10,
    flush_interval: Duration::from_secs(5),
    reserve_bytes: 768 << 10,
    file_bytes_max: 1 << 30,
};

/// A machine with a disk, and what publishers know.
#[derive(Clone)]
pub(crate) struct Machine {
    node: sim::Node,
    pub(crate) disk: SimDisk,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) tuning: Tuning,
}

/// What publishes to stream `A` were answered.
pub(crate) struct Ledger {
    /// Of each sequence that was acknowledged, the number of its message.
    pub(crate) stored: BTreeMap<u64, u64>,
    next: u64,
    refused: u64,
    /// Refusals since the last acknowledgement.
    refused_in_a_row: u64,
    /// Bytes of each message.
    pub(crate) message_bytes: usize,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            stored: BTreeMap::new(),
            next: 0,
            refused: 0,
            refused_in_a_row: 0,
            message_bytes: MESSAGE_BYTES,
        }
    }
}

pub(crate) fn simulated<F: Future<Output = ()> + Send + 'static>(
    capacity: u64,
    test: impl FnOnce(Machine) -> F + Send + 'static,
) {
    let outcome = sim::run(7, Duration::from_secs(3600), move || async move {
        let node = sim::Node::new("server", IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
        let faults = DiskFaults {
            capacity_bytes: capacity,
            sync_time: (Duration::ZERO, Duration::from_millis(1)),
            ..DiskFaults::default()
        };
        let disk = SimDisk::new(7, faults);
        node.attach(&disk);
        let ledger = Arc::default();
        let tuning = TUNING;
        test(Machine {
            node,
            disk,
            ledger,
            tuning,
        })
        .await;
    });
    outcome.result.unwrap();
}

impl Machine {
    /// Runs the server for one life, which ends with a loss of power.
    pub(crate) async fn life<F: Future<Output = ()> + Send + 'static>(
        &self,
        run: impl FnOnce(Self, Server) -> F + Send + 'static,
    ) {
        self.node.start();
        let machine = self.clone();
        let life = self.node.spawn(async move {
            let server = Server::builder()
                .jetstream("/js")
                .no_listener()
                .disk(Arc::new(machine.disk.clone()))
                .tuning(machine.tuning)
                .start()
                .await
                .unwrap();
            run(machine, server).await;
        });
        life.await.unwrap();
        self.node.power_off();
    }

    /// A life of which all is asked that publishers know.
    pub(crate) async fn holds_everything(&self) {
        self.life(|machine, server| async move {
            check(&mut client(&server).await, &machine.ledger).await;
        })
        .await;
    }

    /// Others take all that is free but `left` bytes.
    pub(crate) fn fill_up_to(&self, left: u64) {
        let plenty = 1 << 40;
        self.set_capacity(plenty);
        let free = self.disk.free_bytes(Path::new("/")).unwrap();
        self.set_capacity(plenty - free + left);
    }

    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.disk.set_faults(|faults| faults.capacity_bytes = bytes);
    }
}

/// A client of the API.
pub(crate) async fn client(server: &Server) -> Raw {
    let mut raw = Raw::connected(server, ",\"headers\":true,\"no_responders\":true").await;
    raw.send("SUB _I.* 1\r\n").await;
    raw.flush().await;
    raw
}

pub(crate) async fn create(raw: &mut Raw, name: &str) {
    let subjects = format!("{}.>", name.to_lowercase());
    let config = json!({"name": name, "subjects": [subjects], "allow_direct": true});
    let made = api(raw, &format!("STREAM.CREATE.{name}"), &config).await;
    assert_eq!(made["did_create"], true, "{made}");
}

fn payload(number: u64, bytes: usize) -> String {
    format!("{number:08}{}", "x".repeat(bytes - 8))
}

/// Publishes to stream `A`, a window at a time. Every publish must be answered, one way or the other.
pub(crate) struct Publisher(Raw);

impl Publisher {
    pub(crate) async fn new(server: &Server) -> Self {
        let mut raw = Raw::connected(server, "").await;
        raw.send("SUB _P.* 1\r\n").await;
        raw.flush().await;
        Self(raw)
    }

    /// One window.
    pub(crate) async fn publish(&mut self, ledger: &Mutex<Ledger>) {
        let (first, bytes) = {
            let mut ledger = ledger.lock();
            ledger.next += WINDOW;
            (ledger.next - WINDOW, ledger.message_bytes)
        };
        for number in first..first + WINDOW {
            let line = format!("PUB a.{} _P.{number} {bytes}\r\n", number % 10);
            self.0
                .send(&format!("{line}{}\r\n", payload(number, bytes)))
                .await;
        }
        let mut waits: BTreeSet<u64> = (first..first + WINDOW).collect();
        while !waits.is_empty() {
            let line = self.0.line().await;
            let mut words = line.split(' ');
            // A refusal may come before the acknowledgement of what is on its way.
            let subject = words.nth(1).unwrap();
            let number: u64 = subject.strip_prefix("_P.").unwrap().parse().unwrap();
            assert!(waits.remove(&number), "{line}");
            let count: usize = words.next_back().unwrap().parse().unwrap();
            let body = self.0.bytes(count + 2).await;
            let answer: Value = serde_json::from_slice(&body[..count]).unwrap();
            let mut ledger = ledger.lock();
            match answer.get("error") {
                None => {
                    let before = ledger
                        .stored
                        .insert(answer["seq"].as_u64().unwrap(), number);
                    assert_eq!(before, None, "a sequence is given once");
                    ledger.refused_in_a_row = 0;
                }
                Some(error) => {
                    assert_eq!(error["code"], 503, "{answer}");
                    assert_eq!(error["err_code"], 10023, "{answer}");
                    ledger.refused += 1;
                    ledger.refused_in_a_row += 1;
                }
            }
        }
    }

    /// Goes on until the disk is full for good: everything is refused for so long.
    pub(crate) async fn until_full(&mut self, ledger: &Mutex<Ledger>, lasts: Duration) {
        let began = Instant::now();
        let mut refused_since = None;
        loop {
            self.publish(ledger).await;
            if ledger.lock().refused_in_a_row < WINDOW {
                refused_since = None;
            } else if refused_since.get_or_insert_with(Instant::now).elapsed() >= lasts {
                return;
            }
            assert!(
                began.elapsed() < Duration::from_secs(600),
                "it never gets full"
            );
            let pause = if refused_since.is_some() { 500 } else { 10 };
            time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Goes on until publishes are taken again: 5 windows one after the other.
    async fn until_taken(&mut self, machine: &Machine) {
        self.until_taken_within(machine, RECOVERS_WITHIN).await;
    }

    /// The same, which may take so long.
    pub(crate) async fn until_taken_within(&mut self, machine: &Machine, within: Duration) {
        let ledger = &*machine.ledger;
        let began = Instant::now();
        let mut windows = 0;
        while windows < 5 {
            self.publish(ledger).await;
            windows = if ledger.lock().refused_in_a_row == 0 {
                windows + 1
            } else {
                0
            };
            assert!(
                began.elapsed() < within,
                "publishes are refused for good: {:?}",
                machine.disk.files()
            );
            time::sleep(Duration::from_millis(if windows == 0 { 100 } else { 10 })).await;
        }
    }

    /// Goes on in the background until it is told to stop.
    pub(crate) fn keep_on(
        mut self,
        ledger: Arc<Mutex<Ledger>>,
        stop: Arc<AtomicBool>,
    ) -> task::JoinHandle<()> {
        task::spawn(async move {
            while !stop.load(Ordering::Acquire) {
                self.publish(&ledger).await;
                time::sleep(Duration::from_millis(5)).await;
            }
        })
    }
}

/// Stream `A` holds exactly what the ledger says.
pub(crate) async fn check(raw: &mut Raw, ledger: &Mutex<Ledger>) {
    let (stored, bytes) = {
        let ledger = ledger.lock();
        (ledger.stored.clone(), ledger.message_bytes)
    };
    let info = api(raw, "STREAM.INFO.A", &Value::Null).await;
    assert_eq!(info["state"]["messages"], stored.len(), "{info}");
    for (seq, number) in stored {
        let got = request(raw, "$JS.API.DIRECT.GET.A", &format!("{{\"seq\":{seq}}}")).await;
        assert!(
            got.ends_with(&payload(number, bytes)),
            "{seq}: {}",
            &got[..got.len().min(200)]
        );
    }
}

/// Takes the next messages of consumer `C` of stream `A`; returns where each is to be acknowledged.
async fn fetch(raw: &mut Raw, count: usize) -> Vec<String> {
    let ask = json!({"batch": count, "no_wait": true}).to_string();
    raw.send("SUB _F.m 2\r\n").await;
    raw.send(&format!(
        "PUB $JS.API.CONSUMER.MSG.NEXT.A.C _F.m {}\r\n{ask}\r\n",
        ask.len()
    ))
    .await;
    let mut acks = Vec::new();
    for _ in 0..count {
        let line = raw.line().await;
        let words: Vec<&str> = line.split(' ').collect();
        assert!(line.starts_with("MSG a."), "{line}");
        acks.push(words[3].to_owned());
        raw.bytes(words.last().unwrap().parse::<usize>().unwrap() + 2)
            .await;
    }
    raw.send("UNSUB 2\r\n").await;
    acks
}

/// Acknowledges and waits for the confirmation.
async fn acknowledge(raw: &mut Raw, ack: &str) {
    raw.send(&format!("PUB {ack} _I.a 4\r\n+ACK\r\n")).await;
    let line = raw.line().await;
    assert!(line.starts_with("MSG _I.a 1 0"), "{line}");
    raw.bytes(2).await;
}

pub(crate) async fn succeeds(raw: &mut Raw, subject: &str, body: &Value) -> Value {
    let answer = api(raw, subject, body).await;
    assert_eq!(answer["success"], true, "{subject}: {answer}");
    answer
}

/// Streams, a consumer with messages under way, and so many publishes that the disk is full.
async fn fill(server: &Server, raw: &mut Raw, ledger: &Mutex<Ledger>) -> (Publisher, Vec<String>) {
    create(raw, "A").await;
    create(raw, "GONE").await;
    for number in 0..200 {
        let body = payload(number, MESSAGE_BYTES);
        let ack = request(raw, &format!("gone.{number}"), &body).await;
        assert!(ack.contains("\"seq\":"), "{ack}");
    }
    let config = json!({"stream_name": "A", "config": {"durable_name": "C", "ack_policy": "explicit", "ack_wait": 3_600_000_000_000_u64}});
    let made = api(raw, "CONSUMER.DURABLE.CREATE.A.C", &config).await;
    assert_eq!(made["name"], "C", "{made}");
    let mut publisher = Publisher::new(server).await;
    publisher.publish(ledger).await;
    let acks = fetch(raw, 10).await;
    publisher.until_full(ledger, Duration::from_secs(20)).await;
    (publisher, acks)
}

#[test]
fn publishes_are_refused_and_what_makes_room_goes_on() {
    simulated(8 * MIB, |machine| async move {
        machine
            .life(|machine, server| async move {
                let ledger = machine.ledger.clone();
                let mut raw = client(&server).await;
                let mut watcher = Raw::connected(&server, "").await;
                watcher.send("SUB $JS.EVENT.ADVISORY.SERVER.> 2\r\n").await;
                watcher.flush().await;
                let (publisher, acks) = fill(&server, &mut raw, &ledger).await;
                assert!(
                    ledger.lock().stored.len() > 500,
                    "{}",
                    ledger.lock().stored.len()
                );
                let line = watcher.line().await;
                let told = "MSG $JS.EVENT.ADVISORY.SERVER.OUT_OF_STORAGE 2 ";
                assert!(line.starts_with(told), "{line}");
                let advisory = watcher.line().await;
                let advisory: Value = serde_json::from_str(&advisory).unwrap();
                assert!(
                    advisory["server_id"].as_str().unwrap().len() > 20,
                    "{advisory}"
                );
                // From here on with publishes that never pause.
                let stop = Arc::new(AtomicBool::new(false));
                let running = publisher.keep_on(ledger.clone(), stop.clone());
                for ack in &acks {
                    acknowledge(&mut raw, ack).await;
                }
                for seq in 11..=20 {
                    succeeds(&mut raw, "STREAM.MSG.DELETE.A", &json!({"seq": seq})).await;
                    ledger.lock().stored.remove(&seq);
                }
                let info = api(&mut raw, "CONSUMER.INFO.A.C", &Value::Null).await;
                assert_eq!(info["ack_floor"]["stream_seq"], 10, "{info}");
                // Still full: none of this has brought a publish in.
                stop.store(true, Ordering::Release);
                running.await.unwrap();
                check(&mut raw, &ledger).await;
            })
            .await;
        // At the fullest moment the power went.
        machine
            .life(|machine, server| async move {
                let ledger = machine.ledger.clone();
                let mut raw = client(&server).await;
                check(&mut raw, &ledger).await;
                let info = api(&mut raw, "CONSUMER.INFO.A.C", &Value::Null).await;
                assert_eq!(info["ack_floor"]["stream_seq"], 10, "{info}");
                let mut publisher = Publisher::new(&server).await;
                publisher.until_full(&ledger, Duration::from_secs(20)).await;
                let stop = Arc::new(AtomicBool::new(false));
                let running = publisher.keep_on(ledger.clone(), stop.clone());
                let last = ledger.lock().stored.keys().max().copied().unwrap();
                let purged = succeeds(&mut raw, "STREAM.PURGE.A", &json!({"filter": "a.3"})).await;
                assert!(purged["purged"].as_u64().unwrap() > 50, "{purged}");
                let is_left = |seq: &u64, number: &mut u64| *number % 10 != 3 || *seq > last;
                ledger.lock().stored.retain(is_left);
                succeeds(&mut raw, "STREAM.DELETE.GONE", &Value::Null).await;
                stop.store(true, Ordering::Release);
                running.await.unwrap();
                check(&mut raw, &ledger).await;
                // What was let go comes back by itself: segments that there is room for are rewritten first.
                Publisher::new(&server).await.until_taken(&machine).await;
                check(&mut raw, &ledger).await;
            })
            .await;
        machine
            .life(|machine, server| async move {
                let mut raw = client(&server).await;
                check(&mut raw, &machine.ledger).await;
                succeeds(&mut raw, "STREAM.PURGE.A", &Value::Null).await;
            })
            .await;
    });
}

/// Somebody else has taken the disk to its last byte, with publishes in memory that no flush has written: what is set aside is
/// all that there is.
#[test]
fn a_purge_makes_room_on_a_disk_without_a_free_byte() {
    simulated(64 * MIB, |machine| async move {
        machine
            .life(|machine, server| async move {
                let ledger = machine.ledger.clone();
                let mut raw = client(&server).await;
                create(&mut raw, "A").await;
                let mut publisher = Publisher::new(&server).await;
                for _ in 0..100 {
                    publisher.publish(&ledger).await;
                    time::sleep(Duration::from_millis(10)).await;
                }
                assert_eq!(ledger.lock().refused, 0);
                machine.fill_up_to(0);
                publisher.until_full(&ledger, Duration::from_secs(10)).await;
                check(&mut raw, &ledger).await;
                let stop = Arc::new(AtomicBool::new(false));
                let running = publisher.keep_on(ledger.clone(), stop.clone());
                let last = ledger.lock().stored.keys().max().copied().unwrap();
                succeeds(&mut raw, "STREAM.PURGE.A", &Value::Null).await;
                ledger.lock().stored.retain(|seq, _| *seq > last);
                stop.store(true, Ordering::Release);
                running.await.unwrap();
                Publisher::new(&server).await.until_taken(&machine).await;
                check(&mut raw, &ledger).await;
            })
            .await;
        machine.holds_everything().await;
    });
}

/// Publishes are refused, so nothing is flushed: space is noticed all the same, and soon.
#[test]
fn an_idle_server_sees_that_there_is_space_again() {
    simulated(64 * MIB, |mut machine| async move {
        machine.tuning.flush_interval = Duration::from_secs(3600);
        machine
            .life(|machine, server| async move {
                let ledger = machine.ledger.clone();
                let mut raw = client(&server).await;
                // No flush of its own comes along in time.
                create(&mut raw, "A").await;
                machine.fill_up_to(100 << 10);
                let mut publisher = Publisher::new(&server).await;
                publisher.until_full(&ledger, Duration::from_secs(60)).await;
                machine.set_capacity(64 * MIB);
                time::sleep(Duration::from_secs(10)).await;
                publisher.publish(&ledger).await;
                assert_eq!(ledger.lock().refused_in_a_row, 0);
                check(&mut raw, &ledger).await;
            })
            .await;
    });
}

/// Rot in the log of a running server: told, made unneeded by a flush that nothing else asks for, and no start fails at it.
#[test]
fn damage_to_the_log_is_gone_before_a_start_could_meet_it() {
    simulated(u64::MAX, |mut machine| async move {
        machine.tuning.flush_interval = Duration::from_secs(3600);
        machine
            .life(|machine, server| async move {
                let mut raw = client(&server).await;
                create(&mut raw, "A").await;
                // More than a segment of the log, less than a flush.
                let mut publisher = Publisher::new(&server).await;
                for _ in 0..12 {
                    publisher.publish(&machine.ledger).await;
                }
                let path = Path::new("/js/halyard/log/log-0000000000000001");
                assert!(machine.disk.damage(path, 100_000, &[0x55; 600]));
                let jetstream = server.jetstream().unwrap();
                let began = Instant::now();
                let damage = loop {
                    let damage = jetstream.damage();
                    if !damage.is_empty() {
                        break damage;
                    }
                    assert!(began.elapsed() < Duration::from_secs(20), "it is not found");
                    time::sleep(Duration::from_millis(1)).await;
                };
                let [text] = damage.as_slice() else {
                    panic!("{damage:?}")
                };
                assert!(
                    text.contains("log-0000000000000001 is damaged at byte"),
                    "{text}"
                );
                assert!(text.contains("of group 1"), "{text}");
                let began = Instant::now();
                while !jetstream.damage().is_empty() {
                    assert!(began.elapsed() < Duration::from_secs(5), "it stays");
                    time::sleep(Duration::from_millis(10)).await;
                }
                publisher.publish(&machine.ledger).await;
            })
            .await;
        machine.holds_everything().await;
    });
}
