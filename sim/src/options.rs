//! What a seed stands for.

use std::time::Duration;

use halyard_runtime::sim::{DiskFaults, NetOptions};

use crate::random::Draw;

/// Everything that one run is made of. Its `Debug` form is printed with every failure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Every draw inside the run comes from it.
    pub seed: u64,
    /// How long clients and faults go on, in simulated time.
    pub chaos: Duration,
    /// The streams.
    pub streams: Vec<StreamPlan>,
    /// Streams whose messages end by themselves, each with a client of its own.
    pub mortals: Vec<MortalPlan>,
    /// Who publishes.
    pub publishers: Vec<PublisherPlan>,
    /// Who consumes.
    pub consumers: Vec<ConsumerPlan>,
    /// Clients that purge, delete messages, and make and delete streams.
    pub admins: usize,
    /// Clients that back up streams of their own and restore them.
    pub archivists: usize,
    /// Bytes of one segment of the server's log.
    pub log_segment_bytes: u64,
    /// Unflushed bytes at which the server's store writes a segment.
    pub flush_bytes: u64,
    /// Age at which fewer unflushed bytes are written, too.
    pub flush_interval: Duration,
    /// How long after a delete or purge the last copy of the bytes is gone at the latest.
    pub erase_within: Duration,
    /// What breaks.
    pub faults: FaultPlan,
    /// How the network behaves when nothing is broken.
    pub net: NetOptions,
    /// How the disk behaves when nothing is broken.
    pub disk: DiskFaults,
    /// Encryption at rest; `None`: everything is in the clear.
    pub encryption: Option<EncryptionPlan>,
    /// A bug that is switched on to see whether a checker finds it.
    pub plant: Option<Plant>,
}

/// Encryption at rest, and when the key is changed.
#[derive(Clone, Debug)]
pub struct EncryptionPlan {
    /// AES-256-GCM in place of ChaCha20-Poly1305, before the key is changed.
    pub aes_first: bool,
    /// The same after the change.
    pub aes_then: bool,
    /// The boot, from 1, from which on the server has another key and the first one as its previous key. Crashes go on
    /// meanwhile.
    pub change_at_boot: u64,
}

/// One stream.
#[derive(Clone, Debug)]
pub struct StreamPlan {
    /// Its name; it takes `NAME.>`.
    pub name: String,
    /// What may become of its messages.
    pub kind: StreamKind,
}

/// What may become of a stream's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// They stay.
    Plain,
    /// The oldest go when there are more than so many.
    Limited(u64),
    /// Admins purge and delete them.
    Purged,
    /// They go when they are acknowledged by the one consumer.
    WorkQueue,
}

/// A stream whose messages end by themselves: by an age limit, by life spans of their own, or not at all.
#[derive(Clone, Debug)]
pub struct MortalPlan {
    /// Its name; it takes `NAME.>`.
    pub name: String,
    /// Its age limit; zero for none.
    pub max_age: Duration,
    /// How long the marker of a subject lives that ended; zero for none.
    pub marker: Duration,
    /// A subject holds its newest message only.
    pub one_per_subject: bool,
    /// Subjects in use at one time.
    pub subjects: u64,
    /// Longest pause between two publishes.
    pub pause: Duration,
}

/// One publishing client.
#[derive(Clone, Debug)]
pub struct PublisherPlan {
    /// Index into [`Options::streams`].
    pub stream: usize,
    /// How many publishes are under way at once.
    pub mode: Mode,
    /// Send `Nats-Msg-Id`, and send again what was not answered.
    pub msg_ids: bool,
    /// Largest payload in bytes.
    pub payload_max: u64,
    /// Longest pause between two publishes (or windows).
    pub pause: Duration,
    /// Most messages.
    pub messages_max: u64,
}

/// How a publisher waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For each answer before the next publish.
    Synchronous,
    /// With up to so many answers outstanding.
    Pipelined(usize),
}

/// One durable pull consumer and the client that uses it.
#[derive(Clone, Debug)]
pub struct ConsumerPlan {
    /// Index into [`Options::streams`].
    pub stream: usize,
    /// Its name.
    pub name: String,
    /// Messages asked for at once.
    pub batch: u64,
    /// How long the server waits for an acknowledgement.
    pub ack_wait: Duration,
    /// Of a hundred messages, how many are acknowledged with a confirmation ...
    pub confirmed_percent: u64,
    /// ... how many are refused (NAK) ...
    pub refused_percent: u64,
    /// ... and how many are ignored. The rest is acknowledged without confirmation.
    pub ignored_percent: u64,
}

