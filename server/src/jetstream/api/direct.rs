//! Direct reads: the message itself as the answer, its place in headers. Answered by threads for requests (`reads`).
//!
//! A stream's every acknowledged message has been applied before its acknowledgement, so what is read here is never
//! older than what anybody was told.

use std::sync::Arc;

use halyard_engine::{Filters, Message, Store, StreamId};
use halyard_net::proto::headers as wire;

use super::message::GetRequest;
use super::{json, request, timestamp};
use crate::broker::{Account, Delivered, FlushScope, Publish};
use crate::jetstream::handle::StreamHandle;
use crate::jetstream::limits::MULTI_LAST_MAX;
use crate::jetstream::service::JetStream;
use crate::jetstream::stream::machine::Fault;

/// Bytes of the answers of one batch if the request names no limit.
const BATCH_BYTES: usize = 32 * 1024 * 1024;

/// Whether somebody answers `DIRECT.GET.<rest>`: there is such a stream, and it allows direct reads.
pub(super) fn served(
    service: &JetStream,
    account: &Account,
    rest: &str,
) -> Option<Arc<StreamHandle>> {
    let name = rest.split_once('.').map_or(rest, |(name, _)| name);
    let handle = service.stream(account.name(), name)?;
    handle.config().allow_direct.then_some(handle)
}

/// `DIRECT.GET.<stream>` with a body, or `DIRECT.GET.<stream>.<subject>` without. It may wait for the group's lock and the disk.
pub(in crate::jetstream) fn answer(
    service: &JetStream,
    account: &Arc<Account>,
    rest: &str,
    message: &Publish<'_>,
) -> Delivered {
    let (name, subject) = match rest.split_once('.') {
        Some((name, subject)) => (name, Some(subject)),
        None => (rest, None),
    };
    let Some(handle) = service
        .stream(account.name(), name)
        .filter(|handle| handle.config().allow_direct)
    else {
        return Delivered::Refused;
    };
    let Some(reply) = message.reply else {
        return Delivered::Accepted;
    };
    let asked = match subject {
        Some(subject) => GetRequest {
            last_by_subj: subject.to_owned(),
            ..GetRequest::default()
        },
        None if message.payload.is_empty() => return status(account, reply, 408, "Empty Request"),
        None => match json::parse::<GetRequest>(message.payload, false) {
            Ok(asked) => asked,
            Err(_) => return status(account, reply, 408, "Malformed Request"),
        },
    };
    if request::required_level(message.headers).is_some() {
        return status(account, reply, 412, "Required Api Level");
    }
    if asked.is_empty() && asked.batch == 0 {
        return status(account, reply, 408, "Empty Request");
    }
    if asked.contradicts_itself()
        || (!asked.multi_last.is_empty() && !asked.last_by_subj.is_empty())
    {
        return status(account, reply, 408, "Bad Request");
    }
    let outcome = if !asked.multi_last.is_empty() {
        multi_last(&handle, reply, &asked)
    } else if asked.batch > 0 {
        batch(&handle, reply, &asked)
    } else {
        single(&handle, reply, &asked)
    };
    match outcome {
        Ok(()) => Delivered::Accepted,
        Err(fault) => {
            tracing::error!("stream {name}: {fault}");
            status(account, reply, 500, &fault.to_string())
        }
    }
}

fn single(handle: &StreamHandle, reply: &[u8], asked: &GetRequest) -> Result<(), Fault> {
    let id = handle.id();
    let found = handle.group().read(|machine| {
        let store = machine.store();
        match asked.find(store, id)? {
            Some(seq) => store.get(id, seq),
            None => Ok(None),
        }
    })?;
    match found {
        Some(message) => send(handle, reply, &message, asked.no_hdr, None),
        None => {
            status(handle.account(), reply, 404, "Message Not Found");
        }
    }
    Ok(())
}

/// Where one answer of a batch stands.
struct Place {
    pending: u64,
    last: u64,
}

