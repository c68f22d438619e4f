//! The meta state and what each command does to it. Total and deterministic.
//!
//! Streams lie as records in a store without messages: `a | account | 0 | stream name` holds an [`Assignment`], `n` the
//! next id. Ids are never used twice, so a group that still holds a dropped stream can never be taken for a new one.

use std::collections::BTreeMap;

use bytes::Bytes;
use halyard_engine::{Job, Store, StreamId};
use halyard_raft::{self as raft, Standing};
use halyard_runtime::contain::contain;
use serde::{Deserialize, Serialize};

use super::command::Command;
use crate::broker::overlap::Overlaps;
use crate::jetstream::api::errors::{ApiError, table};
use crate::jetstream::checkpoint::{checkpoint_at, standing_of};
use crate::jetstream::config::{Defaults, Storage, StreamConfig, check_update};
use crate::jetstream::plain;
use crate::jetstream::stream::machine::Fault;

const NEXT_ID: &[u8] = b"n";
const ASSIGNMENTS: &[u8] = b"a";

/// Where a stream is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Serving, or about to: its group makes it if it does not have it yet.
    Live,
    /// Its group must still drop it.
    Deleting,
    /// Its backup is being read; a start drops it, since whoever sent the backup has gone.
    Restoring,
}

/// What the meta group knows of one stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// Its identity in its group.
    pub id: u64,
    /// Its configuration.
    pub config: StreamConfig,
    /// When it was asked for, nanoseconds since the Unix epoch.
    pub created: i64,
    /// Counts configurations; a group that has an older one is brought up to date.
    pub revision: u64,
    /// Where it is in its life.
    pub phase: Phase,
}

impl Assignment {
    /// Its identity in its group.
    #[must_use]
    pub const fn stream_id(&self) -> StreamId {
        StreamId(self.id)
    }

    /// Which group holds it.
    #[must_use]
    pub const fn storage(&self) -> Storage {
        self.config.storage
    }
}

/// The answer to a command.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The stream is this now.
    Assigned(Box<Assignment>),
    /// Nothing changed, and this is why.
    Refused(ApiError),
    /// Done.
    Done,
    /// Not known: the machine stopped. Answered by silence.
    Unknown,
}

type Streams = BTreeMap<String, Assignment>;

/// One change of the state.
#[derive(Debug)]
enum Step {
    /// The id of the next stream.
    NextId(u64),
    /// A stream of that account is this now.
    Keep(String, Box<Assignment>),
    /// A stream of that account and name is gone.
    Forget(String, String),
}

/// The meta state.
pub struct Machine {
    store: Store,
    accounts: BTreeMap<String, Streams>,
    next_id: u64,
    standing: Standing,
    fault: Option<Fault>,
    /// An entry is being applied: seen from outside, one was not to its end.
    is_applying: bool,
}

/// Why the meta state cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("record {0} of the meta store cannot be read; restore it from a backup")]
pub struct Damaged(String);

impl Machine {
    /// The state as the store's records say.
    ///
    /// # Errors
    /// A record cannot be read; nothing is changed.
    pub fn open(store: Store) -> Result<Self, Damaged> {
        let mut accounts: BTreeMap<String, Streams> = BTreeMap::new();
        for (key, record) in store.records(ASSIGNMENTS) {
            let damaged = || Damaged(key.escape_ascii().to_string());
            let (account, name) = split(key).ok_or_else(damaged)?;
            let assignment = serde_json::from_slice(record).map_err(|_| damaged())?;
            accounts
                .entry(account)
                .or_default()
                .insert(name, assignment);
        }
        let next_id = match store.record(NEXT_ID) {
            Some(record) => record
                .first_chunk::<8>()
                .map(|id| u64::from_le_bytes(*id))
                .ok_or_else(|| Damaged(NEXT_ID.escape_ascii().to_string()))?,
            None => 1,
        };
        let standing = standing_of(&store).map_err(|error| Damaged(error.to_string()))?;
        Ok(Self {
            standing,
            store,
            accounts,
            next_id,
            fault: None,
            is_applying: false,
        })
    }

    /// One stream that is not being deleted.
    #[must_use]
    pub fn stream(&self, account: &str, name: &str) -> Option<&Assignment> {
        let assignment = self.accounts.get(account)?.get(name)?;
        (assignment.phase == Phase::Live).then_some(assignment)
    }

    /// Every stream of an account that is not being deleted, by name.
    pub fn streams(&self, account: &str) -> impl Iterator<Item = &Assignment> {
        let all = self
            .accounts
            .get(account)
            .into_iter()
            .flat_map(BTreeMap::values);
        all.filter(|assignment| assignment.phase == Phase::Live)
    }