/// Which faults happen, and how often.
#[derive(Clone, Debug)]
pub struct FaultPlan {
    /// Mean time between two faults; zero for a run without any.
    pub every: Duration,
    /// `kill -9`.
    pub kill: bool,
    /// Power loss at a random moment.
    pub power: bool,
    /// Power loss at a random operation of the disk, also while the server starts.
    pub power_at_operation: bool,
    /// Partitions and one-way cuts between clients and server.
    pub partition: bool,
    /// Connections broken from outside.
    pub reset: bool,
    /// The server's tasks stand still for a while.
    pub pause: bool,
    /// The server's clocks drift and jump.
    pub clock: bool,
    /// Syncs become slow.
    pub slow_disk: bool,
    /// The disk is full for a while; then the operator makes room and restarts the server.
    pub full_disk: bool,
    /// Writes and syncs fail for a while; then the operator restarts the machine.
    pub disk_errors: bool,
}

/// A bug that can be switched on in a simulation, to prove that a checker finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// The disk says that it has synced, and has not.
    LyingSync,
    /// Every tenth sync leaves one sector unwritten.
    LostWrite,
    /// The log reports a batch as durable before it syncs it.
    AckBeforeSync,
    /// A message's last byte is changed on its way into the stream.
    FlippedByte,
    /// Deduplication forgets everything at a restart.
    ForgottenIds,
    /// A confirmed acknowledgement is confirmed before it is in the log.
    AckConfirmedEarly,
    /// A deleted message is only deleted in memory.
    ForgottenDelete,
    /// A purge is answered before it is in the log.
    PurgeAnsweredEarly,
    /// A message's life span is a second shorter than it says.
    EarlyExpiry,
    /// One marker in four is not stored.
    MissingMarker,
    /// The server is given no key where the plan has one.
    ForgottenKey,
    /// Erasure is confirmed without a look at the log.
    ErasureForgetsLog,
    /// A restart forgets what is still to be erased.
    ErasureForgotten,
    /// A restored stream is there from the beginning of its restore.
    HalfRestored,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::LyingSync,
        Self::LostWrite,
        Self::AckBeforeSync,
        Self::FlippedByte,
        Self::ForgottenIds,
        Self::AckConfirmedEarly,
        Self::ForgottenDelete,
        Self::PurgeAnsweredEarly,
        Self::EarlyExpiry,
        Self::MissingMarker,
        Self::ForgottenKey,
        Self::ErasureForgetsLog,
        Self::ErasureForgotten,
        Self::HalfRestored,
    ];

    /// The name by which the code asks whether it is planted; see `halyard_runtime::planted`.
    pub fn name(self) -> &'static str {
        match self {
            Self::LyingSync => "lying-sync",
            Self::LostWrite => "lost-write",
            Self::AckBeforeSync => "ack-before-sync",
            Self::FlippedByte => "flipped-byte",
            Self::ForgottenIds => "forgotten-ids",
            Self::AckConfirmedEarly => "ack-confirmed-early",
            Self::ForgottenDelete => "forgotten-delete",
            Self::PurgeAnsweredEarly => "purge-answered-early",
            Self::EarlyExpiry => "early-expiry",
            Self::MissingMarker => "missing-marker",
            Self::ForgottenKey => "forgotten-key",
            Self::ErasureForgetsLog => "erasure-forgets-log",
            Self::ErasureForgotten => "erasure-forgotten",
            Self::HalfRestored => "half-restored",
        }
    }
}

impl Options {
    /// What `seed` stands for.
    pub fn from_seed(seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let streams = streams(&mut draw);
        let publishers = publishers(&mut draw, streams.len());
        let consumers = consumers(&mut draw, &streams);
        let purged = streams
            .iter()
            .any(|stream| stream.kind == StreamKind::Purged);
        Self {
            seed,
            chaos: Duration::from_millis(draw.magnitude(2_000, 30_000)),
            admins: usize::from(purged),
            streams,
            publishers,
            consumers,
            log_segment_bytes: draw.magnitude(256 << 10, 8 << 20),
            flush_bytes: draw.magnitude(16 << 10, 4 << 20),
            flush_interval: Duration::from_millis(draw.magnitude(200, 30_000)),
            faults: faults(&mut draw),
            net: net(&mut draw),
            disk: disk(&mut draw),
            mortals: mortals(&mut draw),
            encryption: encryption(&mut draw),
            erase_within: Duration::from_millis(draw.magnitude(1_000, 20_000)),
            archivists: usize::from(draw.percent(30)),
            plant: None,
        }
    }

    /// The same run with a planted bug.
    #[must_use]
    pub fn with_plant(mut self, plant: Plant) -> Self {
        match plant {
            Plant::LyingSync => self.disk.lying_sync = true,
            Plant::LostWrite => self.disk.lost_write_ppm = 100_000,
            Plant::ForgottenKey => {
                let plan = EncryptionPlan {
                    aes_first: false,
                    aes_then: false,
                    change_at_boot: 2,
                };
                self.encryption.get_or_insert(plan);
            }
            _ => {}
        }
        self.plant = Some(plant);
        self
    }
}

/// Drawn last, so that a seed means the same otherwise.
fn encryption(draw: &mut Draw) -> Option<EncryptionPlan> {
    draw.percent(30).then(|| EncryptionPlan {
        aes_first: draw.coin(),
        aes_then: draw.coin(),
        change_at_boot: draw.magnitude(2, 12),
    })
}

