//! Answers as text that is the same when they mean the same: without what must differ (times, names by chance, counters of
//! the whole server).

use serde_json::Value;

use super::cases::Step;
use super::wire::Answer;

/// A step whose answers differ.
pub(crate) struct Differing<'a> {
    /// What was asked.
    pub step: &'a Step,
    /// What the real server said, by [`shown`].
    pub expected: &'a str,
    /// What ours said.
    pub found: &'a str,
}

/// Fields that tell when or how often, not what.
const VOLATILE: &[&str] = &[
    "ts",
    "created",
    "time",
    "first_ts",
    "last_ts",
    "last_active",
    "pause_remaining",
    "api",
    "deliver_subject_of_restore",
];

/// All answers to one request.
pub(crate) fn shown(answers: &[Answer]) -> String {
    let all: Vec<String> = answers.iter().map(one).collect();
    if all.is_empty() {
        "(silence)".to_owned()
    } else {
        all.join("\n")
    }
}

fn one(answer: &Answer) -> String {
    let mut text = String::new();
    for line in String::from_utf8_lossy(&answer.headers).lines() {
        let line = if line.starts_with("Nats-Time-Stamp:") {
            "Nats-Time-Stamp: *"
        } else {
            line
        };
        text += line;
        text += "|";
    }
    match serde_json::from_slice::<Value>(&answer.payload) {
        Ok(mut value) => {
            settle(&mut value);
            text += &value.to_string();
        }
        Err(_) => text += &String::from_utf8_lossy(&answer.payload),
    }
    text
}

fn settle(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields.iter_mut() {
                let by_chance = key == "name"
                    && field.as_str().is_some_and(|name| {
                        name.len() == 8 && name.bytes().all(|b| b.is_ascii_alphanumeric())
                    });
                let volatile = VOLATILE.contains(&key.as_str()) && field != "0001-01-01T00:00:00Z";
                if by_chance || volatile {
                    *field = Value::from("*");
                } else {
                    settle(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        _ => {}
    }
}
