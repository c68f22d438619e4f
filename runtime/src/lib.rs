//! The doors: time, tasks, randomness, sockets, disk; over tokio and the real disk, or over madsim and a simulated one.
//!
//! Every other crate reaches the outside world through this one, so that the very code that ships also runs inside a
//! deterministic simulator. Without the cargo feature `sim` each door is a thin inlined call into tokio or std. With it,
//! each door asks [`in_sim`] at the time of the call: inside a simulated node it leads to the simulated twin (virtual
//! time, seeded randomness, an in-memory network, [`sim`]), elsewhere still to tokio. No generics leak to the callers.
//!
//! It uses no other crate of this workspace. This is the only crate that names tokio's runtime, madsim or `std::fs`. tokio's runtime-free parts (`sync`, the `io`
//! traits) may be used anywhere, with two exceptions that are not deterministic: `tokio::sync::watch` (use [`watch`])
//! and `select!` without `biased;`.
//!
//! Reading order: [`time`], [`task`], [`lane`], [`random`], [`net`], [`disk`], [`signal`], [`watch`], then [`sim`]; [`measure`] is for
//! benchmarks.

#[cfg(all(feature = "sim", not(madsim)))]
compile_error!(
    "feature `sim` needs `--cfg madsim`: build inside the repository (see .cargo/config.toml) with RUSTFLAGS unset"
);

pub mod time;

pub mod task;

pub mod lane;

pub mod random;

pub mod net;

pub mod disk;

pub mod contain;

pub mod descriptors;

pub mod signal;

pub mod watch;

pub mod measure;

#[cfg(feature = "sim")]
pub mod sim;

/// True when the caller runs inside a simulation; a constant `false` in builds without the feature `sim`.
#[inline]
pub fn in_sim() -> bool {
    #[cfg(feature = "sim")]
    return sim::active();
    #[cfg(not(feature = "sim"))]
    false
}

/// True when a simulation has switched on the bug of this name; a constant `false` in builds without the feature `sim`.
///
/// A planted bug is a few lines beside the right ones that do the wrong thing, so that the simulator can prove that its
/// checkers notice.
#[inline]
pub fn planted(_bug: &str) -> bool {
    #[cfg(feature = "sim")]
    return sim::is_planted(_bug);
    #[cfg(not(feature = "sim"))]
    false
}

/// Records one line in the simulation's trace, stamped with virtual time and node; does nothing elsewhere.
///
/// The trace is what "same seed, same trace" compares, so a line must hold nothing that differs between two runs:
/// no addresses of memory, no task ids, no real time.
#[macro_export]
macro_rules! event {
    ($($arg:tt)*) => { $crate::record_event(::std::format_args!($($arg)*)) };
}

/// What [`event!`] calls.
#[inline]
pub fn record_event(_event: std::fmt::Arguments<'_>) {
    #[cfg(feature = "sim")]
    if in_sim() {
        sim::record(_event);
    }
}
