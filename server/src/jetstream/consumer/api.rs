//! `CONSUMER.*` requests: from the subject to a command or a look, and to the reply.

use std::sync::Arc;

use halyard_runtime::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::command::{Command, ConsumerId, Seen};
use super::info::{ConsumerInfo, Presence};
use super::leader::Address;
use super::machine::Consumer;
use super::over_store::StoreMessages;
use super::request::{self, CreateRequest, Form};
use super::set::{Consumers, Reply};
use crate::jetstream::api::Request;
use crate::jetstream::api::errors::{ApiError, table};
use crate::jetstream::api::timestamp::Moment;
use crate::jetstream::api::types::{Success, reply};
use crate::jetstream::api::{json, timestamp};
use crate::jetstream::group;
use crate::jetstream::group::command::Kind;
use crate::jetstream::handle::StreamHandle;
use crate::jetstream::limits::{CONSUMERS_PER_STREAM_MAX, NAMES_PAGE};
use crate::jetstream::service::JetStream;

/// Consumers in one page of `CONSUMER.LIST`.
const LIST_PAGE: usize = 256;

/// A refusal, or silence because nobody knows the outcome.
enum Stop {
    Refused(ApiError),
    Silence,
}

impl<E: Into<ApiError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

fn finish<T: Serialize>(kind: &str, outcome: Result<T, Stop>) -> Option<Vec<u8>> {
    match outcome {
        Ok(body) => Some(reply(kind, &Ok::<_, ApiError>(body))),
        Err(Stop::Refused(refusal)) => Some(reply::<()>(kind, &Err(refusal))),
        Err(Stop::Silence) => None,
    }
}

/// The answer; `None` is silence.
pub async fn answer(service: &Arc<JetStream>, request: &Request) -> Option<Vec<u8>> {
    let tokens = request.tokens();
    // A create is read before the level is looked at.
    let verb = match tokens.as_slice() {
        [
            _,
            verb @ ("INFO" | "DELETE" | "PAUSE" | "UNPIN" | "RESET"),
            _,
            _,
        ]
        | [_, verb @ ("NAMES" | "LIST"), _]
        | [_, verb @ "LEADER", "STEPDOWN", _, _] => Some(verb),
        _ => None,
    };
    if let (Err(refusal), Some(verb)) = (request.check_level(), verb) {
        let kind = format!("consumer_{}", verb.to_lowercase());
        return Some(reply::<()>(&kind, &Err(refusal)));
    }
    let asked = Asked { service, request };
    match tokens.as_slice() {
        [_, "CREATE", stream] => {
            finish("consumer_create", asked.create(stream, Form::Unnamed).await)
        }
        [_, "CREATE", stream, name] => {
            let form = Form::Named { name, filter: None };
            finish("consumer_create", asked.create(stream, form).await)
        }
        [_, "CREATE", stream, name, filter @ ..] => {
            let filter = filter.join(".");
            let form = Form::Named {
                name,
                filter: Some(&filter),
            };
            finish("consumer_create", asked.create(stream, form).await)
        }
        [_, "DURABLE", "CREATE", stream, name] => finish(
            "consumer_create",
            asked.create(stream, Form::Durable { name }).await,
        ),
        [_, "INFO", stream, name] => finish("consumer_info", asked.info(stream, name).await),
        [_, "NAMES", stream] => finish("consumer_names", asked.names(stream)),
        [_, "LIST", stream] => finish("consumer_list", asked.list(stream).await),
        [_, "DELETE", stream, name] => finish("consumer_delete", asked.delete(stream, name).await),
        [_, "PAUSE", stream, name] => finish("consumer_pause", asked.pause(stream, name).await),
        [_, "UNPIN", stream, name] => finish("consumer_unpin", asked.unpin(stream, name)),
        [_, "RESET", stream, name] => finish("consumer_reset", asked.reset(stream, name)),
        [_, "LEADER", "STEPDOWN", _, _] => finish::<()>(
            "consumer_leader_stepdown",
            Err(table::CLUSTER_REQUIRED.error().into()),
        ),
        _ => None,
    }
}

/// The body of `CONSUMER.NAMES` and `CONSUMER.LIST` requests.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PageRequest {
    offset: i64,
}

/// The body of a pause request.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PauseRequest {
    pause_until: Option<Moment>,
}

/// The body of an unpin request.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct UnpinRequest {
    group: String,
}

/// The answer to a pause request.
#[derive(Serialize)]
struct Paused {
    paused: bool,
    pause_until: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_remaining: Option<i64>,
}

#[derive(Serialize)]
struct PageOf<T> {
    total: usize,
    offset: usize,
    limit: usize,
    consumers: Vec<T>,
}

fn page<T>(all: Vec<T>, offset: usize, limit: usize) -> PageOf<T> {
    let total = all.len();
    let offset = offset.min(total);
    let consumers = all.into_iter().skip(offset).take(limit).collect();
    PageOf {
        total,
        offset,
        limit,
        consumers,
    }
}

struct Asked<'a> {
    service: &'a Arc<JetStream>,
    request: &'a Request,
}

