//! The files of the log: names, headers, and which of them hold what.
//!
//! ```text
//!   log/log-0000000000000001     512 bytes of header, then batches, each starting at a multiple of 512
//!   log/log-0000000000000002     ...
//!   log/log-0000000000000003     a spare: allocated and zeroed (or a segment that was let go, renamed), header not yet valid
//!
//!   header, at offset
//!        0  8   magic "HALYDLOG"
//!        8  4   version of the format: 1, or 2 where records of the bound form may follow
//!       12  4   crc of bytes 16..64
//!       16  8   log        identity of this log, random
//!       24  8   node       whose log it is
//!       32  8   sequence   the number in the file's name; a renamed file's old header does not match it
//!       40  8   base       position of the file's first byte; the end of the segment before it
//!       48  4   chain      crc of the last record before this segment
//!       52  8   salt       random
//!       60  4   sectors    length of the file in sectors of 512 bytes; 0 = not told (logs of before 2026-12)
//!       64  8   boots      how often the log had been opened when the segment was begun; 0 = not told
//!       72  4   crc of bytes 64..72, 0 where `boots` is
//! ```
//!
//! The first record's `chain` is the header's crc. The salt makes each header unlike any other: where a crash took the
//! header of a new segment but left a part of its first batch, and the segment is then begun anew at the same position,
//! what was left of the first attempt does not continue the second (found by simulation).
//!
//! A segment's header is written together with its first batch. The segment before it was synced to its end by then, so
//! a sound header proves where that one ends and with which record: no seal is needed. Files are allocated and zeroed
//! ahead of time, so that a sync has no metadata to write. A file that is shorter than its header says was cut by
//! something else than a crash, and what it held is missing.
//!
//! Before the oldest segment goes, a start record (see `record::Kind::Mark`) says which one is the oldest from then on, and
//! is synced: a log whose first file is later than the newest start record says has lost files.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use halyard_format::checksum;
use halyard_format::codec::{Fields, Malformed, Reader};
use halyard_runtime::disk::File;

use crate::error::Error;
use crate::ids::NodeId;

/// Bytes before the first batch.
pub(crate) const HEADER_BLOCK: u64 = 512;
/// The newest format of the log that this release reads, and the one that it writes with encryption.
pub(crate) const VERSION: u32 = 2;
/// The format that it writes without encryption.
pub(crate) const VERSION_PLAIN: u32 = 1;
const MAGIC: &[u8; 8] = b"HALYDLOG";
pub(crate) const SECTOR: u64 = halyard_runtime::disk::SECTOR_BYTES as u64;
const HEADER_BYTES: usize = 64;

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) log: u64,
    pub(crate) node: u64,
    pub(crate) sequence: u64,
    pub(crate) base: u64,
    pub(crate) chain: u32,
    pub(crate) salt: u64,
    /// Length of the file in units of [`SECTOR`]; 0 when the header does not say.
    pub(crate) sectors: u32,
    /// How often the log had been opened; 0 when the header does not say.
    pub(crate) boots: u64,
}

/// What the first bytes of a file say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// A sound header.
    Sound(Header),
    /// Nothing but zeros: allocated, never used.
    Blank,
    /// Neither: a header that was torn, or damaged.
    Unsound,
    /// Sound as far as this release can tell, but of a later format.
    Newer(u32),
}

impl Opening {
    /// The header, if it is sound.
    pub(crate) fn sound(&self) -> Option<Header> {
        match self {
            Self::Sound(header) => Some(*header),
            _ => None,
        }
    }
}

/// The `sectors` of a file of `bytes`.
pub(crate) fn sectors(bytes: u64) -> u32 {
    u32::try_from(bytes / SECTOR).unwrap_or(0)
}

impl Header {
    /// The least bytes that the file must have.
    pub(crate) fn file_bytes_min(&self) -> u64 {
        u64::from(self.sectors) * SECTOR
    }

    fn checked(&self) -> Vec<u8> {
        let mut checked = Fields::default();
        checked
            .u64(self.log)
            .u64(self.node)
            .u64(self.sequence)
            .u64(self.base)
            .u32(self.chain)
            .u64(self.salt)
            .u32(self.sectors);
        assert!(
            checked.0.len() <= HEADER_BYTES - 16,
            "nothing of a header is cut off"
        );
        checked.0.resize(HEADER_BYTES - 16, 0);
        checked.0
    }

    /// The `chain` of the segment's first record.
    pub(crate) fn crc(&self) -> u32 {
        checksum::sum(&self.checked())
    }

