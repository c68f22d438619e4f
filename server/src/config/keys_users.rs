//! The `authorization` block: one user, one token or a list of users.

use std::time::Duration;

use super::keys::{Findings, each_entry, not_yet, unknown};
use super::load::is_hashed;
use super::position::Problem;
use super::settings::{Authorization, User};
use super::value::{Entry, Kind, Map, Value};

/// Keys of the block that mean something to nats-server and nothing here yet.
const NOT_YET: &[&str] = &[
    "auth_callout",
    "auth_hook",
    "default_permission",
    "default_permissions",
    "permission",
    "permissions",
    "proxy_required",
];
/// The same for an entry of `users`.
const NOT_YET_USER: &[&str] = &[
    "account",
    "account_token_position",
    "allowed_connection_types",
    "clients",
    "connection_types",
    "nkey",
    "permission",
    "permissions",
    "authorization",
    "proxy_required",
];

/// Reads the block.
pub(super) fn apply(value: &Value, settings: &mut Authorization, findings: &mut Findings) {
    let map = match value.map() {
        Ok(map) => map,
        Err(problem) => return findings.errors.push(problem),
    };
    let mut users = None;
    each_entry(map, findings, |key, entry, warnings| {
        let value = &entry.value;
        match key {
            "user" | "username" => settings.user = Some(value.string()?.to_owned()),
            "pass" | "password" => settings.password = Some(password(value)?),
            "token" => settings.token = Some(password(value)?),
            "timeout" => settings.timeout = Some(timeout(value, warnings)?),
            "users" => users = Some(value.list()?),
            _ if NOT_YET.contains(&key) => return Err(not_yet(entry)),
            _ => return unknown(entry),
        }
        Ok(())
    });
    for value in users.unwrap_or_default() {
        let result = value
            .map()
            .and_then(|map| user(map, value, settings, findings));
        findings.note(result);
    }
    findings.note(exclusive(value, settings));
}

fn user(
    map: &Map,
    value: &Value,
    settings: &mut Authorization,
    findings: &mut Findings,
) -> Result<(), Problem> {
    let mut name = None;
    let mut secret = String::new();
    let errors_before = findings.errors.len();
    each_entry(map, findings, |key, entry: &Entry, _| {
        match key {
            "user" | "username" => name = Some(entry.value.string()?.to_owned()),
            "pass" | "password" => secret = password(&entry.value)?,
            _ if NOT_YET_USER.contains(&key) => return Err(not_yet(entry)),
            _ => return unknown(entry),
        }
        Ok(())
    });
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        if findings.errors.len() > errors_before {
            return Ok(()); // what is wrong has been said
        }
        return Err(value.at.problem("this user has no name: add user: NAME"));
    };
    if settings.users.iter().any(|known| known.name == name) {
        return Err(value
            .at
            .problem(format!("the user \"{name}\" is defined twice")));
    }
    settings.users.push(User {
        name,
        password: secret,
    });
    Ok(())
}

/// Only one of the three ways can be in force.
fn exclusive(value: &Value, settings: &Authorization) -> Result<(), Problem> {
    let single = settings.user.is_some() || settings.password.is_some();
    let text = if single && settings.token.is_some() {
        "cannot have a user and a token"
    } else if single && !settings.users.is_empty() {
        "cannot have a single user and a list of users"
    } else if settings.token.is_some() && !settings.users.is_empty() {
        "cannot have a token and a list of users"
    } else if settings.user.is_none() && settings.password.is_some() {
        "a password needs a user"
    } else {
        return Ok(());
    };
    Err(value.at.problem(text))
}

/// A password or token. Hashed ones are refused: compared as they are, nobody could ever log in.
fn password(value: &Value) -> Result<String, Problem> {
    let text = value.string()?;
    if is_hashed(text) {
        return Err(value
            .at
            .problem("passwords hashed with bcrypt are not supported yet"));
    }
    Ok(text.to_owned())
}

/// Here a bare number is seconds by definition, so that nobody need be warned.
fn timeout(value: &Value, warnings: &mut Vec<Problem>) -> Result<Duration, Problem> {
    match value.kind {
        Kind::Integer(_) => Ok(Duration::from_secs(value.count()?)),
        _ => value.duration(warnings),
    }
}
