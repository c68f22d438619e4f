//! Where lines go: standard error, or a file that is renamed when it grows too large.
//!
//! A line that the file refuses (a full disk) goes to standard error: the log must not stop the server, nor be silent
//! about why.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use halyard_runtime::disk::{Disk, File, RealDisk};
use halyard_runtime::time::Timestamp;

use super::line::backup_suffix;
use crate::config::LogSettings;

/// The owner writes, the group may read.
const FILE_MODE: u32 = 0o640;

#[derive(Debug)]
pub(super) enum Sink {
    Stderr,
    File(LogFile),
}

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: Arc<dyn File>,
    size_limit: Option<u64>,
    max_files: Option<u32>,
}

impl Sink {
    pub(super) fn open(settings: &LogSettings) -> io::Result<Self> {
        let Some(path) = settings.file.clone() else {
            return Ok(Self::Stderr);
        };
        let file = RealDisk.open_public(&path, FILE_MODE)?;
        let LogSettings {
            size_limit,
            max_files,
            ..
        } = *settings;
        Ok(Self::File(LogFile {
            path,
            file,
            size_limit,
            max_files,
        }))
    }

    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Self::File(log) = self {
            log.file = RealDisk.open_public(&log.path, FILE_MODE)?;
        }
        Ok(())
    }

    /// Writes one line. Returns the old file's new name if that line made it too large.
    pub(super) fn write(&mut self, line: &[u8], now: Timestamp) -> Option<String> {
        let Self::File(log) = self else {
            // Nobody is left to tell that standard error is gone.
            let _ = io::stderr().write_all(line);
            return None;
        };
        match log.append(line) {
            Ok(len) if log.size_limit.is_some_and(|limit| len >= limit) => log.rotate(now),
            Ok(_) => None,
            Err(_) => {
                let _ = io::stderr().write_all(line);
                None
            }
        }
    }
}

impl LogFile {
    /// Appends, wherever the end is now: others may have cut the file. Returns its new length.
    fn append(&self, line: &[u8]) -> io::Result<u64> {
        let end = self.file.len()?;
        self.file.write_at(line, end)?;
        Ok(end.saturating_add(line.len() as u64))
    }

    /// Renames the file and begins a new one; keeps the old one if either fails.
    fn rotate(&mut self, now: Timestamp) -> Option<String> {
        let mut backup = self.path.clone().into_os_string();
        backup.push(".");
        backup.push(backup_suffix(now));
        let backup = PathBuf::from(backup);
        RealDisk.rename(&self.path, &backup).ok()?;
        self.file = RealDisk.open_public(&self.path, FILE_MODE).ok()?;
        self.prune();
        Some(backup.display().to_string())
    }

    /// Removes the oldest backups beyond those that shall be kept beside the current file.
    fn prune(&self) {
        let Some(keep) = self.max_files.map(|files| files.saturating_sub(1) as usize) else {
            return;
        };
        let directory = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let Some(name) = self.path.file_name().map(|name| name.to_string_lossy()) else {
            return;
        };
        let prefix = format!("{name}.");
        let Ok(entries) = RealDisk.list(directory) else {
            return;
        };
        // Sorted by name, and so by age.
        let backups: Vec<_> = entries
            .into_iter()
            .filter(|e| e.name.strip_prefix(&prefix).is_some_and(is_backup_suffix))
            .collect();
        let excess = backups.len().saturating_sub(keep);
        for entry in backups.iter().take(excess) {
            let _ = RealDisk.remove_file(&directory.join(&entry.name));
        }
    }
}

/// Whether we could have given this end to a name.
fn is_backup_suffix(suffix: &str) -> bool {
    suffix.len() == 29
        && suffix
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
}
