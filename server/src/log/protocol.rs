//! Lines that show the protocol of clients (`trace: true`): `<<-` what they sent, `->>` what they were sent.
//!
//! A connection asks [`is_on`] first, one relaxed load, and calls the rest only then. Passwords and tokens of CONNECT
//! never reach the log. Payloads are cut at `max_traced_msg_len`.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::config::LogSettings;

/// The target of these events, by which the subscriber lets them through.
pub(super) const TARGET: &str = "halyard::protocol";

static ON: AtomicBool = AtomicBool::new(false);
static HEADERS_ONLY: AtomicBool = AtomicBool::new(false);
static PAYLOAD_BYTES_MAX: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The fields of CONNECT that open doors.
const SECRETS: [&str; 5] = ["pass", "auth_token", "jwt", "sig", "proxy_sig"];
/// What stands in their place.
const REDACTED: &str = "[REDACTED]";

pub(super) fn switch(settings: &LogSettings) {
    HEADERS_ONLY.store(settings.trace_headers, Ordering::Relaxed);
    ON.store(settings.trace, Ordering::Relaxed);
}

/// How many bytes of a payload are shown; `None` is all.
pub fn set_payload_bytes_max(bytes: Option<usize>) {
    PAYLOAD_BYTES_MAX.store(bytes.unwrap_or(usize::MAX), Ordering::Relaxed);
}

/// Whether the protocol is shown at all.
#[inline]
#[must_use]
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// A line of protocol that the connection `who` (like `127.0.0.1:5555 - cid:7`) sent: the operation and its arguments.
#[cold]
pub fn received(who: &dyn Display, operation: &str, arguments: &[u8]) {
    show(who, "<<-", operation, arguments);
}

/// A line of protocol that was sent to the connection `who`.
#[cold]
pub fn sent(who: &dyn Display, operation: &str, arguments: &[u8]) {
    show(who, "->>", operation, arguments);
}

/// The headers and payload that `who` published.
#[cold]
pub fn payload(who: &dyn Display, headers: &[u8], payload: &[u8]) {
    show_payload(who, "<<-", headers, payload);
}

/// The headers and payload that were sent to `who`.
#[cold]
pub fn payload_sent(who: &dyn Display, headers: &[u8], payload: &[u8]) {
    show_payload(who, "->>", headers, payload);
}

fn show_payload(who: &dyn Display, arrow: &str, headers: &[u8], payload: &[u8]) {
    let max = PAYLOAD_BYTES_MAX.load(Ordering::Relaxed);
    let mut shown = Vec::with_capacity(headers.len() + payload.len().min(max));
    shown.extend_from_slice(headers);
    if !HEADERS_ONLY.load(Ordering::Relaxed) {
        shown.extend_from_slice(payload);
    }
    let more = if shown.len() > max { "..." } else { "" };
    shown.truncate(max);
    let text = printable(&shown);
    tracing::trace!(target: TARGET, "{who} - {arrow} MSG_PAYLOAD: [\"{text}{more}\"]");
}

fn show(who: &dyn Display, arrow: &str, operation: &str, arguments: &[u8]) {
    let arguments = match operation.eq_ignore_ascii_case("CONNECT") {
        true => redact(arguments),
        false => printable(arguments),
    };
    let blank = if arguments.is_empty() { "" } else { " " };
    tracing::trace!(target: TARGET, "{who} - {arrow} [{operation}{blank}{arguments}]");
}

/// CONNECT's arguments without what opens doors; nothing at all if they cannot be understood.
fn redact(arguments: &[u8]) -> String {
    let Ok(Value::Object(mut fields)) = serde_json::from_slice(arguments) else {
        return REDACTED.to_owned();
    };
    // Parsers of JSON differ in whether names of fields distinguish case: hidden is what any of them would take.
    for (name, secret) in &mut fields {
        if SECRETS.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            *secret = Value::from(REDACTED);
        }
    }
    Value::Object(fields).to_string()
}

/// Text on one line that cannot command a terminal.
fn printable(bytes: &[u8]) -> String {
    one_line(&String::from_utf8_lossy(bytes))
}

/// The same for text.
pub(super) fn one_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let connect =
            br#"{"user":"u","pass":"p1","auth_token":"t2","nkey":"n","sig":"s3","verbose":false}"#;
        let shown = redact(connect);
        assert!(
            shown.contains("\"user\":\"u\"") && shown.contains("\"nkey\":\"n\""),
            "{shown}"
        );
        for secret in ["p1", "t2", "s3"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let shown = redact(br#"{"PASS":"p1","Auth_Token":"t2","JWT":"j4","Sig":"s3"}"#);
        for secret in ["p1", "t2", "s3", "j4"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(redact(b"{\"pass\":\"p1\""), REDACTED);
        assert_eq!(printable(b"a\r\nb\x1b[31m"), "a\\r\\nb\\u{1b}[31m");
    }
}
