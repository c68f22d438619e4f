//! Memory for large messages on their way in, of the whole server: who would take more than there is waits unread.
//!
//! A message that is longer than one read gathers in a buffer of its connection until its end has come, and then waits for its
//! stream. Thousands of connections that send such messages at the same time would need gigabytes. So a connection asks for
//! the room of the whole message before it reads on, and those who find none stand in a line. What streams hold back counts
//! as well: where the disk is slower than the network, it is the network that waits.
//!
//! Nobody can hold a place in front of others for long: a message that is not complete after [`caps::ADMITTED_MAX`] keeps its
//! buffer, but counts no more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use halyard_runtime::time::Instant;
use parking_lot::Mutex;

use crate::caps;

/// The room that there is, and who waits for some.
#[derive(Debug)]
pub struct Admission {
    most: usize,
    /// Bytes that others hold: messages that wait for their stream.
    held: AtomicUsize,
    /// Bytes that were freed so far, roughly: large buffers, and what others tell of.
    freed: AtomicU64,
    /// How many stand in the line: looked at without the lock.
    in_line: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    admitted: usize,
    line: VecDeque<(u64, Waker)>,
    arrivals: u64,
}

/// One connection, as the admission sees it.
#[derive(Debug)]
pub(crate) struct Visitor {
    admission: Arc<Admission>,
    place: Place,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Outside,
    Line(u64),
    Inside {
        bytes: usize,
        until: Instant,
    },
    /// Admitted so long ago that it counts no more.
    Forgotten,
}

impl Admission {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            held: AtomicUsize::new(0),
            freed: AtomicU64::new(0),
            in_line: AtomicUsize::new(0),
            state: Mutex::default(),
        })
    }

    /// So many bytes more wait for their stream.
    pub fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::AcqRel);
    }

    /// So many bytes wait no more.
    pub fn free(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::AcqRel);
        if self.in_line.load(Ordering::Acquire) > 0 {
            self.state.lock().wake_first();
        }
    }

    /// So many bytes of memory were freed: the heap may be worth a look.
    pub fn freed(&self, bytes: usize) {
        self.freed.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Sum of what was freed since the start.
    #[must_use]
    pub fn freed_so_far(&self) -> u64 {
        self.freed.load(Ordering::Relaxed)
    }

    /// One that has asked for nothing yet.
    pub(crate) fn visitor(self: &Arc<Self>) -> Visitor {
        Visitor {
            admission: Arc::clone(self),
            place: Place::Outside,
        }
    }

    /// What is larger than all goes alone.
    fn has_room(&self, state: &State, bytes: usize) -> bool {
        let taken = state.admitted + self.held.load(Ordering::Acquire);
        taken == 0 || taken + bytes <= self.most
    }
}

impl State {
    fn wake_first(&self) {
        if let Some((_, waker)) = self.line.front() {
            waker.wake_by_ref();
        }
    }
}

impl Visitor {
    /// Whether the connection may read a message of so many bytes to its end. If not, `waker` is woken when that may have
    /// changed.
    pub(crate) fn enter(&mut self, bytes: usize, now: Instant, waker: &Waker) -> bool {
        let number = match self.place {
            Place::Inside { .. } | Place::Forgotten => return true,
            Place::Line(number) => Some(number),
            Place::Outside => None,
        };
        let admission = &*self.admission;
        let mut state = admission.state.lock();
        let is_first = match number {
            Some(number) => state
                .line
                .front()
                .is_some_and(|(first, _)| *first == number),
            None => state.line.is_empty(),
        };
        if is_first && admission.has_room(&state, bytes) {
            if number.is_some() {
                state.line.pop_front();
                admission.in_line.fetch_sub(1, Ordering::AcqRel);
            }
            state.admitted += bytes;
            state.wake_first();
            let until = now + caps::ADMITTED_MAX;
            self.place = Place::Inside { bytes, until };
            return true;
        }
        if let Some(number) = number {
            let found = state.line.binary_search_by_key(&number, |(held, _)| *held);
            if let Some((_, held)) = found.ok().and_then(|at| state.line.get_mut(at)) {
                held.clone_from(waker);
            }
            return false;
        }
        state.arrivals += 1;
        let number = state.arrivals;
        state.line.push_back((number, waker.clone()));
        self.place = Place::Line(number);
        admission.in_line.fetch_add(1, Ordering::AcqRel);
        // Something may have been freed since there was no room, by one that saw nobody in the line.
        if is_first && admission.has_room(&state, bytes) {
            waker.wake_by_ref();
        }
        false
    }

