//! A disk that does what disks do when nobody looks.
//!
//! What a program wrote is in the page cache; only a sync brings it to the platter, and only a sync of the directory
//! makes a name durable. When the power goes, each sector of 512 bytes that was not synced holds any of the versions that
//! it had since the last sync (so writes are lost, torn and reordered), the length is any that the file had, and names
//! fall back to some earlier moment. On top of that come the faults of [`DiskFaults`].
//!
//! Everything is drawn from the disk's own generator, so the disk also serves tests without a simulated world.
//!
//! `file` has the open files, `inode` one file's cache and platter, `names` the directories, `pages` sparse bytes.

mod file;
mod inode;
mod names;
mod pages;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use self::inode::Inode;
use self::names::{NameChange, Names};
use self::pages::Pages;
use crate::disk::{DirLock, Disk, Entry, File, OpenMode};

/// Which faults a disk has, how often, and how slow it is. The default is a fast, faultless disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFaults {
    /// Past this many bytes in all files every write fails with `StorageFull`.
    pub capacity_bytes: u64,
    /// How many of a million reads fail (EIO).
    pub read_error_ppm: u32,
    /// How many of a million writes fail (EIO), after a part of the bytes.
    pub write_error_ppm: u32,
    /// How many of a million syncs fail (EIO). What was to be synced stays readable, but a later sync that succeeds does
    /// not make it durable: Linux marks the pages clean.
    pub sync_error_ppm: u32,
    /// How many of a million syncs of a directory fail (EIO). The names stay as they are until the power goes.
    pub dir_sync_error_ppm: u32,
    /// How many of a million openings of a file fail (EMFILE), without any effect.
    pub open_error_ppm: u32,
    /// How many of a million renames and removals fail (EIO), without any effect.
    pub name_error_ppm: u32,
    /// How many of a million writes, allocations and creations find the disk full for a moment; of a write some bytes
    /// may have been written.
    pub full_ppm: u32,
    /// How many of a million reads return fewer bytes than there are.
    pub short_read_ppm: u32,
    /// How many of a million reads see one sector from another place of the file.
    pub misdirected_read_ppm: u32,
    /// How many of a million reads see one sector as it was before it was last written.
    pub stale_read_ppm: u32,
    /// How many of a million syncs write one sector to another place of the file; the cache hides it until a restart.
    pub misdirected_write_ppm: u32,
    /// How many of a million syncs leave one sector unwritten and say nothing.
    pub lost_write_ppm: u32,
    /// The shortest and the longest that a sync takes.
    pub sync_time: (Duration, Duration),
    /// How many of a million syncs take up to `stall` instead.
    pub stall_ppm: u32,
    /// The longest stall.
    pub stall: Duration,
    /// Every sync says that all is well and does nothing. Not a fault that a single copy can survive: it is for proving
    /// that a checker notices.
    pub lying_sync: bool,
}

impl Default for DiskFaults {
    fn default() -> Self {
        Self {
            capacity_bytes: u64::MAX,
            read_error_ppm: 0,
            write_error_ppm: 0,
            sync_error_ppm: 0,
            dir_sync_error_ppm: 0,
            open_error_ppm: 0,
            name_error_ppm: 0,
            full_ppm: 0,
            short_read_ppm: 0,
            misdirected_read_ppm: 0,
            stale_read_ppm: 0,
            misdirected_write_ppm: 0,
            lost_write_ppm: 0,
            sync_time: (Duration::ZERO, Duration::ZERO),
            stall_ppm: 0,
            stall: Duration::ZERO,
            lying_sync: false,
        }
    }
}

/// Where [`SimDisk::find`] found something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a file, as a reader sees it.
    Cache,
    /// On the platter, under a file that exists.
    Platter,
    /// On the platter, in space that was freed and not overwritten since.
    Freed,
}

/// One place that holds the bytes that were looked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The file, or the one that had the space before it was freed.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// In which of its lives.
    pub place: Place,
}

/// A simulated disk; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    faults: DiskFaults,
    random: Random,
    live: Names,
    durable: Names,
    /// Changes of names since the directories were synced, in order.
    pending: Vec<NameChange>,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// Counts power losses and process deaths: handles from before are dead.
    epoch: u64,
    locked: BTreeMap<PathBuf, u64>,
    freed: Vec<Freed>,
    operations: u64,
    crash_at: Option<u64>,
    on_crash: Option<Arc<dyn Fn() + Send + Sync>>,
    failure: Option<PlannedFailure>,
    /// The operation that runs now fails so, after it has done a part of its work.
    failing: Option<Failure>,
}

