//! The task that delivers what is under way when its time has come.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use super::super::World;
use super::super::clock::SimSleep;
use super::state;

/// Spawns it on a machine of its own, which nobody can kill.
pub(super) fn start() {
    let node = madsim::runtime::Handle::current()
        .create_node()
        .name("network")
        .build();
    let world = World::current();
    drop(node.spawn(async move {
        loop {
            state::deliver_due(&world);
            wait(&world).await;
        }
    }));
}

/// Until the next delivery is due, or something with an earlier time was put under way.
async fn wait(world: &World) {
    let next = world.net.lock().next_due_nanos();
    let mut sleep = next
        .map(|at| SimSleep::for_true(Duration::from_nanos(at.saturating_sub(world.now_nanos()))));
    std::future::poll_fn(|cx| {
        let mut net = world.net.lock();
        if net.next_due_nanos() != next {
            return Poll::Ready(());
        }
        net.pump = Some(cx.waker().clone());
        drop(net);
        match &mut sleep {
            Some(sleep) => Pin::new(sleep).poll(cx),
            None => Poll::Pending,
        }
    })
    .await;
}
