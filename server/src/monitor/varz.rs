//! `/varz`: what the server is, how it is set up, and its counters.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::jsz::JetStreamVarz;
use super::links::Empty;
use super::process;
use super::state::{Answer, State, json};
use super::text::{Time, between, uptime};
use crate::broker::SYSTEM_ACCOUNT;
use crate::caps;
use crate::config::{Config, VERSION};
use crate::conn::Totals;

/// Shown, because tools expect it; there is no TLS yet.
const TLS_TIMEOUT_SECONDS: f64 = 2.0;
/// The protocol level of INFO.
const PROTO: u8 = 1;

#[derive(Serialize)]
struct Varz {
    server_id: String,
    server_name: String,
    version: String,
    /// Our own version; not a field of NATS.
    halyard: &'static str,
    proto: u8,
    go: String,
    host: String,
    port: u16,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    auth_required: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    connect_urls: Vec<String>,
    max_connections: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_subscriptions: Option<usize>,
    ping_interval: u64,
    ping_max: u32,
    http_host: String,
    http_port: u16,
    http_base_path: String,
    https_port: u16,
    auth_timeout: f64,
    max_control_line: usize,
    max_payload: usize,
    max_pending: usize,
    cluster: Empty,
    gateway: Empty,
    leaf: Empty,
    mqtt: Empty,
    websocket: Empty,
    jetstream: JetStreamVarz,
    tls_timeout: f64,
    write_deadline: u64,
    start: Time,
    now: Time,
    uptime: String,
    mem: u64,
    cores: usize,
    gomaxprocs: usize,
    cpu: f64,
    #[serde(flatten)]
    counters: Counters,
    http_req_stats: BTreeMap<&'static str, u64>,
    config_load_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_digest: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    system_account: &'static str,
    slow_consumer_stats: ByKind,
    stale_connection_stats: ByKind,
}

#[derive(Serialize)]
struct Counters {
    connections: u64,
    total_connections: u64,
    routes: u64,
    remotes: u64,
    leafnodes: u64,
    in_msgs: u64,
    in_bytes: u64,
    in_client_msgs: u64,
    in_client_bytes: u64,
    out_msgs: u64,
    out_bytes: u64,
    out_client_msgs: u64,
    out_client_bytes: u64,
    slow_consumers: u64,
    stale_connections: u64,
    stalled_clients: u64,
    subscriptions: u64,
}

/// A counter for each kind of connection.
#[derive(Serialize)]
struct ByKind {
    clients: u64,
    routes: u64,
    gateways: u64,
    leafs: u64,
}

impl ByKind {
    const fn clients(clients: u64) -> Self {
        Self {
            clients,
            routes: 0,
            gateways: 0,
            leafs: 0,
        }
    }
}

impl Counters {
    fn new(totals: &Totals, subscriptions: u64) -> Self {
        Self {
            connections: totals.connections,
            total_connections: totals.total_connections,
            routes: 0,
            remotes: 0,
            leafnodes: 0,
            in_msgs: totals.in_msgs,
            in_bytes: totals.in_bytes,
            in_client_msgs: totals.in_msgs,
            in_client_bytes: totals.in_bytes,
            out_msgs: totals.out_msgs,
            out_bytes: totals.out_bytes,
            out_client_msgs: totals.out_msgs,
            out_client_bytes: totals.out_bytes,
            slow_consumers: totals.slow_consumers,
            stale_connections: totals.stale_connections,
            stalled_clients: totals.stalled_clients,
            subscriptions,
        }
    }
}

pub(super) fn answer(state: &State) -> Answer {
    let config = state.front.settings();
    json(&varz(state, &config))
}

fn varz(state: &State, config: &Config) -> Varz {
    let info = state.front.info();
    let totals = state.front.registry.totals();
    let accounts = state.front.broker.accounts();
    let subscriptions = accounts
        .iter()
        .map(|account| account.counters().subscriptions)
        .sum();
    let usage = state.process.lock().usage();
    let start = state.front.start;
    let now = State::now();
    let auth_timeout = config.authorization.timeout.unwrap_or(caps::AUTH_TIMEOUT);
    Varz {
        server_id: info.server_id,
        server_name: info.server_name,
        version: info.version,
        halyard: VERSION,
        proto: PROTO,
        go: info.go,
        host: config.host.clone(),
        port: if config.port == 0 {
            info.port
        } else {
            config.port
        },
        auth_required: info.auth_required,
        connect_urls: info.connect_urls,
        max_connections: config.limits.max_connections.map_or(-1, |max| max as i64),
        max_subscriptions: config.limits.max_subscriptions,
        ping_interval: nanos(config.ping_interval),
        ping_max: config.ping_max,
        http_host: state.address.ip().to_string(),
        http_port: state.address.port(),
        http_base_path: config.monitor_base_path.clone(),
        https_port: 0,
        auth_timeout: auth_timeout.as_secs_f64(),
        max_control_line: config.limits.max_control_line,
        max_payload: config.limits.max_payload,
        max_pending: config.limits.max_pending,
        cluster: Empty {},
        gateway: Empty {},
        leaf: Empty {},
        mqtt: Empty {},
        websocket: Empty {},
        jetstream: JetStreamVarz::new(state),
        tls_timeout: TLS_TIMEOUT_SECONDS,
        write_deadline: nanos(config.write_deadline),
        start: Time(start),
        now,
        uptime: uptime(between(start, now.0)),
        mem: usage.mem,
        cores: process::cores(),
        gomaxprocs: process::cores(),
        cpu: usage.cpu,
        counters: Counters::new(&totals, subscriptions),
        http_req_stats: state.requests.lock().clone(),
        config_load_time: Time(state.front.settings_time()),
        config_digest: config.config_digest.clone(),
        tags: config.server_tags.clone(),
        metadata: config.server_metadata.clone(),
        system_account: SYSTEM_ACCOUNT,
        slow_consumer_stats: ByKind::clients(totals.slow_consumers),
        stale_connection_stats: ByKind::clients(totals.stale_connections),
    }
}

/// A duration as NATS writes it into JSON.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
