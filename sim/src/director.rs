//! The course of one run: boot, prepare, chaos, healing, draining, a last loss of power, verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use halyard_runtime::disk::Disk;
use halyard_runtime::event;
use halyard_runtime::sim::{Net, Node, SimDisk};
use halyard_runtime::task::{self, JoinHandle};
use halyard_runtime::time::{Instant, sleep, timeout};
use halyard_server::Server;
use halyard_server::config::{Cipher, Encryption, Secret};
use halyard_server::jetstream::Tuning;
use parking_lot::Mutex;
use serde_json::Value;

use crate::checkers::{self, Broken, Evidence, View};
use crate::client::Client;
use crate::faults;
use crate::js::{self, Failure};
use crate::options::{Options, Plant};
use crate::run::Tally;
use crate::workloads::{Stage, admin, archive, consume, mortal, publish};

const SERVER: &str = "10.0.0.1";
const PORT: u16 = 4222;

/// How long the server may take to serve once nothing is broken.
const SERVES_WITHIN: Duration = Duration::from_secs(10);
/// How long clients may take to finish what they began.
const FINISH_WITHIN: Duration = Duration::from_secs(60);
/// How much longer than its bound erasure may take on a disk whose every operation may stall.
const ERASE_SLACK: Duration = Duration::from_secs(20);
/// How long consumers may take to be drained.
const DRAIN_WITHIN: Duration = Duration::from_secs(120);

/// Whether the server came up.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Boot {
    Off,
    Starting,
    Up,
    Refused(String),
}

/// The machine under test.
pub(crate) struct Host {
    pub(crate) node: Node,
    pub(crate) disk: SimDisk,
    options: Options,
    boot: Arc<Mutex<Boot>>,
    boots: u64,
}

impl Host {
    fn new(options: &Options) -> Self {
        let ip: IpAddr = SERVER.parse().expect("a literal address");
        let node = Node::new("server", ip);
        let disk = SimDisk::new(options.seed ^ 0xD15C, options.disk.clone());
        node.attach(&disk);
        let boot = Arc::new(Mutex::new(Boot::Off));
        Self {
            node,
            disk,
            options: options.clone(),
            boot,
            boots: 0,
        }
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.node.ip()
    }

    pub(crate) fn kill(&mut self) {
        self.node.kill();
        self.went_down();
    }

    pub(crate) fn power_off(&mut self) {
        self.node.power_off();
        self.went_down();
    }

    fn went_down(&mut self) {
        self.disk.cancel_crash();
        *self.boot.lock() = Boot::Off;
    }

    /// True when the armed crash of the disk has struck within `limit`; otherwise it is disarmed.
    pub(crate) async fn crashed_within(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if !self.disk.is_crash_armed() {
                self.went_down();
                return true;
            }
            sleep(Duration::from_millis(5)).await;
        }
        self.disk.cancel_crash();
        false
    }

    /// Switches the machine on and starts the server on it.
    pub(crate) fn boot(&mut self) {
        self.node.start();
        self.boots += 1;
        // A fresh cell for each boot: a task of an earlier one must not report for this one.
        self.boot = Arc::new(Mutex::new(Boot::Starting));
        let boot = Arc::clone(&self.boot);
        let (disk, options) = (self.disk.clone(), self.options.clone());
        let encryption = encryption(&options, self.boots);
        drop(self.node.spawn(async move {
            match start(Arc::new(disk), &options, encryption).await {
                Ok(server) => {
                    event!("the server is up");
                    *boot.lock() = Boot::Up;
                    std::future::pending::<()>().await;
                    drop(server);
                }
                Err(text) => {
                    event!("the server did not start: {text}");
                    *boot.lock() = Boot::Refused(text);
                }
            }
        }));
    }

    /// Waits until the server has started or refused to.
    pub(crate) async fn is_settled(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while *self.boot.lock() == Boot::Starting && Instant::now() < end {
            sleep(Duration::from_millis(1)).await;
        }
        *self.boot.lock() != Boot::Starting
    }

    /// Starts the server when it is down.
    pub(crate) async fn revive(&mut self) {
        let down = !matches!(*self.boot.lock(), Boot::Up | Boot::Starting);
        if down {
            self.kill();
            sleep(Duration::from_millis(50)).await;
            self.boot();
        }
    }

    /// What the server said when it did not start.
    fn refusal(&self) -> Option<String> {
        match &*self.boot.lock() {
            Boot::Refused(text) => Some(text.clone()),
            _ => None,
        }
    }
}

