//! The sending half against a link that takes what a random program says, and a model that is one long string.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use proptest::prelude::*;

use super::*;
use crate::broker::{Account, Broker, FlushScope, Subscribe};

/// Takes as many bytes as it was granted, in as many calls as the grants.
#[derive(Default)]
struct Scripted {
    granted: Mutex<Vec<usize>>,
    taken: Mutex<Vec<u8>>,
}

impl Link for Scripted {
    fn poll_read(&self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_write_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(granted) = self.granted.lock().pop() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let all: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| piece.iter().copied())
            .collect();
        let count = granted.min(all.len());
        self.taken.lock().extend_from_slice(&all[..count]);
        Ok(count)
    }

    fn shutdown_write(&self) {}
}

#[derive(Debug, Clone)]
enum Step {
    /// A delivery of so many bytes.
    Deliver(usize),
    /// A line of the server itself.
    Send,
    /// Several deliveries in one flush scope.
    Batch(Vec<usize>),
    /// The link takes so much in its next call.
    Grant(usize),
    /// The connection's task has heard that the link takes more.
    Resume,
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 0..200_usize,
        1 => 8000..8400_usize,
        1 => 20_000..70_000_usize,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => size().prop_map(Step::Deliver),
        1 => Just(Step::Send),
        2 => proptest::collection::vec(size(), 1..20).prop_map(Step::Batch),
        4 => prop_oneof![1..300_usize, 1..200_000_usize].prop_map(Step::Grant),
        3 => Just(Step::Resume),
    ]
}

struct World {
    account: Arc<Account>,
    outbound: Arc<Outbound>,
    link: Arc<Scripted>,
    wanted: Vec<u8>,
    count: u8,
}

impl World {
    fn new(max_pending: usize) -> Self {
        let link = Arc::new(Scripted::default());
        let outbound = Outbound::new(ClientId(1), "test".into(), link.clone(), max_pending);
        outbound.set_options(true, true);
        let account = Broker::new().global();
        let asked = Subscribe {
            filter: b"a.>",
            queue: None,
            sid: b"7",
            client: None,
        };
        account.subscribe_for(&asked, outbound.clone()).unwrap();
        Self {
            account,
            outbound,
            link,
            wanted: Vec::new(),
            count: 0,
        }
    }

    fn deliver(&mut self, size: usize) -> usize {
        self.count = self.count.wrapping_add(1);
        let payload = vec![self.count; size];
        let headers: &[u8] = if size.is_multiple_of(3) {
            b"NATS/1.0\r\n\r\n"
        } else {
            b""
        };
        let message = Publish::new(b"a.b", &payload).with_headers(headers);
        let outcome = self.account.publish(&message);
        encoder::msg(&mut self.wanted, b"a.b", b"7", None, headers, &payload);
        outcome.delivered
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Deliver(size) => assert_eq!(self.deliver(size), 1),
            Step::Send => {
                self.outbound.send(encoder::pong);
                encoder::pong(&mut self.wanted);
            }
            Step::Batch(sizes) => {
                let scope = FlushScope::new();
                for size in sizes {
                    assert_eq!(self.deliver(size), 1);
                }
                scope.finish();
            }
            Step::Grant(bytes) => self.link.granted.lock().push(bytes),
            Step::Resume if self.outbound.blocked_since().is_some() => {
                self.outbound.resume();
            }
            Step::Resume => {}
        }
        let taken = self.link.taken.lock().len();
        assert!(
            self.wanted.starts_with(&self.link.taken.lock()),
            "order and bytes"
        );
        let pending = self.outbound.counters().pending;
        assert_eq!(
            taken + pending,
            self.wanted.len(),
            "what is pending is counted"
        );
        let blocked = self.outbound.blocked_since().is_some();
        assert_eq!(blocked, pending > 0, "what waits is waited for");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn bytes_leave_once_and_in_order(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new(usize::MAX);
        for step in steps {
            world.run(step);
        }
        // A link that takes everything gets everything.
        world.link.granted.lock().extend([usize::MAX; 100]);
        world.outbound.resume();
        prop_assert_eq!(world.outbound.counters().pending, 0);
        prop_assert!(*world.link.taken.lock() == world.wanted);
    }
}

#[test]
fn too_much_closes_and_frees() {
    let mut world = World::new(1000);
    assert_eq!(world.deliver(900), 1);
    assert_eq!(world.outbound.closed(), None);
    assert_eq!(world.deliver(100), 1, "the one too many");
    assert_eq!(
        world.outbound.closed(),
        Some(CloseReason::SlowConsumerPendingBytes)
    );
    assert_eq!(world.outbound.counters().pending, 0);
    assert_eq!(
        world.deliver(1),
        0,
        "later ones are refused, so that a group tries another"
    );
}

#[test]
fn the_last_message_ends_the_subscription() {
    let world = World::new(1000);
    let asked = Subscribe {
        filter: b"b",
        queue: None,
        sid: b"8",
        client: None,
    };
    let subscription = world
        .account
        .subscribe_for(&asked, world.outbound.clone())
        .unwrap();
    subscription.set_max(2);
    let publish = || world.account.publish(&Publish::new(b"b", b"")).delivered;
    assert_eq!((publish(), publish(), publish()), (1, 1, 0));
    assert_eq!(world.outbound.take_ended(), [Box::from(b"8".as_slice())]);
}
