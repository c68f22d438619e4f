//! Requests about single messages, answered by the leader: get and delete.

use std::sync::Arc;

use halyard_engine::{Filters, Message, Store, StreamId};
use serde::Deserialize;

use super::errors::table;
use super::request::Request;
use super::stream::{Stop, finish};
use super::timestamp::Moment;
use super::types::{Got, StoredMessage, Success, base64};
use super::{json, timestamp};
use crate::jetstream::group::Reply;
use crate::jetstream::group::command::{Kind, MessageDelete};
use crate::jetstream::service::JetStream;
use crate::jetstream::stream::machine::Fault;

/// `STREAM.MSG.<verb>.<name>`.
pub(super) async fn answer(
    service: &Arc<JetStream>,
    request: &Request,
    verb: &str,
    name: &str,
) -> Option<Vec<u8>> {
    match verb {
        "GET" => finish("stream_msg_get", get(service, request, name).await),
        "DELETE" => finish("stream_msg_delete", delete(service, request, name).await),
        _ => None,
    }
}

/// Which message is wanted; also the body of a direct get.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct GetRequest {
    pub(super) seq: u64,
    pub(super) last_by_subj: String,
    pub(super) next_by_subj: String,
    pub(super) start_time: Option<Moment>,
    pub(super) no_hdr: bool,
    pub(super) batch: i64,
    pub(super) max_bytes: i64,
    pub(super) multi_last: Vec<String>,
    pub(super) up_to_seq: u64,
    pub(super) up_to_time: Option<Moment>,
}

impl GetRequest {
    /// Whether it names nothing to get.
    pub(super) fn is_empty(&self) -> bool {
        self.is_empty_here() && self.multi_last.is_empty()
    }

    /// Whether it names nothing that the leader gets: it shows one message.
    fn is_empty_here(&self) -> bool {
        self.seq == 0
            && self.last_by_subj.is_empty()
            && self.next_by_subj.is_empty()
            && self.start_time.is_none()
    }

    /// Whether it names two things that exclude each other.
    pub(super) fn contradicts_itself(&self) -> bool {
        let last = !self.last_by_subj.is_empty();
        let start = self.seq > 0 || self.start_time.is_some();
        (last && (start || !self.next_by_subj.is_empty()))
            || (self.seq > 0 && self.start_time.is_some())
    }

    /// The same for a direct get, which may ask for many messages.
    pub(super) fn contradicts_itself_directly(&self) -> bool {
        let last = !self.last_by_subj.is_empty();
        let many = !self.multi_last.is_empty();
        self.contradicts_itself()
            || (last && self.batch != 0)
            || (many && (last || !self.next_by_subj.is_empty()))
            || (self.up_to_seq > 0 && self.up_to_time.is_some())
    }

    /// Whether it says anything beside how the message is shown.
    pub(super) fn selects(&self) -> bool {
        !self.is_empty() || self.batch != 0 || self.up_to_seq > 0 || self.up_to_time.is_some()
    }

    /// The sequence of the message that is wanted; with `next_by_subj` the first that matches.
    pub(super) fn find(&self, store: &Store, id: StreamId) -> Result<Option<u64>, Fault> {
        if !self.last_by_subj.is_empty() {
            return match Filters::parse(&[&self.last_by_subj]) {
                Ok(filters) => store.last_matching(id, &filters, u64::MAX),
                Err(_) => Ok(None),
            };
        }
        let from = match self.start_time {
            Some(time) => store.seq_at_time(id, time.timestamp())?,
            None => self.seq,
        };
        if !self.next_by_subj.is_empty() {
            return match Filters::parse(&[&self.next_by_subj]) {
                Ok(filters) => store.next_matching(id, &filters, from),
                Err(_) => Ok(None),
            };
        }
        if self.start_time.is_some() {
            return Ok(store.first_at_or_after(id, from));
        }
        Ok(Some(from))
    }
}

async fn get(service: &Arc<JetStream>, request: &Request, name: &str) -> Result<Got, Stop> {
    request.check_level()?;
    let asked: GetRequest = json::parse(&request.payload, service.strict())?;
    let many = asked.batch > 0 || asked.max_bytes > 0;
    if asked.is_empty_here() || asked.contradicts_itself() || many {
        return Err(table::BAD_REQUEST.error().into());
    }
    let handle = service
        .stream(&request.account, name)
        .ok_or_else(|| table::STREAM_NOT_FOUND.error())?;
    handle.group().inbox().caught_up(Some(handle.id())).await;
    let found = handle.group().read(|machine| {
        let store = machine.store();
        match asked.find(store, handle.id())? {
            Some(seq) => store.get(handle.id(), seq),
            None => Ok(None),
        }
    });
    match found {
        Ok(Some(message)) => Ok(Got {
            message: show(&message, asked.no_hdr),
        }),
        Ok(None) => match handle.lacks() {
            Some(fault) => Err(handle.unreadable(&fault).into()),
            None => Err(table::NO_MESSAGE_FOUND.error().into()),
        },
        Err(fault) => Err(handle.unreadable(&fault).into()),
    }
}

fn show(message: &Message, no_hdr: bool) -> StoredMessage {
    StoredMessage {
        subject: String::from_utf8_lossy(message.subject()).into_owned(),
        seq: message.seq,
        hdrs: if no_hdr {
            String::new()
        } else {
            base64(message.headers())
        },
        data: base64(message.payload()),
        time: timestamp::format(message.time),
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DeleteRequest {
    seq: u64,
    no_erase: bool,
}

async fn delete(service: &Arc<JetStream>, request: &Request, name: &str) -> Result<Success, Stop> {
    request.check_level()?;
    if json::is_nothing(&request.payload) {
        return Err(table::BAD_REQUEST.error().into());
    }
    let asked: DeleteRequest = json::parse(&request.payload, service.strict())?;
    let handle = service
        .stream(&request.account, name)
        .ok_or_else(|| table::STREAM_NOT_FOUND.error())?;
    let command = MessageDelete {
        seq: asked.seq,
        erase: !asked.no_erase,
    };
    if halyard_runtime::planted("forgotten-delete") {
        return Ok(Success { success: true });
    }
    if let Some(refusal) = handle.refusal() {
        return Err(refusal.into());
    }
    match handle
        .group()
        .propose(Kind::MessageDelete, handle.id(), &command)
        .await
    {
        Some(Reply::Done) => Ok(Success { success: true }),
        Some(Reply::Refused(refusal)) => Err((*refusal).into()),
        Some(Reply::NoStream) => Err(table::STREAM_NOT_FOUND.error().into()),
        _ => Err(Stop::Silence),
    }
}
