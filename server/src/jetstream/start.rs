//! How JetStream gets up: nodes, stores, groups, drivers; and the meta group's flushes.
//!
//! Below the data directory: `log/` is the node's log, `groups/<n>/` the store of each group. Memory streams have a node
//! and a store of their own on a disk in RAM: the same code, gone with the process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use halyard_engine::{Encryption, HashKey, Job, Options, Overhead, Store};
use halyard_raft::{self as raft, GroupId, NodeId};
use halyard_runtime::disk::{Disk, MemDisk};
use halyard_runtime::random;
use halyard_runtime::task::{self, JoinHandle};
use halyard_runtime::time::{self, Duration, Instant};
use parking_lot::Mutex;

use super::at_rest;
use super::config::Storage;
use super::consumer::leader::Leader;
use super::driver::Driver;
use super::group;
use super::handle::GroupHandle;
use super::lanes::Lanes;
use super::limits::{
    DIRTY_BYTES_FLUSH, FILE_BYTES_MAX, FILE_BYTES_MIN, FLUSH_INTERVAL, LOG_SEGMENT_BYTES_MIN,
    META_RESERVE_BYTES, RESERVE_BYTES, RESERVE_BYTES_MIN,
};
use super::meta;
use super::progress::Progress;
use super::rescue;
use super::service::JetStream;
use super::stream::machine::Fault;
use crate::broker::Admission;
use crate::config::Config;

pub(super) const META: GroupId = GroupId(0);
pub(in crate::jetstream) const FILE: GroupId = GroupId(1);
pub(super) const MEMORY: GroupId = GroupId(2);
/// Where the stores are, below the data directory.
pub(super) const GROUPS_DIR: &str = "groups";
/// Jobs that the meta group's store does at most at one time.
const META_JOBS_MAX: usize = 16;
/// How often it is looked whether the meta group holds a long log.
const LOG_LOOK: Duration = Duration::from_secs(1);
/// A log of more than so many flushes is long: one's worth is being gathered while another's is flushed.
const LONG_LOG_FLUSHES: u64 = 2;

/// Sizes that only a test has reason to change.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// Bytes of a segment of the log.
    pub log_segment_bytes: u64,
    /// Bytes of the log's very first segment.
    pub first_log_segment_bytes: u64,
    /// Bytes in a store's tail at which it is flushed to a segment.
    pub flush_bytes: usize,
    /// Age at which a smaller tail is flushed.
    pub flush_interval: Duration,
    /// Bytes of disk that are set aside, at most, for a flush that finds none, which is what makes room: more than a flush
    /// writes. A store takes them as it grows.
    pub reserve_bytes: u64,
    /// Bytes of a store's segment beyond which no more is merged into it.
    pub file_bytes_max: u64,
}

impl Tuning {
    /// The same for a disk on which the server may have so many bytes, those that it has now included. Of a small one it keeps
    /// back no more than some percent: the reserve is 1/32 of it, a segment of the log 1/64, and a rewrite of the largest
    /// segment of a store takes 1/64.
    #[must_use]
    pub fn fitting(self, budget: u64) -> Self {
        let reserve = self.reserve_bytes.min((budget / 32).max(RESERVE_BYTES_MIN));
        let flush = usize::try_from(reserve / 4 * 3).unwrap_or(usize::MAX);
        let log_segment = (budget / 64).max(LOG_SEGMENT_BYTES_MIN) / 4096 * 4096;
        let log_segment = self.log_segment_bytes.min(log_segment);
        Self {
            reserve_bytes: reserve,
            flush_bytes: self.flush_bytes.min(flush),
            log_segment_bytes: log_segment,
            first_log_segment_bytes: self.first_log_segment_bytes.min(log_segment),
            file_bytes_max: self.file_bytes_max.min((budget / 32).max(FILE_BYTES_MIN)),
            ..self
        }
    }

    /// What the log is opened with.
    pub(super) fn node_options(
        &self,
        disk: Arc<dyn Disk>,
        settings: &Settings,
    ) -> raft::NodeOptions {
        raft::NodeOptions {
            segment_bytes: self.log_segment_bytes,
            first_segment_bytes: self.first_log_segment_bytes,
            encryption: settings.encryption.clone(),
            ..raft::NodeOptions::new(disk, &settings.data_dir, None)
        }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            log_segment_bytes: 32 << 20,
            first_log_segment_bytes: LOG_SEGMENT_BYTES_MIN,
            flush_bytes: DIRTY_BYTES_FLUSH,
            flush_interval: FLUSH_INTERVAL,
            reserve_bytes: RESERVE_BYTES,
            file_bytes_max: FILE_BYTES_MAX,
        }
    }
}

