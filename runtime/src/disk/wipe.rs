//! Wiping: what was in a file is made unreadable for good, by zeros in its place.

use std::io;

use super::{File, is_full};

/// Zeros are written in pieces of this many bytes.
const PIECE_BYTES: usize = 256 * 1024;
static ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];

/// Whether all of a file's bytes have their space on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// They have: a disk that has no space for the zeros is an error.
    Taken,
    /// The file may end in a hole, as one that was made longer before it was written. On a full disk there is no space to
    /// overwrite a hole, nor a need.
    MayEndInHole,
}

/// Overwrites the first `len` bytes of a file with zeros, durably.
///
/// # Errors
/// The disk does not take them; some of the bytes may be as they were.
pub fn wipe(file: &dyn File, len: u64, space: Space) -> io::Result<()> {
    let (mut at, mut step) = (0, PIECE_BYTES as u64);
    while at < len && step > 0 {
        let count = (len - at).min(step);
        let (zeros, _) = ZEROS.split_at(count as usize);
        match file.write_at(zeros, at) {
            Ok(()) => at += count,
            // The hole begins within these bytes.
            Err(error) if space == Space::MayEndInHole && is_full(&error) => step = count / 2,
            Err(error) => return Err(error),
        }
    }
    assert!(
        at == len || space == Space::MayEndInHole,
        "all is overwritten, but for a hole"
    );
    file.sync()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::disk::{Disk as _, MemDisk, OpenMode};

    use super::*;

    #[test]
    fn the_first_bytes_are_zeros_and_the_rest_is_as_it_was() {
        let disk = MemDisk::new();
        let file = disk.open(Path::new("file"), OpenMode::Create).unwrap();
        let len = 2 * PIECE_BYTES + 100;
        file.write_at(&vec![7; len + 1], 0).unwrap();
        wipe(&*file, len as u64, Space::Taken).unwrap();
        let bytes = disk.read(Path::new("file")).unwrap();
        assert_eq!(bytes.len(), len + 1);
        assert!(bytes[..len].iter().all(|byte| *byte == 0) && bytes[len] == 7);
    }
}
