//! The sockets that simulated tasks hold.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::super::World;
use super::super::clock::SimSleep;
use super::state::{self, Io, Listening};

/// Connections that wait in a listener's queue; a connect beyond it hangs.
const ACCEPT_QUEUE_MAX: usize = 4096;

/// Pauses between the attempts of a connect that gets no answer.
const RETRY_MILLIS: [u64; 5] = [100, 200, 400, 800, 1000];

/// One end of a simulated connection.
pub(crate) struct SimStream {
    world: Arc<World>,
    id: u64,
    side: usize,
}

impl SimStream {
    /// Connects from the node that runs now; hangs for as long as the link does.
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let world = World::current();
        let from = world.nodes.lock().current_ip();
        let to = if address.ip().is_loopback() {
            from
        } else {
            address.ip()
        };
        let mut attempt = 0;
        loop {
            pass(&world, from, to).await;
            match knock(&world, from, to, address) {
                Knock::Connected(stream) => {
                    // Should the caller give up here, dropping the stream closes it.
                    pass(&world, to, from).await;
                    return Ok(stream);
                }
                Knock::Refused => {
                    pass(&world, to, from).await;
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                Knock::Silence => {
                    let wait = RETRY_MILLIS.get(attempt).copied().unwrap_or(1000);
                    attempt += 1;
                    SimSleep::for_true(Duration::from_millis(wait)).await;
                }
            }
        }
    }

    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        outcome(state::read(&self.world, self.id, self.side, buffer, None))
    }

    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match state::read(&self.world, self.id, self.side, buffer, Some(cx.waker())) {
            Io::WouldBlock => Poll::Pending,
            done => Poll::Ready(outcome(done)),
        }
    }

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready(state::readable(&self.world, self.id, self.side, cx.waker()))
    }

    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready(state::writable(&self.world, self.id, self.side, cx.waker()))
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        outcome(state::write(&self.world, self.id, self.side, bytes))
    }

    pub(crate) fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let joined: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| piece.iter().copied())
            .collect();
        self.try_write(&joined)
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        if state::end_writing(&self.world, self.id, self.side) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotConnected.into())
        }
    }

    /// Our address, then the peer's.
    pub(crate) fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        let found = self.world.net.lock().addresses(self.id, self.side);
        found.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

fn outcome(io: Io) -> io::Result<usize> {
    match io {
        Io::Done(count) => Ok(count),
        Io::WouldBlock => Err(io::ErrorKind::WouldBlock.into()),
        Io::Reset => Err(io::ErrorKind::ConnectionReset.into()),
        Io::BrokenPipe => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

fn ready(now: bool) -> Poll<io::Result<()>> {
    if now {
        Poll::Ready(Ok(()))
    } else {
        Poll::Pending
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        state::close(&self.world, self.id, self.side);
    }
}

impl fmt::Debug for SimStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimStream({}, {})", self.id, self.side)
    }
}

/// The time of one way; for ever when the link is cut, as long as it is.
async fn pass(world: &World, from: IpAddr, to: IpAddr) {
    loop {
        let nanos = state::latency_nanos(world, from, to);
        SimSleep::for_true(Duration::from_nanos(nanos)).await;
        if world.net.lock().passes(from, to) {
            return;
        }
        SimSleep::for_true(Duration::from_millis(RETRY_MILLIS[1])).await;
    }
}

enum Knock {
    Connected(SimStream),
    Refused,
    Silence,
}

/// What a connection request meets when it arrives.
fn knock(world: &Arc<World>, from: IpAddr, to: IpAddr, address: SocketAddr) -> Knock {
    if !world.nodes.lock().knows(to) {
        return Knock::Silence;
    }
    let mut net = world.net.lock();
    let listens = |listening: &Listening| {
        let bound = listening.bound;
        let scope = bound.ip().is_unspecified()
            || bound.ip() == address.ip()
            || (bound.ip().is_loopback() && address.ip().is_loopback());
        listening.node == to && bound.port() == address.port() && scope
    };
    let found = net
        .listeners
        .iter()
        .find(|(_, listening)| listens(listening));
    let Some((listener, queued)) = found.map(|(id, listening)| (*id, listening.queue.len())) else {
        return Knock::Refused;
    };
    if queued >= ACCEPT_QUEUE_MAX {
        return Knock::Silence;
    }
    let source = if address.ip().is_loopback() {
        address.ip()
    } else {
        from
    };
    let port = net.new_port(from);
    let client = SocketAddr::new(source, port);
    let id = net.connect([from, to], [client, address]);
    if let Some(listening) = net.listeners.get_mut(&listener) {
        listening.queue.push_back((id, client));
        std::mem::take(&mut listening.waiting)
            .into_iter()
            .for_each(std::task::Waker::wake);
    }
    drop(net);
    Knock::Connected(SimStream {
        world: Arc::clone(world),
        id,
        side: 0,
    })
}

/// A simulated listening socket.
pub(crate) struct SimListener {
    world: Arc<World>,
    id: u64,
    bound: SocketAddr,
}

impl SimListener {
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let world = World::current();
        let node = world.nodes.lock().current_ip();
        let ip = address.ip();
        if !ip.is_unspecified() && !ip.is_loopback() && ip != node {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let mut net = world.net.lock();
        let port = if address.port() == 0 {
            net.new_port(node)
        } else {
            address.port()
        };
        let bound = SocketAddr::new(ip, port);
        let clashes = |other: &Listening| {
            let all = other.bound.ip().is_unspecified() || ip.is_unspecified();
            other.node == node && other.bound.port() == port && (all || other.bound.ip() == ip)
        };
        if net.listeners.values().any(clashes) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let id = net.new_id();
        let queue = std::collections::VecDeque::new();
        net.listeners.insert(
            id,
            Listening {
                node,
                bound,
                queue,
                waiting: Vec::new(),
            },
        );
        drop(net);
        Ok(Self { world, id, bound })
    }

    pub(crate) async fn accept(&self) -> io::Result<(SimStream, SocketAddr)> {
        poll_fn(|cx| {
            let mut net = self.world.net.lock();
            let Some(listening) = net.listeners.get_mut(&self.id) else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            if let Some((id, peer)) = listening.queue.pop_front() {
                let stream = SimStream {
                    world: Arc::clone(&self.world),
                    id,
                    side: 1,
                };
                return Poll::Ready(Ok((stream, peer)));
            }
            if !listening
                .waiting
                .iter()
                .any(|waker| waker.will_wake(cx.waker()))
            {
                listening.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.bound
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let listening = self.world.net.lock().listeners.remove(&self.id);
        for (id, _) in listening.into_iter().flat_map(|listening| listening.queue) {
            state::close(&self.world, id, 1);
        }
    }
}

impl fmt::Debug for SimListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimListener({})", self.bound)
    }
}
