//! Defaults and refusals of a new configuration. The texts are part of the protocol: tools print them.

use super::stream::{Discard, PersistMode, Placement, Retention, Storage, StreamConfig};
use crate::broker::{overlap, subject};
use crate::jetstream::api::errors::{ApiError, table};
use crate::jetstream::limits::{
    DESCRIPTION_BYTES_MAX, DUPLICATE_WINDOW, MARKER_TTL_MIN, METADATA_BYTES_MAX, MIN_AGE,
    NAME_BYTES_MAX, REPLICAS_MAX, SEQUENCE_ASKED_MAX,
};

/// What the server's configuration says about streams.
#[derive(Debug, Clone, Copy, Default)]
pub struct Defaults {
    /// Longest duplicate window, nanoseconds; `None` is no cap.
    pub duplicate_window_max: Option<i64>,
}

/// Fills in what the request left out, and what a sealed stream is. Total: refusals are [`check_create`]'s.
#[must_use]
pub fn normalize(config: StreamConfig, defaults: &Defaults) -> StreamConfig {
    seal(fill(config, defaults))
}

/// What a sealed stream is besides.
#[must_use]
pub fn seal(mut config: StreamConfig) -> StreamConfig {
    if config.sealed {
        config.max_age = 0;
        config.discard = Discard::New;
        config.deny_delete = true;
        config.deny_purge = true;
        config.allow_rollup_hdrs = false;
    }
    config
}

/// Fills in what the request left out.
#[must_use]
pub fn fill(mut config: StreamConfig, defaults: &Defaults) -> StreamConfig {
    for limit in [
        &mut config.max_consumers,
        &mut config.max_msgs,
        &mut config.max_bytes,
        &mut config.max_msgs_per_subject,
        &mut config.max_msg_size,
    ] {
        if *limit == 0 || *limit < -1 {
            *limit = -1;
        }
    }
    if config.num_replicas == 0 {
        config.num_replicas = 1;
    }
    // A wish for nothing is none.
    if config.placement == Some(Placement::default()) {
        config.placement = None;
    }
    if config.subjects.is_empty() && config.mirror.is_none() && config.sources.is_empty() {
        config.subjects.push(config.name.clone());
    }
    if config.duplicate_window == 0 && config.mirror.is_none() && config.sources.is_empty() {
        let cap = defaults.duplicate_window_max.unwrap_or(DUPLICATE_WINDOW);
        config.duplicate_window = match config.max_age {
            age if age > 0 && age < DUPLICATE_WINDOW => age.min(cap),
            _ => DUPLICATE_WINDOW.min(cap),
        };
    }
    if config.subject_delete_marker_ttl > 0 {
        config.allow_msg_ttl = true;
        config.allow_rollup_hdrs = true;
        config.deny_purge = false;
    }
    // The level of the API that first knew what the configuration asks for.
    let level = match (
        config.allow_batched,
        config.allow_atomic,
        config.allow_msg_ttl,
    ) {
        (true, _, _) => "4",
        (_, true, _) => "2",
        (_, _, true) => "1",
        _ => "0",
    };
    config.metadata.retain(|key, _| {
        !matches!(
            key.as_str(),
            "_nats.ver" | "_nats.level" | "_nats.req.level"
        )
    });
    config
        .metadata
        .insert("_nats.req.level".into(), level.into());
    config
}

/// Whether a normalized configuration can be a stream.
///
/// # Errors
/// The refusal that clients of the peer see, or for a feature that is not there yet a 10052 that names it.
pub fn check_create(config: &StreamConfig, defaults: &Defaults) -> Result<(), ApiError> {
    if config.sealed {
        return Err(invalid("stream configuration for create can not be sealed"));
    }
    if config.mirror_direct && config.mirror.is_none() {
        return Err(invalid("stream has no mirror but does have mirror direct"));
    }
    check(config, defaults)
}

/// Whether a normalized configuration of a backup is legal: a sealed stream may come back.
///
/// # Errors
/// The refusal that the client gets.
pub fn check_restore(config: &StreamConfig, defaults: &Defaults) -> Result<(), ApiError> {
    check(config, defaults)
}

/// What holds for new and for changed configurations.
pub(super) fn check(config: &StreamConfig, defaults: &Defaults) -> Result<(), ApiError> {
    check_form(config, defaults)?;
    if config.num_replicas > 1 {
        return Err(table::STREAM_REPLICAS_NOT_SUPPORTED.error());
    }
    if config.first_seq > SEQUENCE_ASKED_MAX {
        return Err(invalid(format!(
            "first sequence must not be above {SEQUENCE_ASKED_MAX}"
        )));
    }
    Ok(())
}

