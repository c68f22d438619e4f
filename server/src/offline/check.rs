//! `store check`: verifies every block of the stores and every record of the log, and says what a start will make of them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use halyard_engine::{StreamId, inspect};
use halyard_server::broker::GLOBAL_ACCOUNT;
use halyard_server::jetstream::rescue::Rescue;

use super::{Looker, OfflineError, Places, groups, note};

pub(super) fn run(
    looker: &Looker<'_>,
    places: &Places,
    out: &mut dyn Write,
) -> Result<(), OfflineError> {
    let mut damaged = 0;
    for node in &places.nodes {
        let rescue = looker.node(node);
        let known = rescue.as_ref().ok();
        let streams = known.map(|rescue| rescue.assignments(GLOBAL_ACCOUNT));
        let streams = streams.unwrap_or_default().into_iter();
        let names = streams.map(|(_, one)| (one.id, one.config.name)).collect();
        for (number, store) in groups(looker, node)? {
            damaged += self::store(looker, &store, Some(number), &names, out)?;
        }
        damaged += log(&rescue?, node, out)?;
    }
    for store in &places.stores {
        damaged += self::store(looker, store, None, &BTreeMap::new(), out)?;
    }
    match damaged {
        0 => Ok(()),
        count => Err(OfflineError::Damaged(count)),
    }
}

/// Verifies one store; returns the number of damaged places.
fn store(
    looker: &Looker<'_>,
    dir: &Path,
    group: Option<u32>,
    names: &BTreeMap<u64, String>,
    out: &mut dyn Write,
) -> Result<usize, OfflineError> {
    let begun = halyard_runtime::time::Instant::now();
    let check = match inspect::check(looker.disk, dir, looker.options) {
        Ok(check) => check,
        Err(error @ halyard_engine::Error::WrongKey { .. }) => return Err(error.into()),
        Err(error) => {
            writeln!(out, "{error}")?;
            writeln!(out, "{}: DAMAGED, and cannot be opened", dir.display())?;
            return Ok(1);
        }
    };
    let name = |id: StreamId| {
        let known = names.get(&id.0).cloned();
        known.unwrap_or_else(|| id.0.to_string())
    };
    for damage in &check.damage {
        writeln!(out, "{}", damage.tell(&name))?;
    }
    let verdict = match check.damage.is_empty() {
        true => "sound",
        false => "DAMAGED",
    };
    let (blocks, bytes) = (check.blocks, check.bytes);
    writeln!(
        out,
        "{}: {verdict}, {blocks} blocks, {bytes} bytes read",
        dir.display()
    )?;
    if let Some(group) = group
        && begun.elapsed().as_secs() >= 2
    {
        note(&format!(
            "group {group} took {:.1} s",
            begun.elapsed().as_secs_f64()
        ));
    }
    Ok(check.damage.len())
}

/// Reads the log as a start does, with what it has for the stores.
fn log(rescue: &Rescue, node: &Path, out: &mut dyn Write) -> Result<usize, OfflineError> {
    // What is of a store has been told with it.
    let log = node.join("log");
    let of_log: Vec<&String> = rescue
        .findings
        .iter()
        .chain(rescue.log.mended.iter())
        .filter(|finding| finding.contains(&*log.to_string_lossy()))
        .collect();
    for finding in &of_log {
        writeln!(out, "{finding}")?;
    }
    if let Some(identity) = rescue.identity() {
        writeln!(out, "{}: {identity}", node.display())?;
    }
    let lacks = rescue.file_lacks.is_some() || rescue.meta_lacks.is_some();
    let damaged = match (of_log.len(), rescue.log.refusal.is_some() || lacks) {
        (0, true) => 1,
        (count, _) => count,
    };
    let (files, records) = (rescue.log.files, rescue.log.records);
    let verdict = match damaged {
        0 => "sound",
        _ => "DAMAGED",
    };
    writeln!(
        out,
        "{}: {verdict}, {files} files, {records} records read",
        log.display()
    )?;
    if let Some(lacks) = rescue.file_lacks.as_ref().or(rescue.meta_lacks.as_ref()) {
        writeln!(
            out,
            "{}: a server starts READ-ONLY here: {lacks}",
            node.display()
        )?;
    } else if let Some(refusal) = &rescue.log.refusal {
        writeln!(
            out,
            "{}: a server starts READ-ONLY here: {refusal}",
            node.display()
        )?;
    } else if damaged > 0 {
        writeln!(
            out,
            "{}: a server starts here, and mends it",
            node.display()
        )?;
    }
    Ok(damaged)
}