/// How an operation fails: see [`SimDisk::fail_after`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The device fails (EIO): of a write some bytes were written, of a sync some sectors are on the platter and the
    /// others never will be.
    Device,
    /// There is no space (ENOSPC) for what needs some: writes, of which some bytes were written, allocations, new files.
    /// Other operations succeed.
    Full,
}

/// See [`SimDisk::fail_after`].
#[derive(Clone, Copy)]
struct PlannedFailure {
    at: u64,
    how: Failure,
    lasts: bool,
}

/// What was on the platter where no file is any more.
struct Freed {
    path: PathBuf,
    bytes: Pages,
}

/// SplitMix64: every draw of a disk.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < u64::from(per_million)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }
}

/// What an operation on a machine without power gets.
fn no_power() -> io::Error {
    io::Error::other("this handle is from before the machine or the process died")
}

fn device_error() -> io::Error {
    const EIO: i32 = 5;
    io::Error::from_raw_os_error(EIO)
}

fn fail(kind: io::ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{} (simulated disk): {kind}", path.display()))
}

impl SimDisk {
    /// An empty disk whose every draw comes from `seed`.
    pub fn new(seed: u64, faults: DiskFaults) -> Self {
        Self(Arc::new(Mutex::new(State {
            faults,
            random: Random(seed),
            live: Names::default(),
            durable: Names::default(),
            pending: Vec::new(),
            inodes: BTreeMap::new(),
            next_inode: 0,
            epoch: 0,
            locked: BTreeMap::new(),
            freed: Vec::new(),
            operations: 0,
            crash_at: None,
            on_crash: None,
            failure: None,
            failing: None,
        })))
    }

    /// Changes its faults.
    pub fn set_faults(&self, change: impl FnOnce(&mut DiskFaults)) {
        change(&mut self.0.lock().faults);
    }

    /// The machine loses its power now: un-synced writes and names are lost in part, and every handle is dead.
    pub fn power_loss(&self) {
        self.0.lock().power_loss();
    }

    /// The process dies, the machine does not: nothing is lost, but every handle is dead and every lock free.
    pub fn process_died(&self) {
        let mut state = self.0.lock();
        state.epoch += 1;
        state.locked.clear();
        state
            .inodes
            .values_mut()
            .for_each(|inode| inode.handles = 0);
        state.free_unnamed();
    }

    /// How many operations there were. Every call of [`Disk`] and [`File`] that may touch the device is one.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Loses the power right at the operation that is `after` operations from now (0: the next one).
    pub fn crash_after(&self, after: u64) {
        let mut state = self.0.lock();
        state.crash_at = Some(state.operations + after + 1);
    }

    /// Takes back [`SimDisk::crash_after`].
    pub fn cancel_crash(&self) {
        self.0.lock().crash_at = None;
    }

    /// Fails the operation that is `after` operations from now (0: the next one); with `lasts` all after it, too.
    pub fn fail_after(&self, after: u64, how: Failure, lasts: bool) {
        let mut state = self.0.lock();
        let at = state.operations + after + 1;
        state.failure = Some(PlannedFailure { at, how, lasts });
    }

    /// Takes back [`SimDisk::fail_after`]; true when it had struck.
    pub fn cancel_failure(&self) -> bool {
        let mut state = self.0.lock();
        let operations = state.operations;
        state
            .failure
            .take()
            .is_some_and(|planned| planned.at <= operations)
    }

    /// True when [`SimDisk::crash_after`] has not struck yet.
    pub fn is_crash_armed(&self) -> bool {
        self.0.lock().crash_at.is_some()
    }

    /// What else happens when [`SimDisk::crash_after`] strikes; called without any lock of the disk.
    pub fn on_crash(&self, then: impl Fn() + Send + Sync + 'static) {
        self.0.lock().on_crash = Some(Arc::new(then));
    }

    /// Flips one bit of a file on the platter and in the cache, as decay would be seen after a restart. Returns the
    /// offset, or `None` when there is nothing to flip.
    pub fn rot(&self, path: &Path) -> Option<u64> {
        let mut state = self.0.lock();
        let len = state.inode_at(path)?.platter_len;
        if len == 0 {
            return None;
        }
        let offset = state.random.below(len);
        let mask = 1 << state.random.below(8);
        state.inode_at(path)?.flip(offset, mask);
        Some(offset)
    }

