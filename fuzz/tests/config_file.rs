//! Hostile configuration files: any text is read to its end in bounded time, ends in a tree or in an error with a place
//! inside a known file, and a tree that is written out again plainly is read as the same tree.

#![expect(
    clippy::panic,
    reason = "helpers of a test fail it with what they found"
)]

use std::fmt::Write;
use std::io;
use std::path::Path;

use halyard_server::config::{
    Config, Kind, Map, Problem, Surroundings, Value, apply, parse_duration, parse_file,
};

/// The file under test, which may include itself and another, in an environment with a few variables.
struct World<'a>(&'a str);

impl Surroundings for World<'_> {
    fn read(&self, path: &Path) -> io::Result<String> {
        match path.to_str() {
            Some("f") => Ok(self.0.to_owned()),
            Some("g") => Ok("A: 1\nB: [x, $A]\n".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "E" => Some("{k: [1kb, 'v']}".to_owned()),
            "C" => Some("$C".to_owned()),
            _ => None,
        }
    }
}

fn read(text: &str) -> Result<Map, Problem> {
    parse_file(Path::new("f"), &World(text))
}

/// Writes a tree in the plainest form of the language.
fn write_map(map: &Map, out: &mut String) {
    out.push_str("{\n");
    for entry in &map.entries {
        write_string(&entry.key, out);
        out.push_str(": ");
        write_value(&entry.value, out);
        out.push('\n');
    }
    out.push('}');
}

fn write_value(value: &Value, out: &mut String) {
    match &value.kind {
        Kind::Bool(value) => write!(out, "{value}").expect("a string"),
        Kind::Integer(value) => write!(out, "{value}").expect("a string"),
        // Never with an exponent, always with a point.
        Kind::Float(value) if value.fract() == 0.0 => write!(out, "{value}.0").expect("a string"),
        Kind::Float(value) => write!(out, "{value}").expect("a string"),
        Kind::Date(text) => out.push_str(text),
        Kind::String(text) => write_string(text, out),
        Kind::List(values) => {
            out.push('[');
            for value in values {
                write_value(value, out);
                out.push(',');
            }
            out.push(']');
        }
        Kind::Map(map) => write_map(map, out),
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            _ => out.push(char),
        }
    }
    out.push('"');
}

/// Whether two trees say the same, wherever it stands.
fn same(left: &Map, right: &Map) -> bool {
    let values = |l: &Value, r: &Value| match (&l.kind, &r.kind) {
        (Kind::Map(l), Kind::Map(r)) => same(l, r),
        (Kind::List(l), Kind::List(r)) => {
            let (mut left, mut right) = (String::new(), String::new());
            l.iter().for_each(|value| write_value(value, &mut left));
            r.iter().for_each(|value| write_value(value, &mut right));
            l.len() == r.len() && left == right
        }
        (l, r) => l == r,
    };
    left.entries.len() == right.entries.len()
        && left
            .entries
            .iter()
            .zip(&right.entries)
            .all(|(l, r)| l.key == r.key && values(&l.value, &r.value))
}

fn examine(text: &str) {
    match read(text) {
        Ok(map) => {
            let mut plain = String::new();
            write_map(&map, &mut plain);
            let again = read(&plain).unwrap_or_else(|error| panic!("{error} in {plain}"));
            assert!(
                same(&map, &again),
                "{text:?} was read again as something else: {plain}"
            );
            let mut config = Config::default();
            for problem in apply(&map, &mut config).errors {
                assert_inside(&problem, text);
            }
        }
        Err(problem) => assert_inside(&problem, text),
    }
}

/// The place of an error can be found: in the file, in the included one, or in a variable.
fn assert_inside(problem: &Problem, text: &str) {
    let at = &problem.at;
    assert!(!problem.text.is_empty());
    assert!(at.line > 0 && at.column > 0);
    match &*at.file {
        "f" => assert!(
            (at.line as usize) <= text.split('\n').count(),
            "{problem} is beyond the end of {text:?}"
        ),
        other => assert!(other == "g" || other.starts_with('$'), "{problem}"),
    }
}

#[test]
fn any_text() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        examine(&text);
        let _ = parse_duration(&text);
    });
}

/// Texts of the language's own signs reach deeper than random bytes do.
#[test]
fn likely_texts() {
    const PIECES: [&str; 40] = [
        "a",
        "port",
        "include",
        "g",
        "f",
        "jetstream",
        "authorization",
        "users",
        "$A",
        "$E",
        "$C",
        "A",
        " ",
        " ",
        ": ",
        " = ",
        "{",
        "}",
        "[",
        "]",
        ",",
        ";",
        "\n",
        "\n",
        "#",
        "//",
        "\"",
        "'",
        "\\x41",
        "\\",
        "(",
        ")",
        "1",
        "-1.5",
        "10kb",
        "yes",
        "2m",
        "2014-01-02T10:11:12Z",
        "é",
        "$2a$x",
    ];
    bolero::check!().with_type::<Vec<u8>>().for_each(|choice| {
        let pieces = choice
            .iter()
            .map(|byte| PIECES[usize::from(*byte) % PIECES.len()]);
        examine(&pieces.collect::<String>());
    });
}
