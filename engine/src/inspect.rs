//! Looking at a store offline: what is in it, whether all of it can be read, and its messages one by one.
//!
//! Nothing is written. The store must not be in use by a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use halyard_runtime::disk::Disk;

use crate::damage::{Affected, Damage};
use crate::error::Error;
use crate::file_key::SealedWith;
use crate::manifest::Loaded;
use crate::manifest::Manifest;
use crate::message::{Message, StreamId, StreamState};
use crate::options::Options;
use crate::segment::Segment;
use crate::segment::writer::{segment_id, segment_name};
use crate::store::Store;

/// One segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentStats {
    /// Its file.
    pub file: PathBuf,
    /// The file's length.
    pub bytes: u64,
    /// Messages in it, dead ones included.
    pub messages: u64,
    /// The flushes that it covers.
    pub flushes: (u64, u64),
    /// Whether its blocks are sealed.
    pub is_encrypted: bool,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStats {
    /// Its id.
    pub id: StreamId,
    /// Its counters.
    pub state: StreamState,
}

/// What is in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// The applied index that the manifest covers.
    pub applied: u64,
    /// The state digest at that index.
    pub digest: u64,
    /// Oldest first.
    pub segments: Vec<SegmentStats>,
    /// By id.
    pub streams: Vec<StreamStats>,
    /// The machine's own records.
    pub records: usize,
    /// Files that no manifest names; the next maintenance of a running server overwrites and removes them.
    pub leftovers: Vec<PathBuf>,
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct Check {
    /// Blocks that were read and verified.
    pub blocks: u64,
    /// Bytes of the files that were read.
    pub bytes: u64,
    /// Every damaged place and what it takes with it; empty for a sound store.
    pub damage: Vec<Damage>,
}

/// One thing that a dump shows.
#[derive(Debug)]
pub enum Dumped<'a> {
    /// A message of a stream.
    Message(StreamId, &'a Message),
    /// A record of the machine.
    Record(&'a [u8], &'a Bytes),
    /// A message that cannot be read.
    Unreadable(StreamId, u64, Error),
}

