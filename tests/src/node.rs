//! One server process under test: built once, started on free ports, ended by its own id.
//!
//! The binary is `HALYARD_BIN` if that is set, else the one beside the tests: `cargo test` has just
//! built it. Where it is missing or older than a source, it is built first. The same launcher starts the real `nats-server`,
//! since both take the same flags: the oracle tests need no second one.

use std::io::{BufRead, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// What a server writes in its scratch directory.
const LOG: &str = "server.log";
const STDERR: &str = "stderr.log";
/// How long a server may take until it accepts clients: generous, since test machines are busy.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// The built server binary.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("HALYARD_BIN") {
        Some(path) => path.into(),
        None => beside_the_tests().unwrap_or_else(build),
    })
}

/// The binary that the same run of cargo has made, unless a source is newer.
fn beside_the_tests() -> Option<PathBuf> {
    let test = std::env::current_exe().ok()?;
    let binary = test.parent()?.parent()?.join("halyard");
    let built = binary.metadata().ok()?.modified().ok()?;
    let crates = ["runtime", "engine", "raft", "net", "server"];
    let newest = crates
        .iter()
        .filter_map(|name| newest_below(&workspace().join(name).join("src")))
        .max()?;
    (built >= newest).then_some(binary)
}

/// When the file below `dir` that was changed last was changed.
fn newest_below(dir: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(dir).ok()?;
    let times = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        match path.is_dir() {
            true => newest_below(&path),
            false => path.metadata().ok()?.modified().ok(),
        }
    });
    times.max()
}

/// Builds the server and returns the path of the binary, as cargo reports it. With the features of the whole
/// workspace, or every dependency would be built again.
fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "build",
            "--workspace",
            "--bins",
            "--message-format=json-render-diagnostics",
        ])
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "the server does not build");
    output
        .stdout
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(&line).ok())
        .find_map(|m| Some(PathBuf::from(m.get("executable")?.as_str()?)))
        .expect("cargo names the executable")
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the tests crate is a member")
        .to_path_buf()
}

/// A directory that goes away with its owner.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// A new empty directory below the system's temporary one.
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "halyard-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Default for TempDir {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How a server is to be started.
#[derive(Debug, Clone)]
pub struct Start {
    binary: PathBuf,
    args: Vec<String>,
    port: Option<u16>,
}

impl Start {
    /// Our own binary.
    pub fn halyard() -> Self {
        Self::with(binary())
    }

    /// Any server that takes the flags of `nats-server`.
    pub fn with(binary: &Path) -> Self {
        Self {
            binary: binary.to_path_buf(),
            args: Vec::new(),
            port: None,
        }
    }

    /// Adds arguments.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Switches JetStream on, with its store in `dir`.
    pub fn jetstream(self, dir: &Path) -> Self {
        self.args(["-js", "-sd", path_str(dir)])
    }

