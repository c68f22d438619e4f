//! Backups through the wire: made and restored by a client that speaks bare protocol lines.
//!
//! `backup/testdata` holds backups that the real nats-server made (2.10.26, 2.12.8, 2.15.1), each with what that server
//! told about the stream: every message, the counters, the consumers.

#![allow(
    clippy::disallowed_methods,
    reason = "the samples are files of the repository"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use halyard_runtime::disk::{Disk, MemDisk, OpenMode};
use halyard_runtime::time::{self, Duration};
use halyard_runtime::{random, task};
use halyard_server::Server;
use halyard_server::config::Config;
use serde_json::{Value, json};

use super::raw::Raw;
use super::{api, client, on_a_disk, publish_once, request, start};

/// A message from the server: its reply subject, header block and payload.
struct Came {
    reply: String,
    headers: String,
    payload: Vec<u8>,
}

async fn next(raw: &mut Raw) -> Came {
    let line = raw.line().await;
    let fields: Vec<&str> = line.split(' ').collect();
    let total: usize = fields.last().unwrap().parse().unwrap();
    let (headers_len, before) = if fields[0] == "HMSG" {
        (fields[fields.len() - 2].parse().unwrap(), 2)
    } else {
        (0, 1)
    };
    let reply = match fields.len() - before {
        4 => fields[3].to_owned(),
        _ => String::new(),
    };
    let mut bytes = raw.bytes(total + 2).await;
    bytes.truncate(total);
    let payload = bytes.split_off(headers_len);
    Came {
        reply,
        headers: String::from_utf8(bytes).unwrap(),
        payload,
    }
}

/// A backup: the answer to the request, and all its chunks together.
async fn back_up(raw: &mut Raw, stream: &str, options: &Value) -> (Value, Vec<u8>) {
    raw.send("SUB _B 7\r\n").await;
    let mut body = json!({"deliver_subject": "_B", "chunk_size": 1024});
    for (key, value) in options.as_object().unwrap() {
        body[key] = value.clone();
    }
    let answer = api(raw, &format!("STREAM.SNAPSHOT.{stream}"), &body).await;
    assert!(answer["error"].is_null(), "{answer}");
    let mut all = Vec::new();
    loop {
        let came = next(raw).await;
        if came.payload.is_empty() {
            let status = if all.len() < 1024 {
                ""
            } else {
                "NATS/1.0 204\r\n\r\n"
            };
            assert_eq!(came.headers, status);
            raw.send("UNSUB 7\r\n").await;
            return (answer, all);
        }
        all.extend_from_slice(&came.payload);
        if came.payload.len() < 1024 {
            assert_eq!(came.reply, "", "the last chunk, if it is not full");
            continue;
        }
        let tail = format!(".{}.{}", came.payload.len(), all.len().div_ceil(1024));
        assert!(
            came.reply
                .starts_with(&format!("$JS.SNAPSHOT.ACK.{stream}.")),
            "{}",
            came.reply
        );
        assert!(came.reply.ends_with(&tail), "{} {tail}", came.reply);
        raw.send(&format!("PUB {} 0\r\n\r\n", came.reply)).await;
    }
}

/// One chunk, and what the server says to it.
async fn send_chunk(raw: &mut Raw, subject: &str, chunk: &[u8]) -> Vec<u8> {
    raw.send(&format!("PUB {subject} _I.r {}\r\n", chunk.len()))
        .await;
    raw.send_bytes(chunk).await;
    raw.send("\r\n").await;
    next(raw).await.payload
}

/// The subject for chunks, or the refusal.
async fn begin(raw: &mut Raw, config: &Value, state: &Value) -> Result<String, Value> {
    let name = config["name"].as_str().unwrap();
    let body = json!({"config": config, "state": state});
    let answer = api(raw, &format!("STREAM.RESTORE.{name}"), &body).await;
    match answer["deliver_subject"].as_str() {
        Some(subject) if !subject.is_empty() => Ok(subject.to_owned()),
        _ => Err(answer["error"].clone()),
    }
}

