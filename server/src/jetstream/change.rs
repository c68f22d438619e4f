//! Changes of the set of streams: create, update, delete, and what a start finishes of them.
//!
//! A stream is made in two steps: the meta group gives it an id, its data group makes it. A crash in between leaves a
//! stream that only meta knows; the next start finishes the job. It is deleted in three: meta hides it, the group drops
//! it, meta forgets it. One from a backup is made as `Restoring`, filled by its group, and `Live` at last
//! (`backup::restore` has the steps). What a group holds and meta does not know is never touched: it is reported and left alone.

use std::sync::Arc;

use halyard_engine::StreamId;
use halyard_runtime::time::Timestamp;

use super::advisory::StreamAction;
use super::api::errors::{ApiError, table};
use super::backup::desk::Seat;
use super::config::{
    Storage, StreamConfig, check_create, check_form, check_restore, fill, normalize, seal,
};
use super::consumer::{Command, Consumer};
use super::group::Reply;
use super::group::command::{Kind, StreamCreate, StreamUpdate};
use super::handle::{GroupHandle, StreamHandle};
use super::meta::{self, Assignment};
use super::service::JetStream;
use super::start::StartError;
use super::stream::Stream;
use crate::jetstream::plain;

/// What became of a change.
#[derive(Debug)]
pub enum Change<T> {
    /// It is in force.
    Done(T),
    /// Nothing changed, and this is why.
    Refused(ApiError),
    /// Nobody knows: the server is stopping or has failed.
    Unknown,
}

impl JetStream {
    /// Brings the groups to what meta says.
    pub(super) async fn reconcile(self: &Arc<Self>) -> Result<(), StartError> {
        let all: Vec<(String, Assignment)> = {
            let machine = self.meta.machine().lock();
            machine
                .all()
                .map(|(account, one)| (account.to_owned(), one.clone()))
                .collect()
        };
        let known: Vec<StreamId> = all.iter().map(|(_, one)| one.stream_id()).collect();
        for group in [&self.file, &self.memory] {
            let strangers: Vec<u64> = group.read(|machine| {
                machine
                    .streams()
                    .map(super::stream::Stream::id)
                    .filter(|id| !known.contains(id))
                    .map(|id| id.0)
                    .collect()
            });
            if !strangers.is_empty() {
                tracing::error!(
                    "the {} group holds streams that are not known, left untouched: ids {strangers:?}",
                    group.name()
                );
            }
        }
        for storage in [Storage::File, Storage::Memory] {
            self.enforce(storage).await.ok_or(StartError::Stopped)?;
        }
        for (account, assignment) in all {
            let lost = assignment.storage() == Storage::Memory;
            let name = assignment.config.name.clone();
            let group = self.group(assignment.storage()).clone();
            let done = if lost || assignment.phase != meta::Phase::Live {
                self.finish_delete(&account, &assignment).await
            } else {
                self.adopt(&account, assignment).await.map(drop)
            };
            if done.is_none() {
                let has_stopped = group.failed() || group.read(|machine| machine.fault().is_some());
                if has_stopped || self.meta.machine().lock().fault().is_some() {
                    return Err(StartError::Stopped);
                }
                // The others are served; the next start tries it again.
                tracing::error!(
                    "stream {name} of account {account} could not be brought up to date"
                );
            }
        }
        for group in [&self.file, &self.memory] {
            forget_volatile(group).await;
            group.intake().caught_up().await;
        }
        Ok(())
    }

    /// Serves what meta and the groups hold as it is: nothing is finished, as nothing may be written.
    pub(super) fn adopt_for_reading(self: &Arc<Self>) {
        let all: Vec<(String, Assignment)> = {
            let machine = self.meta.machine().lock();
            let all = machine
                .all()
                .filter(|(_, one)| one.phase == meta::Phase::Live);
            all.map(|(account, one)| (account.to_owned(), one.clone()))
                .collect()
        };
        for (account, assignment) in all {
            // A memory stream died with the last process.
            if assignment.storage() == Storage::File {
                self.serve(&account, assignment);
            }
        }
    }

