//! The command line: `-f v`, `-f=v`, `--f v`, `--f=v`, and a few words.
//!
//! Scripts written for nats-server use this style of flags throughout (`-js`, `-sd DIR`, `-DV`, `-p=-1`), which the usual
//! parsers read as bundles of one-letter flags; so this is a small parser of our own over `flag_table`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::flag_table::{Effect, Flag, GROUPS};
use super::settings::Config;
use super::suggest;

/// The command line, read but not yet acted on.
#[derive(Debug)]
pub struct CommandLine {
    /// What the binary was called: the last component of its path.
    pub program: String,
    /// What is to be done.
    pub action: Action,
    /// The configuration file, if one is named.
    pub config_file: Option<PathBuf>,
    settings: Vec<(&'static Flag, String)>,
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Run a server.
    Run,
    /// Check the configuration.
    Test,
    /// Print the version.
    Version,
    /// Print the help.
    Help,
    /// Send a signal to another server.
    Signal {
        /// `ldm`, `stop`, `quit`, `term`, `reopen` or `reload`.
        signal: String,
        /// A process id or the path of a pid file.
        target: Option<String>,
    },
    /// Look into a store that no server has open.
    Store(StoreCommand),
}

/// What to do with a store that no server has open. Nothing in it is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreCommand {
    /// Verify everything, and say what a start will make of it.
    Check {
        /// The directory.
        dir: PathBuf,
    },
    /// Say what is in it.
    Stats {
        /// The directory.
        dir: PathBuf,
        /// For programs.
        json: bool,
    },
    /// Show every record and message.
    Dump {
        /// The directory.
        dir: PathBuf,
    },
    /// Write what is sound as backups.
    Salvage {
        /// The directory.
        dir: PathBuf,
        /// Where the backups go: a directory that does not exist yet.
        to: PathBuf,
    },
}

impl StoreCommand {
    /// The store's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        match self {
            Self::Check { dir }
            | Self::Stats { dir, .. }
            | Self::Dump { dir }
            | Self::Salvage { dir, .. } => dir,
        }
    }

    /// Reads what stands behind `store`; `None` when it makes no sense.
    fn parse(args: &mut impl Iterator<Item = String>) -> Option<Self> {
        let verb = args.next()?;
        let (mut dir, mut to, mut json) = (None, None, false);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--json" if verb == "stats" => json = true,
                "--to" if verb == "salvage" && to.is_none() => to = Some(args.next()?.into()),
                _ if dir.is_none() && !arg.starts_with('-') => dir = Some(PathBuf::from(arg)),
                _ => return None,
            }
        }
        let dir = dir?;
        Some(match verb.as_str() {
            "check" => Self::Check { dir },
            "stats" => Self::Stats { dir, json },
            "dump" => Self::Dump { dir },
            "salvage" => Self::Salvage { dir, to: to? },
            _ => return None,
        })
    }
}

/// The command line cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// Nobody knows this flag; the second part may say which was meant.
    #[error("unknown flag {0}{1}")]
    Unknown(String, String),
    /// The flag means something to nats-server and nothing here yet.
    #[error("{0} is not supported yet")]
    NotYet(String),
    /// The flag takes a value and has none.
    #[error("{0} needs a value")]
    NoValue(String),
    /// The flag takes another kind of value.
    #[error("{flag} cannot be \"{value}\": {why}")]
    BadValue {
        /// The flag as written.
        flag: String,
        /// Its value.
        value: String,
        /// What would be right.
        why: String,
    },
    /// A word that is no flag, and no command either.
    #[error("unrecognized command: \"{0}\"")]
    Command(String),
    /// `store` without its two words.
    #[error("use: {0} store check|stats|dump DIR, or {0} store salvage DIR --to NEW_DIR")]
    StoreUsage(String),
    /// `-t` has nothing to check.
    #[error("-t needs -c FILE to check")]
    NothingToTest,
}

