//! A disk in memory, for streams with `storage: memory`: the same code runs over it, and nothing outlives the process.
//!
//! Files are lists of blocks; blocks never written take no memory and read as zeros. Removing a file frees its memory as
//! soon as the last handle is gone. A sync has nothing to do and always succeeds.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::{DirLock, Disk, Entry, File, OpenMode};

const BLOCK_BYTES: usize = 64 << 10;

/// A disk in memory; clones are the same disk.
#[derive(Clone, Debug)]
pub struct MemDisk(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    names: Mutex<Names>,
    space: Arc<Space>,
}

#[derive(Debug, Default)]
struct Names {
    files: BTreeMap<PathBuf, Arc<MemFile>>,
    dirs: BTreeSet<PathBuf>,
    locked: BTreeSet<PathBuf>,
}

/// Counts the bytes of all blocks, also those of removed files that are still open.
#[derive(Debug)]
struct Space {
    capacity: u64,
    used: AtomicU64,
}

impl Space {
    fn take(&self, bytes: u64) -> io::Result<()> {
        let grow = |used: u64| {
            used.checked_add(bytes)
                .filter(|total| *total <= self.capacity)
        };
        match self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow)
        {
            Ok(_) => Ok(()),
            Err(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn give_back(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "more memory given back than taken");
    }
}

impl Default for MemDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl MemDisk {
    /// An empty disk without a limit.
    pub fn new() -> Self {
        Self::limited(u64::MAX)
    }

    /// An empty disk that answers `StorageFull` past `capacity` bytes, counted in blocks of 64 KiB.
    pub fn limited(capacity: u64) -> Self {
        Self(Arc::new(Shared {
            names: Mutex::default(),
            space: Arc::new(Space {
                capacity,
                used: AtomicU64::new(0),
            }),
        }))
    }

    /// The memory that files take, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.0.space.used.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct MemFile {
    content: RwLock<Content>,
    space: Arc<Space>,
}

#[derive(Debug, Default)]
struct Content {
    len: u64,
    blocks: Vec<Option<Box<[u8]>>>,
}

/// Cuts `offset..offset + len` at the blocks' borders: (block, start in it, length).
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut at = offset;
    let mut left = len;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let block = usize::try_from(at / BLOCK_BYTES as u64).ok()?;
        let start = usize::try_from(at % BLOCK_BYTES as u64).ok()?;
        let count = left.min(BLOCK_BYTES - start);
        at += count as u64;
        left -= count;
        Some((block, start, count))
    })
}

impl MemFile {
    fn resize(&self, content: &mut Content, len: u64) {
        let keep = usize::try_from(len.div_ceil(BLOCK_BYTES as u64)).unwrap_or(usize::MAX);
        if keep < content.blocks.len() {
            let freed = content.blocks.drain(keep..).flatten().count();
            self.space.give_back((freed * BLOCK_BYTES) as u64);
        }
        // The rest of the last block must read as zeros if the file grows again.
        let tail = usize::try_from(len % BLOCK_BYTES as u64).unwrap_or(0);
        if len < content.len
            && tail > 0
            && let Some(Some(block)) = content.blocks.get_mut(keep - 1)
        {
            block[tail..].fill(0);
        }
        content.len = len;
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        let content = self.content.get_mut();
        let held = content.blocks.iter().flatten().count();
        self.space.give_back((held * BLOCK_BYTES) as u64);
    }
}

impl File for MemFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.content.read();
        let there = content.len.saturating_sub(offset);
        let count = usize::try_from(there)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let mut rest = &mut buffer[..count];
        for (block, start, count) in pieces(offset, count) {
            let (piece, after) = rest.split_at_mut(count);
            match content.blocks.get(block) {
                Some(Some(bytes)) => piece.copy_from_slice(&bytes[start..start + count]),
                _ => piece.fill(0),
            }
            rest = after;
        }
        Ok(count)
    }

    fn write_at(&self, mut bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset
            .checked_add(bytes.len() as u64)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        let mut content = self.content.write();
        for (block, start, count) in pieces(offset, bytes.len()) {
            let (piece, after) = bytes.split_at(count);
            if content.blocks.len() <= block {
                content.blocks.resize(block + 1, None);
            }
            let slot = &mut content.blocks[block];
            let block = match slot {
                Some(block) => block,
                None => {
                    self.space.take(BLOCK_BYTES as u64)?;
                    slot.insert(vec![0; BLOCK_BYTES].into_boxed_slice())
                }
            };
            block[start..start + count].copy_from_slice(piece);
            bytes = after;
        }
        content.len = content.len.max(end);
        Ok(())
    }

    /// Takes no memory: in memory there is no metadata to save on.
    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut content = self.content.write();
        content.len = content.len.max(len);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.resize(&mut self.content.write(), len);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.content.read().len)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A handle from [`OpenMode::Read`].
