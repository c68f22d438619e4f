//! The files around the writer: spares made ahead of time, segments let go, the mark when the log comes to rest.
//!
//! Runs on a thread of its own, so that none of this holds up a batch. A segment that is let go takes the name of the next
//! spare. It is one where one is wanted (its bytes are overwritten as it is used again, or at once when they are to be
//! erased); otherwise it is overwritten and removed. Each change of a name is made durable before the next, oldest segment
//! first, so a crash leaves no gap between the segments, and at worst a spare more; and before it goes, a synced record says
//! so, so that a segment that is gone without one is noticed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use halyard_runtime::disk::{self, Disk, OpenMode, Space, wipe};
use halyard_runtime::time;

use super::image::plain_draft;
use super::record::{self, Draft, Kind};
use super::segment::{self, Segment, Spare};
use super::writer::{Done, Item, Wal};
use crate::error::Error;

/// Spares kept ready at most: segments are let go several at a time, when a group was flushed.
const SPARES_MAX: usize = 4;
/// The log has come to rest when nothing was written for so long.
const MARK_AFTER: Duration = Duration::from_millis(100);
/// How often a full disk is asked again: that is one question, nothing is written before it has the space.
const FULL_RETRY: Duration = Duration::from_millis(100);
/// How long the first pause is after a file could not be made for another reason; each further one is twice as long, up to
/// [`FULL_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(5);
/// After so many failures in a row proposals are refused, while there is still room in the segment in use.
const FAILURES_MAX: u32 = 4;
/// A new segment is so many times as long as the one before, once that is full, up to the configured length: a server with
/// little to write takes little space.
const GROWTH: u64 = 4;
/// A spare takes at most this part of what is free, unless it is the smallest.
const SHARE_OF_FREE: u64 = 4;

/// What the writer was asked for and may not have written yet, so that it is asked once.
#[derive(Default)]
struct Asked {
    /// Checkpoints, so that the segment of this sequence can go.
    checkpoints: Option<u64>,
    /// The start record of this sequence.
    start: Option<u64>,
}

/// Keeps the log's files until the log is closed.
pub(crate) async fn run(wal: Arc<Wal>) {
    let mut asked = Asked::default();
    let mut failures = 0;
    while !wal.closed() {
        // Letting go first: on a full disk it is what makes room for a spare.
        let tended = scrub(&wal)
            .and_then(|()| let_go(&wal, &mut asked))
            .and_then(|()| make_ready(&wal))
            .and_then(|()| {
                note_wiped(&wal);
                end_reseal(&wal)
            });
        let wait = match tended {
            Ok(()) => {
                failures = 0;
                wal.full.store(false, Ordering::Release);
                wal.unmarked.load(Ordering::Acquire).then_some(MARK_AFTER)
            }
            Err(error) if error.passes() => {
                failures += 1;
                let is_short = matches!(error, Error::Full { .. }) || failures >= FAILURES_MAX;
                if is_short && !wal.full.swap(true, Ordering::AcqRel) {
                    tracing::error!("{error}; proposals are refused until it succeeds");
                }
                Some(if is_short {
                    FULL_RETRY
                } else {
                    FIRST_RETRY * (1 << failures)
                })
            }
            Err(error) => {
                wal.poison_with(error);
                return;
            }
        };
        rest(&wal, wait).await;
    }
}

/// Waits until there is something to do, or for so long; writes the mark when the log has come to rest.
async fn rest(wal: &Wal, wait: Option<Duration>) {
    let synced = wal.synced.load(Ordering::Acquire);
    let Some(wait) = wait else {
        wal.upkeep.notified().await;
        return;
    };
    let called = time::timeout(wait, wal.upkeep.notified()).await.is_ok();
    let rests = !called && wal.idle() && wal.synced.load(Ordering::Acquire) == synced;
    if rests && wal.unmarked.load(Ordering::Acquire) {
        wal.note_end(false);
        wal.submit([Item {
            draft: plain_draft(Kind::Mark, 0),
            of: None,
            done: Done::Nobody,
        }]);
    }
}

/// Begins to let everything written so far go; returns the position before which nothing will remain.
pub(crate) fn retire(wal: &Wal) -> u64 {
    let position = {
        let mut segments = wal.segments.lock();
        for segment in &mut segments.used {
            segment.wipe = true;
        }
        segments.used.back().map_or(0, |last| last.end)
    };
    wal.retire_before.fetch_max(position, Ordering::AcqRel);
    wal.upkeep.notify_one();
    position
}

/// The position before which nothing remains.
pub(crate) fn retired(wal: &Wal) -> u64 {
    wal.wiped.load(Ordering::Acquire)
}

