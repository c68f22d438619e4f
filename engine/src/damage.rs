//! What a damaged place takes with it: which messages of which streams, or which index.
//!
//! Every error of a read names the file and the offset. From the stream entries of the segment it follows what stood
//! there; nothing is guessed, and nothing beyond the damaged blocks is given up.

use std::fmt;
use std::path::Path;

use crate::error::Error;
use crate::message::StreamId;
use crate::segment::Segment;
use crate::segment::entry::{PartMeta, Present, StreamEntry, TableRef};
use crate::store::Store;

/// What cannot be read because of one damaged place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Affected {
    /// The messages of a stream in a range of sequences, those that were deleted since included.
    Messages {
        /// The stream.
        stream: StreamId,
        /// The first sequence of the damaged page.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// Where the subjects of a stream's messages are: the messages are there, questions by subject may fail.
    Subjects {
        /// The stream.
        stream: StreamId,
        /// The first sequence that the index covers.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// The entries of the streams of a segment, or the machine's records in it: the store does not open without them.
    Segment,
    /// The manifest: which segments are the store is not known, and the store does not open without it.
    Manifest,
    /// One copy of the manifest: nothing is lost, and maintenance writes it anew.
    ManifestCopy,
}

impl Affected {
    /// For people who know the streams by the names that `name` gives.
    fn tell(&self, name: &dyn Fn(StreamId) -> String) -> String {
        match self {
            Self::Messages {
                stream,
                first,
                last,
            } => format!("messages {first} to {last} of stream {}", name(*stream)),
            Self::Subjects {
                stream,
                first,
                last,
            } => format!(
                "the subject index of messages {first} to {last} of stream {}",
                name(*stream)
            ),
            Self::Segment => "the streams of the segment".to_owned(),
            Self::Manifest => "the list of the store's segments".to_owned(),
            Self::ManifestCopy => "one copy of the manifest; nothing is lost".to_owned(),
        }
    }
}

impl fmt::Display for Affected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tell(&|stream| stream.0.to_string()))
    }
}

/// One damaged place and what it takes with it.
#[derive(Debug, Clone)]
pub struct Damage {
    /// Names the file and the offset.
    pub error: Error,
    /// What cannot be read, in the order of the file; empty when nobody uses what stood there.
    pub affected: Vec<Affected>,
}

impl Damage {
    /// For people who know the streams by the names that `name` gives.
    #[must_use]
    pub fn tell(&self, name: &dyn Fn(StreamId) -> String) -> String {
        let affected: Vec<String> = self.affected.iter().map(|one| one.tell(name)).collect();
        match affected.as_slice() {
            [] => self.error.to_string(),
            affected => format!("{}; affected: {}", self.error, affected.join(", ")),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tell(&|stream| stream.0.to_string()))
    }
}

/// What a stream has between `from` and `to` of a file.
fn of_part(
    stream: StreamId,
    part: &PartMeta,
    tables: &[TableRef],
    from: u64,
    to: u64,
    out: &mut Vec<Affected>,
) {
    let hits = |start: u64, len: u64| start < to && start + len > from;
    let mut pages_end = 0;
    for (at, page) in part.pages.iter().enumerate() {
        let len = u64::from(page.rows_len) + u64::from(page.body_len);
        pages_end = page.offset + len;
        if hits(page.offset, len) {
            let next = part.pages.get(at + 1);
            out.push(Affected::Messages {
                stream,
                first: page.first_seq,
                last: next.map_or(part.last_seq, |next| next.first_seq - 1),
            });
        }
    }
    // Posting lists lie between the pages and the subject table.
    let table = tables
        .iter()
        .any(|table| hits(table.block.offset, table.block.len.into()));
    let first_table = tables.first().map_or(0, |table| table.block.offset);
    let lists = !part.pages.is_empty() && hits(pages_end, first_table.saturating_sub(pages_end));
    if table || lists {
        let (first, last) = (part.first_seq, part.last_seq);
        out.push(Affected::Subjects {
            stream,
            first,
            last,
        });
    }
}

impl Segment {
    /// What stood between `from` and `to`, by the segment's own entries.
    pub(crate) fn affected(&self, from: u64, to: u64) -> Vec<Affected> {
        let mut out = Vec::new();
        let mut each = |StreamEntry { id, present }: StreamEntry| {
            if let Some(Present { part, tables, .. }) = present {
                of_part(id, &part, &tables, from, to, &mut out);
            }
            Ok(())
        };
        if self.entries(&mut each).is_err() || self.is_index(from, to) {
            out.push(Affected::Segment);
        }
        out
    }
}

impl Store {
    /// What an error of a read takes with it. From memory: O(pages of the file's parts).
    #[must_use]
    pub fn describe(&self, error: &Error) -> Damage {
        let mut affected = Vec::new();
        if let Error::Corrupt { file, offset, .. } = error {
            self.affected_at(file, *offset, &mut affected);
        }
        Damage {
            error: error.clone(),
            affected,
        }
    }

    fn affected_at(&self, file: &Path, offset: u64, out: &mut Vec<Affected>) {
        if *file == self.dir.join(crate::manifest::MANIFEST_NAME) {
            out.push(Affected::ManifestCopy);
        }
        let mut segments = self.upkeep.segments.iter().map(|state| &state.segment);
        if segments.any(|segment| segment.path() == file && segment.is_index(offset, offset + 1)) {
            out.push(Affected::Segment);
        }
        for (&id, stream) in &self.streams {
            let parts = stream.parts.iter().chain(&stream.bare);
            for part in parts.filter(|part| part.segment.path() == file) {
                let (meta, tables) = part.places();
                of_part(id, meta, tables, offset, offset + 1, out);
            }
        }
    }
}
