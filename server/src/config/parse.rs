//! The grammar of the configuration language: words to a tree of values, with includes and variables resolved.
//!
//!   document   entries | '{' entries '}'
//!   entry      key [':' | '='] value end | 'include' path end
//!   end        line end | ',' | ';' | comment | before '}'
//!   value      map | list | string | number | bool | date | '$' name
//!
//! A variable is an entry of this block or an enclosing one, written earlier, or else one of the environment, whose text
//! is read as a value. What a hostile file could make us do is bounded: depth, files, values.
//! Pure: files and the environment come through [`Surroundings`].

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::position::{Position, Problem};
use super::scalar;
use super::scan::Scanner;
use super::value::{Entry, Kind, Map, Value};

/// Maps, lists and variables within each other. Deeper than any real file, shallower than our stack.
const DEPTH_MAX: u32 = 64;
/// Files that one configuration may include, each inclusion counted.
const INCLUDES_MAX: u32 = 256;
/// Values in all, what variables copied included: ends "billion laughs".
const VALUES_MAX: usize = 1_000_000;

/// What a configuration may refer to outside of its text.
pub trait Surroundings {
    /// The text of a file.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
}

/// Reads the file at `path` with all that it includes.
///
/// # Errors
/// What the file (or an included one) has wrong, and where. A file that cannot be read is an error of the file as a whole.
pub fn parse_file(path: &Path, surroundings: &dyn Surroundings) -> Result<Map, Problem> {
    let mut parser = Parser {
        surroundings,
        scopes: Vec::new(),
        depth: 0,
        includes: 0,
        values: 0,
    };
    let file: Arc<str> = path.to_string_lossy().into();
    let start = Position {
        file: Arc::clone(&file),
        line: 0,
        column: 0,
    };
    let text = surroundings
        .read(path)
        .map_err(|error| start.problem(format!("this file cannot be read: {error}")))?;
    parser.scopes.push(Map::default());
    parser.document(path, &mut Scanner::new(file, &text))?;
    let document = parser.scopes.pop();
    Ok(document.expect("what was pushed is there"))
}

struct Parser<'s> {
    surroundings: &'s dyn Surroundings,
    /// The maps that are being read, the outermost first.
    scopes: Vec<Map>,
    depth: u32,
    includes: u32,
    values: usize,
}

