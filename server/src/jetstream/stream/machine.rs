//! The state of one stream, and the commands that change it as a whole.
//!
//! Its messages and their counters are in the group's store; what the store does not know is here: the configuration,
//! remembered message ids, the consumers. An engine error is a [`Fault`]: the machine above stops for good, since one
//! replica alone must not decide differently.

use halyard_engine::{Erase, Filters, Store, StreamId, StreamState};
use halyard_runtime::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::batch::Batches;
use super::dedupe::{Dedupe, Record};
use super::message_id::{HASH_BYTES, LastId, MessageId};
use super::sweep::Sweep;
use crate::jetstream::api::errors::{ApiError, table};
use crate::jetstream::config::{Retention, StreamConfig};
use crate::jetstream::consumer::{self, Consumers, StoreMessages};
use crate::jetstream::group::command::{MessageDelete, Purge};
use crate::jetstream::limits::SEQUENCE_ASKED_MAX;
use crate::jetstream::plain;

/// Why a command changed nothing, for the one who sent it.
pub type Refusal = Box<ApiError>;

/// The store failed; nothing that it decided may be believed.
pub type Fault = halyard_engine::Error;

/// A refusal, or the end of the machine.
pub type Outcome<T> = Result<Result<T, Refusal>, Fault>;

/// What a command may touch beside its stream.
pub struct Turn<'a> {
    /// The group's store.
    pub store: &'a mut Store,
    /// Committed time: the leader's, never going back.
    pub now: Timestamp,
    /// What the leader's driver should do besides answering.
    pub effects: &'a mut Vec<(StreamId, consumer::Effect)>,
    /// Set when messages were removed whose bytes must vanish.
    pub erased: bool,
    /// What all streams of the group had together when the command began.
    pub group: Held,
}

/// What streams hold, and how much that may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes of their messages.
    pub bytes: u64,
    /// Where publishes are refused: beyond so many bytes; `None` is never.
    pub bytes_max: Option<u64>,
    /// Atomic batches that are open.
    pub batches: usize,
}

impl Held {
    /// Whether nothing may be stored any more, once so many bytes more are there.
    #[must_use]
    pub fn is_full_with(&self, more: u64) -> bool {
        self.bytes_max
            .is_some_and(|max| self.bytes.saturating_add(more) > max)
    }
}

/// One stream.
pub struct Stream {
    pub(super) id: StreamId,
    pub(super) config: StreamConfig,
    pub(super) created: Timestamp,
    pub(super) dedupe: Dedupe,
    pub(super) last_msg_id: LastId,
    pub(super) consumers: Consumers,
    pub(super) batches: Batches,
    /// Where the search for messages that nobody needs goes on; see `sweep`.
    pub(super) sweeping: Option<Sweep>,
    dirty: bool,
    /// Kept by the group: the cut before which its records must be written.
    unsaved_since: u64,
}

/// What of a stream outlives the process in one record; the rest has records of its own.
#[derive(Serialize, Deserialize)]
struct Saved {
    config: Vec<u8>,
    created: i64,
    /// Empty. Stores of before held the id of the last message in the clear, and nothing after it.
    last_msg_id: Vec<u8>,
}

/// What stands behind it in the record.
#[derive(Serialize, Deserialize)]
struct SavedMore {
    last_msg_id: Option<[u8; HASH_BYTES]>,
}

/// And behind that, in stores of later.
#[derive(Serialize, Deserialize)]
struct SavedSweep {
    sweeping: Option<Sweep>,
}

impl Stream {
    /// A new stream; the store must know its id.
    #[must_use]
    pub fn new(id: StreamId, config: StreamConfig, created: Timestamp) -> Self {
        Self {
            dedupe: Dedupe::new(config.duplicate_window),
            consumers: Consumers::default(),
            batches: Batches::default(),
            last_msg_id: LastId::default(),
            sweeping: None,
            dirty: true,
            unsaved_since: 0,
            id,
            config,
            created,
        }
    }

    /// Its identity in the group.
    #[must_use]
    pub const fn id(&self) -> StreamId {
        self.id
    }

    /// Its configuration.
    #[must_use]
    pub const fn config(&self) -> &StreamConfig {
        &self.config
    }

    /// When it was asked for.
    #[must_use]
    pub const fn created(&self) -> Timestamp {
        self.created
    }

    /// Its consumers.
    #[must_use]
    pub const fn consumers(&self) -> &Consumers {
        &self.consumers
    }

    /// Message ids that are remembered.
    #[must_use]
    pub fn remembered_ids(&self) -> usize {
        self.dedupe.len()
    }

