//! The store of which streams there are: it is tended like the others.

use std::path::Path;
use std::sync::Arc;

use halyard_runtime::disk::{Disk, MemDisk};
use halyard_runtime::task;
use halyard_runtime::time::{self, Duration, Instant};
use halyard_server::Server;
use halyard_server::jetstream::Tuning;
use serde_json::json;

use crate::{api, client};

/// Of each size three may wait for a fourth, and there are three sizes; a few come while a merge runs.
const SEGMENTS_MAX: usize = 12;

/// Each flush makes a segment of a few hundred bytes; they are merged, and what was dropped leaves them.
#[test]
fn segments_of_many_flushes_are_merged() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let test = async move {
        let tuning = Tuning {
            flush_interval: Duration::from_millis(10),
            ..Tuning::default()
        };
        let builder = Server::builder().jetstream("/js").no_listener();
        let builder = builder.disk(disk.clone()).tuning(tuning);
        let server = builder.start().await.unwrap();
        let mut raw = client(&server).await;
        let segments = || {
            let entries = disk.list(Path::new("/js/halyard/groups/0")).unwrap();
            let names = entries.into_iter().map(|entry| entry.name);
            names
                .filter(|name| name.starts_with("segment-"))
                .collect::<Vec<_>>()
        };
        let mut newest = String::new();
        let mut flushes = 0;
        let started = Instant::now();
        while flushes < 40 {
            let stream = json!({"name": "S", "subjects": ["s"]});
            api(&mut raw, "STREAM.CREATE.S", &stream).await;
            api(&mut raw, "STREAM.DELETE.S", &json!(null)).await;
            time::sleep(Duration::from_millis(10)).await;
            let last = segments().into_iter().max().unwrap_or_default();
            if last != newest {
                (newest, flushes) = (last, flushes + 1);
            }
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "{flushes} flushes"
            );
        }
        // Merges may be late on a busy machine; there is nothing else to do for them now.
        loop {
            let files = segments();
            if files.len() <= SEGMENTS_MAX {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{files:?}");
            time::sleep(Duration::from_millis(10)).await;
        }
        server.shutdown().await;
    };
    task::block_on(2, test).unwrap();
}
