//! A client that knows no protocol: bytes out, lines in. What it shows is exactly what the server sent.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// How long a line may take that must come: generous, since test machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a connection says when asked for a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// One line, with its end shown as far as it is not CRLF; see [`shown`].
    Line(String),
    /// Nothing within the given time; bytes of an unfinished line, if any, are shown.
    Silence(String),
    /// The server closed (or reset) the connection; bytes of an unfinished line, if any, are shown.
    Closed(String),
}

/// A socket to a server, and what was received and not looked at yet.
#[derive(Debug)]
pub struct Raw {
    socket: TcpStream,
    received: Vec<u8>,
    closed: bool,
}

impl Raw {
    /// Connects; reads nothing yet.
    pub fn connect(address: &str) -> Self {
        let socket = TcpStream::connect(address).expect("the server accepts connections");
        socket.set_nodelay(true).expect("a socket option");
        Self {
            socket,
            received: Vec::new(),
            closed: false,
        }
    }

    /// Connects, drops the INFO, sends CONNECT with this JSON and waits until it is in force.
    pub fn client(address: &str, json: &str) -> Self {
        let mut raw = Self::connect(address);
        assert!(
            raw.line().starts_with("INFO {"),
            "a server starts with INFO"
        );
        raw.send(format!("CONNECT {json}\r\n").as_bytes());
        raw.settle();
        raw
    }

    /// A client that wants no acknowledgement of its lines and understands everything.
    pub fn quiet(address: &str) -> Self {
        Self::client(
            address,
            r#"{"verbose":false,"pedantic":false,"headers":true,"no_responders":true}"#,
        )
    }

    /// Sends bytes. A connection that the server closed meanwhile swallows them.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    /// PING, and everything up to its PONG: all that was sent before is in force. Returns the lines before the PONG,
    /// without the server's own PINGs, which are answered.
    pub fn settle(&mut self) -> Vec<String> {
        self.send(b"PING\r\n");
        let mut before = Vec::new();
        loop {
            match self.line() {
                line if line == "PONG" => return before,
                line if line == "PING" => self.send(b"PONG\r\n"),
                line => before.push(line),
            }
        }
    }

    /// The next line, which must come.
    pub fn line(&mut self) -> String {
        match self.hear(PATIENCE) {
            Heard::Line(line) => line,
            other => panic!("no line but {other:?}"),
        }
    }

    /// The next line, or why there is none.
    pub fn hear(&mut self, within: Duration) -> Heard {
        let deadline = Instant::now() + within;
        loop {
            if let Some(end) = self.received.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Heard::Line(match line.strip_suffix(b"\r\n") {
                    Some(line) => shown(line),
                    None => shown(&line),
                });
            }
            if self.closed {
                return Heard::Closed(shown(&std::mem::take(&mut self.received)));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.receive(left) {
                return Heard::Silence(shown(&self.received));
            }
        }
    }

    /// Puts a line back in front of what is still to be heard.
    pub fn unread(&mut self, line: &str) {
        let line = [bytes_of(line).as_slice(), b"\r\n", &self.received].concat();
        self.received = line;
    }

    /// Reads once; false when nothing came in time.
    fn receive(&mut self, within: Duration) -> bool {
        self.socket
            .set_read_timeout(Some(within))
            .expect("a timeout above zero");
        let mut chunk = [0; 64 * 1024];
        match self.socket.read(&mut chunk) {
            Ok(0) => self.closed = true,
            Ok(n) => self
                .received
                .extend_from_slice(chunk.get(..n).unwrap_or_default()),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.closed = true,
        }
        true
    }

    /// Reads until the server closes: all bytes. Panics if it does not.
    pub fn until_closed(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        while !self.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && self.receive(left),
                "the server keeps the connection open"
            );
        }
        std::mem::take(&mut self.received)
    }

    /// The bytes that come in place of the expected ones, as many. A PING of the server, which comes at a time of its own,
    /// is left out where the expected bytes begin otherwise.
    pub fn in_place_of(&mut self, expected: &[u8]) -> Vec<u8> {
        const PING: &[u8] = b"PING\r\n";
        let mut same = 0;
        loop {
            let known = &self.received[same..];
            same += std::iter::zip(known, &expected[same..])
                .take_while(|(a, b)| a == b)
                .count();
            let other = &self.received[same..];
            if other.starts_with(PING) {
                self.received.drain(same..same + PING.len());
            } else if same == expected.len() || !PING.starts_with(other) {
                break;
            } else {
                assert!(
                    !self.closed,
                    "closed after {same} of {} bytes",
                    expected.len()
                );
                assert!(
                    self.receive(PATIENCE),
                    "{same} of {} bytes came",
                    expected.len()
                );
            }
        }
        while self.received.len() < expected.len() {
            assert!(!self.closed && self.receive(PATIENCE), "too few bytes came");
        }
        self.received.drain(..expected.len()).collect()
    }

    /// Ends the sending side only.
    pub fn half_close(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// The socket itself.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

/// Bytes as a line of a transcript: printable ASCII as it is, the rest and backslashes escaped.
pub fn shown(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => write!(text, "\\x{byte:02x}").expect("a string takes everything"),
        }
    }
    text
}

/// The inverse of [`shown`]; `{x*100}` stands for a hundred `x`.
pub fn bytes_of(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some((piece, count, behind)) = repetition(rest) {
            bytes.extend(piece.as_bytes().repeat(count));
            rest = behind;
        } else if let Some((byte, behind)) = escape(rest) {
            bytes.push(byte);
            rest = behind;
        } else {
            let len = first.len_utf8();
            bytes.extend_from_slice(&rest.as_bytes()[..len]);
            rest = &rest[len..];
        }
    }
    bytes
}

fn repetition(text: &str) -> Option<(&str, usize, &str)> {
    let (inner, behind) = text.strip_prefix('{')?.split_once('}')?;
    let (piece, count) = inner.rsplit_once('*')?;
    Some((piece, count.parse().ok()?, behind))
}

fn escape(text: &str) -> Option<(u8, &str)> {
    let text = text.strip_prefix('\\')?;
    let kind = text.chars().next()?;
    let behind = text.get(kind.len_utf8()..)?;
    match kind {
        'r' => Some((b'\r', behind)),
        'n' => Some((b'\n', behind)),
        't' => Some((b'\t', behind)),
        '\\' => Some((b'\\', behind)),
        'x' => Some((
            u8::from_str_radix(behind.get(..2)?, 16).ok()?,
            behind.get(2..)?,
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_sent() {
        let all: Vec<u8> = (0..=255).filter(|&b| b != b'{').collect();
        assert_eq!(bytes_of(&shown(&all)), all);
        assert_eq!(bytes_of("a{xy*3}b\\x00{}{a*b}"), b"axyxyxyb\0{}{a*b}");
    }
}