/// The whole restore: the answer to the last chunk.
async fn restore(raw: &mut Raw, config: &Value, state: &Value, bytes: &[u8], step: usize) -> Value {
    let subject = begin(raw, config, state).await.unwrap();
    for chunk in bytes.chunks(step) {
        assert_eq!(
            send_chunk(raw, &subject, chunk).await,
            b"",
            "a chunk gets an empty reply"
        );
    }
    serde_json::from_slice(&send_chunk(raw, &subject, b"").await).unwrap()
}

/// Everything that a client can see of a stream.
async fn see(raw: &mut Raw, name: &str) -> Value {
    let info = api(
        raw,
        &format!("STREAM.INFO.{name}"),
        &json!({"deleted_details": true}),
    )
    .await;
    let mut state = info["state"].clone();
    // Of a message that has gone; the real server forgets it over a restore, too.
    state.as_object_mut().unwrap().remove("last_ts");
    let mut messages = BTreeMap::new();
    if state["messages"] != 0 {
        for seq in state["first_seq"].as_u64().unwrap()..=state["last_seq"].as_u64().unwrap() {
            let got = api(raw, &format!("STREAM.MSG.GET.{name}"), &json!({"seq": seq})).await;
            if got["error"].is_null() {
                messages.insert(seq.to_string(), got["message"].clone());
            }
        }
    }
    let mut consumers = BTreeMap::new();
    let names = api(raw, &format!("CONSUMER.NAMES.{name}"), &Value::Null).await;
    for consumer in names["consumers"].as_array().unwrap_or(&Vec::new()) {
        let consumer = consumer.as_str().unwrap();
        let mut info = api(
            raw,
            &format!("CONSUMER.INFO.{name}.{consumer}"),
            &Value::Null,
        )
        .await;
        for passing in ["ts", "created", "type", "num_waiting"] {
            info.as_object_mut().unwrap().remove(passing);
        }
        for place in ["delivered", "ack_floor"] {
            info[place].as_object_mut().unwrap().remove("last_active");
        }
        info["config"]["metadata"] = Value::Null;
        consumers.insert(consumer.to_owned(), info);
    }
    json!({"state": state, "msgs": messages, "cons": consumers})
}

fn samples() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../backup/testdata");
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    all.sort();
    all
}

fn json_file(dir: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join(name)).unwrap()).unwrap()
}

fn stream_file(dir: &Path) -> Vec<u8> {
    let modern = dir.join("stream.arc.s2");
    std::fs::read(modern)
        .or_else(|_| std::fs::read(dir.join("stream.tar.s2")))
        .unwrap()
}

#[test]
fn backups_of_the_real_server() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let samples = samples();
        assert_eq!(samples.len(), 12, "{samples:?}");
        for dir in samples {
            let told = json_file(&dir, "expected.json");
            let backup = json_file(&dir, "backup.json");
            let bytes = stream_file(&dir);
            let (config, state) = (&backup["config"], &backup["state"]);
            let answer = restore(&mut raw, config, state, &bytes, 311).await;
            assert!(answer["error"].is_null(), "{}: {answer}", dir.display());
            let name = config["name"].as_str().unwrap();
            let seen = see(&mut raw, name).await;
            let mut state = told["state"].clone();
            state.as_object_mut().unwrap().remove("last_ts");
            assert_eq!(seen["state"], state, "{}", dir.display());
            assert_eq!(seen["msgs"], told["msgs"], "{}", dir.display());
            for (name, told) in told["cons"].as_object().unwrap() {
                let seen = &seen["cons"][name];
                let what = format!("{} {name}", dir.display());
                for place in ["delivered", "ack_floor"] {
                    for field in ["consumer_seq", "stream_seq"] {
                        assert_eq!(seen[place][field], told[place][field], "{what} {place}");
                    }
                }
                assert_eq!(seen["num_pending"], told["num_pending"], "{what}");
                assert_eq!(seen["num_redelivered"], told["num_redelivered"], "{what}");
                assert_eq!(
                    seen["config"]["filter_subject"], told["config"]["filter_subject"],
                    "{what}"
                );
                // Time has passed: what was delivered as often as allowed is given up and waits no more.
                if told["config"]["max_deliver"] == -1 {
                    assert_eq!(seen["num_ack_pending"], told["num_ack_pending"], "{what}");
                }
            }
            let gone = api(&mut raw, &format!("STREAM.DELETE.{name}"), &Value::Null).await;
            assert_eq!(gone["success"], true);
        }
        server.shutdown().await;
    });
}

