//! The simulated world: nodes, their clocks, their network and their disks, and one trace of what happened.
//!
//! [`run`] runs one seed from beginning to end on a fresh thread; everything in it is a function of the seed. The future
//! that it is given is the director: it stands outside of all nodes, makes them ([`Node::new`]), runs servers and clients
//! on them, and breaks things (`Node::kill`, `Node::power_off`, [`Net`], [`SimDisk`]).
//!
//! madsim supplies the executor (it picks the next ready task by a seeded draw), virtual time and the generator.
//! What it lacks is here: see docs/decisions/own-simulated-network.md.

mod clock;
mod disk;
mod net;
mod node;

pub use clock::Clock;
pub(crate) use clock::{SimSleep, monotonic_nanos, wall_nanos};
pub use disk::{DiskFaults, Failure, Found, Place, SimDisk};
pub use net::{Net, NetOptions};
pub(crate) use net::{SimListener, SimStream, resolve};
pub use node::Node;
pub(crate) use node::spawn;

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use madsim::rand::RngCore;
use parking_lot::Mutex;

/// What one run of a simulation shares. One for each thread that runs one.
pub(crate) struct World {
    seed: u64,
    trace: Mutex<Vec<String>>,
    nodes: Mutex<node::Nodes>,
    net: Mutex<net::State>,
    // Kept here and not asked of madsim, so that destructors which run after the end still find them.
    time: madsim::time::TimeHandle,
    rng: Mutex<madsim::rand::GlobalRng>,
    planted: Mutex<Option<&'static str>>,
}

thread_local! {
    static WORLD: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
}

/// See [`crate::in_sim`].
#[inline]
pub(crate) fn active() -> bool {
    // A thread whose locals are gone is no longer simulating.
    WORLD
        .try_with(|world| world.borrow().is_some())
        .unwrap_or(false)
}

impl World {
    /// The world of this thread.
    ///
    /// # Panics
    /// Outside of [`run`].
    pub(crate) fn current() -> Arc<Self> {
        let world = WORLD.with(|world| world.borrow().clone());
        world.expect("this is only possible inside a simulation")
    }

    fn with<T>(look: impl FnOnce(&Self) -> T) -> T {
        look(&Self::current())
    }

    /// True time since the simulation began, the same for all nodes, in nanoseconds.
    fn now_nanos(&self) -> u64 {
        u64::try_from(self.time.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> u64 {
        self.rng.lock().next_u64()
    }

    fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.random() % bound }
    }

    fn chance(&self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < u64::from(per_million)
    }

    fn record(&self, event: fmt::Arguments<'_>) {
        let name = self.nodes.lock().current_name().to_owned();
        let line = format!("{:>15} {name:<8} {event}", self.now_nanos());
        self.trace.lock().push(line);
    }
}

/// A random number from the run's generator.
pub(crate) fn random_u64() -> u64 {
    World::with(World::random)
}

/// Fills `buffer` from the run's generator.
pub(crate) fn random_fill(buffer: &mut [u8]) {
    World::with(|world| world.rng.lock().fill_bytes(buffer));
}

/// Adds a line to the trace of this thread's simulation.
pub(crate) fn record(event: fmt::Arguments<'_>) {
    World::with(|world| world.record(event));
}

/// True time since the simulation began, which no node can see.
pub fn now() -> Duration {
    World::with(|world| world.time.elapsed())
}

/// Switches on the bug of this name; see [`crate::planted`].
///
/// # Panics
/// Outside of a simulation.
pub fn plant(bug: &'static str) {
    World::with(|world| *world.planted.lock() = Some(bug));
}

