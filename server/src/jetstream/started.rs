//! A JetStream service on a disk, for tests that start it again and again.

use std::sync::Arc;

use halyard_runtime::disk::Disk;
use halyard_runtime::time::{self, Duration};

use super::{JetStream, Settings};
use crate::broker::{Broker, Publish};
use crate::config::Config;

/// Starts it. One that was shut down a moment ago may still hold the disk: its tasks end at their next turn.
pub(super) async fn start(disk: &Arc<dyn Disk>) -> (Arc<Broker>, Arc<JetStream>) {
    let mut config = Config::default();
    config.jetstream.enabled = true;
    config.jetstream.store_dir = Some("/js".into());
    for _ in 0..4000 {
        let broker = Broker::new();
        let settings = Settings::new(&config, "test", disk.clone());
        match JetStream::start(Arc::clone(&broker), settings).await {
            Ok(service) => return (broker, service),
            Err(error) => assert!(error.to_string().contains("in use"), "{error}"),
        }
        time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the disk stays in use")
}

/// The answer to a message.
pub(super) async fn ask(broker: &Broker, subject: &str, payload: &str) -> String {
    let message = Publish::new(subject.as_bytes(), payload.as_bytes());
    let account = broker.global();
    let answer = account.request(message, Duration::from_secs(10)).await;
    String::from_utf8(answer.unwrap().payload.to_vec()).unwrap()
}
