//! What a consumer delivers, and what is said to it: pull requests side by side, acks with odd bodies, push consumers.

use super::{Body, Case, Step, api, asked, fill, leveled, step};
use crate::dice::Dice;
use crate::values::{ACKS, NEXT};

/// Streams whose messages are delivered.
const HOLDERS: &[&str] = &["", "", "", ",\"retention\":\"workqueue\""];

/// Consumers that deliver them.
const PULLS: &[&str] = &[
    "",
    "",
    ",\"max_ack_pending\":1",
    ",\"max_ack_pending\":2",
    ",\"max_waiting\":1",
    ",\"max_waiting\":2",
    ",\"max_batch\":2",
    ",\"max_bytes\":100",
    ",\"max_expires\":200000000000",
    ",\"headers_only\":true",
    ",\"backoff\":[600000000000,700000000000]",
    ",\"sample_freq\":\"100\"",
];

const PUSHES: &[&str] = &[
    "",
    ",\"max_ack_pending\":2",
    ",\"headers_only\":true",
    ",\"deliver_group\":\"g\"",
];

fn begun(name: &str, consumer: &str, dice: &mut Dice) -> Vec<Step> {
    let policy = dice.one(&["explicit", "explicit", "explicit", "all", "none"]);
    let config = format!(
        "{{\"name\":\"C\",\"inactive_threshold\":600000000000,\"ack_wait\":600000000000,\"ack_policy\":\"{policy}\"{consumer}}}"
    );
    let outer = Body::new(&[("stream_name", "\"@\""), ("config", &config)]);
    let made = format!(
        "{{\"name\":\"{name}\",\"subjects\":[\"{name}.>\"],\"storage\":\"memory\"{}}}",
        dice.one(HOLDERS)
    );
    vec![
        api(format!("STREAM.CREATE.{name}"), made),
        api(
            format!("CONSUMER.CREATE.{name}.C"),
            fill(&outer.text(), name),
        ),
    ]
}

fn message(name: &str, dice: &mut Dice) -> Step {
    let tail = dice.one(&["a", "b", "a", "c.d"]);
    let mut message = step(format!("{name}.{tail}"), format!("body of {tail}"));
    if dice.percent(20) {
        message.headers = "NATS/1.0\r\nA: 1\r\n\r\n".to_owned();
    }
    message
}

fn pull(name: &str, dice: &mut Dice) -> Step {
    let subject = format!("CONSUMER.MSG.NEXT.{name}.C");
    let body = match dice.below(4) {
        0 => asked(name, dice, NEXT),
        1 => dice
            .one(&["", "2", "0", "-1", "+2", " 2", "x", "1.5", "{}", "5x"])
            .as_bytes()
            .to_vec(),
        _ => {
            // One that asks for something, most often.
            let batch = dice.one(&["1", "2", "3", "10"]);
            let base = Body::new(&[("batch", batch), ("no_wait", "true")]);
            let changes = dice.below(3);
            fill(&base.mutate(dice, NEXT, changes).text(), name)
        }
    };
    leveled(api(subject, body), dice)
}

/// What a client says to a delivery, which may never have been.
fn ack(name: &str, seq: usize, dice: &mut Dice) -> Step {
    let count = 1 + usize::from(dice.percent(10));
    // Most often as delivered; else of another delivery, settled or never made.
    let own = match dice.below(12) {
        0 => seq.saturating_sub(1),
        1 => seq + 1,
        2 => 0,
        _ => seq,
    };
    // Later than any message, so that it is none of a stream of before.
    let rest = format!("{count}.{seq}.{own}.4102444800000000000.0");
    let subject = match dice.below(40) {
        0 => format!("$JS.ACK.{name}.C.{count}.{seq}.{seq}"),
        1 => format!("$JS.ACK.{name}.C.x.{seq}.{seq}.x.x"),
        2 => format!("$JS.ACK.{name}.C.{count}.x.{seq}.1.0"),
        3 => format!("$JS.ACK.{name}.NONE.{rest}"),
        4 => format!("$JS.ACK.NONE.C.{rest}"),
        _ => format!("$JS.ACK.{name}.C.{rest}"),
    };
    let mut said = step(subject, if dice.percent(30) { "" } else { dice.one(ACKS) });
    said.asks = dice.percent(75);
    said
}

fn ended(name: &str) -> Vec<Step> {
    vec![
        api(format!("CONSUMER.INFO.{name}.C"), ""),
        api(format!("STREAM.INFO.{name}"), ""),
        api(format!("CONSUMER.DELETE.{name}.C"), ""),
        api(format!("STREAM.DELETE.{name}"), ""),
    ]
}

/// Pull requests, messages and acks in any order.
pub(crate) fn pulling(number: usize, dice: &mut Dice) -> Case {
    let name = format!("P{number:05}");
    let mut steps = begun(&name, dice.one(PULLS), dice);
    let before = dice.below(5);
    steps.extend((0..before).map(|_| message(&name, dice)));
    for at in 0..8 {
        steps.push(match dice.below(10) {
            0..5 => pull(&name, dice),
            5..8 => ack(&name, 1 + at, dice),
            _ => message(&name, dice),
        });
    }
    steps.extend(ended(&name));
    Case::new(steps)
}

/// Some messages are delivered, then something is said to each.
pub(crate) fn acking(number: usize, dice: &mut Dice) -> Case {
    let name = format!("K{number:05}");
    let mut steps = begun(&name, dice.one(PULLS), dice);
    steps.extend((0..4).map(|_| message(&name, dice)));
    let all = "{\"batch\":10,\"no_wait\":true}";
    let next = format!("CONSUMER.MSG.NEXT.{name}.C");
    steps.push(api(&next, all));
    let first = dice.below(5);
    steps.extend((0..5).map(|at| ack(&name, 1 + (first + at) % 5, dice)));
    steps.push(api(format!("CONSUMER.INFO.{name}.C"), ""));
    steps.push(api(&next, all));
    steps.extend(ended(&name));
    Case::new(steps)
}

/// A push consumer with a listener.
pub(crate) fn pushing(number: usize, dice: &mut Dice) -> Case {
    let name = format!("U{number:05}");
    let to = format!("_D.{name}");
    let consumer = format!(",\"deliver_subject\":\"{to}\"{}", dice.one(PUSHES));
    let [made, consumer] = begun(&name, &consumer, dice).try_into().expect("two steps");
    let mut steps = vec![made];
    steps.extend((0..3).map(|_| message(&name, dice)));
    steps.push(consumer);
    for at in 0..4 {
        steps.push(match dice.below(3) {
            0 => message(&name, dice),
            1 => ack(&name, 1 + at, dice),
            _ => api(format!("CONSUMER.INFO.{name}.C"), ""),
        });
    }
    steps.push(pull(&name, dice));
    steps.extend(ended(&name));
    let mut case = Case::new(steps);
    case.listens = Some(to);
    case
}
