//! Headers of messages, and what clients say in acks.

use super::Field;

const SEQUENCES: &[&str] = &[
    "0",
    "0",
    "1",
    "1",
    "2",
    "3",
    "4",
    "-1",
    "x",
    "",
    "+1",
    "01",
    "1.0",
    "18446744073709551615",
];

/// Headers that ask a stream for something, with their values as they stand in the block. None makes a message go within a
/// case.
pub(crate) const HEADERS: &[Field] = &[
    ("Nats-Msg-Id", &["1", "1", "2", "", "a b", "\u{e9}"]),
    ("Nats-Expected-Stream", &["@", "@", "OTHER", "", "*"]),
    ("Nats-Expected-Last-Sequence", SEQUENCES),
    ("Nats-Expected-Last-Subject-Sequence", SEQUENCES),
    (
        "Nats-Expected-Last-Subject-Sequence-Subject",
        &["@.a", "@.>", "@.*", "@.none", "other", "", "a b", "..", ">"],
    ),
    ("Nats-Expected-Last-Msg-Id", &["1", "1", "2", "x", ""]),
    ("Nats-Rollup", &["sub", "all", "SUB", "x", "", "sub,all"]),
    (
        "Nats-TTL",
        &[
            "100", "100s", "1h30m", "never", "NEVER", "0", "0s", "-1", "500ms", "1ns", "x", "",
            "1.5h", "+100",
        ],
    ),
    ("Nats-Incr", &["1", "+1", "-1", "x", "", "1.5"]),
    (
        "Nats-Schedule",
        &["@at 2099-01-01T00:00:00Z", "@every 1h", "x", ""],
    ),
    ("Nats-Schedule-Target", &["@.b", "other", ""]),
    ("Nats-Schedule-TTL", &["100s", "x"]),
    ("Nats-Required-Api-Level", &["0", "5", "6", "x", ""]),
    ("Nats-Marker-Reason", &["MaxAge", "Remove", "x", ""]),
    ("KV-Operation", &["DEL", "PURGE"]),
    ("Nats-Sequence", &["7"]),
    ("Nats-Stream", &["OTHER"]),
    ("Nats-Subject", &["other"]),
    ("Nats-Time-Stamp", &["x"]),
    ("Nats-Num-Pending", &["5"]),
    ("Nats-Msg-Size", &["5"]),
    ("Nats-Stream-Source", &["x"]),
    ("Nats-Request-Info", &["{}"]),
    ("Nats-Batch-Id", &["b", "", "{65}", "{64}"]),
    ("Nats-Batch-Sequence", &["1", "2", "x", ""]),
    ("Nats-Batch-Commit", &["1", "eob", "x", ""]),
    ("nats-msg-id", &["1"]),
    ("A", &["1", "", "  padded  ", "\u{e9}"]),
];

/// Headers that a member of an atomic batch may have besides those that make it one.
pub(crate) const MEMBER_HEADERS: &[Field] = &[
    ("Nats-Msg-Id", &["1", "2", ""]),
    ("Nats-Expected-Stream", &["@", "OTHER"]),
    ("Nats-Expected-Last-Sequence", SEQUENCES),
    ("Nats-Expected-Last-Subject-Sequence", SEQUENCES),
    (
        "Nats-Expected-Last-Subject-Sequence-Subject",
        &["@.a", "@.>", "@.none", "other"],
    ),
    ("Nats-Expected-Last-Msg-Id", &["1", "x"]),
    ("Nats-Rollup", &["sub", "all", "x"]),
    ("Nats-TTL", &["100", "never", "x", "0"]),
    ("Nats-Required-Api-Level", &["5", "6"]),
    ("Nats-Incr", &["1"]),
    ("A", &["1"]),
];

/// How a batch is ended.
pub(crate) const COMMITS: &[&str] = &["1", "1", "1", "eob", "eob", "x", "", "0", "EOB"];

/// What clients say to a delivery.
pub(crate) const ACKS: &[&str] = &[
    "",
    "+ACK",
    "+OK",
    "-NAK",
    "-NAK {\"delay\":60000000000}",
    "-NAK {\"DELAY\":60000000000,\"x\":1}",
    "-NAK {\"delay\":\"60s\"}",
    "-NAK {\"delay\":-1}",
    "-NAK {\"delay\":0}",
    "-NAK {\"delay\":null}",
    "-NAK {\"delay\":1.5}",
    "-NAK {",
    "-NAK {} {\"delay\":60000000000}",
    "-NAK 60s",
    "-NAK  60s ",
    "-NAK 1h1m",
    "-NAK -60s",
    "-NAK +60s",
    "-NAK 60",
    "-NAK 0",
    "-NAK x",
    "-NAK60s",
    "-NAK{\"delay\":60000000000}",
    "-nak",
    "+WPI",
    "+WPI x",
    "+NXT",
    "+NXT ",
    "+NXT 2",
    "+NXT {\"batch\":3,\"no_wait\":true}",
    "+NXT {\"no_wait\":true}",
    "+NXTx",
    "+nxt",
    "+TERM",
    "+TERM reason",
    "+TERMreason",
    "+term",
    "+ACK ",
    " +ACK",
    "+ACKx",
    "+OK ",
    "ack",
    "-ERR",
    " ",
    "x",
    "{}",
    "+",
];
