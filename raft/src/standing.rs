//! Where a machine's own store stands: what it keeps beside its state, so that its log can be found to fit or not.
//!
//! ```text
//!   standing   version u8 = 1 | log id (the last entry that it holds) | stored membership (as of then)
//! ```

use bytes::Bytes;

use crate::codec;
use crate::ids::LogId;
use crate::members::Membership;
use halyard_format::codec::{Fields, Malformed, Reader};

const VERSION: u8 = 1;

/// The last entry that a store holds, and the membership as of then.
///
/// An index alone is a standing, too: stores of before there was more than that kept no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The last entry that the machine was given.
    pub at: LogId,
    /// The last membership that it was told.
    pub membership: Membership,
}

/// Bytes that are no standing, or one of a later release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what the store keeps of its place in the log cannot be read: {0}")]
pub struct BadStanding(&'static str);

impl From<u64> for Standing {
    fn from(index: u64) -> Self {
        let at = LogId {
            index,
            ..LogId::default()
        };
        Self {
            at,
            ..Self::default()
        }
    }
}

impl Standing {
    /// As a store keeps it: nothing where no more than an index is known.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        if !self.is_known() {
            return Bytes::new();
        }
        let mut out = Fields::default();
        codec::put_log_id(out.u8(VERSION), &self.at);
        codec::put_stored(&mut out, &self.membership);
        Bytes::from(out.0)
    }

    /// Reads what a store keeps beside the index `applied`; nothing in stores of earlier releases.
    ///
    /// # Errors
    /// [`BadStanding`].
    pub fn decode(applied: u64, bytes: &[u8]) -> Result<Self, BadStanding> {
        if bytes.is_empty() {
            return Ok(applied.into());
        }
        let mut input = Reader::new(bytes);
        let mut read = || {
            if input.u8()? != VERSION {
                return Err(Malformed("it is of another version"));
            }
            let at = codec::log_id(&mut input)?;
            let membership = codec::stored(&mut input)?;
            input.end()?;
            Ok(Self { at, membership })
        };
        let standing = read().map_err(|Malformed(what)| BadStanding(what))?;
        if standing.at.index != applied {
            return Err(BadStanding("it is of another entry"));
        }
        Ok(standing)
    }

    /// Whether it says more than an index: entries for a machine are of term 1 or later.
    pub(crate) const fn is_known(&self) -> bool {
        self.at.term > 0
    }

    /// The last entry known to be applied: that of the membership has no payload, and may come after those that have.
    pub(crate) fn last(&self) -> LogId {
        self.at.max(self.membership.since.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use crate::members::Members;

    #[test]
    fn it_reads_back_and_nothing_else_does() {
        let at = LogId {
            term: 3,
            leader: NodeId(1 << 40),
            index: 9,
        };
        let membership = Membership {
            since: Some(LogId { index: 7, ..at }),
            members: Members::alone(NodeId(5)),
        };
        let standing = Standing { at, membership };
        let bytes = standing.encode();
        assert_eq!(Standing::decode(9, &bytes), Ok(standing));
        assert_eq!(Standing::decode(9, b""), Ok(9.into()));
        assert!(Standing::decode(8, &bytes).is_err(), "of another entry");
        for length in 1..bytes.len() {
            assert!(Standing::decode(9, &bytes[..length]).is_err(), "{length}");
        }
        let newer = [&[2], &bytes[1..]].concat();
        assert!(Standing::decode(9, &newer).is_err(), "a later version");
    }
}
