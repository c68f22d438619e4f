//! `store dump`: every record and message, one line each; what is not text is escaped. What cannot be read is said in its
//! place, and the rest goes on.

use std::io::Write;
use std::path::Path;

use halyard_engine::inspect::{self, Dumped};
use halyard_engine::{Store, StreamId};
use halyard_server::broker::GLOBAL_ACCOUNT;

use super::{Looker, OfflineError, Places};

pub(super) fn run(
    looker: &Looker<'_>,
    places: &Places,
    out: &mut dyn Write,
) -> Result<(), OfflineError> {
    let mut is_whole = true;
    for node in &places.nodes {
        is_whole &= self::node(looker, node, out)?;
    }
    for store in &places.stores {
        writeln!(out, "{}:", store.display())?;
        is_whole &= self::store(looker, store, out)?;
    }
    is_whole.then_some(()).ok_or(OfflineError::Incomplete)
}

/// Whether all of it could be read.
fn node(looker: &Looker<'_>, dir: &Path, out: &mut dyn Write) -> Result<bool, OfflineError> {
    let rescue = looker.node(dir)?;
    writeln!(out, "{}:", dir.display())?;
    if let Some(identity) = rescue.identity() {
        writeln!(out, "  {identity}")?;
    }
    for finding in &rescue.findings {
        writeln!(out, "  DAMAGE: {finding}")?;
    }
    let mut is_whole = rescue.findings.is_empty();
    for (account, assignment) in rescue.assignments(GLOBAL_ACCOUNT) {
        let (id, name) = (assignment.id, &assignment.config.name);
        let config = serde_json::to_string(&assignment.config)
            .expect("a configuration that was JSON is JSON");
        writeln!(out, "  stream {id} is {name:?} of {account:?}: {config}")?;
    }
    for store in [rescue.meta.store(), rescue.file.store()] {
        records(store, out)?;
        for id in store.stream_ids() {
            is_whole &= messages(store, id, out)?;
        }
    }
    Ok(is_whole)
}

fn records(store: &Store, out: &mut dyn Write) -> std::io::Result<()> {
    for (key, value) in store.records(b"") {
        let (key, value) = (key.escape_ascii(), value.escape_ascii());
        writeln!(out, "  record {key} = {value}")?;
    }
    Ok(())
}

fn messages(store: &Store, id: StreamId, out: &mut dyn Write) -> std::io::Result<bool> {
    let mut is_whole = true;
    let mut from = 0;
    while let Some(seq) = store.first_at_or_after(id, from) {
        match store.get(id, seq) {
            Ok(Some(message)) => line(&Dumped::Message(id, &message), out)?,
            Ok(None) => {}
            Err(error) => {
                is_whole = false;
                line(&Dumped::Unreadable(id, seq, error), out)?;
            }
        }
        from = seq + 1;
    }
    Ok(is_whole)
}

fn store(looker: &Looker<'_>, dir: &Path, out: &mut dyn Write) -> Result<bool, OfflineError> {
    let (mut failed, mut is_whole) = (None, true);
    let dumped = inspect::dump(looker.disk, dir, looker.options, None, &mut |dumped| {
        is_whole &= !matches!(dumped, Dumped::Unreadable(..));
        failed = line(&dumped, out).err();
        failed.is_none()
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    match dumped {
        Ok(()) => Ok(is_whole),
        Err(error @ halyard_engine::Error::WrongKey { .. }) => Err(error.into()),
        Err(error) => {
            writeln!(out, "  DAMAGE: {error}")?;
            Ok(false)
        }
    }
}

fn line(dumped: &Dumped<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    match dumped {
        Dumped::Record(key, value) => {
            let (key, value) = (key.escape_ascii(), value.escape_ascii());
            writeln!(out, "  record {key} = {value}")
        }
        Dumped::Message(stream, message) => writeln!(
            out,
            "  stream {} seq {} time {} {} {}{}",
            stream.0,
            message.seq,
            message.time.as_nanos(),
            message.subject().escape_ascii(),
            message.headers().escape_ascii(),
            message.payload().escape_ascii()
        ),
        Dumped::Unreadable(stream, seq, error) => {
            writeln!(out, "  stream {} seq {seq} UNREADABLE: {error}", stream.0)
        }
    }
}
