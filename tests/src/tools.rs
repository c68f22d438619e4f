//! Finds what `.ci/setup` installs: the real server, the `nats` CLI and the clients' interpreters.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    let found = match std::env::var_os("NATS_SERVER") {
        Some(path) => Some(path.into()),
        None => program("nats-server"),
    };
    if found.is_none() {
        skipped();
    }
    found
}

/// Says that a comparison is left out, past the capturing of a test's output; fails it where the real server must be.
fn skipped() {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    let needed = std::env::var_os("HALYARD_NEEDS_PEER").is_some();
    assert!(!needed, "nats-server is not installed: run .ci/setup");
    let text = format!(
        "\nSKIPPED ({count} in this file so far): nats-server is not installed, so nothing is compared with it; \
         .ci/setup installs it\n"
    );
    // Nobody is left to tell that standard error is gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
