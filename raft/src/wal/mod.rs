//! The node's log: one append-only log on disk for all groups of a node, with one sync for everything that waits.
//!
//! Read in this order: `record` (the bytes of a record), `segment` (the files), `frames` and `writer` (group commit), `keeper`
//! (segments made ahead of time and let go), `files`, `scan` and `recovery` (what is found, read, and opened), `scrub`
//! (verifying what is written), `rescue` (reading past damage), `end` (the note of how far it came). What a record means to a
//! group is in `image`.
//!
//! Promises:
//!
//! - A completion is called only after a sync that covers its record returned without an error.
//! - Records are written in the order in which they were handed in, over all groups.
//! - The first write or sync that fails poisons the log: nothing is written after it, every waiter and every later caller
//!   gets the error. A sync is never tried again: after a failed one nobody knows what is on the disk.
//! - A segment is let go only when no group needs an entry in it and every group's vote, membership and starting point
//!   stand in a later, synced record.

pub(crate) mod end;
mod files;
mod frames;
pub(crate) mod image;
pub(crate) mod keeper;
pub(crate) mod record;
pub(crate) mod recovery;
pub(crate) mod rescue;
mod scan;
pub(crate) mod scrub;
pub(crate) mod segment;
pub(crate) mod writer;

pub(crate) use writer::{Done, Item, Wal};
