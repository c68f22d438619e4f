//! What is sound of a damaged data directory, as backups that any server restores.
//!
//! ```text
//! DIR/<stream>/backup.json            configuration and counters       (DIR/<account>/<stream> for other accounts)
//! DIR/<stream>/stream.arc.s2          messages and consumers
//! DIR/<stream>/behind-damage.jsonl    messages that stand in the log behind something that cannot be read
//! ```
//!
//! `nats backup restore stream DIR/<stream>` and `nats backup restore account DIR` take them. Nothing is left out in silence: what cannot be
//! read is told with stream, sequences and reason. Messages behind a gap of the log were acknowledged, but which sequences
//! they have depends on what is missing, so they are not put among the others: one JSON object each, in the order of the log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use halyard_engine::{StreamId, StreamState};
use halyard_runtime::disk::{Disk, File, OpenMode};
use halyard_runtime::time::{Instant, Timestamp};
use serde::Serialize;

use super::consumer::state_of;
use super::snapshot::Writer;
use crate::broker::GLOBAL_ACCOUNT;
use crate::jetstream::api::types;
use crate::jetstream::config::StreamConfig;
use crate::jetstream::group::command::{Batch, Command};
use crate::jetstream::meta::Assignment;
use crate::jetstream::rescue::Rescue;
use crate::jetstream::start::FILE;

/// How often progress is told.
const TELL_EVERY: std::time::Duration = std::time::Duration::from_secs(2);
/// Bytes of compressed archive that are written at one time.
const WRITE_BYTES: usize = 1 << 20;

/// Why salvage ended early.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// Something is there already.
    #[error("{}: is not empty; give a directory that does not exist yet", .0.display())]
    NotEmpty(PathBuf),
    /// It cannot be written.
    #[error("{}: {error}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Streams that were written.
    pub streams: usize,
    /// Their messages.
    pub messages: u64,
    /// Their consumers.
    pub consumers: usize,
    /// Messages that cannot be read.
    pub unreadable: u64,
    /// Messages behind a gap of the log.
    pub behind: u64,
}

/// `backup.json`, as the CLI writes and reads it.
#[derive(Serialize)]
struct Described<'a> {
    config: &'a StreamConfig,
    state: &'a types::State,
}

/// One line of `behind-damage.jsonl`.
#[derive(Serialize)]
struct Behind {
    entry: u64,
    time: String,
    subject: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    headers: String,
    data: String,
}

/// Writes everything that is sound below `to`; `tell` hears what is not, and how far it has come.
///
/// # Errors
/// `to` holds something, or cannot be written.
pub fn salvage(
    rescue: &mut Rescue,
    disk: &dyn Disk,
    to: &Path,
    tell: &mut dyn FnMut(&str),
) -> Result<Salvaged, SalvageError> {
    let failed = |error| SalvageError::Write {
        path: to.to_owned(),
        error,
    };
    let is_used = disk.exists(to).map_err(failed)?;
    if is_used && !disk.list(to).map_err(failed)?.is_empty() {
        return Err(SalvageError::NotEmpty(to.to_owned()));
    }
    disk.create_dir_all(to).map_err(failed)?;
    let mut salvaged = Salvaged::default();
    for (account, assignment) in rescue.assignments(GLOBAL_ACCOUNT) {
        let name = &assignment.config.name;
        if [name, &account].into_iter().any(|name| !is_plain(name)) {
            tell(&format!(
                "stream {name:?} of {account:?}: cannot be the name of a directory; left out"
            ));
            continue;
        }
        let dir = match account.as_str() {
            GLOBAL_ACCOUNT => to.join(name),
            _ => to.join(&account).join(name),
        };
        let mut one = One {
            disk,
            dir: &dir,
            name,
            tell,
            told: Instant::now(),
        };
        let written = one
            .write(rescue, &assignment)
            .map_err(|error| SalvageError::Write {
                path: dir.clone(),
                error,
            })?;
        salvaged.streams += 1;
        salvaged.messages += written.messages;
        salvaged.consumers += written.consumers;
        salvaged.unreadable += written.unreadable;
        salvaged.behind += written.behind;
    }
    Ok(salvaged)
}

/// Names of streams and accounts are single tokens; a path needs more.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

/// One stream on its way.
struct One<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    name: &'a str,
    tell: &'a mut dyn FnMut(&str),
    told: Instant,
}

