//! What the operating system asks of the binary, and how one binary asks another (`--signal`).

use std::io;
use std::path::Path;

use halyard_runtime::disk::{Disk, OpenMode, RealDisk};
use halyard_runtime::signal::{self, Signal};

/// Longest beginning of a command line that is looked at, in bytes; the program's path is first in it.
const COMMAND_BYTES_MAX: usize = 4096;

/// Why no signal was sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No process has our name.
    #[error("no {0} processes running")]
    None(String),
    /// Several have; only the user can know which is meant.
    #[error("multiple {program} processes running: {}; name one with =PID", list(.pids))]
    Several {
        /// The name looked for.
        program: String,
        /// Who has it.
        pids: Vec<u32>,
    },
    /// The named pid file cannot be read or holds no number.
    #[error("the pid file {path} cannot be used: {why}")]
    PidFile {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// The operating system refuses.
    #[error("unable to signal process {pid}: {source}")]
    Refused {
        /// The process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
}

fn list(pids: &[u32]) -> String {
    pids.iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Sends what `--signal NAME[=TARGET]` asks for. Without a target, to the one other process called `program`.
///
/// # Errors
/// See [`SendError`].
pub fn send(name: &str, target: Option<&str>, program: &str) -> Result<(), SendError> {
    let pid = match target {
        None => only_other(program)?,
        Some(target) => match target.parse() {
            Ok(pid) => pid,
            Err(_) => from_pid_file(target)?,
        },
    };
    signal::send(pid, number(name)).map_err(|source| SendError::Refused { pid, source })
}

/// The signal for a word of the command line; `None` is the one that cannot be caught.
fn number(name: &str) -> Option<Signal> {
    match name {
        "quit" => Some(Signal::Interrupt),
        "term" => Some(Signal::Terminate),
        "reload" => Some(Signal::Hangup),
        "reopen" => Some(Signal::User1),
        "ldm" => Some(Signal::User2),
        _ => None,
    }
}

fn from_pid_file(path: &str) -> Result<u32, SendError> {
    let failed = |why: String| SendError::PidFile {
        path: path.to_owned(),
        why,
    };
    let bytes = RealDisk
        .read(Path::new(path))
        .map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&bytes);
    text.trim()
        .parse()
        .map_err(|_| failed("it holds no process id".to_owned()))
}

/// The one process besides us that was started under the name `program`.
fn only_other(program: &str) -> Result<u32, SendError> {
    let none = || SendError::None(program.to_owned());
    let entries = RealDisk.list(Path::new("/proc")).map_err(|_| none())?;
    let pids = entries
        .iter()
        .filter_map(|entry| entry.name.parse::<u32>().ok());
    let pids: Vec<_> = pids
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| called(*pid).as_deref() == Some(program))
        .collect();
    match pids[..] {
        [] => Err(none()),
        [pid] => Ok(pid),
        _ => Err(SendError::Several {
            program: program.to_owned(),
            pids,
        }),
    }
}

/// The last component of the path under which a process was started.
fn called(pid: u32) -> Option<String> {
    let file = RealDisk
        .open(Path::new(&format!("/proc/{pid}/cmdline")), OpenMode::Read)
        .ok()?;
    let mut bytes = [0; COMMAND_BYTES_MAX];
    let len = file.read_at(&mut bytes, 0).ok()?;
    let command = bytes.get(..len)?.split(|byte| *byte == 0).next()?;
    let name = Path::new(std::str::from_utf8(command).ok()?).file_name()?;
    Some(name.to_string_lossy().into_owned())
}

/// How nats-server names a signal in its log.
#[must_use]
pub fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::Interrupt => "interrupt",
        Signal::Terminate => "terminated",
        Signal::Hangup => "hangup",
        Signal::User1 => "user defined signal 1",
        Signal::User2 => "user defined signal 2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_targets_are_named() {
        let error = send("reload", Some("/nonexistent.pid"), "x").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the pid file /nonexistent.pid cannot be used")
        );
        let error = send("reload", None, "no-such-program").unwrap_err();
        assert_eq!(error.to_string(), "no no-such-program processes running");
        assert!(
            called(std::process::id())
                .unwrap()
                .starts_with("halyard_server")
        );
    }
}
