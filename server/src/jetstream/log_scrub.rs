//! Looks after the node's log: verifies what is written, at the stores' pace, and when something is damaged has the log let go
//! of it while everything it held is still in memory.
//!
//! With one node there is no other copy to mend it from, and a start would fail at it: so the groups whose entries are in the
//! log up to there are flushed, and the damaged segment goes as it would have later. Until then a crash would be bad, and
//! that is told.

use std::sync::{Arc, Weak};

use halyard_raft::LogPosition;
use halyard_runtime::task;
use halyard_runtime::time::{self, Duration, Instant};

use super::limits::{LOG_SCRUB_BYTES, SCRUB_INTERVAL};
use super::service::JetStream;
use super::start::{META, flush_meta_now};

/// How often it is looked whether damage has gone.
const LOOK: Duration = Duration::from_millis(500);

/// Verifies until the service is gone.
pub(super) async fn run(service: Weak<JetStream>) {
    let mut scrubbed = Instant::now();
    let mut is_damaged = false;
    loop {
        time::sleep(if is_damaged { LOOK } else { SCRUB_INTERVAL }).await;
        let Some(service) = service.upgrade() else {
            return;
        };
        if scrubbed.elapsed() >= SCRUB_INTERVAL {
            scrubbed = Instant::now();
            scrub(&service).await;
        }
        let position = service.node().and_then(|node| node.log_damaged_before());
        match position {
            Some(position) => let_go(&service, position).await,
            None if is_damaged => {
                tracing::warn!("The damaged part of the log is not needed any more and has gone");
            }
            None => {}
        }
        is_damaged = position.is_some();
    }
}

/// Verifies the next piece.
async fn scrub(service: &Arc<JetStream>) {
    let node = service.clone();
    let scrub = task::spawn_blocking(move || {
        let node = node.node()?;
        Some(node.scrub_log(LOG_SCRUB_BYTES))
    });
    let Ok(Some(scrub)) = scrub.await else {
        return;
    };
    for damage in scrub.found {
        tracing::error!(
            "The log: {damage}. Nothing is lost while this server runs: what it holds is being written to the stores, \
             so that it is not needed; a start before that is done would fail"
        );
    }
}

/// Flushes the groups that need the log before `position`.
async fn let_go(service: &JetStream, position: LogPosition) {
    let Some(node) = service.node() else {
        return;
    };
    let file = &service.file;
    for (group, entry) in node.log_holders(position) {
        if group == META {
            flush_meta_now(service).await;
        } else if group == file.id() {
            // The log may have missed the end of a flush that came with the entry.
            let durable = file.read(|machine| machine.store().applied());
            file.raft().flushed(durable);
            file.orders().flush(entry);
            file.wake();
        }
    }
}
