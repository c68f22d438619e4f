//! However the bytes are cut, the same operations and the same error come out, and they are the ones that a naive
//! parser of the whole input finds.

use halyard_net::proto::{
    ClientOp, Limits, Parsed, Parser, ProtoError, ServerOp, ServerParsed, ServerParser, encoder,
};
use proptest::prelude::*;

const MAX_LINE: usize = 64;
const MAX_PAYLOAD: usize = 40;

type Outcome = (Vec<String>, Option<ProtoError>);

fn limits() -> Limits {
    Limits {
        max_control_line: MAX_LINE,
        max_payload: MAX_PAYLOAD,
        headers: true,
    }
}

/// Feeds `input` in pieces, as a connection does: appends to what is left over, takes what is complete.
fn feed(input: &[u8], cuts: &[usize]) -> Outcome {
    let mut parser = Parser::new(limits());
    let mut ops = Vec::new();
    let mut buffer = Vec::new();
    let mut start = 0;
    let ends = cuts
        .iter()
        .copied()
        .filter(|&cut| cut <= input.len())
        .chain([input.len()]);
    let mut needed = 0;
    for end in ends {
        if end < start {
            continue;
        }
        buffer.extend_from_slice(&input[start..end]);
        start = end;
        loop {
            match parser.next(&buffer) {
                Ok(Parsed::Op { op, consumed }) => {
                    assert!(
                        buffer.len() >= needed,
                        "an operation before the bytes it needed"
                    );
                    needed = 0;
                    ops.push(format!("{op:?}"));
                    buffer.drain(..consumed);
                }
                Ok(Parsed::Incomplete { need }) => {
                    assert!(need > buffer.len());
                    needed = need;
                    break;
                }
                Err(error) => return (ops, Some(error)),
            }
        }
    }
    (ops, None)
}

/// The same, written for clarity: complete lines only, no state. `None` for what more bytes could still change.
fn naive(mut input: &[u8]) -> Outcome {
    let mut ops = Vec::new();
    while let Some(end) = input.iter().position(|&b| b == b'\n') {
        let mut line = &input[..end];
        line = line.strip_suffix(b"\r").unwrap_or(line);
        let rest = &input[end + 1..];
        let is = |verb: &str| {
            line.get(..verb.len())
                .is_some_and(|s| s.eq_ignore_ascii_case(verb.as_bytes()))
        };
        let blank_after = |n: usize| matches!(input.get(n), Some(b' ' | b'\t'));
        let after = |n: usize| {
            let text = &line[n..];
            let blanks = text
                .iter()
                .take_while(|b| matches!(b, b' ' | b'\t'))
                .count();
            if blanks > MAX_LINE || text.len() - blanks > MAX_LINE {
                return Err(ProtoError::ControlLineTooLong);
            }
            Ok(&text[blanks..])
        };
        let ignored = |n: usize| {
            if line.len() - n > MAX_LINE {
                Err(ProtoError::ControlLineTooLong)
            } else {
                Ok(())
            }
        };
        let result = if is("PING") {
            ignored(4).map(|()| (ClientOp::Ping, 0))
        } else if is("PONG") {
            ignored(4).map(|()| (ClientOp::Pong, 0))
        } else if is("+OK") {
            ignored(3).map(|()| (ClientOp::Ok, 0))
        } else if is("CONNECT") {
            after(7).map(|args| (ClientOp::Connect(args), 0))
        } else if is("INFO") {
            after(4).map(|args| (ClientOp::Info(args), 0))
        } else if is("-ERR") && blank_after(4) {
            after(4).map(|args| (ClientOp::Err(args), 0))
        } else if is("SUB") && blank_after(3) {
            after(3).and_then(naive_sub).map(|op| (op, 0))
        } else if is("UNSUB") && blank_after(5) {
            after(5).and_then(naive_unsub).map(|op| (op, 0))
        } else if is("PUB") && blank_after(3) {
            match after(3).and_then(|args| naive_pub(args, false, rest)) {
                Ok(Some(op)) => Ok(op),
                Ok(None) => return (ops, None),
                Err(error) => Err(error),
            }
        } else if is("HPUB") && blank_after(4) {
            match after(4).and_then(|args| naive_pub(args, true, rest)) {
                Ok(Some(op)) => Ok(op),
                Ok(None) => return (ops, None),
                Err(error) => Err(error),
            }
        } else {
            Err(ProtoError::UnknownOperation)
        };
        match result {
            Ok((op, payload)) => {
                ops.push(format!("{op:?}"));
                input = &rest[payload..];
            }
            Err(error) => return (ops, Some(error)),
        }
    }
    (ops, None)
}

