//! Hostile clients: whatever arrives, in whatever portions, the parser of the server's side gives the same operations
//! and the same error, never asks for what it has, and never holds more than a control line and a payload.

use halyard_fuzz::conversation::Conversation;
use halyard_net::proto::{ClientOp, Limits, Parsed, Parser, ProtoError, encoder};

const LIMITS: Limits = Limits {
    max_control_line: 256,
    max_payload: 512,
    headers: true,
};

fn feed<'a>(portions: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<ProtoError>) {
    let mut parser = Parser::new(LIMITS);
    let mut buffer = Vec::new();
    let mut ops = Vec::new();
    for portion in portions {
        buffer.extend_from_slice(portion);
        loop {
            match parser.next(&buffer) {
                Ok(Parsed::Op { op, consumed }) => {
                    ops.push(canonical(&op));
                    buffer.drain(..consumed);
                }
                Ok(Parsed::Incomplete { need }) => {
                    assert!(need > buffer.len(), "asks for what it has");
                    // A verb, blanks, arguments, line end, payload, line end.
                    let most = 7 + 2 * LIMITS.max_control_line + 2 + LIMITS.max_payload + 2;
                    assert!(buffer.len() <= most, "an unbounded line");
                    break;
                }
                Err(error) => return (ops, Some(error)),
            }
        }
    }
    (ops, None)
}

/// The operation as the encoder writes it.
fn canonical(op: &ClientOp<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match *op {
        ClientOp::Pub {
            subject,
            reply,
            headers_len,
            payload,
        } => {
            let (headers, body) = payload.split_at(headers_len);
            encoder::publish(&mut out, subject, reply, headers, body);
        }
        ClientOp::Sub {
            subject,
            queue,
            sid,
        } => encoder::sub(&mut out, subject, queue, sid),
        ClientOp::Unsub { sid, max } => encoder::unsub(&mut out, sid, max),
        ClientOp::Connect(json) => encoder::connect(&mut out, json),
        ClientOp::Ping => encoder::ping(&mut out),
        ClientOp::Pong => encoder::pong(&mut out),
        ClientOp::Ok => encoder::ok(&mut out),
        ClientOp::Info(_) | ClientOp::Err(_) => return format!("{op:?}").into_bytes(),
    }
    let mut parser = Parser::new(Limits {
        max_control_line: 1024,
        ..LIMITS
    });
    let again = parser.next(&out);
    assert_eq!(
        again,
        Ok(Parsed::Op {
            op: *op,
            consumed: out.len()
        }),
        "{}",
        out.escape_ascii()
    );
    out
}

#[test]
fn client_op() {
    bolero::check!()
        .with_iterations(20_000)
        .with_type::<Conversation>()
        .for_each(|conversation| {
            let bytes = conversation.bytes();
            let whole = feed(std::iter::once(bytes.as_slice()));
            assert_eq!(whole, feed(conversation.portions(&bytes)));
            assert_eq!(whole, feed(bytes.chunks(1)));
        });
}
