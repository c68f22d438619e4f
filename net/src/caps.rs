//! Every limit of the client protocol, with its unit and what happens at it.

/// Longest argument part of a control line, in bytes, unless configured: what stands between the verb (and the blanks
/// behind it) and the line's end. A longer one closes the connection with `maximum control line exceeded`.
pub const CONTROL_LINE_BYTES_MAX: usize = 4096;

/// Largest message (header block and payload together), in bytes, unless configured.
/// A larger one closes the connection with `Maximum Payload Violation`.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// Longest control line that a *client* accepts from a server, in bytes: an INFO names every server of a large cluster.
pub const SERVER_LINE_BYTES_MAX: usize = 256 * 1024;

/// Outbound bytes that may wait for a slow connection, unless configured; above, it is closed as a slow consumer.
pub const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Open client connections, unless configured; the next one is told `maximum connections exceeded` and closed.
pub const CONNECTIONS_MAX: usize = 65_536;

/// Digits in a size or count. More make the number unreadable, which is a protocol violation.
/// So every number that a peer can write fits in 32 bits.
pub const NUMBER_DIGITS_MAX: usize = 9;

/// Longest header block line that is looked at, in bytes: the server's bound on one `Name: value`.
pub const HEADER_BLOCK_BYTES_MAX: usize = 64 * 1024;

/// Bytes that a reader should offer the parser at once: enough for thousands of small messages in one system call.
pub const READ_CHUNK_BYTES: usize = 64 * 1024;
