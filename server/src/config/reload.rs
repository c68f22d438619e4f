//! What may change while the server runs, and what needs a restart.
//!
//! A reload is all or nothing: if one changed setting needs a restart, nothing changes, so that a running server is
//! always the one that some file described.

use std::fmt::{Debug, Write};

use super::settings::{Authorization, Config, Encryption, LogSettings, Secret};

/// One changed setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name as nats-server gives it in its messages.
    pub field: &'static str,
    /// What it was.
    pub old: String,
    /// What it shall be.
    pub new: String,
}

/// A setting changed that cannot change while the server runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("config reload not supported for {}: old={}, new={}", .0.field, .0.old, .0.new)]
pub struct Refused(pub Change);

/// Compares the settings in force with those just read.
///
/// Returns what changed. The settings' origin (file name and digest) is not a setting.
///
/// # Errors
/// The first change that needs a restart: then nothing may be changed.
pub fn plan(old: &Config, new: &Config) -> Result<Vec<Change>, Refused> {
    let mut differences = Differences::default();
    fixed(old, new, &mut differences);
    if let Some(change) = differences.0.into_iter().next() {
        return Err(Refused(change));
    }
    let mut differences = Differences::default();
    live(old, new, &mut differences);
    Ok(differences.0)
}

#[derive(Default)]
struct Differences(Vec<Change>);

impl Differences {
    fn compare<T: PartialEq + Debug>(&mut self, field: &'static str, old: &T, new: &T) {
        if old != new {
            self.0.push(Change {
                field,
                old: show(old),
                new: show(new),
            });
        }
    }
}

/// `Debug` without the noise of `Some("…")`.
fn show(value: &impl Debug) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(text, "{value:?}");
    let inner = text
        .strip_prefix("Some(")
        .and_then(|rest| rest.strip_suffix(')'));
    match inner.unwrap_or(&text) {
        "None" => String::new(),
        inner => inner.trim_matches('"').to_owned(),
    }
}

/// What needs a restart.
fn fixed(old: &Config, new: &Config, differences: &mut Differences) {
    let d = differences;
    d.compare("Host", &old.host, &new.host);
    d.compare("Port", &old.port, &new.port);
    d.compare("DontListen", &old.dont_listen, &new.dont_listen);
    d.compare("ServerName", &old.server_name, &new.server_name);
    d.compare(
        "MaxPending",
        &old.limits.max_pending,
        &new.limits.max_pending,
    );
    d.compare(
        "MaxClosedClients",
        &old.limits.max_closed_clients,
        &new.limits.max_closed_clients,
    );
    d.compare(
        "NoHeaderSupport",
        &old.no_header_support,
        &new.no_header_support,
    );
    d.compare("HTTPPort", &old.monitor, &new.monitor);
    d.compare(
        "HTTPBasePath",
        &old.monitor_base_path,
        &new.monitor_base_path,
    );
    let (old, new) = (&old.jetstream, &new.jetstream);
    d.compare("JetStream", &old.enabled, &new.enabled);
    d.compare("StoreDir", &old.store_dir, &new.store_dir);
    d.compare("JetStreamDomain", &old.domain, &new.domain);
    d.compare("JetStreamStrict", &old.strict, &new.strict);
    // Streams may hold more from now on, but not less than they have been promised.
    if is_lower(old.max_memory_store, new.max_memory_store) {
        d.compare(
            "decreasing JetStreamMaxMemory",
            &old.max_memory_store,
            &new.max_memory_store,
        );
    }
    if is_lower(old.max_file_store, new.max_file_store) {
        d.compare(
            "decreasing JetStreamMaxStore",
            &old.max_file_store,
            &new.max_file_store,
        );
    }
    d.compare("JetStreamEraseWithin", &old.erase_within, &new.erase_within);
    d.compare("JetStreamLimits", &old.limits, &new.limits);
    encryption(old.encryption.as_ref(), new.encryption.as_ref(), d);
}

/// Whether a limit that was given is lowered. One that was not given was the machine's, and is not known here.
fn is_lower(old: Option<u64>, new: Option<u64>) -> bool {
    old.zip(new).is_some_and(|(old, new)| new < old)
}

/// Names what changed without a value.
fn encryption(old: Option<&Encryption>, new: Option<&Encryption>, differences: &mut Differences) {
    let (key, previous) = (
        |e: &Encryption| Some(e.key.clone()),
        |e: &Encryption| e.previous.clone(),
    );
    let shown = |secret: &Option<Secret>| match secret {
        Some(_) => "[REDACTED]".to_owned(),
        None => String::new(),
    };
    let mut compare = |field, old: Option<Secret>, new: Option<Secret>| {
        if old != new {
            differences.0.push(Change {
                field,
                old: shown(&old),
                new: shown(&new),
            });
        }
    };
    compare("JetStreamKey", old.and_then(key), new.and_then(key));
    compare(
        "JetStreamOldKey",
        old.and_then(previous),
        new.and_then(previous),
    );
    let cipher = |encryption: Option<&Encryption>| encryption.map(|encryption| encryption.cipher);
    differences.compare("JetStreamCipher", &cipher(old), &cipher(new));
}

