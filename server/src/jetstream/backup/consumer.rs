//! A consumer of ours as a backup has it, and how one of a backup becomes a consumer of ours.

use halyard_backup::consumer::{Pending, Position as Stated, State};
use halyard_backup::item::{self, Refused};
use halyard_runtime::time::Timestamp;

use crate::jetstream::config::StreamConfig;
use crate::jetstream::consumer::Restored;
use crate::jetstream::consumer::pending::{Entry, State as Next};
use crate::jetstream::consumer::{Consumer, ConsumerConfig, DeliverPolicy, Position, check};
use crate::jetstream::limits::{DELIVERIES_MAX, SEQUENCE_ASKED_MAX};

impl From<Position> for Stated {
    fn from(Position { consumer, stream }: Position) -> Self {
        Self { consumer, stream }
    }
}

impl From<Stated> for Position {
    fn from(Stated { consumer, stream }: Stated) -> Self {
        Self { consumer, stream }
    }
}

/// The state of a consumer of ours; `now` is when what waits for redelivery counts as due.
#[must_use]
pub fn state_of(consumer: &Consumer, now: Timestamp) -> State {
    let config = consumer.config();
    let mut state = State {
        delivered: consumer.delivered().into(),
        floor: consumer.floor().into(),
        first: consumer.cursor().first().collect(),
        ..State::default()
    };
    if !state.first.is_empty() {
        state.next = consumer.cursor().next();
    }
    for (seq, entry) in consumer.unanswered() {
        let due = match entry.state {
            Next::Due(due) => due,
            Next::Queued(_) => now,
        };
        let wait = i64::try_from(config.wait_after(entry.count).as_nanos()).unwrap_or(i64::MAX);
        let since = due.as_nanos().saturating_sub(wait);
        let consumer_seq = entry.consumer_seq;
        state.pending.insert(
            seq,
            Pending {
                consumer_seq,
                since,
            },
        );
        if entry.count > 1 {
            state.redelivered.insert(seq, entry.count - 1);
        }
    }
    let given_up = config.deliver_max().unwrap_or(1);
    for seq in consumer.given_up() {
        state.redelivered.insert(seq, given_up);
    }
    state
}

