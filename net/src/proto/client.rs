//! What a server says to a client, parsed in place: the mirror image of [`super::parser`], with the same promises.

use super::error::{ProtoError, Violation};
use super::line::{self, Follow, Progress, Verb};
use crate::caps;

/// One operation of a server. All slices point into the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerOp<'a> {
    /// `INFO {json}`; the JSON is unchecked, see [`super::Info`].
    Info(&'a [u8]),
    /// `MSG` or `HMSG`.
    Msg {
        /// The subject that the message was published to.
        subject: &'a [u8],
        /// Which of the client's subscriptions it is for.
        sid: &'a [u8],
        /// Where answers go.
        reply: Option<&'a [u8]>,
        /// How many bytes at the start of `payload` are the header block; 0 = none.
        headers_len: usize,
        /// Header block and body, contiguous, without the CRLF behind them.
        payload: &'a [u8],
    },
    /// `+OK`.
    Ok,
    /// `-ERR 'text'`, without the quotes.
    Err(&'a [u8]),
    /// `PING`.
    Ping,
    /// `PONG`.
    Pong,
}

/// What [`ServerParser::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerParsed<'a> {
    /// One operation, and how many bytes of the input it took.
    Op {
        /// The operation.
        op: ServerOp<'a>,
        /// Bytes to drop from the input before the next call.
        consumed: usize,
    },
    /// The input holds no whole operation. The next call must bring the same bytes and more behind them.
    Incomplete {
        /// The least number of bytes in all with which the answer can change; exact once the payload's size is known.
        need: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Info,
    Msg,
    Hmsg,
    Ok,
    Err,
    Ping,
    Pong,
}

const fn verb(name: &'static [u8], follow: Follow, kind: Kind) -> Verb<Kind> {
    Verb { name, follow, kind }
}

const VERBS: [Verb<Kind>; 7] = [
    verb(b"MSG", Follow::Blank, Kind::Msg),
    verb(b"HMSG", Follow::Blank, Kind::Hmsg),
    verb(b"+OK", Follow::Ignored, Kind::Ok),
    verb(b"PING", Follow::Ignored, Kind::Ping),
    verb(b"PONG", Follow::Ignored, Kind::Pong),
    verb(b"-ERR", Follow::Blank, Kind::Err),
    verb(b"INFO", Follow::Blank, Kind::Info),
];

/// Parses what one server sends to a client.
#[derive(Clone, Debug)]
pub struct ServerParser {
    /// Largest header block plus payload that the client is willing to take, in bytes.
    pub max_payload: usize,
    progress: Progress,
}

impl Default for ServerParser {
    /// Takes whatever a server may be configured to send (64 MiB).
    fn default() -> Self {
        Self {
            max_payload: caps::PENDING_BYTES_MAX,
            progress: Progress::default(),
        }
    }
}

impl ServerParser {
    /// The operation at the start of `input`; see [`super::Parser::next`].
    ///
    /// # Errors
    /// The server broke the protocol: the connection must be closed, and the parser not be used any more.
    #[inline]
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<ServerParsed<'a>, ProtoError> {
        if let Some(need) = self.progress.still_awaited(input)? {
            return Ok(ServerParsed::Incomplete { need });
        }
        let Some(end) = self.progress.line_end(input) else {
            line::check_prefix(
                &VERBS,
                &mut self.progress,
                input,
                caps::SERVER_LINE_BYTES_MAX,
            )?;
            return Ok(ServerParsed::Incomplete {
                need: input.len() + 1,
            });
        };
        let (text, _) = input.split_at(end);
        let (kind, args) = line::find(&VERBS, text, caps::SERVER_LINE_BYTES_MAX)?;
        let op = match kind {
            Kind::Msg => return self.delivery(input, end, delivery(args)?),
            Kind::Hmsg => return self.delivery(input, end, delivery_with_headers(args)?),
            Kind::Info => ServerOp::Info(args),
            Kind::Err => ServerOp::Err(unquoted(args)),
            Kind::Ok => ServerOp::Ok,
            Kind::Ping => ServerOp::Ping,
            Kind::Pong => ServerOp::Pong,
        };
        self.progress.reset();
        Ok(ServerParsed::Op {
            op,
            consumed: end + 1,
        })
    }

    #[inline]
    fn delivery<'a>(
        &mut self,
        input: &'a [u8],
        end: usize,
        delivery: Delivery<'a>,
    ) -> Result<ServerParsed<'a>, ProtoError> {
        let Delivery {
            subject,
            sid,
            reply,
            headers_len,
            total,
        } = delivery;
        if total > self.max_payload {
            return Err(ProtoError::PayloadTooLarge);
        }
        if let Some(need) = line::payload_end(input, end, total)? {
            self.progress.need = need;
            return Ok(ServerParsed::Incomplete { need });
        }
        self.progress.reset();
        let payload = input.get(end + 1..end + 1 + total);
        let payload = payload.expect("all of it has come");
        let op = ServerOp::Msg {
            subject,
            sid,
            reply,
            headers_len,
            payload,
        };
        Ok(ServerParsed::Op {
            op,
            consumed: end + 1 + total + 2,
        })
    }
}

/// A MSG or HMSG line.
struct Delivery<'a> {
    subject: &'a [u8],
    sid: &'a [u8],
    reply: Option<&'a [u8]>,
    headers_len: usize,
    total: usize,
}

#[inline]
fn delivery(args: &[u8]) -> Result<Delivery<'_>, ProtoError> {
    const BAD: ProtoError = ProtoError::Arguments(Violation::Msg);
    let (subject, sid, reply, total) = match line::split::<4>(args).ok_or(BAD)? {
        ([subject, sid, total, _], 3) => (subject, sid, None, total),
        ([subject, sid, reply, total], 4) => (subject, sid, Some(reply), total),
        _ => return Err(BAD),
    };
    let total = line::number(total).ok_or(BAD)?;
    Ok(Delivery {
        subject,
        sid,
        reply,
        headers_len: 0,
        total,
    })
}

fn delivery_with_headers(args: &[u8]) -> Result<Delivery<'_>, ProtoError> {
    const BAD: ProtoError = ProtoError::Arguments(Violation::Msg);
    let (subject, sid, reply, headers, total) = match line::split::<5>(args).ok_or(BAD)? {
        ([subject, sid, headers, total, _], 4) => (subject, sid, None, headers, total),
        ([subject, sid, reply, headers, total], 5) => (subject, sid, Some(reply), headers, total),
        _ => return Err(BAD),
    };
    let headers_len = line::number(headers).ok_or(BAD)?;
    let total = line::number(total).ok_or(BAD)?;
    if headers_len > total {
        return Err(BAD);
    }
    Ok(Delivery {
        subject,
        sid,
        reply,
        headers_len,
        total,
    })
}

fn unquoted(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"'")
        .and_then(|text| text.strip_suffix(b"'"))
        .unwrap_or(text)
}