fn batch(handle: &StreamHandle, reply: &[u8], asked: &GetRequest) -> Result<(), Fault> {
    let id = handle.id();
    let filters = match asked.next_by_subj.as_str() {
        "" => Filters::everything(),
        filter => match Filters::parse(&[filter]) {
            Ok(filters) => filters,
            Err(_) => {
                status(handle.account(), reply, 408, "Bad Request");
                return Ok(());
            }
        },
    };
    let limit = if asked.max_bytes > 0 {
        asked.max_bytes
    } else {
        BATCH_BYTES
    };
    let (messages, mut pending) = handle.group().read(|machine| {
        let store = machine.store();
        let from = match asked.start_time {
            Some(time) => store.seq_at_time(id, time)?,
            None => asked.seq.max(1),
        };
        let pending = store.count_matching(id, &filters, from)?;
        let mut messages = Vec::new();
        let (mut next, mut bytes) = (from, 0);
        while messages.len() < asked.batch && bytes < limit {
            let Some(seq) = store.next_matching(id, &filters, next)? else {
                break;
            };
            if let Some(message) = store.get(id, seq)? {
                bytes += message.record.len();
                messages.push(message);
            }
            next = seq + 1;
        }
        Ok::<_, Fault>((messages, pending))
    })?;
    if messages.is_empty() {
        status(handle.account(), reply, 404, "Message Not Found");
        return Ok(());
    }
    let scope = FlushScope::new();
    let mut last = 0;
    for message in &messages {
        pending = pending.saturating_sub(1);
        send(
            handle,
            reply,
            message,
            asked.no_hdr,
            Some(&Place { pending, last }),
        );
        last = message.seq;
    }
    end(handle, reply, pending, last, None);
    drop(scope);
    Ok(())
}

/// The last message of every subject that matches one of several filters, in the order of their sequences.
fn multi_last(handle: &StreamHandle, reply: &[u8], asked: &GetRequest) -> Result<(), Fault> {
    let id = handle.id();
    let Ok(filters) = Filters::parse(&asked.multi_last) else {
        status(handle.account(), reply, 408, "Bad Request");
        return Ok(());
    };
    let found = handle.group().read(|machine| {
        let store = machine.store();
        let up_to = up_to(store, id, asked)?;
        let sequences = last_of_each(store, id, &filters, up_to)?;
        if sequences.len() > MULTI_LAST_MAX {
            return Ok(None);
        }
        let from = sequences
            .iter()
            .position(|seq| *seq >= asked.seq)
            .unwrap_or(sequences.len());
        let wanted = sequences.get(from..).unwrap_or_default();
        let limit = if asked.batch > 0 {
            asked.batch
        } else {
            MULTI_LAST_MAX
        };
        let mut messages = Vec::new();
        for seq in wanted.iter().take(limit) {
            messages.extend(store.get(id, *seq)?);
        }
        Ok::<_, Fault>(Some((messages, wanted.len() as u64, up_to)))
    })?;
    let Some((messages, mut pending, up_to)) = found else {
        status(handle.account(), reply, 413, "Too Many Results");
        return Ok(());
    };
    if messages.is_empty() {
        status(handle.account(), reply, 404, "No Results");
        return Ok(());
    }
    let scope = FlushScope::new();
    let mut last = 0;
    for message in &messages {
        pending = pending.saturating_sub(1);
        send(
            handle,
            reply,
            message,
            asked.no_hdr,
            Some(&Place { pending, last }),
        );
        last = message.seq;
    }
    end(handle, reply, pending, last, Some(up_to));
    drop(scope);
    Ok(())
}

/// The last sequence that a multi-last request looks at.
fn up_to(store: &Store, id: StreamId, asked: &GetRequest) -> Result<u64, Fault> {
    let last = store.state(id)?.last_seq;
    if asked.up_to_seq > 0 {
        return Ok(asked.up_to_seq.min(last));
    }
    match asked.up_to_time {
        Some(time) => Ok(store.seq_at_time(id, time)?.saturating_sub(1).min(last)),
        None => Ok(last),
    }
}

