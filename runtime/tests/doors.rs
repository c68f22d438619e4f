//! What only production has: threads of their own, and the clock of the machine.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::time::Duration;

use halyard_runtime::{random, task, time};

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
