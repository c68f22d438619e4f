//! Which consumer configurations are legal: defaults, refusals, and what an update may change.
//!
//! What depends on the stream's other consumers (names, work-queue filters, `max_consumers`) is decided by the
//! machine, in `set.rs`. The texts are part of the protocol: tools print them.

use halyard_engine::{Filter, Filters};

use super::config::{AckPolicy, ConsumerConfig, DeliverPolicy, PriorityPolicy, ReplayPolicy};
use super::pedantic;
use crate::broker::{overlap, subject};
use crate::jetstream::api::errors::{ApiError, table};
use crate::jetstream::api::types::is_about_the_server;
use crate::jetstream::config::{Retention, StreamConfig};
use crate::jetstream::limits::{
    DESCRIPTION_BYTES_MAX, METADATA_BYTES_MAX, NAME_BYTES_MAX, SEQUENCE_ASKED_MAX,
};

const SECOND: i64 = 1_000_000_000;
/// Ack wait when none is given, nanoseconds.
const ACK_WAIT: i64 = 30 * SECOND;
/// Pull requests that may wait, when nothing is given.
const MAX_WAITING: i64 = 512;
/// Deliveries that may wait for an ack, when nothing is given.
const MAX_ACK_PENDING: i64 = 1000;
/// Shortest heartbeat interval of a push consumer, nanoseconds.
const HEARTBEAT_MIN: i64 = 100_000_000;
/// Shortest cap on the life of a pull request, nanoseconds.
const EXPIRES_MIN: i64 = 1_000_000;
/// Filters of one consumer; each costs a look for every message sought.
const FILTERS_MAX: usize = 1024;

/// Completes a requested configuration with the defaults and checks all that does not depend on other consumers.
///
/// # Errors
/// The refusal that the client gets.
pub fn resolve(
    mut config: ConsumerConfig,
    stream: &StreamConfig,
    pedantic: bool,
) -> Result<ConsumerConfig, ApiError> {
    check_path(&config.name)?;
    check_replicas(&config, stream)?;
    if pedantic {
        pedantic::check(&config, stream)?;
    }
    check_name(&config)?;
    fill_in(&mut config, stream);
    check_retained(&config, stream)?;
    check_amounts(&config)?;
    if config.is_push() {
        check_push(&config, stream)?;
    } else {
        check_pull(&config, stream)?;
    }
    check_limits(&config, stream)?;
    if config.direct && !config.is_push() {
        return Err(table::CONSUMER_DIRECT_REQUIRES_PUSH.error());
    }
    check_filters(&config)?;
    check_start(&config)?;
    check_sampling(&config.sample_freq)?;
    if config.flow_control && config.idle_heartbeat == 0 {
        return Err(table::CONSUMER_WITH_FLOW_CONTROL_NEEDS_HEARTBEATS.error());
    }
    check_metadata(&config)?;
    check_priority(&config)?;
    if stream.retention == Retention::WorkQueue {
        check_work_queue(&config)?;
    }
    if config.opt_start_seq > SEQUENCE_ASKED_MAX {
        return Err(table::CONSUMER_INVALID_POLICY.with(format_args!(
            "optional start sequence must not be above {SEQUENCE_ASKED_MAX}"
        )));
    }
    refuse_unsupported(&config)?;
    Ok(config)
}

/// The filters of a checked configuration.
///
/// # Errors
/// One of them is no subject filter.
pub fn parse_filters(config: &ConsumerConfig) -> Result<Filters, ApiError> {
    let parsed: Result<Vec<Filter>, _> = config
        .filters()
        .map(|text| Filter::parse(text.as_bytes()))
        .collect();
    parsed
        .map(Filters::new)
        .map_err(|_| table::STREAM_INVALID_CONFIG.with("invalid subject"))
}

/// Whether a name could lead somewhere else as a path.
///
/// # Errors
/// It could.
pub fn check_path(name: &str) -> Result<(), ApiError> {
    match name.contains(['/', '\\']) {
        true => Err(table::CONSUMER_NAME_CONTAINS_PATH_SEPARATORS.error()),
        false => Ok(()),
    }
}

