//! Nothing of a message that was deleted or purged, and nothing of a deleted stream, is anywhere on the disk once the bound
//! has passed: not in its files, not under them, not in space that was freed.
//!
//! Only what surely came before its removal counts: a message that was sent once and acknowledged. What was sent again may
//! have reached the log after it. And what was deleted before without being erased is no business of a later purge.

use super::{Evidence, Findings};
use crate::history::Outcome;
use crate::options::StreamKind;
use crate::workloads::publish::{HEADER, ID, PASSING, PAYLOAD, SUBJECT};

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    let history = &evidence.history;
    let mut erased = 0;
    for (number, publish) in history.publishes.iter().enumerate() {
        let kind = evidence.options.streams.get(publish.stream);
        let is_purged = kind.is_some_and(|plan| plan.kind == StreamKind::Purged);
        if !is_purged || publish.attempts != 1 || !matches!(publish.outcome, Outcome::Done { .. }) {
            continue;
        }
        let removals = history.removals.iter();
        let mut removals = removals.filter(|removal| {
            let refused = matches!(removal.outcome, Outcome::Refused(_));
            removal.stream == publish.stream && !refused && removal.target.covers(publish.seq)
        });
        // The first that happened decides; one without an answer may have been that.
        let is_erased = removals
            .clone()
            .any(|removal| matches!(removal.outcome, Outcome::Done { .. }))
            && removals.all(|removal| removal.erase);
        if !is_erased {
            continue;
        }
        erased += 1;
        for part in [PAYLOAD, HEADER, ID, SUBJECT] {
            if let Some(place) = evidence.canaries.get(&(part, number as u64)) {
                findings.add(format!(
                    "publish {number}, which was {} of S{} and was erased: its part {part} is at {place}",
                    publish.seq, publish.stream
                ));
            }
        }
    }
    for number in &history.passed {
        erased += 1;
        if let Some(place) = evidence.canaries.get(&(PASSING, *number)) {
            findings.add(format!(
                "message {number} of a deleted stream is at {place}"
            ));
        }
    }
    halyard_runtime::event!("{erased} messages were erased");
}
