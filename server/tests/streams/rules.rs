//! What a stream takes and keeps, through the wire: limits of the server, header blocks, traces, configurations.

use super::*;

async fn limited(memory: u64, storage: u64) -> (Server, Config) {
    let mut config = Config {
        dont_listen: true,
        ..Config::default()
    };
    config.jetstream.enabled = true;
    config.jetstream.store_dir = Some("/js".into());
    config.jetstream.max_memory_store = Some(memory);
    config.jetstream.max_file_store = Some(storage);
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let builder = Server::builder().config(config.clone()).disk(disk);
    (builder.start().await.unwrap(), config)
}

fn code(answer: &str) -> u64 {
    let answer: Value = serde_json::from_str(answer).unwrap();
    answer["error"]["err_code"].as_u64().unwrap_or(0)
}

#[test]
fn streams_hold_no_more_than_the_server_allows() {
    task::block_on(2, async {
        let (server, config) = limited(2000, 2000).await;
        let mut raw = client(&server).await;
        for (name, storage) in [("M", "memory"), ("F", "file")] {
            api(
                &mut raw,
                &format!("STREAM.CREATE.{name}"),
                &json!({"name": name, "storage": storage}),
            )
            .await;
            let body = "x".repeat(900);
            for _ in 0..3 {
                assert_eq!(code(&request(&mut raw, name, &body).await), 0);
            }
            assert_eq!(code(&request(&mut raw, name, "").await), 10023, "{name}");
        }
        // A reload raises both.
        let mut more = config.clone();
        more.jetstream.max_memory_store = Some(1 << 20);
        more.jetstream.max_file_store = Some(1 << 20);
        server.reload(more);
        for name in ["M", "F"] {
            assert_eq!(code(&request(&mut raw, name, "").await), 0, "{name}");
        }
        let large = json!({"name": "L", "max_bytes": 1 << 19});
        let made = api(&mut raw, "STREAM.CREATE.L", &large).await;
        assert_eq!(made["did_create"], true, "{made}");
        server.shutdown().await;

        let (server, _) = limited(0, 1 << 20).await;
        let mut raw = client(&server).await;
        let in_memory = json!({"name": "M", "storage": "memory"});
        let made = api(&mut raw, "STREAM.CREATE.M", &in_memory).await;
        assert_eq!(made["error"]["err_code"], 10028, "{made}");
        server.shutdown().await;
    })
    .unwrap();
}

async fn publish_block(raw: &mut Raw, subject: &str, block: &str) {
    let message = format!("HPUB {subject} _I.r {0} {0}\r\n{block}\r\n", block.len());
    raw.send(&message).await;
}

#[test]
fn a_status_is_delivered_and_not_stored() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let config = json!({"name": "S", "subjects": ["s.*"], "allow_direct": true});
        api(&mut raw, "STREAM.CREATE.S", &config).await;
        raw.send("SUB s.* 9\r\n").await;
        let block = "NATS/1.0 404 No Messages\r\nA: b\r\n\r\n";
        publish_block(&mut raw, "s.a", block).await;
        let mut told = [answer(&mut raw).await, answer(&mut raw).await];
        told.sort();
        assert_eq!(told[0], block);
        let got = request(&mut raw, "$JS.API.DIRECT.GET.S.s.a", "").await;
        assert!(
            got.starts_with("NATS/1.0\r\nA: b\r\nNats-Stream: S\r\n"),
            "{got}"
        );
        publish_block(&mut raw, "s.b", "NATS/1.0 100 Idle\r\n\r\n").await;
        for _ in 0..2 {
            answer(&mut raw).await;
        }
        let got = api(&mut raw, "STREAM.MSG.GET.S", &json!({"seq": 2})).await;
        assert_eq!(got["message"]["hdrs"], Value::Null, "{got}");
        server.shutdown().await;
    });
}

#[test]
fn a_message_that_is_only_traced_goes_nowhere() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        api(&mut raw, "STREAM.CREATE.S", &json!({"name": "S"})).await;
        raw.send("SUB S 9\r\n").await;
        let block = "NATS/1.0\r\nNats-Trace-Dest: t\r\nNats-Trace-Only: true\r\n\r\n";
        publish_block(&mut raw, "S", block).await;
        publish_block(&mut raw, "nobody", block).await;
        let told = answer(&mut raw).await;
        assert!(told.starts_with("NATS/1.0 503"), "{told}");
        let info = api(&mut raw, "STREAM.INFO.S", &Value::Null).await;
        assert_eq!(info["state"]["messages"], 0, "{info}");
        server.shutdown().await;
    });
}

#[test]
fn configurations_that_would_not_be_kept_are_refused() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        for field in ["allow_batched", "mirror_direct"] {
            let made = api(
                &mut raw,
                "STREAM.CREATE.X",
                &json!({"name": "X", field: true}),
            )
            .await;
            assert_eq!(made["error"]["err_code"], 10052, "{made}");
        }
        let made = json!({"name": "S", "first_seq": 10, "max_consumers": 5});
        api(&mut raw, "STREAM.CREATE.S", &made).await;
        for name in ["B", "A"] {
            let consumer = json!({"durable_name": name, "ack_policy": "explicit"});
            let request = json!({"stream_name": "S", "config": consumer});
            api(&mut raw, &format!("CONSUMER.CREATE.S.{name}"), &request).await;
        }
        let narrow = json!({"name": "S", "consumer_limits": {"max_ack_pending": 10}});
        let updated = api(&mut raw, "STREAM.UPDATE.S", &narrow).await;
        assert_eq!(updated["error"]["err_code"], 10069, "{updated}");
        assert_eq!(
            updated["error"]["description"],
            "change to limits violates consumers: A, B"
        );
        let other = json!({"name": "S", "first_seq": 99, "max_consumers": 2});
        let updated = api(&mut raw, "STREAM.UPDATE.S", &other).await;
        assert_eq!(updated["config"]["max_consumers"], 2, "{updated}");
        assert_eq!(
            request(&mut raw, "S", "").await,
            r#"{"stream":"S","seq":10}"#
        );
        let deleted = api(&mut raw, "STREAM.MSG.DELETE.S", &json!({"seq": 3})).await;
        assert_eq!(deleted["error"]["err_code"], 10057, "{deleted}");
        server.shutdown().await;
    });
}
