//! `/connz`: the connections, open and closed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::query::{BadQuery, Query};
use super::state::{Answer, State, json};
use super::text::{Time, between, round_trip, uptime};
use crate::broker::{ClientId, GLOBAL_ACCOUNT, Subscription};
use crate::conn::{ConnectionSnapshot, LastSubscription, Transport};

#[derive(Serialize)]
struct Connz {
    server_id: String,
    now: Time,
    num_connections: usize,
    total: usize,
    offset: usize,
    limit: usize,
    connections: Vec<ConnInfo>,
}

#[derive(Serialize)]
struct ConnInfo {
    cid: u64,
    kind: &'static str,
    #[serde(rename = "type")]
    transport: &'static str,
    ip: String,
    port: u16,
    start: Time,
    last_activity: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt: Option<String>,
    uptime: String,
    idle: String,
    pending_bytes: u64,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    stalls: u64,
    subscriptions: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    lang: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorized_user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list_detail: Vec<SubDetail>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_tag: Option<String>,
}

/// One subscription in detail.
#[derive(Serialize)]
pub(super) struct SubDetail {
    #[serde(skip_serializing_if = "String::is_empty")]
    account: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    account_tag: String,
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    qgroup: Option<String>,
    sid: String,
    msgs: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    cid: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl SubDetail {
    /// `account` is empty where the reader knows it anyway.
    pub(super) fn new(account: &str, subscription: &Subscription) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // The server's own subscriptions have no name that their subscriber gave them.
        let sid = match subscription.client() {
            Some(_) => text(subscription.sid()),
            None => subscription.id().to_string(),
        };
        Self {
            account: account.to_owned(),
            account_tag: account.to_owned(),
            subject: text(subscription.filter()),
            qgroup: subscription.queue().map(text),
            sid,
            msgs: subscription.delivered(),
            max: subscription.max(),
            cid: subscription.client().map_or(0, |client| client.0),
        }
    }

    /// Of a connection that is closed.
    fn last(client: ClientId, subscription: &LastSubscription) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            account: subscription.account.to_string(),
            account_tag: subscription.account.to_string(),
            subject: text(&subscription.filter),
            qgroup: subscription.queue.as_deref().map(text),
            sid: text(&subscription.sid),
            msgs: subscription.delivered,
            max: subscription.max,
            cid: client.0,
        }
    }
}

/// Which subscriptions to show.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subs {
    No,
    Subjects,
    Detail,
}

/// What `/connz` is asked for.
struct Options<'q> {
    sort: Sort,
    auth: bool,
    subs: Subs,
    open: bool,
    closed: bool,
    cid: Option<u64>,
    user: &'q str,
    account: &'q str,
}

pub(super) fn answer(state: &State, query: &Query<'_>) -> Result<Answer, BadQuery> {
    let options = Options::read(query)?;
    let mut page = query.page()?;
    let registry = &state.front.registry;
    let mut found = Vec::new();
    if options.open {
        found.extend(registry.open());
    }
    if options.closed {
        found.extend(registry.closed());
    }
    found.retain(|connection| options.wants_account(connection));
    let mut total = found.len();
    found.retain(|connection| options.wants(connection));
    if options.cid.is_some() {
        page.limit = 1;
    } else if options.is_filtered() {
        total = found.len();
    }
    options.sort.sort(&mut found, State::now());
    let subscriptions = match options.subs {
        Subs::No => BTreeMap::new(),
        _ => by_connection(state),
    };
    let shown = page.take(found);
    let connections: Vec<_> = shown
        .into_iter()
        .map(|one| conn_info(one, &options, &subscriptions))
        .collect();
    Ok(json(&Connz {
        server_id: state.server_id(),
        now: State::now(),
        num_connections: connections.len(),
        total,
        offset: page.offset,
        limit: page.limit,
        connections,
    }))
}

impl<'q> Options<'q> {
    fn read(query: &'q Query<'_>) -> Result<Self, BadQuery> {
        let subs = match query.text("subs") {
            "detail" => Subs::Detail,
            _ if query.bool("subs")? => Subs::Subjects,
            _ => Subs::No,
        };
        let (open, closed) = match query.text("state").to_ascii_lowercase().as_str() {
            "" | "open" => (true, false),
            "closed" => (false, true),
            "any" | "all" => (true, true),
            _ => {
                let text = query.text("state");
                return Err(BadQuery(format!("Error decoding state for {text}")));
            }
        };
        let sort = Sort::read(query.text("sort"))?;
        let only_closed = closed && !open;
        match sort {
            Sort::Stop if !only_closed => {
                return Err(BadQuery(
                    "sort by stop only valid on closed connections".to_owned(),
                ));
            }
            Sort::Reason if !only_closed => {
                return Err(BadQuery(
                    "sort by reason only valid on closed connections".to_owned(),
                ));
            }
            _ => {}
        }
        Ok(Self {
            sort,
            auth: query.bool("auth")?,
            subs,
            open,
            closed,
            cid: query.id("cid")?,
            user: query.text("user"),
            account: query.text("acc"),
        })
    }

    fn wants_account(&self, connection: &ConnectionSnapshot) -> bool {
        self.account.is_empty() || connection.names.account == self.account
    }

    fn is_filtered(&self) -> bool {
        !self.user.is_empty()
    }

    fn wants(&self, connection: &ConnectionSnapshot) -> bool {
        self.cid.is_none_or(|cid| connection.id.0 == cid)
            && (self.user.is_empty() || connection.names.user.as_deref() == Some(self.user))
    }
}

