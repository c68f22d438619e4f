//! What every disk does alike.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};

use halyard_runtime::disk::{Disk, MemDisk, OpenMode, RealDisk};
use halyard_runtime::random;
use halyard_runtime::sim::{DiskFaults, SimDisk};

/// A directory that is removed at the end of the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("halyard-disk-{:016x}", random::u64()));
        RealDisk.create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    #[expect(clippy::disallowed_methods, reason = "cleans up after the test")]
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn each_disk(test: impl Fn(&dyn Disk, &Path)) {
    let scratch = Scratch::new();
    test(&RealDisk, &scratch.0);
    let memory = MemDisk::new();
    memory.create_dir_all(Path::new("/store")).unwrap();
    test(&memory, Path::new("/store"));
    let simulated = SimDisk::new(1, DiskFaults::default());
    simulated.create_dir_all(Path::new("/store")).unwrap();
    test(&simulated, Path::new("/store"));
}

#[test]
fn bytes_come_back() {
    each_disk(|disk, dir| {
        let file = disk.open(&dir.join("a"), OpenMode::CreateNew).unwrap();
        file.write_at(b"hello", 100_000).unwrap();
        file.write_vectored_at(
            &[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")],
            3,
        )
        .unwrap();
        file.sync().unwrap();
        disk.sync_dir(dir).unwrap();
        let mut all = disk.read(&dir.join("a")).unwrap();
        assert_eq!(all.len(), 100_005);
        assert_eq!(&all[..10], b"\0\0\0abcde\0\0");
        assert_eq!(&all.split_off(100_000), b"hello");
        let mut past = [9; 4];
        assert_eq!(file.read_at(&mut past, 100_005).unwrap(), 0);
        assert_eq!(file.read_at(&mut past, 100_003).unwrap(), 2);
        let error = file.read_exact_at(&mut past, 100_003).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn many_pieces_in_one_write() {
    each_disk(|disk, dir| {
        let file = disk.open(&dir.join("a"), OpenMode::Create).unwrap();
        let bytes: Vec<u8> = (0..5000u32).flat_map(u32::to_le_bytes).collect();
        let pieces: Vec<IoSlice<'_>> = bytes.chunks(4).map(IoSlice::new).collect();
        file.write_vectored_at(&pieces, 7).unwrap();
        assert_eq!(&disk.read(&dir.join("a")).unwrap()[7..], &bytes[..]);
    });
}

#[test]
fn lengths() {
    each_disk(|disk, dir| {
        let file = disk.open(&dir.join("a"), OpenMode::Create).unwrap();
        file.write_at(&[7; 1000], 0).unwrap();
        file.set_len(10).unwrap();
        file.set_len(20).unwrap();
        let mut read = [1; 20];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(
            read,
            [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        file.allocate(300_000).unwrap();
        assert_eq!(file.len().unwrap(), 300_000);
        file.allocate(5).unwrap();
        assert_eq!(file.len().unwrap(), 300_000, "allocate never shortens");
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read[9], 7, "nor does it overwrite");
    });
}

#[test]
fn names() {
    each_disk(|disk, dir| {
        let (a, b) = (dir.join("a"), dir.join("b"));
        let kind = |mode| disk.open(&a, mode).map(drop).unwrap_err().kind();
        assert_eq!(kind(OpenMode::Read), ErrorKind::NotFound);
        assert_eq!(kind(OpenMode::ReadWrite), ErrorKind::NotFound);
        let old = disk.open(&a, OpenMode::CreateNew).unwrap();
        old.write_at(b"old", 0).unwrap();
        assert_eq!(kind(OpenMode::CreateNew), ErrorKind::AlreadyExists);
        disk.open(&b, OpenMode::Create)
            .unwrap()
            .write_at(b"new!", 0)
            .unwrap();
        disk.create_dir_all(&dir.join("c/d")).unwrap();
        let listed: Vec<_> = disk
            .list(dir)
            .unwrap()
            .into_iter()
            .map(|e| (e.name, e.is_dir, e.len))
            .collect();
        let expected = [
            ("a".into(), false, 3),
            ("b".into(), false, 4),
            ("c".into(), true, 0),
        ];
        assert_eq!(listed, expected);
        disk.rename(&b, &a).unwrap();
        assert!(!disk.exists(&b).unwrap());
        assert_eq!(disk.read(&a).unwrap(), b"new!");
        let mut read = [0; 3];
        old.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"old", "an open handle keeps the replaced file");
        assert!(disk.remove_dir(&dir.join("c")).is_err(), "not empty");
        disk.remove_dir(&dir.join("c/d")).unwrap();
        disk.remove_dir(&dir.join("c")).unwrap();
        disk.remove_file(&a).unwrap();
        let error = disk.remove_file(&a).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(a.to_str().unwrap()), "{error}");
        assert!(disk.list(dir).unwrap().is_empty());
        assert!(disk.free_bytes(dir).unwrap() > 0);
    });
}

#[test]
fn a_lock_has_one_holder() {
    each_disk(|disk, dir| {
        let held = disk.lock(&dir.join("lock")).unwrap();
        let error = disk.lock(&dir.join("lock")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(error.to_string().contains("lock"), "{error}");
        drop(held);
        drop(disk.lock(&dir.join("lock")).unwrap());
    });
}

#[test]
fn a_file_opened_for_reading_refuses_writes() {
    each_disk(|disk, dir| {
        drop(disk.open(&dir.join("a"), OpenMode::Create).unwrap());
        let file = disk.open(&dir.join("a"), OpenMode::Read).unwrap();
        assert!(file.write_at(b"x", 0).is_err());
    });
}

#[test]
fn memory_comes_back() {
    let disk = MemDisk::limited(1 << 20);
    let file = disk.open(Path::new("/a"), OpenMode::Create).unwrap();
    file.write_at(&[1; 1 << 20], 0).unwrap();
    assert_eq!(
        file.write_at(&[1], 1 << 20).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    file.set_len(1 << 19).unwrap();
    assert_eq!(disk.used_bytes(), 1 << 19);
    disk.remove_file(Path::new("/a")).unwrap();
    assert_eq!(disk.used_bytes(), 1 << 19, "still open");
    drop(file);
    assert_eq!(disk.used_bytes(), 0);
}
