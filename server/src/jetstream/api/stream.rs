//! Requests about whole streams: create, update, delete, purge, info, names, list. Backups are in `jetstream::backup`.

use std::sync::Arc;

use bytes::Bytes;
use halyard_engine::Filter;
use halyard_runtime::task;
use serde::Deserialize;

use super::errors::{ApiError, table};
use super::request::Request;
use super::types::{Created, Info, Purged, StreamInfo, Success, page_of, reply};
use super::{erasure, json};
use crate::broker::subject;
use crate::jetstream::backup;
use crate::jetstream::change::Change;
use crate::jetstream::config::{StreamConfig, check_name, check_pedantic, invalid_name};
use crate::jetstream::group::Reply;
use crate::jetstream::group::command::{Kind, Purge};
use crate::jetstream::handle::StreamHandle;
use crate::jetstream::limits::{
    DELETED_DETAILS_MAX, LIST_PAGE, NAMES_PAGE, SEQUENCE_ASKED_MAX, SUBJECTS_PAGE, SUBJECTS_STEP,
};
use crate::jetstream::service::JetStream;
use crate::jetstream::stream::machine::Fault;

/// A refusal, or silence because nobody knows the outcome.
pub(super) enum Stop {
    Refused(ApiError),
    Silence,
}

impl<E: Into<ApiError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// Turns an outcome into the reply of its type.
pub(super) fn finish<T: serde::Serialize>(kind: &str, outcome: Result<T, Stop>) -> Option<Vec<u8>> {
    match outcome {
        Ok(body) => Some(reply(kind, &Ok::<_, ApiError>(body))),
        Err(Stop::Refused(refusal)) => Some(reply::<()>(kind, &Err(refusal))),
        Err(Stop::Silence) => None,
    }
}

/// `STREAM.<verb>.<name>`.
pub(super) async fn answer(
    service: &Arc<JetStream>,
    request: &Request,
    verb: &str,
    name: &str,
) -> Option<Vec<u8>> {
    if let Err(refusal) = request.check_level() {
        return refuse(&format!("stream_{}", verb.to_lowercase()), refusal);
    }
    match verb {
        "CREATE" => finish("stream_create", create(service, request, name).await),
        "UPDATE" => finish("stream_update", update(service, request, name).await),
        "DELETE" => finish("stream_delete", delete(service, request, name).await),
        "PURGE" => finish("stream_purge", purge(service, request, name).await),
        "INFO" => finish("stream_info", info(service, request, name).await),
        "SNAPSHOT" => backup::snapshot(service, request, name).await,
        "RESTORE" => backup::restore(service, request, name).await,
        "ERASURE" => finish(
            "stream_erasure",
            erasure::answer(service, request, name).await,
        ),
        _ => None,
    }
}

/// `STREAM.PEER.REMOVE.<name>` and others that only a cluster knows.
pub(super) fn absent(
    service: &Arc<JetStream>,
    request: &Request,
    first: &str,
    second: &str,
    name: &str,
) -> Option<Vec<u8>> {
    let kind = match (first, second) {
        ("PEER", "REMOVE") => "stream_remove_peer",
        ("LEADER", "STEPDOWN") => "stream_leader_stepdown",
        _ => return None,
    };
    tracing::debug!(
        "{first}.{second} of {name} by {}: not a cluster ({})",
        request.account,
        service.name()
    );
    refuse(kind, table::CLUSTER_REQUIRED.error())
}

fn refuse(kind: &str, refusal: ApiError) -> Option<Vec<u8>> {
    finish::<()>(kind, Err(Stop::Refused(refusal)))
}

/// The configuration that a request has, and whether it is pedantic.
fn read_config(service: &JetStream, request: &Request) -> Result<(StreamConfig, bool), Stop> {
    let mut body = json::Object::read(&request.payload)?;
    // It forbids that anything of the request is adjusted silently.
    let pedantic: bool = body.take("pedantic")?;
    let config: StreamConfig = body.to(service.strict())?;
    // The wire's number has 32 bits; streams of older versions may have more.
    if i32::try_from(config.max_msg_size).is_err() {
        return Err(table::INVALID_JSON
            .with("json: max_msg_size is too large")
            .into());
    }
    Ok((config, pedantic))
}

fn check_mismatch(config: &StreamConfig, name: &str) -> Result<(), Stop> {
    if config.name != name {
        return Err(table::STREAM_MISMATCH.error().into());
    }
    Ok(())
}

