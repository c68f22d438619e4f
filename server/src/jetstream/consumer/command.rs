//! What happens to a consumer, as it stands in the log: the body of one command.
//!
//! ```text
//! create    1 | action u8 | name | config (JSON)            configurations are resolved before they are proposed
//! delete    2 | id
//! deliver   3 | id | count | (batch, max_bytes)*            one for each waiting request, in the order of their turns
//! acks      4 | id | count | (tag u8, seq delta, extra)*     deltas from the ack before, so that most take 2 bytes
//! progress  5 | id | consumer_seq | stream_seq               of a consumer without acks: how far it got, now and then
//! pause     6 | id | until i64                               0: go on; of former logs
//! sent      7 | id | consumer_seq | count | (seq delta, length)*   runs of stream sequences; consumer_seq is the first's
//! make      8 | action u8 | name | config | seen id, deliver subject   create, if what has the name is still as seen
//! pause     9 | id | until (RFC 3339)                         empty: go on
//! ```
//!
//! `deliver` is of former logs: the leader now sends a message as soon as it is stored, and `sent` tells the log of it. So is
//! the first form of `pause`, which holds no year before 1677 or after 2262.
//!
//! Integers are LEB128. Kinds and tags are for ever.

use bytes::BufMut;
use halyard_format::codec::{Malformed, Reader, put_bytes, put_signed, put_varint};
use halyard_runtime::time::Timestamp;

use super::sent::Sent;
use crate::jetstream::api::timestamp::Moment;

/// Number of a consumer, never used twice in its stream. 0 is no consumer.
pub type ConsumerId = u32;

/// Whether a create request may find, or must find, the consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// Either.
    #[default]
    CreateOrUpdate,
    /// It must be new, or the same.
    Create,
    /// It must be there.
    Update,
}

/// A right to messages: what one waiting request still may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Messages.
    pub batch: u32,
    /// Bytes of messages; 0 is no limit.
    pub max_bytes: u64,
}

/// What had a name when a request for it was proposed: only the leader knows who listens, and it looks before the log
/// decides. If another request came between, it must look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen<'a> {
    /// The consumer; 0 for none.
    pub id: ConsumerId,
    /// Where it delivers; empty if it is pulled from.
    pub deliver_subject: &'a str,
}

/// One answer to one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Sequence in the stream.
    pub stream_seq: u64,
    /// Sequence in the consumer, as the client read it.
    pub consumer_seq: u64,
    /// What the client says.
    pub verb: Verb<'a>,
}

/// What a client says about a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb<'a> {
    /// Done.
    Ack,
    /// Deliver it again, after so many nanoseconds.
    Nak(u64),
    /// Still working: the time to answer starts anew.
    Progress,
    /// Never deliver it again; why.
    Term(&'a str),
}

/// A decoded command; slices are the log entry's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// Make or change a consumer.
    Create {
        /// Whether it may exist.
        action: Action,
        /// Its name.
        name: &'a str,
        /// Its resolved configuration.
        config: &'a [u8],
        /// What has the name, as whoever proposed it saw it. `None`: it did not matter.
        seen: Option<Seen<'a>>,
    },
    /// Drop a consumer.
    Delete {
        /// Which.
        id: ConsumerId,
    },
    /// Select messages for waiting requests: of former logs, which are still read.
    Deliver {
        /// Whose.
        id: ConsumerId,
        /// What they may get, in the order of their turns.
        grants: Vec<Grant>,
    },
    /// Answers of clients.
    Acks {
        /// Whose.
        id: ConsumerId,
        /// The answers, in order of arrival.
        acks: Vec<Ack<'a>>,
    },
    /// How far a consumer without acks got.
    Progress {
        /// Which.
        id: ConsumerId,
        /// Messages sent so far.
        consumer_seq: u64,
        /// The last one.
        stream_seq: u64,
    },
    /// Deliver nothing until then.
    Pause {
        /// Which.
        id: ConsumerId,
        /// `None`: go on.
        until: Option<Moment>,
    },
    /// Messages were sent to clients that answer.
    Sent {
        /// By which.
        id: ConsumerId,
        /// Which ones.
        sent: Sent,
    },
}

const CREATE: u8 = 1;
const DELETE: u8 = 2;
const DELIVER: u8 = 3;
const ACKS: u8 = 4;
const PROGRESS: u8 = 5;
const PAUSE: u8 = 6;
const SENT: u8 = 7;
const MAKE: u8 = 8;
const PAUSE_UNTIL: u8 = 9;

const ACK: u8 = 0;
const NAK: u8 = 1;
const WORKING: u8 = 2;
const TERM: u8 = 3;

