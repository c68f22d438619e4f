//! Faults of the file system under the real process: a disk that is full, no file descriptors, calls that fail.
//!
//! A full disk is a small tmpfs in a mount namespace of its own (`unshare`), failing calls are injected by `strace`; where
//! the machine lacks one of them, or does not allow it, a test says so and passes. What must hold: a publish that was
//! acknowledged is there afterwards, one that cannot be stored is refused or not answered, and the server goes on by itself
//! where nothing is in doubt.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot go on without ends it"
)]

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use halyard_tests::node::{Node, Start, TempDir, binary};
use halyard_tests::raw::{Heard, Raw};
use halyard_tests::tools::program;
use serde_json::{Value, json};

/// A client that asks and waits for the answer.
struct Client {
    raw: Raw,
    asked: u64,
}

impl Client {
    fn new(node: &Node) -> Self {
        let mut raw = Raw::client(node.address(), r#"{"verbose":false}"#);
        raw.send(b"SUB _I.* 1\r\n");
        raw.settle();
        Self { raw, asked: 0 }
    }

    /// The answer as JSON; `None` when none comes in time.
    fn ask(&mut self, subject: &str, body: &[u8], within: Duration) -> Option<Value> {
        self.asked += 1;
        let reply = format!("_I.{}", self.asked);
        let head = format!("PUB {subject} {reply} {}\r\n", body.len());
        self.raw.send(&[head.as_bytes(), body, b"\r\n"].concat());
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.raw.hear(left.max(Duration::from_millis(1))) {
                Heard::Line(line) if line == "PING" => self.raw.send(b"PONG\r\n"),
                Heard::Line(line) if line.starts_with("MSG ") => {
                    let answer = self.raw.line();
                    // One that came too late belongs to an earlier question.
                    if line.split(' ').nth(1) == Some(&reply) {
                        return serde_json::from_str(&answer).ok();
                    }
                }
                Heard::Line(line) => panic!("{line}"),
                Heard::Silence(_) | Heard::Closed(_) => return None,
            }
        }
    }

    fn api(&mut self, subject: &str, body: &Value) -> Value {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let subject = format!("$JS.API.{subject}");
        let answer = self.ask(&subject, body.as_bytes(), Duration::from_secs(10));
        answer.unwrap_or_else(|| panic!("{subject} is not answered"))
    }

    fn create(&mut self) {
        let made = self.api("STREAM.CREATE.S", &json!({"name": "S", "subjects": ["s"]}));
        assert!(made.get("error").is_none(), "{made}");
    }

    fn messages(&mut self) -> u64 {
        let info = self.api("STREAM.INFO.S", &Value::Null);
        info["state"]["messages"].as_u64().unwrap()
    }

    /// The sequence of a publish, or why there is none; `None` without an answer.
    fn publish(&mut self, body: &[u8], within: Duration) -> Option<Result<u64, Value>> {
        let ack = self.ask("s", body, within)?;
        match ack.get("error") {
            Some(error) => Some(Err(error.clone())),
            None => Some(Ok(ack["seq"].as_u64().unwrap())),
        }
    }

