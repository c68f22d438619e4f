//! How the small things of consensus are written, in the log and between nodes: log ids, votes, memberships.
//!
//! ```text
//!   log id      term u64 | leader u64 | index u64
//!   vote        term u64 | node u64 | committed u8
//!   option x    0 u8, or 1 u8 and x
//!   members     count u32 { count u32 { node u64 } } (one set, or two during a change) | count u32 { node u64 | address }
//!   stored      option log id | members
//!   bytes       length u32 | bytes
//! ```
//!
//! Numbers and byte strings themselves are [`halyard_format::codec`]'s.

use std::collections::{BTreeMap, BTreeSet};

use halyard_format::codec::{Fields, Malformed, Reader};

use crate::ids::{LogId, NodeId, Vote};
use crate::members::{Members, Membership, Peer};

/// More nodes than any membership has; a count above it is nonsense and must not reserve memory.
const NODES_MAX: u32 = 4096;

pub(crate) type Decoded<T> = Result<T, Malformed>;

pub(crate) fn put_log_id(out: &mut Fields, id: &LogId) {
    out.u64(id.term).u64(id.leader.0).u64(id.index);
}

pub(crate) fn log_id(input: &mut Reader<'_>) -> Decoded<LogId> {
    Ok(LogId {
        term: input.u64()?,
        leader: NodeId(input.u64()?),
        index: input.u64()?,
    })
}

pub(crate) fn put_vote(out: &mut Fields, vote: &Vote) {
    out.u64(vote.term)
        .u64(vote.node.0)
        .u8(u8::from(vote.committed));
}

pub(crate) fn vote(input: &mut Reader<'_>) -> Decoded<Vote> {
    Ok(Vote {
        term: input.u64()?,
        node: NodeId(input.u64()?),
        committed: input.flag()?,
    })
}

pub(crate) fn put_option<T>(
    out: &mut Fields,
    value: Option<&T>,
    put: impl FnOnce(&mut Fields, &T),
) {
    out.u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

pub(crate) fn option<'a, T>(
    input: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Decoded<T>,
) -> Decoded<Option<T>> {
    if input.flag()? {
        read(input).map(Some)
    } else {
        Ok(None)
    }
}

fn put_count(out: &mut Fields, count: usize) {
    let count = u32::try_from(count).expect("a membership of few nodes");
    assert!(count <= NODES_MAX, "what is written can be read");
    out.u32(count);
}

fn count(input: &mut Reader<'_>) -> Decoded<u32> {
    let count = input.u32()?;
    if count > NODES_MAX {
        Err(Malformed("a count that is too large"))
    } else {
        Ok(count)
    }
}

pub(crate) fn put_members(out: &mut Fields, members: &Members) {
    put_count(out, members.configs.len());
    for config in &members.configs {
        put_count(out, config.len());
        for node in config {
            out.u64(*node);
        }
    }
    put_count(out, members.nodes.len());
    for (node, peer) in &members.nodes {
        out.u64(*node).long_bytes(peer.address.as_bytes());
    }
}

pub(crate) fn members(input: &mut Reader<'_>) -> Decoded<Members> {
    let mut configs = Vec::new();
    for _ in 0..count(input)? {
        let mut config = BTreeSet::new();
        for _ in 0..count(input)? {
            config.insert(input.u64()?);
        }
        configs.push(config);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..count(input)? {
        let node = input.u64()?;
        let address = std::str::from_utf8(input.long_bytes()?)
            .map_err(|_| Malformed("an address that is not text"))?;
        nodes.insert(
            node,
            Peer {
                address: address.to_owned(),
            },
        );
    }
    let has_unknown = configs
        .iter()
        .flatten()
        .any(|node| !nodes.contains_key(node));
    if has_unknown
        || configs.iter().any(BTreeSet::is_empty)
        || (configs.is_empty() && !nodes.is_empty())
    {
        return Err(Malformed("a membership that contradicts itself"));
    }
    Ok(Members { configs, nodes })
}

pub(crate) fn put_stored(out: &mut Fields, stored: &Membership) {
    put_option(out, stored.since.as_ref(), put_log_id);
    put_members(out, &stored.members);
}

pub(crate) fn stored(input: &mut Reader<'_>) -> Decoded<Membership> {
    Ok(Membership {
        since: option(input, log_id)?,
        members: members(input)?,
    })
}
