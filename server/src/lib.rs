//! The broker, as a library and as the halyard binary.

pub mod config;