    /// Binds this port instead of a free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Starts the server and waits until it accepts clients.
    ///
    /// # Panics
    /// If it ends or stays silent instead; the message carries its log.
    pub fn start(self) -> Node {
        let scratch = TempDir::new();
        let log = scratch.path().join(LOG);
        let stderr = std::fs::File::create(scratch.path().join(STDERR));
        let port = self.port.map_or("-1".to_owned(), |p| p.to_string());
        let mut command = Command::new(&self.binary);
        if !self.args.iter().any(|arg| arg == "-c" || arg == "-js") {
            // Without a configuration file Halyard serves streams from a directory of its own choice.
            let empty = scratch.path().join("empty.conf");
            std::fs::write(&empty, "").expect("the temporary directory is writable");
            command.args(["-c", path_str(&empty)]);
        }
        command
            .args(["-a", "127.0.0.1", "-p", &port, "-m", "-1"])
            .args(["--ports_file_dir", path_str(scratch.path())])
            .args(["-l", path_str(&log)])
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.expect("the temporary directory is writable"));
        let mut child = command.spawn().expect("the binary starts");
        let ports = match wait_for_ports(&mut child, scratch.path()) {
            Ok(ports) => ports,
            Err(why) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!(
                    "{} {:?}: {why}\n{}",
                    self.binary.display(),
                    self.args,
                    said(scratch.path())
                );
            }
        };
        Node {
            child,
            scratch,
            ports,
        }
    }

    /// Runs the server to its end, for starts that must be refused: exit code (`None` when it had to be ended), standard
    /// error and log.
    pub fn refused(self) -> (Option<i32>, String) {
        let scratch = TempDir::new();
        let mut child = Command::new(&self.binary)
            .args(["-a", "127.0.0.1", "-p", "-1"])
            .args(["--ports_file_dir", path_str(scratch.path())])
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        // One that starts all the same serves for ever.
        let started = Instant::now();
        while started.elapsed() < READY_WITHIN && matches!(child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let output = child.wait_with_output().expect("it has ended");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

/// What a server said into these files of its scratch directory: its log, then what came on standard error.
fn said(scratch: &Path) -> String {
    let read = |name| std::fs::read_to_string(scratch.join(name)).unwrap_or_default();
    read(LOG) + &read(STDERR)
}

fn path_str(path: &Path) -> &str {
    path.to_str().expect("paths of the tests are UTF-8")
}

/// Waits for the ports file, which a server writes when it is ready.
fn wait_for_ports(child: &mut Child, dir: &Path) -> Result<Ports, String> {
    let started = Instant::now();
    while started.elapsed() < READY_WITHIN {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return Err(format!("ended at once with {status}"));
        }
        if let Some(ports) = read_ports(dir)
            && TcpStream::connect(&ports.client).is_ok()
        {
            return Ok(ports);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(format!("wrote no ports file within {READY_WITHIN:?}"))
}

#[derive(Debug, Clone)]
struct Ports {
    client: String,
    monitor: Option<String>,
}

fn read_ports(dir: &Path) -> Option<Ports> {
    let file = std::fs::read_dir(dir)
        .ok()?
        .filter_map(Result::ok)
        .find(|e| e.file_name().to_string_lossy().ends_with(".ports"))?;
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(file.path()).ok()?).ok()?;
    let first = |key: &str| {
        let url = json.get(key)?.get(0)?.as_str()?;
        Some(
            url.split_once("://")
                .map_or(url, |(_, rest)| rest)
                .to_owned(),
        )
    };
    Some(Ports {
        client: first("nats")?,
        monitor: first("monitoring"),
    })
}

/// A running server. Dropping it kills the process.
#[derive(Debug)]
pub struct Node {
    child: Child,
    scratch: TempDir,
    ports: Ports,
}

impl Node {
    /// `host:port` for clients.
    pub fn address(&self) -> &str {
        &self.ports.client
    }

    /// `nats://host:port`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.ports.client)
    }

    /// The client port.
    pub fn port(&self) -> u16 {
        let (_, port) = self
            .ports
            .client
            .rsplit_once(':')
            .expect("an address has a port");
        port.parse().expect("a port is a number")
    }

    /// `host:port` of the monitoring endpoint.
    pub fn monitor(&self) -> &str {
        self.ports.monitor.as_deref().expect("started with -m")
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the server logged so far, and what it said on standard error, where a panic of a thread of its own goes.
    pub fn log(&self) -> String {
        said(self.scratch.path())
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the server runs");
        let kib = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
            .expect("the kernel reports VmRSS");
        kib * 1024
    }

    /// `GET path` on the monitoring endpoint: status code and body.
    pub fn http_get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.monitor()).expect("the monitor listens");
        stream
            .set_read_timeout(Some(READY_WITHIN))
            .expect("a timeout above zero");
        // HTTP/1.0: the body is not cut into chunks.
        let request = format!("GET {path} HTTP/1.0\r\nHost: test\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .expect("the monitor reads");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("the monitor answers");
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .expect("a status line");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, body.to_owned())
    }

    /// Sends a signal by name, as `kill -NAME pid` does.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.pid().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success(), "signal {name} was not sent");
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(mut self) {
        self.end();
    }

    /// Waits for the server to end by itself: its exit code.
    pub fn wait(mut self, within: Duration) -> Option<i32> {
        let started = Instant::now();
        while started.elapsed() < within {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the server did not end within {within:?}\n{}", self.log());
    }

    /// Asks it to stop (TERM) and waits: its exit code.
    pub fn stop(self) -> Option<i32> {
        self.signal("TERM");
        self.wait(READY_WITHIN)
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // One thread's panic need not end the process, nor be noticed by what the test looks at.
        if !std::thread::panicking() {
            let log = self.log();
            assert!(!log.contains("panicked at"), "{log}");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}
