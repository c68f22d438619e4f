//! A store of which any place is damaged: the server starts, every message is the one that was acknowledged or an error, never
//! another and never absent, no sequence is given out twice, and salvage brings out what is sound.
//!
//! A sample of places by default; `HALYARD_DAMAGE_CASES` says how many of each kind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use halyard_runtime::disk::OpenMode;
use halyard_server::jetstream::backup::salvage::{Salvaged, salvage};
use halyard_server::jetstream::rescue::Rescue;
use halyard_server::jetstream::{StartError, Tuning};

use super::*;

const STREAMS: [&str; 2] = ["A", "B"];
const FLUSHED: u64 = 30;
const MESSAGES: u64 = 45;
const DIR: &str = "/js/halyard";

type Image = BTreeMap<PathBuf, Vec<u8>>;

fn tuning() -> Tuning {
    Tuning {
        log_segment_bytes: 64 << 10,
        first_log_segment_bytes: 16 << 10,
        reserve_bytes: 0,
        ..Tuning::default()
    }
}

async fn begin(disk: &Arc<dyn Disk>) -> Result<Server, halyard_server::run::StartError> {
    let mut config = Config {
        dont_listen: true,
        ..Config::default()
    };
    config.jetstream.enabled = true;
    config.jetstream.store_dir = Some("/js".into());
    let builder = Server::builder().config(config).disk(disk.clone());
    builder.tuning(tuning()).start().await
}

fn payload(stream: &str, number: u64) -> String {
    format!("{stream}{number}-").repeat(1 + number as usize % 9)
}

async fn publish(raw: &mut Raw, stream: &str, number: u64) -> Value {
    let body = payload(stream, number);
    let said = request(raw, &format!("{stream}.{}", number % 5), &body).await;
    serde_json::from_str(&said).unwrap()
}

/// A store with segments, and messages in the log only; as a crash leaves it a while after the last publish.
async fn image() -> Image {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let server = begin(&disk).await.unwrap();
    let mut raw = client(&server).await;
    for stream in STREAMS {
        let config = json!({"name": stream, "subjects": [format!("{stream}.>")]});
        api(&mut raw, &format!("STREAM.CREATE.{stream}"), &config).await;
    }
    let consumer =
        json!({"stream_name": "A", "config": {"durable_name": "C", "ack_policy": "explicit"}});
    api(&mut raw, "CONSUMER.DURABLE.CREATE.A.C", &consumer).await;
    for number in 1..=FLUSHED {
        for stream in STREAMS {
            assert_eq!(publish(&mut raw, stream, number).await["seq"], number);
        }
    }
    server.shutdown().await;
    drop(server);
    let server = begin(&disk).await.unwrap();
    let mut raw = client(&server).await;
    for number in FLUSHED + 1..=MESSAGES {
        for stream in STREAMS {
            assert_eq!(publish(&mut raw, stream, number).await["seq"], number);
        }
    }
    // The log comes to rest.
    time::sleep(Duration::from_millis(250)).await;
    let mut image = Image::new();
    copy(&disk, Path::new("/js"), &mut image);
    server.shutdown().await;
    image
}

fn copy(disk: &Arc<dyn Disk>, dir: &Path, image: &mut Image) {
    for entry in disk.list(dir).unwrap() {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            copy(disk, &path, image);
        } else {
            image.insert(path.clone(), disk.read(&path).unwrap());
        }
    }
}

fn lay(image: &Image) -> Arc<dyn Disk> {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    for (path, bytes) in image {
        disk.create_dir_all(path.parent().unwrap()).unwrap();
        let file = disk.open(path, OpenMode::Create).unwrap();
        file.write_at(bytes, 0).unwrap();
        file.sync().unwrap();
    }
    disk
}

/// What a client finds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    right: u64,
    errors: u64,
    /// Streams that took another message.
    writable: usize,
}

