//! Every limit and default of streams: what, in which unit, and what happens beyond it.

use std::time::Duration;

/// Version of NATS whose behaviour streams have; shown in `_nats.ver`.
pub const NATS_VERSION: &str = "2.15.1";
/// Level of the JetStream API that is understood.
pub const API_LEVEL: u32 = 5;

/// Highest sequence that anybody may ask for, restore or have acknowledged: a quarter of what the number holds, so that as many
/// messages again fit above it ([`halyard_engine::SEQUENCE_MAX`]) and no sum overflows.
pub const SEQUENCE_ASKED_MAX: u64 = (1 << 62) - 1;
/// Most deliveries of one message that a restored consumer may state.
pub const DELIVERIES_MAX: u32 = (1 << 31) - 1;

/// Bytes of a stream's name; longer is refused.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a description; longer is refused.
pub const DESCRIPTION_BYTES_MAX: usize = 4096;
/// Bytes of all metadata keys and values; more is refused.
pub const METADATA_BYTES_MAX: usize = 128 * 1024;
/// Replicas of a stream; more is refused.
pub const REPLICAS_MAX: i64 = 5;
/// Nanoseconds for which a message id is remembered if nothing else is said.
pub const DUPLICATE_WINDOW: i64 = 120_000_000_000;
/// Shortest age limit and duplicate window, nanoseconds.
pub const MIN_AGE: i64 = 100_000_000;
/// Shortest life of the marker of an expired subject, nanoseconds.
pub const MARKER_TTL_MIN: i64 = 1_000_000_000;
/// Bytes of the headers of a stored message; so many and more are refused with 10097.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;

/// Names in one page of `STREAM.NAMES` and `CONSUMER.NAMES`.
pub const NAMES_PAGE: usize = 1024;
/// Streams in one page of `STREAM.LIST`.
pub const LIST_PAGE: usize = 256;
/// Subjects in one page of `STREAM.INFO`.
pub const SUBJECTS_PAGE: usize = 100_000;
/// Subjects of such a page that are read at one go, under the group's lock: about a millisecond.
pub const SUBJECTS_STEP: usize = 2_000;
/// Deleted sequences that `STREAM.INFO` lists at most.
pub const DELETED_DETAILS_MAX: usize = 1_000_000;
/// Results of one direct get of the last message of many subjects; more is a 413.
pub const MULTI_LAST_MAX: usize = 1024;
/// Filters with wildcards of one such request; more is a 413. Any number without.
pub const DIRECT_FILTERS_MAX: usize = 256;
/// API requests that wait to be answered; more are dropped, as by the peer.
pub const REQUESTS_WAITING_MAX: usize = 10_000;
/// Consumers of one stream that has no `max_consumers` of its own; one more is refused with 10026.
pub const CONSUMERS_PER_STREAM_MAX: usize = 1000;

/// Bytes of the bodies of requests that wait to be answered; more are dropped.
pub const REQUEST_BYTES_WAITING_MAX: usize = 64 * 1024 * 1024;

/// Bytes of the id of an atomic batch.
pub const BATCH_ID_BYTES_MAX: usize = 64;
/// Members of an atomic batch; one more abandons it with 10199.
pub const BATCH_MESSAGES_MAX: u64 = 1000;
/// Atomic batches of one stream that are open at one time; one more is refused with 10210.
pub const BATCHES_OPEN_MAX: usize = 50;
/// The same for all streams of a group.
pub const GROUP_BATCHES_OPEN_MAX: usize = 1000;
/// Nanoseconds without a member after which an atomic batch is abandoned.
pub const BATCH_IDLE: i64 = 10_000_000_000;

/// Bytes of publishes that wait for a group, with what each costs beside its bytes; beyond it a publish is refused with 10167
/// if its connection already has more than its share of them waiting.
pub const INBOX_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of the commands of one entry, about: what comes on top waits by stream and connection for one of the next.
pub const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes that one connection gets in turn while others wait.
pub const TURN_BYTES: usize = 64 * 1024;
/// Bytes that one connection may have waiting for one stream; with more it is not read. Less where many wait.
pub const WAITING_BYTES_PAUSE: usize = 1024 * 1024;
/// Bytes of a group's entries on their way through the log at one time, below what the log takes; an entry that is
/// longer goes alone.
pub const BYTES_IN_FLIGHT_MAX: usize = 12 * 1024 * 1024;
/// Entries of one group on their way through the log at one time: while one syncs, the next gathers.
pub const ENTRIES_IN_FLIGHT_MAX: usize = 4;

/// Bytes in the store's tail at which it is flushed to a segment, at most: three quarters of the reserve where that is less.
pub const DIRTY_BYTES_FLUSH: usize = 64 * 1024 * 1024;
/// Bytes of disk that only what makes room may use: more than a flush writes, which makes a purge durable.
pub const RESERVE_BYTES: u64 = 80 * 1024 * 1024;
/// The same on the smallest disk, where flushes are smaller, too.
pub const RESERVE_BYTES_MIN: u64 = 512 * 1024;
/// Segments of a store are not merged into larger ones.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// The same on the smallest disk.
pub const FILE_BYTES_MIN: u64 = 1024 * 1024;
/// Segments of the log are no shorter.
pub const LOG_SEGMENT_BYTES_MIN: u64 = 128 * 1024;
/// On a disk with less space than this for the server not much can be stored: it is told when the server starts.
pub const DISK_BYTES_MIN: u64 = 8 * 1024 * 1024;
/// The same for the store of the meta group, whose flushes are a few KiB.
pub const META_RESERVE_BYTES: u64 = 1024 * 1024;
/// A smaller tail is flushed when it is this old, so that the log stays short.
pub const FLUSH_INTERVAL: Duration = Duration::from_secs(30);
/// Streams that one turn under the group's lock prepares for a flush or for maintenance: a few milliseconds at most.
pub const STEP_STREAMS: usize = 1000;
/// How often background work of the store (compaction, erasure) is looked for.
pub const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// How often a store verifies the next 8 MiB of its segments: 0.5 MB/s, so a terabyte takes three weeks.
pub const SCRUB_INTERVAL: Duration = Duration::from_secs(16);
/// Bytes of the log that are verified as often; of the log it is all, most of the time.
pub const LOG_SCRUB_BYTES: u64 = 8 * 1024 * 1024;
/// Expired messages that one entry removes one by one at most, in all streams of its group; the rest goes with the next.
pub const EXPIRED_PER_TICK_MAX: usize = 10_000;
/// Messages that one entry looks at most at where consumers may need them no longer; the rest goes with the next.
pub const SWEPT_PER_ENTRY_MAX: usize = 5_000;
/// While a damaged stream keeps its group from flushing, messages are taken until so many flushes' worth of them are in
/// memory; then they are refused until the stream is repaired, purged or deleted.
pub const HALTED_FLUSHES_MAX: usize = 8;