thread_local! {
    /// See [`plant_here`].
    static PLANTED_HERE: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Switches on the bug of this name on this thread, simulation or not, until what is returned is dropped: for tests of one
/// machine.
#[must_use]
pub fn plant_here(bug: &'static str) -> PlantedHere {
    PLANTED_HERE.set(Some(bug));
    PlantedHere(())
}

/// See [`plant_here`].
#[derive(Debug)]
pub struct PlantedHere(());

impl Drop for PlantedHere {
    fn drop(&mut self) {
        PLANTED_HERE.set(None);
    }
}

/// See [`crate::planted`].
#[inline]
pub(crate) fn is_planted(bug: &str) -> bool {
    PLANTED_HERE.get() == Some(bug)
        || (active()
            && World::with(|world| world.planted.lock().is_some_and(|planted| planted == bug)))
}

/// Whether the bug that this simulation has planted is a panic.
pub(crate) fn plants_a_panic() -> bool {
    World::with(|world| {
        world
            .planted
            .lock()
            .is_some_and(|bug| bug.starts_with("panic-"))
    })
}

/// The seed of this run.
pub fn seed() -> u64 {
    World::with(|world| world.seed)
}

/// What came of one run.
#[derive(Debug)]
pub struct Outcome<T> {
    /// What the director returned, or the text of the panic that ended the run.
    pub result: Result<T, String>,
    /// One line for each [`crate::event!`], in order: virtual nanoseconds, node, text.
    pub trace: Vec<String>,
    /// Virtual time that passed.
    pub elapsed: Duration,
}

impl<T> Outcome<T> {
    /// A checksum of the trace, for comparing two runs of a seed.
    pub fn trace_hash(&self) -> u64 {
        // FNV-1a: no secret is involved, and it is the same everywhere.
        let bytes = self
            .trace
            .iter()
            .flat_map(|line| line.bytes().chain([b'\n']));
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

/// Runs the director that `make` returns, with everything drawn from `seed`, for at most `limit` of virtual time.
///
/// A fresh thread for each run: the keys of std's hash maps are drawn once for each thread.
///
/// # Panics
/// When the system gives no thread.
pub fn run<F, T>(
    seed: u64,
    limit: Duration,
    make: impl FnOnce() -> F + Send + 'static,
) -> Outcome<T>
where
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let slot: Arc<Mutex<Option<Arc<World>>>> = Arc::default();
    let thread_slot = Arc::clone(&slot);
    #[expect(
        clippy::disallowed_methods,
        reason = "the thread that the simulation runs on"
    )]
    let thread = std::thread::Builder::new()
        .name(format!("sim-{seed}"))
        .stack_size(16 << 20)
        .spawn(move || run_here(seed, limit, &thread_slot, make))
        .expect("a thread for the simulation");
    let result = thread.join().map_err(|panic| panic_text(panic.as_ref()));
    let world = slot.lock().take();
    let (trace, elapsed) = world.map_or_else(Default::default, |world| {
        (
            std::mem::take(&mut *world.trace.lock()),
            world.time.elapsed(),
        )
    });
    Outcome {
        result,
        trace,
        elapsed,
    }
}

fn run_here<F, T>(
    seed: u64,
    limit: Duration,
    slot: &Mutex<Option<Arc<World>>>,
    make: impl FnOnce() -> F,
) -> T
where
    F: Future<Output = T> + 'static,
{
    let mut runtime =
        madsim::runtime::Runtime::with_seed_and_config(seed, madsim::Config::default());
    runtime.set_time_limit(limit);
    let output = runtime.block_on(async {
        let world = Arc::new(World {
            seed,
            trace: Mutex::default(),
            nodes: Mutex::new(node::Nodes::new()),
            net: Mutex::default(),
            time: madsim::time::TimeHandle::current(),
            rng: Mutex::new(madsim::rand::thread_rng()),
            planted: Mutex::new(None),
        });
        *slot.lock() = Some(Arc::clone(&world));
        WORLD.with(|current| *current.borrow_mut() = Some(world));
        net::start();
        let output = make().await;
        // Destructors of tasks must run while the world still stands.
        node::stop_all();
        crate::time::sleep(Duration::from_millis(1)).await;
        output
    });
    drop(runtime);
    if let Some(world) = WORLD.with(|current| current.borrow_mut().take()) {
        // These point back to the world through the tasks that they wake and the disks that they own.
        world.net.lock().pump = None;
        *world.nodes.lock() = node::Nodes::new();
    }
    output
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a text".to_owned()
    }
}
