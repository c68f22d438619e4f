//! What the rest of the server sees of a connection while it lives, and what is remembered of it afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use halyard_net::proto::CloseReason;
use halyard_runtime::time::{Duration, Instant, Timestamp};
use parking_lot::Mutex;

use super::outbound::Outbound;
use crate::auth::Credential;
use crate::broker::{ClientId, Publisher, Subscription};

/// How a client reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A TCP socket.
    Tcp,
    /// A pipe inside the process.
    InProcess,
}

/// Where a client comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address, or `pipe`.
    pub ip: String,
    /// Its port; 0 inside the process.
    pub port: u16,
    /// How it reaches the server.
    pub transport: Transport,
}

/// What a client said about itself and became.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientNames {
    /// Name of the connection.
    pub name: String,
    /// Language of its library.
    pub lang: String,
    /// Version of its library.
    pub version: String,
    /// The user that it was authorized as, if the server asks for one.
    pub user: Option<String>,
    /// What it was authorized by.
    pub credential: Credential,
    /// The account that it belongs to.
    pub account: String,
}

/// A live connection, shared between its task and whoever watches the server.
pub(crate) struct Connection {
    pub(crate) id: ClientId,
    /// It, as one who publishes.
    pub(crate) publisher: Publisher,
    pub(crate) peer: Peer,
    pub(crate) start: Timestamp,
    pub(crate) started: Instant,
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) names: Mutex<ClientNames>,
    /// Its subscriptions when it ended; empty before.
    pub(crate) last_subscriptions: Mutex<Vec<LastSubscription>>,
    pub(crate) traffic: Traffic,
    /// It asked for protocol level 1 and has had its first PONG: it understands INFO at any time.
    pub(crate) async_info: AtomicBool,
}

/// Counters that only the connection's own task writes.
#[derive(Default)]
pub(crate) struct Traffic {
    pub(crate) in_messages: AtomicU64,
    pub(crate) in_bytes: AtomicU64,
    pub(crate) subscriptions: AtomicUsize,
    pub(crate) stalls: AtomicU64,
    /// Of the last PING, in nanoseconds; 0 before.
    pub(crate) rtt_nanos: AtomicU64,
    /// Since the start of the connection, in nanoseconds.
    pub(crate) active_nanos: AtomicU64,
}

/// One connection as the monitor shows it (`/connz`).
#[derive(Debug, Clone)]
pub struct ConnectionSnapshot {
    /// Its number.
    pub id: ClientId,
    /// Where it comes from.
    pub peer: Peer,
    /// When it came.
    pub start: Timestamp,
    /// When something last came from it or for it.
    pub last_activity: Timestamp,
    /// When and why it went; `None` while it is open.
    pub stop: Option<(Timestamp, CloseReason)>,
    /// Round trip time of the last PING.
    pub rtt: Option<Duration>,
    /// Bytes that wait to be written to it.
    pub pending_bytes: u64,
    /// Messages that it published.
    pub in_msgs: u64,
    /// Messages delivered to it.
    pub out_msgs: u64,
    /// Bytes (headers and payload) that it published.
    pub in_bytes: u64,
    /// Bytes (headers and payload) delivered to it.
    pub out_bytes: u64,
    /// How often it had to pause because a receiver was slow.
    pub stalls: u64,
    /// Its subscriptions.
    pub subscriptions: u64,
    /// What it said about itself.
    pub names: ClientNames,
    /// The first of its subscriptions when it ended; empty while it is open.
    pub last_subscriptions: Vec<LastSubscription>,
}

/// Subscriptions of a closed connection that the monitor can show.
pub(crate) const LAST_SUBSCRIPTIONS_MAX: usize = 1000;

/// A subscription of a connection that has ended.
#[derive(Debug, Clone)]
pub struct LastSubscription {
    /// The account that it was in.
    pub account: Arc<str>,
    /// The subjects that it matched.
    pub filter: Box<[u8]>,
    /// Its queue group.
    pub queue: Option<Box<[u8]>>,
    /// The client's own name for it.
    pub sid: Box<[u8]>,
    /// Messages that it had taken.
    pub delivered: u64,
    /// After how many it would have ended; 0 is never.
    pub max: u64,
}

impl LastSubscription {
    pub(crate) fn new(account: &Arc<str>, subscription: &Subscription) -> Self {
        Self {
            account: Arc::clone(account),
            filter: subscription.filter().into(),
            queue: subscription.queue().map(Into::into),
            sid: subscription.sid().into(),
            delivered: subscription.delivered(),
            max: subscription.max(),
        }
    }
}

impl Connection {
    /// What the monitor shows of it.
    pub(crate) fn snapshot(&self, stop: Option<(Timestamp, CloseReason)>) -> ConnectionSnapshot {
        let out = self.outbound.counters();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let rtt = read(&self.traffic.rtt_nanos);
        ConnectionSnapshot {
            id: self.id,
            peer: self.peer.clone(),
            start: self.start,
            last_activity: self.start + Duration::from_nanos(read(&self.traffic.active_nanos)),
            stop,
            rtt: (rtt > 0).then(|| Duration::from_nanos(rtt)),
            pending_bytes: out.pending as u64,
            in_msgs: read(&self.traffic.in_messages),
            out_msgs: out.messages,
            in_bytes: read(&self.traffic.in_bytes),
            out_bytes: out.bytes,
            stalls: read(&self.traffic.stalls),
            subscriptions: self.traffic.subscriptions.load(Ordering::Relaxed) as u64,
            names: self.names.lock().clone(),
            last_subscriptions: match stop {
                Some(_) => std::mem::take(&mut *self.last_subscriptions.lock()),
                None => Vec::new(),
            },
        }
    }
}
