//! Which neighbours to merge, so that files stay few and a message is seldom rewritten. Pure: sizes in, a range out.
//!
//! Segments lie in the order of time and only neighbours may be merged. Two rules:
//!
//! 1. **Doubling.** `width` neighbours of which none is larger than the others together become one: the segment that a
//!    message lies in at least doubles, so this happens to it at most log2(`bytes_max` / flush size) times.
//! 2. **Order.** By the first rule alone a large segment behind fewer than `width` small ones would keep them for ever, and
//!    whoever flushes a little and much in turns would have files without end. So a segment that is larger than those right
//!    before it takes them in: at once where that costs little, else when `width` segments wait for it. What it took is in a
//!    larger segment by more than double; what it was is rewritten once more than by the first rule.
//!
//! As far as merged segments stay below `bytes_max`, what both leave is less than `width` rows, each shrinking towards the newest, in which a segment is larger than the next
//! `width - 1` together: for `width` 4 a row has at most 3 + 1.14 * log2(largest / smallest) segments.

use std::ops::Range;

/// Merges of less than this are cheap enough to be done for order alone.
const TIDY_BYTES: u64 = 4 << 20;

/// What a pick is to keep to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Segments that one merge takes by the first rule; two at least.
    pub(crate) width: usize,
    /// Bytes of a merged segment at most.
    pub(crate) bytes_max: u64,
}

