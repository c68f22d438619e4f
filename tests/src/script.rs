//! Conversations with a server as readable text, played against any server.
//!
//! A file in `tests/protocol/` is one server and many scenarios:
//!
//! ```text
//! | max_payload: 100            a line of the server's configuration file
//! ## a title                    a scenario; all connections of the one before are closed
//! a+                            opens connection `a`; its INFO is not shown
//! a+ info                       the same; the INFO is shown
//! a+ {"verbose":false}          opens, sends CONNECT with this JSON, waits until it is in force
//! a> PUB foo 2                  sends a line and CRLF; escapes: \r \n \t \\ \x00, {x*100}
//! a>> PUB fo                    sends without CRLF
//! a< PONG                       the server's next line on `a`
//! a<> Protocol Violation        the server closes `a`; monitoring lists it under this reason
//! a/                            `a` ends its sending side
//! a-                            `a` hangs up
//! sleep 100ms
//! signal USR2                   to the server's process
//! # a remark
//! ```
//!
//! Sending lines in a row on one connection is one write. At the end of a scenario no connection may have said more than
//! the transcript, and those not shown as closed must be open.
//!
//! With `UPDATE=1` the expected lines are written anew from what the server says (use the real one as the author).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::node::{Node, Start, TempDir};
use crate::raw::{Heard, PATIENCE, Raw, bytes_of};

/// Silence after which a server is taken to have said everything.
const QUIET: Duration = Duration::from_millis(120);

/// How long a closed connection may take to appear in monitoring.
const LISTED_WITHIN: Duration = Duration::from_secs(3);

/// One connection of a scenario.
struct Peer {
    raw: Raw,
    id: u64,
    closed: bool,
}

impl Peer {
    fn hear(&mut self, within: Duration, shows_pings: bool) -> Heard {
        loop {
            match self.raw.hear(within) {
                Heard::Line(line) if line == "PING" && !shows_pings => {}
                heard => return heard,
            }
        }
    }
}

/// Plays a file against a server and compares; returns the first difference of each scenario that has one.
pub fn play(file: &Path, server: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("the script is readable");
    let mut run = Run::new(&text, server);
    let mut failures = Vec::new();
    for scenario in scenarios(&text) {
        if let Err(why) = run.check(&scenario) {
            failures.push(format!("{}: {}: {why}", file.display(), scenario.title));
        }
        run.peers.clear();
    }
    failures
}

/// Plays a file against a server and writes what it says into the file.
pub fn record(file: &Path, server: &Path) {
    let text = std::fs::read_to_string(file).expect("the script is readable");
    let mut run = Run::new(&text, server);
    let mut out = String::new();
    let kept: Vec<&str> = text
        .lines()
        .filter(|line| !matches!(Step::parse(line), Step::Hear(..) | Step::Close(..)))
        .collect();
    for (at, line) in kept.iter().enumerate() {
        writeln!(out, "{line}").expect("a string takes everything");
        let step = Step::parse(line);
        if matches!(step, Step::Title(_)) {
            run.peers.clear();
        }
        let next = kept.get(at + 1).map(|line| Step::parse(line));
        run.act(&step, next.as_ref())
            .expect("a recorded step works");
        if step.is_action() && run.unsent.is_empty() {
            run.hear_all(&mut out);
        }
    }
    std::fs::write(file, out).expect("the script is writable");
}

struct Scenario<'a> {
    title: &'a str,
    lines: Vec<&'a str>,
}

fn scenarios(text: &str) -> Vec<Scenario<'_>> {
    let mut all: Vec<Scenario<'_>> = Vec::new();
    for line in text.lines() {
        match (Step::parse(line), all.last_mut()) {
            (Step::Title(title), _) => all.push(Scenario {
                title,
                lines: Vec::new(),
            }),
            (_, Some(last)) => last.lines.push(line),
            (_, None) => {}
        }
    }
    all
}

