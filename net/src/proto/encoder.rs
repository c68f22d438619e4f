//! Operations as bytes, appended to a growing buffer.
//!
//! Every function writes one whole operation including its CRLF (except [`msg_head`] and [`pub_head`], whose payload
//! the caller brings). Nothing is validated here: a subject that came through a parser or a `Subject` type cannot hold a
//! blank or a line end. No formatting machinery: numbers are written digit by digit.

use super::error::ErrText;

/// A buffer that bytes can be appended to.
pub trait Out {
    /// Makes room for so many more bytes, so that the writes after it need not grow the buffer.
    fn reserve(&mut self, more: usize);
    /// Appends.
    fn put(&mut self, bytes: &[u8]);
}

impl Out for Vec<u8> {
    #[inline]
    fn reserve(&mut self, more: usize) {
        Self::reserve(self, more);
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Out for bytes::BytesMut {
    #[inline]
    fn reserve(&mut self, more: usize) {
        Self::reserve(self, more);
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Most bytes that one operation takes beside subject, sid, reply, header block and payload.
const FRAME_BYTES_MAX: usize = 64;
/// Digits of the largest `u64`.
const DIGITS_MAX: usize = 20;

/// `INFO {json}`, with the blank before the line end that the real server writes.
pub fn info(out: &mut impl Out, json: &[u8]) {
    out.reserve(json.len() + FRAME_BYTES_MAX);
    out.put(b"INFO ");
    out.put(json);
    out.put(b" \r\n");
}

/// `+OK`
pub fn ok(out: &mut impl Out) {
    out.put(b"+OK\r\n");
}

/// `-ERR 'text'`
pub fn err(out: &mut impl Out, text: &ErrText<'_>) {
    out.put(b"-ERR '");
    text.write(out);
    out.put(b"'\r\n");
}

/// `PING`
pub fn ping(out: &mut impl Out) {
    out.put(b"PING\r\n");
}

/// `PONG`
pub fn pong(out: &mut impl Out) {
    out.put(b"PONG\r\n");
}

/// `MSG`, or `HMSG` when there is a header block.
#[inline]
pub fn msg(
    out: &mut impl Out,
    subject: &[u8],
    sid: &[u8],
    reply: Option<&[u8]>,
    headers: &[u8],
    payload: &[u8],
) {
    let reply_len = reply.map_or(0, <[u8]>::len);
    out.reserve(
        subject.len() + sid.len() + reply_len + headers.len() + payload.len() + FRAME_BYTES_MAX,
    );
    msg_head(
        out,
        subject,
        sid,
        reply,
        headers.len(),
        headers.len() + payload.len(),
    );
    if !headers.is_empty() {
        out.put(headers);
    }
    out.put(payload);
    out.put(b"\r\n");
}

/// The control line of `MSG` (or of `HMSG` when `headers_len > 0`); `total` counts header block and payload. The caller
/// appends those and a CRLF.
#[inline]
pub fn msg_head(
    out: &mut impl Out,
    subject: &[u8],
    sid: &[u8],
    reply: Option<&[u8]>,
    headers_len: usize,
    total: usize,
) {
    out.put(if headers_len == 0 {
        b"MSG ".as_slice()
    } else {
        b"HMSG "
    });
    out.put(subject);
    out.put(b" ");
    out.put(sid);
    sizes(out, reply, headers_len, total);
}

/// `CONNECT {json}`
pub fn connect(out: &mut impl Out, json: &[u8]) {
    out.put(b"CONNECT ");
    out.put(json);
    out.put(b"\r\n");
}

/// `PUB`, or `HPUB` when there is a header block. (`pub` is a keyword.)
#[inline]
pub fn publish(
    out: &mut impl Out,
    subject: &[u8],
    reply: Option<&[u8]>,
    headers: &[u8],
    payload: &[u8],
) {
    pub_head(
        out,
        subject,
        reply,
        headers.len(),
        headers.len() + payload.len(),
    );
    out.put(headers);
    out.put(payload);
    out.put(b"\r\n");
}

/// The control line of `PUB` (or of `HPUB` when `headers_len > 0`); `total` counts header block and payload. The caller
/// appends those and a CRLF.
#[inline]
pub fn pub_head(
    out: &mut impl Out,
    subject: &[u8],
    reply: Option<&[u8]>,
    headers_len: usize,
    total: usize,
) {
    out.put(if headers_len == 0 {
        b"PUB ".as_slice()
    } else {
        b"HPUB "
    });
    out.put(subject);
    sizes(out, reply, headers_len, total);
}

/// `SUB subject [queue] sid`
pub fn sub(out: &mut impl Out, subject: &[u8], queue: Option<&[u8]>, sid: &[u8]) {
    out.put(b"SUB ");
    out.put(subject);
    out.put(b" ");
    if let Some(queue) = queue {
        out.put(queue);
        out.put(b" ");
    }
    out.put(sid);
    out.put(b"\r\n");
}

/// `UNSUB sid [max]`; 0 = at once.
pub fn unsub(out: &mut impl Out, sid: &[u8], max: u64) {
    out.put(b"UNSUB ");
    out.put(sid);
    if max > 0 {
        out.put(b" ");
        number(out, max);
    }
    out.put(b"\r\n");
}

/// The end of a control line: `[ reply][ headers_len] total CRLF`.
#[inline]
fn sizes(out: &mut impl Out, reply: Option<&[u8]>, headers_len: usize, total: usize) {
    if let Some(reply) = reply {
        out.put(b" ");
        out.put(reply);
    }
    // Both numbers and the line end in one write: copies of a few bytes cost more to start than to do.
    const SIZE: usize = 2 * DIGITS_MAX + 4;
    let mut text = [0_u8; SIZE];
    let mut at = SIZE - 2;
    text[at] = b'\r';
    text[at + 1] = b'\n';
    at = digits(&mut text, at, total as u64);
    at -= 1;
    text[at] = b' ';
    if headers_len > 0 {
        at = digits(&mut text, at, headers_len as u64);
        at -= 1;
        text[at] = b' ';
    }
    out.put(&text[at..]);
}

/// Appends a number in decimal.
#[inline]
pub fn number(out: &mut impl Out, value: u64) {
    let mut text = [0_u8; DIGITS_MAX];
    let at = digits(&mut text, DIGITS_MAX, value);
    out.put(&text[at..]);
}

/// Writes `value` so that it ends before `end`; returns where it starts.
#[inline]
fn digits(text: &mut [u8], mut end: usize, mut value: u64) -> usize {
    loop {
        end -= 1;
        text[end] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::error::Port;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn operations_read_as_the_protocol_says() {
        let table = [
            (
                text(|o| msg(o, b"a.b", b"7", None, b"", b"hi")),
                "MSG a.b 7 2\r\nhi\r\n",
            ),
            (
                text(|o| msg(o, b"a", b"7", Some(b"r"), b"", b"")),
                "MSG a 7 r 0\r\n\r\n",
            ),
            (
                text(|o| msg(o, b"a", b"7", Some(b"r"), b"NATS/1.0\r\n\r\n", b"x")),
                "HMSG a 7 r 12 13\r\nNATS/1.0\r\n\r\nx\r\n",
            ),
            (
                text(|o| publish(o, b"a", Some(b"r"), b"", b"abc")),
                "PUB a r 3\r\nabc\r\n",
            ),
            (
                text(|o| publish(o, b"a", None, b"NATS/1.0\r\n\r\n", b"")),
                "HPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n",
            ),
            (
                text(|o| sub(o, b"a.>", Some(b"q"), b"1")),
                "SUB a.> q 1\r\n",
            ),
            (text(|o| sub(o, b"a.>", None, b"1")), "SUB a.> 1\r\n"),
            (text(|o| unsub(o, b"1", 0)), "UNSUB 1\r\n"),
            (text(|o| unsub(o, b"1", 10)), "UNSUB 1 10\r\n"),
            (text(|o| info(o, b"{}")), "INFO {} \r\n"),
            (text(|o| connect(o, b"{}")), "CONNECT {}\r\n"),
            (text(|o| number(o, u64::MAX)), "18446744073709551615"),
            (text(|o| number(o, 0)), "0"),
            (
                text(|o| err(o, &ErrText::WrongPort(Port::Route))),
                "-ERR 'attempted to connect to route port'\r\n",
            ),
            (
                text(|o| {
                    err(
                        o,
                        &ErrText::SubscriptionDenied {
                            subject: b"a",
                            queue: Some(b"_sys_"),
                        },
                    );
                }),
                "-ERR 'Permissions Violation for Subscription to \"a\" using queue \"_sys_\"'\r\n",
            ),
        ];
        for (found, expected) in table {
            assert_eq!(found, expected);
        }
    }
}
