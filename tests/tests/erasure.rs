//! What was deleted is gone from every byte of every file of the store: canaries are published, written to segments and to
//! the log, removed in each way that there is, the server is killed in between, and the whole directory is searched.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot go on without ends it"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context, kv, stream};
use async_nats::{Client, HeaderMap};
use halyard_tests::node::{Node, Start, TempDir};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The bound that the server is given, seconds.
const WITHIN: u64 = 2;

/// How every text begins that is searched for.
const CANARY: &[u8] = b"canary-";

/// Every text of one message: subject, id, header, payload.
struct Canary(String);

impl Canary {
    /// What is searched for.
    fn texts(&self) -> [String; 4] {
        ["subject", "id", "header", "payload"].map(|part| self.text(part))
    }

    fn text(&self, part: &str) -> String {
        format!("canary-{}-{part}", self.0)
    }

    async fn publish(&self, js: &Context, prefix: &str) -> Result<u64, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", self.text("id").as_str());
        headers.insert("Colour", self.text("header").as_str());
        let payload = format!("{} ", self.text("payload")).repeat(40);
        let subject = format!("{prefix}.{}", self.text("subject"));
        let ack = js.publish_with_headers(subject, headers, payload.into());
        Ok(ack.await?.await?.sequence)
    }
}

struct World {
    dir: TempDir,
    node: Option<Node>,
    client: Client,
    js: Context,
}

async fn start(dir: &Path) -> Result<(Node, Client), Failure> {
    let config = dir.join("halyard.conf");
    std::fs::write(&config, format!("jetstream {{ erase_within: {WITHIN}s }}"))?;
    let node = Start::halyard()
        .args(["-c", config.to_str().unwrap()])
        .jetstream(&dir.join("store"))
        .start();
    let client = async_nats::connect(node.url()).await?;
    Ok((node, client))
}

impl World {
    async fn new() -> Result<Self, Failure> {
        let dir = TempDir::new();
        let (node, client) = start(dir.path()).await?;
        let js = jetstream::new(client.clone());
        Ok(Self {
            dir,
            node: Some(node),
            client,
            js,
        })
    }

    /// `kill -9`, and up again.
    async fn killed(&mut self) -> Result<(), Failure> {
        self.node.take().unwrap().kill();
        let (node, client) = start(self.dir.path()).await?;
        self.js = jetstream::new(client.clone());
        (self.node, self.client) = (Some(node), client);
        Ok(())
    }

