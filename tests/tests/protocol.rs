//! The client protocol byte by byte: every script of `protocol/` is played against our server and, where it is
//! installed, against the real one. See `halyard_tests::script` for the language of the scripts.
//!
//! `UPDATE=1 NATS_SERVER=... cargo test --test protocol` writes the answers of the real server into the
//! scripts.

use std::path::PathBuf;
use std::time::Duration;

use halyard_tests::node::{Start, TempDir};
use halyard_tests::raw::{Heard, Raw};
use halyard_tests::{node, script, tools};

fn file(name: &str) -> PathBuf {
    node::workspace()
        .join("tests/protocol")
        .join(name)
        .with_extension("txt")
}

fn same(name: &str) {
    let file = file(name);
    let peer = tools::peer();
    if std::env::var_os("UPDATE").is_some() {
        script::record(
            &file,
            peer.as_deref()
                .expect("the real server writes the transcripts"),
        );
    }
    let mut failures = Vec::new();
    if let Some(peer) = peer {
        failures.extend(
            script::play(&file, &peer)
                .iter()
                .map(|f| format!("real server: {f}")),
        );
    }
    if std::env::var_os("ONLY_PEER").is_none() {
        failures.extend(script::play(&file, node::binary()));
    }
    assert!(
        failures.is_empty(),
        "{} differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

macro_rules! scripts {
    ($($name:ident)*) => {
        $(#[test] fn $name() { same(stringify!($name)); })*

        #[test]
        fn every_script_is_played() {
            let dir = node::workspace().join("tests/protocol");
            let mut found: Vec<String> = std::fs::read_dir(dir).unwrap()
                .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
                .collect();
            found.sort();
            let mut played = vec![$(stringify!($name)),*];
            played.sort_unstable();
            assert_eq!(found, played);
        }
    };
}

scripts! { lines connect subjects delivery limits refusals keepalive authorization lameduck }

/// Who gets a message is drawn by lot, so this is not a transcript.
#[test]
fn queue_groups_share_the_work() {
    let mut servers = vec![Start::halyard()];
    servers.extend(tools::peer().map(|peer| Start::with(&peer)));
    for start in servers {
        let node = start.start();
        // One queue name over overlapping subjects is one group.
        let filters = ["work.a", "work.*", "work.>", "work.a"];
        let mut members: Vec<Raw> = filters
            .iter()
            .map(|filter| {
                let mut raw = Raw::quiet(node.address());
                raw.send(format!("SUB {filter} crew 1\r\n").as_bytes());
                raw.settle();
                raw
            })
            .collect();
        let mut publisher = Raw::quiet(node.address());
        for _ in 0..1000 {
            publisher.send(b"PUB work.a 1\r\nx\r\n");
        }
        publisher.settle();
        let shares: Vec<usize> = members.iter_mut().map(|m| m.settle().len() / 2).collect();
        assert_eq!(shares.iter().sum::<usize>(), 1000, "{shares:?}");
        assert!(shares.iter().all(|&share| share > 150), "{shares:?}");
        // One leaves: the others get all.
        drop(members.pop());
        while node.http_get("/connz").1.matches("\"cid\"").count() > 4 {}
        for _ in 0..300 {
            publisher.send(b"PUB work.a 1\r\nx\r\n");
        }
        publisher.settle();
        let shares: Vec<usize> = members.iter_mut().map(|m| m.settle().len() / 2).collect();
        assert_eq!(shares.iter().sum::<usize>(), 300, "{shares:?}");
        assert!(matches!(
            publisher.hear(Duration::from_millis(50)),
            Heard::Silence(_)
        ));
    }
}

/// Sizes around every border inside a server: read buffers, shared payloads, the limit.
const SIZES: [usize; 15] = [
    0, 1, 15, 511, 512, 4096, 8191, 8192, 8193, 65_535, 65_536, 65_537, 131_072, 1_048_575,
    1_048_576,
];

#[test]
fn payloads_of_all_sizes_arrive_intact() {
    let mut servers = vec![Start::halyard()];
    servers.extend(tools::peer().map(|peer| Start::with(&peer)));
    for start in servers {
        let node = start.start();
        let mut with_headers = Raw::quiet(node.address());
        let mut without = Raw::client(node.address(), r#"{"verbose":false}"#);
        for raw in [&mut with_headers, &mut without] {
            raw.send(b"SUB size.> 1\r\n");
            raw.settle();
        }
        let mut publisher = Raw::quiet(node.address());
        let mut expected = (Vec::new(), Vec::new());
        for (round, size) in SIZES.into_iter().chain(SIZES.into_iter().rev()).enumerate() {
            let payload: Vec<u8> = (0..size).map(|i| (i * 7 + i / 251 + round) as u8).collect();
            let head = b"NATS/1.0\r\nA: b\r\n\r\n";
            let bytes = if round % 2 == 0 || size + head.len() > 1_048_576 {
                let message = [format!("{size}\r\n").as_bytes(), &payload, b"\r\n"].concat();
                for all in [&mut expected.0, &mut expected.1] {
                    all.extend_from_slice(&[b"MSG size.x 1 ", message.as_slice()].concat());
                }
                [b"PUB size.x ", message.as_slice()].concat()
            } else {
                let total = size + head.len();
                let sizes = format!("{} {total}\r\n", head.len());
                let message = [sizes.as_bytes(), head, &payload, b"\r\n"].concat();
                expected
                    .0
                    .extend_from_slice(&[b"HMSG size.x 1 ", message.as_slice()].concat());
                let line = format!("MSG size.x 1 {size}\r\n");
                let plain = [line.as_bytes(), &payload, b"\r\n"].concat();
                expected.1.extend_from_slice(&plain);
                [b"HPUB size.x ", message.as_slice()].concat()
            };
            // In portions that have nothing to do with the message's parts.
            for portion in bytes.chunks(1 + (round * 30_011) % 70_001) {
                publisher.send(portion);
            }
        }
        publisher.settle();
        for (raw, expected) in [(&mut with_headers, expected.0), (&mut without, expected.1)] {
            let received = raw.in_place_of(&expected);
            let differs = received.iter().zip(&expected).position(|(a, b)| a != b);
            assert_eq!(differs, None, "the first byte that is not the sent one");
        }
    }
}

#[test]
fn a_client_that_answers_pings_stays() {
    let dir = TempDir::new();
    let path = dir.path().join("server.conf");
    std::fs::write(&path, "ping_interval: \"100ms\"").unwrap();
    let node = Start::halyard()
        .args(["-c", path.to_str().unwrap()])
        .start();
    let mut raw = Raw::quiet(node.address());
    for _ in 0..8 {
        assert_eq!(raw.line(), "PING");
        raw.send(b"PONG\r\n");
    }
    raw.settle();
}