/// The cheapest merge that is due. `sizes`: bytes of each segment, oldest first; `None`: not to be touched. `has_room`: whether
/// the disk has room for a merge of so many bytes. O(segments) but for long rows of growing sizes.
pub(crate) fn pick(
    sizes: &[Option<u64>],
    bounds: Bounds,
    has_room: impl Fn(u64) -> bool,
) -> Option<Range<usize>> {
    let width = bounds.width.max(2);
    let fits = |sum: u64| sum <= bounds.bytes_max && has_room(sum);
    let windows = sizes.windows(width).enumerate();
    let doubling = windows.filter_map(|(at, window)| {
        let sum = window.iter().copied().sum::<Option<u64>>()?;
        let max = window.iter().flatten().max().copied().unwrap_or(0);
        (max <= sum - max && fits(sum)).then_some((sum, at))
    });
    if let Some((_, at)) = doubling.min() {
        return Some(at..at + width);
    }
    if sizes.len() <= width {
        return None;
    }
    let mut waiting = 0;
    let mut cheapest = None;
    for (at, size) in sizes.iter().enumerate() {
        let Some(size) = *size else { continue };
        let before = sizes.get(..at).unwrap_or_default().iter().rev();
        let smaller = before.map_while(|before| before.filter(|before| *before < size));
        let (count, sum) = smaller.fold((0, size), |(count, sum), size| (count + 1, sum + size));
        if count > 0 && fits(sum) {
            waiting += 1;
            let range = (sum, at - count, at + 1);
            cheapest = Some(cheapest.map_or(range, |known| range.min(known)));
        }
    }
    debug_assert!(
        cheapest.is_none_or(|(_, from, to)| from + 1 < to && to <= sizes.len()),
        "at least two neighbours are merged"
    );
    cheapest
        .filter(|(sum, ..)| *sum <= TIDY_BYTES || waiting >= width)
        .map(|(_, from, to)| from..to)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        width: 4,
        bytes_max: 1 << 30,
    };

    fn due(sizes: &[u64]) -> Option<Range<usize>> {
        let sizes: Vec<_> = sizes.iter().copied().map(Some).collect();
        pick(&sizes, BOUNDS, |_| true)
    }

    /// What is there after these flushes with every merge done at once, and the bytes that merges wrote.
    fn settle(flushes: impl IntoIterator<Item = u64>) -> (Vec<u64>, u64) {
        let (mut sizes, mut written) = (Vec::new(), 0);
        for flush in flushes {
            sizes.push(flush);
            while let Some(range) = due(&sizes) {
                let sum = sizes[range.clone()].iter().sum();
                written += sum;
                sizes.splice(range, [sum]);
            }
        }
        (sizes, written)
    }

    #[test]
    fn four_of_a_size_become_one_and_fewer_wait() {
        assert_eq!(due(&[9, 9, 9]), None);
        assert_eq!(due(&[9, 9, 9, 9]), Some(0..4));
        assert_eq!(due(&[100, 9, 9, 9]), None, "the large one is left alone");
        assert_eq!(due(&[100, 9, 9, 9, 8]), Some(1..5));
    }

    #[test]
    fn a_large_one_takes_in_the_small_ones_before_it() {
        assert_eq!(due(&[5, 9, 100]), None, "they are few");
        assert_eq!(due(&[200, 1, 1, 5, 100]), Some(1..4), "the cheapest first");
        assert_eq!(due(&[200, 7, 100, 2, 1]), Some(1..3));
        let row = [1, 1, 1, 9].map(|size| size * TIDY_BYTES).repeat(4);
        assert_eq!(due(&row[..15]), None, "three wait");
        assert_eq!(due(&row), Some(0..4));
    }

    #[test]
    fn what_is_damaged_too_large_or_has_no_room_is_left_alone() {
        let row = [Some(9), Some(9), None, Some(99), Some(9), Some(1), Some(2)];
        assert_eq!(pick(&row, BOUNDS, |_| true), Some(5..7));
        assert_eq!(pick(&row[..5], BOUNDS, |_| true), None);
        assert_eq!(pick(&row, BOUNDS, |_| false), None);
        let bounds = Bounds {
            bytes_max: 30,
            ..BOUNDS
        };
        assert_eq!(pick(&[Some(9); 4], bounds, |_| true), None);
        assert_eq!(pick(&[Some(7); 4], bounds, |_| true), Some(0..4));
    }

    /// Patterns under which the first rule alone keeps a file for each second flush, or one for each.
    #[test]
    fn files_stay_few_whatever_is_flushed() {
        type Pattern = fn(u64) -> u64;
        let patterns: [(&str, Pattern); 5] = [
            ("all alike", |_| 64 << 20),
            ("a little and much in turns", |n| {
                [1 << 10, 64 << 20][n as usize % 2]
            }),
            ("three of little, one of much", |n| {
                [1 << 10, 1 << 10, 1 << 10, 8 << 20][n as usize % 4]
            }),
            ("ever more", |n| 1000 + n * n * 100),
            ("ever less", |n| (2000 - n.min(1999)) * 10_000),
        ];
        for (what, pattern) in patterns {
            let flushes = (0..1000).map(pattern);
            let bytes: u64 = flushes.clone().sum();
            let (sizes, written) = settle(flushes);
            let full = (bytes / BOUNDS.bytes_max * 2) as usize;
            assert!(
                sizes.len() <= full * 2 + 40,
                "{what}: {} files",
                sizes.len()
            );
            let rewritten = written as f64 / bytes as f64;
            println!(
                "{what}: {} files, rewritten {rewritten:.1} times",
                sizes.len()
            );
            assert!(rewritten < 6.0, "{what}: rewritten {rewritten:.1} times");
        }
    }

    proptest! {
        #[test]
        fn files_stay_few_and_rewriting_bounded(
            flushes in prop::collection::vec((0..28_u32, 1..1000_u64), 1..400),
        ) {
            let flushes = flushes.into_iter().map(|(scale, size)| (size << scale) / 1000 + 1);
            let bytes: u64 = flushes.clone().sum();
            let (sizes, written) = settle(flushes);
            let full = (bytes / BOUNDS.bytes_max * 2) as usize;
            prop_assert!(sizes.len() <= full * 2 + 40, "{} files", sizes.len());
            prop_assert!(written < bytes * 6, "rewritten {} times", written / bytes);
        }
    }
}