fn draw(below: u64) -> u64 {
    random::below(below)
}

/// A stream with a life behind it.
async fn live(raw: &mut Raw) {
    let config = json!({
        "name": "S", "subjects": ["s.>"], "allow_msg_ttl": true, "max_msgs_per_subject": 40, "metadata": {"a": "b"},
    });
    api(raw, "STREAM.CREATE.S", &config).await;
    for (name, more) in [
        (
            "explicit",
            json!({"ack_policy": "explicit", "ack_wait": 3_600_000_000_000_u64}),
        ),
        ("all", json!({"ack_policy": "all", "filter_subject": "s.1"})),
        ("none", json!({"ack_policy": "none"})),
        (
            "new",
            json!({"ack_policy": "explicit", "deliver_policy": "new"}),
        ),
    ] {
        let mut config = json!({"durable_name": name});
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        let body = json!({"stream_name": "S", "config": config});
        let made = api(raw, &format!("CONSUMER.DURABLE.CREATE.S.{name}"), &body).await;
        assert!(made["error"].is_null(), "{made}");
    }
    for number in 0..400 {
        let headers = match draw(4) {
            0 => format!("NATS/1.0\r\nNats-Msg-Id: id{number}\r\n\r\n"),
            1 => "NATS/1.0\r\nNats-TTL: never\r\n\r\n".to_owned(),
            _ => "NATS/1.0\r\nX: y\r\n\r\n".to_owned(),
        };
        let payload = "p".repeat(draw(900) as usize);
        let (ours, all) = (headers.len(), headers.len() + payload.len());
        let line = format!(
            "HPUB s.{} _I.p {ours} {all}\r\n{headers}{payload}\r\n",
            number % 12
        );
        raw.send(&line).await;
        let ack = String::from_utf8(next(raw).await.payload).unwrap();
        assert!(ack.contains("\"seq\""), "{ack}");
    }
    for _ in 0..30 {
        let body = json!({"seq": 1 + draw(400), "no_erase": draw(2) == 0});
        api(raw, "STREAM.MSG.DELETE.S", &body).await;
    }
    api(raw, "STREAM.PURGE.S", &json!({"filter": "s.7"})).await;
    api(raw, "STREAM.PURGE.S", &json!({"seq": 20})).await;
    for name in ["explicit", "all"] {
        let body = json!({"batch": 20, "no_wait": true});
        raw.send(&format!(
            "PUB $JS.API.CONSUMER.MSG.NEXT.S.{name} _I.m {}\r\n{body}\r\n",
            body.to_string().len()
        ))
        .await;
        let mut replies = Vec::new();
        for _ in 0..20 {
            replies.push(next(raw).await.reply);
        }
        for (number, reply) in replies.iter().enumerate() {
            let answer = match (name, number) {
                ("all", 10) | ("explicit", 0 | 1 | 5 | 17) => "+ACK",
                ("explicit", 3) => "-NAK {\"delay\": 3600000000000}",
                ("explicit", 4) => "+TERM",
                _ => continue,
            };
            let sync = request(raw, reply, answer).await;
            assert_eq!(sync, "", "a confirmed answer");
        }
    }
}

