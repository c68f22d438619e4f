//! One tenant: its interest, and the messages between its publishers and subscribers. Nothing crosses accounts here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use halyard_runtime::random;
use parking_lot::{Mutex, RwLock};

use super::hash::Keyed;
use super::interest::Interest;
use super::message::{Delivered, Publish, Sink};
use super::route::Route;
use super::subject;
use super::subscription::{Subscribe, Subscription};
use super::watch::{Notify, Watch, Watched, Watches};

/// Subjects are spread by their first token over so many generations: an inbox that comes or goes does not spoil what
/// connections remember about other subjects.
const GENERATIONS: usize = 64;

/// Why a subscription is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The filter is not a valid one.
    #[error("invalid subject")]
    InvalidSubject,
}

/// What became of a published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Subscriptions that took it; a queue group counts once.
    pub delivered: usize,
}

/// Counters of one account, for the monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InterestCounters {
    /// Live subscriptions.
    pub subscriptions: u64,
    /// Subscriptions ever made.
    pub inserts: u64,
    /// Subscriptions ever removed.
    pub removes: u64,
    /// Messages matched against interest, by trie or by cache.
    pub matches: u64,
    /// Those that a publisher's cache answered.
    pub cache_hits: u64,
}

/// One tenant of the server.
pub struct Account {
    name: Box<str>,
    keyed: Keyed,
    interest: RwLock<Interest>,
    generations: [AtomicU64; GENERATIONS],
    next_id: AtomicU64,
    inserts: AtomicU64,
    removes: AtomicU64,
    matches: AtomicU64,
    cache_hits: AtomicU64,
    watches: Mutex<Watches>,
}

/// Ends the watch when dropped.
pub struct InterestWatch {
    account: Arc<Account>,
    watch: Arc<Watch>,
}

