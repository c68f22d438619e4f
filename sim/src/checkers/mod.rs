//! The promises, one in each file, each checked against everything that clients saw and what is left in the end.
//!
//! | promise | file |
//! |---|---|
//! | An acknowledged publish is in its stream, at the acknowledged sequence, with the same subject, headers and bytes | `acked_publishes` |
//! | A stream holds nothing that nobody published, nothing twice, and nothing that was refused | `no_phantom` |
//! | Sequences are unique, without gaps, and follow real time and each connection's order | `sequences` |
//! | A message id is stored once, whatever was sent again | `message_ids` |
//! | What was deleted or purged stays so; what nobody removed is there | `removals` |
//! | A limit on messages holds, and keeps the newest | `limits` |
//! | A message ends when its age or its own life span says, not before; its subject's marker takes its place | `lives` |
//! | A confirmed acknowledgement is final: that message is never delivered again | `acknowledgements` |
//! | A consumer delivers what the stream holds, and in the end everything | `deliveries` |
//! | Streams that were made exist, streams that were deleted do not | `existence` |
//! | With a key, no payload is anywhere on the disk: no file, no freed space, nothing that a crash left | `encryption` |
//! | What was deleted, purged or in a deleted stream is nowhere on the disk, freed space included, after the bound | `erasure` |
//! | A restored stream holds what was backed up; a restore that was cut short leaves all or nothing | `restores` |
//! | The server's own account of a stream agrees with what it holds | `accounts` |
//!
//! The director adds two that need no evidence: the server starts again after every fault that a single copy can survive,
//! and once faults are over it serves within a bounded time.

mod accounts;
mod acked_publishes;
mod acknowledgements;
mod deliveries;
mod encryption;
mod erasure;
mod existence;
mod limits;
mod lives;
mod message_ids;
mod no_phantom;
mod removals;
mod restores;
mod sequences;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::history::{History, Outcome, Publish};
use crate::js::Stored;
use crate::options::{Options, StreamKind};

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which one: the name of the checker's file.
    pub promise: &'static str,
    /// What happened instead.
    pub text: String,
}

/// A stream as it was found in the end.
#[derive(Debug)]
pub(crate) struct View {
    /// The `state` of STREAM.INFO.
    pub(crate) state: Value,
    pub(crate) messages: BTreeMap<u64, Stored>,
}

impl View {
    pub(crate) fn number(&self, key: &str) -> u64 {
        self.state
            .get(key)
            .and_then(Value::as_u64)
            .unwrap_or(u64::MAX)
    }
}

/// A stream whose messages end by themselves, as it was found in the end.
#[derive(Debug)]
pub(crate) struct MortalView {
    /// The server's time a while before it was read.
    pub(crate) before: i64,
    /// The server's time just before it was read. A marker that was stored later may be behind what was read.
    pub(crate) begun: i64,
    /// The server's time afterwards.
    pub(crate) after: i64,
    /// Lives from this number on came too late to be seen.
    pub(crate) first_unseen: usize,
    pub(crate) messages: BTreeMap<u64, Stored>,
}

/// What the checkers judge by.
#[derive(Debug)]
pub(crate) struct Evidence {
    pub(crate) options: Options,
    pub(crate) history: History,
    /// As [`Options::streams`]; `None` when the stream was not found.
    pub(crate) views: Vec<Option<View>>,
    /// As [`Options::mortals`]; `None` when the stream was not found.
    pub(crate) mortals: Vec<Option<MortalView>>,
    /// The streams of [`History::archives`] that were found.
    pub(crate) returned: BTreeMap<String, View>,
    /// Every stream that exists.
    pub(crate) streams: BTreeSet<String>,
    /// Consumers that do not exist, by index into [`Options::consumers`].
    pub(crate) missing_consumers: Vec<usize>,
    /// Payloads that were found on the disk, where there should be none.
    pub(crate) plaintext: Vec<String>,
    /// A place of every canary that is on the disk, by part and number (see [`crate::workloads::publish::canary`]).
    pub(crate) canaries: BTreeMap<(char, u64), String>,
}

/// Collects what a checker finds; a few examples say as much as thousands.
pub(crate) struct Findings {
    promise: &'static str,
    found: Vec<Broken>,
    more: usize,
}

/// How many findings of one kind are spelled out.
const EXAMPLES_MAX: usize = 5;

impl Findings {
    fn new(promise: &'static str) -> Self {
        Self {
            promise,
            found: Vec::new(),
            more: 0,
        }
    }

    pub(crate) fn add(&mut self, text: String) {
        if self.found.len() < EXAMPLES_MAX {
            self.found.push(Broken {
                promise: self.promise,
                text,
            });
        } else {
            self.more += 1;
        }
    }

    fn finish(mut self) -> Vec<Broken> {
        if self.more > 0 {
            let text = format!("and {} more", self.more);
            self.found.push(Broken {
                promise: self.promise,
                text,
            });
        }
        self.found
    }
}

type Checker = fn(&Evidence, &mut Findings);

const CHECKERS: [(&str, Checker); 14] = [
    ("acked_publishes", acked_publishes::check),
    ("no_phantom", no_phantom::check),
    ("sequences", sequences::check),
    ("message_ids", message_ids::check),
    ("removals", removals::check),
    ("limits", limits::check),
    ("lives", lives::check),
    ("acknowledgements", acknowledgements::check),
    ("deliveries", deliveries::check),
    ("existence", existence::check),
    ("encryption", encryption::check),
    ("erasure", erasure::check),
    ("restores", restores::check),
    ("accounts", accounts::check),
];

/// Every broken promise.
pub(crate) fn check(evidence: &Evidence) -> Vec<Broken> {
    let run = |(promise, checker): (&'static str, Checker)| {
        let mut findings = Findings::new(promise);
        checker(evidence, &mut findings);
        findings.finish()
    };
    CHECKERS.into_iter().flat_map(run).collect()
}

impl Evidence {
    /// The streams that were found: index, kind, view.
    fn found(&self) -> impl Iterator<Item = (usize, StreamKind, &View)> {
        let plans = self.options.streams.iter().zip(&self.views).enumerate();
        plans.filter_map(|(index, (plan, view))| Some((index, plan.kind, view.as_ref()?)))
    }

    /// The publishes to a stream with their numbers.
    fn publishes(&self, stream: usize) -> impl Iterator<Item = (usize, &Publish)> {
        let all = self.history.publishes.iter().enumerate();
        all.filter(move |(_, publish)| publish.stream == stream)
    }

    /// Whether something that may have happened allows this sequence to be gone.
    fn may_be_gone(&self, stream: usize, kind: StreamKind, view: &View, seq: u64) -> bool {
        match kind {
            StreamKind::Plain => false,
            StreamKind::Limited(messages) => {
                seq.saturating_add(messages) <= view.number("last_seq")
            }
            StreamKind::Purged => self.history.removals.iter().any(|removal| {
                let refused = matches!(removal.outcome, Outcome::Refused(_));
                removal.stream == stream && !refused && removal.target.covers(seq)
            }),
            StreamKind::WorkQueue => self.history.acked.iter().any(|acked| {
                let plan = self.options.consumers.get(acked.consumer);
                acked.seq == seq && plan.is_some_and(|plan| plan.stream == stream)
            }),
        }
    }
}

/// The number that a publisher wrote into a payload.
fn number_of(payload: &[u8]) -> Option<usize> {
    let end = payload.iter().position(|byte| *byte == b'|')?;
    std::str::from_utf8(payload.get(..end)?).ok()?.parse().ok()
}
