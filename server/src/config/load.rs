//! Command line and file to one checked [`Config`].

use std::io;
use std::path::Path;

use halyard_runtime::disk::{Disk, RealDisk};

use super::digest;
use super::flags::CommandLine;
use super::keys;
use super::parse::{Surroundings, parse_file};
use super::position::Problem;
use super::settings::Config;
use super::version;

/// Where streams are kept when nothing says where, below the working directory.
const DEFAULT_STORE_DIR: &str = "halyard-data";

/// Largest configuration file, in bytes: far more than anybody writes, far less than memory.
const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why there are no settings to start with.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file has these things wrong, the first to correct first.
    #[error("{}", lines(.0))]
    File(Vec<Problem>),
    /// Two settings contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

fn lines(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(Problem::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Settings, and what is doubtful about where they came from.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// To be logged.
    pub warnings: Vec<Problem>,
}

/// The operating system's files and environment.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Surroundings for System {
    fn read(&self, path: &Path) -> io::Result<String> {
        let bytes = RealDisk.read(path)?;
        if bytes.len() > FILE_BYTES_MAX {
            return Err(io::Error::other("it is too large"));
        }
        String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

impl CommandLine {
    /// Reads the file, if one is named, puts the flags over it and checks the whole.
    ///
    /// Called again for each reload: the command line keeps beating the file.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(&self, surroundings: &dyn Surroundings) -> Result<Loaded, LoadError> {
        let mut config = Config::default();
        let mut warnings = Vec::new();
        if let Some(file) = &self.config_file {
            let map = parse_file(file, surroundings).map_err(|p| LoadError::File(vec![p]))?;
            let findings = keys::apply(&map, &mut config);
            if !findings.errors.is_empty() {
                return Err(LoadError::File(findings.errors));
            }
            warnings = findings.warnings;
            config.config_file = Some(file.clone());
            config.config_digest = Some(digest::digest(&map));
        } else if self.program != version::PEER_NAME {
            // Whoever just starts it gets streams; scripts that start it as the peer get the peer's defaults.
            config.jetstream.enabled = true;
            config.jetstream.store_dir = Some(DEFAULT_STORE_DIR.into());
        }
        self.apply(&mut config);
        config.check().map_err(LoadError::Contradiction)?;
        Ok(Loaded { config, warnings })
    }
}

impl Config {
    /// Checks what no single setting can: whether they go together.
    ///
    /// # Errors
    /// The first contradiction, in words.
    pub fn check(&self) -> Result<(), String> {
        let limits = &self.limits;
        if limits.max_payload > limits.max_pending {
            return Err(format!(
                "max_payload ({}) cannot be higher than max_pending ({})",
                limits.max_payload, limits.max_pending
            ));
        }
        if self.lame_duck_grace_period >= self.lame_duck_duration {
            return Err(format!(
                "lame_duck_grace_period ({:?}) must be shorter than lame_duck_duration ({:?})",
                self.lame_duck_grace_period, self.lame_duck_duration
            ));
        }
        let authorization = &self.authorization;
        if let Some(name) = &authorization.no_auth_user
            && !authorization.users.iter().any(|user| user.name == *name)
        {
            return Err(format!(
                "no_auth_user: \"{name}\" is not among the users of authorization"
            ));
        }
        if let Some(encryption) = &self.jetstream.encryption {
            let secrets = std::iter::once(&encryption.key).chain(&encryption.previous);
            if secrets.into_iter().any(|secret| secret.0.is_empty()) {
                return Err("an empty encryption key protects nothing".to_owned());
            }
            if !self.jetstream.enabled {
                return Err("encryption needs JetStream: nothing would be encrypted".to_owned());
            }
        }
        let mut secrets = authorization.users.iter().map(|user| &user.password);
        let single = authorization.password.iter().chain(&authorization.token);
        if single.chain(&mut secrets).any(|secret| is_hashed(secret)) {
            return Err("passwords hashed with bcrypt are not supported yet".to_owned());
        }
        if authorization.password.is_some() && authorization.user.is_none() {
            return Err("a password needs a user".to_owned());
        }
        Ok(())
    }
}

/// Whether this is bcrypt's hash of a password. Compared as it is, whoever reads it could log in with it, and nobody
/// with the password.
pub(super) fn is_hashed(secret: &str) -> bool {
    secret.starts_with("$2") && secret.len() == 60
}
