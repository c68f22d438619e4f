//! For tests with hostile peers: what an innocent client sees of the server meanwhile, and what monitoring counts.

use std::time::{Duration, Instant};

use crate::node::{Node, Start, TempDir};
use crate::raw::{PATIENCE, Raw};

/// Bytes.
pub const MIB: u64 = 1024 * 1024;

/// Starts our server with this configuration.
pub fn halyard(config: &str) -> (Node, TempDir) {
    let (start, dir) = configured(Start::halyard(), config);
    (start.start(), dir)
}

/// A start with this configuration file, which lives as long as the directory.
pub fn configured(start: Start, config: &str) -> (Start, TempDir) {
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
pub struct Bystander {
    asks: Raw,
    answers: Raw,
    count: u32,
}

impl Bystander {
    /// Connects both.
    pub fn new(node: &Node) -> Self {
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
    pub fn round(&mut self) -> Duration {
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
    pub fn slowest(&mut self, rounds: u32) -> Duration {
        (0..rounds).map(|_| self.round()).max().unwrap_or_default()
    }
}

/// The payload of the next message; the server's PINGs are answered.
pub fn message(raw: &mut Raw) -> String {
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

/// The server says exactly these lines (INFO aside) and closes.
pub fn closed_with(raw: &mut Raw, expected: &[&str]) {
    let text = String::from_utf8_lossy(&raw.until_closed()).into_owned();
    let lines: Vec<&str> = text
        .split("\r\n")
        .filter(|l| !l.is_empty() && !l.starts_with("INFO "))
        .collect();
    assert_eq!(lines, expected);
}

/// Waits until monitoring shows so many open connections.
pub fn wait_for_connections(node: &Node, count: u64) {
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

/// A number of a monitoring answer.
pub fn number(node: &Node, path: &str, field: &str) -> u64 {
    let (status, body) = node.http_get(path);
    assert_eq!(status, 200, "{body}");
    let json: serde_json::Value = serde_json::from_str(&body).expect("monitoring answers in JSON");
    json.get(field)
        .and_then(serde_json::Value::as_u64)
        .expect("a number")
}
