//! The life of a consumer.

use super::{Body, Case, api, asked, fill, leveled, publishes};
use crate::dice::Dice;
use crate::values::{CONSUMER, NEXT, PAUSE};

/// What is asked of a consumer, as the body of `CONSUMER.CREATE`.
fn consumer_body(name: &str, dice: &mut Dice, changes: usize) -> Vec<u8> {
    // None of them goes while its case is played.
    let base = Body::new(&[
        ("name", "\"C\""),
        ("ack_policy", "\"explicit\""),
        ("inactive_threshold", "60000000000"),
    ]);
    let config = base.mutate(dice, CONSUMER, changes).text();
    let mut outer = Body::new(&[("stream_name", "\"@\""), ("config", &config)]);
    if dice.percent(25) {
        outer.set(
            "action",
            dice.one(&["\"create\"", "\"update\"", "\"\"", "\"x\"", "null", "1"]),
        );
    }
    if dice.percent(15) {
        outer.set("pedantic", dice.one(&["true", "true", "false", "1"]));
    }
    if dice.percent(3) {
        outer.set("stream_name", dice.one(&["\"OTHER\"", "\"\"", "null", "5"]));
    }
    if dice.percent(2) {
        outer.set("bogus", "1");
    }
    fill(&outer.text(), name)
}

/// Streams on which consumers are made.
const HOLDERS: &[&str] = &[
    "",
    "",
    "",
    ",\"retention\":\"interest\"",
    ",\"retention\":\"workqueue\"",
    ",\"consumer_limits\":{\"max_ack_pending\":5}",
    ",\"consumer_limits\":{\"inactive_threshold\":60000000000}",
    ",\"consumer_limits\":{\"max_ack_pending\":1500,\"inactive_threshold\":70000000000}",
    ",\"max_consumers\":1",
];

/// A consumer is made, changed, asked, paused and deleted.
pub(crate) fn consumer(number: usize, dice: &mut Dice) -> Case {
    let name = format!("C{number:05}");
    let mut steps = vec![api(
        format!("STREAM.CREATE.{name}"),
        format!(
            "{{\"name\":\"{name}\",\"subjects\":[\"{name}.>\"],\"storage\":\"memory\"{}}}",
            dice.one(HOLDERS)
        ),
    )];
    steps.extend(publishes(&name));
    let form = |dice: &mut Dice| match dice.below(20) {
        0 => format!("CONSUMER.CREATE.{name}.C.{name}.a"),
        1 => format!("CONSUMER.CREATE.{name}.C.other"),
        2 => format!("CONSUMER.DURABLE.CREATE.{name}.C"),
        3 => format!("CONSUMER.CREATE.{name}"),
        4 => format!("CONSUMER.CREATE.{name}.D"),
        _ => format!("CONSUMER.CREATE.{name}.C"),
    };
    for most in [4, 3] {
        let changes = dice.below(most);
        let subject = form(dice);
        steps.push(leveled(
            api(subject, consumer_body(&name, dice, changes)),
            dice,
        ));
    }
    steps.push(leveled(
        api(
            format!("CONSUMER.MSG.NEXT.{name}.C"),
            asked(&name, dice, NEXT),
        ),
        dice,
    ));
    steps.push(leveled(
        api(
            format!("CONSUMER.PAUSE.{name}.C"),
            asked(&name, dice, PAUSE),
        ),
        dice,
    ));
    steps.push(api(format!("CONSUMER.INFO.{name}.C"), ""));
    if dice.percent(30) {
        steps.push(api(
            format!("CONSUMER.UNPIN.{name}.C"),
            dice.one(&["", "{}", "{\"group\":\"a\"}", "{\"group\":\"\"}", "x"]),
        ));
    }
    steps.push(leveled(
        api(
            format!("CONSUMER.DELETE.{name}.C"),
            dice.one(&["", "", "", "{}", "x", "{\"a\":1}"]),
        ),
        dice,
    ));
    steps.push(api(format!("CONSUMER.NAMES.{name}"), ""));
    steps.push(api(format!("STREAM.DELETE.{name}"), ""));
    Case::new(steps)
}
