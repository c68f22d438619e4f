//! Encryption at rest, as an operator and a thief see it: what lies in the store directory, byte by byte, and which keys
//! open it. Every start is the built binary; "find" is a search through every byte of every file.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot go on without ends it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::{self, consumer, kv, stream};
use halyard_tests::node::{Node, Start, TempDir, binary};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A key of 256 bits, and two passphrases.
const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const FIRST: &str = "correct horse battery staple";
const SECOND: &str = "Tr0ub4dor and three";

/// What must not be found in the files: one for each kind of thing that a client hands in.
const CANARIES: &[&str] = &[
    "CANARYSTREAM",
    "canaryconsumer",
    "canary.subject",
    "Canary-Header",
    "canaryheader-value",
    "canarypayload",
    "canarymessageid",
    "CANARYBUCKET",
    "canarykey",
    "canaryvalue",
];

/// A store directory and the configurations that it is served with.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: TempDir::new(),
        }
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Writes a configuration with these entries in its `jetstream` block.
    fn config(&self, entries: &str) -> PathBuf {
        let file = self.dir.path().join("server.conf");
        let store = self.store();
        let text = format!(
            "jetstream {{ store_dir: \"{}\"\n {entries} }}\n",
            store.display()
        );
        std::fs::write(&file, text).unwrap();
        file
    }

    fn launch(&self, entries: &str) -> Start {
        let config = self.config(entries);
        Start::halyard().args(["-c", config.to_str().unwrap()])
    }

    fn start(&self, entries: &str) -> Node {
        self.launch(entries).start()
    }

    /// Every file below the store directory, with its bytes.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut todo = vec![self.store()];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => todo.push(path),
                    false => {
                        // A running server renames and removes files meanwhile.
                        if let Ok(bytes) = std::fs::read(&path) {
                            found.insert(path, bytes);
                        }
                    }
                }
            }
        }
        found
    }

    /// The segments of all stores.
    fn segments(&self) -> Vec<PathBuf> {
        let is_segment = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("segment-")
        };
        self.files().into_keys().filter(is_segment).collect()
    }

    /// The canaries that are in the files, each with one file that holds it.
    fn found(&self) -> BTreeMap<&'static str, PathBuf> {
        let mut found = BTreeMap::new();
        for (path, bytes) in self.files() {
            let first = CANARIES.iter().filter(|canary| {
                let canary = canary.as_bytes();
                let starts = bytes
                    .iter()
                    .enumerate()
                    .filter(|(_, byte)| **byte == canary[0]);
                starts
                    .map(|(at, _)| at)
                    .any(|at| bytes[at..].starts_with(canary))
            });
            for canary in first {
                found.insert(*canary, path.clone());
            }
        }
        found
    }

    /// A start that must be refused and must change nothing; returns what was said.
    fn refused(&self, entries: &str) -> String {
        let before = self.files();
        let (code, said) = self.launch(entries).refused();
        assert_eq!(code, Some(1), "{said}");
        let after = self.files();
        assert!(
            before == after,
            "the refused start changed {:?}",
            difference(&before, &after)
        );
        assert!(said.contains("nothing was changed"), "{said}");
        assert_no_secret(&said);
        said
    }
}

fn difference(
    before: &BTreeMap<PathBuf, Vec<u8>>,
    after: &BTreeMap<PathBuf, Vec<u8>>,
) -> Vec<PathBuf> {
    let names = before.keys().chain(after.keys());
    let differs = names.filter(|name| before.get(*name) != after.get(*name));
    differs.cloned().collect()
}

fn assert_no_secret(text: &str) {
    for secret in [HEX, FIRST, SECOND] {
        assert!(!text.contains(secret), "a key was shown: {text}");
    }
}

