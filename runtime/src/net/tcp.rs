//! One TCP connection or listener: the production one, or its simulated twin.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::descriptors::{self, Socket, Sockets};

/// Connections that the kernel may hold ready before `accept` takes them.
const ACCEPT_BACKLOG: u32 = 4096;

/// A socket that waits for connections.
#[derive(Debug)]
pub struct TcpListener(Listener);

#[derive(Debug)]
enum Listener {
    Real(tokio::net::TcpListener),
    #[cfg(feature = "sim")]
    Simulated(crate::sim::SimListener),
}

impl TcpListener {
    /// Listens on `address`; port 0 lets the system choose (see [`TcpListener::local_addr`]).
    ///
    /// # Errors
    /// When the address is taken, not ours, or not allowed.
    #[expect(clippy::unused_async, reason = "the simulated twin may wait")]
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        #[cfg(feature = "sim")]
        if crate::in_sim() {
            return crate::sim::SimListener::bind(address).map(|l| Self(Listener::Simulated(l)));
        }
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        // A restarted server must get its port back while old connections are in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self(Listener::Real(socket.listen(ACCEPT_BACKLOG)?)))
    }

    /// Listens on every address of the machine, of both families where there are two. Its address is shown as `0.0.0.0`.
    ///
    /// # Errors
    /// When the port is taken or not allowed.
    pub async fn bind_all(port: u16) -> io::Result<Self> {
        #[cfg(feature = "sim")]
        let both = !crate::in_sim();
        #[cfg(not(feature = "sim"))]
        let both = true;
        if both && let Ok(socket) = tokio::net::TcpSocket::new_v6() {
            socket.set_reuseaddr(true)?;
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            if rustix::net::sockopt::set_ipv6_v6only(&socket, false).is_ok()
                && socket.bind(any).is_ok()
            {
                return Ok(Self(Listener::Real(socket.listen(ACCEPT_BACKLOG)?)));
            }
        }
        // No IPv6 here, or the port is taken: then this says so.
        Self::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
    }

    /// The next connection and where it comes from.
    ///
    /// # Errors
    /// When the system cannot take it, for instance out of file descriptors: wait a moment and go on.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.0 {
            Listener::Real(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                // A client of IPv4 at a socket of both families.
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let counted = Some(Socket::new());
                Ok((TcpStream(Stream::Real(stream), counted), peer))
            }
            #[cfg(feature = "sim")]
            Listener::Simulated(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((TcpStream(Stream::Simulated(stream), None), peer))
            }
        }
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Listener::Real(listener) => {
                let address = listener.local_addr()?;
                let is_both = address.is_ipv6()
                    && address.ip().is_unspecified()
                    && !rustix::net::sockopt::ipv6_v6only(listener)?;
                let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
                Ok(if is_both { any } else { address })
            }
            #[cfg(feature = "sim")]
            Listener::Simulated(listener) => Ok(listener.local_addr()),
        }
    }
}

/// A TCP connection.
#[derive(Debug)]
pub struct TcpStream(Stream, Option<Socket>);

#[derive(Debug)]
enum Stream {
    Real(tokio::net::TcpStream),
    #[cfg(feature = "sim")]
    Simulated(crate::sim::SimStream),
}

