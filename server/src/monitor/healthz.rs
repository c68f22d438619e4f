//! `/healthz`: whether this server does its work. 200 with `{"status":"ok"}`, or why not.

use hyper::StatusCode;
use serde::Serialize;

use super::query::{BadQuery, Query};
use super::state::{Answer, State};
use crate::jetstream::JetStream;

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Detail>,
}

/// One thing that is not well (`details=1`).
#[derive(Serialize)]
struct Detail {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    account: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    stream: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    consumer: String,
    error: String,
}

/// What is wrong, before it is known how it shall be told.
struct Sick {
    code: StatusCode,
    detail: Detail,
}

pub(super) fn answer(state: &State, query: &Query<'_>) -> Result<Answer, BadQuery> {
    // Every option is read before any is used: a misspelt value is an error whatever the state of the server.
    let options = Options {
        enabled_only: query.bool("js-enabled")? || query.bool("js-enabled-only")?,
        server_only: query.bool("js-server-only")?,
        meta_only: query.bool("js-meta-only")?,
        account: query.text("account"),
        stream: query.text("stream"),
        consumer: query.text("consumer"),
    };
    let details = query.bool("details")?;
    Ok(match options.check(state) {
        Ok(()) => told(
            StatusCode::OK,
            &Health {
                status: "ok",
                error: None,
                errors: Vec::new(),
            },
        ),
        Err(Sick { code, detail }) if details => told(
            code,
            &Health {
                status: "error",
                error: None,
                errors: vec![detail],
            },
        ),
        Err(Sick { code, detail }) => {
            let status = if code == StatusCode::BAD_REQUEST {
                "error"
            } else {
                "unavailable"
            };
            told(
                code,
                &Health {
                    status,
                    error: Some(detail.error),
                    errors: Vec::new(),
                },
            )
        }
    })
}

fn told(code: StatusCode, health: &Health) -> Answer {
    Answer::Status(
        code,
        serde_json::to_vec(health).expect("plain data always encodes"),
    )
}

struct Options<'q> {
    enabled_only: bool,
    server_only: bool,
    meta_only: bool,
    account: &'q str,
    stream: &'q str,
    consumer: &'q str,
}

impl Options<'_> {
    fn check(&self, state: &State) -> Result<(), Sick> {
        if self.account.is_empty() && !self.stream.is_empty() {
            return Err(self.bad("\"account\" must not be empty when checking stream health"));
        }
        if self.stream.is_empty() && !self.consumer.is_empty() {
            return Err(self.bad("\"stream\" must not be empty when checking consumer health"));
        }
        if state.front.is_lame_duck() {
            return Err(self.sick(
                StatusCode::SERVICE_UNAVAILABLE,
                "CONNECTION",
                "server is in lame duck mode",
            ));
        }
        // Without JetStream there is nothing more that could be ill, and no account or stream is asked for in vain.
        let Some(jetstream) = state.jetstream() else {
            if state.front.settings().jetstream.enabled {
                let text = "JetStream is still being opened";
                return Err(self.sick(StatusCode::SERVICE_UNAVAILABLE, "JETSTREAM", text));
            }
            return Ok(());
        };
        if self.enabled_only {
            return Ok(());
        }
        jetstream
            .health()
            .map_err(|text| self.sick(StatusCode::SERVICE_UNAVAILABLE, "JETSTREAM", &text))?;
        match self.account {
            "" => Ok(()),
            _ if self.server_only || self.meta_only => Ok(()),
            _ => self.check_assets(state, jetstream),
        }
    }

    /// Whether what is named is there.
    fn check_assets(&self, state: &State, jetstream: &JetStream) -> Result<(), Sick> {
        let missing = |kind, text: String| Err(self.sick(StatusCode::NOT_FOUND, kind, &text));
        let Self {
            account,
            stream,
            consumer,
            ..
        } = *self;
        if state.front.broker.account(account).is_none() {
            return missing(
                "ACCOUNT",
                format!("JetStream account \"{account}\" not found"),
            );
        }
        if stream.is_empty() {
            return Ok(());
        }
        let Some(handle) = jetstream.stream(account, stream) else {
            let text = format!("JetStream stream \"{stream}\" not found on account \"{account}\"");
            return missing("STREAM", text);
        };
        let is_there = consumer.is_empty()
            || handle.group().read(|machine| {
                machine
                    .stream(handle.id())
                    .is_some_and(|stream| stream.consumers().find(consumer).is_some())
            });
        if !is_there {
            let text = format!(
                "JetStream consumer \"{consumer}\" not found for stream \"{stream}\" on account \"{account}\""
            );
            return missing("CONSUMER", text);
        }
        Ok(())
    }

    fn bad(&self, text: &str) -> Sick {
        self.sick(StatusCode::BAD_REQUEST, "BAD_REQUEST", text)
    }

    fn sick(&self, code: StatusCode, kind: &'static str, error: &str) -> Sick {
        let detail = Detail {
            kind,
            account: self.account.to_owned(),
            stream: self.stream.to_owned(),
            consumer: self.consumer.to_owned(),
            error: error.to_owned(),
        };
        Sick { code, detail }
    }
}
