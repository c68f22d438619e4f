//! The generated family of requests: each case is a short life of one stream, played to both servers step by step.

mod consumers;
mod deliveries;
mod looks;
mod messages;
mod streams;

pub(crate) use consumers::consumer;
pub(crate) use deliveries::{acking, pulling, pushing};
pub(crate) use looks::{looking, stage};
pub(crate) use messages::{batching, publishing};
pub(crate) use streams::stream;

use super::dice::Dice;
use super::values::{BODIES, Field, LEVELS};

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

/// What is done to one stream, in order.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// The steps.
    pub steps: Vec<Step>,
    /// Where a push consumer of it delivers to.
    pub listens: Option<String>,
    /// It changes nothing: what follows on a difference is looked at all the same.
    pub looks: bool,
}

impl Case {
    const fn new(steps: Vec<Step>) -> Self {
        Self {
            steps,
            listens: None,
            looks: false,
        }
    }
}

/// The stream that lookers look at. It stays.
const STAGE: &str = "STAGE";

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
        // Two spellings of one field are a field that comes twice.
        let known = self.0.iter_mut();
        let mut known = known.filter(|(known, _)| known.eq_ignore_ascii_case(key));
        match known.next() {
            Some(field) => *field = (key.to_owned(), value.to_owned()),
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
