//! A store over time: opening, what has changed since the last flush, jobs out and in, poison, a full disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use halyard_runtime::disk::{Disk, File, OpenMode};

use crate::crypto::SealedWith;
use crate::error::Error;
use crate::flush::Frozen;
use crate::job::{Job, JobDone, Outcome, Place, Work};
use crate::manifest::Manifest;
use crate::merge::View;
use crate::message::{Erase, StreamId};
use crate::options::Options;
use crate::recovery::{Recovered, recover};
use crate::removal::Removal;
use crate::segment::entry::StreamEntry;
use crate::segment::{Cache, Part, Segment, Written};
use crate::store::Store;
use crate::stream::Stream;

/// What opening a store found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The applied index that the manifest covers.
    pub applied: u64,
    /// Segments that the manifest names.
    pub segments: usize,
    /// Their files' bytes.
    pub segment_bytes: u64,
    /// Streams.
    pub streams: usize,
    /// Messages in all streams.
    pub messages: u64,
    /// Files that no manifest names: left by a crash, to be overwritten and removed by maintenance.
    pub leftovers: usize,
}

/// What a finished job achieved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finished {
    /// The applied index that the durable manifest now covers.
    pub applied: u64,
    /// Bytes that the job wrote.
    pub bytes_written: u64,
    /// Damage that a scrub found.
    pub damage: Option<String>,
}

/// A segment of the store.
#[derive(Debug)]
pub(crate) struct SegmentState {
    pub(crate) segment: Arc<Segment>,
    /// Its messages that are still alive, as last counted.
    pub(crate) live: u64,
    /// It holds erased messages: rewrite it once this flush is durable.
    pub(crate) rewrite_after: Option<u64>,
    /// It could not be read when it was to be merged, or a scrub failed: left as it is.
    pub(crate) is_damaged: bool,
}

/// What has changed since the last flush, and what the disk looks like.
#[derive(Debug)]
pub(crate) struct Upkeep {
    /// The durable manifest.
    pub(crate) manifest: Manifest,
    /// Its file is sealed otherwise than now: it must be written again.
    pub(crate) is_manifest_foreign: bool,
    /// The ordinal of the next flush to begin.
    pub(crate) ordinal: u64,
    pub(crate) next_segment: u64,
    /// Oldest first.
    pub(crate) segments: Vec<SegmentState>,
    pub(crate) dirty: Vec<StreamId>,
    /// Streams that were dropped since the last flush began, as they are in the durable state.
    pub(crate) dropped: BTreeMap<StreamId, View>,
    pub(crate) records: BTreeMap<Bytes, Option<Bytes>>,
    pub(crate) dirty_weight: u64,
    /// A flush that began and is not durable yet.
    pub(crate) frozen: Option<Arc<Frozen>>,
    /// The segment that the frozen state becomes holds erased messages.
    pub(crate) erase_frozen: Option<u64>,
    /// An erasing removal happened since the last flush began.
    pub(crate) erase_waits: bool,
    pub(crate) is_job_out: bool,
    /// Streams with removals since segments were last counted.
    pub(crate) stale: BTreeSet<StreamId>,
    /// Files to overwrite and remove.
    pub(crate) garbage: Vec<PathBuf>,
    pub(crate) poisoned: Option<String>,
    pub(crate) is_full: bool,
    /// Whether the reserve's space is taken; `None`: not tried since the last flush.
    pub(crate) reserve: Option<bool>,
    /// Where the next scrub goes on.
    pub(crate) scrub: Option<(u64, u64)>,
    pub(crate) damage: Vec<Error>,
}

impl Upkeep {
    /// The ordinal of the last durable flush.
    pub(crate) fn durable_ordinal(&self) -> u64 {
        self.manifest.next_ordinal - 1
    }

    /// The stream must be part of the next flush.
    pub(crate) fn note_dirty(&mut self, stream: &mut Stream) {
        if !std::mem::replace(&mut stream.is_dirty, true) {
            self.dirty.push(stream.id);
        }
    }