fn check_name(config: &ConsumerConfig) -> Result<(), ApiError> {
    for name in [&config.name, &config.durable_name] {
        if name.len() > NAME_BYTES_MAX {
            return Err(table::CONSUMER_NAME_TOO_LONG.with(NAME_BYTES_MAX));
        }
        check_path(name)?;
        let odd = |c: char| matches!(c, '.' | '*' | '>') || c.is_whitespace() || c.is_control();
        if name.contains(odd) {
            // The peer words it differently for names that are not durable.
            return Err(if config.durable_name.is_empty() {
                let text = "consumer name can not contain '.', '*', '>', '\\', '/'";
                table::STREAM_INVALID_CONFIG.with(text)
            } else {
                table::CONSUMER_BAD_DURABLE_NAME.error()
            });
        }
    }
    Ok(())
}

fn fill_in(config: &mut ConsumerConfig, stream: &StreamConfig) {
    for value in [
        &mut config.max_batch,
        &mut config.max_expires,
        &mut config.max_bytes,
        &mut config.idle_heartbeat,
        &mut config.inactive_threshold,
    ] {
        *value = (*value).max(0);
    }
    if config.max_deliver <= 0 {
        config.max_deliver = -1;
    }
    if config.name.is_empty() {
        config.name.clone_from(&config.durable_name);
    }
    if config.max_waiting <= 0 {
        config.max_waiting = if config.is_push() { 0 } else { MAX_WAITING };
    }
    if let Some(first) = config.backoff.first() {
        config.ack_wait = *first;
    } else if config.ack_wait == 0 && config.ack_policy != AckPolicy::None {
        config.ack_wait = ACK_WAIT;
    }
    if config.max_ack_pending < 0 {
        config.max_ack_pending = -1;
    }
    if config.max_ack_pending == 0 {
        config.max_ack_pending = match stream.consumer_limits.max_ack_pending {
            0 if config.ack_policy != AckPolicy::None => MAX_ACK_PENDING,
            limit => limit,
        };
    }
    // Where neither says one, it hangs on what there is under the name (`Consumers::create`).
    if config.inactive_threshold == 0 {
        config.inactive_threshold = stream.consumer_limits.inactive_threshold.max(0);
    }
}

/// Replicas that there cannot be, whatever the stream is like.
fn check_replicas(config: &ConsumerConfig, stream: &StreamConfig) -> Result<(), ApiError> {
    if config.num_replicas > stream.num_replicas {
        return Err(if stream.num_replicas == 1 {
            table::STREAM_REPLICAS_NOT_SUPPORTED.error()
        } else {
            table::CONSUMER_REPLICAS_EXCEEDS_STREAM.error()
        });
    }
    Ok(())
}

fn check_retained(config: &ConsumerConfig, stream: &StreamConfig) -> Result<(), ApiError> {
    if config.num_replicas < 0 {
        return Err(table::REPLICAS_COUNT_CANNOT_BE_NEGATIVE.error());
    }
    let must_match = stream.retention != Retention::Limits && config.num_replicas != 0;
    if must_match && config.num_replicas != stream.num_replicas {
        return Err(table::CONSUMER_REPLICAS_SHOULD_MATCH_STREAM.error());
    }
    Ok(())
}

fn check_amounts(config: &ConsumerConfig) -> Result<(), ApiError> {
    if config.ack_wait < 0 && config.backoff.is_empty() {
        return Err(table::CONSUMER_ACK_WAIT_NEGATIVE.error());
    }
    if config.backoff.iter().any(|wait| *wait < 0) {
        return Err(table::CONSUMER_BACK_OFF_NEGATIVE.error());
    }
    if config.ack_policy == AckPolicy::FlowControl {
        if !config.is_push() {
            return Err(table::CONSUMER_ACK_FC_REQUIRES_PUSH.error());
        }
        if !config.flow_control {
            return Err(table::CONSUMER_ACK_FC_REQUIRES_FC.error());
        }
    }
    if config
        .deliver_max()
        .is_some_and(|max| config.backoff.len() > max as usize)
    {
        return Err(table::CONSUMER_MAX_DELIVER_BACKOFF.error());
    }
    if config.description.len() > DESCRIPTION_BYTES_MAX {
        return Err(table::CONSUMER_DESCRIPTION_TOO_LONG.with(DESCRIPTION_BYTES_MAX));
    }
    Ok(())
}

