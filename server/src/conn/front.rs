//! What all client connections of one server share: the broker, the settings in force, the INFO they are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use halyard_net::proto::{CloseReason, ErrText, Info, encoder};
use halyard_runtime::time::Timestamp;
use parking_lot::{Mutex, RwLock};

use super::connection::{Connection, Transport};
use super::registry::Registry;
use crate::auth;
use crate::broker::{Broker, ClientId};
use crate::config::Config;

/// Everything that connections share.
pub struct Front {
    /// Accounts and interest.
    pub broker: Arc<Broker>,
    /// Live and closed connections.
    pub registry: Registry,
    /// When the server started.
    pub start: Timestamp,
    settings: RwLock<Arc<Config>>,
    settings_time: Mutex<Timestamp>,
    version: AtomicU64,
    info: Mutex<Info>,
    lame_duck: AtomicBool,
}

impl Front {
    /// A front without connections. `info` is what every client is told, but for what concerns it alone.
    pub(crate) fn new(broker: Arc<Broker>, settings: Arc<Config>, info: Info) -> Arc<Self> {
        Arc::new(Self {
            broker,
            registry: Registry::default(),
            start: Timestamp::now(),
            settings: RwLock::new(settings),
            settings_time: Mutex::new(Timestamp::now()),
            version: AtomicU64::new(1),
            info: Mutex::new(info),
            lame_duck: AtomicBool::new(false),
        })
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Config> {
        Arc::clone(&self.settings.read())
    }

    /// Puts new settings in force; live connections follow with their next bytes.
    pub(crate) fn set_settings(&self, settings: Arc<Config>) {
        *self.settings.write() = settings;
        *self.settings_time.lock() = Timestamp::now();
        self.version.fetch_add(1, Ordering::Release);
    }

    /// When the settings in force were put in force.
    #[must_use]
    pub fn settings_time(&self) -> Timestamp {
        *self.settings_time.lock()
    }

    /// Changes with the settings.
    pub(crate) fn settings_version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// What every client is told.
    #[must_use]
    pub fn info(&self) -> Info {
        self.info.lock().clone()
    }

    /// Changes what clients are told, and tells those that understand it.
    pub(crate) fn change_info(&self, change: impl FnOnce(&mut Info)) {
        change(&mut self.info.lock());
        for connection in self.registry.connections() {
            if connection.async_info.load(Ordering::Relaxed) {
                let json = self.info_for(&connection).to_json();
                connection.outbound.send(|out| encoder::info(out, &json));
            }
        }
    }

    /// The INFO of one connection.
    pub(crate) fn info_for(&self, connection: &Connection) -> Info {
        let mut info = self.info();
        info.client_id = connection.id.0;
        if connection.peer.transport == Transport::Tcp {
            info.client_ip.clone_from(&connection.peer.ip);
        }
        info
    }

    /// From now on new connections are refused.
    pub(crate) fn enter_lame_duck(&self) {
        self.lame_duck.store(true, Ordering::Relaxed);
        self.change_info(|info| info.lame_duck = true);
    }

    /// Whether the server is on its way out.
    #[must_use]
    pub fn is_lame_duck(&self) -> bool {
        self.lame_duck.load(Ordering::Relaxed)
    }

    /// After a change of the authorization: closes the connections that would not be let in as they are now.
    pub(crate) fn check_authorization(&self) {
        let rules = self.settings().authorization.clone();
        for connection in self.registry.connections() {
            let (user, credential) = {
                let names = connection.names.lock();
                (names.user.clone(), names.credential)
            };
            if !auth::admits(&rules, user.as_deref(), credential) {
                connection
                    .outbound
                    .send(|out| encoder::err(out, &ErrText::AuthorizationViolation));
                connection
                    .outbound
                    .close(CloseReason::AuthenticationExpired);
            }
        }
    }

    /// Closes connections beyond what the settings allow now, the newest first.
    pub(crate) fn check_count(&self) {
        let Some(most) = self.settings().limits.max_connections else {
            return;
        };
        let connections = self.registry.connections();
        let live = connections
            .iter()
            .filter(|connection| connection.outbound.closed().is_none());
        for connection in live.skip(most) {
            tracing::error!("maximum connections exceeded: closed {}", connection.id.0);
            connection
                .outbound
                .send(|out| encoder::err(out, &ErrText::MaxConnections));
            connection.outbound.close(CloseReason::MaxConnections);
        }
    }

    /// Closes one connection; whether it was there.
    pub fn close(&self, id: ClientId, reason: CloseReason) -> bool {
        let found = self
            .registry
            .connections()
            .into_iter()
            .find(|held| held.id == id);
        found.is_some_and(|connection| {
            connection.outbound.close(reason);
            true
        })
    }
}
