//! What many clients see of each other: queue groups, echo, headers, slow readers, a server that goes away.

use std::time::Duration;

use crate::raw::{Raw, reason_of_the_closed, with_server};
use futures::future::join_all;
use halyard_runtime::time;
use halyard_server::broker::Publish;
use halyard_server::config::Config;

#[test]
fn groups_share_and_others_all_get_it() {
    with_server(
        |_| {},
        async |server| {
            let mut plain = Raw::connected(&server, "").await;
            let mut group = Raw::connected(&server, "").await;
            plain.send("SUB jobs.> 1\r\n").await;
            group.send("SUB jobs.* q 1\r\nSUB jobs.a q 2\r\n").await;
            plain.flush().await;
            group.flush().await;
            let mut publisher = Raw::connected(&server, "").await;
            for _ in 0..100 {
                publisher.send("PUB jobs.a 1\r\nx\r\n").await;
            }
            let mut shares = [0; 2];
            for _ in 0..100 {
                plain.expect("MSG jobs.a 1 1\r\nx\r\n").await;
                let line = group.line().await;
                group.expect("x\r\n").await;
                match line.as_str() {
                    "MSG jobs.a 1 1" => shares[0] += 1,
                    "MSG jobs.a 2 1" => shares[1] += 1,
                    other => panic!("{other}"),
                }
            }
            assert!(shares.iter().all(|share| *share > 20), "{shares:?}");
        },
    );
}

#[test]
fn echo_and_headers_as_each_client_asked() {
    with_server(
        |_| {},
        async |server| {
            let mut silent = Raw::connected(&server, ",\"echo\":false,\"headers\":true").await;
            let mut old = Raw::connected(&server, "").await;
            silent.send("SUB a 1\r\n").await;
            old.send("SUB a 9\r\n").await;
            silent.flush().await;
            old.flush().await;
            silent
                .send("HPUB a 17 19\r\nNATS/1.0\r\nA:B\r\n\r\nhi\r\n")
                .await;
            silent.flush().await;
            old.expect("MSG a 9 2\r\nhi\r\n").await;
            let block = b"NATS/1.0\r\nA: B\r\n\r\n";
            server
                .account()
                .publish(&Publish::new(b"a", b"yo").with_headers(block));
            silent
                .expect("HMSG a 1 18 20\r\nNATS/1.0\r\nA: B\r\n\r\nyo\r\n")
                .await;
            old.expect("MSG a 9 2\r\nyo\r\n").await;
        },
    );
}

/// Payloads of all sizes, several publishers and subscribers: everything comes once, unchanged, in order.
#[test]
fn nothing_is_lost_torn_or_reordered() {
    const EACH: usize = 200;
    with_server(
        |_| {},
        async |server| {
            let mut readers = Vec::new();
            for _ in 0..3 {
                let mut reader = Raw::connected(&server, "").await;
                reader.send("SUB from.* 1\r\n").await;
                reader.flush().await;
                readers.push(reader);
            }
            let publish = async |number: usize| {
                let mut raw = Raw::connected(&server, "").await;
                for at in 0..EACH {
                    let payload = payload(number, at);
                    let mut bytes = format!("PUB from.{number} {}\r\n", payload.len()).into_bytes();
                    bytes.extend_from_slice(&payload);
                    bytes.extend_from_slice(b"\r\n");
                    raw.send_bytes(&bytes).await;
                }
                raw.flush().await;
            };
            let read = async |mut reader: Raw| {
                let mut next = [0; 3];
                for _ in 0..3 * EACH {
                    let line = reader.line().await;
                    let words: Vec<&str> = line.split(' ').collect();
                    let number: usize = words[1].trim_start_matches("from.").parse().unwrap();
                    let mut wanted = payload(number, next[number]);
                    next[number] += 1;
                    assert_eq!(words[3], wanted.len().to_string());
                    wanted.extend_from_slice(b"\r\n");
                    assert!(
                        reader.bytes(wanted.len()).await == wanted,
                        "payload of {line}"
                    );
                }
            };
            let publishers = join_all((0..3).map(publish));
            let readers = join_all(readers.into_iter().map(read));
            futures::future::join(publishers, readers).await;
        },
    );
}

/// Sizes from nothing to several read buffers, around every limit of the buffers.
fn payload(number: usize, at: usize) -> Vec<u8> {
    const SIZES: [usize; 9] = [0, 1, 100, 4096, 8190, 8192, 65_530, 65_536, 200_000];
    let size = SIZES[(at * 7 + number) % SIZES.len()];
    (0..size)
        .map(|byte| (byte * 31 + at + number) as u8)
        .collect()
}

