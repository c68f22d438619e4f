//! Sparse bytes: pages of 4 KiB, of which those that were never written take no memory and read as zeros.

use std::collections::BTreeMap;

const PAGE_BYTES: usize = 4096;
const PAGE: u64 = PAGE_BYTES as u64;

#[derive(Clone, Debug, Default)]
pub(super) struct Pages(BTreeMap<u64, Box<[u8; PAGE_BYTES]>>);

/// Cuts `offset..offset + len` at the pages' borders: (page, start in it, length).
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut at = offset;
    let mut left = len;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let start = usize::try_from(at % PAGE).ok()?;
        let count = left.min(PAGE_BYTES - start);
        let piece = (at / PAGE, start, count);
        at += count as u64;
        left -= count;
        Some(piece)
    })
}

impl Pages {
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) {
        let mut rest = buffer;
        for (page, start, count) in pieces(offset, rest.len()) {
            let (piece, after) = rest.split_at_mut(count);
            match self.0.get(&page) {
                Some(bytes) => piece.copy_from_slice(&bytes[start..start + count]),
                None => piece.fill(0),
            }
            rest = after;
        }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for (page, start, count) in pieces(offset, bytes.len()) {
            let (piece, after) = rest.split_at(count);
            let slot = self
                .0
                .entry(page)
                .or_insert_with(|| Box::new([0; PAGE_BYTES]));
            slot[start..start + count].copy_from_slice(piece);
            rest = after;
        }
    }

    /// Cuts everything from `offset` on and returns it.
    pub(super) fn cut(&mut self, offset: u64) -> Self {
        let mut tail = self.0.split_off(&offset.div_ceil(PAGE));
        let start = usize::try_from(offset % PAGE).unwrap_or(0);
        if start > 0
            && let Some(page) = self.0.get_mut(&(offset / PAGE))
        {
            let mut kept = page.clone();
            kept[..start].fill(0);
            page[start..].fill(0);
            tail.insert(offset / PAGE, kept);
        }
        Self(tail)
    }

    /// Where `needle` is, over the borders of pages.
    pub(super) fn find(&self, needle: &[u8]) -> Vec<u64> {
        let mut found = Vec::new();
        let mut run: Vec<u8> = Vec::new();
        let mut run_start = 0;
        let mut next = None;
        let mut search = |run: &[u8], start: u64| {
            let hits = run
                .windows(needle.len())
                .enumerate()
                .filter(|(_, bytes)| *bytes == needle);
            found.extend(hits.map(|(at, _)| start + at as u64));
        };
        for (page, bytes) in &self.0 {
            if next != Some(*page) {
                search(&run, run_start);
                run.clear();
                run_start = page * PAGE;
            }
            run.extend_from_slice(&bytes[..]);
            next = Some(page + 1);
        }
        search(&run, run_start);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_keeps_the_head_and_returns_the_tail() {
        let mut pages = Pages::default();
        pages.write(4090, b"0123456789abcdef");
        let tail = pages.cut(4094);
        let mut read = [9; 16];
        pages.read(4090, &mut read);
        assert_eq!(&read, b"0123\0\0\0\0\0\0\0\0\0\0\0\0");
        tail.read(4090, &mut read);
        assert_eq!(&read, b"\0\0\0\x00456789abcdef");
        assert_eq!(tail.find(b"89ab"), [4098]);
    }
}