#[test]
fn a_stream_goes_from_one_server_to_another() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        live(&mut raw).await;
        let before = see(&mut raw, "S").await;
        let (answer, bytes) = back_up(&mut raw, "S", &json!({"jsck": true})).await;
        let (_, without) = back_up(&mut raw, "S", &json!({"no_consumers": true})).await;
        server.shutdown().await;

        let other: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let server = start(&other).await;
        let mut raw = client(&server).await;
        for step in [1 << 20, 777] {
            let config = &answer["config"];
            let made = restore(&mut raw, config, &answer["state"], &bytes, step).await;
            assert_eq!(
                made["type"], "io.nats.jetstream.api.v1.stream_create_response",
                "{made}"
            );
            assert_eq!(made["state"]["messages"], before["state"]["messages"]);
            assert_eq!(see(&mut raw, "S").await, before, "in steps of {step}");
            api(&mut raw, "STREAM.DELETE.S", &Value::Null).await;
        }
        // Under another name, and in memory; an id that came with the backup is known.
        let mut config = answer["config"].clone();
        config["name"] = json!("T");
        config["storage"] = json!("memory");
        restore(&mut raw, &config, &answer["state"], &without, 5000).await;
        let seen = see(&mut raw, "T").await;
        assert_eq!(seen["msgs"], before["msgs"]);
        assert_eq!(seen["cons"], json!({}));
        let messages = before["msgs"].as_object().unwrap();
        let known = messages.values().filter_map(|message| {
            let headers = message["hdrs"].as_str()?;
            // "Nats-Msg-Id: id" in base64, at its place in the block.
            headers
                .starts_with("TkFUUy8xLjANCk5hdHMtTXNnLUlkOiBpZ")
                .then_some(message)
        });
        let (known, number) = known
            .map(|message| (message, message["seq"].as_u64().unwrap() - 1))
            .next_back()
            .unwrap();
        let again = publish_once(&mut raw, "s.1", &format!("id{number}")).await;
        assert_eq!(
            again,
            format!(
                "{{\"stream\":\"T\",\"seq\":{},\"duplicate\": true}}",
                known["seq"]
            )
        );
        // It goes on as a stream does.
        let next = seen["state"]["last_seq"].as_u64().unwrap() + 1;
        assert_eq!(
            request(&mut raw, "s.1", "x").await,
            format!("{{\"stream\":\"T\",\"seq\":{next}}}")
        );
        server.shutdown().await;
    });
}

#[test]
fn what_was_restored_outlives_an_abrupt_end() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        live(&mut raw).await;
        let before = see(&mut raw, "S").await;
        let (answer, bytes) = back_up(&mut raw, "S", &json!({})).await;
        api(&mut raw, "STREAM.DELETE.S", &Value::Null).await;
        restore(&mut raw, &answer["config"], &answer["state"], &bytes, 9000).await;
        drop(raw);
        drop(server);
        for orderly in [true, false] {
            let server = start(&disk).await;
            let mut raw = client(&server).await;
            assert_eq!(see(&mut raw, "S").await, before);
            if orderly {
                server.shutdown().await;
            }
        }
    });
}

/// The sequences that a pull of at most ten messages brings.
async fn pull(raw: &mut Raw, consumer: &str) -> Vec<u64> {
    raw.send("SUB _P 8\r\n").await;
    let body = json!({"batch": 10, "no_wait": true}).to_string();
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.L.{consumer}");
    raw.send(&format!("PUB {subject} _P {}\r\n{body}\r\n", body.len()))
        .await;
    let mut came = Vec::new();
    loop {
        let message = next(raw).await;
        if message.headers.starts_with("NATS/1.0 4") {
            raw.send("UNSUB 8\r\n").await;
            return came;
        }
        let Some(seq) = message.reply.split('.').nth(5) else {
            let (headers, payload) = (&message.headers, &message.payload);
            panic!("{headers:?} {:?}", String::from_utf8_lossy(payload))
        };
        came.push(seq.parse().unwrap());
    }
}

/// What was superseded when the consumer was made does not come after a restore either.
#[test]
fn a_start_with_the_last_of_each_subject_goes_on() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let stream = json!({"name": "L", "subjects": ["l.*"]});
        api(&mut raw, "STREAM.CREATE.L", &stream).await;
        for subject in ["l.a", "l.b", "l.b", "l.b", "l.c", "l.c"] {
            request(&mut raw, subject, "x").await;
        }
        for (name, batch) in [("all", 0), ("some", 1)] {
            let config = json!({"durable_name": name, "ack_policy": "explicit", "filter_subject": "l.*", "deliver_policy": "last_per_subject"});
            let body = json!({"stream_name": "L", "config": config});
            let made = api(
                &mut raw,
                &format!("CONSUMER.DURABLE.CREATE.L.{name}"),
                &body,
            )
            .await;
            assert!(made["error"].is_null(), "{made}");
            if batch > 0 {
                request(
                    &mut raw,
                    &format!("$JS.API.CONSUMER.MSG.NEXT.L.{name}"),
                    "1",
                )
                .await;
            }
        }
        // Then the message that superseded number 5 goes.
        let gone = api(&mut raw, "STREAM.MSG.DELETE.L", &json!({"seq": 6})).await;
        assert_eq!(gone["success"], true, "{gone}");
        let (answer, bytes) = back_up(&mut raw, "L", &json!({})).await;
        api(&mut raw, "STREAM.DELETE.L", &Value::Null).await;
        let made = restore(&mut raw, &answer["config"], &answer["state"], &bytes, 9000).await;
        assert!(made["error"].is_null(), "{made}");
        assert_eq!(pull(&mut raw, "some").await, [4]);
        request(&mut raw, "l.d", "x").await;
        assert_eq!(pull(&mut raw, "some").await, [7]);
        // One that had delivered nothing looks up anew what is the last.
        assert_eq!(pull(&mut raw, "all").await, [1, 4, 5, 7]);
        server.shutdown().await;
    });
}

