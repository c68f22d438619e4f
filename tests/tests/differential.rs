//! Random conversations, half of them nearly right, said to our server and to the real one at the same time: the
//! answers must be the same. Runs where the real server is installed; `SEED` and `CONVERSATIONS` may be set.
//!
//! Left out on purpose, because there we differ: sizes with leading zeros (the real server echoes them as they came),
//! endless blanks and endless PINGs (it has no limit for these), pedantic connections (it complains twice when a
//! message is cut in two by its buffer), lines that end in two carriage returns (what it does depends on the cut).

use std::path::Path;
use std::time::Duration;

use halyard_tests::bystander::configured;
use halyard_tests::node::{Node, Start};
use halyard_tests::raw::{Heard, Raw, shown};
use halyard_tests::tools;

/// Silence after the last PONG, or after anything: what is not said by then is not said.
const QUIET: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(400));

/// A sequence that looks random and is the same for one seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % count
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn in_ten(&mut self, chances: usize) -> bool {
        self.below(10) < chances
    }
}

const VERBS: [&str; 14] = [
    "PUB", "HPUB", "SUB", "UNSUB", "PING", "PONG", "CONNECT", "INFO", "+OK", "-ERR", "pub", "Sub",
    "MSG", "XYZ",
];
const WORDS: [&str; 22] = [
    "foo",
    "bar.x",
    "baz.y.z",
    "in.1",
    "foo.",
    ".",
    ">",
    "*",
    "1",
    "2",
    "7",
    "q",
    "0",
    "3",
    "12",
    "-1",
    "+1",
    "2x",
    "999999999",
    "9999999999",
    "{}",
    "'x'",
];
const SUBJECTS: [&str; 9] = [
    "foo",
    "bar.x",
    "baz.y.z",
    "nobody",
    "in.1",
    "a..b",
    "foo.*",
    "$JS.ACK.x",
    "_R_.x",
];
const FILTERS: [&str; 9] = [
    "foo", "bar.*", "baz.>", "in.*", "foo", "a..b", "a.>.b", "in.1", "*.x",
];
const ENDS: [&str; 7] = ["\r\n", "\r\n", "\r\n", "\r\n", "\n", " \r\n", "\t\r\n"];

/// Something that a client might say.
fn piece(dice: &mut Dice, out: &mut Vec<u8>) {
    let blank = if dice.in_ten(9) {
        " "
    } else {
        dice.one(&["\t", "  ", " \t ", "\r", ""])
    };
    match dice.below(12) {
        0..4 => {
            let (subject, size) = (dice.one(&SUBJECTS), dice.below(30));
            let reply = if dice.in_ten(4) {
                dice.one(&["in.1 ", "foo ", "_R_.x ", "no.where "])
            } else {
                ""
            };
            message(
                dice,
                out,
                &format!("PUB{blank}{subject} {reply}{size}"),
                size,
            );
        }
        4 => {
            let (subject, body) = (dice.one(&SUBJECTS), dice.below(9));
            let reply = if dice.in_ten(4) { "in.1 " } else { "" };
            out.extend_from_slice(
                format!("HPUB{blank}{subject} {reply}12 {}\r\n", 12 + body).as_bytes(),
            );
            out.extend_from_slice(b"NATS/1.0\r\n\r\n");
            out.extend(std::iter::repeat_n(b'h', body));
            out.extend_from_slice(b"\r\n");
        }
        5..7 => {
            // Members of a queue share one sid, so that the lot does not show.
            let queue = if dice.in_ten(2) {
                "crew q"
            } else {
                dice.one(&["1", "2", "3", "x-y"])
            };
            let line = format!(
                "SUB{blank}{} {queue}{}",
                dice.one(&FILTERS),
                dice.one(&ENDS)
            );
            out.extend_from_slice(line.as_bytes());
        }
        7 => {
            let line = format!(
                "UNSUB{blank}{}{}{}",
                dice.one(&["1", "2", "3", "x-y", "q", "9"]),
                dice.one(&["", " 1", " 2", " 0", " x"]),
                dice.one(&ENDS)
            );
            out.extend_from_slice(line.as_bytes());
        }
        8..11 => out.extend_from_slice(b"PING\r\n"),
        _ => wild(dice, out),
    }
}

/// A line and its payload, seldom with a wrong end.
fn message(dice: &mut Dice, out: &mut Vec<u8>, line: &str, size: usize) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(dice.one(&ENDS).as_bytes());
    out.extend((0..size).map(|_| b'a' + dice.below(26) as u8));
    let end: &[u8] = if dice.below(60) > 0 {
        b"\r\n"
    } else {
        [b"\n".as_slice(), b"x\r\n", b"\r"][dice.below(3)]
    };
    out.extend_from_slice(end);
}