#[test]
fn who_never_reads_is_closed_and_nobody_else_suffers() {
    let small = |config: &mut Config| {
        config.limits.max_payload = 100_000;
        config.limits.max_pending = 1_000_000;
    };
    with_server(small, async |server| {
        let mut lazy = Raw::connected(&server, ",\"name\":\"lazy\"").await;
        lazy.send("SUB a 1\r\n").await;
        lazy.flush().await;
        let mut reader = Raw::connected(&server, "").await;
        reader.send("SUB a 1\r\n").await;
        reader.flush().await;
        let mut publisher = Raw::connected(&server, "").await;
        let body = "x".repeat(50_000);
        for _ in 0..50 {
            publisher.send(&format!("PUB a 50000\r\n{body}\r\n")).await;
            reader.expect("MSG a 1 50000\r\n").await;
            reader.bytes(50_002).await;
        }
        publisher.flush().await;
        assert_eq!(
            reason_of_the_closed(&server).await,
            "Slow Consumer (Pending Bytes)"
        );
        let totals = server.front().registry.totals();
        assert_eq!((totals.slow_consumers, totals.connections), (1, 2));
        assert_eq!(server.front().registry.closed()[0].names.name, "lazy");
        assert!(
            totals.stalled_clients > 0,
            "the publisher was slowed down before"
        );
        assert_eq!(server.account().counters().subscriptions, 1);
    });
}

#[test]
fn a_write_that_makes_no_progress_has_a_deadline() {
    let quick = |config: &mut Config| config.write_deadline = Duration::from_millis(50);
    with_server(quick, async |server| {
        let mut lazy = Raw::connected(&server, "").await;
        lazy.send("SUB a 1\r\n").await;
        lazy.flush().await;
        for _ in 0..20 {
            server.account().publish(&Publish::new(b"a", &[0; 50_000]));
        }
        assert_eq!(
            reason_of_the_closed(&server).await,
            "Slow Consumer (Write Deadline)"
        );
    });
}

#[test]
fn too_many_connections() {
    with_server(
        |config| config.limits.max_connections = Some(1),
        async |server| {
            let first = Raw::connected(&server, "").await;
            let mut second = server.connect_in_process();
            let mut heard = String::new();
            futures::AsyncReadExt::read_to_string(&mut second, &mut heard)
                .await
                .unwrap();
            assert!(heard.starts_with("INFO {"), "{heard}");
            assert!(
                heard.ends_with(" \r\n-ERR 'maximum connections exceeded'\r\n"),
                "{heard}"
            );
            drop(second);
            assert_eq!(
                reason_of_the_closed(&server).await,
                "Maximum Connections Exceeded"
            );
            drop(first);
            while server.front().registry.count() > 0 {
                time::sleep(Duration::from_millis(1)).await;
            }
            Raw::connected(&server, "").await;
        },
    );
}

#[test]
fn lame_duck_warns_and_closes_everybody() {
    let quick = |config: &mut Config| {
        config.lame_duck_grace_period = Duration::from_millis(20);
        config.lame_duck_duration = Duration::from_millis(60);
    };
    with_server(quick, async |server| {
        let mut raw = Raw::connected(&server, ",\"protocol\":1").await;
        assert!(raw.line().await.contains("\"connect_info\":true"));
        let mut old = Raw::connected(&server, "").await;
        server.lame_duck().await;
        assert!(raw.line().await.contains("\"ldm\":true"));
        raw.expect_end("").await;
        old.expect_end("").await;
        let reasons = server.front().registry.closed();
        assert!(
            reasons
                .iter()
                .all(|held| held.stop.unwrap().1.as_str() == "Server Shutdown")
        );
    });
}

#[test]
fn changed_settings_reach_live_connections() {
    with_server(
        |_| {},
        async |server| {
            let mut raw = Raw::connected(&server, ",\"protocol\":1").await;
            raw.line().await;
            let mut config = Config::clone(&server.config());
            config.limits.max_payload = 10;
            server.reload(config);
            assert!(raw.line().await.contains("\"max_payload\":10"));
            raw.send("PUB a 11\r\nhello world\r\n").await;
            raw.expect_end("-ERR 'Maximum Payload Violation'\r\n").await;
        },
    );
}

#[test]
fn fewer_connections_by_a_reload_close_the_newest() {
    with_server(
        |_| {},
        async |server| {
            let mut old = Raw::connected(&server, "").await;
            let mut new = Raw::connected(&server, "").await;
            let mut config = Config::clone(&server.config());
            config.limits.max_connections = Some(1);
            server.reload(config);
            new.expect_end("-ERR 'maximum connections exceeded'\r\n")
                .await;
            old.send("PING\r\n").await;
            assert_eq!(old.line().await, "PONG");
        },
    );
}