/// The caps that the stream sets.
fn check_limits(config: &ConsumerConfig, stream: &StreamConfig) -> Result<(), ApiError> {
    let cap = stream.consumer_limits;
    if cap.max_ack_pending > 0 && config.max_ack_pending > cap.max_ack_pending {
        return Err(table::CONSUMER_MAX_PENDING_ACK_EXCESS.with(cap.max_ack_pending));
    }
    if cap.inactive_threshold > 0 && config.inactive_threshold > cap.inactive_threshold {
        return Err(
            table::CONSUMER_INACTIVE_THRESHOLD_EXCESS.with(GoDuration(cap.inactive_threshold))
        );
    }
    Ok(())
}

fn check_metadata(config: &ConsumerConfig) -> Result<(), ApiError> {
    let metadata: usize = config
        .metadata
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if metadata > METADATA_BYTES_MAX {
        return Err(
            table::CONSUMER_METADATA_LENGTH.with(format_args!("{}KB", METADATA_BYTES_MAX / 1024))
        );
    }
    Ok(())
}

fn check_sampling(text: &str) -> Result<(), ApiError> {
    if text.is_empty() {
        return Ok(());
    }
    let digits = text.strip_suffix('%').unwrap_or(text);
    match digits.parse::<i64>() {
        Ok(percent) if percent >= 0 => Ok(()),
        Ok(_) => Err(table::CONSUMER_INVALID_SAMPLING.with("<nil>")),
        Err(_) => Err(table::CONSUMER_INVALID_SAMPLING.with(format_args!(
            "strconv.Atoi: parsing {digits:?}: invalid syntax"
        ))),
    }
}

fn check_filters(config: &ConsumerConfig) -> Result<(), ApiError> {
    if !config.filter_subject.is_empty() && !config.filter_subjects.is_empty() {
        return Err(table::CONSUMER_DUPLICATE_FILTER_SUBJECTS.error());
    }
    if config.filter_subjects.len() > FILTERS_MAX {
        return Err(table::CONSUMER_CREATE.with(format_args!("more than {FILTERS_MAX} filters")));
    }
    if config.filter_subjects.iter().any(String::is_empty) {
        return Err(table::CONSUMER_EMPTY_FILTER.error());
    }
    if !config
        .filters()
        .all(|filter| subject::is_valid_filter(filter.as_bytes()))
    {
        return Err(table::STREAM_INVALID_CONFIG.with("invalid subject"));
    }
    let all: Vec<&[u8]> = config
        .filter_subjects
        .iter()
        .map(String::as_bytes)
        .collect();
    match overlap::first_pair(&all) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(table::CONSUMER_OVERLAPPING_SUBJECT_FILTERS.error()),
        Err(error) => Err(table::CONSUMER_CREATE.with(error)),
    }
}

fn check_start(config: &ConsumerConfig) -> Result<(), ApiError> {
    let refused = |text: &str| {
        Err(table::CONSUMER_INVALID_POLICY.with(format_args!("consumer delivery policy is {text}")))
    };
    let (sequence, time) = (config.opt_start_seq != 0, config.opt_start_time.is_some());
    let name = match config.deliver_policy {
        DeliverPolicy::All => "deliver all",
        DeliverPolicy::Last => "deliver last",
        DeliverPolicy::New => "deliver new",
        DeliverPolicy::LastPerSubject => "deliver last per subject",
        DeliverPolicy::ByStartSequence => {
            return match (sequence, time) {
                (false, _) => {
                    refused("deliver by start sequence, but optional start sequence is not set")
                }
                (true, true) => {
                    refused("deliver by start sequence, but optional start time is also set")
                }
                (true, false) => Ok(()),
            };
        }
        DeliverPolicy::ByStartTime => {
            return match (time, sequence) {
                (false, _) => refused("deliver by start time, but optional start time is not set"),
                (true, true) => {
                    refused("deliver by start time, but optional start start sequence is also set")
                }
                (true, false) => Ok(()),
            };
        }
    };
    if sequence {
        return refused(&format!("{name}, but optional start sequence is also set"));
    }
    if time {
        return refused(&format!("{name}, but optional start time is also set"));
    }
    let needs_filter = config.deliver_policy == DeliverPolicy::LastPerSubject;
    if needs_filter && config.filters().next().is_none() {
        return refused(&format!("{name}, but optional filter subject is not set"));
    }
    Ok(())
}

