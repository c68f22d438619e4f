//! Takes client connections from the listening socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use halyard_net::proto::{CloseReason, ErrText, encoder};
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
use crate::broker::GLOBAL_ACCOUNT;
use crate::caps;

/// Accepts clients for ever; the task is aborted to stop listening.
pub(crate) async fn accept(front: Arc<Front>, listener: TcpListener) {
    let (first, longest) = caps::ACCEPT_BACKOFF;
    let mut pause = first;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                pause = first;
                start(&front, Arc::new(stream), peer_of(address));
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
    start(front, Arc::new(link), peer);
    client
}

/// Starts the task of a new connection.
fn start(front: &Arc<Front>, link: Arc<dyn Link>, peer: Peer) {
    let id = front.broker.next_client_id();
    let limits = front.settings().limits.clone();
    let who = format!("{}:{} - cid:{}", peer.ip, peer.port, id.0);
    tracing::debug!("{who} - Client connection created");
    let outbound = Outbound::new(id, who, Arc::clone(&link), limits.max_pending);
    let account = GLOBAL_ACCOUNT.to_owned();
    let connection = Arc::new(Connection {
        id,
        peer,
        start: Timestamp::now(),
        started: Instant::now(),
        outbound,
        names: Mutex::new(ClientNames {
            account,
            ..ClientNames::default()
        }),
        traffic: Traffic::default(),
        async_info: AtomicBool::new(false),
    });
    if front.registry.add(&connection, limits.max_connections) {
        // It ends with the connection; nobody waits for it.
        drop(task::spawn(driver::serve(
            Arc::clone(front),
            connection,
            link,
        )));
        return;
    }
    tracing::error!("maximum connections exceeded: {:?}", limits.max_connections);
    let info = front.info_for(&connection).to_json();
    connection.outbound.send(|out| {
        encoder::info(out, &info);
        encoder::err(out, &ErrText::MaxConnections);
    });
    let away = driver::turn_away(
        Arc::clone(front),
        connection,
        link,
        CloseReason::MaxConnections,
    );
    drop(task::spawn(away));
}