    /// The header's block, ready to be written at offset 0.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut block = Fields(Vec::with_capacity(HEADER_BLOCK as usize));
        block.0.extend_from_slice(MAGIC);
        block.u32(self.version).u32(self.crc());
        block.0.extend_from_slice(&self.checked());
        assert_eq!(
            block.0.len(),
            HEADER_BYTES,
            "a header is as long as a reader expects"
        );
        if self.boots > 0 {
            let boots = self.boots.to_le_bytes();
            block.u64(self.boots).u32(checksum::sum(&boots));
        }
        block.0.resize(HEADER_BLOCK as usize, 0);
        block.0
    }

    /// Reads the start of a file.
    pub(crate) fn decode(block: &[u8]) -> Opening {
        if block.iter().all(|byte| *byte == 0) {
            return Opening::Blank;
        }
        let mut fields = Reader::new(block);
        let mut read = || -> Result<Opening, Malformed> {
            if fields.take(8)? != MAGIC {
                return Ok(Opening::Unsound);
            }
            let version = fields.u32()?;
            let crc = fields.u32()?;
            let checked = fields.take(HEADER_BYTES - 16)?;
            let sum = checksum::sum(checked);
            if version > VERSION && sum_of_newer(version, checked) == crc {
                return Ok(Opening::Newer(version));
            }
            if version == 0 || version > VERSION || sum != crc {
                return Ok(Opening::Unsound);
            }
            let mut checked = Reader::new(checked);
            Ok(Opening::Sound(Self {
                version,
                log: checked.u64()?,
                node: checked.u64()?,
                sequence: checked.u64()?,
                base: checked.u64()?,
                chain: checked.u32()?,
                salt: checked.u64()?,
                sectors: checked.u32()?,
                boots: boots_at(block),
            }))
        };
        read().unwrap_or(Opening::Unsound)
    }
}

/// The `boots` of a header's block; 0 where it is not told, or not sound: no more than another sound one is lost.
fn boots_at(block: &[u8]) -> u64 {
    let boots = block.get(HEADER_BYTES..).and_then(<[u8]>::first_chunk::<8>);
    let sum = block
        .get(HEADER_BYTES + 8..)
        .and_then(<[u8]>::first_chunk::<4>);
    match (boots, sum) {
        (Some(boots), Some(sum)) if checksum::sum(boots).to_le_bytes() == *sum => {
            u64::from_le_bytes(*boots)
        }
        _ => 0,
    }
}

/// The sum of a header of a later format: from format 3 on it covers the version, too. So a version that is not known is one
/// only if the sum says so, and not a flipped bit.
fn sum_of_newer(version: u32, checked: &[u8]) -> u32 {
    checksum::append(checksum::sum(&version.to_le_bytes()), checked)
}

impl Header {
    /// The header that was written, where one flipped bit explains why this one is not sound: the bit's byte, and the byte
    /// as it was. A bit of the version has the lower one of the versions that it may have been: that is read the same.
    pub(crate) fn mend(block: &[u8]) -> Option<(usize, u8, Self)> {
        block.get(..HEADER_BYTES)?;
        let mut block = block.to_vec();
        let mut found: Option<(usize, u8, Self)> = None;
        for at in 0..HEADER_BYTES {
            for bit in 0..8 {
                let byte = block.get_mut(at)?;
                *byte ^= 1 << bit;
                let mended = *byte;
                let opening = Self::decode(&block);
                *block.get_mut(at)? ^= 1 << bit;
                if let Opening::Sound(header) = opening
                    && found.is_none_or(|(_, _, other)| header.version < other.version)
                {
                    found = Some((at, mended, header));
                }
            }
        }
        found
    }
}

/// The file name of a segment.
pub(crate) fn file_name(sequence: u64) -> String {
    format!("log-{sequence:016x}")
}

/// The sequence in a file name, if it is one of a segment.
pub(crate) fn sequence_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?;
    if digits.len() != 16 {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

/// A segment in use: all of them but the spare.
pub(crate) struct Segment {
    pub(crate) sequence: u64,
    pub(crate) base: u64,
    /// Bytes of the file.
    pub(crate) capacity: u64,
    /// Position after its last batch; grows while it is the last segment.
    pub(crate) end: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    /// For each group with entries in it: the index after the last of them.
    pub(crate) entries: BTreeMap<u32, u64>,
    /// True when the file may hold bytes of a segment before it, after its own end.
    pub(crate) tainted: bool,
    /// True once it was asked that its bytes must not outlive it.
    pub(crate) wipe: bool,
}

impl Segment {
    /// Bytes from the file's start on that may be anything but zeros.
    pub(crate) fn soiled_bytes(&self) -> u64 {
        assert!(self.base <= self.end, "a segment ends behind its start");
        if self.tainted {
            self.capacity
        } else {
            (self.end - self.base).min(self.capacity)
        }
    }
}

/// A file that is ready to become the next segment.
pub(crate) struct Spare {
    pub(crate) sequence: u64,
    pub(crate) capacity: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    /// True when it may hold bytes of a segment that was let go.
    pub(crate) used: bool,
}

/// What the log must remember of a group to know when a segment can go.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GroupMarks {
    /// Entries below this index are not needed, and a synced checkpoint says so.
    pub(crate) start: u64,
    /// Position of the newest synced checkpoint; 0 = none.
    pub(crate) checkpoint: u64,
}

