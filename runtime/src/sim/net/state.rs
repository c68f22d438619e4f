//! All connections and listeners of a world, and how bytes move between them.
//!
//! A connection has two ends and two pipes; pipe `n` carries from end `n` to the other. A pipe holds segments under way,
//! each with the moment at which it arrives, and the bytes that have arrived and are not read. Moments in a pipe never
//! decrease, so order is kept whatever the jitter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::task::Waker;
use std::time::Duration;

use super::super::World;
use super::NetOptions;

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// The process died; its kernel lives and tells the peers.
    Process,
    /// The machine is gone; nobody tells anyone.
    Power,
}

/// What the network holds.
#[derive(Default)]
pub(crate) struct State {
    pub(super) options: NetOptions,
    pub(super) cuts: BTreeSet<(IpAddr, IpAddr)>,
    pub(super) down: BTreeSet<IpAddr>,
    pub(super) listeners: BTreeMap<u64, Listening>,
    connections: BTreeMap<u64, Connection>,
    /// Pipes that may have something to deliver, by the moment.
    due: BTreeSet<(u64, u64, usize)>,
    pub(in crate::sim) pump: Option<Waker>,
    next_id: u64,
    next_port: BTreeMap<IpAddr, u16>,
}

/// One listening socket.
pub(super) struct Listening {
    /// The node that it is on.
    pub(super) node: IpAddr,
    /// What it was bound to: the node's address, loopback or the unspecified address.
    pub(super) bound: SocketAddr,
    /// Connections that nobody has accepted yet.
    pub(super) queue: VecDeque<(u64, SocketAddr)>,
    pub(super) waiting: Vec<Waker>,
}

struct Connection {
    ends: [End; 2],
    pipes: [Pipe; 2],
}

struct End {
    node: IpAddr,
    address: SocketAddr,
    /// The socket was dropped, or its process died.
    gone: bool,
    /// The peer has broken the connection.
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Default)]
struct Pipe {
    under_way: VecDeque<(u64, Segment)>,
    under_way_bytes: usize,
    arrived: VecDeque<u8>,
    window_bytes: usize,
    /// The sender has ended its direction.
    ended: bool,
    /// The receiver has seen that.
    end_seen: bool,
}

enum Segment {
    Bytes(Vec<u8>),
    End,
    Reset,
}

/// The result of a read or write that does not wait.
pub(super) enum Io {
    Done(usize),
    WouldBlock,
    Reset,
    BrokenPipe,
}

/// First port that the system gives out by itself, as on Linux.
const FIRST_EPHEMERAL_PORT: u16 = 32768;

impl State {
    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn new_port(&mut self, node: IpAddr) -> u16 {
        let port = self.next_port.entry(node).or_insert(FIRST_EPHEMERAL_PORT);
        let given = *port;
        *port = given.checked_add(1).unwrap_or(FIRST_EPHEMERAL_PORT);
        given
    }

