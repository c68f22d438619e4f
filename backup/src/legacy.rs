//! The archive inside a backup of nats-server up to 2.14: a tar of the files of its store.
//!
//! ```text
//! meta.inf, meta.sum        the stream's configuration as JSON, and its checksum; they come first
//! msgs/<n>.blk              messages, in rising order over all blocks (`block`)
//! msgs/index.db             among others, what limits removed (`block`)
//! obs/<consumer>/meta.inf, meta.sum, o.dat      configuration, checksum, state (`consumer`)
//! ```
//!
//! The counters are not in it; they come with the request to restore. Files of other names are refused.

use serde::Deserialize;

use crate::block::{self, checksum_text, read_index};
use crate::consumer::State;
use crate::item::{Consumer, DOCUMENT_BYTES_MAX, Item, Refused};
use crate::tar::{Event, Walker};

/// An index longer than this is passed over: it only helps.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// Which file is being read.
#[derive(Debug)]
enum File {
    Meta,
    Sum,
    Block(Box<block::Reader>),
    Index,
    ConsumerMeta(String),
    ConsumerSum(String),
    ConsumerState(String),
    /// Of no interest.
    Passed,
}

/// A consumer of which not all files have come.
#[derive(Debug)]
struct Partial {
    name: String,
    meta: Vec<u8>,
    summed: bool,
    state: Option<State>,
}

/// Reads an archive as it comes in pieces.
#[derive(Debug, Default)]
pub struct Reader {
    walker: Walker,
    pending: Vec<u8>,
    at: usize,
    file: Option<File>,
    /// What a small file holds so far.
    held: Vec<u8>,
    stream: Option<String>,
    meta: Option<Vec<u8>>,
    last_block: u64,
    consumer: Option<Partial>,
    /// Sequences that the index says are gone, still to be handed out.
    deleted: block::DeletedSet,
}

/// What of a `meta.inf` concerns us: checksums hang on the name.
#[derive(Deserialize)]
struct Meta {
    name: String,
}

