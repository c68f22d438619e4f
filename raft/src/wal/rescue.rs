//! Reads a log as far as it can be read, past damage, and changes nothing: for tools, and for a start that serves what is sound.
//!
//! Opening ([`super::recovery`]) stops at the first bad record that was once synced. Here reading goes on at the next sound one,
//! and says what is missing between: of each group the entries up to its first gap, the gaps, and the entries behind them. What
//! follows a bad place is believed only if it proves that the place was once synced, as in recovery: else it is a torn tail, or
//! what was left of one.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use halyard_format::Encryption;
use halyard_format::codec::Reader;
use halyard_runtime::disk::{Disk, File, OpenMode};

use super::end::{self, End};
use super::record::{self, ALIGN, BATCH_ALIGN, Form, HEADER_BYTES, Head, Kind};
use super::scrub::LogDamage;
use super::segment::{self, HEADER_BLOCK, Opening, Owner};
use super::writer::Layout;
use super::{files, image, recovery};
use crate::cipher::Sealing;
use crate::codec;
use crate::error::Error;
use crate::ids::{GroupId, LogId, NodeId};
use crate::renew::Renewed;

/// One entry of a group's log.
#[derive(Clone, Debug)]
pub struct EntryImage {
    /// Its index.
    pub index: u64,
    /// Term of the leader that proposed it.
    pub term: u64,
    /// That leader.
    pub leader: NodeId,
    /// What the machine is given; `None` for entries of consensus itself.
    pub payload: Option<Bytes>,
    position: u64,
}

impl EntryImage {
    /// Which entry it is.
    #[must_use]
    pub const fn id(&self) -> LogId {
        LogId {
            term: self.term,
            leader: self.leader,
            index: self.index,
        }
    }
}

/// The log of one group.
#[derive(Clone, Debug, Default)]
pub struct GroupImage {
    /// The log starts after this entry: what is before is in the group's store.
    pub purged: u64,
    /// Index after the last entry up to `purged` that had a payload: what the group's store must hold at least.
    pub payload_end: u64,
    /// In the order of their indices; some may be missing.
    pub entries: Vec<EntryImage>,
    purged_id: LogId,
    /// Nothing of this group can be missing but what is seen to be missing between two entries. False where damage may have
    /// taken its last entries.
    pub is_certain: bool,
}

impl GroupImage {
    /// The last entry of the log, if there was any, and the index after the last one with a payload.
    #[must_use]
    pub fn last(&self) -> Option<Renewed> {
        let entry = self.entries.last().filter(|last| last.index >= self.purged);
        let id = match entry {
            Some(entry) => entry.id(),
            None if self.purged > 0 => self.purged_id,
            None => return None,
        };
        let with_payload = self
            .entries
            .iter()
            .rev()
            .find(|entry| entry.payload.is_some());
        let behind = with_payload.map_or(0, |entry| entry.index + 1);
        Some(Renewed {
            id,
            payload_end: self.payload_end.max(behind),
        })
    }

    /// What a store that holds everything up to `applied` is to be given, up to the first entry that is missing, and which are
    /// missing there. `Some` with an empty end (`u64::MAX`) where it is not known how many.
    #[must_use]
    pub fn after(&self, applied: u64) -> (&[EntryImage], Option<RangeInclusive<u64>>) {
        let settled = if self.payload_end <= applied + 1 {
            self.purged.max(applied)
        } else {
            applied
        };
        let from = self.entries.partition_point(|entry| entry.index <= settled);
        let rest = self.entries.get(from..).unwrap_or_default();
        let follows = |(at, entry): &(usize, &EntryImage)| entry.index == settled + 1 + *at as u64;
        let count = rest.iter().enumerate().take_while(follows).count();
        let (sound, behind) = rest.split_at(count);
        let next = settled + 1 + count as u64;
        let gap = match behind.first() {
            Some(entry) => Some(next..=entry.index - 1),
            None if next <= self.purged && self.payload_end > next => Some(next..=self.purged),
            None if !self.is_certain => Some(next..=u64::MAX),
            None => None,
        };
        (sound, gap)
    }
}