/// A backup that comes back as a stream which keeps messages for its consumers: what they had acknowledged is gone.
#[test]
fn a_queue_does_not_take_back_what_is_done() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        api(
            &mut raw,
            "STREAM.CREATE.L",
            &json!({"name": "L", "subjects": ["l.*"]}),
        )
        .await;
        for _ in 0..6 {
            request(&mut raw, "l.a", "x").await;
        }
        let config = json!({"durable_name": "d", "ack_policy": "explicit"});
        let body = json!({"stream_name": "L", "config": config});
        api(&mut raw, "CONSUMER.DURABLE.CREATE.L.d", &body).await;
        raw.send("PUB $JS.API.CONSUMER.MSG.NEXT.L.d _I.m 1\r\n3\r\n")
            .await;
        let mut replies = Vec::new();
        for _ in 0..3 {
            replies.push(next(&mut raw).await.reply);
        }
        for reply in replies {
            assert_eq!(request(&mut raw, &reply, "+ACK").await, "");
        }
        let (answer, bytes) = back_up(&mut raw, "L", &json!({})).await;
        for retention in ["workqueue", "interest"] {
            api(&mut raw, "STREAM.DELETE.L", &Value::Null).await;
            let mut config = answer["config"].clone();
            config["retention"] = retention.into();
            let made = restore(&mut raw, &config, &answer["state"], &bytes, 9000).await;
            assert!(made["error"].is_null(), "{made}");
            let state = see(&mut raw, "L").await["state"].clone();
            assert_eq!(
                (&state["messages"], &state["first_seq"]),
                (&json!(3), &json!(4)),
                "{retention}: {state}"
            );
        }
        server.shutdown().await;
    });
}

async fn names(raw: &mut Raw) -> Value {
    api(raw, "STREAM.NAMES", &Value::Null).await["streams"].clone()
}

#[test]
fn a_restore_that_does_not_end_leaves_nothing() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        live(&mut raw).await;
        let (answer, bytes) = back_up(&mut raw, "S", &json!({})).await;
        api(&mut raw, "STREAM.DELETE.S", &Value::Null).await;
        let subject = begin(&mut raw, &answer["config"], &answer["state"])
            .await
            .unwrap();
        for chunk in bytes.chunks(bytes.len() / 2 + 1).take(1) {
            send_chunk(&mut raw, &subject, chunk).await;
        }
        // Nobody sees it, and nobody else gets its name or its subjects.
        assert_eq!(names(&mut raw).await, Value::Null);
        let info = api(&mut raw, "STREAM.INFO.S", &Value::Null).await;
        assert_eq!(info["error"]["err_code"], 10059);
        let taken = api(&mut raw, "STREAM.CREATE.S", &json!({"name": "S"})).await;
        assert_eq!(taken["error"]["err_code"], 10058, "{taken}");
        let taken = begin(&mut raw, &answer["config"], &answer["state"])
            .await
            .unwrap_err();
        assert_eq!(taken["err_code"], 10130);
        let overlap = api(
            &mut raw,
            "STREAM.CREATE.X",
            &json!({"name": "X", "subjects": ["s.1"]}),
        )
        .await;
        assert_eq!(overlap["error"]["err_code"], 10065);
        let gone = api(&mut raw, "STREAM.DELETE.S", &Value::Null).await;
        assert_eq!(gone["error"]["err_code"], 10059);
        drop(raw);
        drop(server);

        // A crash in the middle.
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        assert_eq!(names(&mut raw).await, Value::Null);
        let account = api(&mut raw, "INFO", &Value::Null).await;
        assert_eq!(
            (&account["streams"], &account["storage"]),
            (&json!(0), &json!(0))
        );
        // A client that falls silent.
        let subject = begin(&mut raw, &answer["config"], &answer["state"])
            .await
            .unwrap();
        send_chunk(&mut raw, &subject, &bytes[..bytes.len() / 2]).await;
        let mut waited = Duration::ZERO;
        loop {
            let made = api(&mut raw, "STREAM.CREATE.S", &json!({"name": "S"})).await;
            if made["error"].is_null() {
                break;
            }
            assert_eq!(made["error"]["err_code"], 10058, "{made}");
            assert!(waited < Duration::from_secs(60), "the name comes free");
            time::sleep(Duration::from_millis(200)).await;
            waited += Duration::from_millis(200);
        }
        assert!(
            waited > Duration::from_secs(2),
            "not before the client has had its time"
        );
        let late = request(&mut raw, &subject, "x").await;
        assert!(late.starts_with("NATS/1.0 503"), "{late}");
        server.shutdown().await;
    });
}

