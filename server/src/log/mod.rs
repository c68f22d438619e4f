//! The lines that a person reads while the server runs.
//!
//! Everybody logs by `tracing`'s macros; [`init`] installs the one subscriber that turns events of our crates into lines
//! `[pid] 2006/01/02 15:04:05.000000 [INF] text`, the form that scripts written for NATS look for. Labels: ERR WRN INF
//! DBG by level, FTL by [`fatal`], TRC by [`protocol`]. Events of other libraries appear from warnings up, and only with
//! `debug`. What is off costs one check of a cached flag.

mod line;
pub mod protocol;
mod queue;
mod sink;

use std::fmt::{self, Write};
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use halyard_runtime::task;
use halyard_runtime::time::Timestamp;
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::config::LogSettings;
use line::{Label, Style};
use queue::{Line, Queue};
use sink::Sink;

/// Lines are written together up to about so many bytes.
const WRITE_BYTES: usize = 64 << 10;

/// Crates whose events are ours begin like this.
const OUR_TARGETS: &str = "halyard";

/// The process's log. Cheap to clone; every clone is the same log.
#[derive(Clone, Debug)]
pub struct Log(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    debug: AtomicBool,
    /// A thread writes what waits in the queue; without it, lines are written where they arise.
    has_writer: AtomicBool,
    queue: Queue,
    output: Mutex<Output>,
}

#[derive(Debug)]
struct Output {
    style: Style,
    sink: Sink,
}

/// Starts logging, for the rest of the process.
///
/// # Errors
/// The log file cannot be opened, there is a log already, or the system gives no thread to write it.
pub fn init(settings: &LogSettings) -> io::Result<Log> {
    let log = Log::new(settings)?;
    tracing::subscriber::set_global_default(log.clone()).map_err(io::Error::other)?;
    let writer = log.clone();
    let writing = task::spawn_dedicated("log", async move {
        loop {
            writer.0.queue.filled().await;
            writer.flush();
        }
    });
    // It runs as long as the process.
    drop(writing?);
    log.0.has_writer.store(true, Ordering::Release);
    Ok(log)
}

impl Log {
    fn new(settings: &LogSettings) -> io::Result<Self> {
        protocol::switch(settings);
        let output = Output {
            style: style(settings),
            sink: Sink::open(settings)?,
        };
        Ok(Self(Arc::new(Shared {
            debug: AtomicBool::new(settings.debug),
            has_writer: AtomicBool::new(false),
            queue: Queue::default(),
            output: Mutex::new(output),
        })))
    }

