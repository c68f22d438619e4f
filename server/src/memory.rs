//! The process's heap: how many arenas it has, and when what was freed goes back to the system.
//!
//! glibc gives its threads up to eight heaps for each processor, so that they seldom wait for one another. Each keeps what it once
//! needed, and here much is allocated on one thread and freed on another: entries, buffers, the parts of an index that a flush
//! shares. With a heap for each processor the index of a million subjects takes 134 bytes for each where it took 205 (two
//! processors), and nothing that `tests/bench/compare.py` measures is slower.
//!
//! A heap gives back what is free at its end only. After a flood of large messages gigabytes may be free below something small
//! that lives on. So what was freed is counted (roughly, by those who free much: [`crate::broker::Admission::freed`]), and once that is a lot
//! and the flood is over, the allocator is told to look through its heaps.

use std::sync::Weak;

use halyard_runtime::task;
use halyard_runtime::time::{self, Duration};

use crate::broker::Broker;

/// Bytes that have to be freed before a look through the heaps is worth its while.
const WORTH_BYTES: u64 = 32 * 1024 * 1024;
/// How often it is looked whether something was freed. When nothing was for so long, the flood is over.
const INTERVAL: Duration = Duration::from_secs(5);
/// A flood that does not end is looked after all the same, after so many intervals.
const INTERVALS_MAX: u32 = 6;

/// What was freed since the heaps were looked through.
#[derive(Debug, Default)]
struct Watch {
    freed: u64,
    seen: u64,
    intervals: u32,
}

impl Watch {
    /// Whether it is time, `freed` bytes having been freed since the start.
    fn is_due(&mut self, freed: u64) -> bool {
        let is_quiet = freed - self.seen < WORTH_BYTES;
        self.seen = freed;
        if freed - self.freed < WORTH_BYTES {
            self.intervals = 0;
            return false;
        }
        self.intervals += 1;
        if !is_quiet && self.intervals < INTERVALS_MAX {
            return false;
        }
        (self.freed, self.intervals) = (freed, 0);
        true
    }
}

/// Gives memory back now and then, as long as there is a broker.
pub(crate) async fn keep(broker: Weak<Broker>) {
    let mut watch = Watch::default();
    loop {
        time::sleep(INTERVAL).await;
        let freed = broker
            .upgrade()
            .map(|broker| broker.admission().freed_so_far());
        let Some(freed) = freed else {
            return;
        };
        if watch.is_due(freed) {
            // It takes some milliseconds for each gigabyte. A panic there is no reason to end.
            task::spawn_blocking(give_back).await.ok();
        }
    }
}

/// Sets the number of heaps: as many as processors. Before any thread is started.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn limit_arenas() {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let most = i32::try_from(processors).unwrap_or(i32::MAX);
    #[expect(
        unsafe_code,
        reason = "mallopt is only unsafe for being foreign: it takes two numbers, and no other thread runs yet"
    )]
    // An answer of 0 means that it stays as it was, which is no harm.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, most) };
}

/// Has the allocator give back every free page.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() {
    #[expect(
        unsafe_code,
        reason = "malloc_trim is only unsafe for being foreign: it takes a number, and any thread may call it at any time"
    )]
    // An answer of 0 means that there was nothing.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Other allocators have no such heaps.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn limit_arenas() {}

/// Other allocators are not asked.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_back_after_a_flood_and_now_and_then_in_one() {
        let mut watch = Watch::default();
        assert!(!watch.is_due(WORTH_BYTES - 1), "too little");
        assert!(!watch.is_due(WORTH_BYTES * 9), "the flood goes on");
        assert!(watch.is_due(WORTH_BYTES * 9), "it is over");
        assert!(!watch.is_due(WORTH_BYTES * 9), "nothing more was freed");
        let mut freed = WORTH_BYTES * 9;
        let dues = (0..12).map(|_| {
            freed += WORTH_BYTES;
            watch.is_due(freed)
        });
        assert_eq!(dues.filter(|is_due| *is_due).count(), 2, "of a long one");
    }

    #[test]
    fn giving_back_does_no_harm() {
        let large: Vec<Vec<u8>> = (0..64).map(|_| vec![1; 100_000]).collect();
        let kept = large.last().cloned();
        drop(large);
        give_back();
        assert_eq!(kept.map(|kept| kept.len()), Some(100_000));
    }
}
