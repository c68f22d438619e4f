//! One client connection as a state machine: bytes in, broker calls and answers out. Reads no clock and no socket.
//!
//! The driver feeds what it reads to [`Session::input`] and calls [`Session::timeout`] when [`Session::deadline`] is
//! reached. Answers go to the connection's [`Outbound`](super::outbound::Outbound), deliveries to those of others.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use halyard_net::proto::{
    ClientOp, CloseReason, Connect, ErrText, Info, Limits, Parsed, Parser, ProtoError, encoder,
    headers,
};
use halyard_runtime::time::{Duration, Instant};

use super::connection::{ClientNames, Connection, LAST_SUBSCRIPTIONS_MAX, LastSubscription};
use super::front::Front;
use super::keepalive::{Keepalive, Ping};
use super::trace;
use crate::auth;
use crate::broker::{
    Origin, Outcome, Publish, Router, SYSTEM_ACCOUNT, Subscribe, SubscribeError, Subscription,
    subject, traced,
};
use crate::config::Config;
use crate::log::protocol;

/// Ends the connection.
type Closes = Result<(), CloseReason>;

/// What [`Session::input`] did with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Bytes that were used up; the rest comes again with the next call, at the beginning.
    pub(crate) consumed: usize,
    /// Bytes (the rest included) without which the next call would be in vain.
    pub(crate) need: usize,
}

/// The protocol side of one client connection.
pub(crate) struct Session {
    front: Arc<Front>,
    connection: Arc<Connection>,
    settings: Arc<Config>,
    settings_version: u64,
    parser: Parser,
    options: Connect,
    /// CONNECT has been accepted, or nobody asks for one.
    authorized: bool,
    connected: bool,
    connect_info_sent: bool,
    router: Router,
    subscriptions: HashMap<Box<[u8]>, Arc<Subscription>, crate::broker::Keyed>,
    keepalive: Keepalive,
    in_messages: u64,
    in_bytes: u64,
}

impl Session {
    /// A session of a client that has just come; it is sent its INFO.
    pub(crate) fn new(front: &Arc<Front>, connection: &Arc<Connection>, now: Instant) -> Self {
        let settings = front.settings();
        let account = front.broker.global();
        let authorized = !settings.authorization.is_required();
        let keepalive = Keepalive::new(&settings, authorized, now);
        let mut session = Self {
            front: Arc::clone(front),
            connection: Arc::clone(connection),
            settings_version: front.settings_version(),
            parser: Parser::new(Limits::default()),
            options: Connect::default(),
            authorized,
            connected: false,
            connect_info_sent: false,
            subscriptions: HashMap::with_hasher(account.keyed()),
            router: Router::new(account),
            keepalive,
            in_messages: 0,
            in_bytes: 0,
            settings,
        };
        session.apply_limits();
        let info = front.info_for(connection).to_json();
        connection.outbound.send(|out| encoder::info(out, &info));
        session
    }

    /// Takes bytes from the client. `input` begins with what the last call left.
    ///
    /// # Errors
    /// The connection must be closed for this reason; the client has been told where the protocol says so.
    pub(crate) fn input(&mut self, input: &[u8], now: Instant) -> Result<Taken, CloseReason> {
        if self.settings_version != self.front.settings_version() {
            self.follow_settings();
        }
        self.keepalive.heard(now);
        let mut consumed = 0;
        let result = loop {
            let rest = input.get(consumed..).unwrap_or_default();
            if rest.is_empty() {
                break Ok(Taken { consumed, need: 1 });
            }
            if !self.authorized && !matches!(rest, [b'C' | b'c', ..]) {
                // At the first byte: a stranger's payload is not waited for, nor kept.
                self.error(&ErrText::AuthorizationViolation);
                break Err(CloseReason::AuthenticationFailure);
            }
            match self.parser.next(rest) {
                Ok(Parsed::Op {
                    op,
                    consumed: taken,
                }) => {
                    consumed += taken;
                    if let Err(reason) = self.operation(&op, now) {
                        break Err(reason);
                    }
                }
                Ok(Parsed::Incomplete { need }) => break Ok(Taken { consumed, need }),
                Err(error) => break Err(self.refuse(error)),
            }
        };
        self.settle(now);
        result
    }

    /// When [`Session::timeout`] is to be called if nothing else happens.
    pub(crate) const fn deadline(&self) -> Instant {
        self.keepalive.deadline()
    }

