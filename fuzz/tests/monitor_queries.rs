//! Hostile readers of the monitor: any path and query is answered with a status, at a price that does not grow out of
//! proportion, and nothing panics.

#![allow(clippy::panic, reason = "what a test cannot go on without ends it")]

use std::time::Duration;

use bolero::TypeGenerator;
use halyard_fuzz::number::Number;
use halyard_fuzz::server;

const PATHS: [&str; 16] = [
    "/",
    "/varz",
    "/connz",
    "/subsz",
    "/jsz",
    "/healthz",
    "/accountz",
    "/accstatz",
    "/routez",
    "/gatewayz",
    "/leafz",
    "/ipqueuesz",
    "/raftz",
    "/stacksz",
    "/debug/vars",
    "/nothing",
];
const NAMES: [&str; 22] = [
    "subs",
    "auth",
    "sort",
    "offset",
    "limit",
    "cid",
    "state",
    "mqtt_client",
    "acc",
    "user",
    "filter_subject",
    "test",
    "accounts",
    "streams",
    "consumers",
    "config",
    "leader-only",
    "raft",
    "stream-leader-only",
    "js-enabled-only",
    "unused",
    "callback",
];
const VALUES: [&str; 12] = [
    "1", "0", "true", "detail", "closed", "all", "any", "cid", "start", "$G", "s.>", "%73.%2A",
];

/// One option.
#[derive(Clone, Debug, TypeGenerator)]
enum Value {
    Known(u8),
    Number(Number),
    Signed(Number),
    /// A filter of so many tokens.
    Deep(u16),
    Raw(Vec<u8>),
}

#[derive(Clone, Debug, TypeGenerator)]
struct Query {
    path: u8,
    options: Vec<(u8, Value)>,
    raw: Option<Vec<u8>>,
}

/// Bytes that may stand in a request line, the others as they are escaped.
fn escaped(bytes: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>');
    let each = bytes.iter().map(|byte| match plain(*byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02x}"),
    });
    each.collect()
}

fn pick<'a>(all: &[&'a str], number: u8) -> &'a str {
    all[usize::from(number) % all.len()]
}

fn line(query: &Query) -> String {
    let options = query.options.iter().map(|(name, value)| {
        let value = match value {
            Value::Known(number) => pick(&VALUES, *number).to_owned(),
            Value::Number(number) => number.u64().to_string(),
            Value::Signed(number) => number.i64().to_string(),
            Value::Deep(count) => vec!["a"; usize::from(*count % 4096)].join("."),
            Value::Raw(bytes) => escaped(bytes),
        };
        format!("{}={value}", pick(&NAMES, *name))
    });
    let mut options: Vec<String> = options.collect();
    options.extend(query.raw.iter().map(|bytes| escaped(bytes)));
    format!("{}?{}", pick(&PATHS, query.path), options.join("&"))
}

#[test]
fn monitor_queries() {
    bolero::check!()
        .with_iterations(300)
        .with_shrink_time(Duration::from_secs(10))
        .with_type::<Query>()
        .for_each(|query| {
            let line = line(query);
            let answer = server::monitor(&line);
            let body = answer.body.unwrap_or_else(|| panic!("no answer to {line}"));
            assert!(body.starts_with(b"HTTP/1.1 "), "{line}");
            assert!(
                answer.cost < Duration::from_millis(500),
                "{line}: {:?}",
                answer.cost
            );
        });
}