/// Removes strays; where retiring was asked for overwrites the spares' old bytes, then has the writer go on in one of them.
fn scrub(wal: &Wal) -> Result<(), Error> {
    let _making = wal.making.lock();
    remove_strays(wal)?;
    if wal.retire_before.load(Ordering::Acquire) == 0 {
        return Ok(());
    }
    // Taken out while they are overwritten: a writer that needs one meanwhile waits for the lock.
    let mut spares = std::mem::take(&mut wal.segments.lock().spares);
    let mut used = spares.iter_mut().filter(|spare| spare.used);
    let wiped = used.try_for_each(|spare| {
        wipe(&*spare.file, spare.capacity, Space::Taken)
            .map_err(|source| Error::io("erasing a spare log segment", &spare.path, source))?;
        spare.used = false;
        Ok(())
    });
    let in_use = {
        let mut segments = wal.segments.lock();
        segments.spares = spares;
        wiped?;
        for segment in segments.used.iter_mut().filter(|segment| segment.tainted) {
            segment.wipe = true;
        }
        segments.used.back().is_some_and(|last| last.wipe)
    };
    if in_use && !wal.roll.swap(true, Ordering::AcqRel) {
        wal.submit([Item {
            draft: plain_draft(Kind::Mark, 0),
            of: None,
            done: Done::Nobody,
        }]);
    }
    Ok(())
}

/// Overwrites and removes files of the log that are of no use.
fn remove_strays(wal: &Wal) -> Result<(), Error> {
    let strays = wal.segments.lock().strays.clone();
    for (path, file) in &strays {
        let removed = file
            .len()
            .and_then(|bytes| wipe(&**file, bytes, Space::Taken))
            .and_then(|()| wal.disk.remove_file(path))
            .and_then(|()| wal.disk.sync_dir(&wal.dir));
        removed.map_err(|source| Error::io("erasing a stray log segment", path, source))?;
        wal.segments
            .lock()
            .strays
            .retain(|(stray, _)| stray != path);
    }
    Ok(())
}

/// Notes that what was to be overwritten has been.
fn note_wiped(wal: &Wal) {
    let position = wal.retire_before.load(Ordering::Acquire);
    let is_left = || {
        let segments = wal.segments.lock();
        segments.used.iter().any(|segment| segment.wipe) || !segments.strays.is_empty()
    };
    if position == 0 || is_left() {
        return;
    }
    assert!(
        position <= wal.synced.load(Ordering::Acquire),
        "what was to be overwritten had been written"
    );
    wal.wiped.fetch_max(position, Ordering::AcqRel);
    // Asked for more meanwhile: then it is not done.
    let _ = wal
        .retire_before
        .compare_exchange(position, 0, Ordering::AcqRel, Ordering::Acquire);
}

/// Present while anything in the log's files, spares and freed space of theirs included, may be plain or sealed otherwise
/// than now: letting that go takes a while, and a crash in the middle must not make anybody forget the rest.
const RESEAL_NAME: &str = "reseal";

/// Before the first write of an opening: whether the log is to be let go because of how it is sealed, now or since an
/// earlier opening. `is_foreign`: what was read says so.
pub(crate) fn note_reseal(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    is_foreign: bool,
) -> Result<bool, Error> {
    let path = dir.join(RESEAL_NAME);
    let noted = || -> std::io::Result<bool> {
        if disk.exists(&path)? {
            return Ok(true);
        }
        if is_foreign {
            disk.open(&path, OpenMode::Create)?.sync()?;
            disk.sync_dir(dir)?;
        }
        Ok(is_foreign)
    };
    noted().map_err(|source| Error::io("noting that the log is sealed anew", &path, source))
}

/// Begins to let everything go that was written before this opening.
pub(crate) fn begin_reseal(wal: &Wal) {
    wal.reseal_before.store(retire(wal), Ordering::Release);
}

/// Notes that everything in the log is sealed as it should be.
fn end_reseal(wal: &Wal) -> Result<(), Error> {
    let position = wal.reseal_before.load(Ordering::Acquire);
    if position == 0 || retired(wal) < position {
        return Ok(());
    }
    let path = wal.dir.join(RESEAL_NAME);
    let removed = wal
        .disk
        .remove_file(&path)
        .and_then(|()| wal.disk.sync_dir(&wal.dir));
    removed.map_err(|source| Error::io("noting that the log is sealed anew", &path, source))?;
    wal.reseal_before.store(0, Ordering::Release);
    Ok(())
}

