//! Streams and consumers: subscribers like any other, whose state is decided in a replicated log.
//!
//! A publish on its way: its stream's handle ([`handle`]) encodes it into the group's [`inbox`]; the group's driver
//! proposes what waits as one entry; the [`group`] machine applies it; the publisher is answered.
//!
//! Reading order: [`limits`], [`config`] (what a stream is told to be), [`api`] (errors and the wire's shapes),
//! [`stream`] (the rules of one stream), [`consumer`], [`group`] (many streams in one log), [`meta`] (which streams there
//! are), [`inbox`], [`handle`], `driver` and `answer` (the task that moves a group), [`erasure`] (what was deleted vanishes
//! from the disk), [`backup`] (streams out and in), `log_scrub` (the log is verified), [`start`], [`rescue`] (past damage), [`at_rest`], [`change`], [`service`] (all of it together).

pub mod checkpoint;
pub mod limits;

pub mod config;

pub mod advisory;
pub mod api;

pub mod consumer;
pub mod stream;

pub mod group;
pub mod meta;

mod answer;
mod backlog;
pub mod backup;
mod driver;
pub mod erasure;
pub mod gathered;
#[cfg(test)]
mod golden_test;
#[cfg(test)]
mod halted_start_test;
pub mod handle;
pub mod inbox;
mod lanes;
mod log_scrub;
mod plain;
mod progress;
mod reads;
#[cfg(test)]
mod started;
mod turns;

pub mod rescue;

pub mod at_rest;
pub mod change;
pub mod service;
pub mod start;

pub use service::JetStream;
pub use start::{Settings, StartError, Tuning};