fn check_push(config: &ConsumerConfig, stream: &StreamConfig) -> Result<(), ApiError> {
    let deliver = config.deliver_subject.as_bytes();
    if !subject::is_valid_filter(deliver) || config.deliver_subject.contains(char::is_whitespace) {
        return Err(table::CONSUMER_INVALID_DELIVER_SUBJECT.error());
    }
    if !subject::is_literal(deliver) {
        return Err(table::CONSUMER_DELIVER_TO_WILDCARDS.error());
    }
    if stream
        .subjects
        .iter()
        .any(|own| subject::overlaps(own.as_bytes(), deliver))
    {
        return Err(table::CONSUMER_DELIVER_CYCLE.error());
    }
    if config.max_waiting != 0 {
        return Err(table::CONSUMER_PUSH_MAX_WAITING.error());
    }
    if config.ack_policy == AckPolicy::None && config.max_ack_pending > 0 {
        return Err(table::CONSUMER_MAX_PENDING_ACK_POLICY_REQUIRED.error());
    }
    if config.idle_heartbeat > 0 && config.idle_heartbeat < HEARTBEAT_MIN {
        return Err(table::CONSUMER_SMALL_HEARTBEAT.error());
    }
    Ok(())
}

fn check_pull(config: &ConsumerConfig, stream: &StreamConfig) -> Result<(), ApiError> {
    if stream.retention == Retention::WorkQueue && config.ack_policy == AckPolicy::None {
        return Err(table::CONSUMER_PULL_REQUIRES_ACK.error());
    }
    if config.rate_limit_bps > 0 {
        return Err(table::CONSUMER_PULL_WITH_RATE_LIMIT.error());
    }
    if config.idle_heartbeat > 0 {
        return Err(table::CONSUMER_HB_REQUIRES_PUSH.error());
    }
    if config.flow_control {
        return Err(table::CONSUMER_FC_REQUIRES_PUSH.error());
    }
    if config.max_expires > 0 && config.max_expires < EXPIRES_MIN {
        return Err(table::CONSUMER_MAX_REQUEST_EXPIRES_TOO_SMALL.error());
    }
    Ok(())
}

fn check_priority(config: &ConsumerConfig) -> Result<(), ApiError> {
    if config.priority_policy == PriorityPolicy::None {
        if !config.priority_groups.is_empty() {
            return Err(table::CONSUMER_PRIORITY_GROUP_WITH_POLICY_NONE.error());
        }
        if config.priority_timeout > 0 {
            return Err(table::CONSUMER_PINNED_TTL_WITHOUT_PRIORITY_POLICY_NONE.error());
        }
        return Ok(());
    }
    if config.is_push() {
        return Err(table::CONSUMER_PUSH_WITH_PRIORITY_GROUP.error());
    }
    if config.priority_groups.is_empty() {
        return Err(table::CONSUMER_PRIORITY_POLICY_WITHOUT_GROUP.error());
    }
    for group in &config.priority_groups {
        if group.is_empty() {
            return Err(table::CONSUMER_EMPTY_GROUP_NAME.error());
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'/' | b'=');
        if group.len() > 16 || !group.bytes().all(legal) {
            return Err(table::CONSUMER_INVALID_GROUP_NAME.error());
        }
    }
    Ok(())
}

fn check_work_queue(config: &ConsumerConfig) -> Result<(), ApiError> {
    if config.ack_policy != AckPolicy::Explicit {
        return Err(table::CONSUMER_WQ_REQUIRES_EXPLICIT_ACK.error());
    }
    if config.deliver_policy != DeliverPolicy::All {
        return Err(table::CONSUMER_WQ_CONSUMER_NOT_DELIVER_ALL.error());
    }
    Ok(())
}

