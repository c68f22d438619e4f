//! Simulated machines: an address, clocks, tasks, a disk; and the ways in which they die.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};

use madsim::runtime::Handle;
use madsim::task::NodeId;

use super::clock::{Clock, Running};
use super::net::Death;
use super::{SimDisk, World};
use crate::task::JoinHandle;

/// The address of the director and of whatever runs outside of a node.
pub(super) const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 255, 255, 254));

/// All nodes of a world.
pub(super) struct Nodes {
    machines: BTreeMap<NodeId, Machine>,
    outside: Running,
    spawned: u64,
}

struct Machine {
    name: String,
    ip: IpAddr,
    clock: Running,
    disk: Option<SimDisk>,
    paused: bool,
}

impl Nodes {
    pub(super) fn new() -> Self {
        Self {
            machines: BTreeMap::new(),
            outside: Running::new(0),
            spawned: 0,
        }
    }

    fn current(&self) -> Option<&Machine> {
        // After the end, when the last destructors run, there is no current node: asking madsim would panic.
        Handle::try_current().ok()?;
        self.machines.get(&madsim::plugin::node())
    }

    pub(super) fn current_name(&self) -> &str {
        self.current().map_or("-", |machine| &machine.name)
    }

    pub(super) fn current_clock(&self) -> Running {
        self.current().map_or(self.outside, |machine| machine.clock)
    }

    pub(super) fn current_ip(&self) -> IpAddr {
        self.current().map_or(OUTSIDE, |machine| machine.ip)
    }

    pub(super) fn knows(&self, ip: IpAddr) -> bool {
        ip == OUTSIDE || self.machines.values().any(|machine| machine.ip == ip)
    }

    /// The address of the node with this name.
    pub(super) fn resolve(&self, name: &str) -> Option<IpAddr> {
        self.machines
            .values()
            .find(|machine| machine.name == name)
            .map(|machine| machine.ip)
    }
}

/// Spawns a task on the node of the running task.
#[track_caller]
pub(crate) fn spawn<F>(future: F) -> madsim::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    prune();
    madsim::task::spawn(future)
}

/// madsim keeps a weak reference to every task ever spawned until somebody asks for the number of tasks.
fn prune() {
    let spawned = World::with(|world| {
        let mut nodes = world.nodes.lock();
        nodes.spawned += 1;
        nodes.spawned
    });
    if spawned.is_multiple_of(4096) {
        let _ = Handle::current().metrics().num_tasks();
    }
}

/// A simulated machine. Clones are the same machine.
#[derive(Clone, Debug)]
pub struct Node {
    id: NodeId,
    ip: IpAddr,
}

impl Node {
    /// Adds a machine that is switched on. Names and addresses must be new.
    ///
    /// # Panics
    /// Outside of a simulation, or when another node has the name or the address.
    pub fn new(name: &str, ip: IpAddr) -> Self {
        let handle = Handle::current();
        let id = handle.create_node().name(name).build().id();
        World::with(|world| {
            let mut nodes = world.nodes.lock();
            assert!(!nodes.knows(ip), "{ip} is taken");
            assert!(nodes.resolve(name).is_none(), "{name} is taken");
            let clock = Running::new(nodes.machines.len() as u64 + 1);
            let machine = Machine {
                name: name.to_owned(),
                ip,
                clock,
                disk: None,
                paused: false,
            };
            nodes.machines.insert(id, machine);
        });
        Self { id, ip }
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    fn machine<T>(&self, look: impl FnOnce(&mut Machine, u64) -> T) -> T {
        World::with(|world| {
            let now = world.now_nanos();
            let mut nodes = world.nodes.lock();
            look(
                nodes
                    .machines
                    .get_mut(&self.id)
                    .expect("nodes are never removed"),
                now,
            )
        })
    }

    /// Sets how its clocks run from now on.
    ///
    /// Timers that are already set keep the moment that they had.
    pub fn set_clock(&self, clock: Clock) {
        self.machine(|machine, now| machine.clock.set(clock, now));
    }

    /// Says which disk is in this machine, so that it shares the machine's fate.
    pub fn attach(&self, disk: &SimDisk) {
        self.machine(|machine, _| machine.disk = Some(disk.clone()));
        let node = self.clone();
        disk.on_crash(move || node.die(Death::Power));
    }

    /// Runs a task on this machine; it never runs when the machine is off.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        prune();
        let node = Handle::current()
            .get_node(self.id)
            .expect("nodes are never removed");
        JoinHandle::simulated(node.spawn(future))
    }

    /// Ends the process (`kill -9`): memory is lost; what was written to the disk stays, synced or not; peers see a reset.
    pub fn kill(&self) {
        self.die(Death::Process);
        if let Some(disk) = self.machine(|machine, _| machine.disk.clone()) {
            disk.process_died();
        }
    }

    /// Cuts the power: memory and un-synced writes are lost; peers see nothing at all until the machine is back.
    pub fn power_off(&self) {
        self.die(Death::Power);
        if let Some(disk) = self.machine(|machine, _| machine.disk.clone()) {
            disk.power_loss();
        }
    }

    fn die(&self, death: Death) {
        let handle = Handle::current();
        // A paused node is resumed first: madsim drops its waiting tasks under its own lock, and their destructors
        // would wait for it for ever.
        if self.machine(|machine, _| std::mem::take(&mut machine.paused)) {
            handle.resume(self.id);
        }
        World::with(|world| super::net::node_died(world, self.ip, death));
        handle.kill(self.id);
    }

    /// Switches the machine on again, with no task on it.
    pub fn start(&self) {
        Handle::current().restart(self.id);
        World::with(|world| super::net::node_started(world, self.ip));
    }

    /// Stops all its tasks where they are; timers, bytes and peers go on without it.
    pub fn pause(&self) {
        self.machine(|machine, _| machine.paused = true);
        Handle::current().pause(self.id);
    }

    /// Lets a paused machine go on.
    pub fn resume(&self) {
        self.machine(|machine, _| machine.paused = false);
        Handle::current().resume(self.id);
    }
}

/// Drops every task of every node at its next turn.
pub(super) fn stop_all() {
    let ids: Vec<_> = World::with(|world| {
        let nodes = world.nodes.lock();
        nodes
            .machines
            .iter()
            .map(|(id, machine)| (*id, machine.paused))
            .collect()
    });
    let handle = Handle::current();
    for (id, paused) in ids {
        if paused {
            handle.resume(id);
        }
        handle.kill(id);
    }
}
