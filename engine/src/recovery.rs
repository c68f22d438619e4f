//! Opening: manifest, then of each segment its entries, records and subject tables. Nothing is scanned that grows with the
//! number of messages, and nothing is changed on a disk that holds a store already.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use halyard_runtime::disk::Disk;

use crate::damage::{Affected, Damage};
use crate::error::Error;
use crate::file_key::SealedWith;
use crate::manifest::{Loaded, MANIFEST_NAME, Manifest, ManifestSegment};
use crate::message::StreamId;
use crate::options::Options;
use crate::segment::entry::StreamEntry;
use crate::segment::writer::{segment_id, segment_name};
use crate::segment::{MergedTables, Part, Segment};
use crate::stream::Stream;

/// What is on the disk.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) manifest: Manifest,
    /// How the manifest's file is sealed.
    pub(crate) manifest_sealed: SealedWith,
    /// One of the manifest's copies is not sound.
    pub(crate) manifest_damage: Option<Error>,
    /// In the order of the manifest.
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    pub(crate) records: BTreeMap<Bytes, Bytes>,
    /// Segment files that no manifest names.
    pub(crate) leftovers: Vec<String>,
}

/// What to do about a segment that cannot be read.
#[derive(Debug)]
pub(crate) enum Past {
    /// The store is not opened.
    Nothing,
    /// It is left out, and told.
    Damage(Vec<Damage>),
}

