//! From names to consumers: one for each account, asked by the threads of connections for each pull request and ack.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use halyard_net::proto::headers as wire;
use parking_lot::{Mutex, RwLock};

use super::ack_subject::{self, Answer};
use super::intake::{Address, Event, Intake, Named, Said};
use crate::broker::{Account, ClientId, Delivered, Publish, Sink, SubscribeError, Subscription};
use crate::jetstream::consumer::command::Verb;

/// What flow-control replies start with: `$JS.FC.<stream>.<consumer>.<id>`.
const FLOW_PREFIX: &[u8] = b"$JS.FC.";
const NEXT_PREFIX: &[u8] = b"$JS.API.CONSUMER.MSG.NEXT.";
const NO_RESPONDERS: &[u8] = b"NATS/1.0 503\r\n";

#[derive(Clone)]
struct Target {
    at: Address,
    intake: Arc<Intake>,
    takes_acks: bool,
}

/// The consumers of one account, by `<stream>.<consumer>`. Only looked up, never walked: order does not matter.
pub struct Directory {
    account: Arc<Account>,
    targets: RwLock<HashMap<Box<[u8]>, Target>>,
}

/// Who sends a pull request.
#[derive(Debug, Clone, Copy)]
pub struct Puller<'a> {
    /// The client.
    pub client: Option<ClientId>,
    /// Where the messages go.
    pub reply: &'a [u8],
    /// It demands a newer API than there is.
    pub needs_newer: bool,
}

/// What listens to `$JS.ACK.>`.
struct Acks(Arc<Directory>);
/// What listens to `$JS.FC.>`.
struct Flows(Arc<Directory>);

impl Directory {
    /// An empty one, listening for acks and flow-control replies of the account.
    ///
    /// # Errors
    /// Never for these filters; the broker's own check.
    pub fn new(account: &Arc<Account>) -> Result<Arc<Self>, SubscribeError> {
        let directory = Arc::new(Self {
            account: Arc::clone(account),
            targets: RwLock::default(),
        });
        account.subscribe(b"$JS.ACK.>", None, Arc::new(Acks(Arc::clone(&directory))))?;
        account.subscribe(b"$JS.FC.>", None, Arc::new(Flows(Arc::clone(&directory))))?;
        Ok(directory)
    }

    /// The account.
    pub const fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Makes a consumer reachable.
    pub fn insert(
        &self,
        stream: &str,
        consumer: &str,
        at: Address,
        intake: &Arc<Intake>,
        takes_acks: bool,
    ) {
        let target = Target {
            at,
            intake: Arc::clone(intake),
            takes_acks,
        };
        self.targets.write().insert(key(stream, consumer), target);
    }

    /// Makes it unreachable, unless the name is another's by now.
    pub fn remove(&self, stream: &str, consumer: &str, at: Address) {
        let key = key(stream, consumer);
        let mut targets = self.targets.write();
        if targets.get(&key).is_some_and(|target| target.at == at) {
            targets.remove(&key);
        }
    }

    /// Hands a pull request to its consumer; `key` is `<stream>.<consumer>`, the tail of the API subject. An unknown
    /// consumer is answered as nobody would be: with the no-responders status.
    pub fn pull(&self, key: &[u8], from: &Puller<'_>, body: &[u8]) {
        let target = self.targets.read().get(key).cloned();
        let is_taken = target.is_some_and(|Target { at, intake, .. }| {
            intake.push(Event::Pull {
                at,
                client: from.client,
                reply: Bytes::copy_from_slice(from.reply),
                needs_newer: from.needs_newer,
                body: Bytes::copy_from_slice(body),
            })
        });
        if !is_taken {
            self.nobody(from.reply, &[NEXT_PREFIX, key].concat());
        }
    }

    /// What somebody is told whose message to `subject` nobody takes.
    fn nobody(&self, reply: &[u8], subject: &[u8]) {
        let mut headers = NO_RESPONDERS.to_vec();
        wire::line(&mut headers, b"Nats-Subject", subject);
        headers.extend_from_slice(b"\r\n");
        self.account
            .publish(&Publish::new(reply, &[]).with_headers(&headers));
    }

