//! The desk over a machine: what goes wrong with one consumer stays with it.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use halyard_engine::{Options, Store, StreamId};
use halyard_raft::Machine as _;
use halyard_runtime::disk::MemDisk;
use halyard_runtime::sim::plant_here;
use halyard_runtime::time::{Instant, Timestamp};
use parking_lot::Mutex;

use super::desk::{Desk, Host, View};
use super::directory::{Directories, Directory};
use super::intake::{Address, Event, Intake, Named, Said};
use super::{HALTED, Puller, Token};
use crate::broker::{Account, Broker, Delivered, Publish, Sink, Subscription};
use crate::jetstream::config::{Defaults, StreamConfig, normalize};
use crate::jetstream::consumer::check;
use crate::jetstream::consumer::command::{Action, Command};
use crate::jetstream::consumer::config::{AckPolicy, ConsumerConfig};
use crate::jetstream::consumer::effect::Effect;
use crate::jetstream::consumer::set::Reply;
use crate::jetstream::group::Machine;
use crate::jetstream::group::command::{self, Kind, StreamCreate};

const S: StreamId = StreamId(1);

/// A group of one stream, driven by hand.
struct Stand {
    machine: Mutex<Machine>,
    applied: Mutex<u64>,
    directory: Arc<Directory>,
    aside: Mutex<Vec<String>>,
    submitted: Mutex<Vec<(Vec<u8>, Token)>>,
}

impl Stand {
    fn new(account: &Arc<Account>) -> Self {
        let (store, _) = Store::open(
            Arc::new(MemDisk::new()),
            Path::new("/g"),
            Options::default(),
        )
        .unwrap();
        let stand = Self {
            machine: Mutex::new(Machine::open(store).unwrap()),
            applied: Mutex::new(0),
            directory: Directories::default().of(account).unwrap(),
            aside: Mutex::default(),
            submitted: Mutex::default(),
        };
        let create = StreamCreate {
            config: stream(),
            created: 1,
        };
        let create = command::encode_cold(&create);
        stand.apply(|batch| command::put(batch, Kind::StreamCreate, S, &create));
        stand
    }

    /// Applies one command; what it means to others.
    fn apply(&self, put: impl FnOnce(&mut Vec<u8>)) -> Vec<(StreamId, Effect)> {
        let mut batch = Vec::new();
        command::start(&mut batch);
        put(&mut batch);
        command::seal(&mut batch, Timestamp::from_nanos(1_000_000_000), 1);
        let mut index = self.applied.lock();
        *index += 1;
        let at = halyard_raft::LogId {
            index: *index,
            term: 1,
            ..Default::default()
        };
        self.machine.lock().apply(at, &Bytes::from(batch)).effects
    }

    /// Applies what was submitted, and tells the desk.
    fn settle(&self, desk: &mut Desk) {
        let submitted = std::mem::take(&mut *self.submitted.lock());
        for (body, token) in submitted {
            for (stream, effect) in
                self.apply(|batch| command::put(batch, Kind::Consumer, S, &body))
            {
                desk.effect(stream, &effect, Instant::now(), self);
            }
            desk.applied(token, Reply::Done, Instant::now());
        }
    }

    fn make(&self, name: &str, desk: &mut Desk) {
        let config = ConsumerConfig {
            name: name.to_owned(),
            durable_name: name.to_owned(),
            ack_policy: AckPolicy::Explicit,
            ..ConsumerConfig::default()
        };
        let config = check::resolve(config, &stream(), false).unwrap();
        let config = serde_json::to_vec(&config).unwrap();
        let body = Command::Create {
            action: Action::CreateOrUpdate,
            name,
            config: &config,
            seen: None,
        };
        let body = body.to_bytes();
        for (stream, effect) in self.apply(|batch| command::put(batch, Kind::Consumer, S, &body)) {
            desk.effect(stream, &effect, Instant::now(), self);
        }
    }
}

fn stream() -> StreamConfig {
    let config = StreamConfig {
        name: "S".to_owned(),
        ..StreamConfig::default()
    };
    normalize(config, &Defaults::default())
}

impl Host for Stand {
    fn submit(&self, _: StreamId, body: &[u8], token: Token) {
        self.submitted.lock().push((body.to_vec(), token));
    }

