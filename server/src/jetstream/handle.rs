//! What the rest of the server holds of a group and of a stream.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use halyard_engine::StreamId;
use halyard_raft as raft;
use parking_lot::{Mutex, RwLock};

use super::answer::put_refusal;
use super::api::errors::{ApiError, ErrorKind, table};
use super::config::{Storage, StreamConfig};
use super::consumer::leader::{Address, Event, Intake};
use super::erasure::orders::Orders;
use super::group::command::{Kind, encode_cold};
use super::group::{Machine, Reply};
use super::inbox::{Inbox, Waiter};
use super::stream::machine::Fault;
use crate::broker::{Account, Admission, Delivered, Publish, Sink, Subscription, WriteNumber};

/// How the reply subject of a member of a flow-controlled batch ends.
const FAST_BATCH: &[u8] = b".$FI";

/// Damaged places that reads tell at most; the background's verifying tells the others.
const TOLD_MAX: usize = 1024;

/// One data group on this server.
pub struct GroupHandle {
    storage: Storage,
    inbox: Arc<Inbox>,
    machine: Arc<Mutex<Machine>>,
    raft: raft::Group<Machine>,
    streams: RwLock<BTreeMap<StreamId, Arc<StreamHandle>>>,
    intake: Arc<Intake>,
    orders: Orders,
    woken: Arc<AtomicBool>,
    stopping: AtomicBool,
    failed: AtomicBool,
    /// Some stream takes no more changes: known without the lock of the machine.
    has_halted: AtomicBool,
    /// Messages are refused for want of space.
    is_refusing: AtomicBool,
    /// Consumers that are not served any more because of a bug, and what people are told.
    aside: Mutex<BTreeMap<Address, String>>,
    /// Damaged places that reads have met and that were told.
    told: Mutex<BTreeSet<(PathBuf, u64, StreamId)>>,
    /// Why it has stopped, or what its last flush met.
    unwritten: Mutex<Option<String>>,
}

impl GroupHandle {
    pub(super) fn new(
        storage: Storage,
        machine: Arc<Mutex<Machine>>,
        raft: raft::Group<Machine>,
        admission: Arc<Admission>,
    ) -> Arc<Self> {
        let (inbox, woken) = (Inbox::new(admission), Arc::new(AtomicBool::new(false)));
        let wake = {
            let (inbox, woken) = (inbox.clone(), woken.clone());
            move || {
                if !woken.swap(true, Ordering::AcqRel) {
                    inbox.wake();
                }
            }
        };
        Arc::new(Self {
            storage,
            inbox,
            machine,
            raft,
            streams: RwLock::default(),
            intake: Intake::new(wake),
            orders: Orders::default(),
            woken,
            stopping: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            has_halted: AtomicBool::new(false),
            is_refusing: AtomicBool::new(false),
            aside: Mutex::default(),
            told: Mutex::default(),
            unwritten: Mutex::default(),
        })
    }

