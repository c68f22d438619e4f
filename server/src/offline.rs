//! `halyard store check|stats|dump DIR`: looks into a store that no server has open. Nothing is written.
//!
//! The key of an encrypted store comes from the environment ([`KEY`], [`PREVIOUS_KEY`]): the command line is for everybody on
//! the machine to see.
//!
//! What a server took shortly before it ended may still be in the node's log only: an orderly end flushes it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use halyard_engine::inspect::{self, Dumped};
use halyard_engine::{Cipher, Encryption, Key, Options};
use halyard_runtime::disk::{DirLock, Disk, RealDisk};

/// The file that a running server holds.
const LOCK: &str = "LOCK";

/// The variable with the key of an encrypted store, as the server's `key`.
const KEY: &str = "HALYARD_STORE_KEY";
/// The variable with the key before, as the server's `prev_key`.
const PREVIOUS_KEY: &str = "HALYARD_STORE_PREV_KEY";

/// Why nothing, or not everything, can be shown.
#[derive(Debug, thiserror::Error)]
enum OfflineError {
    #[error("{}: in use by a running server; stop it first", .0.display())]
    InUse(PathBuf),
    #[error("{}: no store is here", .0.display())]
    NoStore(PathBuf),
    #[error("{0} damaged places")]
    Damaged(usize),
    #[error("{0} is empty")]
    EmptyKey(&'static str),
    #[error("{PREVIOUS_KEY} is set, but {KEY} is not")]
    NoKey,
    #[error("{0}; set {KEY}, and {PREVIOUS_KEY} while a change of the key is not complete")]
    WrongKey(halyard_engine::Error),
    #[error(transparent)]
    Store(#[from] halyard_engine::Error),
    #[error("writing the result: {0}")]
    Output(#[from] io::Error),
}

/// Does what the command line asks for with every store below `dir`.
pub(crate) fn run(program: &str, verb: &str, dir: &Path) -> ExitCode {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let looked = options()
        .and_then(|options| look(&disk, verb, dir, &options, &mut io::stdout().lock()))
        .map_err(|error| match error {
            OfflineError::Store(error @ halyard_engine::Error::WrongKey { .. }) => {
                OfflineError::WrongKey(error)
            }
            error => error,
        });
    match looked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::fail(program, &error),
    }
}

fn look(
    disk: &Arc<dyn Disk>,
    verb: &str,
    dir: &Path,
    options: &Options,
    out: &mut dyn Write,
) -> Result<(), OfflineError> {
    let _locks = lock(&**disk, dir)?;
    let stores = inspect::find_stores(disk, dir)?;
    if stores.is_empty() {
        return Err(OfflineError::NoStore(dir.to_owned()));
    }
    for store in &stores {
        inspect::check_key(disk, store, options)?;
    }
    let mut damaged = 0;
    for store in &stores {
        match verb {
            "check" => damaged += check(disk, store, options, out)?,
            "stats" => stats(disk, store, options, out)?,
            _ => dump(disk, store, options, out)?,
        }
    }
    match damaged {
        0 => Ok(()),
        count => Err(OfflineError::Damaged(count)),
    }
}

/// How the stores are opened: with the keys of the environment.
fn options() -> Result<Options, OfflineError> {
    let secret = |name: &'static str| match std::env::var(name) {
        Ok(secret) if secret.is_empty() => Err(OfflineError::EmptyKey(name)),
        found => Ok(found.ok().map(|secret| Key::from_secret(&secret))),
    };
    let encryption = match (secret(KEY)?, secret(PREVIOUS_KEY)?) {
        (Some(key), previous) => Some(Encryption {
            // Each file says which one it was sealed with; nothing is written.
            cipher: Cipher::ChaCha20Poly1305,
            key,
            previous,
        }),
        (None, Some(_)) => return Err(OfflineError::NoKey),
        (None, None) => None,
    };
    Ok(Options {
        encryption,
        ..Options::default()
    })
}

/// Keeps servers away from `dir` (the store directory, or a part of it) while it is looked into.
fn lock(disk: &dyn Disk, dir: &Path) -> Result<Vec<DirLock>, OfflineError> {
    let mut held = Vec::new();
    let above = dir.ancestors().take(3).map(Path::to_owned);
    for place in above.chain([dir.join(halyard_server::config::NAME)]) {
        let file = place.join(LOCK);
        if disk.exists(&file).unwrap_or(false) {
            held.push(disk.lock(&file).map_err(|_| OfflineError::InUse(place))?);
        }
    }
    Ok(held)
}

/// Verifies everything; returns the number of damaged places.
fn check(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
    out: &mut dyn Write,
) -> Result<usize, OfflineError> {
    let check = inspect::check(disk, dir, options)?;
    for error in &check.damage {
        writeln!(out, "{error}")?;
    }
    let verdict = if check.damage.is_empty() {
        "sound"
    } else {
        "DAMAGED"
    };
    let (blocks, bytes) = (check.blocks, check.bytes);
    writeln!(
        out,
        "{}: {verdict}, {blocks} blocks, {bytes} bytes read",
        dir.display()
    )?;
    Ok(check.damage.len())
}

fn stats(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
    out: &mut dyn Write,
) -> Result<(), OfflineError> {
    let stats = inspect::stats(disk, dir, options)?;
    writeln!(
        out,
        "{}: applied {}, digest {:016x}, {} records",
        dir.display(),
        stats.applied,
        stats.digest,
        stats.records
    )?;
    for segment in &stats.segments {
        let sealed = if segment.is_encrypted {
            ", encrypted"
        } else {
            ""
        };
        let (first, last) = segment.flushes;
        let (file, bytes, messages) = (segment.file.display(), segment.bytes, segment.messages);
        writeln!(
            out,
            "  {file}: {bytes} bytes, {messages} messages, flushes {first} to {last}{sealed}"
        )?;
    }
    for stream in &stats.streams {
        let state = &stream.state;
        writeln!(
            out,
            "  stream {}: {} messages, {} bytes, sequences {} to {}, {} subjects, {} deleted",
            stream.id.0,
            state.messages,
            state.bytes,
            state.first_seq,
            state.last_seq,
            state.subjects,
            state.deleted
        )?;
    }
    for file in &stats.leftovers {
        writeln!(out, "  left over: {}", file.display())?;
    }
    Ok(())
}

/// One line for each record and message; what is not text is escaped.
fn dump(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
    out: &mut dyn Write,
) -> Result<(), OfflineError> {
    writeln!(out, "{}:", dir.display())?;
    let mut failed = None;
    inspect::dump(disk, dir, options, None, &mut |dumped| {
        let written = match dumped {
            Dumped::Record(key, value) => {
                writeln!(
                    out,
                    "  record {} = {}",
                    key.escape_ascii(),
                    value.escape_ascii()
                )
            }
            Dumped::Message(stream, message) => writeln!(
                out,
                "  stream {} seq {} time {} {} {}{}",
                stream.0,
                message.seq,
                message.time.as_nanos(),
                message.subject().escape_ascii(),
                message.headers().escape_ascii(),
                message.payload().escape_ascii()
            ),
            Dumped::Unreadable(stream, seq, error) => {
                writeln!(out, "  stream {} seq {seq} UNREADABLE: {error}", stream.0)
            }
        };
        failed = written.err();
        failed.is_none()
    })?;
    match failed {
        // Whoever reads the dump has seen enough.
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}