    /// The client is not read for now, so its silence means nothing.
    pub(crate) const fn bear_with(&mut self, now: Instant) {
        self.keepalive.unread(now);
    }

    /// Tells the session that its deadline may have been reached.
    ///
    /// # Errors
    /// The connection must be closed for this reason.
    pub(crate) fn timeout(&mut self, now: Instant) -> Closes {
        match self.keepalive.timeout(&self.settings, self.authorized, now) {
            Ping::Nothing => {}
            Ping::Send => self.connection.outbound.send(encoder::ping),
            Ping::Unauthorized => {
                self.error(&ErrText::AuthenticationTimeout);
                return Err(CloseReason::AuthenticationTimeout);
            }
            Ping::Stale => {
                self.error(&ErrText::StaleConnection);
                return Err(CloseReason::StaleConnection);
            }
        }
        if self.keepalive.is_idle(&self.settings, now) {
            self.router.forget();
            self.subscriptions.shrink_to_fit();
        }
        Ok(())
    }

    /// Ends every subscription.
    pub(crate) fn close(&mut self) {
        let account: Arc<str> = self.router.account().name().into();
        let mut last: Vec<_> = self.subscriptions.values().cloned().collect();
        last.sort_unstable_by_key(|subscription| subscription.id());
        last.truncate(LAST_SUBSCRIPTIONS_MAX);
        let last = last
            .iter()
            .map(|held| LastSubscription::new(&account, held));
        *self.connection.last_subscriptions.lock() = last.collect();
        let count = self.subscriptions.len();
        self.forget_subscriptions();
        // What the monitor shows of a closed connection is how it was.
        let shown = &self.connection.traffic.subscriptions;
        shown.store(count, Ordering::Relaxed);
        self.router.forget();
    }

    fn operation(&mut self, op: &ClientOp<'_>, now: Instant) -> Closes {
        if protocol::is_on() {
            trace::received(self.who(), op);
        }
        match *op {
            ClientOp::Pub {
                subject,
                reply,
                headers_len,
                payload,
            } => {
                self.publish(subject, reply, headers_len, payload);
            }
            ClientOp::Sub {
                subject,
                queue,
                sid,
            } => self.subscribe(subject, queue, sid),
            ClientOp::Unsub { sid, max } => self.unsubscribe(sid, max),
            ClientOp::Ping => self.ping(now),
            ClientOp::Pong => {
                if let Some(rtt) = self.keepalive.pong(now) {
                    self.set_round_trip(rtt);
                }
            }
            ClientOp::Connect(json) => return self.connect(json, now),
            ClientOp::Err(text) => {
                tracing::debug!("{} - client error: {}", self.who(), text.escape_ascii());
                return Err(CloseReason::ParseError);
            }
            ClientOp::Info(json) if Info::from_json(json).is_err() => {
                return Err(CloseReason::ProtocolViolation);
            }
            ClientOp::Info(_) | ClientOp::Ok => {}
        }
        Ok(())
    }

    fn connect(&mut self, json: &[u8], now: Instant) -> Closes {
        if self.options.update(json).is_err() {
            return Err(CloseReason::ProtocolViolation);
        }
        let Some(identity) = auth::identify(&self.settings.authorization, &self.options) else {
            let user = &self.options.user;
            tracing::error!("{} - authentication error - User {user:?}", self.who());
            self.error(&ErrText::AuthorizationViolation);
            return Err(CloseReason::AuthenticationFailure);
        };
        if !(0..=1).contains(&self.options.protocol) {
            self.error(&ErrText::InvalidClientProtocol);
            return Err(CloseReason::BadClientProtocol);
        }
        let headers = self.options.headers && !self.settings.no_header_support;
        if self.options.no_responders && !headers {
            self.error(&ErrText::NoRespondersRequiresHeaders);
            return Err(CloseReason::NoRespondersRequiresHeaders);
        }
        if self.connected {
            // As the real server does: a second CONNECT starts without subscriptions.
            self.forget_subscriptions();
        }
        self.enter_account(&identity.account);
        let names = ClientNames {
            name: self.options.name.clone(),
            lang: self.options.lang.clone(),
            version: self.options.version.clone(),
            user: identity.user,
            credential: identity.credential,
            account: identity.account,
        };
        self.connection.outbound.set_names(&names);
        *self.connection.names.lock() = names;
        self.connection
            .outbound
            .set_options(self.options.echo, headers);
        (self.authorized, self.connected) = (true, true);
        self.keepalive.connected(&self.settings, now);
        self.apply_limits();
        self.confirm();
        Ok(())
    }

