//! What clients say, for the protocol trace.

use halyard_net::proto::ClientOp;

use crate::log::protocol;

/// Shows one operation that the connection `who` sent.
#[cold]
pub(super) fn received(who: &str, op: &ClientOp<'_>) {
    match *op {
        ClientOp::Pub {
            subject,
            reply,
            headers_len,
            payload,
        } => {
            let size = payload.len().to_string();
            let headers_size = (headers_len > 0).then(|| headers_len.to_string());
            let parts = [
                Some(subject),
                reply,
                headers_size.as_deref().map(str::as_bytes),
            ];
            let verb = if headers_len > 0 { "HPUB" } else { "PUB" };
            let last = Some(size.as_bytes());
            protocol::received(&who, verb, &joined(parts.into_iter().chain([last])));
            let (headers, payload) = payload.split_at_checked(headers_len).unwrap_or_default();
            protocol::payload(&who, headers, payload);
        }
        ClientOp::Sub {
            subject,
            queue,
            sid,
        } => protocol::received(&who, "SUB", &joined([Some(subject), queue, Some(sid)])),
        ClientOp::Unsub { sid, max } => {
            let max = (max > 0).then(|| max.to_string());
            let parts = [Some(sid), max.as_deref().map(str::as_bytes)];
            protocol::received(&who, "UNSUB", &joined(parts));
        }
        ClientOp::Connect(json) => protocol::received(&who, "CONNECT", json),
        ClientOp::Info(json) => protocol::received(&who, "INFO", json),
        ClientOp::Err(text) => protocol::received(&who, "-ERR", text),
        ClientOp::Ok => protocol::received(&who, "+OK", b""),
        ClientOp::Ping => protocol::received(&who, "PING", b""),
        ClientOp::Pong => protocol::received(&who, "PONG", b""),
    }
}

fn joined<'a>(parts: impl IntoIterator<Item = Option<&'a [u8]>>) -> Vec<u8> {
    let parts: Vec<&[u8]> = parts.into_iter().flatten().collect();
    parts.join(&b' ')
}
