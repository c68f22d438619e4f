//! A message id is stored once, whatever was sent again; the answer to a repetition names the copy that is stored.
//!
//! The window in which ids are remembered is longer than any run.

use std::collections::BTreeMap;

use super::{Evidence, Findings, number_of};
use crate::history::Outcome;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for contradiction in &evidence.history.contradictions {
        findings.add(contradiction.clone());
    }
    for (stream, _, view) in evidence.found() {
        let mut stored: BTreeMap<&str, u64> = BTreeMap::new();
        for (seq, message) in &view.messages {
            let publish = number_of(&message.payload)
                .and_then(|number| evidence.history.publishes.get(number));
            let Some(id) = publish.and_then(|publish| publish.msg_id.as_deref()) else {
                continue;
            };
            if let Some(earlier) = stored.insert(id, *seq) {
                findings.add(format!("{id} is in S{stream} at {earlier} and at {seq}"));
            }
        }
        for (number, publish) in evidence.publishes(stream) {
            let Some(id) = &publish.msg_id else { continue };
            if !matches!(publish.outcome, Outcome::Done { .. }) {
                continue;
            }
            if publish.duplicate && publish.attempts == 1 {
                findings.add(format!(
                    "publish {number} ({id}) was sent once and called a duplicate"
                ));
            }
            if let Some(seq) = stored.get(id.as_str())
                && *seq != publish.seq
            {
                findings.add(format!(
                    "{id} is at {seq} of S{stream}, but was acknowledged as {}",
                    publish.seq
                ));
            }
        }
    }
}
