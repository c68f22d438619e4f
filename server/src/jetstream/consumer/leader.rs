//! The leader's side of the consumers of one group: who waits, what is sent. Owned by the group's driver.

use std::sync::Arc;

use halyard_engine::StreamId;
use halyard_runtime::time::Timestamp;

use super::Effect;
use crate::jetstream::group::Reply;
use crate::jetstream::handle::GroupHandle;
use crate::jetstream::service::JetStream;

/// Names a command that the leader side has proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(pub u64);

/// The leader side of one group.
#[derive(Debug, Default)]
pub struct Leader {}

impl Leader {
    /// The leader side of `group`.
    #[must_use]
    pub fn new(_service: &Arc<JetStream>, _group: &Arc<GroupHandle>) -> Self {
        Self::default()
    }

    /// Does what is to do; when to be called at the latest.
    pub const fn poll(&mut self, _now: Timestamp, _group: &GroupHandle) -> Option<Timestamp> {
        None
    }

    /// A command of its own was applied.
    pub fn applied(&mut self, _token: Token, _reply: Reply) {}

    /// Entries were lost sight of: what was proposed may or may not come.
    pub const fn lost(&mut self) {}

    /// A stream has new messages, up to this sequence.
    pub const fn stored(&mut self, _stream: StreamId, _last_seq: u64) {}

    /// What the machine asked for.
    pub fn effects(&mut self, _effects: Vec<(StreamId, Effect)>) {}
}
