//! `store stats`: what is in a store, for people or, with `--json`, for programs.

use std::io::Write;
use std::path::Path;

use halyard_engine::inspect;
use halyard_server::broker::GLOBAL_ACCOUNT;
use serde::Serialize;

use super::{Looker, OfflineError, Places, groups};

#[derive(Serialize)]
struct Node {
    dir: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<Identity>,
    log: Log,
    streams: Vec<Stream>,
    stores: Vec<Store>,
    findings: Vec<String>,
}

/// Whose directory it is.
#[derive(Serialize)]
struct Identity {
    node: String,
    incarnation: u64,
    log: String,
    boots: u64,
}

#[derive(Serialize)]
struct Log {
    files: usize,
    records: u64,
}

#[derive(Serialize)]
struct Stream {
    id: u64,
    account: String,
    name: String,
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
    subjects: u64,
    deleted: u64,
    consumers: Vec<String>,
}

#[derive(Serialize)]
struct Store {
    dir: String,
    applied: u64,
    digest: String,
    records: usize,
    segments: Vec<Segment>,
    left_over: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Only of a store without a node: there the names are not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    streams: Vec<Stream>,
}

#[derive(Serialize)]
struct Segment {
    file: String,
    bytes: u64,
    messages: u64,
    first_flush: u64,
    last_flush: u64,
    encrypted: bool,
}

#[derive(Serialize)]
struct All {
    nodes: Vec<Node>,
    stores: Vec<Store>,
}

pub(super) fn run(
    looker: &Looker<'_>,
    places: &Places,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), OfflineError> {
    let nodes = places.nodes.iter().map(|dir| node(looker, dir));
    let stores = places.stores.iter().map(|dir| Ok(store(looker, dir, true)));
    let all = All {
        nodes: nodes.collect::<Result<_, _>>()?,
        stores: stores.collect::<Result<_, OfflineError>>()?,
    };
    if json {
        serde_json::to_writer_pretty(&mut *out, &all).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        for node in &all.nodes {
            print_node(node, out)?;
        }
        for store in &all.stores {
            print_store(store, out)?;
        }
    }
    let is_whole = all.nodes.iter().all(|node| node.findings.is_empty())
        && all.stores.iter().all(|store| store.error.is_none());
    is_whole.then_some(()).ok_or(OfflineError::Incomplete)
}

fn node(looker: &Looker<'_>, dir: &Path) -> Result<Node, OfflineError> {
    let rescue = looker.node(dir)?;
    let streams = rescue.assignments(GLOBAL_ACCOUNT).into_iter();
    let streams = streams.map(|(account, assignment)| {
        let id = assignment.stream_id();
        let store = rescue.file.store();
        let state = store.state(id).ok();
        let consumers = rescue.file.stream(id).map_or_else(Vec::new, |stream| {
            let all = stream.consumers().iter();
            all.map(|consumer| consumer.config().name.clone()).collect()
        });
        stream(account, id.0, assignment.config.name, state, consumers)
    });
    let stores = groups(looker, dir)?;
    let identity = rescue.identity().map(|identity| Identity {
        node: format!("{:010x}", identity.node.node()),
        incarnation: identity.node.incarnation(),
        log: format!("{:016x}", identity.log),
        boots: identity.boots,
    });
    Ok(Node {
        dir: dir.display().to_string(),
        identity,
        log: Log {
            files: rescue.log.files,
            records: rescue.log.records,
        },
        streams: streams.collect(),
        stores: stores
            .iter()
            .map(|(_, dir)| store(looker, dir, false))
            .collect(),
        findings: rescue.findings,
    })
}

fn stream(
    account: String,
    id: u64,
    name: String,
    state: Option<halyard_engine::StreamState>,
    consumers: Vec<String>,
) -> Stream {
    let number = |of: fn(&halyard_engine::StreamState) -> u64| state.as_ref().map_or(0, of);
    Stream {
        id,
        account,
        name,
        messages: number(|state| state.messages),
        bytes: number(|state| state.bytes),
        first_seq: number(|state| state.first_seq),
        last_seq: number(|state| state.last_seq),
        subjects: number(|state| state.subjects),
        deleted: number(|state| state.deleted),
        consumers,
    }
}

