//! Archivists: make a stream, back it up, delete it, restore it from the backup.
//!
//! Each stream has a name of its own and one client, so what it holds is known. Once a request is not answered the name is
//! left behind. What is then promised of it is its [`Fate`].

use std::sync::Arc;
use std::time::Duration;

use halyard_runtime::time::timeout;
use halyard_runtime::{event, random};
use serde_json::{Value, json};

use super::{Stage, pause, percent};
use crate::client::Client;
use crate::director;
use crate::history::Fate;
use crate::js::{self, Failure};
use crate::options::{StreamKind, StreamPlan};

/// Most messages of a stream.
const MESSAGES_MAX: u64 = 60;
/// Longest payload in bytes: several chunks to a backup.
const PAYLOAD_MAX: u64 = 2_000;
/// Of a hundred restores, how many the client gives up halfway.
const GIVEN_UP_PERCENT: u64 = 15;
/// Longest pause between two chunks: long enough for a fault to come in between.
const CHUNK_PAUSE: Duration = Duration::from_millis(100);

/// A backup as a client holds it.
struct Backup {
    config: Value,
    state: Value,
    bytes: Vec<u8>,
}

/// Works until the run ends.
pub(crate) async fn run(stage: Arc<Stage>, archivist: usize) {
    let mut generation = 0;
    while !stage.is_stopped() {
        let name = format!("B{archivist}-{generation}");
        generation += 1;
        let client = stage.connect().await;
        if let Err(failure) = make_and_restore(&stage, &client, &name).await {
            event!("{name} is left behind: {failure:?}");
        }
        pause(Duration::from_millis(500)).await;
    }
}

async fn make_and_restore(stage: &Stage, client: &Client, name: &str) -> Result<(), Failure> {
    note(stage, name, Fate::Unknown);
    fill(client, name).await?;
    let info = js::stream_info(client, name).await?;
    let view = director::read_stream(client, name, &info).await?;
    if let Some(archive) = stage.history.lock().archives.get_mut(name) {
        archive.held = Some(view);
    }
    let backup = back_up(client, name).await?;
    js::delete_stream(client, name).await?;
    note(stage, name, Fate::Gone);
    let subject = begin(client, name, &backup).await?;
    let step = usize::try_from(256 + random::below(4096)).unwrap_or(256);
    let chunks = backup.bytes.len().div_ceil(step) as u64;
    let given_up = percent(GIVEN_UP_PERCENT).then(|| random::below(chunks));
    for (number, chunk) in backup.bytes.chunks(step).enumerate() {
        if given_up == Some(number as u64) {
            return Ok(());
        }
        let answer = client.ask(&subject, b"", chunk);
        let answer = answer.within(js::API_PATIENCE).await?;
        if answer.status().is_some() {
            return Err(Failure::Unknown);
        }
        pause(CHUNK_PAUSE).await;
    }
    note(stage, name, Fate::AllOrNothing);
    let answer = client.ask(&subject, b"", b"");
    let answer = answer.within(js::API_PATIENCE).await?;
    let result = js::result(&answer);
    match &result {
        Ok(_) => note(stage, name, Fate::Restored),
        Err(Failure::Refused(..)) => note(stage, name, Fate::Gone),
        Err(Failure::Unknown) => {}
    }
    result.map(drop)
}

fn note(stage: &Stage, name: &str, fate: Fate) {
    event!("{name}: {fate:?}");
    let mut history = stage.history.lock();
    let archive = history.archives.entry(name.to_owned());
    archive.or_default().fate = fate;
}

/// Makes the stream and puts messages into it, some of which are deleted again.
async fn fill(client: &Client, name: &str) -> Result<(), Failure> {
    let plan = StreamPlan {
        name: name.to_owned(),
        kind: StreamKind::Plain,
    };
    js::create_stream(client, &plan).await?;
    for number in 1..=random::below(MESSAGES_MAX) {
        let subject = format!("{name}.{}", random::below(5));
        let length = usize::try_from(random::below(PAYLOAD_MAX)).unwrap_or(0);
        let payload = vec![u8::try_from(number).unwrap_or(0); length];
        let headers: &[u8] = match percent(20) {
            true => b"NATS/1.0\r\nA: b\r\n\r\n",
            false => b"",
        };
        let answer = client.ask(&subject, headers, &payload);
        js::result(&answer.within(js::API_PATIENCE).await?)?;
        if percent(10) {
            js::delete_message(client, name, number, false).await?;
        }
    }
    Ok(())
}

/// A backup of the stream, acknowledged chunk by chunk.
async fn back_up(client: &Client, name: &str) -> Result<Backup, Failure> {
    let subject = format!("_BACKUP.c{}.{name}", client.number);
    let mut chunks = client.subscribe(&subject);
    let body = json!({ "deliver_subject": subject, "chunk_size": 1024 + random::below(8192) });
    let answer = js::api(client, &format!("STREAM.SNAPSHOT.{name}"), &body).await?;
    let part = |key: &str| answer.get(key).cloned().unwrap_or_default();
    let mut bytes = Vec::new();
    loop {
        let came = timeout(js::API_PATIENCE, chunks.recv()).await;
        let Ok(Some(chunk)) = came else {
            return Err(Failure::Unknown);
        };
        if chunk.payload.is_empty() {
            return match chunk.status() {
                None | Some(204) => Ok(Backup {
                    config: part("config"),
                    state: part("state"),
                    bytes,
                }),
                Some(_) => Err(Failure::Unknown),
            };
        }
        bytes.extend_from_slice(&chunk.payload);
        if let Some(reply) = &chunk.reply {
            client.publish(reply, None, b"", b"");
        }
    }
}

/// Asks for the restore; where its chunks go.
async fn begin(client: &Client, name: &str, backup: &Backup) -> Result<String, Failure> {
    let body = json!({ "config": backup.config, "state": backup.state });
    let answer = js::api(client, &format!("STREAM.RESTORE.{name}"), &body).await?;
    let subject = answer.get("deliver_subject").and_then(Value::as_str);
    let subject = subject.filter(|subject| !subject.is_empty());
    subject.map(str::to_owned).ok_or(Failure::Unknown)
}
