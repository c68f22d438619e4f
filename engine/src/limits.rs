//! Every limit of this crate, with its unit and its reason.

/// The highest sequence of a message: half of what the number holds, so that no sum of two overflows. What is counted up from a
/// start that clients may choose does not reach it.
pub const SEQUENCE_MAX: u64 = u64::MAX >> 1;

/// Longest record (subject, headers and payload together) in bytes. Frames carry lengths as `u32`.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 30;

/// Longest subject in bytes: row lengths are `u16`.
pub(crate) const SUBJECT_BYTES_MAX: usize = u16::MAX as usize;

/// Longest filter in bytes, and most tokens in one: bounds the work of one match.
pub(crate) const FILTER_BYTES_MAX: usize = SUBJECT_BYTES_MAX;

/// Messages of one subject in one stream: counters have 32 bits to keep a subject at 24 bytes.
pub(crate) const SUBJECT_MESSAGES_MAX: u32 = u32::MAX - 1;

/// Entries of one stream's tail between two flushes: postings of the tail have 32 bits.
pub(crate) const TAIL_ENTRIES_MAX: u32 = u32::MAX - 1;

/// Payload bytes collected into one page before it is written; a larger message has a page of its own.
/// 32 KiB: one read of a small message costs a few microseconds, and a page checksum covers 250 messages of 128 bytes.
pub(crate) const PAGE_BYTES: usize = 32 * 1024;

/// Subjects in one block of a segment's subject table. 64: about 2 KiB, and a mask of matches fits one word.
pub(crate) const SUBJECTS_PER_BLOCK: usize = 64;

/// Posting lists of at most so many encoded bytes live inside the subject table.
pub(crate) const POSTINGS_INLINE_BYTES: usize = 96;

/// Most bytes that one block may hold, decoded: a length beyond it is damage, not a reason to allocate.
pub(crate) const BLOCK_BYTES_MAX: usize = RECORD_BYTES_MAX + (1 << 20);

/// How many messages a query with wildcards looks at one by one before it turns to the index.
pub(crate) const PROBE_MESSAGES: u64 = 32;

/// How many subjects a count looks at one by one before it turns to tables or rows: 100 microseconds.
pub(crate) const CANDIDATES_MAX: usize = if cfg!(test) { 8 } else { 2048 };

/// How many subjects that lie on both sides of a sequence a query looks up one by one before it scans row columns, and a
/// count before it goes through the tables.
pub(crate) const STRADDLERS_MAX: usize = if cfg!(test) { 2 } else { 256 };
