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
use std::path::{Path, PathBuf};
use std::sync::Arc;

use halyard_format::Malformed;
use halyard_runtime::disk::{Disk, File, OpenMode};
use halyard_runtime::random;

use super::end::{self, End};
use super::image::GroupState;
use super::record::{self, ALIGN, BATCH_ALIGN, Form, Kind};
use super::segment::{
    self, GroupMarks, HEADER_BLOCK, Header, Opening, Owner, Segment, Segments, Spare,
};
use super::writer::{Layout, Tail};
use crate::cipher::Sealing;
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
    /// What was not as it was written, and is again: one flipped bit each, and spares that were gone.
    pub(crate) mended: Vec<String>,
    /// How often it was opened before, as far as it says.
    pub(crate) boots: u64,
}

/// A file of the log, as found.
pub(super) struct Found {
    pub(super) sequence: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    pub(super) bytes: u64,
    pub(super) opening: Opening,
    /// The byte of the header that is not as it was, and what it was.
    pub(super) mend: Option<(usize, u8)>,
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

/// Whose log is in `dir`, as its oldest sound segment says; `None` where there is none.
pub(crate) fn owner(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Option<LogOwner>, Error> {
    let exists = disk.exists(dir);
    if !exists.map_err(|source| Error::io("looking for the log", dir, source))? {
        return Ok(None);
    }
    let found = find(disk, dir, OpenMode::Read)?;
    Ok(found.iter().find_map(|each| match each.opening {
        Opening::Sound(header) if header.sequence == each.sequence => Some(LogOwner {
            node: NodeId(header.node),
            log: header.log,
        }),
        _ => None,
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
    let mut found = find(disk, dir, mode)?;
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
    scan.run(dir, rest, note)
}

/// Something that was put right, or can be.
pub(super) enum Mend {
    /// One bit had flipped in this byte.
    Bit {
        path: PathBuf,
        file: Arc<dyn File>,
        offset: u64,
        byte: u8,
    },
    /// A spare file was missing or cut short.
    Spare(PathBuf),
}

impl std::fmt::Display for Mend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bit { path, offset, .. } => {
                write!(
                    f,
                    "{} had one flipped bit at byte {offset}: known from the checksum; nothing is lost",
                    path.display()
                )
            }
            Self::Spare(path) => write!(
                f,
                "{} is missing or cut short: a spare file that held nothing yet; nothing is lost",
                path.display()
            ),
        }
    }
}

fn corrupt(file: &Path, offset: u64, what: &str) -> Error {
    Error::Corrupt {
        file: file.to_path_buf(),
        offset,
        what: what.to_owned(),
    }
}

/// All files of the log, by sequence.
pub(super) fn find(disk: &Arc<dyn Disk>, dir: &Path, mode: OpenMode) -> Result<Vec<Found>, Error> {
    let listed = disk
        .list(dir)
        .map_err(|source| Error::io("listing the log", dir, source))?;
    let mut found = Vec::new();
    for entry in listed {
        let Some(sequence) = segment::sequence_of(&entry.name) else {
            continue;
        };
        let path = dir.join(&entry.name);
        let opened = || -> std::io::Result<_> {
            let file = disk.open(&path, mode)?;
            let bytes = file.len()?;
            let mut block = vec![0; HEADER_BLOCK.min(bytes) as usize];
            file.read_exact_at(&mut block, 0)?;
            let (mut opening, mut mend) = (Header::decode(&block), None);
            if opening == Opening::Unsound
                && let Some((at, byte, header)) = Header::mend(&block)
            {
                (opening, mend) = (Opening::Sound(header), Some((at, byte)));
            }
            Ok((file, bytes, opening, mend))
        };
        let (file, bytes, opening, mend) =
            opened().map_err(|source| Error::io("opening a log segment", &path, source))?;
        found.push(Found {
            sequence,
            path,
            file,
            bytes,
            opening,
            mend,
        });
    }
    found.sort_by_key(|each| each.sequence);
    Ok(found)
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
        mended: Vec::new(),
        boots: 0,
    })
}

/// Reads the segments one after the other.
struct Scan<'a> {
    layout: &'a Layout,
    log: u64,
    found: Vec<(Found, Header)>,
    segments: Segments,
    groups: BTreeMap<u32, GroupState>,
    /// crc of the last good record.
    chain: u32,
    /// The largest `synced` seen: everything before it was on disk.
    proven: u64,
    /// See [`Recovered::is_foreign`].
    is_foreign: bool,
    /// Format of the last segment.
    version: u32,
    /// What was put right in memory so far.
    mended: Vec<Mend>,
    /// How often the log was opened, as the newest record or header says that does.
    boots: u64,
}

