//! A store over time: opening, what has changed since the last cut, poison, a full disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use halyard_runtime::disk::{Disk, File, OpenMode};

use crate::adopt::{Adopting, Retired};
use crate::block::Mended;
use crate::damage::Damage;
use crate::error::Error;
use crate::file_key::SealedWith;
use crate::job::{Scrubbed, reserve_bytes};
use crate::manifest::{MANIFEST_NAME, Manifest};
use crate::merge::View;
use crate::message::{Erase, StreamId};
use crate::options::Options;
use crate::recovery::{Past, Recovered, recover};
use crate::removal::Removal;
use crate::segment::{Cache, Segment};
use crate::space::Space;
use crate::stages::{FlushStage, Maintenance};
use crate::store::Store;
use crate::stream::Stream;
use crate::view::Pins;

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
#[derive(Debug, Clone, Default)]
pub struct Finished {
    /// The applied index that the durable manifest now covers.
    pub applied: u64,
    /// Bytes that the job wrote.
    pub bytes_written: u64,
    /// Something is otherwise now: there may be more to do at once.
    pub has_changed: bool,
    /// Damage that was found by it, and was not known before.
    pub damage: Vec<Damage>,
}

/// A segment of the store.
#[derive(Debug)]
pub(crate) struct SegmentState {
    pub(crate) segment: Arc<Segment>,
    /// Its messages that are still alive, as last counted.
    pub(crate) live: u64,
    /// It holds erased messages: rewrite it once the first of these flushes is durable. Ascending.
    pub(crate) marks: Vec<u64>,
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
    /// The ordinal of the next flush to be cut.
    pub(crate) ordinal: u64,
    pub(crate) next_segment: u64,
    /// Oldest first.
    pub(crate) segments: Vec<SegmentState>,
    pub(crate) dirty: Vec<StreamId>,
    /// Streams that were dropped since the last cut, as they are in the durable state.
    pub(crate) dropped: BTreeMap<StreamId, View>,
    pub(crate) records: BTreeMap<Bytes, Option<Bytes>>,
    pub(crate) dirty_weight: u64,
    pub(crate) flush: FlushStage,
    pub(crate) is_flush_out: bool,
    /// A flush was asked for and its job has not been taken.
    pub(crate) is_flush_wanted: bool,
    pub(crate) maintenance: Maintenance,
    /// Durable segments that streams are being given their parts of, oldest first.
    pub(crate) adopting: VecDeque<Adopting>,
    pub(crate) retired: Option<Retired>,
    /// The segment that the frozen state becomes holds erased messages.
    pub(crate) erase_frozen: Option<u64>,
    /// An erasing removal happened since the last cut.
    pub(crate) erase_waits: bool,
    /// Streams with removals since segments were last counted.
    pub(crate) stale: BTreeSet<StreamId>,
    /// Files to overwrite and remove.
    pub(crate) garbage: Vec<PathBuf>,
    /// Freed files without erased bytes: a view may still read them.
    pub(crate) spared: Vec<PathBuf>,
    pub(crate) pins: Pins,
    /// How many a job is overwriting, or is about to.
    pub(crate) reaping: usize,
    pub(crate) poisoned: Option<String>,
    /// What there is room for.
    pub(crate) space: Space,
    /// Something that a segment holds was removed since the last cut.
    pub(crate) removed_since_cut: bool,
    /// One of the manifest's copies is not sound: write it anew.
    pub(crate) mend_manifest: bool,
    /// Where the next scrub goes on.
    pub(crate) scrub: Option<(u64, u64)>,
    /// Nothing damaged was found in that segment so far.
    pub(crate) scrub_is_clean: bool,
    pub(crate) damage: Vec<Error>,
}

impl Upkeep {
    /// The ordinal of the last durable flush.
    pub(crate) fn durable_ordinal(&self) -> u64 {
        self.manifest.next_ordinal - 1
    }

    /// A manifest was written, so the one before and its damage are gone.
    pub(crate) fn wrote_manifest(&mut self, manifest: Manifest, dir: &Path) {
        let before = &self.manifest;
        assert!(
            manifest.version > before.version,
            "each manifest has a version of its own"
        );
        assert!(
            manifest.applied >= before.applied && manifest.next_ordinal >= before.next_ordinal,
            "what is durable stays durable"
        );
        self.manifest = manifest;
        self.mend_manifest = false;
        self.is_manifest_foreign = false;
        let path = dir.join(MANIFEST_NAME);
        self.damage
            .retain(|error| !matches!(error, Error::Corrupt { file, .. } if *file == path));
    }

    /// The stream must be part of the next flush.
    pub(crate) fn note_dirty(&mut self, stream: &mut Stream) {
        assert!(
            stream.dirty.is_none_or(|dirty| dirty == self.ordinal),
            "what changed before the cut is frozen before it changes again"
        );
        if stream.dirty.is_none() {
            stream.dirty = Some(self.ordinal);
            self.dirty.push(stream.id);
        }
    }

