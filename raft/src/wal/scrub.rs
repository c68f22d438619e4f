//! Verifying what is written, a piece at a time: damage is found while what it hit is still in memory, and not by the next
//! opening, which would fail at it.
//!
//! Every record of every segment that is in use is read again, the one that takes the batches up to what is synced: it must
//! be sound, stand at its place and continue the chain, as when the log is opened. Behind a bad place the first sound record
//! further on is where it goes on. What a group needs of the bad place is told from its log in memory.
//!
//! On one node nothing can mend a record; but it can be made unneeded. Segments up to the damaged one go once their groups
//! are flushed ([`unneeded_before`]), and the damage goes with them.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use halyard_runtime::disk::{File, OpenMode};

use super::image::plain_draft;
use super::record::{self, ALIGN, BATCH_ALIGN, HEADER_BYTES, Kind};
use super::segment::{HEADER_BLOCK, Header, Opening};
use super::writer::{Done, Item, Wal};
use crate::ids::GroupId;

/// Bytes that are read at one time.
const PIECE_BYTES: u64 = 256 << 10;
const SECTOR: u64 = halyard_runtime::disk::SECTOR_BYTES as u64;

/// A place in the log whose bytes are not what was written. The node goes on, as nothing is read there before the next
/// opening (or, with several replicas, before one that lags behind asks for it); that will fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDamage {
    /// The segment file.
    pub file: PathBuf,
    /// The first bad byte's record, or where one should be.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
    /// Entries that stand there and are needed: of each group the first and the last.
    pub entries: Vec<(GroupId, RangeInclusive<u64>)>,
    /// Number of the segment.
    pub(crate) sequence: u64,
}

impl std::fmt::Display for LogDamage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (file, offset) = (self.file.display(), self.offset);
        write!(f, "{file} is damaged at byte {offset}: {}", self.what)?;
        for (group, entries) in &self.entries {
            let (first, last) = (entries.start(), entries.end());
            write!(
                f,
                "; entries {first} to {last} of group {group} stand there"
            )?;
        }
        Ok(())
    }
}

/// What one call of [`crate::Node::scrub_log`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogScrub {
    /// Bytes that were verified.
    pub bytes: u64,
    /// Damage that was not known before.
    pub found: Vec<LogDamage>,
    /// The end of the log was reached: the next call begins at its start.
    pub is_round: bool,
}

/// Where the next piece begins.
#[derive(Default)]
pub(crate) struct Scrub {
    sequence: u64,
    /// Offset in the segment; 0: its header is next.
    offset: u64,
    /// crc of the record before; `None` where it is not known.
    chain: Option<u32>,
    /// Something in this segment was bad.
    is_bad: bool,
}

/// A segment as it is now.
struct Target {
    sequence: u64,
    base: u64,
    /// Offset up to which it is written and synced.
    end: u64,
    path: PathBuf,
    is_last: bool,
}

/// Verifies the next `bytes` of the log, at least one record. Blocks for as long as reading takes.
pub(crate) fn scrub(wal: &Wal, bytes: u64) -> LogScrub {
    let mut scrub = wal.scrub.lock();
    let mut done = LogScrub::default();
    while done.bytes < bytes && !done.is_round {
        let Some(target) = target(wal, scrub.sequence) else {
            (scrub.sequence, scrub.offset, scrub.chain) = (0, 0, None);
            done.is_round = true;
            break;
        };
        if target.sequence != scrub.sequence {
            // The one that was next was let go meanwhile: what comes before this one was not read.
            (scrub.sequence, scrub.offset, scrub.chain) = (target.sequence, 0, None);
        }
        let found = scrub.piece(wal, &target, bytes, &mut done.bytes);
        // What was let go meanwhile may hold anything.
        let is_used = |sequence: u64| {
            let segments = wal.segments.lock();
            segments.used.iter().any(|used| used.sequence == sequence)
        };
        if is_used(target.sequence) {
            note(wal, found, &mut done);
        }
        if scrub.offset >= target.end {
            scrub.segment_done(wal, &target);
            done.is_round = target.is_last;
        }
    }
    done
}

/// The first segment in use from `sequence` on. One that was begun but not written yet is not there.
fn target(wal: &Wal, sequence: u64) -> Option<Target> {
    let segments = wal.segments.lock();
    let synced = wal.synced.load(Ordering::Acquire);
    let last = segments.used.back()?.sequence;
    let mut used = segments.used.iter();
    let segment = used.find(|segment| segment.sequence >= sequence)?;
    let end = segment.end.min(synced).saturating_sub(segment.base);
    (end >= HEADER_BLOCK).then(|| Target {
        sequence: segment.sequence,
        base: segment.base,
        end,
        path: segment.path.clone(),
        is_last: segment.sequence == last,
    })
}