/// A log as far as it can be read.
#[derive(Debug, Default)]
pub struct LogImage {
    /// Why an opening fails; `None` when it does not.
    pub refusal: Option<Error>,
    /// What an opening puts right.
    pub mended: Vec<String>,
    /// Every place that is not what was written.
    pub damage: Vec<LogDamage>,
    /// By group.
    pub groups: BTreeMap<GroupId, GroupImage>,
    /// Files that hold records.
    pub files: usize,
    /// Records that were read.
    pub records: u64,
    /// How often the log was opened, as far as it says.
    pub boots: u64,
    /// Something is missing, and it is not known of which group.
    is_anyones: bool,
}

impl LogImage {
    /// The log of one group; an empty one where nothing of it was found.
    #[must_use]
    pub fn group(&self, group: GroupId) -> GroupImage {
        self.groups.get(&group).cloned().unwrap_or(GroupImage {
            is_certain: !self.is_anyones,
            ..GroupImage::default()
        })
    }

    /// Reads the log below a node's directory `dir`, whosever it is. Holds it in memory.
    ///
    /// # Errors
    /// [`Error::Io`] when the directory or a file cannot be opened, [`Error::WrongKey`], [`Error::NewerVersion`].
    pub fn read(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        encryption: Option<&Encryption>,
    ) -> Result<Self, Error> {
        let dir = dir.join("log");
        let exists = disk.exists(&dir);
        if !exists.map_err(|source| Error::io("looking for the log", &dir, source))? {
            return Ok(Self::default());
        }
        let layout = Layout {
            segment_bytes: 0,
            first_segment_bytes: 0,
            cipher: encryption.map(Sealing::new).map(Arc::new),
        };
        let mut image = Self::default();
        let anyone = Owner {
            node: None,
            former: Vec::new(),
        };
        match recovery::check(disk, &dir, &anyone, &layout) {
            Ok(mended) => image.mended = mended,
            Err(error @ (Error::WrongKey { .. } | Error::NewerVersion { .. })) => {
                return Err(error);
            }
            Err(error) => image.refusal = Some(error),
        }
        let walk = Walk::over(disk, &dir)?;
        walk.into_image(layout.cipher.as_deref(), &mut image)?;
        if image.refusal.is_none() {
            // What an opening takes for the rest of a torn tail is that.
            image.damage.clear();
            image.is_anyones = false;
            for group in image.groups.values_mut() {
                group.is_certain = true;
            }
        }
        Ok(image)
    }
}

/// A sound record.
struct Item {
    position: u64,
    header: record::Header,
    body: Bytes,
    file: usize,
}

/// Where reading went on at a later place.
struct Break {
    path: PathBuf,
    sequence: u64,
    offset: u64,
    position: u64,
    what: String,
    /// The group of the one record that stood there, where its header still says so.
    group: Option<u32>,
    /// How many items were found before it.
    before: usize,
}

/// Everything that is sound, in order.
#[derive(Default)]
struct Walk {
    log: Option<u32>,
    items: Vec<Item>,
    breaks: Vec<Break>,
    /// Each place before such a position was synced, as headers say; with how many items were found before it.
    proofs: Vec<(usize, u64)>,
    chain: Option<u32>,
    /// Position after the last record.
    end: u64,
    paths: Vec<PathBuf>,
    note: Option<End>,
}

