//! One connection over which many requests are under way at once: frames out, answers sorted by their inboxes.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// One message that came: header block and payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its subject.
    pub subject: String,
    /// Where an answer to it goes, empty for nowhere.
    pub reply: String,
    /// The header block, empty if there is none.
    pub headers: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
}

/// Answers by the subscription that they came to, in the order in which they came.
pub(crate) type Answers = BTreeMap<usize, Vec<Answer>>;

/// A client's connection.
pub(crate) struct Wire {
    socket: TcpStream,
    received: Vec<u8>,
    taken: usize,
    pongs: usize,
}

impl Wire {
    /// Connects.
    pub(crate) fn connect(address: &str) -> Self {
        let socket = TcpStream::connect(address).expect("the server accepts connections");
        socket.set_nodelay(true).expect("a socket option");
        let mut wire = Self {
            socket,
            received: Vec::new(),
            taken: 0,
            pongs: 0,
        };
        wire.send(
            b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nPING\r\n",
        );
        let mut none = Answers::new();
        while wire.pongs == 0 {
            assert!(wire.hear(&mut none, Duration::from_secs(10)), "no PONG");
        }
        wire
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the server reads");
    }

    /// Reads once and sorts what is complete; false when nothing came in time.
    pub(crate) fn hear(&mut self, answers: &mut Answers, within: Duration) -> bool {
        self.socket
            .set_read_timeout(Some(within))
            .expect("a timeout above zero");
        let mut chunk = vec![0; 256 * 1024];
        match self.socket.read(&mut chunk) {
            Ok(0) => panic!(
                "the server closed: {}",
                String::from_utf8_lossy(&self.received[self.taken..])
            ),
            Ok(n) => self.received.extend_from_slice(&chunk[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            Err(e) => panic!("{e}"),
        }
        while self.frame(answers) {}
        self.received.drain(..self.taken);
        self.taken = 0;
        true
    }

    /// Waits until every subscription of `wanted` has an answer, then until it was quiet for `quiet`. Those without an
    /// answer after `patience` stay without.
    pub(crate) fn gather(
        &mut self,
        wanted: &[usize],
        quiet: Duration,
        patience: Duration,
    ) -> Answers {
        let (mut answers, mut last) = (Answers::new(), Instant::now());
        loop {
            let complete = wanted.iter().all(|sid| answers.contains_key(sid));
            let limit = if complete { quiet } else { patience };
            let left = limit.saturating_sub(last.elapsed());
            if left.is_zero() {
                return answers;
            }
            if self.hear(&mut answers, left.max(Duration::from_millis(1))) {
                last = Instant::now();
            }
        }
    }

    /// Takes one frame out of what was received; false when there is no whole one.
    fn frame(&mut self, answers: &mut Answers) -> bool {
        let rest = &self.received[self.taken..];
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
            return false;
        };
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        let words: Vec<&str> = line.split(' ').collect();
        let number = |word: &&str| word.parse::<usize>().expect("a size");
        let (reply, headers, total) = match words.as_slice() {
            ["MSG", _, _, reply @ .., total] => (reply, 0, number(total)),
            ["HMSG", _, _, reply @ .., headers, total] => (reply, number(headers), number(total)),
            _ => {
                self.taken += end + 2;
                match line.as_str() {
                    "PONG" => self.pongs += 1,
                    "PING" => self.send(b"PONG\r\n"),
                    _ => assert!(line.starts_with("INFO "), "{line}"),
                }
                return true;
            }
        };
        let Some(body) = rest.get(end + 2..end + 2 + total) else {
            return false;
        };
        if rest.len() < end + 4 + total {
            return false;
        }
        let answer = Answer {
            subject: words[1].to_owned(),
            reply: reply.concat(),
            headers: body[..headers].to_vec(),
            payload: body[headers..].to_vec(),
        };
        answers.entry(number(&words[2])).or_default().push(answer);
        self.taken += end + 4 + total;
        true
    }
}
