//! What a stream is told to be: its configuration, the defaults, and which changes are legal. Pure.
//!
//! Reading order: [`stream`] (the configuration as it travels), `validate` (defaults and refusals at creation),
//! `update` (what may change later).

pub mod stream;
mod update;
mod validate;

pub use stream::{
    Compression, ConsumerLimits, Discard, PersistMode, Placement, Retention, Storage, StreamConfig,
};
pub use update::check_update;
pub use validate::{
    Defaults, check_create, check_form, check_pedantic, check_restore, fill, normalize, seal,
};
pub(crate) use validate::{check_name, invalid_name};
