//! A confirmed acknowledgement is final: that message is never delivered to that consumer again.
//!
//! "Again" is the server's order: the delivery follows the confirmation on one connection, or comes over a connection that
//! was opened after it. A client reads late; what was on its way before does not count.

use std::collections::BTreeMap;

use super::{Evidence, Findings};

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    // By consumer and sequence: the first confirmation, as (connection, place in it).
    let mut confirmed: BTreeMap<(usize, u64), (u64, u64)> = BTreeMap::new();
    for acked in &evidence.history.acked {
        if let Some(arrived) = acked.confirmed {
            let place = (acked.connection, arrived);
            let first = confirmed
                .entry((acked.consumer, acked.seq))
                .or_insert(place);
            *first = (*first).min(place);
        }
    }
    for seen in &evidence.history.seen {
        let place = (seen.connection, seen.arrived);
        if confirmed
            .get(&(seen.consumer, seen.seq))
            .is_some_and(|first| *first < place)
        {
            findings.add(format!(
                "consumer {} was given {} again after its acknowledgement was confirmed",
                evidence.options.consumers[seen.consumer].name, seen.seq
            ));
        }
    }
}