    /// Serves a stream that meta knows, after its group has caught up with meta.
    async fn adopt(
        self: &Arc<Self>,
        account: &str,
        assignment: Assignment,
    ) -> Option<Arc<StreamHandle>> {
        let id = assignment.stream_id();
        let group = self.group(assignment.storage()).clone();
        let held = group.read(|machine| machine.stream(id).map(|stream| stream.config().clone()));
        match held {
            None => {
                let create = StreamCreate {
                    config: assignment.config.clone(),
                    created: assignment.created,
                };
                done(group.propose(Kind::StreamCreate, id, &create).await)?;
            }
            Some(held) if held != assignment.config => {
                let update = StreamUpdate {
                    config: assignment.config.clone(),
                };
                done(group.propose(Kind::StreamUpdate, id, &update).await)?;
            }
            Some(_) => {}
        }
        Some(self.serve(account, assignment))
    }

    /// Lets a stream of its group be reached.
    fn serve(self: &Arc<Self>, account: &str, assignment: Assignment) -> Arc<StreamHandle> {
        let id = assignment.stream_id();
        let group = self.group(assignment.storage()).clone();
        let tenant = self.broker.account_or_create(account);
        let domain = self.settings.domain.as_deref();
        let handle =
            StreamHandle::new(id, tenant, group.clone(), assignment.config.clone(), domain);
        group.add(&handle);
        let name = assignment.config.name.clone();
        self.streams
            .write()
            .entry(account.to_owned())
            .or_default()
            .insert(name, handle.clone());
        handle.listen(assignment.config);
        group.wake();
        handle
    }

    /// The steps of a delete that come after meta has hidden the stream (or, of a memory stream that died with the last
    /// process, all of them).
    async fn finish_delete(&self, account: &str, assignment: &Assignment) -> Option<()> {
        if assignment.phase == meta::Phase::Live {
            let (account, name) = (account.to_owned(), assignment.config.name.clone());
            self.propose_meta(&meta::Command::Delete { account, name })
                .await?;
        }
        let group = self.group(assignment.storage());
        match group
            .propose_encoded(
                Kind::StreamDelete,
                assignment.stream_id(),
                account.as_bytes(),
            )
            .await?
        {
            Reply::Done | Reply::NoStream => {}
            _ => return None,
        }
        let forget = meta::Command::Forget {
            account: account.to_owned(),
            id: assignment.id,
        };
        self.propose_meta(&forget).await.map(|_| ())
    }

    async fn propose_meta(&self, command: &meta::Command) -> Option<meta::Reply> {
        match self.meta.propose_urgent(command.encode()).await {
            Ok(meta::Reply::Unknown) => None,
            Ok(reply) => Some(reply),
            Err(error) => {
                tracing::warn!("a change of the set of streams was not answered: {error}");
                None
            }
        }
    }

    /// Makes a stream; one that is there with the same configuration will do.
    pub async fn create_stream(
        self: &Arc<Self>,
        account: &str,
        config: StreamConfig,
    ) -> Change<Arc<StreamHandle>> {
        if let Some(refusal) = self.refusal() {
            return Change::Refused(refusal);
        }
        let defaults = self.defaults();
        let config = normalize(config, &defaults);
        if let Err(refusal) = check_create(&config, &defaults) {
            return Change::Refused(refusal);
        }
        let one_at_a_time = self.changing.lock().await;
        if let Some(refusal) = self.check_reservation(account, &config) {
            return Change::Refused(refusal);
        }
        let command = meta::Command::Create {
            account: account.to_owned(),
            config: plain::json(&config),
            created: Timestamp::now().as_nanos(),
        };
        let assigned = match self.propose_meta(&command).await {
            Some(meta::Reply::Assigned(assignment)) => assignment,
            Some(meta::Reply::Refused(refusal)) => return Change::Refused(refusal),
            _ => return Change::Unknown,
        };
        if let Some(handle) = self.stream(account, &config.name) {
            return Change::Done(handle);
        }
        let handle = self.adopt(account, *assigned).await;
        drop(one_at_a_time);
        let Some(handle) = handle else {
            return Change::Unknown;
        };
        self.advise_stream(handle.account(), handle.name(), StreamAction::Create);
        Change::Done(handle)
    }

