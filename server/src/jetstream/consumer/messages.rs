//! What a consumer asks of its stream's messages. The engine's index answers it; tests answer it with a plain list.

use halyard_engine::Filters;
use halyard_runtime::time::Timestamp;

/// A look at the messages of one stream, at one moment of the log.
///
/// Every answer is a function of the applied log alone, so that all replicas select the same messages.
pub trait Messages {
    /// Sequence of the first message; `last_seq() + 1` when there is none.
    fn first_seq(&self) -> u64;
    /// Sequence of the last message ever stored; 0 when there was none.
    fn last_seq(&self) -> u64;
    /// Whether the message is still there.
    fn contains(&self, seq: u64) -> bool;
    /// The first message at `from` or later that matches.
    fn next_matching(&self, filters: &Filters, from: u64) -> Option<u64>;
    /// The last message that matches.
    fn last_matching(&self, filters: &Filters) -> Option<u64>;
    /// How many messages at `from` or later match.
    fn count_matching(&self, filters: &Filters, from: u64) -> u64;
    /// The last message of each subject that matches, in increasing order.
    fn last_of_each_subject(&self, filters: &Filters) -> Vec<u64>;
    /// The first sequence stored at `time` or later; `last_seq() + 1` when there is none.
    fn seq_at_time(&self, time: Timestamp) -> u64;
    /// Bytes of a delivery: subject, headers and payload. `None`: the message is gone or cannot be read.
    fn size(&self, seq: u64) -> Option<u64>;
    /// Calls `look` with the subject; false when the message is gone or cannot be read.
    fn with_subject(&self, seq: u64, look: &mut dyn FnMut(&[u8])) -> bool;
}
