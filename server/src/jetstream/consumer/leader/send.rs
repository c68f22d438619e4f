//! Messages and statuses on their way out, through one router for each account. Buffers are kept from message to
//! message.

use std::collections::BTreeMap;
use std::sync::Arc;

use halyard_engine::Message;
use halyard_runtime::random;
use serde::Serialize;

use super::ack_subject;
use super::pull::Request;
use super::status;
use crate::broker::{Account, Publish, Router};
use crate::jetstream::advisory;
use crate::jetstream::consumer::effect::Effect;
use crate::jetstream::consumer::select::Delivery;

/// Sends for the leader.
pub struct Sender {
    domain: Option<String>,
    routers: BTreeMap<Box<str>, Router>,
    reply: Vec<u8>,
    headers: Vec<u8>,
}

impl Sender {
    /// A sender of a server of this domain.
    pub const fn new(domain: Option<String>) -> Self {
        Self {
            domain,
            routers: BTreeMap::new(),
            reply: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// Sends one message of the stream and returns its bytes; `None`: nobody took it.
    pub fn message(
        &mut self,
        account: &Arc<Account>,
        route: &[u8],
        ack_prefix: &[u8],
        delivery: &Delivery,
        message: &Message,
        headers_only: bool,
    ) -> Option<u64> {
        self.reply.clear();
        self.reply.extend_from_slice(ack_prefix);
        let Delivery {
            stream_seq,
            consumer_seq,
            count,
            unseen,
            ..
        } = *delivery;
        ack_subject::write(
            &mut self.reply,
            count,
            stream_seq,
            consumer_seq,
            message.time,
            unseen,
        );
        let (mut headers, mut payload) = (message.headers(), message.payload());
        if headers_only {
            status::without_body(&mut self.headers, headers, payload.len());
            (headers, payload) = (&self.headers, &[]);
        }
        let publish = Publish::new(message.subject(), payload)
            .with_route(route)
            .with_reply(Some(&self.reply))
            .with_headers(headers);
        let bytes = (message.subject().len() + self.reply.len() + publish.size()) as u64;
        let outcome = router(&mut self.routers, account).publish(&publish);
        (outcome.delivered > 0).then_some(bytes)
    }

    /// Sends a block of headers that `write` makes.
    pub fn status(
        &mut self,
        account: &Arc<Account>,
        to: &[u8],
        reply: Option<&[u8]>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        write(&mut self.headers);
        let publish = Publish::new(to, &[])
            .with_reply(reply)
            .with_headers(&self.headers);
        router(&mut self.routers, account).publish(&publish);
    }

    /// Ends a pull request before it got all it asked for: says why, and what it has not got.
    pub fn ended(&mut self, account: &Arc<Account>, request: &Request, text: &str) {
        self.status(account, &request.reply, None, |out| {
            status::ended(out, text, request.batch, request.max_bytes);
        });
    }

    /// Sends an empty message: the confirmation of an ack.
    pub fn empty(&mut self, account: &Arc<Account>, to: &[u8]) {
        router(&mut self.routers, account).publish(&Publish::new(to, &[]));
    }

    /// Tells the world what happened to a consumer.
    pub fn advisory(
        &mut self,
        account: &Arc<Account>,
        stream: &str,
        consumer: &str,
        effect: &Effect,
        sample_percent: u32,
    ) {
        let Some((subject, kind, mut body)) = describe(effect, sample_percent) else {
            return;
        };
        let subject = format!("$JS.EVENT.{subject}.{stream}.{consumer}");
        advisory::publish(account, self.domain.as_deref(), &subject, kind, || {
            stream.clone_into(&mut body.stream);
            consumer.clone_into(&mut body.consumer);
            body
        });
    }

    /// Moves the routers' counters to their accounts: once for each batch.
    pub fn settle(&mut self) {
        for router in self.routers.values_mut() {
            router.settle();
        }
    }
}

fn router<'a>(
    routers: &'a mut BTreeMap<Box<str>, Router>,
    account: &Arc<Account>,
) -> &'a mut Router {
    if !routers.contains_key(account.name()) {
        routers.insert(account.name().into(), Router::new(Arc::clone(account)));
    }
    routers
        .entry(account.name().into())
        .or_insert_with(|| Router::new(Arc::clone(account)))
}

/// The body of an advisory; order and omissions as the peer's.
#[derive(Debug, Default, Serialize)]
struct Advisory {
    stream: String,
    consumer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

fn describe(
    effect: &Effect,
    sample_percent: u32,
) -> Option<(&'static str, &'static str, Advisory)> {
    Some(match effect {
        Effect::MaxDeliveries {
            stream_seq,
            deliveries,
            ..
        } => (
            "ADVISORY.CONSUMER.MAX_DELIVERIES",
            "advisory.v1.max_deliver",
            Advisory {
                stream_seq: Some(*stream_seq),
                deliveries: Some(*deliveries),
                ..Advisory::default()
            },
        ),
        Effect::Naked {
            stream_seq,
            consumer_seq,
            deliveries,
            ..
        } => (
            "ADVISORY.CONSUMER.MSG_NAKED",
            "advisory.v1.nak",
            Advisory {
                consumer_seq: Some(*consumer_seq),
                stream_seq: Some(*stream_seq),
                deliveries: Some(*deliveries),
                ..Advisory::default()
            },
        ),
        Effect::Terminated {
            stream_seq,
            consumer_seq,
            deliveries,
            reason,
            ..
        } => (
            "ADVISORY.CONSUMER.MSG_TERMINATED",
            "advisory.v1.terminated",
            Advisory {
                consumer_seq: Some(*consumer_seq),
                stream_seq: Some(*stream_seq),
                deliveries: Some(*deliveries),
                reason: Some(reason.clone()).filter(|reason| !reason.is_empty()),
                ..Advisory::default()
            },
        ),
        Effect::Acked {
            stream_seq,
            consumer_seq,
            deliveries,
            ack_nanos,
            ..
        } => {
            if random::below(100) >= u64::from(sample_percent) {
                return None;
            }
            (
                "METRIC.CONSUMER.ACK",
                "metric.v1.consumer_ack",
                Advisory {
                    consumer_seq: Some(*consumer_seq),
                    stream_seq: Some(*stream_seq),
                    ack_time: Some(*ack_nanos),
                    deliveries: Some(*deliveries),
                    ..Advisory::default()
                },
            )
        }
        Effect::Changed { is_new: true, .. } => (
            "ADVISORY.CONSUMER.CREATED",
            "advisory.v1.consumer_action",
            Advisory {
                action: Some("create"),
                ..Advisory::default()
            },
        ),
        Effect::Deleted { .. } => (
            "ADVISORY.CONSUMER.DELETED",
            "advisory.v1.consumer_action",
            Advisory {
                action: Some("delete"),
                ..Advisory::default()
            },
        ),
        Effect::Changed { .. }
        | Effect::Ready { .. }
        | Effect::Stored
        | Effect::BatchAbandoned { .. }
        | Effect::StreamDeleted => {
            return None;
        }
    })
}