impl<'a> Command<'a> {
    /// Appends the command's bytes.
    pub fn encode(&self, out: &mut impl BufMut) {
        match self {
            Self::Create {
                action,
                name,
                config,
                seen,
            } => {
                out.put_u8(if seen.is_some() { MAKE } else { CREATE });
                out.put_u8(*action as u8);
                put_bytes(out, name.as_bytes());
                put_bytes(out, config);
                if let Some(seen) = seen {
                    put_varint(out, u64::from(seen.id));
                    put_bytes(out, seen.deliver_subject.as_bytes());
                }
            }
            Self::Delete { id } => {
                out.put_u8(DELETE);
                put_varint(out, u64::from(*id));
            }
            Self::Deliver { id, grants } => {
                out.put_u8(DELIVER);
                put_varint(out, u64::from(*id));
                put_varint(out, grants.len() as u64);
                for grant in grants {
                    put_varint(out, u64::from(grant.batch));
                    put_varint(out, grant.max_bytes);
                }
            }
            Self::Acks { id, acks } => {
                let mut writer = AckWriter::new(*id);
                for ack in acks {
                    writer.push(ack);
                }
                writer.finish(out);
            }
            Self::Progress {
                id,
                consumer_seq,
                stream_seq,
            } => {
                out.put_u8(PROGRESS);
                put_varint(out, u64::from(*id));
                put_varint(out, *consumer_seq);
                put_varint(out, *stream_seq);
            }
            Self::Pause { id, until } => {
                out.put_u8(PAUSE_UNTIL);
                put_varint(out, u64::from(*id));
                let until = until.map(|until| until.to_string());
                put_bytes(out, until.unwrap_or_default().as_bytes());
            }
            Self::Sent { id, sent } => {
                out.put_u8(SENT);
                put_varint(out, u64::from(*id));
                sent.encode(out);
            }
        }
    }

    /// The command's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Reads a command.
    ///
    /// # Errors
    /// The bytes are no command of this version.
    pub fn decode(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let command = match reader.u8()? {
            kind @ (CREATE | MAKE) => Self::Create {
                action: match reader.u8()? {
                    0 => Action::CreateOrUpdate,
                    1 => Action::Create,
                    2 => Action::Update,
                    _ => return Err(Malformed("an unknown action of a consumer's creation")),
                },
                name: reader.text()?,
                config: reader.bytes()?,
                seen: match kind {
                    MAKE => Some(Seen {
                        id: reader.varint_u32()?,
                        deliver_subject: reader.text()?,
                    }),
                    _ => None,
                },
            },
            DELETE => Self::Delete {
                id: reader.varint_u32()?,
            },
            DELIVER => {
                let id = reader.varint_u32()?;
                let count = reader.count()?;
                let mut grants = Vec::with_capacity(count);
                for _ in 0..count {
                    grants.push(Grant {
                        batch: reader.varint_u32()?,
                        max_bytes: reader.varint()?,
                    });
                }
                Self::Deliver { id, grants }
            }
            ACKS => {
                let id = reader.varint_u32()?;
                Self::Acks {
                    id,
                    acks: decode_acks(&mut reader)?,
                }
            }
            PROGRESS => Self::Progress {
                id: reader.varint_u32()?,
                consumer_seq: reader.varint()?,
                stream_seq: reader.varint()?,
            },
            PAUSE => Self::Pause {
                id: reader.varint_u32()?,
                until: match reader.signed()? {
                    0 => None,
                    nanos => Some(Timestamp::from_nanos(nanos).into()),
                },
            },
            PAUSE_UNTIL => Self::Pause {
                id: reader.varint_u32()?,
                until: match reader.text()? {
                    "" => None,
                    text => Some(Moment::parse(text).ok_or(Malformed("a pause until no moment"))?),
                },
            },
            SENT => Self::Sent {
                id: reader.varint_u32()?,
                sent: Sent::decode(&mut reader)?,
            },
            _ => return Err(Malformed("a consumer command of an unknown kind")),
        };
        if reader.is_empty() {
            Ok(command)
        } else {
            Err(Malformed("more behind a consumer command"))
        }
    }
}

fn decode_acks<'a>(reader: &mut Reader<'a>) -> Result<Vec<Ack<'a>>, Malformed> {
    let count = reader.count()?;
    let mut acks = Vec::with_capacity(count);
    let (mut stream_seq, mut consumer_seq) = (0_u64, 0_u64);
    for _ in 0..count {
        let tag = reader.u8()?;
        stream_seq = stream_seq.wrapping_add(reader.signed()?.cast_unsigned());
        consumer_seq = consumer_seq.wrapping_add(reader.signed()?.cast_unsigned());
        let verb = match tag {
            ACK => Verb::Ack,
            NAK => Verb::Nak(reader.varint()?),
            WORKING => Verb::Progress,
            TERM => Verb::Term(reader.text()?),
            _ => return Err(Malformed("an ack of an unknown kind")),
        };
        acks.push(Ack {
            stream_seq,
            consumer_seq,
            verb,
        });
    }
    Ok(acks)
}