    fn publish_until_taken(&mut self, body: &[u8], within: Duration) {
        let began = Instant::now();
        while !matches!(self.publish(body, within), Some(Ok(_))) {
            assert!(began.elapsed() < within, "publishes stay refused");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A program that does this before it becomes the server, with the server's arguments in `$@`.
fn wrapped(dir: &TempDir, script: &str) -> PathBuf {
    let path = dir.path().join("wrapper");
    let text = format!("#!/bin/sh\nBIN='{}'\n{script}\n", binary().display());
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn runs(program: &str, args: &[&str]) -> bool {
    let output = Command::new(program).args(args).output();
    output.is_ok_and(|output| output.status.success())
}

/// A server whose store is a file system of so many MiB; `None` where this machine does not allow it.
fn on_a_disk_of(mib: u32, dir: &TempDir) -> Option<Node> {
    let mounts = ["-rm", "-m"];
    let Some(how) = mounts.into_iter().find(|how| {
        let mount = format!("mount -t tmpfs -o size=1m none '{}'", dir.path().display());
        runs("unshare", &[how, "sh", "-c", &mount])
    }) else {
        eprintln!("SKIPPED: no mounts in a namespace of one's own here");
        return None;
    };
    let store = dir.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let script = format!(
        "export STORE='{}'\nexec unshare {how} sh -c 'mount -t tmpfs -o size={mib}m none \"$STORE\" && exec \"$@\"' sh \"$BIN\" \"$@\"",
        store.display()
    );
    let wrapper = wrapped(dir, &script);
    // More than there is: the disk is the limit.
    let conf = dir.path().join("server.conf");
    let text = format!(
        "jetstream {{ store_dir: '{}', max_file: 1GB }}",
        store.display()
    );
    std::fs::write(&conf, text).unwrap();
    let conf = conf.to_str().unwrap();
    Some(Start::with(&wrapper).args(["-c", conf]).start())
}

#[test]
fn a_full_disk_refuses_publishes_and_a_purge_brings_them_back_at_once() {
    let dir = TempDir::new();
    let Some(node) = on_a_disk_of(24, &dir) else {
        return;
    };
    let mut client = Client::new(&node);
    client.create();
    let (body, soon) = (vec![b'x'; 50_000], Duration::from_secs(5));
    for round in 0..2 {
        let mut refused = 0;
        while refused < 60 {
            match client.publish(&body, soon) {
                Some(Ok(_)) => refused = 0,
                Some(Err(error)) => {
                    assert_eq!(error["err_code"], 10023, "{error}");
                    refused += 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
                None => panic!("no answer\n{}", node.log()),
            }
        }
        let stored = client.messages() * body.len() as u64;
        assert!(
            round > 0 || stored > 14 << 20,
            "round {round}: {stored} bytes of 24 MiB\n{:?}\n{}",
            node.http_get("/healthz"),
            node.log()
        );
        let (status, health) = node.http_get("/healthz");
        assert!(
            status == 503 && health.contains("too little space"),
            "{health}"
        );
        if round == 1 {
            // Most of them, one by one: what is left is in every file.
            let last = client.api("STREAM.INFO.S", &Value::Null)["state"]["last_seq"]
                .as_u64()
                .unwrap();
            for seq in (0..=last).filter(|seq| seq % 10 < 7) {
                client.api("STREAM.MSG.DELETE.S", &json!({"seq": seq}));
            }
        } else {
            client.api("STREAM.PURGE.S", &Value::Null);
        }
        client.publish_until_taken(&body, Duration::from_secs(3));
    }
    client.api("STREAM.PURGE.S", &Value::Null);
    client.publish_until_taken(&body, Duration::from_secs(3));
    let began = Instant::now();
    while node.http_get("/healthz").0 != 200 {
        assert!(began.elapsed() < soon, "{}", node.http_get("/healthz").1);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn a_disk_that_is_filled_by_others_ends_nothing() {
    let dir = TempDir::new();
    let Some(node) = on_a_disk_of(64, &dir) else {
        return;
    };
    let mut client = Client::new(&node);
    client.create();
    let body = vec![b'x'; 50_000];
    for _ in 0..100 {
        assert!(matches!(
            client.publish(&body, Duration::from_secs(5)),
            Some(Ok(_))
        ));
    }
    // Seen through the process, as the mount is in its namespace.
    let root = format!(
        "/proc/{}/root{}",
        node.pid(),
        dir.path().join("store").display()
    );
    let others = Path::new(&root).join("others");
    let mut file = std::fs::File::create(&others).unwrap();
    let zeros = vec![0; 1 << 16];
    while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
    drop(file);
    let mut refused = 0;
    while refused < 5 {
        match client.publish(&body, Duration::from_secs(5)) {
            Some(Err(_)) => refused += 1,
            Some(Ok(_)) => {}
            None => panic!("no answer\n{}", node.log()),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let stored = client.messages();
    assert!(stored >= 100);
    std::fs::remove_file(&others).unwrap();
    client.publish_until_taken(&body, Duration::from_secs(3));
    assert_eq!(client.messages(), stored + 1);
    assert_eq!(node.stop(), Some(0));
}

/// 400 connections at a server with 256 file descriptors, while the log needs one file after the other.
#[test]
fn a_server_whose_store_is_taken_away_can_be_stopped() {
    let dir = TempDir::new();
    let node = Start::halyard().jetstream(dir.path()).start();
    let mut client = Client::new(&node);
    client.create();
    std::fs::remove_dir_all(dir.path()).unwrap();
    // Until the log needs a file that it cannot make.
    let payload = vec![b'x'; 900_000];
    let unanswered = (0..200).any(|_| {
        let answer = client.publish(&payload, Duration::from_secs(2));
        !matches!(answer, Some(Ok(_)))
    });
    assert!(unanswered, "the log goes on without its directory");
    node.signal("TERM");
    // With an error, but it ends.
    node.wait(Duration::from_secs(10));
}

#[test]
fn connections_leave_the_store_its_file_descriptors() {
    let dir = TempDir::new();
    let wrapper = wrapped(&dir, "ulimit -n 256\nexec \"$BIN\" \"$@\"");
    let store = dir.path().join("store");
    let node = Start::with(&wrapper).jetstream(&store).start();
    let mut client = Client::new(&node);
    client.create();
    let mut crowd = Vec::new();
    for _ in 0..400 {
        crowd.extend(TcpStream::connect(node.address()));
    }
    let body = vec![b'x'; 100_000];
    for _ in 0..200 {
        let ack = client.publish(&body, Duration::from_secs(10));
        assert!(matches!(ack, Some(Ok(_))), "{ack:?}\n{}", node.log());
    }
    let (status, health) = node.http_get("/healthz");
    assert_eq!(status, 200, "{health}");
    drop(crowd);
    // They are taken again once there is room.
    let began = Instant::now();
    loop {
        let mut one = Raw::connect(node.address());
        let heard = one.hear(Duration::from_secs(1));
        one.send(b"CONNECT {\"verbose\":false}\r\nPING\r\n");
        if matches!(heard, Heard::Line(_))
            && one.hear(Duration::from_secs(1)) == Heard::Line("PONG".to_owned())
        {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{heard:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(client.messages(), 200);
    assert_eq!(node.stop(), Some(0));
}

/// Publishes to a server of which calls fail as `strace` is told, until one is not acknowledged; returns what was, whether the
/// server said at its end that something is wrong, and its log.
fn struck(strace: &Path, inject: &str, store: &Path) -> (u64, bool, String) {
    let dir = TempDir::new();
    let script = format!(
        "exec '{}' -D -f -qq -o /dev/null {inject} \"$BIN\" \"$@\"",
        strace.display()
    );
    let wrapper = wrapped(&dir, &script);
    let node = Start::with(&wrapper).jetstream(store).start();
    let mut client = Client::new(&node);
    let mut acknowledged = 0;
    for number in 0..120 {
        let body = vec![b'a' + (number % 26) as u8; 20_000];
        match client.publish(&body, Duration::from_secs(2)) {
            Some(Ok(_)) => acknowledged += 1,
            Some(Err(_)) => {}
            None => break,
        }
    }
    let (status, _) = node.http_get("/healthz");
    let log = node.log();
    let code = node.stop();
    assert_eq!(
        status == 200,
        code == Some(0),
        "{inject}: {status}, {code:?}\n{log}"
    );
    (acknowledged, code != Some(0), log)
}

#[test]
fn calls_that_fail_lose_nothing_that_was_acknowledged() {
    let Some(strace) = program("strace") else {
        eprintln!("SKIPPED: no strace here");
        return;
    };
    if !runs(
        strace.to_str().unwrap(),
        &["-f", "-qq", "-o", "/dev/null", "true"],
    ) {
        eprintln!("SKIPPED: strace is not allowed to trace here");
        return;
    }
    let cases = [
        ("-e inject=fdatasync:error=EIO:when=25", true),
        ("-e inject=pwritev:error=EIO:when=30", true),
        // The log's next file, and a flush's, twice each.
        ("-P LOG -e inject=openat:error=EMFILE:when=1..2", false),
        ("-P LOG -e inject=openat:error=EIO:when=1..2", false),
        ("-P SEGMENT -e inject=openat:error=EIO:when=1..2", false),
    ];
    for (inject, is_fatal) in cases {
        let dir = TempDir::new();
        let store = dir.path().join("halyard");
        let inject = inject
            .replace(
                "LOG",
                store.join("log/log-0000000000000004").to_str().unwrap(),
            )
            .replace(
                "SEGMENT",
                store
                    .join("groups/1/segment-0000000000000002")
                    .to_str()
                    .unwrap(),
            );
        let node = Start::halyard().jetstream(dir.path()).start();
        Client::new(&node).create();
        assert_eq!(node.stop(), Some(0));
        let (acknowledged, is_ill, log) = struck(&strace, &inject, dir.path());
        assert!(is_fatal || !is_ill, "{inject}: {log}");
        let node = Start::halyard().jetstream(dir.path()).start();
        let stored = Client::new(&node).messages();
        assert!(
            stored >= acknowledged,
            "{inject}: {stored} of {acknowledged}\n{log}"
        );
        assert!(is_fatal || stored == 120, "{inject}: {stored}\n{log}");
        assert_eq!(node.stop(), Some(0));
    }
}
