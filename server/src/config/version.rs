//! Which program this is, and which NATS it speaks.

/// The version of NATS whose behaviour we implement: INFO, `/varz` and `--version` show it, because tools and clients
/// switch features on by it.
pub const NATS_VERSION: &str = "2.15.1";
/// Our own version, shown beside it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Our own name.
pub const NAME: &str = "halyard";
/// The name under which scripts written for NATS start a server.
pub(super) const PEER_NAME: &str = "nats-server";

/// The text of `--version`. Started as `nats-server`, it is what scripts look for; else our own name and version come first.
#[must_use]
pub fn version_line(program: &str) -> String {
    if program == PEER_NAME {
        format!("{PEER_NAME}: v{NATS_VERSION}")
    } else {
        format!("{NAME}: v{VERSION} (NATS {NATS_VERSION})")
    }
}
