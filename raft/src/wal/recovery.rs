//! Opening the log: which files, where it ends, and what it says of each group.
//!
//! The log is read from its oldest segment on, record by record. Where a record is bad, either the log ends there, cut by
//! a crash in the middle of its last batch, or bytes that were safely on disk have changed. It is damage, and an error
//! that changes nothing, when anything further on proves that the bad place was once synced: a sound segment after it, or
//! a sound record after it whose `synced` lies beyond it. Else it is a torn tail, and is cut: what was in it was never
//! acknowledged. In the last batch of all the two can be told apart only once a mark was written after it, which happens
//! when the log comes to rest (100 ms) and when it is closed.
//!
//! What is accepted but not proven to be on disk (the last batch) is written once more and synced before anybody acts on
//! it: after a crash of the process alone it may so far be in memory only, or worse, in pages whose sync had failed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use halyard_runtime::disk::{Disk, OpenMode};
use halyard_runtime::random;

use super::end::{self, End};
use super::files::{self, Found, Mend, read_whole};
use super::image::GroupState;
use super::record::BATCH_ALIGN;
use super::scan::{Ended, Scan};
use super::segment::{self, HEADER_BLOCK, Header, Opening, Owner, Segment, Segments, Spare};
use super::writer::{Layout, Tail};
use crate::error::Error;
use crate::identity::LogOwner;
use crate::ids::NodeId;

/// What opening found.
pub(crate) struct Recovered {
    pub(crate) log: u64,
    pub(crate) segments: Segments,
    pub(crate) tail: Tail,
    pub(crate) groups: BTreeMap<u32, GroupState>,
    /// Bytes of a torn tail that were cut.
    pub(crate) cut_bytes: u64,
    /// With encryption: some of it is plain, or sealed in another form or with another key or cipher than now.
    pub(crate) is_foreign: bool,
    /// The last segment's format is not one for the records that are to be written.
    pub(crate) is_outdated: bool,
    /// Name of the node in the last segment's header.
    pub(crate) last_node: NodeId,
    /// What was not as it was written, and is again: one flipped bit each, and spares that were gone.
    pub(crate) mended: Vec<String>,
    /// How often it was opened before, as far as it says.
    pub(crate) boots: u64,
}

/// Opens the log in `dir`, or makes a new one there if it holds none.
pub(crate) fn open(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    owner: &Owner,
    layout: &Layout,
) -> Result<Recovered, Error> {
    match examine(disk, dir, owner, layout, OpenMode::ReadWrite)? {
        Examined::Nothing => create(disk, dir, owner, layout),
        Examined::Log(ended) => ended.make_durable(disk, dir),
    }
}

/// What is wrong with the log in `dir`, as [`open`] would say. Nothing is written.
pub(crate) fn check(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    owner: &Owner,
    layout: &Layout,
) -> Result<Vec<String>, Error> {
    match examine(disk, dir, owner, layout, OpenMode::Read)? {
        Examined::Nothing => Ok(Vec::new()),
        Examined::Log(ended) => Ok(ended.scan.mended.iter().map(Mend::to_string).collect()),
    }
}

