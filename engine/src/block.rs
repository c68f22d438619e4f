//! Blocks: how every file of the store protects what is in it.
//!
//!   file    header (128 B) | block*
//!   header  magic 8 B | version u16 | cipher u8 | 0 x 5 | file tag u64 | key id u64 | wrapped key 60 B | 0 x 32 | crc u32
//!   block   stored length u32 | raw length u32 | kind u8 | flags u8 | 0 u16 | crc u32 | stored bytes
//!
//! The CRC32C of a block covers the file's tag, the block's offset, the frame and the stored bytes, so a block that was
//! written or read at the wrong place, or in the wrong file, does not pass. Stored bytes are the raw ones, compressed
//! (flag 1), then sealed (flag 2); the frame and the file's tag are authenticated with them.
//!
//! Blocks lie one after the other without gaps, so a file can be walked without any index. All numbers little endian.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use halyard_format::cipher::TAG_BYTES;
use halyard_format::codec::{self, Malformed, Reader};
use halyard_format::flip::{self, Flip};
use halyard_format::{Encryption, checksum};
use halyard_runtime::disk::{Disk, File, OpenMode};

use crate::error::Error;
use crate::file_key::{FileKey, SealedWith, WRAPPED_BYTES};
use crate::limits::BLOCK_BYTES_MAX;
use crate::options::Options;

pub(crate) const HEADER_BYTES: usize = 128;
pub(crate) const FRAME_BYTES: usize = 16;
/// The version that this program writes, and the highest that it reads.
pub(crate) const FORMAT_VERSION: u16 = 2;

const FLAG_COMPRESSED: u8 = 1;
const FLAG_SEALED: u8 = 2;
/// Writes are collected to about so many bytes.
const WRITE_BYTES: usize = 512 * 1024;
/// Bytes that are searched for a block at one time.
const SEARCH_BYTES: u64 = 1 << 20;
/// What a disk loses at one time, at least.
const SECTOR_BYTES: u64 = 512;

/// What a block holds. The numbers are the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Rows = 1,
    Body = 2,
    Subjects = 3,
    Postings = 4,
    PostingIndex = 5,
    Streams = 6,
    Records = 7,
    Root = 8,
    Manifest = 9,
    /// Where the first copy of a segment's index is, and a copy of its header: never sealed, as it must be found without a key.
    Guard = 10,
    /// Rows behind what says whose they are.
    Page = 11,
}

impl Kind {
    /// The kind of that number.
    const fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Rows,
            2 => Self::Body,
            3 => Self::Subjects,
            4 => Self::Postings,
            5 => Self::PostingIndex,
            6 => Self::Streams,
            7 => Self::Records,
            8 => Self::Root,
            9 => Self::Manifest,
            10 => Self::Guard,
            11 => Self::Page,
            _ => return None,
        })
    }

    /// Whether a store does not open without it: then one flipped bit is mended when it is read. A page's damage takes its
    /// messages and nothing else, and is told as what it is.
    const fn is_vital(self) -> bool {
        match self {
            Self::Subjects | Self::Streams | Self::Records | Self::Root | Self::Manifest => true,
            Self::Rows
            | Self::Page
            | Self::Body
            | Self::Postings
            | Self::PostingIndex
            | Self::Guard => false,
        }
    }
}

/// Where a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BlockRef {
    pub(crate) offset: u64,
    /// Frame and stored bytes.
    pub(crate) len: u32,
}

/// What a file header says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Magic(pub(crate) [u8; 8]);

/// A file header, its sum apart: how it is laid out is said at the top.
struct Header {
    magic: [u8; 8],
    version: u16,
    tag: u64,
    sealed_with: SealedWith,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let magic = reader.array()?;
        let version = reader.u16()?;
        let cipher = reader.u8()?;
        reader.take(5)?;
        let tag = reader.u64()?;
        let key_id = reader.u64()?;
        Ok(Self {
            magic,
            version,
            tag,
            sealed_with: SealedWith { key_id, cipher },
        })
    }
}

