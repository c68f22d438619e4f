//! What STREAM.INFO says of a stream agrees with what can be read from it.

use super::{Evidence, Findings};

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for (stream, _, view) in evidence.found() {
        let count = view.messages.len() as u64;
        let mut compare = |key: &str, found: u64| {
            let told = view.number(key);
            if told != found {
                findings.add(format!("S{stream} says {key} = {told}, but it is {found}"));
            }
        };
        compare("messages", count);
        if let Some((first, last)) = view
            .messages
            .keys()
            .next()
            .zip(view.messages.keys().next_back())
        {
            compare("first_seq", *first);
            if view.number("num_deleted") == u64::MAX {
                compare("last_seq", *last);
            }
        }
    }
}