#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Nothing,
    Title(&'a str),
    Open(&'a str, &'a str),
    Send(&'a str, Vec<u8>),
    Hear(&'a str, &'a str),
    Close(&'a str, &'a str),
    HalfClose(&'a str),
    HangUp(&'a str),
    Sleep(Duration),
    Signal(&'a str),
}

impl<'a> Step<'a> {
    fn parse(line: &'a str) -> Self {
        if let Some(title) = line.strip_prefix("## ") {
            return Self::Title(title);
        }
        if line.is_empty() || line.starts_with('#') || line.starts_with('|') {
            return Self::Nothing;
        }
        if let Some(time) = line.strip_prefix("sleep ") {
            let millis = time
                .trim_end_matches("ms")
                .parse()
                .expect("sleep takes milliseconds");
            return Self::Sleep(Duration::from_millis(millis));
        }
        if let Some(name) = line.strip_prefix("signal ") {
            return Self::Signal(name);
        }
        let end = line
            .find(|c: char| !c.is_ascii_alphanumeric())
            .expect("a step names a peer");
        let (peer, rest) = line.split_at(end);
        let (what, text) = rest.split_once(' ').unwrap_or((rest, ""));
        match what {
            "+" => Self::Open(peer, text),
            ">" => Self::Send(peer, [bytes_of(text).as_slice(), b"\r\n"].concat()),
            ">>" => Self::Send(peer, bytes_of(text)),
            "<" => Self::Hear(peer, text),
            "<>" => Self::Close(peer, text),
            "/" => Self::HalfClose(peer),
            "-" => Self::HangUp(peer),
            _ => panic!("not a step: {line}"),
        }
    }

    fn is_action(&self) -> bool {
        !matches!(
            self,
            Self::Nothing | Self::Title(_) | Self::Hear(..) | Self::Close(..)
        )
    }
}

/// A server and the connections of the present scenario.
struct Run {
    node: Node,
    peers: BTreeMap<String, Peer>,
    /// Bytes of the present row of sending steps.
    unsent: Vec<u8>,
    /// The server's first PING comes after two seconds, which a slow machine may reach: only scripts that configure
    /// PINGs see them.
    shows_pings: bool,
    _config: TempDir,
}

impl Run {
    fn new(text: &str, server: &Path) -> Self {
        let config: String = text
            .lines()
            .filter_map(|l| l.strip_prefix('|'))
            .flat_map(|l| [l, "\n"])
            .collect();
        let shows_pings = config.contains("ping_interval");
        let dir = TempDir::new();
        let path = dir.path().join("server.conf");
        std::fs::write(&path, config).expect("the temporary directory is writable");
        let path = path
            .to_str()
            .expect("paths of the tests are UTF-8")
            .to_owned();
        let node = Start::with(server).args(["-c".to_owned(), path]).start();
        Self {
            node,
            peers: BTreeMap::new(),
            unsent: Vec::new(),
            shows_pings,
            _config: dir,
        }
    }

    fn check(&mut self, scenario: &Scenario<'_>) -> Result<(), String> {
        for (at, line) in scenario.lines.iter().enumerate() {
            let next = scenario.lines.get(at + 1).map(|line| Step::parse(line));
            self.act(&Step::parse(line), next.as_ref())?;
        }
        for (name, peer) in &mut self.peers {
            if !peer.closed {
                match peer.hear(QUIET, self.shows_pings) {
                    Heard::Silence(rest) if rest.is_empty() => {}
                    other => {
                        return Err(format!("{name} should be open and silent, but: {other:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Does a step. What is sent waits for the end of the row of sending steps.
    fn act(&mut self, step: &Step<'_>, next: Option<&Step<'_>>) -> Result<(), String> {
        match *step {
            Step::Open(name, how) => self.open(name, how)?,
            Step::Send(name, ref bytes) => {
                self.unsent.extend_from_slice(bytes);
                if !matches!(next, Some(Step::Send(again, _)) if *again == name) {
                    let bytes = std::mem::take(&mut self.unsent);
                    self.peer(name)?.raw.send(&bytes);
                }
            }
            Step::Hear(name, expected) => self.expect_line(name, expected)?,
            Step::Close(name, reason) => self.expect_close(name, reason)?,
            Step::HalfClose(name) => self.peer(name)?.raw.half_close(),
            Step::HangUp(name) => drop(self.peers.remove(name)),
            Step::Sleep(time) => std::thread::sleep(time),
            Step::Signal(name) => self.node.signal(name),
            Step::Nothing | Step::Title(_) => {}
        }
        Ok(())
    }

    fn open(&mut self, name: &str, how: &str) -> Result<(), String> {
        let mut raw = Raw::connect(self.node.address());
        let Heard::Line(info) = raw.hear(PATIENCE) else {
            return Err(format!("{name}: no INFO"));
        };
        let id = json_of(&info)
            .and_then(|json| json.get("client_id")?.as_u64())
            .unwrap_or(0);
        if how.starts_with('{') {
            raw.send(format!("CONNECT {how}\r\nPING\r\n").as_bytes());
            loop {
                match raw.hear(PATIENCE) {
                    Heard::Line(line) if line == "PONG" => break,
                    Heard::Line(line) if line == "+OK" => {}
                    other => return Err(format!("{name}: CONNECT was answered by {other:?}")),
                }
            }
        }
        if how == "info" {
            // Seen by the next expectation, as if it were still to come.
            raw.unread(&info);
        }
        self.peers.insert(
            name.to_owned(),
            Peer {
                raw,
                id,
                closed: false,
            },
        );
        Ok(())
    }

    fn peer(&mut self, name: &str) -> Result<&mut Peer, String> {
        self.peers
            .get_mut(name)
            .ok_or_else(|| format!("no connection {name}"))
    }

    fn expect_line(&mut self, name: &str, expected: &str) -> Result<(), String> {
        let shows_pings = self.shows_pings;
        match self.peer(name)?.hear(PATIENCE, shows_pings) {
            Heard::Line(line) if stable(&line) == expected => Ok(()),
            Heard::Line(line) => Err(format!(
                "{name}: expected\n  {expected}\nbut\n  {}",
                stable(&line)
            )),
            other => Err(format!("{name}: expected\n  {expected}\nbut\n  {other:?}")),
        }
    }

    fn expect_close(&mut self, name: &str, reason: &str) -> Result<(), String> {
        let shows_pings = self.shows_pings;
        let peer = self.peer(name)?;
        match peer.hear(PATIENCE, shows_pings) {
            Heard::Closed(rest) if rest.is_empty() => peer.closed = true,
            other => return Err(format!("{name}: expected to be closed, but {other:?}")),
        }
        let id = peer.id;
        let found = self.reason(id);
        if found != reason {
            return Err(format!(
                "{name}: expected to be closed for {reason}, but for {found}"
            ));
        }
        Ok(())
    }

    /// Why monitoring says that a connection was closed.
    fn reason(&self, id: u64) -> String {
        let started = Instant::now();
        while started.elapsed() < LISTED_WITHIN {
            let (_, body) = self.node.http_get("/connz?state=closed&limit=10000");
            let json: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
            let all = json.get("connections").and_then(|c| c.as_array());
            let found = all.and_then(|all| {
                all.iter()
                    .find(|c| c.get("cid").and_then(serde_json::Value::as_u64) == Some(id))
            });
            if let Some(reason) = found.and_then(|c| c.get("reason")?.as_str()) {
                return reason.to_owned();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        "(not listed)".to_owned()
    }

    /// Writes down all that the server says until it is quiet.
    fn hear_all(&mut self, out: &mut String) {
        let mut closed = Vec::new();
        for (name, peer) in self.peers.iter_mut().filter(|(_, peer)| !peer.closed) {
            loop {
                match peer.hear(QUIET, self.shows_pings) {
                    Heard::Line(line) => {
                        writeln!(out, "{name}< {}", stable(&line))
                            .expect("a string takes everything");
                    }
                    Heard::Silence(rest) => {
                        assert!(rest.is_empty(), "an unfinished line: {rest}");
                        break;
                    }
                    Heard::Closed(_) => {
                        peer.closed = true;
                        closed.push((name.clone(), peer.id));
                        break;
                    }
                }
            }
        }
        for (name, id) in closed {
            let reason = self.reason(id);
            writeln!(out, "{name}<> {reason}").expect("a string takes everything");
        }
    }
}

/// A line without what differs from run to run and from server to server.
fn stable(line: &str) -> String {
    let Some(serde_json::Value::Object(mut info)) = json_of(line) else {
        return line.to_owned();
    };
    for (key, value) in &mut info {
        let varies = [
            "server_id",
            "server_name",
            "version",
            "go",
            "port",
            "client_id",
        ];
        if varies.contains(&key.as_str()) {
            *value = serde_json::Value::String("...".to_owned());
        }
    }
    for key in ["git_commit", "halyard", "xkey"] {
        info.remove(key);
    }
    let mut fields: Vec<String> = info
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    fields.sort();
    format!("INFO {}", fields.join(" ")).replace("\"...\"", "...")
}

fn json_of(line: &str) -> Option<serde_json::Value> {
    serde_json::from_str(line.strip_prefix("INFO ")?.trim()).ok()
}
