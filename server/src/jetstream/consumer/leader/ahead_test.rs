//! The leader sends before the log knows, and the log lags behind: whatever comes in between, a message is sent until it
//! is acknowledged, and never again once that is applied; also after a crash that loses the end of the log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::Ahead;
use crate::jetstream::config::Retention;
use crate::jetstream::consumer::command::{Ack, Command, Verb};
use crate::jetstream::consumer::config::{AckPolicy, ConsumerConfig};
use crate::jetstream::consumer::set::{Consumers, Reply};
use crate::jetstream::consumer::stage::Stage;

const ACK_WAIT: u64 = 30;
const SUBJECTS: [&str; 3] = ["a.1", "a.2", "a.b.1"];

#[derive(Debug, Clone)]
enum Step {
    Publish(usize),
    Send(usize),
    Ack(usize),
    Nak(usize),
    Wait(u64),
    Delete(usize),
    Purge,
    Apply(usize),
    /// All but so many of the commands under way are lost, and the leader's memory with them.
    Crash(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..SUBJECTS.len()).prop_map(Step::Publish),
        6 => (1..6_usize).prop_map(Step::Send),
        6 => any::<usize>().prop_map(Step::Ack),
        2 => any::<usize>().prop_map(Step::Nak),
        2 => (1..40_u64).prop_map(Step::Wait),
        1 => any::<usize>().prop_map(Step::Delete),
        1 => Just(Step::Purge),
        6 => (1..4_usize).prop_map(Step::Apply),
        1 => (0..4_usize).prop_map(Step::Crash),
    ]
}

/// One command under way.
enum Logged {
    Sent(Vec<u8>),
    Answer(u64, Vec<u8>),
    Tick(u64),
    Delete(u64),
    Purge,
}

struct World {
    stage: Stage,
    ahead: Ahead,
    log: VecDeque<Logged>,
    /// Sent and not answered, as the client sees it.
    open: BTreeSet<u64>,
    /// Acknowledged, and that is applied: what a client that asked for it would have been told.
    confirmed: BTreeSet<u64>,
    /// How often, since the last crash.
    sent: BTreeMap<u64, u32>,
    pending_max: usize,
}

impl World {
    fn send(&mut self, most: usize) -> usize {
        let consumer = self.stage.consumers.find("C").unwrap();
        self.ahead.settle(consumer);
        let mut count = 0;
        while count < most
            && let Some(next) = self.ahead.next(consumer, &self.stage.shelf)
        {
            let before = self.ahead.delivered(consumer).consumer;
            let unseen = self.ahead.unseen(consumer, &self.stage.shelf);
            let consumer_seq = self.ahead.send(&next, consumer);
            assert!(consumer_seq > before, "consumer sequences rise");
            let fewer = u64::from(next.is_new());
            assert_eq!(
                self.ahead.unseen(consumer, &self.stage.shelf),
                unseen - fewer
            );
            assert!(
                self.stage.shelf.held.contains_key(&next.seq),
                "{} is gone",
                next.seq
            );
            assert!(
                !self.confirmed.contains(&next.seq),
                "{} was acknowledged, and comes again",
                next.seq
            );
            let sent = self.sent.entry(next.seq).or_default();
            assert!(
                *sent == 0 || !next.is_new(),
                "{} is new for the second time",
                next.seq
            );
            *sent += 1;
            self.open.insert(next.seq);
            count += 1;
        }
        let new = self.ahead.unlogged_new;
        assert!(
            consumer.unacked() <= self.pending_max && new <= self.pending_max,
            "no more than may wait"
        );
        if let Some(body) = self.ahead.take_report(consumer.id()) {
            self.log.push_back(Logged::Sent(body));
        }
        count
    }

    fn pick(&self, at: usize) -> Option<u64> {
        let open: Vec<u64> = self.open.iter().copied().collect();
        open.get(at % open.len().max(1)).copied()
    }

    fn answer(&mut self, at: usize, verb: Verb<'_>) {
        let Some(seq) = self.pick(at) else { return };
        if verb == Verb::Ack {
            self.open.remove(&seq);
        }
        let id = self.stage.consumer("C").id();
        let acks = vec![Ack {
            stream_seq: seq,
            consumer_seq: self.ahead.delivered(self.stage.consumer("C")).consumer,
            verb,
        }];
        let body = Command::Acks { id, acks }.to_bytes();
        let of = if verb == Verb::Ack { seq } else { 0 };
        self.log.push_back(Logged::Answer(of, body));
    }

