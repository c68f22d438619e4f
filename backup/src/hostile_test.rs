//! Archives that lie: each is refused with its reason, in bounded memory, whichever pieces it comes in.

use serde_json::json;

use crate::import::{Importer, Rules, Step};
use crate::item::{Item, Stated};
use crate::tar::build::{archive, file};
use crate::{archive as entries, block, s2};

/// Bytes from digits; blanks are for people.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

const NOW: i64 = 1_000_000_000;

/// Rules like those of a server.
const RULES: Rules = Rules {
    is_subject: |subject| {
        let mut tokens = subject.split(|byte| *byte == b'.');
        tokens.all(|token| !token.is_empty() && !token.iter().any(|byte| b"*> \r\n".contains(byte)))
    },
    headers_bytes_max: 64 * 1024,
    sequence_max: (1 << 62) - 1,
};

/// Everything that comes out of a compressed backup, or why nothing more does.
fn import(bytes: &[u8], outside: Option<Stated>) -> Result<Vec<Item>, String> {
    let mut outcomes = [1, 997, usize::MAX].map(|step| {
        let mut importer = Importer::new(RULES, outside);
        let mut items = Vec::new();
        for piece in bytes.chunks(step.min(bytes.len().max(1))) {
            importer.push(piece);
            loop {
                match importer.step().map_err(|refused| refused.to_string())? {
                    Step::Item(item) => items.push(item),
                    Step::Again => {}
                    Step::More => break,
                }
            }
        }
        importer.finish().map_err(|refused| refused.to_string())?;
        Ok::<_, String>(items)
    });
    let first = outcomes[0].clone();
    assert!(
        outcomes.iter_mut().all(|one| *one == first),
        "pieces make no difference"
    );
    first
}

fn stated(messages: u64, first_seq: u64, last_seq: u64) -> Stated {
    Stated {
        messages,
        bytes: messages * 1000,
        first_seq,
        last_seq,
    }
}

/// An archive of 2.15 with these documents and messages, compressed.
fn modern(state: &Stated, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    entries::put_start(&mut out, state, NOW);
    fill(&mut out);
    entries::put_end(&mut out);
    s2::encode(&out)
}

fn message(out: &mut Vec<u8>, seq: u64) {
    entries::put_message(out, seq, NOW, [b"a.b", b"", b"body"]);
}

#[track_caller]
fn refused(outcome: Result<Vec<Item>, String>, why: &str) {
    let text = outcome.expect_err(why);
    assert!(text.contains(why), "{text:?} names {why:?}");
}

#[test]
fn a_sound_archive_is_taken() {
    let bytes = modern(&stated(2, 3, 9), |out| {
        message(out, 3);
        message(out, 8);
    });
    assert_eq!(import(&bytes, None).unwrap().len(), 3);
    // A server that deletes while it makes the backup.
    let short = modern(&stated(5, 3, 9), |out| message(out, 4));
    assert_eq!(import(&short, None).unwrap().len(), 2);
    let empty = modern(&stated(0, 0, 0), |_| {});
    assert_eq!(import(&empty, None).unwrap().len(), 1);
}

#[test]
fn sequences_that_lie() {
    let run = |state: Stated, seqs: &[u64]| {
        let bytes = modern(&state, |out| seqs.iter().for_each(|seq| message(out, *seq)));
        import(&bytes, None)
    };
    refused(
        run(stated(3, 1, 9), &[2, 1]),
        "message 1 comes after message 2",
    );
    refused(
        run(stated(3, 1, 9), &[2, 2]),
        "message 2 comes after message 2",
    );
    refused(run(stated(3, 1, 9), &[2, 10]), "not between");
    refused(run(stated(3, 5, 9), &[4]), "not between");
    refused(run(stated(3, 1, 9), &[u64::MAX]), "not between");
    refused(run(stated(2, 1, 9), &[1, 2, 3]), "more than its state says");
}

