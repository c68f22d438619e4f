//! Files that tell others that this server runs, and where: the pid file and the ports file.
//!
//! Written when the server is ready, removed when it ends. A kill leaves them behind; whoever reads them must check.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use halyard_runtime::disk::{Disk, RealDisk};
use serde::Serialize;

/// The files of one run.
#[derive(Debug, Default)]
pub struct Presence {
    pid_file: Option<PathBuf>,
    ports_file: Option<PathBuf>,
}

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the {what} {} cannot be written: {source}", path.display())]
pub struct PresenceError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What the ports file says: where each service listens, as URLs.
#[derive(Debug, Default, Serialize)]
pub struct Ports {
    /// Clients.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nats: Vec<String>,
    /// The monitor.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub monitoring: Vec<String>,
}

impl Presence {
    /// Writes this process's id to `path`, if there is one.
    ///
    /// # Errors
    /// See [`PresenceError`].
    pub fn write_pid_file(&mut self, path: Option<&Path>) -> Result<(), PresenceError> {
        let Some(path) = path else {
            return Ok(());
        };
        let text = std::process::id().to_string();
        write(path, &text).map_err(|source| PresenceError {
            what: "pid file",
            path: path.to_owned(),
            source,
        })?;
        self.pid_file = Some(path.to_owned());
        Ok(())
    }

    /// Writes `DIRECTORY/PROGRAM_PID.ports`, if there is a directory.
    ///
    /// # Errors
    /// See [`PresenceError`].
    pub fn write_ports_file(
        &mut self,
        directory: Option<&Path>,
        program: &str,
        ports: &Ports,
    ) -> Result<(), PresenceError> {
        let Some(directory) = directory else {
            return Ok(());
        };
        let path = directory.join(format!("{program}_{}.ports", std::process::id()));
        let failed = |source| PresenceError {
            what: "ports file",
            path: path.clone(),
            source,
        };
        let text = serde_json::to_string(ports).map_err(|error| failed(error.into()))?;
        // Renamed into place: a reader that polls for the name must not see half of it.
        let draft = path.with_extension("ports.tmp");
        write(&draft, &text).map_err(failed)?;
        RealDisk.rename(&draft, &path).map_err(failed)?;
        self.ports_file = Some(path);
        Ok(())
    }

    /// Removes the files. What is gone already is no trouble.
    pub fn remove(&mut self) {
        for path in [self.pid_file.take(), self.ports_file.take()]
            .into_iter()
            .flatten()
        {
            if let Err(error) = RealDisk.remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("{} cannot be removed: {error}", path.display());
            }
        }
    }
}

/// Anybody may read who we are; only the owner may say.
const FILE_MODE: u32 = 0o644;

fn write(path: &Path, text: &str) -> io::Result<()> {
    let file = RealDisk.open_public(path, FILE_MODE)?;
    file.set_len(0)?;
    file.write_at(text.as_bytes(), 0)
}

/// URLs under which clients on this machine reach `address`: a wildcard address stands for the loopback ones.
#[must_use]
pub fn urls(scheme: &str, address: SocketAddr) -> Vec<String> {
    let port = address.port();
    let hosts = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        IpAddr::V6(ip) if ip.is_unspecified() => {
            vec![
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ]
        }
        ip => vec![ip],
    };
    hosts
        .into_iter()
        .map(|host| format!("{scheme}://{}", SocketAddr::new(host, port)))
        .collect()
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.nats.join(" "), self.monitoring.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_loopback() {
        let urls = |text: &str| urls("nats", text.parse().unwrap());
        assert_eq!(urls("0.0.0.0:1"), ["nats://127.0.0.1:1"]);
        assert_eq!(urls("[::]:1"), ["nats://127.0.0.1:1", "nats://[::1]:1"]);
        assert_eq!(urls("10.0.0.1:1"), ["nats://10.0.0.1:1"]);
    }

    #[test]
    fn files_come_and_go() {
        let dir = std::env::temp_dir().join(format!("presence-{}", std::process::id()));
        RealDisk.create_dir_all(&dir).unwrap();
        let mut presence = Presence::default();
        let pid_file = dir.join("a.pid");
        presence.write_pid_file(Some(&pid_file)).unwrap();
        let ports = Ports {
            nats: urls("nats", "127.0.0.1:5".parse().unwrap()),
            ..Ports::default()
        };
        presence
            .write_ports_file(Some(&dir), "nats-server", &ports)
            .unwrap();
        let pid = std::process::id();
        assert_eq!(
            RealDisk.read(&pid_file).unwrap(),
            pid.to_string().into_bytes()
        );
        let ports_file = dir.join(format!("nats-server_{pid}.ports"));
        assert_eq!(
            RealDisk.read(&ports_file).unwrap(),
            b"{\"nats\":[\"nats://127.0.0.1:5\"]}"
        );
        presence.remove();
        assert!(RealDisk.list(&dir).unwrap().is_empty());

        let error = presence
            .write_pid_file(Some(Path::new("/proc/nope/x")))
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("the pid file /proc/nope/x cannot be written"),
            "{error}"
        );
    }
}
