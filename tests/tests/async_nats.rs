//! What users of the official Rust client do, against the built binary.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::{self, Context, consumer, kv, stream};
use bytes::Bytes;
use futures::StreamExt;
use halyard_tests::node::{Node, Start, TempDir};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Long enough for a busy machine; a passing test never waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    node: Node,
    client: Client,
    js: Context,
    _dir: TempDir,
}

async fn server() -> Result<Server, Failure> {
    let dir = TempDir::new();
    let node = Start::halyard().jetstream(dir.path()).start();
    let client = async_nats::connect(node.url()).await?;
    let js = jetstream::new(client.clone());
    Ok(Server {
        node,
        client,
        js,
        _dir: dir,
    })
}

/// Returns when the server has seen all that this client sent: a request that nobody answers comes
/// back behind it. (The client's own `flush` only empties its buffer.)
async fn settle(client: &Client) {
    let answer = client.request("nobody.listens.here", "".into()).await;
    assert!(answer.is_err(), "nobody answers");
}

async fn next<S: futures::Stream + Unpin>(stream: &mut S) -> Result<S::Item, Failure> {
    tokio::time::timeout(PATIENCE, stream.next())
        .await?
        .ok_or_else(|| "the stream ended".into())
}

/// Bytes that differ at each position and between messages.
fn pattern(len: usize, salt: u8) -> Bytes {
    (0..len).map(|i| (i % 251) as u8 ^ salt).collect()
}

#[tokio::test]
async fn publish_and_subscribe_with_wildcards_headers_and_large_payloads() -> Result<(), Failure> {
    let s = server().await?;
    let mut exact = s.client.subscribe("orders.eu.7").await?;
    let mut star = s.client.subscribe("orders.*.7").await?;
    let mut rest = s.client.subscribe("orders.>").await?;

    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Trace", "abc");
    let payload = pattern(s.client.server_info().max_payload - 64, 3);
    s.client
        .publish_with_headers("orders.eu.7", headers, payload.clone())
        .await?;
    for subscription in [&mut exact, &mut star, &mut rest] {
        let message = next(subscription).await?;
        assert_eq!(message.subject.as_str(), "orders.eu.7");
        assert_eq!(message.payload, payload);
        let trace = message.headers.as_ref().and_then(|h| h.get("Trace"));
        assert_eq!(trace.map(|v| v.as_str()), Some("abc"));
    }

    s.client.publish("orders.us.8", "".into()).await?;
    let message = next(&mut rest).await?;
    assert_eq!(
        (message.subject.as_str(), message.payload.len()),
        ("orders.us.8", 0)
    );
    Ok(())
}

#[tokio::test]
async fn a_queue_group_hands_each_message_to_one_member() -> Result<(), Failure> {
    let s = server().await?;
    let mut members = Vec::new();
    for _ in 0..4 {
        let client = async_nats::connect(s.node.url()).await?;
        let subscription = client.queue_subscribe("jobs.*", "workers".into()).await?;
        settle(&client).await;
        members.push((client, subscription));
    }
    let total = 400;
    for n in 0..total {
        s.client
            .publish(format!("jobs.{n}"), format!("{n}").into())
            .await?;
    }
    settle(&s.client).await;
    let mut seen = vec![0; total];
    let mut shares = Vec::new();
    for (client, mut subscription) in members {
        client.publish("jobs.end", "".into()).await?;
        settle(&client).await;
        drop(client);
        let mut share = 0;
        while let Ok(Some(message)) =
            tokio::time::timeout(Duration::from_millis(500), subscription.next()).await
        {
            if message.subject.as_str() != "jobs.end" {
                seen[std::str::from_utf8(&message.payload)?.parse::<usize>()?] += 1;
                share += 1;
            }
        }
        shares.push(share);
    }
    assert!(seen.iter().all(|&n| n == 1), "each once: {seen:?}");
    assert!(
        shares.iter().all(|&n| n > 20),
        "all members take part: {shares:?}"
    );
    Ok(())
}

#[tokio::test]
async fn requests_are_answered_or_refused_at_once() -> Result<(), Failure> {
    let s = server().await?;
    let service = async_nats::connect(s.node.url()).await?;
    let mut requests = service.subscribe("echo").await?;
    settle(&service).await;
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            if let Some(reply) = request.reply {
                service.publish(reply, request.payload).await.ok();
            }
        }
    });
    for n in 0..100 {
        let answer = s.client.request("echo", format!("{n}").into()).await?;
        assert_eq!(answer.payload, format!("{n}"));
    }
    let refused = s.client.request("nobody", "".into()).await;
    let kind = refused.err().map(|e| e.kind());
    assert_eq!(
        kind,
        Some(async_nats::client::RequestErrorKind::NoResponders)
    );
    Ok(())
}