/// Known damage, without what has gone with its segment.
pub(crate) fn damage(wal: &Wal) -> Vec<LogDamage> {
    let first = wal.segments.lock().used.front().map(|used| used.sequence);
    let mut damage = wal.damage.lock();
    damage.retain(|damage| Some(damage.sequence) >= first);
    damage.clone()
}

/// The position before which the log must go, so that no damage that is known is left in it. Where that is in the segment in
/// use the log moves on to a fresh one.
pub(crate) fn unneeded_before(wal: &Wal) -> Option<u64> {
    let last = damage(wal).iter().map(|damage| damage.sequence).max()?;
    let (base, in_use) = {
        let segments = wal.segments.lock();
        let damaged = segments.used.iter().find(|used| used.sequence == last)?;
        let in_use = segments
            .used
            .back()
            .is_some_and(|used| used.sequence == last);
        (damaged.base, in_use)
    };
    if in_use && !wal.roll.swap(true, Ordering::AcqRel) {
        wal.submit([Item {
            draft: plain_draft(Kind::Mark, 0),
            of: None,
            done: Done::Nobody,
        }]);
    }
    wal.upkeep.notify_one();
    Some(base + 1)
}

/// A bad place: from `offset` up to `until` nothing can be relied on.
struct Bad {
    offset: u64,
    until: u64,
    what: String,
}

impl Scrub {
    /// Verifies one segment on from where it stands, until `bytes` are spent.
    fn piece(&mut self, wal: &Wal, target: &Target, bytes: u64, spent: &mut u64) -> Vec<LogDamage> {
        let mut bad = Vec::new();
        match wal.disk.open(&target.path, OpenMode::Read) {
            Ok(file) => {
                let mut pieces = Pieces::new(file, target.end);
                if self.offset == 0 {
                    bad.extend(self.header(wal, target, &mut pieces));
                    *spent += HEADER_BLOCK;
                }
                while self.offset < target.end && *spent < bytes {
                    let before = self.offset;
                    bad.extend(self.record(wal, target, &mut pieces));
                    assert!(self.offset > before, "each step verifies something");
                    *spent += self.offset - before;
                }
            }
            Err(error) => {
                bad.push(Bad {
                    offset: self.offset,
                    until: target.end,
                    what: format!("the file cannot be opened: {error}"),
                });
                (self.offset, self.chain) = (target.end, None);
            }
        }
        self.is_bad |= !bad.is_empty();
        let describe = |bad: Bad| LogDamage {
            file: target.path.clone(),
            offset: bad.offset,
            what: bad.what,
            entries: entries_within(wal, target.base + bad.offset, target.base + bad.until),
            sequence: target.sequence,
        };
        bad.into_iter().map(describe).collect()
    }

    /// The segment's header.
    fn header(&mut self, wal: &Wal, target: &Target, pieces: &mut Pieces) -> Option<Bad> {
        let what = match Header::decode(pieces.get(0, HEADER_BLOCK)) {
            Opening::Sound(header) => {
                let expected = self.chain.replace(header.crc());
                // Its node may be a former name of this one: recovery has looked at that.
                let is_it = header.log == wal.log
                    && header.sequence == target.sequence
                    && header.base == target.base;
                let continues = expected.is_none_or(|chain| chain == header.chain);
                match (is_it, continues) {
                    (true, true) => None,
                    (true, false) => Some("it does not continue the segment before it"),
                    (false, _) => Some("it is the header of another segment"),
                }
            }
            _ => {
                self.chain = None;
                Some("the header of the segment is not sound")
            }
        };
        self.offset = HEADER_BLOCK;
        what.map(|what| Bad {
            offset: 0,
            until: HEADER_BLOCK,
            what: pieces.why(what),
        })
    }

    /// The record that is next, or, where there is none, everything up to the next sound one.
    fn record(&mut self, wal: &Wal, target: &Target, pieces: &mut Pieces) -> Option<Bad> {
        let log = wal.log as u32;
        let offset = self.offset;
        let batch = offset.next_multiple_of(BATCH_ALIGN);
        let is_padding = pieces
            .get(offset, batch - offset)
            .iter()
            .all(|byte| *byte == 0);
        if is_padding && batch >= target.end {
            self.offset = target.end;
            return None;
        }
        let at = if is_padding { batch } else { offset };
        let Ok(found) = pieces.sound(log, target.base, at) else {
            return Some(self.skip(log, target, pieces, at));
        };
        let expected = self.chain.replace(found.crc);
        self.offset = found.end;
        expected
            .is_some_and(|chain| chain != found.chain)
            .then(|| Bad {
                offset: at,
                until: found.end,
                what: "a record that does not continue the one before it".to_owned(),
            })
    }

