//! The monitoring endpoints: what a dashboard reads from us, beside what it reads from the real server.
//!
//! Where the real server is installed, every field that it shows must be there with the same type; fields of our own are
//! few and named here.

#![expect(
    clippy::panic,
    reason = "helpers of a test fail it with what they found"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use halyard_tests::node::{Node, Start};
use halyard_tests::tools;
use serde_json::Value;

/// What nats-server shows and we do not, with the reason.
const NOT_OURS: [(&str, &str); 5] = [
    ("/varz .git_commit", "its releases are named by commits"),
    ("/varz .feature_flags", "its own experiments"),
    ("/varz .disk_io_wait_stats", "its own gate before the disk"),
    (
        "/accountz?acc=$G .account_detail.imports",
        "the system account's services come with accounts",
    ),
    (
        "/subsz?subs=1 .subscriptions_list",
        "its own services listen there before any client does",
    ),
];
/// What we show and nats-server does not, with everything below it.
const OURS: [&str; 2] = ["/varz .halyard", "/jsz .halyard"];

/// A client that speaks just enough of the protocol.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(node: &Node, name: &str) -> Self {
        let stream = TcpStream::connect(node.address()).expect("the server listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout above zero");
        let mut client = Self(BufReader::new(stream));
        client.line();
        let connect = format!(
            "CONNECT {{\"verbose\":false,\"name\":\"{name}\",\"lang\":\"raw\",\"version\":\"1\",\"protocol\":1}}\r\n"
        );
        client.send(&connect);
        client.settle();
        client
    }

    fn send(&mut self, text: &str) {
        self.0
            .get_mut()
            .write_all(text.as_bytes())
            .expect("the server reads");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the server writes");
        line
    }

    /// Waits until the server has done all that was sent.
    fn settle(&mut self) {
        self.send("PING\r\n");
        while self.line() != "PONG\r\n" {}
    }

    /// Waits for the server's own PING and answers it, so that a round trip time is known.
    fn answer_ping(&mut self) {
        while self.line() != "PING\r\n" {}
        self.send("PONG\r\n");
        self.settle();
    }
}

/// The same small history on any server: a subscriber with traffic, a queue member, a client that is gone.
fn history(node: &Node) -> (Client, Client) {
    let mut subscriber = Client::connect(node, "subscriber");
    subscriber.send("SUB foo.> 1\r\nSUB bar q 2\r\nUNSUB 2 10\r\nPUB foo.a 5\r\nhello\r\n");
    subscriber.settle();
    let mut idle = Client::connect(node, "idle");
    idle.send("SUB foo.* 7\r\n");
    idle.settle();
    let mut gone = Client::connect(node, "gone");
    gone.send("PUB foo.b 3\r\nabc\r\n");
    gone.settle();
    drop(gone);
    // The first PING of a server comes after two seconds; by then the client that is gone is counted as such.
    subscriber.answer_ping();
    (subscriber, idle)
}

fn get(node: &Node, path: &str) -> Value {
    let (status, body) = node.http_get(path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&unchunk(&body)).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

/// Bodies of unknown length come in chunks, each after its length in hexadecimal.
fn unchunk(body: &str) -> String {
    let mut rest = body;
    let mut whole = String::new();
    while let Some((length, after)) = rest.split_once("\r\n")
        && let Ok(length) = usize::from_str_radix(length, 16)
        && let Some((chunk, next)) = after.split_at_checked(length)
    {
        whole.push_str(chunk);
        rest = next.strip_prefix("\r\n").unwrap_or(next);
    }
    if whole.is_empty() {
        body.to_owned()
    } else {
        whole
    }
}

/// Every field of `value` with the kind of its value, fields of list elements under `[]`.
fn fields(path: &str, value: &Value, found: &mut BTreeMap<String, &'static str>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    };
    found.insert(path.to_owned(), kind);
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| fields(&format!("{path}.{key}"), value, found)),
        Value::Array(list) => list
            .iter()
            .for_each(|value| fields(&format!("{path}[]"), value, found)),
        _ => {}
    }
}