    fn look(&self, stream: StreamId, look: &mut dyn FnMut(View<'_>)) {
        let machine = self.machine.lock();
        if let Some(found) = machine.stream(stream) {
            look(View {
                consumers: found.consumers(),
                config: found.config(),
                store: machine.store(),
            });
        }
    }

    fn set_aside(&self, at: Address, why: String) {
        assert_eq!(
            at,
            Address {
                stream: S,
                consumer: 1
            }
        );
        self.aside.lock().push(why);
    }

    fn set_back(&self, these: RangeInclusive<Address>) {
        assert_eq!(these.start().stream, S);
        self.aside.lock().clear();
    }

    fn stream(&self, _: StreamId) -> Option<(String, Arc<Directory>)> {
        Some(("S".to_owned(), self.directory.clone()))
    }
}

/// What is sent to whom: the first line of a status, or the body.
#[derive(Default)]
struct Heard(Mutex<Vec<(String, String)>>);

impl Sink for Heard {
    fn deliver(&self, _: &Subscription, message: &Publish<'_>) -> Delivered {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let status = text(message.headers);
        let said = match status.lines().next() {
            Some(line) => line.to_owned(),
            None => text(message.payload),
        };
        self.0.lock().push((text(message.route), said));
        Delivered::Accepted
    }
}

#[test]
fn a_panic_in_a_delivery_takes_one_consumer_and_no_other() {
    let broker = Broker::new();
    let account = broker.global();
    let stand = Stand::new(&account);
    let heard = Arc::new(Heard::default());
    let subscription = account.subscribe(b"to.*", None, heard.clone()).unwrap();
    let mut desk = Desk::new(Intake::new(|| {}), None);
    stand.make("A", &mut desk);
    stand.make("B", &mut desk);
    let pull = |consumer: &str| {
        let (key, to) = (format!("S.{consumer}"), format!("to.{consumer}"));
        let from = Puller {
            client: None,
            reply: to.as_bytes(),
            needs_newer: false,
        };
        stand.directory.pull(key.as_bytes(), &from, b"");
    };
    let said = |who: &str, what: &str| (format!("to.{who}"), what.to_owned());
    pull("A");
    pull("B");
    desk.poll(Instant::now(), &stand);
    assert_eq!(*heard.0.lock(), []);
    stand.apply(|batch| command::put_publish(batch, S, b"S", b"", b"one"));
    desk.stored(S);
    let planted = plant_here("panic-in-delivery");
    desk.poll(Instant::now(), &stand);
    drop(planted);
    let halted = format!("NATS/1.0 {HALTED}");
    assert_eq!(*heard.0.lock(), [said("A", &halted), said("B", "one")]);
    let why = stand.aside.lock().clone();
    assert!(
        why[0].contains("consumer A of stream S has panicked"),
        "{why:?}"
    );
    // It is gone for who asks, and the others go on.
    heard.0.lock().clear();
    pull("A");
    pull("B");
    stand.apply(|batch| command::put_publish(batch, S, b"S", b"", b"two"));
    desk.stored(S);
    desk.poll(Instant::now(), &stand);
    assert_eq!(
        *heard.0.lock(),
        [said("A", "NATS/1.0 503"), said("B", "two")]
    );
    assert_eq!(stand.aside.lock().len(), 1);
    // An update brings it back, and nothing is wrong any more.
    let a = Address {
        stream: S,
        consumer: 1,
    };
    desk.attach(a, Instant::now(), &stand);
    assert_eq!(stand.aside.lock().len(), 0);
    account.unsubscribe(&subscription);
}

#[test]
fn what_a_client_says_counts_before_what_it_asks_for_next() {
    let broker = Broker::new();
    let account = broker.global();
    let stand = Stand::new(&account);
    let heard = Arc::new(Heard::default());
    let subscription = account.subscribe(b"to.*", None, heard.clone()).unwrap();
    let intake = Intake::new(|| {});
    let mut desk = Desk::new(intake.clone(), None);
    stand.make("A", &mut desk);
    let say = |seq: u64, own: u64, said: Said, to: Option<&'static str>| {
        intake.push(Event::Ack {
            at: Address {
                stream: S,
                consumer: 1,
            },
            of: Named {
                stream_seq: seq,
                consumer_seq: own,
                stored: None,
            },
            said,
            client: None,
            reply: to.map(|to| Bytes::from_static(to.as_bytes())),
        });
    };
    let got = || std::mem::take(&mut *heard.0.lock());
    let line = |to: &str, what: &str| (to.to_owned(), what.to_owned());
    let from = Puller {
        client: None,
        reply: b"to.pull",
        needs_newer: false,
    };
    for body in [b"one".as_slice(), b"two", b"three"] {
        stand.apply(|batch| command::put_publish(batch, S, b"S", b"", body));
    }
    stand.directory.pull(b"S.A", &from, b"2");
    desk.poll(Instant::now(), &stand);
    stand.settle(&mut desk);
    assert_eq!(got(), [line("to.pull", "one"), line("to.pull", "two")]);
    say(1, 1, Said::Nak(0), None);
    say(2, 2, Said::Nak(0), None);
    desk.poll(Instant::now(), &stand);
    stand.settle(&mut desk);
    // Both wait to go out again. The first is acknowledged with a request for more: it must not come.
    say(1, 1, Said::Next(Bytes::new()), Some("to.next"));
    desk.poll(Instant::now(), &stand);
    assert_eq!(got(), []);
    stand.settle(&mut desk);
    assert!(desk.is_ready());
    desk.poll(Instant::now(), &stand);
    stand.settle(&mut desk);
    assert_eq!(got(), [line("to.next", "two")]);
    // Nor does a request that does not wait end before what was said ahead of it is known.
    say(2, 2, Said::Next(Bytes::new()), Some("to.next"));
    desk.poll(Instant::now(), &stand);
    stand.settle(&mut desk);
    assert_eq!(got(), [line("to.next", "three")]);
    say(3, 4, Said::Nak(0), None);
    stand.directory.pull(b"S.A", &from, b"{\"no_wait\":true}");
    desk.poll(Instant::now(), &stand);
    assert_eq!(got(), []);
    stand.settle(&mut desk);
    desk.poll(Instant::now(), &stand);
    assert_eq!(got(), [line("to.pull", "three")]);
    account.unsubscribe(&subscription);
}
