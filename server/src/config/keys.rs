//! The tree of values to typed settings: every key that we honour, and a plain refusal of every other.
//!
//! Three outcomes for a key: it sets a field; it is one of NATS that we do not support yet, which is an error that says
//! so; it is unknown, which is an error unless a variable refers to it. Keys do not distinguish case; the last one wins.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use super::address::{self, HostPort};
use super::keys_jetstream;
use super::keys_users;
use super::position::Problem;
use super::settings::{Config, MAX_CONNECTIONS, MONITOR_PORT, Monitor};
use super::suggest;
use super::value::{Entry, Map, Value};

/// Keys of nats-server that mean something there and nothing here yet.
const NOT_YET: &[&str] = &[
    "account_resolver",
    "accounts",
    "accounts_resolver",
    "allow_non_tls",
    "cluster",
    "connect_error_reports",
    "default_js_domain",
    "default_sentinel",
    "disable_sublist_cache",
    "feature_flags",
    "gateway",
    "https",
    "https_port",
    "leaf",
    "leafnodes",
    "mappings",
    "maps",
    "mqtt",
    "no_fast_producer_stall",
    "no_sublist_cache",
    "no_sys_acc",
    "no_system",
    "no_system_account",
    "ocsp",
    "ocsp_cache",
    "operator",
    "operators",
    "prof_block_rate",
    "prof_port",
    "proxies",
    "proxy_protocol",
    "reconnect_error_reports",
    "remote_syslog",
    "resolver",
    "resolver_pinned_accounts",
    "resolver_preload",
    "resolver_tls",
    "root",
    "root_operator",
    "root_operators",
    "roots",
    "syslog",
    "system",
    "system_account",
    "tls",
    "trusted",
    "trusted_keys",
    "websocket",
    "ws",
];

/// Longest protocol line that may be asked for, in bytes.
const CONTROL_LINE_BYTES_LIMIT: u64 = 16 * 1024 * 1024;
/// Shortest time over which a lame duck server may close its clients.
const LAME_DUCK_DURATION_MIN: Duration = Duration::from_secs(30);

/// What was found while settings were read.
#[derive(Debug, Default)]
pub struct Findings {
    /// The configuration is refused for each of these.
    pub errors: Vec<Problem>,
    /// The server starts in spite of these.
    pub warnings: Vec<Problem>,
}

impl Findings {
    pub(super) fn note(&mut self, result: Result<(), Problem>) {
        if let Err(problem) = result {
            self.errors.push(problem);
        }
    }
}

/// The error for a key that nats-server has and we do not support yet.
pub(super) fn not_yet(entry: &Entry) -> Problem {
    entry
        .at
        .problem(format!("\"{}\" is not supported yet", entry.key))
}

/// The error for a key that nobody knows; none if it only defines a variable.
pub(super) fn unknown(entry: &Entry) -> Result<(), Problem> {
    if entry.used.get() {
        return Ok(());
    }
    let hint = suggest::key(&entry.key);
    Err(entry
        .at
        .problem(format!("unknown field \"{}\"{hint}", entry.key)))
}

/// Calls `take` for each entry with its key in lower case and collects what is wrong. Of equal keys only the last counts,
/// whatever it holds: two blocks are not merged, two lists are not joined.
pub(super) fn each_entry<'m>(
    map: &'m Map,
    findings: &mut Findings,
    mut take: impl FnMut(&str, &'m Entry, &mut Vec<Problem>) -> Result<(), Problem>,
) {
    let names: Vec<String> = map
        .entries
        .iter()
        .map(|entry| entry.key.to_ascii_lowercase())
        .collect();
    let last: HashMap<&str, usize> = names.iter().map(String::as_str).zip(0..).collect();
    for (at, (entry, name)) in map.entries.iter().zip(&names).enumerate() {
        if last.get(name.as_str()) != Some(&at) {
            continue;
        }
        let mut warnings = Vec::new();
        let result = take(name, entry, &mut warnings);
        findings.note(result);
        findings.warnings.append(&mut warnings);
    }
}

/// Fills `config` from the top-level map of a configuration.
pub fn apply(map: &Map, config: &mut Config) -> Findings {
    let mut findings = Findings::default();
    let mut blocks = Vec::new();
    each_entry(map, &mut findings, |key, entry, warnings| {
        match key {
            // Blocks have findings of their own, and wait until the closure gives ours back.
            "jetstream" | "authorization" => {
                blocks.push((key == "jetstream", entry));
                Ok(())
            }
            _ => top_level(key, entry, config, warnings),
        }
    });
    for (is_jetstream, entry) in blocks {
        if is_jetstream {
            keys_jetstream::apply(&entry.value, &mut config.jetstream, &mut findings);
        } else {
            keys_users::apply(&entry.value, &mut config.authorization, &mut findings);
        }
    }
    findings
}

