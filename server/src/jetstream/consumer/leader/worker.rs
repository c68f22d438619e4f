//! One consumer's waiting side: who asked, what is under way, when it wants to be looked at.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use halyard_runtime::time::{Instant, Timestamp};

use super::ahead::Ahead;
use super::pull::Request;
use super::push::Push;
use crate::broker::Account;
use crate::jetstream::consumer::command::AckWriter;
use crate::jetstream::consumer::config::{AckPolicy, ConsumerConfig};
use crate::jetstream::consumer::machine::{Consumer, Position};
use crate::jetstream::consumer::messages::Messages;

/// Where a consumer without acks stands: here only, the log hears of it now and then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// Sequence in the stream up to which all is sent or passed over. What is behind it is the replicated cursor's, which hears
    /// of each message that goes.
    pub passed: u64,
    /// Messages before it that nobody took.
    pub again: BTreeSet<u64>,
    /// The last one sent.
    pub reached: Position,
    /// When that was.
    pub at: Timestamp,
    /// What the log knows.
    pub logged: u64,
}

impl Local {
    /// Nobody took these messages of a batch: they are sent again when somebody listens.
    pub fn take_back(&mut self, missed: &[u64]) {
        self.again.extend(missed);
        self.reached.consumer = self.reached.consumer.saturating_sub(missed.len() as u64);
    }

    /// A message was sent.
    pub fn sent(&mut self, delivery: Position) {
        if !self.again.remove(&delivery.stream) {
            self.passed = delivery.stream;
        }
        self.reached = delivery;
    }

    /// How far all is sent: what the log is to know.
    pub fn complete(&self) -> Position {
        let open = self.again.first();
        let stream = open.map_or(self.passed, |first| first.saturating_sub(1));
        Position {
            consumer: self.reached.consumer,
            stream: stream.min(self.passed),
        }
    }

    /// The next message to send.
    pub fn next(&mut self, consumer: &Consumer, messages: &dyn Messages) -> Option<u64> {
        while let Some(seq) = self.again.first().copied() {
            if messages.contains(seq) {
                return Some(seq);
            }
            self.again.pop_first();
        }
        let cursor = consumer.cursor();
        cursor.peek_after(self.passed, consumer.filters(), messages)
    }

    /// How many messages are to come. Exact.
    pub fn unseen(&self, consumer: &Consumer, messages: &dyn Messages) -> u64 {
        let held = |seq: &&u64| messages.contains(**seq);
        let again = self.again.iter().filter(held).count() as u64;
        let cursor = consumer.cursor();
        again + cursor.count_after(self.passed, consumer.filters(), messages)
    }
}

/// An answer that is to be confirmed.
#[derive(Debug)]
pub struct Confirm {
    /// Its number among those of the same command.
    pub number: u32,
    /// Where the confirmation goes.
    pub reply: Bytes,
}

/// One consumer's waiting side.
pub struct Worker {
    /// Its configuration.
    pub config: ConsumerConfig,
    /// `$JS.ACK.<stream>.<consumer>.`
    pub ack_prefix: Vec<u8>,
    /// Requests in the order of their turns.
    pub waiting: VecDeque<Request>,
    /// Delivery with acks: what was sent and is on its way into the log.
    pub ahead: Ahead,
    /// Its commands in the log that are not answered yet.
    pub under_way: usize,
    /// No new message may go out until something is acked or logged, whether one is there or not.
    pub is_blocked: bool,
    /// The message that could not be read when it was to be sent.
    pub unreadable: Option<u64>,
    /// Answers on their way into the log.
    pub acks: AckWriter,
    /// Commands with answers that were submitted, and that were applied or refused.
    pub acks_submitted: u64,
    /// See there.
    pub acks_applied: u64,
    /// A request waits until so many of them are applied.
    pub held_until: Option<u64>,
    /// Who wants to hear that they are in it.
    pub confirms: Vec<Confirm>,
    /// No message of the stream is older, those aside that came with times of their own.
    pub since: Timestamp,
    /// Push delivery.
    pub push: Option<Push>,
    /// Delivery without acks.
    pub local: Option<Local>,
    /// Not before then: a pause, or the gap of a replay.
    pub resume_at: Option<Instant>,
    /// Store time and moment of the last message of a replay.
    pub replayed: Option<(Timestamp, Instant)>,
    /// When progress goes to the log.
    pub log_at: Option<Instant>,
    /// When it was last used.
    pub used_at: Instant,
    /// What is registered with the desk's clock.
    pub timer: Option<Instant>,
}

