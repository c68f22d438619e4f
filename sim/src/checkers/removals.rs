//! What an answered delete or purge removed stays removed, also after a restart.

use super::{Evidence, Findings};
use crate::history::Outcome;

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for (stream, _, view) in evidence.found() {
        for removal in &evidence.history.removals {
            if removal.stream != stream || !matches!(removal.outcome, Outcome::Done { .. }) {
                continue;
            }
            if let Some(seq) = view
                .messages
                .keys()
                .find(|seq| removal.target.covers(**seq))
            {
                findings.add(format!(
                    "{seq} of S{stream} is there after {:?} was removed",
                    removal.target
                ));
            }
        }
    }
}