    /// Replaces up to a block of 4 KiB of a file by noise, on the platter and in the cache. Returns where and how much,
    /// or `None` when there is nothing to replace.
    pub fn rot_block(&self, path: &Path) -> Option<(u64, usize)> {
        let mut state = self.0.lock();
        let len = state.inode_at(path)?.platter_len;
        if len == 0 {
            return None;
        }
        let offset = state.random.below(len);
        let most = (len - offset).min(4096);
        let count = usize::try_from(1 + state.random.below(most)).unwrap_or(1);
        let noise: Vec<u8> = (0..count)
            .map(|_| state.random.next().to_le_bytes()[0])
            .collect();
        let inode = state.inode_at(path)?;
        inode.platter.write(offset, &noise);
        inode.cache.write(offset, &noise);
        Some((offset, count))
    }

    /// Cuts a file on the platter and in the cache, as a file system that lost a part of it would. False when there is
    /// no such file.
    pub fn truncate(&self, path: &Path, len: u64) -> bool {
        let mut state = self.0.lock();
        let Some(inode) = state.inode_at(path) else {
            return false;
        };
        inode.lose_after(len);
        true
    }

    /// A file's directory entry is lost, durably and without anybody having asked. False when there is no such file.
    pub fn lose_name(&self, path: &Path) -> bool {
        let mut state = self.0.lock();
        state.durable.files.remove(path);
        let was_there = state.live.files.remove(path).is_some();
        state.free_unnamed();
        was_there
    }

    /// Replaces bytes of a file on the platter and in the cache. False when there is no such file.
    pub fn damage(&self, path: &Path, offset: u64, bytes: &[u8]) -> bool {
        let mut state = self.0.lock();
        let Some(inode) = state.inode_at(path) else {
            return false;
        };
        inode.platter.write(offset, bytes);
        inode.cache.write(offset, bytes);
        true
    }

    /// Makes the sector at `offset` of a file unreadable until it is written again. False when there is no such file.
    pub fn break_sector(&self, path: &Path, offset: u64) -> bool {
        let mut state = self.0.lock();
        let Some(inode) = state.inode_at(path) else {
            return false;
        };
        inode
            .bad_sectors
            .insert(offset / crate::disk::SECTOR_BYTES as u64);
        true
    }

    /// Every file, sorted, with its length.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.0.lock();
        let len = |id: &u64| state.inodes.get(id).map_or(0, |inode| inode.cache_len);
        state
            .live
            .files
            .iter()
            .map(|(path, id)| (path.clone(), len(id)))
            .collect()
    }

    /// Every place that holds `needle`: files as they read, the platter under them, and space that was freed but never
    /// overwritten. Nothing that was ever written and not overwritten escapes it.
    ///
    /// # Panics
    /// When `needle` is empty.
    pub fn find(&self, needle: &[u8]) -> Vec<Found> {
        let found = self.find_with(needle, 0);
        found.into_iter().map(|(found, _)| found).collect()
    }

    /// The same with the `more` bytes that follow `needle` at each place (zeros beyond the end).
    ///
    /// # Panics
    /// When `needle` is empty.
    pub fn find_with(&self, needle: &[u8], more: usize) -> Vec<(Found, Vec<u8>)> {
        assert!(!needle.is_empty(), "nothing is everywhere");
        let state = self.0.lock();
        let mut found = Vec::new();
        let mut search = |path: &Path, bytes: &Pages, place: Place| {
            let at = |offset| {
                let mut following = vec![0; more];
                bytes.read(offset + needle.len() as u64, &mut following);
                let path = path.to_owned();
                let found = Found {
                    path,
                    offset,
                    place,
                };
                (found, following)
            };
            found.extend(bytes.find(needle).into_iter().map(at));
        };
        for inode in state.inodes.values() {
            search(&inode.path, &inode.cache, Place::Cache);
            search(&inode.path, &inode.platter, Place::Platter);
        }
        for freed in &state.freed {
            search(&freed.path, &freed.bytes, Place::Freed);
        }
        found.sort();
        found
    }

    /// Forgets what is in freed space, as if other files had taken it.
    pub fn overwrite_freed(&self) {
        self.0.lock().freed.clear();
    }

    /// Counts one operation and runs it, unless the power goes at it.
    fn operate<T>(
        &self,
        epoch: Option<u64>,
        operation: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.0.lock();
        if epoch.is_some_and(|epoch| epoch != state.epoch) {
            return Err(no_power());
        }
        state.operations += 1;
        state.failing = state.planned();
        if state.crash_at != Some(state.operations) {
            let outcome = operation(&mut state);
            state.failing = None;
            return outcome;
        }
        state.crash_at = None;
        // Half of the time the operation had begun. A sync that did never returned, so it promises nothing.
        let begun = state.random.coin().then(|| operation(&mut state));
        state.power_loss();
        let on_crash = state.on_crash.clone();
        drop(state);
        // Only now: what it opened takes the lock when it is dropped.
        drop(begun);
        if let Some(on_crash) = on_crash {
            on_crash();
        }
        Err(no_power())
    }
}

