//! Where the group's driver meets the desk: the group as the desk's host, its clock as the desk's.

use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};

use halyard_engine::StreamId;
use halyard_runtime::time::{Instant, Timestamp};

use super::Token;
use super::desk::{Desk, Host, View};
use super::directory::{Directories, Directory};
use super::intake::Address;
use crate::jetstream::advisory;
use crate::jetstream::api::errors::table;
use crate::jetstream::consumer::effect::{Abandoned, Effect};
use crate::jetstream::consumer::set;
use crate::jetstream::group::Reply;
use crate::jetstream::group::command::Kind;
use crate::jetstream::handle::GroupHandle;
use crate::jetstream::inbox::Waiter;
use crate::jetstream::service::JetStream;

/// The leader side of one group, owned by its driver.
pub struct Leader {
    desk: Desk,
    group: Seat,
}

struct Seat {
    group: Arc<GroupHandle>,
    domain: Option<String>,
    service: Weak<JetStream>,
    directories: Arc<Directories>,
}

impl Leader {
    /// The leader side of `group`.
    #[must_use]
    pub fn new(service: &Arc<JetStream>, group: &Arc<GroupHandle>) -> Self {
        let directories = Arc::clone(service.directories());
        Self {
            desk: Desk::new(
                Arc::clone(group.intake()),
                service.domain().map(str::to_owned),
            ),
            group: Seat {
                group: Arc::clone(group),
                domain: service.domain().map(str::to_owned),
                service: Arc::downgrade(service),
                directories,
            },
        }
    }

    /// Does what is to do; when to be called again at the latest.
    pub fn poll(&mut self, now: Timestamp) -> Option<Timestamp> {
        let clock = Instant::now();
        let due = self.desk.poll(clock, &self.group)?;
        Some(now + due.saturating_duration_since(clock))
    }

    /// A stream, or every one, takes no changes any more.
    pub fn halted(&mut self, stream: Option<StreamId>) {
        self.desk.halted(stream);
    }

    /// Publishes begin to be refused for want of space.
    pub fn out_of_storage(&self) {
        if let Some(service) = self.group.service.upgrade() {
            service.advise_out_of_storage();
        }
    }

    /// Serves a few of those for whom there may be something now; [`Leader::poll`] serves the others.
    pub fn serve_some(&mut self) {
        self.desk.serve_some(Instant::now(), &self.group);
    }

    /// A command of its own was applied.
    pub fn applied(&mut self, token: Token, reply: Reply) {
        let reply = match reply {
            Reply::Consumer(reply) => reply,
            Reply::Refused(refusal) => set::Reply::Refused(*refusal),
            // The group or the stream stopped at or before it: nobody may be told that it was done.
            Reply::Unknown => {
                set::Reply::Refused(table::STREAM_STORE_FAILED.with("the outcome is not known"))
            }
            // The stream is gone; its consumers hear of it by its effect.
            _ => set::Reply::Done,
        };
        self.desk.applied(token, reply, Instant::now());
    }

    /// Entries were lost sight of: what was proposed may or may not come.
    pub fn lost(&mut self) {
        self.desk.lost();
    }

    /// A stream has new messages.
    pub fn stored(&mut self, stream: StreamId) {
        self.desk.stored(stream);
    }

    /// What the machine did besides answering.
    pub fn effects(&mut self, effects: &[(StreamId, Effect)]) {
        let now = Instant::now();
        for (stream, effect) in effects {
            if let Effect::BatchAbandoned { batch, why } = effect {
                self.group.advise_abandoned(*stream, batch, *why);
            }
            self.desk.effect(*stream, effect, now, &self.group);
        }
    }
}

impl Seat {
    fn advise_abandoned(&self, stream: StreamId, batch: &[u8], why: Abandoned) {
        // A stream that is being deleted has no name any more.
        if let Some(handle) = self.group.stream(stream) {
            let account = handle.account();
            advisory::batch_abandoned(account, self.domain.as_deref(), handle.name(), batch, why);
        }
    }
}

impl Host for Seat {
    fn submit(&self, stream: StreamId, body: &[u8], token: Token) {
        self.group
            .submit(Kind::Consumer, stream, body, Waiter::Consumer(token));
    }

    fn look(&self, stream: StreamId, look: &mut dyn FnMut(View<'_>)) {
        if self.group.failed() {
            // Nothing is logged any more.
            return;
        }
        self.group.read(|machine| {
            // A halted stream grants nothing: asking it again and again would only fill the log.
            let is_halted = machine.halted().contains_key(&stream);
            let Some(found) = machine.stream(stream).filter(|_| !is_halted) else {
                return;
            };
            look(View {
                consumers: found.consumers(),
                config: found.config(),
                store: machine.store(),
            });
        });
    }

    fn set_aside(&self, at: Address, why: String) {
        tracing::error!("the {} group: {why}", self.group.name());
        self.group.set_aside(at, why);
    }

    fn set_back(&self, these: RangeInclusive<Address>) {
        self.group.set_back(&these);
    }

    fn stream(&self, stream: StreamId) -> Option<(String, Arc<Directory>)> {
        let handle = self.group.stream(stream)?;
        Some((
            handle.name().to_owned(),
            self.directories.of(handle.account())?,
        ))
    }
}