fn top_level(
    key: &str,
    entry: &Entry,
    config: &mut Config,
    warnings: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let value = &entry.value;
    match key {
        "listen" => {
            let listen = host_port(value)?;
            config.port = listen.port;
            if let Some(host) = listen.host {
                config.host = host;
            }
        }
        "port" => config.port = port(value)?,
        "host" | "net" => config.host = value.string()?.to_owned(),
        "client_advertise" => config.client_advertise = Some(advertise(value)?),
        "server_name" => config.server_name = Some(server_name(value)?),
        "server_tags" => config.server_tags = tags(value)?,
        "server_metadata" => {
            for entry in &value.map()?.entries {
                let text = entry.value.string()?.to_owned();
                config.server_metadata.insert(entry.key.clone(), text);
            }
        }
        "http" | "http_port" | "monitor_port" | "http_base_path" => monitor(key, value, config)?,
        "no_auth_user" => {
            config.authorization.no_auth_user = Some(value.string()?.to_owned());
        }
        "store_dir" | "storedir" => {
            keys_jetstream::store_dir(entry, &mut config.jetstream)?;
        }
        "pid_file" | "pidfile" => config.pid_file = path(value)?,
        "ports_file_dir" => config.ports_file_dir = path(value)?,
        _ if limits(key, value, config)? => {}
        _ if timing(key, value, config, warnings)? => {}
        _ if logging(key, value, config)? => {}
        _ if NOT_YET.contains(&key) => return Err(not_yet(entry)),
        _ => return unknown(entry),
    }
    Ok(())
}

