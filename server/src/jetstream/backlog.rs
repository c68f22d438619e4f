//! Messages that do not fit into the next entry: they wait by stream and by connection, and take turns.
//!
//! Between streams and, within a stream, between the connections that publish to it turns are fair in bytes (`turns`): who
//! floods a stream waits behind its own messages, others do not. What one connection sends to one stream stays in order.
//!
//! Bounded: above [`INBOX_BYTES_MAX`] a message is refused if its connection already has more than its share of them waiting.
//! Long before that, a connection that has more than [`Backlog::pause_at`] waiting is not read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use halyard_engine::StreamId;

use super::gathered::{Gathered, Mark, cost_of};
use super::limits::{INBOX_BYTES_MAX, TURN_BYTES, WAITING_BYTES_PAUSE};
use super::turns::Turns;

/// Which messages stay in order: those that one connection (0: the server itself) sends to one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) stream: StreamId,
    pub(super) client: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    streams: BTreeMap<StreamId, OfStream>,
    turns: Turns<StreamId>,
    /// Memory that all of it takes, about.
    cost: usize,
    /// Connections that have something waiting, once for each stream.
    sources: usize,
}

#[derive(Debug, Default)]
struct OfStream {
    clients: BTreeMap<u64, OfClient>,
    turns: Turns<u64>,
}

#[derive(Debug, Default)]
struct OfClient {
    /// Each is one turn: [`TURN_BYTES`], or one message that is longer.
    turns: VecDeque<Gathered>,
    cost: usize,
    /// Its connection will be told, or has been, that it should pause.
    is_told: bool,
    /// Its connection's task while that pauses.
    waiting: Vec<Waker>,
}

