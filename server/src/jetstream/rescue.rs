//! What a data directory holds, read past damage and without a change: for a start that serves what is sound, and for
//! `halyard store`.
//!
//! A log of which a record in the middle cannot be read may not be written any more: what stands behind the bad place would be
//! cut off, and nobody knows which streams the lost commands were for, or which sequences they gave. So the server starts
//! without writing to its directory at all ([`open`]): the streams on disk are as they were before the first lost command,
//! they are read and not changed, and what may be missing of them answers an error. Memory streams and core NATS go on as
//! always. `halyard store salvage` brings what is sound into another directory. docs/decisions/damaged-log.md says why.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use halyard_engine::{Encryption, HashKey, Mended, Options, Overhead, Store, StreamId, Timestamp};
use halyard_raft::{self as raft, GroupId, LogImage, Machine as _};
use halyard_runtime::disk::{DirLock, Disk, MemDisk, OpenMode};
use halyard_runtime::random;
use parking_lot::Mutex;

use super::config::Storage;
use super::group;
use super::handle::GroupHandle;
use super::lanes::Lanes;
use super::meta::{self, Assignment};
use super::start::{self, FILE, GROUPS_DIR, MEMORY, META, Opened, Settings, StartError};
use super::stream::machine::Fault;
use crate::broker::Admission;

/// A data directory as far as it can be read.
pub struct Rescue {
    identity: Option<raft::Identity>,
    /// The log.
    pub log: LogImage,
    /// Which streams there are.
    pub meta: meta::Machine,
    /// The streams on disk.
    pub file: group::Machine,
    /// Where the streams' changes end before those that were acknowledged: what is missing first.
    pub meta_lacks: Option<Fault>,
    /// The same of the messages.
    pub file_lacks: Option<Fault>,
    /// Everything that is not as it was written, for people.
    pub findings: Vec<String>,
    /// What the next opening puts right by itself.
    pub mended: Vec<String>,
}

/// One group's store.
struct Held {
    store: Store,
    lacks: Option<Fault>,
}

impl Rescue {
    /// Whose directory it is, and how often its log was opened.
    #[must_use]
    pub fn identity(&self) -> Option<raft::Identity> {
        let identity = self.identity.clone()?;
        Some(raft::Identity {
            boots: identity.boots.max(self.log.boots),
            ..identity
        })
    }

    /// Reads the directory of a node. Nothing is written; the log's tail is held in memory.
    ///
    /// # Errors
    /// The key is wrong, a file is of a newer release, or what all depends on cannot be read at all.
    pub fn read(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        encryption: Option<&Encryption>,
    ) -> Result<Self, StartError> {
        let log = LogImage::read(disk, dir, encryption)?;
        let identity = raft::Identity::read(disk, dir)?;
        let mut findings: Vec<String> = log.damage.iter().map(ToString::to_string).collect();
        if let (Some(refusal), true) = (&log.refusal, findings.is_empty()) {
            findings.push(refusal.to_string());
        }
        let mut mended = log.mended.clone();
        let number = |id: StreamId| id.0.to_string();
        let mut open = |id, name: &dyn Fn(StreamId) -> String| {
            open_store(
                (disk, dir, encryption),
                id,
                name,
                &mut findings,
                &mut mended,
            )
        };
        let meta = open(META, &number)?;
        let mut meta_lacks = meta.lacks;
        let mut meta = meta::Machine::open(meta.store)?;
        if meta_lacks.is_none() {
            let image = log.group(META);
            let (entries, gap) = image.after(meta.applied());
            for entry in entries {
                if let Some(payload) = &entry.payload {
                    refuse_unreadable(meta.check(payload), dir, META, entry)?;
                    meta.apply(entry.id(), payload);
                }
            }
            meta_lacks = gap.map(|gap| missing(&log, dir, META, &gap));
        }
        let file = open(FILE, &|id| {
            let known = meta.all().find(|(_, one)| one.stream_id() == id);
            known.map_or_else(|| number(id), |(_, one)| one.config.name.clone())
        })?;
        let mut file_lacks = file.lacks;
        let mut file = match file_lacks {
            None => group::Machine::open(file.store)?,
            Some(_) => group::Machine::open_past_damage(file.store, &mut findings)?,
        };
        if file_lacks.is_none() {
            let image = log.group(FILE);
            let (entries, gap) = image.after(file.applied());
            for entry in entries {
                if let Some(payload) = &entry.payload {
                    refuse_unreadable(file.check(payload), dir, FILE, entry)?;
                    file.apply(entry.id(), payload);
                }
            }
            file_lacks = gap.map(|gap| missing(&log, dir, FILE, &gap));
        }
        if file_lacks.is_some() {
            for (_, one) in meta.all().filter(|(_, one)| one.phase == meta::Phase::Live) {
                let created = Timestamp::from_nanos(one.created);
                file.adopt(one.stream_id(), one.config.clone(), created);
            }
        }
        for lacks in [&meta_lacks, &file_lacks].into_iter().flatten() {
            let text = lacks.to_string();
            if !findings.contains(&text) {
                findings.push(text);
            }
        }
        Ok(Self {
            identity,
            log,
            meta,
            file,
            meta_lacks,
            file_lacks,
            findings,
            mended,
        })
    }

