//! `/jsz` and the JetStream part of `/varz`.

use halyard_raft::LogMetrics;
use serde::Serialize;
use serde_json::Value;

use super::query::{BadQuery, Query};
use super::state::{Answer, State, json};
use super::text::Time;
use super::varz::nanos;
use crate::broker::Account;
use crate::jetstream::JetStream;
use crate::jetstream::api::timestamp;
use crate::jetstream::api::types::{ApiCounters, Cluster, State as StreamState};
use crate::jetstream::config::Storage;
use crate::jetstream::consumer::StoreMessages;
use crate::jetstream::consumer::info::{ConsumerInfo, Presence};
use crate::jetstream::handle::StreamHandle;

/// The JetStream part of `/varz`; `{}` without JetStream.
#[derive(Serialize, Default)]
pub(super) struct JetStreamVarz {
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Config>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<Stats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
}

/// How JetStream is set up.
#[derive(Serialize, Default)]
struct Config {
    max_memory: u64,
    max_storage: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    store_dir: String,
    /// Always: nothing is acknowledged before it is on disk.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    sync_always: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    strict: bool,
}

/// Caps on what streams and consumers may ask for.
#[derive(Serialize)]
struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate_window: Option<u64>,
}

/// What is used.
#[derive(Serialize)]
struct Stats {
    memory: u64,
    storage: u64,
    reserved_memory: u64,
    reserved_storage: u64,
    accounts: usize,
    ha_assets: u64,
    api: ApiCounters,
}

/// Encryption at rest.
#[derive(Serialize)]
struct EncryptionState {
    cipher: &'static str,
    /// Everything is sealed with the configured key and cipher: a previous key is not needed any more.
    complete: bool,
    /// Segments that are to be rewritten.
    #[serde(skip_serializing_if = "is_zero")]
    segments: usize,
    /// Those of them that cannot be.
    #[serde(skip_serializing_if = "is_zero")]
    damaged: usize,
    /// The log still holds what is in the clear, or sealed otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    log: bool,
}

