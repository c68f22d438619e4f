//! Starts and stops everything: [`Server`] is what `main` and embedding programs hold.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use halyard_net::proto::{CloseReason, Info};
use halyard_runtime::disk::{Disk, RealDisk};
use halyard_runtime::net::{self, TcpListener};
use halyard_runtime::random;
use halyard_runtime::task::{self, JoinHandle};
use halyard_runtime::time::{self, Duration, Instant};
use parking_lot::Mutex;

use crate::broker::{Account, Broker, ClientId};
use crate::caps;
use crate::config::{Config, Encryption, NAME, NATS_VERSION, VERSION};
use crate::conn::{self, Front, InProcess};
use crate::jetstream::{self, JetStream};
use crate::{memory, monitor};

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address for clients cannot be had.
    #[error("Error listening on port: {host}:{port}, {error}")]
    Listen {
        /// The configured host.
        host: String,
        /// The configured port.
        port: u16,
        /// What the system says.
        error: io::Error,
    },
    /// The address of the monitor cannot be had.
    #[error(transparent)]
    Monitor(#[from] monitor::StartError),
    /// What lies on disk cannot be served.
    #[error("JetStream: {0}")]
    JetStream(#[from] jetstream::StartError),
    /// The settings contradict each other.
    #[error("{0}")]
    Settings(String),
}

/// Prepares a [`Server`].
#[derive(Debug, Clone, Default)]
pub struct Builder {
    config: Config,
    disk: Option<Arc<dyn Disk>>,
    tuning: jetstream::Tuning,
}

/// A running server. Dropping it stops it abruptly; [`Server::shutdown`] stops it in order.
pub struct Server {
    front: Arc<Front>,
    addresses: Vec<SocketAddr>,
    listener: Mutex<Option<JoinHandle<()>>>,
    monitor: Option<monitor::Handle>,
    jetstream: Option<Arc<JetStream>>,
}

impl Builder {
    /// All settings at once.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Where to listen for clients; port 0 takes any free port.
    #[must_use]
    pub fn listen(mut self, host: &str, port: u16) -> Self {
        (self.config.host, self.config.port) = (host.to_owned(), port);
        self
    }

    /// Listens nowhere: clients connect inside the process only.
    #[must_use]
    pub fn no_listener(mut self) -> Self {
        self.config.dont_listen = true;
        self
    }

    /// Serves streams and consumers, kept below `store_dir`.
    #[must_use]
    pub fn jetstream(mut self, store_dir: impl Into<std::path::PathBuf>) -> Self {
        self.config.jetstream.enabled = true;
        self.config.jetstream.store_dir = Some(store_dir.into());
        self
    }

    /// Seals everything that is kept on disk. See `docs/configuration.md` for what changing it means.
    #[must_use]
    pub fn encryption(mut self, encryption: Option<Encryption>) -> Self {
        self.config.jetstream.encryption = encryption;
        self
    }

    /// Sizes of the log and of flushes, for tests that want to see many of them.
    #[must_use]
    pub const fn tuning(mut self, tuning: jetstream::Tuning) -> Self {
        self.tuning = tuning;
        self
    }

    /// How long after a delete or purge the last copy of the bytes is gone at the latest.
    #[must_use]
    pub const fn erase_within(mut self, within: Duration) -> Self {
        self.config.jetstream.erase_within = within;
        self
    }

    /// Keeps streams on this disk in place of the real one.
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Name shown to clients.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.config.server_name = Some(name.to_owned());
        self
    }

    /// Starts the server on the runtime of the caller. When this returns, clients may connect.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(self) -> Result<Server, StartError> {
        let disk = self.disk.unwrap_or_else(|| Arc::new(RealDisk));
        Server::start_on(self.config, disk, self.tuning).await
    }
}

