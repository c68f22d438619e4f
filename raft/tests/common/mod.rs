//! What several tests of nodes share.

use bytes::Bytes;
use halyard_raft::{LogId, Machine};

/// A machine that counts entries.
#[derive(Default)]
pub(crate) struct Count(pub(crate) u64);

impl Machine for Count {
    type Reply = u64;
    fn apply(&mut self, _: LogId, _: &Bytes) -> u64 {
        self.0 += 1;
        self.0
    }
}
