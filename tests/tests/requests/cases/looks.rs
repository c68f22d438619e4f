//! Looks at streams that stay as they are.

use super::{Case, STAGE, Step, api, asked, leveled, publishes, step};
use crate::dice::Dice;
use crate::values::{BODIES, GET, INFO, LIST, RESTORE, SNAPSHOT};

/// The streams that lookers look at: one with messages and consumers, and two for lists.
pub(crate) fn stage() -> Case {
    let mut steps = vec![api(
        "STREAM.CREATE.STAGE",
        r#"{"name":"STAGE","subjects":["STAGE.>"],"allow_direct":true,"storage":"memory","max_msgs_per_subject":3}"#,
    )];
    steps.extend(publishes(STAGE));
    steps.extend(publishes(STAGE));
    let mut with_headers = step("STAGE.h", "with headers");
    with_headers.headers = "NATS/1.0\r\nA: 1\r\nB:2\r\n\r\n".to_owned();
    steps.push(with_headers);
    steps.push(api("STREAM.MSG.DELETE.STAGE", "{\"seq\":2}"));
    for consumer in ["ONE", "TWO"] {
        steps.push(api(
            format!("CONSUMER.CREATE.STAGE.{consumer}"),
            format!(
                "{{\"stream_name\":\"STAGE\",\"config\":{{\"name\":\"{consumer}\",\"durable_name\":\"{consumer}\",\"ack_policy\":\"explicit\"}}}}"
            ),
        ));
    }
    for (name, subjects) in [
        ("STAGE1", "\"other\",\"STAGE1.a\""),
        ("STAGE2", "\"x.*.y\""),
    ] {
        let body = format!(
            "{{\"name\":\"{name}\",\"subjects\":[{subjects}],\"storage\":\"memory\",\"metadata\":{{\"a\":\"b\"}}}}"
        );
        steps.push(api(format!("STREAM.CREATE.{name}"), body));
    }
    Case::new(steps)
}

/// Requests that change nothing here, whatever they say.
const IDLE: &[&str] = &[
    "STREAM.PEER.REMOVE.STAGE",
    "STREAM.PEER.REMOVE.NONE",
    "STREAM.LEADER.STEPDOWN.STAGE",
    "STREAM.LEADER.STEPDOWN.NONE",
    "CONSUMER.LEADER.STEPDOWN.STAGE.ONE",
    "CONSUMER.LEADER.STEPDOWN.STAGE.NONE",
    "CONSUMER.UNPIN.STAGE.ONE",
    "CONSUMER.UNPIN.STAGE.NONE",
    "CONSUMER.UNPIN.NONE.ONE",
    "CONSUMER.PAUSE.STAGE.NONE",
    "CONSUMER.PAUSE.NONE.ONE",
    "CONSUMER.DELETE.STAGE.NONE",
    "CONSUMER.DELETE.NONE.ONE",
    "CONSUMER.MSG.NEXT.STAGE.NONE",
    "CONSUMER.MSG.NEXT.NONE.ONE",
    "STREAM.DELETE.NONE",
    "STREAM.PURGE.NONE",
    "STREAM.MSG.DELETE.NONE",
    "META.LEADER.STEPDOWN",
    "META.SERVER.REMOVE",
    "ACCOUNT.PURGE.X",
    "ACCOUNT.STREAM.MOVE.X.Y",
    "STREAM.SNAPSHOT.NONE",
    "STREAM.UPDATE.NONE",
    "STREAM.TEMPLATE.NAMES",
    "STREAM.X.STAGE",
    "STREAM.INFO.STAGE.x",
    "STREAM.INFO",
    "CONSUMER.INFO.STAGE",
    "CONSUMER.X.STAGE.ONE",
    "STREAM.MSG.X.STAGE",
    "NONE",
];

/// A look.
fn look(dice: &mut Dice) -> Step {
    let stream = if dice.percent(95) {
        STAGE
    } else {
        dice.one(&["NONE", "a b", "*", ">", "X.Y", ""])
    };
    let consumer = if dice.percent(90) {
        "ONE"
    } else {
        dice.one(&["NONE", "*", "a b"])
    };
    let one = |rest: &str, table, dice: &mut Dice| {
        let body = asked(STAGE, dice, table);
        api(rest, body)
    };
    let step = match dice.below(25) {
        0..6 => one(&format!("DIRECT.GET.{stream}"), GET, dice),
        6 => one(
            &format!(
                "DIRECT.GET.{stream}.{}",
                dice.one(&["STAGE.a", "STAGE.none", "STAGE.*", "STAGE.>", "other", ""])
            ),
            GET,
            dice,
        ),
        7 => {
            let subject = format!(
                "DIRECT.GET.{stream}.{}",
                dice.one(&["STAGE.a", "STAGE.none", "STAGE.c.d"])
            );
            api(subject, "")
        }
        8..12 => one(&format!("STREAM.MSG.GET.{stream}"), GET, dice),
        12..15 => one(&format!("STREAM.INFO.{stream}"), INFO, dice),
        15 => one("STREAM.NAMES", LIST, dice),
        16 => one("STREAM.LIST", LIST, dice),
        17 => one(&format!("CONSUMER.NAMES.{stream}"), LIST, dice),
        18 => one(&format!("CONSUMER.LIST.{stream}"), LIST, dice),
        19 => api(
            format!("CONSUMER.INFO.{stream}.{consumer}"),
            dice.one(BODIES),
        ),
        20 => api("INFO", dice.one(BODIES)),
        21 => one(&format!("STREAM.SNAPSHOT.{stream}"), SNAPSHOT, dice),
        22 => one(&format!("STREAM.RESTORE.{stream}"), RESTORE, dice),
        _ => api(
            dice.one(IDLE),
            dice.one(&[
                "",
                "{}",
                "x",
                "{\"bogus\":1}",
                "{\"seq\":1}",
                "{\"group\":\"x\"}",
                "{\"name\":\"NONE\"}",
                "{} {}",
                "{\"peer\":\"x\"}",
                "{\"placement\":{}}",
            ]),
        ),
    };
    leveled(step, dice)
}

/// A look, as a case of one step.
pub(crate) fn looking(dice: &mut Dice) -> Case {
    let mut case = Case::new(vec![look(dice)]);
    case.looks = true;
    case
}
