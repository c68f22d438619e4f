//! Starts that must be refused, each with a message that names the path and the way out, and with nothing overwritten:
//! a full disk, an unwritable directory, a directory in use, a store of a newer version, a corrupted log record.
//! And what scripts expect of the binary whatever it is called: version, usage errors, ports file, signals, reload.

#![expect(
    clippy::panic,
    reason = "helpers of a test fail it with what they found"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use halyard_tests::node::{Node, Start, TempDir, binary};

/// Runs the binary to its end.
fn run(args: &[&str]) -> Output {
    Command::new(binary())
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

/// The one `[FTL]` line of a start that was refused with status 1.
fn fatal((code, log): (Option<i32>, String)) -> String {
    assert_eq!(code, Some(1), "{log}");
    let mut lines = log.lines().filter(|line| line.contains("[FTL] "));
    let line = lines
        .next()
        .unwrap_or_else(|| panic!("no [FTL] line in {log}"));
    assert!(lines.next().is_none(), "more than one reason in {log}");
    assert!(!log.contains("Server is ready"), "{log}");
    line.to_owned()
}

fn assert_has(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{line:?} does not contain {part:?}");
    }
}

/// Every file below `dir` with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.append(&mut contents(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).expect("readable"));
        }
    }
    found
}

/// The names of the files below `dir` that are no longer as they were.
fn changed(dir: &Path, before: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<PathBuf> {
    let now = contents(dir);
    let names = before.keys().chain(now.keys());
    let mut changed: Vec<_> = names
        .filter(|name| before.get(*name) != now.get(*name))
        .cloned()
        .collect();
    changed.dedup();
    changed
}

/// A raw client that waits for the answer to each request.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(node: &Node) -> Self {
        let stream = TcpStream::connect(node.address()).expect("the server listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout above zero");
        let mut client = Self(BufReader::new(stream));
        client.line();
        client.send("CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB answer 1\r\n");
        client
    }

    fn send(&mut self, text: &str) {
        self.0
            .get_mut()
            .write_all(text.as_bytes())
            .expect("the server reads");
    }

    /// The next line that is not a PING, which comes at a time of the server's own.
    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("the server writes");
            if line != "PING\r\n" {
                return line;
            }
        }
    }

    fn request(&mut self, subject: &str, payload: &str) -> String {
        self.send(&format!(
            "PUB {subject} answer {}\r\n{payload}\r\n",
            payload.len()
        ));
        while !self.line().starts_with("MSG answer ") {}
        self.line()
    }
}

/// A store with one stream `S` that holds `count` messages, left behind by `kill -9`.
fn killed_store(dir: &Path, count: usize) {
    let node = Start::halyard().jetstream(dir).start();
    let mut client = Client::connect(&node);
    let created = client.request(
        "$JS.API.STREAM.CREATE.S",
        "{\"name\":\"S\",\"subjects\":[\"s.>\"],\"storage\":\"file\",\"allow_direct\":true}",
    );
    assert!(created.contains("\"created\""), "{created}");
    let consumer = "{\"stream_name\":\"S\",\"config\":{\"name\":\"C\",\"durable_name\":\"C\",\"ack_policy\":\"explicit\"}}";
    let created = client.request("$JS.API.CONSUMER.CREATE.S.C", consumer);
    assert!(created.contains("\"created\""), "{created}");
    for number in 1..=count {
        let ack = client.request("s.a", &format!("message {number} of the store"));
        assert!(ack.contains(&format!("\"seq\":{number}")), "{ack}");
    }
    node.kill();
}

/// The file of the node's log that holds `text`, and where.
fn find_in_log(dir: &Path, text: &str) -> (PathBuf, usize) {
    let files = contents(&dir.join("halyard/log"));
    let found = files.into_iter().find_map(|(path, bytes)| {
        let at = bytes
            .windows(text.len())
            .position(|window| window == text.as_bytes())?;
        Some((path, at))
    });
    found.unwrap_or_else(|| panic!("no log holds {text:?}"))
}