    /// Takes a new configuration, whose legality the meta group has decided, and makes the messages fit.
    ///
    /// # Errors
    /// The store failed.
    pub fn update(&mut self, turn: &mut Turn<'_>, config: StreamConfig) -> Result<(), Fault> {
        self.dedupe.set_window(config.duplicate_window);
        let before = std::mem::replace(&mut self.config, config).retention;
        self.dirty = true;
        self.fit(turn)?;
        match self.config.retention == before {
            true => Ok(()),
            false => self.begin_sweep(turn, false),
        }
    }

    /// Removes messages by filter, sequence and number; how many.
    ///
    /// # Errors
    /// The store failed.
    pub fn purge(&mut self, turn: &mut Turn<'_>, purge: &Purge) -> Outcome<u64> {
        if self.config.sealed {
            return Ok(Err(table::STREAM_SEALED.error().into()));
        }
        if self.config.deny_purge {
            let refusal = table::STREAM_PURGE_FAILED.with("stream purge not permitted");
            return Ok(Err(refusal.into()));
        }
        let Some(filters) = filters(&purge.filter) else {
            // What is no filter matches nothing.
            return Ok(Ok(0));
        };
        let whole = filters.is_everything();
        let asked = halyard_engine::Purge {
            filters,
            below: (purge.below > 0).then_some(purge.below),
            keep: (purge.keep > 0).then_some(purge.keep),
        };
        // A batch that nobody goes on with is of the past, too.
        self.batches.forget_idle(self.id, turn.now, turn.effects);
        let removed = turn.store.purge(self.id, &asked, Erase::Yes)?;
        turn.erased |= removed > 0;
        // A purge up to a sequence that is still to come is a promise: the next message has that one.
        let given_out = purge.below.saturating_sub(1);
        let ahead = given_out.saturating_sub(turn.store.last_seq(self.id));
        if whole && ahead > 0 && purge.below <= SEQUENCE_ASKED_MAX {
            turn.store.skip(self.id, ahead)?;
        }
        if removed > 0 || whole {
            self.removed_many(turn)?;
        }
        Ok(Ok(removed))
    }

    /// Removes one message.
    ///
    /// # Errors
    /// The store failed.
    pub fn delete(&mut self, turn: &mut Turn<'_>, asked: MessageDelete) -> Outcome<()> {
        if self.config.sealed {
            return Ok(Err(table::STREAM_SEALED.error().into()));
        }
        if self.config.deny_delete {
            let refusal = table::STREAM_MSG_DELETE_FAILED.with("message delete not permitted");
            return Ok(Err(refusal.into()));
        }
        let erase = if asked.erase { Erase::Yes } else { Erase::No };
        if turn.store.delete(self.id, asked.seq, erase)? {
            turn.erased |= asked.erase;
            self.removed_one(turn, asked.seq)?;
            return Ok(Ok(()));
        }
        let state = self.state(turn.store)?;
        let failed = |why: &str| table::STREAM_MSG_DELETE_FAILED.with(why);
        // The peer's file store looks for the file first, its memory store for the message at once.
        let refusal = match asked.seq {
            seq if self.config.in_memory() => table::SEQUENCE_NOT_FOUND.with(seq),
            seq if seq > state.last_seq => failed("stream store EOF"),
            seq if seq < state.first_seq => failed("no message found"),
            seq => table::SEQUENCE_NOT_FOUND.with(seq),
        };
        Ok(Err(refusal.into()))
    }

    /// Hands a command to the consumers and removes what they have finished with.
    ///
    /// # Errors
    /// The store failed.
    pub fn consume(&mut self, turn: &mut Turn<'_>, body: &[u8]) -> Result<consumer::Reply, Fault> {
        self.with_consumers(turn, |consumers, ctx| consumers.apply(body, ctx))
    }

    /// Its counters in the store.
    ///
    /// # Errors
    /// The store failed.
    pub fn state(&self, store: &Store) -> Result<StreamState, Fault> {
        store.state(self.id)
    }

    /// Tells the consumers that one message has gone.
    pub(super) fn removed_one(&mut self, turn: &mut Turn<'_>, seq: u64) -> Result<(), Fault> {
        self.with_consumers(turn, |consumers, ctx| consumers.deleted(seq, ctx))
    }

    /// Tells the consumers that messages have gone from the front.
    pub(super) fn removed_front(&mut self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        let first = self.state(turn.store)?.first_seq;
        self.with_consumers(turn, |consumers, ctx| consumers.trimmed(first, ctx))
    }

    /// Tells the consumers that any messages may have gone.
    pub(super) fn removed_many(&mut self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        self.with_consumers(turn, |consumers, ctx| consumers.purged(ctx))
    }

