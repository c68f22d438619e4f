//! What of a header block is stored: the headers, and nothing that speaks about the message's way here.
//!
//! A status behind the version would make a client take the message for a word of the server when it comes out of the
//! stream, and never acknowledge it. Who asked (`Nats-Request-Info`) is said by the server that passes a request on, and is
//! no business of later readers. Where a trace goes (`Nats-Trace-Dest`) holds for the one way of the publish.

use std::borrow::Cow;

use halyard_net::proto::headers::VERSION;

use super::headers::{pairs, without};

const REQUEST_INFO: &[u8] = b"Nats-Request-Info";
const TRACE_DEST: &[u8] = b"Nats-Trace-Dest";
/// What stands in place of the subject that a trace went to.
const TRACE_DISABLED: &[u8] = b"trace disabled";

/// The block as it is stored, empty for none. What is no header block stays as it is.
#[must_use]
pub fn stored(headers: &[u8]) -> Cow<'_, [u8]> {
    if !headers.starts_with(VERSION) {
        return Cow::Borrowed(headers);
    }
    let mut stored = Cow::Borrowed(headers);
    if let Some(behind) = headers.get(VERSION.len()..)
        && !behind.starts_with(b"\r\n")
        && let Some(end) = behind.windows(2).position(|two| two == b"\r\n")
    {
        let lines = behind.get(end..).unwrap_or_default();
        stored = Cow::Owned(if lines == b"\r\n\r\n" {
            Vec::new()
        } else {
            [VERSION, lines].concat()
        });
    }
    let (mut asked_by, mut traced_to) = (false, false);
    for (name, value) in pairs(&stored) {
        asked_by |= name == REQUEST_INFO;
        traced_to |= name == TRACE_DEST && !value.is_empty();
    }
    if asked_by {
        let rest = without(&stored, REQUEST_INFO);
        stored = Cow::Owned(if rest == b"NATS/1.0\r\n\r\n" {
            Vec::new()
        } else {
            rest
        });
    }
    if traced_to {
        stored = Cow::Owned(untraced(&stored));
    }
    stored
}

/// The block with its first trace destination switched off.
fn untraced(headers: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(headers.len() + TRACE_DISABLED.len());
    let mut is_found = false;
    for (at, line) in headers.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let is_named = line
            .strip_prefix(TRACE_DEST)
            .is_some_and(|rest| rest.first() == Some(&b':'));
        if at > 0 && is_named && !is_found {
            is_found = true;
            out.extend_from_slice(TRACE_DEST);
            out.extend_from_slice(b": ");
            out.extend_from_slice(TRACE_DISABLED);
            let text = line.trim_ascii_end();
            out.extend_from_slice(line.get(text.len()..).unwrap_or_default());
        } else {
            out.extend_from_slice(line);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn becomes(block: &str, expected: &str) {
        let stored = stored(block.as_bytes());
        assert_eq!(String::from_utf8_lossy(&stored), expected, "{block:?}");
        assert_eq!(
            matches!(stored, Cow::Borrowed(_)),
            block == expected,
            "nothing is copied for nothing"
        );
    }

    #[test]
    fn a_status_is_not_stored() {
        becomes("NATS/1.0 404 No Messages\r\n\r\n", "");
        becomes("NATS/1.0 404 \r\n\r\n", "");
        becomes(
            "NATS/1.0 100 Idle\r\nA: b\r\n\r\n",
            "NATS/1.0\r\nA: b\r\n\r\n",
        );
        becomes("NATS/1.0xyz\r\nA: b\r\n\r\n", "NATS/1.0\r\nA: b\r\n\r\n");
        becomes("NATS/1.0\t404\r\nA: b\r\n\r\n", "NATS/1.0\r\nA: b\r\n\r\n");
        becomes("NATS/1.0 404\nA: b\r\n\r\n", "");
        becomes("NATS/1.0 404 x\r\n", "NATS/1.0\r\n");
    }

    #[test]
    fn what_is_plain_or_no_block_stays() {
        let plain = [
            "",
            "NATS/1.0\r\n\r\n",
            "NATS/1.0\r\nA: b\r\n\r\n",
            "NATS/1.0\r\nA: b",
            "NATS/1.0",
            "NATS/1.0 404 x",
            "NATS/1.1 404\r\n\r\n",
            "nats/1.0 404\r\n\r\n",
            "garbage",
            "NATS/1.0\r\nNats-Trace-Dest:\r\nX-Nats-Request-Info: y\r\n\r\n",
        ];
        for block in plain {
            becomes(block, block);
        }
    }

    #[test]
    fn the_way_of_the_publish_is_not_stored() {
        becomes("NATS/1.0\r\nNats-Request-Info: {}\r\n\r\n", "");
        becomes(
            "NATS/1.0 503\r\nA: b\r\nNats-Request-Info: {}\r\nNats-Trace-Dest: t.x\r\nC: d\r\n\r\n",
            "NATS/1.0\r\nA: b\r\nNats-Trace-Dest: trace disabled\r\nC: d\r\n\r\n",
        );
    }
}
