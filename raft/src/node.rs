//! A node: its log on disk and its groups.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use halyard_format::Encryption;
use halyard_runtime::disk::{DirLock, Disk};
use halyard_runtime::{task, watch};
use openraft::async_runtime::WatchReceiver as _;
use openraft::{Config, SnapshotPolicy};
use parking_lot::Mutex;

use crate::apply::{Adapter, Applying, Driven, Progress, Raft, Seat, WaitList};
use crate::cipher::Sealing;
use crate::error::Error;
use crate::group::{Core, Group, Leadership};
use crate::identity::Identity;
use crate::ids::{GroupId, LogId, NodeId};
use crate::log_store::LogStore;
use crate::machine::Machine;
use crate::members::Peer;
use crate::message::{Reply, Request};
use crate::metrics::LogMetrics;
use crate::standing::Standing;
use crate::transport::{Network, NoPeers, Transport};
use crate::types::Types;
use crate::wal::image::{self, GroupLog, GroupState, plain_draft};
use crate::wal::record::Kind;
use crate::wal::scrub::{LogDamage, LogScrub};
use crate::wal::segment::Owner;
use crate::wal::writer::Layout;
use crate::wal::{Done, Item, Wal, keeper, recovery, scrub, writer};

/// What a node needs to open its log.
#[derive(Clone)]
pub struct NodeOptions {
    /// Where the log lives.
    pub disk: Arc<dyn Disk>,
    /// The node's directory; the log is in `log` below it. Made when missing.
    pub dir: PathBuf,
    /// This node; `None` for the name that the directory keeps, drawn at the first start (see [`Identity`]). A log remembers
    /// whose it is.
    pub node_id: Option<NodeId>,
    /// Bytes of a segment file of the log, once it has grown to that. One or two are allocated ahead of use.
    pub segment_bytes: u64,
    /// Bytes of the very first segment, which is allocated while the node opens, and of the shortest ones.
    pub first_segment_bytes: u64,
    /// Seals the log's records, where the store is encrypted.
    pub encryption: Option<Encryption>,
    /// How groups reach their other replicas.
    pub transport: Arc<dyn Transport>,
}

impl NodeOptions {
    /// The usual options: segments of up to 32 MiB, no encryption, no other nodes.
    pub fn new(
        disk: Arc<dyn Disk>,
        dir: impl Into<PathBuf>,
        node_id: impl Into<Option<NodeId>>,
    ) -> Self {
        Self {
            disk,
            dir: dir.into(),
            node_id: node_id.into(),
            segment_bytes: 32 << 20,
            first_segment_bytes: 128 << 10,
            encryption: None,
            transport: Arc::new(NoPeers),
        }
    }

    /// The same for a log on a disk in memory, where nothing is gained by allocating ahead: segments of 1 MiB.
    #[must_use]
    pub fn in_memory(self) -> Self {
        Self {
            segment_bytes: 1 << 20,
            first_segment_bytes: 64 << 10,
            ..self
        }
    }
}

/// A node's log and its groups. Dropping it without [`Node::shutdown`] stops it as a crash would.
pub struct Node {
    wal: Arc<Wal>,
    id: NodeId,
    identity: Identity,
    transport: Arc<dyn Transport>,
    /// Logs of groups that were found on disk and not started yet.
    found: Mutex<BTreeMap<GroupId, GroupState>>,
    groups: Mutex<BTreeMap<GroupId, Arc<Core>>>,
    threads: Mutex<Vec<task::JoinHandle<()>>>,
    report: OpenReport,
    _lock: DirLock,
}

/// A place in a node's log: it only grows. See [`Node::retire_log`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition(u64);

/// What opening a node found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Groups with a log.
    pub groups: usize,
    /// Bytes of log that were read.
    pub log_bytes: u64,
    /// Bytes of a batch that a crash had cut short; nothing in it was ever acknowledged.
    pub cut_bytes: u64,
    /// Segment files in use.
    pub segments: usize,
    /// What was not as it was written, and is again: flipped bits and spare files that were gone. For people.
    pub mended: Vec<String>,
    /// Some of the log is plain or sealed otherwise than now, and is being let go: see [`Node::reseal_pending`].
    pub is_resealing: bool,
}

