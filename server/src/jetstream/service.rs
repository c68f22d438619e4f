//! The JetStream of one server: its groups and streams, and what others ask about them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use futures::channel::oneshot;
use futures::lock::Mutex as AsyncMutex;
use halyard_engine::StreamId;
use halyard_raft as raft;
use halyard_runtime::disk::Disk;
use halyard_runtime::task::{self, JoinHandle};
use halyard_runtime::time::{Instant, Timestamp};
use parking_lot::{Mutex, RwLock};

use super::advisory::Clients;
use super::api::errors::{ApiError, table};
use super::api::request::{Api, PREFIX};
use super::api::timestamp;
use super::api::types::{ApiCounters, Cluster, State, StreamInfo};
use super::at_rest;
use super::backup::Desk;
use super::config::{Defaults, Storage, StreamConfig};
use super::consumer::leader::Directories;
use super::erasure::{self, Erasure};
use super::group::command::{Kind, Limit, encode_cold};
use super::group::{Machine, Reply};
use super::handle::{GroupHandle, StreamHandle};
use super::inbox::Waiter;
use super::lanes::Lanes;
use super::limits::{API_LEVEL, DISK_BYTES_MIN};
use super::progress::Progress;
use super::reads::Reads;
use super::rescue::Degraded;
use super::start::{self, Opened, Settings, StartError, Tuning};
use super::stream::machine::Fault;
use super::{log_scrub, meta};
use crate::broker::{Account, Broker, ClientId, Subscription};

/// What an account uses.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Bytes in memory streams.
    pub memory: u64,
    /// Bytes in file streams.
    pub storage: u64,
    /// Sum of the `max_bytes` of memory streams.
    pub reserved_memory: u64,
    /// Sum of the `max_bytes` of file streams.
    pub reserved_storage: u64,
    /// Streams.
    pub streams: usize,
    /// Consumers.
    pub consumers: usize,
}

/// Counters of the API.
#[derive(Debug, Default)]
pub struct Counters {
    total: AtomicU64,
    errors: AtomicU64,
    inflight: AtomicU64,
}

impl Counters {
    /// A request has come. It is one of the total once it is answered: none counts itself.
    pub fn begin(&self) -> Counted<'_> {
        self.inflight.fetch_add(1, Ordering::Relaxed);
        Counted(self)
    }

    /// What the counters say now.
    #[must_use]
    pub fn snapshot(&self) -> ApiCounters {
        ApiCounters {
            level: API_LEVEL,
            total: self.total.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            inflight: self.inflight.load(Ordering::Relaxed).saturating_sub(1),
        }
    }
}

/// A request that is being answered; counted as such until it is dropped.
#[must_use = "it counts as long as it lives"]
pub struct Counted<'a>(&'a Counters);

