//! One stream: what a publish must fulfil, what it pushes out, and what time takes. Pure, replicated.
//!
//! Reading order: [`machine`] (the state of a stream and its commands), [`headers`] (what a publisher asks for),
//! [`block`] (what of a header block is stored), [`publish`] (conditions, then storing), `room` (limits push the oldest out),
//! `sweep` (what lost its interest goes), `expiry` (age and life spans), `marker` (what is left of a subject that ended),
//! [`message_id`] (what is kept of an id), [`dedupe`] (which ids are remembered), `batch` (messages that are stored together),
//! [`restore`] (a stream from a backup).

mod batch;
pub mod block;
pub mod dedupe;
mod expiry;
pub mod headers;
pub mod machine;
mod marker;
pub mod message_id;
pub mod publish;
pub mod restore;
mod room;
mod sweep;

pub use machine::{Refusal, Stream, Turn};
