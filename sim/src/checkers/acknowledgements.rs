//! A confirmed acknowledgement is final: that message is never delivered to that consumer again.
//!
//! A delivery that had left the server before may still arrive over another connection, so a later delivery counts when
//! its connection is the one that carried the confirmation or a newer one.

use std::collections::BTreeMap;

use super::{Evidence, Findings};

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    // By consumer and sequence: when it was first confirmed, and over which connection.
    let mut confirmed: BTreeMap<(usize, u64), (u64, u64)> = BTreeMap::new();
    for acked in &evidence.history.acked {
        if let Some(order) = acked.confirmed {
            let first = confirmed
                .entry((acked.consumer, acked.seq))
                .or_insert((order, acked.connection));
            *first = (*first).min((order, acked.connection));
        }
    }
    for seen in &evidence.history.seen {
        if let Some((order, connection)) = confirmed.get(&(seen.consumer, seen.seq))
            && seen.order > *order
            && seen.connection >= *connection
        {
            findings.add(format!(
                "consumer C{} was given {} again after its acknowledgement was confirmed",
                evidence.options.consumers[seen.consumer].stream, seen.seq
            ));
        }
    }
}
