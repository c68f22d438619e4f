//! A server inside another program: `cargo run --example embed [PORT]`.

use std::future;

use halyard_server::Server;

fn main() -> std::io::Result<()> {
    let port = std::env::args()
        .nth(1)
        .and_then(|port| port.parse().ok())
        .unwrap_or(4222);
    halyard_runtime::task::block_on(2, async {
        let server = Server::builder().listen("127.0.0.1", port).start().await;
        match server {
            Ok(server) => {
                eprintln!("clients connect to {:?}", server.client_url());
                future::pending::<()>().await;
            }
            Err(error) => eprintln!("{error}"),
        }
    })
}
