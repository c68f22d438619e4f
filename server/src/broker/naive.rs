//! The slow and obvious broker, and random programs that both must agree on.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

/// A message as it came: subscription, subject, payload.
type Noted = (u64, Vec<u8>, Vec<u8>);

/// Notes each message that it gets.
#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<Noted>>);

impl Recorder {
    pub(crate) fn take(&self) -> Vec<Noted> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Sink for Recorder {
    fn deliver(&self, subscription: &Subscription, message: &Publish<'_>) -> Delivered {
        let Some(last) = subscription.count() else {
            return Delivered::Refused;
        };
        let noted = (
            subscription.id(),
            message.subject.to_vec(),
            message.payload.to_vec(),
        );
        self.0.lock().push(noted);
        if last {
            Delivered::Last
        } else {
            Delivered::Accepted
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Subscribe {
        filter: String,
        queue: Option<&'static str>,
        max: u64,
    },
    Unsubscribe(usize),
    Publish {
        subject: String,
        router: usize,
    },
}

/// What the model knows of a subscription.
struct Held {
    live: Arc<Subscription>,
    filter: String,
    queue: Option<&'static str>,
    left: u64,
}

fn token() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just("a"), 3 => Just("b"), 1 => Just("cc"), 2 => Just("*"), 1 => Just("")]
}

fn joined() -> impl Strategy<Value = String> {
    let tail = prop_oneof![3 => Just(""), 1 => Just(".>")];
    (proptest::collection::vec(token(), 1..4), tail).prop_map(|(tokens, tail)| {
        if tokens == [""] {
            ">".to_owned()
        } else {
            tokens.join(".") + tail
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let queue = prop_oneof![3 => Just(None), 1 => Just(Some("q")), 1 => Just(Some("r"))];
    let max = prop_oneof![4 => Just(0_u64), 1 => 1..4_u64];
    prop_oneof![
        3 => (joined(), queue, max).prop_map(|(filter, queue, max)| Step::Subscribe { filter, queue, max }),
        1 => any::<usize>().prop_map(Step::Unsubscribe),
        6 => (joined(), 0..3_usize).prop_map(|(subject, router)| Step::Publish { subject, router }),
    ]
}

fn wants(held: &Held, subject: &str) -> bool {
    subject::matches(held.filter.as_bytes(), subject.as_bytes())
}

/// What came to the recorder is one message for each plain subscription and one for each group with interest.
fn check_delivery(held: &mut Vec<Held>, subject: &str, got: &[Noted], delivered: usize) {
    let plain: BTreeSet<u64> = held
        .iter()
        .filter(|held| held.queue.is_none() && wants(held, subject))
        .map(|held| held.live.id())
        .collect();
    let groups: BTreeSet<_> = held
        .iter()
        .filter(|held| wants(held, subject))
        .filter_map(|held| held.queue)
        .collect();
    assert_eq!(got.len(), plain.len() + groups.len(), "{subject}");
    assert_eq!(delivered, got.len());
    let mut plain_seen = BTreeSet::new();
    let mut groups_seen = BTreeSet::new();
    for (id, shown, _) in got {
        assert_eq!(shown, subject.as_bytes());
        let held = held
            .iter_mut()
            .find(|held| held.live.id() == *id)
            .expect("only live ones get it");
        assert!(wants(held, subject));
        match held.queue {
            None => assert!(plain_seen.insert(*id)),
            Some(queue) => assert!(groups_seen.insert(queue)),
        }
        held.left = held.left.saturating_sub(1);
    }
    assert_eq!(plain_seen, plain);
    assert_eq!(groups_seen, groups);
    held.retain(|held| held.left > 0);
}

fn run(steps: Vec<Step>) {
    let account = Broker::new().global();
    let recorder = Arc::new(Recorder::default());
    let mut routers: Vec<_> = (0..2).map(|_| Router::new(account.clone())).collect();
    let mut held: Vec<Held> = Vec::new();
    for step in steps {
        match step {
            Step::Subscribe { filter, queue, max } => {
                let asked = queue.map(str::as_bytes);
                match account.subscribe(filter.as_bytes(), asked, recorder.clone()) {
                    Ok(live) => {
                        live.set_max(max);
                        let left = if max == 0 { u64::MAX } else { max };
                        held.push(Held {
                            live,
                            filter,
                            queue,
                            left,
                        });
                    }
                    Err(SubscribeError::InvalidSubject) => {
                        assert!(!subject::is_valid_filter(filter.as_bytes()));
                    }
                }
            }
            Step::Unsubscribe(which) if !held.is_empty() => {
                let gone = held.remove(which % held.len());
                assert!(account.unsubscribe(&gone.live));
                assert!(!account.unsubscribe(&gone.live));
            }
            Step::Unsubscribe(_) => {}
            Step::Publish { subject, router } => {
                let message = Publish::new(subject.as_bytes(), b"x");
                let interest = account.interest(subject.as_bytes());
                let outcome = match routers.get_mut(router) {
                    Some(router) => router.publish(&message),
                    None => account.publish(&message),
                };
                let got = recorder.take();
                assert_eq!(interest, !got.is_empty());
                check_delivery(&mut held, &subject, &got, outcome.delivered);
            }
        }
        assert_eq!(account.counters().subscriptions, held.len() as u64);
        let listed: Vec<u64> = account
            .subscriptions()
            .iter()
            .map(|held| held.id())
            .collect();
        assert_eq!(
            listed,
            held.iter().map(|held| held.live.id()).collect::<Vec<_>>()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn any_program_agrees_with_the_naive_broker(steps in proptest::collection::vec(step(), 1..80)) {
        run(steps);
    }
}

#[test]
fn groups_spread_their_messages() {
    let account = Broker::new().global();
    let recorder = Arc::new(Recorder::default());
    // One group over filters that differ, as clients make them.
    for filter in ["jobs.*", "jobs.>", "jobs.a"] {
        account
            .subscribe(filter.as_bytes(), Some(b"workers"), recorder.clone())
            .unwrap();
    }
    let mut router = Router::new(account);
    for _ in 0..300 {
        assert_eq!(router.publish(&Publish::new(b"jobs.a", b"")).delivered, 1);
    }
    let got = recorder.take();
    for id in 1..=3 {
        let share = got.iter().filter(|(to, ..)| *to == id).count();
        assert!(
            (50..150).contains(&share),
            "subscription {id} got {share} of 300"
        );
    }
}

#[test]
fn watches_hear_of_interest_coming_and_going() {
    let account = Broker::new().global();
    let recorder = Arc::new(Recorder::default());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let note = heard.clone();
    let watch = account.watch_interest(b"in.box", move |interest| note.lock().push(interest));
    assert_eq!(*heard.lock(), [false]);
    let wild = account.subscribe(b"in.*", None, recorder.clone()).unwrap();
    let literal = account
        .subscribe(b"in.box", None, recorder.clone())
        .unwrap();
    let other = account.subscribe(b"in.bo", None, recorder.clone()).unwrap();
    account.unsubscribe(&wild);
    assert_eq!(*heard.lock(), [false, true]);
    account.unsubscribe(&literal);
    account.unsubscribe(&other);
    assert_eq!(*heard.lock(), [false, true, false]);
    drop(watch);
    account.subscribe(b">", None, recorder).unwrap();
    assert_eq!(heard.lock().len(), 3);
}

#[test]
fn accounts_do_not_hear_each_other() {
    let broker = Broker::new();
    let recorder = Arc::new(Recorder::default());
    broker
        .account_or_create("other")
        .subscribe(b">", None, recorder.clone())
        .unwrap();
    assert_eq!(
        broker.global().publish(&Publish::new(b"a", b"")).delivered,
        0
    );
    assert_eq!(
        broker
            .account("other")
            .unwrap()
            .publish(&Publish::new(b"a", b""))
            .delivered,
        1
    );
    assert_eq!(recorder.take().len(), 1);
    assert!(broker.account("third").is_none());
}

/// The deepest filter that is taken is walked on a small stack: subscribing, matching, listing, leaving, dropping.
#[test]
fn the_deepest_filter_fits_a_small_stack_and_a_deeper_one_is_refused() {
    let deep = |tokens: usize| vec!["a"; tokens].join(".").into_bytes();
    let walk = move || {
        let account = Broker::new().global();
        let recorder = Arc::new(Recorder::default());
        let deepest = deep(subject::TOKENS_MAX);
        let stars = vec!["*"; subject::TOKENS_MAX].join(".").into_bytes();
        let first = account.subscribe(&deepest, None, recorder.clone()).unwrap();
        let second = account.subscribe(&stars, None, recorder.clone()).unwrap();
        assert_eq!(account.publish(&Publish::new(&deepest, b"")).delivered, 2);
        assert_eq!(account.subscriptions().len(), 2);
        assert!(account.unsubscribe(&first));
        assert!(account.interest(&deepest));
        assert!(account.unsubscribe(&second));
        assert!(!account.interest(&deepest));
        account.subscribe(&deepest, None, recorder.clone()).unwrap();
        for refused in [
            deep(subject::TOKENS_MAX + 1),
            vec![b'a'; subject::BYTES_MAX + 1],
        ] {
            assert!(account.subscribe(&refused, None, recorder.clone()).is_err());
        }
        // A published subject may be as deep as it likes: it is walked as far as filters go.
        assert_eq!(
            account
                .publish(&Publish::new(&deep(500_000), b""))
                .delivered,
            0
        );
    };
    // A quarter of what a worker has.
    #[expect(
        clippy::disallowed_methods,
        reason = "the size of the stack matters here"
    )]
    let thread = std::thread::Builder::new().stack_size(1 << 19).spawn(walk);
    thread.unwrap().join().unwrap();
}

/// A list with as many members costs each that comes or goes its logarithm: with its length, this takes minutes.
#[test]
fn many_subscriptions_of_one_filter_and_many_groups_come_and_go() {
    let account = Broker::new().global();
    let recorder = Arc::new(Recorder::default());
    let mut held = Vec::new();
    for number in 0..150_000_usize {
        let queue = (number % 2 == 0).then(|| number.to_string().into_bytes());
        let made = account.subscribe(b"one", queue.as_deref(), recorder.clone());
        held.push(made.unwrap());
    }
    let wild = account
        .subscribe(b"*", Some(b"0"), recorder.clone())
        .unwrap();
    let outcome = account.publish(&Publish::new(b"one", b""));
    assert_eq!(
        outcome.delivered, 150_000,
        "the group of two filters gets one"
    );
    assert_eq!(recorder.take().len(), 150_000);
    // Not in the order of coming.
    let (odd, even): (Vec<_>, Vec<_>) = held.iter().enumerate().partition(|(at, _)| at % 3 == 1);
    for (_, subscription) in odd.into_iter().chain(even) {
        assert!(account.unsubscribe(subscription));
    }
    assert!(account.unsubscribe(&wild));
    assert!(!account.interest(b"one"));
}
