//! Hostile requests: every verb of the JetStream API gives one answer to any body, nothing panics, and what an answer costs is
//! bounded by the length of the request.

#![allow(clippy::panic, reason = "what a test cannot go on without ends it")]

use std::time::Duration;

use bolero::TypeGenerator;
use halyard_fuzz::number::Number;
use halyard_fuzz::server;
use serde_json::{Map, Value, json};

/// Verbs that answer always.
const SUBJECTS: [&str; 28] = [
    "$JS.API.INFO",
    "$JS.API.STREAM.CREATE.S",
    "$JS.API.STREAM.CREATE.N",
    "$JS.API.STREAM.UPDATE.S",
    "$JS.API.STREAM.UPDATE.N",
    "$JS.API.STREAM.INFO.S",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.PURGE.S",
    "$JS.API.STREAM.DELETE.N",
    "$JS.API.STREAM.MSG.GET.S",
    "$JS.API.STREAM.MSG.DELETE.S",
    "$JS.API.STREAM.SNAPSHOT.N",
    "$JS.API.STREAM.RESTORE.R",
    "$JS.API.STREAM.ERASURE.S",
    "$JS.API.CONSUMER.CREATE.S",
    "$JS.API.CONSUMER.CREATE.S.n",
    "$JS.API.CONSUMER.CREATE.S.n.s.1",
    "$JS.API.CONSUMER.DURABLE.CREATE.S.d",
    "$JS.API.CONSUMER.INFO.S.c",
    "$JS.API.CONSUMER.NAMES.S",
    "$JS.API.CONSUMER.LIST.S",
    "$JS.API.CONSUMER.DELETE.S.n",
    "$JS.API.CONSUMER.PAUSE.S.c",
    "$JS.API.DIRECT.GET.S",
    "$JS.API.DIRECT.GET.S.s.1",
    "$JS.API.STREAM.LEADER.STEPDOWN.S",
    "$JS.API.STREAM.PEER.REMOVE.S",
];

/// Names that some verb understands.
const NAMES: [&str; 48] = [
    "name",
    "subjects",
    "config",
    "stream_name",
    "durable_name",
    "action",
    "pedantic",
    "filter",
    "filter_subject",
    "filter_subjects",
    "seq",
    "keep",
    "last_by_subj",
    "next_by_subj",
    "batch",
    "max_bytes",
    "multi_last",
    "up_to_seq",
    "up_to_time",
    "start_time",
    "no_erase",
    "offset",
    "limit",
    "subject",
    "subjects_filter",
    "deleted_details",
    "retention",
    "max_msgs",
    "max_age",
    "max_msgs_per_subject",
    "first_seq",
    "duplicate_window",
    "allow_msg_ttl",
    "subject_delete_marker_ttl",
    "consumer_limits",
    "deliver_policy",
    "opt_start_seq",
    "opt_start_time",
    "ack_policy",
    "ack_wait",
    "max_deliver",
    "backoff",
    "pause_until",
    "deliver_subject",
    "state",
    "messages",
    "last_seq",
    "metadata",
];
const TEXTS: [&str; 16] = [
    "S",
    "N",
    "n",
    "c",
    "s.>",
    "s.1",
    "s.*",
    "x.>",
    "",
    "all",
    "explicit",
    "by_start_sequence",
    "interest",
    "create",
    "2026-11-30T00:00:00Z",
    "9999-12-31T23:59:59Z",
];

/// A value.
#[derive(Clone, Debug, TypeGenerator)]
enum Piece {
    Null,
    Flag(bool),
    Number(Number),
    Signed(Number),
    Text(u8),
    Raw(Vec<u8>),
    Texts(Vec<u8>),
    /// So many different texts: what is not linear shows here.
    Many(u16),
    /// So many unknown fields.
    Fields(u16),
    /// So many tokens.
    Deep(u16),
    Numbers(Vec<Number>),
}