fn open(disk: &Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<Store, Error> {
    require_manifest(disk, dir, options)?;
    Store::open(disk.clone(), dir, options.clone()).map(|(store, _)| store)
}

fn require_manifest(disk: &Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<Loaded, Error> {
    let manifest = dir.join(crate::manifest::MANIFEST_NAME);
    let missing = || Error::corrupt(&manifest, 0, "no store is here: there is no manifest");
    Manifest::load(&**disk, dir, options)?.ok_or_else(missing)
}

/// What is in the store in `dir`.
///
/// # Errors
/// As [`Store::open`]; [`Error::Corrupt`] when there is no store.
pub fn stats(disk: &Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<Stats, Error> {
    let store = open(disk, dir, options)?;
    let segments = store.upkeep.segments.iter().map(|state| SegmentStats {
        file: state.segment.path().to_owned(),
        bytes: state.segment.file_bytes(),
        messages: state.segment.messages,
        flushes: (state.segment.lo, state.segment.hi),
        is_encrypted: state.segment.sealed_with() != SealedWith::default(),
    });
    let mut streams = Vec::new();
    for id in store.stream_ids() {
        streams.push(StreamStats {
            id,
            state: store.state(id)?,
        });
    }
    Ok(Stats {
        applied: store.applied(),
        digest: store.digest(),
        segments: segments.collect(),
        streams,
        records: store.records.len(),
        leftovers: store.upkeep.garbage.clone(),
    })
}

/// Verifies every block of every file, and, if the store opens, that counters, indexes and messages agree.
///
/// # Errors
/// When the manifest cannot be read at all; damage of anything else is in the result.
pub fn check(disk: &Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<Check, Error> {
    let Loaded {
        manifest, damage, ..
    } = require_manifest(disk, dir, options)?;
    let mut check = Check::default();
    check.damage.extend(damage.map(|error| Damage {
        error,
        affected: vec![Affected::ManifestCopy],
    }));
    let is_readable = check_segments(disk, dir, options, &manifest, &mut check);
    // What can be opened is compared with itself, damaged places or not.
    if is_readable && let Err(error) = open(disk, dir, options).and_then(|store| store.check()) {
        let affected = Vec::new();
        check.damage.push(Damage { error, affected });
    }
    Ok(check)
}

/// Whether the configured key, or the previous one, opens every file of the store in `dir`, and that none needs one if
/// none is configured. Reads headers only. A directory without a store passes; damage is for the opening to find.
///
/// # Errors
/// [`Error::WrongKey`], and nothing else.
pub fn check_key(disk: &Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<(), Error> {
    let manifest = match Manifest::load(&**disk, dir, options) {
        Ok(Some(loaded)) => loaded.manifest,
        Err(error @ Error::WrongKey { .. }) => return Err(error),
        Ok(None) | Err(_) => return Ok(()),
    };
    for listed in &manifest.segments {
        let path = dir.join(segment_name(listed.id));
        let opened = Segment::check_key(&**disk, &path, options.encryption.as_ref());
        if let Err(error @ Error::WrongKey { .. }) = opened {
            return Err(error);
        }
    }
    Ok(())
}

/// Whether all of them are sound.
fn check_segments(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
    manifest: &Manifest,
    check: &mut Check,
) -> bool {
    let before = check.damage.len();
    for listed in &manifest.segments {
        let path = dir.join(segment_name(listed.id));
        match Segment::open_listed(&**disk, &path, options.encryption.as_ref(), listed) {
            Ok(segment) => {
                check_segment(&segment, check);
                if let Some(what) = segment.mended() {
                    check.damage.push(Damage {
                        error: Error::corrupt(&path, 0, format!("{what}; nothing is lost")),
                        affected: Vec::new(),
                    });
                }
            }
            Err(error) => check.damage.push(Damage {
                error,
                affected: vec![Affected::Segment],
            }),
        }
    }
    check.damage.len() == before
}

fn check_segment(segment: &Segment, check: &mut Check) {
    check.bytes += segment.file_bytes();
    let starts = segment.known_starts();
    let mut at = Some(Segment::scrub_start());
    while let Some(offset) = at {
        match segment.scrub(offset) {
            Ok(next) => {
                check.blocks += 1;
                at = next;
            }
            Err(error) => {
                // Without a good frame nobody knows where this block ends: on to the next one that is known.
                at = starts.iter().copied().find(|start| *start > offset);
                let affected = segment.affected(offset, at.unwrap_or(segment.file_bytes()));
                check.damage.push(Damage { error, affected });
            }
        }
    }
}

/// Calls `each` with every record, then every message of the streams (of one stream, if `only` names it), in order, until
/// it says stop (`false`).
///
/// # Errors
/// As [`Store::open`].
pub fn dump(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
    only: Option<StreamId>,
    each: &mut dyn FnMut(Dumped<'_>) -> bool,
) -> Result<(), Error> {
    let store = open(disk, dir, options)?;
    if only.is_none() {
        for (key, value) in store.records(b"") {
            if !each(Dumped::Record(key, value)) {
                return Ok(());
            }
        }
    }
    for id in store
        .stream_ids()
        .filter(|id| only.is_none_or(|only| only == *id))
    {
        let mut from = 0;
        while let Some(seq) = store.first_at_or_after(id, from) {
            let goes_on = match store.get(id, seq) {
                Ok(Some(message)) => each(Dumped::Message(id, &message)),
                Ok(None) => true,
                Err(error) => each(Dumped::Unreadable(id, seq, error)),
            };
            if !goes_on {
                return Ok(());
            }
            from = seq + 1;
        }
    }
    Ok(())
}

/// The stores below `dir`: every directory that holds a manifest, `dir` itself included, sorted.
///
/// # Errors
/// [`Error::Io`] when a directory cannot be listed.
pub fn find_stores(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        let entries = disk.list(&dir).map_err(|error| Error::io(&dir, error))?;
        let is_store = entries
            .iter()
            .any(|entry| entry.name == crate::manifest::MANIFEST_NAME)
            || entries
                .iter()
                .any(|entry| segment_id(&entry.name).is_some());
        todo.extend(
            entries
                .iter()
                .filter(|entry| entry.is_dir)
                .map(|entry| dir.join(&entry.name)),
        );
        if is_store {
            found.push(dir);
        }
    }
    found.sort();
    Ok(found)
}