/// Whose log is in `dir`, as its sound segments say: the newest one has the name of now, those before it former names. `None`
/// where there is none.
pub(crate) fn owner(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Option<LogOwner>, Error> {
    let exists = disk.exists(dir);
    if !exists.map_err(|source| Error::io("looking for the log", dir, source))? {
        return Ok(None);
    }
    let found = files::find(disk, dir, OpenMode::Read)?;
    let sound = found.iter().filter_map(|each| match &each.opening {
        Opening::Sound(header) if header.sequence == each.sequence => Some(header),
        _ => None,
    });
    let (mut log, mut names) = (0, Vec::new());
    for header in sound {
        log = header.log;
        names.push(NodeId(header.node));
    }
    names.dedup();
    let node = names.pop();
    Ok(node.map(|node| LogOwner {
        node,
        former: names,
        log,
    }))
}

/// What the files say, before anything is written.
enum Examined<'a> {
    /// No log was ever there.
    Nothing,
    Log(Box<Ended<'a>>),
}

fn examine<'a>(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    owner: &Owner,
    layout: &'a Layout,
    mode: OpenMode,
) -> Result<Examined<'a>, Error> {
    let mut found = files::find(disk, dir, mode)?;
    let note = end::read(disk, dir);
    for each in &found {
        if let Opening::Newer(version) = each.opening {
            return Err(Error::NewerVersion {
                path: each.path.clone(),
                found: version,
                supported: segment::VERSION,
            });
        }
    }
    let sound = |each: &Found| matches!(&each.opening, Opening::Sound(header) if header.sequence == each.sequence);
    let Some(first) = found.iter().position(sound) else {
        check_blank(&found, note.as_ref())?;
        return Ok(Examined::Nothing);
    };
    if let Some(before) = found.iter().take(first).next() {
        return Err(corrupt(
            &before.path,
            0,
            "the header of the segment is not sound, but later segments are",
        ));
    }
    let used = found.iter().take_while(|each| sound(each)).count();
    let rest = found.split_off(used);
    if let (Some(bad), true) = (rest.first(), rest.iter().any(sound)) {
        return Err(corrupt(
            &bad.path,
            0,
            "the header of the segment is not sound, but later segments are",
        ));
    }
    let gap = found
        .windows(2)
        .find(|pair| !matches!(pair, [a, b] if a.sequence + 1 == b.sequence));
    if let Some(before) = gap.and_then(|pair| pair.first()) {
        return Err(corrupt(
            &dir.join(segment::file_name(before.sequence + 1)),
            0,
            "the segment file between two others is missing",
        ));
    }
    // Files are made in the order of their numbers, each name synced before the next is made.
    let expected = found.last().map_or(1, |last| last.sequence + 1);
    let is_known_spare = note.is_some_and(|note| note.sequence < expected);
    let mut missing = None;
    if let Some(next) = rest.first().filter(|next| next.sequence != expected) {
        let path = dir.join(segment::file_name(expected));
        if !is_known_spare {
            let what = format!("the file is missing, but {} is there", next.path.display());
            return Err(corrupt(&path, 0, &what));
        }
        missing = Some(Mend::Spare(path));
    }
    let cut = rest
        .windows(2)
        .find(|pair| matches!(pair, [each, _] if each.bytes < HEADER_BLOCK));
    if let Some(cut) = cut.and_then(|pair| pair.first()) {
        if !is_known_spare {
            let what = "the file is cut short, and was whole when the next one was made";
            return Err(corrupt(&cut.path, cut.bytes, what));
        }
        missing = Some(Mend::Spare(cut.path.clone()));
    }
    let mut scan = Scan::new(owner, layout, found)?;
    scan.mended.extend(missing);
    let ended = scan.run(dir, rest, note)?;
    Ok(Examined::Log(Box::new(ended)))
}

pub(super) fn corrupt(file: &Path, offset: u64, what: &str) -> Error {
    Error::Corrupt {
        file: file.to_path_buf(),
        offset,
        what: what.to_owned(),
    }
}

/// No log was ever here: files without a sound header are acceptable only where a crash during the making explains them.
fn check_blank(found: &[Found], note: Option<&End>) -> Result<(), Error> {
    for each in found {
        if each.opening != Opening::Blank || each.sequence != 1 || note.is_some() {
            return Err(corrupt(
                &each.path,
                0,
                "no segment of the log has a sound header",
            ));
        }
        // A crash while the log was being made leaves zeros at most: the first batch follows when the header is synced.
        let bytes = read_whole(each)?;
        if let Some(at) = bytes.iter().position(|byte| *byte != 0) {
            let what = "the header of the segment is blank, but it holds records";
            return Err(corrupt(&each.path, at as u64, what));
        }
    }
    Ok(())
}