    /// A record changed.
    pub(crate) fn note_record(&mut self, key: Bytes, value: Option<Bytes>) {
        self.dirty_weight += (key.len() + value.as_ref().map_or(0, Bytes::len) + 64) as u64;
        self.records.insert(key, value);
    }

    fn new(
        recovered: Recovered,
        dir: &Path,
        sealed_with: SealedWith,
    ) -> (Self, BTreeMap<StreamId, Stream>, BTreeMap<Bytes, Bytes>) {
        let Recovered {
            manifest,
            manifest_sealed,
            manifest_damage,
            segments,
            streams,
            records,
            leftovers,
        } = recovered;
        // A mark may be for a flush that the last life began and did not end: now it is for the next one, which must come even
        // if nothing else changes.
        let next = manifest.next_ordinal;
        let marks = manifest.segments.iter().map(|listed| listed.rewrite_after);
        let erase_waits = marks.clone().flatten().any(|after| after >= next);
        let marks = marks.map(|after| after.map(|after| after.min(next)));
        let segments = segments
            .into_iter()
            .zip(marks)
            .map(|(segment, rewrite_after)| SegmentState {
                live: segment.messages,
                segment,
                marks: rewrite_after.into_iter().collect(),
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
            flush: FlushStage::Idle,
            is_flush_out: false,
            is_flush_wanted: false,
            maintenance: Maintenance::Idle,
            adopting: VecDeque::new(),
            retired: None,
            erase_frozen: None,
            erase_waits,
            stale: streams.keys().copied().collect(),
            garbage: leftovers.iter().map(|name| dir.join(name)).collect(),
            spared: Vec::new(),
            pins: Pins::default(),
            reaping: 0,
            poisoned: None,
            space: Space::default(),
            removed_since_cut: false,
            mend_manifest: manifest_damage.is_some(),
            scrub: None,
            scrub_is_clean: true,
            damage: manifest_damage.into_iter().collect(),
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
        Self::open_with(disk, dir, options, &mut Past::Nothing)
    }

    /// Opens what can be read of a damaged store, for reading only: segments that cannot be opened or whose index cannot be
    /// read are left out, and told. What is newest of a stream may be missing, so that a sequence that is not found may have
    /// held a message, and one that is found may have been deleted. Nothing is written; every change is refused.
    ///
    /// # Errors
    /// [`Error::WrongKey`], [`Error::NewerVersion`]; [`Error::Corrupt`] when the manifest cannot be read.
    pub fn open_past_damage(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
    ) -> Result<(Self, Vec<Damage>), Error> {
        let mut past = Past::Damage(Vec::new());
        let (mut store, _) = Self::open_with(disk, dir, options, &mut past)?;
        let damage = match past {
            Past::Damage(damage) => damage,
            Past::Nothing => Vec::new(),
        };
        store.upkeep.poisoned = Some("it is damaged, and only read".to_owned());
        Ok((store, damage))
    }

    fn open_with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        past: &mut Past,
    ) -> Result<(Self, Report), Error> {
        let io = Cache::new(options.cache_bytes);
        let recovered = recover(&*disk, dir, &options, past)?;
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
        let mut store = Self {
            disk,
            dir: dir.to_owned(),
            options,
            streams,
            records,
            io,
            digest,
            upkeep,
            broken: BTreeMap::new(),
        };
        store.upkeep.space.held = reserve_bytes(&*store.disk, dir);
        store.look_at_space();
        Ok((store, report))
    }

    /// The applied index that the durable manifest covers: replay starts after it.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.upkeep.manifest.applied
    }

