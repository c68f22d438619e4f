//! Peers that are broken or mean: the server answers as the protocol says, its memory stays bounded, and every other
//! client goes on.

use halyard_tests::bystander::{
    Bystander, MIB, closed_with, configured, halyard, message, wait_for_connections,
};
use halyard_tests::node::Start;
use halyard_tests::raw::{PATIENCE, Raw};
use halyard_tests::tools;

/// A sequence that looks random and is the same in every run.
struct Noise(u64);

impl Noise {
    fn byte(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u8
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }
}

#[test]
fn garbage() {
    let (node, _dir) = halyard("");
    let mut bystander = Bystander::new(&node);
    let before = node.resident_bytes();
    let mut noise = Noise(0x5eed_5eed_5eed);
    for round in 0..300 {
        let mut raw = Raw::connect(node.address());
        // No verb begins with this byte, so the answer is certain; the rest is anything.
        raw.send(&[&[0xff], noise.bytes(10 + round * 37).as_slice()].concat());
        closed_with(&mut raw, &["-ERR 'Unknown Protocol Operation'"]);
        if round % 10 == 0 {
            bystander.round();
        }
    }
    // The same behind a good beginning, and hanging up in the middle of anything.
    for round in 0..300 {
        let mut raw = Raw::quiet(node.address());
        raw.send(b"SUB garbage.> 1\r\nPUB garbage.in 100000\r\n");
        raw.send(&noise.bytes(round * 300));
    }
    wait_for_connections(&node, 2);
    assert!(bystander.slowest(100) < PATIENCE);
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 48 * MIB, "{grown} bytes more");
}

#[test]
fn oversize_control_lines() {
    let (node, _dir) = halyard("");
    let mut bystander = Bystander::new(&node);
    let before = node.resident_bytes();
    let megabyte = vec![b'a'; MIB as usize];
    for verb in [
        "PUB ",
        "SUB ",
        "UNSUB ",
        "HPUB ",
        "CONNECT {",
        "-ERR ",
        "INFO ",
    ] {
        for _ in 0..10 {
            let mut raw = Raw::quiet(node.address());
            raw.send(verb.as_bytes());
            raw.send(&megabyte);
            closed_with(&mut raw, &["-ERR 'maximum control line exceeded'"]);
        }
        bystander.round();
    }
    // Lines that stay below the limit and never end.
    let mut unfinished: Vec<Raw> = (0..500)
        .map(|_| {
            let mut raw = Raw::quiet(node.address());
            raw.send(b"SUB ");
            raw.send(&megabyte[..4000]);
            raw
        })
        .collect();
    bystander.slowest(50);
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 48 * MIB, "{grown} bytes more");
    for raw in &mut unfinished {
        raw.send(b" 1\r\n");
        assert_eq!(raw.settle(), Vec::<String>::new());
    }
}

#[test]
fn announced_payloads_that_never_come() {
    let (node, _dir) = halyard("");
    let mut bystander = Bystander::new(&node);
    let before = node.resident_bytes();
    // A gigabyte is announced, ten megabytes come.
    let waiting: Vec<Raw> = (0..1000)
        .map(|_| {
            let mut raw = Raw::quiet(node.address());
            raw.send(b"PUB some.where 1048576\r\n");
            raw.send(&[b'x'; 10_000]);
            raw
        })
        .collect();
    bystander.slowest(50);
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 80 * MIB, "{grown} bytes more");
    drop(waiting);
    wait_for_connections(&node, 2);
}

#[test]
fn half_closed_sockets() {
    let mut servers = vec![Start::halyard()];
    servers.extend(tools::peer().map(|peer| Start::with(&peer)));
    for start in servers {
        let (start, _dir) = configured(start, "");
        let node = start.start();
        let mut bystander = Bystander::new(&node);
        let mut listener = Raw::quiet(node.address());
        listener.send(b"SUB half.> 1\r\n");
        listener.settle();
        for _ in 0..100 {
            // What was said before the end is heard, the connection then ends from the other side too.
            let mut raw = Raw::quiet(node.address());
            raw.send(b"SUB half.closed 7\r\nPUB half.closed 2\r\nhi\r\n");
            raw.half_close();
            let text = raw.until_closed();
            let mine = b"MSG half.closed 7 2\r\nhi\r\n";
            // A client that stops sending may lose answers, never get others.
            assert!(text.is_empty() || text == mine, "{}", text.escape_ascii());
            assert_eq!(message(&mut listener), "hi");
        }
        wait_for_connections(&node, 3);
        bystander.slowest(20);
        // Reset instead of closed: unread bytes on the client's side when it goes.
        for _ in 0..100 {
            let mut raw = Raw::quiet(node.address());
            raw.send(b"SUB half.reset 7\r\nPUB half.reset 2\r\nhi\r\n");
            assert_eq!(message(&mut listener), "hi");
        }
        wait_for_connections(&node, 3);
        bystander.slowest(20);
    }
}

#[test]
fn strangers() {
    let (node, _dir) = halyard("authorization { user: ana, password: secret, timeout: 1 }");
    let before = node.resident_bytes();
    let mut silent: Vec<Raw> = (0..500).map(|_| Raw::connect(node.address())).collect();
    let mut half: Vec<Raw> = (0..500)
        .map(|_| {
            let mut raw = Raw::connect(node.address());
            raw.send(b"CONNECT {\"name\":\"");
            raw.send(&[b'x'; 3000]);
            raw
        })
        .collect();
    for _ in 0..100 {
        let mut raw = Raw::connect(node.address());
        raw.send(b"PUB foo 1000000\r\n");
        raw.send(&[b'x'; 1_000_000]);
        closed_with(&mut raw, &["-ERR 'Authorization Violation'"]);
    }
    for raw in silent.iter_mut().chain(&mut half) {
        closed_with(raw, &["-ERR 'Authentication Timeout'"]);
    }
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 24 * MIB, "{grown} bytes more");
    let mut known = Raw::client(
        node.address(),
        r#"{"verbose":false,"user":"ana","pass":"secret"}"#,
    );
    known.settle();
}
