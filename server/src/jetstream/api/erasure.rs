//! `STREAM.ERASURE.<stream>`: what of a stream is still to be erased, where, and since when. An extension of ours.
//!
//! A stream that was deleted is known by its name until its bytes are gone; after that it is not found, like any stream
//! that there is not.

use std::sync::Arc;

use halyard_runtime::time::Timestamp;
use serde::Serialize;

use super::errors::table;
use super::request::Request;
use super::stream::Stop;
use super::{json, timestamp};
use crate::jetstream::config::Storage;
use crate::jetstream::erasure::Status;
use crate::jetstream::erasure::pass::Stage;
use crate::jetstream::group::erasures::{Asked, Erasures};
use crate::jetstream::service::JetStream;
use halyard_raft::NodeId;

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Erasure {
    stream: String,
    /// Nothing that was to be erased is left on any replica.
    done: bool,
    /// The stream was deleted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
    /// The last request; none if there never was one (or none that matters: memory streams).
    #[serde(skip_serializing_if = "Option::is_none")]
    requested: Option<Requested>,
    /// The bound, nanoseconds.
    erase_within: u64,
    /// How far each replica is.
    replicas: Vec<Replica>,
}

#[derive(Debug, Serialize)]
struct Requested {
    /// Its entry in the group's log.
    entry: u64,
    time: String,
}

#[derive(Debug, Serialize)]
struct Replica {
    name: String,
    done: bool,
    /// It has erased everything that was asked for up to this entry.
    done_up_to: u64,
    /// When that was committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    done_at: Option<String>,
    /// The oldest request that it is not done with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_since: Option<String>,
    /// What it is doing about it.
    stage: &'static str,
    /// Segments to rewrite; of these, damaged ones, which cannot be; freed files to overwrite.
    segments: usize,
    #[serde(skip_serializing_if = "is_zero")]
    damaged_segments: usize,
    files: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

pub(super) async fn answer(
    service: &Arc<JetStream>,
    request: &Request,
    name: &str,
) -> Result<Erasure, Stop> {
    if !json::is_nothing(&request.payload) {
        return Err(table::NOT_EMPTY_REQUEST.error().into());
    }
    let account = &*request.account;
    let handle = service.stream(account, name);
    // What memory streams free is gone: only the group on disk has something to erase.
    let group = service.group(Storage::File);
    group
        .inbox()
        .caught_up(handle.as_ref().map(|handle| handle.id()))
        .await;
    let status = service.erasure().status();
    let found = group.read(|machine| {
        let erasures = machine.erasures();
        let own = handle
            .as_ref()
            .and_then(|handle| erasures.stream(handle.id()));
        let asked: Vec<&Asked> = erasures.dropped_as(account, name).chain(own).collect();
        if handle.is_none() && asked.is_empty() {
            return None;
        }
        let me = group.raft().me();
        Some(show(service, erasures, me, &asked, &status))
    });
    let (replica, requested) = found.ok_or_else(|| table::STREAM_NOT_FOUND.error())?;
    Ok(Erasure {
        stream: name.to_owned(),
        done: replica.done,
        deleted: handle.is_none(),
        requested,
        erase_within: u64::try_from(service.settings().erase_within.as_nanos()).unwrap_or(u64::MAX),
        replicas: vec![replica],
    })
}

/// This replica, and the last request.
fn show(
    service: &JetStream,
    erasures: &Erasures,
    me: NodeId,
    asked: &[&Asked],
    status: &Status,
) -> (Replica, Option<Requested>) {
    let done = erasures.done_by(me.0);
    let since = asked
        .iter()
        .filter_map(|asked| asked.since(done.up_to))
        .min();
    let stage = match (since, status.stage) {
        (None, _) => Stage::None,
        // The task has not looked yet.
        (Some(_), Stage::None) => Stage::Waiting,
        (Some(_), stage) => stage,
    };
    let of_store = |count: usize| if since.is_some() { count } else { 0 };
    let replica = Replica {
        name: service.name().to_owned(),
        done: since.is_none(),
        done_up_to: done.up_to,
        done_at: (done.time > 0).then(|| timestamp::format(Timestamp::from_nanos(done.time))),
        pending_since: since.map(timestamp::format),
        stage: stage.name(),
        segments: of_store(status.segments),
        damaged_segments: of_store(status.damaged),
        files: of_store(status.files),
    };
    let last = asked.iter().max_by_key(|asked| asked.last);
    let requested = last.map(|asked| Requested {
        entry: asked.last,
        time: timestamp::format(Timestamp::from_nanos(asked.time)),
    });
    (replica, requested)
}
