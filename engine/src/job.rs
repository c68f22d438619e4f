//! Jobs: all the writing and the long reading of a store, away from it.
//!
//! A job owns what it needs (shared tails, open segments, the manifest to write) and never the store. A flush and a piece
//! of maintenance may be out at one time. The order is what makes a crash harmless: new files complete and synced, then
//! the manifest swapped, and only a later job touches what the old manifest named.
//!
//! Of jobs that swap the manifest one is out at a time (`stages.rs`), so none undoes another's. A merge writes none: it
//! only makes a file that no manifest names, and takes as long as it takes while flushes come and go. Its place in the
//! manifest is a job of its own, made from the manifest of the last flush and the marks of that moment. A crash before it
//! leaves the inputs in use and the file to be overwritten; what the merge dropped was dead in a durable state, and what
//! is dead in one is dead in all later ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use halyard_runtime::contain::contain;
use halyard_runtime::disk::{Disk, OpenMode, Space, wipe};

use crate::block::HEADER_BYTES;
use crate::error::Error;
use crate::flush::{Frozen, write_segment};
use crate::manifest::{MANIFEST_NAME, Manifest, ManifestSegment};
use crate::merge::MergePlan;
use crate::options::Options;
use crate::segment::writer::{SegmentWriter, segment_name};
use crate::segment::{Segment, Written};

const RESERVE_NAME: &str = "reserve";

/// What every job needs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
}

#[derive(Debug)]
pub(crate) enum Work {
    /// Write the frozen state as segment `segment`; `manifest` is the one before.
    Flush {
        frozen: Arc<Frozen>,
        segment: u64,
        manifest: Manifest,
    },
    /// Write segment `segment`, which is to replace the plan's inputs.
    Merge { plan: MergePlan, segment: u64 },
    /// Make a merged segment part of the store, or seal the manifest as files are now.
    Swap { manifest: Manifest },
    /// Overwrite and remove files that no manifest names.
    Reap { files: Vec<PathBuf> },
    /// Make the reserve as long as it should be.
    Reserve(Reserve),
    /// Verify blocks of one segment from an offset on, and both copies of the manifest, which is to be this one.
    Scrub {
        segment: Arc<Segment>,
        offset: u64,
        manifest: Option<Manifest>,
    },
}

/// How long the reserve should be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reserve {
    pub(crate) wanted: u64,
    /// So much must be left free when it is made longer.
    pub(crate) low: u64,
    /// What is beyond that is given back.
    pub(crate) most: u64,
}

/// Which of the two jobs that may be out at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobKind {
    Flush,
    Maintenance,
}

/// Work with the disk, to be run away from the store: see [`Job::run`].
#[derive(Debug)]
pub struct Job {
    pub(crate) place: Place,
    pub(crate) work: Work,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Flushed {
        written: Option<Written>,
        manifest: Manifest,
    },
    Merged {
        written: Written,
    },
    Swapped {
        manifest: Manifest,
    },
    Reaped,
    /// How long the reserve is now, if that has changed.
    Reserved(Option<u64>),
    Scrubbed(Scrubbed),
}

/// How far a scrub has come.
#[derive(Debug)]
pub(crate) struct Scrubbed {
    pub(crate) segment: u64,
    pub(crate) next: Option<u64>,
    pub(crate) damage: Option<Error>,
    /// One of the manifest's copies is not sound, or it is not the newest one.
    pub(crate) manifest_damage: Option<Error>,
}

/// The result of a job, for [`crate::Store::finish`].
#[derive(Debug)]
pub struct JobDone {
    pub(crate) kind: JobKind,
    pub(crate) outcome: Result<Outcome, Error>,
    /// Whether the failure was met while reading what exists, so that nothing about later writes is in doubt.
    pub(crate) is_read_only_failure: bool,
    pub(crate) bytes_written: u64,
    /// Free bytes of the disk afterwards.
    pub(crate) free: Option<u64>,
    /// The reserve's space was given back.
    pub(crate) released_reserve: bool,
    /// Files that the job began, or did not come to, and that must be overwritten.
    pub(crate) leftovers: Vec<PathBuf>,
}

impl Job {
    fn kind(&self) -> JobKind {
        match self.work {
            Work::Flush { .. } => JobKind::Flush,
            _ => JobKind::Maintenance,
        }
    }

    /// Whether it is a flush; anything else is maintenance.
    #[must_use]
    pub fn is_flush(&self) -> bool {
        self.kind() == JobKind::Flush
    }

