//! Sequences are unique, start at 1 without gaps, and follow real time: what was acknowledged before another publish
//! began has the smaller sequence; what one connection sent first has the smaller sequence.

use std::collections::BTreeMap;

use super::{Evidence, Findings};
use crate::history::Outcome;
use crate::options::StreamKind;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for (stream, kind, view) in evidence.found() {
        unique(evidence, stream, findings);
        real_time(evidence, stream, findings);
        connection_order(evidence, stream, findings);
        if kind == StreamKind::Plain {
            let expected: Vec<u64> = (1..=view.messages.len() as u64).collect();
            if !view.messages.keys().eq(expected.iter()) {
                findings.add(format!(
                    "S{stream} has gaps: {:?}",
                    gaps(view.messages.keys())
                ));
            }
        }
    }
}

fn gaps<'a>(seqs: impl Iterator<Item = &'a u64>) -> Vec<u64> {
    let mut next = 1;
    let mut missing = Vec::new();
    for seq in seqs {
        missing.extend((next..*seq).take(5));
        next = seq + 1;
    }
    missing
}

fn unique(evidence: &Evidence, stream: usize, findings: &mut Findings) {
    let mut taken = BTreeMap::new();
    for (number, publish) in evidence.publishes(stream) {
        if !matches!(publish.outcome, Outcome::Done { .. }) {
            continue;
        }
        if let Some(other) = taken.insert(publish.seq, number) {
            findings.add(format!(
                "publishes {other} and {number} were both acknowledged as {} of S{stream}",
                publish.seq
            ));
        }
    }
}

fn real_time(evidence: &Evidence, stream: usize, findings: &mut Findings) {
    // Publishes in the order in which they began; acknowledgements in the order in which they came.
    let mut begun: Vec<(u64, u64, usize)> = Vec::new();
    let mut acknowledged: Vec<(u64, u64)> = Vec::new();
    for (number, publish) in evidence.publishes(stream) {
        if let Outcome::Done { order } = publish.outcome {
            begun.push((publish.invoked, publish.seq, number));
            acknowledged.push((order, publish.seq));
        }
    }
    begun.sort_unstable();
    acknowledged.sort_unstable();
    let mut earlier = acknowledged.into_iter().peekable();
    let mut largest = 0;
    for (invoked, seq, number) in begun {
        while let Some((_, acked)) = earlier.next_if(|(order, _)| *order < invoked) {
            largest = largest.max(acked);
        }
        if seq <= largest {
            findings.add(format!(
                "publish {number} got {seq} of S{stream} although {largest} had been acknowledged before it began"
            ));
        }
    }
}

fn connection_order(evidence: &Evidence, stream: usize, findings: &mut Findings) {
    let mut last: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
    for (number, publish) in evidence.publishes(stream) {
        // What was sent more than once may have been stored by a later attempt.
        if publish.attempts > 1 || !matches!(publish.outcome, Outcome::Done { .. }) {
            continue;
        }
        if let Some((seq, other)) = last.insert(publish.connection, (publish.seq, number))
            && seq > publish.seq
        {
            findings.add(format!(
                "one connection sent publish {other} before {number}, but they got {seq} and {} of S{stream}",
                publish.seq
            ));
        }
    }
}
