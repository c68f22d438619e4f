//! The doors: time, tasks, randomness, sockets, disk; over tokio and the real disk, or over madsim and a simulated one.
