//! Streams through the wire: a server in the process, a client that speaks bare protocol lines, restarts in between.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test does not expect ends it"
)]

#[expect(dead_code, reason = "written for the tests of core NATS, shared")]
#[path = "../core/raw.rs"]
mod raw;

mod backup;
mod consumer_config;
mod consumers;
mod damage;
mod delivery;
mod full_disk;
mod log_length;
mod meta_store;
mod requests;
mod rules;
mod space;
mod stall;

use std::future::Future;
use std::sync::Arc;

use halyard_runtime::disk::{Disk, MemDisk};
use halyard_runtime::task;
use halyard_runtime::time::{self, Duration, Instant};
use halyard_server::Server;
use halyard_server::config::Config;
use raw::Raw;
use serde_json::{Value, json};

/// Starts a server on the disk. One that was dropped a moment ago may still hold it: its tasks end at their next turn.
async fn start(disk: &Arc<dyn Disk>) -> Server {
    let mut config = Config {
        dont_listen: true,
        ..Config::default()
    };
    config.jetstream.enabled = true;
    config.jetstream.store_dir = Some("/js".into());
    let started = Instant::now();
    loop {
        let builder = Server::builder().config(config.clone()).disk(disk.clone());
        match builder.start().await {
            Ok(server) => return server,
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("in use"), "{text}");
                assert!(started.elapsed() < Duration::from_secs(20), "{text}");
            }
        }
        time::sleep(Duration::from_millis(5)).await;
    }
}

fn on_a_disk<F: Future<Output = ()>>(test: impl FnOnce(Arc<dyn Disk>) -> F) {
    task::block_on(2, test(Arc::new(MemDisk::new()))).unwrap();
}

async fn client(server: &Server) -> Raw {
    let mut raw = Raw::connected(server, ",\"headers\":true,\"no_responders\":true").await;
    raw.send("SUB _I.* 1\r\n").await;
    raw.flush().await;
    raw
}

/// The next message's payload, status headers before it if it has any.
async fn answer(raw: &mut Raw) -> String {
    let line = raw.line().await;
    let count: usize = line.rsplit(' ').next().unwrap().parse().unwrap();
    let body = raw.bytes(count + 2).await;
    String::from_utf8_lossy(&body[..count]).into_owned()
}

async fn request(raw: &mut Raw, subject: &str, body: &str) -> String {
    raw.send(&format!("PUB {subject} _I.r {}\r\n{body}\r\n", body.len()))
        .await;
    answer(raw).await
}

async fn api(raw: &mut Raw, subject: &str, body: &Value) -> Value {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    serde_json::from_str(&request(raw, &format!("$JS.API.{subject}"), &body).await).unwrap()
}

async fn publish_once(raw: &mut Raw, subject: &str, id: &str) -> String {
    let headers = format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n");
    raw.send(&format!(
        "HPUB {subject} _I.p {0} {0}\r\n{headers}\r\n",
        headers.len()
    ))
    .await;
    answer(raw).await
}

#[test]
fn a_burst_is_acknowledged_in_order() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let made = api(
            &mut raw,
            "STREAM.CREATE.S",
            &json!({"name": "S", "subjects": ["s.>"]}),
        )
        .await;
        assert_eq!(made["did_create"], true, "{made}");
        let mut lines = String::new();
        for number in 1..=3000 {
            lines.push_str(&format!("PUB s.{number} _I.{number} 5\r\nhello\r\n"));
        }
        raw.send(&lines).await;
        for number in 1..=3000 {
            let line = raw.line().await;
            assert!(line.starts_with(&format!("MSG _I.{number} ")), "{line}");
            let ack = raw.line().await;
            assert_eq!(ack, format!("{{\"stream\":\"S\",\"seq\":{number}}}"));
        }
        let info = api(&mut raw, "STREAM.INFO.S", &Value::Null).await;
        assert_eq!(info["state"]["messages"], 3000);
        assert_eq!(info["state"]["num_subjects"], 3000);
        server.shutdown().await;
    });
}