impl Server {
    /// Prepares a server, with the default settings.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts a server on the runtime of the caller. When this returns, clients may connect.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_on(config, Arc::new(RealDisk), jetstream::Tuning::default()).await
    }

    async fn start_on(
        mut config: Config,
        disk: Arc<dyn Disk>,
        tuning: jetstream::Tuning,
    ) -> Result<Self, StartError> {
        config.check().map_err(StartError::Settings)?;
        config.jetstream.fill_limits(&*disk);
        let broker = Broker::new();
        let listener = listen(&config).await?;
        let addresses: Vec<SocketAddr> = listener
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect();
        let info = hello(&config, addresses.first().copied());
        announce(&config, &info);
        let config = Arc::new(config);
        let front = Front::new(Arc::clone(&broker), Arc::clone(&config), info.clone());
        // Before the store is read, which may take long: who watches the start can ask how it goes.
        let streams = monitor::Streams::default();
        let monitor = monitor::start(&config, Arc::clone(&front), Arc::clone(&streams)).await?;
        let jetstream = match config.jetstream.enabled {
            true => {
                let mut settings = jetstream::Settings::new(&config, &info.server_name, disk);
                settings.tuning = tuning;
                announce_jetstream(&settings);
                Some(JetStream::start(Arc::clone(&broker), settings).await?)
            }
            false => None,
        };
        if !halyard_runtime::in_sim() {
            // It ends with the broker.
            drop(task::spawn(memory::keep(Arc::downgrade(&broker))));
        }
        if let Some(jetstream) = &jetstream {
            jetstream.clients().know(&front);
            streams.get_or_init(|| Arc::clone(jetstream));
        }
        let accepting = listener.map(|listener| {
            if let Some(address) = addresses.first() {
                tracing::info!("Listening for client connections on {address}");
            }
            task::spawn(conn::accept(Arc::clone(&front), listener))
        });
        tracing::info!("Server is ready");
        Ok(Self {
            front,
            addresses,
            listener: Mutex::new(accepting),
            monitor,
            jetstream,
        })
    }

    /// The addresses at which clients are taken; empty without a listener.
    #[must_use]
    pub fn client_addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    /// The address of the monitoring endpoint, if there is one.
    #[must_use]
    pub fn monitor_address(&self) -> Option<SocketAddr> {
        self.monitor.as_ref().map(monitor::Handle::address)
    }

    /// A URL at which clients of this machine may connect.
    #[must_use]
    pub fn client_url(&self) -> Option<String> {
        let address = self.addresses.first()?;
        let ip = address.ip();
        let host = match ip.is_unspecified() {
            true => "127.0.0.1".to_owned(),
            false if ip.is_ipv6() => format!("[{ip}]"),
            false => ip.to_string(),
        };
        Some(format!("nats://{host}:{}", address.port()))
    }

    /// What connections share: settings, INFO, accounts, who is connected.
    #[must_use]
    pub fn front(&self) -> Arc<Front> {
        Arc::clone(&self.front)
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.front.settings()
    }

    /// The account of everybody who has no other: publish and subscribe here without any connection.
    #[must_use]
    pub fn account(&self) -> Arc<Account> {
        self.front.broker.global()
    }

    /// Streams and consumers, if they are served.
    #[must_use]
    pub const fn jetstream(&self) -> Option<&Arc<JetStream>> {
        self.jetstream.as_ref()
    }

    /// A client connection inside the process. It speaks the NATS protocol, beginning with the server's INFO.
    #[must_use]
    pub fn connect_in_process(&self) -> InProcess {
        conn::connect_in_process(&self.front)
    }

    /// Puts new settings in force: limits, pings, deadlines, authorization and lame duck times also for live connections.
    /// The caller has checked that nothing else differs.
    pub fn reload(&self, config: Config) {
        let config = Arc::new(config);
        let authorization_changed = self.config().authorization != config.authorization;
        if let Some(jetstream) = &self.jetstream {
            let limits = &config.jetstream;
            jetstream.set_limits(limits.max_memory_store, limits.max_file_store);
        }
        let told = self.front.info();
        let fresh = hello(&config, self.addresses.first().copied());
        self.front.set_settings(config);
        let same = told.max_payload == fresh.max_payload
            && told.auth_required == fresh.auth_required
            && (&told.host, told.port) == (&fresh.host, fresh.port);
        if !same {
            self.front.change_info(|info| {
                info.max_payload = fresh.max_payload;
                info.auth_required = fresh.auth_required;
                (info.host, info.port) = (fresh.host, fresh.port);
            });
        }
        if authorization_changed {
            self.front.check_authorization();
        }
        self.front.check_count();
    }

    /// Stops taking clients, tells those that are there to go, and closes them one after the other over
    /// `lame_duck_duration`. Returns when the last is gone.
    pub async fn lame_duck(&self) {
        tracing::info!("Entering lame duck mode, stop accepting new clients");
        self.stop_listening();
        self.front.enter_lame_duck();
        let settings = self.config();
        let begin = Instant::now();
        time::sleep(settings.lame_duck_grace_period).await;
        let left = settings
            .lame_duck_duration
            .saturating_sub(settings.lame_duck_grace_period);
        let connections = self.front.registry.open();
        let count = u32::try_from(connections.len()).unwrap_or(u32::MAX).max(1);
        // Spread evenly, but the last ones need not wait for the full time if there are few.
        let gap = (left / count).min(Duration::from_secs(1));
        for (closed, connection) in connections.iter().enumerate() {
            self.tell_pulls(Some(connection.id)).await;
            self.front.close(connection.id, CloseReason::ServerShutdown);
            if closed + 1 < connections.len() {
                time::sleep(gap).await;
            }
        }
        tracing::info!("Lame duck mode ends after {:?}", begin.elapsed());
        self.shutdown().await;
    }

    /// Stops: takes no more clients, closes those that are there, and returns when all is done.
    pub async fn shutdown(&self) {
        self.stop_listening();
        self.tell_pulls(None).await;
        for connection in self.front.registry.open() {
            self.front.close(connection.id, CloseReason::ServerShutdown);
        }
        let deadline = Instant::now() + caps::CLOSE_LINGER * 2;
        while self.front.registry.count() > 0 && Instant::now() < deadline {
            time::sleep(Duration::from_millis(1)).await;
        }
        if let Some(jetstream) = &self.jetstream {
            jetstream.shutdown().await;
        }
    }

    /// Ends the pull requests of one connection, or all: whoever waits asks again elsewhere, or after the restart.
    async fn tell_pulls(&self, client: Option<ClientId>) {
        if let Some(jetstream) = &self.jetstream {
            // A group that is busy for longer must not keep the server from stopping.
            let _ = time::timeout(caps::CLOSE_LINGER, jetstream.leave(client)).await;
        }
    }

    /// What [`Server::shutdown`] could not write, for people; a start finds it in the log, unless that had failed before.
    #[must_use]
    pub fn unwritten(&self) -> Option<String> {
        let jetstream = self.jetstream.as_ref()?;
        jetstream.unwritten()
    }

    fn stop_listening(&self) {
        if let Some(listener) = self.listener.lock().take() {
            listener.abort();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_listening();
        for connection in self.front.registry.open() {
            self.front.close(connection.id, CloseReason::ServerShutdown);
        }
    }
}

