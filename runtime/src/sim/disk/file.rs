//! An open file on a simulated disk.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Failure, SimDisk, State, device_error, fail};
use crate::disk::{File, OpenMode, SECTOR_BYTES};

const SECTOR: u64 = SECTOR_BYTES as u64;

pub(super) struct SimFile {
    disk: SimDisk,
    inode: u64,
    epoch: u64,
    mode: OpenMode,
    sync_cost_nanos: AtomicU64,
}

impl SimFile {
    pub(super) fn new(disk: SimDisk, inode: u64, epoch: u64, mode: OpenMode) -> Self {
        Self {
            disk,
            inode,
            epoch,
            mode,
            sync_cost_nanos: AtomicU64::new(0),
        }
    }

    fn operate<T>(&self, operation: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.disk.operate(Some(self.epoch), operation)
    }

    /// [`SimFile::operate`] for what changes the file.
    fn change<T>(&self, operation: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        if self.mode == OpenMode::Read {
            let text = "the file was opened for reading only";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        self.operate(operation)
    }
}

/// Damages what was read, as the disk's faults say.
fn disturb(state: &mut State, inode: u64, buffer: &mut [u8], offset: u64) {
    let sectors = (buffer.len() as u64) / SECTOR;
    if sectors == 0 {
        return;
    }
    let (stale, misdirected) = (
        state.faults.stale_read_ppm,
        state.faults.misdirected_read_ppm,
    );
    let within = state.random.below(sectors);
    let start = usize::try_from(within * SECTOR).unwrap_or(0);
    let Some(target) = buffer.get_mut(start..start + SECTOR_BYTES) else {
        return;
    };
    let Some(file) = state.inodes.get(&inode) else {
        return;
    };
    if state.random.chance(stale)
        && let Some(older) = file.older(offset / SECTOR + within)
    {
        target.copy_from_slice(older);
    }
    if state.random.chance(misdirected) {
        let elsewhere = state.random.below(file.cache_len.div_ceil(SECTOR).max(1));
        file.cache.read(elsewhere * SECTOR, target);
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.operate(|state| {
            let (errors, shorts) = (state.faults.read_error_ppm, state.faults.short_read_ppm);
            state.device(errors)?;
            let inode = state.inodes.get(&self.inode).ok_or_else(super::no_power)?;
            let there = inode
                .cache_len
                .saturating_sub(offset)
                .min(buffer.len() as u64);
            let mut count = usize::try_from(there).unwrap_or(usize::MAX);
            let range = offset / SECTOR..(offset + there).div_ceil(SECTOR);
            if there > 0 && inode.bad_sectors.range(range).next().is_some() {
                return Err(device_error());
            }
            if count > 1 && state.random.chance(shorts) {
                count = 1 + usize::try_from(state.random.below(there - 1)).unwrap_or(0);
            }
            let buffer = &mut buffer[..count];
            inode.cache.read(offset, buffer);
            disturb(state, self.inode, buffer, offset);
            Ok(count)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(|state| {
            let end = offset
                .checked_add(bytes.len() as u64)
                .ok_or(io::ErrorKind::FileTooLarge)?;
            let errors = state.faults.write_error_ppm;
            let inode = state.inodes.get(&self.inode).ok_or_else(super::no_power)?;
            let growth = end.saturating_sub(inode.taken);
            let path = inode.path.clone();
            state.reserve(growth, &path)?;
            let full = if growth > 0 {
                state.space(&path)
            } else {
                Ok(())
            };
            let failed = full.and_then(|()| state.device(errors));
            let count = if failed.is_err() {
                state.random.below(bytes.len() as u64 + 1)
            } else {
                u64::MAX
            };
            let count = usize::try_from(count)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            if let Some(inode) = state.inodes.get_mut(&self.inode) {
                inode.write(offset, &bytes[..count]);
            }
            failed
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.change(|state| {
            let inode = state.inodes.get(&self.inode).ok_or_else(super::no_power)?;
            let (growth, path) = (len.saturating_sub(inode.taken), inode.path.clone());
            state.reserve(growth, &path)?;
            if growth > 0 {
                state.space(&path)?;
            }
            state.device(0)?;
            if let Some(inode) = state.inodes.get_mut(&self.inode) {
                if inode.cache_len < len {
                    inode.set_len(len);
                }
                inode.taken = inode.taken.max(len);
            }
            Ok(())
        })?;
        self.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|state| {
            state.device(0)?;
            let inode = state
                .inodes
                .get_mut(&self.inode)
                .ok_or_else(super::no_power)?;
            inode.set_len(len);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.operate(|state| {
            state.device(0)?;
            let inode = state.inodes.get(&self.inode).ok_or_else(super::no_power)?;
            Ok(inode.cache_len)
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.operate(|state| {
            let planned = state.failing == Some(Failure::Device);
            let State {
                faults,
                random,
                inodes,
                freed,
                ..
            } = state;
            let inode = inodes.get_mut(&self.inode).ok_or_else(super::no_power)?;
            let (shortest, longest) = faults.sync_time;
            let longest = if random.chance(faults.stall_ppm) {
                faults.stall
            } else {
                longest
            };
            let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            let spread = nanos(longest).saturating_sub(nanos(shortest));
            let cost = nanos(shortest).saturating_add(random.below(spread.saturating_add(1)));
            self.sync_cost_nanos.store(cost, Ordering::Relaxed);
            if planned || random.chance(faults.sync_error_ppm) {
                inode.fail_sync(random, freed);
                return Err(fail(device_error().kind(), &inode.path));
            }
            if !faults.lying_sync {
                inode.sync(faults, random, freed);
            }
            Ok(())
        })
    }

    fn sync_cost(&self) -> Duration {
        Duration::from_nanos(self.sync_cost_nanos.load(Ordering::Relaxed))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.0.lock();
        // Handles of a dead process were counted off when it died.
        if state.epoch == self.epoch
            && let Some(inode) = state.inodes.get_mut(&self.inode)
        {
            inode.handles = inode.handles.saturating_sub(1);
            if inode.handles == 0 {
                state.free_unnamed();
            }
        }
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.inode)
    }
}