/// Where the checksum of a compressed chunk stands, near the middle. A flip among the compressed bytes may decode to the
/// same text (a copy from another place where it stands too), and is no damage then.
fn checksum_in_the_middle(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let len = u32::from_le_bytes(*bytes[at..].first_chunk().unwrap()) >> 8;
        let next = at + 4 + len as usize;
        if next > bytes.len() / 2 {
            return at + 4;
        }
        at = next;
    }
}

#[test]
fn what_cannot_be_restored_is_refused() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        live(&mut raw).await;
        let (answer, bytes) = back_up(&mut raw, "S", &json!({})).await;
        let (config, state) = (answer["config"].clone(), answer["state"].clone());
        let taken = begin(&mut raw, &config, &state).await.unwrap_err();
        assert_eq!(taken["err_code"], 10130);
        let mut overlapping = config.clone();
        overlapping["name"] = json!("T");
        let refusal = begin(&mut raw, &overlapping, &state).await.unwrap_err();
        assert_eq!(refusal["err_code"], 10065);
        let body = json!({"config": overlapping, "state": state});
        let other = api(&mut raw, "STREAM.RESTORE.U", &body).await;
        assert_eq!(
            other["error"]["err_code"], 10056,
            "the subject names the stream"
        );
        let other = api(&mut raw, "STREAM.RESTORE.U", &Value::Null).await;
        assert_eq!(other["error"]["err_code"], 10003);
        let mut mirror = overlapping.clone();
        mirror["subjects"] = json!(["t"]);
        mirror["mirror"] = json!({"name": "S"});
        assert!(begin(&mut raw, &mirror, &state).await.is_err());

        let mut config = config;
        config["name"] = json!("T");
        config["subjects"] = json!(["t"]);
        let mut flipped = bytes.clone();
        flipped[checksum_in_the_middle(&bytes)] ^= 1;
        let endless = [&bytes[..], b"more"].concat();
        for (what, bad) in [
            ("cut off", &bytes[..bytes.len() - 3]),
            ("a compressed ", &flipped[..]),
            ("compressed chunk is", &endless[..]),
            ("not a backup", &b"garbage, and more of it"[..]),
        ] {
            let answer = restore(&mut raw, &config, &state, bad, 4000).await;
            let error = &answer["error"];
            assert_eq!(error["err_code"], 10062, "{answer}");
            let text = error["description"].as_str().unwrap();
            assert!(
                text.starts_with("restore failed: ") && text.contains(what),
                "{text}"
            );
            assert_eq!(names(&mut raw).await, json!(["S"]));
        }
        // The same name at once, with what is sound; smaller limits apply.
        config["max_msgs"] = json!(5);
        let made = restore(&mut raw, &config, &state, &bytes, 4000).await;
        assert_eq!(made["state"]["messages"], 5, "{made}");
        server.shutdown().await;
    });
}

