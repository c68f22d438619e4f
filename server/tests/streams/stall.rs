//! A group that is busy for long: sockets are served all the same, and floods wait without filling memory.

use halyard_runtime::task::JoinHandle;
use halyard_server::jetstream::JetStream;

use super::*;

/// Holds the lock of the group on the disk for so long, as applying a long entry does.
async fn hold(server: &Server, time: Duration) -> JoinHandle<()> {
    let jetstream: Arc<JetStream> = Arc::clone(server.jetstream().unwrap());
    let (held, is_held) = futures::channel::oneshot::channel();
    let holding = task::spawn(async move {
        let hold = move || {
            let [file, _] = jetstream.groups();
            file.read(|_| {
                held.send(()).ok();
                #[expect(clippy::disallowed_methods, reason = "a thread is to be blocked")]
                std::thread::sleep(time);
            });
        };
        task::spawn_blocking(hold).await.unwrap();
    });
    is_held.await.unwrap();
    holding
}

/// Round trips of a client that has nothing to do with streams, until the group is free again.
async fn round_trips(server: &Server, holding: JoinHandle<()>) -> Vec<Duration> {
    let mut bystander = Raw::connected(server, "").await;
    bystander.send("SUB echo 1\r\n").await;
    let mut times = Vec::new();
    while !holding.is_finished() {
        let started = Instant::now();
        bystander.send("PUB echo 2\r\nhi\r\n").await;
        bystander.expect("MSG echo 1 2\r\nhi\r\n").await;
        times.push(started.elapsed());
        time::sleep(Duration::from_millis(10)).await;
    }
    holding.await.unwrap();
    times.sort();
    times
}

#[test]
fn a_group_that_is_busy_for_a_second_keeps_no_socket_waiting() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let config = json!({"name": "S", "subjects": ["s.>"], "allow_direct": true});
        api(&mut raw, "STREAM.CREATE.S", &config).await;
        assert!(
            publish_once(&mut raw, "s.a", "a")
                .await
                .contains("\"seq\":1")
        );
        let holding = hold(&server, Duration::from_secs(1)).await;
        // Each of these needs the group's state; there are more of them than threads.
        for number in 0..8 {
            raw.send(&format!(
                "PUB s.b _I.p{number} 0\r\n\r\n\
                 PUB $JS.API.STREAM.INFO.S _I.i{number} 0\r\n\r\n\
                 PUB $JS.API.DIRECT.GET.S.s.a _I.d{number} 0\r\n\r\n\
                 PUB $JS.API.CONSUMER.NAMES.S _I.n{number} 0\r\n\r\n"
            ))
            .await;
        }
        let times = round_trips(&server, holding).await;
        let p99 = times[times.len() * 99 / 100];
        assert!(times.len() > 15, "{times:?}");
        assert!(p99 < Duration::from_millis(50), "{times:?}");
        let mut answers = 0;
        while answers < 32 {
            let line = raw.line().await;
            answers += usize::from(line.starts_with("MSG _I.") || line.starts_with("HMSG _I."));
        }
        server.shutdown().await;
    });
}

#[test]
fn a_flood_waits_for_a_busy_group_and_nothing_of_it_is_lost() {
    const FLOODERS: usize = 3;
    const EACH: usize = 30;
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let config = json!({"name": "FLOOD", "subjects": ["flood.>"]});
        api(&mut raw, "STREAM.CREATE.FLOOD", &config).await;
        let config = json!({"name": "OTHER", "subjects": ["other"]});
        api(&mut raw, "STREAM.CREATE.OTHER", &config).await;
        let holding = hold(&server, Duration::from_secs(2)).await;
        let payload = "x".repeat(1 << 20);
        let mut flooding = Vec::new();
        for number in 0..FLOODERS {
            let mut flooder = Raw::connected(&server, "").await;
            let head = format!("PUB flood.{number} {}\r\n", payload.len());
            let message = format!("{head}{payload}\r\n");
            flooding.push(task::spawn(async move {
                for _ in 0..EACH {
                    flooder.send(&message).await;
                }
                flooder.flush().await;
            }));
        }
        let [file, _] = server.jetstream().unwrap().groups();
        let mut waiting = 0;
        while waiting < 1 << 20 && !holding.is_finished() {
            time::sleep(Duration::from_millis(20)).await;
            waiting = file.inbox().waiting();
        }
        assert!(
            (1 << 20..12 << 20).contains(&waiting),
            "{waiting} bytes wait"
        );
        assert!(
            publish_once(&mut raw, "other", "a")
                .await
                .contains("\"seq\":1")
        );
        holding.await.unwrap();
        for flooder in flooding {
            flooder.await.unwrap();
        }
        let info = api(&mut raw, "STREAM.INFO.FLOOD", &Value::Null).await;
        assert_eq!(info["state"]["messages"], FLOODERS * EACH);
        server.shutdown().await;
    });
}