/// What the configuration of boot number `boot` says of encryption.
fn encryption(options: &Options, boot: u64) -> Option<Encryption> {
    let plan = options.encryption.as_ref()?;
    if options.plant == Some(Plant::ForgottenKey) {
        return None;
    }
    // 64 digits are the key itself: no time is spent on stretching them.
    let key = |digit: char| Secret(digit.to_string().repeat(64));
    let cipher = |aes| match aes {
        true => Cipher::Aes256Gcm,
        false => Cipher::ChaCha20Poly1305,
    };
    Some(match boot < plan.change_at_boot {
        true => Encryption {
            key: key('1'),
            previous: None,
            cipher: cipher(plan.aes_first),
        },
        false => Encryption {
            key: key('2'),
            previous: Some(key('1')),
            cipher: cipher(plan.aes_then),
        },
    })
}

async fn start(
    disk: Arc<dyn Disk>,
    options: &Options,
    encryption: Option<Encryption>,
) -> Result<Server, String> {
    let tuning = Tuning {
        log_segment_bytes: options.log_segment_bytes,
        first_log_segment_bytes: options.log_segment_bytes,
        flush_bytes: usize::try_from(options.flush_bytes).unwrap_or(usize::MAX),
        flush_interval: options.flush_interval,
        ..Tuning::default()
    };
    let builder = Server::builder()
        .name("simulated")
        .listen("0.0.0.0", PORT)
        .jetstream(PathBuf::from("/data"))
        .encryption(encryption)
        .disk(disk)
        .tuning(tuning)
        .erase_within(options.erase_within);
    builder.start().await.map_err(|error| error.to_string())
}

/// Plays one run on the simulation of this thread.
pub(crate) async fn play(options: Options) -> (Vec<Broken>, Tally) {
    let _logs = crate::logs::into_trace();
    let address = SocketAddr::new(SERVER.parse().expect("a literal address"), PORT);
    Net::current().set_options(options.net.clone());
    let mut host = Host::new(&options);
    host.boot();
    let stage = Stage::new(options, address);
    let desk = Node::new("desk", "10.0.2.1".parse().expect("a literal address"));
    let mut broken = Vec::new();
    let mut tally = Tally::default();
    if !on(&desk, prepare(Arc::clone(&stage)))
        .await
        .unwrap_or(false)
    {
        let refusal = host.refusal().unwrap_or_default();
        return (
            vec![not_kept(
                "serves",
                format!("no streams could be made {refusal}"),
            )],
            tally,
        );
    }
    let (clients, workers) = employ(&stage);
    tally.faults = faults::inject(&stage, &mut host, &clients).await;
    event!("HEAL");
    heal(&stage, &mut host);
    host.revive().await;
    stage.stop();
    broken.extend(wait_for_service(&stage, &desk, &host, "after healing").await);
    if timeout(FINISH_WITHIN, futures::future::join_all(workers))
        .await
        .is_err()
    {
        broken.push(not_kept("serves", "clients did not finish".to_owned()));
    }
    if broken.is_empty() {
        broken.extend(
            on(&desk, drain(Arc::clone(&stage)))
                .await
                .unwrap_or_default(),
        );
    }
    if broken.is_empty() {
        broken.extend(
            on(&desk, erase(Arc::clone(&stage)))
                .await
                .unwrap_or_default(),
        );
    }
    let canaries = canaries(&host.disk);
    event!("LAST POWER LOSS");
    host.power_off();
    host.boot();
    broken.extend(wait_for_service(&stage, &desk, &host, "after the last power loss").await);
    tally.boots = host.boots;
    if broken.is_empty() {
        match on(&desk, gather(Arc::clone(&stage))).await {
            Some(Ok(mut evidence)) => {
                evidence.look_for_plaintext(&host.disk);
                evidence.canaries = canaries;
                tally.count(&evidence);
                broken.extend(checkers::check(&evidence));
            }
            Some(Err(failure)) => broken.push(not_kept(
                "serves",
                format!("nothing can be read: {failure:?}"),
            )),
            None => broken.push(not_kept("serves", "the last look did not end".to_owned())),
        }
    }
    (broken, tally)
}

fn not_kept(promise: &'static str, text: String) -> Broken {
    Broken { promise, text }
}

/// Runs something on a node.
async fn on<T: Send + 'static>(
    node: &Node,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    node.spawn(work).await.ok()
}

/// Makes the planned streams and consumers. False when that does not succeed.
async fn prepare(stage: Arc<Stage>) -> bool {
    timeout(SERVES_WITHIN * 3, prepare_all(&stage))
        .await
        .is_ok()
}

