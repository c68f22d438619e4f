//! A restored stream holds what was backed up, to the byte and the nanosecond; a restore that was cut short leaves
//! everything or nothing, and one that never came to its end leaves nothing.

use super::{Evidence, Findings, View};
use crate::history::Fate;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for (name, archive) in &evidence.history.archives {
        let found = evidence.returned.get(name);
        match (archive.fate, &archive.held, found) {
            (Fate::Restored, _, None) => findings.add(format!("{name} was restored and is gone")),
            (Fate::Gone, _, Some(view)) => findings.add(format!(
                "{name} is there with {} messages, and no restore of it came to its end",
                view.messages.len()
            )),
            (Fate::Restored | Fate::AllOrNothing, Some(held), Some(view)) => {
                if let Some(difference) = difference(held, view) {
                    findings.add(format!("{name} after its restore: {difference}"));
                }
            }
            _ => {}
        }
    }
}

fn difference(held: &View, view: &View) -> Option<String> {
    for key in ["messages", "bytes", "first_seq", "last_seq"] {
        let (had, has) = (held.number(key), view.number(key));
        // An empty stream's first sequence is beside the point.
        if had != has && !(key == "first_seq" && held.messages.is_empty()) {
            return Some(format!("{key} {had} became {has}"));
        }
    }
    let seqs = held.messages.keys().chain(view.messages.keys());
    let mut differing = seqs.filter(|seq| held.messages.get(seq) != view.messages.get(seq));
    let seq = differing.next()?;
    let (had, has) = (held.messages.get(seq), view.messages.get(seq));
    Some(format!("message {seq} was {had:?} and is {has:?}"))
}
