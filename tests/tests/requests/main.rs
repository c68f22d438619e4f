//! A generated family of JetStream requests, played to our server and to the real one: the answers must be the same but for
//! the short table of [`accepted`] differences. `SEED` and `CASES` may be set; `SHOW=n` prints so many differences.
//!
//! Every case lives on a stream of its own (or only looks at one), so a few hundred are under way at once, over one
//! connection to each server. Sent are values at and beyond every bound, of wrong types and misspelt, with mixed fields,
//! strict and pedantic.

#![allow(clippy::panic, reason = "a helper of a test fails the test")]

mod accepted;
mod cases;
mod compare;
mod dice;
mod values;
mod wire;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cases::{Case, Step};
use dice::Dice;
use halyard_tests::node::{Node, Start, TempDir, binary};
use halyard_tests::tools;
use wire::Wire;

/// Cases under way at once.
const WAVE: usize = 1024;
/// Silence after the last answer, and while answers are missing.
const QUIET: (Duration, Duration) = (Duration::from_millis(40), Duration::from_millis(500));

fn setting(name: &str, otherwise: usize) -> usize {
    let set = std::env::var(name).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Subscriptions of one case: one for the answers to each step, the last for what is pushed.
const SIDS: usize = 32;

/// Appends a step: its inbox, then the message.
fn send(out: &mut Vec<u8>, step: &Step, sid: usize) {
    let reply = if step.asks {
        out.extend_from_slice(format!("SUB _I.{sid} {sid}\r\n").as_bytes());
        format!(" _I.{sid}")
    } else {
        String::new()
    };
    let (headers, body) = (step.headers.as_bytes(), &step.body);
    let line = if headers.is_empty() {
        format!("PUB {}{reply} {}\r\n", step.subject, body.len())
    } else {
        format!(
            "HPUB {}{reply} {} {}\r\n",
            step.subject,
            headers.len(),
            headers.len() + body.len()
        )
    };
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(headers);
    out.extend_from_slice(body);
    out.extend_from_slice(b"\r\n");
}

/// A step whose subject cannot be said on the wire, or is no subject to publish to, is not sent.
fn can_be_sent(step: &Step) -> bool {
    let literal = |token: &str| !token.is_empty() && !token.contains([' ', '\t', '*', '>']);
    step.subject.split('.').all(literal)
}

/// Plays all cases at once, step by step; what differs.
fn play(servers: &mut [Wire; 2], cases: &[Case], seen: &mut Seen) {
    let mut apart = vec![false; cases.len()];
    let rounds = cases.iter().map(|case| case.steps.len()).max().unwrap_or(0);
    assert!(rounds < SIDS, "each step has its own subscription");
    let first = seen.sids;
    seen.sids += cases.len() * SIDS;
    for round in 0..rounds {
        let (mut out, mut wanted) = (Vec::new(), Vec::new());
        for (at, case) in cases.iter().enumerate() {
            let sid = first + at * SIDS + round;
            if let Some(to) = case.listens.as_ref().filter(|_| round == 0) {
                let pushed = first + at * SIDS + SIDS - 1;
                out.extend_from_slice(format!("SUB {to} {pushed}\r\n").as_bytes());
            }
            let Some(step) = case.steps.get(round).filter(|step| can_be_sent(step)) else {
                continue;
            };
            send(&mut out, step, sid);
            if step.asks {
                wanted.push(sid);
            }
            seen.requests += 1;
        }
        servers.iter_mut().for_each(|server| server.send(&out));
        let answers = servers
            .each_mut()
            .map(|server| server.gather(&wanted, QUIET.0, QUIET.1));
        for (at, case) in cases.iter().enumerate() {
            // What follows on a difference differs, too.
            let Some(step) = case.steps.get(round).filter(|_| !apart[at]) else {
                continue;
            };
            let base = first + at * SIDS;
            let [expected, found] = answers.each_ref().map(|answers| {
                let own = answers.range(base..base + SIDS);
                let own: Vec<_> = own.map(|(sid, all)| (sid - base, all.as_slice())).collect();
                compare::shown(&own, round)
            });
            if expected == found {
                continue;
            }
            match accepted::reason(&compare::Differing {
                step,
                earlier: &case.steps[..round],
                expected: &expected,
                found: &found,
            }) {
                Some(why) => *seen.accepted.entry(why).or_default() += 1,
                None => seen.differ.push(tell(case, round, &expected, &found)),
            }
            apart[at] = !case.looks;
        }
    }
    let mut out = Vec::new();
    for sid in first..seen.sids {
        out.extend_from_slice(format!("UNSUB {sid}\r\n").as_bytes());
    }
    servers.iter_mut().for_each(|server| server.send(&out));
}

/// What was asked, up to where the answers differ.
fn tell(case: &Case, round: usize, expected: &str, found: &str) -> String {
    let mut text = String::new();
    for step in &case.steps[..=round] {
        let body = String::from_utf8_lossy(&step.body);
        let body: String = body.chars().take(600).collect();
        text += &format!("{} {:?} <- {body}\n", step.subject, step.headers);
    }
    format!("{text}-- the real server:\n{expected}\n-- ours:\n{found}")
}

#[derive(Default)]
struct Seen {
    requests: usize,
    /// Subscriptions so far.
    sids: usize,
    accepted: BTreeMap<&'static str, usize>,
    differ: Vec<String>,
}

fn start(server: &std::path::Path) -> (Node, TempDir) {
    let dir = TempDir::new();
    let start = Start::with(server).jetstream(dir.path());
    (start.args(["-n", "S"]).start(), dir)
}

#[test]
fn requests_are_answered_as_by_the_real_server() {
    let Some(peer) = tools::peer() else {
        println!("skipped: 1 test needs nats-server, which is not installed");
        return;
    };
    let began = Instant::now();
    let (theirs, _their_dir) = start(&peer);
    let (ours, _our_dir) = start(binary());
    let mut servers = [
        Wire::connect(theirs.address()),
        Wire::connect(ours.address()),
    ];
    let mut dice = Dice::new(setting("SEED", 1) as u64);
    let mut seen = Seen::default();
    play(&mut servers, &[cases::stage()], &mut seen);
    let count = setting("CASES", 1200);
    let mut all: Vec<Case> = (0..count / 3).map(|_| cases::looking(&mut dice)).collect();
    play(&mut servers, &all, &mut seen);
    all.clear();
    for number in 0..count - count / 3 {
        all.push(match number % 8 {
            0 | 4 => cases::stream(number, &mut dice),
            1 | 5 => cases::consumer(number, &mut dice),
            2 => cases::publishing(number, &mut dice),
            3 => cases::pulling(number, &mut dice),
            6 => cases::acking(number, &mut dice),
            _ if number % 16 == 7 => cases::batching(number, &mut dice),
            _ => cases::pushing(number, &mut dice),
        });
    }
    for wave in all.chunks(WAVE) {
        play(&mut servers, wave, &mut seen);
    }
    println!(
        "{count} cases, {} requests in {:?}; accepted differences: {:#?}",
        seen.requests,
        began.elapsed(),
        seen.accepted
    );
    assert!(
        seen.differ.is_empty(),
        "{} answers differ\n{}",
        seen.differ.len(),
        seen.differ[..seen.differ.len().min(setting("SHOW", 5))].join("\n====\n")
    );
}
