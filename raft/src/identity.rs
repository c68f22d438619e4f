//! Who a node is: drawn at its first start, kept in its directory, never given to another one.
//!
//! ```text
//!   file       note (512 B) | zeros to 4096 | the same note again
//!   note       magic "HALYNODE" | version u32: 1 | length u32 | crc u32 of the version and what follows it here | node u64 | log u64 | boots u64
//!              | count u32 { former node u64 }
//!   node       40 random bits, not all zero | 24 bits of incarnation, from 1 on
//! ```
//!
//! A node's id is one name: two incarnations of a node are two replicas to every group. The next incarnation begins where what the
//! node had promised is gone: its log is missing, or is an older copy than the note says. Nodes of before there were names
//! are called 1; one gets a name at its first start, and 1 is a former name of it.
//!
//! `log` and `boots` are those of the log when it was opened last: the log itself counts how often it was (`wal::record`), and the
//! note is never ahead of it. The log's headers name the node, too, so that a lost note is made anew from them.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use halyard_format::checksum;
use halyard_format::codec::{Fields, Malformed, Reader};
use halyard_runtime::disk::{Disk, OpenMode};
use halyard_runtime::random;

use crate::error::Error;
use crate::ids::NodeId;
use crate::wal::recovery;

const NAME: &str = "identity";
const NEW_NAME: &str = "identity.new";
const MAGIC: &[u8; 8] = b"HALYNODE";
const VERSION: u32 = 1;
const COPIES: [u64; 2] = [0, 4096];
const COPY_BYTES: usize = 512;
/// Former names that are remembered: the latest ones.
const FORMER_MAX: usize = 32;
/// Low bits of an id that count incarnations.
const INCARNATION_BITS: u32 = 24;
const INCARNATION_MASK: u64 = (1 << INCARNATION_BITS) - 1;

impl NodeId {
    /// A new name.
    fn draw() -> Self {
        let node = (random::u64() >> INCARNATION_BITS).max(1);
        Self(node << INCARNATION_BITS | 1)
    }

    /// Which node it is, whatever its incarnation; 0 for names of before 2026-12.
    #[must_use]
    pub const fn node(self) -> u64 {
        self.0 >> INCARNATION_BITS
    }

    /// Which life of the node: another one for everybody who counts votes.
    #[must_use]
    pub const fn incarnation(self) -> u64 {
        self.0 & INCARNATION_MASK
    }

    /// The same node in another life.
    #[must_use]
    pub const fn with_incarnation(self, incarnation: u64) -> Self {
        Self((self.0 & !INCARNATION_MASK) | (incarnation & INCARNATION_MASK))
    }
}

/// What a node keeps of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub node: NodeId,
    /// Identity of its log; 0 where it has none yet.
    pub log: u64,
    /// How often the log was opened; 0 where it does not say.
    pub boots: u64,
    /// Names that it had, oldest first. Groups in which one of these is the only voter are its own.
    pub former: Vec<NodeId>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node, incarnation) = (self.node.node(), self.node.incarnation());
        let (log, boots) = (self.log, self.boots);
        write!(
            f,
            "node {node:010x}, incarnation {incarnation}, log {log:016x}, opened {boots} times"
        )
    }
}

/// What the files of a log say of whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogOwner {
    pub(crate) node: NodeId,
    /// Names that it had, oldest first.
    pub(crate) former: Vec<NodeId>,
    pub(crate) log: u64,
}

impl From<LogOwner> for Identity {
    fn from(owner: LogOwner) -> Self {
        Self {
            node: owner.node,
            log: owner.log,
            boots: 0,
            former: owner.former,
        }
    }
}

