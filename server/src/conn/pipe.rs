//! A pair of byte pipes inside the process: a client connection that needs no socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::io::{AsyncRead, AsyncWrite};
use parking_lot::Mutex;

use super::link::Link;
use crate::caps;

/// One end of a duplex pipe. Dropping it ends both directions.
struct End {
    incoming: Arc<Mutex<Flow>>,
    outgoing: Arc<Mutex<Flow>>,
}

/// Bytes in one direction, at most [`caps::PIPE_BYTES`].
#[derive(Default)]
struct Flow {
    bytes: VecDeque<u8>,
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The client's end of a connection inside the process: speaks the NATS protocol, like a socket.
pub struct InProcess(End);

/// The server's end.
pub(super) struct PipeLink(End);

/// Both ends of a new pipe.
pub(super) fn pipe() -> (InProcess, PipeLink) {
    let (left, right) = (Arc::default(), Arc::default());
    let client = End {
        incoming: Arc::clone(&left),
        outgoing: Arc::clone(&right),
    };
    (
        InProcess(client),
        PipeLink(End {
            incoming: right,
            outgoing: left,
        }),
    )
}

impl Flow {
    fn end(&mut self) {
        self.ended = true;
        for waker in [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }

    fn room(&self) -> usize {
        caps::PIPE_BYTES.saturating_sub(self.bytes.len())
    }
}

impl End {
    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut flow = self.incoming.lock();
        if flow.bytes.is_empty() && !flow.ended && !buffer.is_empty() {
            flow.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let read = io::Read::read(&mut flow.bytes, buffer);
        let writer = flow.writer.take();
        // An idle pipe keeps no memory.
        if flow.bytes.is_empty() {
            flow.bytes = VecDeque::new();
        }
        drop(flow);
        if let Some(writer) = writer {
            writer.wake();
        }
        Poll::Ready(read)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut flow = self.outgoing.lock();
        if flow.ended || flow.room() > 0 {
            return Poll::Ready(Ok(()));
        }
        flow.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut flow = self.outgoing.lock();
        if flow.ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut written = 0;
        for piece in pieces {
            let room = flow.room().min(piece.len());
            flow.bytes.extend(piece.iter().take(room));
            written += room;
        }
        if written == 0 && pieces.iter().any(|piece| !piece.is_empty()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let reader = flow.reader.take();
        drop(flow);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(written)
    }

    fn poll_write(&self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(pieces) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            if self.poll_write_ready(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.incoming.lock().end();
        self.outgoing.lock().end();
    }
}

impl Link for PipeLink {
    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.0.poll_read(cx, buffer)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_write_ready(cx)
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write(pieces)
    }

    fn shutdown_write(&self) {
        self.0.outgoing.lock().end();
    }
}

impl AsyncRead for InProcess {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_read(cx, buffer)
    }
}

impl AsyncWrite for InProcess {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, pieces)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.outgoing.lock().end();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, AsyncWriteExt, future};
    use halyard_runtime::task::block_on;

    use super::*;

    #[test]
    fn more_than_it_holds_waits_for_the_reader() {
        let (mut client, server) = pipe();
        let data: Vec<u8> = (0..caps::PIPE_BYTES * 3)
            .map(|at| (at % 251) as u8)
            .collect();
        let write = async {
            client.write_all(&data).await.unwrap();
            client.close().await.unwrap();
        };
        let read = async {
            let mut got = Vec::new();
            let mut buffer = [0; 1000];
            loop {
                let count = future::poll_fn(|cx| Link::poll_read(&server, cx, &mut buffer))
                    .await
                    .unwrap();
                if count == 0 {
                    return got;
                }
                got.extend_from_slice(&buffer[..count]);
            }
        };
        let ((), got) = block_on(1, future::join(write, read)).unwrap();
        assert!(got == data);
        assert!(
            server.try_write(&[IoSlice::new(b"back")]).is_ok(),
            "half closed"
        );
        drop(server);
        let mut back = Vec::new();
        block_on(1, client.read_to_end(&mut back)).unwrap().unwrap();
        assert_eq!(back, b"back");
    }
}