    /// What it does, for people.
    #[must_use]
    pub const fn what(&self) -> &'static str {
        match self.work {
            Work::Flush { .. } => "writing a segment",
            Work::Merge { .. } => "merging segments",
            Work::Swap { .. } => "writing the manifest",
            Work::Reap { .. } => "overwriting freed files",
            Work::Reserve(_) => "setting space aside",
            Work::Scrub { .. } => "verifying a segment",
        }
    }

    /// Does all the I/O. Blocks for as long as that takes; holds nothing of the store.
    #[must_use]
    pub fn run(self) -> JobDone {
        let kind = self.kind();
        let Self { place, work } = self;
        let mut done = JobDone {
            kind,
            outcome: Ok(Outcome::Reserved(None)),
            is_read_only_failure: false,
            bytes_written: 0,
            free: None,
            released_reserve: false,
            leftovers: Vec::new(),
        };
        // A panic ends this job; what it leaves on the disk is in no manifest, or the next opening sorts it out.
        let merged = match &work {
            Work::Merge { segment, .. } => Some(place.dir.join(segment_name(*segment))),
            _ => None,
        };
        let outcome = contain(|| place.run(&mut done, work));
        let outcome = outcome.unwrap_or_else(|panic| {
            done.leftovers = merged.into_iter().collect();
            Err(Error::Job {
                what: panic.to_string(),
            })
        });
        done.free = place.disk.free_bytes(&place.dir).ok();
        done.is_read_only_failure = matches!(outcome, Err(Error::Corrupt { .. }));
        done.outcome = outcome;
        done
    }
}

impl Place {
    fn run(&self, done: &mut JobDone, work: Work) -> Result<Outcome, Error> {
        match work {
            Work::Flush {
                frozen,
                segment,
                manifest,
            } => self.flush(done, frozen, segment, manifest),
            Work::Merge { plan, segment } => self.merge(done, plan, segment),
            Work::Swap { manifest } => self.swap(done, manifest),
            Work::Reap { files } => self.reap(&files).inspect_err(|error| {
                // They are tried again.
                if error.passes() {
                    done.leftovers = files;
                }
            }),
            Work::Reserve(reserve) => Ok(Outcome::Reserved(self.take_reserve(reserve))),
            Work::Scrub {
                segment,
                offset,
                manifest,
            } => {
                let scrubbed = contain(|| self.scrub(&segment, offset, manifest.as_ref()));
                Ok(scrubbed.unwrap_or_else(|panic| {
                    let what = format!("verifying it panicked: {panic}");
                    Outcome::Scrubbed(Scrubbed {
                        segment: segment.id(),
                        next: None,
                        damage: Some(Error::corrupt(segment.path(), offset, what)),
                        manifest_damage: None,
                    })
                }))
            }
        }
    }
}

pub(crate) fn listed(segment: &Segment) -> ManifestSegment {
    ManifestSegment {
        id: segment.id(),
        lo: segment.lo,
        hi: segment.hi,
        file_bytes: segment.file_bytes(),
        rewrite_after: None,
    }
}

impl Place {
    fn flush(
        &self,
        done: &mut JobDone,
        frozen: Arc<Frozen>,
        segment: u64,
        manifest: Manifest,
    ) -> Result<Outcome, Error> {
        // Known beforehand: then nothing is written twice, and nothing else finds the disk without a free byte.
        let free = self.disk.free_bytes(&self.dir).unwrap_or(u64::MAX);
        if free < frozen.bytes() {
            done.released_reserve = self.release_reserve();
        }
        match self.try_flush(done, &frozen, segment, &manifest) {
            Err(error @ Error::Full { .. }) if self.release_reserve() => {
                done.released_reserve = true;
                done.bytes_written = 0;
                // The half-written file gives its space and its name back before the second and last try.
                match self.scrap(segment) {
                    true => self.try_flush(done, &frozen, segment, &manifest),
                    false => Err(error),
                }
            }
            other => other,
        }
        .map(|(written, manifest)| Outcome::Flushed { written, manifest })
        .inspect_err(|error| self.clean_up(done, error, segment))
    }

