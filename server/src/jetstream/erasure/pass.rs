//! When to erase, and what comes after what. Pure: it is shown how things stand and says what to do.
//!
//! All requests that come while one waits share a pass over the node. It begins late enough that many share it, and early
//! enough that it ends within the bound. What a pass does, each step only when the one before is seen to be done:
//!
//! ```text
//! log      the node's log moves on to a fresh segment; the older ones go, overwritten, when nobody needs them
//! flush    every group whose entries are in those segments writes them to its store; the meta group too
//! rewrite  segments of the stores that hold what was erased are written anew, the old files overwritten and removed
//! confirm  when the log is gone too: the replica's entry in each group's log that it is done
//! ```
//!
//! A pass that a crash ends leaves no trace but requests that are not confirmed: the next life begins with a pass.

use halyard_engine::ErasureProgress;
use halyard_runtime::time::{Duration, Instant};

/// How things stand in one data group.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// Entry of the last request that this replica is not done with.
    pub asked: Option<u64>,
    /// The last entry that was applied.
    pub applied: u64,
    /// The last entry that the store's manifest covers.
    pub durable: u64,
    /// Number of the store's last flush.
    pub flushes: u64,
    /// What is left of everything that was erased before the flush that [`Eraser::flush_of`] names.
    pub left: ErasureProgress,
    /// The group has stopped serving: nothing can be done in it.
    pub has_failed: bool,
}

/// How things stand on the node. Of the log: as of the last [`Action::RetireLog`].
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// The data groups, always in the same order.
    pub groups: Vec<Look>,
    /// The data groups that keep the log from going, and up to which entry each must be flushed.
    pub holders: Vec<(usize, u64)>,
    /// The meta group is one, too.
    pub holds_meta: bool,
    /// The log is gone.
    pub is_log_retired: bool,
}

/// What is to be done. Asking for the same again does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Let the node's log go as it is now.
    RetireLog,
    /// Flush the meta group.
    FlushMeta,
    /// Flush a data group, up to this entry at least.
    Flush(usize, u64),
    /// Rewrite what holds anything that was erased before this flush, and overwrite the files that are freed.
    Rewrite(usize, u64),
    /// Commit that this replica is done with everything up to this entry.
    Confirm(usize, u64),
}

/// What is being done about the requests of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// Nothing: there are none.
    #[default]
    None,
    /// They wait for others to share a pass.
    Waiting,
    /// What was deleted is being made durable as deleted.
    Flush,
    /// Segments are rewritten.
    Segments,
    /// Freed files are overwritten.
    Files,
    /// The node's log is let go.
    Log,
}

impl Stage {
    /// The wire's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Waiting => "waiting",
            Self::Flush => "flush",
            Self::Segments => "segments",
            Self::Files => "files",
            Self::Log => "log",
        }
    }
}

/// What a pass wants of one group.
#[derive(Debug, Clone, Copy)]
struct Target {
    /// Everything that was asked for up to this entry.
    up_to: u64,
    /// The first flush seen durable that covers it.
    flush: Option<u64>,
}

#[derive(Debug)]
struct Pass {
    began: Instant,
    /// One for each group; `None`: nothing was asked for there.
    targets: Vec<Option<Target>>,
}

#[derive(Debug)]
enum State {
    Idle,
    Waiting { due: Instant },
    Running(Pass),
}

/// Decides when a pass runs and drives it. One for each node.
#[derive(Debug)]
pub struct Eraser {
    within: Duration,
    state: State,
    /// How long the last pass took.
    took: Duration,
    /// From when the bound counts for requests that are found next; `None`: from when they are found.
    since: Option<Instant>,
    /// Requests that are found next come from an earlier life: their time is up.
    hurries: bool,
    passes: u64,
}

impl Eraser {
    /// One that erases within `within` of the request.
    #[must_use]
    pub const fn new(within: Duration) -> Self {
        Self {
            within,
            state: State::Idle,
            took: Duration::ZERO,
            since: None,
            hurries: true,
            passes: 0,
        }
    }

    /// Passes that have ended.
    #[must_use]
    pub const fn passes(&self) -> u64 {
        self.passes
    }

    /// How long the last one took.
    #[must_use]
    pub const fn took(&self) -> Duration {
        self.took
    }

    /// The flush before which everything must be gone from a group's store, as far as it is known.
    #[must_use]
    pub fn flush_of(&self, group: usize) -> Option<u64> {
        self.target(group)?.flush
    }

    fn target(&self, group: usize) -> Option<Target> {
        match &self.state {
            State::Running(pass) => pass.targets.get(group).copied().flatten(),
            _ => None,
        }
    }