impl Walk {
    fn over(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, Error> {
        let found = files::find(disk, dir, OpenMode::Read)?;
        let mut walk = Self {
            note: end::read(disk, dir),
            ..Self::default()
        };
        let sound = found.iter().find_map(|each| match each.opening {
            Opening::Sound(header) => Some(header.log as u32),
            _ => None,
        });
        walk.log = sound.or(walk.note.map(|note| note.log as u32));
        let mut expected = None;
        for each in found {
            if let Opening::Newer(version) = each.opening {
                return Err(Error::NewerVersion {
                    path: each.path,
                    found: version,
                    supported: segment::VERSION,
                });
            }
            let bytes = Bytes::from(read_past_errors(&each.file, each.bytes));
            let Some(base) = walk.base_of(&each.opening, each.sequence, &bytes) else {
                continue;
            };
            if let Some(number) = expected.filter(|number| *number != each.sequence) {
                walk.note_break(Break {
                    path: dir.join(segment::file_name(number)),
                    sequence: number,
                    offset: 0,
                    position: walk.end,
                    what: "the segment file between two others is missing".to_owned(),
                    group: None,
                    before: walk.items.len(),
                });
            }
            expected = Some(each.sequence + 1);
            walk.segment(each.sequence, each.path, &each.opening, base, &bytes);
        }
        Ok(walk)
    }

    fn note_break(&mut self, found: Break) {
        self.chain = None;
        self.breaks.push(found);
    }

    /// Where a file's first byte stands in the log; `None` when it holds nothing of it.
    fn base_of(&mut self, opening: &Opening, sequence: u64, bytes: &[u8]) -> Option<u64> {
        if let Opening::Sound(header) = opening {
            return (header.sequence == sequence).then_some(header.base);
        }
        // Its header is gone: what a sound record in it says. A spare's old records are of earlier positions.
        let mut offset = HEADER_BLOCK;
        while let Some(rest) = bytes
            .get(offset as usize..)
            .filter(|rest| rest.len() >= HEADER_BYTES)
        {
            let field = |at: usize| rest.get(at..).and_then(|rest| rest.first_chunk::<4>());
            let log = field(20).map(|bytes| u32::from_le_bytes(*bytes))?;
            let place = rest.get(24..).and_then(|rest| rest.first_chunk::<8>())?;
            let position = u64::from_le_bytes(*place);
            let is_ours = self.log.is_none_or(|ours| ours == log) && position >= self.end + offset;
            if is_ours && record::decode(rest, log, position).is_ok() {
                self.log = Some(log);
                return Some(position - offset);
            }
            offset += ALIGN;
        }
        None
    }

    fn segment(
        &mut self,
        sequence: u64,
        path: PathBuf,
        opening: &Opening,
        base: u64,
        bytes: &Bytes,
    ) {
        let file = self.paths.len();
        self.paths.push(path.clone());
        let mut offset = HEADER_BLOCK;
        match opening {
            Opening::Sound(header) => {
                self.proofs.push((self.items.len(), header.base));
                let continues = self.chain.is_none_or(|chain| chain == header.chain);
                if !continues || (self.end != header.base && !self.items.is_empty()) {
                    self.note_break(Break {
                        path: self
                            .paths
                            .get(file.saturating_sub(1))
                            .cloned()
                            .unwrap_or_default(),
                        sequence: sequence.saturating_sub(1),
                        offset: 0,
                        position: self.end,
                        what: "the segment after it does not continue it".to_owned(),
                        group: None,
                        before: self.items.len(),
                    });
                }
                self.chain = Some(header.crc());
            }
            _ => self.note_break(Break {
                path: path.clone(),
                sequence,
                offset: 0,
                position: base,
                what: "the header of the segment is not sound".to_owned(),
                // It is in the sector of no record.
                group: Some(NO_GROUP),
                before: self.items.len(),
            }),
        }
        let log = self.log.unwrap_or(0);
        loop {
            let batch = offset.next_multiple_of(BATCH_ALIGN);
            let mut read = self.at(bytes, log, base, offset);
            if read.is_err() && batch != offset {
                read = self.at(bytes, log, base, batch).or(read);
            }
            match read {
                Ok((at, header, body)) => {
                    offset = at + record::framed_bytes(body.len() as u64);
                    self.take(file, base + at, header, body);
                    self.end = base + offset.next_multiple_of(BATCH_ALIGN);
                }
                Err(what) => {
                    let Some(next) = next_sound(bytes, log, base, offset) else {
                        self.end = base + batch;
                        return;
                    };
                    let bad = if is_zero(bytes, offset, batch) {
                        batch
                    } else {
                        offset
                    };
                    let group = lone_group(bytes, log, base, bad, next);
                    self.note_break(Break {
                        path: path.clone(),
                        sequence,
                        offset: bad,
                        position: base + bad,
                        what: what.to_owned(),
                        group,
                        before: self.items.len(),
                    });
                    offset = next;
                }
            }
        }
    }

    fn take(&mut self, file: usize, position: u64, header: record::Header, body: Bytes) {
        self.chain = Some(header.crc);
        self.items.push(Item {
            position,
            header,
            body,
            file,
        });
    }

    /// The record at `offset`, one flipped bit mended.
    fn at(
        &self,
        bytes: &Bytes,
        log: u32,
        base: u64,
        offset: u64,
    ) -> Result<(u64, record::Header, Bytes), &'static str> {
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let position = base + offset;
        let body = |length: usize| {
            let from = offset as usize + HEADER_BYTES;
            bytes.slice(from..from + length)
        };
        let what = match record::decode(rest, log, position) {
            Ok(record) if self.chain.is_none_or(|chain| chain == record.header.chain) => {
                return Ok((offset, record.header, body(record.body.len())));
            }
            Ok(_) => "a record that does not continue the one before it",
            Err(what) => what,
        };
        let (at, byte) = record::mend(rest, log, position, self.chain).ok_or(what)?;
        let mut mended = rest.to_vec();
        *mended.get_mut(at).ok_or(what)? = byte;
        let record = record::decode(&mended, log, position)?;
        let body = Bytes::copy_from_slice(record.body);
        Ok((offset, record.header, body))
    }

