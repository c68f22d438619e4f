//! Every limit of a stream at once, against a naive stream that looks at each message: number, bytes, messages of a subject,
//! size, discard, age, life spans and markers; with deletes, purges, changes of the limits, flushes and restarts.

use std::collections::BTreeMap;

use halyard_engine::{FOREVER, Message, Overhead};
use proptest::prelude::*;

use super::Reply;
use super::command::{Kind, MessageDelete, Purge, StreamUpdate};
use super::machine_test::{Bench, S, SECOND, subjects};
use crate::jetstream::config::{Defaults, Discard, StreamConfig, normalize};

const ETERNAL: i64 = FOREVER.as_nanos();
const SUBJECTS: u8 = 4;

/// What is known of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
struct One {
    subject: u8,
    size: u64,
    time: i64,
    expires: Option<i64>,
    /// It says itself that its subject ended: no marker follows it.
    is_end: bool,
}

/// A message on its way.
#[derive(Debug, Clone)]
struct Wish {
    subject: u8,
    payload: usize,
    ttl: Ttl,
    rollup: bool,
    purged_key: bool,
}

#[derive(Debug, Clone, Copy)]
enum Ttl {
    None,
    Seconds(i64),
    Never,
}

/// What a person would write down: every message that should be there.
#[derive(Default)]
struct Naive {
    messages: BTreeMap<u64, One>,
    last: u64,
}

impl Naive {
    fn bytes(&self) -> u64 {
        self.messages.values().map(|one| one.size).sum()
    }

    fn of(&self, subject: u8) -> Vec<u64> {
        let of = self
            .messages
            .iter()
            .filter(|(_, one)| one.subject == subject);
        of.map(|(seq, _)| *seq).collect()
    }