    /// Takes a name for a stream of a backup, and makes the stream that nobody sees yet.
    pub(super) async fn begin_restore(
        self: &Arc<Self>,
        account: &str,
        config: StreamConfig,
        seat: &mut Seat,
    ) -> Change<Assignment> {
        if let Some(refusal) = self.refusal() {
            return Change::Refused(refusal);
        }
        let defaults = self.defaults();
        let config = normalize(config, &defaults);
        if let Err(refusal) = check_restore(&config, &defaults) {
            return Change::Refused(refusal);
        }
        let one_at_a_time = self.changing.lock().await;
        if let Some(refusal) = self.check_reservation(account, &config) {
            return Change::Refused(refusal);
        }
        let command = meta::Command::Restore {
            account: account.to_owned(),
            config: plain::json(&config),
            created: Timestamp::now().as_nanos(),
        };
        let assignment = match self.propose_meta(&command).await {
            Some(meta::Reply::Assigned(assignment)) => *assignment,
            Some(meta::Reply::Refused(refusal)) => {
                let taken = refusal.err_code == table::STREAM_NAME_EXIST.err_code;
                return Change::Refused(if taken {
                    table::STREAM_NAME_EXIST_RESTORE_FAILED.error()
                } else {
                    refusal
                });
            }
            _ => return Change::Unknown,
        };
        let create = StreamCreate {
            config: assignment.config.clone(),
            created: assignment.created,
        };
        let group = self.group(assignment.storage());
        let made = group.propose(Kind::StreamCreate, assignment.stream_id(), &create);
        if done(made.await).is_none() {
            return Change::Unknown;
        }
        if let Some(bytes) = StreamConfig::limit(config.max_bytes) {
            seat.reserve(config.storage, bytes);
        }
        drop(one_at_a_time);
        Change::Done(assignment)
    }

    /// A backup has been read: its stream is one like any other from here on, and its consumers can be reached.
    pub(super) async fn finish_restore(
        self: &Arc<Self>,
        account: &str,
        assignment: &Assignment,
        seat: &mut Seat,
    ) -> Change<Arc<StreamHandle>> {
        let one_at_a_time = self.changing.lock().await;
        let command = meta::Command::Activate {
            account: account.to_owned(),
            id: assignment.id,
        };
        let assigned = match self.propose_meta(&command).await {
            Some(meta::Reply::Assigned(assignment)) => *assignment,
            Some(meta::Reply::Refused(refusal)) => return Change::Refused(refusal),
            _ => return Change::Unknown,
        };
        let handle = self.adopt(account, assigned).await;
        // The stream has it from here on.
        seat.release();
        drop(one_at_a_time);
        let Some(handle) = handle else {
            return Change::Unknown;
        };
        handle.group().intake().caught_up().await;
        Change::Done(handle)
    }

    /// A backup could not be read to its end: nothing of it stays. What fails here is done by the next start.
    pub(super) async fn abandon_restore(&self, account: &str, assignment: &Assignment) {
        let one_at_a_time = self.changing.lock().await;
        if self.finish_delete(account, assignment).await.is_none() {
            let name = &assignment.config.name;
            tracing::warn!("what was restored of stream {name} is dropped by the next start");
        }
        drop(one_at_a_time);
    }

    /// Fills in what an update left out, and looks at what does not hang on a stream. What is sealed by it is looked at as it
    /// was asked for.
    ///
    /// # Errors
    /// The refusal that the client gets.
    pub fn check_update(&self, config: StreamConfig) -> Result<StreamConfig, ApiError> {
        let defaults = self.defaults();
        let config = fill(config, &defaults);
        check_form(&config, &defaults)?;
        Ok(seal(config))
    }

    /// Changes a stream's configuration.
    pub async fn update_stream(
        self: &Arc<Self>,
        account: &str,
        config: StreamConfig,
    ) -> Change<Arc<StreamHandle>> {
        if let Some(refusal) = self.refusal() {
            return Change::Refused(refusal);
        }
        let config = match self.check_update(config) {
            Ok(config) => config,
            Err(refusal) => return Change::Refused(refusal),
        };
        let one_at_a_time = self.changing.lock().await;
        let Some(handle) = self.stream(account, &config.name) else {
            return Change::Refused(table::STREAM_NOT_FOUND.error());
        };
        if let Some(refusal) = self.check_reservation(account, &config) {
            return Change::Refused(refusal);
        }
        if let Some(refusal) = check_consumers(&handle, &config) {
            return Change::Refused(refusal);
        }
        let command = meta::Command::Update {
            account: account.to_owned(),
            config: plain::json(&config),
        };
        let assigned = match self.propose_meta(&command).await {
            Some(meta::Reply::Assigned(assignment)) => assignment,
            Some(meta::Reply::Refused(refusal)) => return Change::Refused(refusal),
            _ => return Change::Unknown,
        };
        let update = StreamUpdate {
            config: assigned.config.clone(),
        };
        if done(
            handle
                .group()
                .propose(Kind::StreamUpdate, handle.id(), &update)
                .await,
        )
        .is_none()
        {
            return Change::Unknown;
        }
        handle.listen(assigned.config);
        drop(one_at_a_time);
        self.advise_stream(handle.account(), handle.name(), StreamAction::Modify);
        Change::Done(handle)
    }