    /// Leaves out what is only the rest of a torn tail; says which breaks are damage.
    fn settle(&mut self) {
        let mut most = 0;
        let mut proven = vec![0; self.items.len() + 1];
        for at in (0..=self.items.len()).rev() {
            proven.get_mut(at).into_iter().for_each(|slot| *slot = most);
            if let Some(item) = at.checked_sub(1).and_then(|at| self.items.get(at)) {
                most = most.max(item.header.synced);
            }
        }
        for at in 0..self.breaks.len() {
            let Some(found) = self.breaks.get(at) else {
                return;
            };
            let by_records = proven
                .get(found.before)
                .is_some_and(|synced| *synced > found.position);
            let mut later = self
                .proofs
                .iter()
                .filter(|(before, _)| *before >= found.before);
            let by_headers = later.any(|(_, base)| *base > found.position);
            let by_note = self.note.is_some_and(|note| {
                Some(note.log as u32) == self.log && note.position > found.position
            });
            if !(by_records || by_headers || by_note) {
                let before = found.before;
                self.items.truncate(before);
                self.breaks.truncate(at);
                self.end = self.items.last().map_or(0, |last| {
                    let framed = record::framed_bytes(last.body.len() as u64);
                    (last.position + framed).next_multiple_of(BATCH_ALIGN)
                });
                return;
            }
        }
    }

    fn into_image(mut self, cipher: Option<&Sealing>, image: &mut LogImage) -> Result<(), Error> {
        self.settle();
        if let Some(note) = self.note.filter(|note| note.position > self.end)
            && Some(note.log as u32) == self.log
        {
            let what = format!(
                "the log ends here, and was synced up to position {}",
                note.position
            );
            let (path, sequence) = (
                self.paths.last().cloned().unwrap_or_default(),
                note.sequence,
            );
            let (offset, position, before) = (0, self.end, self.items.len());
            self.breaks.push(Break {
                path,
                sequence,
                offset,
                position,
                what,
                group: None,
                before,
            });
        }
        let mut groups: BTreeMap<u32, Gathering> = BTreeMap::new();
        for item in &self.items {
            let path = self.paths.get(item.file);
            let opened = open_body(item, cipher, path)?;
            let group = item.header.group;
            match item.header.kind {
                Kind::Mark => {
                    let boots = record::boots_of(&opened).unwrap_or(0);
                    image.boots = image.boots.max(boots);
                }
                Kind::Drop => {
                    groups.remove(&group);
                }
                kind => {
                    let gathering = groups.entry(group).or_default();
                    if gathering.take(kind, &opened, item.position).is_err() {
                        tracing::warn!(
                            "a record of group {group} makes no sense at position {}",
                            item.position
                        );
                    }
                }
            }
        }
        image.files = self.paths.len();
        image.records = self.items.len() as u64;
        image.is_anyones = self.breaks.iter().any(|found| found.group.is_none());
        for (group, gathering) in groups {
            let lost_here = |found: &&Break| found.group.is_none_or(|lost| lost == group);
            let last = gathering.entries.values().map(|entry| entry.position).max();
            let mine = self
                .breaks
                .iter()
                .filter(lost_here)
                .map(|found| found.position);
            let is_certain = mine
                .max()
                .is_none_or(|at| last.is_some_and(|last| last > at));
            image
                .groups
                .insert(GroupId(group), gathering.finish(is_certain));
        }
        for found in &self.breaks {
            image.damage.push(LogDamage {
                file: found.path.clone(),
                offset: found.offset,
                what: found.what.clone(),
                entries: lost_at(&image.groups, found.position),
                sequence: found.sequence,
            });
        }
        Ok(())
    }
}

/// No group has this number: what stood there was of none.
const NO_GROUP: u32 = u32::MAX;

/// One group's log while it is being read.
#[derive(Default)]
struct Gathering {
    purged: u64,
    purged_id: LogId,
    payload_end: u64,
    entries: BTreeMap<u64, EntryImage>,
}

