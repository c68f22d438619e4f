//! Characters of a configuration file to words: blanks, comments, keys and the four forms of strings.
//!
//! The language has no tokens that mean the same everywhere (`a#b` is one word, `a #b` is a word and a comment), so the
//! parser says what it expects next and the scanner reads just that.
//!
//!   bare      ends at a blank, `,` `;` `]` `}` or the end; escapes as in "double"
//!   'single'  everything up to the next ', line ends included, no escapes
//!   "double"  \xXX \t \n \r \" \\ and line ends as they are
//!   ( block   everything up to a line that is only `)`

use std::str::Chars;
use std::sync::Arc;

use super::position::{Position, Problem};

/// Reads a text from its beginning to its end, never back.
pub(super) struct Scanner<'a> {
    rest: Chars<'a>,
    file: Arc<str>,
    line: u32,
    column: u32,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(file: Arc<str>, text: &'a str) -> Self {
        Self {
            rest: text.chars(),
            file,
            line: 1,
            column: 1,
        }
    }

    /// Where the next character stands.
    pub(super) fn position(&self) -> Position {
        Position {
            file: Arc::clone(&self.file),
            line: self.line,
            column: self.column,
        }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn peek_second(&self) -> Option<char> {
        self.rest.clone().nth(1)
    }

    /// Takes the next character.
    pub(super) fn bump(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        if next == '\n' {
            self.line = self.line.saturating_add(1);
            self.column = 1;
        } else {
            self.column = self.column.saturating_add(1);
        }
        Some(next)
    }

    /// Takes the next character if it is `wanted`.
    pub(super) fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.bump();
        }
        found
    }

    /// Skips blanks within the line.
    pub(super) fn skip_spaces(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\r')) {
            self.bump();
        }
    }

    /// Skips blanks, line ends and comments. Returns whether a line ended.
    pub(super) fn skip_lines(&mut self) -> bool {
        let mut line_ended = false;
        loop {
            self.skip_spaces();
            if self.peek() == Some('\n') {
                self.bump();
                line_ended = true;
            } else if self.at_comment() {
                self.skip_comment();
            } else {
                return line_ended;
            }
        }
    }

    /// Whether a comment begins here; only meaningful where a word may begin.
    pub(super) fn at_comment(&self) -> bool {
        match self.peek() {
            Some('#') => true,
            Some('/') => self.peek_second() == Some('/'),
            _ => false,
        }
    }

    fn skip_comment(&mut self) {
        while !matches!(self.peek(), None | Some('\n')) {
            self.bump();
        }
    }

    /// A key: quoted, or up to a blank or the sign that begins its value.
    pub(super) fn key(&mut self) -> Result<String, Problem> {
        if let Some(quote @ ('"' | '\'')) = self.peek() {
            return self.quoted(quote);
        }
        let mut key = String::new();
        while let Some(next) = self.peek() {
            if next.is_whitespace() || matches!(next, ':' | '=' | '{' | '[' | '}' | ']' | ',' | ';')
            {
                break;
            }
            self.bump();
            key.push(next);
        }
        Ok(key)
    }

    /// A string in quotes; the scanner stands on the first one.
    pub(super) fn quoted(&mut self, quote: char) -> Result<String, Problem> {
        let begin = self.position();
        self.bump();
        let mut text = String::new();
        loop {
            let at = self.position();
            match self.bump() {
                None => return Err(begin.problem(format!("this string has no closing {quote}"))),
                Some(next) if next == quote => return Ok(text),
                Some('\\') if quote == '"' => text.push(self.escape(&at)?),
                Some(next) => text.push(next),
            }
        }
    }

    /// A string without quotes, possibly empty.
    pub(super) fn bare(&mut self) -> Result<String, Problem> {
        let mut text = String::new();
        while let Some(next) = self.peek() {
            if next.is_whitespace() || matches!(next, ',' | ';' | ']' | '}') {
                break;
            }
            let at = self.position();
            self.bump();
            text.push(if next == '\\' {
                self.escape(&at)?
            } else {
                next
            });
        }
        Ok(text)
    }

    /// What follows a backslash, which stood at `at`.
    fn escape(&mut self, at: &Position) -> Result<char, Problem> {
        match self.bump() {
            Some('t') => Ok('\t'),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('"') => Ok('"'),
            Some('\\') => Ok('\\'),
            Some('x') => {
                let digits = [self.bump(), self.bump()].map(|c| c.and_then(|c| c.to_digit(16)));
                let [Some(high), Some(low)] = digits else {
                    return Err(at.problem("\\x needs two hexadecimal digits"));
                };
                Ok(char::from_u32(high * 16 + low).unwrap_or(char::REPLACEMENT_CHARACTER))
            }
            _ => Err(at.problem(r#"only these escapes exist: \xXX \t \n \r \" \\"#)),
        }
    }

    /// A block of text; the scanner stands on the `(`.
    pub(super) fn block(&mut self) -> Result<String, Problem> {
        let begin = self.position();
        self.bump();
        let mut text = String::new();
        let mut line = String::new();
        let mut first = true;
        loop {
            match self.peek() {
                // The line end behind the `)` is left for the caller, who looks for one after each value.
                None | Some('\n') if !first && line.trim_end() == ")" => return Ok(text),
                None => return Err(begin.problem("this block has no closing line that is only )")),
                Some('\n') => {
                    text.push_str(&line);
                    text.push('\n');
                    line.clear();
                    first = false;
                }
                Some(other) => line.push(other),
            }
            self.bump();
        }
    }
}
