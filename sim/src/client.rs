//! A NATS client as raw as it can be: one connection, no reconnecting, no buffering, no retries.
//!
//! When the connection is gone, everything that waited for an answer learns just that: the outcome is not known.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use halyard_net::proto::client::{ServerOp, ServerParsed, ServerParser};
use halyard_net::proto::encoder;
use halyard_runtime::net::TcpStream;
use halyard_runtime::task::{self, JoinHandle};
use halyard_runtime::time::timeout;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

/// A message that the server sent.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) subject: String,
    pub(crate) reply: Option<String>,
    /// The header block, empty when there is none.
    pub(crate) headers: Bytes,
    pub(crate) payload: Bytes,
    /// The how-manieth of its connection. What a client does between two of them takes time; this order is the server's.
    pub(crate) arrived: u64,
}

impl Delivery {
    /// The status of a message without content, as in `NATS/1.0 503`.
    pub(crate) fn status(&self) -> Option<u16> {
        let line = self.headers.strip_prefix(b"NATS/1.0 ")?;
        std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()
    }
}

/// The connection is gone, or the answer did not come in time: nobody knows what became of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unknown;

/// One connection.
pub(crate) struct Client {
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
    /// Tells the connections of a run apart.
    pub(crate) number: u64,
}

struct Shared {
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    routes: Mutex<Routes>,
    next: AtomicU64,
    inbox: String,
}

#[derive(Default)]
struct Routes {
    closed: bool,
    arrivals: u64,
    answers: BTreeMap<u64, oneshot::Sender<Delivery>>,
    subscriptions: BTreeMap<u64, mpsc::UnboundedSender<Delivery>>,
}

/// The subscription under which all answers come.
const ANSWERS_SID: u64 = 1;

const READ_BYTES: usize = 16 << 10;

impl Client {
    /// Connects, says CONNECT and waits for the first PONG.
    pub(crate) async fn connect(
        address: SocketAddr,
        number: u64,
        patience: Duration,
    ) -> io::Result<Self> {
        let attempt = async {
            let stream = Arc::new(TcpStream::connect(address).await?);
            Self::greet(stream, number).await
        };
        timeout(patience, attempt).await?
    }

