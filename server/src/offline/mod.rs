//! `halyard store check|stats|dump|salvage DIR`: looks into a store that no server has open. Nothing in it is changed.
//!
//! The key of an encrypted store comes from the environment ([`KEY`], [`PREVIOUS_KEY`]): the command line is for everybody on
//! the machine to see.
//!
//! A node's directory is read as a start reads it: the stores of its groups, then the tail of its log, so that what was
//! acknowledged right before a crash is there, and what keeps a start from serving it is told. A group's directory alone is
//! looked into without the log.

mod check;
mod dump;
mod salvage;
mod stats;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use halyard_engine::Options;
use halyard_engine::inspect;
use halyard_format::{Cipher, Encryption, Key};
use halyard_runtime::disk::{DirLock, Disk, RealDisk};
use halyard_server::config::StoreCommand;
use halyard_server::jetstream::StartError;
use halyard_server::jetstream::backup::salvage::SalvageError;
use halyard_server::jetstream::rescue::Rescue;

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
    #[error("{}: cannot be locked, so a server may be using it: {}", .0.display(), .1)]
    Unlockable(PathBuf, io::Error),
    #[error("{}: no store is here", .0.display())]
    NoStore(PathBuf),
    #[error("{0} damaged places")]
    Damaged(usize),
    #[error("{0} is empty")]
    EmptyKey(&'static str),
    #[error("{PREVIOUS_KEY} is set, but {KEY} is not")]
    NoKey,
    #[error("{0}; set {KEY}, and {PREVIOUS_KEY} while a change of the key is not complete")]
    WrongKey(String),
    #[error("not all of it is sound: what is not is named above")]
    Incomplete,
    #[error("{}: no node's directory is here: salvage needs the one with log and groups", .0.display())]
    NoNode(PathBuf),
    #[error("{} and {} hold a store each: name one of them", .0.display(), .1.display())]
    TwoNodes(PathBuf, PathBuf),
    #[error("{}: {}", .0.display(), .1)]
    Unreadable(PathBuf, io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Salvage(#[from] SalvageError),
    #[error(transparent)]
    Store(#[from] halyard_engine::Error),
    #[error("writing the result: {0}")]
    Output(#[from] io::Error),
}

/// What is below a directory.
struct Places {
    /// Directories of nodes.
    nodes: Vec<PathBuf>,
    /// Stores that belong to none of them.
    stores: Vec<PathBuf>,
}

/// Does what the command line asks for with every store below its directory.
pub(crate) fn run(program: &str, command: &StoreCommand) -> ExitCode {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let looked = options()
        .and_then(|options| look(&disk, command, &options, &mut io::stdout().lock()))
        .map_err(|error| match error {
            OfflineError::Store(error @ halyard_engine::Error::WrongKey { .. }) => {
                OfflineError::WrongKey(error.to_string())
            }
            OfflineError::Start(StartError::Store(
                error @ halyard_engine::Error::WrongKey { .. },
            )) => OfflineError::WrongKey(error.to_string()),
            OfflineError::Start(StartError::Log(error @ halyard_raft::Error::WrongKey { .. })) => {
                OfflineError::WrongKey(error.to_string())
            }
            error => error,
        });
    match looked {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads it has seen enough.
        Err(OfflineError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => crate::fail(program, &error),
    }
}

fn look(
    disk: &Arc<dyn Disk>,
    command: &StoreCommand,
    options: &Options,
    out: &mut dyn Write,
) -> Result<(), OfflineError> {
    let dir = command.dir();
    let _locks = lock(&**disk, dir)?;
    let places = find(disk, dir)?;
    if places.nodes.is_empty() && places.stores.is_empty() {
        return Err(OfflineError::NoStore(dir.to_owned()));
    }
    for store in inspect::find_stores(disk, dir)? {
        inspect::check_key(disk, &store, options)?;
    }
    let looker = Looker { disk, options };
    match command {
        StoreCommand::Check { .. } => check::run(&looker, &places, out),
        StoreCommand::Stats { json, .. } => stats::run(&looker, &places, *json, out),
        StoreCommand::Dump { .. } => dump::run(&looker, &places, out),
        StoreCommand::Salvage { to, .. } => match places.nodes.as_slice() {
            [node] => salvage::run(&looker, node, to, out),
            [] => Err(OfflineError::NoNode(dir.to_owned())),
            [one, other, ..] => Err(OfflineError::TwoNodes(one.clone(), other.clone())),
        },
    }
}

/// What every verb needs.
struct Looker<'a> {
    disk: &'a Arc<dyn Disk>,
    options: &'a Options,
}

impl Looker<'_> {
    /// A node's directory as a start reads it, past damage. Says so when it takes a while.
    fn node(&self, dir: &Path) -> Result<Rescue, OfflineError> {
        let encryption = self.options.encryption.as_ref();
        Ok(Rescue::read(self.disk, dir, encryption)?)
    }
}

/// The stores of a node's groups.
fn groups(looker: &Looker<'_>, node: &Path) -> Result<Vec<(u32, PathBuf)>, OfflineError> {
    let dirs = halyard_server::jetstream::start::group_dirs(&**looker.disk, node);
    dirs.map_err(|error| OfflineError::Unreadable(node.to_owned(), error))
}

/// A line that does not belong to the result.
fn note(text: &str) {
    // Nobody is left to tell that standard error is gone.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Directories of nodes, and stores outside of any.
fn find(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Places, OfflineError> {
    let mut nodes = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        let listed = disk.list(&dir);
        let entries = listed.map_err(|error| OfflineError::Unreadable(dir.clone(), error))?;
        let holds = |name: &str| {
            entries
                .iter()
                .any(|entry| entry.is_dir && entry.name == name)
        };
        if holds("log") && holds("groups") {
            nodes.push(dir);
            continue;
        }
        let below = entries.iter().filter(|entry| entry.is_dir);
        todo.extend(below.map(|entry| dir.join(&entry.name)));
    }
    nodes.sort();
    let mut stores = inspect::find_stores(disk, dir)?;
    stores.retain(|store| !nodes.iter().any(|node| store.starts_with(node)));
    Ok(Places { nodes, stores })
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
            let locked = disk.lock(&file);
            held.push(locked.map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => OfflineError::InUse(place),
                _ => OfflineError::Unlockable(place, error),
            })?);
        }
    }
    Ok(held)
}
