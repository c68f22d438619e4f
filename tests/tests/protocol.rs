//! The client protocol byte by byte: every script of `protocol/` is played against our server and, where it is
//! installed, against the real one. See `halyard_tests::script` for the language of the scripts.
//!
//! `UPDATE=1 NATS_SERVER=... cargo test -p halyard-tests --test protocol` writes the answers of the real server into the
//! scripts.

use std::path::PathBuf;
use std::time::Duration;

use halyard_tests::node::Start;
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

scripts! { lines connect subjects delivery limits keepalive authorization lameduck }

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