    fn new(
        recovered: Recovered,
        dir: &Path,
        sealed_with: SealedWith,
    ) -> (Self, BTreeMap<StreamId, Stream>, BTreeMap<Bytes, Bytes>) {
        let Recovered {
            manifest,
            manifest_sealed,
            segments,
            streams,
            records,
            leftovers,
        } = recovered;
        let marks = manifest.segments.iter().map(|listed| listed.rewrite_after);
        let segments = segments
            .into_iter()
            .zip(marks)
            .map(|(segment, rewrite_after)| SegmentState {
                live: segment.messages,
                segment,
                rewrite_after,
                is_damaged: false,
            });
        let upkeep = Self {
            ordinal: manifest.next_ordinal,
            next_segment: manifest.next_segment,
            segments: segments.collect(),
            manifest,
            is_manifest_foreign: manifest_sealed != sealed_with,
            dirty: Vec::new(),
            dropped: BTreeMap::new(),
            records: BTreeMap::new(),
            dirty_weight: 0,
            frozen: None,
            erase_frozen: None,
            erase_waits: false,
            is_job_out: false,
            stale: streams.keys().copied().collect(),
            garbage: leftovers.iter().map(|name| dir.join(name)).collect(),
            poisoned: None,
            is_full: false,
            reserve: None,
            scrub: None,
            damage: Vec::new(),
        };
        (upkeep, streams, records)
    }
}

