//! `/ipqueuesz`: what waits inside the server.

use std::collections::BTreeMap;

use serde::Serialize;

use super::state::{Answer, State, json};

#[derive(Serialize)]
struct Queue {
    /// Bytes of commands that wait to become entries of the group's log.
    pending: usize,
    in_progress: usize,
}

/// The queues that are not empty, by name.
pub(super) fn answer(state: &State) -> Answer {
    let groups = state
        .jetstream()
        .into_iter()
        .flat_map(|jetstream| jetstream.groups());
    let queues: BTreeMap<String, Queue> = groups
        .map(|group| {
            let pending = group.inbox().waiting();
            let queue = Queue {
                pending,
                in_progress: 0,
            };
            (format!("JetStream proposals ({})", group.name()), queue)
        })
        .filter(|(_, queue)| queue.pending > 0)
        .collect();
    json(&queues)
}
