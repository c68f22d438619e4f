//! What a connection needs of its transport: a socket, or a pipe inside the process.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use halyard_runtime::net::TcpStream;

/// A duplex stream of bytes, used through shared references: its own task reads, any task may write.
pub(crate) trait Link: Send + Sync {
    /// Reads what is there, or registers the caller; `Ready(Ok(0))` is the end.
    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Ready when a write may make progress. Only the connection's own task waits here.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Writes what fits now; `WouldBlock` if nothing does.
    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ends our direction, after what has been written.
    fn shutdown_write(&self);
}

impl Link for TcpStream {
    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Self::poll_read(self, cx, buffer)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_write_ready(self, cx)
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match pieces {
            [one] => Self::try_write(self, one),
            several => self.try_write_vectored(several),
        }
    }

    fn shutdown_write(&self) {
        // It fails only for a connection that is already gone, and then there is nothing to end.
        let _ = Self::shutdown_write(self);
    }
}
