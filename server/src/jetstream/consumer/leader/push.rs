//! Push delivery's own state: whether somebody listens, how much may be under way, when to give a sign of life.

use std::time::Duration;

use bytes::Bytes;
use halyard_runtime::time::Instant;

use super::ack_subject::put_number;
use crate::broker::InterestWatch;
use crate::jetstream::consumer::config::ConsumerConfig;

/// Bytes that may be under way to a client with flow control, at first and at most. Each answer in time doubles it.
const WINDOW_BYTES_FIRST: u64 = 2 * 1024 * 1024;
const WINDOW_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// A rate limit keeps nothing back for longer: a century.
const LONGEST_NANOS: u64 = 100 * 366 * 86_400 * 1_000_000_000;

/// The window of a push consumer with flow control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// `$JS.FC.<stream>.<consumer>.`
    prefix: Vec<u8>,
    window: u64,
    under_way: u64,
    asked: Option<Asked>,
    last_id: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    id: u64,
    covers: u64,
}

impl Flow {
    /// An open window.
    pub fn new(stream: &str, consumer: &str) -> Self {
        let prefix = format!("$JS.FC.{stream}.{consumer}.").into_bytes();
        Self {
            prefix,
            window: WINDOW_BYTES_FIRST,
            under_way: 0,
            asked: None,
            last_id: 0,
        }
    }

    /// Whether another message may go.
    pub const fn is_open(&self) -> bool {
        self.under_way < self.window
    }

    /// Messages of so many bytes went out. Returns the reply subject of a flow-control request to send behind them.
    pub fn sent(&mut self, bytes: u64) -> Option<Vec<u8>> {
        self.under_way += bytes;
        if self.asked.is_some() || self.under_way <= self.window / 2 {
            return None;
        }
        self.last_id += 1;
        self.asked = Some(Asked {
            id: self.last_id,
            covers: self.under_way,
        });
        self.owed()
    }

    /// The client answered. Whether that opens the window further.
    pub fn answered(&mut self, id: u64) -> bool {
        let Some(asked) = self.asked.filter(|asked| asked.id == id) else {
            return false;
        };
        self.asked = None;
        self.under_way = self.under_way.saturating_sub(asked.covers);
        self.window = (self.window * 2).min(WINDOW_BYTES_MAX);
        true
    }

    /// The reply that the client still owes.
    pub fn owed(&self) -> Option<Vec<u8>> {
        let asked = self.asked?;
        let mut subject = self.prefix.clone();
        put_number(&mut subject, asked.id);
        Some(subject)
    }
}

/// A rate limit: a bucket of so many bytes that runs empty at the rate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rate {
    bits_per_second: u64,
    /// How long a full bucket takes.
    burst: Duration,
    /// How long what is in it takes, as of then.
    owed: Duration,
    as_of: Option<Instant>,
}

impl Rate {
    fn new(bits_per_second: u64, burst: u64) -> Option<Self> {
        (bits_per_second > 0).then(|| Self {
            bits_per_second,
            burst: cost(burst, bits_per_second),
            owed: Duration::ZERO,
            as_of: None,
        })
    }

    fn is_like(&self, other: &Self) -> bool {
        (self.bits_per_second, self.burst) == (other.bits_per_second, other.burst)
    }

    /// So many bytes went out. How long a message of the same size must wait, if it must.
    fn sent(&mut self, bytes: u64, now: Instant) -> Option<Duration> {
        let since = self.as_of.replace(now);
        let run_out = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let cost = cost(bytes, self.bits_per_second);
        self.owed = self.owed.saturating_sub(run_out).saturating_add(cost);
        let next = self.owed.saturating_add(cost.min(self.burst));
        next.checked_sub(self.burst).filter(|wait| !wait.is_zero())
    }
}

fn cost(bytes: u64, bits_per_second: u64) -> Duration {
    let nanos = u128::from(bytes) * 8_000_000_000 / u128::from(bits_per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX).min(LONGEST_NANOS))
}

/// Push delivery of one consumer.
pub struct Push {
    /// Where messages go.
    pub subject: Bytes,
    /// Somebody listens there.
    pub bound: bool,
    /// How much may be under way. `None`: no flow control.
    pub flow: Option<Flow>,
    heartbeat: Option<Duration>,
    /// When the next sign of life is due, if nothing is sent before.
    pub next_heartbeat: Option<Instant>,
    rate: Option<Rate>,
    /// When the rate limit lets the next message go.
    pub free_at: Option<Instant>,
    /// Ends with the consumer.
    _watch: InterestWatch,
}