    /// The streams with their accounts: what meta says, and where that is not complete those of the store that it does not
    /// know, under the global account.
    #[must_use]
    pub fn assignments(&self, global: &str) -> Vec<(String, Assignment)> {
        let known = self.meta.all();
        let mut all: Vec<(String, Assignment)> = known
            .filter(|(_, one)| one.phase == meta::Phase::Live)
            .map(|(account, one)| (account.to_owned(), one.clone()))
            .collect();
        if self.meta_lacks.is_none() {
            return all;
        }
        let ids: Vec<u64> = self.meta.all().map(|(_, one)| one.id).collect();
        for stream in self.file.streams() {
            if !ids.contains(&stream.id().0) {
                let assignment = Assignment {
                    id: stream.id().0,
                    config: stream.config().clone(),
                    created: stream.created().as_nanos(),
                    revision: 1,
                    phase: meta::Phase::Live,
                };
                all.push((global.to_owned(), assignment));
            }
        }
        all
    }
}

/// An entry of a newer release is no damage, and nothing after it means anything here.
fn refuse_unreadable(
    checked: Result<(), raft::Unreadable>,
    dir: &Path,
    group: GroupId,
    entry: &raft::EntryImage,
) -> Result<(), raft::Error> {
    checked.map_err(|unreadable| raft::Error::Unreadable {
        path: dir.join(LOG),
        group,
        index: entry.index,
        what: unreadable.0,
    })
}

/// What is missing of a group's log, with the place that is to blame.
fn missing(
    log: &LogImage,
    dir: &Path,
    group: GroupId,
    gap: &std::ops::RangeInclusive<u64>,
) -> Fault {
    let first = gap.start();
    let entries = match *gap.end() {
        u64::MAX => format!("entries of group {group} from {first} on may be missing"),
        last => format!("entries {first} to {last} of group {group} are missing"),
    };
    let blamed = |damage: &&raft::LogDamage| {
        damage.entries.is_empty()
            || damage.entries.iter().any(|(of, lost)| {
                *of == group && lost.start() <= gap.end() && gap.start() <= lost.end()
            })
    };
    let damage = log.damage.iter().find(blamed).or(log.damage.first());
    let (file, offset, what) = damage.map_or_else(
        || (dir.join("log"), 0, String::new()),
        |damage| {
            (
                damage.file.clone(),
                damage.offset,
                format!("{}: ", damage.what),
            )
        },
    );
    Fault::Corrupt {
        file,
        offset,
        what: format!("{what}{entries}, and what follows is not applied"),
    }
}

fn group_dir(dir: &Path, id: GroupId) -> PathBuf {
    dir.join(GROUPS_DIR).join(id.0.to_string())
}

fn open_store(
    (disk, dir, encryption): (&Arc<dyn Disk>, &Path, Option<&Encryption>),
    id: GroupId,
    name: &dyn Fn(StreamId) -> String,
    findings: &mut Vec<String>,
    mended: &mut Vec<String>,
) -> Result<Held, StartError> {
    let dir = group_dir(dir, id);
    let options = Options {
        overhead: Overhead::FILE,
        encryption: encryption.cloned(),
        reserve_bytes: 0,
        hash_key: HashKey::new(std::array::from_fn(|_| random::u64())),
        ..Options::default()
    };
    if !disk.exists(&dir).unwrap_or(false) {
        // Opening makes what is missing, which is not for us to do there.
        let nowhere: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let (store, _) = Store::open(nowhere, &dir, options)?;
        return Ok(Held { store, lacks: None });
    }
    let (store, lacks) = match Store::open(disk.clone(), &dir, options.clone()) {
        Ok((store, _)) => (store, None),
        Err(error @ Fault::Corrupt { .. }) => {
            let (store, damage) = Store::open_past_damage(disk.clone(), &dir, options)?;
            findings.extend(damage.iter().map(|damage| damage.tell(name)));
            (
                store,
                Some(damage.into_iter().next().map_or(error, |first| first.error)),
            )
        }
        Err(error) => return Err(error.into()),
    };
    // A damaged copy of the manifest takes nothing with it.
    mended.extend(store.damage().iter().map(ToString::to_string));
    let tell =
        |(path, what): (PathBuf, Mended)| format!("{}: {what}; nothing is lost", path.display());
    mended.extend(store.mended().into_iter().map(tell));
    Ok(Held { store, lacks })
}