async fn create(service: &Arc<JetStream>, request: &Request, name: &str) -> Result<Created, Stop> {
    let (config, pedantic) = read_config(service, request)?;
    check_mismatch(&config, name)?;
    if pedantic {
        check_pedantic(&config)?;
    }
    let handle = changed(service.create_stream(&request.account, config).await)?;
    let info = service.stream_info(&handle)?;
    Ok(Created {
        info,
        did_create: true,
    })
}

async fn update(service: &Arc<JetStream>, request: &Request, name: &str) -> Result<Created, Stop> {
    let (config, pedantic) = read_config(service, request)?;
    check_name(&config.name).map_err(|_| invalid_name())?;
    // What is wrong with the configuration itself comes before whose it is.
    service.check_update(config.clone())?;
    if pedantic {
        check_pedantic(&config)?;
    }
    check_mismatch(&config, name)?;
    let handle = changed(service.update_stream(&request.account, config).await)?;
    let info = service.stream_info(&handle)?;
    Ok(Created {
        info,
        did_create: false,
    })
}

async fn delete(service: &Arc<JetStream>, request: &Request, name: &str) -> Result<Success, Stop> {
    if !json::is_nothing(&request.payload) {
        return Err(table::NOT_EMPTY_REQUEST.error().into());
    }
    changed(service.delete_stream(&request.account, name).await)?;
    Ok(Success { success: true })
}

