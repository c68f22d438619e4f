//! The meta group: which streams there are, under which names, and which group holds each. Pure.
//!
//! It decides what concerns more than one stream: names, overlapping subjects, which changes are legal. Messages and
//! everything that happens to them belong to the data groups.

pub mod command;
pub mod machine;

pub use command::Command;
pub use machine::{Assignment, Machine, Phase, Reply};
