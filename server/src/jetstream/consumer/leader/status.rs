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

/// A status that ends a request, with what it has not got. A client that asked for nothing, or less, hears less than nothing.
pub fn ended(out: &mut Vec<u8>, text: &str, messages: i64, bytes: i64) {
    line(out, text);
    for (name, value) in [
        ("Nats-Pending-Messages", messages),
        ("Nats-Pending-Bytes", bytes),
    ] {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
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

/// Bytes of that block.
pub fn bytes_without_body(headers: &[u8], payload: &[u8]) -> usize {
    const EMPTY: usize = b"NATS/1.0\r\n\r\n".len();
    const LINE: usize = b"Nats-Msg-Size: \r\n".len();
    let digits = payload
        .len()
        .checked_ilog10()
        .map_or(1, |log| log as usize + 1);
    headers.len().max(EMPTY) + LINE + digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_end_as_headers_do() {
        let mut out = Vec::new();
        ended(&mut out, "408 Request Timeout", -1, 0);
        let text = "NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: -1\r\nNats-Pending-Bytes: 0\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&out), text);
        without_body(&mut out, b"NATS/1.0\r\na: b\r\n\r\n", 5);
        assert_eq!(out, b"NATS/1.0\r\na: b\r\nNats-Msg-Size: 5\r\n\r\n");
        let block = b"NATS/1.0\r\na: b\r\n\r\n";
        assert_eq!(bytes_without_body(block, b"12345"), out.len());
        without_body(&mut out, b"", 15);
        assert_eq!(out, b"NATS/1.0\r\nNats-Msg-Size: 15\r\n\r\n");
        assert_eq!(bytes_without_body(b"", &[0; 15]), out.len());
    }
}
