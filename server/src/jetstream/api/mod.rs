//! `$JS.API`: a subject and a JSON body in, a command or a look at the state, a JSON reply out.
//!
//! Reading order: [`errors`] (what a refusal is; the table is `error_table`), [`timestamp`], [`json`] (request bodies),
//! [`types`] (reply bodies), [`request`] (from the subject to who answers), then one file for each family of requests.

pub mod error_table;
pub mod errors;
pub mod json;
pub mod timestamp;
pub mod types;

mod account;
pub(super) mod direct;
mod erasure;
mod message;
pub mod request;
mod stream;

pub use request::{Api, Request};
