//! One run of the binary: start, the signals in between, the end.

use std::process::ExitCode;
use std::sync::Arc;

use futures::future::{Either, select};
use halyard_runtime::descriptors;
use halyard_runtime::signal::{Signal, Signals};
use halyard_runtime::task::{self, JoinHandle};
use halyard_runtime::time::{self, Duration};
use halyard_server::config::{self, CommandLine, Config, Loaded, System};
use halyard_server::log::{self, Log, protocol};
use halyard_server::presence::{Ports, Presence, urls};
use halyard_server::run::Server;
use halyard_server::signals;

/// How long an orderly end may take before the process ends anyway.
const SHUTDOWN_MAX: Duration = Duration::from_secs(30);

/// What a run has in hand.
struct App {
    line: CommandLine,
    /// The settings in force, as they were read: ports that the system chose are not in them.
    config: Config,
    log: Log,
    server: Arc<Server>,
    presence: Presence,
}

/// Runs a server until a signal ends it.
pub(crate) fn run(line: CommandLine) -> ExitCode {
    let Loaded { config, warnings } = match line.load(&System) {
        Ok(loaded) => loaded,
        Err(error) => return crate::fail(&line.program, &error),
    };
    let log = match log::init(&config.log) {
        Ok(log) => log,
        Err(error) => return crate::fail(&line.program, &format!("cannot log: {error}")),
    };
    protocol::set_payload_bytes_max(config.limits.max_traced_msg_len);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    // A connection is a descriptor, and the usual soft limit of 1024 is far below `max_connections`.
    match descriptors::raise_limit() {
        Ok(most) => tracing::debug!("Up to {most} sockets and files may be open"),
        Err(error) => tracing::warn!("cannot raise the limit of open sockets and files: {error}"),
    }
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let fatal = log.clone();
    let code = match task::block_on(workers, start(line, config, log)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(text)) => fail(&fatal, &text),
        Err(error) => fail(&fatal, &format!("cannot start threads: {error}")),
    };
    fatal.flush();
    code
}

fn fail(log: &Log, text: &str) -> ExitCode {
    log.fatal(text);
    ExitCode::FAILURE
}

/// Starts everything, then follows signals. An error is why the server cannot go on.
async fn start(line: CommandLine, config: Config, log: Log) -> Result<(), String> {
    // From here on a signal is answered in order, also one that comes while the store is being opened.
    let mut signals = Signals::listen(&Signal::ALL).map_err(|error| error.to_string())?;
    let mut presence = Presence::default();
    presence
        .write_pid_file(config.pid_file.as_deref())
        .map_err(|error| error.to_string())?;
    let mut early = Vec::new();
    let started = match select(
        Box::pin(Server::start(config.clone())),
        Box::pin(ended(&mut signals, &mut early)),
    )
    .await
    {
        Either::Left((started, _)) => started.map_err(|error| error.to_string()),
        Either::Right(_) => {
            presence.remove();
            return Ok(());
        }
    };
    let server = match started {
        Ok(server) => Arc::new(server),
        Err(error) => {
            presence.remove();
            return Err(error);
        }
    };
    let mut app = App {
        line,
        config,
        log,
        server,
        presence,
    };
    let listed = app.write_ports_file();
    if listed.is_ok() {
        app.follow(&mut signals, early).await;
    }
    app.presence.remove();
    if time::timeout(SHUTDOWN_MAX, app.server.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("Not everything could be closed in time");
    }
    tracing::info!("Server Exiting..");
    listed.and(match app.server.unwritten() {
        Some(what) => Err(what),
        None => Ok(()),
    })
}

/// Waits for a signal that ends the process. Others are kept in `early`: they are followed once the server is ready.
async fn ended(signals: &mut Signals, early: &mut Vec<Signal>) {
    loop {
        let signal = signals.next().await;
        if matches!(signal, Signal::Interrupt | Signal::Terminate) {
            tracing::info!("Trapped \"{}\" signal", signals::name(signal));
            return;
        }
        if !early.contains(&signal) {
            early.push(signal);
        }
    }
}

impl App {
    fn write_ports_file(&mut self) -> Result<(), String> {
        let nats = self.server.client_addresses();
        let monitor = self.server.monitor_address();
        let ports = Ports {
            nats: nats
                .into_iter()
                .flat_map(|address| urls("nats", address))
                .collect(),
            monitoring: monitor
                .into_iter()
                .flat_map(|address| urls("http", address))
                .collect(),
        };
        let directory = self.config.ports_file_dir.as_deref();
        self.presence
            .write_ports_file(directory, &self.line.program, &ports)
            .map_err(|error| error.to_string())
    }

    /// Does what signals ask for, those that came `early` first, until one of them, or the end of lame duck mode, ends
    /// the server.
    async fn follow(&mut self, signals: &mut Signals, early: Vec<Signal>) {
        let mut lame_duck: Option<JoinHandle<()>> = None;
        let mut early = early.into_iter();
        loop {
            let signal = match (early.next(), &mut lame_duck) {
                (Some(signal), _) => signal,
                (None, None) => signals.next().await,
                (None, Some(closing)) => match select(Box::pin(signals.next()), closing).await {
                    Either::Left((signal, _)) => signal,
                    Either::Right(_) => return,
                },
            };
            tracing::info!("Trapped \"{}\" signal", signals::name(signal));
            match signal {
                Signal::Interrupt | Signal::Terminate => {
                    tracing::info!("Initiating Shutdown...");
                    return;
                }
                Signal::Hangup => self.reload(),
                Signal::User1 => self.reopen_log(),
                Signal::User2 if lame_duck.is_none() => {
                    let server = Arc::clone(&self.server);
                    lame_duck = Some(task::spawn(async move { server.lame_duck().await }));
                }
                Signal::User2 => {}
            }
        }
    }

    fn reopen_log(&self) {
        match self.log.reopen() {
            Ok(()) if self.config.log.file.is_some() => tracing::info!("File log re-opened"),
            Ok(()) => tracing::info!("File log re-open ignored, not a file logger"),
            Err(error) => tracing::error!("The log file cannot be opened anew: {error}"),
        }
    }

    /// Reads the configuration again and puts it in force, all of it or nothing.
    fn reload(&mut self) {
        match self.try_reload() {
            Ok(()) => {
                let digest = self.config.config_digest.as_deref().unwrap_or("no file");
                tracing::info!("Reloaded server configuration ({digest})");
            }
            Err(error) => tracing::error!("Failed to reload server configuration: {error}"),
        }
    }

    fn try_reload(&mut self) -> Result<(), String> {
        let Loaded { config, warnings } =
            self.line.load(&System).map_err(|error| error.to_string())?;
        let changes = config::plan(&self.config, &config).map_err(|error| error.to_string())?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        if config.log != self.config.log {
            self.log
                .change(&config.log)
                .map_err(|error| format!("cannot log: {error}"))?;
        }
        if config.pid_file != self.config.pid_file
            || config.ports_file_dir != self.config.ports_file_dir
        {
            self.presence.remove();
            self.presence
                .write_pid_file(config.pid_file.as_deref())
                .map_err(|error| error.to_string())?;
        }
        protocol::set_payload_bytes_max(config.limits.max_traced_msg_len);
        self.server.reload(config.clone());
        self.config = config;
        self.write_ports_file()?;
        for change in changes {
            tracing::info!("Reloaded: {} = {}", change.field, change.new);
        }
        Ok(())
    }
}
