//! Requests of the JetStream API as a client sends them: without a reply, many at once, with demands, and who is told of them.

use serde_json::{Value, json};

use crate::raw::Raw;
use crate::{answer, api, client, on_a_disk, request, start};

/// The next advisory: its subject and body. What comes on other subscriptions meanwhile is passed over.
async fn advisory(raw: &mut Raw) -> (String, Value) {
    loop {
        let line = raw.line().await;
        let words: Vec<&str> = line.split(' ').collect();
        let count: usize = words.last().unwrap().parse().unwrap();
        let subject = words[1].to_owned();
        let body = raw.bytes(count + 2).await;
        if let Some(event) = subject.strip_prefix("$JS.EVENT.ADVISORY.") {
            return (
                event.to_owned(),
                serde_json::from_slice(&body[..count]).unwrap(),
            );
        }
    }
}

#[test]
fn what_wants_no_answer_is_done_in_its_place() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let config = json!({"name": "S", "subjects": ["s"]}).to_string();
        let consumer =
            json!({"stream_name": "S", "config": {"name": "C", "durable_name": "C"}}).to_string();
        // All at once: each builds on the one before.
        let mut lines = format!(
            "PUB $JS.API.STREAM.CREATE.S {}\r\n{config}\r\n",
            config.len()
        );
        lines += &format!(
            "PUB $JS.API.CONSUMER.CREATE.S.C {}\r\n{consumer}\r\n",
            consumer.len()
        );
        lines += "PUB $JS.API.CONSUMER.INFO.S.C _I.r 0\r\n\r\n";
        raw.send(&lines).await;
        let info: Value = serde_json::from_str(&answer(&mut raw).await).unwrap();
        assert_eq!(info["name"], "C", "{info}");
        assert_eq!(
            request(&mut raw, "s", "x").await,
            r#"{"stream":"S","seq":1}"#
        );
        raw.send("PUB $JS.API.STREAM.PURGE.S 0\r\n\r\nPUB $JS.API.STREAM.INFO.S _I.r 0\r\n\r\n")
            .await;
        let info: Value = serde_json::from_str(&answer(&mut raw).await).unwrap();
        assert_eq!(info["state"]["messages"], 0, "{info}");
        server.shutdown().await;
    });
}

#[test]
fn who_listens_is_told_of_requests_and_changes() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut watcher = client(&server).await;
        watcher.send("SUB $JS.EVENT.ADVISORY.> 2\r\n").await;
        watcher.flush().await;
        let mut raw = client(&server).await;
        api(
            &mut raw,
            "STREAM.CREATE.S",
            &json!({"name": "S", "subjects": ["s"]}),
        )
        .await;
        let (subject, made) = advisory(&mut watcher).await;
        assert_eq!(
            (subject.as_str(), &made["action"]),
            ("STREAM.CREATED.S", &json!("create"))
        );
        assert_eq!(made["type"], "io.nats.jetstream.advisory.v1.stream_action");
        let (subject, audit) = advisory(&mut watcher).await;
        assert_eq!(
            (subject.as_str(), &audit["subject"]),
            ("API", &json!("$JS.API.STREAM.CREATE.S"))
        );
        assert_eq!(audit["client"]["acc"], "$G", "{audit}");
        assert!(
            audit["response"].as_str().unwrap().contains("did_create"),
            "{audit}"
        );
        api(
            &mut raw,
            "STREAM.UPDATE.S",
            &json!({"name": "S", "subjects": ["s"], "max_msgs": 5, "allow_atomic": true}),
        )
        .await;
        assert_eq!(advisory(&mut watcher).await.0, "STREAM.UPDATED.S");
        assert_eq!(advisory(&mut watcher).await.0, "API");
        let consumer = json!({"stream_name": "S", "config": {"name": "C", "durable_name": "C"}});
        api(&mut raw, "CONSUMER.CREATE.S.C", &consumer).await;
        assert_eq!(advisory(&mut watcher).await.0, "CONSUMER.CREATED.S.C");
        assert_eq!(advisory(&mut watcher).await.0, "API");
        let headers = "NATS/1.0\r\nNats-Batch-Id: b\"1\r\nNats-Batch-Sequence: ";
        for number in [1, 3] {
            let block = format!("{headers}{number}\r\n\r\n");
            raw.send(&format!("HPUB s {0} {0}\r\n{block}\r\n", block.len()))
                .await;
        }
        let (subject, given_up) = advisory(&mut watcher).await;
        assert_eq!(subject, "STREAM.BATCH_ABANDONED.S");
        assert_eq!(
            (&given_up["stream"], &given_up["batch"], &given_up["reason"]),
            (&json!("S"), &json!("b\"1"), &json!("incomplete"))
        );
        api(&mut raw, "STREAM.DELETE.S", &Value::Null).await;
        assert_eq!(advisory(&mut watcher).await.0, "CONSUMER.DELETED.S.C");
        assert_eq!(advisory(&mut watcher).await.0, "STREAM.DELETED.S");
        server.shutdown().await;
    });
}