/// What came of a message that was put here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It waits.
    Taken,
    /// It waits, and its connection should be told to pause.
    Pause,
    /// Too much of its connection waits.
    Refused,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Memory that it takes, about.
    pub(super) const fn cost(&self) -> usize {
        self.cost
    }

    /// Puts a command of `bytes` bytes; `write` encodes it.
    pub(super) fn put(
        &mut self,
        source: Source,
        bytes: usize,
        write: impl FnOnce(&mut Gathered),
    ) -> Put {
        let cost = cost_of(bytes);
        if self.cost + cost > INBOX_BYTES_MAX && self.cost_of(source) + cost > self.share(source) {
            return Put::Refused;
        }
        let pause_at = self.pause_at();
        let of_stream = self.streams.entry(source.stream).or_insert_with(|| {
            self.turns.enter(source.stream, bytes);
            OfStream::default()
        });
        let of_client = of_stream.clients.entry(source.client).or_insert_with(|| {
            of_stream.turns.enter(source.client, bytes);
            self.sources += 1;
            OfClient::default()
        });
        let fits = |turn: &&mut Gathered| turn.command_bytes() + bytes <= TURN_BYTES;
        match of_client.turns.back_mut().filter(fits) {
            Some(turn) => write(turn),
            None => {
                let mut turn = Gathered::default();
                turn.bytes.reserve_exact(bytes);
                write(&mut turn);
                of_client.turns.push_back(turn);
            }
        }
        of_client.cost += cost;
        self.cost += cost;
        if of_client.cost > pause_at && !std::mem::replace(&mut of_client.is_told, true) {
            return Put::Pause;
        }
        Put::Taken
    }

    /// Bytes of the next turn.
    pub(super) fn next_bytes(&self) -> Option<usize> {
        self.streams.get(&self.turns.first()?)?.next_bytes()
    }

    /// The next turn; `woken` gets who may be read again.
    pub(super) fn take(&mut self, woken: &mut Vec<Waker>) -> Option<Gathered> {
        let stream = self.turns.first()?;
        let pause_at = self.pause_at();
        let of_stream = self.streams.get_mut(&stream)?;
        let client = of_stream.turns.first()?;
        let of_client = of_stream.clients.get_mut(&client)?;
        let turn = of_client.turns.pop_front()?;
        let (bytes, cost) = (turn.command_bytes(), turn.cost());
        of_client.cost -= cost;
        self.cost -= cost;
        let next = of_client.turns.front().map(Gathered::command_bytes);
        if !is_pressed(of_client.cost, pause_at) {
            woken.append(&mut of_client.waiting);
        }
        of_stream.turns.served(bytes, next);
        if next.is_none() {
            of_stream.clients.remove(&client);
            self.sources -= 1;
        }
        let next = of_stream.next_bytes();
        self.turns.served(bytes, next);
        if next.is_none() {
            self.streams.remove(&stream);
        }
        if self.streams.is_empty() {
            assert_eq!((self.cost, self.sources), (0, 0), "nothing waits");
            self.turns = Turns::default();
        }
        Some(turn)
    }

    /// Marks the end of what waits now, of one stream or of all.
    pub(super) fn mark(&mut self, stream: Option<StreamId>, mark: &Arc<Mark>) {
        let is_meant =
            |(id, _): &(&StreamId, &mut OfStream)| stream.is_none_or(|stream| stream == **id);
        for (_, of_stream) in self.streams.iter_mut().filter(is_meant) {
            for of_client in of_stream.clients.values_mut() {
                if let Some(turn) = of_client.turns.back_mut() {
                    turn.marks.push(Arc::clone(mark));
                }
            }
        }
    }

    /// Whether the connection should not be read; `waker` is then woken when that is over.
    pub(super) fn waits(&mut self, source: Source, waker: &Waker) -> bool {
        let pause_at = self.pause_at();
        let Some(of_client) = self.client_mut(source) else {
            return false;
        };
        if !is_pressed(of_client.cost, pause_at) {
            of_client.is_told = false;
            return false;
        }
        if !of_client.waiting.iter().any(|held| held.will_wake(waker)) {
            of_client.waiting.push(waker.clone());
        }
        true
    }

    /// The connection was told, and looks again only if it is told again.
    pub(super) fn told(&mut self, source: Source) -> bool {
        let pause_at = self.pause_at();
        let Some(of_client) = self.client_mut(source) else {
            return false;
        };
        of_client.is_told = false;
        is_pressed(of_client.cost, pause_at)
    }

    /// Everybody who pauses: nothing waits any more.
    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        let mut all = Vec::new();
        for of_stream in self.streams.values_mut() {
            for of_client in of_stream.clients.values_mut() {
                all.append(&mut of_client.waiting);
            }
        }
        all
    }

    fn client_mut(&mut self, source: Source) -> Option<&mut OfClient> {
        let of_stream = self.streams.get_mut(&source.stream)?;
        of_stream.clients.get_mut(&source.client)
    }

    fn cost_of(&self, source: Source) -> usize {
        let of_stream = self.streams.get(&source.stream);
        let of_client = of_stream.and_then(|of_stream| of_stream.clients.get(&source.client));
        of_client.map_or(0, |of_client| of_client.cost)
    }

    /// What one connection may have waiting when the whole is full.
    fn share(&self, source: Source) -> usize {
        let clients = |of_stream: &OfStream| of_stream.clients.len();
        let of_stream = self.streams.get(&source.stream).map_or(0, clients);
        INBOX_BYTES_MAX / self.streams.len().max(1) / of_stream.max(1)
    }

    /// What one connection may have waiting before it is not read any more.
    fn pause_at(&self) -> usize {
        (INBOX_BYTES_MAX / 2 / self.sources.max(1)).clamp(TURN_BYTES, WAITING_BYTES_PAUSE)
    }
}

impl OfStream {
    /// Bytes of its next turn.
    fn next_bytes(&self) -> Option<usize> {
        let of_client = self.clients.get(&self.turns.first()?)?;
        of_client.turns.front().map(Gathered::command_bytes)
    }
}

/// Whether a connection with so much waiting still pauses.
const fn is_pressed(cost: usize, pause_at: usize) -> bool {
    cost > pause_at / 2
}
