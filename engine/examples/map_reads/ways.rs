//! The ways to get at a block, and what a map does when its file has become shorter.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use halyard_runtime::disk::{Disk, File, OpenMode, RealDisk};
use memmap2::{Advice, Mmap};

use crate::blocks::Block;

/// How a block is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// As the store does: `pread` into fresh memory.
    Positioned,
    /// Copied out of a map into fresh memory: what a map behind `File::read_at` would be.
    Copied,
    /// Used where it is mapped.
    InPlace,
    /// The same, told that accesses are random: no read-ahead.
    InPlaceRandom,
    /// The same, after `MADV_POPULATE_READ` of the range, which reports an unreadable page as an error.
    InPlacePopulated,
}

impl Way {
    pub(crate) const ALL: [Self; 5] = [
        Self::Positioned,
        Self::Copied,
        Self::InPlace,
        Self::InPlaceRandom,
        Self::InPlacePopulated,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Positioned => "positioned",
            Self::Copied => "map, copied out",
            Self::InPlace => "map, in place",
            Self::InPlaceRandom => "map, in place, `MADV_RANDOM`",
            Self::InPlacePopulated => "map, in place, `MADV_POPULATE_READ` before",
        }
    }

    pub(crate) fn open(self, files: &[PathBuf]) -> Vec<Opened> {
        let open = |path: &PathBuf| match self {
            Self::Positioned => Opened::File(RealDisk.open(path, OpenMode::Read).unwrap()),
            _ => {
                let map = map(path);
                if self == Self::InPlaceRandom {
                    map.advise(Advice::Random).unwrap();
                }
                Opened::Map(map, self)
            }
        };
        files.iter().map(open).collect()
    }
}

/// A file that is open in one of the ways.
pub(crate) enum Opened {
    File(Arc<dyn File>),
    Map(Mmap, Way),
}

impl Opened {
    /// Reads the block and checks it.
    pub(crate) fn verify(&mut self, block: Block) {
        let (start, len) = (block.offset as usize, block.len as usize);
        let is_sound = match self {
            Self::File(file) => {
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, block.offset).unwrap();
                block.is_sound(&bytes)
            }
            Self::Map(map, Way::Copied) => {
                let copy = map[start..start + len].to_vec();
                block.is_sound(std::hint::black_box(&copy))
            }
            Self::Map(map, way) => {
                if *way == Way::InPlacePopulated {
                    map.advise_range(Advice::PopulateRead, start, len).unwrap();
                }
                block.is_sound(&map[start..start + len])
            }
        };
        assert!(is_sound, "{block:?}");
    }
}

/// Maps a whole file.
#[expect(clippy::disallowed_methods, reason = "a map needs the system's file")]
pub(crate) fn map(path: &Path) -> Mmap {
    let file = std::fs::File::open(path).unwrap();
    #[expect(
        unsafe_code,
        reason = "segments are never changed in place, and this program alone uses its directory"
    )]
    // SAFETY: nothing writes to or cuts the file while the map lives; the one place that does wants to be killed.
    unsafe {
        Mmap::map(&file).unwrap()
    }
}

/// Runs [`read_a_cut_file`] in a process of its own; says how it ended.
pub(crate) fn cut_a_file(dir: &Path) -> String {
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .arg(dir)
        .arg("--cut")
        .status()
        .unwrap();
    let read = RealDisk
        .open(&dir.join("cut"), OpenMode::ReadWrite)
        .unwrap();
    let positioned = read.read_exact_at(&mut [0; 64], 0).unwrap_err();
    RealDisk.remove_file(&dir.join("cut")).unwrap();
    format!(
        "A file that was cut after it was opened: a positioned read answers \"{positioned}\"; `MADV_POPULATE_READ` answers an error; \
         touching the map ended the process with signal {}.",
        status
            .signal()
            .map_or("none".to_owned(), |signal| signal.to_string())
    )
}

/// Maps a file, cuts it, and touches the map.
pub(crate) fn read_a_cut_file(dir: &Path) {
    let path = dir.join("cut");
    let file = RealDisk.open(&path, OpenMode::Create).unwrap();
    file.write_at(&[1; 1 << 20], 0).unwrap();
    let map = map(&path);
    file.set_len(0).unwrap();
    assert!(map.advise_range(Advice::PopulateRead, 0, 64).is_err());
    println!("the cut map holds {}", map[0]);
}