#[tokio::test]
async fn a_stream_keeps_counts_deduplicates_and_purges() -> Result<(), Failure> {
    let s = server().await?;
    let config = stream::Config {
        name: "ORDERS".into(),
        subjects: vec!["orders.>".into()],
        ..Default::default()
    };
    let mut stream = s.js.create_stream(config).await?;
    for n in 1..=100_u64 {
        let subject = format!("orders.{}", n % 10);
        let ack = s.js.publish(subject, pattern(200, n as u8)).await?.await?;
        assert_eq!(
            (ack.stream.as_str(), ack.sequence, ack.duplicate),
            ("ORDERS", n, false)
        );
    }
    let message_id = || jetstream::message::PublishMessage::build().message_id("once");
    let first = s.js.send_publish("orders.x", message_id()).await?.await?;
    let again = s.js.send_publish("orders.x", message_id()).await?.await?;
    assert_eq!((first.sequence, first.duplicate), (101, false));
    assert_eq!((again.sequence, again.duplicate), (101, true));

    let wrong = jetstream::message::PublishMessage::build().expected_last_sequence(7);
    let refused = s.js.send_publish("orders.x", wrong).await?.await;
    let kind = refused.err().map(|e| e.kind());
    assert_eq!(
        kind,
        Some(jetstream::context::PublishErrorKind::WrongLastSequence)
    );

    let info = stream.info().await?;
    assert_eq!((info.state.messages, info.state.last_sequence), (101, 101));
    let stored = stream.get_raw_message(42).await?;
    assert_eq!(stored.subject.as_str(), "orders.2");
    assert_eq!(stored.payload, pattern(200, 42));
    let last = stream.get_last_raw_message_by_subject("orders.3").await?;
    assert_eq!(last.sequence, 93);

    assert!(stream.delete_message(42).await?);
    assert!(stream.get_raw_message(42).await.is_err());
    let purged = stream.purge().filter("orders.3").await?;
    assert_eq!(purged.purged, 10);
    let purged = stream.purge().keep(5).await?;
    assert_eq!(purged.purged, 101 - 1 - 10 - 5);
    let info = stream.info().await?;
    assert_eq!((info.state.messages, info.state.last_sequence), (5, 101));
    s.js.delete_stream("ORDERS").await?;
    assert!(s.js.get_stream("ORDERS").await.is_err());
    Ok(())
}

#[tokio::test]
async fn limits_drop_the_oldest_or_refuse_the_newest() -> Result<(), Failure> {
    let s = server().await?;
    let config = |name: &str, discard| stream::Config {
        name: name.into(),
        subjects: vec![format!("{name}.>")],
        max_messages: 10,
        discard,
        ..Default::default()
    };
    let mut old =
        s.js.create_stream(config("OLD", stream::DiscardPolicy::Old))
            .await?;
    s.js.create_stream(config("NEW", stream::DiscardPolicy::New))
        .await?;
    for n in 0..25 {
        s.js.publish("OLD.x", format!("{n}").into()).await?.await?;
        let ack = s.js.publish("NEW.x", format!("{n}").into()).await?.await;
        assert_eq!(ack.is_ok(), n < 10, "message {n}");
    }
    let state = &old.info().await?.state;
    assert_eq!(
        (state.messages, state.first_sequence, state.last_sequence),
        (10, 16, 25)
    );

    let aged = stream::Config {
        max_messages: -1,
        max_age: Duration::from_millis(300),
        ..config("AGED", stream::DiscardPolicy::Old)
    };
    let mut aged = s.js.create_stream(aged).await?;
    s.js.publish("AGED.x", "soon gone".into()).await?.await?;
    assert_eq!(aged.info().await?.state.messages, 1);
    let gone = async {
        while aged.info().await?.state.messages != 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok::<_, Failure>(())
    };
    tokio::time::timeout(PATIENCE, gone).await??;
    Ok(())
}

async fn numbered(s: &Server, name: &str, count: u64) -> Result<stream::Stream, Failure> {
    let config = stream::Config {
        name: name.into(),
        subjects: vec![format!("{name}.>")],
        ..Default::default()
    };
    let stream = s.js.create_stream(config).await?;
    let mut acks = Vec::new();
    for n in 0..count {
        acks.push(
            s.js.publish(format!("{name}.{}", n % 4), format!("{n}").into())
                .await?,
        );
    }
    for ack in acks {
        ack.await?;
    }
    Ok(stream)
}