impl Asked<'_> {
    fn stream(&self, name: &str) -> Result<Arc<StreamHandle>, ApiError> {
        let found = self.service.stream(&self.request.account, name);
        found.ok_or_else(|| table::STREAM_NOT_FOUND.error())
    }

    fn expect_empty(&self) -> Result<(), ApiError> {
        match json::is_nothing(&self.request.payload) {
            true => Ok(()),
            false => Err(table::NOT_EMPTY_REQUEST.error()),
        }
    }

    async fn create(&self, stream: &str, form: Form<'_>) -> Result<ConsumerInfo, Stop> {
        let body: CreateRequest = json::parse(&self.request.payload, self.service.strict())?;
        self.request.check_level()?;
        if body.stream_name != stream {
            return Err(table::STREAM_MISMATCH.error().into());
        }
        let handle = self.stream(stream)?;
        let create = request::prepare(form, body, &handle.config())?;
        check_count(&handle, &create.name)?;
        let (id, start) = loop {
            match propose(&handle, &command(&handle, &create)?).await? {
                Reply::Created { id, start } => break (id, start),
                // Another request for the same name was faster: who listens is to be looked at again.
                Reply::Changed => {}
                _ => return Err(Stop::Silence),
            }
        };
        let found = gather(&handle, &[id]).await?.pop();
        let found = found.ok_or_else(|| table::CONSUMER_NOT_FOUND.error())?;
        Ok(match start {
            Some(start) => found.at_start(start),
            None => found,
        })
    }

    async fn info(&self, stream: &str, name: &str) -> Result<ConsumerInfo, Stop> {
        self.expect_empty()?;
        let handle = self.stream(stream)?;
        let id = find(&handle, name, Consumer::id)?;
        let found = gather(&handle, &[id]).await?.pop();
        found.ok_or_else(|| absent(&handle).into())
    }

    fn offset(&self) -> Result<usize, ApiError> {
        let body: PageRequest = json::parse_optional(&self.request.payload, self.service.strict())?;
        Ok(usize::try_from(body.offset).unwrap_or(0))
    }

    fn names(&self, stream: &str) -> Result<PageOf<String>, Stop> {
        let offset = self.offset()?;
        let handle = self.stream(stream)?;
        let names = all(&handle, |consumers| {
            consumers.names().map(str::to_owned).collect()
        })?;
        Ok(page(names, offset, NAMES_PAGE))
    }

    async fn list(&self, stream: &str) -> Result<PageOf<ConsumerInfo>, Stop> {
        let offset = self.offset()?;
        let handle = self.stream(stream)?;
        let ids = all(&handle, |consumers| {
            let found = consumers.names().filter_map(|name| consumers.find(name));
            found.map(Consumer::id).collect()
        })?;
        let cut = page(ids, offset, LIST_PAGE);
        let consumers = gather(&handle, &cut.consumers).await?.into_iter();
        let consumers = consumers.map(ConsumerInfo::as_listed).collect();
        Ok(PageOf {
            total: cut.total,
            offset: cut.offset,
            limit: cut.limit,
            consumers,
        })
    }

    async fn delete(&self, stream: &str, name: &str) -> Result<Success, Stop> {
        self.expect_empty()?;
        let handle = self.stream(stream)?;
        let id = find(&handle, name, Consumer::id)?;
        propose(&handle, &Command::Delete { id }.to_bytes()).await?;
        Ok(Success { success: true })
    }

    async fn pause(&self, stream: &str, name: &str) -> Result<Paused, Stop> {
        let body: PauseRequest =
            json::parse_optional(&self.request.payload, self.service.strict())?;
        let handle = self.stream(stream)?;
        let id = find(&handle, name, Consumer::id)?;
        // One that is over is kept all the same, and pauses nothing.
        let until = body.pause_until.filter(|asked| !asked.is_zero());
        let until = until.map(Moment::in_utc);
        propose(&handle, &Command::Pause { id, until }.to_bytes()).await?;
        let now = Timestamp::now();
        let remaining = until.map(|until| until.nanos_after(now));
        let remaining = remaining.filter(|nanos| *nanos > 0);
        let paused = remaining.is_some();
        self.service
            .advise_pause(handle.account(), stream, name, paused, until);
        Ok(Paused {
            paused,
            pause_until: until
                .map_or_else(|| timestamp::ZERO.to_owned(), |until| until.to_string()),
            pause_remaining: remaining,
        })
    }

    fn unpin(&self, stream: &str, name: &str) -> Result<(), Stop> {
        let body: UnpinRequest = json::parse_one(&self.request.payload)?;
        if body.group.is_empty() {
            return Err(table::INVALID_JSON
                .with("consumer group not specified")
                .into());
        }
        let handle = self.stream(stream)?;
        find(&handle, name, Consumer::id)?;
        // No consumer here has priority groups: configurations with them are refused.
        Err(table::CONSUMER_INVALID_PRIORITY_GROUP.error().into())
    }

    fn reset(&self, stream: &str, name: &str) -> Result<(), Stop> {
        let handle = self.stream(stream)?;
        find(&handle, name, Consumer::id)?;
        Err(table::CONSUMER_INVALID_RESET
            .with("not supported by this server yet")
            .into())
    }
}

