//! What may differ, each with its reason in `docs/differences.md`.

use super::compare::Differing;

/// Why this difference is all right; `None`: it is not.
pub(crate) fn reason(differing: &Differing<'_>) -> Option<&'static str> {
    let both = |text: &str| differing.expected.contains(text) && differing.found.contains(text);
    let words = "the words about a body that cannot be read are the JSON reader's own";
    if both("\"err_code\":10025") || both("400 Bad Request - ") {
        return Some(words);
    }
    let demands = differing.step.headers.contains("Nats-Required-Api-Level");
    if demands
        && differing.step.subject.contains("CONSUMER.PAUSE")
        && differing.found.contains("10185")
    {
        return Some("the level of the API that a client demands is looked at for every request");
    }
    let named = |text: &str| text.matches("\"name\":\"*\"").count();
    if named(differing.found) > named(differing.expected) {
        return Some("a consumer that the server named shows its name in its configuration, too");
    }
    let body = String::from_utf8_lossy(&differing.step.body);
    let absent = ["mirror", "sources", "republish", "subject_transform"];
    let reads = |text: &str| text.contains("\"err_code\":10025");
    if reads(differing.expected) && absent.iter().any(|field| body.contains(field)) {
        return Some("what is not there yet is not read");
    }
    let dates = ["\"0001-", "\"0000-", "\"1600-", "\"2262-", "\"9999-"];
    let gets = differing.step.subject.contains(".GET.");
    if gets && dates.iter().any(|date| body.contains(date)) {
        return Some(
            "times that 64 bits of nanoseconds do not hold are the nearest that they hold",
        );
    }
    if gets && body.contains("\"no_hdr\":true") && both("204 EOB") {
        return Some("the messages left are counted also without headers");
    }
    if differing.found.contains("not supported by this server yet") {
        return Some("what is not there yet is refused by name");
    }
    None
}