async fn prepare_all(stage: &Stage) {
    let mut client = stage.connect().await;
    for plan in &stage.options.streams {
        while let Err(failure) = js::create_stream(&client, plan).await {
            event!("the stream {} was not made: {failure:?}", plan.name);
            client = again(stage).await;
        }
    }
    for plan in &stage.options.mortals {
        while let Err(failure) = js::create_mortal(&client, plan).await {
            event!("the stream {} was not made: {failure:?}", plan.name);
            client = again(stage).await;
        }
    }
    for plan in &stage.options.consumers {
        let stream = &stage.options.streams[plan.stream].name;
        while let Err(failure) = js::create_consumer(&client, stream, plan).await {
            event!("the consumer {} was not made: {failure:?}", plan.name);
            client = again(stage).await;
        }
    }
}

async fn again(stage: &Stage) -> Client {
    sleep(Duration::from_millis(500)).await;
    stage.connect().await
}

/// A client's work until the run ends.
type Work = BoxFuture<'static, ()>;

/// Every client of a run, with its name.
fn clients(stage: &Arc<Stage>) -> Vec<(String, Work)> {
    let mut clients: Vec<(String, Work)> = Vec::new();
    for (index, plan) in stage.options.publishers.iter().enumerate() {
        let work = publish::run(Arc::clone(stage), plan.clone(), index);
        clients.push((format!("pub{index}"), work.boxed()));
    }
    for index in 0..stage.options.consumers.len() {
        let work = consume::run(Arc::clone(stage), index);
        clients.push((format!("con{index}"), work.boxed()));
    }
    for index in 0..stage.options.admins {
        let work = admin::run(Arc::clone(stage));
        clients.push((format!("adm{index}"), work.boxed()));
    }
    for index in 0..stage.options.mortals.len() {
        let work = mortal::run(Arc::clone(stage), index);
        clients.push((format!("mor{index}"), work.boxed()));
    }
    for index in 0..stage.options.archivists {
        let work = archive::run(Arc::clone(stage), index);
        clients.push((format!("arc{index}"), work.boxed()));
    }
    clients
}

/// Puts every client on a machine of its own and sets it to work.
fn employ(stage: &Arc<Stage>) -> (Vec<IpAddr>, Vec<JoinHandle<()>>) {
    let placed = clients(stage).into_iter().enumerate();
    let set_to_work = placed.map(|(number, (name, work))| {
        let last = u8::try_from(number + 1).expect("few clients");
        let ip = IpAddr::from([10, 0, 1, last]);
        (ip, Node::new(&name, ip).spawn(work))
    });
    set_to_work.unzip()
}

fn heal(stage: &Stage, host: &mut Host) {
    Net::current().heal_all();
    Net::current().set_options(stage.options.net.clone());
    let usual = stage.options.disk.clone();
    host.disk.set_faults(|faults| *faults = usual);
    host.disk.cancel_crash();
}

