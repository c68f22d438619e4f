//! How fast operations are parsed and written, on one core: `cargo bench -p halyard-net`.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::hint::black_box;
use std::time::Duration;

use halyard_net::proto::{ClientOp, Limits, Parsed, Parser, ServerParsed, ServerParser, encoder};

#[expect(
    clippy::disallowed_methods,
    reason = "measures real time; this crate has no runtime"
)]
fn timed(run: &mut impl FnMut() -> usize) -> (usize, Duration) {
    let start = std::time::Instant::now();
    (black_box(run()), start.elapsed())
}

/// Best of many short rounds: the machine may be busy with other things.
fn report(name: &str, mut run: impl FnMut() -> usize) {
    let best = (0..400)
        .map(|_| timed(&mut run))
        .map(|(count, time)| time.as_secs_f64() / count as f64)
        .fold(f64::INFINITY, f64::min);
    println!(
        "{name:<44} {:>7.1} ns  {:>7.2} M/s",
        best * 1e9,
        1e-6 / best
    );
}

const READ: usize = 64 * 1024;

fn filled(one: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut input = Vec::new();
    loop {
        let before = input.len();
        one(&mut input);
        if input.len() > READ {
            input.truncate(before);
            return input;
        }
    }
}

fn parse(parser: &mut Parser, input: &[u8]) -> usize {
    let mut at = 0;
    let mut count = 0;
    while let Ok(Parsed::Op { op, consumed }) = parser.next(&input[at..]) {
        if let ClientOp::Pub {
            subject, payload, ..
        } = op
        {
            black_box((subject, payload));
        }
        at += consumed;
        count += 1;
    }
    assert_eq!(at, input.len());
    count
}

fn main() {
    let header = b"NATS/1.0\r\nNats-Msg-Id: 12345678\r\n\r\n";
    for (name, subject, reply, headers, size) in [
        ("PUB foo 16 B", b"foo".as_slice(), None, b"".as_slice(), 16),
        ("PUB bench.subject 128 B", b"bench.subject", None, b"", 128),
        (
            "PUB bench.subject 1024 B",
            b"bench.subject",
            None,
            b"",
            1024,
        ),
        (
            "PUB request with reply, 16 B",
            b"bench.service",
            Some(b"_INBOX.ABCDEFGHIJ.0123456789".as_slice()),
            b"",
            16,
        ),
        (
            "HPUB orders.new with Nats-Msg-Id, 128 B",
            b"orders.new",
            None,
            header,
            128,
        ),
    ] {
        let payload = vec![b'x'; size];
        let input = filled(|out| encoder::publish(out, subject, reply, headers, &payload));
        let mut parser = Parser::new(Limits {
            headers: true,
            ..Limits::default()
        });
        report(&format!("parse {name}"), || parse(&mut parser, &input));
    }
    let input = filled(encoder::ping);
    let mut parser = Parser::default();
    report("parse PING", || parse(&mut parser, &input));

    let input = filled(|out| encoder::msg(out, b"foo", b"1", None, b"", &[b'x'; 16]));
    let mut parser = ServerParser::default();
    report("parse MSG foo 16 B (client side)", || {
        let (mut at, mut count) = (0, 0);
        while let Ok(ServerParsed::Op { op, consumed }) = parser.next(&input[at..]) {
            black_box(op);
            at += consumed;
            count += 1;
        }
        count
    });

    let mut out = Vec::with_capacity(READ * 2);
    for (name, subject, size) in [
        ("16 B", b"foo".as_slice(), 16),
        ("128 B", b"bench.subject", 128),
        ("1024 B", b"bench.subject", 1024),
    ] {
        let payload = vec![b'x'; size];
        report(&format!("write MSG {name}"), || {
            out.clear();
            let mut count = 0;
            while out.len() < READ {
                encoder::msg(
                    &mut out,
                    black_box(subject),
                    black_box(b"1"),
                    None,
                    b"",
                    black_box(&payload),
                );
                count += 1;
            }
            count
        });
    }
}