impl Worker {
    /// The waiting side of a consumer that nobody has asked yet.
    pub fn new(stream: &str, consumer: &Consumer, since: Timestamp, now: Instant) -> Self {
        let config = consumer.config().clone();
        let local = (config.ack_policy == AckPolicy::None).then(|| Local {
            passed: consumer.cursor().position().saturating_sub(1),
            again: BTreeSet::new(),
            reached: consumer.delivered(),
            at: consumer
                .delivered_at()
                .unwrap_or_else(|| consumer.created()),
            logged: consumer.delivered().consumer,
        });
        Self {
            ack_prefix: format!("$JS.ACK.{stream}.{}.", config.name).into_bytes(),
            waiting: VecDeque::new(),
            ahead: Ahead::default(),
            under_way: 0,
            is_blocked: false,
            unreadable: None,
            acks: AckWriter::new(consumer.id()),
            acks_submitted: 0,
            acks_applied: 0,
            held_until: None,
            confirms: Vec::new(),
            since,
            push: None,
            local,
            resume_at: None,
            replayed: None,
            log_at: None,
            used_at: now,
            timer: None,
            config,
        }
    }

    /// Whether somebody wants messages and may get them.
    pub fn has_demand(&self, now: Instant) -> bool {
        if self.resume_at.is_some_and(|at| at > now) {
            return false;
        }
        match &self.push {
            Some(push) => push.is_open(now),
            None => !self.waiting.is_empty(),
        }
    }

    /// How many commands with answers there will be once all that came is submitted.
    pub fn acks_said(&self) -> u64 {
        self.acks_submitted + u64::from(!self.acks.is_empty())
    }

    /// Commands with answers were applied, so many in all. Whether a request has waited for it.
    pub fn acks_done(&mut self, applied: u64) -> bool {
        self.acks_applied = applied;
        let waited = self.held_until.is_some_and(|until| until <= applied);
        if waited {
            self.held_until = None;
        }
        waited
    }

    /// Ends requests with `404`, those of which `ends` says so, except those that came behind answers that are not applied
    /// yet: what comes of these may be for them.
    pub fn end(&mut self, ends: impl Fn(&Request) -> bool, mut tell: impl FnMut(&Request)) {
        let (applied, held_until) = (self.acks_applied, &mut self.held_until);
        self.waiting.retain(|request| {
            if !ends(request) {
                return true;
            }
            if request.after > applied {
                let until = held_until.map_or(request.after, |until| until.min(request.after));
                *held_until = Some(until);
                return true;
            }
            tell(request);
            false
        });
    }

    /// Forgets requests whose clients are gone.
    pub fn drop_gone(&mut self, account: &Account) {
        self.waiting
            .retain(|request| account.interest(&request.reply));
    }

    /// Whether requests wait though messages may be there: too many wait for an ack, it is paused or replays gaps, the log has
    /// refused what was sent, or a message could not be read.
    pub fn is_held_back(&self, now: Instant) -> bool {
        let is_held = self.is_blocked || self.resume_at.is_some_and(|at| at > now);
        is_held && !self.waiting.is_empty()
    }

    /// Messages that those who wait have asked for and not got.
    pub fn asked(&self) -> u64 {
        let asked = self.waiting.iter().map(|request| request.batch);
        asked
            .map(|batch| u64::try_from(batch).unwrap_or(0))
            .fold(0, u64::saturating_add)
    }

    /// Puts requests back after a batch: those that got nothing come first again, then those that came meanwhile, then
    /// those that got something.
    pub fn put_back(&mut self, turns: Vec<(bool, Request)>) {
        let (served, unserved): (Vec<_>, Vec<_>) =
            turns.into_iter().partition(|(served, _)| *served);
        for (_, request) in unserved.into_iter().rev() {
            self.waiting.push_front(request);
        }
        self.waiting
            .extend(served.into_iter().map(|(_, request)| request));
    }

    /// Who waits uses it until now: a consumer is idle from the end of the last request on.
    pub fn note_use(&mut self, now: Instant) {
        if self.is_in_use() {
            self.used_at = self.used_at.max(now);
        }
    }

    /// How long it may be idle.
    pub fn idle_max(&self) -> Option<Duration> {
        let nanos = u64::try_from(self.config.inactive_threshold)
            .ok()
            .filter(|nanos| *nanos > 0)?;
        Some(Duration::from_nanos(nanos))
    }

    /// Whether somebody uses it at this moment.
    pub fn is_in_use(&self) -> bool {
        !self.waiting.is_empty() || self.push.as_ref().is_some_and(|push| push.bound)
    }

    /// When it wants to be looked at next, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let idle = self.idle_max().map(|max| self.used_at + max);
        let idle = idle.filter(|_| self.push.as_ref().is_none_or(|push| !push.bound));
        let requests = self.waiting.iter().filter_map(Request::deadline).min();
        let push = self.push.as_ref().and_then(Push::deadline);
        [idle, requests, push, self.resume_at, self.log_at]
            .into_iter()
            .flatten()
            .min()
    }
}
