//! Every flag of the command line: its names, its help and what it does.

use std::path::PathBuf;

use super::address;
use super::settings::{Authorization, Config, MONITOR_PORT, Monitor};

/// One flag.
pub(super) struct Flag {
    /// Names without dashes; the first is the one that help shows first.
    pub names: &'static [&'static str],
    /// What its value is called; empty if it takes none.
    pub value: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// What it does.
    pub effect: Effect,
}

/// What a flag does.
#[derive(Clone, Copy)]
pub(super) enum Effect {
    /// Sets something, over the file.
    Set(fn(&mut Config, &str) -> Result<(), String>),
    /// Switches something on, or off by `-flag=false`.
    Switch(fn(&mut Config, bool)),
    /// Names the configuration file.
    ConfigFile,
    /// Only checks the configuration.
    Test,
    /// Sends a signal to another process.
    Signal,
    /// Prints the version.
    Version,
    /// Prints this table.
    Help,
    /// One of nats-server that we refuse.
    NotYet,
}

/// A titled part of the table.
pub(super) struct Group {
    /// Title in the help.
    pub title: &'static str,
    /// Its flags.
    pub flags: &'static [Flag],
}

const fn set(
    names: &'static [&'static str],
    value: &'static str,
    help: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
) -> Flag {
    Flag {
        names,
        value,
        help,
        effect: Effect::Set(set),
    }
}

const fn switch(
    names: &'static [&'static str],
    help: &'static str,
    switch: fn(&mut Config, bool),
) -> Flag {
    Flag {
        names,
        value: "",
        help,
        effect: Effect::Switch(switch),
    }
}

const fn other(
    names: &'static [&'static str],
    value: &'static str,
    help: &'static str,
    effect: Effect,
) -> Flag {
    Flag {
        names,
        value,
        help,
        effect,
    }
}

const fn not_yet(names: &'static [&'static str], value: &'static str) -> Flag {
    Flag {
        names,
        value,
        help: "Not supported yet",
        effect: Effect::NotYet,
    }
}

/// The table, in the order of the help.
pub(super) const GROUPS: &[Group] = &[
    Group {
        title: "Server",
        flags: SERVER,
    },
    Group {
        title: "Logging",
        flags: LOGGING,
    },
    Group {
        title: "JetStream",
        flags: JETSTREAM,
    },
    Group {
        title: "Authorization",
        flags: AUTHORIZATION,
    },
    Group {
        title: "Common",
        flags: COMMON,
    },
    Group {
        title: "Known to nats-server, refused here",
        flags: REFUSED,
    },
];

const SERVER: &[Flag] = &[
    set(
        &["a", "addr", "net"],
        "host",
        "Address to listen on (default: 0.0.0.0)",
        |c, v| {
            v.clone_into(&mut c.host);
            Ok(())
        },
    ),
    set(
        &["p", "port"],
        "port",
        "Port for clients, -1 for any free one (default: 4222)",
        |c, v| {
            c.port = port(v)?;
            Ok(())
        },
    ),
    set(
        &["n", "name", "server_name"],
        "name",
        "Name of this server (default: its id)",
        |c, v| {
            if v.contains(char::is_whitespace) {
                return Err("the server's name cannot contain spaces".to_owned());
            }
            c.server_name = Some(v.to_owned());
            Ok(())
        },
    ),
    set(
        &["P", "pid"],
        "file",
        "File to write the process id to",
        |c, v| {
            c.pid_file = path(v);
            Ok(())
        },
    ),
    set(
        &["m", "http_port"],
        "port",
        "Port for monitoring over HTTP, -1 for any free one",
        |c, v| {
            let port = port(v)?;
            c.monitor
                .get_or_insert(Monitor {
                    host: None,
                    port: MONITOR_PORT,
                })
                .port = port;
            Ok(())
        },
    ),
    other(
        &["c", "config"],
        "file",
        "Configuration file",
        Effect::ConfigFile,
    ),
    other(&["t"], "", "Check the configuration and exit", Effect::Test),
    other(
        &["sl", "signal"],
        "signal[=pid]",
        "Send ldm, stop, quit, term, reopen or reload to a server (process id or pid file)",
        Effect::Signal,
    ),
    set(
        &["client_advertise"],
        "host:port",
        "Address to show to clients",
        |c, v| {
            if !address::is_advertisable(v) {
                return Err("use host:port".to_owned());
            }
            c.client_advertise = Some(v.to_owned());
            Ok(())
        },
    ),
    set(
        &["ports_file_dir"],
        "dir",
        "Directory for <executable>_<pid>.ports",
        |c, v| {
            c.ports_file_dir = path(v);
            Ok(())
        },
    ),
];

