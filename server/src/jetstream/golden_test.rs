//! A directory of the release before nodes had names opens for ever: everything is there, and it goes on.
//!
//! It is of a server that was shut down, started again and killed, so some of it is in stores and some in the log alone. Zeros at
//! the ends of files were left out; `files.txt` says how long they were.

use std::path::Path;
use std::sync::Arc;

use halyard_raft::{Identity, NodeId};
use halyard_runtime::disk::{Disk, MemDisk, OpenMode, RealDisk};
use halyard_runtime::task;

use super::started::{ask, start};

/// Where the settings have the data.
const DIR: &str = "/js/halyard";

/// The directory, on a disk in memory.
fn golden() -> Arc<dyn Disk> {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/store-2026-11");
    let list = RealDisk.read(&from.join("files.txt")).expect("a list");
    for line in String::from_utf8(list).expect("text").lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [path, length, name] = fields[..] else {
            panic!("{line}")
        };
        let path = Path::new(DIR).join(path);
        disk.create_dir_all(path.parent().expect("a directory"))
            .expect("a directory");
        let file = disk.open(&path, OpenMode::CreateNew).expect("a new file");
        if name != "-" {
            let bytes = RealDisk.read(&from.join(name)).expect("readable");
            file.write_at(&bytes, 0).expect("room");
        }
        file.set_len(length.parse().expect("a number"))
            .expect("room");
    }
    disk
}

#[test]
fn a_directory_of_the_release_before_names_opens_and_goes_on() {
    let test = async {
        let disk = golden();
        let mut names = Vec::new();
        for life in 0..3u64 {
            let (broker, service) = start(&disk).await;
            assert_eq!((service.health(), service.damage()), (Ok(()), Vec::new()));
            let orders = service.stream_info(&service.stream("$G", "ORDERS").unwrap());
            let state = orders.unwrap().state;
            assert_eq!((state.messages, state.last_seq), (13 + life, 14 + life));
            let small = service.stream_info(&service.stream("$G", "SMALL").unwrap());
            let state = small.unwrap().state;
            assert_eq!((state.messages, state.first_seq), (5, 6));
            let consumer = ask(&broker, "$JS.API.CONSUMER.INFO.ORDERS.work", "").await;
            assert!(
                consumer.contains(r#""ack_floor":{"consumer_seq":5,"stream_seq":5"#),
                "{consumer}"
            );
            let body = r#"{"seq":14}"#;
            let last = ask(&broker, "$JS.API.STREAM.MSG.GET.ORDERS", body).await;
            assert!(last.contains("b3JkZXIgMTQ="), "{last}");
            let gone = ask(&broker, "$JS.API.STREAM.MSG.GET.ORDERS", r#"{"seq":2}"#).await;
            assert!(gone.contains("10037"), "{gone}");
            let stored = ask(&broker, "orders.c", "more").await;
            assert!(
                stored.contains(&format!("\"seq\":{}", 15 + life)),
                "{stored}"
            );
            service.shutdown().await;
            drop(service);
            let identity = Identity::read(&disk, Path::new(DIR)).unwrap().unwrap();
            assert_eq!(identity.former, [NodeId(1)]);
            names.push(identity.node);
        }
        assert!(names[0].node() > 0, "it has a name now");
        assert!(
            names.windows(2).all(|pair| pair[0] == pair[1]),
            "and keeps it"
        );
    };
    task::block_on(2, test).unwrap();
}