    /// Moves to an account; what was subscribed in another ends.
    fn enter_account(&mut self, name: &str) {
        if self.router.account().name() != name {
            self.forget_subscriptions();
            let account = self.front.broker.account_or_create(name);
            self.router.forget();
            self.router = Router::new(account);
        }
    }

    /// Shows how long an answer takes.
    fn set_round_trip(&self, rtt: Duration) {
        let nanos = u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.connection
            .traffic
            .rtt_nanos
            .store(nanos, Ordering::Relaxed);
    }

    fn ping(&mut self, now: Instant) {
        // The first PING answers INFO, so that there is something to show until our own PING has been answered.
        if self.connection.traffic.rtt_nanos.load(Ordering::Relaxed) == 0 {
            self.set_round_trip(now - self.connection.started);
        }
        self.connection.outbound.send(encoder::pong);
        if self.connected && self.options.protocol >= 1 && !self.connect_info_sent {
            self.connect_info_sent = true;
            self.connection.async_info.store(true, Ordering::Relaxed);
            let mut info = self.front.info_for(&self.connection);
            info.connect_info = true;
            self.router
                .account()
                .name()
                .clone_into(&mut info.remote_account);
            info.acc_is_sys = info.remote_account == SYSTEM_ACCOUNT;
            let json = info.to_json();
            self.connection
                .outbound
                .send(|out| encoder::info(out, &json));
        }
    }

    #[inline]
    fn publish(&mut self, subject: &[u8], reply: Option<&[u8]>, headers_len: usize, body: &[u8]) {
        self.in_messages += 1;
        self.in_bytes += body.len() as u64;
        if self.options.pedantic && !subject::is_valid_literal(subject) {
            self.error(&ErrText::InvalidPublishSubject);
        }
        if is_reserved(subject) {
            self.error(&ErrText::PublishDenied { subject });
            return;
        }
        if let Some(reply) = reply
            && is_reserved_reply(reply)
        {
            self.error(&ErrText::ReplyDenied { reply });
            return;
        }
        self.confirm();
        let (headers, payload) = body.split_at_checked(headers_len).unwrap_or((&[], body));
        let message = Publish::new(subject, payload)
            .with_reply(reply)
            .with_headers(headers)
            .with_origin(Origin::Client(&self.connection.publisher));
        let outcome = if headers_len > 0 && traced::is_only(headers) {
            Outcome {
                delivered: usize::from(self.router.account().interest(subject)),
            }
        } else {
            self.router.publish(&message)
        };
        if outcome.delivered == 0
            && self.options.no_responders
            && let Some(reply) = reply
        {
            self.no_responders(subject, reply);
        }
    }

    /// Tells a requester that nobody can answer.
    #[cold]
    fn no_responders(&self, subject: &[u8], reply: &[u8]) {
        let account = self.router.account();
        // A member of a queue is not asking, in the real server's eyes either.
        let own = |held: &Arc<Subscription>| {
            held.client() == Some(self.connection.id) && held.queue().is_none()
        };
        let Some(asking) = account.matching(reply).into_iter().find(own) else {
            return;
        };
        let mut block = b"NATS/1.0 503\r\n".to_vec();
        headers::line(&mut block, b"Nats-Subject", subject);
        block.extend_from_slice(b"\r\n");
        account.deliver_to(&asking, &Publish::new(reply, b"").with_headers(&block));
    }

    fn subscribe(&mut self, filter: &[u8], queue: Option<&[u8]>, sid: &[u8]) {
        self.forget_ended();
        // Queues of this name carry requests among servers.
        if queue == Some(b"_sys_") {
            self.error(&ErrText::SubscriptionDenied {
                subject: filter,
                queue,
            });
            return;
        }
        let tokens_max = self.settings.limits.max_sub_tokens;
        if tokens_max.is_some_and(|most| subject::tokens(filter).count() > most) {
            self.error(&ErrText::TooManyTokens { subject: filter });
            return;
        }
        let most = self.settings.limits.max_subscriptions;
        if most.is_some_and(|most| self.subscriptions.len() >= most) {
            self.error(&ErrText::MaxSubscriptions);
            return;
        }
        // A sid in use keeps its first subscription.
        if !self.subscriptions.contains_key(sid) {
            let client = Some(self.connection.id);
            let asked = Subscribe {
                filter,
                queue,
                sid,
                client,
            };
            let sink = Arc::clone(&self.connection.outbound);
            match self.router.account().subscribe_for(&asked, sink) {
                Ok(subscription) => {
                    self.subscriptions.insert(sid.into(), subscription);
                    self.count_subscriptions();
                }
                Err(SubscribeError::InvalidSubject) => {
                    self.error(&ErrText::InvalidSubject);
                    return;
                }
            }
        }
        self.confirm();
    }