const LOGGING: &[Flag] = &[
    set(
        &["l", "log"],
        "file",
        "File to log to (default: standard error)",
        |c, v| {
            c.log.file = path(v);
            Ok(())
        },
    ),
    switch(
        &["T", "logtime"],
        "Begin log lines with the time (default: true)",
        |c, on| {
            c.log.time = on;
        },
    ),
    switch(
        &["logtime_utc"],
        "That time in UTC (default: false)",
        |c, on| c.log.time_utc = on,
    ),
    switch(&["D", "debug"], "Log what the server decides", |c, on| {
        c.log.debug = on
    }),
    switch(&["V", "trace"], "Log the protocol", |c, on| {
        c.log.trace = on
    }),
    switch(
        &["VV"],
        "Log the protocol, the system account's too",
        verbose,
    ),
    switch(&["DV"], "-D and -V", |c, on| {
        c.log.debug = on;
        c.log.trace = on;
    }),
    switch(&["DVV"], "-D and -VV", |c, on| {
        c.log.debug = on;
        verbose(c, on);
    }),
    set(
        &["log_size_limit"],
        "bytes",
        "Begin a new log file at this size",
        |c, v| {
            c.log.size_limit = Some(count(v)?).filter(|limit| *limit > 0);
            Ok(())
        },
    ),
    set(
        &["max_traced_msg_len"],
        "bytes",
        "Cut traced payloads (default: never)",
        |c, v| {
            let length = usize::try_from(count(v)?).map_err(|_| "too large".to_owned())?;
            c.limits.max_traced_msg_len = Some(length).filter(|length| *length > 0);
            Ok(())
        },
    ),
];

const JETSTREAM: &[Flag] = &[
    switch(
        &["js", "jetstream"],
        "Serve streams and consumers",
        |c, on| c.jetstream.enabled = on,
    ),
    set(
        &["sd", "store_dir"],
        "dir",
        "Directory of the store",
        |c, v| {
            c.jetstream.store_dir = path(v);
            Ok(())
        },
    ),
];

const AUTHORIZATION: &[Flag] = &[
    set(&["user"], "user", "User that clients must show", |c, v| {
        let password = c.authorization.password.take();
        let timeout = c.authorization.timeout;
        let user = Some(v.to_owned());
        c.authorization = Authorization {
            user,
            password,
            timeout,
            ..Authorization::default()
        };
        Ok(())
    }),
    set(&["pass"], "password", "Password of that user", |c, v| {
        c.authorization.password = Some(v.to_owned());
        Ok(())
    }),
    set(
        &["auth"],
        "token",
        "Token that clients must show",
        |c, v| {
            let timeout = c.authorization.timeout;
            let token = Some(v.to_owned());
            c.authorization = Authorization {
                token,
                timeout,
                ..Authorization::default()
            };
            Ok(())
        },
    ),
];

const COMMON: &[Flag] = &[
    other(&["h", "help"], "", "Show this", Effect::Help),
    other(&["v", "version"], "", "Show the version", Effect::Version),
];

const REFUSED: &[Flag] = &[
    not_yet(&["ms", "https_port"], "port"),
    not_yet(&["s", "syslog"], ""),
    not_yet(&["r", "remote_syslog"], "addr"),
    not_yet(&["tls"], ""),
    not_yet(&["tlscert"], "file"),
    not_yet(&["tlskey"], "file"),
    not_yet(&["tlsverify"], ""),
    not_yet(&["tlscacert"], "file"),
    not_yet(&["routes"], "urls"),
    not_yet(&["cluster"], "url"),
    not_yet(&["cluster_name"], "name"),
    not_yet(&["cluster_advertise"], "url"),
    not_yet(&["cluster_listen"], "url"),
    not_yet(&["no_advertise"], ""),
    not_yet(&["connect_retries"], "number"),
    not_yet(&["profile"], "port"),
    not_yet(&["help_tls"], ""),
];

fn verbose(config: &mut Config, on: bool) {
    config.log.trace = on;
    config.log.trace_verbose = on;
}

fn port(text: &str) -> Result<u16, String> {
    let number = text.parse().ok();
    number
        .and_then(address::port)
        .ok_or_else(|| "use 1 to 65535, or -1 for any free one".to_owned())
}

fn count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "use a whole number".to_owned())
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}