/// What is looked at in an update before the stream that it names, on a configuration that is filled and not yet sealed.
///
/// # Errors
/// The refusal that the client gets.
pub fn check_form(config: &StreamConfig, defaults: &Defaults) -> Result<(), ApiError> {
    check_name(&config.name)?;
    if config.description.len() > DESCRIPTION_BYTES_MAX {
        return Err(invalid(format!(
            "stream description is too long, maximum allowed is {DESCRIPTION_BYTES_MAX}"
        )));
    }
    let metadata_bytes: usize = config.metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
    if metadata_bytes > METADATA_BYTES_MAX {
        return Err(invalid(format!(
            "stream metadata exceeds maximum size of {METADATA_BYTES_MAX} bytes"
        )));
    }
    if config.num_replicas > REPLICAS_MAX {
        return Err(invalid(format!("maximum replicas is {REPLICAS_MAX}")));
    }
    if config.num_replicas < 0 {
        return Err(table::REPLICAS_COUNT_CANNOT_BE_NEGATIVE.error());
    }
    check_times(config, defaults)?;
    check_discard(config)?;
    check_markers(config)?;
    if config.persist_mode == PersistMode::Async && config.storage == Storage::Memory {
        return Err(invalid(
            "async persist mode is only supported on file storage",
        ));
    }
    check_subjects(config)?;
    if config
        .placement
        .as_ref()
        .is_some_and(|placement| !placement.preferred.is_empty())
    {
        return Err(invalid("preferred server not permitted in placement"));
    }
    check_absent_features(config)
}

/// The refusal of a name that cannot be.
pub(crate) fn invalid_name() -> ApiError {
    invalid("stream name is required and can not contain '.', '*', '>', '\\', '/'")
}

/// A name that can stand as one token of a subject and in a path.
///
/// # Errors
/// 10052 or 10128.
pub(crate) fn check_name(name: &str) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(invalid_name());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(invalid(format!(
            "stream name is too long, maximum allowed is {NAME_BYTES_MAX}"
        )));
    }
    if name.contains(['/', '\\']) {
        return Err(table::STREAM_NAME_CONTAINS_PATH_SEPARATORS.error());
    }
    if name.contains(|c: char| matches!(c, '.' | '*' | '>') || c.is_whitespace() || c.is_control())
    {
        return Err(invalid_name());
    }
    Ok(())
}

fn check_times(config: &StreamConfig, defaults: &Defaults) -> Result<(), ApiError> {
    if config.max_age < 0 {
        return Err(invalid("max age can not be negative"));
    }
    if config.max_age != 0 && config.max_age < MIN_AGE {
        return Err(invalid("max age needs to be >= 100ms"));
    }
    if config.duplicate_window < 0 {
        return Err(invalid("duplicates window can not be negative"));
    }
    if config.duplicate_window != 0 && config.duplicate_window < MIN_AGE {
        return Err(invalid("duplicates window needs to be >= 100ms"));
    }
    if config.max_age != 0 && config.duplicate_window > config.max_age {
        return Err(invalid("duplicates window can not be larger then max age"));
    }
    if defaults
        .duplicate_window_max
        .is_some_and(|max| config.duplicate_window > max)
    {
        return Err(invalid(
            "duplicates window can not be larger then server limit",
        ));
    }
    Ok(())
}

fn check_markers(config: &StreamConfig) -> Result<(), ApiError> {
    let ttl = config.subject_delete_marker_ttl;
    if ttl < 0 {
        return Err(invalid("subject delete marker TTL must not be negative"));
    }
    if ttl != 0 && ttl < MARKER_TTL_MIN {
        return Err(invalid(
            "subject delete marker TTL must be at least 1 second",
        ));
    }
    if ttl != 0 && config.mirror.is_some() {
        return Err(invalid("subject delete markers forbidden on mirrors"));
    }
    Ok(())
}