#[test]
fn demands_and_unknown_consumers_are_answered_by_status() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        api(
            &mut raw,
            "STREAM.CREATE.S",
            &json!({"name": "S", "subjects": ["s"], "allow_direct": true}),
        )
        .await;
        let consumer = json!({"stream_name": "S", "config": {"name": "C", "durable_name": "C"}});
        api(&mut raw, "CONSUMER.CREATE.S.C", &consumer).await;
        let headers = "NATS/1.0\r\nNats-Required-Api-Level: 99\r\n\r\n";
        for subject in ["CONSUMER.MSG.NEXT.S.C", "DIRECT.GET.S"] {
            let len = headers.len();
            raw.send(&format!(
                "HPUB $JS.API.{subject} _I.r {len} {len}\r\n{headers}\r\n"
            ))
            .await;
            assert_eq!(
                answer(&mut raw).await,
                "NATS/1.0 412 Required Api Level\r\n\r\n"
            );
        }
        let nobody = request(&mut raw, "$JS.API.CONSUMER.MSG.NEXT.S.X", "").await;
        assert_eq!(
            nobody,
            "NATS/1.0 503\r\nNats-Subject: $JS.API.CONSUMER.MSG.NEXT.S.X\r\n\r\n"
        );
        // An account's requests do not count the one that asks.
        let before = api(&mut raw, "INFO", &Value::Null).await["api"]["total"]
            .as_u64()
            .unwrap();
        let after = api(&mut raw, "INFO", &Value::Null).await["api"]["total"]
            .as_u64()
            .unwrap();
        assert_eq!((before, after), (2, 3));
        server.shutdown().await;
    });
}

#[test]
fn a_stream_has_a_thousand_consumers_unless_it_says_more() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        api(
            &mut raw,
            "STREAM.CREATE.S",
            &json!({"name": "S", "subjects": ["s"], "storage": "memory"}),
        )
        .await;
        let mut lines = String::new();
        for number in 0..1001 {
            let body = json!({"stream_name": "S", "config": {"name": format!("c{number}"), "durable_name": format!("c{number}")}});
            let body = body.to_string();
            lines += &format!(
                "PUB $JS.API.CONSUMER.CREATE.S.c{number} _I.r {}\r\n{body}\r\n",
                body.len()
            );
        }
        raw.send(&lines).await;
        for _ in 0..1000 {
            let made = answer(&mut raw).await;
            assert!(!made.contains("\"error\""), "{made}");
        }
        assert!(answer(&mut raw).await.contains("\"err_code\":10026"));
        let wider =
            json!({"name": "S", "subjects": ["s"], "storage": "memory", "max_consumers": 1001});
        let updated = api(&mut raw, "STREAM.UPDATE.S", &wider).await;
        assert_eq!(updated["config"]["max_consumers"], 1001, "{updated}");
        for (name, code) in [("more", Value::Null), ("many", json!(10026))] {
            let config =
                json!({"stream_name": "S", "config": {"name": name, "durable_name": name}});
            let made = api(&mut raw, &format!("CONSUMER.CREATE.S.{name}"), &config).await;
            assert_eq!(made["error"]["err_code"], code, "{made}");
        }
        server.shutdown().await;
    });
}

#[test]
fn large_direct_gets_end_with_what_is_left() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let config =
            json!({"name": "S", "subjects": ["s.*"], "storage": "memory", "allow_direct": true});
        api(&mut raw, "STREAM.CREATE.S", &config).await;
        let body = "x".repeat(900 * 1024);
        for number in 0..38 {
            request(&mut raw, &format!("s.{number}"), &body).await;
        }
        let asked =
            json!({"seq": 1, "batch": 1_000_000_000, "max_bytes": 1_000_000_000}).to_string();
        let mut messages = 0;
        let mut last = request(&mut raw, "$JS.API.DIRECT.GET.S", &asked).await;
        while !last.starts_with("NATS/1.0 204") {
            messages += 1;
            last = answer(&mut raw).await;
        }
        assert_eq!(messages, 37, "32 MiB, and what the last one is beyond");
        assert!(
            last.contains("Nats-Num-Pending: 1\r\nNats-Last-Sequence: 37\r\n"),
            "{last}"
        );
        // Filters without wildcards are looked up one by one: thousands are no trouble.
        let many: Vec<String> = (0..5000)
            .map(|number| format!("s.{}", number + 30))
            .collect();
        let asked = json!({"multi_last": many, "batch": 1}).to_string();
        assert!(
            request(&mut raw, "$JS.API.DIRECT.GET.S", &asked)
                .await
                .contains("Nats-Sequence: 31\r\n")
        );
        assert!(answer(&mut raw).await.contains("Nats-Num-Pending: 7\r\n"));
        server.shutdown().await;
    });
}

/// More subjects than are read at one go: each once, in order, also behind an offset.
#[test]
fn all_subjects_are_listed() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let stream = json!({"name": "S", "subjects": ["s.>"]});
        api(&mut raw, "STREAM.CREATE.S", &stream).await;
        for number in 0..4_500 {
            raw.send(&format!("PUB s.{number:05} 0\r\n\r\n")).await;
        }
        for (offset, count) in [
            (0, 4_500),
            (499, 4_001),
            (500, 4_000),
            (4_499, 1),
            (4_500, 0),
        ] {
            let asked = json!({"subjects_filter": ">", "offset": offset});
            let info = api(&mut raw, "STREAM.INFO.S", &asked).await;
            let subjects = info["state"]["subjects"].as_object();
            let names: Vec<&String> = subjects.into_iter().flat_map(|map| map.keys()).collect();
            let expected: Vec<String> = (4_500 - count..4_500)
                .map(|number| format!("s.{number:05}"))
                .collect();
            assert!(names.into_iter().eq(&expected), "{offset}");
        }
        server.shutdown().await;
    });
}
