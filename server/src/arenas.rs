//! How many heaps the process has: as many as processors.
//!
//! glibc gives its threads up to eight heaps for each processor, so that they seldom wait for one another. Each keeps what it once
//! needed, and here much is allocated on one thread and freed on another: entries, buffers, the parts of an index that a flush
//! shares. With a heap for each processor the index of a million subjects takes 134 bytes for each where it took 205 (two
//! processors), and nothing that `tests/bench/compare.py` measures is slower.

/// Sets it. Before any thread is started.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn limit() {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let most = i32::try_from(processors).unwrap_or(i32::MAX);
    #[expect(
        unsafe_code,
        reason = "mallopt is only unsafe for being foreign: it takes two numbers, and no other thread runs yet"
    )]
    // An answer of 0 means that it stays as it was, which is no harm.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, most) };
}

/// Other allocators have no such heaps.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn limit() {}
