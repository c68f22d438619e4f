//! The settings of one server, typed, with the defaults of NATS.
//!
//! Plain data: nothing here reads a file, a clock or the environment. `Config::default()` is a working server on port
//! 4222 without JetStream; an embedding program changes the fields it cares about. A field exists only if the server
//! honours it: what is not supported yet is refused while the configuration is read, never accepted and ignored.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use halyard_format::Cipher;

/// Port of client connections if nothing else is said.
pub const CLIENT_PORT: u16 = 4222;
/// Port of the monitoring endpoint if it is asked for without a number.
pub const MONITOR_PORT: u16 = 8222;
/// Largest message (headers and payload) that a client may publish, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;
/// Longest line of the client protocol, in bytes.
pub const MAX_CONTROL_LINE_BYTES: usize = 4096;
/// Bytes that may wait for one slow reader before it is disconnected.
pub const MAX_PENDING_BYTES: usize = 64 * 1024 * 1024;
/// Client connections at one time.
pub const MAX_CONNECTIONS: usize = 65_536;
/// Closed connections that `/connz?state=closed` remembers.
pub const MAX_CLOSED_CLIENTS: usize = 10_000;

/// All settings of one server.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Address to listen on for clients.
    pub host: String,
    /// Port to listen on for clients; 0 takes any free port.
    pub port: u16,
    /// Do not listen for clients at all (embedding: in-process connections only).
    pub dont_listen: bool,
    /// `host:port` that INFO and `connect_urls` show in place of the real address.
    pub client_advertise: Option<String>,
    /// Name shown in INFO and by the monitor; `None` takes the server's id.
    pub server_name: Option<String>,
    /// Free tags shown by the monitor.
    pub server_tags: Vec<String>,
    /// Free key-value pairs shown by the monitor.
    pub server_metadata: BTreeMap<String, String>,
    /// Limits of connections and messages.
    pub limits: Limits,
    /// Idle time after which the server pings a client.
    pub ping_interval: Duration,
    /// Pings that may be unanswered before the connection is stale.
    pub ping_max: u32,
    /// How long one write to a client may be blocked.
    pub write_deadline: Duration,
    /// Refuses message headers (`HPUB`) and says so in INFO.
    pub no_header_support: bool,
    /// Over how long a lame duck server spreads the closing of its clients.
    pub lame_duck_duration: Duration,
    /// How long a lame duck server waits before it closes the first client.
    pub lame_duck_grace_period: Duration,
    /// The monitoring endpoint, if there is one.
    pub monitor: Option<Monitor>,
    /// Path before every monitoring endpoint, empty or like `/nats`.
    pub monitor_base_path: String,
    /// Who may connect.
    pub authorization: Authorization,
    /// Streams and consumers.
    pub jetstream: JetStream,
    /// What is logged, and where to.
    pub log: LogSettings,
    /// File that holds the process id while the server runs.
    pub pid_file: Option<PathBuf>,
    /// Directory in which `<executable>_<pid>.ports` lists the addresses while the server runs.
    pub ports_file_dir: Option<PathBuf>,
    /// The file that the settings came from.
    pub config_file: Option<PathBuf>,
    /// `sha256:…` of the configuration's values, shown by the monitor.
    pub config_digest: Option<String>,
}

/// Limits of connections and messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest headers + payload of a message, bytes. At most `max_pending`.
    pub max_payload: usize,
    /// Longest protocol line, bytes.
    pub max_control_line: usize,
    /// Bytes that may wait for one slow reader.
    pub max_pending: usize,
    /// Client connections at one time; `None` is unlimited.
    pub max_connections: Option<usize>,
    /// Subscriptions of one connection; `None` is unlimited.
    pub max_subscriptions: Option<usize>,
    /// Tokens of one subscription's subject; `None` is unlimited.
    pub max_sub_tokens: Option<usize>,
    /// Bytes of a payload that a trace line shows; `None` is all of them.
    pub max_traced_msg_len: Option<usize>,
    /// Closed connections that the monitor remembers.
    pub max_closed_clients: usize,
}

/// The monitoring endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    /// Address to listen on; `None` is the clients' one.
    pub host: Option<String>,
    /// Port to listen on; 0 takes any free port.
    pub port: u16,
}

/// Who may connect. Everybody, if nothing is set.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Authorization {
    /// The one user, if `users` is not used.
    pub user: Option<String>,
    /// Password of `user`.
    pub password: Option<String>,
    /// The one token, in place of a user.
    pub token: Option<String>,
    /// Named users. All belong to the global account.
    pub users: Vec<User>,
    /// How long a client may take to send CONNECT; `None` is two seconds.
    pub timeout: Option<Duration>,
    /// Name of the user (of `users`) that clients without credentials become.
    pub no_auth_user: Option<String>,
}

/// One named user.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Password, in the clear.
    pub password: String,
}

