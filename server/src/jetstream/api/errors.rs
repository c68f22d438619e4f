//! What the JetStream API answers when it refuses: a code, a number that clients test, and a text.
//!
//! The kinds are constants of [`table`](super::error_table); a refusal is a *value* in a reply, never a failure of
//! the server.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use super::error_table as table;

/// One line of the table: a kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorKind {
    /// The number that clients test, 10002 and up.
    pub err_code: u16,
    /// What HTTP would call it: 400, 404, 500, 503.
    pub code: u16,
    /// The text, with at most one `{...}` for a detail.
    pub text: &'static str,
}

impl ErrorKind {
    /// A line of the table.
    #[must_use]
    pub const fn new(err_code: u16, code: u16, text: &'static str) -> Self {
        Self {
            err_code,
            code,
            text,
        }
    }

    /// The refusal with the table's text as it stands.
    #[must_use]
    pub const fn error(self) -> ApiError {
        ApiError {
            code: self.code,
            err_code: self.err_code,
            description: Cow::Borrowed(self.text),
        }
    }

    /// The refusal with `detail` in the place of the text's `{...}` (of the first, if there are more).
    #[must_use]
    pub fn with(self, detail: impl std::fmt::Display) -> ApiError {
        let description = match (self.text.find('{'), self.text.find('}')) {
            (Some(open), Some(close)) if open < close => {
                let (before, after) = (&self.text[..open], &self.text[close + 1..]);
                Cow::Owned(format!("{before}{detail}{after}"))
            }
            _ => Cow::Borrowed(self.text),
        };
        ApiError {
            code: self.code,
            err_code: self.err_code,
            description,
        }
    }
}

/// A refusal, as it stands in a reply's `error` member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{description} ({err_code})")]
pub struct ApiError {
    /// What HTTP would call it.
    pub code: u16,
    /// The number that clients test.
    pub err_code: u16,
    /// The text that people read.
    pub description: Cow<'static, str>,
}

impl From<ErrorKind> for ApiError {
    fn from(kind: ErrorKind) -> Self {
        kind.error()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_are_the_checked_in_table() {
        let lines = include_str!("errors.tsv").lines().skip(1);
        let mut count = 0;
        for (line, kind) in lines.zip(table::ALL) {
            let mut columns = line.split('\t');
            assert_eq!(columns.next(), Some(kind.err_code.to_string().as_str()));
            assert_eq!(
                columns.next(),
                Some(kind.code.to_string().as_str()),
                "{line}"
            );
            assert_eq!(columns.nth(1), Some(kind.text), "{line}");
            count += 1;
        }
        assert_eq!(count, table::ALL.len());
        assert_eq!(count, include_str!("errors.tsv").lines().count() - 1);
    }

    #[test]
    fn a_detail_takes_the_place_of_the_braces() {
        assert_eq!(
            table::STREAM_WRONG_LAST_SEQUENCE.with(7).description,
            "wrong last sequence: 7"
        );
        assert_eq!(
            table::STREAM_INVALID_CONFIG.with("max age").description,
            "max age"
        );
        assert_eq!(
            table::BAD_REQUEST.with("ignored").description,
            "bad request"
        );
    }
}