impl EncryptionState {
    fn new(jetstream: &JetStream) -> Option<Self> {
        let encryption = jetstream.settings().encryption.as_ref()?;
        let progress = jetstream.resealing()?;
        Some(Self {
            cipher: encryption.cipher.name(),
            complete: progress.is_done(),
            segments: progress.segments,
            damaged: progress.damaged,
            log: progress.log,
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

#[derive(Serialize)]
struct Jsz {
    #[serde(flatten)]
    stats: Stats,
    server_id: String,
    now: Time,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disabled: bool,
    config: Config,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
    #[serde(flatten)]
    totals: Totals,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    account_details: Vec<AccountDetail>,
    total: usize,
    halyard: Own,
}

/// What only we have.
#[derive(Serialize, Default)]
struct Own {
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption: Option<EncryptionState>,
    erasure: Erasure,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<Identity>,
    log: Log,
    /// Bytes on the disk that are not what was written: which file, where, and what stood there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damage: Vec<String>,
}

/// Who this node is, to the replicas of a group.
#[derive(Serialize)]
struct Identity {
    node: String,
    incarnation: u64,
    /// Identity of its log, and how often that was opened.
    log: String,
    boots: u64,
}

impl From<&halyard_raft::Identity> for Identity {
    fn from(identity: &halyard_raft::Identity) -> Self {
        Self {
            node: format!("{:010x}", identity.node.node()),
            incarnation: identity.node.incarnation(),
            log: format!("{:016x}", identity.log),
            boots: identity.boots,
        }
    }
}

/// The node's log. Counts are since the server started, times in nanoseconds.
#[derive(Serialize, Default)]
struct Log {
    /// Batches that were written and synced.
    syncs: u64,
    records: u64,
    bytes_written: u64,
    /// Of writing and syncing one batch.
    mean_sync: u64,
    slowest_sync: u64,
    bytes_held: u64,
    segments: u64,
    /// The disk is full: proposals are refused.
    full: bool,
}

/// What deletes and purges have left on the disk.
#[derive(Serialize, Default)]
struct Erasure {
    /// Streams with something left, deleted ones included.
    pending_streams: usize,
    /// The oldest request that is not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_since: Option<String>,
    stage: &'static str,
    segments: usize,
    damaged_segments: usize,
    files: usize,
    /// Passes since the server started, and how long the last one took, nanoseconds.
    passes: u64,
    last_pass: u64,
}

#[derive(Serialize, Default)]
struct Totals {
    streams: usize,
    consumers: usize,
    messages: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct AccountDetail {
    name: String,
    id: String,
    #[serde(flatten)]
    stats: Stats,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stream_detail: Vec<StreamDetail>,
}

#[derive(Serialize)]
struct StreamDetail {
    name: String,
    created: String,
    cluster: Cluster,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Value>,
    state: StreamState,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    consumer_detail: Vec<Value>,
}

/// What `/jsz` is asked for. Each level of detail brings those above it.
struct Options<'q> {
    account: &'q str,
    accounts: bool,
    streams: bool,
    consumers: bool,
    config: bool,
}

impl JetStreamVarz {
    pub(super) fn new(state: &State) -> Self {
        let Some(jetstream) = state.jetstream() else {
            return Self::default();
        };
        Self {
            config: Some(config(jetstream)),
            stats: Some(stats(state, jetstream)),
            limits: Some(limits(state)),
        }
    }
}

pub(super) fn answer(state: &State, query: &Query<'_>) -> Result<Answer, BadQuery> {
    let page = query.page()?;
    let consumers = query.bool("consumers")?;
    let streams = query.bool("streams")? || consumers;
    let account = query.text("acc");
    let options = Options {
        account,
        accounts: query.bool("accounts")? || streams || !account.is_empty(),
        streams,
        consumers,
        config: query.bool("config")?,
    };
    // Known options of a cluster: alone, this server leads everything, and there is no more to say about groups.
    for name in [
        "leader-only",
        "stream-leader-only",
        "raft",
        "direct-consumers",
    ] {
        query.bool(name)?;
    }
    let Some(jetstream) = state.jetstream() else {
        return Ok(json(&disabled(state)));
    };
    let details = match options.accounts {
        true => page.take(options.details(state, jetstream)),
        false => Vec::new(),
    };
    Ok(json(&Jsz {
        stats: stats(state, jetstream),
        server_id: state.server_id(),
        now: State::now(),
        disabled: false,
        config: config(jetstream),
        limits: Some(limits(state)),
        totals: totals(state, jetstream),
        account_details: details,
        total: tenants(state, jetstream).len(),
        halyard: own(jetstream),
    }))
}

fn disabled(state: &State) -> Jsz {
    let api = ApiCounters {
        level: 0,
        total: 0,
        errors: 0,
        inflight: 0,
    };
    Jsz {
        stats: Stats {
            memory: 0,
            storage: 0,
            reserved_memory: 0,
            reserved_storage: 0,
            accounts: 0,
            ha_assets: 0,
            api,
        },
        server_id: state.server_id(),
        now: State::now(),
        disabled: true,
        config: Config::default(),
        limits: None,
        totals: Totals::default(),
        account_details: Vec::new(),
        total: 0,
        halyard: Own::default(),
    }
}

impl Log {
    fn new(metrics: LogMetrics) -> Self {
        let busy = nanos(metrics.busy);
        Self {
            syncs: metrics.syncs,
            records: metrics.records,
            bytes_written: metrics.bytes_written,
            mean_sync: busy.checked_div(metrics.syncs).unwrap_or(0),
            slowest_sync: nanos(metrics.slowest),
            bytes_held: metrics.bytes_held,
            segments: metrics.segments,
            full: metrics.full,
        }
    }
}

fn own(jetstream: &JetStream) -> Own {
    let (mut pending_streams, mut oldest) = (0, None);
    for group in jetstream.groups() {
        let me = group.raft().me().0;
        let (streams, since) = group.read(|machine| machine.erasures().waiting(me));
        pending_streams += streams;
        oldest = [oldest, since].into_iter().flatten().min();
    }
    let status = jetstream.erasure().status();
    let erasure = Erasure {
        pending_streams,
        pending_since: oldest.map(timestamp::format),
        stage: status.stage.name(),
        segments: status.segments,
        damaged_segments: status.damaged,
        files: status.files,
        passes: status.passes,
        last_pass: nanos(status.last_pass),
    };
    Own {
        encryption: EncryptionState::new(jetstream),
        erasure,
        identity: jetstream.node().map(|node| node.identity().into()),
        log: jetstream.log_metrics().map_or_else(Log::default, Log::new),
        damage: jetstream.damage(),
    }
}

/// The accounts that may have streams: the clients' one, and whoever has some.
fn tenants(state: &State, jetstream: &JetStream) -> Vec<std::sync::Arc<Account>> {
    let global = state.front.broker.global();
    let mut accounts = state.front.broker.accounts();
    accounts.retain(|account| {
        account.name() == global.name() || !jetstream.streams(account.name()).is_empty()
    });
    accounts
}

fn config(jetstream: &JetStream) -> Config {
    let settings = jetstream.settings();
    Config {
        max_memory: jetstream.limit(Storage::Memory).unwrap_or(u64::MAX),
        max_storage: jetstream.limit(Storage::File).unwrap_or(u64::MAX),
        store_dir: settings.data_dir.display().to_string(),
        sync_always: true,
        domain: settings.domain.clone(),
        strict: settings.strict,
    }
}

fn limits(state: &State) -> Limits {
    let window = state.front.settings().jetstream.limits.duplicate_window;
    Limits {
        duplicate_window: window.map(nanos),
    }
}

fn stats(state: &State, jetstream: &JetStream) -> Stats {
    let mut stats = Stats {
        memory: 0,
        storage: 0,
        reserved_memory: 0,
        reserved_storage: 0,
        accounts: 0,
        ha_assets: 0,
        api: jetstream.counters().snapshot(),
    };
    for account in tenants(state, jetstream) {
        let usage = jetstream.usage(account.name());
        stats.accounts += 1;
        stats.memory += usage.memory;
        stats.storage += usage.storage;
        stats.reserved_memory += usage.reserved_memory;
        stats.reserved_storage += usage.reserved_storage;
    }
    stats
}

fn totals(state: &State, jetstream: &JetStream) -> Totals {
    let mut totals = Totals::default();
    for account in tenants(state, jetstream) {
        for handle in jetstream.streams(account.name()) {
            let Ok(info) = jetstream.stream_info(&handle) else {
                continue;
            };
            totals.streams += 1;
            totals.consumers += info.state.consumer_count;
            totals.messages += info.state.messages;
            totals.bytes += info.state.bytes;
        }
    }
    totals
}

impl Options<'_> {
    fn details(&self, state: &State, jetstream: &JetStream) -> Vec<AccountDetail> {
        let mut accounts = tenants(state, jetstream);
        accounts.retain(|account| self.account.is_empty() || account.name() == self.account);
        accounts
            .iter()
            .map(|account| self.account_detail(account, jetstream))
            .collect()
    }

    fn account_detail(&self, account: &Account, jetstream: &JetStream) -> AccountDetail {
        let usage = jetstream.usage(account.name());
        let api = jetstream.counters().snapshot();
        let streams = match self.streams {
            true => jetstream.streams(account.name()),
            false => Vec::new(),
        };
        AccountDetail {
            name: account.name().to_owned(),
            id: account.name().to_owned(),
            stats: Stats {
                memory: usage.memory,
                storage: usage.storage,
                reserved_memory: usage.reserved_memory,
                reserved_storage: usage.reserved_storage,
                accounts: 0,
                ha_assets: 0,
                api: ApiCounters {
                    level: 0,
                    inflight: 0,
                    ..api
                },
            },
            stream_detail: streams
                .iter()
                .filter_map(|handle| self.stream_detail(handle, jetstream))
                .collect(),
        }
    }

    /// `None`: the stream has gone meanwhile, or nothing of it can be read, which `damage` tells.
    fn stream_detail(&self, handle: &StreamHandle, jetstream: &JetStream) -> Option<StreamDetail> {
        let info = jetstream.stream_info(handle).ok()?;
        let config = match self.config {
            true => serde_json::to_value(&info.config).ok(),
            false => None,
        };
        Some(StreamDetail {
            name: handle.name().to_owned(),
            created: info.created,
            cluster: jetstream.cluster(),
            config,
            state: info.state,
            consumer_detail: if self.consumers {
                self.consumers(handle)
            } else {
                Vec::new()
            },
        })
    }

    fn consumers(&self, handle: &StreamHandle) -> Vec<Value> {
        let now = State::now().0;
        let mut infos: Vec<Value> = handle.group().read(|machine| {
            let Some(stream) = machine.stream(handle.id()) else {
                return Vec::new();
            };
            let messages = StoreMessages::new(machine.store(), handle.id());
            let presence = Presence::default();
            let infos = stream.consumers().iter().filter_map(|consumer| {
                let info = ConsumerInfo::new(handle.name(), consumer, &presence, &messages, now);
                serde_json::to_value(info).ok()
            });
            infos.collect()
        });
        for info in &mut infos {
            if let Value::Object(fields) = info
                && !self.config
            {
                fields.remove("config");
            }
        }
        infos
    }
}
