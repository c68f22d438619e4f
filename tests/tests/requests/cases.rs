//! The generated family of requests: each case is a short life of one stream, played to both servers step by step.

use super::values::{
    BODIES, CONSUMER, DELETE, Dice, Field, GET, INFO, LEVELS, LIST, NEXT, PAUSE, PURGE, STREAM,
};

/// One message to the server.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// Where it goes.
    pub subject: String,
    /// The header block, empty for none.
    pub headers: String,
    /// The body.
    pub body: Vec<u8>,
    /// Whether an answer is asked for.
    pub asks: bool,
}

/// What is done to one stream, in order; the name is that of the stream.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// The stream's name.
    pub name: String,
    /// The steps.
    pub steps: Vec<Step>,
}

/// The stream that lookers look at. It stays.
pub(crate) const STAGE: &str = "STAGE";

fn step(subject: impl Into<String>, body: impl Into<Vec<u8>>) -> Step {
    Step {
        subject: subject.into(),
        headers: String::new(),
        body: body.into(),
        asks: true,
    }
}

fn api(rest: impl AsRef<str>, body: impl Into<Vec<u8>>) -> Step {
    step(format!("$JS.API.{}", rest.as_ref()), body)
}

/// A JSON object of fields in order.
struct Body(Vec<(String, String)>);

impl Body {
    fn new(fields: &[(&str, &str)]) -> Self {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Self(fields.iter().map(owned).collect())
    }

    fn set(&mut self, key: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some(field) => value.clone_into(&mut field.1),
            None => self.0.push((key.to_owned(), value.to_owned())),
        }
    }

    /// Changes or adds fields of the table; seldom one is written in capitals.
    fn mutate(mut self, dice: &mut Dice, table: &[Field], times: usize) -> Self {
        for _ in 0..times {
            let (key, values) = table[dice.below(table.len())];
            let value = dice.one(values);
            if dice.percent(4) {
                self.set(&key.to_uppercase(), value);
            } else {
                self.set(key, value);
            }
        }
        self
    }

    fn text(&self) -> String {
        let fields: Vec<String> = self.0.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        format!("{{{}}}", fields.join(","))
    }
}

/// `@` and `{n}` filled in.
fn fill(text: &str, name: &str) -> Vec<u8> {
    let mut text = text.replace('@', name);
    for size in [17, 256, 4096, 4097] {
        text = text.replace(
            &format!("\"{{{size}}}\""),
            &format!("\"{}\"", "x".repeat(size)),
        );
    }
    text.into_bytes()
}

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

fn asked(name: &str, dice: &mut Dice, table: &[Field]) -> Vec<u8> {
    if dice.percent(8) {
        return dice.one(BODIES).as_bytes().to_vec();
    }
    let changes = 1 + dice.below(3);
    fill(&Body::new(&[]).mutate(dice, table, changes).text(), name)
}

fn publishes(name: &str) -> Vec<Step> {
    let tails = ["a", "b", "a", "c.d"];
    tails
        .iter()
        .map(|tail| step(format!("{name}.{tail}"), format!("body of {tail}")))
        .collect()
}

/// Seldom with a header that demands a level of the API.
fn leveled(mut step: Step, dice: &mut Dice) -> Step {
    if dice.percent(6) {
        step.headers = format!(
            "NATS/1.0\r\nNats-Required-Api-Level: {}\r\n\r\n",
            dice.one(LEVELS)
        );
    }
    step
}

/// The stream that lookers look at, with a consumer of each kind.
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
    Case {
        name: STAGE.to_owned(),
        steps,
    }
}

/// A look at the stage.
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
    let one = |rest: &str, table: &[Field], dice: &mut Dice| {
        let body = asked(STAGE, dice, table);
        api(rest, body)
    };
    let step = match dice.below(22) {
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
        _ => {
            let subject = dice.one(&[
                "STREAM.PEER.REMOVE.STAGE",
                "STREAM.LEADER.STEPDOWN.STAGE",
                "CONSUMER.LEADER.STEPDOWN.STAGE.ONE",
                "CONSUMER.UNPIN.STAGE.ONE",
                "CONSUMER.UNPIN.STAGE.NONE",
                "CONSUMER.UNPIN.NONE.ONE",
                "CONSUMER.DELETE.STAGE.NONE",
                "STREAM.DELETE.NONE",
                "STREAM.PURGE.NONE",
                "STREAM.MSG.DELETE.NONE",
                "META.LEADER.STEPDOWN",
                "STREAM.SNAPSHOT.NONE",
                "STREAM.UPDATE.NONE",
            ]);
            api(
                subject,
                dice.one(&[
                    "",
                    "{}",
                    "x",
                    "{\"bogus\":1}",
                    "{\"seq\":1}",
                    "{\"group\":\"x\"}",
                    "{\"name\":\"NONE\"}",
                ]),
            )
        }
    };
    leveled(step, dice)
}

/// A look at the stage, as a case of one step.
pub(crate) fn looking(dice: &mut Dice) -> Case {
    Case {
        name: STAGE.to_owned(),
        steps: vec![look(dice)],
    }
}

/// A stream is made, filled, changed, emptied and deleted.
pub(crate) fn stream(number: usize, dice: &mut Dice) -> Case {
    let name = format!("S{number}");
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
    Case { name, steps }
}

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
    let name = format!("C{number}");
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
    Case { name, steps }
}