/// All files of the log.
#[derive(Default)]
pub(crate) struct Segments {
    /// Oldest first; the last one takes the batches.
    pub(crate) used: VecDeque<Segment>,
    /// Ready to be used, in this order.
    pub(crate) spares: VecDeque<Spare>,
    /// Files with the name of a segment that a crash left where no segment comes next.
    pub(crate) strays: Vec<(PathBuf, Arc<dyn File>)>,
    pub(crate) groups: BTreeMap<u32, GroupMarks>,
    /// The newest synced start record: no segment of a lower sequence is needed. 0 = there is none.
    pub(crate) start: u64,
}

impl Segments {
    /// The segment that holds `position`.
    pub(crate) fn at(&self, position: u64) -> Option<&Segment> {
        let after = self
            .used
            .partition_point(|segment| segment.base <= position);
        let segment = self.used.get(after.checked_sub(1)?)?;
        debug_assert!(
            segment.base <= position,
            "segments stand in the order of their positions"
        );
        (position < segment.end).then_some(segment)
    }

    /// The groups that keep a segment from going, with the index that each must be flushed to (exclusive).
    pub(crate) fn holders_of(&self, segment: &Segment) -> Vec<(u32, u64)> {
        let needs = |(group, end): (&u32, &u64)| {
            let start = self.groups.get(group)?.start;
            (start < *end).then_some((*group, *end))
        };
        segment.entries.iter().filter_map(needs).collect()
    }

    /// The groups that keep the oldest segment from going.
    pub(crate) fn holders(&self) -> Vec<(u32, u64)> {
        self.used
            .front()
            .map_or_else(Vec::new, |oldest| self.holders_of(oldest))
    }

    /// The groups that keep any segment that starts before `position`, each with the largest index it must be flushed to.
    pub(crate) fn holders_before(&self, position: u64) -> BTreeMap<u32, u64> {
        let before = self
            .used
            .iter()
            .take_while(|segment| segment.base < position);
        let mut holders = BTreeMap::new();
        for (group, end) in before.flat_map(|segment| self.holders_of(segment)) {
            let most: &mut u64 = holders.entry(group).or_default();
            *most = (*most).max(end);
        }
        holders
    }

    /// The groups whose newest checkpoint stands in the oldest segment, or that have none: one must be written before that
    /// segment goes. (A vote after the newest checkpoint stands after it, so it need not be looked at.)
    pub(crate) fn stale_checkpoints(&self) -> Vec<u32> {
        let Some(oldest) = self.used.front() else {
            return Vec::new();
        };
        let stale = |marks: &GroupMarks| marks.checkpoint < oldest.end;
        self.groups
            .iter()
            .filter(|(_, marks)| stale(marks))
            .map(|(group, _)| *group)
            .collect()
    }

    /// The entries of a group from `index` on are void: no segment is kept for them.
    pub(crate) fn void_from(&mut self, group: u32, index: u64) {
        for segment in &mut self.used {
            if let Some(end) = segment.entries.get_mut(&group) {
                *end = (*end).min(index);
            }
        }
        debug_assert!(
            self.used
                .iter()
                .all(|segment| segment.entries.get(&group).is_none_or(|end| *end <= index)),
            "no segment is kept for a void entry"
        );
        self.groups.entry(group).or_default();
    }

    /// The sequence of the first segment that must stay: those before it are not needed.
    pub(crate) fn free_until(&self) -> u64 {
        let stale = |segment: &Segment| {
            let mut marks = self.groups.values();
            marks.any(|marks| marks.checkpoint < segment.end)
        };
        let needed = |segment: &&Segment| !self.holders_of(segment).is_empty() || stale(segment);
        let last = self.used.back();
        let first = self.used.iter().find(needed).or(last);
        debug_assert!(
            self.used
                .iter()
                .zip(self.used.iter().skip(1))
                .all(|(a, b)| a.sequence + 1 == b.sequence),
            "segments stand in the order of their numbers"
        );
        first.map_or(0, |segment| segment.sequence)
    }

