//! Any backup, checked: bytes of a compressed stream in, items out that may go into the log.
//!
//! What is checked here, whatever wrote the archive: the stream's counters can be; messages rise and lie inside what the
//! counters say, in number and bytes too; subjects are subjects and header blocks are header blocks; consumers have
//! names of their own. Fewer messages than stated are taken: a server that deletes while it makes a backup writes such
//! ones. An old server's archive may hold messages beyond its state (they came later, or a limit removed them); they are
//! left out.

use std::collections::BTreeSet;

use crate::item::{Consumer, Item, Message, Refused, Stated};
use crate::{archive, legacy, s2};

/// Bytes of all consumers of one backup at most: they are kept until the messages are there.
const CONSUMER_BYTES_MAX: usize = 64 << 20;
/// What a message counts for beside its bytes, at least: the smallest overhead of any storage.
const COUNTED_BYTES_MIN: u64 = 16;

/// What the server that restores takes.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Whether this is the subject of a message.
    pub is_subject: fn(&[u8]) -> bool,
    /// Bytes of a header block at most.
    pub headers_bytes_max: usize,
    /// The highest sequence.
    pub sequence_max: u64,
}

/// What an archive looks like.
#[derive(Debug)]
enum Format {
    /// Too little has come to tell.
    Unknown(Vec<u8>),
    Archive(archive::Reader),
    Legacy(Box<legacy::Reader>),
}

/// What comes next of a backup.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// This; there may be more.
    Item(Item),
    /// A piece of work was done, call again: a chance for others to run.
    Again,
    /// More bytes are needed.
    More,
}

/// Reads a backup as it comes in pieces.
#[derive(Debug)]
pub struct Importer {
    rules: Rules,
    decoder: s2::Decoder,
    block: Vec<u8>,
    format: Format,
    /// The counters that came with the request: those of an archive of an old server.
    outside: Option<Stated>,
    stated: Option<Stated>,
    last_seq: u64,
    messages: u64,
    bytes: u64,
    consumers: BTreeSet<String>,
    consumer_bytes: usize,
}

impl Importer {
    /// Of a backup whose request states these counters.
    #[must_use]
    pub fn new(rules: Rules, outside: Option<Stated>) -> Self {
        Self {
            rules,
            decoder: s2::Decoder::default(),
            block: Vec::new(),
            format: Format::Unknown(Vec::new()),
            outside,
            stated: None,
            last_seq: 0,
            messages: 0,
            bytes: 0,
            consumers: BTreeSet::new(),
            consumer_bytes: 0,
        }
    }

    /// Takes the next bytes. Call [`Importer::step`] until it needs more before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    /// What comes next. Memory is bounded by one item and one block of the compressed stream.
    ///
    /// # Errors
    /// The backup cannot be restored, and why.
    pub fn step(&mut self) -> Result<Step, Refused> {
        let next = match &mut self.format {
            Format::Unknown(_) => None,
            Format::Archive(reader) => reader.read()?,
            Format::Legacy(reader) => reader.read()?,
        };
        if let Some(item) = next {
            return Ok(self.check(item)?.map_or(Step::Again, Step::Item));
        }
        let mut block = std::mem::take(&mut self.block);
        let more = self.decoder.next(&mut block);
        self.block = block;
        if !more? {
            return Ok(Step::More);
        }
        match &mut self.format {
            Format::Unknown(held) => {
                held.extend_from_slice(&self.block);
                if held.len() >= archive::MAGIC.len() {
                    let held = std::mem::take(held);
                    self.begin(&held)?;
                }
            }
            Format::Archive(reader) => reader.push(&self.block),
            Format::Legacy(reader) => reader.push(&self.block),
        }
        Ok(Step::Again)
    }

    /// The last bytes have come: what the backup states.
    ///
    /// # Errors
    /// It is cut off.
    pub fn finish(&self) -> Result<Stated, Refused> {
        let ended = match &self.format {
            Format::Unknown(_) => false,
            Format::Archive(reader) => reader.has_ended(),
            Format::Legacy(reader) => reader.has_ended(),
        };
        if !ended || !self.decoder.is_at_end() {
            return Err(Refused::because("the backup is cut off"));
        }
        self.stated
            .ok_or(Refused::because("the archive holds no state"))
    }