#[test]
fn what_was_acknowledged_outlives_an_abrupt_end() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        api(
            &mut raw,
            "STREAM.CREATE.S",
            &json!({"name": "S", "subjects": ["s"], "allow_direct": true}),
        )
        .await;
        api(
            &mut raw,
            "STREAM.CREATE.M",
            &json!({"name": "M", "storage": "memory"}),
        )
        .await;
        api(&mut raw, "STREAM.CREATE.GONE", &json!({"name": "GONE"})).await;
        assert_eq!(
            publish_once(&mut raw, "s", "a").await,
            r#"{"stream":"S","seq":1}"#
        );
        assert_eq!(
            publish_once(&mut raw, "s", "b").await,
            r#"{"stream":"S","seq":2}"#
        );
        let deleted = api(&mut raw, "STREAM.MSG.DELETE.S", &json!({"seq": 1})).await;
        assert_eq!(deleted["success"], true);
        assert_eq!(
            api(&mut raw, "STREAM.DELETE.GONE", &Value::Null).await["success"],
            true
        );
        drop(raw);
        drop(server);

        for orderly in [true, false] {
            let server = start(&disk).await;
            let mut raw = client(&server).await;
            let names = api(&mut raw, "STREAM.NAMES", &Value::Null).await;
            assert_eq!(
                names["streams"],
                json!(["S"]),
                "a memory stream dies with the process"
            );
            let again = publish_once(&mut raw, "s", "b").await;
            assert_eq!(again, r#"{"stream":"S","seq":2,"duplicate": true}"#);
            let info = api(&mut raw, "STREAM.INFO.S", &json!({"deleted_details": true})).await;
            assert_eq!(
                (&info["state"]["messages"], &info["state"]["first_seq"]),
                (&json!(1), &json!(2))
            );
            let got = request(&mut raw, "$JS.API.DIRECT.GET.S.s", "").await;
            assert!(
                got.contains(
                    "Nats-Msg-Id: b\r\nNats-Stream: S\r\nNats-Subject: s\r\nNats-Sequence: 2\r\n"
                ),
                "{got}"
            );
            if orderly {
                server.shutdown().await;
            }
        }
    });
}

#[test]
fn subjects_follow_the_configuration() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        api(
            &mut raw,
            "STREAM.CREATE.S",
            &json!({"name": "S", "subjects": ["a", "b"]}),
        )
        .await;
        let overlapping = api(
            &mut raw,
            "STREAM.CREATE.T",
            &json!({"name": "T", "subjects": ["*"]}),
        )
        .await;
        assert_eq!(overlapping["error"]["err_code"], 10065);
        let updated = api(
            &mut raw,
            "STREAM.UPDATE.S",
            &json!({"name": "S", "subjects": ["b", "c"]}),
        )
        .await;
        assert_eq!(updated["config"]["subjects"], json!(["b", "c"]));
        assert!(
            request(&mut raw, "a", "x")
                .await
                .starts_with("NATS/1.0 503")
        );
        assert_eq!(
            request(&mut raw, "c", "x").await,
            r#"{"stream":"S","seq":1}"#
        );
        api(&mut raw, "STREAM.DELETE.S", &Value::Null).await;
        assert!(
            request(&mut raw, "c", "x")
                .await
                .starts_with("NATS/1.0 503")
        );
        let missing = api(&mut raw, "STREAM.INFO.S", &Value::Null).await;
        assert_eq!(missing["error"]["err_code"], 10059);
        assert!(
            request(&mut raw, "$JS.API.DIRECT.GET.S", "{\"seq\":1}")
                .await
                .starts_with("NATS/1.0 503")
        );
        server.shutdown().await;
    });
}

#[test]
fn batches_of_direct_reads() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let config = json!({"name": "K", "subjects": ["k.>"], "allow_direct": true});
        api(&mut raw, "STREAM.CREATE.K", &config).await;
        for number in 0..6 {
            request(
                &mut raw,
                &format!("k.{}", number % 3),
                &format!("v{number}"),
            )
            .await;
        }
        let body = json!({"seq": 1, "batch": 2, "next_by_subj": "k.>"}).to_string();
        let first = request(&mut raw, "$JS.API.DIRECT.GET.K", &body).await;
        assert!(
            first.contains("Nats-Num-Pending: 5\r\n") && first.ends_with("v0"),
            "{first}"
        );
        assert!(answer(&mut raw).await.contains("Nats-Last-Sequence: 1\r\n"));
        let end = answer(&mut raw).await;
        assert!(
            end.starts_with("NATS/1.0 204 EOB\r\nNats-Num-Pending: 4\r\nNats-Last-Sequence: 2\r\n"),
            "{end}"
        );
        let body = json!({"multi_last": ["k.0", "k.2"]}).to_string();
        assert!(
            request(&mut raw, "$JS.API.DIRECT.GET.K", &body)
                .await
                .ends_with("v3")
        );
        assert!(answer(&mut raw).await.ends_with("v5"));
        let end = answer(&mut raw).await;
        assert!(end.contains("Nats-UpTo-Sequence: 6\r\n"), "{end}");
        server.shutdown().await;
    });
}
