//! `/accountz` and `/accstatz`: the tenants.

use serde::Serialize;

use super::query::{BadQuery, Query};
use super::state::{Answer, State, json};
use super::subsz::Statistics;
use super::text::Time;
use crate::broker::{Account, SYSTEM_ACCOUNT};

#[derive(Serialize)]
struct Accountz {
    server_id: String,
    now: Time,
    system_account: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    accounts: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_detail: Option<AccountDetail>,
}

#[derive(Serialize)]
struct AccountDetail {
    account_name: String,
    update_time: Time,
    expired: bool,
    complete: bool,
    jetstream_enabled: bool,
    leafnode_connections: u64,
    client_connections: u64,
    subscriptions: u64,
    name_tag: String,
    sublist_stats: Statistics,
}

pub(super) fn accountz(state: &State, query: &Query<'_>) -> Result<Answer, BadQuery> {
    let wanted = query.text("acc");
    let accounts = state.front.broker.accounts();
    let (mut names, mut detail) = (None, None);
    if wanted.is_empty() {
        names = Some(
            accounts
                .iter()
                .map(|account| account.name().to_owned())
                .collect(),
        );
    } else {
        let Some(account) = accounts.iter().find(|account| account.name() == wanted) else {
            return Err(BadQuery(format!("Account {wanted} does not exist")));
        };
        detail = Some(AccountDetail {
            account_name: account.name().to_owned(),
            update_time: Time(state.front.start),
            expired: false,
            complete: true,
            jetstream_enabled: state.front.settings().jetstream.enabled,
            leafnode_connections: 0,
            client_connections: Traffic::of(state, account).connections,
            subscriptions: account.counters().subscriptions,
            name_tag: account.name().to_owned(),
            sublist_stats: Statistics::sum([account]),
        });
    }
    Ok(json(&Accountz {
        server_id: state.server_id(),
        now: State::now(),
        system_account: SYSTEM_ACCOUNT,
        accounts: names,
        account_detail: detail,
    }))
}

#[derive(Serialize)]
struct Accstatz {
    server_id: String,
    now: Time,
    account_statz: Vec<AccountStat>,
}

#[derive(Serialize)]
struct AccountStat {
    acc: String,
    name: String,
    conns: u64,
    leafnodes: u64,
    total_conns: u64,
    num_subscriptions: u64,
    sent: DataStats,
    received: DataStats,
    slow_consumers: u64,
}

#[derive(Serialize, Default)]
struct DataStats {
    #[serde(flatten)]
    all: MsgBytes,
    gateways: MsgBytes,
    routes: MsgBytes,
    leafs: MsgBytes,
}

#[derive(Serialize, Default, Clone, Copy)]
struct MsgBytes {
    msgs: u64,
    bytes: u64,
}

impl DataStats {
    fn clients(msgs: u64, bytes: u64) -> Self {
        Self {
            all: MsgBytes { msgs, bytes },
            ..Self::default()
        }
    }
}

pub(super) fn accstatz(state: &State, query: &Query<'_>) -> Result<Answer, BadQuery> {
    let unused = query.bool("unused")?;
    let mut account_statz = Vec::new();
    for account in state.front.broker.accounts() {
        let traffic = Traffic::of(state, &account);
        if traffic.connections == 0 && !unused {
            continue;
        }
        account_statz.push(AccountStat {
            acc: account.name().to_owned(),
            name: account.name().to_owned(),
            conns: traffic.connections,
            leafnodes: 0,
            total_conns: traffic.connections,
            num_subscriptions: account.counters().subscriptions,
            sent: DataStats::clients(traffic.out_msgs, traffic.out_bytes),
            received: DataStats::clients(traffic.in_msgs, traffic.in_bytes),
            slow_consumers: traffic.slow_consumers,
        });
    }
    Ok(json(&Accstatz {
        server_id: state.server_id(),
        now: State::now(),
        account_statz,
    }))
}

/// What an account's connections have done.
#[derive(Default)]
struct Traffic {
    connections: u64,
    in_msgs: u64,
    in_bytes: u64,
    out_msgs: u64,
    out_bytes: u64,
    slow_consumers: u64,
}

impl Traffic {
    /// Every client belongs to the one account of clients until accounts can be configured: its traffic is the server's,
    /// that of connections that are gone among it.
    fn of(state: &State, account: &Account) -> Self {
        if account.name() != state.front.broker.global().name() {
            return Self::default();
        }
        let totals = state.front.registry.totals();
        Self {
            connections: totals.connections,
            in_msgs: totals.in_msgs,
            in_bytes: totals.in_bytes,
            out_msgs: totals.out_msgs,
            out_bytes: totals.out_bytes,
            slow_consumers: totals.slow_consumers,
        }
    }
}