impl State {
    fn inode_at(&mut self, path: &Path) -> Option<&mut Inode> {
        let id = self.live.files.get(path)?;
        self.inodes.get_mut(id)
    }

    /// How the operation that begins now fails, if it was planned.
    fn planned(&self) -> Option<Failure> {
        let planned = self.failure?;
        let strikes =
            planned.at == self.operations || (planned.lasts && planned.at < self.operations);
        strikes.then_some(planned.how)
    }

    /// Fails an operation that does nothing by halves: with the planned failure of the device, or by chance.
    fn device(&mut self, per_million: u32) -> io::Result<()> {
        if self.failing == Some(Failure::Device) || self.random.chance(per_million) {
            return Err(device_error());
        }
        Ok(())
    }

    /// Fails an operation that needs space, for a moment.
    fn space(&mut self, path: &Path) -> io::Result<()> {
        let full = self.faults.full_ppm;
        if self.failing == Some(Failure::Full) || self.random.chance(full) {
            return Err(fail(io::ErrorKind::StorageFull, path));
        }
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        self.inodes.values().map(|inode| inode.taken).sum()
    }

    /// Fails when `growth` more bytes do not fit.
    fn reserve(&self, growth: u64, path: &Path) -> io::Result<()> {
        if growth > 0 && self.used_bytes().saturating_add(growth) > self.faults.capacity_bytes {
            return Err(fail(io::ErrorKind::StorageFull, path));
        }
        Ok(())
    }

    fn rename_in_memory(&mut self, change: NameChange) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    /// Frees the files that no name leads to, now or after a loss of power.
    fn free_unnamed(&mut self) {
        let named = |id: &u64| {
            self.live.files.values().any(|other| other == id)
                || self.durable.files.values().any(|other| other == id)
                || self
                    .pending
                    .iter()
                    .any(|change| change.inode() == Some(*id))
        };
        let unnamed: Vec<u64> = self
            .inodes
            .keys()
            .copied()
            .filter(|id| !named(id))
            .collect();
        for id in unnamed {
            // Open handles keep the bytes readable; on the platter they are free, and a later write is not modelled.
            if let Some(inode) = self.inodes.get(&id)
                && inode.handles == 0
                && let Some(inode) = self.inodes.remove(&id)
            {
                let Inode {
                    path,
                    platter,
                    cache,
                    ..
                } = inode;
                self.freed.push(Freed {
                    path: path.clone(),
                    bytes: platter,
                });
                self.freed.push(Freed { path, bytes: cache });
            }
        }
    }

