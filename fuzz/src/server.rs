//! A whole server in the process, asked one thing after the other: what it says, what that cost, and that nothing panicked.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use halyard_runtime::disk::MemDisk;
use halyard_runtime::net::TcpStream;
use halyard_runtime::{measure, task, time};
use halyard_server::Server;
use halyard_server::broker::Publish;
use halyard_server::config::{Config, Monitor};

/// How long an answer may take on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// Panics of all threads so far, contained ones too.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// What was asked.
enum Asked {
    /// A request of a client.
    Api(String, Bytes),
    /// A path of the monitor, with its query.
    Monitor(String),
}

/// What came of it.
#[derive(Debug)]
pub struct Answer {
    /// The answer; `None`: there was none.
    pub body: Option<Vec<u8>>,
    /// Processor time of the whole process meanwhile.
    pub cost: Duration,
}

type Job = (Asked, mpsc::Sender<Option<Vec<u8>>>);

/// Asks the JetStream API.
///
/// # Panics
/// When something panics in the server.
pub fn request(subject: &str, body: &[u8]) -> Answer {
    ask(Asked::Api(subject.to_owned(), Bytes::copy_from_slice(body)))
}

/// Asks the monitor for a path and query.
///
/// # Panics
/// When something panics in the server.
pub fn monitor(path: &str) -> Answer {
    ask(Asked::Monitor(path.to_owned()))
}

fn ask(asked: Asked) -> Answer {
    let (sender, receiver) = mpsc::channel();
    let before = measure::process_cpu();
    let jobs = jobs()
        .lock()
        .expect("no asker panics while it sends")
        .clone();
    jobs.unbounded_send((asked, sender))
        .expect("the server runs");
    let body = receiver.recv().expect("the server runs");
    let cost = measure::process_cpu().saturating_sub(before);
    assert_eq!(
        PANICS.load(Ordering::SeqCst),
        0,
        "nothing panics in the server"
    );
    Answer { body, cost }
}

/// The way to the one server of this process.
fn jobs() -> &'static Mutex<UnboundedSender<Job>> {
    static JOBS: OnceLock<Mutex<UnboundedSender<Job>>> = OnceLock::new();
    JOBS.get_or_init(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            // The hook before this one may keep it to itself.
            eprintln!("a panic in the server: {panic}");
            told(panic);
        }));
        let (sender, mut receiver) = unbounded::<Job>();
        let run = move || {
            let serve = async move {
                let server = start().await;
                while let Some((asked, reply)) = receiver.next().await {
                    let answer = match asked {
                        Asked::Api(subject, body) => api(&server, &subject, &body).await,
                        Asked::Monitor(path) => http(&server, &path).await,
                    };
                    // The asker has panicked if it is gone.
                    let _ = reply.send(answer);
                }
            };
            task::block_on(2, serve).expect("a runtime");
        };
        #[expect(clippy::disallowed_methods, reason = "a fuzzer's loop is no task")]
        drop(std::thread::spawn(run));
        Mutex::new(sender)
    })
}

async fn start() -> Server {
    let mut config = Config {
        dont_listen: true,
        monitor: Some(Monitor {
            host: Some("127.0.0.1".to_owned()),
            port: 0,
        }),
        ..Config::default()
    };
    config.jetstream.enabled = true;
    config.jetstream.store_dir = Some("/js".into());
    let disk = Arc::new(MemDisk::new());
    let started = Server::builder().config(config).disk(disk).start().await;
    let server = started.expect("a server starts");
    for (subject, body) in [
        (
            "$JS.API.STREAM.CREATE.S",
            r#"{"name":"S","subjects":["s.>"],"allow_direct":true}"#,
        ),
        (
            "$JS.API.CONSUMER.DURABLE.CREATE.S.c",
            r#"{"stream_name":"S","config":{"durable_name":"c","ack_policy":"explicit"}}"#,
        ),
    ] {
        let made = api(&server, subject, body.as_bytes())
            .await
            .unwrap_or_default();
        assert!(
            !made.windows(8).any(|part| part == b"\"error\":"),
            "{subject}"
        );
    }
    for number in 0..50 {
        let subject = format!("s.{}", number % 7);
        api(&server, &subject, b"body").await.expect("it is stored");
    }
    server
}

async fn api(server: &Server, subject: &str, body: &[u8]) -> Option<Vec<u8>> {
    let publish = Publish::new(subject.as_bytes(), body);
    let answer = server.account().request(publish, PATIENCE).await.ok()?;
    Some([answer.headers, answer.payload].concat())
}

async fn http(server: &Server, path: &str) -> Option<Vec<u8>> {
    let address = server.monitor_address()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let asked = async {
        let stream = TcpStream::connect(address).await?;
        let mut rest = request.as_bytes();
        while !rest.is_empty() {
            poll_fn(|cx| stream.poll_write_ready(cx)).await?;
            match stream.try_write(rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        let mut buffer = [0; 4096];
        loop {
            let count = poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await?;
            if count == 0 {
                return Ok(());
            }
            answer.extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
    };
    time::timeout(PATIENCE, asked).await.ok()?.ok()?;
    Some(answer)
}
