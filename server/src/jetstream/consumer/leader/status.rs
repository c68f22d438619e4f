//! What a client gets besides messages: header blocks that carry a status, exactly as clients expect them.

use super::ack_subject::put_number;

/// Appends `NATS/1.0 <code and text>` with the block's end still open.
fn line(out: &mut Vec<u8>, text: &str) {
    out.clear();
    out.extend_from_slice(b"NATS/1.0 ");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    put_number(out, value);
    out.extend_from_slice(b"\r\n");
}

/// A status alone: `404 No Messages`, `400 Bad Request - ...`, `409 Consumer Deleted`.
pub fn plain(out: &mut Vec<u8>, text: &str) {
    line(out, text);
    out.extend_from_slice(b"\r\n");
}

/// A status that ends a request before it got all it asked for.
pub fn ended(out: &mut Vec<u8>, text: &str, messages: u64, bytes: u64) {
    line(out, text);
    number(out, "Nats-Pending-Messages", messages);
    number(out, "Nats-Pending-Bytes", bytes);
    out.extend_from_slice(b"\r\n");
}

/// A sign of life, with the last delivery. `stalled`: the flow-control reply that the client still owes.
pub fn heartbeat(out: &mut Vec<u8>, consumer_seq: u64, stream_seq: u64, stalled: Option<&[u8]>) {
    line(out, "100 Idle Heartbeat");
    number(out, "Nats-Last-Consumer", consumer_seq);
    number(out, "Nats-Last-Stream", stream_seq);
    if let Some(owed) = stalled {
        out.extend_from_slice(b"Nats-Consumer-Stalled: ");
        out.extend_from_slice(owed);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// The headers of a message whose body is left out.
pub fn without_body(out: &mut Vec<u8>, headers: &[u8], payload_bytes: usize) {
    out.clear();
    match headers.strip_suffix(b"\r\n") {
        Some(open) => out.extend_from_slice(open),
        None => out.extend_from_slice(b"NATS/1.0\r\n"),
    }
    number(out, "Nats-Msg-Size", payload_bytes as u64);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_end_as_headers_do() {
        let mut out = Vec::new();
        ended(&mut out, "408 Request Timeout", 3, 0);
        let text = "NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\nNats-Pending-Bytes: 0\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&out), text);
        without_body(&mut out, b"NATS/1.0\r\na: b\r\n\r\n", 5);
        assert_eq!(out, b"NATS/1.0\r\na: b\r\nNats-Msg-Size: 5\r\n\r\n");
        without_body(&mut out, b"", 5);
        assert_eq!(out, b"NATS/1.0\r\nNats-Msg-Size: 5\r\n\r\n");
    }
}