/// The frame of a block: how it is laid out is said at the top.
struct Frame {
    stored_len: u32,
    raw_len: u32,
    kind: u8,
    flags: u8,
    crc: u32,
}

impl Frame {
    fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let (stored_len, raw_len) = (reader.u32()?, reader.u32()?);
        let (kind, flags, _) = (reader.u8()?, reader.u8()?, reader.u16()?);
        Ok(Self {
            stored_len,
            raw_len,
            kind,
            flags,
            crc: reader.u32()?,
        })
    }
}

/// The length of the whole block whose frame starts with `bytes`.
pub(crate) fn block_len(bytes: &[u8]) -> Result<u64, Malformed> {
    Ok(FRAME_BYTES as u64 + u64::from(codec::u32_at(bytes, 0)?))
}

fn frame_crc(tag: u64, offset: u64, frame: &[u8], stored: &[u8]) -> u32 {
    let crc = checksum::sum(&tag.to_le_bytes());
    let crc = checksum::append(crc, &offset.to_le_bytes());
    let crc = checksum::append(crc, frame);
    checksum::append(crc, stored)
}

/// What the AEAD authenticates besides the bytes: the frame without its checksum, and the file's tag.
fn context(tag: u64, frame: &[u8]) -> Vec<u8> {
    [&tag.to_le_bytes(), frame].concat()
}

/// Writes one file of blocks, front to back, never twice at one place.
#[derive(Debug)]
pub(crate) struct BlockWriter {
    file: Arc<dyn File>,
    path: PathBuf,
    tag: u64,
    key: Option<FileKey>,
    compress: bool,
    /// Where `pending` begins in the file.
    written: u64,
    pending: Vec<u8>,
    /// With `Some`, the file's durable length is always at least what is written: see [`BlockWriter::keep_length_ahead`].
    reserved: Option<u64>,
}

