//! What the real server (2.15.1) does with doubtful lines of a client, found by experiment, as tables.
//! The end-to-end protocol suite plays the same lines against both servers.

use halyard_net::proto::error::{CloseReason, ProtoError, Violation};
use halyard_net::proto::{ClientOp, Limits, Parsed, Parser};

/// Everything that is parsed from `input`: the operations in words, then why it ended.
fn parse(input: &[u8], headers: bool) -> (Vec<String>, Result<usize, ProtoError>) {
    let mut parser = Parser::new(Limits {
        headers,
        ..Limits::default()
    });
    let mut ops = Vec::new();
    let mut at = 0;
    loop {
        match parser.next(&input[at..]) {
            Ok(Parsed::Op { op, consumed }) => {
                ops.push(words(&op));
                at += consumed;
            }
            Ok(Parsed::Incomplete { need }) => {
                assert!(need > input.len() - at);
                return (ops, Ok(input.len() - at));
            }
            Err(error) => return (ops, Err(error)),
        }
    }
}

fn words(op: &ClientOp<'_>) -> String {
    let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let maybe = |bytes: Option<&[u8]>| bytes.map_or_else(|| "-".to_owned(), show);
    match *op {
        ClientOp::Connect(json) => format!("connect {}", show(json)),
        ClientOp::Pub {
            subject,
            reply,
            headers_len,
            payload,
        } => {
            format!(
                "pub {} {} {headers_len} {}",
                show(subject),
                maybe(reply),
                show(payload)
            )
        }
        ClientOp::Sub {
            subject,
            queue,
            sid,
        } => {
            format!("sub {} {} {}", show(subject), maybe(queue), show(sid))
        }
        ClientOp::Unsub { sid, max } => format!("unsub {} {max}", show(sid)),
        ClientOp::Ping => "ping".to_owned(),
        ClientOp::Pong => "pong".to_owned(),
        ClientOp::Info(json) => format!("info {}", show(json)),
        ClientOp::Ok => "ok".to_owned(),
        ClientOp::Err(text) => format!("err {}", show(text)),
    }
}

#[test]
fn accepted_lines() {
    let table: &[(&[u8], &[&str])] = &[
        // Verbs in any case.
        (
            b"sub foo 1\r\npUb foo 2\r\nhi\r\n",
            &["sub foo - 1", "pub foo - 0 hi"],
        ),
        (b"PiNg\r\npong\r\n", &["ping", "pong"]),
        (
            b"hpub foo 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
            &["pub foo - 12 NATS/1.0\\r\\n\\r\\nhi"],
        ),
        // A bare LF ends a line, though not a payload.
        (
            b"SUB foo 1\nPUB foo 2\nhi\r\nPING\n",
            &["sub foo - 1", "pub foo - 0 hi", "ping"],
        ),
        // Blanks.
        (
            b"SUB\tfoo\t1\r\nPUB\tfoo\t2\r\nhi\r\n",
            &["sub foo - 1", "pub foo - 0 hi"],
        ),
        (
            b"SUB   foo \t 1  \r\nPUB \t foo  r  2 \r\nhi\r\n",
            &["sub foo - 1", "pub foo r 0 hi"],
        ),
        (b"SUB fo\ro 1\r\n", &["sub fo o 1"]),
        (b"SUB foo 1\r\r\n", &["sub foo - 1"]),
        // Other control characters and any byte above are part of the token.
        (b"SUB f\x0bo\x0c1 2\r\n", &["sub f\\x0bo\\x0c1 - 2"]),
        (b"SUB f\0o\xff 2\r\n", &["sub f\\x00o\\xff - 2"]),
        // What follows these verbs is ignored.
        (
            b"PING hello\r\nPINGX\r\nPING\rx\r\nPONG 1 2 3\r\n",
            &["ping", "ping", "ping", "pong"],
        ),
        (b"+OK\r\n+OKxx\r\n", &["ok", "ok"]),
        // Without meaning from a client, yet legal.
        (b"INFO {}\r\n-ERR foo\r\n", &["info {}", "err foo"]),
        // Nor needs INFO a blank or a body; both are looked at elsewhere.
        (
            b"INFO\r\nINFO{}\r\nINFOX\r\n",
            &["info ", "info {}", "info X"],
        ),
        // CONNECT needs no blank; its JSON is looked at elsewhere.
        (
            b"connect   {}  \r\nCONNECT{}\r\nCONNECT\r\n",
            &["connect {}  ", "connect {}", "connect "],
        ),
        // Sizes.
        (
            b"PUB foo 0\r\n\r\nPUB foo 00002\r\nhi\r\n",
            &["pub foo - 0 ", "pub foo - 0 hi"],
        ),
        (
            b"HPUB foo 0 2\r\nhi\r\nHPUB foo 2 2\r\nhi\r\n",
            &["pub foo - 0 hi", "pub foo - 2 hi"],
        ),
        (b"HPUB foo r 2 3\r\nhix\r\n", &["pub foo r 2 hix"]),
        // A payload may hold anything.
        (b"PUB foo 6\r\nPING\r\n\r\n", &["pub foo - 0 PING\\r\\n"]),
        // Auto-unsubscribe: an unreadable number means at once.
        (
            b"UNSUB 1\r\nUNSUB 1 5\r\nUNSUB 1 0\r\n",
            &["unsub 1 0", "unsub 1 5", "unsub 1 0"],
        ),
        (b"UNSUB 1 x\r\nUNSUB 1 -5\r\n", &["unsub 1 0", "unsub 1 0"]),
        (b"UNSUB 1 99999999999999999999\r\n", &["unsub 1 0"]),
        (b"SUB foo q 1\r\n", &["sub foo q 1"]),
    ];
    for (input, expected) in table {
        let (ops, end) = parse(input, true);
        assert_eq!(
            (ops.as_slice(), end),
            (&*own(expected), Ok(0)),
            "{}",
            input.escape_ascii()
        );
    }
}

