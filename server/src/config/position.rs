//! Where something stands in a configuration file, and what is wrong there.

use std::fmt;
use std::sync::Arc;

/// A place in a configuration file (or in a variable of the environment). Lines and columns count from one;
/// a column is a character, not a byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The file as the user named it, or `$NAME` for a variable of the environment.
    pub file: Arc<str>,
    /// Line, from one; 0 means the file as a whole.
    pub line: u32,
    /// Character within the line, from one.
    pub column: u32,
}

/// One thing that is wrong in a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {text}")]
pub struct Problem {
    /// Where.
    pub at: Position,
    /// What, and if we know it: what to do.
    pub text: String,
}

impl Position {
    /// The problem `text` at this place.
    pub fn problem(&self, text: impl Into<String>) -> Problem {
        Problem {
            at: self.clone(),
            text: text.into(),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}
