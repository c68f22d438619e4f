//! File descriptors: how many this process may have, who has them, and what is kept for files.
//!
//! A server that gives all its descriptors to sockets can open no file any more, and a store that cannot open its next
//! file takes no more writes: whoever opens enough connections would switch it off. So sockets that are accepted leave
//! a part for files ([`Sockets::TooMany`]). What is open and neither a socket nor a file of ours (the runtime's, standard
//! output) is small, and comes out of that part too.

use std::sync::atomic::{AtomicU64, Ordering};

/// The most that may be open at one time; 0 until it was asked for.
static LIMIT: AtomicU64 = AtomicU64::new(0);
static FILES: AtomicU64 = AtomicU64::new(0);
static SOCKETS: AtomicU64 = AtomicU64::new(0);

/// What is kept for files: a quarter of all, between these.
const KEPT: (u64, u64) = (16, 1024);

/// Whether there is a descriptor for another accepted socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// There is.
    Free,
    /// What is left is for files: the socket may be told so, and is to be closed soon.
    TooMany,
    /// So little is left that it is to be closed at once.
    FarTooMany,
}

/// One open file, for as long as it is counted.
#[derive(Debug)]
pub(crate) struct File(());

/// One open socket, for as long as it is counted.
#[derive(Debug)]
pub(crate) struct Socket(());

impl File {
    pub(crate) fn new() -> Self {
        FILES.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        FILES.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Socket {
    pub(crate) fn new() -> Self {
        SOCKETS.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        SOCKETS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets this process open as many sockets and files as the system allows it at most, instead of the often small default.
/// Returns that number; `u64::MAX` = no limit.
///
/// # Errors
/// When the system refuses; the process then goes on with what it has.
pub fn raise_limit() -> std::io::Result<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(Resource::Nofile, raised)?;
    let most = most.unwrap_or(u64::MAX);
    LIMIT.store(most, Ordering::Relaxed);
    Ok(most)
}

/// The most sockets and files that may be open at one time; `u64::MAX` = no limit.
#[must_use]
pub fn limit() -> u64 {
    use rustix::process::{Resource, getrlimit};
    match LIMIT.load(Ordering::Relaxed) {
        0 => {
            let current = getrlimit(Resource::Nofile).current;
            let limit = current.unwrap_or(u64::MAX).max(1);
            LIMIT.store(limit, Ordering::Relaxed);
            limit
        }
        limit => limit,
    }
}

/// Whether the sockets that are open now, one that has just been accepted included, leave enough for files.
pub(crate) fn sockets() -> Sockets {
    let open = SOCKETS.load(Ordering::Relaxed) + FILES.load(Ordering::Relaxed);
    room(open, limit())
}

fn room(open: u64, limit: u64) -> Sockets {
    let kept = (limit / 4).clamp(KEPT.0, KEPT.1);
    let left = limit.saturating_sub(open);
    if left >= kept {
        Sockets::Free
    } else if left >= kept / 2 {
        Sockets::TooMany
    } else {
        Sockets::FarTooMany
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_leave_a_quarter_for_files_and_no_more_than_is_of_use() {
        assert_eq!(room(192, 256), Sockets::Free);
        assert_eq!(room(193, 256), Sockets::TooMany);
        assert_eq!(room(224, 256), Sockets::TooMany);
        assert_eq!(room(225, 256), Sockets::FarTooMany);
        assert_eq!(room(1_000_000 - 1024, 1_000_000), Sockets::Free);
        assert_eq!(room(1 << 40, u64::MAX), Sockets::Free);
        assert_eq!(room(10, 8), Sockets::FarTooMany);
    }
}
