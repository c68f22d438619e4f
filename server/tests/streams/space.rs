//! The space that a server takes, and how it comes back: disks of some MiB with the sizes that a server chooses for them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use halyard_runtime::time::{self, Duration, Instant};
use halyard_server::jetstream::Tuning;
use serde_json::{Value, json};

use crate::full_disk::{MIB, Machine, Publisher, check, client, create, simulated, succeeds};
use crate::{api, request};

/// Once there is something to gain, publishes are taken again within this time.
const AT_ONCE: Duration = Duration::from_secs(1);

fn bytes_below(machine: &Machine, dir: &str) -> u64 {
    let files = machine.disk.files().into_iter();
    let there = files.filter(|(path, _)| path.starts_with(dir));
    there.map(|(_, len)| len).sum()
}

/// Deletes so many of ten messages, one by one.
async fn thin_out(raw: &mut crate::raw::Raw, machine: &Machine, of_ten: u64) {
    let stored: Vec<u64> = machine.ledger.lock().stored.keys().copied().collect();
    for seq in stored.into_iter().filter(|seq| seq * 7 % 10 < of_ten) {
        succeeds(raw, "STREAM.MSG.DELETE.A", &json!({"seq": seq})).await;
        machine.ledger.lock().stored.remove(&seq);
    }
}

#[test]
fn a_new_store_takes_little_and_grows_with_use() {
    simulated(u64::MAX, |mut machine| async move {
        machine.tuning = Tuning::default();
        machine
            .life(|machine, server| async move {
                time::sleep(Duration::from_secs(5)).await;
                assert!(
                    bytes_below(&machine, "/js") < MIB / 2,
                    "{:?}",
                    machine.disk.files()
                );
                let mut raw = client(&server).await;
                create(&mut raw, "A").await;
                let mut publisher = Publisher::new(&server).await;
                publisher.publish(&machine.ledger).await;
                time::sleep(Duration::from_secs(40)).await;
                assert!(
                    bytes_below(&machine, "/js") < MIB,
                    "{:?}",
                    machine.disk.files()
                );
                for _ in 0..500 {
                    publisher.publish(&machine.ledger).await;
                }
                time::sleep(Duration::from_secs(40)).await;
                // 16 MB of messages, as much in reserve, and two files of the log.
                let bytes = bytes_below(&machine, "/js");
                assert!(
                    (32 * MIB..100 * MIB).contains(&bytes),
                    "{:?}",
                    machine.disk.files()
                );
            })
            .await;
        machine.holds_everything().await;
    });
}

#[test]
fn a_disk_of_20_mib_is_used() {
    simulated(20 * MIB, |mut machine| async move {
        machine.tuning = Tuning::default();
        machine.ledger.lock().message_bytes = 20_000;
        machine
            .life(|machine, server| async move {
                let ledger = machine.ledger.clone();
                let mut raw = client(&server).await;
                create(&mut raw, "A").await;
                let mut publisher = Publisher::new(&server).await;
                publisher.until_full(&ledger, Duration::from_secs(10)).await;
                let stored = ledger.lock().stored.len() as u64 * 20_000;
                assert!(stored > 13 * MIB, "{stored}: {:?}", machine.disk.files());
                let jetstream = server.jetstream().unwrap();
                let sick = jetstream.health().unwrap_err();
                assert!(
                    sick.contains("publishes to file streams are refused"),
                    "{sick}"
                );
                succeeds(&mut raw, "STREAM.PURGE.A", &Value::Null).await;
                ledger.lock().stored.clear();
                publisher.until_taken_within(&machine, AT_ONCE).await;
                assert_eq!(jetstream.health(), Ok(()));
                check(&mut raw, &ledger).await;
            })
            .await;
        machine.holds_everything().await;
    });
}