fn store(looker: &Looker<'_>, dir: &Path, with_streams: bool) -> Store {
    let mut shown = Store {
        dir: dir.display().to_string(),
        applied: 0,
        digest: String::new(),
        records: 0,
        segments: Vec::new(),
        left_over: Vec::new(),
        error: None,
        streams: Vec::new(),
    };
    let stats = match inspect::stats(looker.disk, dir, looker.options) {
        Ok(stats) => stats,
        Err(error) => {
            shown.error = Some(error.to_string());
            return shown;
        }
    };
    shown.applied = stats.applied;
    shown.digest = format!("{:016x}", stats.digest);
    shown.records = stats.records;
    let segments = stats.segments.iter().map(|segment| Segment {
        file: segment.file.display().to_string(),
        bytes: segment.bytes,
        messages: segment.messages,
        first_flush: segment.flushes.0,
        last_flush: segment.flushes.1,
        encrypted: segment.is_encrypted,
    });
    shown.segments = segments.collect();
    shown.left_over = stats
        .leftovers
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    if with_streams {
        let streams = stats.streams.into_iter();
        let shown_as = |one: inspect::StreamStats| {
            stream(
                String::new(),
                one.id.0,
                String::new(),
                Some(one.state),
                Vec::new(),
            )
        };
        shown.streams = streams.map(shown_as).collect();
    }
    shown
}

fn print_node(node: &Node, out: &mut dyn Write) -> std::io::Result<()> {
    let (files, records) = (node.log.files, node.log.records);
    writeln!(
        out,
        "{}: log of {files} files with {records} records",
        node.dir
    )?;
    if let Some(identity) = &node.identity {
        let (name, incarnation) = (&identity.node, identity.incarnation);
        let (log, boots) = (&identity.log, identity.boots);
        writeln!(
            out,
            "  node {name}, incarnation {incarnation}, log {log}, opened {boots} times"
        )?;
    }
    for finding in &node.findings {
        writeln!(out, "  {finding}")?;
    }
    for stream in &node.streams {
        print_stream(stream, out)?;
    }
    for store in &node.stores {
        print_store(store, out)?;
    }
    Ok(())
}

fn print_stream(stream: &Stream, out: &mut dyn Write) -> std::io::Result<()> {
    let name = match stream.name.as_str() {
        "" => String::new(),
        name => format!(" {name:?} of {:?}", stream.account),
    };
    writeln!(
        out,
        "  stream {}{name}: {} messages, {} bytes, sequences {} to {}, {} subjects, {} deleted, {} consumers",
        stream.id,
        stream.messages,
        stream.bytes,
        stream.first_seq,
        stream.last_seq,
        stream.subjects,
        stream.deleted,
        stream.consumers.len()
    )
}

fn print_store(store: &Store, out: &mut dyn Write) -> std::io::Result<()> {
    let (dir, applied, records) = (&store.dir, store.applied, store.records);
    if let Some(error) = &store.error {
        return writeln!(out, "{dir}: {error}");
    }
    writeln!(
        out,
        "{dir}: applied {applied}, digest {}, {records} records",
        store.digest
    )?;
    for segment in &store.segments {
        let sealed = if segment.encrypted { ", encrypted" } else { "" };
        let (file, bytes, messages) = (&segment.file, segment.bytes, segment.messages);
        let (first, last) = (segment.first_flush, segment.last_flush);
        writeln!(
            out,
            "  {file}: {bytes} bytes, {messages} messages, flushes {first} to {last}{sealed}"
        )?;
    }
    for stream in &store.streams {
        print_stream(stream, out)?;
    }
    for file in &store.left_over {
        writeln!(out, "  left over: {file}")?;
    }
    Ok(())
}
