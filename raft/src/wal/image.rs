//! A group's log in memory: its vote, where it starts, and its entries with their payloads (the very buffers that were
//! written) or, where those were let go or are from before a restart, with the place where they stand on disk.
//!
//! Also the meaning of record bodies:
//!
//! ```text
//!   entry        term u64 | leader u64 | index u64 | committed u64 (end of what was known committed) | payload
//!   vote         vote
//!   truncate     index u64: entries from there on are void
//!   checkpoint   option vote | option log id (the log starts after it) | payload end u64 (index after the last entry up to
//!                that one which had a payload) | stored membership (as of that entry)
//! ```

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use bytes::Bytes;
use halyard_format::codec::{Fields, Malformed, Reader};
use parking_lot::Mutex;

use super::record::{Draft, Head, Kind};
use crate::codec::{self, Decoded};
use crate::entry::{Command, Entry, Payload};
use crate::ids::{GroupId, LogId, NodeId, Vote};
use crate::members::Membership;
use crate::standing::Standing;

/// A group's log; shared by the consensus side of it, the log's writer and recovery.
pub(crate) struct GroupLog {
    pub(crate) id: GroupId,
    pub(crate) state: Mutex<GroupState>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct GroupState {
    pub(crate) vote: Option<Vote>,
    /// The log starts after this entry; everything up to it is in the machine's own store.
    pub(crate) purged: Option<LogId>,
    /// Index after the last entry up to `purged` that had a payload: what the machine's store must hold at least.
    pub(crate) payload_end: u64,
    /// The membership as of `purged`.
    pub(crate) members: Membership,
    /// Newest entry known to be committed.
    pub(crate) committed: Option<LogId>,
    /// While it is being read back: entries up to this one were taken for let go, and no checkpoint has said so yet.
    assumed: Option<u64>,
    /// While it is being read back: where the last checkpoint says that the log starts.
    checkpointed: Option<LogId>,
    entries: VecDeque<Slot>,
}

/// One entry.
pub(crate) struct Slot {
    pub(crate) id: LogId,
    pub(crate) payload: Held,
    /// Where its record stands; 0 until it is written.
    pub(crate) position: u64,
}

/// An entry's payload.
pub(crate) enum Held {
    /// In memory.
    Here(Payload),
    /// On disk only; so many bytes of record body.
    OnDisk(u32),
}

impl GroupState {
    /// Index of the first entry that the log can hold.
    pub(crate) fn start(&self) -> u64 {
        self.purged.map_or(0, |id| id.index + 1)
    }

    /// Index after the last entry.
    pub(crate) fn end(&self) -> u64 {
        self.start() + self.entries.len() as u64
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.entries.back().map(|slot| slot.id).or(self.purged)
    }

    pub(crate) fn slot(&self, index: u64) -> Option<&Slot> {
        let at = usize::try_from(index.checked_sub(self.start())?).ok()?;
        let slot = self.entries.get(at);
        debug_assert!(
            slot.is_none_or(|slot| slot.id.index == index),
            "entries stand in the order of their indexes"
        );
        slot
    }

    pub(crate) fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let at = usize::try_from(index.checked_sub(self.start())?).ok()?;
        self.entries.get_mut(at)
    }

    /// The id of an entry in the log, or of the one that it starts after.
    pub(crate) fn id_at(&self, index: u64) -> Option<LogId> {
        match self.purged {
            Some(id) if id.index == index => Some(id),
            _ => self.slot(index).map(|slot| slot.id),
        }
    }

    /// The entries, if any, whose records stand between two positions: the first and the last.
    pub(crate) fn entries_within(&self, from: u64, until: u64) -> Option<RangeInclusive<u64>> {
        let is_there = |slot: &&Slot| (from..until).contains(&slot.position);
        let first = self.entries.iter().find(is_there)?;
        let last = self.entries.iter().rev().find(is_there)?;
        Some(first.id.index..=last.id.index)
    }

    /// Adds the next entry.
    pub(crate) fn push(&mut self, slot: Slot) {
        assert!(slot.id.index == self.end(), "a log has no holes");
        self.entries.push_back(slot);
    }

    /// Forgets entries from `index` on.
    pub(crate) fn truncate(&mut self, index: u64) {
        let keep = usize::try_from(index.saturating_sub(self.start())).unwrap_or(usize::MAX);
        self.entries.truncate(keep);
        assert!(
            self.end() <= index.max(self.start()),
            "nothing is left of what is void"
        );
    }

    /// Lets the log start after `id`, which may lie beyond its end. Does nothing where it starts later already.
    pub(crate) fn purge(&mut self, id: LogId) {
        if id.index < self.start().saturating_sub(1) {
            return;
        }
        self.members = self.members_at(id.index);
        self.payload_end = self.payload_end_at(id.index);
        let drop =
            usize::try_from((id.index + 1).saturating_sub(self.start())).unwrap_or(usize::MAX);
        self.entries.drain(..drop.min(self.entries.len()));
        self.purged = Some(id);
        assert!(
            self.entries
                .front()
                .is_none_or(|first| first.id.index == self.start()),
            "the log goes on right behind what it starts after"
        );
        assert!(
            self.payload_end <= self.start(),
            "what the machine must hold is not in the log any more"
        );
    }

