//! Consumers through the wire: what clients are told, who gets messages, and when a consumer goes.

use super::*;

async fn stream(raw: &mut Raw, name: &str, messages: u64) {
    let config = json!({"name": name, "subjects": [format!("{name}.*")]});
    let made = api(raw, &format!("STREAM.CREATE.{name}"), &config).await;
    assert_eq!(made["did_create"], true, "{made}");
    for number in 1..=messages {
        let ack = request(raw, &format!("{name}.{number}"), "x").await;
        assert!(ack.contains("\"seq\""), "{ack}");
    }
}

async fn consumer(raw: &mut Raw, stream: &str, name: &str, mut config: Value) -> Value {
    config["name"] = name.into();
    let body = json!({"stream_name": stream, "config": config});
    api(raw, &format!("CONSUMER.CREATE.{stream}.{name}"), &body).await
}

async fn info(raw: &mut Raw, stream: &str, name: &str) -> Value {
    api(raw, &format!("CONSUMER.INFO.{stream}.{name}"), &Value::Null).await
}

/// Sends a pull request whose answers go to `_P.<to>`, which must be subscribed.
async fn pull(raw: &mut Raw, of: &str, to: &str, body: &Value) {
    let body = body.to_string();
    raw.send(&format!(
        "PUB $JS.API.CONSUMER.MSG.NEXT.{of} _P.{to} {}\r\n{body}\r\n",
        body.len()
    ))
    .await;
}

/// The ack subject of the next message; its body is dropped.
async fn delivered(raw: &mut Raw) -> String {
    let line = raw.line().await;
    let words: Vec<&str> = line.split(' ').collect();
    assert!(words[0] == "MSG" && words.len() == 5, "{line}");
    let count: usize = words[4].parse().unwrap();
    raw.bytes(count + 2).await;
    words[3].to_owned()
}

/// What comes within a moment.
async fn within(raw: &mut Raw, moment: Duration) -> Option<String> {
    time::timeout(moment, raw.line()).await.ok()
}

const MOMENT: Duration = Duration::from_millis(150);

#[test]
fn a_waiting_pull_keeps_a_consumer_to_its_end_and_a_while_longer() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        stream(&mut raw, "S", 1).await;
        let config = json!({"ack_policy": "explicit", "inactive_threshold": 300_000_000});
        let none = json!({"ack_policy": "none", "inactive_threshold": 300_000_000,
            "filter_subject": "S.none"});
        consumer(&mut raw, "S", "answering", config.clone()).await;
        let body = json!({"stream_name": "S", "config": none});
        let made = api(&mut raw, "CONSUMER.CREATE.S.waiting.S.none", &body).await;
        assert_eq!(made["name"], "waiting", "{made}");
        raw.send("SUB _P.* 9\r\n").await;
        pull(&mut raw, "S.waiting", "w", &json!({"expires": 280_000_000})).await;
        pull(&mut raw, "S.answering", "a", &json!({"batch": 1})).await;
        delivered(&mut raw).await;
        let ended = raw.line().await;
        assert!(ended.starts_with("HMSG _P.w 9 "), "{ended}");
        let count: usize = ended.rsplit(' ').next().unwrap().parse().unwrap();
        raw.bytes(count + 2).await;
        // Well past the threshold, counted from the pull's arrival.
        time::sleep(Duration::from_millis(150)).await;
        let known = info(&mut raw, "S", "waiting").await;
        assert_eq!(known["name"], "waiting", "{known}");
        time::sleep(Duration::from_millis(400)).await;
        let gone = info(&mut raw, "S", "waiting").await;
        assert_eq!(gone["error"]["err_code"], 10014, "{gone}");
        // A delivery that its client still may answer keeps the other.
        let known = info(&mut raw, "S", "answering").await;
        assert_eq!(known["num_ack_pending"], 1, "{known}");
    });
}