/// A log that was read to its end, and is damaged nowhere.
struct Ended<'a> {
    scan: Scan<'a>,
    stop: Stop,
    /// The last segment.
    bytes: Vec<u8>,
    /// The files after it.
    rest: Vec<Found>,
}

impl<'a> Scan<'a> {
    fn new(owner: &Owner, layout: &'a Layout, found: Vec<Found>) -> Result<Self, Error> {
        let (mut with_headers, mut mended) = (Vec::new(), Vec::new());
        for each in found {
            let Opening::Sound(header) = each.opening else {
                continue;
            };
            owner.check(&each.path, &header)?;
            if let Some((at, byte)) = each.mend {
                let (path, file, offset) = (each.path.clone(), Arc::clone(&each.file), at as u64);
                mended.push(Mend::Bit {
                    path,
                    file,
                    offset,
                    byte,
                });
            }
            with_headers.push((each, header));
        }
        let cut = with_headers
            .iter()
            .find(|(file, header)| file.bytes < header.file_bytes_min());
        if let Some((file, header)) = cut {
            let what = format!(
                "the file ends here, and was {} bytes long",
                header.file_bytes_min()
            );
            return Err(corrupt(&file.path, file.bytes, &what));
        }
        let (log, chain) = with_headers
            .first()
            .map_or((0, 0), |(_, header)| (header.log, header.chain));
        if let Some((other, _)) = with_headers.iter().find(|(_, header)| header.log != log) {
            return Err(corrupt(
                &other.path,
                16,
                "the segment belongs to another log",
            ));
        }
        let (segments, groups) = Default::default();
        Ok(Self {
            layout,
            log,
            found: with_headers,
            segments,
            groups,
            chain,
            proven: 0,
            is_foreign: false,
            version: segment::VERSION,
            mended,
            boots: 0,
        })
    }

