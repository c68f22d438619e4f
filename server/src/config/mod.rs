//! What the server is told to do: settings, where they come from, and which may change while it runs.
//!
//! Reading order: `settings` is the typed result with its defaults. A file becomes settings in three steps: `scan`
//! (characters to words), `parse` and `scalar` (words to a tree of [`Value`]s), `keys` (the tree to settings).
//! `flags` and `flag_table` are the command line; `load` puts the two together; `reload`
//! says what of it may change while the server runs.

mod settings;

mod position;
mod value;

mod parse;
mod scalar;
mod scan;

mod address;
mod keys;
mod keys_encryption;
mod keys_jetstream;
mod keys_users;

mod flag_table;
mod flags;

mod digest;
mod load;
mod machine;
mod reload;
mod suggest;
mod version;

pub use flags::{Action, CommandLine, StoreCommand, UsageError, help, program_name};
pub use halyard_format::Cipher;
pub use keys::{Findings, apply};
pub use load::{LoadError, Loaded, System};
pub use parse::{Surroundings, parse_file};
pub use position::{Position, Problem};
pub use reload::{Change, Refused, plan};
pub use settings::{
    Authorization, CLIENT_PORT, Config, Encryption, JetStream, JetStreamLimits, Limits,
    LogSettings, MAX_CLOSED_CLIENTS, MAX_CONNECTIONS, MAX_CONTROL_LINE_BYTES, MAX_PAYLOAD_BYTES,
    MAX_PENDING_BYTES, MONITOR_PORT, Monitor, Secret, User,
};
pub use value::{Entry, Kind, Map, Value, parse_duration};
pub use version::{NAME, NATS_VERSION, VERSION, version_line};

#[cfg(test)]
mod config_test;
