//! What is told to whoever listens: a backup or a restore has begun, or is complete.
//!
//! `$JS.EVENT.ADVISORY.STREAM.{SNAPSHOT,RESTORE}_{CREATE,COMPLETE}.<stream>`, as the peer's.

use std::sync::Arc;

use halyard_runtime::time::Timestamp;
use serde::Serialize;

use crate::broker::Account;
use crate::jetstream::advisory::{self, Client};
use crate::jetstream::api::request::Request;
use crate::jetstream::api::timestamp;
use crate::jetstream::api::types::State;
use crate::jetstream::service::JetStream;

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
    stream: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a Client>,
}

/// Who tells of one backup or restore.
pub(super) struct Teller {
    account: Arc<Account>,
    stream: String,
    domain: Option<String>,
    /// Who has asked for it, as it was then.
    client: Option<Client>,
}

impl Teller {
    /// For a stream of this name, as a client asks.
    pub(super) fn new(service: &JetStream, request: &Request, account: &Arc<Account>) -> Self {
        let find = |id| service.clients().find(id, service.name());
        Self {
            account: Arc::clone(account),
            stream: request
                .tokens()
                .last()
                .copied()
                .unwrap_or_default()
                .to_owned(),
            domain: service.domain().map(str::to_owned),
            client: request.client.and_then(find),
        }
    }

    /// Tells it.
    pub(super) fn tell(&self, news: &News<'_>) {
        let (subject, kind) = match news {
            News::SnapshotCreate(_) => ("SNAPSHOT_CREATE", "snapshot_create"),
            News::SnapshotComplete(_) => ("SNAPSHOT_COMPLETE", "snapshot_complete"),
            News::RestoreCreate => ("RESTORE_CREATE", "restore_create"),
            News::RestoreComplete(..) => ("RESTORE_COMPLETE", "restore_complete"),
        };
        let subject = format!("$JS.EVENT.ADVISORY.STREAM.{subject}.{}", self.stream);
        let kind = format!("advisory.v1.{kind}");
        let domain = self.domain.as_deref();
        advisory::publish(&self.account, domain, &subject, &kind, || self.body(news));
    }

    fn body<'a>(&'a self, news: &News<'a>) -> Body<'a> {
        let mut body = Body {
            stream: &self.stream,
            client: self.client.as_ref(),
            ..Body::default()
        };
        let mut lasted = |start: Timestamp| {
            body.start = Some(timestamp::format(start));
            body.end = Some(timestamp::format(Timestamp::now()));
        };
        match *news {
            News::SnapshotCreate(state) => body.state = Some(state),
            News::SnapshotComplete(start) => lasted(start),
            News::RestoreCreate => {}
            News::RestoreComplete(start, bytes) => {
                lasted(start);
                body.bytes = Some(bytes);
            }
        }
        body
    }
}