impl Node {
    /// Opens the node's log and reads it to its end; makes a new one where there is none.
    ///
    /// Must be called on a runtime. Blocks for as long as reading the log takes: the part that no store holds yet.
    ///
    /// # Errors
    /// Each names the path and the way out, and leaves everything as it was: [`Error::Full`], [`Error::Unwritable`],
    /// [`Error::InUse`], [`Error::NewerVersion`], [`Error::ForeignNode`], [`Error::Corrupt`], [`Error::WrongKey`],
    /// [`Error::Io`].
    pub fn open(options: NodeOptions) -> Result<Self, Error> {
        let NodeOptions {
            disk,
            dir,
            node_id,
            segment_bytes,
            first_segment_bytes,
            encryption,
            transport,
        } = options;
        let log_dir = dir.join("log");
        let fail = |action, source| Error::io(action, &log_dir, source);
        disk.create_dir_all_durably(&log_dir)
            .map_err(|source| fail("making the log directory", source))?;
        let lock = disk
            .lock(&dir.join("LOCK"))
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::WouldBlock => Error::InUse { path: dir.clone() },
                _ => Error::io("locking the store", &dir, source),
            })?;
        let layout = Layout {
            segment_bytes,
            first_segment_bytes,
            // With nonces that no earlier opening has used.
            cipher: encryption.as_ref().map(Sealing::new).map(Arc::new),
        };
        let known = match node_id {
            Some(node) => Err(node),
            None => Ok(Identity::settle(&disk, &dir)?),
        };
        let owner = match &known {
            Err(node) => Owner::from(*node),
            Ok(identity) => Owner {
                node: Some(identity.node),
                former: identity.former.clone(),
            },
        };
        let mut recovered = recovery::open(&disk, &log_dir, &owner, &layout)?;
        let (log, boots) = (recovered.log, recovered.boots);
        let identity = match known {
            Ok(identity) => identity.opened(&disk, &dir, log, boots)?,
            Err(node) => Identity {
                node,
                log,
                boots,
                former: Vec::new(),
            },
        };
        for state in recovered.groups.values_mut() {
            state.rename(&identity.former, identity.node);
        }
        let reseal =
            layout.cipher.is_some() && keeper::note_reseal(&disk, &log_dir, recovered.is_foreign)?;
        let synced = recovered.tail.position();
        let report = OpenReport {
            groups: recovered.groups.len(),
            log_bytes: recovered.segments.bytes(),
            cut_bytes: recovered.cut_bytes,
            segments: recovered.segments.used.len(),
            mended: recovered.mended,
            is_resealing: reseal,
        };
        let wal = Arc::new(Wal::new(
            disk,
            log_dir.clone(),
            recovered.log,
            identity.node,
            layout,
            recovered.segments,
            (synced, boots),
        ));
        // Records of a new form do not go into a file that says it has none, and a new name stands in a header as soon as it
        // is used: a lost note is made anew from that.
        let is_renamed = recovered.last_node != identity.node;
        wal.roll
            .store(recovered.is_outdated || is_renamed, Ordering::Release);
        if reseal {
            keeper::begin_reseal(&wal);
        }
        let write = writer::run(Arc::clone(&wal), recovered.tail);
        let write = spawn_watched(&wal, "halyard-log", write);
        let keep = spawn_watched(&wal, "halyard-log-keep", keeper::run(Arc::clone(&wal)));
        let threads = [write, keep].into_iter().collect::<Result<Vec<_>, _>>();
        let threads =
            threads.map_err(|source| Error::io("starting the log's threads", &log_dir, source))?;
        Ok(Self {
            wal,
            id: identity.node,
            identity: Identity {
                boots: boots + 1,
                ..identity
            },
            transport,
            found: Mutex::new(
                recovered
                    .groups
                    .into_iter()
                    .map(|(id, state)| (GroupId(id), state))
                    .collect(),
            ),
            groups: Mutex::default(),
            threads: Mutex::new(threads),
            report,
            _lock: lock,
        })
    }

    /// The log, for what is written to it beside the groups.
    pub(crate) fn wal(&self) -> &Wal {
        &self.wal
    }

    /// Who this node is, with how often its log was opened, this time included.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What opening found.
    pub fn report(&self) -> &OpenReport {
        &self.report
    }

    /// The groups that have a log on this node and were not started yet.
    pub fn found_groups(&self) -> Vec<GroupId> {
        self.found.lock().keys().copied().collect()
    }

    /// Starts a group on this node: its log is replayed into `machine`. A group without a log is made, with this node as its
    /// only voter. Where it is that, it leads and has applied its log before this resolves; where the group has grown since,
    /// see [`Node::start_replica`].
    ///
    /// `durable` is where the machine's own store stands (0 for nowhere yet).
    ///
    /// # Errors
    /// [`Error::Mismatch`] when the log does not go on where the machine stands, [`Error::Unreadable`] when an entry is not of
    /// this release, [`Error::Group`] when the group runs already or consensus fails, [`Error::Poisoned`].
    pub async fn start_group<M: Machine>(
        &self,
        id: GroupId,
        machine: Arc<Mutex<M>>,
        durable: impl Into<Standing>,
    ) -> Result<Group<M>, Error> {
        let founders = BTreeMap::from([(self.id, Peer::default())]);
        self.start_replica(id, machine, durable, &founders).await
    }

    /// Starts one replica of a group of several nodes. The group takes proposals once its voters have elected a leader;
    /// this resolves before, as soon as the replica runs.
    ///
    /// `founders` are the first voters of a group that is new; the same on each of them. Empty for a node that joins
    /// later: it waits until the leader adds it ([`Group::add_learner`]). Ignored when there is a log.
    ///
    /// # Errors
    /// As [`Node::start_group`].
    pub async fn start_replica<M: Machine>(
        &self,
        id: GroupId,
        machine: Arc<Mutex<M>>,
        durable: impl Into<Standing>,
        founders: &BTreeMap<NodeId, Peer>,
    ) -> Result<Group<M>, Error> {
        let waiters = Arc::new(WaitList::default());
        let seat = Arc::new(Seat { machine, waiters });
        let driven = Arc::<Seat<M>>::clone(&seat);
        let core = self
            .start_core(id, driven, &durable.into(), founders)
            .await?;
        Ok(Group::new(core, seat))
    }

    async fn start_core(
        &self,
        id: GroupId,
        seat: Arc<dyn Driven>,
        durable: &Standing,
        founders: &BTreeMap<NodeId, Peer>,
    ) -> Result<Arc<Core>, Error> {
        if self.groups.lock().contains_key(&id) {
            return Err(Error::Group {
                group: id,
                reason: "it has been started before".to_owned(),
            });
        }
        let state = self.found.lock().remove(&id).unwrap_or_default();
        let is_new = state.vote.is_none() && state.last().is_none();
        let log = Arc::new(GroupLog {
            id,
            state: Mutex::new(state),
        });
        let progress = match self.stand(&log, durable).await {
            Ok(progress) => progress,
            Err(error) => {
                let state = std::mem::take(&mut *log.state.lock());
                self.found.lock().insert(id, state);
                return Err(error);
            }
        };
        let is_alone = match is_new {
            true => founders.keys().eq([&self.id]),
            false => {
                let members = log.state.lock().members_at(u64::MAX).members;
                members.is_alone(self.id)
            }
        };
        self.wal.logs.lock().insert(id.0, Arc::clone(&log));
        // It may have to write a checkpoint of this group, for the oldest segment to go.
        self.wal.upkeep.notify_one();
        if progress.applied.is_some() {
            seat.membership(&progress.members, &|| {});
        }
        let applying = Arc::new(Applying {
            seat,
            log: Arc::clone(&log),
            progress: Mutex::new(progress),
            path: self.wal.dir.clone(),
            poison: watch::channel(None).0,
            halted: OnceLock::new(),
        });
        let network = Network {
            transport: Arc::clone(&self.transport),
            group: id,
        };
        let store = LogStore {
            wal: Arc::clone(&self.wal),
            log,
        };
        let config = Arc::new(config(id, is_alone));
        let adapter = Adapter(Arc::clone(&applying));
        let raft = openraft::Raft::new(self.id.0, config, network, store, adapter);
        let failed = |error: &dyn std::fmt::Display| self.failed(&applying, error);
        let raft = raft.await.map_err(|error| failed(&error))?;
        if is_new && founders.keys().next() == Some(&self.id) {
            // One of them is enough, and then there is no race.
            let members: BTreeMap<u64, Peer> = founders
                .iter()
                .map(|(node, peer)| (node.0, peer.clone()))
                .collect();
            let founded = raft.initialize(members).await;
            founded.map_err(|error| failed(&error))?;
        } else if is_alone {
            // What a timer would do only after a while.
            let elected = raft.trigger().elect(false).await;
            elected.map_err(|error| failed(&error))?;
        }
        if is_alone {
            self.lead(&applying, &raft).await?;
        }
        applying.progress.lock().started = true;
        let refused = applying.seat.refused();
        let leads = watch_leadership(&raft, self.id, Arc::clone(&self.wal));
        let core = Core::new((id, self.id), raft, Arc::clone(&self.wal), applying, leads);
        let weak = Arc::downgrade(&core);
        drop(task::spawn(Core::renew_lease(weak.clone(), refused)));
        drop(task::spawn(Core::follow_members(weak)));
        self.groups.lock().insert(id, Arc::clone(&core));
        Ok(core)
    }

    /// Where a machine stands whose store holds what `durable` says, and that its log goes on there.
    ///
    /// A store may be ahead of its log where it has taken another replica's snapshot: the process has ended before the log
    /// was shortened. Then the log starts anew after it. Not where this node is the only voter, which gets no snapshots, and
    /// not without a vote: that is a log that was lost or is an older copy.
    async fn stand(&self, log: &Arc<GroupLog>, durable: &Standing) -> Result<Progress, Error> {
        let mut durable = durable.clone();
        let members = &mut durable.membership.members;
        members.rename(&self.identity.former, self.id);
        let applied = durable.at.index;
        let restart = {
            let mut state = log.state.lock();
            let last = state.last().map_or(0, |id| id.index);
            if applied == 0 && state.purged.is_none() {
                return Ok(Progress::default());
            }
            let is_same = |id: &LogId| !durable.is_known() || *id == durable.at;
            // What went from the log since may have been entries without a payload, which no store keeps count of.
            let purged = state
                .purged
                .filter(|id| applied < id.index && state.payload_end <= applied + 1);
            if let Some(id) = purged.or_else(|| state.id_at(applied).filter(is_same)) {
                return Ok(Progress::at(id, state.members_at(id.index)));
            }
            let first = state.start();
            let members = &durable.membership.members;
            let has_others = !members.configs.is_empty() && !members.is_alone(self.id);
            let is_ahead = durable.is_known() && has_others && state.vote.is_some();
            if !is_ahead || applied < first {
                return Err(Error::Mismatch {
                    path: self.wal.dir.clone(),
                    group: log.id,
                    applied,
                    first,
                    last,
                });
            }
            let (sender, written) = tokio::sync::oneshot::channel();
            let void = image::truncate_draft(log.id, first);
            state.restart_at(&durable);
            let (checkpoint, start) = (state.checkpoint(log.id), state.start());
            let item = |draft, index, done| Item {
                draft,
                of: Some((Arc::clone(log), Some(index))),
                done,
            };
            self.wal.submit([
                item(void, first, Done::Nobody),
                item(checkpoint, start, Done::Waiter(sender)),
            ]);
            written
        };
        match restart.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error.as_ref().clone()),
            Err(_) => return Err(Error::Stopped),
        }
        tracing::warn!(
            "the log of group {} was behind its store, which has taken a snapshot: it goes on after entry {applied}",
            log.id
        );
        Ok(Progress::at(durable.last(), durable.membership.clone()))
    }

    /// Waits until this node leads and has applied its whole log.
    async fn lead(&self, applying: &Applying, raft: &Raft) -> Result<(), Error> {
        let mut metrics = raft.metrics();
        loop {
            {
                let now = metrics.borrow_and_update();
                if let Err(error) = &now.running_state {
                    return Err(self.failed(applying, error));
                }
                let applied = now.last_applied.map(|applied| applied.index);
                if now.state.is_leader()
                    && now.last_log_index.is_some()
                    && applied == now.last_log_index
                {
                    return Ok(());
                }
            }
            if metrics.changed().await.is_err() {
                return Err(self.failed(applying, &"its task has ended"));
            }
        }
    }

    /// The failure of the log or of the group if it is known, else what consensus says.
    fn failed(&self, applying: &Applying, error: &dyn std::fmt::Display) -> Error {
        let halted = || applying.halted.get().cloned();
        match self.wal.poisoned().or_else(halted) {
            Some(known) => known.as_ref().clone(),
            None => Error::Group {
                group: applying.log.id,
                reason: error.to_string(),
            },
        }
    }

    /// Answers a request that another node's [`Transport`] has sent to `group` here.
    pub async fn handle(&self, group: GroupId, request: Bytes) -> Bytes {
        let hosted = self.groups.lock().get(&group).cloned();
        let reply = match (hosted, Request::decode(&request)) {
            (Some(hosted), Ok(request)) => hosted.answer(request).await,
            (None, _) => Reply::Refused(format!("group {group} is not on node {}", self.id)),
            (_, Err(malformed)) => Reply::Refused(malformed.to_string()),
        };
        reply.encode()
    }

    /// Bytes that the log holds.
    pub fn log_bytes(&self) -> u64 {
        self.wal.segments.lock().bytes()
    }

    /// The groups that keep the oldest segment of the log from going, each with the entry that it must be flushed up to
    /// ([`Group::flushed`]). When [`Node::log_bytes`] grows beyond what its owner likes, these are the ones to flush.
    pub fn log_pressure(&self) -> Vec<(GroupId, u64)> {
        let oldest_end = self
            .wal
            .segments
            .lock()
            .used
            .front()
            .map_or(0, |oldest| oldest.base + 1);
        self.log_holders(LogPosition(oldest_end))
    }

    /// The groups that keep the log before `position` from going, each with the entry that it must be flushed up to.
    pub fn log_holders(&self, position: LogPosition) -> Vec<(GroupId, u64)> {
        let holders = self.wal.segments.lock().holders_before(position.0);
        for group in holders.keys() {
            let hosted = self.groups.lock().get(&GroupId(*group)).cloned();
            if let Some(hosted) = hosted {
                hosted.settle();
            }
        }
        holders
            .into_iter()
            .map(|(group, end)| (GroupId(group), end - 1))
            .collect()
    }

    /// Begins to let the whole log written so far go, and with it every byte of every payload in it: the log moves on to
    /// a fresh segment, and each older one is overwritten with zeros once it is not needed any more, before its space is
    /// used again or given back. So are the spare segments that hold old bytes.
    ///
    /// Returns the position that [`Node::log_retired`] reaches when that is done. The groups that
    /// [`Node::log_holders`] names for it must be flushed up to the entries it names; nothing else is needed.
    pub fn retire_log(&self) -> LogPosition {
        LogPosition(keeper::retire(&self.wal))
    }

    /// Nothing written before this position is in any file of the log any more, and every file of the log that was ever
    /// freed was overwritten before. Grows only where [`Node::retire_log`] asked for it.
    pub fn log_retired(&self) -> LogPosition {
        LogPosition(keeper::retired(&self.wal))
    }

    /// With encryption: what the files of the log hold before this position may be plain, or sealed with the previous key,
    /// another cipher or in an older form; it is being let go as after [`Node::retire_log`], for which the groups that
    /// [`Node::log_holders`] names must be flushed. `None` once everything in them, spares and freed space included, is
    /// sealed as it is configured now: then the previous key is not needed for the log any more.
    ///
    /// Begins by itself when a node is opened, and goes on after a crash.
    pub fn reseal_pending(&self) -> Option<LogPosition> {
        match self.wal.reseal_before.load(Ordering::Acquire) {
            0 => None,
            position => Some(LogPosition(position)),
        }
    }

    /// Removes a group from this node: its log is void from now on. A started group is stopped first.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Stopped`]; it is then not known whether the group is still there.
    pub async fn drop_group(&self, id: GroupId) -> Result<(), Error> {
        let hosted = self.groups.lock().remove(&id);
        if let Some(hosted) = hosted {
            hosted.stop().await;
        }
        self.found.lock().remove(&id);
        self.wal.logs.lock().remove(&id.0);
        let (sender, dropped) = tokio::sync::oneshot::channel();
        self.wal.submit([Item {
            draft: plain_draft(Kind::Drop, id.0),
            of: None,
            done: Done::Waiter(sender),
        }]);
        match dropped.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.as_ref().clone()),
            Err(_) => Err(Error::Stopped),
        }
    }

    /// Set once the log has failed; nothing is written after that.
    pub fn poisoned(&self) -> Option<Arc<Error>> {
        self.wal.poisoned()
    }

    /// Verifies the next `bytes` of the log, round and round; the caller sets the pace. Blocks for as long as reading takes.
    /// Damage stops nothing: what it hit is in memory or applied until the next opening, which would fail at it.
    pub fn scrub_log(&self, bytes: u64) -> LogScrub {
        scrub::scrub(&self.wal, bytes)
    }

    /// Damage that was found and is still in the log.
    pub fn log_damage(&self) -> Vec<LogDamage> {
        scrub::damage(&self.wal)
    }

    /// How to be rid of all damage that is known: once the groups that [`Node::log_holders`] names for this position are
    /// flushed, the log lets go of it. `None` when there is none.
    pub fn log_damaged_before(&self) -> Option<LogPosition> {
        scrub::unneeded_before(&self.wal).map(LogPosition)
    }

    /// What monitoring may see of the log.
    pub fn metrics(&self) -> LogMetrics {
        let damaged = self.log_damage().len() as u64;
        let segments = self.wal.segments.lock();
        LogMetrics {
            bytes_held: segments.bytes(),
            segments: segments.used.len() as u64,
            full: self.wal.full.load(Ordering::Relaxed),
            damaged,
            ..LogMetrics::of(&self.wal.counters)
        }
    }

    /// Stops all groups, writes what waits, marks the log's end and closes it.
    pub async fn shutdown(&self) {
        let groups = std::mem::take(&mut *self.groups.lock());
        for group in groups.into_values() {
            group.stop().await;
        }
        self.wal.submit([Item {
            draft: plain_draft(Kind::Mark, 0),
            of: None,
            done: Done::Nobody,
        }]);
        self.wal.shut_down();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A thread that has panicked has nothing more to say.
            let _ = thread.await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.wal.shut_down();
    }
}