    fn try_flush(
        &self,
        done: &mut JobDone,
        frozen: &Frozen,
        segment: u64,
        manifest: &Manifest,
    ) -> Result<(Option<Written>, Manifest), Error> {
        let written = write_segment(frozen, &*self.disk, &self.dir, segment, &self.options)?;
        let mut manifest = manifest.clone();
        assert!(
            frozen.checkpoint.applied >= manifest.applied
                && frozen.ordinal >= manifest.next_ordinal,
            "flushes become durable in order"
        );
        if let Some((segment, _)) = &written {
            manifest.segments.push(listed(segment));
            manifest.next_segment = manifest.next_segment.max(segment.id() + 1);
            done.bytes_written += segment.file_bytes();
        }
        manifest.version += 1;
        manifest.applied = frozen.checkpoint.applied;
        manifest.standing = frozen.checkpoint.standing.clone();
        manifest.digest = frozen.digest;
        manifest.next_ordinal = frozen.ordinal + 1;
        done.bytes_written += manifest.store(&*self.disk, &self.dir, &self.options)?;
        Ok((written, manifest))
    }

    fn merge(&self, done: &mut JobDone, plan: MergePlan, segment: u64) -> Result<Outcome, Error> {
        let result = self.try_merge(done, plan, segment);
        result.inspect_err(|error| self.clean_up(done, error, segment))
    }

    fn try_merge(
        &self,
        done: &mut JobDone,
        plan: MergePlan,
        segment: u64,
    ) -> Result<Outcome, Error> {
        if plan.uses_reserve {
            done.released_reserve = self.release_reserve();
        }
        let (Some(first), Some(last)) = (plan.inputs.first(), plan.inputs.last()) else {
            unreachable!("a merge has inputs");
        };
        assert!(
            plan.inputs.is_sorted_by(|a, b| a.hi < b.lo),
            "segments stand in the order of their flushes"
        );
        let (lo, hi) = (first.lo, last.hi);
        let plan_messages: u64 = plan.inputs.iter().map(|input| input.messages).sum();
        let bytes = plan
            .inputs
            .iter()
            .map(|input| input.file_bytes())
            .sum::<u64>()
            + 4096;
        let mut writer = SegmentWriter::create(
            &*self.disk,
            &self.dir,
            segment,
            (lo, hi),
            bytes,
            &self.options,
        )?;
        plan.write(&mut writer)?;
        let written = writer.finish(&*self.disk, &self.options)?;
        assert!(
            written.0.messages <= plan_messages,
            "a merge makes no messages"
        );
        done.bytes_written += written.0.file_bytes();
        Ok(Outcome::Merged { written })
    }

    fn swap(&self, done: &mut JobDone, manifest: Manifest) -> Result<Outcome, Error> {
        let store = || manifest.store(&*self.disk, &self.dir, &self.options);
        done.bytes_written += match store() {
            // The inputs' space comes back with it.
            Err(Error::Full { .. }) if self.release_reserve() => {
                done.released_reserve = true;
                store()?
            }
            other => other?,
        };
        Ok(Outcome::Swapped { manifest })
    }

    /// After a failure: a full disk, a file that cannot be opened or damaged input leaves a file that is certainly in no manifest; after a failed write
    /// or sync nothing is certain, and the next opening sorts it out.
    fn clean_up(&self, done: &mut JobDone, error: &Error, segment: u64) {
        let is_left = match error {
            passing if passing.passes() => !self.scrap(segment),
            Error::Corrupt { .. } | Error::Broken { .. } => true,
            _ => false,
        };
        if is_left {
            done.leftovers.push(self.dir.join(segment_name(segment)));
        }
    }

    /// Overwrites and removes a file of this job, if it is there; `false` when the disk does not let it.
    fn scrap(&self, segment: u64) -> bool {
        let path = self.dir.join(segment_name(segment));
        match self.disk.exists(&path) {
            Ok(true) => {}
            other => return matches!(other, Ok(false)),
        }
        self.overwrite(&path).is_ok()
            && self.disk.remove_file(&path).is_ok()
            && self.disk.sync_dir(&self.dir).is_ok()
    }

    fn reap(&self, files: &[PathBuf]) -> Result<Outcome, Error> {
        for path in files {
            let fail = |error| Error::io(path, error);
            if !self.disk.exists(path).map_err(fail)? {
                continue;
            }
            if self.options.overwrite_freed {
                self.overwrite(path)?;
            }
            self.disk.remove_file(path).map_err(fail)?;
        }
        self.disk
            .sync_dir(&self.dir)
            .map_err(|error| Error::io(&self.dir, error))?;
        Ok(Outcome::Reaped)
    }

