//! Segments: immutable files of messages, sorted by stream and sequence, each with its own index.
//!
//!   file  header | stream* | stream entries | records | root | guard | these three again | trailer
//!   stream  page* | posting lists and subject table          page  rows block, body block
//!
//! Reading order: `row`, `postings`, `table`, `entry` (bytes to values and back, no I/O), then `writer`, `reader`
//! (a segment), `remains` (what is left of a damaged one), `part` and `sequences` (what of it belongs to one stream, to one subject) and `cursor`.

mod cache;
mod cursor;
pub(crate) mod entry;
pub(crate) mod guard;
mod part;
pub(crate) mod postings;
mod reader;
mod remains;
mod row;
mod sequences;
pub(crate) mod table;
pub(crate) mod writer;

pub(crate) use cache::Cache;
pub(crate) use cursor::{MergedTables, TableCursor};
pub(crate) use part::Part;
pub(crate) use reader::Segment;
pub(crate) use remains::{Loose, Remains};
pub(crate) use row::{PageStart, Row, decode_rows};

/// A segment that was just written, and its stream entries.
pub(crate) type Written = (std::sync::Arc<Segment>, Vec<entry::StreamEntry>);
