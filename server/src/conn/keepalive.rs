//! When a client is pinged, and when it is given up.

use halyard_runtime::time::{Duration, Instant};

use crate::caps;
use crate::config::Config;

/// The timers of one connection. All of them share one deadline.
#[derive(Debug)]
pub(crate) struct Keepalive {
    deadline: Instant,
    heard: Instant,
    /// When the PING was sent whose PONG is awaited.
    sent: Option<Instant>,
    unanswered: u32,
    rtt_known: bool,
}

/// What a deadline asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ping {
    /// Nothing yet.
    Nothing,
    /// Send a PING.
    Send,
    /// CONNECT did not come in time: close.
    Unauthorized,
    /// Too many PINGs are unanswered: close.
    Stale,
}

impl Keepalive {
    /// The timers of a connection that begins now.
    pub(crate) fn new(settings: &Config, authorized: bool, now: Instant) -> Self {
        let first = if authorized {
            caps::FIRST_PING.min(settings.ping_interval)
        } else {
            settings.authorization.timeout.unwrap_or(caps::AUTH_TIMEOUT)
        };
        Self {
            deadline: now + first,
            heard: now,
            sent: None,
            unanswered: 0,
            rtt_known: false,
        }
    }

    /// CONNECT was accepted.
    pub(crate) fn connected(&mut self, settings: &Config, now: Instant) {
        if !self.rtt_known && self.sent.is_none() {
            self.deadline = now + caps::FIRST_PING.min(settings.ping_interval);
        }
    }

    /// Something came from the client.
    pub(crate) const fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The client is not read: a PONG of it may wait in the socket.
    pub(crate) const fn unread(&mut self, now: Instant) {
        self.heard = now;
        self.unanswered = 0;
    }

    /// A PONG came; the round trip time if it answers a PING of ours.
    pub(crate) fn pong(&mut self, now: Instant) -> Option<Duration> {
        self.unanswered = 0;
        let sent = self.sent.take()?;
        self.rtt_known = true;
        Some(now - sent)
    }

    /// When [`Keepalive::timeout`] is to be called.
    pub(crate) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether nothing has come for a whole interval.
    pub(crate) fn is_idle(&self, settings: &Config, now: Instant) -> bool {
        now - self.heard >= settings.ping_interval
    }

    /// What is to be done now, if the deadline has been reached.
    pub(crate) fn timeout(&mut self, settings: &Config, authorized: bool, now: Instant) -> Ping {
        if now < self.deadline {
            return Ping::Nothing;
        }
        if !authorized {
            return Ping::Unauthorized;
        }
        self.deadline = now + settings.ping_interval;
        // Whoever talks is alive; but the round trip time is wanted once.
        if self.rtt_known && now - self.heard < settings.ping_interval {
            return Ping::Nothing;
        }
        if self.unanswered >= settings.ping_max {
            return Ping::Stale;
        }
        self.unanswered += 1;
        self.sent = Some(now);
        Ping::Send
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn silent_clients_are_pinged_and_given_up() {
        let settings = Config::default();
        let start = Instant::now();
        let mut timers = Keepalive::new(&settings, true, start);
        assert_eq!(timers.deadline(), after(start, 2));
        assert_eq!(
            timers.timeout(&settings, true, after(start, 1)),
            Ping::Nothing
        );
        assert_eq!(timers.timeout(&settings, true, after(start, 2)), Ping::Send);
        assert_eq!(
            timers.timeout(&settings, true, after(start, 122)),
            Ping::Send
        );
        assert_eq!(
            timers.timeout(&settings, true, after(start, 242)),
            Ping::Stale
        );
    }

    #[test]
    fn talking_clients_are_not() {
        let settings = Config::default();
        let start = Instant::now();
        let mut timers = Keepalive::new(&settings, true, start);
        assert_eq!(timers.timeout(&settings, true, after(start, 2)), Ping::Send);
        assert_eq!(timers.pong(after(start, 3)), Some(Duration::from_secs(1)));
        timers.heard(after(start, 100));
        assert_eq!(
            timers.timeout(&settings, true, after(start, 122)),
            Ping::Nothing
        );
        assert_eq!(
            timers.timeout(&settings, true, after(start, 242)),
            Ping::Send
        );
        assert_eq!(timers.pong(after(start, 242)), Some(Duration::ZERO));
        assert_eq!(
            timers.pong(after(start, 243)),
            None,
            "a PONG that nobody asked for"
        );
    }

    #[test]
    fn clients_that_are_not_read_are_not_given_up() {
        let settings = Config::default();
        let start = Instant::now();
        let mut timers = Keepalive::new(&settings, true, start);
        for seconds in [2, 122, 242, 362] {
            let now = after(start, seconds);
            timers.unread(now);
            assert_eq!(timers.timeout(&settings, true, now), Ping::Send);
        }
    }

    #[test]
    fn connect_must_come_in_time() {
        let settings = Config::default();
        let start = Instant::now();
        let mut timers = Keepalive::new(&settings, false, start);
        assert_eq!(
            timers.timeout(&settings, false, after(start, 2)),
            Ping::Unauthorized
        );
        let mut timers = Keepalive::new(&settings, false, start);
        timers.connected(&settings, after(start, 1));
        assert_eq!(timers.deadline(), after(start, 3));
    }
}
