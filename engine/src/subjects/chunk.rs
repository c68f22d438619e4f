//! A chunk: neighbours in the order of names, and what they add up to.
//!
//!   names    back to back, in order
//!   entries  24 bytes each: first, last, messages, where the name ends, two flags
//!   sums     subjects and messages by number of tokens
//!
//! So a subject costs its name and 24 bytes, and an eighth of that more while new ones come between old ones. A chunk is
//! also the unit in which a flush takes what changed: it is shared as it is, and copied when it changes next.
//!
//! Sums are kept by number of tokens, so that `orders.*` is answered as `orders.>` is: a chunk whose names all start with
//! `orders.` adds its sum of two tokens, whatever lies below. A chunk nearly always has one or two such levels; the first
//! is inside the chunk.
//!
//! `first` may lag: when a subject's first message goes, `first` becomes a lower bound (`FIRST_IS_BOUND`), because the
//! exact one would need a posting lookup for each message that limits remove. `last` is always exact.

use std::ops::{Add, AddAssign};

/// Subjects of one chunk at most: an insertion moves half of their entries, three kilobytes.
pub(crate) const SUBJECTS_PER_CHUNK: usize = if cfg!(test) { 64 } else { 256 };

/// Bytes of names from which on a chunk of at least two subjects is split, so that long names move no more than that.
const NAMES_BYTES_SPLIT: usize = 64 << 10;

/// The level of names with an empty token: `*` does not match that, so they are not counted as their neighbours are.
const IRREGULAR: u32 = u32::MAX;

/// Subjects and their messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) subjects: u64,
    pub(crate) messages: u64,
}

impl Add for Counted {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            subjects: self.subjects + other.subjects,
            messages: self.messages + other.messages,
        }
    }
}

impl AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// The subjects of one number of tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Level {
    tokens: u32,
    subjects: u32,
    messages: u64,
}

impl Level {
    fn counted(self) -> Counted {
        Counted {
            subjects: self.subjects.into(),
            messages: self.messages,
        }
    }
}

/// How many tokens the subjects of a filter have that is literal at first and then says no more than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// `a.>`: everything longer than the prefix.
    Any,
    /// `a.*.*`: exactly so many.
    Exactly(u32),
    /// `a.*.>`: so many or more.
    AtLeast(u32),
}

/// The level of a name.
pub(crate) fn level_of(name: &[u8]) -> u32 {
    let mut tokens = 1;
    let mut previous = b'.';
    for &byte in name {
        if byte == b'.' {
            if previous == b'.' {
                return IRREGULAR;
            }
            tokens += 1;
        }
        previous = byte;
    }
    if previous == b'.' { IRREGULAR } else { tokens }
}

/// What is known of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) messages: u32,
    /// The first message; with `first_is_bound` only not after it.
    pub(crate) first: u64,
    pub(crate) first_is_bound: bool,
    pub(crate) last: u64,
}

/// Flag in `Entry::end`: `first` is only a lower bound.
const FIRST_IS_BOUND: u32 = 1 << 31;
/// Flag in `Entry::end`: changed in the generation of its chunk.
const TOUCHED: u32 = 1 << 30;
const END: u32 = TOUCHED - 1;

const _: () = assert!(
    SUBJECTS_PER_CHUNK * (crate::limits::SUBJECT_BYTES_MAX + 1) < END as usize,
    "the names of a chunk end within 30 bits"
);

#[derive(Debug, Clone, Copy)]
struct Entry {
    first: u64,
    last: u64,
    messages: u32,
    /// Where its name ends among the names of the chunk, and the flags.
    end: u32,
}

const _: () = assert!(
    size_of::<Entry>() == 24,
    "a subject costs 24 bytes and its name"
);

impl Entry {
    fn new(totals: Totals, end: usize) -> Self {
        let flag = if totals.first_is_bound {
            FIRST_IS_BOUND
        } else {
            0
        };
        Self {
            first: totals.first,
            last: totals.last,
            messages: totals.messages,
            end: end as u32 | flag,
        }
    }

    fn end(&self) -> usize {
        (self.end & END) as usize
    }

    fn move_end(&mut self, by: isize) {
        let end = self.end().wrapping_add_signed(by) as u32;
        self.end = self.end & !END | end;
    }