/// What the peer offers and this server does not have yet is refused by name, never accepted and ignored.
fn refuse_unsupported(config: &ConsumerConfig) -> Result<(), ApiError> {
    let missing = if config.priority_policy != PriorityPolicy::None {
        "priority groups are"
    } else if config.ack_policy == AckPolicy::FlowControl {
        "ack policy flow_control is"
    } else if config.direct {
        "direct consumers are"
    } else if config.sourcing {
        "sourcing consumers are"
    } else {
        return Ok(());
    };
    Err(table::CONSUMER_CREATE.with(format_args!("{missing} not supported by this server yet")))
}

/// Whether `new` may replace `old`; both are resolved.
///
/// # Errors
/// The first field that may not change.
pub fn check_update(old: &ConsumerConfig, new: &ConsumerConfig) -> Result<(), ApiError> {
    let fixed = [
        ("deliver policy", old.deliver_policy != new.deliver_policy),
        ("start sequence", old.opt_start_seq != new.opt_start_seq),
        ("start time", old.opt_start_time != new.opt_start_time),
        ("ack policy", old.ack_policy != new.ack_policy),
        ("replay policy", old.replay_policy != new.replay_policy),
        ("heart beats", old.idle_heartbeat != new.idle_heartbeat),
        ("flow control", old.flow_control != new.flow_control),
        ("storage type", old.mem_storage != new.mem_storage),
        ("direct", old.direct != new.direct),
        ("sourcing", old.sourcing != new.sourcing),
    ];
    if let Some((name, _)) = fixed.iter().find(|(_, changed)| *changed) {
        return Err(table::CONSUMER_CREATE.with(format_args!("{name} can not be updated")));
    }
    match (old.is_push(), new.is_push()) {
        (false, true) => {
            return Err(table::CONSUMER_CREATE.with("can not update pull consumer to push based"));
        }
        (true, false) => {
            return Err(table::CONSUMER_CREATE.with("can not update push consumer to pull based"));
        }
        _ => {}
    }
    if old.max_waiting != new.max_waiting {
        return Err(table::CONSUMER_CREATE.with("max waiting can not be updated"));
    }
    Ok(())
}

/// Whether two requests mean the same consumer: all but the server's own metadata is equal.
pub fn is_same(old: &ConsumerConfig, new: &ConsumerConfig) -> bool {
    let own = |config: &ConsumerConfig| {
        let mut config = config.clone();
        config
            .metadata
            .retain(|key, _| !is_about_the_server(key) && key != "_nats.req.level");
        config
    };
    own(old) == own(new)
}

/// A duration as Go prints it (`1m30s`, `2s`, `1.5ms`): texts of refusals contain them.
pub struct GoDuration(pub i64);

impl std::fmt::Display for GoDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let point = |f: &mut std::fmt::Formatter<'_>, value: u64, unit: u64, name: &str| {
            let digits = unit.ilog10() as usize;
            let fraction = format!("{:0digits$}", value % unit);
            match fraction.trim_end_matches('0') {
                "" => write!(f, "{}{name}", value / unit),
                fraction => write!(f, "{}.{fraction}{name}", value / unit),
            }
        };
        match nanos {
            0 => f.write_str("0s"),
            1..=999 => write!(f, "{nanos}ns"),
            1_000..=999_999 => point(f, nanos, 1_000, "µs"),
            1_000_000..=999_999_999 => point(f, nanos, 1_000_000, "ms"),
            _ => {
                let seconds = nanos / 1_000_000_000;
                let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if hours > 0 || minutes > 0 {
                    write!(f, "{minutes}m")?;
                }
                point(f, nanos % 60_000_000_000, 1_000_000_000, "s")
            }
        }
    }
}

/// Whether replay waits for the gaps between messages.
pub fn replays_original(config: &ConsumerConfig) -> bool {
    config.replay_policy == ReplayPolicy::Original
}
