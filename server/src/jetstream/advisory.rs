//! What is told to whoever listens on `$JS.EVENT.ADVISORY.>`: every request of the API with its answer, streams made, changed
//! and deleted, consumers paused, atomic batches given up, requests dropped, space that has run out.
//!
//! An advisory is built only when somebody listens, and once. Those about backups are in `backup::advisory`, those about
//! deliveries in `consumer::leader`.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock, Weak};

use halyard_runtime::time::Timestamp;
use serde::Serialize;

use super::api::timestamp::{self, Moment};
use super::consumer::effect::Abandoned;
use super::service::JetStream;
use crate::broker::{Account, ClientId, Publish};
use crate::conn::Front;
use crate::jetstream::plain;

/// What has happened to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamAction {
    /// It was made.
    Create,
    /// Its configuration was changed.
    Modify,
    /// It was deleted.
    Delete,
}

/// Who the clients are, for advisories that name one; known once connections are taken.
#[derive(Default)]
pub struct Clients(OnceLock<Weak<Front>>);

impl Clients {
    /// From now on they are known.
    pub fn know(&self, front: &Arc<Front>) {
        // A second front would be a second server's.
        let _ = self.0.set(Arc::downgrade(front));
    }

    /// The id of the server that they are connected to; empty as long as it takes none.
    fn server_id(&self) -> String {
        let front = self.0.get().and_then(Weak::upgrade);
        front.map_or_else(String::new, |front| front.info().server_id)
    }

    pub(super) fn find(&self, id: ClientId, server: &str) -> Option<Client> {
        let front = self.0.get()?.upgrade()?;
        let found = front.registry.find(id)?;
        Some(Client {
            start: timestamp::format(found.start),
            host: found.peer.ip,
            id: id.0,
            acc: found.names.account,
            user: found.names.user,
            name: found.names.name,
            lang: found.names.lang,
            ver: found.names.version,
            rtt: found
                .rtt
                .map(|rtt| u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX)),
            server: server.to_owned(),
            kind: "Client",
            client_type: "nats",
        })
    }
}

/// A connection as advisories show it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Client {
    start: String,
    host: String,
    id: u64,
    acc: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    lang: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ver: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt: Option<u64>,
    server: String,
    kind: &'static str,
    client_type: &'static str,
}

/// What all advisories begin with, then what is special to one, then the domain.
#[derive(Serialize)]
struct Advisory<'a, T> {
    r#type: String,
    id: String,
    timestamp: String,
    #[serde(flatten)]
    body: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
}

#[derive(Serialize)]
struct Audit<'a> {
    server: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<Client>,
    subject: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    request: Cow<'a, str>,
    response: Cow<'a, str>,
}

#[derive(Serialize)]
struct OfStream<'a> {
    stream: &'a str,
    action: &'static str,
}

#[derive(Serialize)]
struct Pause<'a> {
    stream: &'a str,
    consumer: &'a str,
    paused: bool,
    pause_until: String,
}

#[derive(Serialize)]
struct LimitReached<'a> {
    server: &'a str,
    dropped: u64,
}

#[derive(Serialize)]
struct BatchAbandoned<'a> {
    stream: &'a str,
    batch: Cow<'a, str>,
    reason: &'static str,
}

/// Publishes what one listens for: an advisory or a metric, as its kind says.
pub(super) fn publish<T: Serialize>(
    account: &Account,
    domain: Option<&str>,
    subject: &str,
    kind: &str,
    body: impl FnOnce() -> T,
) {
    if !account.interest(subject.as_bytes()) {
        return;
    }
    let advisory = Advisory {
        r#type: format!("io.nats.jetstream.{kind}"),
        id: super::backup::random_id(),
        timestamp: timestamp::format(Timestamp::now()),
        body: body(),
        domain,
    };
    let json = plain::json(&advisory);
    account.publish(&Publish::new(subject.as_bytes(), &json));
}

/// An atomic batch was given up.
pub(super) fn batch_abandoned(
    account: &Account,
    domain: Option<&str>,
    stream: &str,
    batch: &[u8],
    why: Abandoned,
) {
    let subject = format!("$JS.EVENT.ADVISORY.STREAM.BATCH_ABANDONED.{stream}");
    let kind = "advisory.v1.stream_batch_abandoned";
    publish(account, domain, &subject, kind, || BatchAbandoned {
        stream,
        batch: String::from_utf8_lossy(batch),
        reason: why.as_str(),
    });
}

#[derive(Serialize)]
struct OutOfStorage<'a> {
    server: &'a str,
    server_id: String,
    cluster: &'static str,
}

impl JetStream {
    fn advise<T: Serialize>(
        &self,
        account: &Account,
        subject: &str,
        kind: &str,
        body: impl FnOnce() -> T,
    ) {
        publish(account, self.domain(), subject, kind, body);
    }

    /// A request of the API was answered.
    pub(super) fn advise_audit(
        &self,
        account: &Account,
        client: Option<ClientId>,
        subject: &str,
        request: &[u8],
        response: &[u8],
    ) {
        self.advise(
            account,
            "$JS.EVENT.ADVISORY.API",
            "advisory.v1.api_audit",
            || Audit {
                server: self.name(),
                client: client.and_then(|id| self.clients().find(id, self.name())),
                subject,
                request: String::from_utf8_lossy(request),
                response: String::from_utf8_lossy(response),
            },
        );
    }

    /// Something was done to a stream.
    pub(super) fn advise_stream(&self, account: &Account, stream: &str, action: StreamAction) {
        let (verb, action) = match action {
            StreamAction::Create => ("CREATED", "create"),
            StreamAction::Modify => ("UPDATED", "modify"),
            StreamAction::Delete => ("DELETED", "delete"),
        };
        let subject = format!("$JS.EVENT.ADVISORY.STREAM.{verb}.{stream}");
        self.advise(account, &subject, "advisory.v1.stream_action", || {
            OfStream { stream, action }
        });
    }

    /// A consumer was paused, or goes on.
    pub(super) fn advise_pause(
        &self,
        account: &Account,
        stream: &str,
        consumer: &str,
        paused: bool,
        until: Option<Moment>,
    ) {
        let subject = format!("$JS.EVENT.ADVISORY.CONSUMER.PAUSE.{stream}.{consumer}");
        self.advise(account, &subject, "advisory.v1.consumer_pause", || Pause {
            stream,
            consumer,
            paused,
            pause_until: until
                .map_or_else(|| timestamp::ZERO.to_owned(), |until| until.to_string()),
        });
    }

    /// Messages of file streams are refused for want of space. It is the server's and no account's news; while no account is
    /// the system's, the global one hears it.
    pub(super) fn advise_out_of_storage(&self) {
        let subject = "$JS.EVENT.ADVISORY.SERVER.OUT_OF_STORAGE";
        let account = self.broker.global();
        self.advise(&account, subject, "advisory.v1.server_out_of_space", || {
            OutOfStorage {
                server: self.name(),
                server_id: self.clients().server_id(),
                cluster: "",
            }
        });
    }

    /// A request was dropped since too many wait.
    pub(super) fn advise_limit_reached(&self, account: &Account) {
        let subject = "$JS.EVENT.ADVISORY.API.LIMIT_REACHED";
        self.advise(account, subject, "advisory.v1.api_limit_reached", || {
            LimitReached {
                server: self.name(),
                dropped: 1,
            }
        });
    }
}