impl Parser<'_> {
    /// A whole file, its entries into the innermost scope.
    fn document(&mut self, path: &Path, scanner: &mut Scanner<'_>) -> Result<(), Problem> {
        // Editors of another world begin files with a byte order mark; it says nothing.
        scanner.eat('\u{feff}');
        scanner.skip_lines();
        let begin = scanner.position();
        if !scanner.eat('{') {
            return self.entries(path, scanner, None);
        }
        self.entries(path, scanner, Some(&begin))?;
        scanner.skip_lines();
        match scanner.peek() {
            None => Ok(()),
            Some(_) => Err(scanner
                .position()
                .problem("nothing may follow the closing }")),
        }
    }

    /// Entries up to the end of the file, or up to the `}` of the map that began at `opened`.
    fn entries(
        &mut self,
        path: &Path,
        scanner: &mut Scanner<'_>,
        opened: Option<&Position>,
    ) -> Result<(), Problem> {
        loop {
            scanner.skip_lines();
            match (scanner.peek(), opened) {
                (None, None) => return Ok(()),
                (None, Some(begin)) => return Err(begin.problem("this map has no closing }")),
                (Some('}'), Some(_)) => {
                    scanner.bump();
                    return Ok(());
                }
                (Some(_), _) => self.entry(path, scanner)?,
            }
            scanner.skip_spaces();
            match scanner.peek() {
                None | Some('\n') => {}
                Some(',' | ';') => {
                    scanner.bump();
                }
                Some('}') if opened.is_some() => {}
                Some(_) if scanner.at_comment() => {}
                Some(found) => {
                    return Err(scanner.position().problem(format!(
                        "expected the end of the line, a comma or a semicolon, found '{found}'"
                    )));
                }
            }
        }
    }

    fn entry(&mut self, path: &Path, scanner: &mut Scanner<'_>) -> Result<(), Problem> {
        let at = scanner.position();
        let first = scanner.peek();
        let is_quoted = matches!(first, Some('"' | '\''));
        let key = scanner.key()?;
        if key.is_empty() && !is_quoted {
            let found = first.unwrap_or(' ');
            return Err(at.problem(format!("expected a key, found '{found}'")));
        }
        let is_blank_next = matches!(scanner.peek(), Some(' ' | '\t'));
        scanner.skip_spaces();
        let has_sign = scanner.eat(':') || scanner.eat('=');
        if !is_quoted && !has_sign && is_blank_next && key.eq_ignore_ascii_case("include") {
            return self.include(path, scanner, &at);
        }
        scanner.skip_spaces();
        if scanner.peek() == Some('\n') || scanner.at_comment() {
            scanner.skip_lines();
            if !matches!(scanner.peek(), Some('{' | '[')) {
                return Err(at.problem(format!("\"{key}\" has no value")));
            }
        }
        let value = match scanner.peek() {
            None | Some(',' | ';' | '}' | ']') => {
                return Err(at.problem(format!("\"{key}\" has no value")));
            }
            Some(_) => self.value(path, scanner)?,
        };
        if let Some(scope) = self.scopes.last_mut() {
            scope.entries.push(Entry {
                key,
                at,
                value,
                used: Cell::new(false),
            });
        }
        Ok(())
    }

    /// `include "path"`: the entries of that file as if they stood here.
    fn include(
        &mut self,
        path: &Path,
        scanner: &mut Scanner<'_>,
        at: &Position,
    ) -> Result<(), Problem> {
        let named = match scanner.peek() {
            Some(quote @ ('"' | '\'')) => scanner.quoted(quote)?,
            _ => scanner.bare()?,
        };
        if named.is_empty() {
            return Err(at.problem("include needs the path of a file"));
        }
        self.includes += 1;
        if self.includes > INCLUDES_MAX {
            return Err(at.problem(format!(
                "more than {INCLUDES_MAX} files are included: does one include itself?"
            )));
        }
        let (target, text) = self.read_included(path, &named).map_err(|error| {
            at.problem(format!(
                "the included file \"{named}\" cannot be read: {error}"
            ))
        })?;
        self.deeper(at, |parser| {
            let file: Arc<str> = target.to_string_lossy().into();
            parser.document(&target, &mut Scanner::new(file, &text))
        })
    }

    /// Looks below the including file's directory, as NATS does even for an absolute path, then at the absolute path.
    fn read_included(&self, includer: &Path, named: &str) -> io::Result<(PathBuf, String)> {
        let directory = includer.parent().unwrap_or(Path::new(""));
        let named = Path::new(named);
        let below = named
            .strip_prefix("/")
            .or(named.strip_prefix("./"))
            .unwrap_or(named);
        let joined = directory.join(below);
        match self.surroundings.read(&joined) {
            Ok(text) => Ok((joined, text)),
            Err(_) if named.is_absolute() => Ok((named.to_owned(), self.surroundings.read(named)?)),
            Err(error) => Err(error),
        }
    }

    fn value(&mut self, path: &Path, scanner: &mut Scanner<'_>) -> Result<Value, Problem> {
        let at = scanner.position();
        self.count_values(1, &at)?;
        let kind = match scanner.peek() {
            Some('{') => {
                scanner.bump();
                self.scopes.push(Map::default());
                let read = self.deeper(&at, |parser| parser.entries(path, scanner, Some(&at)));
                let map = self.scopes.pop().expect("what was pushed is there");
                read?;
                Kind::Map(map)
            }
            Some('[') => self.deeper(&at, |parser| parser.list(path, scanner, &at))?,
            Some('(') => Kind::String(scanner.block()?),
            Some(quote @ ('"' | '\'')) => Kind::String(scanner.quoted(quote)?),
            _ => return self.bare(path, scanner, at),
        };
        Ok(Value {
            at,
            kind,
            raw: None,
        })
    }

    /// A list; the scanner stands on the `[`, which is at `begin`.
    fn list(
        &mut self,
        path: &Path,
        scanner: &mut Scanner<'_>,
        begin: &Position,
    ) -> Result<Kind, Problem> {
        scanner.bump();
        let mut values = Vec::new();
        loop {
            scanner.skip_lines();
            let at = scanner.position();
            match scanner.peek() {
                None => return Err(begin.problem("this list has no closing ]")),
                Some(']') => {
                    scanner.bump();
                    return Ok(Kind::List(values));
                }
                Some(found @ (',' | ';' | '}')) => {
                    return Err(at.problem(format!("expected a value or ], found '{found}'")));
                }
                Some(_) => values.push(self.value(path, scanner)?),
            }
            let line_ended = scanner.skip_lines();
            let at = scanner.position();
            match scanner.peek() {
                None | Some(']') => {}
                Some(',') => {
                    scanner.bump();
                }
                Some(_) if line_ended => {}
                Some(found) => {
                    return Err(at.problem(format!("expected a comma or ], found '{found}'")));
                }
            }
        }
    }

    /// A word without quotes: a variable, or what it looks like.
    fn bare(
        &mut self,
        path: &Path,
        scanner: &mut Scanner<'_>,
        at: Position,
    ) -> Result<Value, Problem> {
        let is_escaped = scanner.peek() == Some('\\');
        let word = scanner.bare()?;
        if word.is_empty() && !is_escaped {
            let found = scanner.peek().unwrap_or(' ');
            return Err(at.problem(format!("expected a value, found '{found}'")));
        }
        match word.strip_prefix('$') {
            Some(name) if !is_escaped && !is_bcrypt(&word) => self.variable(path, name, at),
            _ => Ok(Value {
                kind: scalar::classify(&word, &at)?,
                at,
                raw: None,
            }),
        }
    }

    /// The value of `$name`, which stands at `at`.
    fn variable(&mut self, path: &Path, name: &str, at: Position) -> Result<Value, Problem> {
        let scopes = self.scopes.iter().rev();
        let found = scopes
            .flat_map(|scope| scope.entries.iter().rev())
            .find(|entry| entry.key == name);
        if let Some(entry) = found {
            entry.used.set(true);
            let value = Value {
                at: at.clone(),
                ..entry.value.clone()
            };
            self.count_values(size(&value), &at)?;
            return Ok(value);
        }
        let Some(text) = self.surroundings.variable(name) else {
            return Err(at.problem(format!(
                "${name} is neither defined above nor a variable of the environment"
            )));
        };
        let file: Arc<str> = format!("${name}").into();
        let mut scanner = Scanner::new(file, &text);
        scanner.skip_lines();
        if scanner.peek().is_none() {
            return Ok(Value {
                at,
                kind: Kind::String(String::new()),
                raw: None,
            });
        }
        let value = self.deeper(&at, |parser| parser.value(path, &mut scanner))?;
        scanner.skip_lines();
        match scanner.peek() {
            None => Ok(Value {
                at,
                kind: value.kind,
                raw: Some(text),
            }),
            Some(_) => Err(at.problem(format!(
                "the environment's ${name} is more than one value: put quotes within it"
            ))),
        }
    }

    fn deeper<T>(
        &mut self,
        at: &Position,
        work: impl FnOnce(&mut Self) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        if self.depth >= DEPTH_MAX {
            return Err(at.problem(format!(
                "more than {DEPTH_MAX} maps, lists, files or variables within each other: is there a cycle?"
            )));
        }
        self.depth += 1;
        let result = work(self);
        self.depth -= 1;
        result
    }

    fn count_values(&mut self, count: usize, at: &Position) -> Result<(), Problem> {
        self.values = self.values.saturating_add(count);
        if self.values > VALUES_MAX {
            return Err(at.problem(format!("more than {VALUES_MAX} values")));
        }
        Ok(())
    }
}

/// `$2a$…` and its sisters are hashes of passwords, not variables.
fn is_bcrypt(word: &str) -> bool {
    let mut chars = word.chars();
    let begin = [chars.next(), chars.next(), chars.next(), chars.next()];
    matches!(
        begin,
        [Some('$'), Some('2'), Some('a' | 'b' | 'x' | 'y'), Some('$')]
    )
}

/// How many values a value is made of.
fn size(value: &Value) -> usize {
    match &value.kind {
        Kind::List(values) => 1 + values.iter().map(size).sum::<usize>(),
        Kind::Map(map) => {
            1 + map
                .entries
                .iter()
                .map(|entry| size(&entry.value))
                .sum::<usize>()
        }
        _ => 1,
    }
}