    /// Makes the first spare the segment that takes the batches, from position `base` on: in one step, as the next number is
    /// counted from what stands in these lists, and whoever makes a file of that number overwrites what has it. `None` when
    /// there is no spare that `bytes` fit into.
    pub(crate) fn begin(&mut self, base: u64, bytes: u64) -> Option<&Segment> {
        let is_fit = |spare: &Spare| spare.capacity >= bytes;
        self.spares.front().filter(|spare| is_fit(spare))?;
        let spare = self.spares.pop_front()?;
        assert!(
            self.used
                .back()
                .is_none_or(|last| last.sequence + 1 == spare.sequence),
            "the spare follows the segment in use"
        );
        assert!(
            self.used.back().is_none_or(|last| last.end == base),
            "a segment starts where the one before it ends"
        );
        self.used.push_back(Segment {
            sequence: spare.sequence,
            base,
            capacity: spare.capacity,
            end: base + HEADER_BLOCK,
            path: spare.path,
            file: spare.file,
            entries: BTreeMap::new(),
            tainted: spare.used,
            wipe: false,
        });
        self.used.back()
    }

    /// Adds a spare behind the others.
    pub(crate) fn add_spare(&mut self, spare: Spare) {
        assert!(
            spare.sequence == self.next_sequence(),
            "every file of the log has a number of its own"
        );
        self.spares.push_back(spare);
    }

    /// The sequence after the last file's.
    pub(crate) fn next_sequence(&self) -> u64 {
        let last_used = self.used.back().map(|segment| segment.sequence);
        self.spares
            .back()
            .map(|spare| spare.sequence)
            .or(last_used)
            .map_or(1, |last| last + 1)
    }

    /// Bytes of all used segments up to the end of their batches.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = |segment: &Segment| {
            assert!(segment.base < segment.end, "a segment has a header");
            segment.end - segment.base
        };
        self.used.iter().map(bytes).sum()
    }
}

/// Whose log it is to be.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    /// Its name; none where it does not matter, as nothing is written.
    pub(crate) node: Option<NodeId>,
    /// Names that it had.
    pub(crate) former: Vec<NodeId>,
}

impl From<NodeId> for Owner {
    fn from(node: NodeId) -> Self {
        Self {
            node: Some(node),
            former: Vec::new(),
        }
    }
}

impl Owner {
    /// Sees to it that a header belongs here.
    pub(crate) fn check(&self, path: &Path, header: &Header) -> Result<(), Error> {
        let found = NodeId(header.node);
        match self.node {
            Some(expected) if found != expected && !self.former.contains(&found) => {
                Err(Error::ForeignNode {
                    path: path.to_path_buf(),
                    found,
                    expected,
                })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        version: 1,
        log: 1,
        node: 2,
        sequence: 3,
        base: 4,
        chain: 5,
        salt: 6,
        sectors: 7,
        boots: 8,
    };

    #[test]
    fn a_header_reads_back_as_it_was() {
        let block = HEADER.encode();
        assert_eq!(block.len() as u64, HEADER_BLOCK);
        assert_eq!(Header::decode(&block), Opening::Sound(HEADER));
        assert_eq!(block[12..16], HEADER.crc().to_le_bytes());
        assert_ne!(HEADER.crc(), Header { salt: 7, ..HEADER }.crc());
    }

    #[test]
    fn anything_else_is_told_apart() {
        assert_eq!(Header::decode(&[0; 512]), Opening::Blank);
        assert_eq!(Header::decode(b"short"), Opening::Unsound);
        let mut newer = HEADER.encode();
        newer[8] = 9;
        assert_eq!(Header::decode(&newer), Opening::Unsound, "a flipped bit");
        let sum = sum_of_newer(9, &newer[16..64]).to_le_bytes();
        newer[12..16].copy_from_slice(&sum);
        assert_eq!(Header::decode(&newer), Opening::Newer(9));
        for at in (0..8).chain(12..64) {
            let mut changed = HEADER.encode();
            changed[at] ^= 0x10;
            assert_eq!(Header::decode(&changed), Opening::Unsound, "byte {at}");
        }
    }

    #[test]
    fn every_flipped_bit_is_mended() {
        let block = HEADER.encode();
        for bit in 0..HEADER_BYTES * 8 {
            let mut changed = block.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Opening::Sound(other) = Header::decode(&changed) {
                panic!("bit {bit}: taken for {other:?}");
            }
            let (at, byte, header) = Header::mend(&changed).expect("one bit");
            assert_eq!((at, byte, header), (bit / 8, block[bit / 8], HEADER));
            changed[(bit / 8 + 20) % HEADER_BYTES] ^= 6;
            assert_eq!(Header::mend(&changed), None, "three bits");
        }
    }

    #[test]
    fn file_names_are_numbers() {
        assert_eq!(sequence_of(&file_name(0x1f)), Some(0x1f));
        assert_eq!(file_name(1), "log-0000000000000001");
        for other in [
            "LOCK",
            "log-1",
            "log-000000000000000g",
            "log-00000000000000001",
        ] {
            assert_eq!(sequence_of(other), None, "{other}");
        }
    }
}