/// A line that is most likely wrong.
fn wild(dice: &mut Dice, out: &mut Vec<u8>) {
    match dice.below(12) {
        0 => out.extend_from_slice(
            format!("SUB {} 1\r\n", "a".repeat(4080 + dice.below(40))).as_bytes(),
        ),
        1 => out.extend_from_slice(
            format!(
                "CONNECT {}\r\n",
                dice.one(&[
                    "{}",
                    "{\"echo\":false}",
                    "{\"verbose\":true}",
                    "{x",
                    "null",
                    "{\"protocol\":3}"
                ])
            )
            .as_bytes(),
        ),
        2 => out.extend((0..dice.below(5)).map(|_| dice.below(256) as u8)),
        _ => {
            let mut line = dice.one(&VERBS).to_owned();
            for _ in 0..dice.below(5) {
                line += " ";
                line += dice.one(&WORDS);
            }
            line += dice.one(&ENDS);
            out.extend_from_slice(line.as_bytes());
        }
    }
}

struct Conversation {
    connect: String,
    bytes: Vec<u8>,
    cuts: Vec<usize>,
}

fn conversation(dice: &mut Dice) -> Conversation {
    let mut flag = |chances| dice.in_ten(chances);
    let headers = flag(8);
    let connect = format!(
        r#"{{"verbose":{},"pedantic":false,"echo":{},"headers":{headers},"no_responders":{},"protocol":0}}"#,
        flag(3),
        flag(9),
        headers && flag(7),
    );
    let mut bytes = Vec::new();
    for _ in 0..1 + dice.below(25) {
        piece(dice, &mut bytes);
    }
    bytes.extend_from_slice(b"PING\r\n");
    let mut cuts: Vec<usize> = (0..dice.below(6))
        .map(|_| dice.below(bytes.len()))
        .collect();
    cuts.sort_unstable();
    Conversation {
        connect,
        bytes,
        cuts,
    }
}

/// Says it; what is answered is left for [`answers`].
fn say(node: &Node, said: &Conversation) -> Raw {
    let mut raw = Raw::connect(node.address());
    assert!(raw.line().starts_with("INFO "));
    raw.send(format!("CONNECT {}\r\n", said.connect).as_bytes());
    let mut start = 0;
    for &cut in said.cuts.iter().chain([&said.bytes.len()]) {
        raw.send(&said.bytes[start..cut]);
        start = cut;
    }
    raw
}

/// The answers, the lines between two PONGs in the order of the alphabet: a server may choose the order in which the
/// subscriptions of one connection get a message.
fn answers(raw: &mut Raw) -> String {
    let (mut all, mut between) = (String::new(), Vec::new());
    let mut quiet = QUIET.1;
    loop {
        let heard = raw.hear(quiet);
        let ends = match &heard {
            Heard::Line(line) => {
                between.push(without_choice(line));
                line == "PONG"
            }
            Heard::Silence(_) | Heard::Closed(_) => true,
        };
        quiet = if ends { QUIET.0 } else { QUIET.1 };
        if ends {
            between.sort_unstable();
            for line in between.drain(..) {
                all.push_str(&line);
                all.push('\n');
            }
        }
        match heard {
            Heard::Line(_) => {}
            Heard::Silence(rest) => return all + &rest + "(open)",
            Heard::Closed(rest) => return all + &rest + "(closed)",
        }
    }
}

/// Of several subscriptions that match a reply, the server chooses one to be told that nobody answers.
fn without_choice(line: &str) -> String {
    match *line.split(' ').collect::<Vec<_>>().as_slice() {
        ["HMSG", subject, _, headers, total] if headers == total && headers != "12" => {
            format!("HMSG {subject} * {headers} {total}")
        }
        _ => line.to_owned(),
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

fn start(server: &Path) -> (Node, halyard_tests::node::TempDir) {
    let (start, dir) = configured(Start::with(server), "ping_interval: \"10m\"");
    (start.start(), dir)
}

#[test]
fn random_conversations() {
    let Some(peer) = tools::peer() else { return };
    let (theirs, _their_dir) = start(&peer);
    let (ours, _our_dir) = start(halyard_tests::node::binary());
    let first = setting("SEED", 1);
    let mut differ = Vec::new();
    for seed in first..first + setting("CONVERSATIONS", 400) {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let said = conversation(&mut dice);
        let (mut a, mut b) = (say(&theirs, &said), say(&ours, &said));
        let (expected, found) = (answers(&mut a), answers(&mut b));
        if expected != found {
            differ.push(format!(
                "SEED={seed} CONNECT {}\n{}\n{:?}\n-- the real server:\n{expected}\n-- ours:\n{found}",
                said.connect,
                shown(&said.bytes),
                said.cuts
            ));
        }
    }
    assert!(
        differ.is_empty(),
        "{} differ\n{}",
        differ.len(),
        differ[..differ.len().min(5)].join("\n====\n")
    );
}