impl Reader {
    /// Takes the next bytes. Call [`Reader::read`] until it has no more before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.drain(..self.at);
        self.at = 0;
        self.pending.extend_from_slice(bytes);
    }

    /// Whether the archive's end has been read, and all of it handed out.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.walker.has_ended() && self.consumer.is_none() && self.deleted.is_empty()
    }

    /// The next item; `None`: more bytes are needed, or the archive has ended.
    ///
    /// # Errors
    /// This is no such archive, or it is damaged.
    pub fn read(&mut self) -> Result<Option<Item>, Refused> {
        loop {
            if let Some(seq) = self.deleted.pop() {
                return Ok(Some(Item::Deleted(seq)));
            }
            if let Some(File::Block(reader)) = &mut self.file
                && let Some(item) = reader.read()?
            {
                return Ok(Some(item));
            }
            let pending = std::mem::take(&mut self.pending);
            let mut rest = pending.get(self.at..).unwrap_or_default();
            let before = rest.len();
            let event = self.walker.next(&mut rest);
            let outcome = event.and_then(|event| {
                let Some(event) = event else {
                    return Ok(None);
                };
                self.take(event).map(Some)
            });
            self.at += before - rest.len();
            self.pending = pending;
            match outcome? {
                // The last consumer is complete when nothing of it can follow.
                None if self.walker.has_ended() && self.meta.is_some() => {
                    let file = "meta.sum".to_owned();
                    return Err(Refused::with(format!("the archive holds no {file}")));
                }
                None if self.walker.has_ended() => return self.complete_consumer(),
                None => return Ok(None),
                Some(Some(item)) => return Ok(Some(item)),
                Some(None) => {}
            }
        }
    }

    fn take(&mut self, event: Event<'_>) -> Result<Option<Item>, Refused> {
        match event {
            Event::File(path, size) => self.begin(&path, size),
            Event::Data(data) => {
                match &mut self.file {
                    Some(File::Block(reader)) => reader.push(data),
                    Some(File::Passed) | None => {}
                    Some(_) => self.held.extend_from_slice(data),
                }
                Ok(None)
            }
            Event::FileEnd => self.end().map(|()| None),
        }
    }

    fn begin(&mut self, path: &str, size: u64) -> Result<Option<Item>, Refused> {
        let unknown = || Refused::with(format!("the archive holds an unknown file {path:?}"));
        let tokens: Vec<&str> = path.split('/').collect();
        let named = |name: &str| {
            let odd = name.is_empty() || name.contains("..") || name.contains('\\');
            if odd {
                Err(unknown())
            } else {
                Ok(name.to_owned())
            }
        };
        let file = match tokens.as_slice() {
            ["meta.inf"] if self.stream.is_none() && self.meta.is_none() => File::Meta,
            ["meta.sum"] if self.meta.is_some() => File::Sum,
            ["msgs", "index.db"] if size > INDEX_BYTES_MAX => File::Passed,
            ["msgs", "index.db"] => File::Index,
            ["msgs", name] => self.begin_block(name).ok_or_else(unknown)??,
            ["obs", name, "meta.inf"] => File::ConsumerMeta(named(name)?),
            ["obs", name, "meta.sum"] => File::ConsumerSum(named(name)?),
            ["obs", name, "o.dat"] => File::ConsumerState(named(name)?),
            _ => return Err(unknown()),
        };
        let is_small = !matches!(file, File::Block(_) | File::Passed | File::Index);
        if is_small && size > DOCUMENT_BYTES_MAX as u64 {
            return Err(Refused::with(format!(
                "{path:?} of the archive is too long"
            )));
        }
        if self.stream.is_none() && !matches!(file, File::Meta | File::Sum) {
            return Err(Refused::because(
                "the archive does not begin with meta.inf and meta.sum",
            ));
        }
        let completed = match (&file, &self.consumer) {
            (File::ConsumerMeta(_), Some(_)) => self.complete_consumer()?,
            _ => None,
        };
        self.file = Some(file);
        Ok(completed)
    }

    /// A file of `msgs`. `None`: not one of them.
    fn begin_block(&mut self, name: &str) -> Option<Result<File, Refused>> {
        let (number, kind) = name.split_once('.')?;
        let number: u64 = number.parse().ok()?;
        match kind {
            "blk" if number <= self.last_block => {
                let text = "the message blocks of the archive are not in order";
                Some(Err(Refused::because(text)))
            }
            "blk" => {
                self.last_block = number;
                let stream = self.stream.as_deref().unwrap_or_default();
                Some(Ok(File::Block(Box::new(block::Reader::new(
                    stream, number,
                )))))
            }
            // Indexes of servers before 2.10.
            "idx" | "fss" => Some(Ok(File::Passed)),
            _ => None,
        }
    }

    fn end(&mut self) -> Result<(), Refused> {
        let held = std::mem::take(&mut self.held);
        match self.file.take() {
            Some(File::Meta) => self.meta = Some(held),
            Some(File::Sum) => {
                let meta = self.meta.take().unwrap_or_default();
                let read: Meta = serde_json::from_slice(&meta)
                    .map_err(|error| Refused::with(format!("meta.inf of the archive: {error}")))?;
                check_sum("meta.inf", &read.name, &meta, &held)?;
                self.stream = Some(read.name);
            }
            Some(File::Block(reader)) if !reader.is_at_end() => {
                return Err(Refused::because("a message block ends inside a record"));
            }
            Some(File::Index) => {
                let stream = self.stream.as_deref().unwrap_or_default();
                self.deleted = read_index(stream, &held).unwrap_or_default();
            }
            Some(File::ConsumerMeta(name)) => {
                self.consumer = Some(Partial {
                    name,
                    meta: held,
                    summed: false,
                    state: None,
                });
            }
            Some(File::ConsumerSum(name)) => {
                let stream = self.stream.clone().unwrap_or_default();
                let partial = self.of(&name)?;
                check_sum(&name, &format!("{stream}/{name}"), &partial.meta, &held)?;
                partial.summed = true;
            }
            Some(File::ConsumerState(name)) => {
                let state = State::decode(&held);
                let state = state.map_err(|_| {
                    Refused::with(format!("the state of consumer {name:?} is damaged"))
                })?;
                self.of(&name)?.state = Some(state);
            }
            Some(File::Block(_) | File::Passed) | None => {}
        }
        Ok(())
    }

    /// The consumer whose other files are coming.
    fn of(&mut self, name: &str) -> Result<&mut Partial, Refused> {
        let partial = self.consumer.as_mut().filter(|one| one.name == name);
        partial.ok_or_else(|| {
            Refused::with(format!("the files of consumer {name:?} are not together"))
        })
    }

    fn complete_consumer(&mut self) -> Result<Option<Item>, Refused> {
        let Some(partial) = self.consumer.take() else {
            return Ok(None);
        };
        let name = partial.name;
        if !partial.summed {
            return Err(Refused::with(format!("consumer {name:?} has no checksum")));
        }
        let mut config: serde_json::Value = serde_json::from_slice(&partial.meta)
            .map_err(|error| Refused::with(format!("consumer {name:?} of the archive: {error}")))?;
        if let Some(fields) = config.as_object_mut() {
            // Beside the configuration the file has these two.
            fields.remove("Created");
            fields.remove("Name");
        }
        Ok(Some(Item::Consumer(Box::new(Consumer {
            name,
            config,
            state: partial.state,
        }))))
    }
}

fn check_sum(file: &str, name: &str, document: &[u8], sum: &[u8]) -> Result<(), Refused> {
    if checksum_text(name, document).as_bytes() == sum.trim_ascii() {
        return Ok(());
    }
    let text = format!("{file} of the archive does not match its checksum");
    Err(Refused::with(text))
}