#[tokio::test]
async fn a_pull_consumer_delivers_redelivers_and_counts() -> Result<(), Failure> {
    let s = server().await?;
    let stream = numbered(&s, "WORK", 1000).await?;
    let config = consumer::pull::Config {
        durable_name: Some("puller".into()),
        ack_wait: Duration::from_millis(500),
        ..Default::default()
    };
    let mut consumer = stream.create_consumer(config).await?;
    let mut messages = consumer.messages().await?;
    let mut first = Vec::new();
    let mut again = Vec::new();
    while first.len() + again.len() < 1002 {
        let message = next(&mut messages).await??;
        let n = std::str::from_utf8(&message.payload)?.parse::<u64>()?;
        match (message.info()?.delivered, n) {
            (1, 5) => {}
            (1, 6) => message.ack_with(jetstream::AckKind::Nak(None)).await?,
            (1, 7) => message.ack_with(jetstream::AckKind::Term).await?,
            (1, _) if n % 100 != 0 => message.ack().await?,
            _ => message.double_ack().await?,
        }
        match message.info()?.delivered {
            1 => first.push(n),
            _ => again.push(n),
        }
    }
    again.sort_unstable();
    assert_eq!(again, [5, 6], "one ran out of time, one was refused");
    assert_eq!(first, (0..1000).collect::<Vec<_>>(), "in order");
    let info = consumer.info().await?;
    assert_eq!(
        (
            info.num_pending,
            info.num_ack_pending,
            info.ack_floor.stream_sequence
        ),
        (0, 0, 1000)
    );
    Ok(())
}

