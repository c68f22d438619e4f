//! What is told to whoever listens: a backup or a restore has begun, or is complete.
//!
//! `$JS.EVENT.ADVISORY.STREAM.{SNAPSHOT,RESTORE}_{CREATE,COMPLETE}.<stream>`, as the peer's but for the description of the
//! client, which the server does not have where requests are answered.

use std::sync::Arc;

use halyard_runtime::time::Timestamp;
use serde::Serialize;

use crate::broker::{Account, Publish};
use crate::jetstream::api::timestamp;
use crate::jetstream::api::types::State;

/// What has happened.
#[derive(Debug)]
pub(super) enum News<'a> {
    /// A backup of a stream in this state has begun.
    SnapshotCreate(&'a State),
    /// It is complete; it began then.
    SnapshotComplete(Timestamp),
    /// A restore has begun.
    RestoreCreate,
    /// It is complete: since when, and bytes of the backup.
    RestoreComplete(Timestamp, u64),
}

#[derive(Default, Serialize)]
struct Body<'a> {
    r#type: &'a str,
    id: String,
    timestamp: String,
    stream: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

/// Tells it.
pub(super) fn tell(account: &Arc<Account>, stream: &str, news: &News<'_>) {
    let (subject, kind) = match news {
        News::SnapshotCreate(_) => ("SNAPSHOT_CREATE", "snapshot_create"),
        News::SnapshotComplete(_) => ("SNAPSHOT_COMPLETE", "snapshot_complete"),
        News::RestoreCreate => ("RESTORE_CREATE", "restore_create"),
        News::RestoreComplete(..) => ("RESTORE_COMPLETE", "restore_complete"),
    };
    let subject = format!("$JS.EVENT.ADVISORY.STREAM.{subject}.{stream}");
    if !account.interest(subject.as_bytes()) {
        return;
    }
    let now = timestamp::format(Timestamp::now());
    let kind = format!("io.nats.jetstream.advisory.v1.{kind}");
    let mut body = Body {
        r#type: &kind,
        id: super::random_id(),
        timestamp: now.clone(),
        stream,
        ..Body::default()
    };
    match *news {
        News::SnapshotCreate(state) => body.state = Some(state),
        News::SnapshotComplete(start) => {
            body.start = Some(timestamp::format(start));
            body.end = Some(now);
        }
        News::RestoreCreate => {}
        News::RestoreComplete(start, bytes) => {
            body.start = Some(timestamp::format(start));
            body.end = Some(now);
            body.bytes = Some(bytes);
        }
    }
    let body = serde_json::to_vec(&body).unwrap_or_default();
    account.publish(&Publish::new(subject.as_bytes(), &body));
}
