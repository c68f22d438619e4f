//! One simulated file: what readers see, what is on the platter, and the changes in between.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::pages::Pages;
use super::{DiskFaults, Freed, Random};
use crate::disk::SECTOR_BYTES;

const SECTOR: u64 = SECTOR_BYTES as u64;

#[derive(Debug)]
pub(super) struct Inode {
    /// The name that it had last.
    pub(super) path: PathBuf,
    pub(super) cache: Pages,
    pub(super) cache_len: u64,
    /// Bytes from its start on that take space: beyond lies only what a longer length has added.
    pub(super) taken: u64,
    pub(super) platter: Pages,
    pub(super) platter_len: u64,
    /// What was done since the last sync, in order.
    pending: Vec<Change>,
    /// Sectors that cannot be read.
    pub(super) bad_sectors: BTreeSet<u64>,
    /// What sectors held before they were last written to the platter.
    older: BTreeMap<u64, [u8; SECTOR_BYTES]>,
    /// Open handles of the living process.
    pub(super) handles: usize,
}

#[derive(Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

/// What a power loss or a failed sync does to the sectors of one file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lost,
    Written,
    Torn,
}

fn sectors(offset: u64, len: u64) -> std::ops::Range<u64> {
    if len == 0 {
        0..0
    } else {
        offset / SECTOR..(offset + len).div_ceil(SECTOR)
    }
}

