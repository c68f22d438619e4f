//! Very many connections, subscriptions and subjects: memory stays bounded, and every client is served.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use halyard_tests::bystander::{Bystander, MIB, halyard, number, wait_for_connections};
use halyard_tests::node::Node;
use halyard_tests::raw::{PATIENCE, Raw};

/// Connections of one process and the server that it starts, twice and some spare.
const DESCRIPTORS: u64 = 12_000;
const IDLE: usize = 10_000;

#[test]
fn ten_thousand_idle_connections() {
    allow_descriptors();
    let (node, _dir) = halyard("");
    let mut bystander = Bystander::new(&node);
    let before = node.resident_bytes();
    let mut idle: Vec<TcpStream> = (0..IDLE).map(|_| idle_client(&node)).collect();
    wait_for_connections(&node, IDLE as u64 + 2);
    let each = node.resident_bytes().saturating_sub(before) / IDLE as u64;
    assert!(each < 8 * 1024, "{each} bytes for each idle connection");
    let slowest = bystander.slowest(200);
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    // All of them are still served.
    let mut publisher = Raw::quiet(node.address());
    publisher.send(b"PUB idle 2\r\nhi\r\n");
    for client in &mut idle {
        assert_eq!(take(client, b"\r\nhi\r\n"), b"MSG idle 1 2\r\nhi\r\n");
    }
    drop(idle);
    wait_for_connections(&node, 3);
    bystander.slowest(50);
}

/// Raises this process's limit, which the server inherits.
fn allow_descriptors() {
    let me = std::process::id().to_string();
    let limit = format!("--nofile={DESCRIPTORS}:");
    let status = Command::new("prlimit")
        .args(["--pid", &me, &limit])
        .status();
    assert!(
        status.is_ok_and(|s| s.success()),
        "open files could not be raised to {DESCRIPTORS}"
    );
}

fn idle_client(node: &Node) -> TcpStream {
    let mut socket = TcpStream::connect(node.address()).expect("the server accepts connections");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout above zero");
    socket
        .write_all(b"CONNECT {\"verbose\":false}\r\nSUB idle 1\r\nPING\r\n")
        .expect("the server reads");
    take(&mut socket, b"PONG\r\n");
    socket
}

/// Reads until the bytes end like this. The server's own PINGs are left out, wherever they come in between or behind.
fn take(socket: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    const PING: &[u8] = b"PING\r\n";
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    while !received.ends_with(end) {
        let count = socket.read(&mut chunk).expect("bytes in time");
        assert!(count > 0, "closed after {}", received.escape_ascii());
        received.extend_from_slice(&chunk[..count]);
        while let Some(at) = received.windows(PING.len()).position(|w| w == PING) {
            received.drain(at..at + PING.len());
        }
    }
    received
}

#[test]
fn subscriptions_that_come_and_go() {
    let (node, _dir) = halyard("");
    let mut bystander = Bystander::new(&node);
    let mut raw = Raw::quiet(node.address());
    let churn = |raw: &mut Raw, round: usize| {
        let mut batch = Vec::new();
        for n in 0..10_000 {
            let subject = format!("churn.{round}.{n}.*.with.some.length.>");
            batch.extend_from_slice(format!("SUB {subject} {n}\r\n").as_bytes());
        }
        raw.send(&batch);
        raw.settle();
        batch.clear();
        for n in 0..10_000 {
            batch.extend_from_slice(format!("UNSUB {n}\r\n").as_bytes());
        }
        raw.send(&batch);
        raw.settle();
    };
    churn(&mut raw, 0);
    churn(&mut raw, 1);
    let before = node.resident_bytes();
    for round in 2..12 {
        churn(&mut raw, round);
        bystander.round();
    }
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(
        grown < 24 * MIB,
        "{grown} bytes more after a hundred thousand subscriptions"
    );
    assert_eq!(number(&node, "/varz", "subscriptions"), 2);
}

#[test]
fn subjects_that_are_used_once() {
    let (node, _dir) = halyard("");
    let mut listener = Raw::quiet(node.address());
    listener.send(b"SUB once.> 1\r\nUNSUB 1 1000\r\n");
    listener.settle();
    let mut raw = Raw::quiet(node.address());
    let publish = |raw: &mut Raw, round: usize| {
        let mut batch = Vec::new();
        for n in 0..10_000 {
            batch.extend_from_slice(format!("PUB once.{round}.{n}.abcdefgh 0\r\n\r\n").as_bytes());
        }
        raw.send(&batch);
        raw.settle();
    };
    publish(&mut raw, 0);
    let before = node.resident_bytes();
    for round in 1..30 {
        publish(&mut raw, round);
    }
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(
        grown < 16 * MIB,
        "{grown} bytes more after 300,000 subjects"
    );
}

#[test]
fn connections_that_come_and_go() {
    let (node, _dir) = halyard("");
    let mut bystander = Bystander::new(&node);
    let flood = |count: usize| {
        for _ in 0..count {
            let mut raw = Raw::connect(node.address());
            raw.send(b"CONNECT {\"verbose\":false}\r\nSUB come.and.go 1\r\n");
        }
    };
    flood(500);
    let before = node.resident_bytes();
    flood(5000);
    assert!(bystander.slowest(50) < Duration::from_secs(2));
    wait_for_connections(&node, 2);
    // Monitoring remembers the last ten thousand.
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 24 * MIB, "{grown} bytes more");
}

#[test]
fn subjects_of_two_thousand_tokens() {
    let (node, _dir) = halyard("");
    let mut bystander = Bystander::new(&node);
    let mut raw = Raw::quiet(node.address());
    let deep = ["a"; 2000].join(".");
    let stars = ["*"; 2000].join(".");
    for (sid, filter) in [&deep, &stars, &format!("{}>", &deep[..3000])]
        .into_iter()
        .enumerate()
    {
        raw.send(format!("SUB {filter} {sid}\r\n").as_bytes());
    }
    // Each half of these filters matches each half of the subject: a walk without bound would not end.
    for n in 0..12 {
        let filter: Vec<&str> = (0..12)
            .map(|bit| if n == bit { "*" } else { "a" })
            .collect();
        raw.send(format!("SUB {}.> x{n}\r\n", filter.join(".")).as_bytes());
    }
    raw.settle();
    raw.send(format!("PUB {deep} 1\r\nx\r\n").as_bytes());
    assert_eq!(raw.settle().len(), 2 * 15);
    bystander.slowest(20);
    for sid in 0..3 {
        raw.send(format!("UNSUB {sid}\r\n").as_bytes());
    }
    raw.send(format!("PUB {deep} 1\r\nx\r\n").as_bytes());
    assert_eq!(raw.settle().len(), 2 * 12);
}
