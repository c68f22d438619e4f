//! Streams and consumers: subscribers like any other, whose state is decided in a replicated log.
//!
//! Reading order: [`limits`], [`config`] (what a stream is told to be), [`api`] (errors and the wire's shapes),
//! [`stream`] (the rules of one stream), [`consumer`].

pub mod limits;

pub mod config;

pub mod api;

pub mod consumer;
pub mod stream;
