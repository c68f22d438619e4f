//! What the replicas of a group say to each other: requests and answers, to bytes and back. No I/O here.
//!
//! ```text
//!   request    version u8 = 1 | kind u8 | ...
//!     1 append      vote | option log id (previous) | option log id (leader's commit) | count u32 { entry }
//!     2 vote        vote | option log id (last) | transfer u8
//!     3 pre-vote    as vote
//!     4 snapshot    vote | option log id | stored membership | body to the end
//!     5 transfer    vote | node u64 | option log id
//!   entry      kind u8 (1 payload, 2 blank, 3 membership) | log id | length u32 | body
//!   answer     version u8 = 1 | kind u8 | ...
//!     1 append      0 success; 1 option log id; 2 conflict; 3 vote
//!     2 vote        vote | granted u8 | option log id
//!     4 snapshot    vote
//!     5 transfer    0 done; 1 vote (expected) | vote (actual); 2 option log id (expected) | option log id (actual)
//!     9 refused     text
//! ```
//!
//! Payloads of decoded entries are slices of the received buffer: the bytes from the wire are the bytes in the log.

use bytes::Bytes;
use halyard_format::codec::{Fields, Malformed, Reader};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use crate::adapter;
use crate::codec::{self, Decoded};
use crate::entry::Command;
use crate::types::{Entry, LogId, Payload, SnapshotMeta, Types, Vote};

const VERSION: u8 = 1;
/// An entry on the wire takes at least so many bytes: kind, log id, length.
const ENTRY_BYTES_MIN: usize = 1 + 24 + 4;

/// A request of one replica to another.
#[derive(Debug)]
pub(crate) enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Snapshot {
        vote: Vote,
        meta: SnapshotMeta,
        body: Bytes,
    },
    Transfer(TransferLeaderRequest<Types>),
}

/// The answer to a [`Request`].
#[derive(Debug)]
pub(crate) enum Reply {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    Snapshot(Vote),
    Transfer(TransferLeaderResponse<Types>),
    /// The group does not exist there, or has stopped.
    Refused(String),
}

impl Request {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Fields::default();
        out.u8(VERSION);
        match self {
            Self::Append(request) => {
                out.0
                    .reserve(64 + request.entries.iter().map(entry_bytes).sum::<usize>());
                put_append(out.u8(1), request);
            }
            Self::Vote(request) => put_vote_request(out.u8(2), request),
            Self::PreVote(request) => put_vote_request(out.u8(3), request),
            Self::Snapshot { vote, meta, body } => {
                adapter::put_vote(out.u8(4), vote);
                put_option_id(&mut out, meta.last_log_id.as_ref());
                adapter::put_stored(&mut out, &meta.last_membership);
                out.0.extend_from_slice(body);
            }
            Self::Transfer(request) => {
                adapter::put_vote(out.u8(5), request.from_leader());
                out.u64(*request.to_node_id());
                put_option_id(&mut out, request.last_log_id());
            }
        }
        Bytes::from(out.0)
    }

    /// # Errors
    /// What is wrong with the bytes, in words.
    pub(crate) fn decode(bytes: &Bytes) -> Decoded<Self> {
        let mut input = Reader::new(bytes);
        check_version(&mut input)?;
        let request = match input.u8()? {
            1 => Self::Append(append(&mut input, bytes)?),
            2 => Self::Vote(vote_request(&mut input)?),
            3 => Self::PreVote(vote_request(&mut input)?),
            4 => {
                let vote = adapter::vote(&mut input)?;
                let last_log_id = codec::option(&mut input, adapter::log_id)?;
                let last_membership = adapter::stored(&mut input)?;
                let body = bytes.slice_ref(input.take_rest());
                Self::Snapshot {
                    vote,
                    meta: SnapshotMeta {
                        last_log_id,
                        last_membership,
                    },
                    body,
                }
            }
            5 => {
                let (vote, to) = (adapter::vote(&mut input)?, input.u64()?);
                Self::Transfer(TransferLeaderRequest::new(
                    vote,
                    to,
                    codec::option(&mut input, adapter::log_id)?,
                ))
            }
            _ => return Err(Malformed("a request of an unknown kind")),
        };
        input.end().map(|()| request)
    }
}

