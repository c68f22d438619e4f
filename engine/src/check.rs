//! Cross-checks everything that the store keeps twice. Reads every row and posting list: for tests, the simulator and
//! offline inspection.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::message::FOREVER;
use crate::store::Store;
use crate::stream::Stream;

/// What one subject adds up to.
#[derive(Default)]
struct Found {
    messages: u64,
    first: u64,
    last: u64,
}

impl Store {
    /// Compares counters, subject index, dead runs, expiries and posting lists with the messages themselves.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the first contradiction, or what reading met.
    pub fn check(&self) -> Result<(), Error> {
        for stream in self.streams.values() {
            self.check_stream(stream)?;
        }
        Ok(())
    }

    fn contradiction(&self, stream: &Stream, what: String) -> Error {
        Error::corrupt(&self.dir, 0, format!("stream {}: {what}", stream.id.0))
    }

    fn check_stream(&self, stream: &Stream) -> Result<(), Error> {
        stream
            .subjects
            .check()
            .map_err(|what| self.contradiction(stream, what))?;
        let mut previous_end = 0;
        for part in &stream.parts {
            if part.first_seq() <= previous_end {
                return Err(self.contradiction(stream, "parts overlap".into()));
            }
            previous_end = part.last_seq();
        }
        let (mut messages, mut bytes, mut expiries) = (0, 0, 0);
        let mut subjects: BTreeMap<Vec<u8>, Found> = BTreeMap::new();
        let mut at = stream.first_seq;
        while let Some(seq) = stream.first_at_or_after(at) {
            let message = stream.get(&self.io, seq)?;
            let message = message
                .ok_or_else(|| self.contradiction(stream, format!("message {seq} is missing")))?;
            messages += 1;
            bytes += message.size();
            if let Some(expires) = message.expires {
                let is_known = if expires == FOREVER {
                    stream.ageless.contains(seq)
                } else {
                    expiries += 1;
                    stream.expiry.contains(&(expires, seq))
                };
                if !is_known {
                    return Err(self
                        .contradiction(stream, format!("the expiry of message {seq} is missing")));
                }
            }
            let found = subjects.entry(message.subject().to_vec()).or_default();
            if found.messages == 0 {
                found.first = seq;
            }
            if message.expires != Some(FOREVER) && stream.ageless.contains(seq) {
                return Err(
                    self.contradiction(stream, format!("message {seq} does not live for ever"))
                );
            }
            found.messages += 1;
            found.last = seq;
            at = seq + 1;
        }
        let counted = (messages, bytes, expiries, subjects.len());
        let kept = (
            stream.messages,
            stream.bytes,
            stream.expiry.len(),
            stream.subjects.len(),
        );
        if counted != kept {
            return Err(self.contradiction(stream, format!("counted {counted:?}, kept {kept:?}")));
        }
        self.check_subjects(stream, &subjects)
    }

    fn check_subjects(
        &self,
        stream: &Stream,
        found: &BTreeMap<Vec<u8>, Found>,
    ) -> Result<(), Error> {
        for (name, found) in found {
            let named = String::from_utf8_lossy(name);
            let Some(number) = stream.subjects.find(name) else {
                return Err(self.contradiction(stream, format!("subject {named} is not indexed")));
            };
            let totals = stream.totals_of(&self.io, number)?;
            let kept = (totals.messages, totals.first_seq, totals.last_seq);
            if kept != (found.messages, found.first, found.last) {
                return Err(
                    self.contradiction(stream, format!("subject {named} is kept as {kept:?}"))
                );
            }
            let mut posted = 0;
            stream.postings_of(&self.io, number, 0, u64::MAX, &mut |_| {
                posted += 1;
                true
            })?;
            if posted != found.messages {
                return Err(
                    self.contradiction(stream, format!("subject {named} has {posted} postings"))
                );
            }
        }
        Ok(())
    }
}
