//! The archive inside a backup of nats-server 2.15 and of this server.
//!
//! ```text
//! archive  "NATSARC1" | entry* | end
//! entry    name length | time | sequence | headers length | body length | name | headers | body
//! end      five zeros
//! ```
//!
//! Lengths and sequence are unsigned LEB128, the time is nanoseconds since the Unix epoch, zigzag LEB128. An entry with
//! sequence 0 is a document: `state.json` (the stream's counters; the first entry), then one `consumers/<name>` for each
//! consumer: its configuration and state. Others are messages in rising order: name, headers and body are subject, header
//! block and payload. Nothing else belongs to it; what follows the end is an error.

use bytes::Bytes;
use halyard_format::codec;
use serde::{Deserialize, Serialize};

use crate::consumer::{State, StateJson};
use crate::item::{
    Consumer, DOCUMENT_BYTES_MAX, Item, MESSAGE_BYTES_MAX, Message, Refused, SUBJECT_BYTES_MAX,
    Stated,
};

/// What an archive begins with.
pub const MAGIC: [u8; 8] = *b"NATSARC1";
const END: [u8; 5] = [0; 5];
const STATE: &[u8] = b"state.json";
const CONSUMERS: &[u8] = b"consumers/";
/// A header: five integers of up to ten bytes.
const HEADER_BYTES_MAX: usize = 50;

/// Reads an archive as it comes in pieces.
#[derive(Debug, Default)]
pub struct Reader {
    pending: Vec<u8>,
    at: usize,
    begun: bool,
    ended: bool,
}

/// What stands before an entry's bytes.
struct Header {
    name_len: usize,
    time: i64,
    seq: u64,
    headers_len: usize,
    body_len: usize,
    /// Its own length.
    len: usize,
}

impl Header {
    fn body_end(&self) -> usize {
        self.len + self.name_len + self.headers_len + self.body_len
    }
}

impl Reader {
    /// Takes the next bytes. Call [`Reader::read`] until it has no more before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.drain(..self.at);
        self.at = 0;
        self.pending.extend_from_slice(bytes);
    }

    /// The next item; `None`: more bytes are needed, or the archive has ended.
    ///
    /// # Errors
    /// This is no archive, or it is damaged.
    pub fn read(&mut self) -> Result<Option<Item>, Refused> {
        let rest = self.pending.get(self.at..).unwrap_or_default();
        if self.ended {
            return match rest.is_empty() {
                true => Ok(None),
                false => Err(Refused::because("the archive goes on after its end")),
            };
        }
        if !self.begun {
            let Some(magic) = rest.first_chunk::<8>() else {
                return Ok(None);
            };
            if *magic != MAGIC {
                return Err(Refused::because("not an archive of a stream"));
            }
            self.begun = true;
            self.at += MAGIC.len();
            return self.read();
        }
        let Some(header) = read_header(rest)? else {
            return Ok(None);
        };
        if header.name_len == 0 {
            if rest.get(..END.len()) != Some(&END) {
                return Err(Refused::because("an entry of the archive has no name"));
            }
            self.ended = true;
            self.at += END.len();
            return self.read();
        }
        let end = header.body_end();
        let Some(entry) = rest.get(header.len..end) else {
            return Ok(None);
        };
        let item = if header.seq == 0 {
            document(entry, &header)?
        } else {
            Item::Message(Message {
                seq: header.seq,
                time: header.time,
                subject_len: header.name_len,
                headers_len: header.headers_len,
                record: Bytes::copy_from_slice(entry),
            })
        };
        self.at += end;
        Ok(Some(item))
    }

    /// Whether the archive's end has been read.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.ended
    }
}

fn read_header(bytes: &[u8]) -> Result<Option<Header>, Refused> {
    let mut at = 0;
    let mut number = || -> Result<Option<u64>, Refused> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let Some(&byte) = bytes.get(at) else {
                return Ok(None);
            };
            at += 1;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(Some(value));
            }
        }
        Err(Refused::because("the archive holds a number that is none"))
    };
    let mut fields = [0_u64; 5];
    for field in &mut fields {
        match number()? {
            Some(value) => *field = value,
            None => return Ok(None),
        }
    }
    let [name_len, time, seq, headers_len, body_len] = fields;
    let limit = if seq == 0 {
        DOCUMENT_BYTES_MAX
    } else {
        MESSAGE_BYTES_MAX
    };
    let length = |value: u64, max: usize| {
        let fits = usize::try_from(value).ok().filter(|value| *value <= max);
        fits.ok_or(Refused::because("an entry of the archive is too long"))
    };
    Ok(Some(Header {
        name_len: length(name_len, SUBJECT_BYTES_MAX)?,
        time: (time >> 1).cast_signed() ^ -((time & 1).cast_signed()),
        seq,
        headers_len: length(headers_len, limit)?,
        body_len: length(body_len, limit - length(headers_len, limit)?)?,
        len: at,
    }))
}

/// The body of a consumer's document. What a newer server adds is passed over.
#[derive(Deserialize, Serialize)]
struct ConsumerJson<C> {
    config: C,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<StateJson>,
}