fn own(words: &[&str]) -> Vec<String> {
    words.iter().map(|&w| w.to_owned()).collect()
}

#[test]
fn refused_lines() {
    use ProtoError::{Arguments, HeadersNotSupported, PayloadTooLarge, UnknownOperation};
    let table: &[(&[u8], ProtoError)] = &[
        // Refused at the first wrong byte: the line need not end.
        (b"X", UnknownOperation),
        (b"\r", UnknownOperation),
        (b"\n", UnknownOperation),
        (b" ", UnknownOperation),
        (b"GET / HTTP/1.1\r\n\r\n", UnknownOperation),
        (b"POST / HTTP/1.1\r\n\r\n", UnknownOperation),
        (b"PUBX", UnknownOperation),
        (b"PUB\r", UnknownOperation),
        (b"PUB\n", UnknownOperation),
        (b"PUB\0", UnknownOperation),
        (b"SUB\r\n", UnknownOperation),
        (b"UNSUB\r\n", UnknownOperation),
        (b"HPUBfoo 12 14\r\n", UnknownOperation),
        (b"HPING\r\n", UnknownOperation),
        (b"-ERRfoo", UnknownOperation),
        (b"-ERR\r\n", UnknownOperation),
        // Verbs of servers.
        (b"MSG foo 1 2\r\nhi\r\n", UnknownOperation),
        (b"HMSG foo 1 2 2\r\nhi\r\n", UnknownOperation),
        (b"RMSG $G foo 2\r\nhi\r\n", UnknownOperation),
        (b"A+ foo\r\n", UnknownOperation),
        (b"RS+ foo\r\n", UnknownOperation),
        (b"LS+ foo\r\n", UnknownOperation),
        // The payload must be followed by CRLF; refused at the first wrong byte.
        (b"PUB foo 2\r\nhi\n", UnknownOperation),
        (b"PUB foo 2\r\nhi\rX", UnknownOperation),
        (b"PUB foo 2\r\nhiX", UnknownOperation),
        (b"PUB foo 2\r\nhiho\r\n", UnknownOperation),
        (b"PUB foo 0\r\nPING\r\n", UnknownOperation),
        // Arguments.
        (b"PUB \r\n", Arguments(Violation::Pub)),
        (b"PUB foo\r\n", Arguments(Violation::Pub)),
        (b"PUB foo bar baz 2\r\nhi\r\n", Arguments(Violation::Pub)),
        (b"PUB foo 2\r\r\n", Arguments(Violation::Pub)),
        (b"PUB foo\r2\r\n", Arguments(Violation::Pub)),
        (b"HPUB foo 12 14\r\r\n", Arguments(Violation::Hpub)),
        // Here the real server lets the CR into the subject.
        (b"PUB fo\ro 2\r\n", Arguments(Violation::Pub)),
        (b"PUB foo -1\r\n", Arguments(Violation::PubSize)),
        (b"PUB foo +2\r\n", Arguments(Violation::PubSize)),
        (b"PUB foo 2x\r\n", Arguments(Violation::PubSize)),
        (b"PUB foo 2147483648\r\n", Arguments(Violation::PubSize)),
        (b"PUB foo 4294967298\r\n", Arguments(Violation::PubSize)),
        (
            b"PUB foo 99999999999999999999\r\n",
            Arguments(Violation::PubSize),
        ),
        (
            b"PUB foo 0000000000000000000000002\r\n",
            Arguments(Violation::PubSize),
        ),
        (b"HPUB foo\r\n", Arguments(Violation::Hpub)),
        (b"HPUB foo 2\r\n", Arguments(Violation::Hpub)),
        (b"HPUB foo a b 2 2\r\n", Arguments(Violation::Hpub)),
        (b"HPUB foo 15 14\r\n", Arguments(Violation::HpubSize)),
        (b"HPUB foo 10000000 2\r\n", Arguments(Violation::HpubSize)),
        (b"HPUB foo -1 2\r\n", Arguments(Violation::HpubSize)),
        (b"HPUB foo 1x 2\r\n", Arguments(Violation::HpubSize)),
        (b"HPUB foo 1 2x\r\n", Arguments(Violation::HpubSize)),
        (b"SUB \r\n", Arguments(Violation::Sub)),
        (b"SUB foo\r\n", Arguments(Violation::Sub)),
        (b"SUB foo q s x\r\n", Arguments(Violation::Sub)),
        (b"UNSUB \r\n", Arguments(Violation::Unsub)),
        (b"UNSUB 1 2 3\r\n", Arguments(Violation::Unsub)),
        // Too large: refused before the payload.
        (b"PUB foo 1048577\r\n", PayloadTooLarge),
        (b"PUB foo 999999999\r\n", PayloadTooLarge),
        (b"HPUB foo 12 1048577\r\n", PayloadTooLarge),
    ];
    for (input, expected) in table {
        let (ops, end) = parse(input, true);
        assert_eq!(
            (ops.as_slice(), end),
            (&[][..], Err(*expected)),
            "{}",
            input.escape_ascii()
        );
    }
    let (_, end) = parse(b"HPUB foo 12 14\r\n", false);
    assert_eq!(
        end,
        Err(HeadersNotSupported),
        "the client did not announce headers"
    );
}

