//! A group: many streams in one replicated log. Pure.
//!
//! Reading order: [`command`] (the bytes of an entry), [`machine`] (what applying one does), `halt` (where one stream stops), [`erasures`] (what must vanish,
//! and who is done with it), `records` (what a flush keeps of it beside the messages).

pub mod command;
pub mod erasures;
mod halt;
pub mod machine;
mod records;

#[cfg(test)]
mod batch_test;
#[cfg(test)]
mod digest_test;
#[cfg(test)]
mod halt_test;
#[cfg(test)]
mod held_test;
#[cfg(test)]
mod lifespan_test;
#[cfg(test)]
mod limits_test;
#[cfg(test)]
mod machine_test;
#[cfg(test)]
mod restore_test;

pub use halt::Halt;
pub use machine::{Applied, Machine, Reply};
pub use records::OpenError;
