//! Pull consumers: take batches and acknowledge, refuse or ignore what is in them.

use std::sync::Arc;
use std::time::Duration;

use halyard_runtime::time::{Instant, timeout};
use halyard_runtime::{event, random};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Stage, pause};
use crate::client::{Client, Delivery};
use crate::history::{Acked, Seen};
use crate::js;
use crate::options::ConsumerPlan;

/// How long the server may hold a request for messages.
const EXPIRES: Duration = Duration::from_secs(1);
/// How much longer a client waits for the batch to end.
const GRACE: Duration = Duration::from_secs(2);
const CONFIRM_PATIENCE: Duration = Duration::from_secs(3);

/// One consumer's client; index into [`crate::Options::consumers`].
pub(crate) async fn run(stage: Arc<Stage>, consumer: usize) {
    let plan = stage.options.consumers[consumer].clone();
    let mut session = Session::open(&stage, consumer, plan).await;
    while !stage.is_stopped() {
        session.round().await;
    }
}

/// Acknowledges everything that is left, within `limit`. False when something is left.
pub(crate) async fn drain(stage: &Arc<Stage>, consumer: usize, limit: Duration) -> bool {
    let mut plan = stage.options.consumers[consumer].clone();
    (
        plan.confirmed_percent,
        plan.refused_percent,
        plan.ignored_percent,
    ) = (100, 0, 0);
    let stream = stage.options.streams[plan.stream].name.clone();
    let name = plan.name.clone();
    let mut session = Session::open(stage, consumer, plan).await;
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Ok(info) = js::consumer_info(&session.client, &stream, &name).await {
            let left = |key: &str| info.get(key).and_then(Value::as_u64).unwrap_or(u64::MAX);
            event!(
                "{name} has {} pending, {} unacknowledged",
                left("num_pending"),
                left("num_ack_pending")
            );
            if left("num_pending") == 0 && left("num_ack_pending") == 0 {
                return true;
            }
        }
        session.round().await;
    }
    false
}

struct Session<'a> {
    stage: &'a Arc<Stage>,
    consumer: usize,
    plan: ConsumerPlan,
    stream: String,
    client: Client,
    inbox: String,
    messages: UnboundedReceiver<Delivery>,
    requests: u64,
}

impl<'a> Session<'a> {
    async fn open(stage: &'a Arc<Stage>, consumer: usize, plan: ConsumerPlan) -> Self {
        let client = stage.connect().await;
        let stream = stage.options.streams[plan.stream].name.clone();
        let (inbox, messages) = listen(&client);
        Self {
            stage,
            consumer,
            plan,
            stream,
            client,
            inbox,
            messages,
            requests: 0,
        }
    }

    /// Asks for one batch and treats it.
    async fn round(&mut self) {
        if self.client.is_closed() {
            self.client = self.stage.connect().await;
            (self.inbox, self.messages) = listen(&self.client);
        }
        self.requests += 1;
        let number = self.requests;
        let subject = format!(
            "$JS.API.CONSUMER.MSG.NEXT.{}.{}",
            self.stream, self.plan.name
        );
        let expires = u64::try_from(EXPIRES.as_nanos()).unwrap_or(u64::MAX);
        let body = json!({ "batch": self.plan.batch, "expires": expires }).to_string();
        let reply = format!("{}.{number}", self.inbox);
        self.client
            .publish(&subject, Some(&reply), b"", body.as_bytes());
        let deadline = Instant::now() + EXPIRES + GRACE;
        let mut taken = 0;
        while taken < self.plan.batch {
            let patience = deadline - Instant::now();
            let Ok(Some(delivery)) = timeout(patience, self.messages.recv()).await else {
                break;
            };
            if delivery.status().is_some() {
                // The end of this request, or of an earlier one that we no longer wait for.
                if delivery.subject == reply {
                    break;
                }
                continue;
            }
            taken += 1;
            self.treat(delivery).await;
        }
        pause(Duration::from_millis(20)).await;
    }

    async fn treat(&self, delivery: Delivery) {
        let Some(reply) = delivery.reply.clone() else {
            return;
        };
        let Some((delivered, seq)) = position(&reply) else {
            event!("a delivery with an unreadable reply subject: {reply}");
            return;
        };
        event!("{} gets {seq} for the {delivered}. time", self.plan.name);
        {
            let mut history = self.stage.history.lock();
            history.seen.push(Seen {
                consumer: self.consumer,
                seq,
                delivered,
                subject: delivery.subject,
                headers: delivery.headers,
                payload: delivery.payload,
                connection: self.client.number,
                arrived: delivery.arrived,
            });
        }
        let draw = random::below(100);
        let plan = &self.plan;
        if draw < plan.confirmed_percent {
            self.acknowledge(seq, &reply).await;
        } else if draw < plan.confirmed_percent + plan.refused_percent {
            self.client.publish(&reply, None, b"", b"-NAK");
        } else if draw >= plan.confirmed_percent + plan.refused_percent + plan.ignored_percent {
            self.note_ack(seq);
            self.client.publish(&reply, None, b"", b"+ACK");
        }
    }

    /// Writes the acknowledgement down before it is sent: from here on it may have happened.
    fn note_ack(&self, seq: u64) -> usize {
        let mut history = self.stage.history.lock();
        let (consumer, connection) = (self.consumer, self.client.number);
        history.acked.push(Acked {
            consumer,
            seq,
            connection,
            confirmed: None,
        });
        history.acked.len() - 1
    }

    async fn acknowledge(&self, seq: u64, reply: &str) {
        let index = self.note_ack(seq);
        let answer = self
            .client
            .request(reply, b"", b"+ACK", CONFIRM_PATIENCE)
            .await;
        if let Some(answer) = answer.ok().filter(|answer| answer.status().is_none()) {
            let mut history = self.stage.history.lock();
            if let Some(acked) = history.acked.get_mut(index) {
                acked.confirmed = Some(answer.arrived);
            }
            event!("{} has {seq} confirmed", self.plan.name);
        }
    }
}

fn listen(client: &Client) -> (String, UnboundedReceiver<Delivery>) {
    let inbox = format!("_PULL.c{}", client.number);
    let messages = client.subscribe(&format!("{inbox}.*"));
    (inbox, messages)
}

/// Delivery count and stream sequence in `$JS.ACK.<stream>.<consumer>.<delivered>.<seq>.<cseq>.<time>.<pending>`.
fn position(reply: &str) -> Option<(u64, u64)> {
    let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let [_, _, delivered, seq, ..] = tokens[..] else {
        return None;
    };
    Some((delivered.parse().ok()?, seq.parse().ok()?))
}
