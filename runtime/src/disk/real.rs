//! The disk of the machine.

use std::fs;
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::descriptors;

use super::{DirLock, Disk, Entry, File, OpenMode, describe, describe_harmless};

/// The file system of the machine that this process runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile {
    file: fs::File,
    path: PathBuf,
    _counted: descriptors::File,
}

impl RealFile {
    fn failed(&self, action: &str) -> impl FnOnce(io::Error) -> io::Error {
        move |error| describe(&error, action, &self.path)
    }
}

/// Who may read and write what is created: its owner.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// How often [`Disk::sync_dir`] tries to open a directory again: a quarter of a second in all.
const OPENINGS_MAX: u32 = 8;

/// What [`File::allocate`] writes at a time.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// The most pieces that the kernel takes in one `pwritev`.
const PIECES_PER_WRITE_MAX: usize = 1024;

impl File for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file
            .read_at(buffer, offset)
            .map_err(self.failed("read"))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(self.failed("write to"))
    }

    fn write_vectored_at(&self, pieces: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        for pieces in pieces.chunks(PIECES_PER_WRITE_MAX) {
            let total: usize = pieces.iter().map(|piece| piece.len()).sum();
            let written = loop {
                match rustix::io::pwritev(&self.file, pieces, offset) {
                    Err(rustix::io::Errno::INTR) => {}
                    result => break result.map_err(|e| self.failed("write to")(e.into()))?,
                }
            };
            if written < total {
                self.write_rest(pieces, written, offset)?;
            }
            offset = offset.saturating_add(total as u64);
        }
        Ok(())
    }

    /// Zeros are really written: `fallocate` alone would leave "unwritten" extents, whose first write makes the next
    /// fdatasync commit the file system's journal. See docs/decisions/zeros-instead-of-fallocate.md.
    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut at = self.len()?;
        while at < len {
            let count = (len - at).min(ZEROS.len() as u64);
            #[expect(clippy::cast_possible_truncation, reason = "at most ZEROS.len()")]
            let zeros = &ZEROS[..count as usize];
            self.file
                .write_all_at(zeros, at)
                .map_err(self.failed("extend"))?;
            at += count;
        }
        self.sync()
    }

    fn set_aside(&self, len: u64) -> io::Result<()> {
        let len_now = self.len()?;
        if len <= len_now {
            return Ok(());
        }
        let mode = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(&self.file, mode, len_now, len - len_now) {
            Ok(()) => self.sync(),
            // Not every file system can.
            Err(rustix::io::Errno::OPNOTSUPP) => self.allocate(len),
            Err(error) => Err(self.failed("set space aside in")(error.into())),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file
            .set_len(len)
            .map_err(self.failed("set the length of"))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata().map_err(self.failed("inspect"))?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data().map_err(self.failed("sync"))
    }
}

impl RealFile {
    /// After a short write: the rest, piece by piece.
    fn write_rest(&self, pieces: &[IoSlice<'_>], mut done: usize, offset: u64) -> io::Result<()> {
        let mut at = offset;
        for piece in pieces {
            let skip = done.min(piece.len());
            done -= skip;
            if let Some(rest) = piece.get(skip..) {
                self.write_at(rest, at.saturating_add(skip as u64))?;
            }
            at = at.saturating_add(piece.len() as u64);
        }
        Ok(())
    }
}

impl RealDisk {
    /// Opens a file that others look at too (a log, a process id), created with the permissions `mode`. A symbolic link
    /// is refused: in a directory that others may write to, it could lead anywhere.
    ///
    /// # Errors
    /// The path is a link, or cannot be opened.
    pub fn open_public(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(mode)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        open(&options, path)
    }
}

#[expect(clippy::disallowed_methods, reason = "the door to the disk")]
fn open(options: &fs::OpenOptions, path: &Path) -> io::Result<Arc<dyn File>> {
    let failed = |error: io::Error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => io::Error::new(
            error.kind(),
            format!(
                "{} is a symbolic link, which is not followed",
                path.display()
            ),
        ),
        _ => describe_harmless(&error, "open", path),
    };
    let file = options.open(path).map_err(failed)?;
    Ok(Arc::new(RealFile {
        file,
        path: path.to_owned(),
        _counted: descriptors::File::new(),
    }))
}

#[expect(clippy::disallowed_methods, reason = "the door to the disk")]
impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read);
        options
            .create(mode == OpenMode::Create)
            .create_new(mode == OpenMode::CreateNew)
            .mode(FILE_MODE);
        open(&options, path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(path)
            .map_err(|e| describe(&e, "create the directory", path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to).map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("cannot rename {} to {}: {e}", from.display(), to.display()),
            )
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path).map_err(|e| describe(&e, "remove", path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path).map_err(|e| describe(&e, "remove the directory", path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
            .map_err(|e| describe_harmless(&e, "look for", path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let failed = |e: io::Error| describe_harmless(&e, "list the directory", path);
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            let name = entry.file_name().into_string().map_err(|name| {
                let text = format!("the name {name:?} in {} is not UTF-8", path.display());
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?;
            let is_dir = metadata.is_dir();
            entries.push(Entry {
                name,
                is_dir,
                len: if is_dir { 0 } else { metadata.len() },
            });
        }
        entries.sort();
        Ok(entries)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut tries = 0;
        let directory = loop {
            match fs::File::open(path) {
                Ok(directory) => break directory,
                // What was done to the names cannot be taken back: worth some patience.
                Err(error) if tries < OPENINGS_MAX && error.kind() != io::ErrorKind::NotFound => {
                    std::thread::sleep(Duration::from_millis(1 << tries));
                    tries += 1;
                }
                Err(error) => return Err(describe_harmless(&error, "open the directory", path)),
            }
        };
        directory
            .sync_all()
            .map_err(|e| describe(&e, "sync the directory", path))
    }

    fn lock(&self, path: &Path) -> io::Result<DirLock> {
        let opened = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path);
        // Who may only read, as somebody who looks into a store of another user, can hold the lock all the same.
        let opened = match opened {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                fs::OpenOptions::new().read(true).open(path)
            }
            opened => opened,
        };
        let file = opened.map_err(|e| describe(&e, "open the lock file", path))?;
        match file.try_lock() {
            Ok(()) => Ok(DirLock::new(file)),
            Err(fs::TryLockError::WouldBlock) => {
                let text = format!("{} is locked: another process is using it", path.display());
                Err(io::Error::new(io::ErrorKind::WouldBlock, text))
            }
            Err(fs::TryLockError::Error(error)) => Err(describe(&error, "lock", path)),
        }
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)
            .map_err(|e| describe(&e.into(), "ask for the free space at", path))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
