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
use crate::lost::Lacking;
use crate::manifest::{Loaded, MANIFEST_NAME, Manifest, ManifestSegment};
use crate::message::StreamId;
use crate::options::Options;
use crate::segment::entry::{StreamEntry, StreamMeta};
use crate::segment::writer::{segment_id, segment_name};
use crate::segment::{Loose, MergedTables, Part, Remains, Segment};
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
    let mut found = Found::default();
    for listed in &manifest.segments {
        open_listed(disk, dir, options, listed, past, &mut found)?;
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
    let streams = load_streams(dir, &mut found, options, past)?;
    let segments = found.segments;
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

/// The segments that can be read, and what is missing.
#[derive(Default)]
struct Found {
    /// In the order of the manifest.
    segments: Vec<Arc<Segment>>,
    /// Of a damaged segment, by its id: what its pages have for streams of which its index says nothing.
    loose: BTreeMap<u64, BTreeMap<StreamId, Loose>>,
    lacking: Vec<Lacking>,
}

fn open_listed(
    disk: &dyn Disk,
    dir: &Path,
    options: &Options,
    listed: &ManifestSegment,
    past: &mut Past,
    found: &mut Found,
) -> Result<(), Error> {
    let path = dir.join(segment_name(listed.id));
    let encryption = options.encryption.as_ref();
    let opened = Segment::open_listed(disk, &path, encryption, listed).and_then(|segment| {
        if matches!(past, Past::Damage(_)) {
            // What cannot be read of its index is known now, while there is another way to read it.
            segment.entries(|_| Ok(()))?;
            segment.records(|_, _| {})?;
        }
        Ok(Arc::new(segment))
    });
    let (error, told) = match (opened, past) {
        (Ok(segment), _) => {
            found.segments.push(segment);
            return Ok(());
        }
        (Err(error @ (Error::Corrupt { .. } | Error::Io { .. })), Past::Damage(told)) => {
            (error, told)
        }
        (Err(error), _) => return Err(error),
    };
    told.push(Damage {
        error: error.clone(),
        affected: vec![Affected::Segment],
    });
    found.lacking.push(Lacking {
        lo: listed.lo,
        hi: listed.hi,
        error,
    });
    let overhead = options.overhead;
    // Where nothing of it can be read either, all of it is missing.
    if let Ok(remains) = Remains::read(disk, &path, encryption, listed, overhead) {
        let (messages, nameless) = (remains.messages(), remains.nameless);
        let mut what = format!("{messages} messages were found page by page");
        if nameless > 0 {
            what = format!(
                "{what}; {nameless} more stand in pages that do not say of which stream they are"
            );
        }
        if messages + nameless > 0 {
            told.push(Damage {
                error: Error::corrupt(&path, 0, what),
                affected: Vec::new(),
            });
        }
        found.loose.insert(listed.id, remains.loose);
        found.segments.push(Arc::new(remains.segment));
    }
    Ok(())
}

/// The streams of which only pages were found so far, in segments newer than those that say what they are: newest first.
type Unknown = BTreeMap<StreamId, Vec<(Arc<Segment>, Loose)>>;

/// Gives the streams what was found of a damaged segment page by page.
fn load_loose(
    segment: &Arc<Segment>,
    loose: BTreeMap<StreamId, Loose>,
    loading: &mut BTreeMap<StreamId, Loading>,
    unknown: &mut Unknown,
) {
    for (id, loose) in loose {
        match loading.get_mut(&id) {
            // The whole state of it is newer than the pages.
            Some(Loading::Present(stream)) if segment.hi >= stream.born => {
                push_loose(stream, segment, loose);
            }
            Some(_) => {}
            None => unknown
                .entry(id)
                .or_default()
                .push((segment.clone(), loose)),
        }
    }
}

fn push_loose(stream: &mut Stream, segment: &Arc<Segment>, loose: Loose) {
    let is_below = |part: &Part| part.first_seq() > loose.part.last_seq;
    if !stream.parts.last().is_none_or(is_below) {
        return;
    }
    stream.dead.union(&loose.dead);
    for &(seq, expires) in &loose.expiries {
        stream.note_expiry(seq, expires);
    }
    let present = loose.present(StreamMeta {
        born: stream.born,
        first_seq: stream.first_seq,
        last_seq: stream.last_seq,
        messages: stream.messages,
        bytes: stream.bytes,
        last_time: stream.last_time,
    });
    stream.parts.push(Part::new(segment.clone(), present));
}

/// The newest of a stream are pages without an entry: it ends where they do, at the least.
fn extend(stream: &mut Stream, found: Vec<(Arc<Segment>, Loose)>) {
    let end = stream.last_seq;
    for (segment, loose) in found {
        let part = &loose.part;
        if part.first_seq <= end || part.first_seq < stream.first_seq {
            continue;
        }
        if part.last_seq > stream.last_seq {
            stream.last_seq = part.last_seq;
            stream.last_time = part.last_time;
        }
        stream.messages += part.messages;
        stream.bytes += part.bytes;
        push_loose(stream, &segment, loose);
    }
}

/// A stream on its way in: segments are read newest first.
enum Loading {
    Dropped,
    Present(Box<Stream>),
}

fn load_streams(
    dir: &Path,
    found: &mut Found,
    options: &Options,
    past: &mut Past,
) -> Result<BTreeMap<StreamId, Stream>, Error> {
    let mut loading: BTreeMap<StreamId, Loading> = BTreeMap::new();
    let mut unknown = Unknown::new();
    for segment in found.segments.iter().rev() {
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
                    extend(&mut stream, unknown.remove(&id).unwrap_or_default());
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
        if let Some(loose) = found.loose.remove(&segment.id()) {
            load_loose(segment, loose, &mut loading, &mut unknown);
        }
    }
    for (id, pages) in unknown {
        let first = pages
            .last()
            .map(|(segment, loose)| (segment.lo, loose.part.first_seq));
        let Some((born, first_seq)) = first.filter(|_| !loading.contains_key(&id)) else {
            continue;
        };
        let mut stream = Stream::new(id, first_seq.max(1), born, options);
        extend(&mut stream, pages);
        loading.insert(id, Loading::Present(Box::new(stream)));
    }
    let lacking: Arc<[Lacking]> = std::mem::take(&mut found.lacking).into();
    let mut streams = BTreeMap::new();
    for (id, loading) in loading {
        let Loading::Present(mut stream) = loading else {
            continue;
        };
        stream.lacking = lacking.clone();
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
