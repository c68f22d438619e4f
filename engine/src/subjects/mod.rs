//! The subjects of one stream: totals of each, found by name, walked in order, counted by filter.
//!
//!   index  entries, names and hash slots: one subject, O(1)
//!   chunk  a few hundred subjects that are neighbours by name, with the sums of them
//!   walk   what filters match: whole chunks by their sums, stretches that cannot match passed over
//!
//! Reading order: `index`, `chunk`, `walk`.

mod chunk;
mod index;
mod walk;

pub(crate) use chunk::Depth;
pub(crate) use index::{SubjectNumber, Subjects, Totals};
