//! Messages with headers that ask for something: conditions, deduplication, rollups, life spans, atomic batches.

use super::{Case, Step, api, fill, step};
use crate::dice::Dice;
use crate::values::{COMMITS, Field, HEADERS, MEMBER_HEADERS};

/// Streams that messages are sent to.
const TAKERS: &[&str] = &[
    "",
    "",
    ",\"allow_rollup_hdrs\":true",
    ",\"allow_rollup_hdrs\":true,\"allow_msg_ttl\":true",
    ",\"allow_rollup_hdrs\":true,\"deny_purge\":true",
    ",\"allow_msg_ttl\":true",
    ",\"subject_delete_marker_ttl\":100000000000",
    ",\"max_msgs\":2,\"discard\":\"new\"",
    ",\"max_msgs\":2",
    ",\"max_bytes\":200,\"discard\":\"new\"",
    ",\"max_msgs_per_subject\":1,\"discard\":\"new\",\"discard_new_per_subject\":true",
    ",\"max_msgs_per_subject\":1,\"discard\":\"new\",\"discard_new_per_subject\":true,\"allow_rollup_hdrs\":true",
    ",\"max_msgs_per_subject\":1,\"discard\":\"new\"",
    ",\"max_msg_size\":40",
    ",\"duplicate_window\":100000000",
    ",\"retention\":\"workqueue\"",
    ",\"allow_msg_counter\":true",
    ",\"allow_msg_schedules\":true",
    ",\"first_seq\":100",
    ",\"storage\":\"file\"",
];

/// Streams that batches are sent to.
const BATCH_TAKERS: &[&str] = &[
    "",
    "",
    "",
    ",\"allow_rollup_hdrs\":true",
    ",\"allow_msg_ttl\":true",
    ",\"max_msgs\":2",
    ",\"max_msgs_per_subject\":1",
    ",\"retention\":\"workqueue\"",
    ",\"storage\":\"file\"",
];

fn made(name: &str, with: &str) -> Step {
    let storage = match with.contains("storage") {
        true => "",
        false => ",\"storage\":\"memory\"",
    };
    api(
        format!("STREAM.CREATE.{name}"),
        format!(
            "{{\"name\":\"{name}\",\"subjects\":[\"{name}.>\"],\"allow_direct\":true{storage}{with}}}"
        ),
    )
}

/// A header block of these lines.
fn block(name: &str, status: &str, lines: &[(&str, &str)]) -> String {
    let line = |(key, value): &(&str, &str)| format!("{key}: {value}\r\n");
    let lines: String = lines.iter().map(line).collect();
    let long = |size: usize| "x".repeat(size);
    let lines = lines
        .replace('@', name)
        .replace("{64}", &long(64))
        .replace("{65}", &long(65));
    // A schedule begins with that sign.
    let lines = lines.replace(&format!("{name}at "), "@at ");
    let lines = lines.replace(&format!("{name}every "), "@every ");
    format!("NATS/1.0{status}\r\n{lines}\r\n")
}

fn some<'a>(dice: &mut Dice, table: &'a [Field], most: usize) -> Vec<(&'a str, &'a str)> {
    let count = dice.below(most + 1);
    let mut one = || {
        let (key, values) = table[dice.below(table.len())];
        (key, dice.one(values))
    };
    (0..count).map(|_| one()).collect()
}

/// What the stream holds then.
fn looks_back(name: &str) -> Vec<Step> {
    vec![
        api(format!("STREAM.INFO.{name}"), "{\"subjects_filter\":\">\"}"),
        api(format!("DIRECT.GET.{name}"), "{\"seq\":1,\"batch\":20}"),
        api(
            format!("STREAM.MSG.GET.{name}"),
            fill("{\"last_by_subj\":\"@.a\"}", name),
        ),
        api(format!("STREAM.DELETE.{name}"), ""),
    ]
}

/// Messages, each with a few headers.
pub(crate) fn publishing(number: usize, dice: &mut Dice) -> Case {
    let name = format!("M{number:05}");
    let mut steps = vec![made(&name, dice.one(TAKERS))];
    for _ in 0..6 {
        let mut message = step(
            format!("{name}.{}", dice.one(&["a", "a", "b", "c.d"])),
            dice.one(&["", "body", "7", "{\"val\":\"7\"}"]),
        );
        let lines = some(dice, HEADERS, 3);
        if !lines.is_empty() || dice.percent(5) {
            let status = if dice.percent(4) { " 503" } else { "" };
            message.headers = block(&name, status, &lines);
        }
        message.asks = !dice.percent(4);
        steps.push(message);
    }
    steps.extend(looks_back(&name));
    Case::new(steps)
}

/// Atomic batches, some broken.
pub(crate) fn batching(number: usize, dice: &mut Dice) -> Case {
    let name = format!("A{number:05}");
    let with = dice.one(BATCH_TAKERS);
    let mut steps = vec![made(&name, &format!("{with},\"allow_atomic\":true"))];
    steps.push(step(format!("{name}.a"), "before"));
    for batch in ["x", "y"] {
        let members = 1 + dice.below(4);
        for member in 1..=members {
            let sequence = match dice.percent(4) {
                true => dice.one(&["0", "1", "3", "5"]).to_owned(),
                false => member.to_string(),
            };
            let mut lines = vec![
                ("Nats-Batch-Id", batch),
                ("Nats-Batch-Sequence", &*sequence),
            ];
            if member == members {
                lines.push(("Nats-Batch-Commit", dice.one(COMMITS)));
            }
            if dice.percent(30) {
                lines.extend(some(dice, MEMBER_HEADERS, 2));
            }
            let subject = format!("{name}.{}", dice.one(&["a", "b", "c.d"]));
            let mut message = step(subject, "member");
            message.headers = block(&name, "", &lines);
            // Members before the last are told nothing unless they are refused, or ask.
            message.asks = member == members || dice.percent(50);
            steps.push(message);
        }
    }
    steps.extend(looks_back(&name));
    Case::new(steps)
}
