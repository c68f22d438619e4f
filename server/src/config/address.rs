//! `host:port` as users write it.

/// A host, if one is named, and a port (0 is any free one).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostPort {
    /// Host name or address without brackets.
    pub(super) host: Option<String>,
    /// Port.
    pub(super) port: u16,
}

/// A port as users write it: -1 is any free one, which is 0 here; 0 itself is refused.
#[must_use]
pub(super) fn port(number: i64) -> Option<u16> {
    match number {
        -1 => Some(0),
        0 => None,
        _ => u16::try_from(number).ok(),
    }
}

/// Reads `host:port`, `:port`, `port` and `[v6 address]:port`; any `scheme://` before it is skipped.
#[must_use]
pub(super) fn host_port(text: &str) -> Option<HostPort> {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (host, number) = match text.rsplit_once(':') {
        Some(parts) => parts,
        None => ("", text),
    };
    let port = port(number.parse().ok()?)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    Some(HostPort {
        host: (!host.is_empty()).then(|| host.to_owned()),
        port,
    })
}

/// Whether `text` may stand in INFO for our address: a host, with or without a port.
#[must_use]
pub(super) fn is_advertisable(text: &str) -> bool {
    let has_host = |address: HostPort| address.host.is_some() && address.port != 0;
    let is_plain_host = !text.is_empty() && !text.contains([':', '/', ' ']);
    is_plain_host || host_port(text).is_some_and(has_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_all_forms() {
        let read = |text| host_port(text).map(|a| (a.host.unwrap_or_default(), a.port));
        assert_eq!(read("127.0.0.1:4222"), Some(("127.0.0.1".into(), 4222)));
        assert_eq!(read(":4333"), Some((String::new(), 4333)));
        assert_eq!(read("4333"), Some((String::new(), 4333)));
        assert_eq!(read("[::1]:-1"), Some(("::1".into(), 0)));
        assert_eq!(read("nats://localhost:1"), Some(("localhost".into(), 1)));
        for bad in ["", "a", "a:", "a:b:1", "a:0", "a:65536", "[::1:5", "a:b"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
