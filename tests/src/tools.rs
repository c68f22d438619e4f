//! Finds what `.ci/setup` installs: the real server, the `nats` CLI and the clients' interpreters.

use std::path::PathBuf;

use crate::node::workspace;

/// A program by name: `.tools/bin` of the workspace first, then the search path.
pub fn program(name: &str) -> Option<PathBuf> {
    let ours = workspace().join(".tools/bin").join(name);
    if ours.is_file() {
        return Some(ours);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}

/// The real `nats-server`: the oracle.
pub fn peer() -> Option<PathBuf> {
    match std::env::var_os("NATS_SERVER") {
        Some(path) => Some(path.into()),
        None => program("nats-server"),
    }
}
