//! What clients do. Each writes what it did and what it was told into the history, before and after.

pub(crate) mod admin;
pub(crate) mod archive;
pub(crate) mod consume;
pub(crate) mod mortal;
pub(crate) mod publish;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use halyard_runtime::{random, time};
use parking_lot::Mutex;

use crate::client::Client;
use crate::history::History;
use crate::options::Options;

/// What all clients of a run share.
pub(crate) struct Stage {
    pub(crate) options: Options,
    pub(crate) address: SocketAddr,
    pub(crate) history: Mutex<History>,
    stopped: AtomicBool,
    connections: AtomicU64,
}

/// How long a client waits for a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

impl Stage {
    pub(crate) fn new(options: Options, address: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            options,
            address,
            history: Mutex::default(),
            stopped: AtomicBool::new(false),
            connections: AtomicU64::new(0),
        })
    }

    /// Asks the clients to finish what they began and to begin nothing new.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// One attempt to connect.
    pub(crate) async fn try_connect(&self) -> Option<Client> {
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        Client::connect(self.address, number, CONNECT_PATIENCE)
            .await
            .ok()
    }

    /// Connects, however often it takes.
    pub(crate) async fn connect(&self) -> Client {
        loop {
            if let Some(client) = self.try_connect().await {
                return client;
            }
            pause(Duration::from_millis(200)).await;
        }
    }
}

/// Sleeps for up to `longest`.
pub(crate) async fn pause(longest: Duration) {
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX).max(1);
    time::sleep(Duration::from_nanos(random::below(nanos))).await;
}

/// True in `share` of a hundred draws.
pub(crate) fn percent(share: u64) -> bool {
    random::below(100) < share
}
