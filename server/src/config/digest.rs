//! A fingerprint of a configuration: equal for two files that say the same in another layout.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::value::{Kind, Map, Value};

/// `sha256:…` over the values as one line of JSON with sorted keys, includes and variables resolved; the same as
/// nats-server's for files without variables.
pub(super) fn digest(map: &Map) -> String {
    let json = map_to_json(map).to_string() + "\n";
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(json) {
        let _ = write!(text, "{byte:02x}");
    }
    text
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