#[derive(Debug)]
struct ReadOnly(Arc<MemFile>);

impl ReadOnly {
    fn refused<T>() -> io::Result<T> {
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the file was opened for reading only",
        ))
    }
}

impl File for ReadOnly {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Self::refused()
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Self::refused()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Self::refused()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn fail(kind: io::ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{} (in memory): {kind}", path.display()))
}

impl Names {
    fn is_dir(&self, path: &Path) -> bool {
        path.as_os_str().is_empty() || path == Path::new("/") || self.dirs.contains(path)
    }

    fn has_parent(&self, path: &Path) -> bool {
        path.parent().is_none_or(|parent| self.is_dir(parent))
    }
}

impl Disk for MemDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut names = self.0.names.lock();
        if names.is_dir(path) {
            return Err(fail(io::ErrorKind::IsADirectory, path));
        }
        if let Some(file) = names.files.get(path) {
            if mode == OpenMode::CreateNew {
                return Err(fail(io::ErrorKind::AlreadyExists, path));
            }
            let file = Arc::clone(file);
            return Ok(if mode == OpenMode::Read {
                Arc::new(ReadOnly(file))
            } else {
                file
            });
        }
        let creates = matches!(mode, OpenMode::Create | OpenMode::CreateNew);
        if !creates || !names.has_parent(path) {
            return Err(fail(io::ErrorKind::NotFound, path));
        }
        let space = Arc::clone(&self.0.space);
        let file = Arc::new(MemFile {
            content: RwLock::default(),
            space,
        });
        names.files.insert(path.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut names = self.0.names.lock();
        for dir in path.ancestors() {
            if names.files.contains_key(dir) {
                return Err(fail(io::ErrorKind::NotADirectory, dir));
            }
        }
        names.dirs.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.0.names.lock();
        if names.is_dir(to) || !names.has_parent(to) {
            return Err(fail(io::ErrorKind::NotFound, to));
        }
        let file = names
            .files
            .remove(from)
            .ok_or_else(|| fail(io::ErrorKind::NotFound, from))?;
        names.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let removed = self.0.names.lock().files.remove(path);
        removed
            .map(drop)
            .ok_or_else(|| fail(io::ErrorKind::NotFound, path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut names = self.0.names.lock();
        let inside = |other: &PathBuf| other.parent() == Some(path);
        if names.files.keys().any(inside) || names.dirs.iter().any(inside) {
            return Err(fail(io::ErrorKind::DirectoryNotEmpty, path));
        }
        if names.dirs.remove(path) {
            Ok(())
        } else {
            Err(fail(io::ErrorKind::NotFound, path))
        }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let names = self.0.names.lock();
        Ok(names.is_dir(path) || names.files.contains_key(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let names = self.0.names.lock();
        if !names.is_dir(path) {
            return Err(fail(io::ErrorKind::NotFound, path));
        }
        let name_of = |child: &PathBuf| {
            let inside = child.parent() == Some(path);
            child
                .file_name()
                .filter(|_| inside)
                .and_then(|name| name.to_str().map(str::to_owned))
        };
        let files = names.files.iter().filter_map(|(child, file)| {
            Some(Entry {
                name: name_of(child)?,
                is_dir: false,
                len: file.content.read().len,
            })
        });
        let dirs = names.dirs.iter();
        let dirs = dirs.filter_map(|d| {
            Some(Entry {
                name: name_of(d)?,
                is_dir: true,
                len: 0,
            })
        });
        let mut entries: Vec<Entry> = files.chain(dirs).collect();
        entries.sort();
        Ok(entries)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let known = self.0.names.lock().is_dir(path);
        if known {
            Ok(())
        } else {
            Err(fail(io::ErrorKind::NotFound, path))
        }
    }

    fn lock(&self, path: &Path) -> io::Result<DirLock> {
        if !self.0.names.lock().locked.insert(path.to_owned()) {
            let text = format!("{} (in memory) is locked: it is in use", path.display());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        Ok(DirLock::new(MemLock {
            disk: self.clone(),
            path: path.to_owned(),
        }))
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.space.capacity.saturating_sub(self.used_bytes()))
    }
}

struct MemLock {
    disk: MemDisk,
    path: PathBuf,
}

impl Drop for MemLock {
    fn drop(&mut self) {
        self.disk.0.names.lock().locked.remove(&self.path);
    }
}
