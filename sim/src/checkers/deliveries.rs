//! A consumer delivers what the stream holds: the published bytes, and in the end everything.

use std::collections::BTreeSet;

use super::{Evidence, Findings, number_of};

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    let history = &evidence.history;
    for seen in &history.seen {
        let number = number_of(&seen.payload);
        let Some(publish) = number.and_then(|number| history.publishes.get(number)) else {
            findings.add(format!(
                "a consumer was given {} that nobody published",
                seen.seq
            ));
            continue;
        };
        let same = publish.payload == seen.payload
            && publish.subject == seen.subject
            && publish.headers == seen.headers;
        if !same {
            findings.add(format!(
                "a consumer was given {} with other content",
                seen.seq
            ));
        }
        if seen.delivered == 0 {
            findings.add(format!("a consumer was given {} for the 0. time", seen.seq));
        }
    }
    for consumer in &evidence.missing_consumers {
        findings.add(format!(
            "the consumer {} is gone",
            evidence.options.consumers[*consumer].name
        ));
    }
    for (index, plan) in evidence.options.consumers.iter().enumerate() {
        let Some(Some(view)) = evidence.views.get(plan.stream) else {
            continue;
        };
        let given: BTreeSet<u64> = history
            .seen
            .iter()
            .filter(|seen| seen.consumer == index)
            .map(|seen| seen.seq)
            .collect();
        if let Some(seq) = view.messages.keys().find(|seq| !given.contains(seq)) {
            findings.add(format!(
                "{seq} was never given to {}, which was drained",
                plan.name
            ));
        }
    }
}
