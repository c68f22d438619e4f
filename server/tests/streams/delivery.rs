//! When messages go out, and when they do not: on a disk whose writes take their time, in simulated time, so that a write
//! too many on the way of a message shows.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use halyard_runtime::sim::{self, DiskFaults, SimDisk};
use halyard_runtime::task;
use halyard_runtime::time::{self, Duration, Instant};
use halyard_server::Server;
use halyard_server::broker::{Origin, Publish};
use serde_json::{Value, json};

use crate::backup::damage_segment;
use crate::raw::Raw;
use crate::{answer, api, client, on_a_disk, request, start};

/// One sync of the disk.
const SYNC: Duration = Duration::from_millis(20);
/// Much less than that.
const AT_ONCE: Duration = Duration::from_millis(2);

fn slowly<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(Arc<Server>) -> F + Send + 'static,
) {
    let outcome = sim::run(7, Duration::from_secs(600), move || async move {
        let node = sim::Node::new("server", IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
        let faults = DiskFaults {
            sync_time: (SYNC, SYNC),
            ..DiskFaults::default()
        };
        let disk = SimDisk::new(7, faults);
        node.attach(&disk);
        node.start();
        let life = node.spawn(async move {
            let builder = Server::builder().jetstream("/js").no_listener();
            let server = builder.disk(Arc::new(disk)).start().await.unwrap();
            test(Arc::new(server)).await;
        });
        life.await.unwrap();
    });
    outcome.result.unwrap();
}

async fn stream(raw: &mut Raw, name: &str) {
    let subjects = format!("{}.>", name.to_lowercase());
    let config = json!({"name": name, "subjects": [subjects], "allow_direct": true});
    let made = api(raw, &format!("STREAM.CREATE.{name}"), &config).await;
    assert_eq!(made["did_create"], true, "{made}");
}

async fn consumer(raw: &mut Raw, name: &str, more: Value) {
    let mut config = json!({"durable_name": name, "ack_policy": "explicit"});
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    let body = json!({"stream_name": "S", "config": config});
    let made = api(raw, &format!("CONSUMER.CREATE.S.{name}"), &body).await;
    assert_eq!(made["error"], Value::Null, "{made}");
}

async fn pull(raw: &mut Raw, consumer: &str, to: &str, body: &Value) {
    let body = body.to_string();
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.S.{consumer}");
    raw.send(&format!("PUB {subject} {to} {}\r\n{body}\r\n", body.len()))
        .await;
}

/// The next message: its subject, its reply subject, and what is in it.
async fn message(raw: &mut Raw) -> (String, String, String) {
    let line = raw.line().await;
    let words: Vec<&str> = line.split(' ').collect();
    let sizes = if words[0] == "HMSG" { 2 } else { 1 };
    let reply = match words.len() - sizes {
        4 => words[3].to_owned(),
        _ => String::new(),
    };
    let count: usize = words.last().unwrap().parse().unwrap();
    let body = raw.bytes(count + 2).await;
    let body = String::from_utf8_lossy(&body[..count]).into_owned();
    (words[1].to_owned(), reply, body)
}

#[test]
fn a_message_goes_out_with_its_acknowledgement() {
    slowly(|server| async move {
        let mut raw = client(&server).await;
        stream(&mut raw, "S").await;
        consumer(&mut raw, "pull", json!({})).await;
        consumer(&mut raw, "push", json!({"deliver_subject": "to.push"})).await;
        let mut puller = Raw::connected(&server, "").await;
        puller.send("SUB to.pull 1\r\n").await;
        pull(&mut puller, "pull", "to.pull", &json!({"batch": 100})).await;
        puller.flush().await;
        let mut pushed = Raw::connected(&server, "").await;
        pushed.send("SUB to.push 1\r\n").await;
        pushed.flush().await;
        // The second comes while the first is being written, and while the log hears that the first was sent.
        for round in 0..3 {
            raw.send("PUB s.a _I.a 1\r\nx\r\n").await;
            time::sleep(SYNC / 4).await;
            raw.send("PUB s.b _I.b 1\r\ny\r\n").await;
            for subject in ["s.a", "s.b"] {
                let ack = answer(&mut raw).await;
                assert!(ack.contains("\"seq\":"), "{ack}");
                let acked = Instant::now();
                assert_eq!(message(&mut puller).await.0, subject, "round {round}");
                assert_eq!(message(&mut pushed).await.0, subject, "round {round}");
                assert!(acked.elapsed() < AT_ONCE, "{:?}", acked.elapsed());
            }
        }
        server.shutdown().await;
    });
}

#[test]
fn what_is_there_is_sent_at_once_and_answers_make_room_for_more() {
    slowly(|server| async move {
        let mut raw = client(&server).await;
        stream(&mut raw, "S").await;
        for _ in 0..4 {
            request(&mut raw, "s.a", "x").await;
        }
        consumer(&mut raw, "C", json!({"max_ack_pending": 2})).await;
        let mut puller = Raw::connected(&server, ",\"headers\":true").await;
        puller.send("SUB to.* 1\r\n").await;
        let asked = Instant::now();
        // One that does not wait is not turned away while messages are there.
        pull(
            &mut puller,
            "C",
            "to.pull",
            &json!({"batch": 3, "no_wait": true}),
        )
        .await;
        let (_, first, _) = message(&mut puller).await;
        let (_, second, _) = message(&mut puller).await;
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
        // What was sent shows, though the log hears of it only now.
        let info = api(&mut raw, "CONSUMER.INFO.S.C", &Value::Null).await;
        assert_eq!(info["num_ack_pending"], 2, "{info}");
        assert_eq!(info["delivered"]["stream_seq"], 2, "{info}");
        assert_eq!(
            (&info["num_pending"], &info["num_waiting"]),
            (&json!(2), &json!(1))
        );
        puller.send(&format!("PUB {first} to.ack 0\r\n\r\n")).await;
        assert_eq!(message(&mut puller).await.0, "to.ack");
        let confirmed = Instant::now();
        let (_, third, _) = message(&mut puller).await;
        assert!(confirmed.elapsed() < AT_ONCE, "{:?}", confirmed.elapsed());
        assert!(third.starts_with("$JS.ACK.S.C.1.3.3."), "{third}");
        assert!(third.ends_with(".1"), "{third}");
        // Refused, it comes again: as the second delivery of the same message.
        puller.send(&format!("PUB {second} 4\r\n-NAK\r\n")).await;
        pull(
            &mut puller,
            "C",
            "to.pull",
            &json!({"batch": 1, "max_bytes": 1000}),
        )
        .await;
        let (_, again, _) = message(&mut puller).await;
        assert!(again.starts_with("$JS.ACK.S.C.2.2.4."), "{again}");
        let (_, _, end) = message(&mut puller).await;
        assert!(
            end.starts_with("NATS/1.0 409 Batch Completed\r\nNats-Pending-Messages: 0\r\n"),
            "{end}"
        );
        server.shutdown().await;
    });
}

#[test]
fn who_waits_hears_that_the_server_goes() {
    slowly(|server| async move {
        let mut raw = client(&server).await;
        stream(&mut raw, "S").await;
        consumer(&mut raw, "C", json!({})).await;
        let mut pullers = Vec::new();
        for _ in 0..2 {
            let mut puller = Raw::connected(&server, ",\"headers\":true").await;
            puller.send("SUB to.* 1\r\n").await;
            let body = json!({"batch": 3, "max_bytes": 500, "expires": 60_000_000_000_u64});
            pull(&mut puller, "C", "to.pull", &body).await;
            puller.flush().await;
            pullers.push(puller);
        }
        let lame = Arc::clone(&server);
        let going = task::spawn(async move { lame.lame_duck().await });
        for puller in &mut pullers {
            // Both subscribe to the same subject, so each hears of both.
            let (_, _, told) = message(puller).await;
            let expected = "NATS/1.0 409 Server Shutdown\r\nNats-Pending-Messages: 3\r\n\
                            Nats-Pending-Bytes: 500\r\n\r\n";
            assert_eq!(told, expected);
        }
        drop((raw, pullers));
        going.await.unwrap();
    });
}

#[test]
fn what_the_server_sends_is_no_request() {
    slowly(|server| async move {
        let mut raw = client(&server).await;
        stream(&mut raw, "S").await;
        stream(&mut raw, "VICTIM").await;
        let deletes = "$JS.API.STREAM.DELETE.VICTIM";
        consumer(&mut raw, "push", json!({"deliver_subject": deletes})).await;
        consumer(&mut raw, "stored", json!({"deliver_subject": "victim.x"})).await;
        consumer(&mut raw, "C", json!({})).await;
        request(&mut raw, "s.a", "{}").await;
        // A delivery, an answer, an acknowledgement, sent to where the API listens.
        pull(&mut raw, "C", deletes, &json!({"batch": 1})).await;
        raw.send(&format!("PUB $JS.API.INFO {deletes} 0\r\n\r\n"))
            .await;
        raw.send(&format!("PUB s.b {deletes} 0\r\n\r\n")).await;
        // What a message is called is not where it was sent to.
        let named = Publish::new(deletes.as_bytes(), b"");
        let sent = named.with_route(b"elsewhere").with_origin(Origin::Program);
        server.account().publish(&sent);
        server
            .account()
            .publish(&Publish::new(deletes.as_bytes(), b""));
        time::sleep(SYNC * 20).await;
        let info = api(&mut raw, "STREAM.INFO.VICTIM", &Value::Null).await;
        assert_eq!(
            info["state"]["messages"], 0,
            "neither deleted nor fed: {info}"
        );
        // A program that embeds the server says who it is.
        let asked = Publish::new(deletes.as_bytes(), b"");
        let told = server
            .account()
            .request(asked, Duration::from_secs(5))
            .await;
        let told = String::from_utf8_lossy(&told.unwrap().payload).into_owned();
        assert!(told.contains("\"success\":true"), "{told}");
        server.shutdown().await;
    });
}

#[test]
fn a_client_finds_what_it_wrote_before_it_asked() {
    slowly(|server| async move {
        let mut raw = client(&server).await;
        stream(&mut raw, "S").await;
        consumer(&mut raw, "C", json!({})).await;
        let info = api(&mut raw, "STREAM.INFO.S", &Value::Null).await;
        assert_eq!(info["state"]["messages"], 0);
        for round in 1..=3 {
            raw.send(&format!("PUB s.a 2\r\nv{round}\r\nPING\r\n"))
                .await;
            raw.expect("PONG\r\n").await;
            let got = request(&mut raw, "$JS.API.DIRECT.GET.S.s.a", "").await;
            assert!(got.ends_with(&format!("\r\nv{round}")), "{got}");
            raw.send(&format!("PUB s.b 2\r\nw{round}\r\n")).await;
            let got = api(
                &mut raw,
                "STREAM.MSG.GET.S",
                &json!({"last_by_subj": "s.b"}),
            )
            .await;
            assert_eq!(got["message"]["seq"], 2 * round, "{got}");
        }
        raw.send("PUB s.c 1\r\nx\r\n").await;
        let info = api(&mut raw, "CONSUMER.INFO.S.C", &Value::Null).await;
        assert_eq!(info["num_pending"], 7, "{info}");
        let body = json!({"batch": 10, "no_wait": true});
        raw.send("PUB s.c 1\r\ny\r\n").await;
        pull(&mut raw, "C", "_I.pull", &body).await;
        for seq in 1..=8 {
            let (_, reply, _) = message(&mut raw).await;
            assert!(
                reply.starts_with(&format!("$JS.ACK.S.C.1.{seq}.")),
                "{reply}"
            );
        }
        assert!(
            message(&mut raw)
                .await
                .2
                .starts_with("NATS/1.0 404 No Messages")
        );
        raw.send("PUB s.c 1\r\nz\r\n").await;
        let purged = api(&mut raw, "STREAM.PURGE.S", &Value::Null).await;
        assert_eq!(purged["purged"], 9, "{purged}");
        // What others have on the way is not waited for.
        let mut other = client(&server).await;
        raw.send("PUB s.c 1\r\nz\r\n").await;
        raw.flush().await;
        let asked = Instant::now();
        request(&mut other, "$JS.API.DIRECT.GET.S.s.a", "").await;
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
        server.shutdown().await;
    });
}

/// A message that cannot be read is no reason to go on with the next one as if it had never been.
#[test]
fn nothing_unreadable_is_skipped() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        stream(&mut raw, "S").await;
        consumer(&mut raw, "C", json!({})).await;
        for number in 1..=9 {
            // Each in a page of its own.
            let payload = format!("number {number} {}", "x".repeat(100_000));
            request(&mut raw, "s.a", &payload).await;
        }
        let body = json!({"stream_name": "S", "config": {
            "durable_name": "P", "ack_policy": "none", "deliver_subject": "later.P",
        }});
        server.shutdown().await;
        drop((raw, server));
        damage_segment(&disk, "number 7 ");
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        pull(&mut raw, "C", "_I.pull", &json!({"batch": 9})).await;
        for seq in 1..=6 {
            let (_, reply, _) = message(&mut raw).await;
            assert!(
                reply.starts_with(&format!("$JS.ACK.S.C.1.{seq}.")),
                "{reply}"
            );
        }
        let told = message(&mut raw).await.2;
        assert!(
            told.starts_with("NATS/1.0 500 Message 7 cannot be read: "),
            "{told}"
        );
        assert!(told.contains("Nats-Pending-Messages: 3\r\n"), "{told}");
        // The same for one without acks, which starts at the front.
        let made = api(&mut raw, "CONSUMER.CREATE.S.P", &body).await;
        assert_eq!(made["error"], Value::Null, "{made}");
        raw.send("SUB later.P 2\r\n").await;
        for number in 1..=6 {
            assert!(
                message(&mut raw)
                    .await
                    .2
                    .starts_with(&format!("number {number} "))
            );
        }
        let before = api(&mut raw, "CONSUMER.INFO.S.P", &Value::Null).await;
        assert_eq!(before["delivered"]["stream_seq"], 6, "{before}");
        assert_eq!(before["num_pending"], 3, "{before}");
        server.shutdown().await;
        drop((raw, server));
        // An orderly stop leaves nothing untold: nothing comes twice.
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let after = api(&mut raw, "CONSUMER.INFO.S.P", &Value::Null).await;
        assert_eq!(after["delivered"]["stream_seq"], 6, "{after}");
        server.shutdown().await;
    });
}