/// Gathers the answers to one consumer's deliveries into one command, without keeping them apart.
#[derive(Debug)]
pub struct AckWriter {
    id: ConsumerId,
    count: u64,
    stream_seq: u64,
    consumer_seq: u64,
    items: Vec<u8>,
}

impl AckWriter {
    /// An empty command for a consumer.
    pub const fn new(id: ConsumerId) -> Self {
        Self {
            id,
            count: 0,
            stream_seq: 0,
            consumer_seq: 0,
            items: Vec::new(),
        }
    }

    /// How many answers it holds.
    pub const fn len(&self) -> u64 {
        self.count
    }

    /// Whether it holds none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds one.
    pub fn push(&mut self, ack: &Ack<'_>) {
        let out = &mut self.items;
        out.put_u8(match ack.verb {
            Verb::Ack => ACK,
            Verb::Nak(_) => NAK,
            Verb::Progress => WORKING,
            Verb::Term(_) => TERM,
        });
        put_signed(
            out,
            ack.stream_seq.wrapping_sub(self.stream_seq).cast_signed(),
        );
        put_signed(
            out,
            ack.consumer_seq
                .wrapping_sub(self.consumer_seq)
                .cast_signed(),
        );
        match ack.verb {
            Verb::Nak(delay) => put_varint(out, delay),
            Verb::Term(reason) => put_bytes(out, reason.as_bytes()),
            Verb::Ack | Verb::Progress => {}
        }
        (self.stream_seq, self.consumer_seq) = (ack.stream_seq, ack.consumer_seq);
        self.count += 1;
    }

    /// Appends the command to `out` and starts anew, keeping its buffer.
    pub fn finish(&mut self, out: &mut impl BufMut) {
        out.put_u8(ACKS);
        put_varint(out, u64::from(self.id));
        put_varint(out, self.count);
        out.put_slice(&self.items);
        self.items.clear();
        (self.count, self.stream_seq, self.consumer_seq) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verb() -> impl Strategy<Value = Verb<'static>> {
        prop_oneof![
            Just(Verb::Ack),
            any::<u64>().prop_map(Verb::Nak),
            Just(Verb::Progress),
            prop_oneof![Just(""), Just("why")].prop_map(Verb::Term),
        ]
    }

    fn command() -> impl Strategy<Value = Command<'static>> {
        let ack =
            (any::<u64>(), any::<u64>(), verb()).prop_map(|(stream_seq, consumer_seq, verb)| Ack {
                stream_seq,
                consumer_seq,
                verb,
            });
        let grant =
            (any::<u32>(), any::<u64>()).prop_map(|(batch, max_bytes)| Grant { batch, max_bytes });
        prop_oneof![
            Just(Command::Create {
                action: Action::Update,
                name: "n",
                config: b"{}",
                seen: None,
            }),
            any::<u32>().prop_map(|id| Command::Create {
                action: Action::Create,
                name: "n",
                config: b"{}",
                seen: Some(Seen {
                    id,
                    deliver_subject: "d"
                }),
            }),
            any::<u32>().prop_map(|id| Command::Delete { id }),
            (any::<u32>(), prop::collection::vec(grant, 0..5))
                .prop_map(|(id, grants)| Command::Deliver { id, grants }),
            (any::<u32>(), prop::collection::vec(ack, 0..9))
                .prop_map(|(id, acks)| Command::Acks { id, acks }),
            any::<(u32, u64, u64)>().prop_map(|(id, consumer_seq, stream_seq)| Command::Progress {
                id,
                consumer_seq,
                stream_seq
            }),
            (any::<u32>(), any::<Option<i64>>()).prop_map(|(id, until)| Command::Pause {
                id,
                until: until.map(|nanos| Timestamp::from_nanos(nanos).into())
            }),
            (
                any::<u32>(),
                1..u64::MAX,
                prop::collection::vec(1..u64::MAX, 0..9)
            )
                .prop_map(|(id, first, seqs)| {
                    let mut sent = Sent::starting_at(first);
                    for seq in seqs {
                        sent.push(seq);
                    }
                    Command::Sent { id, sent }
                }),
        ]
    }

    proptest! {
        #[test]
        fn commands_round_trip(command in command()) {
            let bytes = command.to_bytes();
            prop_assert_eq!(Command::decode(&bytes), Ok(command));
        }

        #[test]
        fn a_pause_of_a_former_log_is_read(id: u32, nanos: i64) {
            let mut bytes = vec![PAUSE];
            put_varint(&mut bytes, u64::from(id));
            put_signed(&mut bytes, nanos);
            let until = (nanos != 0).then(|| Timestamp::from_nanos(nanos).into());
            prop_assert_eq!(Command::decode(&bytes), Ok(Command::Pause { id, until }));
        }

        #[test]
        fn garbage_is_refused_not_believed(bytes: Vec<u8>) {
            let _ = Command::decode(&bytes);
        }
    }
}
