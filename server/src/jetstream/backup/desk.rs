//! How many backups and restores run, and what restores have reserved.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;

use futures::task::AtomicWaker;
use halyard_runtime::time::{self, Duration, Instant};
use parking_lot::Mutex;

use crate::jetstream::config::Storage;

/// Backups that run at one time; one more is refused.
pub const SNAPSHOTS_MAX: usize = 32;
/// Restores that run at one time; one more is refused.
pub const RESTORES_MAX: usize = 16;

/// A restore that has been silent for so long gives its place to one that finds none free.
const SILENCE: Duration = Duration::from_millis(500);
/// How long such a one waits for the place.
const WAIT: Duration = Duration::from_secs(2);

/// What tells how long a restore's client has been silent, and takes its place away.
#[derive(Debug)]
pub struct Sign {
    heard: Mutex<Instant>,
    gone: AtomicBool,
    task: AtomicWaker,
}

impl Default for Sign {
    fn default() -> Self {
        Self {
            heard: Mutex::new(Instant::now()),
            gone: AtomicBool::new(false),
            task: AtomicWaker::new(),
        }
    }
}

impl Sign {
    /// The client has sent something.
    pub fn hear(&self) {
        *self.heard.lock() = Instant::now();
    }

    /// Whether its place has been given to another; if not, the task is woken once it is.
    pub fn is_gone(&self, waker: &Waker) -> bool {
        self.task.register(waker);
        self.gone.load(Ordering::Acquire)
    }

    fn give_up(&self) {
        self.gone.store(true, Ordering::Release);
        self.task.wake();
    }
}

/// The counters of one server.
#[derive(Debug, Default)]
pub struct Desk {
    signs: Mutex<Vec<Weak<Sign>>>,
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

    /// A place for a restore. If none is free, the one that has been silent the longest has to go: no client keeps the
    /// others out by beginning what it does not go on with.
    pub async fn wait_for_restore(self: &Arc<Self>) -> Option<Seat> {
        let began = Instant::now();
        loop {
            if let Some(seat) = self.restore() {
                return Some(seat);
            }
            if began.elapsed() > WAIT || !self.make_room() {
                return None;
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Counts a restore among those that may have to go.
    pub fn watch(&self, sign: &Arc<Sign>) {
        let mut signs = self.signs.lock();
        signs.retain(|sign| sign.strong_count() > 0);
        signs.push(Arc::downgrade(sign));
    }

    /// Whether some restore is on its way out.
    fn make_room(&self) -> bool {
        let signs: Vec<Arc<Sign>> = self.signs.lock().iter().filter_map(Weak::upgrade).collect();
        if signs.iter().any(|sign| sign.gone.load(Ordering::Acquire)) {
            return true;
        }
        let longest = signs.iter().min_by_key(|sign| *sign.heard.lock());
        let longest = longest.filter(|sign| sign.heard.lock().elapsed() >= SILENCE);
        if let Some(sign) = longest {
            sign.give_up();
        }
        longest.is_some()
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
    fn the_longest_silence_makes_room() {
        let desk = Arc::new(Desk::default());
        let signs: Vec<Arc<Sign>> = (0..3).map(|_| Arc::default()).collect();
        signs.iter().for_each(|sign| desk.watch(sign));
        assert!(!desk.make_room(), "nobody has been silent for long");
        let ago = |seconds| Instant::now() - Duration::from_secs(seconds);
        *signs[1].heard.lock() = ago(2);
        *signs[2].heard.lock() = ago(1);
        assert!(desk.make_room() && desk.make_room());
        let gone = |sign: &Arc<Sign>| sign.is_gone(Waker::noop());
        assert_eq!(
            signs.iter().map(gone).collect::<Vec<_>>(),
            [false, true, false]
        );
    }

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
