//! One run from outside: options in, report out.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use halyard_runtime::sim;

use crate::checkers::{Broken, Evidence};
use crate::director;
use crate::history::{Archive, Fate, Outcome};
use crate::options::Options;

/// The longest that a run may take in simulated time.
const LIMIT: Duration = Duration::from_secs(3600);

/// How much happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Faults that were injected.
    pub faults: u64,
    /// How often the server was started.
    pub boots: u64,
    /// Publishes that were acknowledged.
    pub acknowledged: u64,
    /// Publishes that were never answered.
    pub unknown: u64,
    /// Publishes that were refused.
    pub refused: u64,
    /// Publishes whose acknowledgement said that they were there before.
    pub duplicates: u64,
    /// Messages that consumers were given.
    pub delivered: u64,
    /// Acknowledgements that were confirmed.
    pub confirmed: u64,
    /// Deletes and purges that were answered.
    pub removals: u64,
    /// Restores that were answered.
    pub restores: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, evidence: &Evidence) {
        let history = &evidence.history;
        for publish in &history.publishes {
            match publish.outcome {
                Outcome::Done { .. } => self.acknowledged += 1,
                Outcome::Unknown => self.unknown += 1,
                Outcome::Refused(_) => self.refused += 1,
            }
            self.duplicates += u64::from(publish.duplicate);
        }
        self.delivered = history.seen.len() as u64;
        self.confirmed = history
            .acked
            .iter()
            .filter(|acked| acked.confirmed.is_some())
            .count() as u64;
        let done = |outcome: &Outcome| matches!(outcome, Outcome::Done { .. });
        self.removals = history
            .removals
            .iter()
            .filter(|removal| done(&removal.outcome))
            .count() as u64;
        let restored = |archive: &&Archive| archive.fate == Fate::Restored;
        self.restores = history.archives.values().filter(restored).count() as u64;
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// What was run.
    pub options: Options,
    /// Every promise that was not kept; empty when all is well.
    pub broken: Vec<Broken>,
    /// Everything that happened, in order.
    pub trace: Vec<String>,
    /// A checksum of the trace.
    pub trace_hash: u64,
    /// How much happened.
    pub tally: Tally,
    /// Simulated time that passed.
    pub elapsed: Duration,
}

impl Report {
    /// True when no promise was broken.
    pub fn is_good(&self) -> bool {
        self.broken.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_good() { "good" } else { "BROKEN" };
        write!(
            f,
            "seed {}: {verdict}, trace {:016x} of {} lines, {:.1} s simulated, {:?}",
            self.options.seed,
            self.trace_hash,
            self.trace.len(),
            self.elapsed.as_secs_f64(),
            self.tally
        )?;
        for broken in &self.broken {
            write!(f, "\n  {}: {}", broken.promise, broken.text)?;
        }
        Ok(())
    }
}

/// Plays one run.
pub fn run(options: Options) -> Report {
    let played = options.clone();
    let outcome = sim::run(options.seed, LIMIT, move || {
        if let Some(plant) = played.plant {
            sim::plant(plant.name());
        }
        director::play(played)
    });
    let trace_hash = outcome.trace_hash();
    let (broken, tally) = match outcome.result {
        Ok(result) => result,
        Err(text) => {
            let broken = Broken {
                promise: "no_panic",
                text,
            };
            (vec![broken], Tally::default())
        }
    };
    Report {
        options,
        broken,
        trace: outcome.trace,
        trace_hash,
        tally,
        elapsed: outcome.elapsed,
    }
}

/// Plays one run twice. When the traces differ, that is one more broken promise.
pub fn run_twice(options: Options) -> Report {
    let mut first = run(options.clone());
    let second = run(options);
    if first.trace != second.trace {
        let pairs = first.trace.iter().zip(&second.trace);
        let same = pairs.take_while(|(one, other)| one == other).count();
        let line = |trace: &[String]| trace.get(same).cloned().unwrap_or_default();
        let text = format!(
            "two runs differ from line {same} on:\n    {}\n    {}",
            line(&first.trace),
            line(&second.trace)
        );
        first.broken.push(Broken {
            promise: "same_seed_same_trace",
            text,
        });
    }
    first
}

/// Plays the clients' part against a server that runs for real, without any faults, and judges it: checks the checkers.
pub async fn against(options: Options, address: SocketAddr) -> Vec<Broken> {
    director::against(options, address).await
}