fn words(args: &[u8]) -> Vec<&[u8]> {
    args.split(|b| matches!(b, b' ' | b'\t' | b'\r'))
        .filter(|word| !word.is_empty())
        .collect()
}

fn naive_number(word: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(word).ok()?;
    let plain = (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().expect("nine digits"))
}

fn naive_sub(args: &[u8]) -> Result<ClientOp<'_>, ProtoError> {
    match *words(args).as_slice() {
        [subject, sid] => Ok(ClientOp::Sub {
            subject,
            queue: None,
            sid,
        }),
        [subject, queue, sid] => Ok(ClientOp::Sub {
            subject,
            queue: Some(queue),
            sid,
        }),
        _ => Err(ProtoError::Arguments(
            halyard_net::proto::error::Violation::Sub,
        )),
    }
}

fn naive_unsub(args: &[u8]) -> Result<ClientOp<'_>, ProtoError> {
    match *words(args).as_slice() {
        [sid] => Ok(ClientOp::Unsub { sid, max: 0 }),
        [sid, max] => Ok(ClientOp::Unsub {
            sid,
            max: naive_number(max).unwrap_or(0) as u64,
        }),
        _ => Err(ProtoError::Arguments(
            halyard_net::proto::error::Violation::Unsub,
        )),
    }
}

fn naive_pub<'a>(
    args: &'a [u8],
    headers: bool,
    rest: &'a [u8],
) -> Result<Option<(ClientOp<'a>, usize)>, ProtoError> {
    use halyard_net::proto::error::Violation;
    let words = if args.contains(&b'\r') {
        Vec::new()
    } else {
        words(args)
    };
    let (count, size) = if headers {
        (Violation::Hpub, Violation::HpubSize)
    } else {
        (Violation::Pub, Violation::PubSize)
    };
    let (subject, reply, header, total) = match (headers, words.as_slice()) {
        (false, [s, t]) => (*s, None, b"0".as_slice(), *t),
        (false, [s, r, t]) => (*s, Some(*r), b"0".as_slice(), *t),
        (true, [s, h, t]) => (*s, None, *h, *t),
        (true, [s, r, h, t]) => (*s, Some(*r), *h, *t),
        _ => return Err(ProtoError::Arguments(count)),
    };
    let sizes = naive_number(header)
        .zip(naive_number(total))
        .filter(|(h, t)| h <= t);
    let Some((headers_len, total)) = sizes else {
        return Err(ProtoError::Arguments(size));
    };
    if total > MAX_PAYLOAD {
        return Err(ProtoError::PayloadTooLarge);
    }
    match rest.get(total..) {
        Some([b'\r', b'\n', ..]) => {
            let payload = &rest[..total];
            Ok(Some((
                ClientOp::Pub {
                    subject,
                    reply,
                    headers_len,
                    payload,
                },
                total + 2,
            )))
        }
        None | Some([] | [b'\r']) => Ok(None),
        Some(_) => Err(ProtoError::UnknownOperation),
    }
}

