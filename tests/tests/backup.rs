//! Backups by the `nats` CLI, from each server to each: ours to ours, ours to the real one, the real one's to ours.
//!
//! Not part of plain `cargo test`, which needs Rust only: `.ci/setup` installs the CLI and the real server, then
//! `cargo test --test backup` runs this. What can be seen of a stream (counters, every message with its
//! time, consumers) must be the same on both sides.

#![expect(clippy::unwrap_used, reason = "what a test does not expect ends it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use async_nats::Client;
use futures::StreamExt;
use halyard_tests::node::{Node, Start, TempDir, binary, workspace};
use halyard_tests::tools;
use serde_json::{Value, json};

const STREAMS: [&str; 6] = ["A", "EMPTY", "KV_K", "OBJ_O", "PURGED", "WORK"];

fn ours(store: &TempDir) -> Node {
    Start::halyard().jetstream(store.path()).start()
}

fn theirs(store: &TempDir) -> Node {
    let peer = tools::peer().expect("the real nats-server is installed by .ci/setup");
    Start::with(&peer).jetstream(store.path()).start()
}

fn cli(node: &Node) -> Command {
    let nats = tools::program("nats").expect("the nats CLI is installed by .ci/setup");
    let mut command = Command::new(nats);
    command
        .args(["--no-context", "-s", &node.url()])
        .env("HOME", std::env::temp_dir())
        .stdin(Stdio::null());
    command
}

fn run(node: &Node, args: &[&str]) -> Output {
    let output = cli(node).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "nats {args:?}: {text}\n{}",
        node.log()
    );
    output
}

fn path(dir: &Path) -> &str {
    dir.to_str().unwrap()
}

async fn api(client: &Client, subject: &str, body: &Value) -> Value {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let answer = client
        .request(format!("$JS.API.{subject}"), body.into())
        .await;
    serde_json::from_slice(&answer.unwrap().payload).unwrap()
}

async fn publish(client: &Client, subject: String, headers: &[(&str, &str)], payload: Vec<u8>) {
    let mut map = async_nats::HeaderMap::new();
    for (key, value) in headers {
        map.append(*key, *value);
    }
    let sent = client
        .request_with_headers(subject, map, payload.into())
        .await;
    let ack: Value = serde_json::from_slice(&sent.unwrap().payload).unwrap();
    assert!(ack["error"].is_null(), "{ack}");
}

/// Streams of several kinds, each with a life behind it.
async fn fill(client: &Client) {
    for config in [
        json!({"name": "A", "subjects": ["a.>"], "allow_msg_ttl": true, "compression": "s2"}),
        json!({"name": "EMPTY", "subjects": ["e"], "first_seq": 7}),
        json!({"name": "KV_K", "subjects": ["$KV.K.>"], "max_msgs_per_subject": 3, "allow_rollup_hdrs": true,
               "deny_delete": true, "allow_direct": true, "discard": "new"}),
        json!({"name": "OBJ_O", "subjects": ["$O.O.C.>", "$O.O.M.>"], "allow_rollup_hdrs": true}),
        json!({"name": "PURGED", "subjects": ["p"]}),
        json!({"name": "WORK", "subjects": ["w.>"], "retention": "workqueue"}),
    ] {
        let name = config["name"].as_str().unwrap();
        let made = api(client, &format!("STREAM.CREATE.{name}"), &config).await;
        assert!(made["error"].is_null(), "{made}");
    }
    for number in 0..300_usize {
        let id = format!("id{number}");
        let headers: &[(&str, &str)] = match number % 4 {
            0 => &[("Nats-Msg-Id", &id), ("X-Way", "a")],
            1 => &[("Nats-TTL", "10h")],
            2 => &[("Nats-TTL", "never")],
            _ => &[],
        };
        let payload = format!("payload {number} ")
            .repeat(number % 40)
            .into_bytes();
        publish(client, format!("a.{}", number % 9), headers, payload).await;
    }
    for seq in (5..290).step_by(11) {
        api(
            client,
            "STREAM.MSG.DELETE.A",
            &json!({"seq": seq, "no_erase": seq % 2 == 0}),
        )
        .await;
    }
    api(client, "STREAM.PURGE.A", &json!({"seq": 12})).await;
    api(client, "STREAM.PURGE.A", &json!({"filter": "a.3"})).await;
    for number in 0..40_usize {
        publish(
            client,
            format!("$KV.K.key{}", number % 5),
            &[],
            vec![b'v'; number],
        )
        .await;
    }
    publish(
        client,
        "$KV.K.key1".into(),
        &[("KV-Operation", "PURGE"), ("Nats-Rollup", "sub")],
        vec![],
    )
    .await;
    for number in 0..40_u8 {
        let chunk =
            (0..128 * 1024).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ number);
        publish(client, "$O.O.C.obj".into(), &[], chunk.collect()).await;
        publish(client, "p".into(), &[], vec![number]).await;
        publish(client, format!("w.{}", number % 3), &[], vec![number]).await;
    }
    api(client, "STREAM.PURGE.PURGED", &Value::Null).await;
    let hour = 3_600_000_000_000_u64;
    for (stream, name, more) in [
        (
            "A",
            "explicit",
            json!({"ack_policy": "explicit", "ack_wait": hour}),
        ),
        (
            "A",
            "filtered",
            json!({"ack_policy": "all", "filter_subjects": ["a.1", "a.2"], "ack_wait": hour}),
        ),
        ("A", "none", json!({"ack_policy": "none"})),
        (
            "A",
            "new",
            json!({"ack_policy": "explicit", "deliver_policy": "new"}),
        ),
        (
            "WORK",
            "worker",
            json!({"ack_policy": "explicit", "ack_wait": hour}),
        ),
    ] {
        let mut config = json!({"durable_name": name});
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        let body = json!({"stream_name": stream, "config": config});
        let made = api(
            client,
            &format!("CONSUMER.DURABLE.CREATE.{stream}.{name}"),
            &body,
        )
        .await;
        assert!(made["error"].is_null(), "{made}");
    }
    for (stream, name) in [("A", "explicit"), ("A", "filtered"), ("WORK", "worker")] {
        consume(client, stream, name).await;
    }
}