    /// How long nothing is due; `None`: until a request comes.
    #[must_use]
    pub fn sleeps(&self, now: Instant, poll: Duration) -> Option<Duration> {
        match &self.state {
            // A pass has just ended: what came meanwhile is looked for at once.
            State::Idle => self.since.map(|_| poll),
            State::Waiting { due } => Some(due.saturating_duration_since(now)),
            State::Running(_) => Some(poll),
        }
    }

    /// What is being done about a group's requests.
    #[must_use]
    pub fn stage(&self, group: usize, look: &Look) -> Stage {
        match self.target(group) {
            _ if look.asked.is_none() => Stage::None,
            None => Stage::Waiting,
            Some(Target { flush: None, .. }) => Stage::Flush,
            Some(_) if look.left.segments > 0 => Stage::Segments,
            Some(_) if look.left.files > 0 => Stage::Files,
            Some(_) => Stage::Log,
        }
    }

    /// What to do now.
    pub fn step(&mut self, now: Instant, sight: &Sight) -> Vec<Action> {
        if let State::Running(pass) = &mut self.state {
            let mut actions = pass.go_on(sight);
            if pass.is_over(sight) {
                let done = pass.done(sight);
                // What came meanwhile is younger than the pass; what could not be done is tried again later.
                let all = done.len() == pass.targets.iter().flatten().count();
                self.since = Some(if all { pass.began } else { now });
                self.took = now.saturating_duration_since(pass.began);
                self.passes += 1;
                self.state = State::Idle;
                actions.extend(done);
            }
            return actions;
        }
        let is_open = |look: &Look| look.asked.is_some() && !look.has_failed;
        if !sight.groups.iter().any(is_open) {
            (self.state, self.since) = (State::Idle, None);
            return Vec::new();
        }
        if matches!(self.state, State::Idle) {
            let since = self.since.take().unwrap_or(now);
            let slack = self.within.saturating_sub(self.lead());
            let due = if self.hurries { now } else { since + slack };
            self.state = State::Waiting { due };
        }
        if let State::Waiting { due } = self.state
            && due <= now
        {
            let target = |look: &Look| {
                is_open(look).then_some(Target {
                    up_to: look.applied,
                    flush: None,
                })
            };
            let targets = sight.groups.iter().map(target).collect();
            self.state = State::Running(Pass {
                began: now,
                targets,
            });
            return vec![Action::RetireLog];
        }
        Vec::new()
    }

    /// Requests that come from now on are of this life.
    pub const fn is_up(&mut self) {
        self.hurries = false;
    }

    /// How long before the bound a pass begins.
    fn lead(&self) -> Duration {
        (self.within / 2).max(self.took * 2)
    }
}

impl Pass {
    fn go_on(&mut self, sight: &Sight) -> Vec<Action> {
        let mut actions = Vec::new();
        if sight.holds_meta {
            actions.push(Action::FlushMeta);
        }
        for (group, (look, target)) in sight.groups.iter().zip(&mut self.targets).enumerate() {
            let held = sight.holders.iter().filter(|(holder, _)| *holder == group);
            let held = held.map(|(_, entry)| *entry).max().unwrap_or(0);
            // The log may also have entries without a payload at its end, which no store hears of: one that waited for their
            // flush would wait until somebody else writes something.
            let wanted = held
                .max(target.map_or(0, |target| target.up_to))
                .min(look.applied);
            if wanted > look.durable {
                actions.push(Action::Flush(group, wanted));
            }
            let Some(target) = target else { continue };
            if target.flush.is_none() && look.durable >= target.up_to {
                target.flush = Some(look.flushes);
            }
            if let Some(flush) = target.flush {
                actions.push(Action::Rewrite(group, flush));
            }
        }
        actions
    }

    /// Nothing more can be done.
    fn is_over(&self, sight: &Sight) -> bool {
        let targets = sight.groups.iter().zip(&self.targets);
        let mut targets = targets.filter_map(|(look, target)| Some((look, (*target)?)));
        let over = targets.all(|(look, target)| {
            let left = look.left;
            // What is damaged cannot be rewritten.
            let stuck = left.files == 0 && left.segments == left.damaged;
            look.has_failed || (target.flush.is_some() && stuck)
        });
        over && sight.is_log_retired
    }

    /// What may be confirmed once it is over. What `left` says is only of use when the flush was known by then.
    fn done(&self, sight: &Sight) -> Vec<Action> {
        let targets = sight.groups.iter().zip(&self.targets).enumerate();
        let done = targets.filter_map(|(group, (look, target))| {
            let target = target.filter(|_| !look.has_failed && look.left.is_done())?;
            Some(Action::Confirm(group, target.up_to))
        });
        done.collect()
    }
}

#[cfg(test)]
#[path = "pass_test.rs"]
mod tests;
