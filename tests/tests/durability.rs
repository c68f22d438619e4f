//! `kill -9` in the middle of a publish storm, again and again on one directory: nothing that was
//! acknowledged is lost, nothing appears twice, nothing appears that was never sent.
//!
//! A killed process proves less than a power cut (the page cache survives); the simulator does the rest.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot go on without ends it"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::{self, consumer, stream};
use futures::StreamExt;
use halyard_tests::node::{Start, TempDir};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const ROUNDS: u64 = 4;
const PUBLISHERS: u64 = 8;
const IN_FLIGHT: usize = 64;

/// What was acknowledged: sequence to payload.
type Acked = Arc<Mutex<BTreeMap<u64, String>>>;

/// Publishes numbered messages, [`IN_FLIGHT`] at a time, until the server is gone.
async fn storm(url: String, round: u64, publisher: u64, acked: Acked) {
    let Ok(client) = async_nats::connect(url).await else {
        return;
    };
    let mut js = jetstream::new(client);
    js.set_timeout(Duration::from_secs(3));
    for batch in 0.. {
        let publish = (0..IN_FLIGHT).map(|n| {
            let (js, acked) = (js.clone(), acked.clone());
            async move {
                let payload = format!("{round}-{publisher}-{batch}-{n}");
                let subject = format!("storm.{publisher}");
                let ack = js
                    .publish(subject, payload.clone().into())
                    .await
                    .ok()?
                    .await
                    .ok()?;
                let before = acked.lock().unwrap().insert(ack.sequence, payload);
                assert_eq!(before, None, "one sequence was acknowledged twice");
                Some(())
            }
        });
        let done = futures::future::join_all(publish).await;
        if done.iter().any(Option::is_none) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_by_kill_9() -> Result<(), Failure> {
    let dir = TempDir::new();
    let acked = Acked::default();
    for round in 0..ROUNDS {
        let node = Start::halyard().jetstream(dir.path()).start();
        let client = async_nats::connect(node.url()).await?;
        let config = stream::Config {
            name: "STORM".into(),
            subjects: vec!["storm.>".into()],
            ..Default::default()
        };
        jetstream::new(client).create_stream(config).await?;
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|p| tokio::spawn(storm(node.url(), round, p, acked.clone())))
            .collect();
        tokio::time::sleep(Duration::from_millis(300 + 200 * round)).await;
        node.kill();
        for publisher in publishers {
            publisher.await?;
        }
    }
    let acked = std::mem::take(&mut *acked.lock().unwrap());
    assert!(
        acked.len() > 1000,
        "the storm was one: {} acknowledged",
        acked.len()
    );

    let node = Start::halyard().jetstream(dir.path()).start();
    let js = jetstream::new(async_nats::connect(node.url()).await?);
    let mut stream = js.get_stream("STORM").await?;
    let last = stream.info().await?.state.last_sequence;
    let mut stored = BTreeMap::new();
    let consumer = stream
        .create_consumer(consumer::pull::OrderedConfig::default())
        .await?;
    let mut messages = consumer.messages().await?;
    while stored.last_key_value().is_none_or(|(seq, _)| *seq < last) {
        let message = tokio::time::timeout(Duration::from_secs(20), messages.next()).await?;
        let message = message.ok_or("the consumer ended")??;
        let payload = String::from_utf8(message.payload.to_vec())?;
        stored.insert(message.info()?.stream_sequence, payload);
    }
    for (seq, payload) in &acked {
        assert_eq!(stored.get(seq), Some(payload), "acknowledged message {seq}");
    }
    assert_eq!(stored.len() as u64, last, "no sequence is missing");
    let mut once: Vec<_> = stored.values().collect();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), stored.len(), "no message stands twice");
    Ok(())
}