    fn run(
        mut self,
        dir: &Path,
        rest: Vec<Found>,
        note: Option<End>,
    ) -> Result<Examined<'a>, Error> {
        let found = std::mem::take(&mut self.found);
        let first = found.first().map(|(_, header)| *header);
        let mut following = found
            .iter()
            .skip(1)
            .map(|(_, header)| *header)
            .collect::<Vec<_>>()
            .into_iter();
        let mut last = None;
        for (file, header) in found {
            self.proven = self.proven.max(header.base);
            self.version = header.version;
            self.boots = self.boots.max(header.boots);
            self.is_foreign |= header.version < self.layout.version();
            let mut bytes = read_whole(&file)?;
            let stop = self.segment(&file, &header, &mut bytes)?;
            let end = header.base + stop.offset;
            if let Some(next) = following.next() {
                if next.base != end || next.chain != self.chain {
                    return Err(corrupt(&file.path, stop.bad_offset, stop.why));
                }
            } else {
                last = Some((stop, bytes));
            }
            if let Some(segment) = self.segments.used.back_mut() {
                segment.end = end;
            }
        }
        let (Some((stop, bytes)), Some(first)) = (last, first) else {
            return Err(Error::Stopped);
        };
        self.check_start(dir, &first)?;
        self.check_end(&stop, &bytes, &rest, note)?;
        Ok(Examined::Log(Box::new(Ended {
            scan: self,
            stop,
            bytes,
            rest,
        })))
    }

    /// Reads one segment's records up to the first bad one.
    fn segment(&mut self, file: &Found, header: &Header, bytes: &mut [u8]) -> Result<Stop, Error> {
        self.segments.used.push_back(Segment {
            sequence: file.sequence,
            base: header.base,
            capacity: file.bytes,
            end: header.base,
            path: file.path.clone(),
            file: Arc::clone(&file.file),
            entries: BTreeMap::new(),
            tainted: true,
            wipe: false,
        });
        self.chain = header.crc();
        let mut offset = HEADER_BLOCK;
        loop {
            let next = self.next(header, bytes, offset);
            let next = next.map(|(at, record)| (at, record.header));
            let (at, found) = match next {
                Ok(next) => next,
                Err(_) if self.mend(file, header, bytes, offset) => continue,
                Err(why) => {
                    return Ok(Stop {
                        offset: offset.next_multiple_of(BATCH_ALIGN),
                        bad_offset: offset,
                        why,
                    });
                }
            };
            let body = (at as usize + record::HEADER_BYTES)..;
            let body = bytes
                .get(body)
                .and_then(|rest| rest.get(..found.length as usize));
            let record = record::Record {
                header: found,
                body: body.unwrap_or_default(),
            };
            self.chain = record.header.crc;
            self.proven = self.proven.max(record.header.synced);
            self.take(file, header.base + at, at, &record)?;
            offset = at + record::framed_bytes(record.body.len() as u64);
        }
    }

    /// Where the record that should be next is not sound because of one flipped bit: has it as it was.
    fn mend(&mut self, file: &Found, header: &Header, bytes: &mut [u8], offset: u64) -> bool {
        let batch = offset.next_multiple_of(BATCH_ALIGN);
        for at in [offset, batch] {
            let rest = bytes.get(at as usize..).unwrap_or_default();
            let mended = record::mend(rest, self.log as u32, header.base + at, Some(self.chain));
            let Some((within, byte)) = mended else {
                continue;
            };
            let offset = at + within as u64;
            let Some(place) = bytes.get_mut(offset as usize) else {
                return false;
            };
            *place = byte;
            self.mended.push(Mend::Bit {
                path: file.path.clone(),
                file: Arc::clone(&file.file),
                offset,
                byte,
            });
            return true;
        }
        false
    }

    /// The record that continues the log at `offset`, or at the start of the next batch.
    fn next<'b>(
        &self,
        header: &Header,
        bytes: &'b [u8],
        offset: u64,
    ) -> Result<(u64, record::Record<'b>), &'static str> {
        let read = |at: u64| {
            let rest = bytes.get(at as usize..).unwrap_or_default();
            let record = record::decode(rest, self.log as u32, header.base + at)?;
            if record.header.chain != self.chain {
                return Err("a record that does not continue the one before it");
            }
            Ok((at, record))
        };
        let batch = offset.next_multiple_of(BATCH_ALIGN);
        read(offset).or_else(|why| {
            if batch == offset {
                Err(why)
            } else {
                read(batch).map_err(|_| why)
            }
        })
    }

    /// Takes a record into account.
    fn take(
        &mut self,
        file: &Found,
        position: u64,
        offset: u64,
        record: &record::Record<'_>,
    ) -> Result<(), Error> {
        let opened;
        let (form, cipher) = (record.header.form, self.layout.cipher.as_deref());
        let body = if form == Form::Plain {
            self.is_foreign |= cipher.is_some() && !record.body.is_empty();
            record.body
        } else {
            let context = record.header.context();
            let open = |cipher: &Sealing| cipher.open(form, position, &context, record.body);
            let Some(plain) = cipher.and_then(open) else {
                return Err(Error::WrongKey {
                    file: file.path.clone(),
                    offset,
                });
            };
            self.is_foreign |= !plain.is_current;
            opened = plain.body;
            &opened
        };
        let group = record.header.group;
        match record.header.kind {
            Kind::Mark => {
                let start = record::start_of(body).unwrap_or(0);
                self.segments.start = self.segments.start.max(start);
                self.boots = self.boots.max(record::boots_of(body).unwrap_or(0));
                return Ok(());
            }
            Kind::Drop => {
                self.groups.remove(&group);
                self.segments.groups.remove(&group);
                for segment in &mut self.segments.used {
                    segment.entries.remove(&group);
                }
                return Ok(());
            }
            _ => {}
        }
        let state = self.groups.entry(group).or_default();
        let before = state.end();
        state
            .replay(record.header.kind, body, position)
            .map_err(|Malformed(what)| corrupt(&file.path, offset, what))?;
        let (start, end) = (state.start(), state.end());
        let marks: &mut GroupMarks = self.segments.groups.entry(group).or_default();
        match record.header.kind {
            Kind::Checkpoint => (marks.checkpoint, marks.start) = (position, start),
            Kind::Truncate => self.segments.void_from(group, end),
            Kind::Normal | Kind::Blank | Kind::Membership if end > before => {
                if let Some(segment) = self.segments.used.back_mut() {
                    segment.entries.insert(group, end);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Tells a torn tail from damage.
    fn check_end(
        &self,
        stop: &Stop,
        bytes: &[u8],
        rest: &[Found],
        note: Option<End>,
    ) -> Result<(), Error> {
        let Some(last) = self.segments.used.back() else {
            return Err(Error::Stopped);
        };
        let (base, path) = (last.base, &last.path);
        let end = base + stop.offset;
        let padding = bytes
            .get(stop.bad_offset as usize..stop.offset as usize)
            .unwrap_or_default();
        // Zeros up to the end of the sector are what follows a batch: then only what comes after them is bad.
        let bad = if padding.iter().all(|byte| *byte == 0) {
            end
        } else {
            base + stop.bad_offset
        };
        if self.proven > bad || self.proof_after(base, stop.bad_offset, bytes, bad) {
            return Err(corrupt(path, bad - base, stop.why));
        }
        for each in rest {
            // The next segment's header is lost, but its batches may prove that it was synced once.
            let bytes = read_whole(each)?;
            if self.proof_after(end, 0, &bytes, end) {
                return Err(corrupt(
                    &each.path,
                    0,
                    "the header of the segment is not sound, but records in it are",
                ));
            }
        }
        if let Some(note) = note.filter(|note| note.log == self.log && note.position > end) {
            let (ends, was) = (end, note.position);
            let what = format!("the log ends here, at position {ends}, and was synced up to {was}");
            return Err(corrupt(path, stop.offset, &what));
        }
        self.check_groups(path)
    }
    /// True when a sound record after offset `from` says that more than what stands before `position` was synced.
    fn proof_after(&self, base: u64, from: u64, bytes: &[u8], position: u64) -> bool {
        let mut offset = from.next_multiple_of(ALIGN);
        while let Some(rest) = bytes
            .get(offset as usize..)
            .filter(|rest| rest.len() >= record::HEADER_BYTES)
        {
            let expected = (base + offset).to_le_bytes();
            if rest.get(24..32) == Some(&expected)
                && let Ok(record) = record::decode(rest, self.log as u32, base + offset)
                && record.header.synced > position
            {
                return true;
            }
            offset += ALIGN;
        }
        false
    }

    /// The files before the first must have been let go.
    fn check_start(&self, dir: &Path, first: &Header) -> Result<(), Error> {
        let is_told = first.sectors > 0;
        if first.sequence == 1 || first.sequence <= self.segments.start || !is_told {
            return Ok(());
        }
        let what = "the file is missing: it was not let go, and later ones are there";
        let missing = dir.join(segment::file_name(first.sequence - 1));
        Err(corrupt(&missing, 0, what))
    }

    /// A group whose first entries are gone must have a checkpoint that says so.
    fn check_groups(&self, path: &Path) -> Result<(), Error> {
        for (group, state) in &self.groups {
            if let Some(last) = state.missing_before_start() {
                let what = format!("entries of group {group} up to {last} are missing");
                return Err(corrupt(path, 0, &what));
            }
            let checkpointed = self
                .segments
                .groups
                .get(group)
                .is_some_and(|marks| marks.checkpoint > 0);
            if state.start() > 0 && !checkpointed {
                let what = format!(
                    "entries of group {group} before {} are missing",
                    state.start()
                );
                return Err(corrupt(path, 0, &what));
            }
        }
        Ok(())
    }
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
        let Some(last) = scan.segments.used.back() else {
            return Err(Error::Stopped);
        };
        let (base, path, file) = (last.base, last.path.clone(), Arc::clone(&last.file));
        let (sequence, capacity) = (last.sequence, last.capacity);
        let cut_bytes = bytes
            .iter()
            .skip(stop.offset as usize)
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at as u64 + 1);
        for mend in &scan.mended {
            mend.write()?;
        }
        let from = scan.proven.saturating_sub(base).min(stop.offset);
        let mut again = bytes
            .get(from as usize..stop.bad_offset.max(from) as usize)
            .unwrap_or_default()
            .to_vec();
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
            mended: scan.mended.iter().map(Mend::to_string).collect(),
            boots: scan.boots,
        })
    }
}

impl Mend {
    /// Puts the byte into the file as it was.
    fn write(&self) -> Result<(), Error> {
        let Self::Bit {
            path,
            file,
            offset,
            byte,
        } = self
        else {
            return Ok(());
        };
        let written = file.write_at(&[*byte], *offset).and_then(|()| file.sync());
        written.map_err(|source| Error::io("mending a flipped bit", path, source))
    }
}

/// Where a segment's records end, and why.
struct Stop {
    /// Where the next batch would start.
    offset: u64,
    /// The first byte that is no sound record.
    bad_offset: u64,
    why: &'static str,
}

pub(super) fn read_whole(file: &Found) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; usize::try_from(file.bytes).unwrap_or(usize::MAX)];
    file.file
        .read_exact_at(&mut bytes, 0)
        .map_err(|source| Error::io("reading the log", &file.path, source))?;
    Ok(bytes)
}
