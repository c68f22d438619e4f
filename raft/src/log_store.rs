//! openraft's side of a group's log: entries, vote and committed index, kept in memory and written to the node's log.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;

use futures::stream::{self, Stream};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use crate::adapter::IntoRaft;
use crate::entry::Entry as OurEntry;
use crate::error::Error;
use crate::ids::Vote as OurVote;
use crate::types::{Entry, LogId, Types, Vote};
use crate::wal::image::{self, GroupLog, GroupState, Held, Slot};
use crate::wal::record::Kind;
use crate::wal::writer::Completion;
use crate::wal::{Done, Item, Wal};

/// One group's log on the shared log. Clones are the same log.
#[derive(Clone)]
pub(crate) struct LogStore {
    pub(crate) wal: Arc<Wal>,
    pub(crate) log: Arc<GroupLog>,
}

impl LogStore {
    /// Changes the log in memory and hands the record over under one lock, so that both have the same order.
    fn change(&self, change: impl FnOnce(&mut GroupState) -> Item) {
        let mut state = self.log.state.lock();
        let item = change(&mut state);
        self.wal.submit([item]);
    }

    fn item(&self, draft: crate::wal::record::Draft, index: Option<u64>, done: Done) -> Item {
        Item {
            draft,
            of: Some((Arc::clone(&self.log), index)),
            done,
        }
    }

    /// The entry at `index`, from memory or from disk.
    pub(crate) fn entry(&self, index: u64) -> io::Result<OurEntry> {
        let (position, body_bytes, id) = {
            let state = self.log.state.lock();
            let Some(slot) = state.slot(index) else {
                let what = format!("entry {index} of group {} is not in the log", self.log.id);
                return Err(io::Error::new(io::ErrorKind::NotFound, what));
            };
            match &slot.payload {
                Held::Here(payload) => {
                    return Ok(OurEntry {
                        id: slot.id,
                        payload: payload.clone(),
                    });
                }
                Held::OnDisk(body_bytes) => (slot.position, *body_bytes, slot.id),
            }
        };
        let body = self
            .wal
            .read(position, body_bytes)
            .map_err(io::Error::from)?;
        let entry = image::entry_from(Kind::Normal, &body).map_err(io::Error::other)?;
        if entry.id != id {
            return Err(io::Error::other(format!(
                "entry {index} of group {} was overwritten",
                self.log.id
            )));
        }
        Ok(entry)
    }

    fn bounds(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let state = self.log.state.lock();
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        (from.max(state.start()), to.min(state.end()))
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // One at a time: the replay after a restart may be longer than memory.
        let (from, to) = self.bounds(&range);
        let store = self.clone();
        stream::iter((from..to).map(move |index| store.entry(index).map(IntoRaft::into_raft)))
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (from, to) = self.bounds(&range);
        (from..to)
            .map(|index| self.entry(index).map(IntoRaft::into_raft))
            .collect()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.log.state.lock().vote.map(IntoRaft::into_raft))
    }

    async fn get_key_log_ids(
        &mut self,
        range: RangeInclusive<LogId>,
    ) -> Result<Vec<LogId>, io::Error> {
        // The last entry of each leader (alpha.37's comment on the trait still says the first): from memory, where the
        // default would read payloads.
        let mut keys: Vec<LogId> = Vec::new();
        let state = self.log.state.lock();
        let ids = (range.start().index..=range.end().index).filter_map(|index| state.id_at(index));
        let ids = ids.map(IntoRaft::into_raft);
        for id in ids {
            match keys.last_mut() {
                Some(last) if last.leader_id == id.leader_id => *last = id,
                _ => keys.push(id),
            }
        }
        Ok(keys)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let state = self.log.state.lock();
        Ok(LogState {
            last_purged_log_id: state.purged.map(IntoRaft::into_raft),
            last_log_id: state.last().map(IntoRaft::into_raft),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (sender, saved) = tokio::sync::oneshot::channel();
        let vote = OurVote::from(*vote);
        self.change(|state| {
            state.vote = Some(vote);
            self.item(
                image::vote_draft(self.log.id, &vote),
                None,
                Done::Waiter(sender),
            )
        });
        match saved.await {
            Ok(saved) => saved.map_err(|error| error.as_ref().clone().into()),
            Err(_) => Err(Error::Stopped.into()),
        }
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Written with the next entry: recovery may know of less than was committed, never of more than the log holds.
        self.log.state.lock().committed = committed.map(Into::into);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self
            .log
            .state
            .lock()
            .committed_clamped()
            .map(IntoRaft::into_raft))
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut state = self.log.state.lock();
        let committed_end = state.committed.map_or(0, |id| id.index + 1);
        let mut entries = entries.into_iter().peekable();
        let mut flushed = Some(flushed);
        let state = &mut *state;
        let items = std::iter::from_fn(|| {
            let entry = OurEntry::from(entries.next()?);
            let draft = image::entry_draft(self.log.id, &entry, committed_end);
            let done = if entries.peek().is_none() {
                flushed.take().map(|flushed| Done::Call(told(flushed)))
            } else {
                None
            };
            let index = entry.id.index;
            state.push(Slot {
                id: entry.id,
                payload: Held::Here(entry.payload),
                position: 0,
            });
            Some(self.item(draft, Some(index), done.unwrap_or(Done::Nobody)))
        });
        self.wal.submit(items);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let index = last.map_or(0, |id| id.index + 1);
        self.change(|state| {
            state.truncate(index);
            self.item(
                image::truncate_draft(self.log.id, index),
                Some(index),
                Done::Nobody,
            )
        });
        Ok(())
    }

    async fn purge(&mut self, id: LogId) -> Result<(), io::Error> {
        self.change(|state| {
            state.purge(id.into());
            self.item(
                state.checkpoint(self.log.id),
                Some(state.start()),
                Done::Nobody,
            )
        });
        Ok(())
    }
}

