//! The request that makes or changes a consumer: three forms of its subject, one body.

use halyard_runtime::random;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::check;
use super::command::{Action, Command, Seen};
use super::config::ConsumerConfig;
use crate::jetstream::api::errors::{ApiError, table};
use crate::jetstream::config::StreamConfig;
use crate::jetstream::plain;

/// Letters of names that the server makes up.
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Length of such a name, as the peer's.
const RANDOM_NAME_BYTES: usize = 8;

/// What the subject of the request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form<'a> {
    /// `CONSUMER.CREATE.<stream>`: ephemeral, the server gives the name.
    Unnamed,
    /// `CONSUMER.CREATE.<stream>.<name>[.<filter>]`.
    Named {
        /// The consumer.
        name: &'a str,
        /// The rest of the subject; permissions may hang on it.
        filter: Option<&'a str>,
    },
    /// `CONSUMER.DURABLE.CREATE.<stream>.<name>`, the form of old clients.
    Durable {
        /// The consumer.
        name: &'a str,
    },
}

/// The body of the request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreateRequest {
    /// The stream; must be the one of the subject.
    pub stream_name: String,
    /// What is wanted.
    pub config: ConsumerConfig,
    /// `create`, `update` or nothing.
    #[serde(deserialize_with = "action")]
    pub action: Action,
    /// Refuse where a value would be adjusted silently.
    pub pedantic: bool,
}

fn action<'de, D: Deserializer<'de>>(from: D) -> Result<Action, D::Error> {
    match Option::<String>::deserialize(from)?.as_deref() {
        Some("") => Ok(Action::CreateOrUpdate),
        Some("create") => Ok(Action::Create),
        Some("update") => Ok(Action::Update),
        other => Err(D::Error::custom(format_args!(
            "unknown consumer action: {other:?}"
        ))),
    }
}

/// A request that may be proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    action: Action,
    /// The consumer's name, made up where the client gave none.
    pub name: String,
    /// The resolved configuration.
    pub config: ConsumerConfig,
}

impl Create {
    /// The command's body; `seen` is what has the name, where that matters.
    pub fn to_bytes(&self, seen: Option<Seen<'_>>) -> Vec<u8> {
        // A configuration that was read from JSON can be written as JSON.
        let config = plain::json(&self.config);
        Command::Create {
            action: self.action,
            name: &self.name,
            config: &config,
            seen,
        }
        .to_bytes()
    }
}

/// Checks the request against its subject and its stream, and completes it.
///
/// # Errors
/// The refusal that the client gets.
pub fn prepare(
    form: Form<'_>,
    request: CreateRequest,
    stream: &StreamConfig,
) -> Result<Create, ApiError> {
    if request.stream_name != stream.name {
        return Err(table::STREAM_MISMATCH.error());
    }
    let action = request.action;
    let mut config = request.config;
    if let Form::Named { name, .. } | Form::Durable { name } = form {
        check::check_path(name)?;
    }
    check_form(form, &config)?;
    if let Form::Named { name, .. } | Form::Durable { name } = form {
        name.clone_into(&mut config.name);
    }
    let mut config = check::resolve(config, stream, request.pedantic)?;
    if config.name.is_empty() {
        config.name = random_name();
    }
    Ok(Create {
        action,
        name: config.name.clone(),
        config,
    })
}

fn check_form(form: Form<'_>, config: &ConsumerConfig) -> Result<(), ApiError> {
    let durable = config.durable_name.as_str();
    match form {
        Form::Unnamed if !durable.is_empty() => {
            Err(table::CONSUMER_EPHEMERAL_WITH_DURABLE_NAME.error())
        }
        Form::Unnamed => Ok(()),
        Form::Durable { .. } if durable.is_empty() => {
            Err(table::CONSUMER_DURABLE_NAME_NOT_SET.error())
        }
        Form::Durable { name } if durable != name => {
            Err(table::CONSUMER_DURABLE_NAME_NOT_MATCH_SUBJECT.error())
        }
        Form::Durable { .. } => Ok(()),
        Form::Named { name, .. } if !durable.is_empty() && durable != name => {
            Err(table::CONSUMER_DURABLE_NAME_NOT_MATCH_SUBJECT.error())
        }
        Form::Named { filter: None, .. } => Ok(()),
        Form::Named { .. } if !config.filter_subjects.is_empty() => {
            Err(table::CONSUMER_MULTIPLE_FILTERS_NOT_ALLOWED.error())
        }
        Form::Named { filter, .. } if filter != Some(config.filter_subject.as_str()) => {
            Err(table::CONSUMER_CREATE_FILTER_SUBJECT_MISMATCH.error())
        }
        Form::Named { .. } => Ok(()),
    }
}

/// A name for a consumer that the client did not name. Only the leader makes one up: it travels in the command.
fn random_name() -> String {
    let letter = |_| {
        let at = usize::try_from(random::below(LETTERS.len() as u64)).unwrap_or(0);
        char::from(LETTERS.get(at).copied().unwrap_or(b'x'))
    };
    (0..RANDOM_NAME_BYTES).map(letter).collect()
}
