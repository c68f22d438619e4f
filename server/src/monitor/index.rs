//! `/`: a page with links, for people.

use super::state::Answer;
use crate::config::{NATS_VERSION, VERSION};

/// Every endpoint that a person may want to look at.
const LINKS: [(&str, &str); 10] = [
    ("varz", "General"),
    ("jsz", "JetStream"),
    ("connz", "Connections"),
    ("accountz", "Accounts"),
    ("accstatz", "Account statistics"),
    ("subsz", "Subscriptions"),
    ("routez", "Routes"),
    ("leafz", "Leaf nodes"),
    ("gatewayz", "Gateways"),
    ("healthz", "Health"),
];

pub(super) fn page() -> Answer {
    let mut text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><title>Halyard</title></head>\n<body>\n\
         <h1>Halyard {VERSION}</h1>\n<p>speaks NATS {NATS_VERSION}</p>\n<ul>\n"
    );
    for (path, title) in LINKS {
        text.push_str(&format!("<li><a href=\"./{path}\">{title}</a></li>\n"));
    }
    text.push_str("</ul>\n</body>\n</html>\n");
    Answer::Html(text)
}
