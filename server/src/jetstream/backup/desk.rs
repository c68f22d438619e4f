//! How many backups and restores run, and what restores have reserved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::jetstream::config::Storage;

/// Backups that run at one time; one more is refused.
pub const SNAPSHOTS_MAX: usize = 32;
/// Restores that run at one time; one more is refused.
pub const RESTORES_MAX: usize = 16;

/// The counters of one server.
#[derive(Debug, Default)]
pub struct Desk {
    snapshots: AtomicUsize,
    restores: AtomicUsize,
    reserved_file: AtomicU64,
    reserved_memory: AtomicU64,
}

/// A place at the desk; dropping it frees it.
#[derive(Debug)]
pub struct Seat {
    desk: Arc<Desk>,
    restores: bool,
    reserved: Option<(Storage, u64)>,
}

impl Desk {
    /// A place for a backup, if one is free.
    #[must_use]
    pub fn snapshot(self: &Arc<Self>) -> Option<Seat> {
        self.seat(false)
    }

    /// A place for a restore, if one is free.
    #[must_use]
    pub fn restore(self: &Arc<Self>) -> Option<Seat> {
        self.seat(true)
    }

    /// Bytes that streams which are being restored may grow to.
    #[must_use]
    pub fn reserved(&self, storage: Storage) -> u64 {
        self.counter(storage).load(Ordering::Acquire)
    }

    fn seat(self: &Arc<Self>, restores: bool) -> Option<Seat> {
        let (counter, max) = if restores {
            (&self.restores, RESTORES_MAX)
        } else {
            (&self.snapshots, SNAPSHOTS_MAX)
        };
        let more = |count: usize| (count < max).then_some(count + 1);
        counter
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .ok()?;
        Some(Seat {
            desk: self.clone(),
            restores,
            reserved: None,
        })
    }

    const fn counter(&self, storage: Storage) -> &AtomicU64 {
        match storage {
            Storage::File => &self.reserved_file,
            Storage::Memory => &self.reserved_memory,
        }
    }
}

impl Seat {
    /// Reserves what a stream that is being restored may grow to, until the seat is free again.
    pub fn reserve(&mut self, storage: Storage, bytes: u64) {
        debug_assert!(self.reserved.is_none(), "one stream for each seat");
        self.desk
            .counter(storage)
            .fetch_add(bytes, Ordering::AcqRel);
        self.reserved = Some((storage, bytes));
    }

    /// Gives the reservation back: the stream that was restored counts by itself from here on.
    pub fn release(&mut self) {
        if let Some((storage, bytes)) = self.reserved.take() {
            self.desk
                .counter(storage)
                .fetch_sub(bytes, Ordering::AcqRel);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let counter = if self.restores {
            &self.desk.restores
        } else {
            &self.desk.snapshots
        };
        counter.fetch_sub(1, Ordering::AcqRel);
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted() {
        let desk = Arc::new(Desk::default());
        let mut seats: Vec<Seat> = (0..RESTORES_MAX).filter_map(|_| desk.restore()).collect();
        assert_eq!(seats.len(), RESTORES_MAX);
        assert!(desk.restore().is_none());
        assert!(
            desk.snapshot().is_some(),
            "backups have places of their own"
        );
        seats[0].reserve(Storage::File, 70);
        assert_eq!(
            (desk.reserved(Storage::File), desk.reserved(Storage::Memory)),
            (70, 0)
        );
        seats.clear();
        assert!(desk.restore().is_some());
        assert_eq!(desk.reserved(Storage::File), 0);
    }
}
