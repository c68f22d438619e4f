//! Backups of streams, as the tools of NATS make and read them.
//!
//! ```text
//! backup    STREAM.SNAPSHOT -> snapshot (the task) -> archive (entries) -> s2 (compression) -> chunks to the client
//! restore   STREAM.RESTORE -> restore (the task) <- chunks; s2 -> archive | tar + legacy -> import (checks) -> the log
//! ```
//!
//! Reading order: [`item`] (what a backup holds), [`s2`] (the compressed stream), [`archive`] (the format of 2.15, which
//! we write), [`tar`], [`block`] and [`legacy`] (the format of servers before), [`consumer`] (a consumer's state in
//! either), [`import`] (any backup, checked), then the two tasks: `snapshot` and `restore`; [`desk`] counts them, [`salvage`] writes files of what is damaged,
//! `advisory` tells of them.
//!
//! All but the tasks is pure and bounded: bytes in, items out; memory is what one item may hold and one block of the
//! compressed stream, whatever the input claims. Names from an archive are compared, never used as paths.

pub mod item;

pub mod s2;

pub mod archive;

pub mod block;
pub mod legacy;
pub mod tar;

pub mod consumer;

pub mod import;

mod advisory;
pub mod desk;
mod restore;
pub mod salvage;
mod snapshot;

#[cfg(test)]
mod hostile_test;

use halyard_runtime::random;

pub use desk::Desk;
pub(super) use restore::restore;
pub(super) use snapshot::snapshot;

/// Letters that nobody guesses: subjects of one backup or restore hang on them.
pub(super) fn random_id() -> String {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let letter = |_| {
        let at = usize::try_from(random::below(LETTERS.len() as u64)).unwrap_or(0);
        char::from(LETTERS.get(at).copied().unwrap_or(b'x'))
    };
    (0..22).map(letter).collect()
}