/// Where a new log is made, below the node's directory.
const RENEWED: &str = "renewed";
/// What the old one is called while the new one takes its place.
const OLD_LOG: &str = "log.old";
const LOG: &str = "log";

/// Ends what a crash has left of [`renew`].
pub(super) fn end_renewal(disk: &dyn Disk, dir: &Path) -> std::io::Result<()> {
    let (log, old, renewed) = (dir.join(LOG), dir.join(OLD_LOG), dir.join(RENEWED));
    if !disk.exists(&old)? && !disk.exists(&renewed)? {
        return Ok(());
    }
    if !disk.exists(&old)? {
        // A new log that did not take its place yet: whatever it is, the old one counts.
        return remove(disk, &renewed);
    }
    if !disk.exists(&log)? {
        disk.rename(&renewed.join(LOG), &log)?;
        disk.sync_dir(dir)?;
    }
    remove(disk, &renewed)?;
    remove(disk, &old)
}

/// Overwrites and removes the files of a directory, and then the directory where the disk can do that.
fn remove(disk: &dyn Disk, dir: &Path) -> std::io::Result<()> {
    if !disk.exists(dir)? {
        return Ok(());
    }
    for entry in disk.list(dir)? {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            remove(disk, &path)?;
            continue;
        }
        let file = disk.open(&path, OpenMode::ReadWrite)?;
        let (len, zeros) = (file.len()?, vec![0; 1 << 20]);
        let mut at = 0;
        while at < len {
            let piece = zeros
                .get(..(len - at).min(1 << 20) as usize)
                .unwrap_or(&zeros);
            file.write_at(piece, at)?;
            at += piece.len() as u64;
        }
        file.sync()?;
        disk.remove_file(&path)?;
    }
    disk.remove_dir(dir)?;
    disk.sync_dir(dir.parent().unwrap_or(dir))
}

/// Where the log is damaged, but nothing of it is missing that the stores do not hold: writes the rest of it to the stores, and
/// puts a new log into its place. Whether that was done.
async fn renew(settings: &Settings, rescue: &mut Rescue) -> Result<bool, StartError> {
    let is_log = matches!(rescue.log.refusal, Some(raft::Error::Corrupt { .. }));
    let lacks = rescue.meta_lacks.is_some() || rescue.file_lacks.is_some();
    let is_served = rescue.meta.fault().is_none() && rescue.file.fault().is_none();
    let (meta, file) = (rescue.log.group(META).last(), rescue.log.group(FILE).last());
    let (Some(meta), Some(file)) = (meta, file) else {
        return Ok(false);
    };
    if !is_log || lacks || !is_served || !rescue.file.halted().is_empty() {
        return Ok(false);
    }
    if let Some(job) = rescue.meta.begin_flush() {
        let done = job.run();
        rescue.meta.store_mut().finish(done)?;
    }
    if let Some(job) = rescue.file.begin_flush()? {
        let done = job.run();
        rescue.file.store_mut().finish(done)?;
    }
    let holds = |applied: u64, renewed: &raft::Renewed| applied + 1 >= renewed.payload_end;
    if !holds(rescue.meta.store().applied(), &meta) || !holds(rescue.file.store().applied(), &file)
    {
        return Ok(false);
    }
    let (disk, dir) = (&settings.disk, &settings.data_dir);
    let failed = |source| StartError::Renewal {
        path: dir.join(LOG),
        source: Arc::new(source),
    };
    remove(&**disk, &dir.join(RENEWED)).map_err(failed)?;
    let identity = raft::Identity::read(disk, dir)?;
    let options = raft::NodeOptions {
        dir: dir.join(RENEWED),
        // The node is the same: its log is another one.
        node_id: identity.map(|identity| identity.node),
        ..settings.tuning.node_options(disk.clone(), settings)
    };
    raft::renew(options, &BTreeMap::from([(META, meta), (FILE, file)])).await?;
    disk.rename(&dir.join(LOG), &dir.join(OLD_LOG))
        .map_err(failed)?;
    disk.sync_dir(dir).map_err(failed)?;
    end_renewal(&**disk, dir).map_err(failed)?;
    Ok(true)
}