    /// For people: which group this is.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.storage {
            Storage::File => "file",
            Storage::Memory => "memory",
        }
    }

    /// Where its messages are kept.
    #[must_use]
    pub const fn storage(&self) -> Storage {
        self.storage
    }

    /// Looks at the state under its lock: be short, take no other lock.
    pub fn read<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        look(&self.machine.lock())
    }

    /// The same where nobody has the lock; `None` where somebody does.
    pub fn try_read<T>(&self, look: impl FnOnce(&Machine) -> T) -> Option<T> {
        self.machine.try_lock().map(|machine| look(&machine))
    }

    /// For what a driver does to the store beside entries.
    pub(super) fn write<T>(&self, run: impl FnOnce(&mut Machine) -> T) -> T {
        run(&mut self.machine.lock())
    }

    /// Commands that wait to be proposed.
    #[must_use]
    pub const fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Where pull requests and acks of its consumers wait.
    #[must_use]
    pub const fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

    /// What erasure wants of its driver.
    pub(super) const fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Its number on this node.
    #[must_use]
    pub fn id(&self) -> raft::GroupId {
        self.raft.id()
    }

    pub(crate) const fn raft(&self) -> &raft::Group<Machine> {
        &self.raft
    }

    /// Proposes a consumer's command; [`Leader::applied`](super::consumer::leader::Leader::applied) gets the answer.
    pub fn submit(&self, kind: Kind, stream: StreamId, body: &[u8], waiter: Waiter) {
        self.inbox.submit(kind, stream, body, waiter);
    }

    /// Proposes a command and waits. `None`: the group stopped; nobody knows what became of it.
    pub async fn propose<T: serde::Serialize>(
        &self,
        kind: Kind,
        stream: StreamId,
        body: &T,
    ) -> Option<Reply> {
        self.inbox.call(kind, stream, &encode_cold(body)).await
    }

    /// The same with a body that is encoded already.
    pub async fn propose_encoded(
        &self,
        kind: Kind,
        stream: StreamId,
        body: &[u8],
    ) -> Option<Reply> {
        self.inbox.call(kind, stream, body).await
    }

    /// Makes the driver poll the consumers' leader side soon. From any thread.
    pub fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.inbox.wake();
        }
    }

    pub(super) fn take_woken(&self) -> bool {
        self.woken.swap(false, Ordering::AcqRel)
    }

    /// A stream that is served here.
    #[must_use]
    pub fn stream(&self, id: StreamId) -> Option<Arc<StreamHandle>> {
        self.streams.read().get(&id).cloned()
    }

    pub(super) fn add(&self, stream: &Arc<StreamHandle>) {
        {
            // Looked at under the lock: what is halted from here on finds the stream in the list.
            let mut streams = self.streams.write();
            let is_halted = self.read(|machine| machine.halted().contains_key(&stream.id));
            stream.halted.store(is_halted, Ordering::Release);
            self.has_halted.fetch_or(is_halted, Ordering::AcqRel);
            streams.insert(stream.id, stream.clone());
        }
        self.intake.push(Event::Served { stream: stream.id });
    }

    pub(super) fn remove(&self, id: StreamId) {
        self.streams.write().remove(&id);
    }

    /// Which streams take no more changes; the others do.
    pub(super) fn set_halted(&self, halted: &[StreamId]) {
        self.has_halted.store(!halted.is_empty(), Ordering::Release);
        for (id, stream) in self.streams.read().iter() {
            stream.halted.store(halted.contains(id), Ordering::Release);
        }
    }

    /// Whether messages are refused for want of space.
    pub(super) fn is_refusing(&self) -> bool {
        self.is_refusing.load(Ordering::Acquire)
    }

    /// Says whether messages are refused for want of space.
    pub(super) fn set_refusing(&self, refusing: bool) {
        self.is_refusing.store(refusing, Ordering::Release);
    }

    /// Whether a stream takes no more changes.
    pub(super) fn has_halted(&self) -> bool {
        self.has_halted.load(Ordering::Acquire)
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The group can no longer decide anything: says so once, and refuses what comes.
    pub(super) fn fail(&self, why: &str) {
        if self.failed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.note_unwritten(why);
        tracing::error!(
            "the {} group of JetStream stops serving: {why}",
            self.name()
        );
        self.inbox.close();
    }

    /// The same where its driver is gone: nobody waits for what only that could answer.
    pub(super) fn abandon(&self, why: &str) {
        self.fail(why);
        self.intake.close();
    }

    /// Notes what keeps the last of it from being flushed.
    pub(super) fn note_unwritten(&self, why: &str) {
        self.unwritten.lock().get_or_insert_with(|| why.to_owned());
    }

    /// After its driver has ended: what kept the last of it from being flushed.
    pub(super) fn unwritten(&self) -> Option<String> {
        self.unwritten.lock().clone()
    }

    /// Notes a consumer that is not served any more.
    pub(super) fn set_aside(&self, at: Address, why: String) {
        self.aside.lock().insert(at, why);
    }

    /// Consumers that were not served any more are again, or are gone.
    pub(super) fn set_back(&self, these: &RangeInclusive<Address>) {
        self.aside.lock().retain(|at, _| !these.contains(at));
    }

    /// The first consumer that is not served any more.
    pub(super) fn first_aside(&self) -> Option<String> {
        self.aside.lock().values().next().cloned()
    }

    /// Whether it has stopped because of a failure.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}

/// One stream as this server serves it. It subscribes to the stream's subjects: a publish goes straight to the inbox.
pub struct StreamHandle {
    id: StreamId,
    name: Box<str>,
    account: Arc<Account>,
    group: Arc<GroupHandle>,
    ack_prefix: Box<[u8]>,
    config: RwLock<Arc<StreamConfig>>,
    no_ack: AtomicBool,
    /// A part of it is damaged: it takes no more changes.
    halted: AtomicBool,
    subscriptions: Mutex<Vec<Arc<Subscription>>>,
}

impl StreamHandle {
    pub(super) fn new(
        id: StreamId,
        account: Arc<Account>,
        group: Arc<GroupHandle>,
        config: StreamConfig,
        domain: Option<&str>,
    ) -> Arc<Self> {
        let name = config.name.clone();
        let quoted = serde_json::Value::from(name.as_str());
        let prefix = match domain {
            Some(domain) => {
                let domain = serde_json::Value::from(domain);
                format!("{{\"stream\":{quoted},\"domain\":{domain},\"seq\":")
            }
            None => format!("{{\"stream\":{quoted},\"seq\":"),
        };
        Arc::new(Self {
            id,
            name: name.into(),
            account,
            group,
            ack_prefix: prefix.into_bytes().into(),
            no_ack: AtomicBool::new(config.no_ack),
            halted: AtomicBool::new(false),
            config: RwLock::new(Arc::new(config)),
            subscriptions: Mutex::default(),
        })
    }

    /// Its identity in its group.
    #[must_use]
    pub const fn id(&self) -> StreamId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &str {
        &self.name
    }

    /// Its tenant.
    #[must_use]
    pub const fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// The group that holds it.
    #[must_use]
    pub const fn group(&self) -> &Arc<GroupHandle> {
        &self.group
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> Arc<StreamConfig> {
        self.config.read().clone()
    }

    /// Waits until what a client had sent to it by then is stored, or refused: a client finds what it wrote before it asked.
    pub async fn caught_up_with(&self, last_write: WriteNumber) {
        if self.group.inbox.is_behind(last_write) {
            self.group.inbox.caught_up(Some(self.id)).await;
        }
    }

    /// Why it takes no change, if it does not: a part of it is damaged. Nothing is proposed then, so that the refusal holds
    /// also after a repair.
    #[must_use]
    pub fn refusal(&self) -> Option<ApiError> {
        if !self.halted.load(Ordering::Acquire) {
            return None;
        }
        let halts = |machine: &Machine| {
            let halt = machine.halted().get(&self.id)?;
            Some(table::STREAM_STORE_FAILED.with(&halt.damage))
        };
        self.group.read(halts)
    }

    /// Whether nothing can be delivered of it by consumers, who note what they deliver.
    pub(super) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Acquire) || self.group.failed()
    }

    /// Where something acknowledged is or may be missing from it: what is not found there is not said to be absent, and nothing
    /// ends the halt.
    #[must_use]
    pub fn lacks(&self) -> Option<Fault> {
        if !self.halted.load(Ordering::Acquire) {
            return None;
        }
        let lacks = |machine: &Machine| machine.halted().get(&self.id)?.lacks.clone();
        self.group.read(lacks)
    }

    /// The answer of a read that met damage: what cannot be read is there, and never "not found". The log tells each damaged
    /// place once, however often it is asked for.
    pub(super) fn unreadable(&self, fault: &Fault) -> ApiError {
        if self.is_gone(fault) {
            return table::STREAM_NOT_FOUND.error();
        }
        self.tell_unreadable(fault);
        table::STREAM_GENERAL.with(fault)
    }

    /// Whether the stream was deleted since it was asked for, and is not lost to damage.
    fn is_gone(&self, fault: &Fault) -> bool {
        matches!(fault, Fault::NoSuchStream(_)) && self.lacks().is_none()
    }

    /// Tells damage that a read has met, once for each place.
    pub(super) fn tell_unreadable(&self, fault: &Fault) {
        if self.is_gone(fault) {
            return;
        }
        if let Fault::Corrupt { file, offset, .. } = fault {
            let mut told = self.group.told.lock();
            let is_new = told.len() < TOLD_MAX && told.insert((file.clone(), *offset, self.id));
            if !is_new {
                return;
            }
        }
        let look = |machine: &Machine| machine.tell_damage(&machine.store().describe(fault));
        let described = self.group.read(look);
        tracing::error!("stream {}: {described}", self.name);
    }

    pub(super) const fn ack_prefix(&self) -> &[u8] {
        &self.ack_prefix
    }

    /// Listens on the subjects of a configuration, in place of those before.
    pub(super) fn listen(self: &Arc<Self>, config: StreamConfig) {
        self.no_ack.store(config.no_ack, Ordering::Release);
        let mut wanted: BTreeSet<Vec<u8>> = config
            .subjects
            .iter()
            .map(|subject| subject.clone().into_bytes())
            .collect();
        *self.config.write() = Arc::new(config);
        let mut subscriptions = self.subscriptions.lock();
        subscriptions.retain(|subscription| {
            let stays = wanted.remove(subscription.filter());
            if !stays {
                self.account.unsubscribe(subscription);
            }
            stays
        });
        for subject in wanted {
            match self.account.subscribe(&subject, None, self.clone()) {
                Ok(subscription) => subscriptions.push(subscription),
                Err(error) => {
                    let subject = subject.escape_ascii();
                    tracing::error!("stream {}: {subject}: {error}", self.name);
                }
            }
        }
    }

    /// Listens no more.
    pub(super) fn close(&self) {
        for subscription in self.subscriptions.lock().drain(..) {
            self.account.unsubscribe(&subscription);
        }
    }

    fn refuse(&self, message: &Publish<'_>, answer: bool, kind: ErrorKind) {
        self.refuse_with(message, answer, &kind.error());
    }

    fn refuse_with(&self, message: &Publish<'_>, answer: bool, refusal: &ApiError) {
        let Some(reply) = message.reply.filter(|_| answer) else {
            return;
        };
        let mut body = Vec::new();
        put_refusal(&mut body, refusal, &self.name);
        self.account.publish(&Publish::new(reply, &body));
    }
}

impl Sink for StreamHandle {
    fn deliver(&self, _: &Subscription, message: &Publish<'_>) -> Delivered {
        // What a consumer delivers is taken by who listens, not stored again: two streams would go round for ever.
        if !message.origin.is_outside() && message.route != message.subject {
            return Delivered::Refused;
        }
        let answer = !self.no_ack.load(Ordering::Acquire);
        if message
            .reply
            .is_some_and(|reply| reply.ends_with(FAST_BATCH))
        {
            self.refuse(message, answer, table::BATCH_PUBLISH_DISABLED);
            return Delivered::Accepted;
        }
        if let Some(refusal) = self.refusal() {
            self.refuse_with(message, answer, &refusal);
            return Delivered::Accepted;
        }
        if self.group.inbox.publish(self.id, message, answer).is_err() {
            let kind = match self.group.failed() {
                true => table::CLUSTER_NOT_AVAIL,
                false => table::STREAM_TOO_MANY_REQUESTS,
            };
            self.refuse(message, answer, kind);
        }
        Delivered::Accepted
    }
}
