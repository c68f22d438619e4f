//! Hostile servers: the parser of the client's side gives the same operations and the same error for any portions.

use halyard_fuzz::conversation::Conversation;
use halyard_net::proto::{Info, ProtoError, ServerOp, ServerParsed, ServerParser, encoder};

fn feed<'a>(portions: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<ProtoError>) {
    let mut parser = ServerParser::default();
    parser.max_payload = 512;
    let mut buffer = Vec::new();
    let mut ops = Vec::new();
    for portion in portions {
        buffer.extend_from_slice(portion);
        loop {
            match parser.next(&buffer) {
                Ok(ServerParsed::Op { op, consumed }) => {
                    ops.push(canonical(&op));
                    buffer.drain(..consumed);
                }
                Ok(ServerParsed::Incomplete { need }) => {
                    assert!(need > buffer.len(), "asks for what it has");
                    break;
                }
                Err(error) => return (ops, Some(error)),
            }
        }
    }
    (ops, None)
}

/// The operation as the encoder writes it.
fn canonical(op: &ServerOp<'_>) -> Vec<u8> {
    let ServerOp::Msg {
        subject,
        sid,
        reply,
        headers_len,
        payload,
    } = *op
    else {
        if let ServerOp::Info(json) = op {
            drop(Info::from_json(json));
        }
        return format!("{op:?}").into_bytes();
    };
    let (headers, body) = payload.split_at(headers_len);
    let mut out = Vec::new();
    encoder::msg(&mut out, subject, sid, reply, headers, body);
    let again = ServerParser::default().next(&out);
    assert_eq!(
        again,
        Ok(ServerParsed::Op {
            op: *op,
            consumed: out.len()
        })
    );
    out
}

#[test]
fn server_op() {
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