    /// Lets the log start where a store stands that has got its state otherwise than from this log.
    pub(crate) fn restart_at(&mut self, standing: &Standing) {
        let last = standing.last();
        self.entries.clear();
        (self.purged, self.committed) = (Some(last), Some(last));
        self.payload_end = standing.at.index + 1;
        self.members = standing.membership.clone();
    }

    /// Has the node's name of now where one of its former names decides alone: such a group is its own. A group that has grown
    /// since keeps what others have in their logs, too.
    pub(crate) fn rename(&mut self, former: &[NodeId], now: NodeId) {
        let newest = self.members_at(u64::MAX).members;
        if !former.iter().any(|name| newest.is_alone(*name)) {
            return;
        }
        let mut has_changed = self.members.members.rename(former, now);
        for slot in &mut self.entries {
            if let Held::Here(Payload::Membership(members)) = &mut slot.payload {
                has_changed |= members.rename(former, now);
            }
        }
        if let Some(vote) = self
            .vote
            .as_mut()
            .filter(|vote| has_changed && former.contains(&vote.node))
        {
            vote.node = now;
        }
    }

    /// The membership after entry `index`.
    pub(crate) fn members_at(&self, index: u64) -> Membership {
        let newest = self
            .entries
            .iter()
            .rev()
            .skip_while(|slot| slot.id.index > index)
            .find_map(|slot| match &slot.payload {
                Held::Here(Payload::Membership(members)) => Some(Membership {
                    since: Some(slot.id),
                    members: members.clone(),
                }),
                _ => None,
            });
        newest.unwrap_or_else(|| self.members.clone())
    }

    /// Index after the last entry up to `index` that has a payload for the machine.
    pub(crate) fn payload_end_at(&self, index: u64) -> u64 {
        let with_payload =
            |slot: &&Slot| !matches!(&slot.payload, Held::Here(held) if !has_payload(held));
        let newest = self
            .entries
            .iter()
            .rev()
            .skip_while(|slot| slot.id.index > index)
            .find(with_payload);
        newest.map_or(self.payload_end, |slot| slot.id.index + 1)
    }

    /// The last entry from `index` on, but not after `applied`, before one that has a payload: a machine that holds
    /// `index` durably holds everything up to there.
    pub(crate) fn settled(&self, index: u64, applied: u64) -> u64 {
        let empty = |at: &u64| {
            self.slot(*at)
                .is_some_and(|slot| matches!(&slot.payload, Held::Here(held) if !has_payload(held)))
        };
        let settled = (index + 1..=applied).take_while(empty).last();
        settled.unwrap_or(index)
    }

    /// The newest committed entry as far as this log can vouch for it: never ahead of the log, or consensus refuses to start.
    pub(crate) fn committed_clamped(&self) -> Option<LogId> {
        self.committed.min(self.last())
    }

    /// The group's checkpoint record.
    pub(crate) fn checkpoint(&self, group: GroupId) -> Draft {
        let mut body = Fields::default();
        codec::put_option(&mut body, self.vote.as_ref(), codec::put_vote);
        codec::put_option(&mut body, self.purged.as_ref(), codec::put_log_id);
        body.u64(self.payload_end);
        codec::put_stored(&mut body, &self.members);
        Draft {
            kind: Kind::Checkpoint,
            group: group.0,
            head: Head::default(),
            payload: Bytes::from(body.0),
        }
    }

    /// Takes one record of the group into account, as recovery finds it; `position` is where it stands.
    ///
    /// # Errors
    /// When it makes no sense after what came before, in words.
    pub(crate) fn replay(&mut self, kind: Kind, body: &[u8], position: u64) -> Decoded<()> {
        let mut input = Reader::new(body);
        match kind {
            Kind::Normal | Kind::Blank | Kind::Membership => {
                let (id, committed_end) = read_entry_head(&mut input)?;
                let payload = match kind {
                    Kind::Normal => Held::OnDisk(
                        u32::try_from(body.len())
                            .map_err(|_| Malformed("an entry that is too long"))?,
                    ),
                    _ => Held::Here(read_payload(kind, input, Bytes::new)?),
                };
                self.replay_entry(
                    Slot {
                        id,
                        payload,
                        position,
                    },
                    committed_end,
                )
            }
            Kind::Vote => {
                self.vote = Some(codec::vote(&mut input)?);
                input.end()
            }
            Kind::Truncate => {
                self.replay_truncation(input.u64()?);
                input.end()
            }
            Kind::Checkpoint => {
                self.vote = codec::option(&mut input, codec::vote)?;
                let purged = codec::option(&mut input, codec::log_id)?;
                let payload_end = input.u64()?;
                let members = codec::stored(&mut input)?;
                input.end()?;
                if let Some(id) = purged {
                    self.checkpointed = purged;
                    self.assumed = self.assumed.filter(|assumed| id.index < *assumed);
                    self.purge(id);
                    self.committed = self.committed.max(Some(id));
                }
                (self.payload_end, self.members) = (payload_end, members);
                Ok(())
            }
            Kind::Mark | Kind::Drop => Err(Malformed(
                "a record of the node where one of a group should be",
            )),
        }
    }

