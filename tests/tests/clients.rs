//! The same session of each official client against Halyard and against the real nats-server: what
//! a user sees must be the same, line by line.
//!
//! Not part of plain `cargo test`, which needs Rust only: `.ci/setup` installs the clients and the
//! real server, then `cargo test --test clients` runs this.

use std::path::Path;
use std::process::Command;

use halyard_tests::node::{Start, TempDir, workspace};
use halyard_tests::tools;

/// Runs one session and returns its lines. A session ends itself; a failing one says why.
fn transcript(start: Start, session: &dyn Fn(&str) -> Command) -> Vec<String> {
    let store = TempDir::new();
    let scratch = TempDir::new();
    let node = start.jetstream(store.path()).start();
    let output = session(&node.url())
        .current_dir(scratch.path())
        .env("HOME", scratch.path())
        .output()
        .expect("the session starts; .ci/setup installs what it needs");
    let lines = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    assert!(
        output.status.success(),
        "{:?}\n{lines:#?}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
        node.log(),
    );
    lines
}

/// Both servers, one script; the first line that differs is named.
fn compare(session: &dyn Fn(&str) -> Command) {
    let peer = tools::peer().expect("the real nats-server is installed by .ci/setup");
    let expected = transcript(Start::with(&peer), session);
    assert!(
        expected.len() > 10,
        "the session says what it sees: {expected:?}"
    );
    let ours = transcript(Start::halyard(), session);
    for (n, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
        assert_eq!(ours, expected, "line {}", n + 1);
    }
    assert_eq!(ours.len(), expected.len());
}

fn script(interpreter: &Path, file: &str) -> impl Fn(&str) -> Command {
    let interpreter = interpreter.to_path_buf();
    let file = workspace().join("tests/clients").join(file);
    move |url| {
        let mut command = Command::new(&interpreter);
        command.arg(&file).arg(url);
        command
    }
}

#[test]
fn nats_py() {
    let python = workspace().join(".tools/python/bin/python3");
    compare(&script(&python, "python/session.py"));
}

#[test]
fn nats_js() {
    let node = tools::program("node").expect("Node.js is installed by .ci/setup");
    compare(&script(&node, "js/session.mjs"));
}

#[test]
fn nats_cli() {
    let nats = tools::program("nats").expect("the nats CLI is installed by .ci/setup");
    let bash = tools::program("bash").expect("bash");
    let session = script(&bash, "cli/session.sh");
    compare(&|url| {
        let mut command = session(url);
        command.env("NATS", &nats);
        command
    });
}

#[test]
fn nats_py_life_spans() {
    let python = workspace().join(".tools/python/bin/python3");
    compare(&script(&python, "python/lifespans.py"));
}

#[test]
fn nats_cli_life_spans() {
    let nats = tools::program("nats").expect("the nats CLI is installed by .ci/setup");
    let bash = tools::program("bash").expect("bash");
    let session = script(&bash, "cli/lifespans.sh");
    compare(&|url| {
        let mut command = session(url);
        command.env("NATS", &nats);
        command
    });
}
