//! Erasure: the bytes of what was deleted vanish from every file of this server, within a bound, whatever happens.
//!
//! What was asked for is replicated state ([`group::erasures`](super::group::erasures)). [`pass`] decides what is done
//! about it and when; the task here looks, and passes the orders on: to the drivers of the data groups ([`orders`]), to the
//! node's log, to the meta group. Memory streams are not its business: what they free is gone.

pub mod orders;
pub mod pass;

use std::sync::{Arc, Weak};

use halyard_engine::StreamId;
use halyard_raft::{GroupId, LogPosition};
use halyard_runtime::time::{self, Duration, Instant};
use parking_lot::Mutex;

use self::orders::Bell;
use self::pass::{Action, Eraser, Look, Sight, Stage};
use super::group::command::{Erased, Kind};
use super::handle::GroupHandle;
use super::service::JetStream;
use super::start::{META, flush_meta_now};

/// How often a pass looks whether its steps are done.
const POLL: Duration = Duration::from_millis(20);

/// What is being done, for those who ask.
#[derive(Debug, Clone, Copy, Default)]
pub struct Status {
    /// Stage of the data group's requests.
    pub stage: Stage,
    /// Segments that still hold something.
    pub segments: usize,
    /// Of these, damaged ones, which cannot be rewritten.
    pub damaged: usize,
    /// Freed files to overwrite.
    pub files: usize,
    /// Passes since the server started.
    pub passes: u64,
    /// How long the last one took.
    pub last_pass: Duration,
}

/// The erasure of one server: what others see of it.
#[derive(Debug, Default)]
pub struct Erasure {
    /// Rung when there is something to erase.
    pub bell: Arc<Bell>,
    status: Mutex<Status>,
}

impl Erasure {
    /// What is being done.
    #[must_use]
    pub fn status(&self) -> Status {
        *self.status.lock()
    }
}

/// How often a pass that lasts is told of.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Erases until the service is gone.
pub(super) async fn run(service: Weak<JetStream>) {
    let (mut eraser, mut position) = {
        let Some(service) = service.upgrade() else {
            return;
        };
        let within = service.settings().erase_within;
        (Eraser::new(within), LogPosition::default())
    };
    let mut told = Instant::now();
    loop {
        let (bell, sleeps) = {
            let Some(service) = service.upgrade() else {
                return;
            };
            turn(&service, &mut eraser, &mut position).await;
            tell_progress(&service.erasure().status(), &mut told);
            let bell = service.erasure().bell.clone();
            (bell, eraser.sleeps(Instant::now(), POLL))
        };
        match sleeps {
            None => bell.heard().await,
            // A request that comes meanwhile changes nothing.
            Some(sleeps) => time::sleep(sleeps).await,
        }
    }
}

/// Says how far a pass is, if it lasts.
fn tell_progress(status: &Status, told: &mut Instant) {
    if matches!(status.stage, Stage::None | Stage::Waiting) {
        *told = Instant::now();
    } else if told.elapsed() >= TELL_EVERY {
        *told = Instant::now();
        let (stage, segments, files) = (status.stage.name(), status.segments, status.files);
        tracing::info!(
            "Erasure: at stage \"{stage}\", {segments} segments and {files} freed files are left"
        );
    }
}

/// One look and what follows from it.
async fn turn(service: &Arc<JetStream>, eraser: &mut Eraser, position: &mut LogPosition) {
    let file = &service.file;
    let sight = look(service, eraser, *position);
    let actions = eraser.step(Instant::now(), &sight);
    eraser.is_up();
    publish(service, eraser, &sight);
    for action in actions {
        match action {
            Action::RetireLog => {
                if let Some(node) = service.node() {
                    *position = node.retire_log();
                }
            }
            Action::FlushMeta => flush_meta_now(service).await,
            Action::Flush(_, entry) => {
                file.orders().flush(entry);
                file.wake();
            }
            Action::Rewrite(_, flush) => {
                if !file.read(|machine| machine.store().erasure_up_to(flush).is_done()) {
                    file.orders().rewrite(flush);
                    file.wake();
                }
            }
            Action::Confirm(_, up_to) => confirm(file, up_to).await,
        }
    }
    // What an entry has just confirmed is to be seen at once.
    let sight = look(service, eraser, *position);
    publish(service, eraser, &sight);
}

fn look(service: &JetStream, eraser: &Eraser, position: LogPosition) -> Sight {
    let file = &service.file;
    let flush = eraser.flush_of(0);
    let is_poisoned = service.node().is_some_and(|node| node.poisoned().is_some());
    let me = file.raft().me().0;
    let look = file.read(|machine| {
        let store = machine.store();
        Look {
            asked: machine.erasures().pending(me),
            applied: machine.applied(),
            durable: store.applied(),
            flushes: store.flushes(),
            left: store.erasure_up_to(flush.unwrap_or(u64::MAX)),
            has_failed: file.failed() || is_poisoned,
        }
    });
    let mut sight = Sight {
        groups: vec![look],
        ..Sight::default()
    };
    let Some(node) = service.node() else {
        return sight;
    };
    sight.is_log_retired =
        node.log_retired() >= position || halyard_runtime::planted("erasure-forgets-log");
    if !sight.is_log_retired {
        for (group, entry) in node.log_holders(position) {
            match group {
                META => sight.holds_meta = true,
                group if group == file.id() => {
                    // The log may have missed the end of a flush that came with the entry.
                    file.raft().flushed(look.durable);
                    sight.holders.push((0, entry));
                }
                GroupId(other) => tracing::debug!("group {other} keeps the log from going"),
            }
        }
    }
    sight
}

fn publish(service: &JetStream, eraser: &Eraser, sight: &Sight) {
    let look = sight.groups.first().copied().unwrap_or_default();
    *service.erasure().status.lock() = Status {
        stage: eraser.stage(0, &look),
        segments: look.left.segments,
        damaged: look.left.damaged,
        files: look.left.files,
        passes: eraser.passes(),
        last_pass: eraser.took(),
    };
}

async fn confirm(group: &GroupHandle, up_to: u64) {
    let me = group.raft().me().0;
    let erased = Erased {
        node: me,
        up_to,
        replicas: vec![me],
    };
    // No answer: the group has stopped. It is confirmed in the next life, after another look at everything.
    if group
        .propose(Kind::Erased, StreamId(0), &erased)
        .await
        .is_some()
    {
        tracing::info!(
            "Erasure: everything that was deleted in the {} group up to entry {up_to} is gone from every file",
            group.name()
        );
    }
}
