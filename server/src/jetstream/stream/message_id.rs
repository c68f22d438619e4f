//! What is kept of a message's id: a hash of it.
//!
//! An id is a part of the message's headers, and must vanish when the message is erased; what is remembered of it for the
//! duplicate window, and as the stream's last one, must not. So no record holds an id, only the first 128 bits of its
//! SHA-256: the same on every replica and in every life, and nobody finds two ids with the same one.

use halyard_engine::{Store, StreamId};
use sha2::{Digest as _, Sha256};

use super::headers;

/// Bytes of a hash.
pub const HASH_BYTES: usize = 16;

/// The hash of a message's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; HASH_BYTES]);

impl MessageId {
    /// Of the value of a `Nats-Msg-Id` header.
    #[must_use]
    pub fn of(id: &[u8]) -> Self {
        let hash = Sha256::digest(id);
        let hash = hash.first_chunk().copied();
        Self(hash.expect("SHA-256 gives 32 bytes"))
    }
}

/// The id of a stream's last message.
#[derive(Debug, Default)]
pub(super) struct LastId {
    hash: Option<MessageId>,
    /// What it reads like, as long as this process remembers: only errors show it. Never on disk.
    text: Vec<u8>,
}

impl LastId {
    /// As its record says.
    pub(super) const fn known(hash: Option<MessageId>) -> Self {
        Self {
            hash,
            text: Vec::new(),
        }
    }

    pub(super) const fn hash(&self) -> Option<MessageId> {
        self.hash
    }

    /// The last message has this id now, or none. Whether that may have changed the record.
    pub(super) fn set(&mut self, id: Option<(MessageId, &[u8])>) -> bool {
        let id = id.filter(|(_, text)| !text.is_empty());
        let before = std::mem::replace(&mut self.hash, id.map(|(hash, _)| hash));
        self.text.clear();
        self.text
            .extend_from_slice(id.map_or(&[], |(_, text)| text));
        before.is_some() || self.hash.is_some()
    }

    /// Whether it is `expected`; without one only the empty id is.
    pub(super) fn is(&self, expected: &[u8]) -> bool {
        match self.hash {
            Some(hash) => hash == MessageId::of(expected),
            None => expected.is_empty(),
        }
    }

    /// What it reads like. After a restart the last message says it; when that has gone, nobody knows.
    pub(super) fn text(&self, store: &Store, stream: StreamId) -> Vec<u8> {
        let hash = self.hash.filter(|_| self.text.is_empty());
        let Some(hash) = hash else {
            return self.text.clone();
        };
        let last = store.get(stream, store.last_seq(stream)).ok().flatten();
        let text = last.and_then(|last| {
            headers::parse(last.headers())
                .msg_id
                .map(<[u8]>::to_vec)
                .filter(|id| MessageId::of(id) == hash)
        });
        text.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lies in stores must be found again for ever.
    #[test]
    fn the_hash_never_changes() {
        let hash = MessageId::of(b"abc").0;
        let known = [
            0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae,
            0x22, 0x23,
        ];
        assert_eq!(hash, known);
        assert_ne!(MessageId::of(b""), MessageId::of(b"a"));
    }
}