impl BlockWriter {
    /// Starts a file with its header in the buffer. `file` must be empty.
    pub(crate) fn new(
        file: Arc<dyn File>,
        path: &Path,
        magic: Magic,
        tag: u64,
        options: &Options,
    ) -> Self {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&magic.0);
        header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        let encryption = options.encryption.as_ref();
        let sealed_with = SealedWith::new(encryption);
        header.push(sealed_with.cipher);
        header.extend_from_slice(&[0; 5]);
        header.extend_from_slice(&tag.to_le_bytes());
        header.extend_from_slice(&sealed_with.key_id.to_le_bytes());
        let created = encryption.map(|encryption| FileKey::create(encryption, &header));
        let (key, wrapped) = created.map_or((None, [0; WRAPPED_BYTES]), |(key, wrapped)| {
            (Some(key), wrapped)
        });
        header.extend_from_slice(&wrapped);
        header.resize(HEADER_BYTES - 4, 0);
        checksum::close(&mut header);
        assert_eq!(header.len(), HEADER_BYTES);
        Self {
            file,
            path: path.to_owned(),
            tag,
            key,
            compress: options.compress,
            written: 0,
            pending: header,
            reserved: None,
        }
    }

    /// Makes the file so long, durably, before anything is written, and longer in time when that does not do.
    ///
    /// A power loss may keep bytes and lose the length that covers them. Such bytes would be in no file: nothing could
    /// find and overwrite them, and what is erased later would still be there.
    pub(crate) fn keep_length_ahead(&mut self, len: u64) -> Result<(), Error> {
        self.reserved = Some(len);
        self.file
            .set_len(len)
            .and_then(|()| self.file.sync())
            .map_err(|error| Error::io(&self.path, error))
    }

    /// The file's header, as long as nothing was written: for a second copy of it.
    pub(crate) fn header(&self) -> Vec<u8> {
        assert!(self.written == 0, "the header is still there");
        let header = self.pending.get(..HEADER_BYTES);
        header.expect("it begins with its header").to_vec()
    }

    /// Where the next block will start: all bytes so far.
    pub(crate) fn len(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    /// Adds a block made of `raw`.
    pub(crate) fn append(&mut self, kind: Kind, raw: &[u8]) -> Result<BlockRef, Error> {
        assert!(raw.len() <= BLOCK_BYTES_MAX, "callers split what is larger");
        let offset = self.len();
        let mut flags = 0;
        let mut changed: Option<Vec<u8>> = None;
        if self.compress && raw.len() > 64 {
            let packed = lz4_flex::block::compress(raw);
            if packed.len() < raw.len() - raw.len() / 16 {
                changed = Some(packed);
                flags |= FLAG_COMPRESSED;
            }
        }
        if self.key.is_some() {
            flags |= FLAG_SEALED;
        }
        let plain_len = changed.as_ref().map_or(raw.len(), Vec::len);
        let stored_len = plain_len + if self.key.is_some() { TAG_BYTES } else { 0 };
        let mut frame = [0u8; FRAME_BYTES - 4];
        let fields = (stored_len as u32)
            .to_le_bytes()
            .into_iter()
            .chain((raw.len() as u32).to_le_bytes());
        for (to, from) in frame.iter_mut().zip(fields.chain([kind as u8, flags])) {
            *to = from;
        }
        if let Some(key) = &self.key {
            let mut bytes = changed.unwrap_or_else(|| raw.to_vec());
            key.seal(offset, &context(self.tag, &frame), &mut bytes);
            changed = Some(bytes);
        }
        let stored = changed.as_deref().unwrap_or(raw);
        assert_eq!(stored.len(), stored_len);
        self.pending.extend_from_slice(&frame);
        self.pending
            .extend_from_slice(&frame_crc(self.tag, offset, &frame, stored).to_le_bytes());
        if stored.len() >= WRITE_BYTES / 4 {
            self.write_with(stored)?;
        } else {
            self.pending.extend_from_slice(stored);
            if self.pending.len() >= WRITE_BYTES {
                self.write_with(&[])?;
            }
        }
        Ok(BlockRef {
            offset,
            len: (stored.len() + FRAME_BYTES) as u32,
        })
    }

    /// Adds a block as it is, neither compressed nor sealed.
    pub(crate) fn append_plain(&mut self, kind: Kind, raw: &[u8]) -> BlockRef {
        let offset = self.len();
        let mut frame = Vec::with_capacity(FRAME_BYTES);
        for len in [raw.len(), raw.len()] {
            frame.extend_from_slice(&(len as u32).to_le_bytes());
        }
        frame.extend_from_slice(&[kind as u8, 0, 0, 0]);
        let crc = frame_crc(self.tag, offset, &frame, raw);
        frame.extend_from_slice(&crc.to_le_bytes());
        self.pending.extend_from_slice(&frame);
        self.pending.extend_from_slice(raw);
        BlockRef {
            offset,
            len: (raw.len() + FRAME_BYTES) as u32,
        }
    }

    /// Whether its blocks are sealed.
    pub(crate) const fn is_sealed(&self) -> bool {
        self.key.is_some()
    }

    /// Bytes outside of any block, at the end of the file.
    pub(crate) fn append_raw(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    fn write_with(&mut self, more: &[u8]) -> Result<(), Error> {
        let end = self.len() + more.len() as u64;
        if self.reserved.is_some_and(|reserved| reserved < end) {
            self.keep_length_ahead(end * 2)?;
        }
        let pieces = [IoSlice::new(&self.pending), IoSlice::new(more)];
        self.file
            .write_vectored_at(&pieces, self.written)
            .map_err(|error| Error::io(&self.path, error))?;
        self.written += (self.pending.len() + more.len()) as u64;
        self.pending.clear();
        Ok(())
    }

    /// Writes what is collected and syncs the file. Returns its length.
    pub(crate) fn finish(mut self) -> Result<u64, Error> {
        self.write_with(&[])?;
        if self.reserved.is_some() {
            self.file
                .set_len(self.written)
                .map_err(|error| Error::io(&self.path, error))?;
        }
        self.file
            .sync()
            .map_err(|error| Error::io(&self.path, error))?;
        Ok(self.written)
    }
}

/// Reads blocks of one file. Every block is verified when it is read.
#[derive(Debug)]
pub(crate) struct BlockReader {
    file: Arc<dyn File>,
    path: PathBuf,
    tag: u64,
    len: u64,
    key: Option<FileKey>,
    sealed_with: SealedWith,
    /// Something of it is not as it was written, and known all the same.
    mended: OnceLock<Mended>,
}

/// What is not as it was written although nothing is lost: the file should be written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mended {
    /// One bit of something vital had flipped.
    Bit,
    /// Something was read from its second copy.
    Copy,
    /// Bytes stand behind the end that the manifest knows.
    Longer,
}