    /// Follows changed settings. A log file that cannot be opened leaves the old one in use.
    ///
    /// # Errors
    /// The new log file cannot be opened.
    pub fn change(&self, settings: &LogSettings) -> io::Result<()> {
        let sink = Sink::open(settings)?;
        self.flush();
        {
            let mut output = self.0.output.lock();
            output.sink = sink;
            output.style = style(settings);
        }
        protocol::switch(settings);
        self.0.debug.store(settings.debug, Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// Opens the log file anew, after somebody has moved the old one away.
    ///
    /// # Errors
    /// The file cannot be opened; the old one stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        self.flush();
        self.0.output.lock().sink.reopen()
    }

    /// Writes why the server cannot go on. The caller then ends the process with status 1.
    pub fn fatal(&self, text: &str) {
        self.write(Label::Fatal, text.to_owned());
        self.flush();
    }

    fn write(&self, label: Label, text: String) {
        let at = Timestamp::now();
        self.0.queue.push(Line { label, text, at });
        if !self.0.has_writer.load(Ordering::Acquire) {
            self.flush();
        }
    }

    /// Writes what waits; when it returns, everything that was logged before is written.
    pub fn flush(&self) {
        // The lock is taken first: lines that another thread has taken are written before ours.
        let mut output = self.0.output.lock();
        let mut lines = self.0.queue.take().into_iter().peekable();
        while let Some(first) = lines.peek() {
            let at = first.at;
            let mut text = String::new();
            while text.len() < WRITE_BYTES
                && let Some(line) = lines.next()
            {
                text.push_str(&output.style.line(line.label, &line.text, line.at));
            }
            if let Some(backup) = output.sink.write(text.as_bytes(), at) {
                let text = format!("Rotated log, backup saved as {backup}");
                let line = output.style.line(Label::Info, &text, at);
                output.sink.write(line.as_bytes(), at);
            }
        }
    }

    fn is_wanted(&self, metadata: &Metadata<'_>) -> bool {
        let debug = self.0.debug.load(Ordering::Relaxed);
        let level_max = match (metadata.target(), debug) {
            (protocol::TARGET, _) => Level::TRACE,
            (target, true) if target.starts_with(OUR_TARGETS) => Level::DEBUG,
            (target, false) if target.starts_with(OUR_TARGETS) => Level::INFO,
            (_, true) => Level::WARN,
            (_, false) => return false,
        };
        metadata.is_event() && *metadata.level() <= level_max
    }
}

fn style(settings: &LogSettings) -> Style {
    let colour = settings.file.is_none() && io::stderr().is_terminal();
    let style = Style::new(settings.time, settings.time_utc, colour);
    match settings.json {
        true => style.json(),
        false => style,
    }
}

impl Subscriber for Log {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.is_wanted(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.is_wanted(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let debug = self.0.debug.load(Ordering::Relaxed);
        Some(match (protocol::is_on(), debug) {
            (true, _) => LevelFilter::TRACE,
            (false, true) => LevelFilter::DEBUG,
            (false, false) => LevelFilter::INFO,
        })
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let level = *event.metadata().level();
        let label = match level {
            Level::ERROR => Label::Error,
            Level::WARN => Label::Warn,
            Level::INFO => Label::Info,
            Level::DEBUG => Label::Debug,
            Level::TRACE => Label::Trace,
        };
        self.write(label, protocol::one_line(&text.finish()));
    }

    // Spans are not used: a line stands for itself.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// An event's message, then its other fields as `name=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(mut self) -> String {
        self.message.push_str(&self.fields);
        self.message
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halyard_runtime::disk::{Disk, RealDisk};
    use std::path::{Path, PathBuf};

    fn directory() -> PathBuf {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let name = format!(
            "log-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        RealDisk.create_dir_all(&path).unwrap();
        path
    }

    fn read(path: &Path) -> String {
        String::from_utf8(RealDisk.read(path).unwrap()).unwrap()
    }

    #[test]
    fn events_become_lines_and_the_level_counts() {
        let file = directory().join("a.log");
        let settings = LogSettings {
            file: Some(file.clone()),
            ..LogSettings::default()
        };
        let log = Log::new(&settings).unwrap();
        tracing::subscriber::with_default(log.clone(), || {
            tracing::info!("Server is ready");
            tracing::debug!("not shown");
            tracing::warn!(path = "/x", "look {}", 1);
            tracing::error!(target: "openraft", "not ours");
            log.change(&LogSettings {
                debug: true,
                time: false,
                ..settings.clone()
            })
            .unwrap();
            tracing::debug!("shown");
        });
        log.fatal("no way on");
        let text = read(&file);
        let lines: Vec<_> = text.lines().collect();
        let pid = std::process::id();
        let shape = format!("[{pid}] dddd/dd/dd dd:dd:dd.dddddd [INF] Server is ready");
        let first: String = lines[0]
            .chars()
            .enumerate()
            .map(|(i, c)| match shape.chars().nth(i) {
                Some('d') if c.is_ascii_digit() => 'd',
                _ => c,
            })
            .collect();
        assert_eq!(first, shape);
        assert!(
            lines[1].ends_with("[WRN] look 1 path=\"/x\""),
            "{}",
            lines[1]
        );
        assert_eq!(lines[2], format!("[{pid}] [DBG] shown"));
        assert_eq!(lines[3], format!("[{pid}] [FTL] no way on"));
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn files_are_reopened_rotated_and_pruned() {
        let dir = directory();
        let file = dir.join("a.log");
        let settings = LogSettings {
            file: Some(file.clone()),
            time: false,
            size_limit: Some(200),
            max_files: Some(3),
            ..LogSettings::default()
        };
        let log = Log::new(&settings).unwrap();
        log.fatal("first");
        RealDisk.rename(&file, &dir.join("moved")).unwrap();
        log.reopen().unwrap();
        log.fatal("second");
        assert!(read(&file).contains("second") && !read(&file).contains("first"));
        for number in 0..100 {
            log.fatal(&format!("line {number:04}"));
        }
        let names = RealDisk.list(&dir).unwrap();
        let backups = names
            .iter()
            .filter(|entry| entry.name.starts_with("a.log."));
        assert_eq!(backups.count(), 2, "with the current one three");
        assert!(
            names.iter().any(|entry| entry.name == "moved"),
            "only our own backups go"
        );
        assert!(names.iter().all(|entry| entry.len < 400));
        assert!(read(&file).contains("Rotated log, backup saved as"));
        assert!(read(&file).contains("line 0099"));
    }
}
