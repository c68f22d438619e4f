//! Every limit of this crate, with its unit and its reason. What the configuration can change is in [`crate::config`].

use std::time::Duration;

/// Bytes that one read takes from a socket at most; the buffer belongs to the worker thread, not to the connection.
pub const READ_BYTES: usize = 64 * 1024;

/// Reads that one connection may do before other tasks of its worker run.
pub const READS_PER_TURN: usize = 4;

/// Bytes gathered for a connection before a new buffer is begun.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// Pieces handed to one vectored write.
pub const WRITE_PIECES: usize = 32;

/// Writes that a publisher does for one connection before it leaves the rest to that connection's own task.
pub const WRITES_PER_FLUSH: usize = 4;

/// Bytes of a new buffer; it grows to [`CHUNK_BYTES`] if it is filled.
pub const FIRST_CHUNK_BYTES: usize = 16 * 1024;

/// Buffers that each worker thread keeps for its next deliveries.
pub const SPARE_BUFFERS: usize = 32;

/// Messages from this size on are shared among their receivers in place of being copied for each, bytes.
pub const SHARED_BODY_BYTES: usize = 8 * 1024;

/// Bytes waiting for one receiver from which on publishers let it drain: what is in the processor's cache when it is written
/// is written at half the cost. Far below `max_pending`, which is about memory.
pub const SOFT_PENDING_BYTES: usize = 512 * 1024;

/// How long a publisher lets a receiver drain at most before it reads on.
pub const SOFT_PAUSE: Duration = Duration::from_millis(2);

/// So often publishers wait for a receiver that takes nothing; then they wait no more until it takes something. A process
/// that is only waiting for a processor takes longer than one pause.
pub const VAIN_WAITS_MAX: u32 = 8;

/// A publisher pauses when one of its receivers has more than this share of `max_pending` waiting (numerator, denominator).
pub const STALL_SHARE: (usize, usize) = (3, 4);

/// How long it pauses at most before it reads on.
pub const STALL: Duration = Duration::from_millis(5);

/// Time to a new client's first PING, from which the round trip time is known early.
pub const FIRST_PING: Duration = Duration::from_secs(2);

/// How long a publisher waits at most for a stream that has too much of its messages waiting; then one read is done all the
/// same, so that a client is seen to go.
pub const FULL_PAUSE: Duration = Duration::from_secs(10);

/// Bytes that messages longer than one read take on their way into streams, of all connections; more are not read.
pub const LARGE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// How long such a message counts in [`LARGE_BYTES_MAX`] while it is not complete: slow senders do not stop others.
pub const ADMITTED_MAX: Duration = Duration::from_secs(2);

/// How long a client may take to send CONNECT, unless configured.
pub const AUTH_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a closed connection may take to accept its last bytes, the reason of the closing among them.
pub const CLOSE_LINGER: Duration = Duration::from_millis(200);

/// Pauses after errors of `accept` (out of file descriptors, most likely): the first, and the longest.
pub const ACCEPT_BACKOFF: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_secs(1));

/// Bytes that wait for a subscriber inside the process that does not take them; more is lost.
pub const LOCAL_PENDING_BYTES: usize = 64 * 1024 * 1024;

/// Bytes that a pipe inside the process holds in each direction.
pub const PIPE_BYTES: usize = 256 * 1024;