/// Fails unless the server answers in time.
async fn wait_for_service(
    stage: &Arc<Stage>,
    desk: &Node,
    host: &Host,
    when: &str,
) -> Option<Broken> {
    let probing = Arc::clone(stage);
    let probe = on(desk, async move {
        let answered = async {
            loop {
                if let Some(client) = probing.try_connect().await
                    && js::api(&client, "INFO", &Value::Null).await.is_ok()
                {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(SERVES_WITHIN, answered).await.is_ok()
    });
    if probe.await.unwrap_or(false) {
        return None;
    }
    let why = host
        .refusal()
        .unwrap_or_else(|| "it does not answer".to_owned());
    Some(not_kept(
        "serves",
        format!("the server does not serve {when}: {why}"),
    ))
}

async fn drain(stage: Arc<Stage>) -> Vec<Broken> {
    let mut broken = Vec::new();
    for (index, plan) in stage.options.consumers.iter().enumerate() {
        if !consume::drain(&stage, index, DRAIN_WITHIN).await {
            broken.push(not_kept(
                "deliveries",
                format!("{} cannot be drained", plan.name),
            ));
        }
    }
    broken
}

/// Waits until the server says that everything is erased that was deleted; it must say so within the bound.
async fn erase(stage: Arc<Stage>) -> Vec<Broken> {
    let passing: Vec<String> = stage.history.lock().existence.keys().cloned().collect();
    let planned = stage.options.streams.iter().map(|plan| plan.name.clone());
    let names: Vec<String> = planned.chain(passing).collect();
    let erased = async {
        for name in &names {
            loop {
                let client = stage.connect().await;
                if js::is_erased(&client, name).await == Ok(true) {
                    break;
                }
                sleep(Duration::from_millis(200)).await;
            }
        }
    };
    let limit = stage.options.erase_within + ERASE_SLACK;
    match timeout(limit, erased).await {
        Ok(()) => Vec::new(),
        Err(_) => vec![not_kept(
            "erasure",
            format!("not everything was erased within {limit:?}"),
        )],
    }
}

/// Every canary on the disk, with one of its places.
fn canaries(disk: &SimDisk) -> BTreeMap<(char, u64), String> {
    let found = disk.find_with(publish::CANARY.as_bytes(), publish::CANARY_MORE);
    let parsed = found.into_iter().filter_map(|(found, more)| {
        let more = String::from_utf8(more).ok()?;
        let part = more.chars().next()?;
        let number = more.get(1..)?.parse().ok()?;
        let place = format!(
            "{} + {} ({:?})",
            found.path.display(),
            found.offset,
            found.place
        );
        Some(((part, number), place))
    });
    parsed.collect()
}

/// Messages that are asked for at once.
const GATHERED_AT_ONCE: usize = 25;

/// Reads everything that the server holds.
async fn gather(stage: Arc<Stage>) -> Result<Evidence, Failure> {
    let client = stage.connect().await;
    let mut views = Vec::new();
    for plan in &stage.options.streams {
        views.push(look_at(&client, &plan.name).await?);
    }
    let archives: Vec<String> = stage.history.lock().archives.keys().cloned().collect();
    let mut returned = BTreeMap::new();
    for name in archives {
        if let Some(view) = look_at(&client, &name).await? {
            returned.insert(name, view);
        }
    }
    let mut missing_consumers = Vec::new();
    for (index, plan) in stage.options.consumers.iter().enumerate() {
        let stream = &stage.options.streams[plan.stream].name;
        match js::consumer_info(&client, stream, &plan.name).await {
            Ok(_) => {}
            Err(Failure::Refused(..)) => missing_consumers.push(index),
            Err(failure) => return Err(failure),
        }
    }
    let mut mortals = Vec::new();
    for index in 0..stage.options.mortals.len() {
        mortals.push(mortal::look_at(&stage, &client, index).await?);
    }
    let streams = stream_names(&client).await?;
    let history = std::mem::take(&mut *stage.history.lock());
    Ok(Evidence {
        options: stage.options.clone(),
        history,
        views,
        mortals,
        returned,
        streams,
        missing_consumers,
        plaintext: Vec::new(),
        canaries: BTreeMap::new(),
    })
}

/// What a stream holds; `None` where there is no such stream.
async fn look_at(client: &Client, name: &str) -> Result<Option<View>, Failure> {
    match js::stream_info(client, name).await {
        Ok(info) => Ok(Some(read_stream(client, name, &info).await?)),
        Err(Failure::Refused(js::STREAM_NOT_FOUND, _)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

pub(crate) async fn read_stream(
    client: &Client,
    name: &str,
    info: &Value,
) -> Result<View, Failure> {
    let state = info.get("state").cloned().unwrap_or_default();
    let mut view = View {
        state,
        messages: BTreeMap::new(),
    };
    let seqs: Vec<u64> = (view.number("first_seq").max(1)..=view.number("last_seq")).collect();
    for some in seqs.chunks(GATHERED_AT_ONCE) {
        let asked = some.iter().map(|seq| js::message(client, name, *seq));
        for found in futures::future::join_all(asked).await {
            if let Some(stored) = found? {
                view.messages.insert(stored.seq, stored);
            }
        }
    }
    event!(
        "{name} holds {} messages: {}",
        view.messages.len(),
        view.state
    );
    Ok(view)
}

async fn stream_names(client: &Client) -> Result<BTreeSet<String>, Failure> {
    let answer = js::api(client, "STREAM.NAMES", &Value::Null).await?;
    let names = answer
        .get("streams")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    Ok(names
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect())
}

/// See [`crate::against`].
pub(crate) async fn against(options: Options, address: SocketAddr) -> Vec<Broken> {
    let chaos = options.chaos;
    let stage = Stage::new(options, address);
    if !prepare(Arc::clone(&stage)).await {
        return vec![not_kept("serves", "no streams could be made".to_owned())];
    }
    let working = clients(&stage).into_iter();
    let workers: Vec<_> = working.map(|(_, work)| task::spawn(work)).collect();
    sleep(chaos).await;
    stage.stop();
    futures::future::join_all(workers).await;
    let mut broken = drain(Arc::clone(&stage)).await;
    match gather(stage).await {
        Ok(evidence) => broken.extend(checkers::check(&evidence)),
        Err(failure) => broken.push(not_kept(
            "serves",
            format!("nothing can be read: {failure:?}"),
        )),
    }
    broken
}