    /// When [`Visitor::look`] is to be called.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        match self.place {
            Place::Inside { until, .. } => Some(until),
            _ => None,
        }
    }

    /// One that has been inside for too long counts no more.
    pub(crate) fn look(&mut self, now: Instant) {
        if self.deadline().is_some_and(|until| now >= until) {
            self.leave();
            self.place = Place::Forgotten;
        }
    }

    /// The message has been taken, or never will be.
    pub(crate) fn leave(&mut self) {
        match std::mem::replace(&mut self.place, Place::Outside) {
            Place::Outside | Place::Forgotten => {}
            Place::Line(number) => {
                let mut state = self.admission.state.lock();
                let found = state.line.binary_search_by_key(&number, |(held, _)| *held);
                if let Ok(at) = found {
                    state.line.remove(at);
                    self.admission.in_line.fetch_sub(1, Ordering::AcqRel);
                }
                state.wake_first();
            }
            Place::Inside { bytes, .. } => {
                let mut state = self.admission.state.lock();
                state.admitted -= bytes;
                state.wake_first();
                self.admission.freed(bytes);
            }
        }
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn bell() -> (Arc<Bell>, Waker) {
        let bell = Arc::new(Bell::default());
        (bell.clone(), Waker::from(bell))
    }

    #[test]
    fn a_line_moves_when_there_is_room() {
        let admission = Admission::new(100);
        let now = Instant::now();
        let mut visitors: Vec<_> = (0..4).map(|_| admission.visitor()).collect();
        let bells: Vec<_> = (0..4).map(|_| bell()).collect();
        let enter =
            |visitors: &mut Vec<Visitor>, at: usize| visitors[at].enter(60, now, &bells[at].1);
        assert!(enter(&mut visitors, 0));
        assert!(enter(&mut visitors, 0), "it is in");
        assert!(!enter(&mut visitors, 1));
        assert!(!enter(&mut visitors, 2));
        visitors[0].leave();
        assert_eq!(bells[1].0.0.load(Ordering::Relaxed), 1);
        assert!(!enter(&mut visitors, 2), "not before the one in front");
        assert!(!enter(&mut visitors, 3));
        assert!(enter(&mut visitors, 1));
        // The first of the line goes away: the next is told.
        let before = bells[3].0.0.load(Ordering::Relaxed);
        visitors[2].leave();
        assert!(bells[3].0.0.load(Ordering::Relaxed) > before);
        visitors[1].leave();
        assert!(enter(&mut visitors, 3));
    }

    #[test]
    fn what_streams_hold_counts_too() {
        let admission = Admission::new(100);
        let (bell, waker) = bell();
        let mut visitor = admission.visitor();
        admission.hold(90);
        assert!(!visitor.enter(20, Instant::now(), &waker));
        admission.free(50);
        assert_eq!(bell.0.load(Ordering::Relaxed), 1);
        assert!(visitor.enter(20, Instant::now(), &waker));
    }

    #[test]
    fn a_large_one_goes_alone_and_a_slow_one_counts_no_more() {
        let admission = Admission::new(100);
        let (_, waker) = bell();
        let now = Instant::now();
        let (mut slow, mut other) = (admission.visitor(), admission.visitor());
        assert!(slow.enter(1000, now, &waker), "larger than all");
        assert!(!other.enter(50, now, &waker));
        slow.look(now + caps::ADMITTED_MAX);
        assert!(slow.enter(1000, now, &waker), "it reads on");
        assert!(other.enter(50, now, &waker));
        drop(slow);
        drop(other);
        assert_eq!(admission.state.lock().admitted, 0);
    }
}
