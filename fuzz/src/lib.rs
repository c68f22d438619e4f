//! Fuzz targets; each also runs as a plain test. Here: what several targets share. See README.md.

#![cfg(feature = "sim")]

pub mod conversation;
pub mod group;
pub mod number;
pub mod server;