/// Starts on a damaged store and looks at every message.
async fn look(disk: &Arc<dyn Disk>, place: &str) -> Found {
    let server = begin(disk).await;
    let server = server.unwrap_or_else(|error| panic!("{place}: does not start: {error}"));
    let mut raw = client(&server).await;
    let mut found = Found::default();
    for stream in STREAMS {
        for number in 1..=MESSAGES {
            let got = api(
                &mut raw,
                &format!("STREAM.MSG.GET.{stream}"),
                &json!({"seq": number}),
            )
            .await;
            match got["message"]["data"].as_str() {
                Some(data) => {
                    let expected = halyard_server::jetstream::api::types::base64(
                        payload(stream, number).as_bytes(),
                    );
                    assert_eq!(data, expected, "{place}: message {number} of {stream}");
                    found.right += 1;
                }
                None => {
                    let code = &got["error"]["err_code"];
                    assert!(
                        code.is_u64() && code != 10037,
                        "{place}: message {number} of {stream}: {got}"
                    );
                    found.errors += 1;
                }
            }
        }
        let stored = publish(&mut raw, stream, MESSAGES + 1).await;
        if stored["error"].is_null() {
            let seq = stored["seq"].as_u64().unwrap();
            assert!(
                seq > MESSAGES,
                "{place}: sequence {seq} of {stream} is given out again"
            );
            found.writable += 1;
        } else {
            assert!(stored["error"]["err_code"].is_u64(), "{place}: {stored}");
        }
    }
    let health = server.jetstream().unwrap().health();
    let is_whole = found.writable == STREAMS.len();
    assert!(
        is_whole || health.is_err(),
        "{place}: a stream takes nothing, and all is said to be well"
    );
    server.shutdown().await;
    found
}

/// What the tools say and bring out, without a change of what is there.
fn salvaged(image: &Image, place: &str) -> Result<(Vec<String>, Salvaged), StartError> {
    let disk = lay(image);
    let mut rescue = Rescue::read(&disk, Path::new(DIR), None)?;
    let mut said = Vec::new();
    let done = salvage(&mut rescue, &*disk, Path::new("/out"), &mut |text| {
        said.push(text.to_owned())
    });
    let done = done.unwrap_or_else(|error| panic!("{place}: {error}"));
    let findings = [rescue.findings.clone(), rescue.mended.clone()].concat();
    let mut after = Image::new();
    copy(&disk, Path::new("/js"), &mut after);
    assert!(after == *image, "{place}: looking changes nothing");
    Ok((findings, done))
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

fn cases(usual: usize) -> usize {
    let asked = std::env::var("HALYARD_DAMAGE_CASES").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(usual)
}

/// A place that was written, of a file that is not empty.
fn place(image: &Image, dice: &mut Dice) -> (PathBuf, usize) {
    let written = |bytes: &[u8]| {
        bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1)
    };
    let files: Vec<(&PathBuf, usize)> = image
        .iter()
        .map(|(path, bytes)| (path, written(bytes)))
        .filter(|(_, len)| *len > 0)
        .collect();
    let (path, len) = files[dice.below(files.len())];
    (path.clone(), dice.below(len))
}

fn is_page(path: &Path) -> bool {
    path.to_string_lossy().contains("groups/1/segment")
}

#[test]
fn a_flipped_bit_anywhere_keeps_nobody_from_starting_and_loses_nothing() {
    task::block_on(2, async {
        let image = image().await;
        let whole = look(&lay(&image), "sound").await;
        let all = MESSAGES * 2;
        assert_eq!((whole.right, whole.errors, whole.writable), (all, 0, 2));
        let (findings, done) = salvaged(&image, "sound").unwrap();
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!((done.streams, done.messages, done.consumers), (2, all, 1));
        let mut dice = Dice(1);
        for _ in 0..cases(24) {
            let (path, at) = place(&image, &mut dice);
            let mut damaged = image.clone();
            damaged.get_mut(&path).unwrap()[at] ^= 1 << dice.below(8);
            let place = format!("{} at {at}", path.display());
            let found = look(&lay(&damaged), &place).await;
            let (_, done) = salvaged(&damaged, &place).unwrap();
            assert_eq!(found.right, done.messages, "{place}");
            assert_eq!(found.writable, 2, "{place}");
            assert!(found.errors == 0 || is_page(&path), "{place}: {found:?}");
        }
    })
    .unwrap();
}