/// Some acknowledged, one refused and delivered again, one terminated, the others left waiting.
async fn consume(client: &Client, stream: &str, name: &str) {
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}");
    for round in 0..2 {
        let inbox = client.new_inbox();
        let mut came = client.subscribe(inbox.clone()).await.unwrap();
        let body = json!({"batch": 10, "expires": 5_000_000_000_u64}).to_string();
        client
            .publish_with_reply(subject.clone(), inbox, body.into())
            .await
            .unwrap();
        for number in 0..10 {
            let message = came.next().await.unwrap();
            let ack = match (name, round, number) {
                ("filtered", 0, 4) | ("explicit" | "worker", 0, 0 | 1 | 5 | 8) => "+ACK",
                ("explicit" | "worker", 0, 3) => "-NAK",
                ("explicit", 1, 2) => "-NAK {\"delay\": 3600000000000}",
                ("explicit" | "worker", 0, 6) => "+TERM",
                _ => continue,
            };
            client
                .request(message.reply.unwrap(), ack.into())
                .await
                .unwrap();
        }
    }
}

/// Everything that a client can see of a stream.
async fn see(client: &Client, name: &str) -> Value {
    let info = api(
        client,
        &format!("STREAM.INFO.{name}"),
        &json!({"deleted_details": true}),
    )
    .await;
    assert!(info["error"].is_null(), "{name}: {info}");
    let mut state = info["state"].clone();
    // Of a message that has gone the real server forgets it over a restore.
    state.as_object_mut().unwrap().remove("last_ts");
    let mut messages = BTreeMap::new();
    let first = state["first_seq"].as_u64().unwrap();
    for seq in first..=state["last_seq"].as_u64().unwrap() {
        let got = api(
            client,
            &format!("STREAM.MSG.GET.{name}"),
            &json!({"seq": seq}),
        )
        .await;
        if got["error"].is_null() {
            messages.insert(seq, got["message"].clone());
        }
    }
    assert_eq!(messages.len() as u64, state["messages"].as_u64().unwrap());
    let mut consumers = BTreeMap::new();
    let names = api(client, &format!("CONSUMER.NAMES.{name}"), &Value::Null).await;
    for consumer in names["consumers"].as_array().unwrap_or(&Vec::new()) {
        let consumer = consumer.as_str().unwrap().to_owned();
        let info = api(
            client,
            &format!("CONSUMER.INFO.{name}.{consumer}"),
            &Value::Null,
        )
        .await;
        let position = |place: &str| {
            (
                info[place]["consumer_seq"].clone(),
                info[place]["stream_seq"].clone(),
            )
        };
        let mut config = info["config"].clone();
        config.as_object_mut().unwrap().remove("metadata");
        let seen = json!([
            config,
            position("delivered"),
            position("ack_floor"),
            info["num_ack_pending"],
            info["num_redelivered"],
            info["num_pending"],
        ]);
        consumers.insert(consumer, seen);
    }
    let mut config = info["config"].clone();
    config.as_object_mut().unwrap().remove("metadata");
    json!({"state": state, "messages": messages, "consumers": consumers, "config": config})
}