/// Pieces of conversations, many of them nearly right.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "foo",
        "a.b.>",
        "_INBOX.1",
        "1",
        "0",
        "2",
        "7",
        "12",
        "40",
        "41",
        "-1",
        "9999999999",
        "q",
    ]);
    let verb = prop::sample::select(vec![
        "PUB", "pub", "HPUB", "SUB", "UNSUB", "PING", "PONG", "CONNECT", "INFO", "+OK", "-ERR",
        "MSG", "X", "PUBX", "pInG", "",
    ]);
    let blank = prop::sample::select(vec![" ", "\t", "  ", "\r", ""]);
    let end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n", ""]);
    let line = (verb, prop::collection::vec((blank, word), 0..5), end).prop_map(|(v, args, e)| {
        let args: String = args.into_iter().flat_map(|(b, w)| [b, w]).collect();
        format!("{v}{args}{e}").into_bytes()
    });
    let wrong_end =
        prop::sample::select(vec!["PUB a 2\r\nhiX", "PUB a 2\r\nhi\rX", "PUB a 0\r\n\n"]);
    let publication =
        (0..60_usize, any::<bool>(), any::<bool>()).prop_map(|(n, reply, headers)| {
            let mut out = Vec::new();
            let head: &[u8] = if headers { b"NATS/1.0\r\n\r\n" } else { b"" };
            encoder::publish(
                &mut out,
                b"a.b",
                reply.then_some(b"r"),
                head,
                &vec![b'x'; n],
            );
            out
        });
    let long = (50..80_usize, verb_of_long())
        .prop_map(|(n, v)| format!("{v}{} 1\r\n", "a".repeat(n)).into_bytes());
    prop_oneof![
        6 => line,
        6 => publication,
        1 => wrong_end.prop_map(|text| text.as_bytes().to_vec()),
        1 => long,
        1 => prop::collection::vec(any::<u8>(), 0..4),
        3 => Just(b"PING\r\n".to_vec()),
    ]
}

/// Pieces that leave the connection as it was.
fn good_piece() -> impl Strategy<Value = Vec<u8>> {
    let fixed = prop::sample::select(vec![
        "PING\r\n",
        "pong x\n",
        "SUB a q 1\r\n",
        "UNSUB 1\r\n",
        "PUB a 0\r\n\r\n",
        "HPUB a r 1 2\r\nab\r\n",
    ]);
    fixed.prop_map(|text| text.as_bytes().to_vec())
}

/// A verb and more blanks than a line may have.
const BLANKS: &str = "SUB                                                                        ";

fn verb_of_long() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["SUB ", "PUB \t ", "PING", "PONG ", "CONNECT ", BLANKS])
}