/// Streams and consumers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JetStream {
    /// Whether streams and consumers are served.
    pub enabled: bool,
    /// Directory that the user named; data lies in [`JetStream::data_dir`] below it. `None`: below the system's
    /// temporary directory, which a reboot may empty.
    pub store_dir: Option<PathBuf>,
    /// Bytes that all memory streams together may hold; `None` is 75 % of the machine's memory.
    pub max_memory_store: Option<u64>,
    /// Bytes that all file streams together may hold; `None` is what they hold at start and 75 % of what is free then.
    pub max_file_store: Option<u64>,
    /// Whether that was filled in with a share of what is free.
    pub max_file_store_is_share: bool,
    /// Name of this server's JetStream domain.
    pub domain: Option<String>,
    /// Refuse unknown fields in API requests.
    pub strict: bool,
    /// How long after a delete or purge the last copy of the bytes is gone at the latest.
    pub erase_within: Duration,
    /// Caps on what streams and consumers may ask for.
    pub limits: JetStreamLimits,
    /// Encryption of everything that is kept on disk; `None` keeps it as it is.
    pub encryption: Option<Encryption>,
}

/// Encryption at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// Protects what is written.
    pub key: Secret,
    /// Opens what was written before the key was changed. It is rewritten, and after that not needed any more.
    pub previous: Option<Secret>,
    /// Seals what is written.
    pub cipher: Cipher,
}

/// A text that no log line, no monitor and no error may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// Caps on what the configuration of streams and consumers may ask for. `None` is no cap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JetStreamLimits {
    /// Longest window in which a stream recognises duplicates.
    pub duplicate_window: Option<Duration>,
}

/// What is logged, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Log what the server decides.
    pub debug: bool,
    /// Log the protocol of every client.
    pub trace: bool,
    /// With `trace`: the system account's traffic, too.
    pub trace_verbose: bool,
    /// With `trace`: only the headers of messages, not their payload.
    pub trace_headers: bool,
    /// Begin each line with date and time.
    pub time: bool,
    /// Date and time in UTC, not in local time.
    pub time_utc: bool,
    /// Lines are JSON objects with `time`, `level`, `pid` and `msg`.
    pub json: bool,
    /// File to log to; `None` is standard error.
    pub file: Option<PathBuf>,
    /// Size in bytes at which the file is renamed and a new one begun; `None` is never.
    pub size_limit: Option<u64>,
    /// How many files are kept, the current one included; `None` is all.
    pub max_files: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: "0.0.0.0".to_owned(),
            port: CLIENT_PORT,
            dont_listen: false,
            client_advertise: None,
            server_name: None,
            server_tags: Vec::new(),
            server_metadata: BTreeMap::new(),
            limits: Limits::default(),
            ping_interval: Duration::from_secs(120),
            ping_max: 2,
            write_deadline: Duration::from_secs(10),
            no_header_support: false,
            lame_duck_duration: Duration::from_secs(120),
            lame_duck_grace_period: Duration::from_secs(10),
            monitor: None,
            monitor_base_path: String::new(),
            authorization: Authorization::default(),
            jetstream: JetStream::default(),
            log: LogSettings::default(),
            pid_file: None,
            ports_file_dir: None,
            config_file: None,
            config_digest: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_payload: MAX_PAYLOAD_BYTES,
            max_control_line: MAX_CONTROL_LINE_BYTES,
            max_pending: MAX_PENDING_BYTES,
            max_connections: Some(MAX_CONNECTIONS),
            max_subscriptions: None,
            max_sub_tokens: None,
            max_traced_msg_len: None,
            max_closed_clients: MAX_CLOSED_CLIENTS,
        }
    }
}

impl Default for JetStream {
    fn default() -> Self {
        Self {
            enabled: false,
            store_dir: None,
            max_memory_store: None,
            max_file_store: None,
            max_file_store_is_share: false,
            domain: None,
            strict: true,
            erase_within: Duration::from_secs(60),
            limits: JetStreamLimits::default(),
            encryption: None,
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            debug: false,
            trace: false,
            trace_verbose: false,
            trace_headers: false,
            time: true,
            time_utc: false,
            json: false,
            file: None,
            size_limit: None,
            max_files: None,
        }
    }
}

impl JetStream {
    /// The directory that holds the node's log and stores.
    ///
    /// Our own name below the user's directory: nats-server keeps its files in `jetstream` there, and neither server
    /// may ever touch what the other wrote.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        let base = self.store_dir.clone();
        base.unwrap_or_else(|| std::env::temp_dir().join("nats"))
            .join("halyard")
    }
}

impl Authorization {
    /// Whether clients must show credentials (INFO's `auth_required`).
    ///
    /// False with `no_auth_user`: a client that shows none is welcome then.
    #[must_use]
    pub fn is_required(&self) -> bool {
        let credentials = self.user.is_some() || self.token.is_some() || !self.users.is_empty();
        credentials && self.no_auth_user.is_none()
    }
}

// Secrets never reach a log line by way of `{:?}`.
impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorization")
            .field("user", &self.user)
            .field("token", &self.token.as_ref().map(|_| "[REDACTED]"))
            .field("users", &self.users)
            .field("timeout", &self.timeout)
            .field("no_auth_user", &self.no_auth_user)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