/// Sees to it that there is a spare.
fn make_ready(wal: &Wal) -> Result<(), Error> {
    let _making = wal.making.lock();
    let sequence = {
        let segments = wal.segments.lock();
        if !segments.spares.is_empty() {
            return Ok(());
        }
        segments.next_sequence()
    };
    let spare = make_spare(wal, sequence, 0)?;
    wal.segments.lock().add_spare(spare);
    Ok(())
}

/// For a writer that found no spare that `bytes` fit into: makes one, or makes it longer.
pub(crate) fn make_room(wal: &Wal, bytes: u64) -> Result<(), Error> {
    let _making = wal.making.lock();
    let (short, sequence) = {
        let segments = wal.segments.lock();
        let first = segments.spares.front();
        let short =
            first.map(|spare| (Arc::clone(&spare.file), spare.path.clone(), spare.capacity));
        (short, segments.next_sequence())
    };
    let Some((file, path, capacity)) = short else {
        let spare = make_spare(wal, sequence, bytes)?;
        wal.segments.lock().add_spare(spare);
        return Ok(());
    };
    check_free(wal, &path, bytes.saturating_sub(capacity))?;
    file.allocate(bytes)
        .map_err(|source| Error::io(ALLOCATING, &path, source))?;
    let mut segments = wal.segments.lock();
    let spare = segments.spares.front_mut();
    let spare = spare.expect("nobody takes the spare while it is made longer");
    assert!(spare.path == path, "the spare is still the first one");
    spare.capacity = spare.capacity.max(bytes);
    Ok(())
}

const ALLOCATING: &str = "allocating a log segment";

/// A segment that was filled is followed by longer ones: called with the length of the one that was begun.
pub(crate) fn grow(wal: &Wal, begun: u64) {
    let most = wal.layout.segment_bytes;
    wal.spare_bytes
        .fetch_max(begun.saturating_mul(GROWTH).min(most), Ordering::AcqRel);
}

/// How long the next spare is: at least `bytes`, and what the log has grown to, but shorter on a disk that is nearly full.
fn spare_bytes(wal: &Wal, bytes: u64) -> u64 {
    let free = wal.disk.free_bytes(&wal.dir).unwrap_or(u64::MAX);
    let least = wal.layout.first_segment_bytes.min(wal.layout.segment_bytes);
    let mut spare = wal.spare_bytes.load(Ordering::Acquire);
    while spare > least && spare > free / SHARE_OF_FREE {
        spare = (spare / 2).next_multiple_of(segment::SECTOR);
    }
    spare.max(least).max(bytes)
}

/// Refuses to begin what the disk has no space for: half of it would only take the space from what has a use for it.
fn check_free(wal: &Wal, path: &Path, bytes: u64) -> Result<(), Error> {
    match wal.disk.free_bytes(&wal.dir) {
        Ok(free) if free < bytes => Err(Error::Full {
            action: ALLOCATING,
            path: path.to_path_buf(),
        }),
        _ => Ok(()),
    }
}

/// Allocates and zeroes a file of at least `bytes`, under the name of segment `sequence`.
pub(crate) fn make_spare(wal: &Wal, sequence: u64, bytes: u64) -> Result<Spare, Error> {
    let path = wal.dir.join(segment::file_name(sequence));
    let bytes = spare_bytes(wal, bytes);
    check_free(wal, &path, bytes)?;
    wal.segments
        .lock()
        .strays
        .retain(|(stray, _)| *stray != path);
    let mut syncs_names = false;
    let mut made = || {
        let file = wal.disk.open(&path, OpenMode::Create)?;
        // A stray of that name may hold anything.
        let used = file.len()? > 0;
        file.allocate(bytes)?;
        file.sync()?;
        syncs_names = true;
        wal.disk.sync_dir(&wal.dir)?;
        Ok((file, used))
    };
    made()
        .map(|(file, used)| Spare {
            sequence,
            capacity: bytes,
            path: path.clone(),
            file,
            used,
        })
        .map_err(|source| without_spare(wal, &path, source, syncs_names))
}

/// Making a spare failed with `source`. Nothing of the log stands in such a file, so without it the log is as before and
/// another try is as good as the first, unless names may not be durable any more.
fn without_spare(wal: &Wal, path: &Path, source: std::io::Error, syncs_names: bool) -> Error {
    let harmless = disk::changed_nothing(&source);
    // Half a file helps nobody, and on a full disk its space does. If that fails too, the first failure counts.
    let is_gone = wal.disk.remove_file(path).is_ok() || (harmless && !syncs_names);
    if is_gone && (harmless || !syncs_names) {
        return Error::opening(ALLOCATING, path, source);
    }
    Error::io(ALLOCATING, path, source)
}