    async fn greet(stream: Arc<TcpStream>, number: u64) -> io::Result<Self> {
        let (outgoing, sending) = mpsc::unbounded_channel();
        let inbox = format!("_INBOX.c{number}");
        let next = AtomicU64::new(ANSWERS_SID + 1);
        let shared = Arc::new(Shared {
            outgoing,
            routes: Mutex::default(),
            next,
            inbox,
        });
        let mut hello = Vec::new();
        let connect = br#"{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1,"lang":"sim"}"#;
        encoder::connect(&mut hello, connect);
        let answers = format!("{}.*", shared.inbox);
        encoder::sub(
            &mut hello,
            answers.as_bytes(),
            None,
            ANSWERS_SID.to_string().as_bytes(),
        );
        encoder::ping(&mut hello);
        let (ready, is_ready) = oneshot::channel();
        let reading = task::spawn(read_all(Arc::clone(&stream), Arc::clone(&shared), ready));
        let writing = task::spawn(write_all(stream, sending));
        let client = Self {
            shared,
            tasks: [reading, writing],
            number,
        };
        client.send(hello);
        match is_ready.await {
            Ok(()) => Ok(client),
            Err(_) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    fn send(&self, bytes: Vec<u8>) {
        // A connection that is gone is noticed by whoever waits for an answer.
        let _ = self.shared.outgoing.send(bytes);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.shared.routes.lock().closed
    }

    /// Publishes without waiting for anything.
    pub(crate) fn publish(
        &self,
        subject: &str,
        reply: Option<&str>,
        headers: &[u8],
        payload: &[u8],
    ) {
        let mut bytes = Vec::new();
        encoder::publish(
            &mut bytes,
            subject.as_bytes(),
            reply.map(str::as_bytes),
            headers,
            payload,
        );
        self.send(bytes);
    }

    /// Publishes and returns what the first answer will come through.
    pub(crate) fn ask(&self, subject: &str, headers: &[u8], payload: &[u8]) -> Answer {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut routes = self.shared.routes.lock();
            if !routes.closed {
                routes.answers.insert(number, sender);
            }
        }
        let reply = format!("{}.{number}", self.shared.inbox);
        self.publish(subject, Some(&reply), headers, payload);
        Answer {
            receiver,
            number,
            shared: Arc::clone(&self.shared),
        }
    }

    /// [`Client::ask`], and waits.
    pub(crate) async fn request(
        &self,
        subject: &str,
        headers: &[u8],
        payload: &[u8],
        patience: Duration,
    ) -> Result<Delivery, Unknown> {
        self.ask(subject, headers, payload).within(patience).await
    }

    /// Subscribes; messages come through the channel until the connection is gone.
    pub(crate) fn subscribe(&self, subject: &str) -> mpsc::UnboundedReceiver<Delivery> {
        let sid = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::unbounded_channel();
        {
            let mut routes = self.shared.routes.lock();
            if !routes.closed {
                routes.subscriptions.insert(sid, sender);
            }
        }
        let mut bytes = Vec::new();
        encoder::sub(
            &mut bytes,
            subject.as_bytes(),
            None,
            sid.to_string().as_bytes(),
        );
        self.send(bytes);
        receiver
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// An answer that is to come.
pub(crate) struct Answer {
    receiver: oneshot::Receiver<Delivery>,
    number: u64,
    shared: Arc<Shared>,
}

impl Answer {
    pub(crate) async fn within(mut self, patience: Duration) -> Result<Delivery, Unknown> {
        match timeout(patience, &mut self.receiver).await {
            Ok(Ok(delivery)) => Ok(delivery),
            _ => Err(Unknown),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.shared.routes.lock().answers.remove(&self.number);
    }
}

async fn write_all(stream: Arc<TcpStream>, mut sending: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(bytes) = sending.recv().await {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            if std::future::poll_fn(|cx| stream.poll_write_ready(cx))
                .await
                .is_err()
            {
                return;
            }
            match stream.try_write(rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

async fn read_all(stream: Arc<TcpStream>, shared: Arc<Shared>, ready: oneshot::Sender<()>) {
    let mut ready = Some(ready);
    let mut parser = ServerParser::default();
    let mut input = BytesMut::new();
    let mut chunk = vec![0; READ_BYTES];
    'reading: loop {
        match std::future::poll_fn(|cx| stream.poll_read(cx, &mut chunk)).await {
            Ok(0) | Err(_) => break,
            Ok(count) => input.extend_from_slice(&chunk[..count]),
        }
        loop {
            match parser.next(&input) {
                Ok(ServerParsed::Op { op, consumed }) => {
                    handle(op, &shared, &mut ready);
                    input.advance(consumed);
                }
                Ok(ServerParsed::Incomplete { .. }) => break,
                Err(error) => {
                    halyard_runtime::event!("the server broke the protocol: {error:?}");
                    break 'reading;
                }
            }
        }
    }
    let mut routes = shared.routes.lock();
    *routes = Routes {
        closed: true,
        ..Routes::default()
    };
}

fn handle(op: ServerOp<'_>, shared: &Shared, ready: &mut Option<oneshot::Sender<()>>) {
    match op {
        ServerOp::Msg {
            subject,
            sid,
            reply,
            headers_len,
            payload,
        } => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (headers, payload) = payload.split_at(headers_len);
            let delivery = Delivery {
                subject: text(subject),
                reply: reply.map(text),
                headers: Bytes::copy_from_slice(headers),
                payload: Bytes::copy_from_slice(payload),
                arrived: 0,
            };
            deliver(shared, text(sid).parse().unwrap_or(0), delivery);
        }
        ServerOp::Ping => {
            let _ = shared.outgoing.send(b"PONG\r\n".to_vec());
        }
        ServerOp::Pong => {
            if let Some(ready) = ready.take() {
                let _ = ready.send(());
            }
        }
        ServerOp::Err(text) => {
            halyard_runtime::event!("-ERR {}", String::from_utf8_lossy(text));
        }
        ServerOp::Info(_) | ServerOp::Ok => {}
    }
}

fn deliver(shared: &Shared, sid: u64, mut delivery: Delivery) {
    let mut routes = shared.routes.lock();
    routes.arrivals += 1;
    delivery.arrived = routes.arrivals;
    if sid == ANSWERS_SID {
        let number = delivery
            .subject
            .rsplit('.')
            .next()
            .and_then(|token| token.parse().ok());
        let waiting = number.and_then(|number: u64| routes.answers.remove(&number));
        drop(routes);
        if let Some(waiting) = waiting {
            let _ = waiting.send(delivery);
        }
    } else if let Some(subscription) = routes.subscriptions.get(&sid) {
        let _ = subscription.send(delivery);
    }
}