/// There is room for small messages only, and what is deleted gives room for large ones, too.
#[test]
fn large_messages_are_taken_again_at_once() {
    simulated(24 * MIB, |mut machine| async move {
        machine.tuning = Tuning::default();
        machine.ledger.lock().message_bytes = 500_000;
        machine
            .life(|machine, server| async move {
                let ledger = machine.ledger.clone();
                let mut raw = client(&server).await;
                create(&mut raw, "A").await;
                let mut publisher = Publisher::new(&server).await;
                for round in 0..4 {
                    publisher.until_full(&ledger, Duration::from_secs(3)).await;
                    let full = ledger.lock().stored.len();
                    assert!(
                        full > 30,
                        "round {round}: {full}: {:?}",
                        machine.disk.files()
                    );
                    succeeds(&mut raw, "STREAM.PURGE.A", &Value::Null).await;
                    ledger.lock().stored.clear();
                    time::sleep(AT_ONCE).await;
                }
                check(&mut raw, &ledger).await;
            })
            .await;
        machine.holds_everything().await;
    });
}

/// What was deleted one by one is in every segment, and a rewrite takes space.
#[test]
fn deletes_one_by_one_bring_publishes_back() {
    simulated(16 * MIB, |mut machine| async move {
        machine.tuning = Tuning::default();
        machine.ledger.lock().message_bytes = 40_000;
        machine
            .life(|machine, server| async move {
                let ledger = machine.ledger.clone();
                let mut raw = client(&server).await;
                create(&mut raw, "A").await;
                let mut publisher = Publisher::new(&server).await;
                for round in 0..2 {
                    publisher.until_full(&ledger, Duration::from_secs(10)).await;
                    let full = ledger.lock().stored.len();
                    assert!(
                        full > 200,
                        "round {round}: {full}: {:?}",
                        machine.disk.files()
                    );
                    thin_out(&mut raw, &machine, 6 + round).await;
                    publisher.until_taken_within(&machine, AT_ONCE * 10).await;
                    check(&mut raw, &ledger).await;
                }
            })
            .await;
        machine.holds_everything().await;
    });
}

#[test]
fn a_stream_that_is_deleted_makes_room_at_once() {
    simulated(150 * MIB, |mut machine| async move {
        machine.tuning = Tuning::default();
        machine.ledger.lock().message_bytes = 400_000;
        machine
            .life(|machine, server| async move {
                let ledger = machine.ledger.clone();
                let mut raw = client(&server).await;
                create(&mut raw, "A").await;
                let mut publisher = Publisher::new(&server).await;
                publisher.until_full(&ledger, Duration::from_secs(10)).await;
                let stored = ledger.lock().stored.len() as u64 * 400_000;
                assert!(stored > 110 * MIB, "{stored}: {:?}", machine.disk.files());
                succeeds(&mut raw, "STREAM.DELETE.A", &Value::Null).await;
                create(&mut raw, "A").await;
                ledger.lock().stored.clear();
                publisher.until_taken_within(&machine, AT_ONCE).await;
                check(&mut raw, &ledger).await;
            })
            .await;
        machine.holds_everything().await;
    });
}

/// Others have taken the space that a flush of what is in memory needs. What is deleted then is not to be written any more.
#[test]
fn deletes_make_a_flush_smaller_that_found_no_room() {
    simulated(512 * MIB, |mut machine| async move {
        machine.tuning = Tuning {
            flush_interval: Duration::from_secs(10),
            ..Tuning::default()
        };
        machine.ledger.lock().message_bytes = 20_000;
        machine
            .life(|machine, server| async move {
                let ledger = machine.ledger.clone();
                let mut raw = client(&server).await;
                create(&mut raw, "A").await;
                let mut publisher = Publisher::new(&server).await;
                for _ in 0..20 {
                    publisher.publish(&ledger).await;
                }
                // No reserve yet for so much.
                machine.fill_up_to(64 << 10);
                publisher.until_full(&ledger, Duration::from_secs(20)).await;
                succeeds(&mut raw, "STREAM.PURGE.A", &Value::Null).await;
                ledger.lock().stored.clear();
                time::sleep(Duration::from_secs(20)).await;
                let flushed = api(&mut raw, "STREAM.INFO.A", &Value::Null).await;
                assert_eq!(flushed["state"]["messages"], 0, "{flushed}");
                assert_eq!(server.jetstream().unwrap().unwritten(), None);
                machine.set_capacity(512 * MIB);
                publisher.until_taken_within(&machine, AT_ONCE).await;
                check(&mut raw, &ledger).await;
            })
            .await;
        machine.holds_everything().await;
    });
}

