//! Reads the log's segments one after the other, record by record, up to the first bad one, and tells a torn tail from damage.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use halyard_format::Malformed;

use super::end::End;
use super::files::{Found, Mend, read_whole};
use super::image::GroupState;
use super::record::{self, ALIGN, BATCH_ALIGN, Form, Kind};
use super::recovery::corrupt;
use super::segment::{self, GroupMarks, HEADER_BLOCK, Header, Owner, Segment, Segments};
use super::writer::Layout;
use crate::cipher::Sealing;
use crate::error::Error;

/// Reads the segments one after the other.
pub(super) struct Scan<'a> {
    pub(super) layout: &'a Layout,
    pub(super) log: u64,
    found: Vec<(Found, Header)>,
    pub(super) segments: Segments,
    pub(super) groups: BTreeMap<u32, GroupState>,
    /// crc of the last good record.
    pub(super) chain: u32,
    /// The largest `synced` seen: everything before it was on disk.
    pub(super) proven: u64,
    /// See [`Recovered::is_foreign`](super::recovery::Recovered::is_foreign).
    pub(super) is_foreign: bool,
    /// Format of the last segment.
    pub(super) version: u32,
    /// Name of the node in its header.
    pub(super) node: u64,
    /// What was put right in memory so far.
    pub(super) mended: Vec<Mend>,
    /// How often the log was opened, as the newest record or header says that does.
    pub(super) boots: u64,
}

/// Where a segment's records end, and why.
pub(super) struct Stop {
    /// Where the next batch would start.
    pub(super) offset: u64,
    /// The first byte that is no sound record.
    pub(super) bad_offset: u64,
    pub(super) why: &'static str,
}

/// A log that was read to its end, and is damaged nowhere.
pub(super) struct Ended<'a> {
    pub(super) scan: Scan<'a>,
    pub(super) stop: Stop,
    /// The last segment.
    pub(super) bytes: Vec<u8>,
    /// The files after it.
    pub(super) rest: Vec<Found>,
}

impl<'a> Scan<'a> {
    /// Of the files that begin the log, which all have a sound header.
    pub(super) fn new(owner: &Owner, layout: &'a Layout, found: Vec<Found>) -> Result<Self, Error> {
        let (mut with_headers, mut mended) = (Vec::new(), Vec::new());
        for each in found {
            let header = each.opening.sound();
            let header = header.expect("only files with a sound header are read");
            owner.check(&each.path, &header)?;
            if !header.base.is_multiple_of(BATCH_ALIGN) {
                let what = "the segment starts where no batch ends";
                return Err(corrupt(&each.path, 40, what));
            }
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
        let (_, first) = with_headers.first().expect("a log has a first segment");
        let (log, chain) = (first.log, first.chain);
        if let Some((other, _)) = with_headers.iter().find(|(_, header)| header.log != log) {
            return Err(corrupt(
                &other.path,
                16,
                "the segment belongs to another log",
            ));
        }
        assert!(
            with_headers
                .windows(2)
                .all(|pair| matches!(pair, [(a, _), (b, _)] if a.sequence + 1 == b.sequence)),
            "a missing file was noticed before"
        );
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
            node: 0,
            mended,
            boots: 0,
        })
    }

    /// Reads everything. Gives the log up to its end, if it is damaged nowhere.
    pub(super) fn run(
        mut self,
        dir: &Path,
        rest: Vec<Found>,
        note: Option<End>,
    ) -> Result<Ended<'a>, Error> {
        let found = std::mem::take(&mut self.found);
        let first = found.first().map(|(_, header)| *header);
        let first = first.expect("a log has a first segment");
        let mut following = found
            .iter()
            .skip(1)
            .map(|(_, header)| *header)
            .collect::<Vec<_>>()
            .into_iter();
        let mut last = None;
        for (file, header) in found {
            self.proven = self.proven.max(header.base);
            (self.version, self.node) = (header.version, header.node);
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
            let segment = self.segments.used.back_mut();
            let segment = segment.expect("the one that was just read");
            assert!(
                segment.base < end,
                "a segment's header comes before its records"
            );
            segment.end = end;
        }
        let (stop, bytes) = last.expect("the loop ends with the last segment");
        self.check_start(dir, &first)?;
        self.check_end(&stop, &bytes, &rest, note)?;
        Ok(Ended {
            scan: self,
            stop,
            bytes,
            rest,
        })
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
            debug_assert!(
                offset.is_multiple_of(ALIGN),
                "records are padded to a multiple of 8"
            );
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
                body: body.expect("the body of a sound record was read with it"),
            };
            debug_assert!(at >= offset, "reading goes forward");
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
                let segment = self.segments.used.back_mut();
                let segment = segment.expect("the record is in a segment");
                segment.entries.insert(group, end);
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
        let last = self.segments.used.back();
        let last = last.expect("a log that was read has a segment");
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