impl TcpStream {
    /// Connects to `address`. Sets no time limit of its own: wrap it in [`crate::time::timeout`].
    ///
    /// # Errors
    /// When the peer refuses or cannot be reached.
    #[expect(clippy::disallowed_methods, reason = "the door to sockets")]
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        #[cfg(feature = "sim")]
        if crate::in_sim() {
            let stream = crate::sim::SimStream::connect(address).await?;
            return Ok(Self(Stream::Simulated(stream), None));
        }
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(Stream::Real(stream), Some(Socket::new())))
    }

    /// Whether this socket, which was just accepted, leaves enough file descriptors for files.
    #[must_use]
    pub fn leaves_descriptors(&self) -> Sockets {
        match &self.1 {
            Some(_) => descriptors::sockets(),
            None => Sockets::Free,
        }
    }

    /// Reads what is there into `buffer`, or registers the caller to be woken; `Ready(Ok(0))` is the end of the stream
    /// (or an empty `buffer`).
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match &self.0 {
            Stream::Real(stream) => loop {
                ready!(stream.poll_read_ready(cx))?;
                match read_some(stream, buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
            },
            #[cfg(feature = "sim")]
            Stream::Simulated(stream) => stream.poll_read(cx, buffer),
        }
    }

    /// Reads what is there, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing yet.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Stream::Real(stream) => read_some(stream, buffer),
            #[cfg(feature = "sim")]
            Stream::Simulated(stream) => stream.try_read(buffer),
        }
    }

    /// Ready when a write may make progress. It may be wrong: go by what the write says.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Stream::Real(stream) => stream.poll_write_ready(cx),
            #[cfg(feature = "sim")]
            Stream::Simulated(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Ready when a read may make progress. It may be wrong: go by what the read says.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Stream::Real(stream) => stream.poll_read_ready(cx),
            #[cfg(feature = "sim")]
            Stream::Simulated(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Writes as much as fits now; the number of bytes taken may be less than offered.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits (then [`TcpStream::poll_write_ready`] wakes); otherwise the connection is broken.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Stream::Real(stream) => some(stream, Interest::WRITABLE, bytes.len(), || {
                Ok(rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)?)
            }),
            #[cfg(feature = "sim")]
            Stream::Simulated(stream) => stream.try_write(bytes),
        }
    }

    /// [`TcpStream::try_write`] for several pieces, in one system call.
    ///
    /// # Errors
    /// As [`TcpStream::try_write`].
    pub fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.0 {
            Stream::Real(stream) => {
                let whole = pieces.iter().map(|piece| piece.len()).sum();
                some(stream, Interest::WRITABLE, whole, || {
                    Ok(rustix::io::writev(stream, pieces)?)
                })
            }
            #[cfg(feature = "sim")]
            Stream::Simulated(stream) => stream.try_write_vectored(pieces),
        }
    }

    /// Ends our direction: the peer reads what was written and then the end of the stream; it may go on sending.
    ///
    /// # Errors
    /// When the connection is already gone.
    pub fn shutdown_write(&self) -> io::Result<()> {
        match &self.0 {
            Stream::Real(stream) => {
                rustix::net::shutdown(stream, rustix::net::Shutdown::Write)?;
                Ok(())
            }
            #[cfg(feature = "sim")]
            Stream::Simulated(stream) => stream.shutdown_write(),
        }
    }

    /// The other end's address.
    ///
    /// # Errors
    /// When the connection is already gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Stream::Real(stream) => stream.peer_addr(),
            #[cfg(feature = "sim")]
            Stream::Simulated(stream) => stream.addresses().map(|(_, peer)| peer),
        }
    }

    /// Our end's address.
    ///
    /// # Errors
    /// When the connection is already gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Stream::Real(stream) => stream.local_addr(),
            #[cfg(feature = "sim")]
            Stream::Simulated(stream) => stream.addresses().map(|(ours, _)| ours),
        }
    }

    /// Whether small writes go out at once (the default here) or may wait to be joined by the kernel.
    ///
    /// # Errors
    /// When the connection is already gone.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match &self.0 {
            Stream::Real(stream) => stream.set_nodelay(nodelay),
            #[cfg(feature = "sim")]
            Stream::Simulated(_) => Ok(()),
        }
    }

    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&Self) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            match write(self) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

fn read_some(stream: &tokio::net::TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let whole = buffer.len();
    some(stream, Interest::READABLE, whole, || {
        let (count, _) = rustix::net::recv(stream, &mut *buffer, RecvFlags::empty())?;
        Ok(count)
    })
}

/// A call that moves up to `whole` bytes. If it moves fewer, the socket has no more (or takes no more) for now: it counts as
/// not ready until the system says so, which saves the call that would find out.
fn some(
    stream: &tokio::net::TcpStream,
    interest: Interest,
    whole: usize,
    mut call: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    let mut fewer = None;
    let result = stream.try_io(interest, || {
        let count = call()?;
        if (1..whole).contains(&count) {
            fewer = Some(count);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(count)
    });
    fewer.map_or(result, Ok)
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let free = buffer.initialize_unfilled();
        let count = ready!(Self::poll_read(&self, cx, free))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream| stream.try_write_vectored(pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is held back on this side of the kernel.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
    }
}