/// A life that began with what the one before had left to erase, in which nobody writes anything.
#[test]
fn an_idle_server_goes_on_with_erasure_after_a_power_cut() {
    simulated(u64::MAX, |mut machine| async move {
        machine.tuning.flush_interval = Duration::from_secs(3600);
        const SECRET: &str = "what nobody may read any more";
        machine
            .life(|_, server| async move {
                let mut raw = client(&server).await;
                create(&mut raw, "A").await;
                let ack = request(&mut raw, "a.secret", SECRET).await;
                assert!(ack.contains("\"seq\":1"), "{ack}");
                succeeds(&mut raw, "STREAM.PURGE.A", &Value::Null).await;
            })
            .await;
        assert!(!machine.disk.find(SECRET.as_bytes()).is_empty());
        machine
            .life(|machine, server| async move {
                let began = Instant::now();
                while !machine.disk.find(SECRET.as_bytes()).is_empty() {
                    assert!(
                        began.elapsed() < Duration::from_secs(3),
                        "{:?}: {:?}",
                        server.jetstream().unwrap().erasure().status(),
                        machine.disk.find(SECRET.as_bytes())
                    );
                    time::sleep(Duration::from_millis(50)).await;
                }
            })
            .await;
    });
}

/// Without a file descriptor nothing can be flushed, and the log gets no new file: publishes wait or are refused, and all goes on
/// by itself afterwards.
#[test]
fn a_time_without_file_descriptors_is_survived() {
    simulated(u64::MAX, |machine| async move {
        machine
            .life(|machine, server| async move {
                let ledger = machine.ledger.clone();
                let mut raw = client(&server).await;
                create(&mut raw, "A").await;
                let mut publisher = Publisher::new(&server).await;
                publisher.publish(&ledger).await;
                machine
                    .disk
                    .set_faults(|faults| faults.open_error_ppm = 1_000_000);
                let stop = Arc::new(AtomicBool::new(false));
                let running = publisher.keep_on(ledger.clone(), stop.clone());
                time::sleep(Duration::from_secs(2)).await;
                let stored = ledger.lock().stored.len();
                time::sleep(Duration::from_secs(2)).await;
                assert_eq!(
                    ledger.lock().stored.len(),
                    stored,
                    "the log is full by then"
                );
                machine.disk.set_faults(|faults| faults.open_error_ppm = 0);
                stop.store(true, Ordering::Release);
                time::sleep(Duration::from_secs(2)).await;
                running.await.unwrap();
                let mut publisher = Publisher::new(&server).await;
                publisher.until_taken_within(&machine, AT_ONCE).await;
                check(&mut raw, &ledger).await;
                // Now and then one fails.
                machine
                    .disk
                    .set_faults(|faults| faults.open_error_ppm = 200_000);
                for _ in 0..300 {
                    publisher.publish(&ledger).await;
                    time::sleep(Duration::from_millis(10)).await;
                }
                machine.disk.set_faults(|faults| faults.open_error_ppm = 0);
                publisher.until_taken_within(&machine, AT_ONCE).await;
                assert_eq!(server.jetstream().unwrap().health(), Ok(()));
            })
            .await;
        assert!(
            machine
                .disk
                .files()
                .iter()
                .any(|(path, _)| path.starts_with(Path::new("/js")))
        );
        machine.holds_everything().await;
    });
}
