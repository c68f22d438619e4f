//! A chunk: neighbours in the order of names, and what they add up to.
//!
//! Sums are kept by number of tokens, so that `orders.*` is answered as `orders.>` is: a chunk whose names all start with
//! `orders.` adds its sum of two tokens, whatever lies below. A chunk nearly always has one or two such levels; the first
//! is inside the chunk, so that a subject still costs four bytes of order and a tenth of a byte of sums.

use std::ops::{Add, AddAssign};

/// Subjects of one chunk at most.
pub(crate) const IDS_PER_CHUNK: usize = 512;

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

#[derive(Debug, Default, Clone)]
pub(crate) struct Chunk {
    pub(crate) ids: Vec<u32>,
    /// No subject's last message is after it. It may lag when messages go.
    pub(crate) last_max: u64,
    level: Level,
    more: Vec<Level>,
}

impl Chunk {
    pub(crate) fn of(ids: Vec<u32>) -> Self {
        assert!(ids.len() <= IDS_PER_CHUNK, "chunks are split in time");
        Self {
            ids,
            ..Self::default()
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
    pub(crate) fn count_subject(&mut self, tokens: u32, messages: u64, last: u64) {
        assert!(messages > 0, "subjects have messages");
        let level = self.level_mut(tokens);
        level.subjects += 1;
        level.messages += messages;
        self.last_max = self.last_max.max(last);
    }

    /// A subject without messages has gone.
    pub(crate) fn uncount_subject(&mut self, tokens: u32) {
        let level = self.level_mut(tokens);
        assert!(level.subjects > 0, "what goes was counted");
        level.subjects -= 1;
        assert!(
            level.subjects > 0 || level.messages == 0,
            "a level's messages are those of its subjects"
        );
        self.more.retain(|level| level.subjects > 0);
    }

    /// One more message, the newest of the stream. `name` is looked at only where levels are mixed.
    pub(crate) fn count_message(&mut self, name: impl FnOnce() -> u32, seq: u64) {
        assert!(seq >= self.last_max, "it is the newest message");
        self.last_max = seq;
        if self.more.is_empty() {
            self.level.messages += 1;
        } else {
            self.level_mut(name()).messages += 1;
        }
    }

    /// So many messages less.
    pub(crate) fn uncount_messages(&mut self, tokens: u32, count: u64) {
        let level = self.level_mut(tokens);
        assert!(level.messages >= count, "a level loses no more than it has");
        level.messages -= count;
    }

    /// Memory on the heap, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.ids.capacity() * 4 + self.more.capacity() * size_of::<Level>()
    }

    /// Whether `other`, counted anew, says the same.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        let sorted = |chunk: &Self| {
            let mut levels: Vec<_> = chunk.levels().copied().collect();
            levels.sort_unstable_by_key(|level| level.tokens);
            levels
        };
        self.last_max >= other.last_max && sorted(self) == sorted(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        chunk.count_subject(2, 3, 9);
        chunk.count_subject(3, 1, 4);
        chunk.uncount_messages(2, 3);
        chunk.uncount_subject(2);
        let one = Counted {
            subjects: 1,
            messages: 1,
        };
        assert_eq!((chunk.total(), chunk.last_max), (one, 9));
        assert_eq!(chunk.of_depth(Depth::Exactly(3)), Some(one));
        assert_eq!(chunk.of_depth(Depth::Exactly(2)), Some(Counted::default()));
        chunk.count_subject(3, 1, 4);
        chunk.count_message(|| 3, 10);
        assert_eq!(chunk.of_depth(Depth::AtLeast(2)), Some(chunk.total()));
        assert_eq!(chunk.total().messages, 3);
    }
}
