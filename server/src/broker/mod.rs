//! Accounts, interest, and the way of a message from a publisher to its subscribers. Pure: no sockets, no tasks.
//!
//! Connections, streams and services of the server are all the same here: they publish into an [`Account`] (often
//! through a [`Router`], which remembers routes) and subscribe [`Sink`]s. Nothing is keyed by subject alone: a
//! subject means something only within an account.
//!
//! Reading order: [`subject`] (the grammar), [`Publish`], [`Origin`] and [`Sink`], [`Subscription`], `interest` (the trie),
//! [`Account`], [`Router`], [`FlushScope`] (many deliveries, one write).

pub mod flush;
pub mod subject;
pub mod traced;

mod account;
mod admission;
mod hash;
mod interest;
mod local;
mod message;
mod origin;
pub mod overlap;
mod route;
mod router;
mod subscription;
mod tenants;
mod watch;

#[cfg(test)]
mod naive;

pub use account::{Account, InterestCounters, InterestWatch, Outcome, SubscribeError};
pub use admission::Admission;
pub(crate) use admission::Visitor;
pub use flush::{FlushScope, Pressed};
pub(crate) use hash::Keyed;
pub use local::{Message, Messages, RequestError};
pub use message::{ClientId, Delivered, Pressure, Publish, Sink};
pub use origin::{Origin, Publisher, WriteNumber};
pub use router::Router;
pub use subscription::{Subscribe, Subscription};
pub use tenants::{Broker, GLOBAL_ACCOUNT, SYSTEM_ACCOUNT};
pub use watch::Notify;