impl Counted<'_> {
    /// It has been answered.
    pub fn end(self, answer: Option<&[u8]>) {
        let refused = answer.is_some_and(|answer| {
            let error = b"\"error\":{";
            answer
                .windows(error.len())
                .take(120)
                .any(|window| window == error)
        });
        let errors = &self.0.errors;
        errors.fetch_add(u64::from(refused), Ordering::Relaxed);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.total.fetch_add(1, Ordering::Relaxed);
        self.0.inflight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that streams may hold; `None` is no limit.
#[derive(Debug, Clone, Copy)]
struct Limits {
    memory: Option<u64>,
    storage: Option<u64>,
}

/// Streams of one account, by name.
type Names = BTreeMap<String, Arc<StreamHandle>>;

/// The JetStream of one server.
pub struct JetStream {
    pub(super) broker: Arc<Broker>,
    pub(super) settings: Settings,
    /// Bytes that memory and file streams may hold, as last said.
    limits: Mutex<Limits>,
    nodes: Vec<raft::Node>,
    pub(super) meta: raft::Group<meta::Machine>,
    pub(super) file: Arc<GroupHandle>,
    pub(super) memory: Arc<GroupHandle>,
    pub(super) streams: RwLock<BTreeMap<String, Names>>,
    /// One change of the set of streams at a time: its steps go through two groups.
    pub(super) changing: AsyncMutex<()>,
    counters: Counters,
    directories: Arc<Directories>,
    desk: Arc<Desk>,
    clients: Clients,
    api: Mutex<Vec<(Arc<Account>, Arc<Subscription>)>>,
    drivers: Mutex<Vec<JoinHandle<()>>>,
    erasure: Erasure,
    /// What flushes the meta group now and then, follows a change of the encryption, erases, and verifies the log; they end only when told to.
    keepers: Mutex<Vec<JoinHandle<()>>>,
    /// What those of them that have panicked did.
    lost: Mutex<Vec<&'static str>>,
    /// Held by a job of the meta group's store while it writes.
    pub(super) meta_job: Arc<AsyncMutex<()>>,
    /// The directory is damaged: streams on disk are only read.
    degraded: Option<Degraded>,
    /// Direct gets that wait.
    pub(super) reads: Reads,
    /// Last: what runs there uses what stands above.
    pub(super) lanes: Lanes,
}

impl JetStream {
    /// Opens what is on disk, finishes what a crash left half done, and serves the streams of every account.
    ///
    /// # Errors
    /// Each names the path and the way out; nothing is overwritten.
    pub async fn start(
        broker: Arc<Broker>,
        mut settings: Settings,
    ) -> Result<Arc<Self>, StartError> {
        let began = Instant::now();
        if let Ok(budget) = disk_budget(&settings) {
            settings.tuning = settings.tuning.fitting(budget);
            if budget < DISK_BYTES_MIN {
                tracing::warn!(
                    "JetStream: {} has {} KiB for streams: with less than {} KiB publishes are soon refused for want of space",
                    settings.data_dir.display(),
                    budget / 1024,
                    DISK_BYTES_MIN / 1024
                );
            }
        }
        let lanes = Lanes::new().map_err(StartError::Threads)?;
        let Opened {
            nodes,
            meta,
            file,
            memory,
            degraded,
        } = start::open(&settings, broker.admission(), &lanes).await?;
        if settings.max_storage_is_share {
            let held = file.read(|machine| machine.held().bytes);
            settings.max_storage = settings.max_storage.map(|free| free.saturating_add(held));
        }
        let limits = Mutex::new(Limits {
            memory: settings.max_memory,
            storage: settings.max_storage,
        });
        let service = Arc::new(Self {
            broker,
            settings,
            limits,
            nodes,
            meta,
            file,
            memory,
            streams: RwLock::default(),
            changing: AsyncMutex::new(()),
            counters: Counters::default(),
            directories: Arc::default(),
            desk: Arc::default(),
            clients: Clients::default(),
            api: Mutex::default(),
            drivers: Mutex::default(),
            erasure: Erasure::default(),
            keepers: Mutex::default(),
            lost: Mutex::default(),
            meta_job: Arc::default(),
            reads: Reads::default(),
            lanes,
            degraded,
        });
        if service.degraded.is_some() {
            *service.drivers.lock() = vec![start::drive(&service.memory, &service)];
            service.adopt_for_reading();
            service.listen();
            return Ok(service);
        }
        *service.drivers.lock() = vec![
            start::drive(&service.file, &service),
            start::drive(&service.memory, &service),
        ];
        *service.keepers.lock() = vec![
            service.keep("flushing the meta group", start::flush_meta),
            service.keep("following the encryption", at_rest::follow),
            service.keep("erasing", erasure::run),
            service.keep("verifying the log", log_scrub::run),
        ];
        let reconciling = Progress::new("bringing streams to what they are configured as");
        service.lanes.requests.within(service.reconcile()).await?;
        drop(reconciling);
        service.listen();
        tracing::info!("JetStream is ready, after {:.1?}", began.elapsed());
        Ok(service)
    }

    /// Starts a keeper. Should it panic, the server goes on without it, and is not healthy.
    fn keep<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        keeper: impl FnOnce(Weak<Self>) -> F,
    ) -> JoinHandle<()> {
        let service = Arc::downgrade(self);
        let lost = move || {
            tracing::error!(
                "JetStream: {what} has panicked, which is a bug: it is not done until the next start"
            );
            if let Some(service) = service.upgrade() {
                service.lost.lock().push(what);
            }
        };
        let keeper = keeper(Arc::downgrade(self));
        self.lanes.requests.spawn(task::vital(keeper, lost))
    }

    pub(super) const fn tuning(&self) -> Tuning {
        self.settings.tuning
    }

    /// Tells those who wait for messages that the server goes: one connection that is about to be closed, or everybody, to
    /// whom nothing is sent from then on.
    pub async fn leave(&self, client: Option<ClientId>) {
        for group in self.groups() {
            group.intake().leave(client).await;
        }
    }

    /// Stops in order: what was taken is answered, stores are flushed, logs are closed.
    pub async fn shutdown(&self) {
        for (account, subscription) in self.api.lock().drain(..) {
            account.unsubscribe(&subscription);
        }
        let streams = std::mem::take(&mut *self.streams.write());
        for handle in streams.values().flat_map(BTreeMap::values) {
            handle.close();
        }
        self.file.stop();
        self.memory.stop();
        let drivers = std::mem::take(&mut *self.drivers.lock());
        for driver in drivers {
            driver.await.ok();
        }
        for task in self.keepers.lock().drain(..) {
            task.abort();
        }
        // Its job may still write.
        drop(self.meta_job.lock().await);
        start::flush_meta_now(self).await;
        for node in &self.nodes {
            node.shutdown().await;
        }
    }

    /// What [`JetStream::shutdown`] could not write.
    #[must_use]
    pub fn unwritten(&self) -> Option<String> {
        if let Some(poison) = self.node().and_then(raft::Node::poisoned) {
            return Some(poison.to_string());
        }
        if let Some(why) = self.file.unwritten() {
            return Some(format!("the last flush of the file group failed: {why}"));
        }
        let meta = self.meta.machine().lock();
        (meta.store().applied() < meta.applied())
            .then(|| "the last flush of the meta group failed".to_owned())
    }

    /// Subscribes the API of the accounts that there are.
    fn listen(self: &Arc<Self>) {
        let mut subscriptions = self.api.lock();
        let mut prefixes = vec![PREFIX.to_owned()];
        prefixes.extend(
            self.settings
                .domain
                .as_ref()
                .map(|domain| format!("$JS.{domain}.API.")),
        );
        for account in [self.broker.global()] {
            for prefix in &prefixes {
                let api = Arc::new(Api::new(account.clone(), self, prefix));
                match account.subscribe(format!("{prefix}>").as_bytes(), None, api) {
                    Ok(subscription) => subscriptions.push((account.clone(), subscription)),
                    Err(error) => tracing::error!("the JetStream API at {prefix}: {error}"),
                }
            }
        }
    }

    pub(super) fn defaults(&self) -> Defaults {
        Defaults {
            duplicate_window_max: self.settings.duplicate_window_max,
        }
    }

    pub(super) fn group(&self, storage: Storage) -> &Arc<GroupHandle> {
        match storage {
            Storage::File => &self.file,
            Storage::Memory => &self.memory,
        }
    }

    /// Bytes that the streams of a storage class may hold together; `None` is no limit.
    #[must_use]
    pub fn limit(&self, storage: Storage) -> Option<u64> {
        let limits = *self.limits.lock();
        match storage {
            Storage::File => limits.storage,
            Storage::Memory => limits.memory,
        }
    }

    /// Puts other limits in force; `None` leaves one as it is. What is published from now on is held to them.
    pub fn set_limits(&self, memory: Option<u64>, storage: Option<u64>) {
        {
            let mut limits = self.limits.lock();
            limits.memory = memory.or(limits.memory);
            limits.storage = storage.or(limits.storage);
        }
        for storage in [Storage::File, Storage::Memory] {
            // Nobody waits for the answer: a start proposes it again where it is not in force.
            drop(self.propose_limit(storage));
        }
    }

    /// Makes a group hold to its limit.
    pub(super) async fn enforce(&self, storage: Storage) -> Option<()> {
        match self.propose_limit(storage) {
            Some(answer) => answer.await.ok().map(|_| ()),
            None => Some(()),
        }
    }

    fn propose_limit(&self, storage: Storage) -> Option<oneshot::Receiver<Reply>> {
        let bytes = self.limit(storage);
        let group = self.group(storage);
        if group.read(|machine| machine.held().bytes_max) == bytes {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        let body = encode_cold(&Limit { bytes });
        group.submit(Kind::Limit, StreamId(0), &body, Waiter::Call(sender));
        Some(receiver)
    }

    /// Why no stream is made, changed or deleted, if none is: the store is damaged.
    pub(super) fn refusal(&self) -> Option<ApiError> {
        let degraded = self.degraded.as_ref()?;
        Some(table::STREAM_STORE_FAILED.with(&degraded.lacks))
    }

    /// Where pull requests and acks find their consumers.
    #[must_use]
    pub const fn directories(&self) -> &Arc<Directories> {
        &self.directories
    }

    /// Whether streams are halted: all of a group that has failed, or some.
    pub(super) fn has_halted(&self) -> bool {
        let mut groups = self.groups().into_iter();
        groups.any(|group| group.failed() || group.has_halted())
    }

    /// Where backups and restores are counted.
    pub(super) const fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// One stream.
    #[must_use]
    pub fn stream(&self, account: &str, name: &str) -> Option<Arc<StreamHandle>> {
        self.streams.read().get(account)?.get(name).cloned()
    }

    /// Every stream of an account, by name.
    #[must_use]
    pub fn streams(&self, account: &str) -> Vec<Arc<StreamHandle>> {
        let streams = self.streams.read();
        streams
            .get(account)
            .into_iter()
            .flat_map(BTreeMap::values)
            .cloned()
            .collect()
    }

    /// Waits until everything that was published before this call has been stored.
    pub async fn caught_up(&self) {
        self.file.inbox().caught_up(None).await;
        self.memory.inbox().caught_up(None).await;
    }

    /// What `STREAM.INFO` shows.
    ///
    /// # Errors
    /// It has gone, or cannot be read: these are not the same.
    pub fn stream_info(&self, handle: &StreamHandle) -> Result<StreamInfo, ApiError> {
        let found = handle.group().read(|machine| {
            let stream = machine.stream(handle.id())?;
            let described = stream.state(machine.store()).map(|state| {
                let mut state = State::new(&state, stream.consumers().len());
                // Where the first sequence was said, it shows before there is a message.
                if stream.config().first_seq == 1 {
                    state.first_seq = state.first_seq.max(1);
                }
                (stream.config().for_response(), stream.created(), state)
            });
            Some(described)
        });
        let found = found.unwrap_or_else(|| match handle.lacks() {
            Some(fault) => Err(fault),
            None => Err(Fault::NoSuchStream(handle.id())),
        });
        let (config, created, state) = found.map_err(|fault| handle.unreadable(&fault))?;
        Ok(StreamInfo {
            config,
            created: timestamp::format(created),
            state,
            domain: self.settings.domain.clone(),
            cluster: None,
            ts: timestamp::format(Timestamp::now()),
        })
    }

    /// Who leads: this server.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        Cluster {
            leader: self.settings.server_name.clone(),
        }
    }

    /// What an account uses.
    #[must_use]
    pub fn usage(&self, account: &str) -> Usage {
        let mut usage = Usage::default();
        for handle in self.streams(account) {
            let reserved = StreamConfig::limit(handle.config().max_bytes).unwrap_or(0);
            let (bytes, consumers) = handle.group().read(|machine| {
                let stream = machine.stream(handle.id());
                let consumers = stream.map_or(0, |stream| stream.consumers().len());
                (machine.store().stream_bytes(handle.id()), consumers)
            });
            usage.streams += 1;
            usage.consumers += consumers;
            match handle.group().storage() {
                Storage::File => {
                    usage.storage += bytes;
                    usage.reserved_storage += reserved;
                }
                Storage::Memory => {
                    usage.memory += bytes;
                    usage.reserved_memory += reserved;
                }
            }
        }
        usage
    }

    /// Who the clients are.
    #[must_use]
    pub const fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Counters of the API.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What it was started with.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether unknown fields of requests are refused.
    #[must_use]
    pub const fn strict(&self) -> bool {
        self.settings.strict
    }

    /// Name of the domain.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.settings.domain.as_deref()
    }

    /// Name of the server.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.server_name
    }

    /// The groups on this server.
    #[must_use]
    pub fn groups(&self) -> [&Arc<GroupHandle>; 2] {
        [&self.file, &self.memory]
    }

    /// The accounts.
    #[must_use]
    pub const fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// What is being erased.
    #[must_use]
    pub const fn erasure(&self) -> &Erasure {
        &self.erasure
    }

    /// The figures of the node's log on disk.
    #[must_use]
    pub fn log_metrics(&self) -> Option<raft::LogMetrics> {
        self.node().map(raft::Node::metrics)
    }

    /// The node of everything that is on the disk.
    pub(crate) fn node(&self) -> Option<&raft::Node> {
        self.nodes.first()
    }

    pub(super) const fn meta(&self) -> &raft::Group<meta::Machine> {
        &self.meta
    }

    /// Whether publishes to file streams are refused because there is too little space.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.file.raft().is_full() || self.file.is_refusing()
    }

    /// Damage that was found in the log and the stores and is still there, and streams that a panic has halted, for people.
    #[must_use]
    pub fn damage(&self) -> Vec<String> {
        let log = self.node().map_or_else(Vec::new, raft::Node::log_damage);
        let mut all: Vec<String> = log.iter().map(ToString::to_string).collect();
        all.extend(
            self.degraded
                .iter()
                .flat_map(|degraded| degraded.findings.clone()),
        );
        let of_store = |store: &halyard_engine::Store| {
            let damage = store.damage().into_iter();
            damage.map(|error| error.to_string()).collect::<Vec<_>>()
        };
        all.extend(of_store(self.meta.machine().lock().store()));
        all.extend(self.file.read(|machine| of_store(machine.store())));
        for group in self.groups() {
            group.read(|machine| {
                let broken = machine.halted().iter().filter(|(_, halt)| halt.is_broken);
                all.extend(broken.map(|(id, halt)| machine.tell_halt(*id, halt)));
            });
        }
        all
    }

    /// Whether everything is served; why not otherwise.
    ///
    /// # Errors
    /// Text for people.
    pub fn health(&self) -> Result<(), String> {
        if let Some(degraded) = &self.degraded {
            let lacks = &degraded.lacks;
            return Err(format!(
                "the store is damaged, and streams on disk are only read: {lacks}"
            ));
        }
        if let Some(poison) = self.nodes.iter().find_map(raft::Node::poisoned) {
            return Err(poison.to_string());
        }
        if let Some(lost) = self.lost.lock().first() {
            return Err(format!("{lost} has panicked"));
        }
        for group in self.groups() {
            if group.failed() {
                return Err(format!("the {} group has stopped serving", group.name()));
            }
            // Mostly without the lock: whether the server is well is asked while a long entry is applied, too.
            let look = |machine: &Machine| {
                let (id, halt) = machine.halted().first_key_value()?;
                Some(machine.tell_halt(*id, halt))
            };
            let halted = group.has_halted().then(|| group.read(look)).flatten();
            if let Some(halted) = halted.or_else(|| group.first_aside()) {
                return Err(halted);
            }
        }
        if let Some(fault) = self.meta.machine().lock().fault() {
            return Err(format!("the meta group has stopped serving: {fault}"));
        }
        if self.is_full() {
            return Err(format!(
                "{}: there is too little space: publishes to file streams are refused until there is more",
                self.settings.data_dir.display()
            ));
        }
        // Without waiting for a group that is busy: damage does not go, and is told when it is asked again.
        let log = self.node().map_or_else(Vec::new, raft::Node::log_damage);
        let of_log = log.first().map(ToString::to_string);
        let of_store = || {
            let first =
                |machine: &Machine| machine.store().damage().first().map(ToString::to_string);
            self.file.try_read(first).flatten()
        };
        match of_log.or_else(of_store) {
            Some(damage) => Err(damage),
            None => Ok(()),
        }
    }
}