/// What JetStream is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The disk of file streams.
    pub disk: Arc<dyn Disk>,
    /// Where everything lies.
    pub data_dir: PathBuf,
    /// Name shown as the leader of every stream.
    pub server_name: String,
    /// Name of the domain.
    pub domain: Option<String>,
    /// Whether unknown fields of requests are refused.
    pub strict: bool,
    /// Bytes that memory streams may hold and reserve when the server starts; `None` is no limit.
    pub max_memory: Option<u64>,
    /// The same of file streams.
    pub max_storage: Option<u64>,
    /// That limit is a share of what is free on the disk, beside what streams hold already.
    pub max_storage_is_share: bool,
    /// Longest duplicate window, nanoseconds; `None` is no cap.
    pub duplicate_window_max: Option<i64>,
    /// Seals everything on the disk.
    pub encryption: Option<Encryption>,
    /// How long after its request an erasure is done at the latest.
    pub erase_within: Duration,
    /// Sizes of the log and of flushes.
    pub tuning: Tuning,
}

impl Settings {
    /// What the server's configuration says.
    #[must_use]
    pub fn new(config: &Config, server_name: &str, disk: Arc<dyn Disk>) -> Self {
        let jetstream = &config.jetstream;
        let window = jetstream.limits.duplicate_window;
        Self {
            disk,
            data_dir: jetstream.data_dir(),
            server_name: server_name.to_owned(),
            domain: jetstream.domain.clone(),
            strict: jetstream.strict,
            max_memory: jetstream.max_memory_store,
            max_storage: jetstream.max_file_store,
            max_storage_is_share: jetstream.max_file_store_is_share,
            duplicate_window_max: window.and_then(|window| i64::try_from(window.as_nanos()).ok()),
            encryption: jetstream.encryption.as_ref().map(at_rest::keys),
            erase_within: jetstream.erase_within,
            tuning: Tuning::default(),
        }
    }
}

