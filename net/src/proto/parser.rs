//! What a client says to a server, parsed in place.
//!
//! [`Parser::next`] looks at the start of the caller's buffer and either returns one operation, whose parts are slices
//! of that buffer, or says how many bytes it needs. It copies and allocates nothing. Between calls it remembers only how
//! far it looked, so feeding byte by byte costs the same number of byte visits as feeding everything at once.
//!
//! What the real server does in doubtful cases, found by experiment and pinned in `tests/client_lines.rs`:
//! - verbs in any case; blanks are spaces and tabs; a line may end in a bare LF, a payload must end in CRLF;
//! - PING, PONG and +OK ignore what follows them in the line, even without a blank (`PINGX` is a PING);
//! - an unknown verb is refused at its first wrong byte, not at the end of the line;
//! - wrong arguments close the connection without an `-ERR`;
//! - numbers have at most nine digits and no sign; an unreadable `max` of UNSUB means "at once";
//! - the control line limit counts arguments only, and is checked before the line is complete;
//! - a stray CR is a blank between the arguments of SUB and UNSUB, and makes a size of PUB or HPUB unreadable.
//!
//! Stricter than the real server on purpose: blanks behind a verb and ignored bytes behind PING are also bounded by the
//! control line limit, since an endless line must not occupy the buffer; and a CR never gets into a subject.

use super::error::{ProtoError, Violation};
use super::line::{self, Follow, Progress, Verb};
use crate::caps;

/// What a connection may send. The fields may change between two operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest argument part of a control line, in bytes.
    pub max_control_line: usize,
    /// Largest header block plus payload, in bytes.
    pub max_payload: usize,
    /// Whether HPUB may be used: the client said so in CONNECT and the server supports it.
    pub headers: bool,
}

impl Default for Limits {
    /// The limits of a server without configuration, before CONNECT.
    fn default() -> Self {
        Self {
            max_control_line: caps::CONTROL_LINE_BYTES_MAX,
            max_payload: caps::PAYLOAD_BYTES_MAX,
            headers: false,
        }
    }
}

/// One operation of a client. All slices point into the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientOp<'a> {
    /// `CONNECT {json}`; the JSON is unchecked, see [`super::Connect`].
    Connect(&'a [u8]),
    /// `PUB` or `HPUB`. Subject and reply are single tokens of the line, otherwise unchecked.
    Pub {
        /// Where to.
        subject: &'a [u8],
        /// Where answers go.
        reply: Option<&'a [u8]>,
        /// How many bytes at the start of `payload` are the header block; 0 = none.
        headers_len: usize,
        /// Header block and body, contiguous, without the CRLF behind them.
        payload: &'a [u8],
    },
    /// `SUB subject [queue] sid`.
    Sub {
        /// The filter; unchecked.
        subject: &'a [u8],
        /// Queue group; unchecked.
        queue: Option<&'a [u8]>,
        /// The client's own name for the subscription.
        sid: &'a [u8],
    },
    /// `UNSUB sid [max]`.
    Unsub {
        /// Which subscription.
        sid: &'a [u8],
        /// Deliveries since the subscription's start after which it ends; 0 = at once.
        max: u64,
    },
    /// `PING`.
    Ping,
    /// `PONG`.
    Pong,
    /// `INFO {json}`: legal in a client's mouth, without meaning.
    Info(&'a [u8]),
    /// `+OK`: legal in a client's mouth, without meaning.
    Ok,
    /// `-ERR text`: the client reports an error of ours and expects us to close.
    Err(&'a [u8]),
}

/// What [`Parser::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// One operation, and how many bytes of the input it took.
    Op {
        /// The operation.
        op: ClientOp<'a>,
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
    Connect,
    Pub,
    Hpub,
    Sub,
    Unsub,
    Ping,
    Pong,
    Info,
    Ok,
    Err,
}

const fn verb(name: &'static [u8], follow: Follow, kind: Kind) -> Verb<Kind> {
    Verb { name, follow, kind }
}

const VERBS: [Verb<Kind>; 10] = [
    verb(b"PUB", Follow::Blank, Kind::Pub),
    verb(b"HPUB", Follow::Blank, Kind::Hpub),
    verb(b"SUB", Follow::Blank, Kind::Sub),
    verb(b"UNSUB", Follow::Blank, Kind::Unsub),
    verb(b"PING", Follow::Ignored, Kind::Ping),
    verb(b"PONG", Follow::Ignored, Kind::Pong),
    verb(b"CONNECT", Follow::Arguments, Kind::Connect),
    verb(b"INFO", Follow::Arguments, Kind::Info),
    verb(b"+OK", Follow::Ignored, Kind::Ok),
    verb(b"-ERR", Follow::Blank, Kind::Err),
];

/// Parses the operations of one client connection.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    /// What the client may send; may be changed between two calls.
    pub limits: Limits,
    progress: Progress,
}

impl Parser {
    /// A parser at the start of a connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            progress: Progress::default(),
        }
    }

    /// The operation at the start of `input`.
    ///
    /// After [`Parsed::Op`] drop `consumed` bytes and call again. After [`Parsed::Incomplete`] call again with the same
    /// bytes and more behind them.
    ///
    /// # Errors
    /// The peer broke the protocol: the connection must be closed, and the parser not be used any more.
    #[inline]
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<Parsed<'a>, ProtoError> {
        if let Some(need) = self.progress.still_awaited(input)? {
            return Ok(Parsed::Incomplete { need });
        }
        let Some(end) = self.progress.line_end(input) else {
            line::check_prefix(
                &VERBS,
                &mut self.progress,
                input,
                self.limits.max_control_line,
            )?;
            return Ok(Parsed::Incomplete {
                need: input.len() + 1,
            });
        };
        let (line, _) = input.split_at(end);
        // The verb of almost every line of a busy connection, without a walk through the table.
        let (kind, args) = match line {
            [b'P' | b'p', b'U' | b'u', b'B' | b'b', b' ' | b'\t', ..] => {
                let rest = line.get(3..).unwrap_or_default();
                let rest = rest.strip_suffix(b"\r").unwrap_or(rest);
                let max = self.limits.max_control_line;
                (Kind::Pub, line::arguments(rest, Follow::Blank, max)?)
            }
            _ => line::find(&VERBS, line, self.limits.max_control_line)?,
        };
        let op = match kind {
            Kind::Pub => return self.publication(input, end, publication(args)?),
            Kind::Hpub => {
                if !self.limits.headers {
                    return Err(ProtoError::HeadersNotSupported);
                }
                return self.publication(input, end, publication_with_headers(args)?);
            }
            Kind::Sub => subscription(args)?,
            Kind::Unsub => unsubscription(args)?,
            Kind::Connect => ClientOp::Connect(args),
            Kind::Info => ClientOp::Info(args),
            Kind::Err => ClientOp::Err(args),
            Kind::Ping => ClientOp::Ping,
            Kind::Pong => ClientOp::Pong,
            Kind::Ok => ClientOp::Ok,
        };
        self.progress.reset();
        Ok(Parsed::Op {
            op,
            consumed: end + 1,
        })
    }

    #[inline]
    fn publication<'a>(
        &mut self,
        input: &'a [u8],
        end: usize,
        publication: Publication<'a>,
    ) -> Result<Parsed<'a>, ProtoError> {
        let Publication {
            subject,
            reply,
            headers_len,
            total,
        } = publication;
        if total > self.limits.max_payload {
            return Err(ProtoError::PayloadTooLarge);
        }
        if let Some(need) = line::payload_end(input, end, total)? {
            self.progress.need = need;
            return Ok(Parsed::Incomplete { need });
        }
        self.progress.reset();
        let payload = input.get(end + 1..end + 1 + total);
        let payload = payload.expect("all of it has come");
        let op = ClientOp::Pub {
            subject,
            reply,
            headers_len,
            payload,
        };
        Ok(Parsed::Op {
            op,
            consumed: end + 1 + total + 2,
        })
    }
}