impl Store {
    /// Opens the store in `dir`, creating it when there is none. Reads the manifest, and of each segment its stream
    /// entries, records and subject tables: the cost does not grow with the number of messages.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Corrupt`], [`Error::NewerVersion`], [`Error::WrongKey`]: nothing was changed.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
    ) -> Result<(Self, Report), Error> {
        disk.create_dir_all_durably(dir)
            .map_err(|error| Error::io(dir, error))?;
        let io = Cache::new(options.cache_bytes);
        let recovered = recover(&*disk, dir, &options, &io)?;
        let sealed_with = SealedWith::new(options.encryption.as_ref());
        let (upkeep, streams, records) = Upkeep::new(recovered, dir, sealed_with);
        let report = Report {
            applied: upkeep.manifest.applied,
            segments: upkeep.segments.len(),
            segment_bytes: upkeep
                .segments
                .iter()
                .map(|state| state.segment.file_bytes())
                .sum(),
            streams: streams.len(),
            messages: streams.values().map(|stream| stream.messages).sum(),
            leftovers: upkeep.garbage.len(),
        };
        let digest = upkeep.manifest.digest;
        Ok((
            Self {
                disk,
                dir: dir.to_owned(),
                options,
                streams,
                records,
                io,
                digest,
                upkeep,
            },
            report,
        ))
    }

    /// The applied index that the durable manifest covers: replay starts after it.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.upkeep.manifest.applied
    }

    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        match &self.upkeep.poisoned {
            Some(reason) => Err(Error::Poisoned {
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Whether publishes should be accepted. Asked by the leader before it proposes, never while applying: replicas must
    /// not decide differently because their disks do.
    ///
    /// # Errors
    /// [`Error::Full`] while the disk has less free space than [`Options::reserve_bytes`], or a flush found no room;
    /// [`Error::Poisoned`].
    pub fn accepting(&self) -> Result<(), Error> {
        self.check_writable()?;
        if self.upkeep.is_full {
            return Err(Error::Full {
                path: self.dir.clone(),
            });
        }
        Ok(())
    }

    /// Damage that reading, merging or scrubbing has met, oldest first. What is intact keeps being served.
    #[must_use]
    pub fn damage(&self) -> &[Error] {
        &self.upkeep.damage
    }

    /// Puts a good copy of a damaged segment in its place: `source` must be the same segment, byte for byte as the
    /// manifest knows it (replicas that took over a snapshot share segments). It is verified block by block before
    /// anything changes, written beside the damaged file, synced, and renamed over it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when `source` is damaged or another segment; [`Error::Io`] and [`Error::Full`] from writing.
    pub fn replace_segment(&mut self, damaged: &Path, source: &dyn File) -> Result<(), Error> {
        self.check_writable()?;
        let states = &mut self.upkeep.segments;
        let found = states
            .iter_mut()
            .find(|state| state.segment.path() == damaged);
        let state = found.ok_or_else(|| Error::corrupt(damaged, 0, "no segment of this store"))?;
        let copy = damaged.with_extension("copy");
        copy_file(&*self.disk, source, &copy)?;
        let segment = Segment::open(&*self.disk, &copy, self.options.encryption.as_ref())?;
        let is_same = segment.id() == state.segment.id()
            && (segment.lo, segment.hi) == (state.segment.lo, state.segment.hi)
            && segment.file_bytes() == state.segment.file_bytes();
        if !is_same {
            return Err(Error::corrupt(&copy, 0, "the copy is of another segment"));
        }
        let mut at = Some(Segment::scrub_start());
        while let Some(offset) = at {
            at = segment.scrub(offset)?;
        }
        self.disk
            .rename(&copy, damaged)
            .map_err(|error| Error::io(damaged, error))?;
        self.disk
            .sync_dir(&self.dir)
            .map_err(|error| Error::io(&self.dir, error))?;
        let segment = Arc::new(Segment::open(
            &*self.disk,
            damaged,
            self.options.encryption.as_ref(),
        )?);
        state.segment = segment.clone();
        state.is_damaged = false;
        self.upkeep
            .damage
            .retain(|error| !matches!(error, Error::Corrupt { file, .. } if file == damaged));
        self.io.clear();
        for stream in self.streams.values_mut() {
            for part in stream
                .parts
                .iter_mut()
                .chain(&mut stream.bare)
                .filter(|part| part.segment.id() == segment.id())
            {
                part.segment = segment.clone();
            }
        }
        Ok(())
    }

    pub(crate) fn mark_created(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.is_dirty = true;
            self.upkeep.dirty.push(id);
        }
    }

    pub(crate) fn mark_dropped(&mut self, stream: Stream, erase: Erase) {
        if stream.born < self.upkeep.ordinal {
            self.upkeep
                .dropped
                .entry(stream.id)
                .or_insert_with(|| View::of(&stream));
        }
        self.upkeep.dirty_weight = self
            .upkeep
            .dirty_weight
            .saturating_sub(stream.tail.weight());
        self.upkeep.stale.remove(&stream.id);
        for part in stream.parts.iter().chain(&stream.bare) {
            if erase == Erase::Yes {
                self.upkeep.mark_rewrite(part.segment.id());
            }
            self.upkeep.uncount(part.segment.id(), part.live);
        }
        if erase == Erase::Yes {
            self.upkeep.erase_waits = true;
            if stream.frozen.is_some() {
                self.upkeep.erase_frozen = Some(self.upkeep.ordinal);
            }
        }
    }

    pub(crate) fn note_record(&mut self, key: &Bytes, value: Option<&Bytes>) {
        self.upkeep.dirty_weight += (key.len() + value.map_or(0, Bytes::len) + 64) as u64;
        self.upkeep.records.insert(key.clone(), value.cloned());
    }

    /// Messages have gone: `weight` is the tail's weight before.
    pub(crate) fn note_removal(
        &mut self,
        id: StreamId,
        removal: &Removal,
        erase: Erase,
        weight: u64,
    ) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let now = stream.tail.weight();
        self.upkeep.dirty_weight = (self.upkeep.dirty_weight + now).saturating_sub(weight);
        if removal.messages == 0 {
            return;
        }
        if !std::mem::replace(&mut stream.is_dirty, true) {
            self.upkeep.dirty.push(id);
        }
        self.upkeep.stale.insert(id);
        if erase == Erase::Yes {
            self.upkeep.erase_waits = true;
            self.upkeep.mark_erased(stream, &self.io, removal);
        }
    }

    /// Memory that a flush would free, roughly, in bytes.
    #[must_use]
    pub fn dirty_bytes(&self) -> usize {
        usize::try_from(self.upkeep.dirty_weight).unwrap_or(usize::MAX)
    }

    fn job(&mut self, work: Work) -> Job {
        assert!(!self.upkeep.is_job_out, "one job at a time");
        self.upkeep.is_job_out = true;
        let place = Place {
            disk: self.disk.clone(),
            dir: self.dir.clone(),
            options: self.options.clone(),
        };
        Job { place, work }
    }

    pub(crate) fn can_begin(&self) -> bool {
        !self.upkeep.is_job_out && self.upkeep.poisoned.is_none()
    }

    /// Starts writing everything applied so far; `applied` is the log index of the last applied entry.
    ///
    /// `None` when nothing was applied since the last flush, a job is out, or the store is poisoned. After a flush that
    /// found the disk full this starts the same one again. O(changed streams and subjects).
    pub fn begin_flush(&mut self, applied: u64) -> Option<Job> {
        if !self.can_begin() {
            return None;
        }
        if self.upkeep.frozen.is_none() {
            assert!(
                applied >= self.applied(),
                "the applied index never goes back"
            );
            let nothing = self.upkeep.dirty.is_empty()
                && self.upkeep.dropped.is_empty()
                && self.upkeep.records.is_empty();
            if nothing && applied == self.applied() {
                return None;
            }
            self.freeze(applied);
        }
        let frozen = self.upkeep.frozen.clone()?;
        let segment = self.upkeep.take_segment_id();
        let manifest = self.upkeep.next_manifest();
        Some(self.job(Work::Flush {
            frozen,
            segment,
            manifest,
        }))
    }

    fn freeze(&mut self, applied: u64) {
        let mut streams = BTreeMap::new();
        for id in std::mem::take(&mut self.upkeep.dropped).into_keys() {
            streams.insert(id, None);
        }
        for id in std::mem::take(&mut self.upkeep.dirty) {
            if let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.is_dirty) {
                streams.insert(id, Some(stream.freeze()));
            }
        }
        let frozen = Frozen {
            ordinal: self.upkeep.ordinal,
            applied,
            digest: self.digest,
            streams,
            records: std::mem::take(&mut self.upkeep.records),
        };
        self.upkeep.ordinal += 1;
        self.upkeep.dirty_weight = 0;
        self.upkeep.erase_waits = false;
        self.upkeep.frozen = Some(Arc::new(frozen));
    }

    /// Starts the most useful piece of background work: overwriting freed files, erasure, taking space back, merging.
    /// `None` when there is none, a job is out, or the store is poisoned.
    pub fn begin_maintenance(&mut self) -> Option<Job> {
        if !self.can_begin() {
            return None;
        }
        if !self.upkeep.garbage.is_empty() {
            let files = std::mem::take(&mut self.upkeep.garbage);
            return Some(self.job(Work::Reap { files }));
        }
        if self.upkeep.reserve.is_none() && self.options.reserve_bytes > 0 {
            return Some(self.job(Work::Reserve));
        }
        if let Some(plan) = self.plan_merge() {
            let segment = self.upkeep.take_segment_id();
            let manifest = self.upkeep.next_manifest();
            return Some(self.job(Work::Merge {
                plan,
                segment,
                manifest,
            }));
        }
        // The segments first: each of them brings a new manifest.
        if self.upkeep.is_manifest_foreign && self.upkeep.frozen.is_none() {
            let manifest = self.upkeep.next_manifest();
            return Some(self.job(Work::Manifest { manifest }));
        }
        None
    }

    /// Starts verifying the next [`Options::scrub_bytes`] of the segments, round and round; the caller sets the pace.
    /// `None` when there is no segment, a job is out, or the store is poisoned.
    pub fn begin_scrub(&mut self) -> Option<Job> {
        if !self.can_begin() {
            return None;
        }
        let (id, offset) = self.upkeep.scrub.unwrap_or((0, Segment::scrub_start()));
        let states = &self.upkeep.segments;
        let next = states
            .iter()
            .map(|state| &state.segment)
            .filter(|segment| segment.id() >= id);
        let segment = next.min_by_key(|segment| segment.id())?.clone();
        let offset = if segment.id() == id {
            offset
        } else {
            Segment::scrub_start()
        };
        Some(self.job(Work::Scrub { segment, offset }))
    }

    /// Takes in what a job did.
    ///
    /// # Errors
    /// What the job met. [`Error::Full`]: nothing is lost, the next [`Store::begin_flush`] tries again. [`Error::Corrupt`]:
    /// a merge met damage; the segment stays as it is. Any other poisons the store: it only serves reads.
    pub fn finish(&mut self, done: JobDone) -> Result<Finished, Error> {
        assert!(self.upkeep.is_job_out, "a job that is finished was begun");
        self.upkeep.is_job_out = false;
        self.upkeep.is_full = done.is_low_on_space;
        self.upkeep.garbage.extend(done.leftovers);
        let mut finished = Finished {
            applied: 0,
            bytes_written: done.bytes_written,
            damage: None,
        };
        match done.outcome {
            Ok(Outcome::Flushed {
                written,
                manifest,
                frozen,
            }) => self.flushed(written, manifest, &frozen),
            Ok(Outcome::Merged {
                written,
                manifest,
                replaced,
            }) => self.merged(written, manifest, &replaced),
            Ok(Outcome::Reaped) => {}
            Ok(Outcome::Manifest(manifest)) => {
                self.upkeep.manifest = manifest;
                self.upkeep.is_manifest_foreign = false;
            }
            Ok(Outcome::Reserved(taken)) => self.upkeep.reserve = Some(taken),
            Ok(Outcome::Scrubbed {
                segment,
                next,
                damage,
            }) => {
                self.upkeep.scrub =
                    Some(next.map_or((segment + 1, Segment::scrub_start()), |next| {
                        (segment, next)
                    }));
                if self
                    .upkeep
                    .segments
                    .iter()
                    .all(|state| state.segment.id() <= segment)
                    && next.is_none()
                {
                    self.upkeep.scrub = None;
                }
                finished.damage = damage.as_ref().map(ToString::to_string);
                if let Some(damage) = damage {
                    self.upkeep.set_damaged(damage);
                }
            }
            Err(error) => return Err(self.failed(error, done.is_read_only_failure)),
        }
        finished.applied = self.applied();
        Ok(finished)
    }

    fn failed(&mut self, error: Error, is_read_only: bool) -> Error {
        match &error {
            Error::Full { .. } => {
                self.upkeep.is_full = true;
                self.upkeep.reserve = None;
            }
            _ if is_read_only => self.upkeep.set_damaged(error.clone()),
            _ => self.upkeep.poisoned = Some(error.to_string()),
        }
        error
    }

    fn flushed(&mut self, written: Option<Written>, manifest: Manifest, frozen: &Frozen) {
        self.upkeep.manifest = manifest;
        self.upkeep.is_manifest_foreign = false;
        self.upkeep.frozen = None;
        if self.upkeep.reserve == Some(false) {
            self.upkeep.reserve = None;
        }
        for (id, stream) in &frozen.streams {
            let Some(frozen) = stream else { continue };
            let found = self
                .streams
                .get_mut(id)
                .filter(|stream| stream.born == frozen.meta().born);
            if let Some(stream) = found {
                stream.frozen = None;
                stream.durable_first = frozen.meta().first_seq;
            }
            // It may have been dropped while the job ran.
            if let Some(view) = self
                .upkeep
                .dropped
                .get_mut(id)
                .filter(|view| view.born == frozen.meta().born)
            {
                view.first_seq = frozen.meta().first_seq;
            }
        }
        let Some((segment, entries)) = written else {
            return;
        };
        self.upkeep.segments.push(SegmentState {
            live: segment.messages,
            segment: segment.clone(),
            rewrite_after: self.upkeep.erase_frozen.take(),
            is_damaged: false,
        });
        for entry in entries {
            self.adopt(&segment, entry);
        }
    }

    /// Gives a stream its part of a new segment.
    pub(crate) fn adopt(&mut self, segment: &Arc<Segment>, entry: StreamEntry) {
        let Some(present) = entry.present else { return };
        let found = self
            .streams
            .get_mut(&entry.id)
            .filter(|stream| stream.born == present.meta.born);
        let Some(stream) = found else {
            self.upkeep.uncount(segment.id(), present.part.messages);
            return;
        };
        self.upkeep.stale.insert(entry.id);
        if present.part.messages > 0 {
            let part = Part::new(segment.clone(), present);
            let at = stream
                .parts
                .partition_point(|have| have.first_seq() < part.first_seq());
            stream.parts.insert(at, part);
        } else if present.subjects > 0 {
            stream.bare.push(Part::new(segment.clone(), present));
        }
    }
}

fn copy_file(disk: &dyn Disk, source: &dyn File, target: &Path) -> Result<(), Error> {
    let fail = |error| Error::io(target, error);
    let file = disk.open(target, OpenMode::Create).map_err(fail)?;
    file.set_len(0).map_err(fail)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut at = 0;
    loop {
        let count = source.read_at(&mut buffer, at).map_err(fail)?;
        if count == 0 {
            return file.sync().map_err(fail);
        }
        file.write_at(buffer.get(..count).unwrap_or_default(), at)
            .map_err(fail)?;
        at += count as u64;
    }
}
