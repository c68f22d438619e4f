//! A fingerprint of a configuration: equal for two files that say the same in another layout.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::keys_encryption::is_secret;
use super::value::{Kind, Map, Value};

/// `sha256:…` over the values as one line of JSON with sorted keys, includes and variables resolved; the same as
/// nats-server's for files without variables and without encryption keys.
///
/// The monitor and the log show it, so it must say nothing about a key: hashing is quick, and who knows the rest of the
/// file could try one key after the other. In place of each stands the same text.
pub(super) fn digest(map: &Map) -> String {
    let mut json = map_to_json(map);
    let secrets = secrets(map);
    if !secrets.is_empty() {
        conceal(&mut json, &secrets);
    }
    let json = json.to_string() + "\n";
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(json) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The encryption keys of a configuration.
fn secrets(map: &Map) -> BTreeSet<&str> {
    let blocks = map
        .entries
        .iter()
        .filter(|entry| entry.key.eq_ignore_ascii_case("jetstream"));
    let inside = blocks.flat_map(|entry| match &entry.value.kind {
        Kind::Map(block) => block.entries.as_slice(),
        _ => &[],
    });
    inside
        .filter(|entry| is_secret(&entry.key))
        .filter_map(|entry| entry.value.string().ok())
        .collect()
}

/// Replaces the values of encryption keys, and every text that is one of `secrets`: a key may also stand where a variable of
/// the file is defined.
fn conceal(json: &mut Json, secrets: &BTreeSet<&str>) {
    match json {
        Json::String(text) if secrets.contains(text.as_str()) => {
            "[REDACTED]".clone_into(text);
        }
        Json::Array(values) => values.iter_mut().for_each(|value| conceal(value, secrets)),
        Json::Object(entries) => {
            for (key, value) in entries.iter_mut() {
                match is_secret(key) {
                    true => *value = Json::from("[REDACTED]"),
                    false => conceal(value, secrets),
                }
            }
        }
        _ => {}
    }
}

fn map_to_json(map: &Map) -> Json {
    let sorted: BTreeMap<_, _> = map
        .entries
        .iter()
        .map(|entry| (entry.key.clone(), to_json(&entry.value)))
        .collect();
    Json::Object(sorted.into_iter().collect())
}

fn to_json(value: &Value) -> Json {
    match &value.kind {
        Kind::Bool(value) => Json::from(*value),
        Kind::Integer(value) => Json::from(*value),
        Kind::Float(value) => Json::from(*value),
        Kind::Date(text) | Kind::String(text) => Json::from(text.as_str()),
        Kind::List(values) => values.iter().map(to_json).collect(),
        Kind::Map(map) => map_to_json(map),
    }
}