#[derive(Clone, Debug, TypeGenerator)]
enum Body {
    Object(Vec<(u8, Piece)>),
    /// The fields inside of `config`, with the names that the verb wants.
    Config(Vec<(u8, Piece)>),
    /// So many lists in one another.
    Nested(u16),
    Raw(Vec<u8>),
}

#[derive(Clone, Debug, TypeGenerator)]
struct Request {
    subject: u8,
    body: Body,
}

fn pick<'a>(all: &[&'a str], number: u8) -> &'a str {
    all[usize::from(number) % all.len()]
}

/// Mostly few, and now and then very many.
fn amount(count: u16) -> usize {
    usize::from(if count > 65_000 { count } else { count % 256 })
}

fn value(piece: &Piece) -> Value {
    match piece {
        Piece::Null => Value::Null,
        Piece::Flag(flag) => (*flag).into(),
        Piece::Number(number) => number.u64().into(),
        Piece::Signed(number) => number.i64().into(),
        Piece::Text(number) => pick(&TEXTS, *number).into(),
        Piece::Raw(bytes) => String::from_utf8_lossy(bytes).into(),
        Piece::Texts(all) => all.iter().map(|one| pick(&TEXTS, *one)).collect(),
        Piece::Many(count) => (0..amount(*count))
            .map(|number| format!("m.{number}"))
            .collect(),
        Piece::Fields(count) => {
            let fields = (0..amount(*count)).map(|number| (format!("k{number}"), Value::Null));
            Value::Object(fields.collect())
        }
        Piece::Deep(count) => vec!["a"; amount(*count)].join(".").into(),
        Piece::Numbers(all) => all.iter().map(|one| one.i64()).collect(),
    }
}

fn object(fields: &[(u8, Piece)]) -> Map<String, Value> {
    let fields = fields.iter();
    fields
        .map(|(name, piece)| (pick(&NAMES, *name).to_owned(), value(piece)))
        .collect()
}

fn body(subject: &str, body: &Body) -> Vec<u8> {
    match body {
        Body::Raw(bytes) => bytes.clone(),
        Body::Nested(depth) => [vec![b'['; amount(*depth)], vec![b']'; amount(*depth)]].concat(),
        Body::Object(fields) => {
            let mut all = object(fields);
            // What the subject says, so that it gets further.
            if subject.contains("STREAM.CREATE") || subject.contains("STREAM.UPDATE") {
                let name = subject.rsplit('.').next().unwrap_or_default();
                all.insert("name".to_owned(), name.into());
            }
            Value::Object(all).to_string().into_bytes()
        }
        Body::Config(fields) => {
            let config = Value::Object(object(fields));
            let all =
                json!({"stream_name": "S", "config": config, "state": {"messages": 0, "bytes": 0}});
            all.to_string().into_bytes()
        }
    }
}

#[test]
fn api_requests() {
    bolero::check!()
        .with_iterations(300)
        .with_shrink_time(Duration::from_secs(10))
        .with_type::<Request>()
        .for_each(|request| {
            let subject = pick(&SUBJECTS, request.subject);
            let body = body(subject, &request.body);
            let answer = server::request(subject, &body);
            let said = || {
                String::from_utf8_lossy(&body)
                    .chars()
                    .take(300)
                    .collect::<String>()
            };
            let Some(text) = answer.body else {
                // An update before may have ended them: then nobody listens.
                let info = server::request("$JS.API.STREAM.INFO.S", b"").body;
                let info = String::from_utf8(info.unwrap_or_default()).unwrap_or_default();
                let is_over = subject.contains("DIRECT") && !info.contains("\"allow_direct\":true");
                assert!(is_over, "no answer to {subject} {}: {info}", said());
                return;
            };
            assert!(
                !text.is_empty() || subject.contains("DIRECT"),
                "{subject} {}",
                said()
            );
            // A second for each mebibyte, unoptimised: what is quadratic takes minutes.
            let bound = Duration::from_millis(500) + Duration::from_micros(4 * body.len() as u64);
            assert!(
                answer.cost < bound,
                "{subject}: {:?} for {} bytes {}",
                answer.cost,
                body.len(),
                said()
            );
        });
}
