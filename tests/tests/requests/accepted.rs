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
    let refuse = both("\"error\":") || differing.expected.contains("\"err_code\":10025");
    if refuse && absent.iter().any(|field| body.contains(field)) {
        return Some("what is not there yet is not looked at");
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
    if differing.found.contains("sequence must not be above") {
        return Some("sequences above 2^62 - 1 are refused");
    }
    let broken = ["10070", "10071", "10193"];
    if differing.found.contains("\"duplicate\":true")
        && broken.iter().any(|code| differing.expected.contains(code))
    {
        return Some(
            "a known message id comes before conditions that the message itself has broken",
        );
    }
    let says_empty = |body: &str| body.contains("[]") || body.contains("{}");
    let earlier = differing.earlier.iter();
    let mut earlier = earlier.map(|step| String::from_utf8_lossy(&step.body));
    let empty = says_empty(&body) || earlier.any(|body| says_empty(&body));
    let known = ["\"err_code\":10148", "\"err_code\":10058"];
    if empty && known.iter().any(|code| differing.expected.contains(code)) {
        return Some("an empty list is the same as none");
    }
    if body.contains("+24:00") && differing.expected.is_empty() {
        return Some(
            "the real server cannot write an offset of 24 hours, and answers with nothing",
        );
    }
    if both("\"ack_policy\":\"all\"") && no_floor(differing.expected) == no_floor(differing.found) {
        return Some(
            "the consumer sequence in an ack of all is not believed beyond the last delivery",
        );
    }
    let zero = "\"last_ts\":\"0001-01-01T00:00:00Z\"";
    let timeless = differing.expected.replace("\"last_ts\":\"*\"", zero);
    if timeless == differing.found {
        return Some("a message that nobody wanted leaves no time behind");
    }
    let unused = differing
        .found
        .replace("\"first_seq\":0,", "\"first_seq\":1,");
    if differing.expected.contains("\"last_seq\":0,") && differing.expected == unused {
        return Some("an empty stream that never held a message shows 0 as its first sequence");
    }
    if differing.found.contains("not supported by this server yet") {
        return Some("what is not there yet is refused by name");
    }
    None
}

/// An answer without the consumer sequence of its ack floor.
fn no_floor(answer: &str) -> String {
    let mark = "\"ack_floor\":{\"consumer_seq\":";
    match answer.split_once(mark) {
        Some((before, rest)) => {
            let rest = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
            format!("{before}{mark}{rest}")
        }
        None => answer.to_owned(),
    }
}
