//! Streams that take no more commands while all others do: what makes them so, and what ends it.
//!
//! - *Damage*: a command met bytes that cannot be read. A purge of everything and a delete end it, since the damaged pages go.
//! - *Broken*: a command, or a step or job of the store for this stream, panicked, or the log asks for what no stream can be. Its
//!   state in memory is half changed, and only a delete ends it: `halyard_engine::Store::discard_stream` looks at nothing of it.
//!   The entry that panicked is in the log, so each start ends here again, until the stream is deleted or the program mended.
//!
//! While any stream is halted nothing is flushed (docs/decisions/damaged-stream.md).

use halyard_engine::{Damage, Erase, StreamId, Timestamp};
use halyard_runtime::contain::contain;

use super::command::Command;
use super::machine::{Machine, Reply};
use super::records::keys_of;
use crate::jetstream::api::errors::table;
use crate::jetstream::config::StreamConfig;
use crate::jetstream::consumer;
use crate::jetstream::stream::machine::{Fault, Stream};

/// Why a stream takes no more commands.
#[derive(Debug, Clone)]
pub struct Halt {
    /// The entry whose command met the damage: a good copy of the stream must be of a later state, or the log must be
    /// applied to it again from here on.
    pub entry: u64,
    /// Names the file, the place and what it takes with it; or what panicked.
    pub damage: String,
    /// Its state in memory is half changed: only a delete ends it.
    pub is_broken: bool,
    /// Something that was acknowledged is missing from it, and where: what is not found may have been there.
    pub lacks: Option<Fault>,
    /// Messages that it was sent since: each may have been acknowledged in an earlier life, under a sequence of its own.
    skipped: u64,
}

/// What came of something done for one stream.
pub(super) enum Contained<T> {
    /// It was done.
    Done(T),
    /// It would pass a limit of the store, and changed nothing.
    Beyond(Fault),
    /// The stream takes no more commands.
    Halted,
}

impl Machine {
    /// Halts a stream, or one that is not here though it should be, because something acknowledged of it is or may be missing.
    /// Nothing ends that: this machine is only read.
    pub fn halt(&mut self, id: StreamId, lacks: &Fault) {
        let halt = Halt {
            entry: self.applied(),
            damage: lacks.to_string(),
            is_broken: false,
            lacks: Some(lacks.clone()),
            skipped: 1,
        };
        self.halted.insert(id, halt);
        self.forget_deadline(id);
    }