#[test]
fn the_answer_to_a_create_is_from_before_the_first_delivery() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let mut listener = Raw::connected(&server, ",\"headers\":true").await;
        stream(&mut raw, "S", 20).await;
        listener.send("SUB in 5\r\n").await;
        listener.flush().await;
        for (name, policy) in [("none", "none"), ("explicit", "explicit"), ("all", "all")] {
            let config = json!({"deliver_subject": "in", "ack_policy": policy});
            let made = consumer(&mut raw, "S", name, config).await;
            assert_eq!(made["num_pending"], 20, "{made}");
            assert_eq!(made["delivered"]["consumer_seq"], 0, "{made}");
            assert_eq!(made["num_ack_pending"], 0, "{made}");
            assert_eq!(made["push_bound"], true, "{made}");
            for _ in 0..20 {
                delivered(&mut listener).await;
            }
            let now = info(&mut raw, "S", name).await;
            assert_eq!(now["num_pending"], 0, "{now}");
            assert_eq!(now["delivered"]["consumer_seq"], 20, "{now}");
        }
    });
}

#[test]
fn only_its_own_listeners_bind_a_push_consumer() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let mut listener = Raw::connected(&server, ",\"headers\":true").await;
        stream(&mut raw, "S", 1).await;
        let cases = [
            ("SUB in.1", "in.1", "", true),
            ("SUB in.2 g", "in.2", "", false),
            ("SUB in.3", "in.3", "g", false),
            ("SUB in.4 other", "in.4", "g", false),
            ("SUB in.5 g", "in.5", "g", true),
            ("SUB on.*", "on.6", "", false),
            ("SUB on.* g", "on.7", "g", false),
        ];
        for (number, (subscribe, subject, group, binds)) in cases.into_iter().enumerate() {
            listener
                .send(&format!("{subscribe} {}\r\n", 20 + number))
                .await;
            listener.flush().await;
            let config = json!({"deliver_subject": subject, "deliver_group": group});
            let made = consumer(&mut raw, "S", &format!("c{number}"), config).await;
            assert_eq!(
                made.get("push_bound").is_some(),
                binds,
                "{subscribe} {made}"
            );
            if binds {
                delivered(&mut listener).await;
            } else {
                let came = within(&mut listener, MOMENT / 5).await;
                assert_eq!(came, None, "{subscribe}");
            }
        }
        listener.send("UNSUB 20\r\nUNSUB 24\r\n").await;
        // A listener of the group comes, then goes; another group takes over by an update.
        let config = json!({"deliver_subject": "late", "deliver_group": "g"});
        consumer(&mut raw, "S", "late", config).await;
        listener.send("SUB late g 8\r\n").await;
        delivered(&mut listener).await;
        listener.send("UNSUB 8\r\nSUB late h 9\r\n").await;
        listener.flush().await;
        request(&mut raw, "S.2", "x").await;
        assert_eq!(within(&mut listener, MOMENT / 5).await, None);
        let config = json!({"deliver_subject": "late", "deliver_group": "h"});
        consumer(&mut raw, "S", "late", config).await;
        delivered(&mut listener).await;
    });
}

#[test]
fn of_creates_at_one_time_one_keeps_the_deliver_subject() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        stream(&mut raw, "S", 0).await;
        let mut lines = String::new();
        for number in 0..6 {
            let config = json!({"name": "C", "durable_name": "C",
                "deliver_subject": format!("in.{number}")});
            let body = json!({"stream_name": "S", "config": config}).to_string();
            lines.push_str(&format!("SUB in.{number} {}\r\n", 20 + number));
            lines.push_str(&format!(
                "PUB $JS.API.CONSUMER.CREATE.S.C _I.{number} {}\r\n{body}\r\n",
                body.len()
            ));
        }
        raw.send(&lines).await;
        let mut made = Vec::new();
        for _ in 0..6 {
            let answer: Value = serde_json::from_str(&answer(&mut raw).await).unwrap();
            match answer["error"]["err_code"].as_u64() {
                None => made.push(answer["config"]["deliver_subject"].clone()),
                Some(code) => assert_eq!(code, 10013, "{answer}"),
            }
        }
        assert_eq!(made.len(), 1, "{made:?}");
        let known = info(&mut raw, "S", "C").await;
        assert_eq!(known["config"]["deliver_subject"], made[0]);
    });
}

