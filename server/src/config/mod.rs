//! What the server is told to do: settings, where they come from, and which may change while it runs.
//!
//! Reading order: [`settings`] holds the typed result with its defaults; everything else only fills or compares it.

mod settings;

pub use settings::{
    Authorization, CLIENT_PORT, Config, JetStream, JetStreamLimits, Limits, LogSettings,
    MAX_CLOSED_CLIENTS, MAX_CONNECTIONS, MAX_CONTROL_LINE_BYTES, MAX_PAYLOAD_BYTES,
    MAX_PENDING_BYTES, MONITOR_PORT, Monitor, User,
};
