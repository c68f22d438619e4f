//! `$JS.API`: a subject and a JSON body in, a command or a look at the state, a JSON reply out.
//!
//! Reading order: [`errors`] (what a refusal is; the table is `error_table`), [`timestamp`].

pub mod error_table;
pub mod errors;
pub mod timestamp;