/// A PUB or HPUB line.
struct Publication<'a> {
    subject: &'a [u8],
    reply: Option<&'a [u8]>,
    headers_len: usize,
    total: usize,
}

#[inline]
fn publication(args: &[u8]) -> Result<Publication<'_>, ProtoError> {
    const BAD: ProtoError = ProtoError::Arguments(Violation::Pub);
    let (subject, reply, total) = match line::split_strictly::<3>(args).ok_or(BAD)? {
        ([subject, total, _], 2) => (subject, None, total),
        ([subject, reply, total], 3) => (subject, Some(reply), total),
        _ => return Err(BAD),
    };
    let total = line::number(total).ok_or(ProtoError::Arguments(Violation::PubSize))?;
    Ok(Publication {
        subject,
        reply,
        headers_len: 0,
        total,
    })
}

fn publication_with_headers(args: &[u8]) -> Result<Publication<'_>, ProtoError> {
    const BAD: ProtoError = ProtoError::Arguments(Violation::Hpub);
    let (subject, reply, headers, total) = match line::split_strictly::<4>(args).ok_or(BAD)? {
        ([subject, headers, total, _], 3) => (subject, None, headers, total),
        ([subject, reply, headers, total], 4) => (subject, Some(reply), headers, total),
        _ => return Err(BAD),
    };
    const BAD_SIZE: ProtoError = ProtoError::Arguments(Violation::HpubSize);
    let headers_len = line::number(headers).ok_or(BAD_SIZE)?;
    let total = line::number(total).ok_or(BAD_SIZE)?;
    if headers_len > total {
        return Err(BAD_SIZE);
    }
    Ok(Publication {
        subject,
        reply,
        headers_len,
        total,
    })
}

fn subscription(args: &[u8]) -> Result<ClientOp<'_>, ProtoError> {
    match line::split::<3>(args) {
        Some(([subject, sid, _], 2)) => Ok(ClientOp::Sub {
            subject,
            queue: None,
            sid,
        }),
        Some(([subject, queue, sid], 3)) => Ok(ClientOp::Sub {
            subject,
            queue: Some(queue),
            sid,
        }),
        _ => Err(ProtoError::Arguments(Violation::Sub)),
    }
}

fn unsubscription(args: &[u8]) -> Result<ClientOp<'_>, ProtoError> {
    match line::split::<2>(args) {
        Some(([sid, _], 1)) => Ok(ClientOp::Unsub { sid, max: 0 }),
        Some(([sid, max], 2)) => {
            let max = line::number(max).unwrap_or(0) as u64;
            Ok(ClientOp::Unsub { sid, max })
        }
        _ => Err(ProtoError::Arguments(Violation::Unsub)),
    }
}