/// What a server that was started past damage has to tell.
pub(super) struct Degraded {
    /// Why it was started so, first of all; then every place.
    pub(super) findings: Vec<String>,
    /// Refuses changes.
    pub(super) lacks: Fault,
    /// Keeps other processes away from the directory.
    _lock: Option<DirLock>,
}

/// Opens what can be read of a directory that cannot be opened as it should, because of `why`. Nothing is written to it, unless
/// nothing is missing: then it is put right and `None` returned, and can be opened as always.
pub(super) async fn open(
    settings: &Settings,
    admission: &Arc<Admission>,
    lanes: &Lanes,
    why: StartError,
) -> Result<Option<Opened>, StartError> {
    let (disk, dir) = (&settings.disk, &settings.data_dir);
    let lock = disk.lock(&dir.join("LOCK"));
    if matches!(&lock, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock) {
        return Err(why);
    }
    let read = {
        let (disk, dir, encryption) = (disk.clone(), dir.clone(), settings.encryption.clone());
        let reading = move || Rescue::read(&disk, &dir, encryption.as_ref());
        halyard_runtime::task::spawn_blocking(reading).await
    };
    let mut rescue = match read {
        Ok(Ok(rescue)) => rescue,
        Ok(Err(error)) => {
            tracing::error!("nothing of the store can be read: {error}");
            return Err(why);
        }
        Err(_) => return Err(why),
    };
    tracing::error!("{why}");
    for finding in &rescue.findings {
        tracing::error!("Damage: {finding}");
    }
    match renew(settings, &mut rescue).await {
        Ok(true) => {
            tracing::warn!(
                "Nothing of the damaged part of the log was needed: it is all in the stores, and a new log has taken its place"
            );
            return Ok(None);
        }
        Ok(false) => {}
        Err(error) => tracing::error!("the log cannot be renewed: {error}"),
    }
    tracing::error!(
        "JetStream starts READ-ONLY, as nothing may be written over damage: streams on disk are as they were before it, and take \
         no changes; memory streams are not concerned. Put the file back from a copy, or bring what is sound into a new store \
         with: halyard store salvage {} --to DIR",
        dir.display()
    );
    let assignments = rescue.assignments(crate::broker::GLOBAL_ACCOUNT);
    let Rescue {
        mut meta,
        mut file,
        meta_lacks,
        file_lacks,
        mut findings,
        ..
    } = rescue;
    let why_text = why.to_string();
    let lacks = file_lacks.or(meta_lacks).unwrap_or_else(|| Fault::Corrupt {
        file: dir.clone(),
        offset: 0,
        what: why_text.clone(),
    });
    if findings.is_empty() {
        findings.push(why_text);
    }
    for (_, assignment) in &assignments {
        file.halt(assignment.stream_id(), &lacks);
    }
    meta.serve_only(assignments);
    meta.stop(lacks.clone());
    let ram: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let opening = async {
        let options = raft::NodeOptions::new(ram.clone(), dir, None);
        let node = raft::Node::open(options.in_memory())?;
        let meta = node
            .start_group(META, Arc::new(Mutex::new(meta)), 0)
            .await?;
        Ok::<_, StartError>((node, meta))
    };
    let (node, meta) = lanes.requests.within(opening).await?;
    let machine = Arc::new(Mutex::new(file));
    let starting = node.start_group(FILE, machine.clone(), 0);
    let raft = lanes.of(Storage::File).within(starting).await?;
    let file = GroupHandle::new(Storage::File, machine, raft, Arc::clone(admission));
    let opening = start::open_group(&node, &ram, settings, MEMORY, Storage::Memory);
    let (raft, machine) = lanes.of(Storage::Memory).within(opening).await?;
    let memory = GroupHandle::new(Storage::Memory, machine, raft, Arc::clone(admission));
    file.abandon("its data is damaged, and is only read");
    Ok(Some(Opened {
        nodes: vec![node],
        meta,
        file,
        memory,
        degraded: Some(Degraded {
            findings,
            lacks,
            _lock: lock.ok(),
        }),
    }))
}

/// Whether a start that failed so can be tried past the damage.
pub(super) const fn is_damage(error: &StartError) -> bool {
    matches!(
        error,
        StartError::Log(raft::Error::Corrupt { .. } | raft::Error::Mismatch { .. })
            | StartError::Store(Fault::Corrupt { .. })
            | StartError::Group(group::OpenError::Store(Fault::Corrupt { .. }))
    )
}
