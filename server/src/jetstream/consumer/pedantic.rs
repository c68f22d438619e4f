//! Requests that forbid the server to adjust anything silently.

use super::config::ConsumerConfig;
use crate::jetstream::api::errors::{ApiError, table};
use crate::jetstream::config::StreamConfig;

/// Whether nothing of what was asked for would be adjusted; first of all whether there are so many replicas.
pub(super) fn check(config: &ConsumerConfig, stream: &StreamConfig) -> Result<(), ApiError> {
    let refuse = |why: std::fmt::Arguments<'_>| Err(table::PEDANTIC.with(why));
    if config.num_replicas > stream.num_replicas {
        return Ok(());
    }
    if config.max_deliver < -1 {
        return refuse(format_args!("max_deliver must be set to -1"));
    }
    if config.max_waiting < 0 {
        return refuse(format_args!("max_waiting must not be negative"));
    }
    if config.max_ack_pending < -1 {
        return refuse(format_args!("max_ack_pending must be set to -1"));
    }
    let negative = [
        ("max_batch", config.max_batch),
        ("max_expires", config.max_expires),
        ("max_bytes", config.max_bytes),
        ("idle_heartbeat", config.idle_heartbeat),
        ("inactive_threshold", config.inactive_threshold),
        ("priority_timeout", config.priority_timeout),
    ];
    if let Some((name, _)) = negative.iter().find(|(_, value)| *value < 0) {
        return refuse(format_args!("{name} must not be negative"));
    }
    let first = config.backoff.first();
    if first.is_some_and(|first| *first != config.ack_wait) {
        return refuse(format_args!(
            "first backoff value has to equal batch AckWait"
        ));
    }
    let limits = &stream.consumer_limits;
    let inherited = [
        (
            "max_ack_pending",
            config.max_ack_pending,
            limits.max_ack_pending,
        ),
        (
            "inactive_threshold",
            config.inactive_threshold,
            limits.inactive_threshold,
        ),
    ];
    let silent = inherited
        .iter()
        .find(|(_, own, limit)| *own == 0 && *limit != 0);
    match silent {
        Some((name, ..)) => refuse(format_args!(
            "{name} must be set if it's configured in stream limits"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::resolve;
    use super::super::config::AckPolicy;
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn who_is_pedantic_gets_what_was_asked_for_or_nothing() {
        let mut stream = StreamConfig {
            num_replicas: 1,
            ..StreamConfig::default()
        };
        stream.consumer_limits.max_ack_pending = 50;
        stream.consumer_limits.inactive_threshold = SECOND;
        let mut config = ConsumerConfig {
            name: "C".into(),
            ack_policy: AckPolicy::Explicit,
            num_replicas: 2,
            max_deliver: -2,
            max_waiting: -1,
            max_ack_pending: -2,
            max_batch: -1,
            inactive_threshold: -1,
            backoff: vec![5],
            ..ConsumerConfig::default()
        };
        let said = |config: &ConsumerConfig| match resolve(config.clone(), &stream, true) {
            Ok(_) => String::new(),
            Err(error) => error.description.into_owned(),
        };
        let pedantic = |config: &ConsumerConfig| {
            let said = said(config);
            said.strip_prefix("pedantic mode: ")
                .unwrap_or(&said)
                .to_owned()
        };
        assert_eq!(
            said(&config),
            "replicas > 1 not supported in non-clustered mode"
        );
        config.num_replicas = 0;
        assert_eq!(pedantic(&config), "max_deliver must be set to -1");
        config.max_deliver = -1;
        assert_eq!(pedantic(&config), "max_waiting must not be negative");
        config.max_waiting = 0;
        assert_eq!(pedantic(&config), "max_ack_pending must be set to -1");
        config.max_ack_pending = 0;
        assert_eq!(pedantic(&config), "max_batch must not be negative");
        config.max_batch = 0;
        assert_eq!(pedantic(&config), "inactive_threshold must not be negative");
        config.inactive_threshold = 0;
        assert_eq!(
            pedantic(&config),
            "first backoff value has to equal batch AckWait"
        );
        config.backoff = Vec::new();
        let inherits = "must be set if it's configured in stream limits";
        assert_eq!(pedantic(&config), format!("max_ack_pending {inherits}"));
        config.max_ack_pending = 50;
        assert_eq!(pedantic(&config), format!("inactive_threshold {inherits}"));
        config.inactive_threshold = SECOND;
        assert_eq!(said(&config), "");
    }
}
