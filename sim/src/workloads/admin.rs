//! Admins: delete messages, purge, and make and delete streams.

use std::sync::Arc;
use std::time::Duration;

use halyard_runtime::{event, random};
use serde_json::Value;

use super::publish::{PASSING, canary};
use super::{Stage, pause, percent};
use crate::client::Client;
use crate::history::{Outcome, Removal, Target};
use crate::js::{self, Failure};
use crate::options::{StreamKind, StreamPlan};

/// How many streams come and go. A name that nothing is known of any more is replaced by a fresh one.
const PASSING_STREAMS: usize = 3;

/// Works until the run ends.
pub(crate) async fn run(stage: Arc<Stage>) {
    let purged: Vec<usize> = stage
        .options
        .streams
        .iter()
        .enumerate()
        .filter(|(_, stream)| stream.kind == StreamKind::Purged)
        .map(|(index, _)| index)
        .collect();
    let mut generations = [0u64; PASSING_STREAMS];
    let mut client = stage.connect().await;
    while !stage.is_stopped() {
        if client.is_closed() {
            client = stage.connect().await;
        }
        let pick = usize::try_from(random::below(purged.len().max(1) as u64)).unwrap_or(0);
        match purged.get(pick) {
            Some(stream) if percent(70) => remove(&stage, &client, *stream).await,
            _ => come_and_go(&stage, &client, &mut generations).await,
        }
        pause(Duration::from_millis(300)).await;
    }
}

/// Deletes one message that is known to be stored, or everything below it.
async fn remove(stage: &Stage, client: &Client, stream: usize) {
    let draw = random::u64();
    let name = stage.options.streams[stream].name.clone();
    let (index, target, erase) = {
        let mut history = stage.history.lock();
        let Some(seq) = history.some_seq(stream, draw) else {
            return;
        };
        let target = if percent(60) {
            Target::One(seq)
        } else {
            Target::Below(seq)
        };
        // A purge always erases.
        let erase = matches!(target, Target::Below(_)) || percent(70);
        history.removals.push(Removal {
            stream,
            target,
            erase,
            outcome: Outcome::Unknown,
        });
        (history.removals.len() - 1, target, erase)
    };
    let result = match target {
        Target::One(seq) => js::delete_message(client, &name, seq, erase).await,
        Target::Below(seq) => js::purge_below(client, &name, seq).await,
    };
    let mut history = stage.history.lock();
    let order = history.tick();
    let outcome = match result {
        Ok(_) => Outcome::Done { order },
        Err(Failure::Unknown) => Outcome::Unknown,
        Err(Failure::Refused(code, text)) => Outcome::Refused(format!("{code} {text}")),
    };
    event!("removal of {target:?} from {name}: {outcome:?}");
    if let Some(removal) = history.removals.get_mut(index) {
        removal.outcome = outcome;
    }
}

/// Makes or deletes one of the streams that come and go.
async fn come_and_go(stage: &Stage, client: &Client, generations: &mut [u64; PASSING_STREAMS]) {
    let pick = usize::try_from(random::below(PASSING_STREAMS as u64)).unwrap_or(0);
    let name = format!("T{pick}-{}", generations[pick]);
    let makes = percent(60);
    {
        // From here on the request may happen at any time until it is answered.
        let mut history = stage.history.lock();
        history.existence.entry(name.clone()).or_default().unknown = true;
    }
    let result = if makes {
        let plan = StreamPlan {
            name: name.clone(),
            kind: StreamKind::Plain,
        };
        js::create_stream(client, &plan).await
    } else {
        js::delete_stream(client, &name).await
    };
    let known = known_after(makes, &result);
    event!(
        "{} {name}: {known:?}",
        if makes { "making" } else { "deleting" }
    );
    if known == Some(true) {
        leave_messages(stage, client, &name).await;
    }
    let mut history = stage.history.lock();
    let existence = history.existence.entry(name).or_default();
    match known {
        Some(exists) => {
            existence.exists = Some(exists);
            existence.unknown = false;
            if !exists {
                let passed = std::mem::take(&mut existence.messages);
                history.passed.extend(passed);
            }
        }
        // A request that was sent and not answered may happen later than one that is answered: give this name up.
        None => {
            existence.abandoned = true;
            generations[pick] += 1;
        }
    }
}

/// Puts a few messages into a stream that will be deleted.
async fn leave_messages(stage: &Stage, client: &Client, name: &str) {
    for _ in 0..random::below(4) {
        let number = {
            let mut history = stage.history.lock();
            history.passing += 1;
            history.passing
        };
        let payload = canary(PASSING, number);
        let answer = client.ask(&format!("{name}.x"), b"", payload.as_bytes());
        let acknowledged = match answer.within(js::API_PATIENCE).await {
            Ok(delivery) => js::result(&delivery).is_ok(),
            Err(_) => false,
        };
        if acknowledged {
            let mut history = stage.history.lock();
            let existence = history.existence.entry(name.to_owned()).or_default();
            existence.messages.push(number);
        }
    }
}

/// Whether the stream exists after the answer, if the answer tells.
fn known_after(makes: bool, result: &Result<Value, Failure>) -> Option<bool> {
    match result {
        Ok(_) => Some(makes),
        Err(Failure::Refused(js::STREAM_NOT_FOUND, _)) if !makes => Some(false),
        Err(_) => None,
    }
}
