//! What the server tells about itself over HTTP.
//!
//! The endpoints, their options and the names and types of their fields are those of nats-server, because dashboards,
//! exporters and the `nats` tools read them: one file for each. An answer is built when it is asked for, from snapshots
//! that other modules give; nothing here is on the path of a message. What we do not have yet (routes, gateways, leaf
//! nodes) is shown as empty, which is the truth.

mod state;
pub use state::{Handle, StartError, Streams, start};

mod accountz;
mod connz;
mod healthz;
mod index;
mod jsz;
mod links;
mod queues;
mod subsz;
mod varz;

mod http;
mod process;
mod query;
mod text;
