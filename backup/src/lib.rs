//! Backups of streams, as the tools of NATS make and read them: bytes in, items out, and the other way. No I/O.
//!
//! ```text
//! backup    items -> archive -> s2 (compression) -> bytes
//! restore   bytes -> s2 -> archive | tar + legacy -> import (checks) -> items
//! ```
//!
//! It is bounded: memory is what one item may hold and one block of the compressed stream, whatever the input claims. Names from
//! an archive are compared, never used as paths. Of the other crates it uses `format` only; what a subject is, and how large a
//! sequence may be, the server that restores tells it ([`import::Rules`]).
//!
//! Reading order: [`item`] (what a backup holds), [`s2`] (the compressed stream), [`archive`] (the format of 2.15, which
//! we write), [`tar`], [`block`] and [`legacy`] (the format of servers before), [`consumer`] (a consumer's state in
//! either), [`import`] (any backup, checked).
#![deny(missing_docs)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod item;

pub mod s2;

pub mod archive;

pub mod block;
pub mod legacy;
pub mod tar;

pub mod consumer;

pub mod import;

#[cfg(test)]
mod hostile_test;
