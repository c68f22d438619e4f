//! Messages that should be there and are in no segment that can be read: what is said about them.
//!
//! It is the same text for every message of one gap, so that who tells damage once for each place tells a gap once.

use crate::error::Error;
use crate::segment::Part;

/// A segment that could not be opened, and the flushes that it covers.
#[derive(Debug, Clone)]
pub(crate) struct Lacking {
    pub(crate) lo: u64,
    pub(crate) hi: u64,
    pub(crate) error: Error,
}

/// What is known of a stream's messages for such an error.
pub(crate) struct Layers<'a> {
    /// First and last sequence of the stream.
    pub(crate) range: (u64, u64),
    pub(crate) parts: &'a [Part],
    pub(crate) lacking: &'a [Lacking],
}

impl Layers<'_> {
    /// No part holds `seq`, which is alive.
    #[cold]
    pub(crate) fn lost(&self, seq: u64) -> Error {
        let at = self.parts.partition_point(|part| part.last_seq() < seq);
        let before = at.checked_sub(1).and_then(|at| self.parts.get(at));
        let after = self.parts.get(at);
        let from = before.map_or(0, |part| part.last_seq() + 1);
        let to = after.map_or(u64::MAX, |part| part.first_seq().saturating_sub(1));
        let (from, to) = (from.max(self.range.0), to.min(self.range.1));
        let above = before.map_or(0, |part| part.segment.hi + 1);
        let below = after.map_or(u64::MAX, |part| part.segment.lo);
        let fits = |lacking: &&Lacking| lacking.lo >= above && lacking.hi < below;
        match self.lacking.iter().find(fits).map(|lacking| &lacking.error) {
            Some(Error::Corrupt { file, offset, what }) => Error::corrupt(
                file,
                *offset,
                format!("{what}; messages {from} to {to} are missing with it"),
            ),
            Some(other) => other.clone(),
            None => {
                let beside = before.or(after).map(|part| part.segment.path());
                let file = beside.unwrap_or_else(|| std::path::Path::new("segments"));
                let what = format!("messages {from} to {to} are in no segment");
                Error::corrupt(file, 0, what)
            }
        }
    }
}

impl Part {
    /// The page whose rows should hold `seq` does not.
    #[cold]
    pub(crate) fn lost(&self, page: usize, last_row: Option<u64>) -> Error {
        let (meta, _) = self.places();
        let here = meta.pages.get(page);
        let from = last_row.map_or(meta.first_seq, |last| last + 1);
        let next = meta.pages.get(page + 1);
        let to = next.map_or(meta.last_seq, |next| next.first_seq.saturating_sub(1));
        let what = format!("messages {from} to {to} are in none of its pages");
        let offset = here.map_or(0, |page| {
            page.offset + u64::from(page.rows_len) + u64::from(page.body_len)
        });
        Error::corrupt(self.segment.path(), offset, what)
    }
}