/// What a restore may grow to is taken from when it begins, like that of a stream.
#[test]
fn a_restore_reserves_what_its_stream_may_grow_to() {
    const LIMIT: u64 = 10 << 20;
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    task::block_on(2, async move {
        let mut config = Config {
            dont_listen: true,
            ..Config::default()
        };
        config.jetstream.enabled = true;
        config.jetstream.store_dir = Some("/js".into());
        config.jetstream.max_file_store = Some(LIMIT);
        let builder = Server::builder().config(config).disk(disk);
        let server = builder.start().await.unwrap();
        let mut raw = client(&server).await;
        let stream = |name: &str, max_bytes: u64| {
            json!({"name": name, "subjects": [name], "max_bytes": max_bytes})
        };
        api(&mut raw, "STREAM.CREATE.S", &stream("S", 1 << 20)).await;
        request(&mut raw, "S", "x").await;
        let (answer, bytes) = back_up(&mut raw, "S", &json!({})).await;
        let state = &answer["state"];
        let config = |name: &str, max_bytes: u64| {
            let mut config = answer["config"].clone();
            config["name"] = json!(name);
            config["subjects"] = json!([name]);
            config["max_bytes"] = json!(max_bytes);
            config
        };
        let refusal = begin(&mut raw, &config("T", LIMIT), state).await;
        assert_eq!(refusal.unwrap_err()["err_code"], 10047, "S has a part");
        let subject = begin(&mut raw, &config("T", LIMIT / 2), state).await;
        let subject = subject.unwrap();
        for step in ["while it is restored", "restored"] {
            let refusal = begin(&mut raw, &config("U", LIMIT / 2), state).await;
            assert_eq!(refusal.unwrap_err()["err_code"], 10047, "{step}");
            let made = api(&mut raw, "STREAM.CREATE.U", &stream("U", LIMIT / 2)).await;
            assert_eq!(made["error"]["err_code"], 10047, "{step}: {made}");
            if step == "restored" {
                break;
            }
            send_chunk(&mut raw, &subject, &bytes).await;
            let made = send_chunk(&mut raw, &subject, b"").await;
            let made: Value = serde_json::from_slice(&made).unwrap();
            assert_eq!(made["state"]["messages"], 1, "{made}");
        }
        // What was restored does not count twice: this is all that is left.
        let left = LIMIT / 2 - (1 << 20);
        let made = api(&mut raw, "STREAM.CREATE.V", &stream("V", left)).await;
        assert!(made["error"].is_null(), "{made}");
        api(&mut raw, "STREAM.DELETE.T", &Value::Null).await;
        let made = restore(&mut raw, &config("U", LIMIT / 2), state, &bytes, 4000).await;
        assert_eq!(made["state"]["messages"], 1, "{made}");
        server.shutdown().await;
    })
    .unwrap();
}

/// Flips a bit of `text` in the only segment of the streams' store that has it.
pub(crate) fn damage_segment(disk: &Arc<dyn Disk>, text: &str) {
    let dir = Path::new("/js/halyard/groups/1");
    for entry in disk.list(dir).unwrap() {
        let path = dir.join(&entry.name);
        let bytes = disk.read(&path).unwrap();
        let mut windows = bytes.windows(text.len());
        let found = windows.position(|window| window == text.as_bytes());
        if let Some(at) = found.filter(|_| entry.name.starts_with("segment-")) {
            let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
            file.write_at(&[bytes[at] ^ 1], at as u64).unwrap();
            return;
        }
    }
    panic!("{text} is in no segment");
}

/// Before the first chunk where it was asked for, and in place of the end of a backup where it was not.
#[test]
fn damage_is_told_to_who_backs_up() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let stream = json!({"name": "S", "subjects": ["s"]});
        api(&mut raw, "STREAM.CREATE.S", &stream).await;
        for number in 1..=9 {
            request(&mut raw, "s", &format!("payload number {number}")).await;
        }
        server.shutdown().await;
        drop((raw, server));
        damage_segment(&disk, "payload number 7");
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let body = json!({"deliver_subject": "_I.b", "jsck": true});
        let answer = api(&mut raw, "STREAM.SNAPSHOT.S", &body).await;
        assert_eq!(answer["error"]["err_code"], 10064, "{answer}");
        let text = answer["error"]["description"].as_str().unwrap();
        assert!(text.contains("is damaged"), "{text}");
        let body = json!({"deliver_subject": "_I.b"});
        let answer = api(&mut raw, "STREAM.SNAPSHOT.S", &body).await;
        assert!(answer["error"].is_null(), "{answer}");
        loop {
            let came = next(&mut raw).await;
            if came.payload.is_empty() {
                let status = came.headers.as_str();
                assert!(status.starts_with("NATS/1.0 500 "), "{status}");
                assert!(status.contains("is damaged"), "{status}");
                break;
            }
            raw.send(&format!("PUB {} 0\r\n\r\n", came.reply)).await;
        }
        server.shutdown().await;
    });
}

