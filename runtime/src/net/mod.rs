//! Sockets: TCP listeners and streams, over the kernel or over the simulated network.
//!
//! A stream is used through a shared reference: one task may read while others write. The readiness calls keep one waker
//! for each direction, so at most one task may wait to read and one to write at any time. `TCP_NODELAY` is always on:
//! this project coalesces its writes itself.

mod tcp;

pub use tcp::{TcpListener, TcpStream};

use std::io;
use std::net::SocketAddr;

/// The addresses of `host` (a name or a literal address), in the resolver's order; never empty.
///
/// # Errors
/// When the name is not known or the resolver fails.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    #[cfg(feature = "sim")]
    if crate::in_sim() {
        return crate::sim::resolve(host, port);
    }
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    if found.is_empty() {
        let text = format!("the name {host} has no address");
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    Ok(found)
}

/// Listens on `host`: the first of its addresses that can be had. `0.0.0.0` means every address of the machine, those of
/// IPv6 included where it has any.
///
/// # Errors
/// The last address's, when none can be had; see also [`resolve`].
pub async fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in resolve(host, port).await? {
        let bound = match address {
            SocketAddr::V4(v4) if v4.ip().is_unspecified() => TcpListener::bind_all(port).await,
            _ => TcpListener::bind(address).await,
        };
        match bound {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}
