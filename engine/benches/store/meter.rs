//! What something costs: CPU time of the thread and wall time, over rounds.

use std::fmt;
use std::time::Duration;

use halyard_runtime::{measure, time::Instant};

/// One measured stretch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
}

impl Cost {
    pub(crate) fn of<T>(work: impl FnOnce() -> T) -> (Self, T) {
        let (wall, cpu) = (Instant::now(), measure::thread_cpu());
        let result = work();
        let cpu = measure::thread_cpu() - cpu;
        let wall = wall.elapsed();
        (Self { cpu, wall }, result)
    }

    pub(crate) fn each(self, count: u64) -> Self {
        let nanos = |time: Duration| Duration::from_nanos(time.as_nanos() as u64 / count.max(1));
        Self {
            cpu: nanos(self.cpu),
            wall: nanos(self.wall),
        }
    }
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.wall += other.wall;
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", short(self.cpu), short(self.wall))
    }
}

/// The cost of one operation in several rounds: median CPU time; median, lowest and highest wall time.
pub(crate) struct Spread(Vec<Cost>);

impl Spread {
    /// `rounds` rounds of `count` operations; `operation` gets a number that is new each time.
    pub(crate) fn of(rounds: u64, count: u64, mut operation: impl FnMut(u64)) -> Self {
        let round = |round: u64| {
            let range = round * count..(round + 1) * count;
            Cost::of(|| range.for_each(&mut operation)).0.each(count)
        };
        Self((0..rounds).map(round).collect())
    }

    /// `count` operations, each measured alone and with `before`, unmeasured, in front of it.
    pub(crate) fn of_each(
        count: u64,
        mut before: impl FnMut(),
        mut operation: impl FnMut(u64),
    ) -> Self {
        let one = |number: u64| {
            before();
            Cost::of(|| operation(number)).0
        };
        Self((0..count).map(one).collect())
    }

    fn sorted(&self, part: impl Fn(&Cost) -> Duration) -> Vec<Duration> {
        let mut times: Vec<Duration> = self.0.iter().map(part).collect();
        times.sort_unstable();
        times
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cpu, wall) = (self.sorted(|cost| cost.cpu), self.sorted(|cost| cost.wall));
        let middle = wall.len() / 2;
        write!(f, "{}; {}", short(cpu[middle]), short(wall[middle]))?;
        if wall.len() > 1 {
            write!(f, " ({}-{})", short(wall[0]), short(wall[wall.len() - 1]))?;
        }
        Ok(())
    }
}

/// Three figures and a unit.
pub(crate) fn short(time: Duration) -> String {
    let nanos = time.as_nanos() as f64;
    let (value, unit) = match nanos {
        _ if nanos < 1e3 => (nanos, "ns"),
        _ if nanos < 1e6 => (nanos / 1e3, "us"),
        _ if nanos < 1e9 => (nanos / 1e6, "ms"),
        _ => (nanos / 1e9, "s"),
    };
    let digits = if value < 10.0 && unit != "ns" { 1 } else { 0 };
    format!("{value:.digits$} {unit}")
}
