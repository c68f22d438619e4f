//! How far the log had come, kept beside it: `log/end`. A log that ends before that has lost its end, and a file that is
//! missing behind the segment that was in use is a spare.
//!
//! ```text
//!   file      note (512 B) | zeros to 4096 | the same note again
//!   note      magic "HALYDEND" | version u32: 1 | crc u32 of bytes 16..40 | log u64 | sequence u64 | position u64
//! ```
//!
//! Written and synced when the log is opened, closed, and before a segment takes its first batch; written only when the log
//! comes to rest. It says what was so at some time, and stays true: an old one, or none, proves less. So a failed write of it
//! is no failure of the log.

use std::path::Path;
use std::sync::Arc;

use halyard_format::checksum;
use halyard_format::codec::{Fields, Malformed, Reader};
use halyard_runtime::disk::{Disk, OpenMode};

const NAME: &str = "end";
const MAGIC: &[u8; 8] = b"HALYDEND";
const VERSION: u32 = 1;
/// Where the copies are: no page and no sector has both.
const COPIES: [u64; 2] = [0, 4096];
const NOTE_BYTES: usize = 40;
const SECTOR: usize = 512;

/// What is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Identity of the log.
    pub(crate) log: u64,
    /// The segment in use, or about to be; none of a higher number ever was.
    pub(crate) sequence: u64,
    /// Everything before this position was synced.
    pub(crate) position: u64,
}

impl End {
    fn encode(self) -> Vec<u8> {
        let mut body = Fields::default();
        body.u64(self.log).u64(self.sequence).u64(self.position);
        let mut out = Fields(MAGIC.to_vec());
        out.u32(VERSION).u32(checksum::sum(&body.0));
        out.0.extend_from_slice(&body.0);
        assert_eq!(
            out.0.len(),
            NOTE_BYTES,
            "the note is as long as a reader expects"
        );
        out.0.resize(SECTOR, 0);
        out.0
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Reader::new(bytes);
        if fields.array()? != *MAGIC || fields.u32()? != VERSION {
            return Err(Malformed("no note of this version"));
        }
        let (crc, body) = (fields.u32()?, fields.take(NOTE_BYTES - 16)?);
        if checksum::sum(body) != crc {
            return Err(Malformed("the checksum does not match"));
        }
        let mut fields = Reader::new(body);
        Ok(Self {
            log: fields.u64()?,
            sequence: fields.u64()?,
            position: fields.u64()?,
        })
    }
}

/// What the sound copies say; the later one counts. `None` where there is none: a log of an earlier release, or a damaged note.
pub(crate) fn read(disk: &Arc<dyn Disk>, dir: &Path) -> Option<End> {
    let file = disk.open(&dir.join(NAME), OpenMode::Read).ok()?;
    let copies = COPIES.into_iter().filter_map(|at| {
        let mut bytes = [0; NOTE_BYTES];
        file.read_exact_at(&mut bytes, at).ok()?;
        End::decode(&bytes).ok()
    });
    copies.max_by_key(|note| note.position)
}

/// Notes it, durably if `is_durable`. A failure is told and nothing more.
pub(crate) fn write(disk: &Arc<dyn Disk>, dir: &Path, note: End, is_durable: bool) {
    let path = dir.join(NAME);
    let bytes = note.encode();
    let write = || -> std::io::Result<()> {
        let is_new = !disk.exists(&path)?;
        let file = disk.open(&path, OpenMode::Create)?;
        for at in COPIES {
            file.write_at(&bytes, at)?;
        }
        if is_durable {
            file.sync()?;
        }
        if is_new {
            disk.sync_dir(dir)?;
        }
        Ok(())
    };
    if let Err(error) = write() {
        tracing::warn!(
            "{}: the end of the log cannot be noted: {error}",
            path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halyard_runtime::disk::MemDisk;

    #[test]
    fn one_copy_is_enough_and_a_flipped_bit_is_no_note() {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let dir = Path::new("log");
        disk.create_dir_all(dir).unwrap();
        assert_eq!(read(&disk, dir), None);
        let note = End {
            log: 1,
            sequence: 2,
            position: 3,
        };
        write(&disk, dir, note, true);
        let file = disk.open(&dir.join(NAME), OpenMode::ReadWrite).unwrap();
        let whole = disk.read(&dir.join(NAME)).unwrap();
        for bit in 0..NOTE_BYTES * 8 {
            for at in COPIES {
                let offset = at + bit as u64 / 8;
                let byte = whole[offset as usize] ^ (1 << (bit % 8));
                file.write_at(&[byte], offset).unwrap();
                assert_eq!(read(&disk, dir), Some(note));
                file.write_at(&whole, 0).unwrap();
            }
        }
        file.write_at(&[9; 1], 20).unwrap();
        file.write_at(&[9; 1], 4096 + 20).unwrap();
        assert_eq!(read(&disk, dir), None);
    }
}