impl Push {
    /// As configured; `watch` tells about interest in the subject.
    /// `burst` is what the rate limit lets go at once, in bytes.
    pub fn new(stream: &str, config: &ConsumerConfig, burst: u64, watch: InterestWatch) -> Self {
        let nanos = u64::try_from(config.idle_heartbeat).unwrap_or(0);
        Self {
            subject: Bytes::copy_from_slice(config.deliver_subject.as_bytes()),
            bound: false,
            flow: config.flow_control.then(|| Flow::new(stream, &config.name)),
            heartbeat: (nanos > 0).then(|| Duration::from_nanos(nanos)),
            next_heartbeat: None,
            rate: Rate::new(config.rate_limit_bps, burst),
            free_at: None,
            _watch: watch,
        }
    }

    /// Interest came or went: windows and clocks start anew.
    pub fn bind(&mut self, present: bool, now: Instant) {
        self.bound = present;
        if let Some(flow) = &mut self.flow {
            (flow.under_way, flow.asked, flow.window) = (0, None, WINDOW_BYTES_FIRST);
        }
        self.next_heartbeat = self.heartbeat.filter(|_| present).map(|every| now + every);
    }

    /// Whether a message may go now.
    pub fn is_open(&self, now: Instant) -> bool {
        self.bound
            && self.flow.as_ref().is_none_or(Flow::is_open)
            && self.free_at.is_none_or(|at| at <= now)
    }

    /// Whether there is a rate limit: messages go one by one then.
    pub const fn is_slow(&self) -> bool {
        self.rate.is_some()
    }

    /// Another rate limit holds from now on.
    pub fn limit(&mut self, bits_per_second: u64, burst: u64) {
        let changed = Rate::new(bits_per_second, burst);
        let is_same = |rate: &Rate| changed.as_ref().is_some_and(|new| new.is_like(rate));
        if !self.rate.as_ref().is_some_and(is_same) {
            self.rate = changed;
            self.free_at = None;
        }
    }

    /// Something of so many bytes was sent.
    pub fn sent(&mut self, bytes: u64, now: Instant) {
        self.next_heartbeat = self.heartbeat.map(|every| now + every);
        if let Some(rate) = &mut self.rate {
            self.free_at = rate.sent(bytes, now).map(|wait| now + wait);
        }
    }

    /// When it wants to be looked at next.
    pub fn deadline(&self) -> Option<Instant> {
        if !self.bound {
            return None;
        }
        match (self.next_heartbeat, self.free_at) {
            (Some(beat), Some(free)) => Some(beat.min(free)),
            (beat, free) => beat.or(free),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_lets_a_burst_go_and_then_keeps_its_pace() {
        let start = Instant::now();
        let mut rate = Rate::new(16_000, 2_500).unwrap();
        assert_eq!(rate.sent(1_000, start), None);
        assert_eq!(rate.sent(1_000, start), Some(Duration::from_millis(250)));
        let later = start + Duration::from_millis(250);
        assert_eq!(rate.sent(1_000, later), Some(Duration::from_millis(500)));
        // A pause fills the burst again, and no more than that.
        let idle = start + Duration::from_secs(60);
        assert_eq!(rate.sent(1_000, idle), None);
        assert_eq!(rate.sent(1_000, idle), Some(Duration::from_millis(250)));
        // A message that no burst holds goes out all the same, and what follows waits for it.
        assert_eq!(
            rate.sent(10_000, idle + Duration::from_secs(60)),
            Some(Duration::from_secs(5))
        );
        assert_eq!(Rate::new(0, 1), None);
        let mut slowest = Rate::new(1, u64::MAX).unwrap();
        assert_eq!(slowest.sent(u64::MAX, start), Some(slowest.burst));
    }

    #[test]
    fn a_window_closes_until_the_client_answers_and_grows_then() {
        let mut flow = Flow::new("S", "C");
        assert_eq!(flow.sent(WINDOW_BYTES_FIRST / 2), None);
        assert_eq!(flow.sent(1), Some(b"$JS.FC.S.C.1".to_vec()));
        assert!(flow.is_open());
        assert_eq!(
            flow.sent(WINDOW_BYTES_FIRST),
            None,
            "one question at a time"
        );
        assert!(!flow.is_open());
        assert!(!flow.answered(7));
        assert!(flow.answered(1));
        assert!(flow.is_open());
        assert_eq!(flow.window, 2 * WINDOW_BYTES_FIRST);
        assert_eq!(flow.under_way, WINDOW_BYTES_FIRST);
    }
}