/// openraft is told when its entries are on disk.
fn told(flushed: IOFlushed<Types>) -> Completion {
    Box::new(|outcome| {
        flushed.io_completed(outcome.map_err(|error| error.as_ref().clone().into()));
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use halyard_runtime::disk::{Disk, MemDisk};
    use openraft::type_config::TypeConfigExt as _;
    use openraft::vote::RaftLeaderId as _;
    use parking_lot::Mutex;

    use super::*;
    use crate::entry::Command;
    use crate::ids::{GroupId, NodeId};
    use crate::types::{LeaderId, Payload};
    use crate::wal::recovery;
    use crate::wal::writer::Layout;

    /// A log in memory that nobody writes to disk.
    fn store() -> LogStore {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let dir = Path::new("/log");
        disk.create_dir_all(dir).expect("a directory");
        let layout = Layout {
            segment_bytes: 4096,
            first_segment_bytes: 4096,
            cipher: None,
        };
        let opened = recovery::open(&disk, dir, &NodeId(1).into(), &layout).expect("a new log");
        let wal = Arc::new(Wal::new(
            disk,
            dir.into(),
            opened.log,
            NodeId(1),
            layout,
            opened.segments,
            (512, 0),
        ));
        LogStore {
            wal,
            log: Arc::new(GroupLog {
                id: GroupId(1),
                state: Mutex::default(),
            }),
        }
    }

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(LeaderId::new(term, 1), index)
    }

    fn append(store: &mut LogStore, ids: impl IntoIterator<Item = LogId>) {
        let entries: Vec<Entry> = ids
            .into_iter()
            .map(|log_id| Entry {
                log_id,
                payload: Payload::Normal(Command {
                    payload: vec![7].into(),
                    ticket: 0,
                }),
            })
            .collect();
        let (sender, _) = Types::oneshot();
        let appended = store.append(entries, IOFlushed::signal(sender));
        futures::FutureExt::now_or_never(appended)
            .expect("it does not wait")
            .expect("handed in");
    }

    #[test]
    fn the_key_ids_are_those_that_openraft_finds_by_itself() {
        let runs: [&[(u64, u64)]; 4] = [
            &[(1, 1)],
            &[(1, 3), (2, 1), (4, 7)],
            &[(2, 1), (3, 1), (4, 1)],
            &[(1, 2), (5, 2), (6, 12), (7, 1)],
        ];
        for run in runs {
            let mut store = store();
            let mut index = 0;
            for (term, count) in run {
                append(
                    &mut store,
                    (index..index + count).map(|index| id(*term, index)),
                );
                index += count;
            }
            for start in 0..index {
                let (first, last) = {
                    let state = store.log.state.lock();
                    (
                        state.id_at(start).expect("held").into_raft(),
                        state.last().expect("held").into_raft(),
                    )
                };
                let keys = store.get_key_log_ids(first..=last);
                let keys = futures::FutureExt::now_or_never(keys)
                    .expect("ready")
                    .expect("read");
                // The last entry of each leader from `start` on.
                let mut end = 0;
                let expected: Vec<LogId> = run
                    .iter()
                    .map(|(term, count)| {
                        end += count;
                        id(*term, end - 1)
                    })
                    .filter(|id| id.index >= start)
                    .collect();
                assert_eq!(keys, expected, "{run:?} from {start}");
            }
        }
    }
}