impl One<'_> {
    fn write(&mut self, rescue: &mut Rescue, assignment: &Assignment) -> io::Result<Salvaged> {
        self.disk.create_dir_all(self.dir)?;
        let id = assignment.stream_id();
        let mut salvaged = Salvaged::default();
        let now = rescue.file.time();
        let consumers: Vec<_> = rescue.file.stream(id).map_or_else(Vec::new, |stream| {
            let all = stream.consumers().iter();
            all.map(|one| (one.config().clone(), state_of(one, now)))
                .collect()
        });
        salvaged.consumers = consumers.len();
        let config = match rescue.file.stream(id) {
            Some(stream) => stream.config().clone(),
            None => {
                self.say("nothing of it can be read but its configuration");
                assignment.config.clone()
            }
        };
        let view = rescue.file.store_mut().view(id).ok();
        let state = view
            .as_ref()
            .map_or_else(|| nothing(&config), |view| *view.state());
        let state = types::State::new(&state, consumers.len());
        let described = Described {
            config: &config,
            state: &state,
        };
        let json = serde_json::to_vec_pretty(&described).map_err(io::Error::other)?;
        self.put("backup.json", &json)?;
        let mut writer = Writer::new(view.map(Box::new), state, consumers);
        self.archive(&mut writer, &mut salvaged)?;
        if let Some(lacks) = &rescue.file_lacks {
            self.say(&format!(
                "what came after this is missing, and is in no backup: {lacks}"
            ));
            salvaged.behind = self.behind(rescue, id)?;
        }
        let (messages, unreadable) = (salvaged.messages, salvaged.unreadable);
        self.say(&format!(
            "{messages} messages and {} consumers; {unreadable} messages cannot be read",
            salvaged.consumers
        ));
        Ok(salvaged)
    }

    fn say(&mut self, what: &str) {
        (self.tell)(&format!("stream {}: {what}", self.name));
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.disk.open(&self.dir.join(name), OpenMode::Create)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.open(name)?;
        file.write_at(bytes, 0)?;
        file.sync()
    }

    fn archive(&mut self, writer: &mut Writer, salvaged: &mut Salvaged) -> io::Result<()> {
        let file = self.open("stream.arc.s2")?;
        let (mut out, mut at) = (Vec::new(), 0);
        let mut lost: Option<(u64, u64, String)> = None;
        loop {
            let more = match writer.fill(&mut out) {
                Ok(more) => more,
                Err((seq, error)) => {
                    salvaged.unreadable += 1;
                    let why = error.to_string();
                    match &mut lost {
                        // The same place: what lies between was deleted.
                        Some((_, last, known)) if *known == why => *last = seq,
                        lost => {
                            self.say_lost(lost.take());
                            *lost = Some((seq, seq, why));
                        }
                    }
                    writer.skip(seq);
                    true
                }
            };
            if out.len() >= WRITE_BYTES || !more {
                file.write_at(&out, at)?;
                at += out.len() as u64;
                out.clear();
            }
            if self.told.elapsed() >= TELL_EVERY {
                self.told = Instant::now();
                let so_far = writer.messages();
                self.say(&format!("{so_far} messages so far"));
            }
            if !more {
                break;
            }
        }
        self.say_lost(lost);
        salvaged.messages = writer.messages();
        file.sync()
    }

    fn say_lost(&mut self, lost: Option<(u64, u64, String)>) {
        if let Some((first, last, why)) = lost {
            self.say(&format!("messages {first} to {last} cannot be read: {why}"));
        }
    }

    /// The messages of the stream that stand in the log behind what is missing.
    fn behind(&mut self, rescue: &Rescue, id: StreamId) -> io::Result<u64> {
        let image = rescue.log.group(FILE);
        let applied = rescue.file.applied();
        let mut lines = Vec::new();
        let mut count = 0;
        for entry in image.entries.iter().filter(|entry| entry.index > applied) {
            let batch = entry.payload.as_ref().map(Batch::open);
            let Some(Ok(batch)) = batch else {
                continue;
            };
            let time = batch.time();
            for command in batch {
                let Ok(Command::Publish(publish)) = command else {
                    continue;
                };
                if publish.stream != id {
                    continue;
                }
                let (subject, rest) = publish.record.split_at(usize::from(publish.subject_len));
                let (headers, data) = rest.split_at(publish.headers_len as usize);
                let line = Behind {
                    entry: entry.index,
                    time: crate::jetstream::api::timestamp::format(time),
                    subject: String::from_utf8_lossy(subject).into_owned(),
                    headers: types::base64(headers),
                    data: types::base64(data),
                };
                serde_json::to_writer(&mut lines, &line).map_err(io::Error::other)?;
                lines.push(b'\n');
                count += 1;
            }
        }
        if count > 0 {
            self.put("behind-damage.jsonl", &lines)?;
            self.say(&format!(
                "{count} messages stand behind it in the log, with sequences that are not known: behind-damage.jsonl"
            ));
        }
        Ok(count)
    }
}

/// The counters of a stream of which nothing can be read.
fn nothing(config: &StreamConfig) -> StreamState {
    let first_seq = config.first_seq.max(1);
    StreamState {
        messages: 0,
        bytes: 0,
        first_seq,
        first_time: Timestamp::EPOCH,
        last_seq: first_seq - 1,
        last_time: Timestamp::EPOCH,
        subjects: 0,
        deleted: 0,
    }
}
