//! The subjects of one stream: totals of each, found by name, walked in order, counted by filter.
//!
//!   chunk  up to 256 subjects that are neighbours by name: names, totals, and the sums of them
//!   index  chunks in the order of names: one subject by two binary searches
//!   walk   what filters match: whole chunks by their sums, stretches that cannot match passed over
//!
//! Reading order: `chunk`, `index`, `walk`.

mod chunk;
mod index;
mod walk;

pub(crate) use chunk::{Chunk, Depth, Totals};
pub(crate) use index::{SubjectPlace, Subjects};