fn last_of_each(
    store: &Store,
    id: StreamId,
    filters: &Filters,
    up_to: u64,
) -> Result<Vec<u64>, Fault> {
    let mut sequences = Vec::new();
    let mut after = None;
    loop {
        // No more subjects than the answer may have, whatever the filters match.
        let page = store.subjects(id, filters, after.as_deref(), MULTI_LAST_MAX + 1)?;
        for totals in page.iter().filter(|totals| totals.first_seq <= up_to) {
            let seq = if totals.last_seq <= up_to {
                Some(totals.last_seq)
            } else {
                match Filters::parse(&[&totals.subject]) {
                    Ok(subject) => store.last_matching(id, &subject, up_to)?,
                    Err(_) => None,
                }
            };
            sequences.extend(seq);
        }
        if page.len() <= MULTI_LAST_MAX || sequences.len() > MULTI_LAST_MAX {
            break;
        }
        after = page.last().map(|totals| totals.subject.clone());
    }
    sequences.sort_unstable();
    Ok(sequences)
}

/// One message as an answer.
fn send(
    handle: &StreamHandle,
    reply: &[u8],
    message: &Message,
    no_hdr: bool,
    place: Option<&Place>,
) {
    if no_hdr {
        handle
            .account()
            .publish(&Publish::new(reply, message.payload()));
        return;
    }
    let stored = message.headers();
    let mut headers = Vec::with_capacity(stored.len() + 200);
    match stored.strip_suffix(b"\r\n") {
        Some(own) if own.len() > wire::VERSION.len() => headers.extend_from_slice(own),
        _ => {
            headers.extend_from_slice(wire::VERSION);
            headers.extend_from_slice(b"\r\n");
        }
    }
    let mut time = Vec::with_capacity(32);
    timestamp::write(&mut time, message.time);
    wire::line(&mut headers, b"Nats-Stream", handle.name().as_bytes());
    wire::line(&mut headers, b"Nats-Subject", message.subject());
    wire::line(
        &mut headers,
        b"Nats-Sequence",
        message.seq.to_string().as_bytes(),
    );
    wire::line(&mut headers, b"Nats-Time-Stamp", &time);
    if let Some(place) = place {
        wire::line(
            &mut headers,
            b"Nats-Num-Pending",
            place.pending.to_string().as_bytes(),
        );
        wire::line(
            &mut headers,
            b"Nats-Last-Sequence",
            place.last.to_string().as_bytes(),
        );
    }
    headers.extend_from_slice(b"\r\n");
    handle
        .account()
        .publish(&Publish::new(reply, message.payload()).with_headers(&headers));
}

/// The end of a batch.
fn end(handle: &StreamHandle, reply: &[u8], pending: u64, last: u64, up_to: Option<u64>) {
    let mut headers = b"NATS/1.0 204 EOB\r\n".to_vec();
    wire::line(
        &mut headers,
        b"Nats-Num-Pending",
        pending.to_string().as_bytes(),
    );
    wire::line(
        &mut headers,
        b"Nats-Last-Sequence",
        last.to_string().as_bytes(),
    );
    if let Some(up_to) = up_to {
        wire::line(
            &mut headers,
            b"Nats-UpTo-Sequence",
            up_to.to_string().as_bytes(),
        );
    }
    headers.extend_from_slice(b"\r\n");
    handle
        .account()
        .publish(&Publish::new(reply, b"").with_headers(&headers));
}

fn status(account: &Account, reply: &[u8], code: u16, text: &str) -> Delivered {
    let headers = wire::Builder::status(code, text).finish();
    account.publish(&Publish::new(reply, b"").with_headers(&headers));
    Delivered::Accepted
}
