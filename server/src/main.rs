//! The `halyard` binary: command line to a running server, and signals to what they mean.

mod app;
mod offline;

use std::io::{self, Write};
use std::process::ExitCode;

use halyard_server::config::{self, Action, CommandLine, Loaded, System};
use halyard_server::signals;

fn main() -> ExitCode {
    halyard_server::memory::limit_arenas();
    let program = std::env::args().next().unwrap_or_default();
    let program = config::program_name(&program);
    let line = match CommandLine::parse(std::env::args()) {
        Ok(line) => line,
        Err(error) => return fail(&program, &error),
    };
    match &line.action {
        Action::Run => app::run(line),
        Action::Test => test(&line),
        Action::Version => print(&(config::version_line(&line.program) + "\n")),
        Action::Help => print(&config::help(&line.program)),
        Action::Signal { signal, target } => {
            match signals::send(signal, target.as_deref(), &line.program) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&line.program, &error),
            }
        }
        Action::Store(command) => offline::run(&line.program, command),
    }
}

/// `-t`: says whether a server would start with this configuration.
fn test(line: &CommandLine) -> ExitCode {
    match line.load(&System) {
        Err(error) => fail(&line.program, &error),
        Ok(Loaded { config, warnings }) => {
            for warning in warnings {
                complain(&line.program, &format!("warning: {warning}"));
            }
            let file = config.config_file.unwrap_or_default();
            let digest = config.config_digest.unwrap_or_default();
            let file = file.display();
            complain(
                &line.program,
                &format!("configuration file {file} is valid ({digest})"),
            );
            ExitCode::SUCCESS
        }
    }
}

/// Ends with what scripts expect: the reason on standard error, status 1.
fn fail(program: &str, error: &dyn std::fmt::Display) -> ExitCode {
    complain(program, error);
    ExitCode::FAILURE
}

fn complain(program: &str, text: &dyn std::fmt::Display) {
    // Nobody is left to tell that standard error is gone.
    let _ = writeln!(io::stderr(), "{program}: {text}");
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
