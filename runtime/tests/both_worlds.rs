//! What holds over tokio and in the simulator alike: each test runs the same code in both.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use halyard_runtime::net::{TcpListener, TcpStream, resolve};
use halyard_runtime::{in_sim, random, sim, task, time, watch};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Runs `test` over tokio, then simulated with a few seeds.
fn in_both_worlds<F>(test: impl Fn() -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    task::block_on(2, async {
        assert!(!in_sim());
        test().await;
    })
    .unwrap();
    for seed in 0..10 {
        let outcome = sim::run(seed, Duration::from_secs(600), move || async move {
            assert!(in_sim());
            let node = sim::Node::new("a", "10.0.0.1".parse().unwrap());
            node.spawn(test()).await.unwrap();
        });
        assert_eq!(outcome.result, Ok(()), "seed {seed}");
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = task::spawn(async move { listener.accept().await.unwrap().0 });
    let client = TcpStream::connect(address).await.unwrap();
    (client, accepted.await.unwrap())
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[test]
fn half_close_lets_the_answer_through() {
    in_both_worlds(|| async {
        let (mut client, mut server) = pair().await;
        assert_eq!(client.peer_addr().unwrap(), server.local_addr().unwrap());
        assert_eq!(client.local_addr().unwrap(), server.peer_addr().unwrap());
        let answering = task::spawn(async move {
            let mut asked = Vec::new();
            server.read_to_end(&mut asked).await.unwrap();
            asked.reverse();
            server.write_all(&asked).await.unwrap();
        });
        client.write_all(b"abcd").await.unwrap();
        client.shutdown().await.unwrap();
        assert!(
            client.write_all(b"more").await.is_err(),
            "our direction has ended"
        );
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "dcba");
        answering.await.unwrap();
    });
}

#[test]
fn a_reader_that_does_not_read_stops_the_writer() {
    in_both_worlds(|| async {
        let (client, server) = pair().await;
        let chunk = vec![1u8; 64 << 10];
        let mut sent = 0;
        let full = loop {
            match client.try_write_vectored(&[IoSlice::new(&chunk), IoSlice::new(b"tail")]) {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
            assert!(sent < 1 << 30, "no back-pressure");
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let mut buffer = vec![0; 1 << 20];
        let mut read = 0;
        while read < sent {
            read += std::future::poll_fn(|cx| server.poll_read(cx, &mut buffer))
                .await
                .unwrap();
        }
        std::future::poll_fn(|cx| client.poll_write_ready(cx))
            .await
            .unwrap();
        assert!(client.try_write(&chunk).unwrap() > 0);
    });
}

#[test]
fn many_bytes_arrive_whole_and_in_order() {
    in_both_worlds(|| async {
        let (mut client, mut server) = pair().await;
        let bytes: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let sent = bytes.clone();
        let writing = task::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client
        });
        let mut received = vec![0; bytes.len()];
        server.read_exact(&mut received).await.unwrap();
        assert!(received == bytes);
        drop(writing.await.unwrap());
        assert_eq!(
            server.read(&mut received).await.unwrap(),
            0,
            "the end follows"
        );
    });
}

#[test]
fn closing_with_unread_bytes_resets_the_peer() {
    in_both_worlds(|| async {
        let (mut client, server) = pair().await;
        client.write_all(b"nobody reads this").await.unwrap();
        std::future::poll_fn(|cx| server.poll_read_ready(cx))
            .await
            .unwrap();
        drop(server);
        let mut buffer = [0; 10];
        let error = client.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(client.write(b"x").await.is_err());
    });
}

#[test]
fn writing_to_a_closed_peer_fails_in_the_end() {
    in_both_worlds(|| async {
        let (mut client, server) = pair().await;
        drop(server);
        let error = loop {
            match client.write(b"anyone there?").await {
                Ok(_) => time::sleep(Duration::from_millis(1)).await,
                Err(error) => break error.kind(),
            }
        };
        let expected = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        assert!(expected.contains(&error), "{error}");
    });
}

#[test]
fn nobody_listening_is_refused_and_a_taken_port_is_told() {
    in_both_worlds(|| async {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken = TcpListener::bind(address).await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        TcpListener::bind(address).await.unwrap();
    });
}

#[test]
fn names_resolve() {
    in_both_worlds(|| async {
        let found = resolve("localhost", 4222).await.unwrap();
        assert!(
            found.contains(&"127.0.0.1:4222".parse().unwrap()),
            "{found:?}"
        );
        let literal: SocketAddr = "[::1]:4222".parse().unwrap();
        assert_eq!(resolve("[::1]", 4222).await.unwrap(), [literal]);
    });
}

#[test]
fn sleeping_takes_its_time_and_keeps_the_order() {
    in_both_worlds(|| async {
        let start = time::Instant::now();
        let wall = time::Timestamp::now();
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        for millis in [60, 20, 40] {
            let sender = sender.clone();
            drop(task::spawn(async move {
                time::sleep(Duration::from_millis(millis)).await;
                sender.send(millis).unwrap();
            }));
        }
        drop(sender);
        let mut woken = Vec::new();
        while let Some(millis) = receiver.recv().await {
            woken.push(millis);
        }
        assert_eq!(woken, [20, 40, 60]);
        assert!(start.elapsed() >= Duration::from_millis(60));
        assert!(time::Timestamp::now() - wall >= Duration::from_millis(59));
        let late = start + Duration::from_millis(1);
        time::sleep_until(late).await;
    });
}

#[test]
fn a_timeout_prefers_the_answer() {
    in_both_worlds(|| async {
        let never = std::future::pending::<()>();
        assert_eq!(
            time::timeout(Duration::from_millis(5), never).await,
            Err(time::Elapsed)
        );
        assert_eq!(time::timeout(Duration::ZERO, async { 7 }).await, Ok(7));
    });
}

#[test]
fn tasks_can_be_aborted_and_awaited() {
    in_both_worlds(|| async {
        let (dropped, was_dropped) = tokio::sync::oneshot::channel::<()>();
        let stuck = task::spawn(async move {
            std::future::pending::<()>().await;
            drop(dropped);
        });
        task::yield_now().await;
        stuck.abort();
        assert_eq!(stuck.await, Err(task::JoinError::Cancelled));
        assert!(was_dropped.await.is_err(), "what it held is dropped");
        assert_eq!(task::spawn(async { 7 }).await, Ok(7));
        assert_eq!(task::spawn_blocking(|| 8).await, Ok(8));
        let dedicated = task::spawn_dedicated("sum", async { 4 + 5 }).unwrap();
        assert_eq!(dedicated.await, Ok(9));
    });
}

#[test]
fn watchers_see_the_last_value_and_the_end() {
    in_both_worlds(|| async {
        let (sender, mut receiver) = watch::channel(0);
        let watcher = task::spawn(async move {
            let mut seen = Vec::new();
            while receiver.changed().await.is_ok() {
                seen.push(*receiver.borrow());
            }
            seen
        });
        for value in 1..=100 {
            sender.send(value);
            if value % 10 == 0 {
                task::yield_now().await;
            }
        }
        assert!(!sender.send_if_modified(|_| false));
        drop(sender);
        let seen = watcher.await.unwrap();
        assert_eq!(seen.last(), Some(&100));
        assert!(seen.is_sorted());
    });
}

#[test]
fn random_numbers_differ_and_cover_their_bound() {
    in_both_worlds(|| async {
        let mut seen = [0u32; 5];
        for _ in 0..5000 {
            seen[usize::try_from(random::below(5)).unwrap()] += 1;
        }
        assert!(
            seen.iter().all(|count| (800..1200).contains(count)),
            "{seen:?}"
        );
        let (mut first, mut second) = ([0; 32], [0; 32]);
        random::fill(&mut first);
        random::fill(&mut second);
        assert_ne!(first, second);
    });
}