/// Lets the oldest segments go that nobody needs; has checkpoints written anew where only those are in the way, and the
/// record that says so before anything goes.
fn let_go(wal: &Wal, asked: &mut Asked) -> Result<(), Error> {
    loop {
        let (stale, oldest, start, free) = {
            let segments = wal.segments.lock();
            if segments.used.len() < 2 || !segments.holders().is_empty() {
                return Ok(());
            }
            (
                segments.stale_checkpoints(),
                segments.used.front().map(|segment| segment.sequence),
                segments.start,
                segments.free_until(),
            )
        };
        if !stale.is_empty() {
            if asked.checkpoints != oldest && write_checkpoints(wal, &stale) {
                asked.checkpoints = oldest;
            }
            return Ok(());
        }
        if oldest.is_some_and(|oldest| start <= oldest) {
            if asked.start != Some(free) {
                asked.start = Some(free);
                let draft = Draft {
                    payload: record::start_body(free),
                    ..plain_draft(Kind::Mark, 0)
                };
                wal.submit([Item {
                    draft,
                    of: None,
                    done: Done::Nobody,
                }]);
            }
            return Ok(());
        }
        let segment = {
            let mut segments = wal.segments.lock();
            assert!(
                segments.used.len() > 1,
                "the segment that takes the batches stays"
            );
            segments.used.pop_front()
        };
        let Some(segment) = segment else {
            return Ok(());
        };
        assert!(
            segment.end <= wal.synced.load(Ordering::Acquire),
            "what is let go was complete"
        );
        dispose(wal, segment)?;
    }
}

/// Has the checkpoints of `groups` written at the log's end; whether all of them are there: some may not have started yet.
pub(crate) fn write_checkpoints(wal: &Wal, groups: &[u32]) -> bool {
    let mut all = true;
    for group in groups {
        let Some(log) = wal.logs.lock().get(group).cloned() else {
            all = false;
            continue;
        };
        // Built and handed in under one lock, or a vote could slip in between and be undone by an older one.
        let state = log.state.lock();
        let draft = state.checkpoint(log.id);
        let of = Some((Arc::clone(&log), Some(state.start())));
        wal.submit([Item {
            draft,
            of,
            done: Done::Nobody,
        }]);
    }
    all
}

/// Makes a segment that was let go a spare, or removes it. Where the disk is too full for that it is a stray.
fn dispose(wal: &Wal, segment: Segment) -> Result<(), Error> {
    let _making = wal.making.lock();
    let mut path = segment.path.clone();
    let file = Arc::clone(&segment.file);
    let disposed = dispose_of(wal, segment, &mut path);
    if disposed.is_err() {
        wal.segments.lock().strays.push((path, file));
    }
    disposed
}

/// See [`dispose`]; `name` is the file's, also where this fails.
fn dispose_of(wal: &Wal, segment: Segment, name: &mut PathBuf) -> Result<(), Error> {
    let (sequence, wanted) = {
        let segments = wal.segments.lock();
        // Of a log that has grown short files go, unless the disk has no space for longer ones.
        let least = match wal.full.load(Ordering::Acquire) {
            true => 0,
            false => wal.spare_bytes.load(Ordering::Acquire),
        };
        let is_fit = (least..=wal.layout.segment_bytes).contains(&segment.capacity);
        let wanted = segments.spares.len() < SPARES_MAX && is_fit;
        (segments.next_sequence(), wanted)
    };
    // The name first: a segment in use whose header is gone would be damage.
    let path = wal.dir.join(segment::file_name(sequence));
    let renamed = wal.disk.rename(&segment.path, &path).and_then(|()| {
        name.clone_from(&path);
        wal.disk.sync_dir(&wal.dir)
    });
    renamed.map_err(|source| Error::io("renaming a log segment", &segment.path, source))?;
    // Space that is given back is out of reach: what may have to be erased later is overwritten now.
    let wiped = segment.wipe || !wanted;
    if wiped {
        wipe(&*segment.file, segment.soiled_bytes(), Space::Taken)
            .map_err(|source| Error::io("erasing a log segment", &path, source))?;
    }
    if !wanted {
        let removed = wal
            .disk
            .remove_file(&path)
            .and_then(|()| wal.disk.sync_dir(&wal.dir));
        return removed.map_err(|source| Error::io("removing a log segment", &path, source));
    }
    let spare = Spare {
        sequence,
        capacity: segment.capacity,
        path,
        file: segment.file,
        used: !wiped,
    };
    wal.segments.lock().add_spare(spare);
    Ok(())
}
