//! All client connections of a server: the live ones, the last that were closed, and sums over both.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use halyard_net::proto::CloseReason;
use halyard_runtime::time::Timestamp;
use parking_lot::Mutex;

use super::connection::{Connection, ConnectionSnapshot};
use crate::broker::ClientId;

/// Subscriptions of closed connections that are remembered in all.
const REMEMBERED_MAX: usize = 100_000;

/// Live and recently closed connections.
#[derive(Default)]
pub struct Registry {
    state: Mutex<State>,
    total: AtomicU64,
}

#[derive(Default)]
struct State {
    live: BTreeMap<ClientId, Arc<Connection>>,
    closed: VecDeque<ConnectionSnapshot>,
    /// Subscriptions that they had and the monitor can show.
    remembered: usize,
    /// Sums over the connections that are gone.
    gone: Totals,
}

/// Sums over all connections, past and present (`/varz`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Live connections.
    pub connections: u64,
    /// Connections ever made.
    pub total_connections: u64,
    /// Messages that clients published.
    pub in_msgs: u64,
    /// Messages delivered to clients.
    pub out_msgs: u64,
    /// Bytes (headers and payload) that clients published.
    pub in_bytes: u64,
    /// Bytes (headers and payload) delivered to clients.
    pub out_bytes: u64,
    /// Connections closed because they read too slowly.
    pub slow_consumers: u64,
    /// Connections closed because they did not answer PINGs.
    pub stale_connections: u64,
    /// Pauses of publishers because of slow receivers.
    pub stalled_clients: u64,
    /// Bytes that wait to be written.
    pub pending_bytes: u64,
}

impl Totals {
    fn add(&mut self, connection: &ConnectionSnapshot) {
        self.in_msgs += connection.in_msgs;
        self.out_msgs += connection.out_msgs;
        self.in_bytes += connection.in_bytes;
        self.out_bytes += connection.out_bytes;
        self.stalled_clients += connection.stalls;
        match connection.stop.map(|(_, reason)| reason) {
            Some(
                CloseReason::SlowConsumerPendingBytes | CloseReason::SlowConsumerWriteDeadline,
            ) => self.slow_consumers += 1,
            Some(CloseReason::StaleConnection) => self.stale_connections += 1,
            _ => {}
        }
    }
}

impl Registry {
    /// Adds a connection unless there are `most` already; whether it did.
    pub(crate) fn add(&self, connection: &Arc<Connection>, most: Option<usize>) -> bool {
        let mut state = self.state.lock();
        if most.is_some_and(|most| state.live.len() >= most) {
            return false;
        }
        state.live.insert(connection.id, Arc::clone(connection));
        self.total.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Moves a connection from the live ones to the closed ones, of which `keep` are remembered.
    pub(crate) fn remove(&self, connection: &Connection, reason: CloseReason, keep: usize) {
        let snapshot = connection.snapshot(Some((Timestamp::now(), reason)));
        let mut state = self.state.lock();
        state.live.remove(&connection.id);
        state.gone.add(&snapshot);
        while state.closed.len() >= keep.max(1) {
            let gone = state.closed.pop_front();
            state.remembered -= gone.map_or(0, |gone| gone.last_subscriptions.len());
        }
        if keep > 0 {
            state.remembered += snapshot.last_subscriptions.len();
            state.closed.push_back(snapshot);
        }
        // The oldest ones lose their lists first.
        let mut excess = state.remembered.saturating_sub(REMEMBERED_MAX);
        for closed in &mut state.closed {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(closed.last_subscriptions.len());
            closed.last_subscriptions = Vec::new();
        }
        state.remembered = state.remembered.min(REMEMBERED_MAX);
    }

    /// The live connections themselves, by number.
    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        self.state.lock().live.values().cloned().collect()
    }

    /// One live connection.
    #[must_use]
    pub fn find(&self, id: ClientId) -> Option<ConnectionSnapshot> {
        let found = self.state.lock().live.get(&id).cloned();
        found.map(|connection| connection.snapshot(None))
    }

    /// Number of live connections.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.lock().live.len()
    }

    /// The live connections, by number.
    #[must_use]
    pub fn open(&self) -> Vec<ConnectionSnapshot> {
        self.connections()
            .iter()
            .map(|connection| connection.snapshot(None))
            .collect()
    }

    /// The connections that were closed last, oldest first.
    #[must_use]
    pub fn closed(&self) -> Vec<ConnectionSnapshot> {
        self.state.lock().closed.iter().cloned().collect()
    }

    /// Sums over all connections, past and present.
    #[must_use]
    pub fn totals(&self) -> Totals {
        // The live list and the sums of the gone are taken together: nobody is counted twice or not at all.
        let (live, mut totals) = {
            let state = self.state.lock();
            (state.live.values().cloned().collect::<Vec<_>>(), state.gone)
        };
        totals.connections = live.len() as u64;
        totals.total_connections = self.total.load(Ordering::Relaxed);
        for connection in live {
            let snapshot = connection.snapshot(None);
            totals.add(&snapshot);
            totals.pending_bytes += snapshot.pending_bytes;
        }
        totals
    }
}
