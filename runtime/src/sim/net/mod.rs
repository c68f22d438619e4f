//! The simulated network: TCP connections between nodes, with everything that goes wrong on real ones.
//!
//! - Bytes take a latency with jitter, arrive in order, and are delivered without anyone flushing.
//! - Each direction has a bounded window: a writer whose peer does not read is told `WouldBlock`.
//! - Reads and writes are now and then short.
//! - Either side may end its direction while the other goes on (half-close).
//! - A cut link holds what is on it, in one or both directions; connects across it hang. Nothing is refused and nothing
//!   lost: when the link heals, the bytes arrive. A link that never heals ends by the callers' time-outs.
//! - A killed process resets its connections; a machine without power falls silent, and its peers learn of it only
//!   when it is back and they speak to it (half-open connections).
//!
//! `state` holds all connections and moves bytes; `pump` is the task that does so when their time has come; `stream` has
//! the sockets that tasks hold.

mod pump;
mod state;
mod stream;

pub(super) use state::{Death, State};
pub(crate) use stream::{SimListener, SimStream};

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::World;

/// How the network behaves between any two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetOptions {
    /// The least time that anything takes from one node to another.
    pub latency: Duration,
    /// What is added to it at most, drawn for each segment.
    pub jitter: Duration,
    /// Bytes that may be under way or unread in each direction of a connection.
    pub window_bytes: usize,
    /// How many of a million reads return less than there is.
    pub short_read_ppm: u32,
    /// How many of a million writes take less than fits.
    pub short_write_ppm: u32,
    /// How many of a million segments are lost and sent again [`NetOptions::retransmit`] later.
    pub loss_ppm: u32,
    /// How long a lost segment is late; also the longest that a healed link stays silent.
    pub retransmit: Duration,
}

impl Default for NetOptions {
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(100),
            jitter: Duration::from_micros(400),
            window_bytes: 256 << 10,
            short_read_ppm: 20_000,
            short_write_ppm: 20_000,
            loss_ppm: 0,
            retransmit: Duration::from_millis(200),
        }
    }
}

/// Controls the network of the running simulation.
#[derive(Clone)]
pub struct Net(Arc<World>);

impl Net {
    /// The network of this simulation.
    ///
    /// # Panics
    /// Outside of a simulation.
    pub fn current() -> Self {
        Self(World::current())
    }

    /// Sets how the network behaves from now on; connections keep the window that they began with.
    pub fn set_options(&self, options: NetOptions) {
        assert!(
            options.window_bytes > 0,
            "nothing fits into an empty window"
        );
        self.0.net.lock().options = options;
    }

    /// Cuts the link from one node to another; the other direction stays.
    pub fn cut(&self, from: IpAddr, to: IpAddr) {
        self.0.net.lock().cuts.insert((from, to));
    }

    /// Cuts the link between two nodes in both directions.
    pub fn partition(&self, a: IpAddr, b: IpAddr) {
        self.cut(a, b);
        self.cut(b, a);
    }

    /// Restores the link from one node to another; what it held arrives.
    pub fn heal(&self, from: IpAddr, to: IpAddr) {
        self.0.net.lock().cuts.remove(&(from, to));
        state::resend_stalled(&self.0);
    }

    /// Restores every link.
    pub fn heal_all(&self) {
        self.0.net.lock().cuts.clear();
        state::resend_stalled(&self.0);
    }

    /// Breaks every connection between two nodes: both ends see a reset, and bytes under way are lost.
    pub fn reset_between(&self, a: IpAddr, b: IpAddr) {
        state::reset_between(&self.0, a, b);
    }

    /// How many connections there are, counting those of which one end is gone.
    pub fn connection_count(&self) -> usize {
        self.0.net.lock().connection_count()
    }
}

/// Starts the task that delivers bytes.
pub(super) fn start() {
    pump::start();
}

/// To be called before the tasks of a node die.
pub(super) fn node_died(world: &World, ip: IpAddr, death: Death) {
    state::node_died(world, ip, death);
}

/// To be called when a machine is back.
pub(super) fn node_started(world: &World, ip: IpAddr) {
    world.net.lock().down.remove(&ip);
    state::resend_stalled(world);
}

/// The address of a node by its name.
pub(crate) fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let known = match host {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        name => World::with(|world| world.nodes.lock().resolve(name)),
    };
    match known {
        Some(ip) => Ok(vec![SocketAddr::new(ip, port)]),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("the name {host} is not known"),
        )),
    }
}