#[test]
fn a_backup_waits_for_acks() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        for body in [
            json!({}),
            json!({"deliver_subject": "a.*"}),
            json!({"deliver_subject": "a b"}),
        ] {
            let answer = api(&mut raw, "STREAM.SNAPSHOT.S", &body).await;
            let code = if body == json!({}) { 10003 } else { 10059 };
            assert_eq!(answer["error"]["err_code"], code, "{answer}");
        }
        api(&mut raw, "STREAM.CREATE.T", &json!({"name": "T"})).await;
        let body = json!({"deliver_subject": "a.*"});
        let answer = api(&mut raw, "STREAM.SNAPSHOT.T", &body).await;
        assert_eq!(answer["error"]["err_code"], 10015);
        let body = json!({"deliver_subject": "_I.b"});
        let answer = api(&mut raw, "STREAM.SNAPSHOT.S", &body).await;
        assert_eq!(answer["error"]["err_code"], 10059);
        api(
            &mut raw,
            "STREAM.CREATE.S",
            &json!({"name": "S", "subjects": ["s"]}),
        )
        .await;
        let mut noise = String::new();
        while noise.len() < 500_000 {
            noise.push_str(&format!("{:016x}", random::u64()));
        }
        for _ in 0..6 {
            request(&mut raw, "s", &noise).await;
        }
        // Nobody, or only a wildcard: the chunks wait, then they go to the wildcard.
        let body = json!({"deliver_subject": "_I.b", "window_size": 1, "chunk_size": 1 << 30});
        let answer = api(&mut raw, "STREAM.SNAPSHOT.S", &body).await;
        assert_eq!(answer["state"]["messages"], 6);
        let first = next(&mut raw).await;
        assert_eq!(
            first.payload.len(),
            1 << 20,
            "both sizes are brought into their bounds"
        );
        let end = next(&mut raw).await;
        assert_eq!(end.headers, "NATS/1.0 408 No Flow Response\r\n\r\n");
        let late = request(&mut raw, &first.reply, "").await;
        assert!(
            late.starts_with("NATS/1.0 503"),
            "nobody waits for acks any more: {late}"
        );
        server.shutdown().await;
    });
}

#[test]
fn who_listens_is_told() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let mut listener = Raw::connected(&server, "").await;
        listener.send("SUB $JS.EVENT.ADVISORY.STREAM.> 2\r\n").await;
        listener.flush().await;
        api(
            &mut raw,
            "STREAM.CREATE.S",
            &json!({"name": "S", "subjects": ["s"]}),
        )
        .await;
        request(&mut raw, "s", "x").await;
        let (answer, bytes) = back_up(&mut raw, "S", &json!({})).await;
        api(&mut raw, "STREAM.DELETE.S", &Value::Null).await;
        restore(&mut raw, &answer["config"], &answer["state"], &bytes, 1000).await;
        for kind in [
            "created",
            "snapshot_create",
            "snapshot_complete",
            "deleted",
            "restore_create",
            "restore_complete",
        ] {
            let line = listener.line().await;
            let subject = format!("MSG $JS.EVENT.ADVISORY.STREAM.{}.S ", kind.to_uppercase());
            assert!(line.starts_with(&subject), "{line}");
            let count: usize = line.rsplit(' ').next().unwrap().parse().unwrap();
            let body = listener.bytes(count + 2).await;
            if matches!(kind, "created" | "deleted") {
                continue;
            }
            let body: Value = serde_json::from_slice(&body[..count]).unwrap();
            assert_eq!(
                body["type"],
                format!("io.nats.jetstream.advisory.v1.{kind}")
            );
            assert_eq!(body["stream"], "S");
            assert_eq!(body["client"]["acc"], "$G", "{body}");
            assert_eq!(body["client"]["kind"], "Client", "{body}");
            match kind {
                "snapshot_create" => assert_eq!(body["state"]["messages"], 1),
                "restore_complete" => assert_eq!(body["bytes"], bytes.len()),
                _ => {}
            }
        }
        server.shutdown().await;
    });
}