    fn apply(&mut self, count: usize) {
        for _ in 0..count {
            match self.log.pop_front() {
                None => return,
                Some(Logged::Sent(body)) => {
                    let reply = self.stage.run(|consumers, ctx| consumers.apply(&body, ctx));
                    assert_eq!(reply, Reply::Done);
                }
                Some(Logged::Answer(seq, body)) => {
                    self.stage.run(|consumers, ctx| consumers.apply(&body, ctx));
                    self.confirmed.insert(seq);
                }
                Some(Logged::Tick(seconds)) => {
                    self.stage.now = self.stage.now + Duration::from_secs(seconds);
                    self.stage.run(Consumers::tick);
                }
                Some(Logged::Delete(seq)) => {
                    self.stage.delete(seq);
                }
                Some(Logged::Purge) => self.stage.purge(),
            }
            self.stage.consumer("C").pending.check();
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Publish(at) => {
                self.stage.publish(SUBJECTS[at]);
            }
            Step::Send(most) => {
                self.send(most);
            }
            Step::Ack(at) => self.answer(at, Verb::Ack),
            Step::Nak(at) => self.answer(at, Verb::Nak(0)),
            Step::Wait(seconds) => self.log.push_back(Logged::Tick(seconds)),
            Step::Delete(at) => {
                let held: Vec<u64> = self.stage.shelf.held.keys().copied().collect();
                if let Some(seq) = held.get(at % held.len().max(1)) {
                    self.log.push_back(Logged::Delete(*seq));
                }
            }
            Step::Purge => self.log.push_back(Logged::Purge),
            Step::Apply(count) => self.apply(count),
            Step::Crash(kept) => {
                self.apply(kept);
                self.log.clear();
                self.ahead.reset();
                self.sent.clear();
                self.stage.restart();
                // An answer to what the log has never heard of says nothing.
                let consumer = self.stage.consumer("C");
                self.open = consumer.unanswered().map(|(seq, _)| seq).collect();
            }
        }
    }

    /// Once the log is applied, the leader knows nothing that the state does not; and all that is there gets done.
    fn drain(&mut self) {
        for _ in 0..1000 {
            self.apply(usize::MAX);
            let consumer = self.stage.consumer("C");
            self.ahead.settle(consumer);
            assert_eq!(self.ahead, Ahead::default());
            let sent = self.send(100);
            while self.pick(0).is_some() {
                self.answer(0, Verb::Ack);
            }
            if sent == 0 && self.log.is_empty() {
                break;
            }
        }
        let consumer = self.stage.consumer("C");
        assert_eq!(consumer.unacked(), 0);
        assert_eq!(consumer.unseen(&self.stage.shelf), 0);
        assert_eq!(consumer.floor(), consumer.delivered());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn what_is_confirmed_never_comes_again(
        steps in prop::collection::vec(step(), 1..150),
        pending_max in 1..8_i64,
        work_queue: bool,
        filtered: bool,
    ) {
        let retention = if work_queue { Retention::WorkQueue } else { Retention::Limits };
        let mut stage = Stage::new(retention);
        let config = ConsumerConfig {
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT.cast_signed() * 1_000_000_000,
            max_deliver: -1,
            max_ack_pending: pending_max,
            filter_subjects: match filtered {
                true => vec!["a.1".to_owned(), "a.b.*".to_owned()],
                false => Vec::new(),
            },
            ..ConsumerConfig::default()
        };
        stage.create("C", config).unwrap();
        let mut world = World {
            stage,
            ahead: Ahead::default(),
            log: VecDeque::new(),
            open: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            sent: BTreeMap::new(),
            pending_max: usize::try_from(pending_max).unwrap(),
        };
        for step in &steps {
            world.take(step);
        }
        world.drain();
        if work_queue {
            // What is left was never wanted.
            for (subject, _) in world.stage.shelf.held.values() {
                prop_assert!(filtered && subject == "a.2");
            }
        }
    }
}
