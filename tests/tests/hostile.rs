//! Peers that are broken, slow, greedy or simply very many: the server answers as the protocol says, its memory stays
//! bounded, and every other client goes on.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use halyard_tests::node::{Node, Start, TempDir};
use halyard_tests::raw::{PATIENCE, Raw};
use halyard_tests::tools;

const MIB: u64 = 1024 * 1024;

/// Starts our server with this configuration.
fn halyard(config: &str) -> (Node, TempDir) {
    let (start, dir) = configured(Start::halyard(), config);
    (start.start(), dir)
}

fn configured(start: Start, config: &str) -> (Start, TempDir) {
    let dir = TempDir::new();
    let path = dir.path().join("server.conf");
    std::fs::write(&path, config).expect("the temporary directory is writable");
    (
        start.args([
            "-c".to_owned(),
            path.to_str().expect("a UTF-8 path").to_owned(),
        ]),
        dir,
    )
}

/// Two clients that ask and answer; what an innocent bystander sees of the server.
struct Bystander {
    asks: Raw,
    answers: Raw,
    count: u32,
}

impl Bystander {
    fn new(node: &Node) -> Self {
        let mut asks = Raw::quiet(node.address());
        let mut answers = Raw::quiet(node.address());
        answers.send(b"SUB bystander.ask 1\r\n");
        answers.settle();
        asks.send(b"SUB bystander.answer 1\r\n");
        asks.settle();
        Self {
            asks,
            answers,
            count: 0,
        }
    }

    /// One request and its answer; how long they took.
    fn round(&mut self) -> Duration {
        let started = Instant::now();
        self.count += 1;
        let text = format!("{:08}", self.count);
        self.asks
            .send(format!("PUB bystander.ask bystander.answer 8\r\n{text}\r\n").as_bytes());
        assert_eq!(message(&mut self.answers), text);
        self.answers
            .send(format!("PUB bystander.answer 8\r\n{text}\r\n").as_bytes());
        assert_eq!(message(&mut self.asks), text);
        started.elapsed()
    }

    /// The slowest of many rounds.
    fn slowest(&mut self, rounds: u32) -> Duration {
        (0..rounds).map(|_| self.round()).max().unwrap_or_default()
    }
}

/// The payload of the next message; the server's PINGs are answered.
fn message(raw: &mut Raw) -> String {
    loop {
        let line = raw.line();
        if line == "PING" {
            raw.send(b"PONG\r\n");
        } else {
            assert!(line.starts_with("MSG "), "{line}");
            return raw.line();
        }
    }
}

fn closed_with(raw: &mut Raw, expected: &[&str]) {
    let text = String::from_utf8_lossy(&raw.until_closed()).into_owned();
    let lines: Vec<&str> = text
        .split("\r\n")
        .filter(|l| !l.is_empty() && !l.starts_with("INFO "))
        .collect();
    assert_eq!(lines, expected);
}

/// Waits until monitoring shows so many open connections.
fn wait_for_connections(node: &Node, count: u64) {
    let started = Instant::now();
    loop {
        let found = number(node, "/varz", "connections");
        if found == count {
            return;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "{found} connections, not {count}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn number(node: &Node, path: &str, field: &str) -> u64 {
    let (status, body) = node.http_get(path);
    assert_eq!(status, 200, "{body}");
    let json: serde_json::Value = serde_json::from_str(&body).expect("monitoring answers in JSON");
    json.get(field)
        .and_then(serde_json::Value::as_u64)
        .expect("a number")
}

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

/// Reads until the bytes end like this. The server's own PINGs are left out.
fn take(socket: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    while !received.ends_with(end) {
        let count = socket.read(&mut chunk).expect("bytes in time");
        assert!(count > 0, "closed after {}", received.escape_ascii());
        received.extend_from_slice(&chunk[..count]);
        if received == b"PING\r\n" {
            received.clear();
        }
    }
    received
        .strip_prefix(b"PING\r\n")
        .map(<[u8]>::to_vec)
        .unwrap_or(received)
}

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
