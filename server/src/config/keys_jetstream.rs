//! The `jetstream` block.

use std::path::PathBuf;
use std::time::Duration;

use super::keys::{Findings, each_entry, not_yet, unknown};
use super::keys_encryption::Found;
use super::position::Problem;
use super::settings::{JetStream, JetStreamLimits};
use super::value::{Entry, Kind, Map, Value};

/// Keys of the block that mean something to nats-server and nothing here yet.
const NOT_YET: &[&str] = &[
    "extension_hint",
    "info_queue_limit",
    "max_buffered_msgs",
    "max_buffered_size",
    "max_concurrent_io",
    "max_outstanding_catchup",
    "meta_compact",
    "meta_compact_size",
    "meta_compact_sync",
    "request_queue_limit",
    "tpm",
    "unique_tag",
];

/// Reads `jetstream: true`, `jetstream: enabled` or the block.
pub(super) fn apply(value: &Value, settings: &mut JetStream, findings: &mut Findings) {
    match &value.kind {
        Kind::Bool(enabled) => settings.enabled = *enabled,
        Kind::String(text) => match text.to_ascii_lowercase().as_str() {
            "enabled" | "enable" | "true" => settings.enabled = true,
            "disabled" | "disable" | "false" => settings.enabled = false,
            _ => findings
                .errors
                .push(value.at.problem("expected enabled or disabled")),
        },
        Kind::Map(map) => block(map, settings, findings),
        _ => findings
            .errors
            .push(value.at.problem("expected a map, true or enabled")),
    }
}

fn block(map: &Map, settings: &mut JetStream, findings: &mut Findings) {
    settings.enabled = true;
    let mut limits = None;
    let mut encryption = Found::default();
    each_entry(map, findings, |key, entry, warnings| {
        if encryption.take(key, entry)? {
            return Ok(());
        }
        if key == "limits" {
            limits = Some(entry.value.map()?);
            return Ok(());
        }
        setting(key, entry, settings, warnings)
    });
    match encryption.finish(settings.enabled) {
        Ok(found) => settings.encryption = found.or(settings.encryption.take()),
        Err(problem) => findings.errors.push(problem),
    }
    if let Some(limits) = limits {
        each_entry(limits, findings, |key, entry, warnings| {
            limit(key, entry, &mut settings.limits, warnings)
        });
    }
}

fn setting(
    key: &str,
    entry: &Entry,
    settings: &mut JetStream,
    warnings: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let value = &entry.value;
    match key {
        "enable" | "enabled" => settings.enabled = value.bool()?,
        "strict" => settings.strict = value.bool()?,
        "store_dir" | "storedir" => store_dir(entry, settings)?,
        "max_memory_store" | "max_mem_store" | "max_mem" => {
            settings.max_memory_store = size(value)?;
        }
        "max_file_store" | "max_file" => settings.max_file_store = size(value)?,
        "domain" => settings.domain = Some(domain(value)?),
        "sync" | "sync_interval" => sync(value)?,
        "erase_within" => settings.erase_within = erase_within(value, warnings)?,
        _ if NOT_YET.contains(&key) => return Err(not_yet(entry)),
        _ => return unknown(entry),
    }
    Ok(())
}

fn limit(
    key: &str,
    entry: &Entry,
    limits: &mut JetStreamLimits,
    warnings: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let value = &entry.value;
    match key {
        "duplicate_window" => limits.duplicate_window = Some(value.duration(warnings)?),
        "batch" | "max_ack_pending" | "max_ha_assets" | "max_request_batch" => {
            return Err(not_yet(entry));
        }
        _ => return unknown(entry),
    }
    Ok(())
}

/// The directory, which may be named at the top level or in the block, but not as two different ones.
pub(super) fn store_dir(entry: &Entry, settings: &mut JetStream) -> Result<(), Problem> {
    let text = entry.value.string()?;
    if text.is_empty() {
        return Ok(());
    }
    let path = PathBuf::from(text);
    if settings
        .store_dir
        .as_ref()
        .is_some_and(|known| *known != path)
    {
        return Err(entry
            .at
            .problem("store_dir is set twice, to different directories"));
    }
    settings.store_dir = Some(path);
    Ok(())
}

/// We sync before every acknowledgement, whatever the configuration: only a value that asks for just that is true here.
fn sync(value: &Value) -> Result<(), Problem> {
    if matches!(&value.kind, Kind::String(text) if text == "always") {
        return Ok(());
    }
    Err(value.at.problem(
        "only \"always\" is possible: Halyard acknowledges nothing before it is on disk; remove this setting",
    ))
}

/// The bound of erasure. Below a second the node would do little else.
fn erase_within(value: &Value, warnings: &mut Vec<Problem>) -> Result<Duration, Problem> {
    let within = value.duration(warnings)?;
    if within < Duration::from_secs(1) {
        return Err(value.at.problem("erase_within must be at least 1s"));
    }
    Ok(within)
}

/// Bytes; -1 leaves it to the machine.
fn size(value: &Value) -> Result<Option<u64>, Problem> {
    if value.kind == Kind::Integer(-1) {
        return Ok(None);
    }
    value.bytes().map(Some)
}

fn domain(value: &Value) -> Result<String, Problem> {
    let text = value.string()?;
    let is_token = !text.is_empty() && !text.contains([' ', '\t', '.', '*', '>']);
    if !is_token {
        return Err(value
            .at
            .problem("a domain is one token of a subject: no spaces, . * or >"));
    }
    Ok(text.to_owned())
}
