//! Direct reads: the message itself as the answer, its place in headers. Answered by threads for requests (`reads`).
//!
//! A stream's every acknowledged message has been applied before its acknowledgement, so what is read here is never
//! older than what anybody was told. A batch is read in pages: between two of them the group's lock is free, and no more
//! than a page is in memory. Whatever is asked for, a batch ends after [`BATCH_BYTES_MAX`]; its last answer tells how much
//! is left.

use std::collections::BTreeSet;
use std::sync::Arc;

use halyard_engine::{Filter, Filters, Message, Store, StreamId};
use halyard_net::proto::headers as wire;

use super::message::GetRequest;
use super::{json, request, timestamp};
use crate::broker::{Account, Delivered, FlushScope, Publish};
use crate::jetstream::handle::StreamHandle;
use crate::jetstream::limits::{DIRECT_FILTERS_MAX, MULTI_LAST_MAX};
use crate::jetstream::service::JetStream;
use crate::jetstream::stream::machine::Fault;

/// Bytes of the messages of one batch; also what a request that names no limit gets.
const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes and messages that are read under the lock at one time.
const PAGE: (usize, usize) = (1024 * 1024, 256);

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

/// `DIRECT.GET.<stream>` with a body, or `DIRECT.GET.<stream>.<subject>`, whose body says at most how to show it. It may wait
/// for the group's lock and the disk.
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
    let asked = match read(subject, message) {
        Ok(asked) => asked,
        Err((code, text)) => return status(account, reply, code, text),
    };
    let outcome = if !asked.multi_last.is_empty() {
        multi_last(&handle, reply, &asked)
    } else if asked.batch != 0 {
        batch(&handle, reply, &asked)
    } else {
        single(&handle, reply, &asked)
    };
    match outcome {
        Ok(()) => Delivered::Accepted,
        Err(fault) => {
            handle.tell_unreadable(&fault);
            status(account, reply, 500, &fault.to_string())
        }
    }
}

