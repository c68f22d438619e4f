//! Hostile subscribers: filters of any length and number of tokens are refused, or found by what they match, and go again,
//! without a recursion for each token.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot go on without ends it"
)]

use std::sync::Arc;
use std::time::Duration;

use bolero::TypeGenerator;
use halyard_server::broker::{Account, Broker, Delivered, Publish, Sink, Subscription, subject};
use parking_lot::Mutex;

/// A subject or filter, in pieces.
#[derive(Clone, Debug, TypeGenerator)]
enum Piece {
    /// One token, many times.
    Many(u8, u16),
    One(u8),
    Raw(Vec<u8>),
}

#[derive(Clone, Debug, TypeGenerator)]
enum Op {
    Subscribe(Vec<Piece>, Option<u8>),
    Unsubscribe(u8),
    Publish(Vec<Piece>),
}

fn text(pieces: &[Piece]) -> Vec<u8> {
    const TOKENS: [&[u8]; 6] = [b"a", b"b", b"*", b">", b"", b"abc"];
    let token = |number: u8| TOKENS[usize::from(number) % TOKENS.len()];
    let mut tokens: Vec<&[u8]> = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Many(number, count) => {
                // Beyond what is taken, seldom: most of the time few tokens match.
                let count = if *count > 60_000 { *count } else { *count % 64 };
                tokens.extend(std::iter::repeat_n(token(*number), count.into()));
            }
            Piece::One(number) => tokens.push(token(*number)),
            Piece::Raw(bytes) => tokens.push(bytes),
        }
    }
    tokens.join(&b'.')
}

/// Notes whom a message reached.
#[derive(Default)]
struct Noted(Mutex<Vec<u64>>);

impl Sink for Noted {
    fn deliver(&self, subscription: &Subscription, _: &Publish<'_>) -> Delivered {
        self.0.lock().push(subscription.id());
        Delivered::Accepted
    }
}

fn run(ops: &[Op], account: &Account) {
    let noted = Arc::new(Noted::default());
    let mut all: Vec<Arc<Subscription>> = Vec::new();
    for op in ops {
        match op {
            Op::Subscribe(pieces, queue) => {
                let queue = queue.map(|number| [b'q', number % 2]);
                let queue = queue.as_ref().map(<[u8; 2]>::as_slice);
                let made = account.subscribe(&text(pieces), queue, noted.clone());
                all.extend(made);
            }
            Op::Unsubscribe(number) if !all.is_empty() => {
                let one = all.swap_remove(usize::from(*number) % all.len());
                assert!(account.unsubscribe(&one));
            }
            Op::Unsubscribe(_) => {}
            Op::Publish(pieces) => publish(&text(pieces), account, &all, &noted),
        }
    }
    for one in all {
        assert!(account.unsubscribe(&one));
    }
    assert_eq!(account.counters().subscriptions, 0);
}

fn publish(to: &[u8], account: &Account, all: &[Arc<Subscription>], noted: &Noted) {
    if !subject::is_valid_literal(to) {
        return;
    }
    account.publish(&Publish::new(to, b""));
    let mut found = std::mem::take(&mut *noted.0.lock());
    found.sort_unstable();
    let matching = all.iter().filter(|one| subject::matches(one.filter(), to));
    let (mut plain, mut queues) = (Vec::new(), 0);
    for one in matching.clone() {
        match one.queue() {
            None => plain.push(one.id()),
            Some(_) => queues += 1,
        }
    }
    assert!(plain.iter().all(|id| found.binary_search(id).is_ok()));
    assert!(
        found
            .iter()
            .all(|id| matching.clone().any(|one| one.id() == *id))
    );
    assert_eq!(found.len() > plain.len(), queues > 0);
}

#[test]
fn interest() {
    bolero::check!()
        .with_iterations(300)
        .with_shrink_time(Duration::from_secs(10))
        .with_type::<Vec<Op>>()
        .for_each(|ops| run(ops, &Broker::new().global()));
}

#[test]
fn one_deep_filter_is_no_stack() {
    let broker = Broker::new();
    let deep = vec![Piece::Many(0, u16::MAX / 2)];
    run(
        &[Op::Subscribe(deep.clone(), None), Op::Publish(deep)],
        &broker.global(),
    );
}