/// Why JetStream does not start. Each names the path and the way out.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The node's log.
    #[error(transparent)]
    Log(#[from] raft::Error),
    /// A group's store.
    #[error(transparent)]
    Store(#[from] halyard_engine::Error),
    /// A group's records.
    #[error(transparent)]
    Group(#[from] group::OpenError),
    /// The meta store's records.
    #[error(transparent)]
    Meta(#[from] meta::machine::Damaged),
    /// The configured keys do not open the data.
    #[error("{what}; {advice}")]
    Key {
        /// Which file, and what is wrong with the key.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// The system gives no more threads.
    #[error("cannot start threads: {0}")]
    Threads(std::io::Error),
    /// A damaged log that nobody needs could not be replaced.
    #[error("{}: a new log cannot take its place: {source}", path.display())]
    Renewal {
        /// The log.
        path: PathBuf,
        /// What the disk said.
        source: Arc<std::io::Error>,
    },
    /// The streams of another server are here, and none of this one.
    #[error(
        "{}: streams of a nats-server are here, whose files this server does not read; it was not started, as they would seem to \
         be gone. Back them up from that server (nats backup account) and restore them into this one with another store \
         directory, as docs/moving-from-nats-server.md says", path.display()
    )]
    Foreign {
        /// Where.
        path: PathBuf,
    },
    /// A group stopped while the start was still finishing what a crash had left.
    #[error("a group stopped while streams were recovered; the log says why")]
    Stopped,
}

impl StartError {
    /// A key that does not open the data is told with what to do about it here.
    fn advise(self, encryption: Option<&Encryption>) -> Self {
        let what = match &self {
            Self::Log(raft::Error::WrongKey { file, offset }) => format!(
                "{} is encrypted, and {} the record at byte {offset}",
                file.display(),
                match encryption {
                    None => "no key is configured to open",
                    Some(_) => "the configured key does not open",
                }
            ),
            Self::Store(error @ halyard_engine::Error::WrongKey { .. }) => error.to_string(),
            _ => return self,
        };
        Self::Key {
            what,
            advice: at_rest::advice(encryption),
        }
    }
}

/// What was opened.
pub(super) struct Opened {
    pub(super) nodes: Vec<raft::Node>,
    pub(super) meta: raft::Group<meta::Machine>,
    pub(super) file: Arc<GroupHandle>,
    pub(super) memory: Arc<GroupHandle>,
    /// The directory is damaged, and nothing is written to it.
    pub(super) degraded: Option<rescue::Degraded>,
}

pub(super) async fn open(
    settings: &Settings,
    admission: &Arc<Admission>,
    lanes: &Lanes,
) -> Result<Opened, StartError> {
    refuse_foreign(settings)?;
    let dir = &settings.data_dir;
    let lock = dir.join("LOCK");
    let is_locked = settings.disk.exists(&lock).unwrap_or(false);
    // Who else has the directory is told when the log is opened.
    if is_locked && let Ok(_held) = settings.disk.lock(&lock) {
        rescue::end_renewal(&*settings.disk, dir).map_err(|source| StartError::Renewal {
            path: dir.join("log"),
            source: Arc::new(source),
        })?;
    }
    let opened = match at_rest::check(settings) {
        Ok(()) => {
            let opening = open_all(settings, admission, lanes);
            lanes.requests.within(opening).await
        }
        Err(error) => Err(error),
    };
    let opened = match opened {
        Err(error) if rescue::is_damage(&error) => {
            match rescue::open(settings, admission, lanes, error).await {
                Ok(Some(opened)) => Ok(opened),
                Ok(None) => {
                    let opening = open_all(settings, admission, lanes);
                    lanes.requests.within(opening).await
                }
                Err(error) => Err(error),
            }
        }
        opened => opened,
    };
    opened.map_err(|error| error.advise(settings.encryption.as_ref()))
}

async fn open_all(
    settings: &Settings,
    admission: &Arc<Admission>,
    lanes: &Lanes,
) -> Result<Opened, StartError> {
    let disk = settings.disk.clone();
    let progress = Progress::new("reading the log");
    let node = raft::Node::open(settings.tuning.node_options(disk.clone(), settings))?;
    tell_log(node.report(), &progress);
    tracing::info!("  Identity:        {}", node.identity());
    progress.at("opening the store of the meta group, and applying the log to it");
    let meta = {
        let store = open_store(&disk, settings, META, Overhead::FILE)?;
        let machine = meta::Machine::open(store)?;
        let standing = machine.standing().clone();
        node.start_group(META, Arc::new(Mutex::new(machine)), standing)
            .await?
    };
    progress.at("opening the store of the file group, and applying the log to it");
    let opening = open_group(&node, &disk, settings, FILE, Storage::File);
    let (raft, machine) = lanes.of(Storage::File).within(opening).await?;
    let file = GroupHandle::new(Storage::File, machine, raft, Arc::clone(admission));
    let ram: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let volatile = raft::NodeOptions::new(ram.clone(), &settings.data_dir, in_memory(&node));
    let volatile = raft::Node::open(volatile)?;
    let opening = open_group(&volatile, &ram, settings, MEMORY, Storage::Memory);
    let (raft, machine) = lanes.of(Storage::Memory).within(opening).await?;
    let memory = GroupHandle::new(Storage::Memory, machine, raft, Arc::clone(admission));
    Ok(Opened {
        nodes: vec![node, volatile],
        meta,
        file,
        memory,
        degraded: None,
    })
}

/// The name of a node's replicas in memory: what they held is gone with each process, and what they had promised.
fn in_memory(node: &raft::Node) -> NodeId {
    let identity = node.identity();
    identity.node.with_incarnation(identity.boots)
}

/// A directory in which a nats-server has its streams, and this server nothing yet, is not started in: the streams would seem
/// to be gone.
fn refuse_foreign(settings: &Settings) -> Result<(), StartError> {
    let (disk, ours) = (&settings.disk, &settings.data_dir);
    let Some(theirs) = ours.parent().map(|dir| dir.join("jetstream")) else {
        return Ok(());
    };
    let has = |dir: &Path| disk.exists(dir).unwrap_or(false);
    if has(&ours.join("log")) || !has(&theirs) {
        return Ok(());
    }
    for account in disk.list(&theirs).unwrap_or_default() {
        let streams = theirs.join(account.name).join("streams");
        if has(&streams) && disk.list(&streams).is_ok_and(|listed| !listed.is_empty()) {
            return Err(StartError::Foreign { path: streams });
        }
    }
    Ok(())
}

/// Says what was found in the log.
fn tell_log(report: &raft::OpenReport, progress: &Progress) {
    let (bytes, segments) = (report.log_bytes, report.segments);
    let cut = match report.cut_bytes {
        0 => String::new(),
        cut => format!(", without {cut} bytes that a crash cut short and nobody was told of"),
    };
    tracing::info!(
        "  Log:             {bytes} bytes in {segments} files{cut}, read in {:.1?}",
        progress.elapsed()
    );
    for mended in &report.mended {
        tracing::warn!("{mended}");
    }
}

type OpenedGroup = (raft::Group<group::Machine>, Arc<Mutex<group::Machine>>);

pub(super) async fn open_group(
    node: &raft::Node,
    disk: &Arc<dyn Disk>,
    settings: &Settings,
    id: GroupId,
    storage: Storage,
) -> Result<OpenedGroup, StartError> {
    let overhead = match storage {
        Storage::File => Overhead::FILE,
        Storage::Memory => Overhead::MEMORY,
    };
    let began = Instant::now();
    let machine = group::Machine::open(open_store(disk, settings, id, overhead)?)?;
    let standing = machine.standing().clone();
    let applied = machine.applied();
    let machine = Arc::new(Mutex::new(machine));
    let raft = node.start_group(id, machine.clone(), standing).await?;
    let (streams, last) = {
        let machine = machine.lock();
        (machine.streams().count(), machine.applied())
    };
    if storage == Storage::File {
        tracing::info!(
            "  Recovered:       {streams} streams, {} entries from the log, in {:.1?}",
            last.saturating_sub(applied),
            began.elapsed()
        );
    }
    Ok((raft, machine))
}

fn open_store(
    disk: &Arc<dyn Disk>,
    settings: &Settings,
    id: GroupId,
    overhead: Overhead,
) -> Result<Store, StartError> {
    let dir = settings.data_dir.join(GROUPS_DIR).join(id.0.to_string());
    let mut options = Options {
        overhead,
        encryption: settings.encryption.clone(),
        reserve_bytes: settings.tuning.reserve_bytes,
        hash_key: HashKey::new(std::array::from_fn(|_| random::u64())),
        segment_bytes_max: settings.tuning.file_bytes_max,
        ..Options::default()
    };
    if id == META {
        options.reserve_bytes = META_RESERVE_BYTES.min(options.reserve_bytes / 4);
    }
    if overhead == Overhead::MEMORY {
        // RAM is no disk that anybody carries away.
        options.encryption = None;
        // RAM that is freed is gone, and a reserve of it helps nobody.
        options.overwrite_freed = false;
        options.reserve_bytes = 0;
    }
    let began = Instant::now();
    let (store, report) = Store::open(disk.clone(), &dir, options)?;
    for damage in store.damage() {
        tracing::warn!("{damage}; nothing is lost, and it is being written anew");
    }
    for (file, what) in store.mended() {
        let file = file.display();
        tracing::warn!("{file}: {what}; nothing is lost, and it is being written anew");
    }
    if overhead == Overhead::FILE {
        tracing::info!(
            "  Store {id}:         {} messages of {} streams in {} segments with {} bytes{}, opened in {:.1?}",
            report.messages,
            report.streams,
            report.segments,
            report.segment_bytes,
            match report.leftovers {
                0 => String::new(),
                left => format!(", {left} files that a crash left"),
            },
            began.elapsed()
        );
    }
    Ok(store)
}

/// The stores of the groups below a node's directory, by the groups' numbers.
///
/// # Errors
/// The directory cannot be listed.
pub fn group_dirs(disk: &dyn Disk, node: &Path) -> std::io::Result<Vec<(u32, PathBuf)>> {
    let groups = node.join(GROUPS_DIR);
    let listed = disk.list(&groups)?.into_iter().filter(|entry| entry.is_dir);
    let numbered = listed.filter_map(|entry| Some((entry.name.parse().ok()?, entry.name)));
    let mut dirs: Vec<(u32, PathBuf)> = numbered
        .map(|(number, name)| (number, groups.join(name)))
        .collect();
    dirs.sort();
    Ok(dirs)
}

/// Starts the driver of a group.
pub(super) fn drive(group: &Arc<GroupHandle>, service: &Arc<JetStream>) -> JoinHandle<()> {
    let leader = Leader::new(service, group);
    let bell = service.erasure().bell.clone();
    let driver = Driver::new(group.clone(), leader, service.tuning(), bell);
    let abandoned = Arc::clone(group);
    let lost = move || abandoned.abandon("its driver panicked, which is a bug");
    let lane = service.lanes.of(group.storage());
    lane.spawn(task::vital(driver.run(), lost))
}

/// Flushes the meta group now and then, and earlier where that keeps the whole node's log from shrinking. Then does what its
/// store has to do, and verifies a piece of it.
pub(super) async fn flush_meta(service: Weak<JetStream>) {
    let mut flushed = Instant::now();
    loop {
        let interval = service
            .upgrade()
            .map(|service| service.tuning().flush_interval);
        let Some(interval) = interval else {
            return;
        };
        time::sleep(interval.min(LOG_LOOK)).await;
        let Some(service) = service.upgrade() else {
            return;
        };
        let is_due = flushed.elapsed() >= interval;
        if !is_due && !holds_a_long_log(&service) {
            continue;
        }
        flush_meta_now(&service).await;
        if !is_due {
            continue;
        }
        flushed = Instant::now();
        tend_meta(&service).await;
        let scrub = service.meta().machine().lock().store_mut().begin_scrub();
        if let Some(job) = scrub {
            run_meta_job(&service, job).await;
        }
    }
}

/// Whether the log is longer than the other group's flushes leave it because of an entry of the meta group: one that has just
/// come is worth waiting for more, but not at any price.
fn holds_a_long_log(service: &JetStream) -> bool {
    let long = (service.tuning().flush_bytes as u64).saturating_mul(LONG_LOG_FLUSHES);
    service.node().is_some_and(|node| {
        node.log_bytes() > long && node.log_pressure().iter().any(|(group, _)| *group == META)
    })
}

pub(super) async fn flush_meta_now(service: &JetStream) {
    let meta = service.meta();
    let job = {
        let mut machine = meta.machine().lock();
        if machine.fault().is_some() {
            return;
        }
        let applied = machine.applied();
        if machine.store().applied() == applied {
            drop(machine);
            // The log may have missed the end of the last flush.
            meta.flushed(applied);
            return;
        }
        machine.begin_flush()
    };
    if let Some(job) = job {
        run_meta_job(service, job).await;
    }
}

/// Does what the meta group's store has to do in the background.
pub(super) async fn tend_meta(service: &JetStream) {
    for _ in 0..META_JOBS_MAX {
        let job = {
            let mut machine = service.meta().machine().lock();
            if machine.fault().is_some() {
                return;
            }
            machine.store_mut().begin_maintenance()
        };
        let Some(job) = job else {
            return;
        };
        if !run_meta_job(service, job).await {
            return;
        }
    }
}

/// Whether it went well.
async fn run_meta_job(service: &JetStream, job: Job) -> bool {
    let held = service.meta_job.clone().lock_owned().await;
    let work = move || {
        let done = job.run();
        drop(held);
        done
    };
    let done = task::spawn_blocking(work).await;
    let meta = service.meta();
    let Ok(done) = done else {
        tracing::error!("the meta group stops serving: background work of its store panicked");
        meta.machine().lock().stop(Fault::Panicked);
        return false;
    };
    let finished = {
        let mut machine = meta.machine().lock();
        machine
            .store_mut()
            .finish(done)
            .map(|_| machine.store().applied())
    };
    match finished {
        Ok(applied) => {
            meta.flushed(applied);
            true
        }
        Err(error) => {
            tracing::error!("the meta group's store: {error}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_fits_into_the_reserve_of_every_disk() {
        for budget in [0, 20 << 20, 200 << 20, 500 << 20, 1 << 40, u64::MAX] {
            let tuning = Tuning::default().fitting(budget);
            assert!(
                tuning.reserve_bytes > tuning.flush_bytes as u64,
                "{tuning:?}"
            );
            assert!(tuning.reserve_bytes <= (budget / 32).max(RESERVE_BYTES_MIN));
            assert!(tuning.first_log_segment_bytes <= tuning.log_segment_bytes);
            assert_eq!(tuning.log_segment_bytes % 4096, 0);
        }
        let plenty = Tuning::default().fitting(64 << 30);
        assert_eq!(plenty.flush_bytes as u64, RESERVE_BYTES / 4 * 3);
        assert_eq!(plenty.file_bytes_max, FILE_BYTES_MAX);
    }

    #[test]
    fn what_is_kept_back_of_a_small_disk_is_a_small_part() {
        for budget in [20_u64 << 20, 128 << 20, 1 << 30] {
            let tuning = Tuning::default().fitting(budget);
            // The reserve, what a rewrite takes, the log with a flush's worth and its spares.
            let log = tuning.flush_bytes as u64 + 6 * tuning.log_segment_bytes;
            let kept = tuning.reserve_bytes + tuning.file_bytes_max / 2 + log;
            assert!(kept * 5 < budget, "{kept} of {budget}");
        }
    }
}