/// The order of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Cid,
    Start,
    Subs,
    Pending,
    MsgsTo,
    MsgsFrom,
    BytesTo,
    BytesFrom,
    Last,
    Idle,
    Uptime,
    Stop,
    Reason,
    Rtt,
}

impl Sort {
    fn read(text: &str) -> Result<Self, BadQuery> {
        Ok(match text {
            "" | "cid" => Self::Cid,
            "start" => Self::Start,
            "subs" => Self::Subs,
            "pending" => Self::Pending,
            "msgs_to" => Self::MsgsTo,
            "msgs_from" => Self::MsgsFrom,
            "bytes_to" => Self::BytesTo,
            "bytes_from" => Self::BytesFrom,
            "last" => Self::Last,
            "idle" => Self::Idle,
            "uptime" => Self::Uptime,
            "stop" => Self::Stop,
            "reason" => Self::Reason,
            "rtt" => Self::Rtt,
            _ => return Err(BadQuery(format!("invalid sorting option: {text}"))),
        })
    }

    /// By number and start the lowest first; by everything that is counted the largest.
    fn sort(self, connections: &mut [ConnectionSnapshot], now: Time) {
        use std::cmp::Reverse;
        let up = |c: &ConnectionSnapshot| {
            between(c.start, c.stop.as_ref().map_or(now.0, |(stop, _)| *stop))
        };
        match self {
            Self::Cid => connections.sort_by_key(|c| c.id.0),
            Self::Start => connections.sort_by_key(|c| c.start),
            Self::Subs => connections.sort_by_key(|c| Reverse(c.subscriptions)),
            Self::Pending => connections.sort_by_key(|c| Reverse(c.pending_bytes)),
            Self::MsgsTo => connections.sort_by_key(|c| Reverse(c.out_msgs)),
            Self::MsgsFrom => connections.sort_by_key(|c| Reverse(c.in_msgs)),
            Self::BytesTo => connections.sort_by_key(|c| Reverse(c.out_bytes)),
            Self::BytesFrom => connections.sort_by_key(|c| Reverse(c.in_bytes)),
            Self::Last => connections.sort_by_key(|c| Reverse(c.last_activity)),
            Self::Idle => connections.sort_by_key(|c| c.last_activity),
            Self::Uptime => connections.sort_by_key(|c| Reverse(up(c))),
            Self::Stop => connections.sort_by_key(|c| Reverse(c.stop.as_ref().map(|(at, _)| *at))),
            Self::Reason => connections.sort_by_key(reason),
            Self::Rtt => connections.sort_by_key(|c| Reverse(c.rtt)),
        }
    }
}

fn reason(connection: &ConnectionSnapshot) -> Option<String> {
    connection
        .stop
        .as_ref()
        .map(|(_, reason)| reason.to_string())
}

/// Every subscription under the number of its connection.
fn by_connection(state: &State) -> BTreeMap<u64, Vec<Arc<Subscription>>> {
    let mut map: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for account in state.front.broker.accounts() {
        for subscription in account.subscriptions() {
            if let Some(client) = subscription.client() {
                map.entry(client.0).or_default().push(subscription);
            }
        }
    }
    map
}

fn conn_info(
    connection: ConnectionSnapshot,
    options: &Options<'_>,
    subscriptions: &BTreeMap<u64, Vec<Arc<Subscription>>>,
) -> ConnInfo {
    let reason = reason(&connection);
    let stop = connection.stop.as_ref().map(|(stop, _)| *stop);
    let until = stop.unwrap_or(State::now().0);
    let list = subscriptions
        .get(&connection.id.0)
        .map_or(&[][..], Vec::as_slice);
    let last = &connection.last_subscriptions;
    let subject = |filter: &[u8]| String::from_utf8_lossy(filter).into_owned();
    let (mut subscriptions_list, mut subscriptions_list_detail) = (Vec::new(), Vec::new());
    match options.subs {
        Subs::No => {}
        Subs::Subjects => {
            let live = list.iter().map(|one| subject(one.filter()));
            let last = last.iter().map(|one| subject(&one.filter));
            subscriptions_list = live.chain(last).collect();
        }
        Subs::Detail => {
            let live = list.iter().map(|one| SubDetail::new("", one));
            let last = last.iter().map(|one| SubDetail::last(connection.id, one));
            subscriptions_list_detail = live.chain(last).collect();
        }
    }
    let names = connection.names;
    let account = (!names.account.is_empty()).then_some(names.account);
    let auth = options.auth;
    ConnInfo {
        cid: connection.id.0,
        kind: "Client",
        transport: match connection.peer.transport {
            Transport::Tcp => "nats",
            Transport::InProcess => "in_process",
        },
        ip: connection.peer.ip,
        port: connection.peer.port,
        start: Time(connection.start),
        last_activity: Time(connection.last_activity),
        stop: stop.map(Time),
        reason,
        rtt: connection.rtt.map(round_trip),
        uptime: uptime(between(connection.start, until)),
        idle: uptime(between(connection.last_activity, until)),
        pending_bytes: connection.pending_bytes,
        in_msgs: connection.in_msgs,
        out_msgs: connection.out_msgs,
        in_bytes: connection.in_bytes,
        out_bytes: connection.out_bytes,
        stalls: connection.stalls,
        subscriptions: connection.subscriptions,
        name: names.name,
        lang: names.lang,
        version: names.version,
        authorized_user: names.user.filter(|_| auth),
        account: account
            .clone()
            .filter(|name| auth && name != GLOBAL_ACCOUNT),
        subscriptions_list,
        subscriptions_list_detail,
        name_tag: account.filter(|_| auth),
    }
}