    fn totals(&self) -> Totals {
        Totals {
            messages: self.messages,
            first: self.first,
            first_is_bound: self.end & FIRST_IS_BOUND != 0,
            last: self.last,
        }
    }
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Chunk {
    names: Vec<u8>,
    entries: Vec<Entry>,
    /// No subject's last message is after it. It may lag when messages go.
    pub(crate) last_max: u64,
    level: Level,
    more: Vec<Level>,
}

/// Makes room for `more` elements: an eighth beyond what is needed, where a vector by itself would double.
fn reserve<T>(vec: &mut Vec<T>, more: usize) {
    if vec.capacity() - vec.len() < more {
        vec.reserve_exact(more.max(vec.len() / 8));
    }
}

/// Names and entries.
impl Chunk {
    /// Subjects in it.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the next insertion splits it first.
    pub(crate) fn is_full(&self) -> bool {
        let is_long = self.names.len() >= NAMES_BYTES_SPLIT && self.len() > 1;
        self.len() >= SUBJECTS_PER_CHUNK || is_long
    }

    /// Whether it and its neighbour had better be one.
    pub(crate) fn is_sparse_with(&self, next: &Self) -> bool {
        self.len() + next.len() <= SUBJECTS_PER_CHUNK / 2
            && self.names.len() + next.names.len() <= NAMES_BYTES_SPLIT / 2
    }

    fn entry(&self, within: usize) -> &Entry {
        self.entries.get(within).expect("places name entries")
    }

    fn entry_mut(&mut self, within: usize) -> &mut Entry {
        self.entries.get_mut(within).expect("places name entries")
    }

    fn start(&self, within: usize) -> usize {
        within
            .checked_sub(1)
            .map_or(0, |before| self.entry(before).end())
    }

    /// The name of the subject at that place; empty beyond the last one.
    pub(crate) fn name(&self, within: usize) -> &[u8] {
        let Some(entry) = self.entries.get(within) else {
            return &[];
        };
        self.names
            .get(self.start(within)..entry.end())
            .unwrap_or_default()
    }

    pub(crate) fn totals(&self, within: usize) -> Totals {
        self.entry(within).totals()
    }

