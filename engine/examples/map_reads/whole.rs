//! Whole questions to a store, over positioned reads and over a disk whose files are mapped.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use halyard_engine::{Append, Filter, Filters, Options, Store, StreamId, Timestamp};
use halyard_runtime::disk::{DirLock, Disk, Entry, File, OpenMode, RealDisk};
use halyard_runtime::measure;
use memmap2::{Mmap, UncheckedAdvice};

use crate::{Each, scatter, ways};

const STREAM: StreamId = StreamId(1);
const SUBJECTS: u64 = 1_000_000;

fn options() -> Options {
    Options {
        reserve_bytes: 0,
        overwrite_freed: false,
        cache_bytes: 0,
        ..Options::default()
    }
}

fn name(number: u64) -> String {
    format!("orders.{}.{number}", number % 100)
}

/// Fills a store as a server would, merges included.
pub(crate) fn build(dir: &Path, messages: u64) {
    let (mut store, _) = Store::open(Arc::new(RealDisk), dir, options()).unwrap();
    store.create_stream(STREAM, 1).unwrap();
    for number in 0..messages {
        let subject = name(number.wrapping_mul(611_953) % SUBJECTS);
        let append = Append {
            record: Bytes::from([subject.as_bytes(), &[b'x'; 128]].concat()),
            subject_len: subject.len() as u16,
            headers_len: 0,
            time: Timestamp::from_nanos(number as i64),
            expires: None,
        };
        store.append(STREAM, append).unwrap();
        if store.dirty_bytes() > 64 << 20 || number + 1 == messages {
            let job = store.begin_flush(number).unwrap();
            store.finish(job.run()).unwrap();
            while let Some(job) = store.begin_maintenance() {
                store.finish(job.run()).unwrap();
            }
        }
    }
}

/// The real disk, whose files are read through maps.
#[derive(Debug, Default)]
struct MapDisk(Mutex<BTreeMap<PathBuf, Arc<MapFile>>>);

#[derive(Debug)]
struct MapFile(Mmap);

impl File for MapFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl MapDisk {
    /// Takes all pages out of the maps, so that the page cache can let them go.
    fn forget(&self) {
        for file in self.0.lock().unwrap().values() {
            #[expect(
                unsafe_code,
                reason = "unsafe only for private maps, which lose what was written"
            )]
            // SAFETY: the map is shared and only read; its pages come back from the file.
            unsafe {
                file.0.unchecked_advise(UncheckedAdvice::DontNeed).unwrap();
            }
        }
    }
}

impl Disk for MapDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if mode != OpenMode::Read {
            return RealDisk.open(path, mode);
        }
        let mut files = self.0.lock().unwrap();
        let file = files
            .entry(path.to_owned())
            .or_insert_with(|| Arc::new(MapFile(ways::map(path))));
        Ok(Arc::<MapFile>::clone(file))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        RealDisk.list(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn lock(&self, path: &Path) -> io::Result<DirLock> {
        RealDisk.lock(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(path)
    }
}

/// A table: the same questions over both disks, without the store's own cache.
pub(crate) fn compare(dir: &Path, messages: u64) -> Vec<String> {
    let mut lines = vec![
        "| whole question, no cache of the store | disk | warm | cold |".to_owned(),
        "|---|---|---|---|".to_owned(),
    ];
    type Question<'a> = (&'a str, &'a dyn Fn(&Store, u64));
    let next = |store: &Store, number: u64| {
        let filter = Filter::parse(name(scatter(number) % SUBJECTS).as_bytes()).unwrap();
        let filters = Filters::from(filter);
        store.next_matching(STREAM, &filters, messages / 3).unwrap();
    };
    let get = |store: &Store, number: u64| {
        let found = store.get(STREAM, 1 + scatter(number) % messages).unwrap();
        assert!(found.is_some());
    };
    let questions: [Question<'_>; 2] = [
        ("next message of one subject in a million", &next),
        ("random message", &get),
    ];
    for (text, ask) in questions {
        for is_mapped in [false, true] {
            let cold = ask_cold(dir, is_mapped, ask);
            let disk: Arc<dyn Disk> = if is_mapped {
                Arc::new(MapDisk::default())
            } else {
                Arc::new(RealDisk)
            };
            let store = open(disk, dir);
            (0..4000).for_each(|number| ask(&store, number));
            let warm = Each::of(5, 800, || {}, |number| ask(&store, number));
            let name = if is_mapped {
                "mapped, copied out"
            } else {
                "positioned"
            };
            lines.push(format!("| {text} | {name} | {warm} | {cold} |"));
        }
    }
    lines
}

fn open(disk: Arc<dyn Disk>, dir: &Path) -> Store {
    Store::open(disk, dir, options()).unwrap().0
}

/// Each question right after the page cache and the maps have let all pages go (opening had read the subject tables).
fn ask_cold(dir: &Path, is_mapped: bool, ask: &dyn Fn(&Store, u64)) -> Each {
    let mapped = Arc::new(MapDisk::default());
    let disk: Arc<dyn Disk> = if is_mapped {
        mapped.clone()
    } else {
        Arc::new(RealDisk)
    };
    let store = open(disk, dir);
    let before = || {
        mapped.forget();
        for entry in RealDisk.list(dir).unwrap() {
            measure::forget_cached(&dir.join(entry.name)).unwrap();
        }
    };
    Each::of(3, 100, before, |number| ask(&store, number))
}