#[test]
fn an_ack_is_confirmed_if_it_settles_something_that_was_delivered() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        stream(&mut raw, "S", 4).await;
        consumer(&mut raw, "S", "C", json!({"ack_policy": "explicit"})).await;
        consumer(&mut raw, "S", "N", json!({"ack_policy": "none"})).await;
        raw.send("SUB _P.* 9\r\n").await;
        pull(&mut raw, "S.C", "c", &json!({"batch": 2})).await;
        let first = delivered(&mut raw).await;
        delivered(&mut raw).await;
        pull(&mut raw, "S.N", "n", &json!({"batch": 1})).await;
        let unacked = delivered(&mut raw).await;
        let never = first.replace(".C.1.1.1.", ".C.1.4.4.");
        let never = never.as_str();
        let no_responders = "nobody";
        let cases = [
            (first.as_str(), "+WPI", Some("")),
            (first.as_str(), "what is this", Some("")),
            (first.as_str(), "+ACK", Some("")),
            (first.as_str(), "+ACK", Some("")),
            (never, "+ACK", None),
            (never, "", None),
            (never, "+TERM no", None),
            (never, "-NAK", Some("")),
            (unacked.as_str(), "+ACK", Some(no_responders)),
            (unacked.as_str(), "bogus", Some(no_responders)),
            (
                "$JS.ACK.S.none.1.1.1.1700000000000000000.0",
                "+ACK",
                Some(no_responders),
            ),
            ("$JS.ACK.S.C.1.1", "+ACK", Some(no_responders)),
        ];
        for (subject, body, expected) in cases {
            let line = format!("PUB {subject} _I.a {}\r\n{body}\r\n", body.len());
            raw.send(&line).await;
            let moment = if expected.is_some() {
                20 * MOMENT
            } else {
                MOMENT / 5
            };
            let got = time::timeout(moment, answer(&mut raw)).await.ok();
            let nobody = format!("NATS/1.0 503\r\nNats-Subject: {subject}\r\n\r\n");
            let expected = expected.map(|text| match text == no_responders {
                true => nobody.as_str(),
                false => text,
            });
            assert_eq!(got.as_deref(), expected, "{line}");
        }
        let known = info(&mut raw, "S", "C").await;
        assert_eq!(known["num_ack_pending"], 1, "{known}");
    });
}

#[test]
fn an_ack_of_a_former_stream_settles_nothing_in_the_new_one() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        raw.send("SUB _P.* 9\r\n").await;
        let mut former = String::new();
        for round in 0..2 {
            stream(&mut raw, "S", 2).await;
            consumer(&mut raw, "S", "C", json!({"ack_policy": "explicit"})).await;
            pull(&mut raw, "S.C", "c", &json!({"batch": 2})).await;
            let first = delivered(&mut raw).await;
            delivered(&mut raw).await;
            if round == 0 {
                former = first;
                api(&mut raw, "STREAM.DELETE.S", &Value::Null).await;
                continue;
            }
            for verb in ["+ACK", "+TERM", "-NAK"] {
                raw.send(&format!("PUB {former} _I.a {}\r\n{verb}\r\n", verb.len()))
                    .await;
            }
            assert_eq!(within(&mut raw, MOMENT / 5).await, None);
            let known = info(&mut raw, "S", "C").await;
            assert_eq!(known["num_ack_pending"], 2, "{known}");
            assert_eq!(request(&mut raw, &first, "+ACK").await, "");
            let known = info(&mut raw, "S", "C").await;
            assert_eq!(known["num_ack_pending"], 1, "{known}");
        }
    });
}

#[test]
fn consumers_kept_in_memory_end_with_the_process() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        stream(&mut raw, "S", 2).await;
        let long = 3_600_000_000_000_u64;
        let kept = json!({"ack_policy": "explicit", "inactive_threshold": long});
        let mut volatile = kept.clone();
        volatile["mem_storage"] = true.into();
        consumer(&mut raw, "S", "disk", kept.clone()).await;
        consumer(&mut raw, "S", "memory", volatile.clone()).await;
        volatile["durable_name"] = "durable".into();
        consumer(&mut raw, "S", "durable", volatile).await;
        drop(raw);
        drop(server);
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let names = api(&mut raw, "CONSUMER.NAMES.S", &Value::Null).await;
        assert_eq!(names["consumers"], json!(["disk"]), "{names}");
    });
}