/// Waits for a line of the log.
async fn logged(node: &Node, line: &str) {
    let begin = Instant::now();
    while !node.log().contains(line) {
        assert!(
            begin.elapsed() < Duration::from_secs(240),
            "{line:?} was not logged:\n{}",
            node.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_no_secret(&node.log());
}

const SEALED: &str = "all data is sealed with the configured key and cipher";

/// One of everything.
async fn plant(node: &Node, round: u32) -> Result<(), Failure> {
    let client = async_nats::connect(node.url()).await?;
    let js = jetstream::new(client);
    let stream = js
        .get_or_create_stream(stream::Config {
            name: "CANARYSTREAM".into(),
            subjects: vec!["canary.>".into()],
            ..Default::default()
        })
        .await?;
    let consumer = consumer::pull::Config {
        durable_name: Some("canaryconsumer".into()),
        ..Default::default()
    };
    stream
        .get_or_create_consumer("canaryconsumer", consumer)
        .await?;
    for number in 0..20 {
        let mut headers = HeaderMap::new();
        headers.insert("Canary-Header", "canaryheader-value");
        let id = format!("canarymessageid-{round}-{number}");
        headers.insert("Nats-Msg-Id", id.as_str());
        let subject = format!("canary.subject.{number}");
        let payload = format!("canarypayload {round} {number}").repeat(40);
        js.publish_with_headers(subject, headers, payload.into())
            .await?
            .await?;
    }
    let bucket = match js.get_key_value("CANARYBUCKET").await {
        Ok(bucket) => bucket,
        Err(_) => {
            js.create_key_value(kv::Config {
                bucket: "CANARYBUCKET".into(),
                ..Default::default()
            })
            .await?
        }
    };
    bucket
        .put("canarykey", format!("canaryvalue {round}").into())
        .await?;
    Ok(())
}

/// Everything that was planted in rounds below `rounds` is there.
async fn check(node: &Node, rounds: u32) -> Result<(), Failure> {
    let js = jetstream::new(async_nats::connect(node.url()).await?);
    let mut stream = js.get_stream("CANARYSTREAM").await?;
    assert_eq!(stream.info().await?.state.messages, u64::from(rounds) * 20);
    for seq in [1, u64::from(rounds) * 20] {
        let message = stream.get_raw_message(seq).await?;
        let (round, number) = ((seq - 1) / 20, (seq - 1) % 20);
        let expected = format!("canarypayload {round} {number}").repeat(40);
        assert_eq!(message.payload, expected.as_bytes());
    }
    let bucket = js.get_key_value("CANARYBUCKET").await?;
    let value = bucket.get("canarykey").await?.ok_or("the key is there")?;
    assert_eq!(value, format!("canaryvalue {}", rounds - 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_canary_is_in_any_file_with_a_key_and_every_one_without() -> Result<(), Failure> {
    let plain = Place::new();
    let node = plain.start("");
    plant(&node, 0).await?;
    assert_eq!(node.stop(), Some(0));
    let found = plain.found();
    for canary in CANARIES {
        assert!(found.contains_key(canary), "{canary} is in no plain file");
    }

    for (key, cipher) in [(FIRST, "chacha"), (HEX, "aes")] {
        let place = Place::new();
        let entries = format!("key: \"{key}\", cipher: {cipher}");
        // Enough restarts for enough segments to be merged.
        for round in 0..6 {
            let node = place.start(&entries);
            if round > 0 {
                check(&node, round).await?;
            }
            plant(&node, round).await?;
            assert_eq!(place.found(), BTreeMap::new(), "while it runs");
            if round == 2 {
                node.kill();
            } else {
                assert_no_secret(&node.http_get("/varz").1);
                assert_no_secret(&node.http_get("/jsz?config=1").1);
                assert_no_secret(&node.log());
                assert_eq!(node.stop(), Some(0));
            }
            assert_eq!(place.found(), BTreeMap::new(), "after round {round}");
        }
        let node = place.start(&entries);
        check(&node, 6).await?;
        // Maintenance runs once a second.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(place.found(), BTreeMap::new(), "after compaction");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_key_opens_a_store_and_another_changes_nothing() -> Result<(), Failure> {
    let place = Place::new();
    let node = place.start(&format!("key: \"{FIRST}\""));
    plant(&node, 0).await?;
    assert_eq!(node.stop(), Some(0));
    let wrong = place.refused(&format!("key: \"{SECOND}\""));
    assert!(
        wrong.contains("manifest is encrypted, and the configured key is not the one"),
        "{wrong}"
    );
    assert!(wrong.contains("prev_key"), "{wrong}");
    let both = place.refused(&format!("key: \"{SECOND}\", prev_key: \"{HEX}\""));
    assert!(both.contains("neither the configured key nor"), "{both}");
    let none = place.refused("");
    assert!(none.contains("no key is configured"), "{none}");
    assert!(none.contains("back up the streams"), "{none}");
    // The log alone, as after the loss of the stores: it is no less encrypted.
    let groups = place.store().join("halyard").join("groups");
    let aside = place.dir.path().join("aside");
    std::fs::rename(&groups, &aside)?;
    for entries in [format!("key: \"{SECOND}\""), String::new()] {
        let said = place.refused(&entries);
        assert!(said.contains("log-"), "{said}");
    }
    std::fs::rename(&aside, &groups)?;
    let node = place.start(&format!("encryption_key: \"{FIRST}\""));
    check(&node, 1).await?;
    assert_eq!(node.stop(), Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_plain_is_sealed_in_time() -> Result<(), Failure> {
    let place = Place::new();
    for round in 0..2 {
        let node = place.start("");
        plant(&node, round).await?;
        // The second time everything is in the log only.
        match round {
            0 => assert_eq!(node.stop(), Some(0)),
            _ => node.kill(),
        }
    }
    assert_eq!(place.found().len(), CANARIES.len());
    let plain = place.segments();
    let groups: BTreeSet<_> = plain.iter().filter_map(|path| path.parent()).collect();
    assert_eq!(groups.len(), 2, "the streams' and the one of which streams");
    let entries = format!("key: {HEX}");
    let node = place.start(&entries);
    let all = format!("is being rewritten: {} segments and the log", plain.len());
    logged(&node, &all).await;
    logged(&node, SEALED).await;
    assert_eq!(place.found(), BTreeMap::new(), "while it runs");
    check(&node, 2).await?;
    assert!(node.http_get("/jsz").1.contains("\"complete\": true"));
    assert_eq!(node.stop(), Some(0));
    assert_eq!(place.found(), BTreeMap::new());
    let said = place.refused("");
    assert!(said.contains("no key is configured"), "{said}");
    let node = place.start(&entries);
    check(&node, 2).await?;
    Ok(())
}

/// `kill -9` again and again while the key is changed; in between the new key alone is tried.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_changed_through_crashes_and_the_new_one_alone_waits_for_the_end()
-> Result<(), Failure> {
    let place = Place::new();
    let first = format!("key: \"{FIRST}\"");
    for round in 0..3 {
        let node = place.start(&first);
        plant(&node, round).await?;
        assert_eq!(node.stop(), Some(0));
    }
    let second = format!("key: \"{SECOND}\", cipher: aes");
    let both = format!("{second}, prev_key: \"{FIRST}\"");
    let mut rounds = 3;
    // The first one before anything can have been rewritten: segments are, one a second.
    place.start(&both).kill();
    let said = place.refused(&second);
    assert!(said.contains("prev_key"), "{said}");
    // Who goes back to the old key meets what was written with the new one.
    place.refused(&first);
    for crash in 0..4 {
        let node = place.start(&both);
        check(&node, rounds).await?;
        if crash == 1 {
            plant(&node, rounds).await?;
            rounds += 1;
        }
        node.kill();
    }
    let node = place.start(&both);
    logged(&node, SEALED).await;
    assert!(node.log().contains("prev_key is not needed any more"));
    check(&node, rounds).await?;
    assert_eq!(node.stop(), Some(0));
    for (path, bytes) in place.files() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "manifest" || name.starts_with("segment-") {
            assert_eq!(bytes[10], 2, "{} is not under AES", path.display());
        }
    }
    let node = place.start(&second);
    check(&node, rounds).await?;
    assert_eq!(node.stop(), Some(0));
    place.refused(&first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_does_not_change_the_key_and_shows_none() -> Result<(), Failure> {
    let place = Place::new();
    let node = place.start(&format!("key: \"{FIRST}\""));
    plant(&node, 0).await?;
    place.config(&format!("key: \"{SECOND}\""));
    node.signal("HUP");
    logged(&node, "JetStreamKey").await;
    check(&node, 1).await?;
    Ok(())
}

/// `halyard store` with keys in its environment.
fn offline(verb: &str, dir: &Path, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Command::new(binary())
        .args(["store", verb, dir.to_str().unwrap()])
        .env_remove("HALYARD_STORE_KEY")
        .env_remove("HALYARD_STORE_PREV_KEY")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_no_secret(&said);
    (output.status.code(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_store_is_looked_into_with_its_key() -> Result<(), Failure> {
    let place = Place::new();
    let node = place.start(&format!("key: \"{FIRST}\", cipher: aes"));
    plant(&node, 0).await?;
    assert_eq!(node.stop(), Some(0));
    let store = place.store();
    let before = place.files();
    for verb in ["check", "stats", "dump"] {
        let (code, said) = offline(verb, &store, &[]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("HALYARD_STORE_KEY"), "{said}");
        let (code, said) = offline(verb, &store, &[("HALYARD_STORE_KEY", SECOND)]);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("not the one that it was written with"),
            "{said}"
        );
        let (code, said) = offline(verb, &store, &[("HALYARD_STORE_KEY", "")]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("is empty"), "{said}");
        for keys in [
            vec![("HALYARD_STORE_KEY", FIRST)],
            vec![
                ("HALYARD_STORE_KEY", SECOND),
                ("HALYARD_STORE_PREV_KEY", FIRST),
            ],
        ] {
            let (code, said) = offline(verb, &store, &keys);
            assert_eq!(code, Some(0), "{said}");
            let expected = match verb {
                "check" => "sound",
                "stats" => "encrypted",
                _ => "canarypayload",
            };
            assert!(said.contains(expected), "{verb}: {said}");
        }
    }
    let (code, said) = offline("check", &store, &[("HALYARD_STORE_PREV_KEY", FIRST)]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("HALYARD_STORE_KEY"), "{said}");
    assert!(before == place.files(), "looking changes nothing");
    Ok(())
}
