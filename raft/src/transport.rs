//! How a group's requests reach its other replicas. The server implements [`Transport`] over its links; a group of one
//! voter never calls it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;

use crate::apply::SnapshotBody;
use crate::ids::{GroupId, NodeId};
use crate::members::Peer;
use crate::message::{Reply, Request};
use crate::types::{Types, Vote};

/// A future that a [`Transport`] returns.
pub type Answer = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

/// Carries requests between nodes. Requests and answers are opaque bytes; what a node receives goes to
/// [`Node::handle`](crate::Node::handle).
pub trait Transport: Send + Sync + 'static {
    /// Sends `request` of `group` to the node `to` and returns its answer.
    ///
    /// The caller gives up after `ttl`; a transport must then not deliver a late answer to another call. Requests to one
    /// node may be sent at the same time and may arrive in any order.
    ///
    /// # Errors
    /// Any error means that it is not known whether the request arrived.
    fn call(
        &self,
        to: NodeId,
        peer: &Peer,
        group: GroupId,
        request: Bytes,
        ttl: Duration,
    ) -> Answer;
}

/// A transport to nobody: for nodes whose groups have one voter.
#[derive(Debug, Default)]
pub struct NoPeers;

impl Transport for NoPeers {
    fn call(&self, to: NodeId, _: &Peer, _: GroupId, _: Bytes, _: Duration) -> Answer {
        Box::pin(async move {
            Err(io::Error::new(
                io::ErrorKind::HostUnreachable,
                format!("no transport to node {to}"),
            ))
        })
    }
}

/// Makes the connections of one group.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) group: GroupId,
}

/// One group's way to one node.
pub(crate) struct Link {
    network: Network,
    to: NodeId,
    peer: Peer,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Link {
        Link {
            network: self.clone(),
            to: NodeId(target),
            peer: node.clone(),
        }
    }
}

impl Link {
    async fn call(&self, request: &Request, ttl: Duration) -> io::Result<Reply> {
        let sent = self.network.transport.call(
            self.to,
            &self.peer,
            self.network.group,
            request.encode(),
            ttl,
        );
        let answer = halyard_runtime::time::timeout(ttl, sent).await??;
        Reply::decode(&answer).map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))
    }
}

fn unreachable(error: &io::Error) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(error))
}

/// An answer of another kind than the request asked for, or a refusal in words.
fn unexpected(reply: Reply) -> io::Error {
    match reply {
        Reply::Refused(why) => io::Error::other(why),
        _ => io::Error::new(io::ErrorKind::InvalidData, "an answer to another request"),
    }
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = SnapshotBody;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        match self
            .call(&Request::Append(request), option.soft_ttl())
            .await
        {
            Ok(Reply::Append(reply)) => Ok(reply),
            Ok(other) => Err(unreachable(&unexpected(other))),
            Err(error) => Err(unreachable(&error)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(&Request::Vote(request), option.soft_ttl()).await {
            Ok(Reply::Vote(reply)) => Ok(reply),
            Ok(other) => Err(unreachable(&unexpected(other))),
            Err(error) => Err(unreachable(&error)),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self
            .call(&Request::PreVote(request), option.soft_ttl())
            .await
        {
            Ok(Reply::Vote(reply)) => Ok(reply),
            Ok(other) => Err(unreachable(&unexpected(other))),
            Err(error) => Err(unreachable(&error)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, SnapshotBody>,
        cancel: impl Future<Output = ReplicationClosed> + openraft::OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let request = Request::Snapshot {
            vote,
            meta: snapshot.meta,
            body: snapshot.snapshot,
        };
        let sent = std::pin::pin!(self.call(&request, option.soft_ttl()));
        let cancel = std::pin::pin!(cancel);
        let answered = match futures::future::select(sent, cancel).await {
            futures::future::Either::Left((answered, _)) => answered,
            futures::future::Either::Right((closed, _)) => {
                return Err(StreamingError::Closed(closed));
            }
        };
        let failed = |error: &io::Error| StreamingError::Unreachable(Unreachable::new(error));
        match answered {
            Ok(Reply::Snapshot(vote)) => Ok(SnapshotResponse { vote }),
            Ok(other) => Err(failed(&unexpected(other))),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self
            .call(&Request::Transfer(request), option.soft_ttl())
            .await
        {
            Ok(Reply::Transfer(reply)) => Ok(reply),
            Ok(other) => Err(unreachable(&unexpected(other))),
            Err(error) => Err(unreachable(&error)),
        }
    }
}