#[test]
fn states_that_cannot_be() {
    let run = |state: Stated| import(&modern(&state, |_| {}), None);
    refused(run(stated(10, 1, 9)), "cannot be");
    refused(run(stated(1, 9, 2)), "cannot be");
    refused(run(stated(1, u64::MAX, u64::MAX)), "cannot be");
    refused(run(stated(0, u64::MAX, u64::MAX)), "cannot be");
    let mut huge = stated(1, 1, u64::MAX - 1);
    huge.messages = u64::MAX - 1;
    huge.bytes = u64::MAX;
    refused(run(huge), "cannot be");
    let mut light = stated(100, 1, 100);
    light.bytes = 7;
    refused(run(light), "cannot be");
    let heavy = Stated {
        bytes: 20,
        ..stated(1, 1, 1)
    };
    let bytes = modern(&heavy, |out| message(out, 1));
    refused(import(&bytes, None), "more than its state says");
    let twice = modern(&stated(1, 1, 1), |out| {
        let mut again = Vec::new();
        entries::put_start(&mut again, &stated(9, 1, 9), NOW);
        out.extend_from_slice(&again[8..]);
    });
    refused(import(&twice, None), "two states");
    let mut none = entries::MAGIC.to_vec();
    message(&mut none, 1);
    entries::put_end(&mut none);
    refused(import(&s2::encode(&none), None), "before its state");
}

#[test]
fn messages_that_are_none() {
    let run = |parts: [&[u8]; 3]| {
        let bytes = modern(&stated(1, 1, 1), |out| {
            entries::put_message(out, 1, NOW, parts);
        });
        import(&bytes, None)
    };
    for subject in [&b"a..b"[..], b"a.*", b">", b"a b", b"a\r\nPUB x", b".a"] {
        refused(run([subject, b"", b""]), "invalid subject");
    }
    for headers in [&b"X: y\r\n\r\n"[..], b"NATS/1.0\r\nX: y\r\n", b"\r\n"] {
        refused(run([b"a", headers, b""]), "headers of message 1");
    }
    let long = [
        b"NATS/1.0\r\nX: ".as_slice(),
        &vec![b'y'; 70_000],
        b"\r\n\r\n",
    ]
    .concat();
    let bytes = modern(
        &Stated {
            bytes: 1 << 20,
            ..stated(1, 1, 1)
        },
        |out| entries::put_message(out, 1, NOW, [b"a", &long, b""]),
    );
    refused(import(&bytes, None), "headers of message 1");
}

#[test]
fn a_consumer_that_comes_twice() {
    let state = crate::consumer::State::default();
    let bytes = modern(&stated(0, 1, 0), |out| {
        entries::put_consumer(out, "c", &json!({"name": "c"}), &state, NOW);
        entries::put_consumer(out, "c", &json!({"name": "c"}), &state, NOW);
    });
    refused(import(&bytes, None), "twice");
}

/// An archive of an old server around message blocks.
fn old(blocks: &[(u64, Vec<u8>)], more: &[Vec<u8>]) -> Vec<u8> {
    let meta = br#"{"name":"A","subjects":["a.>"]}"#;
    let sum = block::checksum_text("A", meta);
    let mut files = vec![
        file("meta.inf", b'0', meta),
        file("meta.sum", b'0', sum.as_bytes()),
    ];
    for (number, bytes) in blocks {
        files.push(file(&format!("msgs/{number}.blk"), b'0', bytes));
    }
    files.extend_from_slice(more);
    s2::encode(&archive(&files))
}

fn record(number: u64, seq: u64) -> Vec<u8> {
    block::build::record("A", number, (seq, 5), [b"a.b", b"", b"body"])
}