    /// Why a stream that refuses what does not fit refuses it.
    fn refuses(
        &self,
        config: &StreamConfig,
        subject: u8,
        size: u64,
        rollup: bool,
    ) -> Option<&'static str> {
        if config.discard != Discard::New {
            return None;
        }
        let mut replaced = 0;
        if let Some(max) = StreamConfig::limit(config.max_msgs_per_subject) {
            let of = self.of(subject);
            if of.len() as u64 >= max {
                if config.discard_new_per_subject && !rollup {
                    return Some("10077 maximum messages per subject exceeded");
                }
                replaced = self.messages[&of[0]].size;
            }
        }
        let count = self.messages.len() as u64;
        if StreamConfig::limit(config.max_msgs).is_some_and(|max| replaced == 0 && count >= max) {
            return Some("10077 maximum messages exceeded");
        }
        let bytes = self.bytes() - replaced + size;
        StreamConfig::limit(config.max_bytes)
            .is_some_and(|max| bytes > max)
            .then_some("10077 maximum bytes exceeded")
    }

    fn store(&mut self, config: &StreamConfig, one: One) -> u64 {
        let subject = one.subject;
        self.last += 1;
        self.messages.insert(self.last, one);
        if let Some(max) = StreamConfig::limit(config.max_msgs_per_subject) {
            self.keep_newest(subject, max);
        }
        self.trim(config);
        self.last
    }

    fn keep_newest(&mut self, subject: u8, max: u64) {
        let of = self.of(subject);
        let over = (of.len() as u64).saturating_sub(max) as usize;
        for seq in &of[..over] {
            self.messages.remove(seq);
        }
    }

    fn trim(&mut self, config: &StreamConfig) {
        if config.discard == Discard::New {
            return;
        }
        let over = |naive: &Self| {
            let count = naive.messages.len() as u64;
            StreamConfig::limit(config.max_msgs).is_some_and(|max| count > max)
                || StreamConfig::limit(config.max_bytes).is_some_and(|max| naive.bytes() > max)
        };
        while over(self) {
            self.messages.pop_first();
        }
    }

    fn publish(&mut self, config: &StreamConfig, wish: &Wish, now: i64) -> String {
        let mut headers = wish.headers();
        let length = |headers: &str| (headers.len() + wish.payload) as i64;
        if config.max_msg_size > 0 && length(&headers) > config.max_msg_size {
            return "10054 message size exceeds maximum allowed".into();
        }
        if !config.allow_msg_ttl && !matches!(wish.ttl, Ttl::None) {
            return "10166 per-message TTL is disabled".into();
        }
        if wish.rollup && !config.allow_rollup_hdrs {
            return "10111 rollup not permitted".into();
        }
        let marker = config.subject_delete_marker_ttl / SECOND;
        let expires = match wish.ttl {
            Ttl::None => None,
            Ttl::Never => Some(ETERNAL),
            Ttl::Seconds(seconds) if seconds < marker && config.max_msgs_per_subject != 1 => {
                let (short, long) = (format!("{seconds}"), format!("{marker}"));
                headers.push_str(&" ".repeat(long.len() - short.len()));
                Some(now + marker * SECOND)
            }
            Ttl::Seconds(seconds) => Some(now + seconds * SECOND),
        };
        let size = size(headers.len(), wish.payload);
        if let Some(why) = self.refuses(config, wish.subject, size, wish.rollup) {
            return why.into();
        }
        let one = One {
            subject: wish.subject,
            size,
            time: now,
            expires,
            is_end: wish.purged_key,
        };
        if wish.rollup {
            // What it replaces goes before limits are looked at.
            self.messages.retain(|_, one| one.subject != wish.subject);
        }
        format!("ok {}", self.store(config, one))
    }

    /// When the next message goes by itself.
    fn deadline(&self, config: &StreamConfig) -> Option<i64> {
        let ends = |one: &One| {
            let age = (config.max_age > 0 && one.expires != Some(ETERNAL))
                .then_some(one.time + config.max_age);
            one.expires
                .filter(|end| *end != ETERNAL)
                .into_iter()
                .chain(age)
                .min()
        };
        self.messages.values().filter_map(ends).min()
    }

    fn tick(&mut self, config: &StreamConfig, now: i64) {
        let mut own: Vec<(i64, u64)> = self
            .messages
            .iter()
            .filter_map(|(seq, one)| Some((one.expires?, *seq)))
            .filter(|(end, _)| *end <= now)
            .collect();
        own.sort_unstable();
        for (_, seq) in own {
            self.end(config, seq, now);
        }
        let aged = |one: &One| {
            config.max_age > 0 && one.time + config.max_age <= now && one.expires != Some(ETERNAL)
        };
        let old: Vec<u64> = self
            .messages
            .iter()
            .filter(|(_, one)| aged(one))
            .map(|(seq, _)| *seq)
            .collect();
        for seq in old {
            self.end(config, seq, now);
        }
    }

    fn end(&mut self, config: &StreamConfig, seq: u64, now: i64) {
        // A marker that was stored a moment ago may have pushed it out.
        let Some(one) = self.messages.remove(&seq) else {
            return;
        };
        let seconds = config.subject_delete_marker_ttl / SECOND;
        if seconds == 0 || one.is_end || !self.of(one.subject).is_empty() {
            return;
        }
        let headers = format!(
            "NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: {seconds}s\r\nNats-Rollup: sub\r\n\r\n"
        );
        let size = size(headers.len(), 0);
        if self.refuses(config, one.subject, size, false).is_none() {
            let marker = One {
                subject: one.subject,
                size,
                time: now,
                expires: Some(now + seconds * SECOND),
                is_end: true,
            };
            self.store(config, marker);
        }
    }
}

fn size(headers: usize, payload: usize) -> u64 {
    let overhead = Overhead::FILE;
    let extra = if headers > 0 {
        overhead.headers_bytes
    } else {
        0
    };
    ("s.0".len() + headers + payload) as u64 + u64::from(overhead.message_bytes + extra)
}

