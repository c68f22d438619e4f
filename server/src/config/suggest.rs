//! "Did you mean": the known word that a mistyped one is closest to.

/// The keys that we honour, wherever they stand. A test asks the readers of the blocks whether each is known to them.
const KEYS: &[&str] = &[
    "authorization",
    "cipher",
    "client_advertise",
    "debug",
    "domain",
    "duplicate_window",
    "enabled",
    "encryption_key",
    "erase_within",
    "host",
    "http",
    "http_base_path",
    "http_port",
    "jetstream",
    "key",
    "lame_duck_duration",
    "lame_duck_grace_period",
    "limits",
    "listen",
    "log_file",
    "log_format",
    "logfile",
    "logfile_max_num",
    "logfile_size_limit",
    "logtime",
    "logtime_utc",
    "max_closed_clients",
    "max_connections",
    "max_control_line",
    "max_file_store",
    "max_memory_store",
    "max_payload",
    "max_pending",
    "max_sub_tokens",
    "max_subscriptions",
    "max_traced_msg_len",
    "monitor_port",
    "no_auth_user",
    "no_header_support",
    "password",
    "pid_file",
    "ping_interval",
    "ping_max",
    "port",
    "ports_file_dir",
    "prev_encryption_key",
    "prev_key",
    "server_metadata",
    "server_name",
    "server_tags",
    "store_dir",
    "strict",
    "sync_interval",
    "timeout",
    "token",
    "trace",
    "trace_headers",
    "trace_verbose",
    "user",
    "username",
    "users",
    "write_deadline",
    "write_timeout",
];

/// How alike two words must be to be taken for one another, from 0 to 1.
const ALIKE: f64 = 0.7;

/// The word among `known` that is closest to `word`, if one is close.
pub(super) fn closest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let word = word.to_ascii_lowercase();
    known
        .map(|known| (strsim::normalized_damerau_levenshtein(&word, known), known))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, known)| known)
}

/// What an error about an unknown key ends with: the key that may have been meant, or nothing.
pub(super) fn key(word: &str) -> String {
    hint(closest(word, KEYS.iter().copied()))
}

/// The same for any word: the one that may have been meant, or nothing.
pub(super) fn hint(closest: Option<&str>) -> String {
    closest.map_or_else(String::new, |known| format!("; did you mean \"{known}\"?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse::Surroundings;
    use crate::config::{Config, apply, parse_file};
    use std::io;
    use std::path::Path;

    struct Text(String);

    impl Surroundings for Text {
        fn read(&self, _: &Path) -> io::Result<String> {
            Ok(self.0.clone())
        }
        fn variable(&self, _: &str) -> Option<String> {
            None
        }
    }

    #[test]
    fn each_suggested_key_is_known_somewhere() {
        for key in KEYS {
            let blocks = [
                format!("{key}: 1"),
                format!("jetstream {{ {key}: 1 }}"),
                format!("jetstream {{ limits {{ {key}: 1 }} }}"),
                format!("authorization {{ {key}: 1 }}"),
            ];
            let is_known = |text: String| {
                let map = parse_file(Path::new("x"), &Text(text)).unwrap();
                let errors = apply(&map, &mut Config::default()).errors;
                !errors
                    .iter()
                    .any(|error| error.text.contains("unknown field"))
            };
            assert!(blocks.into_iter().any(is_known), "{key}");
        }
    }

    #[test]
    fn near_misses_find_their_word_and_far_ones_none() {
        assert_eq!(key("max_paylod"), "; did you mean \"max_payload\"?");
        assert_eq!(key("Sever_Name"), "; did you mean \"server_name\"?");
        assert_eq!(key("stor_dir"), "; did you mean \"store_dir\"?");
        assert_eq!(key("colour"), "");
    }
}