    fn unsubscribe(&mut self, sid: &[u8], max: u64) {
        if let Some(subscription) = self.subscriptions.get(sid) {
            subscription.set_max(max);
            if max == 0 || subscription.delivered() >= max {
                self.router.account().unsubscribe(subscription);
                self.subscriptions.remove(sid);
                self.count_subscriptions();
            }
        }
        self.confirm();
    }

    /// `+OK`, for those who want it.
    #[inline]
    fn confirm(&self) {
        if self.options.verbose {
            self.connection.outbound.send(encoder::ok);
        }
    }

    fn error(&self, text: &ErrText<'_>) {
        tracing::debug!("{} - {text}", self.who());
        self.connection.outbound.send(|out| encoder::err(out, text));
    }

    fn who(&self) -> &str {
        self.connection.outbound.who()
    }

    fn refuse(&self, error: ProtoError) -> CloseReason {
        tracing::debug!("{} - protocol: {error}", self.who());
        if let Some(text) = error.text() {
            self.error(&text);
        }
        error.close_reason()
    }

    fn follow_settings(&mut self) {
        self.settings_version = self.front.settings_version();
        self.settings = self.front.settings();
        self.apply_limits();
    }

    fn apply_limits(&mut self) {
        self.parser.limits = Limits {
            max_control_line: self.settings.limits.max_control_line,
            max_payload: self.settings.limits.max_payload,
            headers: self.options.headers && !self.settings.no_header_support,
        };
    }

    /// Moves the counters of one batch to where others read them.
    fn settle(&mut self, now: Instant) {
        let traffic = &self.connection.traffic;
        traffic
            .in_messages
            .store(self.in_messages, Ordering::Relaxed);
        traffic.in_bytes.store(self.in_bytes, Ordering::Relaxed);
        let active = u64::try_from((now - self.connection.started).as_nanos()).unwrap_or(u64::MAX);
        traffic.active_nanos.store(active, Ordering::Relaxed);
        self.router.settle();
    }

    /// Forgets the subscriptions that ended by themselves.
    fn forget_ended(&mut self) {
        for sid in self.connection.outbound.take_ended() {
            if self
                .subscriptions
                .get(&sid)
                .is_some_and(|held| held.is_closed())
            {
                self.subscriptions.remove(&sid);
            }
        }
        self.count_subscriptions();
    }

    fn forget_subscriptions(&mut self) {
        let mut held: Vec<_> = self.subscriptions.drain().map(|(_, held)| held).collect();
        // The order of the map must not show, in a simulation least of all.
        held.sort_unstable_by_key(|subscription| subscription.id());
        for subscription in held {
            self.router.account().unsubscribe(&subscription);
        }
        self.count_subscriptions();
    }

    fn count_subscriptions(&self) {
        let count = self.subscriptions.len();
        self.connection
            .traffic
            .subscriptions
            .store(count, Ordering::Relaxed);
    }
}

/// Also where a bug ends the connection's task: nobody else would end its subscriptions.
impl Drop for Session {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return self.close();
        }
        let close = std::panic::AssertUnwindSafe(|| self.close());
        if std::panic::catch_unwind(close).is_err() {
            tracing::error!("a connection's subscriptions could not be ended");
        }
    }
}

/// Subjects between servers that no client may publish to.
#[inline]
fn is_reserved(subject: &[u8]) -> bool {
    match subject {
        [b'_', b'G', ..] => subject.starts_with(b"_GR_."),
        [b'$', b'N', ..] => subject.starts_with(b"$NRG."),
        [b'$', b'G', ..] => subject.starts_with(b"$GR."),
        _ => false,
    }
}

/// Reply subjects that only servers make.
#[inline]
fn is_reserved_reply(reply: &[u8]) -> bool {
    match reply {
        [b'_', b'R', ..] => reply.starts_with(b"_R_."),
        [b'_', b'G', ..] => reply.starts_with(b"_GR_."),
        [b'$', b'J', ..] => reply.starts_with(b"$JS.ACK."),
        [b'$', b'G', ..] => reply.starts_with(b"$GR."),
        _ => false,
    }
}
