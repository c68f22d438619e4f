//! The NATS client protocol, both sides of it.
//!
//! A connection is a sequence of control lines (`VERB arguments CRLF`), some of them followed by a payload of announced
//! size and CRLF. Verbs are case-insensitive, arguments are separated by runs of blanks, a lone LF also ends a line.
//!
//! | module | what it is |
//! |---|---|
//! | [`parser`] | what a client says: CONNECT, PUB, HPUB, SUB, UNSUB, PING, PONG |
//! | [`client`] | what a server says: INFO, MSG, HMSG, +OK, -ERR, PING, PONG |
//! | [`encoder`] | both, as bytes |
//! | [`headers`] | the header block of HPUB and HMSG, and status lines |
//! | [`connect`], [`info`] | the two JSON bodies |
//! | [`error`] | what a peer did wrong: exact `-ERR` texts and reasons of closing |

pub mod parser;

pub mod client;
pub mod connect;
pub mod encoder;
pub mod error;
pub mod headers;
pub mod info;
mod line;

pub use client::{ServerOp, ServerParsed, ServerParser};
pub use connect::Connect;
pub use error::{CloseReason, ErrText, ProtoError};
pub use info::Info;
pub use parser::{ClientOp, Limits, Parsed, Parser};
