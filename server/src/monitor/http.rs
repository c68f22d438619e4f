//! HTTP/1.1 over our own sockets: hyper does the protocol, this file carries its bytes and its time-outs.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
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

/// Monitoring connections at one time; those above are closed at once.
const CONNECTIONS_MAX: usize = 256;
/// How long a monitoring connection may be idle or take for the head of a request.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes read from a socket at once.
const READ_BYTES: usize = 4096;
/// Pause after a failed accept: most likely the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running HTTP server.
#[derive(Debug)]
pub(super) struct HttpServer {
    pub(super) address: SocketAddr,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl HttpServer {
    /// Answers every request on `listener` by `answer`, which must be quick.
    pub(super) fn start(
        listener: TcpListener,
        answer: impl Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let accepting = task::spawn(accept(listener, Arc::new(answer)));
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

async fn accept<A>(listener: TcpListener, answer: Arc<A>)
where
    A: Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync + 'static,
{
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (answer, open) = (Arc::clone(&answer), Arc::clone(&open));
        let _runs_on = task::spawn(async move {
            serve(stream, &*answer).await;
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn serve<A>(stream: TcpStream, answer: &A)
where
    A: Fn(&Request<Incoming>) -> Response<Full<Bytes>>,
{
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(&request);
        async move { Ok::<_, std::convert::Infallible>(response) }
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