fn streams(draw: &mut Draw) -> Vec<StreamPlan> {
    let count = draw.between(1, 4);
    let plan = |ordinal| {
        let kind = match draw.between(0, 5) {
            0 => StreamKind::Limited(draw.magnitude(1, 500)),
            1 | 2 => StreamKind::Purged,
            3 => StreamKind::WorkQueue,
            _ => StreamKind::Plain,
        };
        StreamPlan {
            name: format!("S{ordinal}"),
            kind,
        }
    };
    (0..count).map(plan).collect()
}

/// In some of the runs, one.
fn mortals(draw: &mut Draw) -> Vec<MortalPlan> {
    if !draw.percent(40) {
        return Vec::new();
    }
    let one_per_subject = draw.coin();
    let marker = match (draw.percent(70), one_per_subject) {
        (false, _) => 0,
        // Longer than any run: whether a marker has to be there is then always known.
        (true, true) => 3_600,
        (true, false) => draw.between(1, 3),
    };
    let max_age = if draw.coin() {
        0
    } else {
        draw.between(1_000, 8_000)
    };
    vec![MortalPlan {
        name: "L0".to_owned(),
        max_age: Duration::from_millis(max_age),
        marker: Duration::from_secs(marker),
        one_per_subject,
        subjects: draw.between(1, 8),
        pause: Duration::from_micros(draw.magnitude(5_000, 300_000)),
    }]
}

fn publishers(draw: &mut Draw, streams: usize) -> Vec<PublisherPlan> {
    let count = draw.between(1, 5);
    let plan = |_| PublisherPlan {
        stream: usize::try_from(draw.between(0, streams as u64 - 1)).unwrap_or(0),
        mode: if draw.coin() {
            Mode::Synchronous
        } else {
            Mode::Pipelined(usize::try_from(draw.magnitude(2, 128)).unwrap_or(2))
        },
        msg_ids: draw.coin(),
        payload_max: draw.magnitude(1, 16 << 10),
        pause: Duration::from_micros(draw.magnitude(1_000, 500_000)),
        messages_max: draw.magnitude(100, 1_500),
    };
    (0..count).map(plan).collect()
}

fn consumers(draw: &mut Draw, streams: &[StreamPlan]) -> Vec<ConsumerPlan> {
    let mut plans = Vec::new();
    for (ordinal, stream) in streams.iter().enumerate() {
        // A work queue without a consumer is a plain stream.
        if stream.kind != StreamKind::WorkQueue && draw.coin() {
            continue;
        }
        let confirmed_percent = draw.between(0, 100);
        let refused_percent = draw.between(0, (100 - confirmed_percent) / 2);
        let ignored_percent = draw.between(0, (100 - confirmed_percent) / 2);
        plans.push(ConsumerPlan {
            stream: ordinal,
            name: format!("C{ordinal}"),
            batch: draw.magnitude(1, 64),
            ack_wait: Duration::from_millis(draw.magnitude(500, 4_000)),
            confirmed_percent,
            refused_percent,
            ignored_percent,
        });
    }
    plans
}

fn faults(draw: &mut Draw) -> FaultPlan {
    let quiet = draw.percent(10);
    let every = if quiet { 0 } else { draw.magnitude(100, 5_000) };
    FaultPlan {
        every: Duration::from_millis(every),
        kill: draw.coin(),
        power: draw.coin(),
        power_at_operation: draw.coin(),
        partition: draw.coin(),
        reset: draw.coin(),
        pause: draw.coin(),
        clock: draw.coin(),
        slow_disk: draw.coin(),
        full_disk: draw.percent(25),
        disk_errors: draw.percent(25),
    }
}

fn net(draw: &mut Draw) -> NetOptions {
    NetOptions {
        latency: Duration::from_micros(draw.magnitude(10, 5_000)),
        jitter: Duration::from_micros(draw.magnitude(1, 20_000)),
        window_bytes: usize::try_from(draw.magnitude(4 << 10, 1 << 20)).unwrap_or(4096),
        short_read_ppm: ppm(draw),
        short_write_ppm: ppm(draw),
        loss_ppm: ppm(draw) / 10,
        retransmit: Duration::from_millis(200),
    }
}

fn ppm(draw: &mut Draw) -> u32 {
    if draw.coin() {
        0
    } else {
        u32::try_from(draw.magnitude(100, 300_000)).unwrap_or(0)
    }
}

fn disk(draw: &mut Draw) -> DiskFaults {
    let shortest = Duration::from_micros(draw.magnitude(10, 500));
    DiskFaults {
        sync_time: (
            shortest,
            shortest + Duration::from_micros(draw.magnitude(10, 10_000)),
        ),
        stall_ppm: if draw.coin() { 0 } else { 10_000 },
        stall: Duration::from_millis(draw.magnitude(10, 2_000)),
        short_read_ppm: ppm(draw),
        ..DiskFaults::default()
    }
}