#[test]
fn control_line_limit_counts_arguments_only() {
    use ProtoError::ControlLineTooLong;
    for verb in ["SUB", "PUB", "INFO"] {
        for (len, end, expected) in [
            (4096, "", Ok(verb.len() + 2 + 4096)),
            (4096, "\r", Ok(verb.len() + 2 + 4097)),
            (4097, "", Err(ControlLineTooLong)),
            (4097, "\r", Err(ControlLineTooLong)),
            (4097, "\n", Err(ControlLineTooLong)),
            (4097, "\r\n", Err(ControlLineTooLong)),
            (100_000, "", Err(ControlLineTooLong)),
        ] {
            let line = format!("{verb} \t{}{end}", "a".repeat(len));
            assert_eq!(
                parse(line.as_bytes(), true).1,
                expected,
                "{verb} {len} {end:?}"
            );
        }
    }
    for (len, end) in [(4096, "\n"), (4096, "\r\n")] {
        let line = format!("SUB {} 1{end}", "a".repeat(len - 2));
        assert_eq!(parse(line.as_bytes(), true).1, Ok(0));
    }
    // Here the real server has no limit; we do not let a line without end fill the memory.
    for line in [
        "PING".to_owned() + &"x".repeat(4097),
        "SUB".to_owned() + &" ".repeat(4098),
    ] {
        assert_eq!(parse(line.as_bytes(), true).1, Err(ControlLineTooLong));
    }
}

#[test]
fn what_the_peer_is_told() {
    for (error, text, reason) in [
        (
            ProtoError::UnknownOperation,
            Some("Unknown Protocol Operation"),
            "Protocol Violation",
        ),
        (
            ProtoError::ControlLineTooLong,
            Some("maximum control line exceeded"),
            "Maximum Control Line Exceeded",
        ),
        (
            ProtoError::PayloadTooLarge,
            Some("Maximum Payload Violation"),
            "Maximum Message Payload Exceeded",
        ),
        (ProtoError::HeadersNotSupported, None, "Protocol Violation"),
        (
            ProtoError::Arguments(Violation::Sub),
            None,
            "Protocol Violation",
        ),
    ] {
        assert_eq!(error.text().map(|text| text.to_string()).as_deref(), text);
        assert_eq!(error.close_reason().as_str(), reason);
    }
    let reasons: std::collections::BTreeSet<_> = CloseReason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .collect();
    assert_eq!(
        reasons.len(),
        CloseReason::ALL.len(),
        "two reasons with one text"
    );
}