    /// The first place at or after `from` whose name does not satisfy `is_before`; names are sorted by it.
    pub(crate) fn partition_point(&self, from: usize, is_before: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (from.min(self.len()), self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(self.name(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Puts a subject where it belongs.
    pub(crate) fn insert(&mut self, within: usize, name: &[u8], totals: Totals) {
        assert!(!self.is_full(), "chunks are split in time");
        let start = self.start(within);
        reserve(&mut self.names, name.len());
        reserve(&mut self.entries, 1);
        // A splice would cost twice as much: the names grow by the new one, which then goes where it belongs.
        self.names.extend_from_slice(name);
        if let Some(moved) = self.names.get_mut(start..) {
            moved.rotate_right(name.len());
        }
        let entry = Entry::new(totals, start + name.len());
        self.entries.insert(within, entry);
        for later in self.entries.iter_mut().skip(within + 1) {
            later.move_end(name.len() as isize);
        }
        self.count_subject(level_of(name), totals.messages.into(), totals.last);
    }

    /// Takes out a subject without messages.
    fn remove(&mut self, within: usize) {
        let start = self.start(within);
        let entry = self.entries.remove(within);
        assert_eq!(entry.messages, 0, "only subjects without messages go");
        let name_len = entry.end() - start;
        let tokens = level_of(self.names.get(start..entry.end()).unwrap_or_default());
        self.uncount_subject(tokens);
        self.names.drain(start..entry.end());
        for later in self.entries.iter_mut().skip(within) {
            later.move_end(-(name_len as isize));
        }
        if self.entries.len() * 2 < self.entries.capacity() {
            self.shrink();
        }
    }

    /// Gives back what it does not need.
    pub(crate) fn shrink(&mut self) {
        self.names.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    /// Moves the subjects from `at` on into a chunk of their own.
    pub(crate) fn split_off(&mut self, at: usize) -> Self {
        let names_start = self.start(at);
        let mut upper = Self {
            names: self.names.split_off(names_start),
            entries: self.entries.split_off(at),
            ..Self::default()
        };
        for entry in &mut upper.entries {
            entry.move_end(-(names_start as isize));
        }
        self.shrink();
        self.sum_up();
        upper.sum_up();
        upper
    }

    /// Takes in everything of the chunk that follows.
    pub(crate) fn append(&mut self, next: &Self) {
        let names_end = self.names.len() as isize;
        self.names.extend_from_slice(&next.names);
        let moved = next.entries.iter().map(|&(mut entry)| {
            entry.move_end(names_end);
            entry
        });
        self.entries.extend(moved);
        self.sum_up();
    }

    /// Counts one more message, the newest of the stream.
    pub(crate) fn add_message(&mut self, within: usize, seq: u64) {
        let entry = self.entry_mut(within);
        assert!(entry.last < seq, "sequences of a subject rise");
        entry.messages += 1;
        entry.last = seq;
        self.touch(within);
        assert!(seq >= self.last_max, "it is the newest message");
        self.last_max = seq;
        if self.more.is_empty() {
            self.level.messages += 1;
        } else {
            let tokens = level_of(self.name(within));
            self.level_mut(tokens).messages += 1;
        }
    }

    /// Counts messages less; a subject without messages is gone. Returns what is left.
    pub(crate) fn subtract(&mut self, within: usize, count: u32) -> Totals {
        let entry = self.entry_mut(within);
        assert!(
            entry.messages >= count,
            "a subject cannot lose more than it has"
        );
        entry.messages -= count;
        let totals = entry.totals();
        let tokens = level_of(self.name(within));
        self.uncount_messages(tokens, count.into());
        if totals.messages == 0 {
            self.remove(within);
        } else {
            self.touch(within);
        }
        totals
    }

    /// Sets where the subject's messages start and end.
    pub(crate) fn set_bounds(&mut self, within: usize, first: u64, is_bound: bool, last: u64) {
        assert!(
            first <= last,
            "a subject with messages has a first and a last"
        );
        let entry = self.entry_mut(within);
        entry.first = first;
        entry.last = last;
        entry.end = if is_bound {
            entry.end | FIRST_IS_BOUND
        } else {
            entry.end & !FIRST_IS_BOUND
        };
    }

    /// Notes that the subject changed.
    pub(crate) fn touch(&mut self, within: usize) {
        self.entry_mut(within).end |= TOUCHED;
    }

    /// Forgets which subjects changed.
    pub(crate) fn forget_touched(&mut self) {
        for entry in &mut self.entries {
            entry.end &= !TOUCHED;
        }
    }

    /// The subjects that changed, in order.
    pub(crate) fn touched(&self) -> impl Iterator<Item = (&[u8], Totals)> {
        let changed = |within: &usize| self.entry(*within).end & TOUCHED != 0;
        (0..self.len())
            .filter(changed)
            .map(|within| (self.name(within), self.totals(within)))
    }

    /// Memory on the heap, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.names.capacity()
            + self.entries.capacity() * size_of::<Entry>()
            + self.more.capacity() * size_of::<Level>()
    }

    /// Cross-checks the parts; the text says what is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut counted = Self::default();
        for (within, entry) in self.entries.iter().enumerate() {
            if within > 0 && self.name(within - 1) >= self.name(within) {
                return Err("subjects out of order".into());
            }
            if entry.messages == 0 || entry.first > entry.last {
                return Err(format!("{entry:?} is inconsistent"));
            }
            counted.count_subject(
                level_of(self.name(within)),
                entry.messages.into(),
                entry.last,
            );
        }
        let sorted = |chunk: &Self| {
            let mut levels: Vec<_> = chunk.levels().copied().collect();
            levels.sort_unstable_by_key(|level| level.tokens);
            levels
        };
        let ends = self.entries.last().map_or(0, Entry::end);
        if self.last_max < counted.last_max
            || sorted(self) != sorted(&counted)
            || ends != self.names.len()
        {
            return Err(format!("a chunk is {counted:?}, says {self:?}"));
        }
        Ok(())
    }
}

/// Sums.
impl Chunk {
    fn sum_up(&mut self) {
        (self.last_max, self.level) = (0, Level::default());
        self.more = Vec::new();
        for within in 0..self.len() {
            let Totals { messages, last, .. } = self.totals(within);
            self.count_subject(level_of(self.name(within)), messages.into(), last);
        }
    }

    fn levels(&self) -> impl Iterator<Item = &Level> {
        std::iter::once(&self.level)
            .chain(&self.more)
            .filter(|level| level.subjects > 0)
    }

    /// Everything in the chunk.
    pub(crate) fn total(&self) -> Counted {
        self.levels()
            .fold(Counted::default(), |sum, level| sum + level.counted())
    }

    /// What has the depth, if names with empty tokens do not make that uncertain.
    pub(crate) fn of_depth(&self, depth: Depth) -> Option<Counted> {
        let is_of = |tokens: u32| match depth {
            Depth::Any => true,
            Depth::Exactly(want) => tokens == want,
            Depth::AtLeast(least) => tokens >= least,
        };
        let mut sum = Counted::default();
        for level in self.levels() {
            if level.tokens == IRREGULAR && depth != Depth::Any {
                return None;
            }
            if is_of(level.tokens) {
                sum += level.counted();
            }
        }
        Some(sum)
    }

    fn level_mut(&mut self, tokens: u32) -> &mut Level {
        if self.level.subjects == 0 && self.more.iter().all(|level| level.tokens != tokens) {
            self.level.tokens = tokens;
        }
        if self.level.tokens == tokens {
            return &mut self.level;
        }
        let at = match self.more.iter().position(|level| level.tokens == tokens) {
            Some(at) => at,
            None => {
                self.more.push(Level {
                    tokens,
                    ..Level::default()
                });
                self.more.len() - 1
            }
        };
        self.more.get_mut(at).expect("it was found or pushed")
    }

    /// A subject has come.
    fn count_subject(&mut self, tokens: u32, messages: u64, last: u64) {
        assert!(messages > 0, "subjects have messages");
        let level = self.level_mut(tokens);
        level.subjects += 1;
        level.messages += messages;
        self.last_max = self.last_max.max(last);
    }

    /// A subject without messages has gone.
    fn uncount_subject(&mut self, tokens: u32) {
        let level = self.level_mut(tokens);
        assert!(level.subjects > 0, "what goes was counted");
        level.subjects -= 1;
        assert!(
            level.subjects > 0 || level.messages == 0,
            "a level's messages are those of its subjects"
        );
        self.more.retain(|level| level.subjects > 0);
    }

    /// So many messages less.
    fn uncount_messages(&mut self, tokens: u32, count: u64) {
        let level = self.level_mut(tokens);
        assert!(level.messages >= count, "a level loses no more than it has");
        level.messages -= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(messages: u32, last: u64) -> Totals {
        Totals {
            messages,
            first: 1,
            first_is_bound: false,
            last,
        }
    }

    #[test]
    fn levels_are_numbers_of_tokens() {
        let levels = ["a", "a.b", "aa.bb.c", ">", "*.x"].map(|name| level_of(name.as_bytes()));
        assert_eq!(levels, [1, 2, 3, 1, 2]);
        for name in ["", ".", ".a", "a.", "a..b", "a.b.."] {
            assert_eq!(level_of(name.as_bytes()), IRREGULAR, "{name:?}");
        }
    }

    #[test]
    fn the_first_level_is_used_again() {
        let mut chunk = Chunk::default();
        chunk.insert(0, b"a.b", totals(3, 9));
        chunk.insert(1, b"a.b.c", totals(1, 4));
        chunk.subtract(0, 3);
        let one = Counted {
            subjects: 1,
            messages: 1,
        };
        assert_eq!((chunk.total(), chunk.last_max), (one, 9));
        assert_eq!(chunk.of_depth(Depth::Exactly(3)), Some(one));
        assert_eq!(chunk.of_depth(Depth::Exactly(2)), Some(Counted::default()));
        chunk.insert(0, b"a.a.z", totals(1, 4));
        chunk.add_message(1, 10);
        assert_eq!(chunk.of_depth(Depth::AtLeast(2)), Some(chunk.total()));
        assert_eq!(chunk.total().messages, 3);
        chunk.check().unwrap();
    }

    #[test]
    fn names_and_flags_stay_with_their_subjects() {
        let mut chunk = Chunk::default();
        for (at, name) in ["b", "dd", "a", "ccc", ""].iter().enumerate() {
            let within = chunk.partition_point(0, |have| have < name.as_bytes());
            chunk.insert(within, name.as_bytes(), totals(1, at as u64 + 1));
        }
        chunk.touch(2);
        chunk.set_bounds(3, 2, true, 9);
        let upper = chunk.split_off(2);
        let names = |chunk: &Chunk| -> Vec<Vec<u8>> {
            (0..chunk.len()).map(|at| chunk.name(at).to_vec()).collect()
        };
        assert_eq!(names(&chunk), [&b""[..], b"a"]);
        assert_eq!(names(&upper), [&b"b"[..], b"ccc", b"dd"]);
        assert_eq!(upper.totals(1).last, 9);
        assert!(upper.totals(1).first_is_bound);
        chunk.append(&upper);
        assert_eq!(names(&chunk), [&b""[..], b"a", b"b", b"ccc", b"dd"]);
        let touched: Vec<_> = chunk.touched().map(|(name, _)| name).collect();
        assert_eq!(touched, [b"b"]);
        chunk.forget_touched();
        assert_eq!(chunk.touched().count(), 0);
        chunk.subtract(3, 1);
        assert_eq!(names(&chunk), [&b""[..], b"a", b"b", b"dd"]);
        assert_eq!((chunk.name(4), chunk.totals(3).last), (&b""[..], 2));
        chunk.set_bounds(3, 1, false, 1);
        chunk.last_max = 9;
        chunk.check().unwrap();
    }
}
