//! A stream that keeps so many messages holds no more, and they are the newest without a gap.

use super::{Evidence, Findings};
use crate::options::StreamKind;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for (stream, kind, view) in evidence.found() {
        let StreamKind::Limited(limit) = kind else {
            continue;
        };
        let count = view.messages.len() as u64;
        let last = view.number("last_seq");
        if count > limit {
            findings.add(format!(
                "S{stream} holds {count} messages, its limit is {limit}"
            ));
        }
        let expected = limit.min(last);
        if count < expected {
            findings.add(format!(
                "S{stream} holds {count} messages of {last}, its limit is {limit}"
            ));
        }
        if let Some(first) = view.messages.keys().next()
            && last - first + 1 != count
        {
            findings.add(format!(
                "S{stream} holds {count} messages from {first} to {last}"
            ));
        }
    }
}