impl std::fmt::Display for Mended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bit => "one bit had flipped, and is known from the checksum",
            Self::Copy => "a part of it cannot be read, and is known from its copy",
            Self::Longer => "bytes stand behind its end that were never written there",
        })
    }
}

impl BlockReader {
    /// Opens a file and checks its header.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &Path,
        magic: Magic,
        encryption: Option<&Encryption>,
    ) -> Result<Self, Error> {
        let file = disk
            .open(path, OpenMode::Read)
            .map_err(|error| Error::io(path, error))?;
        Self::of_file(file, path, magic, encryption)
    }

    /// [`BlockReader::open`] of a file that is open already; `path` is for errors.
    pub(crate) fn of_file(
        file: Arc<dyn File>,
        path: &Path,
        magic: Magic,
        encryption: Option<&Encryption>,
    ) -> Result<Self, Error> {
        let len = file.len().map_err(|error| Error::io(path, error))?;
        Self::with_header_at(file, path, len, 0, magic, encryption)
    }

    /// A reader of a plain file whose header cannot be read: `tag` is known from elsewhere.
    pub(crate) fn headless(file: Arc<dyn File>, path: &Path, len: u64, tag: u64) -> Self {
        Self {
            file,
            path: path.to_owned(),
            tag,
            len,
            key: None,
            sealed_with: SealedWith::default(),
            mended: OnceLock::new(),
        }
    }

    /// A reader of an opened file whose header, or a copy of it, is at `at`.
    pub(crate) fn with_header_at(
        file: Arc<dyn File>,
        path: &Path,
        len: u64,
        at: u64,
        magic: Magic,
        encryption: Option<&Encryption>,
    ) -> Result<Self, Error> {
        let mut header = vec![0; HEADER_BYTES];
        if len < at + HEADER_BYTES as u64 {
            return Err(Error::corrupt(path, len, "the file ends inside its header"));
        }
        file.read_exact_at(&mut header, at)
            .map_err(|error| Error::corrupt(path, at, format!("unreadable: {error}")))?;
        let mended = OnceLock::new();
        if checksum::mend(&mut header) {
            mended.get_or_init(|| Mended::Bit);
        }
        let malformed = |Malformed(what)| Error::corrupt(path, at, what);
        let fields = Header::read(&header).map_err(malformed)?;
        if fields.magic != magic.0 {
            return Err(Error::corrupt(
                path,
                at,
                "the file does not start as one of this store's does",
            ));
        }
        checksum::closed(&header)
            .map_err(|_| Error::corrupt(path, at, "the header's checksum does not match"))?;
        // After the sum, which is at the same place in every version: a flipped bit is no newer release.
        if fields.version > FORMAT_VERSION {
            return Err(Error::NewerVersion {
                file: path.to_owned(),
                found: fields.version,
                supported: FORMAT_VERSION,
            });
        }
        let sealed_with = fields.sealed_with;
        let key = open_key(path, &header, sealed_with, encryption)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            tag: fields.tag,
            len,
            key,
            sealed_with,
            mended,
        })
    }

    /// What is not as it was written although nothing is lost: the file should be written anew.
    pub(crate) fn mended(&self) -> Option<Mended> {
        self.mended.get().copied()
    }

    /// Something is not as it was written, and known all the same: the file should be written anew.
    pub(crate) fn note_mended(&self, what: Mended) {
        self.mended.get_or_init(|| what);
    }

    /// Bytes that end with their sum, as [`BlockReader::read_raw`] of them; one flipped bit is mended.
    pub(crate) fn read_summed(&self, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = self.read_raw(offset, len)?;
        if checksum::mend(&mut bytes) {
            self.note_mended(Mended::Bit);
        }
        Ok(bytes)
    }

    /// The block with the bit as it was, where one flipped bit explains why its sum is wrong.
    fn mend_block(&self, offset: u64, bytes: &Bytes) -> Option<Bytes> {
        let (frame, stored) = bytes.split_first_chunk::<FRAME_BYTES>()?;
        let (fields, _) = frame.split_at(FRAME_BYTES - 4);
        let (want, found) = (
            Frame::read(frame).ok()?.crc,
            frame_crc(self.tag, offset, fields, stored),
        );
        // The sum covers the file's tag and the offset before the block's own bytes: these cannot have changed.
        let known = 16;
        let mut mended = bytes.to_vec();
        match flip::find(want, found, known + fields.len() + stored.len())? {
            Flip::Covered { byte, mask } => {
                let at = byte.checked_sub(known)?;
                let at = if at < fields.len() { at } else { at + 4 };
                *mended.get_mut(at)? ^= mask;
            }
            Flip::Sum => {
                let sum = mended.get_mut(FRAME_BYTES - 4..FRAME_BYTES)?;
                sum.copy_from_slice(&found.to_le_bytes());
            }
        }
        self.note_mended(Mended::Bit);
        Some(mended.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn tag(&self) -> u64 {
        self.tag
    }

    /// The file's length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// How the file is sealed.
    pub(crate) fn sealed_with(&self) -> SealedWith {
        self.sealed_with
    }

    pub(crate) fn corrupt(&self, offset: u64, what: impl Into<String>) -> Error {
        Error::corrupt(&self.path, offset, what)
    }

    /// Bytes as they are in the file.
    pub(crate) fn read_raw(&self, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        if offset
            .checked_add(len as u64)
            .is_none_or(|end| end > self.len)
        {
            return Err(self.corrupt(
                offset,
                format!("{len} bytes end after the file's {}", self.len),
            ));
        }
        let mut bytes = vec![0; len];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|error| self.read_error(offset, error))?;
        Ok(bytes)
    }

    /// A sector that cannot be read is damage of that place, not of the store.
    fn read_error(&self, offset: u64, error: std::io::Error) -> Error {
        self.corrupt(offset, format!("unreadable: {error}"))
    }

    /// Reads and verifies one block.
    pub(crate) fn read(&self, block: BlockRef, kind: Kind) -> Result<Bytes, Error> {
        let bytes = self.read_raw(block.offset, block.len as usize)?;
        self.decode(block.offset, bytes.into(), Some(kind))
    }

    /// Reads the rows block of a page, of either kind.
    pub(crate) fn read_rows(&self, block: BlockRef) -> Result<(Kind, Bytes), Error> {
        let bytes = self.read_raw(block.offset, block.len as usize)?;
        let kind = match bytes.get(8) {
            Some(&kind) if kind == Kind::Page as u8 => Kind::Page,
            _ => Kind::Rows,
        };
        let rows = self.decode(block.offset, bytes.into(), Some(kind))?;
        Ok((kind, rows))
    }

    /// The block that starts at `offset`, if it is sound and of a kind that is known, and where the next one starts.
    pub(crate) fn block_at(&self, offset: u64) -> Result<(Kind, Bytes, u64), Error> {
        let frame = self.read_raw(offset, FRAME_BYTES)?;
        let malformed = |Malformed(what)| self.corrupt(offset, what);
        let frame = Frame::read(&frame).map_err(malformed)?;
        let kind =
            Kind::of(frame.kind).ok_or_else(|| malformed(Malformed("an unknown kind of block")))?;
        let len = FRAME_BYTES as u64 + u64::from(frame.stored_len);
        let bytes = self.read_raw(offset, len as usize)?;
        let bytes = self.decode_once(offset, bytes.into(), Some(kind))?;
        Ok((kind, bytes, offset + len))
    }

    /// The first sound block at or after `from`, wherever it starts: what is before it may be anything.
    pub(crate) fn block_after(&self, from: u64) -> Option<u64> {
        let overlap = FRAME_BYTES as u64 - 1;
        let mut at = from;
        while at + overlap < self.len {
            let count = SEARCH_BYTES.min(self.len - at);
            let found = self.block_in(at, &self.read_leniently(at, count));
            if found.is_some() || count < SEARCH_BYTES {
                return found;
            }
            at += count - overlap;
        }
        None
    }

    /// Bytes of the file, with zeros for the sectors that cannot be read.
    fn read_leniently(&self, at: u64, count: u64) -> Vec<u8> {
        self.read_raw(at, count as usize).unwrap_or_else(|_| {
            let mut bytes = Vec::with_capacity(count as usize);
            while let here = bytes.len() as u64
                && here < count
            {
                let sector = SECTOR_BYTES.min(count - here) as usize;
                let read = self.read_raw(at + here, sector);
                bytes.extend(read.unwrap_or_else(|_| vec![0; sector]));
            }
            bytes
        })
    }

    fn block_in(&self, at: u64, piece: &[u8]) -> Option<u64> {
        let frames = piece.windows(FRAME_BYTES).enumerate();
        let likely = frames.filter(|(_, frame)| self.is_likely(frame));
        let mut starts = likely.map(|(within, _)| at + within as u64);
        starts.find(|start| self.block_at(*start).is_ok())
    }

    /// Whether these bytes may be a frame of this file: quickly, as it is asked for each byte of one.
    fn is_likely(&self, frame: &[u8]) -> bool {
        let Ok(Frame {
            stored_len,
            raw_len,
            kind,
            flags,
            ..
        }) = Frame::read(frame)
        else {
            return false;
        };
        let tag = if flags & FLAG_SEALED != 0 {
            TAG_BYTES as u64
        } else {
            0
        };
        let is_right_length =
            flags & FLAG_COMPRESSED != 0 || u64::from(stored_len) == u64::from(raw_len) + tag;
        Kind::of(kind).is_some()
            && flags <= FLAG_COMPRESSED | FLAG_SEALED
            && frame.get(10..12) == Some(&[0, 0])
            && raw_len as usize <= BLOCK_BYTES_MAX
            && is_right_length
    }

    /// Verifies one block whose bytes are here already.
    pub(crate) fn open_block(
        &self,
        block: BlockRef,
        bytes: Bytes,
        kind: Kind,
    ) -> Result<Bytes, Error> {
        self.decode(block.offset, bytes, Some(kind))
    }

    /// Verifies the block that starts at `offset` whatever it is; returns where the next one starts.
    pub(crate) fn verify_at(&self, offset: u64) -> Result<u64, Error> {
        let frame = self.read_raw(offset, FRAME_BYTES)?;
        let len = block_len(&frame).map_err(|Malformed(what)| self.corrupt(offset, what))?;
        let bytes = self.read_raw(offset, len as usize)?;
        self.decode(offset, bytes.into(), None)?;
        Ok(offset + len)
    }

    fn decode(&self, offset: u64, bytes: Bytes, kind: Option<Kind>) -> Result<Bytes, Error> {
        let is_vital = kind.is_some_and(Kind::is_vital);
        match self.decode_once(offset, bytes.clone(), kind) {
            Err(error) if is_vital => {
                let mended = self.mend_block(offset, &bytes).ok_or(error)?;
                self.decode_once(offset, mended, kind)
            }
            decoded => decoded,
        }
    }

    fn decode_once(
        &self,
        offset: u64,
        mut bytes: Bytes,
        kind: Option<Kind>,
    ) -> Result<Bytes, Error> {
        let (frame, stored) = bytes
            .split_first_chunk::<FRAME_BYTES>()
            .ok_or_else(|| self.corrupt(offset, "a block shorter than its frame"))?;
        let (frame, stored_len) = (*frame, stored.len());
        let (fields, _) = frame.split_at(FRAME_BYTES - 4);
        let Frame {
            stored_len: want_stored,
            raw_len,
            kind: found_kind,
            flags,
            crc,
        } = Frame::read(&frame).map_err(|Malformed(what)| self.corrupt(offset, what))?;
        if frame_crc(self.tag, offset, fields, stored) != crc {
            return Err(self.corrupt(offset, "the block's checksum does not match"));
        }
        let raw_len = raw_len as usize;
        if want_stored as usize != stored_len || raw_len > BLOCK_BYTES_MAX {
            return Err(self.corrupt(offset, "the block's length is not the one that was written"));
        }
        if kind.is_some_and(|kind| kind as u8 != found_kind) {
            return Err(self.corrupt(
                offset,
                format!("a block of kind {found_kind} where another belongs"),
            ));
        }
        bytes = bytes.slice(FRAME_BYTES..);
        if flags & FLAG_SEALED != 0 {
            let key = self
                .key
                .as_ref()
                .ok_or_else(|| self.corrupt(offset, "a sealed block in a plain file"))?;
            // In place, where nothing else shares the bytes.
            let mut sealed = Vec::from(bytes);
            let opened = key.open_block(offset, &context(self.tag, fields), &mut sealed);
            opened.map_err(|_| {
                self.corrupt(offset, "the block was not sealed with this file's key")
            })?;
            bytes = Bytes::from(sealed);
        } else if self.key.is_some() && found_kind != Kind::Guard as u8 {
            return Err(self.corrupt(offset, "a plain block in an encrypted file"));
        }
        if flags & FLAG_COMPRESSED != 0 {
            let unpacked = lz4_flex::block::decompress(&bytes, raw_len);
            bytes = Bytes::from(unpacked.map_err(|error| {
                self.corrupt(offset, format!("the block does not decompress: {error}"))
            })?);
        }
        self.sized(offset, bytes, raw_len)
    }

    fn sized(&self, offset: u64, bytes: Bytes, raw_len: usize) -> Result<Bytes, Error> {
        if bytes.len() != raw_len {
            return Err(self.corrupt(
                offset,
                "the block does not have the length that was written",
            ));
        }
        Ok(bytes)
    }
}