    /// What [`Checkpoint::standing`](crate::Checkpoint::standing) was at [`Store::applied`]; empty in stores of earlier releases.
    #[must_use]
    pub fn standing(&self) -> &Bytes {
        &self.upkeep.manifest.standing
    }

    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        match &self.upkeep.poisoned {
            Some(reason) => Err(Error::Poisoned {
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Segments that are not as they were written although nothing of them is lost: maintenance writes them anew.
    #[must_use]
    pub fn mended(&self) -> Vec<(PathBuf, Mended)> {
        let segments = self.upkeep.segments.iter().map(|state| &state.segment);
        let mended = segments.filter_map(|segment| Some((segment, segment.mended()?)));
        mended
            .map(|(segment, what)| (segment.path().to_owned(), what))
            .collect()
    }

    /// Damage that reading, merging or scrubbing has met, oldest first. What is intact keeps being served.
    #[must_use]
    pub fn damage(&self) -> Vec<Error> {
        let mut all = self.upkeep.damage.clone();
        let met = self.io.met().into_iter();
        let new = met.filter(|error| !self.upkeep.knows_damage(error) && self.is_of_segment(error));
        all.extend(new);
        all
    }

    /// What reads have met counts as what the scrub finds.
    pub(crate) fn take_met(&mut self) {
        for error in self.io.take_met() {
            if self.is_of_segment(&error) {
                self.upkeep.set_damaged(error);
            }
        }
    }

    /// Whether it is in a segment in use: one that a merge has replaced was read by it, and is going.
    fn is_of_segment(&self, error: &Error) -> bool {
        let Error::Corrupt { file, .. } = error else {
            return false;
        };
        let mut segments = self.upkeep.segments.iter();
        segments.any(|state| state.segment.path() == file)
    }

    /// Puts the bytes of a good copy into a damaged segment: `source` must be the same segment, byte for byte as the
    /// manifest knows it (replicas that took over a snapshot share segments). It is verified block by block before
    /// anything changes, then written over the damaged file and synced: no second copy is left behind, in freed space
    /// neither, from which what is erased later would have to vanish. A crash in between leaves a file that is
    /// damaged in fewer places.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when `source` is damaged or another segment; [`Error::Io`] and [`Error::Full`] from writing:
    /// the segment is still damaged then.
    pub fn replace_segment(&mut self, damaged: &Path, source: Arc<dyn File>) -> Result<(), Error> {
        self.check_writable()?;
        // Streams are given their parts first, so that all of them are found below.
        while self.step(usize::MAX) {}
        let key = self.options.encryption.as_ref();
        let states = &mut self.upkeep.segments;
        let found = states
            .iter_mut()
            .find(|state| state.segment.path() == damaged);
        let state = found.ok_or_else(|| Error::corrupt(damaged, 0, "no segment of this store"))?;
        let good = Segment::of_file(source.clone(), damaged, key)?;
        let is_same = good.id() == state.segment.id()
            && (good.lo, good.hi) == (state.segment.lo, state.segment.hi)
            && good.file_bytes() == state.segment.file_bytes();
        if !is_same {
            return Err(Error::corrupt(damaged, 0, "the copy is of another segment"));
        }
        let mut at = Some(Segment::scrub_start());
        while let Some(offset) = at {
            at = good.scrub(offset)?;
        }
        copy_over(&*self.disk, &*source, damaged)?;
        self.disk
            .sync_dir(&self.dir)
            .map_err(|error| Error::io(&self.dir, error))?;
        let segment = Arc::new(Segment::open(&*self.disk, damaged, key)?);
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
            self.upkeep.note_dirty(stream);
        }
    }

    pub(crate) fn mark_dropped(&mut self, stream: Stream, erase: Erase) {
        if stream.born < self.upkeep.ordinal && !self.upkeep.dropped.contains_key(&stream.id) {
            let view = View::of(&stream);
            self.upkeep.note_dropped_view(stream.id, &view);
            self.upkeep.dropped.insert(stream.id, view);
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
        self.upkeep.removed_since_cut = true;
        if erase == Erase::Yes {
            self.upkeep.erase_waits = true;
            if stream.frozen.is_some() {
                self.upkeep.mark_frozen();
            }
        }
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
        self.upkeep.note_dirty(stream);
        self.upkeep.removed_since_cut = true;
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

    pub(crate) fn scrubbed(&mut self, scrubbed: Scrubbed) -> Vec<Damage> {
        self.take_met();
        let Scrubbed {
            segment,
            next,
            damage,
            manifest_damage,
        } = scrubbed;
        let upkeep = &mut self.upkeep;
        let is_last = |state: &SegmentState| state.segment.id() <= segment;
        upkeep.scrub = match next {
            Some(next) => Some((segment, next)),
            None if upkeep.segments.iter().all(is_last) => None,
            None => Some((segment + 1, Segment::scrub_start())),
        };
        upkeep.mend_manifest |= manifest_damage.is_some();
        upkeep.scrub_is_clean &= damage.is_none();
        if next.is_none() && std::mem::replace(&mut upkeep.scrub_is_clean, true) {
            upkeep.set_sound(segment);
        }
        let mut told = Vec::new();
        for damage in manifest_damage.into_iter().chain(damage) {
            // What was told already is not told again at each round.
            if !self.upkeep.knows_damage(&damage) {
                told.push(self.describe(&damage));
            }
            self.upkeep.set_damaged(damage);
        }
        told
    }

    pub(crate) fn failed(&mut self, error: Error, is_read_only: bool, is_flush: bool) -> Error {
        match &error {
            Error::Full { .. } => self.upkeep.space.no_room |= is_flush,
            Error::Unavailable { .. } => {}
            Error::Broken { stream, what } => self.flush_broke(*stream, what),
            _ if is_read_only => self.upkeep.set_damaged(error.clone()),
            _ => self.upkeep.poisoned = Some(error.to_string()),
        }
        error
    }
}

/// Writes all of `source` over the file `target`, whatever there is of it.
fn copy_over(disk: &dyn Disk, source: &dyn File, target: &Path) -> Result<(), Error> {
    let fail = |error| Error::io(target, error);
    let file = disk.open(target, OpenMode::Create).map_err(fail)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut at = 0;
    loop {
        let count = source.read_at(&mut buffer, at).map_err(fail)?;
        if count == 0 {
            file.set_len(at).map_err(fail)?;
            return file.sync().map_err(fail);
        }
        let read = buffer.get(..count);
        file.write_at(read.expect("no more is read than there is room for"), at)
            .map_err(fail)?;
        at += count as u64;
    }
}