    /// Every stream with its account, those being deleted among them.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Assignment)> {
        let accounts = self.accounts.iter();
        accounts
            .flat_map(|(account, streams)| streams.values().map(move |one| (account.as_str(), one)))
    }

    /// The store, for flushes.
    pub const fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Index of the last entry.
    #[must_use]
    pub const fn applied(&self) -> u64 {
        self.standing.at.index
    }

    /// The last entry, and the replicas as of then.
    #[must_use]
    pub const fn standing(&self) -> &Standing {
        &self.standing
    }

    /// A flush of the state of now, all steps in one; `None` if there is nothing to flush or none may begin.
    pub fn begin_flush(&mut self) -> Option<Job> {
        self.store.begin_flush(checkpoint_at(&self.standing))
    }

    /// Why it stopped, if it did.
    #[must_use]
    pub const fn fault(&self) -> Option<&Fault> {
        match self.is_applying {
            true => Some(&Fault::Panicked),
            false => self.fault.as_ref(),
        }
    }

    /// Has these streams and no others, without a change of the store: for a machine that is only read.
    pub fn serve_only(&mut self, streams: impl IntoIterator<Item = (String, Assignment)>) {
        self.accounts.clear();
        for (account, assignment) in streams {
            let streams = self.accounts.entry(account).or_default();
            streams.insert(assignment.config.name.clone(), assignment);
        }
    }

    /// Takes no more commands because of something outside.
    pub fn stop(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// The answer to a command, and what it changes. Only a look: a panic in here has changed nothing.
    fn decide(&self, command: Command) -> (Reply, Vec<Step>) {
        match command {
            Command::Create {
                account,
                config,
                created,
            } => match read_config(&config) {
                Some(config) => self.create(account, config, created, Phase::Live),
                None => refused(unreadable()),
            },
            Command::Restore {
                account,
                config,
                created,
            } => match read_config(&config) {
                Some(config) => self.create(account, config, created, Phase::Restoring),
                None => refused(unreadable()),
            },
            Command::Activate { account, id } => self.activate(account, id),
            Command::Update { account, config } => match read_config(&config) {
                Some(config) => self.update(account, config),
                None => refused(unreadable()),
            },
            Command::Delete { account, name } => self.delete(account, &name),
            Command::Forget { account, id } => self.forget(account, id),
        }
    }

    fn create(
        &self,
        account: String,
        config: StreamConfig,
        created: i64,
        phase: Phase,
    ) -> (Reply, Vec<Step>) {
        if let Some(streams) = self.accounts.get(&account) {
            if let Some(known) = streams.get(&config.name) {
                let same =
                    phase == Phase::Live && known.phase == Phase::Live && known.config == config;
                return match same {
                    true => (Reply::Assigned(Box::new(known.clone())), Vec::new()),
                    false => refused(table::STREAM_NAME_EXIST.error()),
                };
            }
            if overlaps(streams, &config) {
                return refused(table::STREAM_SUBJECT_OVERLAP.error());
            }
        }
        let phase = match phase {
            Phase::Restoring if halyard_runtime::planted("half-restored") => Phase::Live,
            phase => phase,
        };
        let assignment = Assignment {
            id: self.next_id,
            config,
            created,
            revision: 1,
            phase,
        };
        let (reply, mut steps) = assigned(account, assignment);
        steps.insert(0, Step::NextId(self.next_id + 1));
        (reply, steps)
    }

    fn update(&self, account: String, config: StreamConfig) -> (Reply, Vec<Step>) {
        let Some(known) = self.stream(&account, &config.name).cloned() else {
            return refused(table::STREAM_NOT_FOUND.error());
        };
        // The cap of the duplicate window is the server's, checked before; replicas know only what is in the entry.
        if let Err(refusal) = check_update(&known.config, &config, &Defaults::default()) {
            return refused(refusal);
        }
        if self
            .accounts
            .get(&account)
            .is_some_and(|streams| overlaps(streams, &config))
        {
            return refused(table::STREAM_SUBJECT_OVERLAP.error());
        }
        let assignment = Assignment {
            config,
            revision: known.revision + 1,
            ..known
        };
        assigned(account, assignment)
    }

    fn delete(&self, account: String, name: &str) -> (Reply, Vec<Step>) {
        let Some(known) = self.stream(&account, name).cloned() else {
            return refused(table::STREAM_NOT_FOUND.error());
        };
        let assignment = Assignment {
            phase: Phase::Deleting,
            ..known
        };
        assigned(account, assignment)
    }

    fn activate(&self, account: String, id: u64) -> (Reply, Vec<Step>) {
        let streams = self.accounts.get(&account);
        let mut all = streams.into_iter().flat_map(BTreeMap::values);
        let Some(known) = all.find(|one| one.id == id).cloned() else {
            return refused(table::STREAM_NOT_FOUND.error());
        };
        let assignment = match known.phase {
            Phase::Restoring => Assignment {
                phase: Phase::Live,
                ..known
            },
            Phase::Live => return (Reply::Assigned(Box::new(known)), Vec::new()),
            Phase::Deleting => return refused(table::STREAM_NOT_FOUND.error()),
        };
        assigned(account, assignment)
    }

    fn forget(&self, account: String, id: u64) -> (Reply, Vec<Step>) {
        let streams = self.accounts.get(&account);
        let mut all = streams.into_iter().flat_map(BTreeMap::values);
        let found = all.find(|one| one.id == id && one.phase != Phase::Live);
        let name = found.map(|assignment| assignment.config.name.clone());
        let steps = name.map(|name| Step::Forget(account, name));
        (Reply::Done, steps.into_iter().collect())
    }

    /// Makes the changes that were decided.
    fn carry_out(&mut self, steps: Vec<Step>) -> Result<(), Fault> {
        for step in steps {
            match step {
                Step::NextId(id) => {
                    self.next_id = id;
                    self.store.put(NEXT_ID, id.to_le_bytes().to_vec().into())?;
                }
                Step::Keep(account, assignment) => self.keep(&account, *assignment)?,
                Step::Forget(account, name) => {
                    if let Some(streams) = self.accounts.get_mut(&account) {
                        streams.remove(&name);
                    }
                    self.store.remove(&key(&account, &name))?;
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, account: &str, assignment: Assignment) -> Result<(), Fault> {
        let record = plain::json(&assignment);
        let name = assignment.config.name.clone();
        self.store.put(&key(account, &name), record.into())?;
        self.accounts
            .entry(account.to_owned())
            .or_default()
            .insert(name, assignment);
        Ok(())
    }
}

impl raft::Machine for Machine {
    type Reply = Reply;

    fn check(&self, payload: &Bytes) -> Result<(), raft::Unreadable> {
        match Command::decode(payload) {
            Some(_) => Ok(()),
            None => Err(raft::Unreadable(
                "unknown command of the meta group".to_owned(),
            )),
        }
    }

    fn membership(&mut self, membership: &raft::Membership) {
        self.standing.membership = membership.clone();
    }

    fn apply(&mut self, at: raft::LogId, payload: &Bytes) -> Reply {
        if self.fault().is_some() {
            return Reply::Unknown;
        }
        self.is_applying = true;
        let reply = match Command::decode(payload) {
            Some(command) => match contain(|| self.decide(command)) {
                Ok((reply, steps)) => self.carry_out(steps).map(|()| reply),
                Err(panic) => {
                    tracing::error!(
                        "entry {} of the meta log changes nothing: {panic}",
                        at.index
                    );
                    let why = format!("this server cannot decide it, which is a bug: {panic}");
                    Ok(Reply::Refused(table::STREAM_INVALID_CONFIG.with(why)))
                }
            },
            None => {
                tracing::error!(
                    "entry {} of the meta log is not a command of this version",
                    at.index
                );
                Ok(Reply::Unknown)
            }
        };
        self.is_applying = false;
        match reply {
            Ok(reply) => {
                self.standing.at = at;
                reply
            }
            Err(fault) => {
                self.fault = Some(fault);
                Reply::Unknown
            }
        }
    }
}

/// Whether another stream captures what `config` wants to capture. One that is being deleted still does.
fn overlaps(streams: &Streams, config: &StreamConfig) -> bool {
    let mut ours = Overlaps::of(config.subjects.iter().map(String::as_bytes));
    streams
        .values()
        .filter(|other| other.config.name != config.name)
        .flat_map(|other| &other.config.subjects)
        .any(|theirs| ours.first(theirs.as_bytes(), None) != Ok(None))
}

fn read_config(json: &[u8]) -> Option<StreamConfig> {
    serde_json::from_slice(json).ok()
}

fn unreadable() -> ApiError {
    table::STREAM_INVALID_CONFIG.with("configuration of another version")
}

fn refused(why: ApiError) -> (Reply, Vec<Step>) {
    (Reply::Refused(why), Vec::new())
}

fn assigned(account: String, assignment: Assignment) -> (Reply, Vec<Step>) {
    let assignment = Box::new(assignment);
    let keep = Step::Keep(account, assignment.clone());
    (Reply::Assigned(assignment), vec![keep])
}

/// Names of accounts and streams hold no zero byte.
fn key(account: &str, name: &str) -> Vec<u8> {
    [ASSIGNMENTS, account.as_bytes(), &[0], name.as_bytes()].concat()
}

fn split(key: &[u8]) -> Option<(String, String)> {
    let text = str::from_utf8(key.get(ASSIGNMENTS.len()..)?).ok()?;
    let (account, name) = text.split_once('\0')?;
    Some((account.to_owned(), name.to_owned()))
}
