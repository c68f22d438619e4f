//! What only the simulator has: determinism, clocks that differ, links that break, machines that die.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use halyard_runtime::net::{TcpListener, TcpStream, resolve};
use halyard_runtime::sim::{self, Clock, Net, NetOptions, Node, Outcome};
use halyard_runtime::time::{Instant, Timestamp, timeout};
use halyard_runtime::{event, random, task, time};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SERVER: &str = "10.0.0.1:4222";

fn simulate<F>(seed: u64, test: impl FnOnce() -> F + Send + 'static) -> Outcome<()>
where
    F: Future<Output = ()> + 'static,
{
    sim::run(seed, Duration::from_secs(3600), test)
}

/// Runs `test` with several seeds and fails with the first that fails.
fn each_seed<F>(test: impl Fn() -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + 'static,
{
    for seed in 0..20 {
        let outcome = simulate(seed, test);
        assert_eq!(
            outcome.result,
            Ok(()),
            "seed {seed}:\n{}",
            outcome.trace.join("\n")
        );
    }
}

fn server() -> SocketAddr {
    SERVER.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn two_nodes() -> (Node, Node) {
    (
        Node::new("server", ip("10.0.0.1")),
        Node::new("client", ip("10.0.0.2")),
    )
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Answers every byte with the same byte.
async fn echo() {
    let listener = TcpListener::bind(server()).await.unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        drop(task::spawn(async move {
            let mut buffer = [0; 1000];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
            }
        }));
    }
}

async fn ask(stream: &mut TcpStream, byte: u8) -> io::Result<()> {
    stream.write_all(&[byte]).await?;
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    assert_eq!(answer, [byte]);
    Ok(())
}

async fn chatter() {
    let (node, client) = two_nodes();
    drop(node.spawn(echo()));
    let talkers: Vec<_> = (0..4u8)
        .map(|talker| {
            client.spawn(async move {
                let mut stream = TcpStream::connect(server()).await.unwrap();
                for round in 0..20 {
                    ask(&mut stream, round).await.unwrap();
                    event!(
                        "talker {talker} round {round} random {}",
                        random::below(100)
                    );
                    let map: std::collections::HashMap<u8, u8> = (0..20).map(|n| (n, n)).collect();
                    event!("hash order {:?}", map.keys().next());
                    time::sleep(Duration::from_micros(random::below(3000))).await;
                }
            })
        })
        .collect();
    for talker in talkers {
        talker.await.unwrap();
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..5 {
        let (first, second) = (simulate(seed, chatter), simulate(seed, chatter));
        assert_eq!(first.result, Ok(()));
        assert!(first.trace.len() > 100);
        assert_eq!(first.trace, second.trace);
        assert_eq!(first.elapsed, second.elapsed);
        assert_ne!(
            first.trace_hash(),
            simulate(seed + 1000, chatter).trace_hash()
        );
    }
}

#[test]
fn a_panic_ends_the_run_and_leaves_the_trace() {
    let outcome = simulate(1, || async {
        let node = Node::new("server", ip("10.0.0.1"));
        event!("before");
        drop(node.spawn(async { panic!("out of cheese") }));
        time::sleep(millis(1)).await;
    });
    assert_eq!(outcome.result, Err("out of cheese".to_owned()));
    assert_eq!(outcome.trace.len(), 1);
}

#[test]
fn clocks_have_skew_and_drift() {
    each_seed(|| async {
        let (fast, slow) = two_nodes();
        fast.set_clock(Clock {
            drift_ppm: 100_000,
            skew_nanos: 5_000_000_000,
        });
        slow.set_clock(Clock {
            drift_ppm: -100_000,
            skew_nanos: -5_000_000_000,
        });
        let measure = || async {
            let (start, began) = (Instant::now(), sim::now());
            time::sleep(Duration::from_secs(10)).await;
            (start.elapsed(), sim::now() - began, Timestamp::now())
        };
        let quick = fast.spawn(measure());
        let (local, global, wall) = slow.spawn(measure()).await.unwrap();
        assert!(local >= Duration::from_secs(10) && local < Duration::from_millis(10_001));
        assert!((11_111..11_113).contains(&global.as_millis()), "{global:?}");
        let (local, global, ahead) = quick.await.unwrap();
        assert!(local >= Duration::from_secs(10) && local < Duration::from_millis(10_001));
        assert!((9_090..9_092).contains(&global.as_millis()), "{global:?}");
        assert!(ahead - wall > Duration::from_secs(9));
    });
}

#[test]
fn a_clock_stays_continuous_when_its_drift_changes() {
    each_seed(|| async {
        let (node, _) = two_nodes();
        let before = node.spawn(async { Instant::now() }).await.unwrap();
        node.set_clock(Clock {
            drift_ppm: 500_000,
            skew_nanos: 0,
        });
        let after = node.spawn(async { Instant::now() }).await.unwrap();
        assert!(after >= before && after - before < millis(1));
    });
}

#[test]
fn a_partition_hangs_and_heals() {
    each_seed(|| async {
        let (node, client) = two_nodes();
        drop(node.spawn(echo()));
        let net = Net::current();
        let (a, b) = (node.ip(), client.ip());
        client
            .spawn(async move {
                let mut stream = TcpStream::connect(server()).await.unwrap();
                ask(&mut stream, 1).await.unwrap();
                net.partition(a, b);
                let connect = TcpStream::connect(server());
                assert!(
                    timeout(Duration::from_secs(60), connect).await.is_err(),
                    "it hangs"
                );
                let asked = timeout(Duration::from_secs(60), ask(&mut stream, 2)).await;
                assert!(asked.is_err(), "bytes hang");
                net.heal_all();
                let mut answer = [0];
                timeout(Duration::from_secs(2), stream.read_exact(&mut answer))
                    .await
                    .unwrap()
                    .unwrap();
                assert_eq!(answer, [2], "nothing was lost");
            })
            .await
            .unwrap();
    });
}

#[test]
fn a_link_can_be_cut_in_one_direction() {
    each_seed(|| async {
        let (node, client) = two_nodes();
        let (seen, mut was_seen) = tokio::sync::mpsc::unbounded_channel();
        drop(node.spawn(async move {
            let listener = TcpListener::bind(server()).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() {
                seen.send(byte[0]).unwrap();
                stream.write_all(&byte).await.unwrap();
            }
        }));
        let net = Net::current();
        let (a, b) = (node.ip(), client.ip());
        client
            .spawn(async move {
                let mut stream = TcpStream::connect(server()).await.unwrap();
                ask(&mut stream, 1).await.unwrap();
                net.cut(a, b);
                assert!(
                    timeout(Duration::from_secs(5), ask(&mut stream, 2))
                        .await
                        .is_err()
                );
            })
            .await
            .unwrap();
        assert_eq!(was_seen.recv().await, Some(1));
        assert_eq!(
            was_seen.recv().await,
            Some(2),
            "the other direction was whole"
        );
    });
}

#[test]
fn a_killed_process_resets_its_peers() {
    each_seed(|| async {
        let (node, client) = two_nodes();
        drop(node.spawn(echo()));
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let talking = client.spawn(async move {
            let mut stream = TcpStream::connect(server()).await.unwrap();
            ask(&mut stream, 1).await.unwrap();
            ready.send(()).unwrap();
            let mut byte = [0];
            let read = stream.read(&mut byte).await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            let refused = TcpStream::connect(server()).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        });
        is_ready.await.unwrap();
        node.kill();
        talking.await.unwrap();
        node.start();
        drop(node.spawn(echo()));
        time::sleep(millis(1)).await;
        let again = client.spawn(async {
            let mut stream = TcpStream::connect(server()).await.unwrap();
            ask(&mut stream, 1).await.unwrap();
        });
        again.await.unwrap();
    });
}

#[test]
fn a_machine_without_power_is_silent_until_it_is_back() {
    each_seed(|| async {
        let (node, client) = two_nodes();
        drop(node.spawn(echo()));
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let talking = client.spawn(async move {
            let mut stream = TcpStream::connect(server()).await.unwrap();
            ask(&mut stream, 1).await.unwrap();
            ready.send(()).unwrap();
            time::sleep(millis(10)).await;
            let asked = timeout(Duration::from_secs(30), ask(&mut stream, 2)).await;
            assert!(asked.is_err(), "half-open: no answer, no reset");
            let mut sent = 0;
            while let Ok(count) = stream.try_write(&[0; 4096]) {
                sent += count;
            }
            assert!(sent > 0, "the window fills");
            let connect = TcpStream::connect(server());
            assert!(timeout(Duration::from_secs(30), connect).await.is_err());
            time::sleep(Duration::from_secs(60)).await;
            let mut byte = [0];
            let read = stream.read(&mut byte).await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        });
        is_ready.await.unwrap();
        node.power_off();
        time::sleep(Duration::from_secs(90)).await;
        node.start();
        talking.await.unwrap();
        assert_eq!(
            Net::current().connection_count(),
            0,
            "nothing is left behind"
        );
    });
}

#[test]
fn killed_tasks_stop_and_paused_ones_go_on() {
    each_seed(|| async {
        let (node, _) = two_nodes();
        let (tick, mut ticks) = tokio::sync::mpsc::unbounded_channel();
        drop(node.spawn(async move {
            loop {
                time::sleep(millis(10)).await;
                tick.send(()).unwrap();
            }
        }));
        time::sleep(millis(105)).await;
        node.pause();
        time::sleep(millis(100)).await;
        assert_eq!(ticks.len(), 10);
        node.resume();
        time::sleep(millis(51)).await;
        assert!((15..=16).contains(&ticks.len()), "{}", ticks.len());
        node.pause();
        node.kill();
        time::sleep(millis(100)).await;
        while ticks.try_recv().is_ok() {}
        assert!(
            ticks.recv().await.is_none(),
            "the task and what it held are gone"
        );
    });
}

#[test]
fn reads_and_writes_are_short_now_and_then() {
    each_seed(|| async {
        let (node, client) = two_nodes();
        drop(node.spawn(echo()));
        let options = NetOptions {
            short_write_ppm: 500_000,
            short_read_ppm: 500_000,
            ..NetOptions::default()
        };
        Net::current().set_options(options);
        let talk = client.spawn(async {
            let stream = TcpStream::connect(server()).await.unwrap();
            let counts: Vec<usize> = (0..40)
                .map(|_| stream.try_write(&[7; 100]).unwrap())
                .collect();
            assert!(counts.iter().any(|count| *count < 100));
            assert!(counts.iter().all(|count| *count > 0));
            let sent: usize = counts.into_iter().sum();
            let (mut read, mut buffer) = (0, [0; 10_000]);
            while read < sent {
                read += std::future::poll_fn(|cx| stream.poll_read(cx, &mut buffer))
                    .await
                    .unwrap();
            }
            assert_eq!(read, sent);
        });
        talk.await.unwrap();
    });
}

#[test]
fn connections_can_be_broken_from_outside() {
    each_seed(|| async {
        let (node, client) = two_nodes();
        drop(node.spawn(echo()));
        let (a, b) = (node.ip(), client.ip());
        let talk = client.spawn(async move {
            let mut stream = TcpStream::connect(server()).await.unwrap();
            ask(&mut stream, 1).await.unwrap();
            Net::current().reset_between(a, b);
            let error = ask(&mut stream, 2).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        });
        talk.await.unwrap();
    });
}

#[test]
fn nodes_have_names_and_addresses_of_their_own() {
    each_seed(|| async {
        let (node, client) = two_nodes();
        drop(node.spawn(async {
            // Two nodes may use one port; loopback is each node's own.
            let listener = TcpListener::bind("127.0.0.1:4222".parse().unwrap())
                .await
                .unwrap();
            listener.accept().await.unwrap();
        }));
        let talk = client.spawn(async {
            let foreign = TcpListener::bind(server()).await.unwrap_err();
            assert_eq!(foreign.kind(), io::ErrorKind::AddrNotAvailable);
            let all = TcpListener::bind("0.0.0.0:4222".parse().unwrap())
                .await
                .unwrap();
            let address = resolve("client", 4222).await.unwrap();
            assert_eq!(address, ["10.0.0.2:4222".parse().unwrap()]);
            let own = TcpStream::connect("127.0.0.1:4222".parse().unwrap())
                .await
                .unwrap();
            assert_eq!(all.accept().await.unwrap().1, own.local_addr().unwrap());
            let refused = TcpStream::connect(server()).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        });
        talk.await.unwrap();
    });
}

#[test]
fn latency_is_what_was_asked_for() {
    each_seed(|| async {
        let (node, client) = two_nodes();
        drop(node.spawn(echo()));
        let options = NetOptions {
            latency: millis(20),
            jitter: millis(10),
            ..NetOptions::default()
        };
        Net::current().set_options(options);
        let talk = client.spawn(async {
            let start = sim::now();
            let mut stream = TcpStream::connect(server()).await.unwrap();
            assert!(sim::now() - start >= millis(40), "a round trip to connect");
            let start = sim::now();
            ask(&mut stream, 1).await.unwrap();
            let took = sim::now() - start;
            assert!(took >= millis(40) && took <= millis(61), "{took:?}");
        });
        talk.await.unwrap();
    });
}
