//! Which changes of a stream's configuration are legal.

use super::stream::{Retention, StreamConfig};
use super::validate::{Defaults, check, invalid};
use crate::jetstream::api::errors::ApiError;

/// Whether `new` (normalized) may take the place of `old`.
///
/// # Errors
/// 10052 with the text of the first rule that is broken.
pub fn check_update(
    old: &StreamConfig,
    new: &StreamConfig,
    defaults: &Defaults,
) -> Result<(), ApiError> {
    let refuse = |what: &str| {
        Err(invalid(format!(
            "stream configuration update can not {what}"
        )))
    };
    if old.name != new.name {
        return Err(invalid("stream configuration name must match original"));
    }
    check(new, defaults)?;
    if old.storage != new.storage {
        return refuse("change storage type");
    }
    if old.persist_mode != new.persist_mode {
        return refuse("change persist mode");
    }
    if old.retention != new.retention
        && (old.retention == Retention::WorkQueue || new.retention == Retention::WorkQueue)
    {
        return refuse("change retention policy to/from workqueue");
    }
    if old.sealed && !new.sealed {
        return refuse("unseal a sealed stream");
    }
    if old.deny_delete && !new.deny_delete {
        return refuse("cancel deny message deletes");
    }
    if old.deny_purge && !new.deny_purge {
        return refuse("cancel deny purge");
    }
    if old.allow_msg_ttl && !new.allow_msg_ttl {
        return Err(invalid("message TTL status can not be disabled"));
    }
    if old.allow_msg_counter != new.allow_msg_counter {
        return refuse("change message counter setting");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jetstream::config::{Storage, normalize};

    #[test]
    fn what_may_not_change_is_refused_by_name() {
        let defaults = Defaults::default();
        let old = normalize(
            StreamConfig {
                name: "S".into(),
                deny_delete: true,
                ..StreamConfig::default()
            },
            &defaults,
        );
        let refusal =
            |new: StreamConfig| match check_update(&old, &normalize(new, &defaults), &defaults) {
                Ok(()) => String::new(),
                Err(error) => error.description.into_owned(),
            };
        assert_eq!(refusal(old.clone()), "");
        assert_eq!(
            refusal(StreamConfig {
                subjects: vec!["x.>".into()],
                max_msgs: 5,
                ..old.clone()
            }),
            ""
        );
        assert_eq!(
            refusal(StreamConfig {
                storage: Storage::Memory,
                ..old.clone()
            }),
            "stream configuration update can not change storage type"
        );
        assert_eq!(
            refusal(StreamConfig {
                deny_delete: false,
                ..old.clone()
            }),
            "stream configuration update can not cancel deny message deletes"
        );
        assert_eq!(
            refusal(StreamConfig {
                sealed: true,
                ..old.clone()
            }),
            ""
        );
    }
}