impl Wish {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        match self.ttl {
            Ttl::None => {}
            Ttl::Seconds(seconds) => pairs.push(("Nats-TTL", seconds.to_string())),
            Ttl::Never => pairs.push(("Nats-TTL", "never".into())),
        }
        if self.rollup {
            pairs.push(("Nats-Rollup", "sub".into()));
        }
        if self.purged_key {
            pairs.push(("KV-Operation", "PURGE".into()));
        }
        pairs
    }

    /// The block as it is sent, empty without any.
    fn headers(&self) -> String {
        let pairs = self.pairs();
        if pairs.is_empty() {
            return String::new();
        }
        let lines = pairs
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        format!("NATS/1.0\r\n{}\r\n", lines.collect::<String>())
    }

    fn send(&self, bench: &mut Bench) -> String {
        let pairs = self.pairs();
        let pairs: Vec<(&str, &str)> = pairs
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        bench.said(
            &format!("s.{}", self.subject),
            &pairs,
            &vec![b'x'; self.payload],
        )
    }
}

/// What the machine holds, as the naive stream writes it down.
fn held(bench: &Bench) -> BTreeMap<u64, One> {
    let one = |message: Message| One {
        subject: message.subject()[2] - b'0',
        size: message.size(),
        time: message.time.as_nanos(),
        expires: message.expires.map(|end| end.as_nanos()),
        is_end: {
            let headers = String::from_utf8_lossy(message.headers()).into_owned();
            headers.contains("Nats-Marker-Reason: MaxAge") || headers.contains("PURGE")
        },
    };
    let get = |seq| bench.machine.store().get(S, seq).unwrap().unwrap();
    bench
        .sequences()
        .into_iter()
        .map(|seq| (seq, one(get(seq))))
        .collect()
}

/// Lets time pass as the driver does: a tick whenever the machine says that one is due. Each side goes by its own clock.
fn pass(bench: &mut Bench, naive: &mut Naive, config: &StreamConfig, nanos: i64) {
    let (start, end) = (bench.now, bench.now + nanos);
    let mut ticks = 0;
    while let Some(due) = bench
        .machine
        .next_deadline()
        .filter(|due| due.as_nanos() <= end)
    {
        bench.now = bench.now.max(due.as_nanos());
        bench.tick();
        ticks += 1;
        assert!(ticks < 2_000, "a tick does what is due");
    }
    bench.now = end;
    let mut now = start;
    while let Some(due) = naive.deadline(config).filter(|due| *due <= end) {
        now = now.max(due);
        naive.tick(config, now);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish(Wish),
    Pass(i64),
    Delete(u64),
    Purge(Option<u8>, u64, u64),
    Change(Limits),
    Flush,
    Restart,
}

/// The limits of a stream.
#[derive(Debug, Clone)]
struct Limits {
    messages: i64,
    bytes: i64,
    subject: i64,
    size: i64,
    age: i64,
    marker: i64,
    new: bool,
    new_per_subject: bool,
}

impl Limits {
    fn config(&self, allow_msg_ttl: bool) -> StreamConfig {
        let new_per_subject = self.new && self.new_per_subject && self.subject > 0;
        let config = StreamConfig {
            name: "S".into(),
            max_msgs: self.messages,
            max_bytes: self.bytes,
            max_msgs_per_subject: self.subject,
            max_msg_size: self.size,
            max_age: self.age * SECOND / 2,
            subject_delete_marker_ttl: self.marker * SECOND,
            discard: if self.new { Discard::New } else { Discard::Old },
            discard_new_per_subject: new_per_subject,
            allow_msg_ttl,
            ..subjects(&["s.*"])
        };
        normalize(config, &Defaults::default())
    }
}

/// One time in two without a limit.
fn limit(range: std::ops::Range<i64>) -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), range]
}

fn limits() -> impl Strategy<Value = Limits> {
    (
        (limit(1..9), limit(60..900), limit(1..4), limit(40..200)),
        (limit(1..20), limit(1..12), any::<bool>(), any::<bool>()),
    )
        .prop_map(
            |((messages, bytes, subject, size), (age, marker, new, new_per_subject))| Limits {
                messages,
                bytes,
                subject,
                size,
                age,
                marker,
                new,
                new_per_subject,
            },
        )
}