    /// Deletes a stream and its messages.
    pub async fn delete_stream(&self, account: &str, name: &str) -> Change<()> {
        if let Some(refusal) = self.refusal() {
            return Change::Refused(refusal);
        }
        let one_at_a_time = self.changing.lock().await;
        let command = meta::Command::Delete {
            account: account.to_owned(),
            name: name.to_owned(),
        };
        let assigned = match self.propose_meta(&command).await {
            Some(meta::Reply::Assigned(assignment)) => assignment,
            Some(meta::Reply::Refused(refusal)) => return Change::Refused(refusal),
            _ => return Change::Unknown,
        };
        let handle = self
            .streams
            .write()
            .get_mut(account)
            .and_then(|names| names.remove(name));
        if let Some(handle) = &handle {
            handle.close();
        }
        let finished = self.finish_delete(account, &assigned).await;
        if let Some(handle) = &handle {
            handle.group().remove(handle.id());
            handle.group().wake();
        }
        drop(one_at_a_time);
        if let Some(handle) = handle.filter(|_| finished.is_some()) {
            self.advise_stream(handle.account(), handle.name(), StreamAction::Delete);
        }
        finished.map_or(Change::Unknown, Change::Done)
    }

    /// Whether the server has room for what a stream may grow to.
    fn check_reservation(&self, account: &str, config: &StreamConfig) -> Option<ApiError> {
        let limit = self.limit(config.storage)?;
        let own = self.stream(account, &config.name);
        let usage = self.usage(account);
        let (reserved, refusal) = match config.storage {
            Storage::File => (usage.reserved_storage, table::STORAGE_RESOURCES_EXCEEDED),
            Storage::Memory => (usage.reserved_memory, table::MEMORY_RESOURCES_EXCEEDED),
        };
        if limit == 0 && own.is_none() {
            // No such streams here at all.
            return Some(refusal.error());
        }
        let asked = StreamConfig::limit(config.max_bytes)?;
        let own = own
            .and_then(|handle| StreamConfig::limit(handle.config().max_bytes))
            .unwrap_or(0);
        let reserved = reserved + self.desk().reserved(config.storage);
        let wanted = (reserved - own.min(reserved)).saturating_add(asked);
        (wanted > limit).then(|| refusal.error())
    }
}

/// Whether the consumers that there are keep the limits of a new configuration.
fn check_consumers(handle: &StreamHandle, config: &StreamConfig) -> Option<ApiError> {
    let limits = config.consumer_limits;
    let exceeds = |value: i64, limit: i64| limit > 0 && value > limit;
    let mut beyond: Vec<String> = handle.group().read(|machine| {
        let stream = machine.stream(handle.id());
        let consumers = stream.map(|stream| stream.consumers().iter());
        let consumers = consumers.into_iter().flatten().map(Consumer::config);
        consumers
            .filter(|one| {
                exceeds(one.max_ack_pending, limits.max_ack_pending)
                    || exceeds(one.inactive_threshold, limits.inactive_threshold)
            })
            .map(|one| one.name.clone())
            .collect()
    });
    beyond.sort_unstable();
    let names = beyond.join(", ");
    (!beyond.is_empty())
        .then(|| table::STREAM_UPDATE.with(format!("change to limits violates consumers: {names}")))
}

/// `None`: nobody knows.
fn done(reply: Option<Reply>) -> Option<()> {
    match reply? {
        Reply::Done => Some(()),
        other => {
            tracing::error!("a change of a stream was answered {other:?}");
            None
        }
    }
}

/// Consumers that were to be kept in memory have ended with the process that had them, also where their stream is on disk:
/// who used them makes them anew. A server alone has no other replica that could still hold them.
async fn forget_volatile(group: &GroupHandle) {
    let gone: Vec<(StreamId, Vec<u8>)> = group.read(|machine| {
        let of = |stream: &Stream| {
            let consumers = stream.consumers().iter();
            let gone = consumers.filter(|one| one.config().mem_storage);
            gone.map(|one| (stream.id(), Command::Delete { id: one.id() }.to_bytes()))
                .collect::<Vec<_>>()
        };
        machine.streams().flat_map(of).collect()
    });
    let deletes = gone
        .iter()
        .map(|(stream, body)| group.propose_encoded(Kind::Consumer, *stream, body));
    futures::future::join_all(deletes).await;
}