    /// Makes the bytes of a file unreadable for good. Of an encrypted file the header is enough: it holds the only copy
    /// of the file's key. A file that was not finished has its full length already, and a hole at its end.
    fn overwrite(&self, path: &Path) -> Result<(), Error> {
        let fail = |error| Error::io(path, error);
        let file = self.disk.open(path, OpenMode::ReadWrite).map_err(fail)?;
        let mut len = file.len().map_err(fail)?;
        if is_sealed(&*file) {
            len = len.min(4096);
        }
        wipe(&*file, len, Space::MayEndInHole).map_err(fail)
    }

    fn scrub(&self, segment: &Segment, offset: u64, manifest: Option<&Manifest>) -> Outcome {
        let manifest_damage = manifest.and_then(|manifest| self.scrub_manifest(manifest));
        let outcome = |next, damage| {
            Outcome::Scrubbed(Scrubbed {
                segment: segment.id(),
                next,
                damage,
                manifest_damage,
            })
        };
        // The header and the trailer are in no block.
        if offset == Segment::scrub_start() {
            match self.reopen(segment) {
                Ok(()) => {}
                // Nothing was seen of it.
                Err(error) if error.passes() => return outcome(Some(offset), None),
                Err(error) => return outcome(None, Some(error)),
            }
        }
        let mut at = offset;
        while at - offset < self.options.scrub_bytes {
            match segment.scrub(at) {
                Ok(Some(next)) => at = next,
                Ok(None) => return outcome(None, None),
                Err(error) => return outcome(None, Some(error)),
            }
        }
        outcome(Some(at), None)
    }

    /// Reads a segment's header, root and trailer again: they must still be what they were.
    fn reopen(&self, segment: &Segment) -> Result<(), Error> {
        let path = segment.path();
        let encryption = self.options.encryption.as_ref();
        let again = match Segment::open_listed(&*self.disk, path, encryption, &listed(segment)) {
            Err(Error::Io { source, .. }) => {
                return Err(Error::corrupt(path, 0, format!("unreadable: {source}")));
            }
            other => other?,
        };
        if listed(&again) != listed(segment) {
            return Err(Error::corrupt(
                path,
                0,
                "the file is another segment than it was",
            ));
        }
        Ok(())
    }

    fn scrub_manifest(&self, manifest: &Manifest) -> Option<Error> {
        let path = self.dir.join(MANIFEST_NAME);
        match Manifest::load(&*self.disk, &self.dir, &self.options) {
            Ok(Some(loaded)) if loaded.manifest.version >= manifest.version => loaded.damage,
            Ok(Some(_)) => Some(Error::corrupt(
                &path,
                0,
                "the manifest is not the newest one",
            )),
            Ok(None) => Some(Error::corrupt(&path, 0, "the manifest is missing")),
            Err(error) if error.passes() => None,
            Err(Error::Io { source, .. }) => {
                Some(Error::corrupt(&path, 0, format!("unreadable: {source}")))
            }
            Err(error) => Some(error),
        }
    }

    /// Makes the reserve longer where there is the space for that, or gives back what is too much of it.
    fn take_reserve(&self, Reserve { wanted, low, most }: Reserve) -> Option<u64> {
        let held = reserve_bytes(&*self.disk, &self.dir);
        let file = || {
            self.disk
                .open(&self.dir.join(RESERVE_NAME), OpenMode::Create)
        };
        if held > most {
            let cut = file().and_then(|file| file.set_len(most).and_then(|()| file.sync()));
            return Some(if cut.is_ok() { most } else { held });
        }
        let free = self.disk.free_bytes(&self.dir).unwrap_or(0);
        if held >= wanted || free < (wanted - held).saturating_add(low) {
            return Some(held);
        }
        let taken = file().and_then(|file| {
            file.set_aside(wanted)?;
            file.sync()
        });
        let is_taken = taken.is_ok() && self.disk.sync_dir(&self.dir).is_ok();
        Some(if is_taken { wanted } else { held })
    }

    /// Gives the reserve's space back; `false` when there is none.
    fn release_reserve(&self) -> bool {
        let path = self.dir.join(RESERVE_NAME);
        self.disk.exists(&path).unwrap_or(false) && self.disk.remove_file(&path).is_ok()
    }
}

/// How long the reserve is.
pub(crate) fn reserve_bytes(disk: &dyn Disk, dir: &Path) -> u64 {
    let file = disk.open(&dir.join(RESERVE_NAME), OpenMode::Read);
    file.and_then(|file| file.len()).unwrap_or(0)
}

fn is_sealed(file: &dyn halyard_runtime::disk::File) -> bool {
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).is_ok() && header.get(10).is_some_and(|cipher| *cipher != 0)
}
