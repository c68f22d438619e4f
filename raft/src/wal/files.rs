//! The files of the log as they are found: what each header says, and what of it one flipped bit explains.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use halyard_runtime::disk::{Disk, File, OpenMode};

use super::segment::{self, HEADER_BLOCK, Header, Opening};
use crate::error::Error;

/// A file of the log, as found.
pub(super) struct Found {
    pub(super) sequence: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    pub(super) bytes: u64,
    pub(super) opening: Opening,
    /// The byte of the header that is not as it was, and what it was.
    pub(super) mend: Option<(usize, u8)>,
}

/// All files of the log, by sequence.
pub(super) fn find(disk: &Arc<dyn Disk>, dir: &Path, mode: OpenMode) -> Result<Vec<Found>, Error> {
    let listed = disk
        .list(dir)
        .map_err(|source| Error::io("listing the log", dir, source))?;
    let mut found = Vec::new();
    for entry in listed {
        let Some(sequence) = segment::sequence_of(&entry.name) else {
            continue;
        };
        let path = dir.join(&entry.name);
        let opened = || -> std::io::Result<_> {
            let file = disk.open(&path, mode)?;
            let bytes = file.len()?;
            let mut block = vec![0; HEADER_BLOCK.min(bytes) as usize];
            file.read_exact_at(&mut block, 0)?;
            let (mut opening, mut mend) = (Header::decode(&block), None);
            if opening == Opening::Unsound
                && let Some((at, byte, header)) = Header::mend(&block)
            {
                (opening, mend) = (Opening::Sound(header), Some((at, byte)));
            }
            Ok((file, bytes, opening, mend))
        };
        let (file, bytes, opening, mend) =
            opened().map_err(|source| Error::io("opening a log segment", &path, source))?;
        found.push(Found {
            sequence,
            path,
            file,
            bytes,
            opening,
            mend,
        });
    }
    found.sort_by_key(|each| each.sequence);
    Ok(found)
}

/// Something that was put right, or can be.
pub(super) enum Mend {
    /// One bit had flipped in this byte.
    Bit {
        path: PathBuf,
        file: Arc<dyn File>,
        offset: u64,
        byte: u8,
    },
    /// A spare file was missing or cut short.
    Spare(PathBuf),
}

impl std::fmt::Display for Mend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bit { path, offset, .. } => {
                write!(
                    f,
                    "{} had one flipped bit at byte {offset}: known from the checksum; nothing is lost",
                    path.display()
                )
            }
            Self::Spare(path) => write!(
                f,
                "{} is missing or cut short: a spare file that held nothing yet; nothing is lost",
                path.display()
            ),
        }
    }
}

impl Mend {
    /// Puts the byte into the file as it was.
    pub(super) fn write(&self) -> Result<(), Error> {
        let Self::Bit {
            path,
            file,
            offset,
            byte,
        } = self
        else {
            return Ok(());
        };
        let written = file.write_at(&[*byte], *offset).and_then(|()| file.sync());
        written.map_err(|source| Error::io("mending a flipped bit", path, source))
    }
}

/// All bytes of a file.
pub(super) fn read_whole(file: &Found) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; usize::try_from(file.bytes).unwrap_or(usize::MAX)];
    file.file
        .read_exact_at(&mut bytes, 0)
        .map_err(|source| Error::io("reading the log", &file.path, source))?;
    Ok(bytes)
}
