//! Data that an earlier version poisoned: the server starts, says what is wrong, and serves everything else.

use std::sync::Arc;

use halyard_runtime::disk::{Disk, MemDisk};
use halyard_runtime::task;

use super::change::Change;
use super::config::{Defaults, StreamConfig, normalize};
use super::group::Reply;
use super::group::command::{Kind, StreamCreate};
use super::started::{ask, start};
use super::{JetStream, meta};

fn config(name: &str, first_seq: u64) -> StreamConfig {
    let config = StreamConfig {
        name: name.to_owned(),
        first_seq,
        ..StreamConfig::default()
    };
    normalize(config, &Defaults::default())
}

/// Makes a stream as a version did that had no bounds.
async fn poison(service: &JetStream) {
    let config = config("M", u64::MAX);
    let create = meta::Command::Create {
        account: "$G".to_owned(),
        config: serde_json::to_vec(&config).unwrap(),
        created: 1,
    };
    let assigned = service.meta.propose_urgent(create.encode()).await;
    let Ok(meta::Reply::Assigned(assigned)) = assigned else {
        panic!("{assigned:?}")
    };
    let create = StreamCreate { config, created: 1 };
    let made = service
        .file
        .propose(Kind::StreamCreate, assigned.stream_id(), &create)
        .await;
    assert!(matches!(made, Some(Reply::Done)), "{made:?}");
}

#[test]
fn a_directory_with_an_impossible_stream_starts_and_serves_the_others() {
    let test = async {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let (broker, service) = start(&disk).await;
        let made = service.create_stream("$G", config("T", 0)).await;
        assert!(matches!(made, Change::Done(_)));
        assert!(ask(&broker, "T", "x").await.contains("\"seq\":1"));
        let refused = service.create_stream("$G", config("M", u64::MAX)).await;
        assert!(matches!(&refused, Change::Refused(refusal) if refusal.err_code == 10052));
        poison(&service).await;
        service.shutdown().await;
        drop(service);
        for seq in 2..=3 {
            let (broker, service) = start(&disk).await;
            let health = service.health().unwrap_err();
            assert!(health.contains("stream M takes no changes"), "{health}");
            assert!(health.contains("deleting the stream"), "{health}");
            assert_eq!(service.damage(), [health]);
            let stored = ask(&broker, "T", "x").await;
            assert!(stored.contains(&format!("\"seq\":{seq}")), "{stored}");
            let refused = ask(&broker, "M", "x").await;
            assert!(refused.contains("10077"), "{refused}");
            let info = service.stream_info(&service.stream("$G", "M").unwrap());
            assert_eq!(info.unwrap().state.messages, 0);
            service.shutdown().await;
            drop(service);
        }
        let (_, service) = start(&disk).await;
        let deleted = service.delete_stream("$G", "M").await;
        assert!(matches!(deleted, Change::Done(())));
        assert_eq!((service.health(), service.damage()), (Ok(()), Vec::new()));
        service.shutdown().await;
        drop(service);
        let (broker, service) = start(&disk).await;
        assert!(ask(&broker, "T", "x").await.contains("\"seq\":4"));
        service.shutdown().await;
    };
    task::block_on(2, test).unwrap();
}