#[test]
fn every_field_of_the_real_server_is_there_with_its_type() {
    let Some(peer) = tools::peer() else {
        eprintln!("skipped: no nats-server here");
        return;
    };
    let config = ["--config", "tests/data/monitor.conf"];
    let ours = Start::halyard().args(config_args(config)).start();
    let theirs = Start::with(&peer).args(config_args(config)).start();
    let _clients = (history(&ours), history(&theirs));
    for path in [
        "/varz",
        "/connz",
        "/connz?subs=1",
        "/connz?subs=detail&auth=1",
        "/connz?state=closed",
        "/connz?state=any&sort=rtt",
        "/subsz",
        "/subsz?subs=1",
        "/subsz?test=foo.x&subs=1",
        "/accountz",
        "/accountz?acc=$G",
        "/accstatz?unused=1",
        "/routez",
        "/gatewayz",
        "/leafz",
        "/healthz",
        "/jsz",
    ] {
        let (mut expected, mut found) = (BTreeMap::new(), BTreeMap::new());
        fields(&format!("{path} "), &get(&theirs, path), &mut expected);
        fields(&format!("{path} "), &get(&ours, path), &mut found);
        for (field, kind) in &expected {
            if NOT_OURS.iter().any(|(except, _)| field.starts_with(except)) {
                continue;
            }
            assert_eq!(
                found.get(field),
                Some(kind),
                "{field} is shown by the real server"
            );
        }
        let is_below = |field: &str, ours: &str| {
            let rest = field.strip_prefix(ours);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        for field in found.keys() {
            let is_ours = OURS.iter().any(|ours| is_below(field, ours));
            let known = expected.contains_key(field) || is_ours;
            assert!(known, "{field} is not shown by the real server");
        }
    }
    for path in [
        "/connz?sort=foo",
        "/connz?sort=stop",
        "/connz?sort=reason",
        "/connz?limit=x",
        "/connz?subs=x",
        "/connz?state=x",
        "/connz?cid=x",
        "/subsz?test=a.*",
        "/subsz?offset=x",
        "/jsz?limit=x",
        "/healthz?js-enabled=x",
        "/healthz?stream=x",
        "/healthz?consumer=x",
        "/accountz?acc=nope",
        "/nope",
        "/varz/x",
    ] {
        let (status, body) = theirs.http_get(path);
        assert_eq!(ours.http_get(path), (status, body), "{path}");
    }
}

/// The same arguments for both servers, with the file's place in the workspace.
fn config_args(args: [&str; 2]) -> [String; 2] {
    let file = halyard_tests::node::workspace().join(args[1]);
    [args[0].to_owned(), file.display().to_string()]
}

#[test]
fn counters_and_lists_tell_what_happened() {
    let node = Start::halyard().start();
    let (mut subscriber, _idle) = history(&node);
    let varz = get(&node, "/varz");
    // The launcher's own first connection is counted, too.
    for (field, expected) in [
        ("connections", 2),
        ("total_connections", 4),
        ("in_msgs", 2),
        ("in_bytes", 8),
        ("out_msgs", 3),
        ("out_bytes", 11),
        ("subscriptions", 3),
        ("slow_consumers", 0),
    ] {
        assert_eq!(varz[field], expected, "{field}");
    }
    let connz = get(&node, "/connz?subs=detail&sort=subs&limit=1");
    assert_eq!(
        (&connz["num_connections"], &connz["total"]),
        (&Value::from(1), &Value::from(2))
    );
    let first = &connz["connections"][0];
    assert_eq!(first["name"], "subscriber");
    let details = first["subscriptions_list_detail"]
        .as_array()
        .expect("a list");
    let bar = details
        .iter()
        .find(|one| one["subject"] == "bar")
        .expect("subscribed");
    assert_eq!(
        (&bar["qgroup"], &bar["max"], &bar["sid"]),
        (&"q".into(), &10.into(), &"2".into())
    );
    assert_eq!(
        details
            .iter()
            .find(|one| one["subject"] == "foo.>")
            .expect("subscribed")["msgs"],
        2
    );

    let closed = get(&node, "/connz?state=closed");
    let gone = closed["connections"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["name"] == "gone"));
    let gone = gone.expect("closed connections are remembered");
    assert_eq!(gone["reason"], "Client Closed");
    let cid = &gone["cid"];
    assert_eq!(
        get(&node, &format!("/connz?cid={cid}&state=any"))["num_connections"],
        1
    );

    let subsz = get(&node, "/subsz?test=foo.x&subs=1");
    assert_eq!(subsz["total"], 2);
    subscriber.send("UNSUB 1\r\n");
    subscriber.settle();
    assert_eq!(get(&node, "/subsz?test=foo.x&subs=1")["total"], 1);
    assert_eq!(
        node.http_get("/healthz"),
        (200, "{\"status\":\"ok\"}".to_owned())
    );
}

#[test]
fn a_base_path_moves_every_endpoint() {
    let node = Start::halyard()
        .args(config_args(["-c", "tests/data/base_path.conf"]))
        .start();
    assert_eq!(node.http_get("/nats/healthz").0, 200);
    assert!(node.http_get("/nats").1.contains("Halyard"));
    assert_eq!(node.http_get("/healthz").0, 404);
}
