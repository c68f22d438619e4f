//! Just enough of tar to walk through a backup of an old server: regular files, one after the other.
//!
//! ```text
//! archive  (header 512 | data, padded to 512)* | two blocks of zeros
//! header   name 100 | ... | size 12 (octal, at 124) | ... | checksum 8 (at 148) | type 1 (at 156) | ... | prefix 155 (at 345)
//! ```
//!
//! Extended headers (type `x`) may give a longer path and size; others are passed over. Links, directories and devices
//! are refused: a backup has none. Nothing is ever written to a file: names are only compared.

use crate::item::Refused;

const BLOCK_BYTES: usize = 512;
/// Bytes of an extended header at most.
const EXTENDED_BYTES_MAX: u64 = 64 << 10;
/// Bytes of a path at most.
const PATH_BYTES_MAX: usize = 1024;

/// What comes next in an archive.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A file begins: its path and size.
    File(String, u64),
    /// The next bytes of the file.
    Data(&'a [u8]),
    /// The file is complete.
    FileEnd,
}

#[derive(Debug)]
enum At {
    Header,
    /// Inside data: bytes that are left, then padding.
    Data {
        left: u64,
        padding: u64,
    },
    /// Inside an extended header.
    Extended {
        left: u64,
        padding: u64,
        used: bool,
    },
    Padding(u64),
    /// Behind the two blocks of zeros.
    End,
}

/// Walks through an archive as it comes in pieces.
#[derive(Debug)]
pub struct Walker {
    at: At,
    /// An incomplete header, or an extended one.
    held: Vec<u8>,
    zero_blocks: u8,
    /// Path and size that an extended header gives to the next file.
    path: Option<String>,
    size: Option<u64>,
}

impl Default for Walker {
    fn default() -> Self {
        Self {
            at: At::Header,
            held: Vec::new(),
            zero_blocks: 0,
            path: None,
            size: None,
        }
    }
}

impl Walker {
    /// Whether the archive's end has been read.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        matches!(self.at, At::End)
    }

    /// What comes next in `input`, which is advanced; `None`: it is used up.
    ///
    /// # Errors
    /// This is no such archive.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, Refused> {
        loop {
            match self.at {
                At::End => {
                    // Archives may be padded to any length with zeros.
                    if input.iter().any(|byte| *byte != 0) {
                        return Err(Refused::because("the archive goes on after its end"));
                    }
                    *input = &[];
                    return Ok(None);
                }
                At::Data { left: 0, padding } => {
                    self.at = At::Padding(padding);
                    return Ok(Some(Event::FileEnd));
                }
                At::Extended {
                    left: 0,
                    padding,
                    used,
                } => {
                    self.at = At::Padding(padding);
                    if used {
                        self.read_extended()?;
                    }
                    self.held.clear();
                }
                At::Padding(0) => self.at = At::Header,
                _ if input.is_empty() => return Ok(None),
                At::Data { left, padding } => {
                    let data = take(input, left);
                    self.at = At::Data {
                        left: left - data.len() as u64,
                        padding,
                    };
                    return Ok(Some(Event::Data(data)));
                }
                At::Extended {
                    left,
                    padding,
                    used,
                } => {
                    let data = take(input, left);
                    self.at = At::Extended {
                        left: left - data.len() as u64,
                        padding,
                        used,
                    };
                    if used {
                        self.held.extend_from_slice(data);
                    }
                }
                At::Padding(left) => {
                    let data = take(input, left);
                    self.at = At::Padding(left - data.len() as u64);
                }
                At::Header => {
                    let room = BLOCK_BYTES - self.held.len();
                    self.held.extend_from_slice(take(input, room as u64));
                    if self.held.len() == BLOCK_BYTES
                        && let Some(event) = self.read_header()?
                    {
                        return Ok(Some(event));
                    }
                }
            }
        }
    }

    fn read_header(&mut self) -> Result<Option<Event<'static>>, Refused> {
        let header = std::mem::take(&mut self.held);
        if header.iter().all(|byte| *byte == 0) {
            self.zero_blocks += 1;
            if self.zero_blocks == 2 {
                self.at = At::End;
            }
            return Ok(None);
        }
        if self.zero_blocks > 0 {
            return Err(Refused::because("the archive goes on after its end"));
        }
        let field = |from: usize, len: usize| header.get(from..from + len).unwrap_or_default();
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        let own: u64 = field(148, 8).iter().map(|byte| u64::from(*byte)).sum();
        if octal(field(148, 8)) != Some(sum - own + 8 * u64::from(b' ')) {
            return Err(Refused::because(
                "a header of the archive does not match its checksum",
            ));
        }
        let size =
            octal(field(124, 12)).ok_or(Refused::because("a file of the archive has no size"))?;
        let kind = header.get(156).copied().unwrap_or(0);
        if matches!(kind, b'x' | b'g') {
            if size > EXTENDED_BYTES_MAX {
                return Err(Refused::because(
                    "an extended header of the archive is too long",
                ));
            }
            self.at = At::Extended {
                left: size,
                padding: padding(size),
                used: kind == b'x',
            };
            return Ok(None);
        }
        if !matches!(kind, b'0' | 0) {
            return Err(Refused::because(
                "the archive holds something that is not a file",
            ));
        }
        let mut path = text(field(0, 100));
        if field(257, 5) == b"ustar" && !text(field(345, 155)).is_empty() {
            path = format!("{}/{path}", text(field(345, 155)));
        }
        let path = self.path.take().unwrap_or(path);
        let size = self.size.take().unwrap_or(size);
        self.at = At::Data {
            left: size,
            padding: padding(size),
        };
        Ok(Some(Event::File(path, size)))
    }

    /// Records `length key=value\n`.
    fn read_extended(&mut self) -> Result<(), Refused> {
        let damaged = || Refused::because("an extended header of the archive is damaged");
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        while !rest.is_empty() {
            let space = rest.iter().position(|byte| *byte == b' ');
            let digits = space
                .and_then(|space| rest.get(..space))
                .ok_or_else(damaged)?;
            let len = str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse::<usize>().ok());
            let record = len
                .filter(|len| *len > digits.len() + 1)
                .and_then(|len| rest.split_at_checked(len));
            let (record, after) = record.ok_or_else(damaged)?;
            let record = record
                .get(digits.len() + 1..)
                .and_then(|one| one.strip_suffix(b"\n"));
            let record = str::from_utf8(record.ok_or_else(damaged)?).map_err(|_| damaged())?;
            let (key, value) = record.split_once('=').ok_or_else(damaged)?;
            match key {
                "path" if value.len() > PATH_BYTES_MAX => return Err(damaged()),
                "path" => self.path = Some(value.to_owned()),
                "size" => self.size = Some(value.parse().map_err(|_| damaged())?),
                "linkpath" => return Err(Refused::because("the archive holds a link")),
                _ => {}
            }
            rest = after;
        }
        Ok(())
    }
}

