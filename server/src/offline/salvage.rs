//! `store salvage DIR --to DIR2`: what is sound, as backups that `nats backup restore` takes.

use std::io::Write;
use std::path::Path;

use halyard_server::jetstream::backup::salvage::salvage;

use super::{Looker, OfflineError, note};

pub(super) fn run(
    looker: &Looker<'_>,
    node: &Path,
    to: &Path,
    out: &mut dyn Write,
) -> Result<(), OfflineError> {
    let mut rescue = looker.node(node)?;
    for finding in &rescue.findings {
        writeln!(out, "DAMAGE: {finding}")?;
    }
    for mended in &rescue.mended {
        writeln!(out, "{mended}")?;
    }
    let is_whole = rescue.findings.is_empty();
    let done = salvage(&mut rescue, &**looker.disk, to, &mut note)?;
    writeln!(
        out,
        "{}: {} streams with {} messages and {} consumers; restore them with: nats backup restore account {0}",
        to.display(),
        done.streams,
        done.messages,
        done.consumers
    )?;
    if done.unreadable + done.behind > 0 {
        writeln!(
            out,
            "{} messages cannot be read, {} stand behind damage of the log and have no certain sequence",
            done.unreadable, done.behind
        )?;
    }
    // All that is sound was brought out; scripts are told that it is not all.
    (is_whole && done.unreadable == 0)
        .then_some(())
        .ok_or(OfflineError::Incomplete)
}