#[test]
fn past_a_lost_sector_or_file_what_is_sound_is_served_and_brought_out() {
    task::block_on(2, async {
        let image = image().await;
        let mut dice = Dice(2);
        let mut served = 0;
        for _ in 0..cases(16) {
            let (path, at) = place(&image, &mut dice);
            let mut damaged = image.clone();
            let bytes = damaged.get_mut(&path).unwrap();
            let sector = at / 512 * 512;
            let end = (sector + 512).min(bytes.len());
            bytes[sector..end].fill(0);
            let place = format!("{}, sector at {sector}", path.display());
            let found = look(&lay(&damaged), &place).await;
            served += found.right;
            if let Ok((findings, done)) = salvaged(&damaged, &place) {
                assert!(
                    found.errors == 0 || !findings.is_empty() || done.unreadable > 0,
                    "{place}"
                );
                assert!(done.messages >= found.right, "{place}: {done:?} {found:?}");
            }
        }
        assert!(served > 0);
        for path in image.keys().filter(|path| !path.ends_with("LOCK")) {
            let mut damaged = image.clone();
            damaged.remove(path);
            let place = format!("without {}", path.display());
            look(&lay(&damaged), &place).await;
        }
    })
    .unwrap();
}

/// The segments of the streams.
fn pages(image: &Image) -> Vec<PathBuf> {
    let pages = image.keys().filter(|path| is_page(path));
    pages.cloned().collect()
}

/// Where the index of a segment begins: before it are pages and tables.
fn index_at(segment: &[u8]) -> usize {
    let mut at = 128;
    while !(6..=8).contains(&segment[at + 8]) {
        at += 16 + u32::from_le_bytes(*segment[at..].first_chunk().unwrap()) as usize;
    }
    at
}

#[test]
fn a_damaged_message_makes_the_server_unhealthy_when_it_is_read() {
    task::block_on(2, async {
        let mut image = image().await;
        for path in pages(&image) {
            let bytes = image.get_mut(&path).unwrap();
            if index_at(bytes) > 128 {
                bytes[128 + 16 + 3] ^= 1;
            }
        }
        let server = begin(&lay(&image)).await.unwrap();
        let jetstream = server.jetstream().unwrap();
        let mut raw = client(&server).await;
        let got = api(&mut raw, "STREAM.MSG.GET.A", &json!({"seq": 1})).await;
        assert_eq!(got["error"]["err_code"], 10051, "{got}");
        let health = jetstream.health().unwrap_err();
        assert!(
            health.contains("segment-") && jetstream.damage().contains(&health),
            "{health}"
        );
        server.shutdown().await;
    })
    .unwrap();
}

#[test]
fn a_stream_whose_records_are_lost_is_not_said_to_be_absent() {
    task::block_on(2, async {
        let whole = image().await;
        for is_gone in [false, true] {
            let mut damaged = whole.clone();
            for path in pages(&whole) {
                let bytes = damaged.get_mut(&path).unwrap();
                bytes.truncate(index_at(bytes));
                if is_gone {
                    damaged.remove(&path);
                }
            }
            let server = begin(&lay(&damaged)).await.unwrap();
            let mut raw = client(&server).await;
            let list = api(&mut raw, "STREAM.LIST", &json!({})).await;
            let known = if is_gone { "missing" } else { "streams" };
            assert_eq!(list[known].as_array().map(Vec::len), Some(2), "{list}");
            for stream in STREAMS {
                let info = api(&mut raw, &format!("STREAM.INFO.{stream}"), &json!({})).await;
                let get = format!("STREAM.MSG.GET.{stream}");
                let got = api(&mut raw, &get, &json!({"seq": 7})).await;
                if is_gone {
                    assert_eq!(info["error"]["err_code"], 10051, "{info}");
                    assert_eq!(got["error"]["err_code"], 10051, "{got}");
                } else {
                    assert_eq!(info["config"]["subjects"], json!([format!("{stream}.>")]));
                    assert!(
                        info["state"]["last_seq"].as_u64() >= Some(FLUSHED),
                        "{info}"
                    );
                    assert!(got["message"]["data"].is_string(), "{got}");
                }
            }
            let lost = api(&mut raw, "CONSUMER.INFO.A.C", &json!({})).await;
            assert_eq!(lost["error"]["err_code"], 10051, "{lost}");
            server.shutdown().await;
            let (findings, done) = salvaged(&damaged, "no index").unwrap();
            assert!(!findings.is_empty());
            let left = if is_gone {
                0..=0
            } else {
                FLUSHED * 2..=MESSAGES * 2
            };
            assert!(
                left.contains(&done.messages) && done.unreadable == 0,
                "{done:?}"
            );
        }
    })
    .unwrap();
}
