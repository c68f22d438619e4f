//! Whole clusters in a deterministic simulator: faults, workloads, checkers.
//!
//! One run is one seed. [`Options::from_seed`] draws what the run does (swarm testing: each class of faults is on or off,
//! each intensity drawn over orders of magnitude), [`run`] plays it on a simulated cluster (of one server, so far) with
//! raw protocol clients, and gives back a [`Report`]: what was done, every broken promise, and the trace. The same options
//! give the same trace, byte for byte; [`run_twice`] proves it.
//!
//! - `options`: what a seed stands for, printed in full; `random`: the draws.
//! - `director`: boots the server, runs the phases (chaos, healing, verdict); `faults`: what it breaks.
//! - `client`, `js`: a NATS client as raw as it can be, and the JetStream API over it.
//! - `workloads`: what clients do, writing everything into `history`.
//! - `checkers`: one promise in each file; the table of them is in its `mod.rs`.
//! - `logs`: the server's log lines, as part of the trace.
//!
//! Empty without the feature `sim`: see its manifest.
#![cfg(feature = "sim")]

mod checkers;
mod client;
mod director;
mod faults;
mod history;
mod js;
mod logs;
mod options;
mod random;
mod run;
mod workloads;

pub use checkers::Broken;
pub use options::{
    ConsumerPlan, EncryptionPlan, FaultPlan, Mode, MortalPlan, Options, Plant, PublisherPlan,
    StreamKind, StreamPlan,
};
pub use run::{Report, Tally, against, run, run_twice};