/// CRC32C, bit by bit.
fn crc32c(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    (!crc).to_le_bytes()
}

/// `halyard store` and its words.
fn store(words: &[&str]) -> (Option<i32>, String) {
    let output = run(&[&["store"], words].concat());
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

fn refused(dir: &Path) -> String {
    fatal(Start::halyard().jetstream(dir).refused())
}

/// Mounts a file system in memory of so many bytes; `None` where tests may not mount.
fn small_disk(dir: &Path, options: &str) -> Option<Mounted> {
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(dir)
        .output();
    if mounted.is_ok_and(|output| output.status.success()) {
        return Some(Mounted(dir.to_path_buf()));
    }
    eprintln!("skipped: this user may not mount a small disk");
    None
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk() {
    let dir = TempDir::new();
    let Some(_disk) = small_disk(dir.path(), "size=1m") else {
        return;
    };
    // Not one block is left.
    let mut rest = std::fs::File::create(dir.path().join("rest")).expect("a file");
    while rest.write_all(&[1; 4096]).is_ok() {}
    let line = refused(dir.path());
    assert_has(
        &line,
        &[
            dir.path().to_str().expect("UTF-8"),
            "no space left on the disk",
            "free space there",
        ],
    );
}

#[test]
fn a_disk_that_fills_up_while_the_server_runs() {
    let dir = TempDir::new();
    let Some(_disk) = small_disk(dir.path(), "size=60m") else {
        return;
    };
    // More than the disk holds, so that it is the disk that ends first.
    let settings = TempDir::new();
    let file = settings.path().join("halyard.conf");
    std::fs::write(&file, "jetstream { max_file_store: 1GB }\n").expect("a file");
    let file = file.to_str().expect("UTF-8");
    let server = || {
        let server = Start::halyard().args(["-c", file]);
        server.jetstream(dir.path()).start()
    };
    let node = server();
    let mut client = Client::connect(&node);
    let created = client.request(
        "$JS.API.STREAM.CREATE.S",
        "{\"name\":\"S\",\"subjects\":[\"s.>\"],\"storage\":\"file\"}",
    );
    assert!(created.contains("\"created\""), "{created}");
    let payload = "x".repeat(900_000);
    let mut stored = 0;
    let refusal = loop {
        let answer = client.request("s.a", &payload);
        if answer.contains("\"error\"") {
            break answer;
        }
        stored += 1;
        assert!(stored < 100, "the disk never fills up");
    };
    assert_has(&refusal, &["10023"]);
    // It says so, and what helps, once that has lasted for a moment: the log, a flush or the look at the disk.
    let told = |log: &str| {
        [
            "free space there",
            "free some or purge streams",
            "free some, or delete",
        ]
        .iter()
        .any(|advice| log.contains(advice))
    };
    let started = Instant::now();
    while !told(&node.log()) {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "it says nothing"
        );
        let answer = client.request("s.a", &payload);
        stored += usize::from(!answer.contains("\"error\""));
        std::thread::sleep(Duration::from_millis(50));
    }
    let info = client.request("$JS.API.STREAM.INFO.S", "");
    assert!(info.contains(&format!("\"messages\":{stored},")), "{info}");

    let wider = Command::new("mount")
        .args(["-o", "remount,size=300m"])
        .arg(dir.path())
        .status();
    assert!(wider.is_ok_and(|status| status.success()));
    let started = Instant::now();
    while client.request("s.a", &payload).contains("\"error\"") {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "publishing goes on by itself"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    node.kill();
    let node = server();
    let info = Client::connect(&node).request("$JS.API.STREAM.INFO.S", "");
    assert!(
        info.contains(&format!("\"messages\":{},", stored + 1)),
        "{info}"
    );
}

#[test]
fn a_directory_that_cannot_be_written() {
    let dir = TempDir::new();
    let path = dir.path().to_str().expect("UTF-8");
    let mut command = Command::new(binary());
    command
        .args(["-a", "127.0.0.1", "-p", "-1", "-js", "-sd", path])
        .stdin(Stdio::null());
    let mut permissions = std::fs::metadata(path).expect("there").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o555);
    std::fs::set_permissions(path, permissions).expect("our own directory");
    // Permissions do not bind root: become somebody whom they bind.
    if std::fs::File::create(dir.path().join("probe")).is_ok() {
        command.uid(65_534).gid(65_534);
    }
    let Ok(output) = command.output() else {
        eprintln!("skipped: nobody else may run the binary here");
        return;
    };
    let line = fatal((
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ));
    assert_has(
        &line,
        &[path, "permission denied", "make the directory writable"],
    );
}

#[test]
fn a_directory_that_another_process_uses() {
    let dir = TempDir::new();
    let node = Start::halyard().jetstream(dir.path()).start();
    let line = refused(dir.path());
    assert_has(
        &line,
        &[
            dir.path().to_str().expect("UTF-8"),
            "in use by another process",
            "stop that server",
        ],
    );
    let mut client = Client::connect(&node);
    let info = client.request("$JS.API.INFO", "");
    assert!(
        info.contains("\"limits\""),
        "the first server goes on: {info}"
    );
    drop(node);
    Start::halyard().jetstream(dir.path()).start();
}

#[test]
fn a_file_in_place_of_the_directory() {
    let dir = TempDir::new();
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").expect("writable");
    let line = refused(&file);
    assert_has(&line, &[file.to_str().expect("UTF-8")]);
    assert_eq!(
        std::fs::read_to_string(&file).expect("readable"),
        "precious"
    );
}

#[test]
fn a_log_of_a_newer_version() {
    let dir = TempDir::new();
    killed_store(dir.path(), 3);
    let (log, _) = find_in_log(dir.path(), "message 1 of the store");
    let mut bytes = std::fs::read(&log).expect("readable");
    // docs/formats.md: the version of the log's format, which later ones have in their sum.
    bytes[8] = 9;
    let sum = crc32c(&[&bytes[8..12], &bytes[16..64]].concat());
    bytes[12..16].copy_from_slice(&sum);
    std::fs::write(&log, &bytes).expect("writable");
    let before = contents(dir.path());
    let line = refused(dir.path());
    assert_has(
        &line,
        &[
            log.to_str().expect("UTF-8"),
            "newer release",
            "9",
            "nothing was changed",
        ],
    );
    assert_eq!(changed(dir.path(), &before), [] as [PathBuf; 0]);
}

#[test]
fn a_store_of_a_newer_version() {
    let dir = TempDir::new();
    killed_store(dir.path(), 3);
    // An orderly end flushes the log into the store.
    assert_eq!(
        Start::halyard().jetstream(dir.path()).start().stop(),
        Some(0)
    );
    let manifest = dir.path().join("halyard/groups/1/manifest");
    let mut bytes = std::fs::read(&manifest).expect("an orderly end leaves a manifest");
    // docs/formats.md: the version of every file of the store, and of a manifest once more in its second header.
    let second = bytes.len() - 128;
    for header in [0, second] {
        bytes[header + 8] = 9;
        let sum = crc32c(&bytes[header..header + 124]);
        bytes[header + 124..header + 128].copy_from_slice(&sum);
    }
    std::fs::write(&manifest, &bytes).expect("writable");
    // The log is opened first, and may be given a new spare file; the store itself is only read.
    let groups = dir.path().join("halyard/groups");
    let before = contents(&groups);
    let line = refused(dir.path());
    assert_has(
        &line,
        &[manifest.to_str().expect("UTF-8"), "version 9", "newer"],
    );
    assert_eq!(changed(&groups, &before), [] as [PathBuf; 0]);
}

/// A flipped bit is mended. What is more than that has the server serve what is before it, and write nothing.
#[test]
fn a_corrupted_log_record() {
    let dir = TempDir::new();
    killed_store(dir.path(), 20);
    let (log, at) = find_in_log(dir.path(), "message 5 of the store");
    let whole = std::fs::read(&log).expect("readable");
    let mut bytes = whole.clone();
    bytes[at] ^= 3;
    std::fs::write(&log, &bytes).expect("writable");
    let before = contents(dir.path());
    let path = dir.path().to_str().expect("UTF-8");
    let (code, said) = store(&["check", path]);
    assert_eq!(code, Some(1), "{said}");
    assert_has(
        &said,
        &[log.to_str().expect("UTF-8"), "damaged at byte", "READ-ONLY"],
    );
    let node = Start::halyard().jetstream(dir.path()).start();
    let mut client = Client::connect(&node);
    let got = |client: &mut Client, seq: u64| {
        client.request("$JS.API.STREAM.MSG.GET.S", &format!("{{\"seq\":{seq}}}"))
    };
    assert!(got(&mut client, 4).contains("\"data\""));
    for seq in [5, 6, 20] {
        let said = got(&mut client, seq);
        assert!(
            said.contains("damaged at byte") && !said.contains("10037"),
            "{said}"
        );
    }
    let refused = client.request("s.a", "one more");
    assert!(refused.contains("10077"), "{refused}");
    // What reads goes on, and nothing is left without an answer.
    let info = client.request("$JS.API.STREAM.INFO.S", "");
    assert!(info.contains("\"messages\":4,"), "{info}");
    let info = client.request("$JS.API.CONSUMER.INFO.S.C", "");
    assert!(info.contains("\"num_pending\":4,"), "{info}");
    client.send("PUB $JS.API.CONSUMER.MSG.NEXT.S.C answer 0\r\n\r\n");
    let said = "NATS/1.0 409 Stream Halted\r\n";
    while client.line() != said {}
    client.send("PUB $JS.API.DIRECT.GET.S answer 9\r\n{\"seq\":4}\r\n");
    while client.line() != "message 4 of the store\r\n" {}
    node.stop();
    assert_eq!(changed(dir.path(), &before), [] as [PathBuf; 0]);
    let out = TempDir::new();
    let to = out.path().join("salvaged");
    let (_, said) = store(&["salvage", path, "--to", to.to_str().expect("UTF-8")]);
    assert!(said.contains("1 streams with 4 messages"), "{said}");
    let behind = std::fs::read_to_string(to.join("S/behind-damage.jsonl")).expect("written");
    assert_eq!(behind.lines().count(), 15);

    bytes[at] ^= 2;
    std::fs::write(&log, &bytes).expect("writable");
    let node = Start::halyard().jetstream(dir.path()).start();
    let info = Client::connect(&node).request("$JS.API.STREAM.INFO.S", "");
    assert!(
        info.contains("\"messages\":20"),
        "one bit is mended: {info}"
    );
    node.kill();
    let mended = std::fs::read(&log).expect("readable");
    assert_eq!(mended[at], whole[at], "also on the disk");
}

#[test]
fn a_directory_with_streams_of_a_nats_server() {
    let dir = TempDir::new();
    let theirs = dir.path().join("jetstream/$G/streams/S");
    std::fs::create_dir_all(&theirs).expect("writable");
    let line = refused(dir.path());
    assert_has(
        &line,
        &["nats-server", "backup", "docs/moving-from-nats-server.md"],
    );
}

#[test]
fn names_and_versions() {
    let text = |output: Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        text(run(&["--version"])),
        format!("halyard: v{} (NATS 2.15.1)\n", env!("CARGO_PKG_VERSION"))
    );
    let dir = TempDir::new();
    let link = dir.path().join("nats-server");
    std::os::unix::fs::symlink(binary(), &link).expect("writable");
    let output = Command::new(&link)
        .arg("-v")
        .output()
        .expect("the link starts");
    assert_eq!(text(output), "nats-server: v2.15.1\n");

    let node = Start::with(&link).args(["-n", "named"]).start();
    assert!(
        node.log().contains("[INF] Server is ready"),
        "{}",
        node.log()
    );
    let ready = format!(
        "[INF] Listening for client connections on {}",
        node.address()
    );
    assert!(node.log().contains(&ready), "{}", node.log());
    assert!(Client::connect(&node).0.get_ref().peer_addr().is_ok());
}