fn document(entry: &[u8], header: &Header) -> Result<Item, Refused> {
    let (name, body) = entry.split_at_checked(header.name_len).unwrap_or_default();
    if header.headers_len > 0 {
        return Err(Refused::because("a document of the archive has headers"));
    }
    if name == STATE {
        let stated: Stated = serde_json::from_slice(body)
            .map_err(|error| Refused::with(format!("state.json of the archive: {error}")))?;
        return Ok(Item::Stated(stated));
    }
    let Some(name) = name.strip_prefix(CONSUMERS) else {
        let name = name.escape_ascii();
        return Err(Refused::with(format!(
            "the archive holds an unknown document \"{name}\""
        )));
    };
    let name = String::from_utf8_lossy(name).into_owned();
    let json: ConsumerJson<serde_json::Value> = serde_json::from_slice(body)
        .map_err(|error| Refused::with(format!("consumer {name:?} of the archive: {error}")))?;
    Ok(Item::Consumer(Box::new(Consumer {
        name,
        config: json.config,
        state: json.state.map(State::try_from).transpose()?,
    })))
}

/// Begins an archive: the magic and the counters. `time` is that of the backup.
///
/// # Panics
/// `state` cannot be written as JSON.
pub fn put_start(out: &mut Vec<u8>, state: &impl Serialize, time: i64) {
    out.extend_from_slice(&MAGIC);
    let body = serde_json::to_vec(state).expect("counters are plain data");
    put_entry(out, time, 0, [STATE, &[], &body]);
}

/// Appends a consumer.
///
/// # Panics
/// `config` cannot be written as JSON.
pub fn put_consumer(
    out: &mut Vec<u8>,
    name: &str,
    config: &impl Serialize,
    state: &State,
    time: i64,
) {
    let json = ConsumerJson {
        config,
        state: Some(state.to_json()),
    };
    let body = serde_json::to_vec(&json).expect("a configuration that came as JSON is JSON");
    let name = [CONSUMERS, name.as_bytes()].concat();
    put_entry(out, time, 0, [&name, &[], &body]);
}

/// Appends a message: subject, header block, payload.
pub fn put_message(out: &mut Vec<u8>, seq: u64, time: i64, parts: [&[u8]; 3]) {
    assert_ne!(seq, 0, "sequences start at one; 0 is a document");
    put_entry(out, time, seq, parts);
}

/// Ends an archive.
pub fn put_end(out: &mut Vec<u8>) {
    out.extend_from_slice(&END);
}

fn put_entry(out: &mut Vec<u8>, time: i64, seq: u64, parts: [&[u8]; 3]) {
    let [name, headers, body] = parts;
    out.reserve(HEADER_BYTES_MAX + name.len() + headers.len() + body.len());
    codec::put_varint(out, name.len() as u64);
    codec::put_signed(out, time);
    for number in [seq, headers.len() as u64, body.len() as u64] {
        codec::put_varint(out, number);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], step: usize) -> Result<(Vec<Item>, bool), Refused> {
        let (mut reader, mut items) = (Reader::default(), Vec::new());
        for piece in bytes.chunks(step) {
            reader.push(piece);
            while let Some(item) = reader.read()? {
                items.push(item);
            }
        }
        Ok((items, reader.has_ended()))
    }

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        let stated = Stated {
            messages: 1,
            bytes: 40,
            first_seq: 7,
            last_seq: 9,
        };
        put_start(&mut out, &stated, 5);
        let config = serde_json::json!({"durable_name": "c"});
        let state = State::default();
        put_consumer(&mut out, "c", &config, &state, 5);
        let message = [&b"a.b"[..], b"NATS/1.0\r\n\r\n", b"payload"];
        put_message(&mut out, 7, -3, message);
        put_end(&mut out);
        out
    }

    #[test]
    fn what_was_written_is_read() {
        for step in [1, 3, 1000] {
            let (items, ended) = read(&sample(), step).unwrap();
            assert!(ended);
            let [
                Item::Stated(stated),
                Item::Consumer(consumer),
                Item::Message(message),
            ] = items.as_slice()
            else {
                panic!("{items:?}")
            };
            assert_eq!((stated.messages, stated.last_seq), (1, 9));
            assert_eq!(consumer.name, "c");
            assert_eq!(consumer.config["durable_name"], "c");
            assert_eq!((message.seq, message.time), (7, -3));
            assert_eq!(message.subject(), b"a.b");
            assert_eq!(message.headers(), b"NATS/1.0\r\n\r\n");
            assert_eq!(message.record.len(), 3 + 12 + 7);
        }
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let good = sample();
        assert!(!read(&good[..good.len() - 1], 9).unwrap().1, "cut off");
        let after = [&good[..], b"x"].concat();
        assert!(read(&after, 9).is_err());
        assert!(read(b"NATSARC2....", 9).is_err());
        let mut unknown = MAGIC.to_vec();
        put_entry(&mut unknown, 0, 0, [b"../../etc/passwd", b"", b"x"]);
        assert!(
            read(&unknown, 9)
                .unwrap_err()
                .to_string()
                .contains("unknown document")
        );
        for lengths in [
            [5_000, 0, 0],
            [1, 1 << 40, 0],
            [1, 0, u64::MAX],
            [1, 64 << 20, 1],
        ] {
            let mut long = MAGIC.to_vec();
            for number in [lengths[0], 0, 1, lengths[1], lengths[2]] {
                let mut number = number;
                while number >= 0x80 {
                    long.push(number as u8 | 0x80);
                    number >>= 7;
                }
                long.push(number as u8);
            }
            assert!(read(&long, 9).unwrap_err().to_string().contains("too long"));
        }
        let endless = [&MAGIC[..], &[0xff; 20]].concat();
        assert!(read(&endless, 9).is_err());
        let nameless = [&MAGIC[..], &[0, 0, 1, 0, 0]].concat();
        assert!(read(&nameless, 9).is_err());
    }
}
