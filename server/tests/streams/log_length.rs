//! The log is kept short by what is written to it, not only by what gathers in memory.

use std::path::Path;
use std::sync::Arc;

use halyard_runtime::disk::{Disk, MemDisk};
use halyard_runtime::sim;
use halyard_runtime::time::{self, Duration, Instant};
use halyard_server::Server;
use halyard_server::jetstream::Tuning;
use serde_json::json;

use crate::{api, client, request};

const SEGMENT_BYTES: u64 = 128 << 10;
/// Segments that a flush of this size leaves room for, spares, and what comes while flushes run.
const SEGMENTS_MAX: usize = 16;
/// Four megabytes: twice as many segments.
const MESSAGES: usize = 1000;
/// Between two of them: ten seconds in all.
const PAUSE: Duration = Duration::from_millis(10);

/// Much longer than all the publishes take.
const INTERVAL: Duration = Duration::from_secs(60);

/// A stream that holds one message: nothing gathers in memory, and no flush is due by time, neither of the stream's group nor of
/// the one that knows the streams, whose newest entry stands before all the messages.
#[test]
fn a_log_of_messages_that_go_at_once_stays_short() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let test = async move {
        let tuning = Tuning {
            log_segment_bytes: SEGMENT_BYTES,
            first_log_segment_bytes: SEGMENT_BYTES,
            flush_bytes: 256 << 10,
            flush_interval: INTERVAL,
            ..Tuning::default()
        };
        let builder = Server::builder().jetstream("/js").no_listener();
        let builder = builder.disk(disk.clone()).tuning(tuning);
        let server = builder.start().await.unwrap();
        let mut raw = client(&server).await;
        let stream = json!({"name": "S", "subjects": ["s"], "max_msgs": 1});
        api(&mut raw, "STREAM.CREATE.S", &stream).await;
        let payload = "x".repeat(4096);
        let begun = Instant::now();
        for _ in 0..MESSAGES {
            let ack = request(&mut raw, "s", &payload).await;
            assert!(ack.contains("\"seq\":"), "{ack}");
            time::sleep(PAUSE).await;
        }
        assert!(begun.elapsed() < INTERVAL, "{:?}", begun.elapsed());
        let log = disk.list(Path::new("/js/halyard/log")).unwrap();
        let names: Vec<String> = log.into_iter().map(|entry| entry.name).collect();
        assert!(names.len() <= SEGMENTS_MAX, "{names:?}");
        server.shutdown().await;
    };
    let outcome = sim::run(1, Duration::from_secs(600), move || test);
    outcome.result.unwrap();
}