impl Identity {
    /// Reads what the directory `dir` of a node says; `None` where there is neither a note nor a log. Changes nothing.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Corrupt`], [`Error::NewerVersion`].
    pub fn read(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Option<Self>, Error> {
        let owner = recovery::owner(disk, &dir.join("log"))?;
        let kept = load(disk, dir)?;
        Ok(kept.or(owner.map(Self::from)))
    }

    /// Who the node of `dir` is, as far as that is known before its log is opened. Writes nothing: what cannot be opened stays
    /// as it is.
    pub(crate) fn settle(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, Error> {
        let owner = recovery::owner(disk, &dir.join("log"))?;
        Ok(match (load(disk, dir)?, owner) {
            (None, None) => Self {
                node: NodeId::draw(),
                log: 0,
                boots: 0,
                former: Vec::new(),
            },
            (None, Some(owner)) if owner.node.node() == 0 => {
                Self::from(owner).renamed(NodeId::draw())
            }
            (None, Some(owner)) => Self::from(owner),
            (Some(kept), None) if kept.log != 0 => {
                tracing::warn!("the log is gone: {kept} goes on as its next incarnation");
                Self {
                    log: 0,
                    boots: 0,
                    ..kept.next_incarnation()
                }
            }
            // A renewed log has the same owner.
            (Some(kept), Some(owner)) if kept.owns(owner.node) => Self {
                log: owner.log,
                boots: if kept.log == owner.log { kept.boots } else { 0 },
                ..kept
            },
            // A crash came between the next incarnation's log and its note.
            (Some(kept), Some(owner)) if kept.is_before(owner.node) => Self {
                log: owner.log,
                boots: 0,
                ..kept.renamed(owner.node)
            },
            (Some(kept), _) => kept,
        })
    }

    /// Notes the log that was opened, and how often it has been before. Durable when it returns, before a vote or an entry is
    /// written under the name; the header of a new log stands already.
    pub(crate) fn opened(
        self,
        disk: &Arc<dyn Disk>,
        dir: &Path,
        log: u64,
        boots: u64,
    ) -> Result<Self, Error> {
        let is_rolled_back = self.log == log && boots < self.boots;
        let noted = match is_rolled_back {
            true => {
                tracing::warn!(
                    "the log is an older copy, opened {boots} times: {self} goes on as its next incarnation"
                );
                self.next_incarnation()
            }
            false => self,
        };
        let noted = Self {
            log,
            boots,
            ..noted
        };
        if load(disk, dir)?.as_ref() != Some(&noted) {
            noted.store(disk, dir)?;
        }
        Ok(noted)
    }

    /// Whether a name is a later incarnation of this node.
    const fn is_before(&self, node: NodeId) -> bool {
        self.node.node() == node.node() && self.node.incarnation() < node.incarnation()
    }

    /// Whether a log of that name is this node's.
    pub(crate) fn owns(&self, node: NodeId) -> bool {
        self.node == node || self.former.contains(&node)
    }

    fn renamed(self, node: NodeId) -> Self {
        let mut former = self.former;
        former.push(self.node);
        let forgotten = former.len().saturating_sub(FORMER_MAX);
        former.drain(..forgotten);
        Self {
            node,
            former,
            ..self
        }
    }

    fn next_incarnation(&self) -> Self {
        let next = self.node.with_incarnation(self.node.incarnation() + 1);
        self.clone().renamed(next)
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = Fields::default();
        body.u64(self.node.0).u64(self.log).u64(self.boots);
        let count = u32::try_from(self.former.len()).expect("few names are remembered");
        body.u32(count);
        for node in &self.former {
            body.u64(node.0);
        }
        let mut out = Fields(MAGIC.to_vec());
        let length = u32::try_from(body.0.len()).expect("a note is short");
        out.u32(VERSION).u32(length).u32(sum_of(VERSION, &body.0));
        out.0.extend_from_slice(&body.0);
        out.0.resize(COPY_BYTES, 0);
        out.0
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Option<Self>, Error> {
        let mut fields = Reader::new(bytes);
        let mut frame = || -> Result<Option<(u32, &[u8])>, Malformed> {
            if fields.take(8)? != MAGIC {
                return Ok(None);
            }
            let (version, length, crc) = (fields.u32()?, fields.u32()?, fields.u32()?);
            let body = fields.take(length as usize)?;
            Ok((sum_of(version, body) == crc).then_some((version, body)))
        };
        let Ok(Some((version, body))) = frame() else {
            return Ok(None);
        };
        if version > VERSION {
            return Err(Error::NewerVersion {
                path: path.to_path_buf(),
                found: version,
                supported: VERSION,
            });
        }
        let mut fields = Reader::new(body);
        let mut read = || -> Result<Self, Malformed> {
            let (node, log, boots) = (fields.u64()?, fields.u64()?, fields.u64()?);
            let count = fields.u32()?;
            let former = (0..count).map(|_| fields.u64().map(NodeId));
            Ok(Self {
                node: NodeId(node),
                log,
                boots,
                former: former.collect::<Result<_, _>>()?,
            })
        };
        Ok(read().ok())
    }

    /// Written under another name, synced and renamed: a crash leaves the old note or the new one.
    fn store(&self, disk: &Arc<dyn Disk>, dir: &Path) -> Result<(), Error> {
        let (path, new) = (dir.join(NAME), dir.join(NEW_NAME));
        let note = self.encode();
        let write = || -> std::io::Result<()> {
            let file = disk.open(&new, OpenMode::Create)?;
            file.set_len(0)?;
            for at in COPIES {
                file.write_at(&note, at)?;
            }
            file.sync()?;
            disk.rename(&new, &path)?;
            disk.sync_dir(dir)
        };
        write().map_err(|source| Error::io("noting who this node is", &path, source))
    }
}

/// Covers the version, too: one that is not known is one only if the sum says so, and not a flipped bit.
fn sum_of(version: u32, body: &[u8]) -> u32 {
    checksum::append(checksum::sum(&version.to_le_bytes()), body)
}

/// The note, from whichever copy is sound.
fn load(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Option<Identity>, Error> {
    let path = dir.join(NAME);
    let failed = |source| Error::io("reading who this node is", &path, source);
    if !disk.exists(&path).map_err(failed)? {
        return Ok(None);
    }
    let file = disk.open(&path, OpenMode::Read).map_err(failed)?;
    let mut unread = None;
    for at in COPIES {
        let mut bytes = [0; COPY_BYTES];
        match file.read_exact_at(&mut bytes, at) {
            Ok(()) => {
                if let Some(identity) = Identity::decode(&bytes, &path)? {
                    return Ok(Some(identity));
                }
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
            Err(error) => unread = Some(error),
        }
    }
    // What cannot be read may be sound, and must not be replaced.
    if let Some(error) = unread {
        return Err(failed(error));
    }
    tracing::warn!(
        "{}: neither copy is sound: the log says whose it is",
        path.display()
    );
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use halyard_runtime::disk::MemDisk;

    fn identity() -> Identity {
        Identity {
            node: NodeId(7 << 24 | 3),
            log: 5,
            boots: 9,
            former: vec![NodeId(1), NodeId(7 << 24 | 2)],
        }
    }

    #[test]
    fn one_sound_copy_is_enough() {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let dir = Path::new("node");
        disk.create_dir_all(dir).expect("a directory");
        assert_eq!(load(&disk, dir).expect("readable"), None);
        identity().store(&disk, dir).expect("room");
        let file = disk.open(&dir.join(NAME), OpenMode::ReadWrite);
        let file = file.expect("there");
        let whole = disk.read(&dir.join(NAME)).expect("readable");
        for at in COPIES {
            for byte in 0..64 {
                let offset = at + byte;
                file.write_at(&[whole[offset as usize] ^ 0x10], offset)
                    .expect("room");
                assert_eq!(load(&disk, dir).expect("readable"), Some(identity()));
                file.write_at(&whole, 0).expect("room");
            }
        }
    }

    #[test]
    fn an_id_has_a_node_and_an_incarnation() {
        let drawn = NodeId::draw();
        assert!(drawn.node() > 0);
        assert_eq!(drawn.incarnation(), 1);
        let next = drawn.with_incarnation(2);
        assert_eq!((next.node(), next.incarnation()), (drawn.node(), 2));
        assert_eq!(NodeId(1).node(), 0, "names of before");
    }

    #[test]
    fn an_older_copy_of_the_log_is_another_incarnation() {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let dir = Path::new("node");
        disk.create_dir_all(dir).expect("a directory");
        let same = identity().opened(&disk, dir, 5, 10).expect("noted");
        assert_eq!((same.node, same.boots), (identity().node, 10));
        let older = same.clone().opened(&disk, dir, 5, 4).expect("noted");
        assert_eq!(older.node, NodeId(7 << 24 | 4));
        assert!(older.owns(same.node));
        assert_eq!(load(&disk, dir).expect("readable"), Some(older));
    }
}