/// The command for a request. The deliver subject of a push consumer stays while somebody listens.
fn command(handle: &StreamHandle, create: &request::Create) -> Result<Vec<u8>, ApiError> {
    if !create.config.is_push() {
        return Ok(create.to_bytes(None));
    }
    let known = find(handle, &create.name, |one| (one.id(), one.config().clone()));
    let Ok((id, old)) = known else {
        return Ok(create.to_bytes(Some(Seen::default())));
    };
    let is_moved = old.is_push() && old.deliver_subject != create.config.deliver_subject;
    let subject = old.deliver_subject.as_bytes();
    if is_moved && handle.account().listens(subject, old.listeners()) {
        return Err(table::CONSUMER_NAME_EXIST.error());
    }
    let seen = Seen {
        id,
        deliver_subject: &old.deliver_subject,
    };
    Ok(create.to_bytes(Some(seen)))
}

/// Whether the stream may have one more consumer, if this is one more. One with a limit of its own has that instead, which the
/// log decides.
fn check_count(handle: &StreamHandle, name: &str) -> Result<(), ApiError> {
    if handle.config().max_consumers > 0 {
        return Ok(());
    }
    let is_full = handle.group().read(|machine| {
        let consumers = machine.stream(handle.id()).map(|stream| stream.consumers());
        consumers
            .is_some_and(|all| all.len() >= CONSUMERS_PER_STREAM_MAX && all.find(name).is_none())
    });
    match is_full {
        true => Err(table::MAXIMUM_CONSUMERS_LIMIT.error()),
        false => Ok(()),
    }
}

/// Something of a consumer, by name.
fn find<T>(
    handle: &StreamHandle,
    name: &str,
    look: impl FnOnce(&Consumer) -> T,
) -> Result<T, ApiError> {
    let found = handle.group().read(|machine| {
        machine
            .stream(handle.id())?
            .consumers()
            .find(name)
            .map(look)
    });
    found.ok_or_else(|| absent(handle))
}

/// Something of all consumers; a stream of which nothing can be read is not one without consumers.
fn all<T>(
    handle: &StreamHandle,
    look: impl FnOnce(&Consumers) -> Vec<T>,
) -> Result<Vec<T>, ApiError> {
    let found = handle
        .group()
        .read(|machine| Some(look(machine.stream(handle.id())?.consumers())));
    match (found, handle.lacks()) {
        (Some(found), _) => Ok(found),
        (None, Some(fault)) => Err(handle.unreadable(&fault)),
        (None, None) => Ok(Vec::new()),
    }
}

/// A consumer is not there; where something of the stream cannot be read it may be in that.
fn absent(handle: &StreamHandle) -> ApiError {
    match handle.lacks() {
        Some(fault) => handle.unreadable(&fault),
        None => table::CONSUMER_NOT_FOUND.error(),
    }
}

async fn propose(handle: &StreamHandle, body: &[u8]) -> Result<Reply, Stop> {
    if let Some(refusal) = handle.refusal() {
        return Err(refusal.into());
    }
    match handle
        .group()
        .propose_encoded(Kind::Consumer, handle.id(), body)
        .await
    {
        Some(group::Reply::Consumer(Reply::Refused(refusal))) => Err(refusal.into()),
        Some(group::Reply::Consumer(reply)) => Ok(reply),
        Some(group::Reply::NoStream) => Err(table::STREAM_NOT_FOUND.error().into()),
        _ => Err(Stop::Silence),
    }
}

/// What the API tells about these consumers; one that is gone is left out.
async fn gather(handle: &StreamHandle, ids: &[ConsumerId]) -> Result<Vec<ConsumerInfo>, ApiError> {
    let stream = handle.id();
    let of = ids
        .iter()
        .map(|id| Address {
            stream,
            consumer: *id,
        })
        .collect();
    let presences = handle.group().intake().presence(of).await;
    if presences.iter().any(|presence| presence.is_behind) {
        // What was sent or answered before this request shows in the answer.
        handle.group().inbox().caught_up(Some(stream)).await;
    }
    let presences = presences
        .into_iter()
        .chain(std::iter::repeat(Presence::default()));
    let now = Timestamp::now();
    let (infos, error) = handle.group().read(|machine| {
        let Some(found) = machine.stream(stream) else {
            return (Vec::new(), None);
        };
        let messages = StoreMessages::new(machine.store(), stream);
        let infos = ids.iter().zip(presences).filter_map(|(id, presence)| {
            let consumer = found.consumers().get(*id)?;
            Some(ConsumerInfo::new(
                handle.name(),
                consumer,
                &presence,
                &messages,
                now,
            ))
        });
        let infos: Vec<ConsumerInfo> = infos.collect();
        (infos, messages.error())
    });
    // A count that cannot be read is not known to be 0.
    match error {
        Some(fault) => Err(handle.unreadable(&fault)),
        None => Ok(infos),
    }
}
