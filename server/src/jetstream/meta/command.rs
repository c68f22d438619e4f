//! What changes the meta state, and how it travels: one command is one entry of the meta group's log.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::jetstream::plain;

/// A change. Configurations are JSON: they grow fields with versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Give a stream a name, an id and a group.
    Create {
        /// Its account.
        account: String,
        /// Its configuration, normalized and checked.
        config: Vec<u8>,
        /// When it was asked for, nanoseconds since the Unix epoch.
        created: i64,
    },
    /// Change its configuration.
    Update {
        /// Its account.
        account: String,
        /// The whole new configuration, normalized.
        config: Vec<u8>,
    },
    /// Begin to delete it: from here on nobody finds it.
    Delete {
        /// Its account.
        account: String,
        /// Its name.
        name: String,
    },
    /// Its group has dropped it; the name is free.
    Forget {
        /// Its account.
        account: String,
        /// Its id.
        id: u64,
    },
    /// Give a stream of a backup a name, an id and a group; nobody finds it yet.
    Restore {
        /// Its account.
        account: String,
        /// Its configuration, normalized and checked.
        config: Vec<u8>,
        /// When it was asked for, nanoseconds since the Unix epoch.
        created: i64,
    },
    /// Its backup is complete: from here on it is a stream like any other.
    Activate {
        /// Its account.
        account: String,
        /// Its id.
        id: u64,
    },
}

impl Command {
    /// The entry.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        plain::record(self).into()
    }

    /// The other way. `None`: not a command of this version.
    #[must_use]
    pub fn decode(entry: &[u8]) -> Option<Self> {
        postcard::from_bytes(entry).ok()
    }
}
