//! An acknowledged publish is in its stream, at the acknowledged sequence, with the same subject, headers and bytes,
//! unless something that may have happened has removed it.

use super::{Evidence, Findings};
use crate::history::Outcome;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for (stream, kind, view) in evidence.found() {
        let (first, last) = (view.number("first_seq"), view.number("last_seq"));
        for (number, publish) in evidence.publishes(stream) {
            if !matches!(publish.outcome, Outcome::Done { .. }) {
                continue;
            }
            let seq = publish.seq;
            let Some(stored) = view.messages.get(&seq) else {
                if !evidence.may_be_gone(stream, kind, view, seq) {
                    let part = match seq {
                        seq if seq < first => "before the first",
                        seq if seq > last => "past the last",
                        _ => "in the middle",
                    };
                    findings.add(format!(
                        "publish {number} was acknowledged as {seq} of S{stream} and is not there ({part}; it holds {first} to {last})"
                    ));
                }
                continue;
            };
            if stored.payload != publish.payload {
                findings.add(format!(
                    "publish {number} at {seq} of S{stream} has other bytes"
                ));
            } else if stored.subject != publish.subject {
                findings.add(format!(
                    "publish {number} at {seq} of S{stream} has subject {}",
                    stored.subject
                ));
            } else if stored.headers != publish.headers {
                findings.add(format!(
                    "publish {number} at {seq} of S{stream} has other headers"
                ));
            }
        }
    }
    for (plan, _) in evidence
        .options
        .streams
        .iter()
        .zip(&evidence.views)
        .filter(|(_, view)| view.is_none())
    {
        findings.add(format!("the stream {} is gone", plan.name));
    }
}