/// What the streams may have of their disk: what is free there, and what they have. It is the same whatever they hold.
fn disk_budget(settings: &Settings) -> std::io::Result<u64> {
    let (disk, dir) = (&settings.disk, &settings.data_dir);
    let there = dir
        .ancestors()
        .find(|dir| disk.exists(dir).unwrap_or(false));
    let free = disk.free_bytes(there.unwrap_or(dir))?;
    Ok(free.saturating_add(bytes_below(&**disk, dir, DEPTH_MAX)))
}

/// How deep the data directory is.
const DEPTH_MAX: u32 = 4;

/// Bytes of the files in a directory and below; what cannot be listed counts nothing.
fn bytes_below(disk: &dyn Disk, dir: &Path, depth: u32) -> u64 {
    let Some(depth) = depth.checked_sub(1) else {
        return 0;
    };
    let entries = disk.list(dir).unwrap_or_default();
    let bytes = entries.into_iter().map(|entry| match entry.is_dir {
        true => bytes_below(disk, &dir.join(entry.name), depth),
        false => entry.len,
    });
    bytes.sum()
}

/// Without [`JetStream::shutdown`] this is a crash, but the tasks go all the same.
impl Drop for JetStream {
    fn drop(&mut self) {
        self.file.stop();
        self.memory.stop();
        for task in self.keepers.lock().drain(..) {
            task.abort();
        }
    }
}