/// What is asked for, or the status that refuses it.
fn read(subject: Option<&str>, message: &Publish<'_>) -> Result<GetRequest, (u16, &'static str)> {
    if request::check_level(message.headers).is_err() {
        return Err((412, "Required Api Level"));
    }
    let empty = message.payload.is_empty();
    let mut asked = match empty {
        true => GetRequest::default(),
        false => json::parse_one::<GetRequest>(message.payload)
            .map_err(|_| (408, "Malformed Request"))?,
    };
    if let Some(subject) = subject {
        if asked.selects() {
            return Err((408, "Bad Request"));
        }
        subject.clone_into(&mut asked.last_by_subj);
    }
    if asked.is_empty() {
        return Err((408, "Empty Request"));
    }
    if asked.contradicts_itself_directly() {
        return Err((408, "Bad Request"));
    }
    Ok(asked)
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
            if let Some(fault) = handle.lacks() {
                return Err(fault);
            }
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

/// What is still to be sent of a batch.
struct Left {
    messages: usize,
    bytes: usize,
    place: Place,
}

impl Left {
    fn new(asked: &GetRequest, messages: usize, pending: u64) -> Self {
        let bytes = match asked.max_bytes {
            0 => BATCH_BYTES_MAX,
            // Less than nothing still gets one message.
            bytes => usize::try_from(bytes).unwrap_or(1).min(BATCH_BYTES_MAX),
        };
        let place = Place { pending, last: 0 };
        Self {
            messages,
            bytes,
            place,
        }
    }

    const fn is_done(&self) -> bool {
        self.messages == 0 || self.bytes == 0
    }

    /// Reads the next page: of `next`, which gives one message after the other, as many as fit.
    fn page(
        &self,
        mut next: impl FnMut() -> Result<Option<Message>, Fault>,
    ) -> Result<Vec<Message>, Fault> {
        let (most, mut bytes) = (self.messages.min(PAGE.1), self.bytes.min(PAGE.0));
        let mut page = Vec::new();
        while page.len() < most && bytes > 0 {
            let Some(message) = next()? else { break };
            bytes = bytes.saturating_sub(message.record.len());
            page.push(message);
        }
        Ok(page)
    }

    /// Sends a page, with the group's lock free.
    fn send(&mut self, handle: &StreamHandle, reply: &[u8], no_hdr: bool, page: &[Message]) {
        let scope = FlushScope::new();
        for message in page {
            self.messages -= 1;
            self.bytes = self.bytes.saturating_sub(message.record.len());
            self.place.pending = self.place.pending.saturating_sub(1);
            send(handle, reply, message, no_hdr, Some(&self.place));
            self.place.last = message.seq;
        }
        drop(scope);
    }
}

fn batch(handle: &StreamHandle, reply: &[u8], asked: &GetRequest) -> Result<(), Fault> {
    let id = handle.id();
    let filters = match asked.next_by_subj.as_str() {
        "" => Filters::everything(),
        filter => match Filters::parse(&[filter]) {
            Ok(filters) => filters,
            Err(_) => {
                status(handle.account(), reply, 404, "Message Not Found");
                return Ok(());
            }
        },
    };
    let (mut next, last, pending) = handle.group().read(|machine| {
        let store = machine.store();
        let from = match asked.start_time {
            Some(time) => store.seq_at_time(id, time.timestamp())?,
            None => asked.seq.max(1),
        };
        let pending = store.count_matching(id, &filters, from)?;
        Ok::<_, Fault>((from, store.last_seq(id), pending))
    })?;
    if pending == 0 {
        if let Some(fault) = handle.lacks() {
            return Err(fault);
        }
        status(handle.account(), reply, 404, "Message Not Found");
        return Ok(());
    }
    // Less than nothing is none, and the end says how many there are.
    let mut left = Left::new(asked, usize::try_from(asked.batch).unwrap_or(0), pending);
    while !left.is_done() {
        let page = handle.group().read(|machine| {
            let store = machine.store();
            left.page(|| {
                while let Some(seq) = store.next_matching(id, &filters, next)? {
                    // What came after the beginning is not of this batch.
                    if seq > last {
                        break;
                    }
                    next = seq + 1;
                    if let Some(message) = store.get(id, seq)? {
                        return Ok(Some(message));
                    }
                }
                Ok(None)
            })
        })?;
        if page.is_empty() {
            break;
        }
        left.send(handle, reply, asked.no_hdr, &page);
    }
    end(handle, reply, &left.place, None);
    Ok(())
}

/// The last message of every subject that matches one of several filters, in the order of their sequences.
fn multi_last(handle: &StreamHandle, reply: &[u8], asked: &GetRequest) -> Result<(), Fault> {
    let id = handle.id();
    let up_to = handle
        .group()
        .read(|machine| up_to(machine.store(), id, asked))?;
    let sequences = match last_of_each(handle, &asked.multi_last, up_to)? {
        Some(sequences) if sequences.is_empty() => {
            if let Some(fault) = handle.lacks() {
                return Err(fault);
            }
            status(handle.account(), reply, 404, "No Results");
            return Ok(());
        }
        Some(sequences) => sequences,
        None => {
            status(handle.account(), reply, 413, "Too Many Results");
            return Ok(());
        }
    };
    let mut wanted = sequences.range(asked.seq..).copied();
    let most = usize::try_from(asked.batch).ok().filter(|batch| *batch > 0);
    let pending = wanted.clone().count() as u64;
    let mut left = Left::new(asked, most.unwrap_or(MULTI_LAST_MAX), pending);
    while !left.is_done() {
        let page = handle.group().read(|machine| {
            let store = machine.store();
            left.page(|| {
                for seq in wanted.by_ref() {
                    if let Some(message) = store.get(id, seq)? {
                        return Ok(Some(message));
                    }
                }
                Ok(None)
            })
        })?;
        if page.is_empty() {
            break;
        }
        // Its reader needs the headers to tell the messages apart: `no_hdr` has no effect, as with the peer.
        left.send(handle, reply, false, &page);
    }
    end(handle, reply, &left.place, Some(up_to));
    Ok(())
}

/// The last sequence that a multi-last request looks at.
fn up_to(store: &Store, id: StreamId, asked: &GetRequest) -> Result<u64, Fault> {
    let last = store.last_seq(id);
    if asked.up_to_seq > 0 {
        return Ok(asked.up_to_seq);
    }
    match asked.up_to_time {
        Some(time) => {
            let after = store.seq_at_time(id, time.timestamp())?;
            Ok(after.saturating_sub(1).min(last))
        }
        None => Ok(last),
    }
}

/// The sequences of the last messages; `None`: more than an answer may have.
///
/// A filter without wildcards is looked up, so many of them cost no more than their number. Those with wildcards are
/// bounded: each is looked at for every subject that one of them finds.
fn last_of_each(
    handle: &StreamHandle,
    texts: &[String],
    up_to: u64,
) -> Result<Option<BTreeSet<u64>>, Fault> {
    let id = handle.id();
    let (mut literals, mut wide) = (BTreeSet::new(), Vec::new());
    // What is no filter matches nothing.
    for filter in texts
        .iter()
        .filter_map(|text| Filter::parse(text.as_bytes()).ok())
    {
        match filter.literal() {
            Some(literal) => {
                literals.insert(literal.to_vec());
            }
            None => wide.push(filter),
        }
    }
    if wide.len() > DIRECT_FILTERS_MAX {
        return Ok(None);
    }
    let mut found = BTreeSet::new();
    let literals: Vec<Vec<u8>> = literals.into_iter().collect();
    for some in literals.chunks(PAGE.1) {
        handle.group().read(|machine| {
            for subject in some {
                if let Ok(filters) = Filters::parse(&[subject]) {
                    found.extend(machine.store().last_matching(id, &filters, up_to)?);
                }
            }
            Ok::<_, Fault>(())
        })?;
        if found.len() > MULTI_LAST_MAX {
            return Ok(None);
        }
    }
    if wide.is_empty() {
        return Ok(Some(found));
    }
    let filters = Filters::new(wide);
    let mut after = None;
    loop {
        let page = handle.group().read(|machine| {
            let store = machine.store();
            let page = store.subjects(id, &filters, after.as_deref(), PAGE.1)?;
            for totals in page.iter().filter(|totals| totals.first_seq <= up_to) {
                if totals.last_seq <= up_to {
                    found.insert(totals.last_seq);
                } else if let Ok(subject) = Filters::parse(&[&totals.subject]) {
                    found.extend(store.last_matching(id, &subject, up_to)?);
                }
            }
            Ok::<_, Fault>(page)
        })?;
        if found.len() > MULTI_LAST_MAX {
            return Ok(None);
        }
        match page.last() {
            Some(last) if page.len() >= PAGE.1 => after = Some(last.subject.clone()),
            _ => return Ok(Some(found)),
        }
    }
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
fn end(handle: &StreamHandle, reply: &[u8], place: &Place, up_to: Option<u64>) {
    let mut headers = b"NATS/1.0 204 EOB\r\n".to_vec();
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
