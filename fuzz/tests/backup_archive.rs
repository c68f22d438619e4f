//! Backups from anywhere: whatever the bytes, reading ends in items that hold what was promised, or in a refusal.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "what a test cannot go on without ends it; the samples are files of the repository"
)]

use std::path::Path;

use halyard_backup::import::{Importer, Step};
use halyard_backup::item::{Item, Stated};
use halyard_backup::{archive, legacy, s2};
use halyard_server::jetstream::backup::RULES;

/// Reads a whole backup in pieces of that length, and checks what comes out.
fn import(bytes: &[u8], outside: Option<Stated>, step: usize) -> bool {
    let mut importer = Importer::new(RULES, outside);
    let (mut last, mut messages) = (0, 0);
    for piece in bytes.chunks(step.max(1)) {
        importer.push(piece);
        loop {
            match importer.step() {
                Ok(Step::More) => break,
                Ok(Step::Item(Item::Message(message))) => {
                    assert!(message.seq > last, "messages rise");
                    last = message.seq;
                    messages += 1;
                    assert!(!message.subject().is_empty());
                }
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
    match importer.finish() {
        Ok(stated) => {
            assert!(messages == 0 || last <= stated.last_seq);
            true
        }
        Err(_) => false,
    }
}

fn samples() -> Vec<(Vec<u8>, Stated)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../backup/testdata");
    let dirs = std::fs::read_dir(dir).unwrap();
    let mut all: Vec<_> = dirs
        .map(|entry| {
            let dir = entry.unwrap().path();
            let bytes = std::fs::read(dir.join("stream.arc.s2"))
                .or_else(|_| std::fs::read(dir.join("stream.tar.s2")))
                .unwrap();
            let backup = std::fs::read(dir.join("backup.json")).unwrap();
            let backup: serde_json::Value = serde_json::from_slice(&backup).unwrap();
            (
                bytes,
                serde_json::from_value(backup["state"].clone()).unwrap(),
            )
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

#[test]
fn samples_are_read() {
    for (bytes, stated) in samples() {
        assert!(import(&bytes, Some(stated), 100));
    }
}

/// The decoded archive of a sample, damaged and compressed again: what the checksums of the stream would hide.
#[test]
fn damaged_archives() {
    let samples: Vec<(Vec<u8>, Stated)> = samples()
        .into_iter()
        .map(|(bytes, stated)| {
            let (mut decoder, mut all, mut out) = (s2::Decoder::default(), Vec::new(), Vec::new());
            decoder.push(&bytes);
            while decoder.next(&mut out).unwrap() {
                all.extend_from_slice(&out);
            }
            (all, stated)
        })
        .collect();
    bolero::check!()
        .with_type::<(u8, Vec<(u16, u8)>, u16, u16)>()
        .for_each(|(which, changes, cut, step)| {
            let (bytes, stated) = &samples[usize::from(*which) % samples.len()];
            let mut bytes = bytes.clone();
            for (at, with) in changes {
                let at = usize::from(*at) % bytes.len();
                bytes[at] ^= with;
            }
            if cut % 4 == 0 {
                bytes.truncate(usize::from(*cut) % bytes.len());
            }
            let mut packed = Vec::new();
            let mut encoder = s2::Encoder::new(&mut packed);
            encoder.push(&bytes, &mut packed);
            encoder.flush(&mut packed);
            import(&packed, Some(*stated), usize::from(*step));
        });
}

#[test]
fn any_bytes() {
    bolero::check!()
        .with_type::<(Vec<u8>, u8)>()
        .for_each(|(bytes, step)| {
            import(bytes, Some(Stated::default()), usize::from(*step));
            let framed = [&b"\xff\x06\x00\x00S2sTwO"[..], bytes].concat();
            import(&framed, None, usize::from(*step));
            let mut reader = archive::Reader::default();
            reader.push(&[&archive::MAGIC[..], bytes].concat());
            while let Ok(Some(_)) = reader.read() {}
            let mut reader = legacy::Reader::default();
            reader.push(bytes);
            while let Ok(Some(_)) = reader.read() {}
        });
}
