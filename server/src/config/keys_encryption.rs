//! The keys of the `jetstream` block that set encryption at rest. No message here shows a value of theirs.

use super::position::{Position, Problem};
use halyard_format::Cipher;

use super::settings::{Encryption, Secret};
use super::value::{Entry, Kind};

/// Spellings of the key, of the previous key, and of the cipher.
const KEY: &[&str] = &["key", "ek", "encryption_key"];
const PREVIOUS: &[&str] = &["prev_key", "prev_ek", "prev_encryption_key"];
const CIPHER: &str = "cipher";

/// Whether the value of a key of the `jetstream` block must not be shown.
pub(super) fn is_secret(key: &str) -> bool {
    let is = |names: &[&str]| names.iter().any(|name| key.eq_ignore_ascii_case(name));
    is(KEY) || is(PREVIOUS)
}

/// What was found of encryption in a block, and where.
#[derive(Default)]
pub(super) struct Found {
    key: Option<(Secret, Position)>,
    previous: Option<(Secret, Position)>,
    cipher: Option<(Cipher, Position)>,
}

impl Found {
    /// Takes an entry if it is one of ours: `Ok(true)` then.
    pub(super) fn take(&mut self, key: &str, entry: &Entry) -> Result<bool, Problem> {
        let place = match key {
            _ if KEY.contains(&key) => &mut self.key,
            _ if PREVIOUS.contains(&key) => &mut self.previous,
            CIPHER => {
                self.cipher = Some((cipher(entry)?, entry.at.clone()));
                return Ok(true);
            }
            _ => return Ok(false),
        };
        let found = secret(entry)?;
        if place.as_ref().is_some_and(|(known, _)| *known != found) {
            let what = "this key is set twice, to different values";
            return Err(entry.at.problem(what));
        }
        *place = Some((found, entry.at.clone()));
        Ok(true)
    }

    /// All of it together: nothing is ignored.
    pub(super) fn finish(self, is_enabled: bool) -> Result<Option<Encryption>, Problem> {
        let first = self.key.as_ref().map(|(_, at)| at);
        let first = first
            .or(self.previous.as_ref().map(|(_, at)| at))
            .or(self.cipher.as_ref().map(|(_, at)| at));
        if let Some(at) = first.filter(|_| !is_enabled) {
            return Err(at.problem(
                "encryption is set up, but JetStream is off here: nothing would be encrypted",
            ));
        }
        let Some((key, _)) = self.key else {
            let without = |what: &str, at: &Position| {
                Err(at.problem(format!("{what} needs a key: nothing would be encrypted")))
            };
            return match (&self.previous, &self.cipher) {
                (Some((_, at)), _) => without("a previous key", at),
                (None, Some((_, at))) => without("a cipher", at),
                (None, None) => Ok(None),
            };
        };
        if let Some((previous, at)) = &self.previous
            && *previous == key
        {
            return Err(at.problem("the previous key is the key itself"));
        }
        Ok(Some(Encryption {
            key,
            previous: self.previous.map(|(secret, _)| secret),
            cipher: self.cipher.map(|(cipher, _)| cipher).unwrap_or_default(),
        }))
    }
}

fn secret(entry: &Entry) -> Result<Secret, Problem> {
    let problem = |what: &str| Err(entry.at.problem(format!("\"{}\" {what}", entry.key)));
    let Ok(text) = entry.value.string() else {
        return problem("must be a string: put it in quotes");
    };
    if text.is_empty() {
        return problem(
            "is empty: an empty key protects nothing; remove it to keep data in the clear",
        );
    }
    Ok(Secret(text.to_owned()))
}

fn cipher(entry: &Entry) -> Result<Cipher, Problem> {
    match &entry.value.kind {
        Kind::String(text) => match text.to_ascii_lowercase().as_str() {
            "chacha" | "chachapoly" => Ok(Cipher::ChaCha20Poly1305),
            "aes" => Ok(Cipher::Aes256Gcm),
            _ => Err(entry.value.at.problem(format!(
                "unknown cipher \"{text}\": use chacha (or chachapoly) or aes"
            ))),
        },
        _ => Err(entry
            .value
            .at
            .problem("expected one of the ciphers chacha, chachapoly and aes")),
    }
}
