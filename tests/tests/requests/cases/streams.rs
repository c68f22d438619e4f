//! The life of a stream.

use super::{Body, Case, api, asked, fill, leveled, publishes};
use crate::dice::Dice;
use crate::values::{DELETE, GET, PURGE, STREAM};

fn made(name: &str, dice: &mut Dice, changes: usize) -> Vec<u8> {
    let base = Body::new(&[
        ("name", "\"@\""),
        ("subjects", "[\"@.>\"]"),
        ("storage", "\"memory\""),
    ]);
    let mut body = base.mutate(dice, STREAM, changes);
    let has = |wanted: &str, value: &str| {
        body.0
            .iter()
            .any(|(key, text)| key.to_lowercase() == wanted && text.contains(value))
    };
    // It would capture what the other cases publish, and their requests.
    if has("no_ack", "true")
        && (has("subjects", "[\"*") || has("subjects", "[\">") || has("subjects", "[\"$"))
    {
        body.0.retain(|(key, _)| key.to_lowercase() != "no_ack");
    }
    fill(&body.text(), name)
}

/// A stream is made, filled, changed, emptied and deleted.
pub(crate) fn stream(number: usize, dice: &mut Dice) -> Case {
    let name = format!("S{number:05}");
    let changes = dice.below(4);
    let mut steps = vec![leveled(
        api(format!("STREAM.CREATE.{name}"), made(&name, dice, changes)),
        dice,
    )];
    steps.extend(publishes(&name));
    let changes = dice.below(3);
    let verb = dice.one(&["CREATE", "UPDATE", "UPDATE", "UPDATE"]);
    steps.push(leveled(
        api(format!("STREAM.{verb}.{name}"), made(&name, dice, changes)),
        dice,
    ));
    steps.push(api(format!("STREAM.INFO.{name}"), ""));
    let unmaking = match dice.below(4) {
        0 => api(
            format!("STREAM.MSG.DELETE.{name}"),
            asked(&name, dice, DELETE),
        ),
        1 => api(format!("STREAM.MSG.GET.{name}"), asked(&name, dice, GET)),
        2 => api(format!("DIRECT.GET.{name}"), asked(&name, dice, GET)),
        _ => api(format!("STREAM.PURGE.{name}"), asked(&name, dice, PURGE)),
    };
    let mut unmaking = leveled(unmaking, dice);
    unmaking.asks = !dice.percent(15);
    steps.push(unmaking);
    steps.push(api(
        format!("STREAM.INFO.{name}"),
        "{\"deleted_details\":true,\"subjects_filter\":\">\"}",
    ));
    steps.push(leveled(
        api(
            format!("STREAM.DELETE.{name}"),
            dice.one(&["", "", "", "{}", "x", "{\"a\":1}"]),
        ),
        dice,
    ));
    steps.push(api(format!("STREAM.DELETE.{name}"), ""));
    Case::new(steps)
}