/// The name of the binary in the path by which it was called.
#[must_use]
pub fn program_name(called: &str) -> String {
    let name = Path::new(called).file_name();
    name.map_or_else(
        || super::NAME.to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

impl CommandLine {
    /// Reads the arguments; the first is what the binary was called.
    ///
    /// # Errors
    /// See [`UsageError`].
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, UsageError> {
        let mut args = args.into_iter();
        let called = args.next().unwrap_or_default();
        let mut line = Self {
            program: program_name(&called),
            action: Action::Run,
            config_file: None,
            settings: Vec::new(),
        };
        while let Some(arg) = args.next() {
            let Some(name) = arg.strip_prefix('-').filter(|name| !name.is_empty()) else {
                line.command(&arg, &mut args)?;
                continue;
            };
            line.flag(&arg, name.strip_prefix('-').unwrap_or(name), &mut args)?;
        }
        if line.action == Action::Test && line.config_file.is_none() {
            return Err(UsageError::NothingToTest);
        }
        Ok(line)
    }

    /// A word that is not a flag.
    fn command(
        &mut self,
        word: &str,
        args: &mut impl Iterator<Item = String>,
    ) -> Result<(), UsageError> {
        match word {
            "version" => self.action = Action::Version,
            "help" => self.action = Action::Help,
            "store" => {
                let usage = || UsageError::StoreUsage(self.program.clone());
                self.action = Action::Store(StoreCommand::parse(args).ok_or_else(usage)?);
            }
            _ => return Err(UsageError::Command(word.to_owned())),
        }
        Ok(())
    }

    /// A flag; `arg` as written, `name` without its dashes.
    fn flag(
        &mut self,
        arg: &str,
        name: &str,
        args: &mut impl Iterator<Item = String>,
    ) -> Result<(), UsageError> {
        let (name, inline) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let shown = arg.split('=').next().unwrap_or(arg).to_owned();
        let mut flags = GROUPS.iter().flat_map(|group| group.flags);
        let Some(flag) = flags.find(|flag| flag.names.contains(&name)) else {
            let known = GROUPS.iter().flat_map(|group| group.flags);
            let names = known.flat_map(|flag| flag.names.iter().copied());
            let hint = suggest::hint(suggest::closest(name, names.filter(|name| name.len() > 2)));
            return Err(UsageError::Unknown(shown, hint));
        };
        if matches!(flag.effect, Effect::NotYet) {
            return Err(UsageError::NotYet(shown));
        }
        let value = match inline {
            Some(value) => value,
            None if flag.value.is_empty() => "true".to_owned(),
            None => args
                .next()
                .ok_or_else(|| UsageError::NoValue(shown.clone()))?,
        };
        let bad = |why: String| UsageError::BadValue {
            flag: shown.clone(),
            value: value.clone(),
            why,
        };
        match flag.effect {
            Effect::ConfigFile => self.config_file = Some(value.into()),
            Effect::Signal => {
                self.action = signal(&value).ok_or_else(|| bad(SIGNALS.to_owned()))?
            }
            Effect::Set(set) => {
                set(&mut Config::default(), &value).map_err(bad)?;
                self.settings.push((flag, value));
            }
            Effect::Switch(_) | Effect::Test | Effect::Version | Effect::Help => {
                let on = truth(&value).ok_or_else(|| bad("use true or false".to_owned()))?;
                match flag.effect {
                    Effect::Test if on => self.action = Action::Test,
                    Effect::Version if on => self.action = Action::Version,
                    Effect::Help if on => self.action = Action::Help,
                    Effect::Switch(_) => self.settings.push((flag, value)),
                    _ => {}
                }
            }
            Effect::NotYet => unreachable!("refused above"),
        }
        Ok(())
    }

    /// Puts what the flags say over `config`.
    pub(super) fn apply(&self, config: &mut Config) {
        for (flag, value) in &self.settings {
            match flag.effect {
                Effect::Set(set) => set(config, value).expect("tried when the line was read"),
                Effect::Switch(switch) => switch(config, truth(value).unwrap_or(true)),
                _ => unreachable!("only settings are kept"),
            }
        }
    }
}

const SIGNALS: &str =
    "use ldm, stop, quit, term, reopen or reload, and =PID for one of several servers";

/// Reads `reload` or `reload=PID`.
fn signal(text: &str) -> Option<Action> {
    let (signal, target) = match text.split_once('=') {
        Some((signal, target)) => (signal, Some(target.to_owned())),
        None => (text, None),
    };
    matches!(
        signal,
        "ldm" | "stop" | "quit" | "term" | "reopen" | "reload"
    )
    .then(|| Action::Signal {
        signal: signal.to_owned(),
        target,
    })
}

/// The spellings of truth that scripts use.
fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "t" | "T" | "1" => Some(true),
        "false" | "False" | "FALSE" | "f" | "F" | "0" => Some(false),
        _ => None,
    }
}

/// The text of `--help`.
#[must_use]
pub fn help(program: &str) -> String {
    let mut text = format!(
        "\nUsage: {program} [options]\n       {program} store check|dump DIR\n       {program} store stats DIR [--json]\n       {program} store \
             salvage DIR --to NEW_DIR\n"
    );
    for group in GROUPS {
        let _ = write!(text, "\n{}:\n", group.title);
        for flag in group.flags {
            let names = flag.names.iter().map(|name| match name.len() {
                1 | 2 => format!("-{name}"),
                _ => format!("--{name}"),
            });
            let names = names.collect::<Vec<_>>().join(", ");
            let value = if flag.value.is_empty() {
                String::new()
            } else {
                format!(" <{}>", flag.value)
            };
            let _ = writeln!(text, "    {:<40} {}", names + &value, flag.help);
        }
    }
    text
}

impl std::fmt::Debug for Flag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Flag").field(&self.names.first()).finish()
    }
}