impl Past {
    /// Lets `outcome` pass where damage is only told.
    fn tell<T>(
        &mut self,
        outcome: Result<T, Error>,
        affected: &[Affected],
    ) -> Result<Option<T>, Error> {
        match (outcome, self) {
            (Ok(value), _) => Ok(Some(value)),
            (Err(error @ (Error::Corrupt { .. } | Error::Io { .. })), Self::Damage(told)) => {
                let affected = affected.to_vec();
                told.push(Damage { error, affected });
                Ok(None)
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// Reads a store; creates an empty one where there is none.
pub(crate) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    options: &Options,
    past: &mut Past,
) -> Result<Recovered, Error> {
    let found = Manifest::load(disk, dir, options);
    let entries = disk.list(dir).map_err(|error| Error::io(dir, error))?;
    let files: Vec<String> = entries
        .into_iter()
        .map(|entry| entry.name)
        .filter(|name| segment_id(name).is_some())
        .collect();
    let found = match found {
        Ok(None) if !files.is_empty() => {
            let what = "the manifest is missing, but segments are there";
            Err(Error::corrupt(&dir.join(MANIFEST_NAME), 0, what))
        }
        found => found,
    };
    let found = match past.tell(found, &[Affected::Manifest])? {
        Some(found) => found,
        None => Some(Loaded {
            manifest: manifest_of(disk, dir, options, &files),
            sealed: SealedWith::default(),
            damage: None,
        }),
    };
    let (mut manifest, manifest_sealed, manifest_damage) = match found {
        Some(Loaded {
            manifest,
            sealed,
            damage,
        }) => (manifest, sealed, damage),
        None => {
            let manifest = Manifest::empty();
            manifest.store(disk, dir, options)?;
            let sealed = SealedWith::new(options.encryption.as_ref());
            (manifest, sealed, None)
        }
    };
    let mut segments = Vec::with_capacity(manifest.segments.len());
    for listed in &manifest.segments {
        let opened = open_listed(disk, dir, options, listed);
        segments.extend(past.tell(opened, &[Affected::Segment])?);
    }
    let is_named = |name: &String| {
        segment_id(name).is_some_and(|id| manifest.segments.iter().any(|listed| listed.id == id))
    };
    let leftovers: Vec<String> = files
        .iter()
        .filter(|name| !is_named(name))
        .cloned()
        .collect();
    // A name that a crash left behind is not given again.
    let highest = files
        .iter()
        .filter_map(|name| segment_id(name))
        .max()
        .unwrap_or(0);
    manifest.next_segment = manifest.next_segment.max(highest + 1);
    let streams = load_streams(dir, &segments, options, past)?;
    let records = load_records(&segments, past)?;
    Ok(Recovered {
        manifest,
        manifest_sealed,
        manifest_damage,
        segments,
        streams,
        records,
        leftovers,
    })
}

/// The manifest as the segments' files suggest it: those that can be opened, but for those whose flushes another one covers.
/// It may be a flush ahead of the one that is gone.
fn manifest_of(disk: &dyn Disk, dir: &Path, options: &Options, files: &[String]) -> Manifest {
    let open = |name: &String| {
        let opened = Segment::open(disk, &dir.join(name), options.encryption.as_ref());
        opened
            .ok()
            .filter(|segment| segment_id(name) == Some(segment.id()))
    };
    let mut segments: Vec<Segment> = files.iter().filter_map(open).collect();
    segments.sort_by_key(|segment| (segment.lo, std::cmp::Reverse(segment.hi)));
    let mut manifest = Manifest::empty();
    for segment in segments {
        if manifest
            .segments
            .last()
            .is_none_or(|last| last.hi < segment.lo)
        {
            manifest.next_ordinal = segment.hi + 1;
            manifest.segments.push(ManifestSegment {
                id: segment.id(),
                lo: segment.lo,
                hi: segment.hi,
                file_bytes: segment.file_bytes(),
                rewrite_after: None,
            });
        }
    }
    manifest
}

fn open_listed(
    disk: &dyn Disk,
    dir: &Path,
    options: &Options,
    listed: &ManifestSegment,
) -> Result<Arc<Segment>, Error> {
    let path = dir.join(segment_name(listed.id));
    if !disk
        .exists(&path)
        .map_err(|error| Error::io(&path, error))?
    {
        return Err(Error::corrupt(&path, 0, "the file is missing"));
    }
    let segment = Segment::open(disk, &path, options.encryption.as_ref())?;
    let is_listed = (segment.id(), segment.lo, segment.hi, segment.file_bytes());
    if is_listed != (listed.id, listed.lo, listed.hi, listed.file_bytes) {
        return Err(Error::corrupt(
            &path,
            0,
            "the segment is not the one that the manifest names",
        ));
    }
    Ok(Arc::new(segment))
}

/// A stream on its way in: segments are read newest first.
enum Loading {
    Dropped,
    Present(Box<Stream>),
}

fn load_streams(
    dir: &Path,
    segments: &[Arc<Segment>],
    options: &Options,
    past: &mut Past,
) -> Result<BTreeMap<StreamId, Stream>, Error> {
    let mut loading: BTreeMap<StreamId, Loading> = BTreeMap::new();
    for segment in segments.iter().rev() {
        let read = segment.entries(|StreamEntry { id, present }| {
            let newest = loading.entry(id).or_insert_with(|| match &present {
                None => Loading::Dropped,
                Some(present) => {
                    let meta = present.meta;
                    let mut stream = Stream::new(id, meta.first_seq, meta.born, options);
                    stream.last_seq = meta.last_seq;
                    stream.messages = meta.messages;
                    stream.bytes = meta.bytes;
                    stream.last_time = meta.last_time;
                    Loading::Present(Box::new(stream))
                }
            });
            if let (Loading::Present(stream), Some(present)) = (newest, present)
                && segment.hi >= stream.born
                && present.meta.born == stream.born
            {
                stream.dead.union(&present.dead);
                for &(seq, expires) in &present.expiries {
                    stream.note_expiry(seq, expires);
                }
                let has_messages = present.part.messages > 0;
                let has_rows = present.subjects > 0;
                let part = Part::new(segment.clone(), present);
                if has_messages {
                    stream.parts.push(part);
                } else if has_rows {
                    stream.bare.push(part);
                }
            }
            Ok(())
        });
        past.tell(read, &[Affected::Segment])?;
    }
    let mut streams = BTreeMap::new();
    for (id, loading) in loading {
        let Loading::Present(mut stream) = loading else {
            continue;
        };
        let (first, last) = (stream.first_seq, stream.last_seq);
        let affected = Affected::Subjects {
            stream: id,
            first,
            last,
        };
        past.tell(finish_stream(dir, &mut stream), &[affected])?;
        streams.insert(id, *stream);
    }
    Ok(streams)
}

fn finish_stream(dir: &Path, stream: &mut Stream) -> Result<(), Error> {
    stream.parts.reverse();
    stream.dead.remove_below(stream.first_seq);
    let mut expiry = std::mem::take(&mut stream.expiry);
    expiry.retain(|&(_, seq)| stream.is_live(seq));
    stream.expiry = expiry;
    stream.ageless.remove_below(stream.first_seq);
    let first_ageless = stream.ageless.iter().next().map(|run| *run.start());
    if let Some(first) = first_ageless {
        let above: Vec<_> = stream.dead.iter_from(first).collect();
        for run in above {
            stream.ageless.insert(run);
        }
    }
    let by_subject = load_subjects(stream)?;
    let range_live = stream.count_live(stream.first_seq, stream.last_seq);
    if range_live != stream.messages || by_subject != stream.messages {
        let what = format!(
            "stream {} has {} messages, {range_live} live sequences and another number by subject",
            stream.id.0, stream.messages
        );
        return Err(Error::corrupt(&dir.join(MANIFEST_NAME), 0, what));
    }
    Ok(())
}

/// Merges the subject tables of all parts: the newest row of each subject counts, if its last message is there. Returns
/// how many messages the subjects have together.
fn load_subjects(stream: &mut Stream) -> Result<u64, Error> {
    if stream.messages == 0 {
        return Ok(0);
    }
    let mut subjects = std::mem::take(&mut stream.subjects);
    let mut parts: Vec<&Part> = stream.parts.iter().chain(&stream.bare).collect();
    // Newest first, so that the first row of a name is the one that counts.
    parts.sort_by_key(|part| std::cmp::Reverse(part.segment.hi));
    let mut messages = 0;
    let mut tables = MergedTables::new(parts.into_iter());
    let mut load = || -> Result<(), Error> {
        while tables.advance()? {
            let newest = tables.here().next().map(|(_, cursor)| cursor.totals());
            if let Some(totals) = newest.filter(|totals| stream.is_live(totals.last)) {
                subjects.load(tables.name(), totals)?;
                messages += u64::from(totals.messages);
            }
        }
        Ok(())
    };
    // What was read before a damaged place stays, for who opens past damage.
    let loaded = load();
    drop(tables);
    subjects.loaded();
    stream.subjects = subjects;
    loaded.map(|()| messages)
}

fn load_records(
    segments: &[Arc<Segment>],
    past: &mut Past,
) -> Result<BTreeMap<Bytes, Bytes>, Error> {
    let mut records = BTreeMap::new();
    for segment in segments {
        let read = segment.records(|key, value| {
            match value {
                Some(value) => records.insert(key, value),
                None => records.remove(&key),
            };
        });
        past.tell(read, &[Affected::Segment])?;
    }
    Ok(records)
}
