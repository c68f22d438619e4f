//! Messages that only ask which way they would go.
//!
//! A publisher that names a destination (`Nats-Trace-Dest`) and says `Nats-Trace-Only` wants the trace and nothing else: the
//! message must reach no subscriber and no stream. This server sends no traces yet, so such a message goes nowhere.

use halyard_net::proto::headers::Headers;

/// A destination that a server which has traced the message puts there.
const DISABLED: &[u8] = b"trace disabled";

/// Whether the message with these headers may not be delivered.
#[must_use]
pub fn is_only(headers: &[u8]) -> bool {
    let (mut dest, mut only) = (None, None);
    for (name, value) in Headers::new(headers).iter() {
        match name {
            b"Nats-Trace-Dest" => dest = dest.or(Some(value)),
            b"Nats-Trace-Only" => only = only.or(Some(value)),
            _ => {}
        }
    }
    dest.is_some_and(|dest| !dest.is_empty() && dest != DISABLED)
        && only.is_some_and(|only| {
            [&b"1"[..], b"true", b"on"]
                .iter()
                .any(|yes| only.eq_ignore_ascii_case(yes))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_and_a_yes() {
        let asks = |lines: &str| is_only(format!("NATS/1.0\r\n{lines}\r\n").as_bytes());
        for yes in ["1", "true", "TRUE", "on", "On"] {
            assert!(asks(&format!(
                "Nats-Trace-Dest: t\r\nNats-Trace-Only: {yes}\r\n"
            )));
            assert!(asks(&format!(
                "Nats-Trace-Only:{yes}\r\nA: b\r\nNats-Trace-Dest:t\r\n"
            )));
        }
        for no in ["", "0", "false", "yes", "t"] {
            assert!(!asks(&format!(
                "Nats-Trace-Dest: t\r\nNats-Trace-Only: {no}\r\n"
            )));
        }
        assert!(!asks("Nats-Trace-Only: true\r\n"));
        assert!(!asks("Nats-Trace-Dest:\r\nNats-Trace-Only: true\r\n"));
        assert!(!asks(
            "Nats-Trace-Dest: trace disabled\r\nNats-Trace-Only: true\r\n"
        ));
        assert!(!asks("nats-trace-dest: t\r\nnats-trace-only: true\r\n"));
        assert!(!is_only(b""));
    }
}
