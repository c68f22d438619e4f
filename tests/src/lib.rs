//! End-to-end tests: the built binary, seen from outside only.
//!
//! [`node`] starts and ends servers as a user would: one process, its own directory, ports that the
//! system picks. The tests themselves are in `tests/tests/`, one file per kind of user:
//! an official client (`async_nats.rs`), a raw socket (`protocol.rs`, with its scripts in
//! `protocol/`; `differential.rs`), peers that are broken, slow or very many (`hostile.rs`, `slow.rs`, `crowds.rs`), an
//! operator (`startup.rs`, `durability.rs`), file systems that fail (`storage_faults.rs`), a reader of the source (`architecture.rs`). The scripts of clients in other
//! languages live in `tests/clients/` and are driven by `clients.rs`, which the third command of
//! the README runs after `.ci/setup`.

#![expect(
    clippy::panic,
    reason = "a test that cannot start its server has failed"
)]

pub mod bystander;
pub mod node;
pub mod raw;
pub mod script;
pub mod tools;