fn check_version(input: &mut Reader<'_>) -> Decoded<()> {
    if input.u8()? == VERSION {
        Ok(())
    } else {
        Err(Malformed("a message of another version"))
    }
}

fn put_option_id(out: &mut Fields, id: Option<&LogId>) {
    codec::put_option(out, id, adapter::put_log_id);
}

fn put_append(out: &mut Fields, request: &AppendEntriesRequest<Types>) {
    adapter::put_vote(out, &request.vote);
    put_option_id(out, request.prev_log_id.as_ref());
    put_option_id(out, request.leader_commit.as_ref());
    out.u32(u32::try_from(request.entries.len()).expect("a request holds few entries"));
    for entry in &request.entries {
        put_entry(out, entry);
    }
}

fn append(input: &mut Reader<'_>, bytes: &Bytes) -> Decoded<AppendEntriesRequest<Types>> {
    let vote = adapter::vote(input)?;
    let prev_log_id = codec::option(input, adapter::log_id)?;
    let leader_commit = codec::option(input, adapter::log_id)?;
    let count = input.u32()? as usize;
    if count > input.left() / ENTRY_BYTES_MIN {
        return Err(Malformed("more entries than bytes"));
    }
    let entries = (0..count)
        .map(|_| entry(input, bytes))
        .collect::<Decoded<Vec<_>>>()?;
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    })
}

fn entry_bytes(entry: &Entry) -> usize {
    let body = match &entry.payload {
        Payload::Normal(command) => command.payload.len(),
        _ => 0,
    };
    ENTRY_BYTES_MIN + body
}

fn put_entry(out: &mut Fields, entry: &Entry) {
    let kind = match &entry.payload {
        Payload::Normal(_) => 1,
        Payload::Blank => 2,
        Payload::Membership(_) => 3,
    };
    adapter::put_log_id(out.u8(kind), &entry.log_id);
    match &entry.payload {
        Payload::Normal(command) => {
            out.long_bytes(&command.payload);
        }
        Payload::Blank => {
            out.u32(0);
        }
        Payload::Membership(members) => {
            let mut body = Fields::default();
            adapter::put_members(&mut body, members);
            out.long_bytes(&body.0);
        }
    }
}

fn entry(input: &mut Reader<'_>, bytes: &Bytes) -> Decoded<Entry> {
    let kind = input.u8()?;
    let log_id = adapter::log_id(input)?;
    let body = input.long_bytes()?;
    let payload = match kind {
        1 => Payload::Normal(Command {
            payload: bytes.slice_ref(body),
            ticket: 0,
        }),
        2 if body.is_empty() => Payload::Blank,
        3 => {
            let mut body = Reader::new(body);
            let members = adapter::members(&mut body)?;
            body.end()?;
            Payload::Membership(members)
        }
        _ => return Err(Malformed("an entry of an unknown kind")),
    };
    Ok(Entry { log_id, payload })
}

fn put_vote_request(out: &mut Fields, request: &VoteRequest<Types>) {
    adapter::put_vote(out, &request.vote);
    put_option_id(out, request.last_log_id.as_ref());
    out.u8(u8::from(request.leadership_transfer));
}

fn vote_request(input: &mut Reader<'_>) -> Decoded<VoteRequest<Types>> {
    let vote = adapter::vote(input)?;
    let mut request = VoteRequest::new(vote, codec::option(input, adapter::log_id)?);
    request.leadership_transfer = input.flag()?;
    Ok(request)
}

impl Reply {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Fields::default();
        out.u8(VERSION);
        match self {
            Self::Append(reply) => put_append_reply(out.u8(1), reply),
            Self::Vote(reply) => {
                adapter::put_vote(out.u8(2), &reply.vote);
                out.u8(u8::from(reply.vote_granted));
                put_option_id(&mut out, reply.last_log_id.as_ref());
            }
            Self::Snapshot(vote) => adapter::put_vote(out.u8(4), vote),
            Self::Transfer(reply) => put_transfer_reply(out.u8(5), reply),
            Self::Refused(why) => {
                out.u8(9).long_bytes(why.as_bytes());
            }
        }
        Bytes::from(out.0)
    }

    /// # Errors
    /// What is wrong with the bytes, in words.
    pub(crate) fn decode(bytes: &Bytes) -> Decoded<Self> {
        let mut input = Reader::new(bytes);
        check_version(&mut input)?;
        let reply = match input.u8()? {
            1 => Self::Append(append_reply(&mut input)?),
            2 => {
                let vote = adapter::vote(&mut input)?;
                let granted = input.flag()?;
                let last = codec::option(&mut input, adapter::log_id)?;
                Self::Vote(VoteResponse {
                    vote,
                    vote_granted: granted,
                    last_log_id: last,
                })
            }
            4 => Self::Snapshot(adapter::vote(&mut input)?),
            5 => Self::Transfer(transfer_reply(&mut input)?),
            9 => Self::Refused(String::from_utf8_lossy(input.long_bytes()?).into_owned()),
            _ => return Err(Malformed("an answer of an unknown kind")),
        };
        input.end().map(|()| reply)
    }
}

