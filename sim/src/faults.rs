//! What breaks, when, and how it heals.
//!
//! Every fault here is one that a single server with one copy of the data must survive without losing anything that it
//! acknowledged; so every broken promise is a bug.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use halyard_runtime::sim::{Clock, Net};
use halyard_runtime::time::{Instant, sleep};
use halyard_runtime::{event, random};

use crate::director::Host;
use crate::options::FaultPlan;
use crate::workloads::{Stage, pause, percent};

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Power,
    PowerAtOperation,
    Partition,
    Reset,
    Pause,
    Clock,
    SlowDisk,
    FullDisk,
    DiskErrors,
}

fn enabled(plan: &FaultPlan) -> Vec<Fault> {
    let all = [
        (plan.kill, Fault::Kill),
        (plan.power, Fault::Power),
        (plan.power_at_operation, Fault::PowerAtOperation),
        (plan.partition, Fault::Partition),
        (plan.reset, Fault::Reset),
        (plan.pause, Fault::Pause),
        (plan.clock, Fault::Clock),
        (plan.slow_disk, Fault::SlowDisk),
        (plan.full_disk, Fault::FullDisk),
        (plan.disk_errors, Fault::DiskErrors),
    ];
    all.into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, fault)| fault)
        .collect()
}

/// Breaks and heals one thing after the other until the time of chaos is over. Returns how many there were.
pub(crate) async fn inject(stage: &Arc<Stage>, host: &mut Host, clients: &[IpAddr]) -> u64 {
    let plan = stage.options.faults.clone();
    let faults = enabled(&plan);
    let end = Instant::now() + stage.options.chaos;
    if plan.every.is_zero() || faults.is_empty() {
        sleep(stage.options.chaos).await;
        return 0;
    }
    let mut count = 0;
    while Instant::now() < end {
        pause(plan.every * 2).await;
        let pick = usize::try_from(random::below(faults.len() as u64)).unwrap_or(0);
        event!("FAULT {:?}", faults[pick]);
        strike(faults[pick], stage, host, clients).await;
        count += 1;
        host.revive().await;
    }
    count
}

async fn strike(fault: Fault, stage: &Arc<Stage>, host: &mut Host, clients: &[IpAddr]) {
    match fault {
        Fault::Kill => host.kill(),
        Fault::Power => host.power_off(),
        Fault::PowerAtOperation => power_at_operation(host).await,
        Fault::Partition => partition(host, clients).await,
        Fault::Reset => {
            for client in clients {
                Net::current().reset_between(host.ip(), *client);
            }
        }
        Fault::Pause => {
            host.node.pause();
            pause(Duration::from_secs(3)).await;
            host.node.resume();
        }
        Fault::Clock => {
            let signed = |bound: u64| {
                i64::try_from(random::below(2 * bound)).unwrap_or(0)
                    - i64::try_from(bound).unwrap_or(0)
            };
            let clock = Clock {
                drift_ppm: signed(100_000),
                skew_nanos: signed(60_000_000_000),
            };
            event!("{clock:?}");
            host.node.set_clock(clock);
        }
        Fault::SlowDisk => {
            host.disk.set_faults(|faults| {
                faults.sync_time = (Duration::from_millis(50), Duration::from_secs(1));
            });
            pause(Duration::from_secs(4)).await;
            let usual = stage.options.disk.sync_time;
            host.disk.set_faults(|faults| faults.sync_time = usual);
        }
        Fault::FullDisk => full_disk(host).await,
        Fault::DiskErrors => disk_errors(host).await,
    }
}

/// The power goes at some operation of the disk from now; half of the time once more while the server starts.
async fn power_at_operation(host: &mut Host) {
    host.disk.crash_after(random::below(100));
    if !host.crashed_within(Duration::from_secs(2)).await {
        return;
    }
    while percent(50) {
        host.disk.crash_after(random::below(60));
        host.boot();
        if !host.crashed_within(Duration::from_secs(2)).await {
            return;
        }
    }
}

async fn partition(host: &Host, clients: &[IpAddr]) {
    let net = Net::current();
    for client in clients {
        match random::below(4) {
            0 => net.partition(host.ip(), *client),
            1 => net.cut(host.ip(), *client),
            2 => net.cut(*client, host.ip()),
            _ => {}
        }
    }
    pause(Duration::from_secs(6)).await;
    net.heal_all();
}

/// Hardly any room is left for a while; then the operator makes room and restarts what stopped.
async fn full_disk(host: &mut Host) {
    let room = random::below(64 << 10);
    let used: u64 = host.disk.files().iter().map(|(_, len)| len).sum();
    host.disk
        .set_faults(|faults| faults.capacity_bytes = used + room);
    pause(Duration::from_secs(3)).await;
    if percent(30) {
        host.kill();
        host.boot();
        host.is_settled(Duration::from_secs(2)).await;
    }
    host.disk
        .set_faults(|faults| faults.capacity_bytes = u64::MAX);
    host.kill();
}

/// Writes and syncs fail for a while; then the operator restarts the process, or the machine.
async fn disk_errors(host: &mut Host) {
    let ppm = u32::try_from(1_000 + random::below(100_000)).unwrap_or(0);
    let writes = percent(50);
    host.disk.set_faults(|faults| {
        (faults.sync_error_ppm, faults.dir_sync_error_ppm) = (ppm, ppm);
        faults.write_error_ppm = if writes { ppm } else { 0 };
    });
    pause(Duration::from_secs(3)).await;
    host.disk.set_faults(|faults| {
        (faults.sync_error_ppm, faults.dir_sync_error_ppm) = (0, 0);
        faults.write_error_ppm = 0;
    });
    if percent(50) {
        host.kill();
    } else {
        host.power_off();
    }
}