/// How many are to come after the next message, as its ack subject says.
async fn to_come(raw: &mut Raw) -> u64 {
    let line = raw.line().await;
    let words: Vec<&str> = line.split(' ').collect();
    let size = words.last().unwrap().parse::<usize>().unwrap();
    raw.bytes(size + 2).await;
    words[3].rsplit('.').next().unwrap().parse().unwrap()
}

#[test]
fn what_is_gone_from_the_last_of_each_subject_is_not_to_come() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        raw.send("SUB _P.* 9\r\n").await;
        let steps = ["overwrite", "delete", "purge", "rollup", "evict"];
        for (step, policy) in steps.into_iter().flat_map(|step| {
            let both = ["none", "explicit"];
            both.into_iter().map(move |policy| (step, policy))
        }) {
            let name = format!("{step}-{policy}");
            let mut config = json!({"name": name, "subjects": [format!("{name}.*")],
                "allow_rollup_hdrs": true});
            match step {
                "overwrite" => config["max_msgs_per_subject"] = 1.into(),
                "evict" => config["max_msgs"] = 4.into(),
                _ => {}
            }
            api(&mut raw, &format!("STREAM.CREATE.{name}"), &config).await;
            for subject in ["a", "b", "c", "d"] {
                request(&mut raw, &format!("{name}.{subject}"), "x").await;
            }
            let filter = format!("{name}.*");
            let config = json!({"name": "C", "ack_policy": policy, "filter_subject": filter,
                "deliver_policy": "last_per_subject"});
            let body = json!({"stream_name": name, "config": config});
            let made = api(
                &mut raw,
                &format!("CONSUMER.CREATE.{name}.C.{filter}"),
                &body,
            )
            .await;
            assert_eq!(made["num_pending"], 4, "{made}");
            let left = match step {
                "overwrite" => {
                    request(&mut raw, &format!("{name}.b"), "y").await;
                    4
                }
                "rollup" => {
                    let headers = "NATS/1.0\r\nNats-Rollup: sub\r\n\r\n";
                    let length = headers.len();
                    raw.send(&format!(
                        "HPUB {name}.b _I.r {length} {length}\r\n{headers}\r\n"
                    ))
                    .await;
                    answer(&mut raw).await;
                    4
                }
                "evict" => {
                    request(&mut raw, &format!("{name}.z"), "y").await;
                    4
                }
                "delete" => {
                    let deleted = format!("STREAM.MSG.DELETE.{name}");
                    api(&mut raw, &deleted, &json!({"seq": 2})).await;
                    3
                }
                _ => {
                    let purged = format!("STREAM.PURGE.{name}");
                    api(&mut raw, &purged, &json!({"filter": format!("{name}.b")})).await;
                    3
                }
            };
            let known = info(&mut raw, &name, "C").await;
            assert_eq!(known["num_pending"], left, "{known}");
            let body = json!({"batch": left});
            pull(&mut raw, &format!("{name}.C"), "p", &body).await;
            for rest in (0..left).rev() {
                assert_eq!(to_come(&mut raw).await, rest, "{name}");
            }
        }
    });
}

#[test]
fn a_pull_that_does_not_wait_ends_only_when_nothing_is_there() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        stream(&mut raw, "S", 12).await;
        let config = json!({"ack_policy": "explicit", "max_ack_pending": 5});
        consumer(&mut raw, "S", "C", config).await;
        raw.send("SUB _P.* 9\r\n").await;
        let body = json!({"batch": 20, "no_wait": true});
        pull(&mut raw, "S.C", "p", &body).await;
        for _ in 0..12 {
            let ack = delivered(&mut raw).await;
            raw.send(&format!("PUB {ack} 4\r\n+ACK\r\n")).await;
        }
        assert!(answer(&mut raw).await.starts_with("NATS/1.0 404 "));
    });
}