    pub(super) fn connection_count(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn next_due_nanos(&self) -> Option<u64> {
        self.due.first().map(|(at, _, _)| *at)
    }

    /// Whether anything gets from one node to another now.
    pub(super) fn passes(&self, from: IpAddr, to: IpAddr) -> bool {
        !self.down.contains(&to) && (from == to || !self.cuts.contains(&(from, to)))
    }

    fn schedule(&mut self, at: u64, id: u64, pipe: usize) {
        let first = self.next_due_nanos();
        self.due.insert((at, id, pipe));
        if first != self.next_due_nanos()
            && let Some(pump) = self.pump.take()
        {
            pump.wake();
        }
    }

    /// Makes a connection whose first end is `client`.
    pub(super) fn connect(&mut self, nodes: [IpAddr; 2], addresses: [SocketAddr; 2]) -> u64 {
        let id = self.new_id();
        let window_bytes = self.options.window_bytes;
        let end = |side: usize| End {
            node: nodes[side],
            address: addresses[side],
            gone: false,
            reset: false,
            reader: None,
            writer: None,
        };
        let pipe = || Pipe {
            window_bytes,
            ..Pipe::default()
        };
        let connection = Connection {
            ends: [end(0), end(1)],
            pipes: [pipe(), pipe()],
        };
        self.connections.insert(id, connection);
        id
    }

    pub(super) fn addresses(&self, id: u64, side: usize) -> Option<(SocketAddr, SocketAddr)> {
        let ends = &self.connections.get(&id)?.ends;
        Some((ends[side].address, ends[1 - side].address))
    }

    /// Forgets a connection that nobody can use any more.
    fn forget_if_over(&mut self, id: u64) {
        if let Some(connection) = self.connections.get(&id)
            && connection.ends.iter().all(|end| end.gone)
        {
            self.connections.remove(&id);
        }
    }
}

/// How long the next segment from one node to another takes.
pub(super) fn latency_nanos(world: &World, from: IpAddr, to: IpAddr) -> u64 {
    if from == to {
        return 5_000 + world.below(20_000);
    }
    let options = world.net.lock().options.clone();
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let mut total = nanos(options.latency) + world.below(nanos(options.jitter).saturating_add(1));
    if world.chance(options.loss_ppm) {
        total += nanos(options.retransmit);
    }
    total
}

/// Puts a segment under way from the end `side`.
fn send(world: &World, id: u64, side: usize, segment: Segment) {
    let Some((from, to)) = world.net.lock().connections.get(&id).map(|connection| {
        let ends = &connection.ends;
        (ends[side].node, ends[1 - side].node)
    }) else {
        return;
    };
    let arrives = world.now_nanos() + latency_nanos(world, from, to);
    let mut net = world.net.lock();
    let Some(connection) = net.connections.get_mut(&id) else {
        return;
    };
    let pipe = &mut connection.pipes[side];
    let at = pipe
        .under_way
        .back()
        .map_or(arrives, |(last, _)| arrives.max(*last));
    if let Segment::Bytes(bytes) = &segment {
        pipe.under_way_bytes += bytes.len();
    }
    pipe.under_way.push_back((at, segment));
    net.schedule(at, id, side);
}

/// Takes as many of `bytes` as fit; see [`Io`].
pub(super) fn write(world: &World, id: u64, side: usize, bytes: &[u8]) -> Io {
    let count = {
        let net = world.net.lock();
        let Some(connection) = net.connections.get(&id) else {
            return Io::Reset;
        };
        let end = &connection.ends[side];
        if end.reset || end.gone {
            return Io::Reset;
        }
        let pipe = &connection.pipes[side];
        if pipe.ended {
            return Io::BrokenPipe;
        }
        let fits = pipe.free().min(bytes.len());
        let short_ppm = net.options.short_write_ppm;
        drop(net);
        shorten(world, fits, short_ppm)
    };
    if count == 0 {
        return if bytes.is_empty() {
            Io::Done(0)
        } else {
            Io::WouldBlock
        };
    }
    send(world, id, side, Segment::Bytes(bytes[..count].to_vec()));
    Io::Done(count)
}

/// `count`, or now and then less, but never nothing of something.
fn shorten(world: &World, count: usize, ppm: u32) -> usize {
    if count > 1 && world.chance(ppm) {
        1 + usize::try_from(world.below(count as u64 - 1)).unwrap_or(0)
    } else {
        count
    }
}

/// Reads what has arrived; `Done(0)` at the end (or for an empty buffer). Registers `reader` when there is nothing.
pub(super) fn read(
    world: &World,
    id: u64,
    side: usize,
    buffer: &mut [u8],
    reader: Option<&Waker>,
) -> Io {
    let short_ppm = world.net.lock().options.short_read_ppm;
    let offered = shorten(world, buffer.len(), short_ppm);
    let mut net = world.net.lock();
    let Some(connection) = net.connections.get_mut(&id) else {
        return Io::Reset;
    };
    let [end, peer] = two(&mut connection.ends, side);
    let pipe = &mut connection.pipes[1 - side];
    let count = pipe.arrived.len().min(offered);
    if count > 0 || buffer.is_empty() {
        for (slot, byte) in buffer.iter_mut().zip(pipe.arrived.drain(..count)) {
            *slot = byte;
        }
        if let Some(writer) = peer.writer.take() {
            writer.wake();
        }
        return Io::Done(count);
    }
    if end.reset || end.gone {
        return Io::Reset;
    }
    if pipe.end_seen {
        return Io::Done(0);
    }
    if let Some(reader) = reader {
        end.reader = Some(reader.clone());
    }
    Io::WouldBlock
}

/// The end of `side`, then the other one.
fn two(ends: &mut [End; 2], side: usize) -> [&mut End; 2] {
    let [first, second] = ends;
    if side == 0 {
        [first, second]
    } else {
        [second, first]
    }
}

impl Pipe {
    fn free(&self) -> usize {
        self.window_bytes
            .saturating_sub(self.under_way_bytes + self.arrived.len())
    }
}

/// True when a read would not wait; registers `waker` otherwise.
pub(super) fn readable(world: &World, id: u64, side: usize, waker: &Waker) -> bool {
    let mut net = world.net.lock();
    let Some(connection) = net.connections.get_mut(&id) else {
        return true;
    };
    let pipe = &connection.pipes[1 - side];
    let end = &mut connection.ends[side];
    if !pipe.arrived.is_empty() || pipe.end_seen || end.reset || end.gone {
        return true;
    }
    end.reader = Some(waker.clone());
    false
}

/// True when a write would not wait; registers `waker` otherwise.
pub(super) fn writable(world: &World, id: u64, side: usize, waker: &Waker) -> bool {
    let mut net = world.net.lock();
    let Some(connection) = net.connections.get_mut(&id) else {
        return true;
    };
    let pipe = &connection.pipes[side];
    let end = &mut connection.ends[side];
    if pipe.free() > 0 || pipe.ended || end.reset || end.gone {
        return true;
    }
    end.writer = Some(waker.clone());
    false
}

/// Ends the direction from `side`. False when it had already ended or broken.
pub(super) fn end_writing(world: &World, id: u64, side: usize) -> bool {
    {
        let mut net = world.net.lock();
        let Some(connection) = net.connections.get_mut(&id) else {
            return false;
        };
        if connection.ends[side].reset || connection.ends[side].gone {
            return false;
        }
        if std::mem::replace(&mut connection.pipes[side].ended, true) {
            return true;
        }
    }
    send(world, id, side, Segment::End);
    true
}

/// The socket of `side` was dropped by a living process: an orderly end, or a reset when bytes were left unread.
pub(super) fn close(world: &World, id: u64, side: usize) {
    let unread = {
        let net = world.net.lock();
        let Some(connection) = net.connections.get(&id) else {
            return;
        };
        if connection.ends[side].gone {
            return;
        }
        !connection.pipes[1 - side].arrived.is_empty()
    };
    if unread {
        send(world, id, side, Segment::Reset);
    } else {
        end_writing(world, id, side);
    }
    abandon(world, id, side);
}

/// From here on nobody reads or writes at `side`.
fn abandon(world: &World, id: u64, side: usize) {
    let mut net = world.net.lock();
    if let Some(connection) = net.connections.get_mut(&id) {
        let end = &mut connection.ends[side];
        end.gone = true;
        let wakers = [end.reader.take(), end.writer.take()];
        connection.pipes[1 - side].arrived.clear();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
    net.forget_if_over(id);
}

/// Delivers everything whose time has come and whose link is whole.
pub(super) fn deliver_due(world: &World) {
    loop {
        let now = world.now_nanos();
        let (id, side) = {
            let mut net = world.net.lock();
            match net.due.first() {
                Some((at, id, side)) if *at <= now => {
                    let found = (*id, *side);
                    net.due.pop_first();
                    found
                }
                _ => return,
            }
        };
        while deliver_one(world, id, side, now) {}
    }
}

/// Delivers the first segment of a pipe if it is due; true when there may be another.
fn deliver_one(world: &World, id: u64, side: usize, now: u64) -> bool {
    let mut net = world.net.lock();
    let Some(connection) = net.connections.get(&id) else {
        return false;
    };
    let (from, to) = (connection.ends[side].node, connection.ends[1 - side].node);
    if !net.passes(from, to) {
        // It stays in the pipe; `resend_stalled` looks again when something heals.
        return false;
    }
    let Some(connection) = net.connections.get_mut(&id) else {
        return false;
    };
    let pipe = &mut connection.pipes[side];
    if pipe.under_way.front().is_none_or(|(at, _)| *at > now) {
        return false;
    }
    let Some((_, segment)) = pipe.under_way.pop_front() else {
        return false;
    };
    let [receiver, sender] = two(&mut connection.ends, 1 - side);
    let mut answer_reset = false;
    match segment {
        Segment::Bytes(bytes) => {
            pipe.under_way_bytes -= bytes.len();
            if receiver.gone {
                // The kernel answers bytes for a socket that is no more.
                answer_reset = !sender.gone && !sender.reset;
            } else {
                pipe.arrived.extend(bytes);
            }
        }
        Segment::End => pipe.end_seen = true,
        Segment::Reset => {
            receiver.reset = true;
            pipe.arrived.clear();
            wake(&mut receiver.writer);
        }
    }
    wake(&mut receiver.reader);
    drop(net);
    if answer_reset {
        send(world, id, 1 - side, Segment::Reset);
    }
    true
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Looks again at every pipe that holds something, within the time of one retransmission.
pub(super) fn resend_stalled(world: &World) {
    let (stalled, retransmit) = {
        let net = world.net.lock();
        let stalled: Vec<(u64, usize)> = net
            .connections
            .iter()
            .flat_map(|(id, connection)| [(*id, 0, connection), (*id, 1, connection)])
            .filter(|(_, side, connection)| !connection.pipes[*side].under_way.is_empty())
            .map(|(id, side, _)| (id, side))
            .collect();
        (stalled, net.options.retransmit)
    };
    for (id, side) in stalled {
        let wait = world.below(u64::try_from(retransmit.as_nanos()).unwrap_or(u64::MAX));
        let at = world.now_nanos() + wait;
        world.net.lock().schedule(at, id, side);
    }
}

/// See [`super::Net::reset_between`].
pub(super) fn reset_between(world: &World, a: IpAddr, b: IpAddr) {
    let mut net = world.net.lock();
    for connection in net.connections.values_mut() {
        let nodes = [connection.ends[0].node, connection.ends[1].node];
        if nodes != [a, b] && nodes != [b, a] {
            continue;
        }
        for pipe in &mut connection.pipes {
            pipe.under_way.clear();
            pipe.under_way_bytes = 0;
            pipe.arrived.clear();
        }
        for end in &mut connection.ends {
            end.reset = true;
            wake(&mut end.reader);
            wake(&mut end.writer);
        }
    }
}

/// Closes everything that a node has open, as its kernel would or would not.
pub(super) fn node_died(world: &World, ip: IpAddr, death: Death) {
    let ends: Vec<(u64, usize)> = {
        let mut net = world.net.lock();
        net.listeners.retain(|_, listening| listening.node != ip);
        if death == Death::Power {
            net.down.insert(ip);
        }
        let at = |(id, connection): (&u64, &Connection)| {
            let mine = |side: usize| {
                let end = &connection.ends[side];
                (end.node == ip && !end.gone).then_some((*id, side))
            };
            [mine(0), mine(1)]
        };
        net.connections.iter().flat_map(at).flatten().collect()
    };
    for (id, side) in ends {
        match death {
            Death::Process => send(world, id, side, Segment::Reset),
            Death::Power => lose_tail(world, id, side),
        }
        abandon(world, id, side);
    }
}

/// What a machine without power had handed to its kernel is on the wire up to some point only.
fn lose_tail(world: &World, id: u64, side: usize) {
    let count = world
        .net
        .lock()
        .connections
        .get(&id)
        .map_or(0, |connection| connection.pipes[side].under_way.len());
    let keep = usize::try_from(world.below(count as u64 + 1)).unwrap_or(0);
    let mut net = world.net.lock();
    if let Some(connection) = net.connections.get_mut(&id) {
        let pipe = &mut connection.pipes[side];
        for (_, segment) in pipe.under_way.drain(keep..) {
            if let Segment::Bytes(bytes) = segment {
                pipe.under_way_bytes -= bytes.len();
            }
        }
    }
}
