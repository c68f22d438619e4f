//! Answers as text that is the same when they mean the same: without what must differ (times, names by chance, counters of
//! the whole server).

use serde_json::Value;

use super::cases::Step;
use super::wire::Answer;

/// A step whose answers differ.
pub(crate) struct Differing<'a> {
    /// What was asked.
    pub step: &'a Step,
    /// What was asked before.
    pub earlier: &'a [Step],
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

/// What a client may miss or get any number of times.
const SIGN_OF_LIFE: &[u8] = b"NATS/1.0 100 Idle Heartbeat";

/// All that came in one round: to which step, and what.
pub(crate) fn shown(answers: &[(usize, &[Answer])], round: usize) -> String {
    let mut lines = Vec::new();
    for (to, answers) in answers {
        for answer in *answers {
            if answer.headers.starts_with(SIGN_OF_LIFE) {
                continue;
            }
            lines.push(match *to == round {
                true => one(answer),
                false => format!("(to {to}) {}", one(answer)),
            });
        }
    }
    match lines.is_empty() {
        true => "(silence)".to_owned(),
        false => lines.join("\n"),
    }
}

/// An ack subject without the time in it; other replies are the servers' own.
fn reply(reply: &str) -> String {
    let mut tokens: Vec<&str> = reply.split('.').collect();
    match tokens.as_mut_slice() {
        ["$JS", "ACK", _, _, _, _, _, time, _] => *time = "*",
        _ => return "*".to_owned(),
    }
    tokens.join(".")
}

fn one(answer: &Answer) -> String {
    let mut text = String::new();
    if !answer.reply.is_empty() {
        text += &format!("{} -> {} ", answer.subject, reply(&answer.reply));
    }
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
                // What settles nothing counts there, too, in the real server.
                if key == "ack_floor"
                    && let Some(floor) = field.as_object_mut()
                {
                    floor.remove("last_active");
                }
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
