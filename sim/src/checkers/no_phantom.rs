//! A stream holds nothing that nobody published, nothing twice, and nothing that was refused.

use std::collections::BTreeMap;

use super::{Evidence, Findings, number_of};
use crate::history::Outcome;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for (stream, _, view) in evidence.found() {
        let mut seen = BTreeMap::new();
        for (seq, stored) in &view.messages {
            let number = number_of(&stored.payload);
            let publish = number.and_then(|number| evidence.history.publishes.get(number));
            let (Some(number), Some(publish)) = (number, publish) else {
                findings.add(format!("{seq} of S{stream} holds what nobody published"));
                continue;
            };
            let same = publish.stream == stream
                && publish.payload == stored.payload
                && publish.subject == stored.subject
                && publish.headers == stored.headers;
            if !same {
                findings.add(format!(
                    "{seq} of S{stream} is like publish {number}, but not the same"
                ));
            }
            if let Outcome::Refused(why) = &publish.outcome {
                findings.add(format!(
                    "{seq} of S{stream} holds publish {number}, which was refused: {why}"
                ));
            }
            // Without an id every attempt may be stored, but there is only one attempt.
            if let Some(earlier) = seen.insert(number, *seq) {
                findings.add(format!(
                    "publish {number} is in S{stream} at {earlier} and at {seq}"
                ));
            }
        }
    }
}