/// Whether a request as it came, not normalized, can be taken without changing anything of it that it says.
///
/// # Errors
/// 10157 or 10052 with the text of the first rule that is broken.
pub fn check_pedantic(config: &StreamConfig) -> Result<(), ApiError> {
    let unlimited = [
        ("max_msgs", config.max_msgs),
        ("max_msgs_per_subject", config.max_msgs_per_subject),
        ("max_bytes", config.max_bytes),
        ("max_msg_size", config.max_msg_size),
        ("max_consumers", config.max_consumers),
    ];
    if let Some((name, _)) = unlimited.iter().find(|(_, limit)| *limit < -1) {
        return Err(table::PEDANTIC.with(format_args!("{name} must be set to -1")));
    }
    let copies = config.mirror.is_some() || !config.sources.is_empty();
    let is_short = config.max_age > 0 && config.max_age < DUPLICATE_WINDOW;
    if config.duplicate_window == 0 && !copies && is_short {
        return Err(table::PEDANTIC.with("duplicate window cannot be bigger than max age"));
    }
    check_markers(&StreamConfig {
        mirror: None,
        ..config.clone()
    })?;
    if config.subject_delete_marker_ttl == 0 {
        return Ok(());
    }
    let refuse = |what: &str| {
        Err(invalid(format!(
            "subject delete marker cannot be set if {what} are disabled"
        )))
    };
    if !config.allow_msg_ttl {
        return refuse("message TTLs");
    }
    if !config.allow_rollup_hdrs {
        return refuse("roll-ups");
    }
    if config.deny_purge {
        return Err(invalid("roll-ups require the purge permission"));
    }
    Ok(())
}

fn check_discard(config: &StreamConfig) -> Result<(), ApiError> {
    if config.discard_new_per_subject {
        if config.discard != Discard::New {
            return Err(invalid(
                "discard new per subject requires discard new policy to be set",
            ));
        }
        if config.max_msgs_per_subject <= 0 {
            return Err(invalid(
                "discard new per subject requires max msgs per subject > 0",
            ));
        }
    }
    if config.deny_purge && config.allow_rollup_hdrs {
        return Err(invalid("roll-ups require the purge permission"));
    }
    Ok(())
}

fn check_subjects(config: &StreamConfig) -> Result<(), ApiError> {
    let valid: Vec<&str> = config
        .subjects
        .iter()
        .map(String::as_str)
        .filter(|name| subject::is_valid_filter(name.as_bytes()))
        .collect();
    let bytes: Vec<&[u8]> = valid.iter().map(|name| name.as_bytes()).collect();
    let overlap = overlap::first_pair(&bytes).map_err(invalid)?;
    let overlap = overlap.and_then(|(one, other)| Some((*valid.get(one)?, *valid.get(other)?)));
    for name in &config.subjects {
        let bytes = name.as_bytes();
        if !subject::is_valid_filter(bytes) {
            return Err(invalid("invalid subject"));
        }
        if let Some((one, other)) = overlap.filter(|(one, _)| one == name) {
            return Err(invalid(format!(
                "subject \"{one}\" overlaps with \"{other}\""
            )));
        }
        if config.no_ack {
            if bytes == subject::ANY_TAIL && config.num_replicas > 1 {
                return Err(invalid("capturing all subjects requires replicas of 1"));
            }
            continue;
        }
        if bytes == subject::ANY_TAIL {
            return Err(invalid("capturing all subjects requires no-ack to be true"));
        }
        if captures_api(bytes) {
            return Err(invalid(
                "subjects that overlap with jetstream api require no-ack to be true",
            ));
        }
        if subject::overlaps(bytes, b"$SYS.>") && !subject::covers(b"$SYS.ACCOUNT.>", bytes) {
            return Err(invalid(
                "subjects that overlap with system api require no-ack to be true",
            ));
        }
    }
    Ok(())
}

/// An acknowledgement of what is captured there would itself be captured.
fn captures_api(name: &[u8]) -> bool {
    let reserved: [&[u8]; 3] = [b"$JS.>", b"$JSC.>", b"$NRG.>"];
    reserved.iter().any(|api| subject::overlaps(name, api))
        && !subject::covers(b"$JS.EVENT.>", name)
}

/// What this server does not do yet is refused, never accepted and forgotten.
fn check_absent_features(config: &StreamConfig) -> Result<(), ApiError> {
    let absent = [
        (config.mirror.is_some(), "stream mirrors"),
        (!config.sources.is_empty(), "stream sources"),
        (config.republish.is_some(), "republish"),
        (config.subject_transform.is_some(), "subject transforms"),
        (config.allow_msg_counter, "message counters"),
        (config.allow_msg_schedules, "message schedules"),
        (config.allow_batched, "batch publishing"),
        (
            config.persist_mode != PersistMode::Default,
            "async persist mode",
        ),
    ];
    match absent.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(invalid(format!("{what}: not supported by this server yet"))),
        None => Ok(()),
    }
}

/// The 10052 of a configuration that cannot be.
pub(super) fn invalid(why: impl std::fmt::Display) -> ApiError {
    table::STREAM_INVALID_CONFIG.with(why)
}

impl StreamConfig {
    /// Whether messages wait for consumers (interest and work-queue retention).
    #[must_use]
    pub fn keeps_for_consumers(&self) -> bool {
        self.retention != Retention::Limits
    }