    /// Does something for one stream. Damage that it meets, a contradiction and a panic halt that stream; what fails for all of
    /// them is returned.
    pub(super) fn attempt<T>(
        &mut self,
        id: StreamId,
        run: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<Contained<T>, Fault> {
        let outcome = match contain(|| run(&mut *self)) {
            Ok(outcome) => outcome,
            Err(panic) => {
                self.break_stream(
                    id,
                    &format!("a change stopped half way, which is a bug: {panic}"),
                );
                return Ok(Contained::Halted);
            }
        };
        match outcome {
            Ok(done) => Ok(Contained::Done(done)),
            Err(fault @ Fault::Limit { .. }) => Ok(Contained::Beyond(fault)),
            Err(fault @ Fault::Corrupt { .. }) => {
                self.halt_damaged(id, &fault);
                Ok(Contained::Halted)
            }
            Err(
                fault
                @ (Fault::NoSuchStream(_) | Fault::StreamExists(_) | Fault::OutOfOrder { .. }),
            ) => {
                self.break_stream(
                    id,
                    &format!("it contradicts itself, which is a bug: {fault}"),
                );
                Ok(Contained::Halted)
            }
            Err(fault) => Err(fault),
        }
    }

    fn halt_damaged(&mut self, id: StreamId, fault: &Fault) {
        let damage = self.tell_damage(&self.store.describe(fault));
        tracing::error!("stream {} takes no more changes: {damage}", self.title(id));
        let halt = Halt {
            entry: self.applied(),
            damage,
            is_broken: false,
            lacks: None,
            skipped: 1,
        };
        self.halted.entry(id).or_insert(halt);
        self.forget_deadline(id);
    }

    /// The stream's state in memory is not to be believed from here on.
    pub(super) fn break_stream(&mut self, id: StreamId, what: &str) {
        self.store.break_stream(id, what);
        self.recount();
        self.forget_deadline(id);
        if self.halted.get(&id).is_some_and(|halt| halt.is_broken) {
            return;
        }
        let damage = format!("{what}; deleting the stream ends this");
        tracing::error!("stream {} takes no more changes: {damage}", self.title(id));
        let halt = Halt {
            entry: self.applied(),
            damage,
            is_broken: true,
            lacks: None,
            skipped: 0,
        };
        self.halted.insert(id, halt);
    }

    /// Halts the streams that a step or a job of the store broke.
    pub(super) fn note_broken(&mut self) {
        let halted = &self.halted;
        let is_new = |id: &StreamId| halted.get(id).is_none_or(|halt| !halt.is_broken);
        let broken = self.store.broken().filter(|(id, _)| is_new(id));
        let broken: Vec<_> = broken.map(|(id, what)| (id, what.to_owned())).collect();
        for (id, what) in broken {
            self.break_stream(id, &format!("it cannot be written, which is a bug: {what}"));
        }
    }

    /// For people: which stream it is, and why it is halted.
    #[must_use]
    pub fn tell_halt(&self, id: StreamId, halt: &Halt) -> String {
        format!(
            "stream {} takes no changes: {}",
            self.title(id),
            halt.damage
        )
    }

    /// For people: a damaged place, and what it takes of which streams.
    #[must_use]
    pub fn tell_damage(&self, damage: &Damage) -> String {
        damage.tell(&|id| self.title(id))
    }

    /// Serves a stream of which only the store knows, with the configuration that it is said to have: what its own records say
    /// cannot be read. For a machine that is only read.
    pub fn adopt(&mut self, id: StreamId, config: StreamConfig, created: Timestamp) {
        if self.store.has_stream(id) {
            let stream = self.streams.entry(id);
            stream.or_insert_with(|| Stream::new(id, config, created));
        }
    }

    /// Its name, for people.
    fn title(&self, id: StreamId) -> String {
        let known = self.streams.get(&id);
        known.map_or_else(|| id.0.to_string(), |stream| stream.config().name.clone())
    }

    /// Runs a command, unless its stream is halted; what goes wrong with one stream halts that one.
    pub(super) fn run_contained(
        &mut self,
        command: Command,
        effects: &mut Vec<(StreamId, consumer::Effect)>,
    ) -> Result<Reply, Fault> {
        let Some(id) = command.stream() else {
            return self.run(command, effects);
        };
        // What reads nothing of the stream still goes, and where everything goes, the damage does too.
        let (reads, removes_all) = match &command {
            Command::StreamDelete(..) => (false, true),
            Command::Purge(_, purge) => (!purge.is_whole(), purge.is_whole()),
            Command::StreamCreate(..) | Command::StreamUpdate(..) => (false, false),
            _ => (true, false),
        };
        // A configuration stands, though the messages cannot be made to fit it.
        let otherwise = match &command {
            Command::StreamCreate(..) | Command::StreamUpdate(..) => Reply::Done,
            _ => Reply::Unknown,
        };
        let deletes = match &command {
            Command::StreamDelete(_, account) => Some(account.clone()),
            _ => None,
        };
        if let Some(halt) = self.halted.get_mut(&id)
            && (reads || halt.is_broken)
        {
            if let Some(account) = deletes {
                return self.drop_broken(id, &account, effects);
            }
            halt.skipped += u64::from(matches!(command, Command::Publish(_)));
            return Ok(otherwise);
        }
        let told = effects.len();
        let reply = match self.attempt(id, |machine| machine.run(command, effects))? {
            Contained::Done(reply) => reply,
            Contained::Beyond(limit) => {
                let refusal = table::STREAM_STORE_FAILED.with(limit);
                return Ok(Reply::Refused(refusal.into()));
            }
            Contained::Halted => {
                let is_broken = self.halted.get(&id).is_some_and(|halt| halt.is_broken);
                if is_broken {
                    effects.truncate(told);
                }
                return match deletes.filter(|_| is_broken) {
                    Some(account) => self.drop_broken(id, &account, effects),
                    None => Ok(otherwise),
                };
            }
        };
        if removes_all
            && matches!(reply, Reply::Done | Reply::Removed(_))
            && let Some(halt) = self.halted.remove(&id)
            && self.store.has_stream(id)
        {
            // No sequence is given twice.
            self.attempt(id, |machine| machine.store.skip(id, halt.skipped))?;
        }
        Ok(reply)
    }

    /// Drops a broken stream without a look at what it is.
    fn drop_broken(
        &mut self,
        id: StreamId,
        account: &[u8],
        effects: &mut Vec<(StreamId, consumer::Effect)>,
    ) -> Result<Reply, Fault> {
        let dropped = contain(|| self.try_drop_broken(id, account));
        match dropped {
            Ok(dropped) => dropped?,
            Err(panic) => {
                tracing::error!("stream {} cannot be deleted: {panic}", self.title(id));
                return Ok(Reply::Unknown);
            }
        }
        self.halted.remove(&id);
        self.recount();
        effects.push((id, consumer::Effect::StreamDeleted));
        Ok(Reply::Done)
    }

    fn try_drop_broken(&mut self, id: StreamId, account: &[u8]) -> Result<(), Fault> {
        self.forget_deadline(id);
        self.ask_erasure(id)?;
        if let Some(stream) = self.streams.remove(&id)
            && self.erasures.pending_in(id)
        {
            let account = String::from_utf8_lossy(account);
            self.erasures.dropped(id, &account, &stream.config().name);
        }
        self.remove_records(id)?;
        let keys = keys_of(id);
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        self.store.discard_stream(id, Erase::Yes, &keys)
    }
}