    fn ack(&self, message: &Publish<'_>) {
        let found = ack_subject::parse(message.route).and_then(|subject| {
            let target = self.targets.read().get(subject.key).cloned()?;
            // Who expects no acks does not listen for them.
            target.takes_acks.then_some((subject, target))
        });
        let Some((subject, Target { at, intake, .. })) = found else {
            if let Some(reply) = message.reply {
                self.nobody(reply, message.route);
            }
            return;
        };
        let answer = ack_subject::answer(message.payload);
        // No message has that number, and none waits under it: only that it is done is said back.
        let settles = matches!(
            answer,
            Some(Answer::Verb(Verb::Ack | Verb::Term(_)) | Answer::Next(_))
        );
        if subject.stream_seq == 0 && !settles {
            return;
        }
        let said = match answer {
            Some(Answer::Verb(Verb::Ack)) => Said::Ack,
            Some(Answer::Verb(Verb::Nak(delay))) => Said::Nak(delay),
            Some(Answer::Verb(Verb::Progress)) => Said::Progress,
            Some(Answer::Verb(Verb::Term(reason))) => Said::Term(reason.into()),
            Some(Answer::Next(body)) => Said::Next(Bytes::copy_from_slice(body)),
            None => {
                // It changes nothing, which is done.
                if let Some(reply) = message.reply {
                    self.account.publish(&Publish::new(reply, &[]));
                }
                return;
            }
        };
        let of = Named {
            stream_seq: subject.stream_seq,
            consumer_seq: subject.consumer_seq,
            stored: subject.stored,
        };
        let is_taken = intake.push(Event::Ack {
            at,
            of,
            said,
            client: message.origin.client(),
            reply: message.reply.map(Bytes::copy_from_slice),
        });
        if let (false, Some(reply)) = (is_taken, message.reply) {
            self.nobody(reply, message.route);
        }
    }

    fn flow(&self, message: &Publish<'_>) -> Option<()> {
        let rest = message.route.strip_prefix(FLOW_PREFIX)?;
        let dot = rest.iter().rposition(|byte| *byte == b'.')?;
        let (key, id) = rest.split_at_checked(dot)?;
        let id = std::str::from_utf8(id.get(1..)?).ok()?.parse().ok()?;
        let Target { at, intake, .. } = self.targets.read().get(key).cloned()?;
        intake.push(Event::Flow { at, id });
        Some(())
    }
}

impl Sink for Acks {
    fn deliver(&self, _: &Subscription, message: &Publish<'_>) -> Delivered {
        if !message.origin.is_outside() {
            return Delivered::Refused;
        }
        self.0.ack(message);
        Delivered::Accepted
    }
}

impl Sink for Flows {
    fn deliver(&self, _: &Subscription, message: &Publish<'_>) -> Delivered {
        if !message.origin.is_outside() {
            return Delivered::Refused;
        }
        let _ = self.0.flow(message);
        Delivered::Accepted
    }
}

fn key(stream: &str, consumer: &str) -> Box<[u8]> {
    let mut key = Vec::with_capacity(stream.len() + 1 + consumer.len());
    key.extend_from_slice(stream.as_bytes());
    key.push(b'.');
    key.extend_from_slice(consumer.as_bytes());
    key.into_boxed_slice()
}

/// The directories of all accounts.
#[derive(Default)]
pub struct Directories {
    by_account: Mutex<BTreeMap<Box<str>, Arc<Directory>>>,
}

impl Directories {
    /// That of an account, made on first use.
    pub fn of(&self, account: &Arc<Account>) -> Option<Arc<Directory>> {
        let mut all = self.by_account.lock();
        if let Some(known) = all.get(account.name()) {
            return Some(Arc::clone(known));
        }
        match Directory::new(account) {
            Ok(new) => {
                all.insert(account.name().into(), Arc::clone(&new));
                Some(new)
            }
            Err(error) => {
                tracing::error!("acks of account {}: {error}", account.name());
                None
            }
        }
    }
}