async fn see_all(node: &Node) -> BTreeMap<&'static str, Value> {
    let client = async_nats::connect(node.url()).await.unwrap();
    let mut all = BTreeMap::new();
    for name in STREAMS {
        all.insert(name, see(&client, name).await);
    }
    all
}

#[track_caller]
fn same(one: &BTreeMap<&str, Value>, other: &BTreeMap<&str, Value>, what: &str) {
    for (name, one) in one {
        let other = &other[name];
        for part in ["state", "config", "consumers", "messages"] {
            let pairs = one[part].as_object().unwrap();
            for (key, value) in pairs {
                assert_eq!(&other[part][key], value, "{what}: {part} {key} of {name}");
            }
            assert_eq!(
                pairs.len(),
                other[part].as_object().unwrap().len(),
                "{what}: {part} of {name}"
            );
        }
    }
}

/// Backs every stream of one server up and restores it on the other; both are looked at.
async fn carry(from: &Node, to: &Node, what: &str) {
    let dir = TempDir::new();
    let client = async_nats::connect(from.url()).await.unwrap();
    fill(&client).await;
    let before = see_all(from).await;
    for name in STREAMS {
        let place = dir.path().join(name);
        run(
            from,
            &[
                "stream",
                "backup",
                name,
                path(&place),
                "--no-progress",
                "--check",
            ],
        );
        run(from, &["backup", "validate", path(&place)]);
        run(to, &["stream", "restore", path(&place), "--no-progress"]);
    }
    same(&before, &see_all(to).await, what);
    // A consumer goes on where it was.
    let client = async_nats::connect(to.url()).await.unwrap();
    publish(&client, "a.1".into(), &[], b"after".to_vec()).await;
    let info = api(&client, "CONSUMER.INFO.A.new", &Value::Null).await;
    assert_eq!(info["num_pending"], 1, "{what}: {info}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_to_ours() {
    let (one, other) = (TempDir::new(), TempDir::new());
    carry(&ours(&one), &ours(&other), "ours to ours").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_to_theirs() {
    let (one, other) = (TempDir::new(), TempDir::new());
    carry(&ours(&one), &theirs(&other), "ours to theirs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn theirs_to_ours() {
    let (one, other) = (TempDir::new(), TempDir::new());
    carry(&theirs(&one), &ours(&other), "theirs to ours").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_names_and_old_servers() {
    let (one, other, dir) = (TempDir::new(), TempDir::new(), TempDir::new());
    let (from, to) = (ours(&one), ours(&other));
    let client = async_nats::connect(from.url()).await.unwrap();
    fill(&client).await;
    let all = dir.path().join("all");
    run(&from, &["account", "backup", path(&all), "--force"]);
    run(&to, &["account", "restore", path(&all)]);
    same(&see_all(&from).await, &see_all(&to).await, "an account");

    // By a configuration of one's own; the tool does not let it have another name.
    let place = dir.path().join("one");
    run(
        &from,
        &[
            "backup",
            "stream",
            "A",
            path(&place),
            "--no-progress",
            "--no-consumers",
        ],
    );
    let info = api(&client, "STREAM.INFO.A", &Value::Null).await;
    let mut config = info["config"].clone();
    config["subjects"] = json!(["b.>"]);
    let file = dir.path().join("config.json");
    std::fs::write(&file, config.to_string()).unwrap();
    let client = async_nats::connect(to.url()).await.unwrap();
    let a = see(&client, "A").await;
    let restore = ["backup", "restore", "stream", path(&place), "--no-progress"];
    let again = cli(&to).args(restore).output().unwrap();
    assert!(!again.status.success(), "the name is taken");
    run(&to, &["stream", "rm", "A", "-f"]);
    run(&to, &[&restore[..], &["--config", path(&file)]].concat());
    let b = see(&client, "A").await;
    assert_eq!(
        (&a["messages"], json!({})),
        (&b["messages"], b["consumers"].clone())
    );
    let info = api(&client, "STREAM.INFO.A", &Value::Null).await;
    assert_eq!(info["config"]["subjects"], json!(["b.>"]));
    run(&to, &["stream", "rm", "A", "-f"]);

    // Backups of servers before 2.15.
    let samples = workspace().join("backup/testdata");
    for sample in ["2.10.26-A", "2.12.8-A"] {
        let sample = samples.join(sample);
        run(&to, &["stream", "restore", path(&sample), "--no-progress"]);
        let told = std::fs::read(sample.join("expected.json")).unwrap();
        let told: Value = serde_json::from_slice(&told).unwrap();
        assert_eq!(see(&client, "A").await["messages"], told["msgs"]);
        run(&to, &["stream", "rm", "A", "-f"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_the_middle() {
    let (one, other, dir) = (TempDir::new(), TempDir::new(), TempDir::new());
    let from = ours(&one);
    let client = async_nats::connect(from.url()).await.unwrap();
    let config = json!({"name": "BIG", "subjects": ["big"], "max_msg_size": 1 << 20});
    api(&client, "STREAM.CREATE.BIG", &config).await;
    let noise: Vec<u8> = (0..1_000_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8)
        .collect();
    for number in 0..120_u8 {
        publish(
            &client,
            "big".into(),
            &[],
            noise
                .iter()
                .map(|byte| byte.wrapping_mul(number | 1))
                .collect(),
        )
        .await;
    }
    let place = dir.path().join("big");
    run(
        &from,
        &["stream", "backup", "BIG", path(&place), "--no-progress"],
    );
    let before = see(&client, "BIG").await;

    let to = ours(&other);
    let mut restore = cli(&to)
        .args(["stream", "restore", path(&place), "--no-progress"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Well inside: some of it has reached the disk.
    let started = Instant::now();
    while size_of(other.path()) < 20_000_000 {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "the restore moves"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    to.kill();
    restore.kill().unwrap();
    restore.wait().unwrap();

    let to = ours(&other);
    let client = async_nats::connect(to.url()).await.unwrap();
    let names = api(&client, "STREAM.NAMES", &Value::Null).await;
    assert_eq!(names["total"], 0, "{names}");
    assert!(!to.log().contains("not known"), "{}", to.log());
    run(&to, &["stream", "restore", path(&place), "--no-progress"]);
    assert_eq!(see(&client, "BIG").await["messages"], before["messages"]);
    assert!(!to.log().contains("ERR"), "{}", to.log());
}

/// What `halyard store salvage` brings out of a damaged directory is a backup like any other.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_salvaged_can_be_restored() {
    let (damaged, dir) = (TempDir::new(), TempDir::new());
    let from = ours(&damaged);
    let client = async_nats::connect(from.url()).await.unwrap();
    api(
        &client,
        "STREAM.CREATE.A",
        &json!({"name": "A", "subjects": ["a"]}),
    )
    .await;
    let consumer =
        json!({"stream_name": "A", "config": {"durable_name": "C", "ack_policy": "explicit"}});
    api(&client, "CONSUMER.DURABLE.CREATE.A.C", &consumer).await;
    for number in 1..=20 {
        let text = format!("message {number} of many");
        publish(&client, "a".into(), &[("Number", "x")], text.into_bytes()).await;
    }
    from.kill();
    // More than one bit of a record in the middle of the log.
    let log = std::fs::read_dir(damaged.path().join("halyard/log")).unwrap();
    for file in log.map(|entry| entry.unwrap().path()) {
        let mut bytes = std::fs::read(&file).unwrap();
        let text = b"message 15 of many";
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text) {
            bytes[at] ^= 3;
            std::fs::write(&file, &bytes).unwrap();
        }
    }
    let salvaged = dir.path().join("salvaged");
    let output = Command::new(binary())
        .args([
            "store",
            "salvage",
            path(damaged.path()),
            "--to",
            path(&salvaged),
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("1 streams with 14 messages and 1 consumers"),
        "{said}"
    );
    let (one, other) = (TempDir::new(), TempDir::new());
    let mut seen = Vec::new();
    for to in [ours(&one), theirs(&other)] {
        run(&to, &["backup", "restore", "account", path(&salvaged)]);
        let client = async_nats::connect(to.url()).await.unwrap();
        let state = api(&client, "STREAM.INFO.A", &Value::Null).await["state"].clone();
        assert_eq!(
            (&state["messages"], &state["last_seq"]),
            (&json!(14), &json!(14))
        );
        let info = api(&client, "CONSUMER.INFO.A.C", &Value::Null).await;
        assert_eq!(info["num_pending"], 14, "{info}");
        seen.push(see(&client, "A").await["messages"].clone());
    }
    assert_eq!(seen[0], seen[1]);
}

fn size_of(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => size_of(&entry.path()),
            Ok(data) => std::os::unix::fs::MetadataExt::blocks(&data) * 512,
            Err(_) => 0,
        })
        .sum()
}
