//! A client that speaks bare protocol lines to a server in the same process.

use std::future::Future;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use halyard_runtime::{task, time};
use halyard_server::Server;
use halyard_server::config::Config;
use halyard_server::conn::InProcess;

/// Longest time that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Raw {
    pipe: InProcess,
    got: Vec<u8>,
}

/// Runs one test against a server with these settings, which listens nowhere.
pub(crate) fn with_server<F: Future<Output = ()>>(
    change: impl FnOnce(&mut Config),
    test: impl FnOnce(Server) -> F,
) {
    task::block_on(2, async {
        let mut config = Config {
            dont_listen: true,
            ..Config::default()
        };
        change(&mut config);
        test(Server::start(config).await.unwrap()).await;
    })
    .unwrap();
}

impl Raw {
    /// Connects and reads INFO.
    pub(crate) async fn greeted(server: &Server) -> Self {
        let mut raw = Self {
            pipe: server.connect_in_process(),
            got: Vec::new(),
        };
        assert!(raw.line().await.starts_with("INFO {"));
        raw
    }

    /// Connects, sends CONNECT with these options, and waits until the server has seen it.
    pub(crate) async fn connected(server: &Server, options: &str) -> Self {
        let mut raw = Self::greeted(server).await;
        raw.send(&format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false{options}}}\r\nPING\r\n"
        ))
        .await;
        raw.expect("PONG\r\n").await;
        raw
    }

    pub(crate) async fn send(&mut self, lines: &str) {
        self.send_bytes(lines.as_bytes()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        let sent = time::timeout(PATIENCE, self.pipe.write_all(bytes)).await;
        sent.expect("the server reads").unwrap();
    }

    /// Makes sure that the server has worked off everything sent so far.
    pub(crate) async fn flush(&mut self) {
        self.send("PING\r\n").await;
        self.expect("PONG\r\n").await;
    }

    /// The next line that is no PING of the server's own, without its end.
    pub(crate) async fn line(&mut self) -> String {
        loop {
            let line = self.any_line().await;
            if line != "PING" {
                return line;
            }
            self.send("PONG\r\n").await;
        }
    }

    async fn any_line(&mut self) -> String {
        loop {
            if let Some(end) = self.got.windows(2).position(|pair| pair == b"\r\n") {
                let rest = self.got.split_off(end + 2);
                let line = std::mem::replace(&mut self.got, rest);
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            let count = self.fill().await;
            assert!(
                count > 0,
                "closed after {:?}",
                String::from_utf8_lossy(&self.got)
            );
        }
    }

    /// So many bytes, whatever they are.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.got.len() < count {
            assert!(
                self.fill().await > 0,
                "closed {} bytes before",
                count - self.got.len()
            );
        }
        let rest = self.got.split_off(count);
        std::mem::replace(&mut self.got, rest)
    }

    /// Exactly these bytes come next. The server may ask before them whether the client lives, where a test takes its time.
    pub(crate) async fn expect(&mut self, wanted: &str) {
        const PING: &[u8] = b"PING\r\n";
        while !wanted.as_bytes().starts_with(PING) {
            while self.got.len() < PING.len() && PING.starts_with(&self.got) {
                if self.fill().await == 0 {
                    break;
                }
            }
            if !self.got.starts_with(PING) {
                break;
            }
            self.got.drain(..PING.len());
            self.send("PONG\r\n").await;
        }
        while self.got.len() < wanted.len() && wanted.as_bytes().starts_with(&self.got) {
            if self.fill().await == 0 {
                break;
            }
        }
        let shown = String::from_utf8_lossy(&self.got).into_owned();
        assert!(
            self.got.starts_with(wanted.as_bytes()),
            "wanted {wanted:?}, got {shown:?}"
        );
        self.got.drain(..wanted.len());
    }

    /// Exactly these bytes come, and then the server closes.
    pub(crate) async fn expect_end(&mut self, wanted: &str) {
        while self.fill().await > 0 {}
        assert_eq!(String::from_utf8_lossy(&self.got), wanted);
    }

    async fn fill(&mut self) -> usize {
        let mut buffer = [0; 16 * 1024];
        let read = time::timeout(PATIENCE, self.pipe.read(&mut buffer)).await;
        let count = read
            .unwrap_or_else(|_| panic!("nothing came after {:?}", self.got))
            .unwrap();
        self.got.extend_from_slice(&buffer[..count]);
        count
    }
}

/// The reason under which the only closed connection is listed.
pub(crate) async fn reason_of_the_closed(server: &Server) -> &'static str {
    let front = server.front();
    for _ in 0..2000 {
        if let [closed] = front.registry.closed().as_slice() {
            return closed.stop.unwrap().1.as_str();
        }
        time::sleep(Duration::from_millis(2)).await;
    }
    panic!("nobody was closed");
}