#[test]
fn usage_errors_and_the_check_of_a_file() {
    let dir = TempDir::new();
    let file = dir.path().join("a.conf");
    let path = file.to_str().expect("UTF-8");
    let error = |args: &[&str]| {
        let output = run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_has(&error(&["--nope"]), &["halyard: unknown flag --nope"]);
    assert_has(&error(&["--tls"]), &["--tls is not supported yet"]);
    std::fs::write(&file, "port: 4222\n\n  foo: 1\n").expect("writable");
    assert_has(
        &error(&["-c", path]),
        &[&format!("{path}:3:3: unknown field \"foo\"")],
    );
    assert_has(&error(&["-t", "-c", path]), &["a.conf:3:3"]);
    std::fs::write(&file, "port: 4222\n").expect("writable");
    let output = run(&["-t", "-c", path]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_has(
        &text,
        &[&format!("configuration file {path} is valid (sha256:")],
    );

    let node = Start::halyard().start();
    let port = node.port().to_string();
    let output = run(&["-a", "127.0.0.1", "-p", &port]);
    let line = fatal((
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ));
    assert_has(
        &line,
        &[
            "Error listening on port",
            &format!("127.0.0.1:{port}"),
            "in use",
        ],
    );
}

/// Waits until `log` has a line with `text`.
fn wait_for(node: &Node, text: &str) {
    let started = Instant::now();
    while !node.log().contains(text) {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "no {text:?} in {}",
            node.log()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn signals_and_reload() {
    let dir = TempDir::new();
    let file = dir.path().join("a.conf");
    let pid_file = dir.path().join("pid");
    std::fs::write(
        &file,
        format!("pid_file: {}\nmax_payload: 1000\n", pid_file.display()),
    )
    .expect("writable");
    let node = Start::halyard()
        .args(["-c", file.to_str().expect("UTF-8")])
        .start();
    assert_eq!(
        std::fs::read_to_string(&pid_file).expect("written"),
        node.pid().to_string()
    );
    let mut client = Client::connect(&node);

    std::fs::write(&file, "server_name: other\nmax_payload: 10\n").expect("writable");
    node.signal("HUP");
    wait_for(
        &node,
        "[ERR] Failed to reload server configuration: config reload not supported for ServerName: old=, new=other",
    );
    client.send("PUB answer 500\r\n");
    client.send(&("x".repeat(500) + "\r\n"));
    assert!(
        client.line().starts_with("MSG answer 1 500"),
        "nothing of a refused reload is in force"
    );
    client.line();

    std::fs::write(&file, "max_payload: 10\ndebug: true\n").expect("writable");
    let target = format!("reload={}", node.pid());
    assert_eq!(run(&["--signal", &target]).status.code(), Some(0));
    wait_for(&node, "[INF] Reloaded server configuration (sha256:");
    assert!(!pid_file.exists(), "the new settings name no pid file");
    let mut late = Client::connect(&node);
    late.send("PUB answer 500\r\n");
    assert!(late.line().starts_with("-ERR 'Maximum Payload Violation'"));

    node.signal("USR1");
    wait_for(&node, "[INF] File log re-opened");
    node.signal("INT");
    wait_for(&node, "[INF] Server Exiting..");
    assert_eq!(node.wait(Duration::from_secs(20)), Some(0));
}
