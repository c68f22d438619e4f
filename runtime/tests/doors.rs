//! The production doors: tasks, dedicated threads, time-outs, sockets, the watch channel.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::io::{self, IoSlice};
use std::time::Duration;

use halyard_runtime::net::{TcpListener, TcpStream};
use halyard_runtime::{random, task, time, watch};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn run<F: Future>(future: F) -> F::Output {
    task::block_on(2, future).unwrap()
}

#[test]
fn a_dedicated_thread_awaits_channels_and_timers() {
    run(async {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<u32>(1);
        let worker = task::spawn_dedicated("adder", async move {
            let mut sum = 0;
            while let Some(number) = receiver.recv().await {
                time::sleep(Duration::from_millis(1)).await;
                sum += number;
            }
            sum
        })
        .unwrap();
        for number in 0..20 {
            sender.send(number).await.unwrap();
        }
        drop(sender);
        assert_eq!(worker.await, Ok(190));
    });
}

#[test]
fn a_dedicated_thread_can_be_aborted_and_its_panic_is_told() {
    run(async {
        let stuck = task::spawn_dedicated("stuck", std::future::pending::<()>()).unwrap();
        assert!(!stuck.is_finished());
        stuck.abort();
        assert_eq!(stuck.await, Err(task::JoinError::Cancelled));
        let broken =
            task::spawn_dedicated("broken", async { assert!(random::below(1) == 1) }).unwrap();
        assert_eq!(broken.await, Err(task::JoinError::Panicked));
    });
}

#[test]
fn a_timeout_prefers_the_answer() {
    run(async {
        let never = std::future::pending::<()>();
        assert_eq!(
            time::timeout(Duration::from_millis(5), never).await,
            Err(time::Elapsed)
        );
        assert_eq!(time::timeout(Duration::ZERO, async { 7 }).await, Ok(7));
    });
}

#[test]
fn timestamps_saturate() {
    let late = time::Timestamp::MAX + Duration::from_secs(1);
    assert_eq!(late, time::Timestamp::MAX);
    let hour = Duration::from_secs(3600);
    assert_eq!(
        time::Timestamp::EPOCH - (time::Timestamp::EPOCH + hour),
        Duration::ZERO
    );
    assert_eq!(
        (time::Timestamp::EPOCH + hour) - time::Timestamp::EPOCH,
        hour
    );
    assert!(time::Timestamp::now() > time::Timestamp::from_nanos(1_700_000_000_000_000_000));
}

#[test]
fn numbers_below_a_bound_cover_it() {
    let mut seen = [0u32; 5];
    for _ in 0..5000 {
        seen[usize::try_from(random::below(5)).unwrap()] += 1;
    }
    assert!(
        seen.iter().all(|count| (800..1200).contains(count)),
        "{seen:?}"
    );
}

#[test]
fn half_close_lets_the_answer_through() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let server = task::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).await.unwrap();
            asked.reverse();
            stream.write_all(&asked).await.unwrap();
        });
        let mut client = TcpStream::connect(address).await.unwrap();
        let pieces = [IoSlice::new(b"ab"), IoSlice::new(b"cd")];
        assert_eq!(client.try_write_vectored(&pieces).unwrap(), 4);
        client.shutdown_write().unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "dcba");
        server.await.unwrap();
    });
}

#[test]
fn a_reader_that_does_not_read_stops_the_writer() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let chunk = vec![1u8; 64 << 10];
        let mut sent = 0;
        let full = loop {
            match client.try_write(&chunk) {
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
fn watchers_see_the_last_value_and_the_end() {
    run(async {
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
        }
        assert!(!sender.send_if_modified(|_| false));
        drop(sender);
        let seen = watcher.await.unwrap();
        assert_eq!(seen.last(), Some(&100));
        assert!(seen.is_sorted());
    });
}
