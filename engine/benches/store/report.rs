//! Rows of figures, tables made of them, and their place in the documentation.

use std::fmt::{self, Write as _};
use std::path::Path;

use halyard_runtime::disk::{Disk, OpenMode, RealDisk};
use halyard_runtime::measure;

const BEGIN: &str = "<!-- cargo bench -p halyard-engine: begin -->";
const END: &str = "<!-- cargo bench -p halyard-engine: end -->";

/// Named figures, in order. Printed one a line, with a tab between name and figure.
#[derive(Debug, Default)]
pub(crate) struct Rows(Vec<(String, String)>);

impl Rows {
    pub(crate) fn add(&mut self, name: impl Into<String>, figure: impl fmt::Display) {
        let (name, figure) = (name.into(), figure.to_string());
        eprintln!("   {name}: {figure}");
        self.0.push((name, figure));
    }

    pub(crate) fn parse(text: &str) -> Self {
        let rows = text.lines().filter_map(|line| line.split_once('\t'));
        Self(
            rows.map(|(name, figure)| (name.into(), figure.into()))
                .collect(),
        )
    }

    pub(crate) fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    fn find(&self, name: &str) -> &str {
        let row = self.0.iter().find(|(have, _)| have == name);
        row.map_or("", |(_, figure)| figure)
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, figure) in &self.0 {
            writeln!(f, "{name}\t{figure}")?;
        }
        Ok(())
    }
}

/// The name of the last column, and what it says of a row.
pub(crate) type Note<'a> = (&'a str, &'a dyn Fn(&str) -> &'static str);

/// The tables of one run.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

impl Page {
    /// One line for each row name, one column for each set of rows, and what `note` says of a row in the last column.
    pub(crate) fn table(
        &mut self,
        title: &str,
        columns: &[(String, Rows)],
        note: Option<Note<'_>>,
    ) {
        let mut line = |cells: &[String]| writeln!(self.0, "| {} |", cells.join(" | ")).unwrap();
        let mut head = vec![title.to_owned()];
        head.extend(columns.iter().map(|(name, _)| name.clone()));
        head.extend(note.map(|(name, _)| name.to_owned()));
        line(&head);
        line(&vec!["---".to_owned(); head.len()]);
        let first = columns.first().map_or(&[][..], |(_, rows)| &rows.0);
        for (name, _) in first {
            let mut cells = vec![name.clone()];
            cells.extend(columns.iter().map(|(_, rows)| rows.find(name).to_owned()));
            cells.extend(note.map(|(_, note)| note(name).to_owned()));
            line(&cells);
        }
        self.0.push('\n');
    }

    /// Puts the tables between the markers of a file of the repository.
    pub(crate) fn write_into(&self, name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
        let text = String::from_utf8(RealDisk.read(&path).unwrap()).unwrap();
        let (head, rest) = text.split_once(BEGIN).expect("the begin marker");
        let (_, tail) = rest.split_once(END).expect("the end marker");
        let text = format!("{head}{BEGIN}\n{self}{END}{tail}");
        let file = RealDisk.open(&path, OpenMode::ReadWrite).unwrap();
        file.set_len(0).unwrap();
        file.write_at(text.as_bytes(), 0).unwrap();
    }
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = measure::load_average().unwrap();
        writeln!(
            f,
            "Times are CPU; wall (lowest-highest of the rounds). Load average at the end of the run: {load:.1}. Build: {}.\n",
            if cfg!(debug_assertions) {
                "DEBUG"
            } else {
                "release"
            },
        )?;
        f.write_str(&self.0)
    }
}