#[test]
fn an_old_archive_is_cut_to_its_state() {
    let blocks = [
        (1, [record(1, 1), record(1, 2)].concat()),
        (
            2,
            [record(2, 7), record(2, 1 << 62 | 2), record(2, 9)].concat(),
        ),
    ];
    let items = import(&old(&blocks, &[]), Some(stated(2, 2, 8))).unwrap();
    let seqs: Vec<_> = items
        .iter()
        .map(|item| match item {
            Item::Message(message) => message.seq,
            Item::Deleted(seq) => 100 + seq,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seqs, [2, 7, 102]);
    refused(import(&old(&blocks, &[]), None), "needs the stream's state");
}

#[test]
fn old_archives_that_lie() {
    let state = Some(stated(5, 1, 9));
    let run = |blocks: &[(u64, Vec<u8>)], more: &[Vec<u8>]| import(&old(blocks, more), state);
    let mut wrong = record(1, 3);
    let last = wrong.len() - 10;
    wrong[last] ^= 1;
    refused(
        run(&[(1, wrong)], &[]),
        "message block 1, byte 0: a record does not match its checksum",
    );
    refused(
        run(&[(1, record(2, 3))], &[]),
        "does not match its checksum",
    );
    refused(
        run(&[(1, record(1, 3)[..20].to_vec())], &[]),
        "ends inside a record",
    );
    refused(
        run(&[(1, record(1, 3)), (1, record(1, 4))], &[]),
        "not in order",
    );
    refused(
        run(&[(1, [record(1, 3), record(1, 3)].concat())], &[]),
        "comes after",
    );
    for path in [
        "../../../etc/passwd",
        "/etc/passwd",
        "msgs/../../x.blk",
        "msgs/x.blk",
        "msgs/1.exe",
        "obs/../meta.inf",
        "obs/a/b/o.dat",
        "C:\\x",
        "msgs",
        "",
    ] {
        refused(run(&[], &[file(path, b'0', b"x")]), "unknown file");
    }
    for kind in [b'1', b'2', b'5'] {
        refused(run(&[], &[file("msgs/1.blk", kind, b"")]), "not a file");
    }
    let consumer = [
        file("obs/c/meta.inf", b'0', br#"{"name":"c"}"#),
        file("obs/c/meta.sum", b'0', b"0000000000000000"),
    ];
    refused(run(&[], &consumer), "does not match its checksum");
    refused(run(&[], &consumer[..1]), "has no checksum");
    refused(run(&[], &[file("obs/d/o.dat", b'0', b"x")]), "damaged");
    refused(
        run(
            &[],
            &[file("obs/d/o.dat", b'0', &unhex("1602 0000 0000 00 00"))],
        ),
        "not together",
    );
    let meta = br#"{"name":"A"}"#;
    let bytes = s2::encode(&archive(&[
        file("meta.inf", b'0', meta),
        file("meta.sum", b'0', block::checksum_text("B", meta).as_bytes()),
    ]));
    refused(import(&bytes, state), "does not match its checksum");
    let bytes = s2::encode(&archive(&[file("msgs/1.blk", b'0', b"")]));
    refused(import(&bytes, state), "begin with meta.inf");
    let bytes = s2::encode(&archive(&[file("meta.inf", b'0', meta)]));
    refused(import(&bytes, state), "meta.sum");
}

#[test]
fn what_is_cut_off_or_no_backup_at_all() {
    let good = modern(&stated(1, 1, 1), |out| message(out, 1));
    for cut in 0..good.len() {
        assert!(import(&good[..cut], None).is_err(), "cut at {cut}");
    }
    let legacy = old(&[(1, record(1, 1))], &[]);
    for cut in (0..legacy.len()).step_by(7) {
        assert!(
            import(&legacy[..cut], Some(stated(1, 1, 1))).is_err(),
            "cut at {cut}"
        );
    }
    refused(import(b"PK\x03\x04....", None), "not a backup");
    refused(
        import(&s2::encode(&[b'x'; 2000]), Some(stated(1, 1, 1))),
        "checksum",
    );
    refused(import(&s2::encode(b"x"), None), "cut off");
}

/// A copy from further back of the same text decodes to the same bytes: such a flip is no damage. Nothing else gets by.
#[test]
fn a_flipped_bit_is_refused_or_changes_nothing() {
    let good = modern(&stated(3, 1, 3), |out| {
        for seq in 1..=3 {
            message(out, seq);
        }
    });
    let items = import(&good, None).unwrap();
    let mut harmless = 0;
    for bit in 0..good.len() * 8 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = import(&flipped, None) {
            assert_eq!(read, items, "bit {bit}");
            harmless += 1;
        }
    }
    assert!(harmless < good.len(), "{harmless} of {}", good.len() * 8);
}