fn changed<T>(change: Change<T>) -> Result<T, Stop> {
    match change {
        Change::Done(value) => Ok(value),
        Change::Refused(refusal) => Err(refusal.into()),
        Change::Unknown => Err(Stop::Silence),
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PurgeRequest {
    filter: String,
    seq: u64,
    keep: u64,
}

async fn purge(service: &Arc<JetStream>, request: &Request, name: &str) -> Result<Purged, Stop> {
    let asked: PurgeRequest = json::parse_optional(&request.payload, service.strict())?;
    if (asked.seq > 0 && asked.keep > 0) || asked.seq > SEQUENCE_ASKED_MAX {
        return Err(table::BAD_REQUEST.error().into());
    }
    let handle = service
        .stream(&request.account, name)
        .ok_or_else(|| table::STREAM_NOT_FOUND.error())?;
    // What is no filter matches nothing.
    if !asked.filter.is_empty() && Filter::parse(asked.filter.as_bytes()).is_err() {
        return Ok(Purged {
            success: true,
            purged: 0,
        });
    }
    let command = Purge {
        filter: asked.filter,
        below: asked.seq,
        keep: asked.keep,
    };
    if let Some(refusal) = handle
        .refusal()
        .filter(|_| !command.is_whole() || handle.lacks().is_some())
    {
        return Err(refusal.into());
    }
    if halyard_runtime::planted("purge-answered-early") {
        let group = Arc::clone(handle.group());
        let id = handle.id();
        drop(halyard_runtime::task::spawn(async move {
            halyard_runtime::time::sleep(halyard_runtime::time::Duration::from_millis(50)).await;
            group.propose(Kind::Purge, id, &command).await
        }));
        return Ok(Purged {
            success: true,
            purged: 0,
        });
    }
    match handle
        .group()
        .propose(Kind::Purge, handle.id(), &command)
        .await
    {
        Some(Reply::Removed(purged)) => Ok(Purged {
            success: true,
            purged,
        }),
        Some(Reply::Refused(refusal)) => Err((*refusal).into()),
        Some(Reply::NoStream) => Err(table::STREAM_NOT_FOUND.error().into()),
        _ => Err(Stop::Silence),
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct InfoRequest {
    deleted_details: bool,
    subjects_filter: String,
    offset: i64,
}

async fn info(service: &Arc<JetStream>, request: &Request, name: &str) -> Result<Info, Stop> {
    let asked: InfoRequest = json::parse_optional(&request.payload, service.strict())?;
    let handle = service
        .stream(&request.account, name)
        .ok_or_else(|| table::STREAM_NOT_FOUND.error())?;
    handle.group().inbox().caught_up(Some(handle.id())).await;
    let mut info = service.stream_info(&handle)?;
    info.cluster = Some(service.cluster());
    let mut answer = Info {
        total: 0,
        offset: 0,
        limit: 0,
        info,
    };
    if asked.deleted_details {
        let deleted = handle.group().read(|machine| {
            machine
                .store()
                .deleted(handle.id(), 0..=u64::MAX, DELETED_DETAILS_MAX)
        });
        answer.info.state.deleted = (!deleted.is_empty()).then_some(deleted);
    }
    // What is no filter matches nothing.
    if let Ok(filter) = Filter::parse(asked.subjects_filter.as_bytes()) {
        let offset = u64::try_from(asked.offset).unwrap_or(0);
        let (total, page) = subjects(&handle, &filter, offset)
            .await
            .map_err(|fault| handle.unreadable(&fault))?;
        if total == 0 {
            return Ok(answer);
        }
        answer.total = usize::try_from(total).unwrap_or(usize::MAX);
        answer.offset = usize::try_from(offset).unwrap_or(usize::MAX);
        answer.limit = SUBJECTS_PAGE;
        let text = |subject: &[u8]| String::from_utf8_lossy(subject).into_owned();
        let subjects = page
            .iter()
            .map(|(subject, messages)| (text(subject), *messages))
            .collect();
        answer.info.state.subjects = (!page.is_empty()).then_some(subjects);
    }
    Ok(answer)
}

/// How many subjects match, and the page behind the first `offset`. Read in steps, between which entries are applied: a subject
/// that comes or goes meanwhile may be in the page or not.
async fn subjects(
    handle: &StreamHandle,
    filter: &Filter,
    offset: u64,
) -> Result<(u64, Vec<(Bytes, u64)>), Fault> {
    let (id, group) = (handle.id(), handle.group());
    let (total, mut page) = group.read(|machine| {
        machine
            .store()
            .subject_counts(id, filter, offset, SUBJECTS_STEP)
    })?;
    while page.len() % SUBJECTS_STEP == 0 && page.len() < SUBJECTS_PAGE {
        let Some((last, _)) = page.last() else { break };
        let last = last.clone();
        task::yield_now().await;
        let next = group.read(|machine| {
            machine
                .store()
                .subject_counts_after(id, filter, &last, SUBJECTS_STEP)
        })?;
        if next.is_empty() {
            break;
        }
        page.extend(next);
    }
    Ok((total, page))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ListRequest {
    offset: i64,
    subject: String,
}

/// `STREAM.NAMES` and `STREAM.LIST`.
pub(super) async fn list(
    service: &Arc<JetStream>,
    request: &Request,
    verb: &str,
) -> Option<Vec<u8>> {
    let names = verb == "NAMES";
    let kind = if names { "stream_names" } else { "stream_list" };
    let asked = request
        .check_level()
        .and_then(|()| json::parse_optional::<ListRequest>(&request.payload, service.strict()));
    let asked = match asked {
        Ok(asked) => asked,
        Err(refusal) => return refuse(kind, refusal),
    };
    let offset = usize::try_from(asked.offset).unwrap_or(0);
    let wanted = |config: &StreamConfig| {
        let mut subjects = config.subjects.iter();
        let filter = asked.subject.as_bytes();
        subjects.any(|one| {
            subject::is_valid_filter(filter) && subject::overlaps(one.as_bytes(), filter)
        })
    };
    let handles: Vec<_> = service
        .streams(&request.account)
        .into_iter()
        .filter(|handle| asked.subject.is_empty() || wanted(&handle.config()))
        .collect();
    let total = handles.len();
    if names {
        let here = handles.iter().skip(offset).take(NAMES_PAGE);
        let here: Vec<String> = here.map(|handle| handle.name().to_owned()).collect();
        let here = (!here.is_empty()).then_some(here);
        let answer = page_of(total, offset, NAMES_PAGE, here);
        return finish(kind, Ok(answer));
    }
    service.caught_up().await;
    let (mut infos, mut missing) = (Vec::new(), Vec::new());
    for handle in handles.iter().skip(offset).take(LIST_PAGE) {
        match service.stream_info(handle) {
            Ok(info) => infos.push(StreamInfo::as_listed(info)),
            // It has gone meanwhile.
            Err(error) if error.err_code == table::STREAM_NOT_FOUND.error().err_code => {}
            Err(_) => missing.push(handle.name().to_owned()),
        }
    }
    let mut answer = page_of(total, offset, LIST_PAGE, Some(infos));
    answer.missing = missing;
    finish(kind, Ok(answer))
}