fn put_append_reply(out: &mut Fields, reply: &AppendEntriesResponse<Types>) {
    match reply {
        AppendEntriesResponse::Success => {
            out.u8(0);
        }
        AppendEntriesResponse::PartialSuccess(id) => put_option_id(out.u8(1), id.as_ref()),
        AppendEntriesResponse::Conflict => {
            out.u8(2);
        }
        AppendEntriesResponse::HigherVote(vote) => adapter::put_vote(out.u8(3), vote),
    }
}

fn append_reply(input: &mut Reader<'_>) -> Decoded<AppendEntriesResponse<Types>> {
    Ok(match input.u8()? {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(codec::option(input, adapter::log_id)?),
        2 => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(adapter::vote(input)?),
        _ => return Err(Malformed("an append's answer of an unknown kind")),
    })
}

fn put_transfer_reply(out: &mut Fields, reply: &TransferLeaderResponse<Types>) {
    match reply {
        Ok(()) => {
            out.u8(0);
        }
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            adapter::put_vote(out.u8(1), expected);
            adapter::put_vote(out, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            put_option_id(out.u8(2), expected.as_ref());
            put_option_id(out, actual.as_ref());
        }
    }
}

fn transfer_reply(input: &mut Reader<'_>) -> Decoded<TransferLeaderResponse<Types>> {
    Ok(match input.u8()? {
        0 => Ok(()),
        1 => {
            let (expected, actual) = (adapter::vote(input)?, adapter::vote(input)?);
            Err(TransferLeaderError::VoteChanged { expected, actual })
        }
        2 => {
            let expected = codec::option(input, adapter::log_id)?;
            let actual = codec::option(input, adapter::log_id)?;
            Err(TransferLeaderError::LogNotFlushed { expected, actual })
        }
        _ => return Err(Malformed("a transfer's answer of an unknown kind")),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::vote::RaftLeaderId as _;
    use proptest::prelude::*;

    use super::*;
    use crate::members::Peer;
    use crate::types::{LeaderId, Members, StoredMembers};

    fn log_id() -> impl Strategy<Value = LogId> {
        any::<(u64, u64, u64)>()
            .prop_map(|(term, node, index)| LogId::new(LeaderId::new(term, node), index))
    }

    fn vote() -> impl Strategy<Value = Vote> {
        any::<(u64, u64, bool)>().prop_map(|(term, node, committed)| {
            let mut vote = Vote::new(term, node);
            vote.committed = committed;
            vote
        })
    }

    fn members() -> impl Strategy<Value = Members> {
        let nodes = proptest::collection::btree_map(0..9u64, ".{0,12}", 1..5);
        (nodes, any::<bool>()).prop_map(|(nodes, joint)| {
            let all: BTreeSet<u64> = nodes.keys().copied().collect();
            let first: BTreeSet<u64> = all.iter().copied().take(1).collect();
            let configs = if joint { vec![all, first] } else { vec![first] };
            let nodes: BTreeMap<u64, Peer> = nodes
                .into_iter()
                .map(|(id, address)| (id, Peer { address }))
                .collect();
            Members::new(configs, nodes).expect("every voter is a node")
        })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let normal = proptest::collection::vec(any::<u8>(), 0..60).prop_map(|bytes| {
            Payload::Normal(Command {
                payload: Bytes::from(bytes),
                ticket: 0,
            })
        });
        let payload = prop_oneof![
            normal,
            Just(Payload::Blank),
            members().prop_map(Payload::Membership)
        ];
        (log_id(), payload).prop_map(|(log_id, payload)| Entry { log_id, payload })
    }

    fn request() -> impl Strategy<Value = Request> {
        let append = (
            vote(),
            proptest::option::of(log_id()),
            proptest::option::of(log_id()),
            proptest::collection::vec(entry(), 0..5),
        );
        let append = append.prop_map(|(vote, prev_log_id, leader_commit, entries)| {
            Request::Append(AppendEntriesRequest {
                vote,
                prev_log_id,
                entries,
                leader_commit,
            })
        });
        let ask = || {
            (vote(), proptest::option::of(log_id()), any::<bool>()).prop_map(
                |(vote, last, transfer)| {
                    let mut request = VoteRequest::new(vote, last);
                    request.leadership_transfer = transfer;
                    request
                },
            )
        };
        let snapshot = (
            vote(),
            proptest::option::of(log_id()),
            members(),
            proptest::collection::vec(any::<u8>(), 0..60),
        );
        let snapshot = snapshot.prop_map(|(vote, last_log_id, members, body)| {
            let last_membership = StoredMembers::new(last_log_id, members);
            Request::Snapshot {
                vote,
                meta: SnapshotMeta {
                    last_log_id,
                    last_membership,
                },
                body: Bytes::from(body),
            }
        });
        let transfer = (vote(), any::<u64>(), proptest::option::of(log_id()));
        let transfer = transfer.prop_map(|(vote, to, last)| {
            Request::Transfer(TransferLeaderRequest::new(vote, to, last))
        });
        prop_oneof![
            append,
            ask().prop_map(Request::Vote),
            ask().prop_map(Request::PreVote),
            snapshot,
            transfer
        ]
    }

    fn reply() -> impl Strategy<Value = Reply> {
        let append = prop_oneof![
            Just(AppendEntriesResponse::Success),
            proptest::option::of(log_id()).prop_map(AppendEntriesResponse::PartialSuccess),
            Just(AppendEntriesResponse::Conflict),
            vote().prop_map(AppendEntriesResponse::HigherVote),
        ];
        let granted = (vote(), any::<bool>(), proptest::option::of(log_id()));
        let granted = granted.prop_map(|(vote, vote_granted, last_log_id)| VoteResponse {
            vote,
            vote_granted,
            last_log_id,
        });
        let transfer = prop_oneof![
            Just(Ok(())),
            (vote(), vote()).prop_map(|(expected, actual)| Err(TransferLeaderError::VoteChanged {
                expected,
                actual
            })),
            (
                proptest::option::of(log_id()),
                proptest::option::of(log_id())
            )
                .prop_map(|(expected, actual)| Err(
                    TransferLeaderError::LogNotFlushed { expected, actual }
                )),
        ];
        prop_oneof![
            append.prop_map(Reply::Append),
            granted.prop_map(Reply::Vote),
            vote().prop_map(Reply::Snapshot),
            transfer.prop_map(Reply::Transfer),
            ".{0,40}".prop_map(Reply::Refused),
        ]
    }

    proptest! {
        #[test]
        fn requests_read_back_as_they_were(request in request()) {
            let bytes = request.encode();
            let read = Request::decode(&bytes).expect("what was encoded decodes");
            prop_assert_eq!(format!("{read:?}"), format!("{request:?}"));
            prop_assert_eq!(read.encode(), bytes);
        }

        #[test]
        fn replies_read_back_as_they_were(reply in reply()) {
            let bytes = reply.encode();
            let read = Reply::decode(&bytes).expect("what was encoded decodes");
            prop_assert_eq!(read.encode(), bytes);
        }

        #[test]
        fn cut_or_changed_messages_never_panic(request in request(), cut in any::<prop::sample::Index>(), flip in any::<u8>()) {
            let bytes = request.encode();
            let at = cut.index(bytes.len());
            // A cut snapshot is a shorter snapshot; its body's own checks see to that.
            if !matches!(request, Request::Snapshot { .. }) {
                prop_assert!(Request::decode(&bytes.slice(..at)).is_err());
            }
            let mut changed = bytes.to_vec();
            changed[at] ^= flip;
            let _ = Request::decode(&Bytes::from(changed.clone()));
            let _ = Reply::decode(&Bytes::from(changed));
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = Request::decode(&bytes);
            let _ = Reply::decode(&bytes);
        }
    }
}
