//! Peers that do not read what they asked for: they are closed as slow consumers, memory stays bounded, and every other
//! client goes on.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use halyard_tests::bystander::{
    Bystander, MIB, configured, halyard, message, number, wait_for_connections,
};
use halyard_tests::node::{Node, Start};
use halyard_tests::raw::{PATIENCE, Raw};
use halyard_tests::tools;

/// Publishes until the server has found a slow consumer; how many messages went out.
fn publish_until_slow(node: &Node, publisher: &mut Raw, size: usize) -> u64 {
    let batch = flood(size).repeat(100);
    let started = Instant::now();
    let mut count = 0;
    while number(node, "/varz", "slow_consumers") == 0 {
        assert!(
            started.elapsed() < PATIENCE,
            "the slow consumer stays: {count} messages"
        );
        publisher.send(&batch);
        publisher.settle();
        count += 100;
    }
    count
}

/// One publication.
fn flood(size: usize) -> Vec<u8> {
    let mut bytes = format!("PUB flood {size}\r\n").into_bytes();
    bytes.extend(std::iter::repeat_n(b'x', size));
    bytes.extend_from_slice(b"\r\n");
    bytes
}

#[test]
fn a_subscriber_that_never_reads() {
    let mut servers = vec![(true, Start::halyard())];
    servers.extend(tools::peer().map(|peer| (false, Start::with(&peer))));
    for (ours, start) in servers {
        let (start, _dir) = configured(start, "max_pending: 8MB, write_deadline: \"60s\"");
        let node = start.start();
        let mut bystander = Bystander::new(&node);
        let mut reader = Raw::quiet(node.address());
        reader.send(b"SUB flood 1\r\n");
        reader.settle();
        let mut stuck = Raw::quiet(node.address());
        stuck.send(b"SUB flood 1\r\n");
        stuck.settle();
        let reading = std::thread::spawn(move || count_messages(&mut reader));
        let mut publisher = Raw::quiet(node.address());
        let before = node.resident_bytes();
        let sent = publish_until_slow(&node, &mut publisher, 4096);
        bystander.slowest(50);
        let grown = node.resident_bytes().saturating_sub(before);
        assert!(!ours || grown < 40 * MIB, "{grown} bytes more");
        let (_, closed) = node.http_get("/connz?state=closed");
        assert!(closed.contains("Slow Consumer (Pending Bytes)"), "{closed}");
        assert_eq!(number(&node, "/varz", "slow_consumers"), 1);
        publisher.send(b"PUB flood 3\r\nend\r\n");
        assert_eq!(
            reading.join().unwrap(),
            sent,
            "the one that reads gets everything"
        );
    }
}

/// Counts messages until the one that says `end`.
fn count_messages(reader: &mut Raw) -> u64 {
    let mut count = 0;
    loop {
        if message(reader) == "end" {
            return count;
        }
        count += 1;
    }
}

#[test]
fn many_subscribers_that_never_read() {
    let (node, _dir) = halyard("max_pending: 8MB, write_deadline: \"60s\"");
    let mut bystander = Bystander::new(&node);
    let stuck: Vec<Raw> = (0..20)
        .map(|_| {
            let mut raw = Raw::quiet(node.address());
            raw.send(b"SUB flood 1\r\n");
            raw.settle();
            raw
        })
        .collect();
    let before = node.resident_bytes();
    let mut publisher = Raw::quiet(node.address());
    // Large payloads: 20 times 8 MB may be pending, but it is the same 8 MB.
    let mut most = 0;
    let batch = flood(1_000_000);
    // The system's own buffers take some megabytes for each socket, before the server's fill.
    for _ in 0..40 {
        publisher.send(&batch);
        publisher.settle();
        most = most.max(node.resident_bytes());
        bystander.round();
    }
    assert_eq!(number(&node, "/varz", "slow_consumers"), 20);
    let grown = most.saturating_sub(before);
    assert!(grown < 48 * MIB, "{grown} bytes more");
    drop(stuck);
    wait_for_connections(&node, 3);
}

#[test]
fn a_subscriber_that_stops_reading_within_max_pending() {
    let mut servers = vec![Start::halyard()];
    servers.extend(tools::peer().map(|peer| Start::with(&peer)));
    for start in servers {
        let (start, _dir) = configured(start, "write_deadline: \"500ms\"");
        let node = start.start();
        let mut stuck = Raw::quiet(node.address());
        stuck.send(b"SUB flood 1\r\n");
        stuck.settle();
        let mut publisher = Raw::quiet(node.address());
        let batch = flood(1_000_000);
        for _ in 0..16 {
            publisher.send(&batch);
            publisher.settle();
        }
        let started = Instant::now();
        loop {
            let (_, closed) = node.http_get("/connz?state=closed");
            if closed.contains("Slow Consumer (Write Deadline)") {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "{closed}");
            std::thread::sleep(Duration::from_millis(50));
        }
        publisher.settle();
    }
}

#[test]
fn a_publisher_that_never_reads_its_answers() {
    let (node, _dir) = halyard("max_pending: 4MB, write_deadline: \"60s\"");
    let mut bystander = Bystander::new(&node);
    let before = node.resident_bytes();
    // Verbose: each PING and each line is answered, and nobody takes the answers.
    let raw = Raw::client(node.address(), r#"{"verbose":true}"#);
    raw.socket().set_nonblocking(true).unwrap();
    let batch = b"PING\r\n".repeat(10_000);
    let started = Instant::now();
    let mut at = 0;
    while started.elapsed() < PATIENCE {
        match (&mut raw.socket()).write(&batch[at..]) {
            Ok(count) => at = (at + count) % batch.len(),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                bystander.round();
            }
            Err(_) => break,
        }
        if number(&node, "/varz", "slow_consumers") > 0 {
            break;
        }
    }
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 32 * MIB, "{grown} bytes more");
    assert_eq!(number(&node, "/varz", "slow_consumers"), 1);
    bystander.slowest(20);
}