    /// Lets the consumers do something, then removes the messages that they have finished with, where the retention
    /// says so.
    pub(super) fn with_consumers<T>(
        &mut self,
        turn: &mut Turn<'_>,
        run: impl FnOnce(&mut Consumers, &mut consumer::Ctx<'_>) -> T,
    ) -> Result<T, Fault> {
        let (mut removed, mut effects) = (Vec::new(), Vec::new());
        let messages = StoreMessages::new(turn.store, self.id);
        let mut ctx = consumer::Ctx {
            messages: &messages,
            stream: &self.config,
            now: turn.now,
            removed: &mut removed,
            effects: &mut effects,
            narrowed: false,
        };
        let outcome = run(&mut self.consumers, &mut ctx);
        let narrowed = ctx.narrowed;
        if let Some(fault) = messages.error() {
            return Err(fault);
        }
        turn.effects
            .extend(effects.into_iter().map(|effect| (self.id, effect)));
        if self.config.retention != Retention::Limits {
            for seq in removed {
                turn.store.delete(self.id, seq, Erase::No)?;
            }
        }
        if narrowed {
            self.begin_sweep(turn, true)?;
        }
        Ok(outcome)
    }

    /// The cut before which its records must be written; 0 for none.
    pub(in crate::jetstream) const fn unsaved_since(&self) -> u64 {
        self.unsaved_since
    }

    /// Notes before which cut its records must be written.
    pub(in crate::jetstream) const fn set_unsaved_since(&mut self, cut: u64) {
        self.unsaved_since = cut;
    }

    pub(super) const fn touch(&mut self) {
        self.dirty = true;
    }

    /// The stream's own record if it changed since the last call.
    pub(in crate::jetstream) fn take_record(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        let saved = Saved {
            config: plain::json(&self.config),
            created: self.created.as_nanos(),
            last_msg_id: Vec::new(),
        };
        let more = SavedMore {
            last_msg_id: self.last_msg_id.hash().map(|hash| hash.0),
        };
        let sweep = SavedSweep {
            sweeping: self.sweeping,
        };
        Some(plain::record(&(saved, more, sweep)))
    }

    /// The record of open atomic batches if it changed since the last call; empty if there are none.
    pub(in crate::jetstream) fn take_batches(&mut self) -> Option<Vec<u8>> {
        self.batches.take_record()
    }

    /// Takes the record of open atomic batches back; whether it could be read.
    pub(in crate::jetstream) fn load_batches(&mut self, record: &[u8]) -> bool {
        self.batches.load(self.id, record)
    }

    /// What a flush must write of the remembered message ids.
    pub(in crate::jetstream) fn take_ids(&mut self) -> Vec<Record> {
        self.dedupe.take_records()
    }

    /// What a flush must write of the consumers.
    pub(in crate::jetstream) const fn consumers_mut(&mut self) -> &mut Consumers {
        &mut self.consumers
    }

    /// The dedupe table, while records are read back.
    pub(in crate::jetstream) const fn ids_mut(&mut self) -> &mut Dedupe {
        &mut self.dedupe
    }

    /// A stream as its record says. `None`: the record is damaged.
    #[must_use]
    pub(in crate::jetstream) fn load(id: StreamId, record: &[u8]) -> Option<Loaded> {
        let (saved, more) = postcard::take_from_bytes::<Saved>(record).ok()?;
        let config = serde_json::from_slice(&saved.config).ok()?;
        let mut stream = Self::new(id, config, Timestamp::from_nanos(saved.created));
        let is_plain = more.is_empty();
        let hash = if is_plain {
            let plain = Some(saved.last_msg_id).filter(|id| !id.is_empty());
            plain.map(|id| MessageId::of(&id))
        } else {
            let (more, sweep) = postcard::take_from_bytes::<SavedMore>(more).ok()?;
            if !sweep.is_empty() {
                stream.sweeping = postcard::from_bytes::<SavedSweep>(sweep).ok()?.sweeping;
            }
            more.last_msg_id.map(MessageId)
        };
        stream.last_msg_id = LastId::known(hash);
        stream.dirty = is_plain;
        Some(Loaded { stream, is_plain })
    }

    /// Atomic batches that are open.
    #[must_use]
    pub(in crate::jetstream) fn open_batches(&self) -> usize {
        self.batches.len()
    }
}

/// A stream that was read back.
pub(in crate::jetstream) struct Loaded {
    pub(in crate::jetstream) stream: Stream,
    /// Its record may show a message's id: it was written before only hashes were.
    pub(in crate::jetstream) is_plain: bool,
}

/// A set of one filter; the empty text is everything. `None`: not a filter.
fn filters(text: &str) -> Option<Filters> {
    if text.is_empty() {
        return Some(Filters::everything());
    }
    Filters::parse(&[text]).ok()
}