/// What may change at any time.
fn live(old: &Config, new: &Config, differences: &mut Differences) {
    let d = differences;
    d.compare(
        "client_advertise",
        &old.client_advertise,
        &new.client_advertise,
    );
    d.compare("server_tags", &old.server_tags, &new.server_tags);
    d.compare(
        "server_metadata",
        &old.server_metadata,
        &new.server_metadata,
    );
    let (o, n) = (&old.limits, &new.limits);
    d.compare("max_payload", &o.max_payload, &n.max_payload);
    d.compare("max_control_line", &o.max_control_line, &n.max_control_line);
    d.compare("max_connections", &o.max_connections, &n.max_connections);
    d.compare(
        "max_subscriptions",
        &o.max_subscriptions,
        &n.max_subscriptions,
    );
    d.compare("max_sub_tokens", &o.max_sub_tokens, &n.max_sub_tokens);
    d.compare(
        "max_traced_msg_len",
        &o.max_traced_msg_len,
        &n.max_traced_msg_len,
    );
    d.compare("ping_interval", &old.ping_interval, &new.ping_interval);
    d.compare("ping_max", &old.ping_max, &new.ping_max);
    d.compare("write_deadline", &old.write_deadline, &new.write_deadline);
    d.compare(
        "lame_duck_duration",
        &old.lame_duck_duration,
        &new.lame_duck_duration,
    );
    d.compare(
        "lame_duck_grace_period",
        &old.lame_duck_grace_period,
        &new.lame_duck_grace_period,
    );
    d.compare("pid_file", &old.pid_file, &new.pid_file);
    d.compare("ports_file_dir", &old.ports_file_dir, &new.ports_file_dir);
    logging(&old.log, &new.log, d);
    let (o, n) = (&old.jetstream, &new.jetstream);
    d.compare("max_memory_store", &o.max_memory_store, &n.max_memory_store);
    d.compare("max_file_store", &o.max_file_store, &n.max_file_store);
    if old.authorization != new.authorization {
        let describe = |a: &Authorization| format!("{} users", a.users.len());
        let (old, new) = (describe(&old.authorization), describe(&new.authorization));
        d.0.push(Change {
            field: "authorization",
            old,
            new,
        });
    }
}

/// Each setting of the log by its key.
fn logging(old: &LogSettings, new: &LogSettings, differences: &mut Differences) {
    let d = differences;
    d.compare("debug", &old.debug, &new.debug);
    d.compare("trace", &old.trace, &new.trace);
    d.compare("trace_verbose", &old.trace_verbose, &new.trace_verbose);
    d.compare("trace_headers", &old.trace_headers, &new.trace_headers);
    d.compare("logtime", &old.time, &new.time);
    d.compare("logtime_utc", &old.time_utc, &new.time_utc);
    d.compare("log_format", &old.json, &new.json);
    d.compare("logfile", &old.file, &new.file);
    d.compare("logfile_size_limit", &old.size_limit, &new.size_limit);
    d.compare("logfile_max_num", &old.max_files, &new.max_files);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_is_all_or_nothing() {
        let old = Config::default();
        let mut new = old.clone();
        new.limits.max_payload = 5;
        new.authorization.token = Some("secret".into());
        new.config_digest = Some("sha256:1".into());
        let changes = plan(&old, &new).unwrap();
        let fields: Vec<_> = changes.iter().map(|change| change.field).collect();
        assert_eq!(fields, ["max_payload", "authorization"]);
        assert!(!format!("{changes:?}").contains("secret"));

        let keyed = |key: &str| {
            let mut config = old.clone();
            config.jetstream.encryption = Some(Encryption {
                key: Secret(key.into()),
                previous: None,
                cipher: halyard_format::Cipher::default(),
            });
            config
        };
        assert!(!format!("{:?}", keyed("hunter2")).contains("hunter2"));
        assert_eq!(
            plan(&keyed("hunter2"), &keyed("hunter3"))
                .unwrap_err()
                .to_string(),
            "config reload not supported for JetStreamKey: old=[REDACTED], new=[REDACTED]"
        );
        assert!(plan(&keyed("hunter2"), &old).is_err());
        assert_eq!(plan(&keyed("hunter2"), &keyed("hunter2")).unwrap(), []);

        let limited = |bytes: u64| {
            let mut config = old.clone();
            config.jetstream.max_file_store = Some(bytes);
            config.jetstream.max_memory_store = Some(7);
            config
        };
        let changes = plan(&limited(5), &limited(6)).unwrap();
        assert_eq!(changes[0].field, "max_file_store");
        assert_eq!(
            plan(&limited(5), &limited(4)).unwrap_err().to_string(),
            "config reload not supported for decreasing JetStreamMaxStore: old=5, new=4"
        );

        new.port = 4333;
        assert_eq!(
            plan(&old, &new).unwrap_err().to_string(),
            "config reload not supported for Port: old=4222, new=4333"
        );
        let new = Config {
            server_name: Some("foo".into()),
            ..old.clone()
        };
        assert_eq!(
            plan(&old, &new).unwrap_err().to_string(),
            "config reload not supported for ServerName: old=, new=foo"
        );
    }
}