    /// There should be a record at `at`: goes on at the next sound one.
    fn skip(&mut self, log: u32, target: &Target, pieces: &mut Pieces, at: u64) -> Bad {
        let what = pieces
            .sound(log, target.base, at)
            .err()
            .unwrap_or("no record");
        let what = pieces.why(what);
        let mut next = at + ALIGN;
        while next < target.end {
            let position = (target.base + next).to_le_bytes();
            let says_so = pieces.get(next, HEADER_BYTES as u64).get(24..32) == Some(&position);
            if says_so && pieces.sound(log, target.base, next).is_ok() {
                break;
            }
            next += ALIGN;
        }
        self.offset = next.min(target.end);
        self.chain = None;
        debug_assert!(self.offset > at, "what is skipped is something");
        Bad {
            offset: at,
            until: self.offset,
            what,
        }
    }

    /// All of a segment was seen. What was unreadable for a moment is no damage.
    fn segment_done(&mut self, wal: &Wal, target: &Target) {
        if !std::mem::take(&mut self.is_bad) {
            let mut damage = wal.damage.lock();
            damage.retain(|damage| damage.sequence != target.sequence);
        }
        assert!(
            self.offset >= target.end,
            "a segment is done once all of it was seen"
        );
        (self.sequence, self.offset) = (target.sequence + 1, 0);
        if target.is_last {
            (self.sequence, self.chain) = (0, None);
        }
    }
}

/// Remembers damage, and tells what is new of it.
fn note(wal: &Wal, found: Vec<LogDamage>, done: &mut LogScrub) {
    let mut known = wal.damage.lock();
    for damage in found {
        let is_it =
            |known: &LogDamage| (known.sequence, known.offset) == (damage.sequence, damage.offset);
        if !known.iter().any(is_it) {
            done.found.push(damage.clone());
            known.push(damage);
        }
    }
}

/// What each group needs of the log between two positions.
fn entries_within(wal: &Wal, from: u64, until: u64) -> Vec<(GroupId, RangeInclusive<u64>)> {
    let logs: Vec<_> = wal.logs.lock().values().cloned().collect();
    let needed = logs.into_iter().filter_map(|log| {
        let entries = log.state.lock().entries_within(from, until)?;
        Some((log.id, entries))
    });
    needed.collect()
}

/// A record that is sound in itself.
struct Sound {
    crc: u32,
    chain: u32,
    /// Offset after it.
    end: u64,
}

/// A file that is read in pieces; what cannot be read is zeros.
struct Pieces {
    file: Arc<dyn File>,
    end: u64,
    from: u64,
    bytes: Vec<u8>,
    unreadable: Option<std::io::Error>,
}

impl Pieces {
    const fn new(file: Arc<dyn File>, end: u64) -> Self {
        Self {
            file,
            end,
            from: 0,
            bytes: Vec::new(),
            unreadable: None,
        }
    }

    /// The bytes at `offset`, fewer where the segment ends.
    fn get(&mut self, offset: u64, count: u64) -> &[u8] {
        let count = count.min(self.end.saturating_sub(offset));
        let have = self.from..self.from + self.bytes.len() as u64;
        if offset < have.start || offset + count > have.end {
            let length = count.max(PIECE_BYTES).min(self.end.saturating_sub(offset));
            self.from = offset;
            self.fill(usize::try_from(length).unwrap_or(usize::MAX));
        }
        let at = usize::try_from(offset - self.from).unwrap_or(usize::MAX);
        let end = at + usize::try_from(count).unwrap_or(usize::MAX);
        self.bytes.get(at..end).unwrap_or_default()
    }

    fn fill(&mut self, length: usize) {
        self.bytes = vec![0; length];
        if self.file.read_exact_at(&mut self.bytes, self.from).is_ok() {
            return;
        }
        // Sector by sector: those around a bad one are there.
        let mut at = self.from;
        let mut rest = self.bytes.as_mut_slice();
        while !rest.is_empty() {
            let count = (SECTOR - at % SECTOR).min(rest.len() as u64);
            let (piece, after) = rest.split_at_mut(usize::try_from(count).unwrap_or(0));
            if let Err(error) = self.file.read_exact_at(piece, at) {
                piece.fill(0);
                self.unreadable = Some(error);
            }
            (at, rest) = (at + count, after);
        }
    }

    /// The record at `offset`.
    fn sound(&mut self, log: u32, base: u64, offset: u64) -> Result<Sound, &'static str> {
        let head = self.get(offset, HEADER_BYTES as u64);
        let length = head.get(8..12).and_then(|length| length.first_chunk::<4>());
        // A file that ends inside the header: that is told when it is decoded.
        let length = length.map_or(0, |length| u64::from(u32::from_le_bytes(*length)));
        let bytes = self.get(offset, HEADER_BYTES as u64 + length);
        let record = record::decode(bytes, log, base + offset)?;
        Ok(Sound {
            crc: record.header.crc,
            chain: record.header.chain,
            end: offset + record::framed_bytes(record.body.len() as u64),
        })
    }

    /// What is wrong, with what the disk says of it.
    fn why(&mut self, what: &str) -> String {
        match self.unreadable.take() {
            Some(error) => format!("{what}: unreadable: {error}"),
            None => what.to_owned(),
        }
    }
}