    /// Whether it lives in memory only.
    #[must_use]
    pub fn in_memory(&self) -> bool {
        self.storage == Storage::Memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> StreamConfig {
        StreamConfig {
            name: name.into(),
            ..StreamConfig::default()
        }
    }

    fn refusal(config: StreamConfig) -> String {
        let defaults = Defaults::default();
        match check_create(&normalize(config, &defaults), &defaults) {
            Ok(()) => String::new(),
            Err(error) => error.description.into_owned(),
        }
    }

    #[test]
    fn what_is_sealed_is_looked_at_as_it_was_asked_for() {
        let defaults = Defaults::default();
        let sealed = StreamConfig {
            sealed: true,
            max_age: 1,
            ..named("S")
        };
        let refused = check_form(&fill(sealed.clone(), &defaults), &defaults).unwrap_err();
        assert_eq!(refused.description, "max age needs to be >= 100ms");
        let stored = normalize(sealed, &defaults);
        assert!(stored.deny_delete && stored.max_age == 0);
    }

    #[test]
    fn defaults_are_the_wires() {
        let config = normalize(named("S"), &Defaults::default());
        assert_eq!(config.subjects, ["S"]);
        assert_eq!(
            (config.max_msgs, config.max_bytes, config.max_msg_size),
            (-1, -1, -1)
        );
        assert_eq!(config.duplicate_window, DUPLICATE_WINDOW);
        assert_eq!(config.num_replicas, 1);
        let short = normalize(
            StreamConfig {
                max_age: 5_000_000_000,
                ..named("S")
            },
            &Defaults::default(),
        );
        assert_eq!(short.duplicate_window, 5_000_000_000);
    }

    #[test]
    fn who_is_pedantic_gets_what_was_asked_for_or_nothing() {
        let said = |config: StreamConfig| match check_pedantic(&config) {
            Ok(()) => String::new(),
            Err(error) => format!("{} {}", error.err_code, error.description),
        };
        // 0 is not set: the default is what was asked for.
        assert_eq!(said(named("S")), "");
        let mut config = named("S");
        (config.max_msgs, config.max_consumers, config.max_age) = (-2, -2, 1_000_000_000);
        assert_eq!(
            said(config.clone()),
            "10157 pedantic mode: max_msgs must be set to -1"
        );
        config.max_msgs = -1;
        assert_eq!(
            said(config.clone()),
            "10157 pedantic mode: max_consumers must be set to -1"
        );
        config.max_consumers = 0;
        let window = "10157 pedantic mode: duplicate window cannot be bigger than max age";
        assert_eq!(said(config.clone()), window);
        config.duplicate_window = 1_000_000_000;
        assert_eq!(said(config.clone()), "");
        (config.duplicate_window, config.max_age) = (0, DUPLICATE_WINDOW);
        assert_eq!(said(config), "");
    }

    #[test]
    fn refusals_have_the_wires_texts() {
        let subjects = |list: &[&str]| StreamConfig {
            subjects: list.iter().map(ToString::to_string).collect(),
            ..named("K")
        };
        assert_eq!(
            refusal(subjects(&["a.*", "a.b"])),
            "subject \"a.*\" overlaps with \"a.b\""
        );
        assert_eq!(refusal(subjects(&["a b"])), "invalid subject");
        assert_eq!(
            refusal(subjects(&[">"])),
            "capturing all subjects requires no-ack to be true"
        );
        assert!(refusal(subjects(&["$JS.>"])).contains("jetstream api require no-ack"));
        assert_eq!(refusal(subjects(&["$JS.EVENT.>"])), "");
        assert_eq!(refusal(subjects(&["$KV.b.>"])), "");
        assert_eq!(
            refusal(StreamConfig {
                max_age: 1000,
                ..named("K")
            }),
            "max age needs to be >= 100ms"
        );
        assert_eq!(
            refusal(StreamConfig {
                num_replicas: 3,
                ..named("K")
            }),
            "replicas > 1 not supported in non-clustered mode"
        );
        assert_eq!(
            refusal(StreamConfig {
                num_replicas: 6,
                ..named("K")
            }),
            "maximum replicas is 5"
        );
        assert_eq!(
            refusal(named("a/b")),
            "Stream name can not contain path separators"
        );
        assert!(refusal(named("a.b")).starts_with("stream name is required"));
        assert_eq!(
            refusal(StreamConfig {
                allow_msg_schedules: true,
                ..named("K")
            }),
            "message schedules: not supported by this server yet"
        );
    }
}
