//! The monitor's sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use halyard_runtime::task;
use halyard_server::config::Monitor;

use crate::raw::with_server;

#[expect(
    clippy::disallowed_methods,
    reason = "a client that this project did not write"
)]
fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

/// Asks, and reads the answer.
fn ask(stream: &mut TcpStream) -> String {
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).unwrap();
    let (mut answer, mut some) = (String::new(), [0; 1024]);
    while !answer.ends_with('}') {
        let count = stream.read(&mut some).unwrap();
        assert!(count > 0, "closed after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&some[..count]));
    }
    answer
}

fn is_well(address: SocketAddr) -> bool {
    ask(&mut connect(address)).starts_with("HTTP/1.1 200 OK\r\n")
}

#[test]
fn silent_sockets_give_way() {
    let monitor = |config: &mut halyard_server::config::Config| {
        config.monitor = Some(Monitor {
            host: Some("127.0.0.1".to_owned()),
            port: 0,
        });
    };
    with_server(monitor, |server| async move {
        let address = server.monitor_address().unwrap();
        let asked = task::spawn_blocking(move || {
            let silent: Vec<TcpStream> = (0..255).map(|_| connect(address)).collect();
            let mut talking = connect(address);
            ask(&mut talking);
            let more: Vec<TcpStream> = (0..30).map(|_| connect(address)).collect();
            assert!(is_well(address), "nobody is shut out");
            // It was heard of later than others.
            ask(&mut talking);
            drop((silent, more));
        });
        asked.await.unwrap();
        server.shutdown().await;
    });
}