fn open_key(
    path: &Path,
    header: &[u8],
    sealed_with: SealedWith,
    encryption: Option<&Encryption>,
) -> Result<Option<FileKey>, Error> {
    let SealedWith {
        key_id,
        cipher: number,
    } = sealed_with;
    let cipher = sealed_with
        .cipher()
        .map_err(|_| Error::corrupt(path, 10, format!("cipher number {number} is not known")))?;
    let Some(cipher) = cipher else {
        return Ok(None);
    };
    let wrong = |what| Error::WrongKey {
        file: path.to_owned(),
        what,
    };
    let encryption = encryption.ok_or_else(|| wrong("no key is configured"))?;
    let mut keys = [Some(&encryption.key), encryption.previous.as_ref()]
        .into_iter()
        .flatten();
    let master = keys.find(|key| key.id() == key_id);
    let master =
        master.ok_or_else(|| wrong(match encryption.previous {
        None => "the configured key is not the one that it was written with",
        Some(_) => "neither the configured key nor the previous one is the one that it was written with",
    }))?;
    let (context, rest) = header.split_at(32);
    let wrapped = rest
        .first_chunk::<WRAPPED_BYTES>()
        .ok_or_else(|| wrong("the header holds no key"))?;
    let opened = FileKey::open(cipher, master, wrapped, context);
    opened
        .map(Some)
        .map_err(|_| wrong("the key in its header does not open with the key that it names"))
}