impl Gathering {
    fn take(&mut self, kind: Kind, body: &Bytes, position: u64) -> codec::Decoded<()> {
        let mut input = Reader::new(body);
        match kind {
            Kind::Normal | Kind::Blank | Kind::Membership => {
                let id = codec::log_id(&mut input)?;
                let payload = (kind == Kind::Normal && body.len() >= Head::ENTRY_BYTES)
                    .then(|| body.slice(Head::ENTRY_BYTES..));
                let entry = EntryImage {
                    index: id.index,
                    term: id.term,
                    leader: id.leader,
                    payload,
                    position,
                };
                self.entries.insert(id.index, entry);
            }
            Kind::Truncate => {
                self.entries.split_off(&input.u64()?);
            }
            Kind::Checkpoint => {
                let (purged, payload_end) = image::checkpoint_ends(&mut input)?;
                if let Some(id) = purged.filter(|id| id.index >= self.purged) {
                    (self.purged, self.purged_id) = (id.index, id);
                }
                self.payload_end = payload_end;
            }
            Kind::Vote | Kind::Mark | Kind::Drop => {}
        }
        Ok(())
    }

    fn finish(self, is_certain: bool) -> GroupImage {
        GroupImage {
            purged: self.purged,
            purged_id: self.purged_id,
            payload_end: self.payload_end,
            entries: self.entries.into_values().collect(),
            is_certain,
        }
    }
}

/// Which entries of each group are missing around a position.
fn lost_at(
    groups: &BTreeMap<GroupId, GroupImage>,
    position: u64,
) -> Vec<(GroupId, RangeInclusive<u64>)> {
    let mut lost = Vec::new();
    for (group, image) in groups {
        let mut before = image.purged;
        for entry in &image.entries {
            if entry.position > position {
                if entry.index > before + 1 {
                    lost.push((*group, before + 1..=entry.index - 1));
                }
                break;
            }
            before = before.max(entry.index);
        }
    }
    lost
}

fn open_body(
    item: &Item,
    cipher: Option<&Sealing>,
    path: Option<&PathBuf>,
) -> Result<Bytes, Error> {
    let form = item.header.form;
    if form == Form::Plain {
        return Ok(item.body.clone());
    }
    let context = item.header.context();
    let opened = cipher.and_then(|cipher| cipher.open(form, item.position, &context, &item.body));
    opened
        .map(|opened| Bytes::from(opened.body))
        .ok_or_else(|| Error::WrongKey {
            file: path.cloned().unwrap_or_default(),
            offset: 0,
        })
}

fn is_zero(bytes: &[u8], from: u64, to: u64) -> bool {
    let range = bytes.get(from as usize..to as usize);
    range.is_some_and(|range| range.iter().all(|byte| *byte == 0))
}

/// Where the next sound record of this place starts, after `offset`.
fn next_sound(bytes: &[u8], log: u32, base: u64, offset: u64) -> Option<u64> {
    let mut at = offset + ALIGN;
    while let Some(rest) = bytes
        .get(at as usize..)
        .filter(|rest| rest.len() >= HEADER_BYTES)
    {
        let says_so = rest.get(24..32) == Some(&(base + at).to_le_bytes());
        if says_so && record::decode(rest, log, base + at).is_ok() {
            return Some(at);
        }
        at += ALIGN;
    }
    None
}

/// The group of the record at `offset`, where its header fits its place and says that it ends where the sound one at `next`
/// begins: then it is the only one that is lost.
fn lone_group(bytes: &[u8], log: u32, base: u64, offset: u64, next: u64) -> Option<u32> {
    let rest = bytes.get(offset as usize..)?;
    let header = record::peek(rest, log, base + offset)?;
    let end = offset + record::framed_bytes(u64::from(header.length));
    (end == next || end.next_multiple_of(BATCH_ALIGN) == next).then_some(header.group)
}

/// A file's bytes; zeros where it cannot be read.
fn read_past_errors(file: &Arc<dyn File>, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    if file.read_exact_at(&mut bytes, 0).is_ok() {
        return bytes;
    }
    for (piece, at) in bytes.chunks_mut(BATCH_ALIGN as usize).zip(0..) {
        if file.read_exact_at(piece, at * BATCH_ALIGN).is_err() {
            piece.fill(0);
        }
    }
    bytes
}
