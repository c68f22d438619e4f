//! Who published a message.
//!
//! What a client asks for and what the server says travel over the same subjects. A consumer delivers what is stored, to
//! wherever its configuration says; an answer goes to whatever reply subject a client chose. Neither is a request, however it
//! is addressed. So whoever serves requests asks for the origin, which bytes from outside cannot form.

use std::sync::atomic::{AtomicU64, Ordering};

use super::message::ClientId;

/// Who published a message.
#[derive(Debug, Clone, Copy, Default)]
pub enum Origin<'a> {
    /// The server: answers, deliveries, advisories. Never taken for a request.
    #[default]
    Server,
    /// A program that embeds the server.
    Program,
    /// A client.
    Client(&'a Publisher),
}

impl<'a> Origin<'a> {
    /// Whether somebody outside the server asks for something.
    #[must_use]
    pub const fn is_outside(&self) -> bool {
        matches!(self, Self::Program | Self::Client(_))
    }

    /// The client.
    #[must_use]
    pub const fn publisher(&self) -> Option<&'a Publisher> {
        match self {
            Self::Client(publisher) => Some(publisher),
            Self::Server | Self::Program => None,
        }
    }

    /// The connection of the client.
    #[must_use]
    pub fn client(&self) -> Option<ClientId> {
        self.publisher().map(Publisher::id)
    }
}

/// A connection as one who publishes.
#[derive(Debug)]
pub struct Publisher {
    id: ClientId,
    last_write: AtomicU64,
}

impl Publisher {
    /// One that has published nothing yet.
    #[must_use]
    pub const fn new(id: ClientId) -> Self {
        Self {
            id,
            last_write: AtomicU64::new(0),
        }
    }

    /// Its connection.
    #[must_use]
    pub const fn id(&self) -> ClientId {
        self.id
    }

    /// The number of its last message that somebody stores.
    #[must_use]
    pub fn last_write(&self) -> WriteNumber {
        WriteNumber(self.last_write.load(Ordering::Relaxed))
    }

    /// Somebody stores its message, under this number. Called by the connection's own task alone.
    pub fn wrote(&self, number: WriteNumber) {
        self.last_write.store(number.0, Ordering::Relaxed);
    }
}

/// Numbers of messages that are stored, in the order in which they are taken: a client finds what it wrote before it asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteNumber(u64);

impl WriteNumber {
    /// Before all messages.
    pub const NONE: Self = Self(0);

    /// A number above all that were given before.
    #[must_use]
    pub fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// As a plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}