async fn listen(config: &Config) -> Result<Option<TcpListener>, StartError> {
    if config.dont_listen {
        return Ok(None);
    }
    let failed = |error| StartError::Listen {
        host: config.host.clone(),
        port: config.port,
        error,
    };
    let listener = net::listen(&config.host, config.port).await;
    Ok(Some(listener.map_err(failed)?))
}

/// What every client is told first.
fn hello(config: &Config, address: Option<SocketAddr>) -> Info {
    let server_id = server_id();
    let mut info = Info {
        server_name: config
            .server_name
            .clone()
            .unwrap_or_else(|| server_id.clone()),
        server_id,
        version: NATS_VERSION.to_owned(),
        proto: 1,
        go: "rust".to_owned(),
        halyard: VERSION.to_owned(),
        host: config.host.clone(),
        port: address.map_or(config.port, |address| address.port()),
        headers: !config.no_header_support,
        auth_required: config.authorization.is_required(),
        max_payload: i64::try_from(config.limits.max_payload).unwrap_or(i64::MAX),
        jetstream: config.jetstream.enabled,
        domain: config.jetstream.domain.clone().unwrap_or_default(),
        api_lvl: API_LEVEL,
        ..Info::default()
    };
    if let Some(advertised) = &config.client_advertise
        && let Some((host, port)) = advertised.rsplit_once(':')
    {
        info.host = host.to_owned();
        info.port = port.parse().unwrap_or(info.port);
    }
    info
}

/// Level of the JetStream API that is shown to clients.
const API_LEVEL: u64 = 5;

/// `N` and 55 random characters, in the form of a public key of a NATS server.
fn server_id() -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut bytes = [0; 55];
    random::fill(&mut bytes);
    let letters = bytes
        .iter()
        .filter_map(|byte| ALPHABET.get(usize::from(byte % 32)));
    std::iter::once('N')
        .chain(letters.map(|letter| char::from(*letter)))
        .collect()
}

fn announce_jetstream(settings: &jetstream::Settings) {
    let gigabytes = |bytes: Option<u64>| match bytes {
        Some(bytes) => format!("{:.2} GB", bytes as f64 / f64::from(1 << 30)),
        None => "unlimited".to_owned(),
    };
    tracing::info!("Starting JetStream");
    tracing::info!("  Strict:          {}", settings.strict);
    tracing::info!("  Max Memory:      {}", gigabytes(settings.max_memory));
    tracing::info!("  Max Storage:     {}", gigabytes(settings.max_storage));
    tracing::info!("  Store Directory: \"{}\"", settings.data_dir.display());
    if let Some(encryption) = &settings.encryption {
        tracing::info!("  Encryption:      {}", encryption.cipher.name());
    }
    if let Some(domain) = &settings.domain {
        tracing::info!("  Domain:          {domain}");
    }
}

fn announce(config: &Config, info: &Info) {
    tracing::info!("Starting {NAME}");
    tracing::info!("  Version:  {VERSION} (NATS {NATS_VERSION})");
    tracing::info!("  Name:     {}", info.server_name);
    tracing::info!("  ID:       {}", info.server_id);
    if let Some(file) = &config.config_file {
        let digest = config.config_digest.as_deref().unwrap_or_default();
        tracing::info!("Using configuration file: {} ({digest})", file.display());
    }
}
