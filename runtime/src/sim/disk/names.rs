//! The names on a simulated disk, and what becomes of un-synced changes to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Random;
use crate::disk::Entry;

/// Directories and files at one moment. The root and the empty path are always there.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) files: BTreeMap<PathBuf, u64>,
    pub(super) dirs: BTreeSet<PathBuf>,
}

impl Names {
    pub(super) fn is_dir(&self, path: &Path) -> bool {
        path.as_os_str().is_empty() || path == Path::new("/") || self.dirs.contains(path)
    }

    pub(super) fn has_parent(&self, path: &Path) -> bool {
        path.parent().is_none_or(|parent| self.is_dir(parent))
    }

    pub(super) fn has_children(&self, path: &Path) -> bool {
        let inside = |other: &PathBuf| other.parent() == Some(path);
        self.files.keys().any(inside) || self.dirs.iter().any(inside)
    }

    pub(super) fn list(&self, path: &Path, len: impl Fn(&u64) -> u64) -> Vec<Entry> {
        let name = |child: &PathBuf| {
            let inside = child.parent() == Some(path);
            child
                .file_name()
                .filter(|_| inside)
                .and_then(|name| name.to_str().map(str::to_owned))
        };
        let file = |(child, id): (&PathBuf, &u64)| {
            Some(Entry {
                name: name(child)?,
                is_dir: false,
                len: len(id),
            })
        };
        let dir = |child: &PathBuf| {
            Some(Entry {
                name: name(child)?,
                is_dir: true,
                len: 0,
            })
        };
        let files = self.files.iter().filter_map(file);
        let mut entries: Vec<Entry> = files.chain(self.dirs.iter().filter_map(dir)).collect();
        entries.sort();
        entries
    }

    /// Drops what is in directories that are not there.
    fn prune(&mut self) {
        loop {
            let orphans: Vec<PathBuf> = self
                .dirs
                .iter()
                .filter(|dir| !self.has_parent(dir))
                .cloned()
                .collect();
            if orphans.is_empty() {
                break;
            }
            for orphan in orphans {
                self.dirs.remove(&orphan);
            }
        }
        let dirs = self.clone();
        self.files.retain(|path, _| dirs.has_parent(path));
    }
}

/// One change of a directory.
#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Create {
        path: PathBuf,
        inode: u64,
    },
    Remove {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        inode: u64,
    },
    MakeDir {
        path: PathBuf,
    },
    RemoveDir {
        path: PathBuf,
    },
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            Self::Create { path, inode } => {
                names.files.insert(path.clone(), *inode);
            }
            Self::Remove { path } => {
                names.files.remove(path);
            }
            Self::Rename { from, to, inode } => {
                names.files.remove(from);
                names.files.insert(to.clone(), *inode);
            }
            Self::MakeDir { path } => {
                names.dirs.insert(path.clone());
            }
            Self::RemoveDir { path } => {
                names.dirs.remove(path);
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Create { path, .. }
            | Self::Remove { path }
            | Self::Rename { to: path, .. }
            | Self::MakeDir { path }
            | Self::RemoveDir { path } => path,
        }
    }

    /// True when it is a change of the directory `dir`.
    pub(super) fn is_in(&self, dir: &Path) -> bool {
        self.path().parent().unwrap_or(Path::new("")) == dir
    }

    /// The file that has a name once the change has survived.
    pub(super) fn inode(&self) -> Option<u64> {
        match self {
            Self::Create { inode, .. } | Self::Rename { inode, .. } => Some(*inode),
            _ => None,
        }
    }
}

/// Power loss: of each directory's un-synced changes the first few survive, in order, as a journal leaves them.
pub(super) fn survive(durable: &mut Names, pending: Vec<NameChange>, random: &mut Random) {
    let mut by_dir: BTreeMap<PathBuf, Vec<NameChange>> = BTreeMap::new();
    for change in pending {
        let dir = change.path().parent().unwrap_or(Path::new("")).to_owned();
        by_dir.entry(dir).or_default().push(change);
    }
    for changes in by_dir.into_values() {
        let count = changes.len() as u64;
        let kept = match random.below(3) {
            0 => 0,
            1 => count,
            _ => random.below(count + 1),
        };
        let kept = usize::try_from(kept).unwrap_or(0);
        changes
            .iter()
            .take(kept)
            .for_each(|change| change.apply(durable));
    }
    durable.prune();
}