    fn begin(&mut self, first: &[u8]) -> Result<(), Refused> {
        if first.starts_with(&archive::MAGIC) {
            let mut reader = archive::Reader::default();
            reader.push(first);
            self.format = Format::Archive(reader);
            return Ok(());
        }
        let stated = self.outside.ok_or(Refused::because(
            "a backup of a server before 2.15 needs the stream's state in the request",
        ))?;
        self.rules.check_stated(&stated)?;
        self.stated = Some(stated);
        let mut reader = legacy::Reader::default();
        reader.push(first);
        self.format = Format::Legacy(Box::new(reader));
        Ok(())
    }

    /// The item, if it is to be restored.
    fn check(&mut self, item: Item) -> Result<Option<Item>, Refused> {
        match &item {
            Item::Stated(_) if self.stated.is_some() => {
                return Err(Refused::because("the archive holds two states"));
            }
            Item::Stated(stated) => {
                self.rules.check_stated(stated)?;
                self.stated = Some(*stated);
            }
            Item::Consumer(consumer) => self.check_consumer(consumer)?,
            Item::Deleted(seq) if *seq > self.last_seq => return Ok(None),
            Item::Deleted(_) => {}
            Item::Message(message) => {
                if !self.check_message(message)? {
                    return Ok(None);
                }
            }
        }
        Ok(Some(item))
    }

    fn check_consumer(&mut self, consumer: &Consumer) -> Result<(), Refused> {
        if !self.consumers.insert(consumer.name.clone()) {
            let text = format!("the archive holds consumer {:?} twice", consumer.name);
            return Err(Refused::with(text));
        }
        let state = consumer.state.as_ref();
        let entries = state.map_or(0, |state| {
            state.pending.len() + state.redelivered.len() + state.first.len()
        });
        self.consumer_bytes += consumer.name.len() + 1024 + entries * 48;
        if self.consumer_bytes > CONSUMER_BYTES_MAX {
            return Err(Refused::because("the archive holds too many consumers"));
        }
        Ok(())
    }

    /// Whether the message is to be restored.
    fn check_message(&mut self, message: &Message) -> Result<bool, Refused> {
        let seq = message.seq;
        let is_legacy = matches!(self.format, Format::Legacy(_));
        let Some(stated) = self.stated else {
            return Err(Refused::because(
                "the archive holds messages before its state",
            ));
        };
        if seq <= self.last_seq {
            let last = self.last_seq;
            return Err(Refused::with(format!(
                "message {seq} comes after message {last}"
            )));
        }
        self.last_seq = seq;
        if !(stated.first_seq..=stated.last_seq).contains(&seq) {
            if is_legacy {
                return Ok(false);
            }
            return Err(Refused::with(format!(
                "message {seq} is not between the first and last of the state, {} and {}",
                stated.first_seq, stated.last_seq
            )));
        }
        if !(self.rules.is_subject)(message.subject()) {
            let subject = message.subject().escape_ascii();
            return Err(Refused::with(format!(
                "message {seq} has an invalid subject \"{subject}\""
            )));
        }
        self.rules.check_headers(message)?;
        self.messages += 1;
        self.bytes += message.record.len() as u64 + COUNTED_BYTES_MIN;
        if !is_legacy && (self.messages > stated.messages || self.bytes > stated.bytes) {
            return Err(Refused::with(format!(
                "the archive holds more than its state says: {} messages of {} bytes",
                stated.messages, stated.bytes
            )));
        }
        Ok(true)
    }
}

impl Rules {
    /// Whether the counters of a stream can be.
    ///
    /// # Errors
    /// What cannot be.
    pub fn check_stated(&self, stated: &Stated) -> Result<(), Refused> {
        let Stated {
            messages,
            bytes,
            first_seq,
            last_seq,
        } = *stated;
        let room = last_seq
            .checked_sub(first_seq.saturating_sub(1))
            .is_some_and(|room| messages <= room);
        let weighed = messages
            .checked_mul(COUNTED_BYTES_MIN)
            .is_some_and(|least| bytes >= least);
        if last_seq > self.sequence_max || (messages > 0 && !(room && weighed)) {
            return Err(Refused::with(format!(
                "its state cannot be: {messages} messages of {bytes} bytes between {first_seq} and {last_seq}"
            )));
        }
        Ok(())
    }

    fn check_headers(&self, message: &Message) -> Result<(), Refused> {
        let headers = message.headers();
        let is_block = headers.starts_with(b"NATS/1.0") && headers.ends_with(b"\r\n\r\n");
        if headers.is_empty() || (is_block && headers.len() <= self.headers_bytes_max) {
            return Ok(());
        }
        let seq = message.seq;
        Err(Refused::with(format!(
            "the headers of message {seq} are none, or too long"
        )))
    }
}