/// A consumer of a backup as a record of ours, checked as a request to create it would be.
///
/// # Errors
/// Its configuration is not one that this server serves, or its state contradicts itself or the stream.
pub fn restored(
    found: item::Consumer,
    stream: &StreamConfig,
    last_seq: u64,
    now: Timestamp,
) -> Result<Restored, Refused> {
    let name = found.name;
    let refuse = |why: String| Refused::with(format!("consumer {name:?}: {why}"));
    let mut config: ConsumerConfig = crate::jetstream::api::json::from_value(found.config, false)
        .map_err(|error| refuse(error.to_string()))?;
    config.metadata.retain(|key, _| !key.starts_with("_nats."));
    if config.name.is_empty() && config.durable_name.is_empty() {
        config.name.clone_from(&name);
    }
    let own = if config.name.is_empty() {
        &config.durable_name
    } else {
        &config.name
    };
    if *own != name || (config.is_durable() && config.durable_name != name) {
        return Err(refuse("the archive has it under another name".to_owned()));
    }
    let mut config =
        check::resolve(config, stream, false).map_err(|error| refuse(error.to_string()))?;
    config.fill_in_threshold();
    let Some(state) = found.state else {
        return Ok(Restored::new(config));
    };
    let contradiction = |what: &str| Err(refuse(format!("its state contradicts itself: {what}")));
    if state.delivered.stream > last_seq {
        return contradiction("it is ahead of the stream");
    }
    if state.floor.stream > state.delivered.stream
        || state.floor.consumer > state.delivered.consumer
    {
        return contradiction("the ack floor is ahead of what was delivered");
    }
    if state.delivered.consumer > SEQUENCE_ASKED_MAX
        || state
            .redelivered
            .values()
            .any(|count| *count > DELIVERIES_MAX)
    {
        return contradiction("it has delivered more often than can be");
    }
    let beyond = |seq: &u64| *seq > state.delivered.stream;
    if state.pending.keys().any(beyond) || state.redelivered.keys().any(beyond) {
        return contradiction("a message waits for an ack that was not delivered");
    }
    if state
        .pending
        .values()
        .any(|one| one.consumer_seq > state.delivered.consumer)
    {
        return contradiction("a delivery has a number that was not given");
    }
    let rising = state
        .first
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a < b));
    if !rising || state.first.last().is_some_and(|last| *last > last_seq) {
        return contradiction("what it begins with is not in order");
    }
    let behind = state.first.last().map_or(1, |last| last + 1);
    if state.next != 0 && !(behind..=last_seq + 1).contains(&state.next) {
        return contradiction("it goes on before what it begins with, or ahead of the stream");
    }
    let mut restored = Restored::new(config);
    let started = state.delivered.consumer > 0;
    // One that never delivered and starts with the last of each subject looks them up anew.
    let lists = restored.config.deliver_policy == DeliverPolicy::LastPerSubject;
    restored.position = (started || !lists).then_some((state.delivered.into(), state.floor.into()));
    restored.first = state.first;
    restored.next = state.next;
    for (seq, one) in &state.pending {
        let before = state.redelivered.get(seq).copied().unwrap_or(0);
        let count = before.saturating_add(1);
        let wait = i64::try_from(restored.config.wait_after(count).as_nanos()).unwrap_or(i64::MAX);
        let due = Timestamp::from_nanos(one.since.saturating_add(wait).max(1));
        let entry = Entry {
            consumer_seq: one.consumer_seq,
            sent: Timestamp::from_nanos(one.since).min(now),
            count,
            state: Next::Due(due),
        };
        restored.pending.push((*seq, entry));
    }
    let pending = &state.pending;
    let given_up = state
        .redelivered
        .keys()
        .filter(|seq| !pending.contains_key(seq));
    restored.given_up = given_up.copied().collect();
    Ok(restored)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000);

    #[test]
    fn consumers_that_lie() {
        let stream = StreamConfig {
            name: "S".into(),
            subjects: vec!["a.>".into()],
            ..Default::default()
        };
        let check = |name: &str, config: serde_json::Value, state: serde_json::Value| {
            let found = item::Consumer {
                name: name.into(),
                config,
                state: Some(serde_json::from_value(state).unwrap()),
            };
            let outcome = restored(found, &stream, 10, NOW);
            outcome.map_err(|refused| refused.to_string())
        };
        let good = json!({"delivered": {"consumer_seq": 3, "stream_seq": 4}, "ack_floor": {}});
        assert!(
            check(
                "c",
                json!({"durable_name": "c", "ack_policy": "explicit"}),
                good.clone()
            )
            .is_ok()
        );
        let text = check("c", json!({"durable_name": "d"}), good.clone()).unwrap_err();
        assert!(text.contains("another name"), "{text}");
        let text = check("../x", json!({"name": "../x"}), good).unwrap_err();
        assert!(text.contains("path"), "{text}");
        let lies = [
            json!({"delivered": {"consumer_seq": 3, "stream_seq": 11}}),
            json!({"delivered": {"consumer_seq": 3, "stream_seq": 4}, "ack_floor": {"stream_seq": 5}}),
            json!({"delivered": {"consumer_seq": 3, "stream_seq": 4}, "ack_floor": {"consumer_seq": 4}}),
            json!({"delivered": {"consumer_seq": 3, "stream_seq": 4}, "pending": {"5": {"Sequence": 1, "Timestamp": 1}}}),
            json!({"delivered": {"consumer_seq": 3, "stream_seq": 4}, "pending": {"4": {"Sequence": 9, "Timestamp": 1}}}),
            json!({"delivered": {"consumer_seq": 3, "stream_seq": 4}, "redelivered": {"9": 1}}),
            json!({"delivered": {"consumer_seq": 3, "stream_seq": 4}, "halyard_first": [9, 8]}),
            json!({"delivered": {"consumer_seq": 3, "stream_seq": 4}, "halyard_first": [80]}),
            json!({"delivered": {"consumer_seq": 3, "stream_seq": 4}, "halyard_first": [6, 9], "halyard_next": 9}),
            json!({"delivered": {"consumer_seq": 3, "stream_seq": 4}, "halyard_first": [6], "halyard_next": 12}),
        ];
        for lie in lies {
            let text = check(
                "c",
                json!({"durable_name": "c", "ack_policy": "explicit"}),
                lie.clone(),
            );
            assert!(text.unwrap_err().contains("contradicts itself"), "{lie}");
        }
    }
}