fn wish() -> impl Strategy<Value = Wish> {
    let ttl = prop_oneof![
        3 => Just(Ttl::None),
        4 => (1_i64..12).prop_map(Ttl::Seconds),
        1 => Just(Ttl::Never),
    ];
    let seldom = || prop::bool::weighted(0.1);
    (0..SUBJECTS, 0_usize..60, ttl, seldom(), seldom()).prop_map(
        |(subject, payload, ttl, rollup, purged_key)| Wish {
            subject,
            payload,
            ttl,
            rollup,
            purged_key,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => wish().prop_map(Step::Publish),
        6 => (0_i64..8_000_000_000).prop_map(Step::Pass),
        1 => (1_u64..40).prop_map(Step::Delete),
        1 => (prop::option::of(0..SUBJECTS), 0_u64..30, 0_u64..4)
            .prop_map(|(subject, below, keep)| Step::Purge(subject, if keep > 0 { 0 } else { below }, keep)),
        1 => limits().prop_map(Step::Change),
        1 => Just(Step::Flush),
        1 => Just(Step::Restart),
    ]
}

/// Does a step on both sides.
fn play(bench: &mut Bench, naive: &mut Naive, config: &mut StreamConfig, step: &Step) {
    match step {
        Step::Publish(wish) => {
            let expected = naive.publish(config, wish, bench.now);
            assert_eq!(wish.send(bench), expected, "{wish:?}");
        }
        Step::Pass(nanos) => pass(bench, naive, config, *nanos),
        Step::Delete(seq) => {
            let reply = bench.cold(
                Kind::MessageDelete,
                &MessageDelete {
                    seq: *seq,
                    erase: false,
                },
            );
            let was_there = naive.messages.remove(seq).is_some();
            assert_eq!(matches!(reply, Reply::Done), was_there);
        }
        Step::Purge(subject, below, keep) => {
            let filter = subject.map_or_else(String::new, |subject| format!("s.{subject}"));
            let (below, keep) = (*below, *keep);
            bench.cold(
                Kind::Purge,
                &Purge {
                    filter,
                    below,
                    keep,
                },
            );
            let mut hit: Vec<u64> = naive
                .messages
                .iter()
                .filter(|(seq, one)| {
                    subject.is_none_or(|subject| subject == one.subject)
                        && (below == 0 || **seq < below)
                })
                .map(|(seq, _)| *seq)
                .collect();
            hit.truncate(hit.len().saturating_sub(keep as usize));
            for seq in hit {
                naive.messages.remove(&seq);
            }
            if subject.is_none() {
                // The next message has the sequence that the purge ends before.
                naive.last = naive.last.max(below.saturating_sub(1));
            }
        }
        Step::Change(limits) => {
            *config = limits.config(config.allow_msg_ttl);
            bench.cold(
                Kind::StreamUpdate,
                &StreamUpdate {
                    config: config.clone(),
                },
            );
            if let Some(max) = StreamConfig::limit(config.max_msgs_per_subject) {
                (0..SUBJECTS).for_each(|subject| naive.keep_newest(subject, max));
            }
            naive.trim(config);
            naive.tick(config, bench.now);
        }
        Step::Flush => bench.flush(),
        Step::Restart => bench.restart(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_limit_agrees_with_a_naive_stream(
        first in limits(),
        ttl in any::<bool>(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut config = first.config(ttl);
        let mut bench = Bench::with(config.clone());
        let mut naive = Naive::default();
        for step in steps {
            play(&mut bench, &mut naive, &mut config, &step);
            prop_assert_eq!(&held(&bench), &naive.messages, "after {:?}", step);
            let state = bench.machine.store().state(S).unwrap();
            prop_assert_eq!((state.last_seq, state.bytes), (naive.last, naive.bytes()));
        }
        bench.machine.store().check().unwrap();
    }
}