impl Account {
    pub(super) fn new(name: &str) -> Self {
        let keyed = Keyed::draw();
        Self {
            name: name.into(),
            interest: RwLock::new(Interest::new(keyed.clone())),
            keyed,
            generations: std::array::from_fn(|_| AtomicU64::new(1)),
            next_id: AtomicU64::new(1),
            inserts: AtomicU64::new(0),
            removes: AtomicU64::new(0),
            matches: AtomicU64::new(0),
            cache_hits: AtomicU64::new(0),
            watches: Mutex::default(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Subscribes a sink of the server itself.
    ///
    /// # Errors
    /// [`SubscribeError::InvalidSubject`]: the filter is not a valid one.
    pub fn subscribe(
        &self,
        filter: &[u8],
        queue: Option<&[u8]>,
        sink: Arc<dyn Sink>,
    ) -> Result<Arc<Subscription>, SubscribeError> {
        self.subscribe_for(
            &Subscribe {
                filter,
                queue,
                sid: &[],
                client: None,
            },
            sink,
        )
    }

    /// Subscribes a sink. Everything published after this returns is offered to it.
    ///
    /// # Errors
    /// [`SubscribeError::InvalidSubject`]: the filter is not a valid one.
    pub fn subscribe_for(
        &self,
        asked: &Subscribe<'_>,
        sink: Arc<dyn Sink>,
    ) -> Result<Arc<Subscription>, SubscribeError> {
        if !subject::is_valid_filter(asked.filter) {
            return Err(SubscribeError::InvalidSubject);
        }
        let subscription = {
            let mut interest = self.interest.write();
            // Drawn under the lock: the lists of the trie rise by id.
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            let subscription = Arc::new(Subscription::new(id, asked, sink));
            interest.insert(&subscription);
            subscription
        };
        self.inserts.fetch_add(1, Ordering::Relaxed);
        self.interest_changed(asked.filter);
        Ok(subscription)
    }

    /// Ends a subscription; whether it was live until now. A message already on its way may still be refused by it.
    pub fn unsubscribe(&self, subscription: &Subscription) -> bool {
        if !subscription.close() {
            return false;
        }
        let removed = self.interest.write().remove(subscription);
        assert!(
            removed,
            "a subscription is unsubscribed from the account that made it"
        );
        self.removes.fetch_add(1, Ordering::Relaxed);
        self.interest_changed(subscription.filter());
        true
    }

    /// Sends a message to everybody interested. For publishers inside the server that seldom use a subject twice;
    /// others hold a [`Router`](super::Router).
    pub fn publish(&self, message: &Publish<'_>) -> Outcome {
        let mut route = Route::default();
        self.collect(message.route, &mut route);
        let mut draw = if route.groups.is_empty() {
            0
        } else {
            random::u64()
        };
        self.count_matches(1, 0);
        Outcome {
            delivered: self.deliver(&route, message, &mut draw),
        }
    }

    /// Whether anybody would get a message published to `subject`.
    #[must_use]
    pub fn interest(&self, subject: &[u8]) -> bool {
        self.interest.read().any(subject)
    }

    /// Calls `notify` with whether there is interest in the literal `subject`: once now (on another thread where interest
    /// changes at this very moment), and after each change until the watch is dropped. Changes that cancel each other may
    /// be skipped; what was told last is how it is.
    pub fn watch_interest(
        self: &Arc<Self>,
        subject: &[u8],
        notify: impl Fn(bool) + Send + Sync + 'static,
    ) -> InterestWatch {
        self.watch(subject, Watched::Interest, Box::new(notify))
    }

    /// Whether somebody listens to the literal `subject` itself: in the queue group, or for `None` outside of any. Who has
    /// a filter that merely matches it only looks on.
    #[must_use]
    pub fn listens(&self, subject: &[u8], queue: Option<&[u8]>) -> bool {
        let listens = |one: &Arc<Subscription>| one.filter() == subject && one.queue() == queue;
        self.matching(subject).iter().any(listens)
    }

    /// The same as [`watch_interest`](Self::watch_interest) for who [`listens`](Self::listens).
    pub fn watch_listeners(
        self: &Arc<Self>,
        subject: &[u8],
        queue: Option<&[u8]>,
        notify: impl Fn(bool) + Send + Sync + 'static,
    ) -> InterestWatch {
        let of = Watched::Listeners(queue.map(Into::into));
        self.watch(subject, of, Box::new(notify))
    }

    fn watch(self: &Arc<Self>, subject: &[u8], of: Watched, notify: Box<Notify>) -> InterestWatch {
        let watch = self.watches.lock().add(subject, of, notify);
        watch.tell(|| self.is_watched(&watch));
        InterestWatch {
            account: Arc::clone(self),
            watch,
        }
    }

    fn is_watched(&self, watch: &Watch) -> bool {
        match &watch.of {
            Watched::Interest => self.interest(&watch.subject),
            Watched::Listeners(queue) => self.listens(&watch.subject, queue.as_deref()),
        }
    }

    /// Counters for the monitor.
    #[must_use]
    pub fn counters(&self) -> InterestCounters {
        InterestCounters {
            subscriptions: self.interest.read().count() as u64,
            inserts: self.inserts.load(Ordering::Relaxed),
            removes: self.removes.load(Ordering::Relaxed),
            matches: self.matches.load(Ordering::Relaxed),
            cache_hits: self.cache_hits.load(Ordering::Relaxed),
        }
    }

    /// Every subscription, in the order in which they were made. For the monitor: it takes time.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<Arc<Subscription>> {
        let mut all = Vec::new();
        self.interest
            .read()
            .for_each(&mut |subscription| all.push(Arc::clone(subscription)));
        all.sort_unstable_by_key(|subscription| subscription.id());
        all
    }

    /// The subscriptions that a message to `subject` would be offered to, all members of groups among them.
    #[must_use]
    pub fn matching(&self, subject: &[u8]) -> Vec<Arc<Subscription>> {
        let mut route = Route::default();
        self.collect(subject, &mut route);
        let members = route.groups.into_iter().flat_map(|group| group.members);
        route.plain.into_iter().chain(members).collect()
    }

    /// Offers a message to one subscription, whatever it asked for.
    pub(crate) fn deliver_to(&self, subscription: &Subscription, message: &Publish<'_>) -> bool {
        self.offer(subscription, message)
    }

    /// Makes the hashers of maps that a client's words are keys of.
    pub(crate) fn keyed(&self) -> Keyed {
        self.keyed.clone()
    }

    /// Hash of a whole subject, for caches.
    #[inline]
    pub(super) fn hash(&self, subject: &[u8]) -> u64 {
        self.keyed.hash(subject)
    }

    /// Which generation a subject belongs to.
    pub(super) fn generation_index(&self, subject: &[u8]) -> usize {
        let (first, _) = subject::split_first(subject);
        (self.hash(first) % GENERATIONS as u64) as usize
    }

    /// Changes whenever the interest in subjects of this index may have changed.
    #[inline]
    pub(super) fn generation(&self, index: usize) -> u64 {
        self.generations
            .get(index)
            .map_or(0, |generation| generation.load(Ordering::Acquire))
    }

    pub(super) fn collect(&self, subject: &[u8], route: &mut Route) {
        self.interest.read().collect(subject, route);
    }

    pub(super) fn count_matches(&self, matches: u64, cache_hits: u64) {
        self.matches.fetch_add(matches, Ordering::Relaxed);
        self.cache_hits.fetch_add(cache_hits, Ordering::Relaxed);
    }

    /// Offers a message along a route. `draw` is the state of the publisher's random numbers; 0 only without groups.
    #[inline]
    pub(super) fn deliver(&self, route: &Route, message: &Publish<'_>, draw: &mut u64) -> usize {
        let mut delivered = 0;
        for subscription in &route.plain {
            delivered += usize::from(self.offer(subscription, message));
        }
        for group in &route.groups {
            let count = group.members.len();
            let first = (next_random(draw) % count.max(1) as u64) as usize;
            let (before, from) = group.members.split_at(first);
            // A member that refuses passes the message on to the next.
            let taken = from
                .iter()
                .chain(before)
                .any(|member| self.offer(member, message));
            delivered += usize::from(taken);
        }
        delivered
    }

    #[inline]
    fn offer(&self, subscription: &Subscription, message: &Publish<'_>) -> bool {
        match subscription.sink().deliver(subscription, message) {
            Delivered::Accepted => true,
            Delivered::Refused => false,
            Delivered::Last => {
                self.unsubscribe(subscription);
                true
            }
        }
    }

    /// Makes caches forget what `filter` may concern, and tells the watches.
    fn interest_changed(&self, filter: &[u8]) {
        let (first, _) = subject::split_first(filter);
        if first == subject::ANY_TOKEN || first == subject::ANY_TAIL {
            for generation in &self.generations {
                generation.fetch_add(1, Ordering::Release);
            }
        } else if let Some(generation) = self.generations.get(self.generation_index(filter)) {
            generation.fetch_add(1, Ordering::Release);
        }
        let mut watches = Vec::new();
        {
            let held = self.watches.lock();
            if held.is_empty() {
                return;
            }
            held.matching(filter, &mut watches);
        }
        for watch in watches {
            watch.tell(|| self.is_watched(&watch));
        }
    }
}

/// xorshift64*: cheap, and good enough to spread messages over the members of a group.
#[inline]
const fn next_random(state: &mut u64) -> u64 {
    let mut x = *state | 1;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
}

impl Drop for InterestWatch {
    fn drop(&mut self) {
        self.account.watches.lock().remove(&self.watch);
    }
}