    /// The last entry that should stand before the log's first one, and does not: no checkpoint says that it was let go.
    pub(crate) fn missing_before_start(&self) -> Option<u64> {
        self.assumed
    }

    /// Entries that were void already when their segments were let go do not say where the log starts: what was written in
    /// their place does.
    fn replay_truncation(&mut self, index: u64) {
        self.truncate(index);
        if self.assumed.is_none() || index >= self.start() {
            return;
        }
        self.assume_start(index);
        if self.checkpointed.map(|id| id.index) == self.assumed {
            (self.purged, self.assumed) = (self.checkpointed, None);
        }
    }

    /// Takes the entries before `index` for let go, until a checkpoint says so.
    fn assume_start(&mut self, index: u64) {
        self.assumed = index.checked_sub(1);
        self.purged = self.assumed.map(|index| LogId {
            index,
            ..LogId::default()
        });
    }

    fn replay_entry(&mut self, slot: Slot, committed_end: u64) -> Decoded<()> {
        if self.entries.is_empty() && self.end() < slot.id.index {
            // The segments before were let go: a checkpoint further on says where the log starts.
            self.assume_start(slot.id.index);
        }
        if slot.id.index < self.start() {
            return Ok(());
        }
        if slot.id.index != self.end() {
            return Err(Malformed("an entry that does not follow the one before it"));
        }
        self.push(slot);
        if let Some(id) = committed_end
            .checked_sub(1)
            .and_then(|index| self.id_at(index))
        {
            self.committed = self.committed.max(Some(id));
        }
        Ok(())
    }
}

/// Of a checkpoint's body: the entry that the log starts after, and the index after the last entry up to there that had a payload.
pub(crate) fn checkpoint_ends(input: &mut Reader<'_>) -> Decoded<(Option<LogId>, u64)> {
    codec::option(input, codec::vote)?;
    let purged = codec::option(input, codec::log_id)?;
    Ok((purged, input.u64()?))
}

fn has_payload(payload: &Payload) -> bool {
    matches!(payload, Payload::Normal(_))
}

fn read_entry_head(input: &mut Reader<'_>) -> Decoded<(LogId, u64)> {
    Ok((codec::log_id(input)?, input.u64()?))
}

fn read_payload(
    kind: Kind,
    mut input: Reader<'_>,
    normal: impl FnOnce() -> Bytes,
) -> Decoded<Payload> {
    match kind {
        Kind::Normal => Ok(Payload::Normal(Command {
            payload: normal(),
            ticket: 0,
        })),
        Kind::Blank => input.end().map(|()| Payload::Blank),
        Kind::Membership => {
            let members = codec::members(&mut input)?;
            input.end().map(|()| Payload::Membership(members))
        }
        _ => Err(Malformed("not an entry")),
    }
}

/// The record of an entry; its payload is shared, not copied.
pub(crate) fn entry_draft(group: GroupId, entry: &Entry, committed_end: u64) -> Draft {
    let id = &entry.id;
    let head = Head::entry(id.term, id.leader.0, id.index, committed_end);
    let (kind, payload) = match &entry.payload {
        Payload::Normal(command) => (Kind::Normal, command.payload.clone()),
        Payload::Blank => (Kind::Blank, Bytes::new()),
        Payload::Membership(members) => {
            let mut body = Fields::default();
            codec::put_members(&mut body, members);
            (Kind::Membership, Bytes::from(body.0))
        }
    };
    Draft {
        kind,
        group: group.0,
        head,
        payload,
    }
}

/// An entry from its record's body.
pub(crate) fn entry_from(kind: Kind, body: &Bytes) -> Decoded<Entry> {
    let mut input = Reader::new(body);
    let (id, _) = read_entry_head(&mut input)?;
    let payload = read_payload(kind, input, || body.slice(Head::ENTRY_BYTES..))?;
    Ok(Entry { id, payload })
}

/// The record of a vote.
pub(crate) fn vote_draft(group: GroupId, vote: &Vote) -> Draft {
    let mut body = Fields::default();
    codec::put_vote(&mut body, vote);
    Draft {
        kind: Kind::Vote,
        group: group.0,
        head: Head::default(),
        payload: Bytes::from(body.0),
    }
}

/// The record that voids entries from `index` on.
pub(crate) fn truncate_draft(group: GroupId, index: u64) -> Draft {
    let mut body = Fields::default();
    body.u64(index);
    Draft {
        kind: Kind::Truncate,
        group: group.0,
        head: Head::default(),
        payload: Bytes::from(body.0),
    }
}

/// A record with no body.
pub(crate) fn plain_draft(kind: Kind, group: u32) -> Draft {
    Draft {
        kind,
        group,
        head: Head::default(),
        payload: Bytes::new(),
    }
}