/// Makes a new log.
fn create(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    owner: &Owner,
    layout: &Layout,
) -> Result<Recovered, Error> {
    let header = Header {
        version: layout.version(),
        log: random::u64(),
        node: owner.node.unwrap_or_default().0,
        sequence: 1,
        base: 0,
        chain: 0,
        salt: random::u64(),
        sectors: segment::sectors(layout.first_segment_bytes),
        boots: 0,
    };
    let path = dir.join(segment::file_name(1));
    let bytes = layout.first_segment_bytes;
    let made = || -> std::io::Result<_> {
        let file = disk.open(&path, OpenMode::Create)?;
        file.allocate(bytes)?;
        file.write_at(&header.encode(), 0)?;
        file.sync()?;
        disk.sync_dir(dir)?;
        Ok(file)
    };
    let file = made().map_err(|source| Error::io("making the log", &path, source))?;
    let tail = Tail {
        base: 0,
        capacity: bytes,
        file: Arc::clone(&file),
        path: path.clone(),
        offset: HEADER_BLOCK,
        chain: header.crc(),
    };
    let mut segments = Segments::default();
    segments.used.push_back(Segment {
        sequence: 1,
        base: 0,
        capacity: bytes,
        end: HEADER_BLOCK,
        path,
        file,
        entries: BTreeMap::new(),
        tainted: false,
        wipe: false,
    });
    Ok(Recovered {
        log: header.log,
        segments,
        tail,
        groups: BTreeMap::new(),
        cut_bytes: 0,
        is_foreign: false,
        is_outdated: false,
        last_node: NodeId(header.node),
        mended: Vec::new(),
        boots: 0,
    })
}

impl Ended<'_> {
    /// Makes the end durable, writes what was mended, and hands everything over.
    fn make_durable(self, disk: &Arc<dyn Disk>, dir: &Path) -> Result<Recovered, Error> {
        let Self {
            mut scan,
            stop,
            bytes,
            rest,
        } = self;
        let last = scan.segments.used.back();
        let last = last.expect("a log that was read has a segment");
        let (base, path, file) = (last.base, last.path.clone(), Arc::clone(&last.file));
        let (sequence, capacity) = (last.sequence, last.capacity);
        let cut_bytes = bytes
            .iter()
            .skip(stop.offset as usize)
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at as u64 + 1);
        assert!(
            scan.proven <= base + stop.offset,
            "what was once synced was read, or it would be damage"
        );
        for mend in &scan.mended {
            mend.write()?;
        }
        let len = bytes.len() as u64;
        let from = scan.proven.saturating_sub(base);
        let from = from.min(stop.offset).min(len);
        let accepted = from as usize..stop.bad_offset.clamp(from, len) as usize;
        let accepted = bytes.get(accepted);
        let mut again = accepted.expect("what was read is in the file").to_vec();
        again.resize((stop.offset - from) as usize, 0);
        let rewritten = file.write_at(&again, from).and_then(|()| file.sync());
        rewritten
            .map_err(|source| Error::io("making the end of the log durable", &path, source))?;
        let note = End {
            log: scan.log,
            sequence,
            position: base + stop.offset,
        };
        end::write(disk, dir, note, true);
        for (each, number) in rest.into_iter().zip(sequence + 1..) {
            // One that a crash left without its length is made anew, before any after it: a short file before others is
            // damage.
            if each.bytes < HEADER_BLOCK {
                break;
            }
            if each.sequence == number {
                let (path, file, capacity) = (each.path, each.file, each.bytes);
                // Zeros at its start prove nothing: it may have been in the middle of being overwritten.
                let used = true;
                scan.segments.spares.push_back(Spare {
                    sequence: number,
                    capacity,
                    path,
                    file,
                    used,
                });
            } else {
                scan.segments.strays.push((each.path, each.file));
            }
        }
        assert!(
            (base + stop.offset).is_multiple_of(BATCH_ALIGN),
            "the log goes on where a batch may start"
        );
        let tail = Tail {
            base,
            capacity,
            file,
            path,
            offset: stop.offset,
            chain: scan.chain,
        };
        Ok(Recovered {
            log: scan.log,
            segments: scan.segments,
            tail,
            groups: scan.groups,
            cut_bytes,
            is_foreign: scan.is_foreign,
            is_outdated: scan.version < scan.layout.version(),
            last_node: NodeId(scan.node),
            mended: scan.mended.iter().map(Mend::to_string).collect(),
            boots: scan.boots,
        })
    }
}