    fn power_loss(&mut self) {
        self.epoch += 1;
        self.locked.clear();
        self.crash_at = None;
        let pending = std::mem::take(&mut self.pending);
        names::survive(&mut self.durable, pending, &mut self.random);
        self.live = self.durable.clone();
        for inode in self.inodes.values_mut() {
            inode.power_loss(&mut self.random, &mut self.freed);
            inode.handles = 0;
        }
        self.free_unnamed();
        for (path, id) in &self.live.files {
            if let Some(inode) = self.inodes.get_mut(id) {
                inode.path.clone_from(path);
            }
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let (id, epoch) = self.operate(None, |state| {
            let failing = state.faults.open_error_ppm;
            state.device(failing).map_err(crate::disk::harmless)?;
            if state.live.is_dir(path) {
                return Err(fail(io::ErrorKind::IsADirectory, path));
            }
            let creates = matches!(mode, OpenMode::Create | OpenMode::CreateNew);
            let id = match state.live.files.get(path) {
                Some(_) if mode == OpenMode::CreateNew => {
                    return Err(fail(io::ErrorKind::AlreadyExists, path));
                }
                Some(id) => *id,
                None if creates && state.live.has_parent(path) => {
                    state.space(path)?;
                    state.next_inode += 1;
                    let id = state.next_inode;
                    state.inodes.insert(id, Inode::new(path));
                    state.rename_in_memory(NameChange::Create {
                        path: path.to_owned(),
                        inode: id,
                    });
                    id
                }
                None => return Err(fail(io::ErrorKind::NotFound, path)),
            };
            if let Some(inode) = state.inodes.get_mut(&id) {
                inode.handles += 1;
            }
            Ok((id, state.epoch))
        })?;
        Ok(Arc::new(file::SimFile::new(self.clone(), id, epoch, mode)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.operate(None, |state| {
            state.device(0)?;
            let mut missing: Vec<&Path> = path.ancestors().collect();
            missing.retain(|dir| !state.live.is_dir(dir));
            if let Some(file) = missing
                .iter()
                .find(|dir| state.live.files.contains_key(**dir))
            {
                return Err(fail(io::ErrorKind::NotADirectory, file));
            }
            for dir in missing.into_iter().rev() {
                state.rename_in_memory(NameChange::MakeDir {
                    path: dir.to_owned(),
                });
            }
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(None, |state| {
            state.device(state.faults.name_error_ppm)?;
            if state.live.is_dir(to) || !state.live.has_parent(to) {
                return Err(fail(io::ErrorKind::NotFound, to));
            }
            let id = state.live.files.get(from).copied();
            let id = id.ok_or_else(|| fail(io::ErrorKind::NotFound, from))?;
            let (from, to) = (from.to_owned(), to.to_owned());
            if let Some(inode) = state.inodes.get_mut(&id) {
                inode.path.clone_from(&to);
            }
            state.rename_in_memory(NameChange::Rename {
                from,
                to,
                inode: id,
            });
            state.free_unnamed();
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.operate(None, |state| {
            state.device(state.faults.name_error_ppm)?;
            if !state.live.files.contains_key(path) {
                return Err(fail(io::ErrorKind::NotFound, path));
            }
            state.rename_in_memory(NameChange::Remove {
                path: path.to_owned(),
            });
            state.free_unnamed();
            Ok(())
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.operate(None, |state| {
            state.device(state.faults.name_error_ppm)?;
            if !state.live.dirs.contains(path) {
                return Err(fail(io::ErrorKind::NotFound, path));
            }
            if state.live.has_children(path) {
                return Err(fail(io::ErrorKind::DirectoryNotEmpty, path));
            }
            state.rename_in_memory(NameChange::RemoveDir {
                path: path.to_owned(),
            });
            Ok(())
        })
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.operate(None, |state| {
            state.device(0).map_err(crate::disk::harmless)?;
            Ok(state.live.is_dir(path) || state.live.files.contains_key(path))
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.operate(None, |state| {
            state.device(0)?;
            if !state.live.is_dir(path) {
                return Err(fail(io::ErrorKind::NotFound, path));
            }
            let len = |id: &u64| state.inodes.get(id).map_or(0, |inode| inode.cache_len);
            Ok(state.live.list(path, len))
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.operate(None, |state| {
            if !state.live.is_dir(path) {
                return Err(fail(io::ErrorKind::NotFound, path));
            }
            state.device(state.faults.dir_sync_error_ppm)?;
            if !state.faults.lying_sync {
                let all = std::mem::take(&mut state.pending);
                let (here, elsewhere) = all.into_iter().partition(|change| change.is_in(path));
                state.pending = elsewhere;
                let here: Vec<NameChange> = here;
                here.iter()
                    .for_each(|change| change.apply(&mut state.durable));
                state.free_unnamed();
            }
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> io::Result<DirLock> {
        self.operate(None, |state| {
            state.device(0)?;
            if state.locked.contains_key(path) {
                let text = format!("{} is locked: another process is using it", path.display());
                return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
            }
            state.locked.insert(path.to_owned(), state.epoch);
            let held = SimLock {
                disk: self.clone(),
                path: path.to_owned(),
                epoch: state.epoch,
            };
            Ok(DirLock::new(held))
        })
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        self.operate(None, |state| {
            state.device(0)?;
            Ok(state
                .faults
                .capacity_bytes
                .saturating_sub(state.used_bytes()))
        })
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    epoch: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.0.lock();
        // A task of a dead process may be destroyed after the next one has taken the lock.
        if state.locked.get(&self.path) == Some(&self.epoch) && state.epoch == self.epoch {
            state.locked.remove(&self.path);
        }
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}
