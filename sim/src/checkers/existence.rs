//! Streams that were made exist, streams that were deleted do not, and no other stream appears.

use super::{Evidence, Findings};

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for (name, existence) in &evidence.history.existence {
        if existence.unknown || existence.abandoned {
            continue;
        }
        let there = evidence.streams.contains(name);
        match existence.exists {
            Some(true) if !there => findings.add(format!("{name} was made and is gone")),
            Some(false) if there => findings.add(format!("{name} was deleted and is back")),
            _ => {}
        }
    }
    for name in &evidence.streams {
        let planned = evidence
            .options
            .streams
            .iter()
            .any(|plan| plan.name == *name)
            || evidence
                .options
                .mortals
                .iter()
                .any(|plan| plan.name == *name);
        let history = &evidence.history;
        let made = history.existence.contains_key(name) || history.archives.contains_key(name);
        if !planned && !made {
            findings.add(format!("nobody made the stream {name}"));
        }
    }
}