/// Longest common outcome of the naive parser: it sees no error before a line is complete.
fn agrees(found: &Outcome, model: &Outcome) -> bool {
    found.0 == model.0 && (found.1 == model.1 || model.1.is_none())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same(
        good in prop::collection::vec(good_piece(), 0..4),
        pieces in prop::collection::vec(piece(), 0..4),
        mut cuts in prop::collection::vec(0..400_usize, 0..10),
        lost in prop_oneof![Just(0_usize), 0..12_usize],
    ) {
        let mut input = [good.concat(), pieces.concat()].concat();
        input.truncate(input.len().saturating_sub(lost));
        cuts.sort_unstable();
        let whole = feed(&input, &[]);
        prop_assert_eq!(&whole, &feed(&input, &cuts));
        let each: Vec<usize> = (0..input.len()).collect();
        prop_assert_eq!(&whole, &feed(&input, &each));
        // An error that is certain before the line's end becomes visible to the naive parser with the line's end,
        // unless a payload is missing, in which case it says nothing.
        let mut ended = input.clone();
        ended.push(b'\n');
        let model = naive(&ended);
        if whole.1.is_some() {
            prop_assert!(agrees(&whole, &model), "{:?} but {:?}", whole, model);
        } else {
            prop_assert_eq!(&whole.0, &naive(&input).0);
        }
    }

    #[test]
    fn what_is_encoded_is_parsed(
        subject in "[!-~]{1,30}", sid in "[0-9a-z]{1,10}", reply in prop::option::of("[!-~]{1,30}"),
        body in prop::collection::vec(any::<u8>(), 0..200), with_headers in any::<bool>(), step in 1..64_usize,
    ) {
        let headers: &[u8] = if with_headers { b"NATS/1.0\r\nA: b\r\n\r\n" } else { b"" };
        let reply = reply.as_ref().map(String::as_bytes);
        let mut out = Vec::new();
        encoder::msg(&mut out, subject.as_bytes(), sid.as_bytes(), reply, headers, &body);
        encoder::ok(&mut out);
        encoder::err(&mut out, &halyard_net::proto::ErrText::InvalidSubject);
        encoder::info(&mut out, b"{}");
        encoder::ping(&mut out);
        encoder::pong(&mut out);
        let payload = [headers, &body].concat();
        let expected = [
            ServerOp::Msg { subject: subject.as_bytes(), sid: sid.as_bytes(), reply, headers_len: headers.len(), payload: &payload },
            ServerOp::Ok, ServerOp::Err(b"Invalid Subject"), ServerOp::Info(b"{} "), ServerOp::Ping, ServerOp::Pong,
        ];
        let mut parser = ServerParser::default();
        let (mut at, mut have) = (0, 0);
        for op in expected {
            loop {
                match parser.next(&out[at..have]).unwrap() {
                    ServerParsed::Op { op: found, consumed } => {
                        prop_assert_eq!(found, op);
                        at += consumed;
                        break;
                    }
                    ServerParsed::Incomplete { .. } => {
                        prop_assert!(have < out.len(), "asks for more than there is");
                        have = out.len().min(have + step);
                    }
                }
            }
        }
        prop_assert_eq!(at, out.len());
    }

    #[test]
    fn what_a_client_encodes_is_parsed(
        subject in "[!-~]{1,30}", sid in "[0-9a-z]{1,10}", reply in prop::option::of("[!-~]{1,30}"),
        body in prop::collection::vec(any::<u8>(), 0..20), max in 0..1_000_000_u64,
    ) {
        let reply = reply.as_ref().map(String::as_bytes);
        let mut out = Vec::new();
        encoder::publish(&mut out, subject.as_bytes(), reply, b"", &body);
        encoder::sub(&mut out, subject.as_bytes(), reply, sid.as_bytes());
        encoder::unsub(&mut out, sid.as_bytes(), max);
        encoder::connect(&mut out, b"{}");
        let ops = [
            ClientOp::Pub { subject: subject.as_bytes(), reply, headers_len: 0, payload: &body },
            ClientOp::Sub { subject: subject.as_bytes(), queue: reply, sid: sid.as_bytes() },
            ClientOp::Unsub { sid: sid.as_bytes(), max },
            ClientOp::Connect(b"{}"),
        ];
        let expected: Vec<String> = ops.iter().map(|op| format!("{op:?}")).collect();
        let limits = Limits { max_control_line: 4096, ..limits() };
        let mut parser = Parser::new(limits);
        let mut found = Vec::new();
        let mut at = 0;
        while let Parsed::Op { op, consumed } = parser.next(&out[at..]).unwrap() {
            found.push(format!("{op:?}"));
            at += consumed;
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn header_blocks_round_trip(
        lines in prop::collection::vec(("[!-9;-~]{1,20}", "[!-~]([ -~]{0,30}[!-~])?"), 0..8),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        use halyard_net::proto::headers::{Builder, Headers};
        let mut builder = Builder::new();
        for (name, value) in &lines {
            builder = builder.header(name.as_bytes(), value.as_bytes()).unwrap();
        }
        let block = builder.finish();
        let headers = Headers::new(&block);
        prop_assert!(headers.is_well_formed());
        let found: Vec<_> = headers.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
        let expected: Vec<_> =
            lines.iter().map(|(n, v)| (n.clone().into_bytes(), v.clone().into_bytes())).collect();
        prop_assert_eq!(found, expected);
        for (name, value) in Headers::new(&noise) {
            prop_assert!(!name.is_empty() && memchr::memchr2(b'\n', b':', name).is_none());
            prop_assert!(memchr::memchr(b'\n', value).is_none());
        }
    }
}
