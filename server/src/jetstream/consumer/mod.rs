//! Consumers: what each has seen, what waits for an ack, and what it gets next.
//!
//! Reading order:
//!
//! - [`config`], [`check`]: the API's JSON, its defaults and refusals. [`request`]: the create request around it.
//! - [`command`]: what happens to a consumer, as it stands in the log. [`effect`]: what that means to others.
//! - [`machine`]: one consumer's replicated state; [`cursor`] (where it stands), [`pending`] (what waits for an ack),
//!   [`sent`] (what went out), [`select`] (the same in former logs), [`record`] (its bytes in the store).
//! - [`set`]: all consumers of a stream, which is what the group's machine holds. [`messages`] is all that they see
//!   of the stream; [`over_store`] answers it from the engine.
//! - [`restored`]: a consumer that comes from a backup.
//! - [`info`]: what the API tells about a consumer.
//! - [`leader`]: what only the leader does: waiting requests, push delivery, acks on their way into the log.
//!
//! All but `leader` and [`api`] (requests) is pure and the same on every replica: time comes with the command, order from sorted maps.

pub mod check;
mod claims;
pub mod command;
pub mod config;
pub mod cursor;
pub mod effect;
pub mod info;
pub mod machine;
pub mod messages;
pub mod over_store;
mod pedantic;
pub mod pending;
pub mod record;
pub mod request;
pub mod restored;
pub mod select;
pub mod sent;
pub mod set;

pub mod leader;

pub mod api;

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod script_test;
#[cfg(test)]
mod stage;

pub use command::{Action, Command, ConsumerId, Grant, Seen};
pub use config::{AckPolicy, ConsumerConfig, DeliverPolicy, ReplayPolicy};
pub use effect::Effect;
pub use machine::{Consumer, Position};
pub use messages::Messages;
pub use over_store::StoreMessages;
pub use restored::Restored;
pub use select::{Delivery, Selection};
pub use set::{Consumers, Ctx, Reply, Start};
