//! Encryption at rest: the keys, what is looked at before anything is opened, and the way from one key to the next.
//!
//! Everything in the data directory is sealed: by the engine (manifest, segments; each file with a key of its own, wrapped
//! by the master key) and by the node's log. Where the configuration has changed since (encryption turned on, another key
//! with the one before as `prev_key`, another cipher), what is there is rewritten while the server serves: segments and
//! manifests by maintenance, the log by letting it go. Both note on the disk how far they are, so a crash at any moment
//! loses nothing and the next start goes on. [`follow`] says when it begins and when it is complete.
//!
//! Memory streams are not sealed: they are never on a disk.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use halyard_engine::{self as engine, Resealing, inspect};
use halyard_format::{Encryption, Key};
use halyard_runtime::disk::Disk;
use halyard_runtime::time;

use super::service::JetStream;
use super::start::{self, Settings, StartError};
use crate::config::{self, Secret};

/// How often the way to the new key is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The master keys of a configuration. A passphrase takes some tenths of a second.
#[must_use]
pub fn keys(encryption: &config::Encryption) -> Encryption {
    let key = |secret: &Secret| Key::from_secret(&secret.0);
    Encryption {
        cipher: encryption.cipher,
        key: key(&encryption.key),
        previous: encryption.previous.as_ref().map(key),
    }
}

/// Looks whether the keys open every store below the data directory, before the log is opened, which writes to it: a wrong
/// key changes nothing.
pub(super) fn check(settings: &Settings) -> Result<(), StartError> {
    let (disk, dir) = (&settings.disk, &settings.data_dir);
    let lock = dir.join("LOCK");
    let held = disk
        .exists(&lock)
        .unwrap_or(false)
        .then(|| disk.lock(&lock));
    if matches!(held, Some(Err(_))) {
        // Somebody else's files change under our eyes; the opening of the log says whose they are.
        return Ok(());
    }
    let options = engine::Options {
        encryption: settings.encryption.clone(),
        ..engine::Options::default()
    };
    for store in stores(disk, &dir.join(start::GROUPS_DIR)) {
        inspect::check_key(disk, &store, &options)?;
    }
    drop(held);
    Ok(())
}

fn stores(disk: &Arc<dyn Disk>, groups: &Path) -> Vec<std::path::PathBuf> {
    // What cannot be listed cannot be opened either: that is told then.
    let listed = disk.list(groups).unwrap_or_default();
    listed
        .into_iter()
        .map(|entry| groups.join(entry.name))
        .collect()
}

/// What to do about a key that does not open the data.
pub(super) const fn advice(encryption: Option<&Encryption>) -> &'static str {
    match encryption {
        None => {
            "configure the key that it was written with (jetstream { key: ... }); nothing was changed. To have it in the \
             clear, start with the key, back up the streams and restore them into another store directory"
        }
        Some(Encryption { previous: None, .. }) => {
            "if the key was changed, give the one before as prev_key until the server says that all data is sealed with the \
             new one; nothing was changed"
        }
        Some(_) => {
            "configure the key that it was written with as key or prev_key; nothing was changed"
        }
    }
}

/// How far the data is from being sealed as it is configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Segments of stores that are to be rewritten.
    pub segments: usize,
    /// Those of them that are damaged, and stay as they are.
    pub damaged: usize,
    /// Manifests of stores that are to be rewritten.
    pub manifests: usize,
    /// Freed files that are to be overwritten.
    pub files: usize,
    /// The node's log is to be let go.
    pub log: bool,
}

impl Progress {
    /// Everything is sealed with the key and the cipher of the configuration.
    #[must_use]
    pub fn is_done(&self) -> bool {
        *self == Self::default()
    }

    /// What is damaged cannot be rewritten: nothing more will come.
    fn is_stuck(&self) -> bool {
        self.damaged > 0
            && *self
                == Self {
                    segments: self.damaged,
                    damaged: self.damaged,
                    ..Self::default()
                }
    }

    fn add(&mut self, store: Resealing) {
        self.segments += store.segments;
        self.damaged += store.damaged;
        self.manifests += usize::from(store.manifest);
        self.files += store.files;
    }
}

impl JetStream {
    /// How far the data is from being sealed as it is configured; `None` without encryption.
    #[must_use]
    pub fn resealing(&self) -> Option<Progress> {
        self.settings.encryption.as_ref()?;
        let mut progress = Progress {
            log: self.node()?.reseal_pending().is_some(),
            ..Progress::default()
        };
        progress.add(self.file.read(|machine| machine.store().resealing()));
        progress.add(self.meta.machine().lock().store().resealing());
        Some(progress)
    }
}

/// Says that data is being sealed anew, looks after what nobody else does meanwhile, and says when it is complete.
pub(super) async fn follow(service: Weak<JetStream>) {
    let mut begun = false;
    let mut told_stuck = false;
    loop {
        {
            let Some(service) = service.upgrade() else {
                return;
            };
            let Some(progress) = service.resealing() else {
                return;
            };
            if progress.is_done() {
                say_done(&service, begun);
                return;
            }
            if !std::mem::replace(&mut begun, true) {
                tracing::info!(
                    "Encryption: data that is in the clear, or sealed with another key or cipher, is being rewritten: {} \
                     segments{}",
                    progress.segments,
                    if progress.log { " and the log" } else { "" }
                );
            }
            if progress.is_stuck() && !std::mem::replace(&mut told_stuck, true) {
                tracing::error!(
                    "Encryption: {} damaged segments cannot be rewritten; keep prev_key until they are restored",
                    progress.damaged
                );
            }
            // Entries without a payload are in no store: the log lets go of them when it is asked who holds it.
            if let Some((node, position)) = service
                .node()
                .and_then(|node| Some((node, node.reseal_pending()?)))
            {
                node.log_holders(position);
            }
            start::tend_meta(&service).await;
        }
        time::sleep(LOOK).await;
    }
}

fn say_done(service: &JetStream, begun: bool) {
    let encryption = service.settings.encryption.as_ref();
    let rotated = encryption.is_some_and(|encryption| encryption.previous.is_some());
    let hint = match rotated {
        true => "; prev_key is not needed any more",
        false => "",
    };
    if begun || rotated {
        tracing::info!("Encryption: all data is sealed with the configured key and cipher{hint}");
    }
}