#[tokio::test]
async fn pull_requests_end_as_asked() -> Result<(), Failure> {
    let s = server().await?;
    let stream = numbered(&s, "PULL", 10).await?;
    let config = consumer::pull::Config {
        filter_subjects: vec!["PULL.1".into(), "PULL.3".into()],
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let collect = |batch: consumer::pull::Batch| async move {
        batch
            .map(|m| m.map(|m| String::from_utf8_lossy(&m.payload).into_owned()))
            .collect()
            .await
    };
    let some: Vec<Result<String, _>> =
        collect(consumer.fetch().max_messages(3).messages().await?).await;
    let some: Vec<String> = some.into_iter().collect::<Result<_, _>>()?;
    assert_eq!(some, ["1", "3", "5"]);
    let rest: Vec<Result<String, _>> =
        collect(consumer.fetch().max_messages(9).messages().await?).await;
    assert_eq!(rest.into_iter().collect::<Result<Vec<_>, _>>()?, ["7", "9"]);
    let none = consumer
        .batch()
        .max_messages(2)
        .expires(Duration::from_millis(300))
        .messages()
        .await?;
    let none: Vec<_> = collect(none).await;
    assert!(none.is_empty(), "expired without an error: {none:?}");
    Ok(())
}

#[tokio::test]
async fn push_and_ordered_consumers_follow_a_stream() -> Result<(), Failure> {
    let s = server().await?;
    let stream = numbered(&s, "FEED", 2000).await?;
    let config = consumer::push::Config {
        durable_name: Some("pusher".into()),
        deliver_subject: "deliver.feed".into(),
        flow_control: true,
        idle_heartbeat: Duration::from_secs(1),
        ..Default::default()
    };
    let mut pushed = stream.create_consumer(config).await?.messages().await?;
    let config = consumer::push::OrderedConfig {
        deliver_subject: s.client.new_inbox(),
        ..Default::default()
    };
    let mut ordered = stream.create_consumer(config).await?.messages().await?;
    let mut pulled = stream
        .create_consumer(consumer::pull::OrderedConfig::default())
        .await?
        .messages()
        .await?;
    for n in 0..2000 {
        let message = next(&mut pushed).await??;
        assert_eq!(message.payload, format!("{n}"));
        message.ack().await?;
        assert_eq!(next(&mut ordered).await??.payload, format!("{n}"));
        assert_eq!(next(&mut pulled).await??.payload, format!("{n}"));
    }
    Ok(())
}

#[tokio::test]
async fn a_work_queue_forgets_what_was_acknowledged() -> Result<(), Failure> {
    let s = server().await?;
    let config = stream::Config {
        name: "QUEUE".into(),
        subjects: vec!["q.>".into()],
        retention: stream::RetentionPolicy::WorkQueue,
        ..Default::default()
    };
    let mut stream = s.js.create_stream(config).await?;
    for n in 0..20 {
        s.js.publish("q.a", format!("{n}").into()).await?.await?;
    }
    let config = consumer::pull::Config {
        durable_name: Some("w".into()),
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let mut messages = consumer.messages().await?.take(15);
    while let Some(message) = messages.next().await {
        message?.double_ack().await?;
    }
    let gone = async {
        while stream.info().await?.state.messages != 5 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<_, Failure>(())
    };
    tokio::time::timeout(PATIENCE, gone).await??;
    Ok(())
}

#[tokio::test]
async fn a_key_value_bucket_works_whole() -> Result<(), Failure> {
    let s = server().await?;
    let config = kv::Config {
        bucket: "settings".into(),
        history: 5,
        ..Default::default()
    };
    let bucket = s.js.create_key_value(config).await?;
    let mut watch = bucket.watch_all().await?;
    let first = bucket.put("colour", "red".into()).await?;
    let second = bucket.update("colour", "green".into(), first).await?;
    assert!(
        bucket
            .update("colour", "never".into(), first)
            .await
            .is_err()
    );
    assert!(bucket.create("colour", "never".into()).await.is_err());
    bucket.create("size", "9".into()).await?;
    assert_eq!(bucket.get("colour").await?, Some("green".into()));
    let entry = bucket
        .entry_for_revision("colour", first)
        .await?
        .expect("kept in the history");
    assert_eq!((entry.value, entry.revision), ("red".into(), first));
    assert!(second > first);
    bucket.delete("colour").await?;
    assert_eq!(bucket.get("colour").await?, None);

    let history: Vec<_> = bucket.history("colour").await?.collect().await;
    assert_eq!(history.len(), 3);
    bucket.purge("colour").await?;
    let history: Vec<_> = bucket.history("colour").await?.collect().await;
    assert_eq!(history.len(), 1);
    let keys: Vec<_> = bucket.keys().await?.collect().await;
    let keys = keys.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(keys, ["size"]);

    let mut operations = Vec::new();
    for _ in 0..5 {
        let entry = next(&mut watch).await??;
        operations.push((entry.key, entry.operation));
    }
    use kv::Operation::{Delete, Purge, Put};
    let expected = [
        ("colour", Put),
        ("colour", Put),
        ("size", Put),
        ("colour", Delete),
        ("colour", Purge),
    ];
    assert_eq!(operations, expected.map(|(key, op)| (key.to_owned(), op)));
    let status = bucket.status().await?;
    assert_eq!(status.history(), 5);
    s.js.delete_key_value("settings").await?;
    Ok(())
}

#[tokio::test]
async fn objects_of_100_mb_come_back_unchanged() -> Result<(), Failure> {
    let s = server().await?;
    let config = jetstream::object_store::Config {
        bucket: "files".into(),
        ..Default::default()
    };
    let bucket = s.js.create_object_store(config).await?;
    let small = pattern(1000, 1);
    let large = pattern(100 << 20, 2);
    bucket.put("small", &mut small.as_ref()).await?;
    bucket.put("large", &mut large.as_ref()).await?;
    for (name, content) in [("small", &small), ("large", &large)] {
        let mut object = bucket.get(name).await?;
        assert_eq!(object.info.size, content.len());
        let mut read = Vec::with_capacity(content.len());
        tokio::io::AsyncReadExt::read_to_end(&mut object, &mut read).await?;
        assert!(read == content.as_ref(), "{name} differs");
    }
    let mut list = bucket.list().await?;
    let mut names = vec![next(&mut list).await??.name, next(&mut list).await??.name];
    names.sort();
    assert_eq!(names, ["large", "small"]);
    bucket.delete("large").await?;
    assert!(bucket.get("large").await.is_err());
    let mut stream = s.js.get_stream("OBJ_files").await?;
    let bytes = stream.info().await?.state.bytes;
    assert!(bytes < 100_000, "the chunks are gone, {bytes} bytes stay");
    Ok(())
}

#[tokio::test]
async fn memory_streams_work_like_file_streams() -> Result<(), Failure> {
    let s = server().await?;
    let config = stream::Config {
        name: "MEM".into(),
        subjects: vec!["mem".into()],
        storage: stream::StorageType::Memory,
        ..Default::default()
    };
    let mut stream = s.js.create_stream(config).await?;
    for n in 1..=50_u64 {
        assert_eq!(
            s.js.publish("mem", format!("{n}").into())
                .await?
                .await?
                .sequence,
            n
        );
    }
    assert_eq!(
        stream.info().await?.config.storage,
        stream::StorageType::Memory
    );
    let mut messages = stream
        .create_consumer(consumer::pull::OrderedConfig::default())
        .await?
        .messages()
        .await?;
    for n in 1..=50 {
        assert_eq!(next(&mut messages).await??.payload, format!("{n}"));
    }
    Ok(())
}
