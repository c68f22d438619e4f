//! HTTP/1.1 over our own sockets: hyper does the protocol, this file carries its bytes and its time-outs.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use halyard_runtime::descriptors::Sockets;
use halyard_runtime::lane::Lane;
use halyard_runtime::net::{TcpListener, TcpStream};
use halyard_runtime::task::{self, JoinHandle};
use halyard_runtime::time;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Sleep, Timer, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use parking_lot::Mutex;

/// Monitoring connections at one time. A new one above that takes the place of the one that has been silent for longest.
const CONNECTIONS_MAX: usize = 256;
/// How long a monitoring connection may be idle or take for the head of a request.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes read from a socket at once.
const READ_BYTES: usize = 4096;
/// Threads that answer.
const THREADS: usize = 2;
/// Pause after a failed accept: most likely the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running HTTP server.
#[derive(Debug)]
pub(super) struct HttpServer {
    pub(super) address: SocketAddr,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl HttpServer {
    /// Answers every request on `listener` by `answer`, on threads that may wait for a lock.
    pub(super) fn start(
        listener: TcpListener,
        answer: impl Fn(&Request<()>) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let lane = Arc::new(Lane::new("halyard-monitor", THREADS)?);
        let answer: Arc<Answer> = Arc::new(answer);
        let accepting = task::spawn(accept(listener, lane, answer));
        Ok(Self {
            address,
            accepting: Mutex::new(Some(accepting)),
        })
    }

    /// Takes no more connections.
    pub(super) fn stop(&self) {
        if let Some(accepting) = self.accepting.lock().take() {
            accepting.abort();
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop();
    }
}

type Answer = dyn Fn(&Request<()>) -> Response<Full<Bytes>> + Send + Sync;

/// Who is connected.
#[derive(Default)]
struct Seats(Mutex<Seated>);

#[derive(Default)]
struct Seated {
    connections: BTreeMap<u64, Connected>,
    /// Rises with each connection and each request.
    clock: u64,
}

struct Connected {
    /// When something was heard of it.
    heard: u64,
    task: Option<JoinHandle<()>>,
}

/// One connection's place: given up when this is dropped, whatever ends its task.
struct Seat {
    seats: Arc<Seats>,
    number: u64,
}

impl Seat {
    /// A place, if need be that of the connection that has been silent for longest.
    fn take(seats: &Arc<Seats>) -> Self {
        let mut seated = seats.0.lock();
        seated.clock += 1;
        let number = seated.clock;
        if seated.connections.len() >= CONNECTIONS_MAX {
            let silent = seated.connections.iter();
            let silent = silent.min_by_key(|(_, connected)| connected.heard);
            if let Some(number) = silent.map(|(number, _)| *number)
                && let Some(connected) = seated.connections.remove(&number)
                && let Some(task) = connected.task
            {
                task.abort();
            }
        }
        let connected = Connected {
            heard: number,
            task: None,
        };
        seated.connections.insert(number, connected);
        Self {
            seats: Arc::clone(seats),
            number,
        }
    }

    /// A request has come.
    fn heard(&self) {
        let mut seated = self.seats.0.lock();
        seated.clock += 1;
        let now = seated.clock;
        if let Some(connected) = seated.connections.get_mut(&self.number) {
            connected.heard = now;
        }
    }
}

impl Seats {
    /// Which task to end when the place is needed; it may have ended by itself.
    fn serves(&self, number: u64, task: JoinHandle<()>) {
        if let Some(connected) = self.0.lock().connections.get_mut(&number) {
            connected.task = Some(task);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.0.lock().connections.remove(&self.number);
    }
}

async fn accept(listener: TcpListener, lane: Arc<Lane>, answer: Arc<Answer>) {
    let seats = Arc::new(Seats::default());
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if stream.leaves_descriptors() == Sockets::FarTooMany {
            continue;
        }
        let seat = Seat::take(&seats);
        let number = seat.number;
        let (lane, answer) = (Arc::clone(&lane), Arc::clone(&answer));
        let task = task::spawn(async move { serve(stream, &seat, &lane, &answer).await });
        seats.serves(number, task);
    }
}

async fn serve(stream: TcpStream, seat: &Seat, lane: &Lane, answer: &Arc<Answer>) {
    let service = service_fn(|request: Request<Incoming>| {
        seat.heard();
        let request = Request::from_parts(request.into_parts().0, ());
        let answer = Arc::clone(answer);
        // An error ends the connection: its answer has panicked.
        lane.spawn(async move { answer(&request) })
    });
    let served = http1::Builder::new()
        .title_case_headers(true)
        .timer(RuntimeTimer)
        .header_read_timeout(IDLE_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(Socket(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!("monitoring connection ended: {error}");
    }
}

/// A socket in the form that hyper reads and writes.
struct Socket(TcpStream);

impl Read for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; READ_BYTES];
        let room = buffer.remaining().min(READ_BYTES);
        let (into, _) = bytes.split_at_mut(room);
        let len = ready!(self.0.poll_read(cx, into))?;
        buffer.put_slice(into.get(..len).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl Write for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.0.try_write_vectored(pieces) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.0.poll_write_ready(cx))?;
                }
                done => return Poll::Ready(done),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown_write())
    }
}

/// hyper's time-outs by the runtime's clock.
#[derive(Clone, Debug)]
struct RuntimeTimer;

struct RuntimeSleep(Pin<Box<dyn Future<Output = ()> + Send + Sync>>);

impl Future for RuntimeSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl Sleep for RuntimeSleep {}

impl Timer for RuntimeTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(RuntimeSleep(Box::pin(time::sleep(duration))))
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(self.now()))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "hyper's interface speaks std's instants"
    )]
    fn now(&self) -> std::time::Instant {
        std::time::Instant::now()
    }
}