fn take<'a>(input: &mut &'a [u8], at_most: u64) -> &'a [u8] {
    let count = usize::try_from(at_most).map_or(input.len(), |most| most.min(input.len()));
    let (now, later) = input.split_at_checked(count).unwrap_or_default();
    *input = later;
    now
}

const fn padding(size: u64) -> u64 {
    let block = BLOCK_BYTES as u64;
    (block - size % block) % block
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0);
    let field = field.get(..end.unwrap_or(field.len())).unwrap_or_default();
    String::from_utf8_lossy(field).into_owned()
}

/// Octal digits between blanks; base-256 numbers are not for files of this size.
fn octal(field: &[u8]) -> Option<u64> {
    let field = field.split(|byte| *byte == 0).next()?.trim_ascii();
    if field.is_empty() {
        return None;
    }
    field.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 8)?;
        sum.checked_mul(8)?.checked_add(u64::from(digit))
    })
}

/// Makes archives for tests.
#[cfg(test)]
pub(crate) mod build {
    /// One file, or whatever `kind` says, with its padding.
    pub(crate) fn file(path: &str, kind: u8, data: &[u8]) -> Vec<u8> {
        let mut header = vec![0; 512];
        header[..path.len()].copy_from_slice(path.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        header[156] = kind;
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        header.extend_from_slice(data);
        header.resize(header.len().next_multiple_of(512), 0);
        header
    }

    /// The whole archive around files.
    pub(crate) fn archive(files: &[Vec<u8>]) -> Vec<u8> {
        let mut out = files.concat();
        out.resize(out.len() + 1024, 0);
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::build::{archive, file};
    use super::*;

    type Files = Vec<(String, Vec<u8>)>;

    /// Path and content of every file.
    fn walk(bytes: &[u8], step: usize) -> Result<(Files, bool), Refused> {
        let (mut walker, mut files) = (Walker::default(), Files::new());
        for mut piece in bytes.chunks(step) {
            while let Some(event) = walker.next(&mut piece)? {
                match event {
                    Event::File(path, _) => files.push((path, Vec::new())),
                    Event::Data(data) => files.last_mut().unwrap().1.extend_from_slice(data),
                    Event::FileEnd => {}
                }
            }
        }
        Ok((files, walker.has_ended()))
    }

    #[test]
    fn files_come_out_whole() {
        let long = "d/".repeat(80) + "x";
        let record = format!("path={long}\n");
        let record = format!("{} {record}", record.len() + 4);
        let bytes = archive(&[
            file("meta.inf", b'0', b"{}"),
            file("PaxHeaders.0/x", b'x', record.as_bytes()),
            file("short", b'0', &[7; 1000]),
            file("empty", 0, b""),
        ]);
        for step in [1, 100, 512, 5000] {
            let (files, ended) = walk(&bytes, step).unwrap();
            assert!(ended);
            assert_eq!(files[0], ("meta.inf".into(), b"{}".to_vec()));
            assert_eq!(files[1], (long.clone(), vec![7; 1000]));
            assert_eq!(files[2], ("empty".into(), Vec::new()));
        }
    }

    #[test]
    fn what_does_not_belong_is_refused() {
        for kind in [b'1', b'2', b'3', b'5', b'L', b'S'] {
            assert!(
                walk(&archive(&[file("x", kind, b"")]), 100).is_err(),
                "{kind}"
            );
        }
        let mut wrong = archive(&[file("x", b'0', b"abc")]);
        wrong[0] = b'y';
        assert!(walk(&wrong, 100).is_err(), "checksum");
        let good = archive(&[file("x", b'0', b"abc")]);
        assert!(!walk(&good[..600], 100).unwrap().1, "cut off");
        let again = [&good[..], &file("y", b'0', b"")].concat();
        assert!(walk(&again, 100).is_err(), "more after the end");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 512..2000)) {
            let _ = walk(&bytes, 100);
            // With a checksum that holds.
            bytes[148..156].fill(b' ');
            let sum: u64 = bytes[..512].iter().map(|byte| u64::from(*byte)).sum();
            bytes[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            let _ = walk(&bytes, 100);
        }
    }
}