/// Limits of connections and messages. `Ok(false)`: `key` is none of them.
fn limits(key: &str, value: &Value, config: &mut Config) -> Result<bool, Problem> {
    let limits = &mut config.limits;
    match key {
        "max_connections" | "max_conn" => {
            limits.max_connections = match value.integer()? {
                0 => Some(MAX_CONNECTIONS),
                _ => unless_negative(value)?,
            };
        }
        "max_subscriptions" | "max_subs" => limits.max_subscriptions = unless_zero(value)?,
        "max_sub_tokens" | "max_subscription_tokens" => {
            limits.max_sub_tokens = unless_zero(value)?;
        }
        "max_control_line" => {
            let bytes = positive(value)?;
            if bytes > CONTROL_LINE_BYTES_LIMIT {
                return Err(value.at.problem(format!(
                    "max_control_line must not be larger than {CONTROL_LINE_BYTES_LIMIT}"
                )));
            }
            limits.max_control_line = to_usize(bytes, value)?;
        }
        "max_payload" => limits.max_payload = to_usize(positive(value)?, value)?,
        "max_pending" => limits.max_pending = to_usize(positive(value)?, value)?,
        "max_traced_msg_len" => limits.max_traced_msg_len = unless_zero(value)?,
        "max_closed_clients" => limits.max_closed_clients = to_usize(value.count()?, value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Keep-alive, deadlines and lame duck. `Ok(false)`: `key` is none of them.
fn timing(
    key: &str,
    value: &Value,
    config: &mut Config,
    warnings: &mut Vec<Problem>,
) -> Result<bool, Problem> {
    match key {
        "ping_interval" => config.ping_interval = positive_duration(value, warnings)?,
        "ping_max" => {
            config.ping_max = u32::try_from(positive(value)?)
                .map_err(|_| value.at.problem("ping_max is too large"))?;
        }
        "write_deadline" => config.write_deadline = positive_duration(value, warnings)?,
        "write_timeout" => match value.string()? {
            "default" | "close" => {}
            "retry" => return Err(value.at.problem("\"retry\" is not supported yet")),
            _ => return Err(value.at.problem("expected default or close")),
        },
        "lame_duck_duration" => {
            let duration = value.duration(warnings)?;
            if duration < LAME_DUCK_DURATION_MIN {
                return Err(value.at.problem("lame_duck_duration must be at least 30s"));
            }
            config.lame_duck_duration = duration;
        }
        "lame_duck_grace_period" => config.lame_duck_grace_period = value.duration(warnings)?,
        "no_header_support" => config.no_header_support = value.bool()?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Logs. `Ok(false)`: `key` is none of theirs.
fn logging(key: &str, value: &Value, config: &mut Config) -> Result<bool, Problem> {
    let log = &mut config.log;
    match key {
        "debug" => log.debug = value.bool()?,
        "trace" => log.trace = value.bool()?,
        "trace_verbose" => {
            log.trace_verbose = value.bool()?;
            log.trace |= log.trace_verbose;
        }
        "trace_headers" => {
            log.trace_headers = value.bool()?;
            log.trace |= log.trace_headers;
        }
        "logtime" => log.time = value.bool()?,
        "logtime_utc" => log.time_utc = value.bool()?,
        "log_format" => {
            log.json = match value.string()? {
                "text" => false,
                "json" => true,
                _ => return Err(value.at.problem("expected text or json")),
            };
        }
        "log_file" | "logfile" => log.file = path(value)?,
        "log_size_limit" | "logfile_size_limit" => {
            log.size_limit = Some(value.count()?).filter(|limit| *limit > 0);
        }
        "log_max_num" | "logfile_max_num" => {
            let files =
                u32::try_from(value.count()?).map_err(|_| value.at.problem("this is too large"))?;
            log.max_files = Some(files).filter(|files| *files > 0);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn monitor(key: &str, value: &Value, config: &mut Config) -> Result<(), Problem> {
    let fresh = || Monitor {
        host: None,
        port: MONITOR_PORT,
    };
    match key {
        "http" => {
            let listen = host_port(value)?;
            let monitor = config.monitor.get_or_insert_with(fresh);
            monitor.port = listen.port;
            if listen.host.is_some() {
                monitor.host = listen.host;
            }
        }
        "http_base_path" => {
            let text = value.string()?.trim_matches('/');
            config.monitor_base_path = if text.is_empty() {
                String::new()
            } else {
                format!("/{text}")
            };
        }
        _ => {
            let port = port(value)?;
            config.monitor.get_or_insert_with(fresh).port = port;
        }
    }
    Ok(())
}

/// A port: -1 is any free one, which we call 0.
fn port(value: &Value) -> Result<u16, Problem> {
    let number = value.integer()?;
    address::port(number).ok_or_else(|| {
        value.at.problem(format!(
            "{number} is not a port: use 1 to 65535, or -1 for any free one"
        ))
    })
}

/// `port`, `host:port` or `:port`.
fn host_port(value: &Value) -> Result<HostPort, Problem> {
    if let Ok(port) = port(value) {
        return Ok(HostPort { host: None, port });
    }
    let text = value.string()?;
    address::host_port(text).ok_or_else(|| {
        value.at.problem(format!(
            "\"{text}\" is not an address: use host:port or a port"
        ))
    })
}

fn advertise(value: &Value) -> Result<String, Problem> {
    let text = value.string()?;
    if !address::is_advertisable(text) {
        return Err(value
            .at
            .problem(format!("\"{text}\" is not an address: use host:port")));
    }
    Ok(text.to_owned())
}

fn server_name(value: &Value) -> Result<String, Problem> {
    let text = value.string()?;
    if text.contains(char::is_whitespace) {
        return Err(value.at.problem("the server's name cannot contain spaces"));
    }
    Ok(text.to_owned())
}

/// Tags: one string with commas, or a list; in lower case, as NATS compares them.
fn tags(value: &Value) -> Result<Vec<String>, Problem> {
    let mut tags = Vec::new();
    for text in value.strings()? {
        for tag in text.split(',').map(|tag| tag.trim().to_lowercase()) {
            if !tag.is_empty() && !tags.contains(&tag) {
                tags.push(tag);
            }
        }
    }
    Ok(tags)
}

/// A path; an empty one is none.
fn path(value: &Value) -> Result<Option<PathBuf>, Problem> {
    let text = value.string()?;
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

fn positive(value: &Value) -> Result<u64, Problem> {
    match value.count()? {
        0 => Err(value.at.problem("must be greater than zero")),
        count => Ok(count),
    }
}

fn positive_duration(value: &Value, warnings: &mut Vec<Problem>) -> Result<Duration, Problem> {
    let duration = value.duration(warnings)?;
    if duration.is_zero() {
        return Err(value.at.problem("must be greater than zero"));
    }
    Ok(duration)
}

fn unless_negative(value: &Value) -> Result<Option<usize>, Problem> {
    if value.integer()? < 0 {
        return Ok(None);
    }
    Ok(Some(to_usize(value.count()?, value)?))
}

fn unless_zero(value: &Value) -> Result<Option<usize>, Problem> {
    Ok(unless_negative(value)?.filter(|count| *count > 0))
}

fn to_usize(count: u64, value: &Value) -> Result<usize, Problem> {
    usize::try_from(count).map_err(|_| value.at.problem("this is too large"))
}
