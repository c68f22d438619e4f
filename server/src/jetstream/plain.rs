//! Plain data to bytes: what has no other place than memory and cannot fail to be written. A record or a configuration that were
//! empty because of a mistake would be taken for one that is: so this is stated, not defaulted.

use serde::Serialize;

/// A value as JSON.
///
/// # Panics
/// The type has what JSON has not: a map whose keys are no strings, say. None of ours does.
#[must_use]
pub(in crate::jetstream) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data always encodes")
}

/// A value as a compact record.
///
/// # Panics
/// The type has what the format has not: a sequence of unknown length, say. None of ours does.
#[must_use]
pub(in crate::jetstream) fn record(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain data always encodes")
}