impl Inode {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            cache: Pages::default(),
            cache_len: 0,
            taken: 0,
            platter: Pages::default(),
            platter_len: 0,
            pending: Vec::new(),
            bad_sectors: BTreeSet::new(),
            older: BTreeMap::new(),
            handles: 0,
        }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.cache.write(offset, bytes);
        let end = offset + bytes.len() as u64;
        self.cache_len = self.cache_len.max(end);
        self.taken = self.taken.max(end);
        for sector in sectors(offset, bytes.len() as u64) {
            self.bad_sectors.remove(&sector);
        }
        self.pending.push(Change::Write {
            offset,
            bytes: bytes.to_vec(),
        });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.cache_len {
            drop(self.cache.cut(len));
        }
        self.cache_len = len;
        self.taken = self.taken.min(len);
        self.pending.push(Change::Length(len));
    }

    /// Forgets everything from `len` on, on the platter and in the cache.
    pub(super) fn lose_after(&mut self, len: u64) {
        for (bytes, has) in [
            (&mut self.platter, &mut self.platter_len),
            (&mut self.cache, &mut self.cache_len),
        ] {
            if len < *has {
                drop(bytes.cut(len));
                *has = len;
            }
        }
        self.taken = self.taken.min(len);
    }

    /// Flips bits on the platter and in the cache.
    pub(super) fn flip(&mut self, offset: u64, mask: u8) {
        let mut byte = [0];
        for bytes in [&mut self.platter, &mut self.cache] {
            bytes.read(offset, &mut byte);
            bytes.write(offset, &[byte[0] ^ mask]);
        }
    }

    /// Brings everything to the platter, but for what `faults` says.
    pub(super) fn sync(
        &mut self,
        faults: &DiskFaults,
        random: &mut Random,
        freed: &mut Vec<Freed>,
    ) {
        let pending = std::mem::take(&mut self.pending);
        let written: BTreeSet<u64> = pending
            .iter()
            .filter_map(|change| match change {
                Change::Write { offset, bytes } => Some(sectors(*offset, bytes.len() as u64)),
                Change::Length(_) => None,
            })
            .flatten()
            .collect();
        if faults.stale_read_ppm > 0 || faults.misdirected_write_ppm + faults.lost_write_ppm > 0 {
            self.remember(&written);
        }
        for change in &pending {
            self.apply(change, freed);
        }
        let pick = random.below(written.len() as u64);
        let Some(sector) = written.into_iter().nth(usize::try_from(pick).unwrap_or(0)) else {
            return;
        };
        if random.chance(faults.lost_write_ppm) {
            self.restore_older(sector);
        } else if random.chance(faults.misdirected_write_ppm) {
            let mut astray = [0; SECTOR_BYTES];
            self.platter.read(sector * SECTOR, &mut astray);
            self.restore_older(sector);
            let elsewhere = random.below(self.platter_len.div_ceil(SECTOR).max(1));
            self.platter.write(elsewhere * SECTOR, &astray);
        }
    }

    fn remember(&mut self, written: &BTreeSet<u64>) {
        for sector in written {
            let mut before = [0; SECTOR_BYTES];
            self.platter.read(sector * SECTOR, &mut before);
            self.older.insert(*sector, before);
        }
    }

    fn restore_older(&mut self, sector: u64) {
        if let Some(older) = self.older.get(&sector) {
            self.platter.write(sector * SECTOR, older);
        }
    }

    /// What a sector held before it was last written.
    pub(super) fn older(&self, sector: u64) -> Option<&[u8; SECTOR_BYTES]> {
        self.older.get(&sector)
    }

    fn apply(&mut self, change: &Change, freed: &mut Vec<Freed>) {
        match change {
            Change::Write { offset, bytes } => {
                self.platter.write(*offset, bytes);
                self.platter_len = self.platter_len.max(offset + bytes.len() as u64);
            }
            Change::Length(len) => self.set_platter_len(*len, freed),
        }
    }

    fn set_platter_len(&mut self, len: u64, freed: &mut Vec<Freed>) {
        if len < self.platter_len {
            let bytes = self.platter.cut(len);
            freed.push(Freed {
                path: self.path.clone(),
                bytes,
            });
        }
        self.platter_len = len;
    }

    /// A sync that failed: some sectors were written, the rest never will be, and the cache hides it.
    pub(super) fn fail_sync(&mut self, random: &mut Random, freed: &mut Vec<Freed>) {
        self.settle(Fate::Torn, random, freed);
    }

    /// The power goes: what was not synced is lost, written or torn, and the cache is gone.
    pub(super) fn power_loss(&mut self, random: &mut Random, freed: &mut Vec<Freed>) {
        let fate = match random.below(3) {
            0 => Fate::Lost,
            1 => Fate::Written,
            _ => Fate::Torn,
        };
        self.settle(fate, random, freed);
        self.cache = self.platter.clone();
        self.taken = if self.platter_len > self.cache_len {
            self.platter_len
        } else {
            self.taken.min(self.platter_len)
        };
        self.cache_len = self.platter_len;
    }

    fn settle(&mut self, fate: Fate, random: &mut Random, freed: &mut Vec<Freed>) {
        let pending = std::mem::take(&mut self.pending);
        match fate {
            Fate::Lost => {}
            Fate::Written => pending.iter().for_each(|change| self.apply(change, freed)),
            Fate::Torn => self.tear(&pending, random, freed),
        }
    }

    /// Applies some of the changes. A change that shortens the file splits them: up to some such change all have
    /// happened, and after it each sector holds any version that it had until the next one.
    fn tear(&mut self, pending: &[Change], random: &mut Random, freed: &mut Vec<Freed>) {
        let mut parts: Vec<&[Change]> = Vec::new();
        let mut start = 0;
        let mut len = self.platter_len;
        for (at, change) in pending.iter().enumerate() {
            match change {
                Change::Write { offset, bytes } => len = len.max(offset + bytes.len() as u64),
                Change::Length(to) => {
                    if *to < len {
                        parts.push(&pending[start..at]);
                        start = at;
                    }
                    len = *to;
                }
            }
        }
        parts.push(&pending[start..]);
        let torn = usize::try_from(random.below(parts.len() as u64)).unwrap_or(0);
        for change in parts[..torn].iter().copied().flatten() {
            self.apply(change, freed);
        }
        self.tear_part(parts[torn], random, freed);
    }

    fn tear_part(&mut self, part: &[Change], random: &mut Random, freed: &mut Vec<Freed>) {
        let mut part = part;
        if let [Change::Length(to), rest @ ..] = part
            && *to < self.platter_len
        {
            // The cut that begins this part.
            self.set_platter_len(*to, freed);
            part = rest;
        }
        let mut by_sector: BTreeMap<u64, Vec<(u64, &[u8])>> = BTreeMap::new();
        let mut lengths = vec![self.platter_len];
        for change in part {
            let len = lengths.last().copied().unwrap_or(0);
            match change {
                Change::Write { offset, bytes } => {
                    lengths.push(len.max(offset + bytes.len() as u64));
                    for sector in sectors(*offset, bytes.len() as u64) {
                        let from = (sector * SECTOR).max(*offset);
                        let to = ((sector + 1) * SECTOR).min(offset + bytes.len() as u64);
                        let at = |position: u64| usize::try_from(position - offset).unwrap_or(0);
                        by_sector
                            .entry(sector)
                            .or_default()
                            .push((from, &bytes[at(from)..at(to)]));
                    }
                }
                Change::Length(to) => lengths.push(*to),
            }
        }
        for versions in by_sector.into_values() {
            let kept = random.below(versions.len() as u64 + 1);
            for (offset, bytes) in versions
                .into_iter()
                .take(usize::try_from(kept).unwrap_or(0))
            {
                self.platter.write(offset, bytes);
            }
        }
        let pick = usize::try_from(random.below(lengths.len() as u64)).unwrap_or(0);
        let len = lengths[pick];
        self.platter_len = len;
        // Sectors past the length that survived belong to nobody.
        freed.push(Freed {
            path: self.path.clone(),
            bytes: self.platter.cut(len),
        });
    }
}