    async fn api(&self, what: &str, body: &Value) -> Result<Value, Failure> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = self
            .client
            .request(format!("$JS.API.{what}"), body.into())
            .await?;
        Ok(serde_json::from_slice(&answer.payload)?)
    }

    async fn stream(&self, name: &str) -> Result<(), Failure> {
        let config = stream::Config {
            name: name.into(),
            subjects: vec![format!("{name}.>")],
            allow_atomic_publish: true,
            ..Default::default()
        };
        self.js.create_stream(config).await?;
        Ok(())
    }

    async fn erasure(&self, stream: &str) -> Result<Value, Failure> {
        self.api(&format!("STREAM.ERASURE.{stream}"), &Value::Null)
            .await
    }

    /// Waits until nothing of these streams is left to erase; deleted ones are then unknown.
    async fn until_erased(&self, streams: &[&str]) -> Result<(), Failure> {
        for stream in streams {
            let began = Instant::now();
            loop {
                let answer = self.erasure(stream).await?;
                if answer["done"] == json!(true) || answer["error"]["err_code"] == json!(10059) {
                    break;
                }
                assert!(began.elapsed() < PATIENCE, "{stream}: {answer}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// The files that hold the text.
    fn find(&self, text: &str) -> Vec<String> {
        let mut found = self.canaries();
        found.retain(|(_, canary)| canary.starts_with(text));
        found.into_iter().map(|(path, _)| path).collect()
    }

    /// Every canary in every byte of every file, and where it is.
    fn canaries(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut dirs = vec![self.dir.path().join("store")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    dirs.push(entry.path());
                    continue;
                }
                // A file may go while it is looked at.
                let bytes = std::fs::read(entry.path()).unwrap_or_default();
                let mut rest = bytes.as_slice();
                while let Some(at) = rest.iter().position(|byte| *byte == CANARY[0]) {
                    rest = &rest[at..];
                    if rest.starts_with(CANARY) {
                        let is_text = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'-';
                        let text: Vec<u8> = rest.iter().take_while(is_text).copied().collect();
                        let text = String::from_utf8(text).unwrap();
                        found.push((entry.path().display().to_string(), text));
                    }
                    rest = &rest[1..];
                }
            }
        }
        found
    }

    fn assert_gone(&self, canaries: &[Canary]) {
        let found = self.canaries();
        for text in canaries.iter().flat_map(Canary::texts) {
            let left = found.iter().find(|(_, canary)| canary.starts_with(&text));
            assert_eq!(left, None, "{text}");
        }
    }
}

/// Messages that are removed in each way, `round` by `round`, and one that stays.
async fn fill(w: &World, round: &str) -> Result<(Vec<Canary>, Canary), Failure> {
    let named = |what: &str| Canary(format!("{what}-{round}"));
    let deleted = named("deleted");
    deleted.publish(&w.js, "A").await?;
    let purged = named("purged");
    purged.publish(&w.js, "A").await?;
    let kept = named("kept");
    kept.publish(&w.js, "A").await?;
    let all = named("all");
    all.publish(&w.js, "B").await?;
    let gone = named("gone");
    gone.publish(&w.js, "C").await?;
    Ok((vec![deleted, purged, all, gone], kept))
}

async fn remove(w: &World, canaries: &[Canary]) -> Result<(), Failure> {
    let [deleted, purged, ..] = canaries else {
        panic!("the first two are in one stream")
    };
    let subject = format!("A.{}", deleted.text("subject"));
    let found = w
        .api("STREAM.MSG.GET.A", &json!({ "last_by_subj": subject }))
        .await?;
    let seq = found["message"]["seq"].as_u64().ok_or("it is there")?;
    let stream = w.js.get_stream("A").await?;
    assert!(stream.delete_message(seq).await?);
    let filter = format!("A.{}", purged.text("subject"));
    assert_eq!(stream.purge().filter(filter).await?.purged, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_what_was_deleted_is_left_in_any_file() -> Result<(), Failure> {
    let mut w = World::new().await?;
    for name in ["A", "B", "C"] {
        w.stream(name).await?;
    }
    let bucket = kv::Config {
        bucket: "K".into(),
        history: 5,
        ..Default::default()
    };
    let store = w.js.create_key_value(bucket.clone()).await?;
    store.put("canary-kv-key", "canary-kv-value".into()).await?;
    store.put("canary-kv-key", "canary-kv-newer".into()).await?;
    let (old, kept_old) = fill(&w, "old").await?;

    // A first erasure writes all of that into segments.
    let dummy = Canary("dummy".into());
    let seq = dummy.publish(&w.js, "A").await?;
    let info = w.erasure("A").await?;
    assert_eq!((&info["done"], info.get("requested")), (&json!(true), None));
    assert!(w.js.get_stream("A").await?.delete_message(seq).await?);
    let info = w.erasure("A").await?;
    assert_eq!(
        info["type"],
        "io.nats.jetstream.api.v1.stream_erasure_response"
    );
    assert_eq!(info["done"], json!(false), "{info}");
    assert_ne!(info["replicas"][0]["stage"], "none", "{info}");
    assert!(info["replicas"][0]["pending_since"].is_string(), "{info}");
    w.until_erased(&["A"]).await?;
    w.assert_gone(&[dummy]);
    let in_segments = |text: &str| {
        let found = w.find(text);
        assert!(
            found.iter().any(|path| path.contains("segment-")),
            "{text}: {found:?}"
        );
        assert!(
            found.iter().all(|path| !path.contains("/log/")),
            "{found:?}"
        );
    };
    in_segments(&old[0].text("payload"));
    in_segments(&old[1].text("subject"));
    in_segments("canary-kv-value");

    // More, in the log and in memory only; then all of it goes, and the process with it.
    let (new, kept_new) = fill(&w, "new").await?;
    assert!(!w.find(&new[0].text("payload")).is_empty());
    remove(&w, &old).await?;
    remove(&w, &new).await?;
    assert_eq!(w.js.get_stream("B").await?.purge().await?.purged, 2);
    store.purge("canary-kv-key").await?;
    w.js.delete_stream("C").await?;
    assert_eq!(w.erasure("C").await?["deleted"], json!(true));
    w.killed().await?;
    let info = w.erasure("B").await?;
    assert!(info["requested"]["entry"].is_u64(), "{info}");
    w.until_erased(&["A", "B", "C", "KV_K"]).await?;
    w.assert_gone(&old);
    w.assert_gone(&new);
    for text in ["canary-kv-value", "canary-kv-newer"] {
        assert_eq!(w.find(text), [] as [String; 0], "{text}");
    }
    assert_eq!(w.erasure("C").await?["error"]["err_code"], json!(10059));

    // What was not deleted is there, and a message that was is still known as a duplicate.
    for kept in [&kept_old, &kept_new] {
        assert!(!w.find(&kept.text("payload")).is_empty());
        let subject = format!("A.{}", kept.text("subject"));
        let answer = w
            .api("STREAM.MSG.GET.A", &json!({ "last_by_subj": subject }))
            .await?;
        assert!(answer["message"]["data"].is_string(), "{answer}");
    }
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", old[0].text("id").as_str());
    let again = w.js.publish_with_headers("A.again", headers, "x".into());
    assert!(again.await?.await?.duplicate);
    Ok(())
}

/// A batch that was open at a flush lies in a record of the store; what it stored is erased there, too.
#[tokio::test(flavor = "multi_thread")]
async fn members_of_atomic_batches_are_erased() -> Result<(), Failure> {
    let mut w = World::new().await?;
    w.stream("A").await?;
    let member = |number: u32, text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Batch-Id", "batch");
        headers.insert("Nats-Batch-Sequence", number.to_string().as_str());
        if text.contains("last") {
            headers.insert("Nats-Batch-Commit", "1");
        }
        let client = w.client.clone();
        let text = text.to_owned();
        async move {
            let request = async_nats::Request::new()
                .headers(headers)
                .payload(text.into());
            client.send_request("A.batch", request).await
        }
    };
    assert!(member(1, "canary-batch-first").await?.payload.is_empty());
    let seq = Canary("dummy".into()).publish(&w.js, "A").await?;
    let stream = w.js.get_stream("A").await?;
    assert!(stream.delete_message(seq).await?);
    w.until_erased(&["A"]).await?;
    let found = w.find("canary-batch-first");
    assert!(
        found.iter().any(|path| path.contains("segment-")),
        "{found:?}"
    );
    let answer = member(2, "canary-batch-last").await?;
    let answer: Value = serde_json::from_slice(&answer.payload)?;
    assert_eq!(answer["count"], json!(2), "{answer}");
    assert_eq!(stream.purge().await?.purged, 2);
    w.killed().await?;
    w.until_erased(&["A"]).await?;
    for text in ["canary-batch-first", "canary-batch-last"] {
        assert_eq!(w.find(text), [] as [String; 0], "{text}");
    }
    Ok(())
}

/// Deletes that do not ask for it, and what limits remove, start nothing; in memory it is done at once.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_asks_for_it_is_erased() -> Result<(), Failure> {
    let w = World::new().await?;
    let config = |name: &str, storage| stream::Config {
        name: name.into(),
        subjects: vec![format!("{name}.>")],
        max_messages: 2,
        storage,
        ..Default::default()
    };
    w.js.create_stream(config("F", stream::StorageType::File))
        .await?;
    w.js.create_stream(config("M", stream::StorageType::Memory))
        .await?;
    for name in ["F", "M"] {
        for _ in 0..4 {
            let ack = w.js.publish(format!("{name}.x"), "x".into()).await?;
            ack.await?;
        }
        let body = json!({ "seq": 3, "no_erase": true });
        let done = w.api(&format!("STREAM.MSG.DELETE.{name}"), &body).await?;
        assert_eq!(done["success"], json!(true));
        let info = w.erasure(name).await?;
        assert_eq!(info["done"], json!(true), "{info}");
        assert_eq!(info.get("requested"), None, "{info}");
    }
    let erased = w.js.get_stream("M").await?.delete_message(4).await?;
    assert!(erased);
    assert_eq!(w.erasure("M").await?["done"], json!(true));
    let body = json!({ "anything": 1 });
    let refused = w.api("STREAM.ERASURE.F", &body).await?;
    assert_eq!(refused["error"]["err_code"], json!(10038), "{refused}");
    let unknown = w.erasure("NONE").await?;
    assert_eq!(unknown["error"]["err_code"], json!(10059), "{unknown}");
    let (_, jsz) = w.node.as_ref().unwrap().http_get("/jsz");
    let jsz: Value = serde_json::from_str(&jsz)?;
    assert_eq!(jsz["halyard"]["erasure"]["passes"], json!(0), "{jsz}");
    Ok(())
}
