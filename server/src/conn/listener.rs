//! Takes client connections from the listening socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use halyard_net::proto::{CloseReason, ErrText, encoder};
use halyard_runtime::descriptors::{self, Sockets};
use halyard_runtime::net::TcpListener;
use halyard_runtime::task;
use halyard_runtime::time::{self, Instant, Timestamp};
use parking_lot::Mutex;

use super::connection::{ClientNames, Connection, Peer, Traffic, Transport};
use super::driver;
use super::front::Front;
use super::link::Link;
use super::outbound::Outbound;
use super::pipe::{self, InProcess};
use crate::broker::{GLOBAL_ACCOUNT, Publisher};
use crate::caps;

/// Accepts clients for ever; the task is aborted to stop listening.
pub(crate) async fn accept(front: Arc<Front>, listener: TcpListener) {
    let (first, longest) = caps::ACCEPT_BACKOFF;
    let mut pause = first;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                pause = first;
                let descriptors = stream.leaves_descriptors();
                if descriptors == Sockets::FarTooMany {
                    tracing::debug!(
                        "{address} was closed at once: the other descriptors are for files"
                    );
                    continue;
                }
                let has_room = descriptors == Sockets::Free;
                start(&front, Arc::new(stream), peer_of(address), has_room);
            }
            Err(error) => {
                tracing::error!("accepting a client failed, next try in {pause:?}: {error}");
                time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        }
    }
}

fn peer_of(address: SocketAddr) -> Peer {
    let ip = address.ip().to_canonical().to_string();
    Peer {
        ip,
        port: address.port(),
        transport: Transport::Tcp,
    }
}

/// A client inside the process.
pub(crate) fn connect_in_process(front: &Arc<Front>) -> InProcess {
    let (client, link) = pipe::pipe();
    let peer = Peer {
        ip: "pipe".to_owned(),
        port: 0,
        transport: Transport::InProcess,
    };
    start(front, Arc::new(link), peer, true);
    client
}

/// Starts the task of a new connection, unless there are too many.
fn start(front: &Arc<Front>, link: Arc<dyn Link>, peer: Peer, has_room: bool) {
    let id = front.broker.next_client_id();
    let limits = front.settings().limits.clone();
    let who = format!("{}:{} - cid:{}", peer.ip, peer.port, id.0);
    tracing::debug!("{who} - Client connection created");
    let outbound = Outbound::new(id, who, Arc::clone(&link), limits.max_pending);
    let account = GLOBAL_ACCOUNT.to_owned();
    let connection = Arc::new(Connection {
        id,
        publisher: Publisher::new(id),
        peer,
        start: Timestamp::now(),
        started: Instant::now(),
        outbound,
        last_subscriptions: Mutex::default(),
        names: Mutex::new(ClientNames {
            account,
            ..ClientNames::default()
        }),
        traffic: Traffic::default(),
        async_info: AtomicBool::new(false),
    });
    let most = if has_room {
        limits.max_connections
    } else {
        Some(0)
    };
    if front.registry.add(&connection, most) {
        // It ends with the connection; nobody waits for it.
        drop(task::spawn(driver::serve(
            Arc::clone(front),
            connection,
            link,
        )));
        return;
    }
    if has_room {
        tracing::error!("maximum connections exceeded: {:?}", limits.max_connections);
    } else {
        let most = descriptors::limit();
        tracing::error!(
            "maximum connections exceeded: of {most} open sockets and files those left are kept for files; raise the limit \
             of open files (ulimit -n)"
        );
    }
    let info = front.info_for(&connection).to_json();
    connection.outbound.send(|out| {
        encoder::info(out, &info);
        encoder::err(out, &ErrText::MaxConnections);
    });
    let seat = driver::Seat::new(Arc::clone(front), connection);
    let away = driver::turn_away(seat, link, CloseReason::MaxConnections);
    drop(task::spawn(away));
}

#[cfg(test)]
mod tests {
    use std::io::{self, IoSlice};
    use std::task::{Context, Poll};

    use halyard_net::proto::Info;

    use super::*;
    use crate::broker::{Broker, Publish};
    use crate::config::Config;

    /// Brings some bytes, and then a bug.
    struct Faulty(Mutex<Vec<u8>>);

    impl Link for Faulty {
        fn poll_read(&self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
            let bytes = std::mem::take(&mut *self.0.lock());
            assert!(!bytes.is_empty(), "as planned by the test");
            buffer[..bytes.len()].copy_from_slice(&bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
            Ok(pieces.iter().map(|piece| piece.len()).sum())
        }

        fn shutdown_write(&self) {}
    }

    #[test]
    fn a_connection_whose_task_panics_leaves_nothing_behind() {
        let info = Info::default();
        let front = Front::new(Broker::new(), Arc::new(Config::default()), info);
        let bytes = b"CONNECT {}\r\nSUB a q 1\r\nSUB b 2\r\nPING\r\n";
        let peer = Peer {
            ip: "test".to_owned(),
            port: 0,
            transport: Transport::InProcess,
        };
        let account = front.broker.global();
        task::block_on(1, async {
            start(
                &front,
                Arc::new(Faulty(Mutex::new(bytes.to_vec()))),
                peer,
                true,
            );
            while account.counters().inserts < 2 || front.registry.count() > 0 {
                task::yield_now().await;
            }
        })
        .expect("a runtime");
        assert_eq!(account.counters().subscriptions, 0);
        assert_eq!(account.publish(&Publish::new(b"a", b"")).delivered, 0);
        let closed = front.registry.closed();
        assert_eq!(closed.len(), 1);
        assert!(
            closed[0]
                .stop
                .is_some_and(|(_, reason)| reason == CloseReason::ReadError)
        );
    }
}