/// Follows who leads, for as long as the group runs. A node whose log has failed does not lead, whatever openraft says.
fn watch_leadership(raft: &Raft, me: NodeId, wal: Arc<Wal>) -> watch::Sender<Leadership> {
    let mut metrics = raft.server_metrics();
    let read = move |metrics: &openraft::metrics::RaftServerMetrics<Types>| Leadership {
        leader: metrics.current_leader.map(NodeId),
        term: metrics.vote.leader_id.term,
        am_leader: metrics.current_leader == Some(me.0)
            && metrics.state.is_leader()
            && wal.poisoned().is_none(),
    };
    let (sender, _) = watch::channel(read(&metrics.borrow_watched()));
    let leads = sender.clone();
    let follow = async move {
        while metrics.changed().await.is_ok() {
            let now = read(&metrics.borrow_watched());
            leads.send_if_modified(|last| {
                let changed = *last != now;
                *last = now;
                changed
            });
        }
        leads.send_if_modified(|last| {
            last.leader = None;
            std::mem::take(&mut last.am_leader)
        });
    };
    drop(task::spawn(follow));
    sender
}

/// How openraft is set up.
fn config(id: GroupId, is_alone: bool) -> Config {
    Config {
        cluster_name: format!("group-{id}"),
        heartbeat_interval: 100,
        election_timeout_min: 500,
        election_timeout_max: 1000,
        // See `Core::follow_members`.
        enable_tick: !is_alone,
        enable_pre_vote: Some(true),
        // Safety: a leader that lost its un-synced tail must not lead on in the same term (it would give one log id twice).
        enable_leader_restore: Some(false),
        // The machine's store is the snapshot: "building" one costs nothing and is asked for by `Group::flushed`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        purge_batch_size: 1,
        max_payload_entries: 64,
        ..Config::default()
    }
}

/// Runs `future` on a thread of the log. When it panics the log has failed: who waits for it is told, and nobody waits for ever.
fn spawn_watched(
    wal: &Arc<Wal>,
    thread: &'static str,
    future: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<task::JoinHandle<()>> {
    let wal = Arc::clone(wal);
    let lost = move || wal.poison_with(Error::Panicked { thread });
    task::spawn_dedicated(thread, task::vital(future, lost))
}
