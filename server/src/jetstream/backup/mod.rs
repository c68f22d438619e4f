//! Backups of streams, as the tools of NATS make and read them.
//!
//! ```text
//! backup    STREAM.SNAPSHOT -> snapshot (the task) -> archive (entries) -> s2 (compression) -> chunks to the client
//! restore   STREAM.RESTORE -> restore (the task) <- chunks; s2 -> archive | tar + legacy -> import (checks) -> the log
//! ```
//!
//! The formats are the crate `halyard_backup`; here are the two tasks, `snapshot` and `restore`, and what becomes of a
//! [`consumer`]. [`desk`] counts the tasks, [`salvage`] writes files of what is damaged, `advisory` tells of them.

pub mod consumer;

mod advisory;
pub mod desk;
mod restore;
pub mod salvage;
mod snapshot;

use std::sync::Arc;

use halyard_backup::import::Rules;
use halyard_runtime::random;

use super::api::request::{PREFIX, Request};
use super::limits::{HEADER_BYTES_MAX, SEQUENCE_ASKED_MAX};
use super::service::JetStream;
use crate::broker::{Account, Publish, subject};

pub use desk::Desk;
pub(super) use restore::restore;
pub(super) use snapshot::snapshot;

/// What this server restores.
pub const RULES: Rules = Rules {
    is_subject: subject::is_valid_literal,
    headers_bytes_max: HEADER_BYTES_MAX,
    sequence_max: SEQUENCE_ASKED_MAX,
};

/// Answers a request before what it began goes on.
fn answer(service: &JetStream, request: &Request, account: &Arc<Account>, body: &[u8]) {
    if !request.reply.is_empty() {
        account.publish(&Publish::new(&request.reply, body));
    }
    let subject = format!("{PREFIX}{}", request.subject);
    service.advise_audit(account, request.client, &subject, &request.payload, body);
}

/// Letters that nobody guesses: subjects of one backup or restore hang on them.
pub(super) fn random_id() -> String {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let letter = |_| {
        let at = usize::try_from(random::below(LETTERS.len() as u64)).unwrap_or(0);
        char::from(LETTERS.get(at).copied().unwrap_or(b'x'))
    };
    (0..22).map(letter).collect()
}
