//! Group commit: whatever waits is one batch, one write and one sync; then everybody in it is told.
//!
//! [`Wal`] is the handle that the groups share; a thread of its own runs [`run`]. While a batch is being synced the next
//! one gathers, so the slower the disk, the larger the batches.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use halyard_runtime::disk::{Disk, File};
use halyard_runtime::{random, time};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::end::{self, End};
use super::frames::Frames;
use super::image::GroupLog;
use super::record::{self, BATCH_ALIGN, Draft, Form, HEADER_BYTES, Head, Kind};
use super::scrub::{LogDamage, Scrub};
use super::segment::{self, HEADER_BLOCK, Segments};
use crate::cipher::Sealing;
use crate::error::Error;
use crate::ids::NodeId;
use crate::metrics::Counters;

/// A batch takes no more than this, so that it fits into a segment; a single longer record gets a batch of its own.
const BATCH_BYTES_MAX: u64 = 8 << 20;
/// How long a writer that finds no room waits before it tries again.
const NO_ROOM_RETRY: Duration = Duration::from_millis(50);

/// How the log is laid out.
#[derive(Clone)]
pub(crate) struct Layout {
    /// Bytes of a segment file, once the log has grown to that.
    pub(crate) segment_bytes: u64,
    /// Bytes of the very first segment, and of the shortest: a new server takes little and is ready at once.
    pub(crate) first_segment_bytes: u64,
    /// Seals record bodies, if the store is encrypted.
    pub(crate) cipher: Option<Arc<Sealing>>,
}

impl Layout {
    /// The format of new segments: a log without sealed records can be read by the releases before encryption.
    pub(crate) fn version(&self) -> u32 {
        match self.cipher {
            Some(_) => segment::VERSION,
            None => segment::VERSION_PLAIN,
        }
    }
}

/// The node's log. See the module `wal`.
pub(crate) struct Wal {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    /// Identity of this log, random.
    pub(crate) log: u64,
    pub(crate) node: NodeId,
    /// How often it was opened, this time included.
    pub(crate) boots: u64,
    pub(crate) layout: Layout,
    queue: Mutex<Queue>,
    work: Notify,
    pub(crate) segments: Mutex<Segments>,
    /// Held while a spare is being made, made longer or overwritten, so that nobody makes the same file.
    pub(crate) making: Mutex<()>,
    /// The logs of all groups, for writing checkpoints.
    pub(crate) logs: Mutex<BTreeMap<u32, Arc<GroupLog>>>,
    /// Wakes the keeper.
    pub(crate) upkeep: Notify,
    poison: OnceLock<Arc<Error>>,
    on_poison: Mutex<Vec<PoisonListener>>,
    /// True while there is no spare segment and none can be made.
    pub(crate) full: AtomicBool,
    /// How long spares are made by now.
    pub(crate) spare_bytes: AtomicU64,
    /// The writer goes on to a new segment with its next batch.
    pub(crate) roll: AtomicBool,
    /// Segments that hold anything before this position, and spares, are being overwritten; 0 = none is.
    pub(crate) retire_before: AtomicU64,
    /// Everything before this position was overwritten.
    pub(crate) wiped: AtomicU64,
    /// What stands before this position may not be sealed as it should be, and is being let go; 0 = nothing is.
    pub(crate) reseal_before: AtomicU64,
    /// True while something was synced after the last mark.
    pub(crate) unmarked: AtomicBool,
    /// Everything before this position is on disk.
    pub(crate) synced: AtomicU64,
    pub(crate) counters: Counters,
    /// How far verifying has come; locked for as long as it reads.
    pub(crate) scrub: Mutex<Scrub>,
    /// What verifying has found.
    pub(crate) damage: Mutex<Vec<LogDamage>>,
}

type PoisonListener = Box<dyn Fn(&Arc<Error>) + Send>;

#[derive(Default)]
struct Queue {
    items: Vec<Item>,
    closed: bool,
}

/// One record on its way to the disk.
pub(crate) struct Item {
    pub(crate) draft: Draft,
    /// Whose log the record is in, so that its place can be noted; with the index that it is about, where it is about one: that
    /// of an entry, the first void one of a truncation, the first needed one of a checkpoint.
    pub(crate) of: Option<(Arc<GroupLog>, Option<u64>)>,
    pub(crate) done: Done,
}

/// Called when a record is on disk, or has failed to get there.
pub(crate) type Completion = Box<dyn FnOnce(Result<(), Arc<Error>>) + Send + Sync>;

/// Who is told when a record is on disk.
pub(crate) enum Done {
    /// Nobody.
    Nobody,
    /// Whoever it is; once for each call that hands entries in.
    Call(Completion),
    /// A waiting task.
    Waiter(oneshot::Sender<Result<(), Arc<Error>>>),
}

impl Done {
    pub(crate) fn tell(self, outcome: &Result<(), Arc<Error>>) {
        match self {
            Self::Nobody => {}
            Self::Call(completion) => completion(outcome.clone()),
            Self::Waiter(waiter) => {
                // The waiter may have gone away, which is no error.
                let _ = waiter.send(outcome.clone());
            }
        }
    }
}

impl Wal {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        log: u64,
        node: NodeId,
        layout: Layout,
        segments: Segments,
        (synced, boots): (u64, u64),
    ) -> Self {
        assert!(
            segments.used.back().is_some_and(|last| last.end == synced),
            "the log goes on where its last segment ends"
        );
        assert!(
            segments
                .used
                .iter()
                .zip(segments.used.iter().skip(1))
                .all(|(a, b)| a.end == b.base),
            "each segment starts where the one before it ends"
        );
        let last = segments.used.back().map_or(0, |last| last.capacity);
        let spare_bytes = last
            .max(layout.first_segment_bytes)
            .min(layout.segment_bytes);
        Self {
            disk,
            dir,
            log,
            node,
            boots: boots + 1,
            layout,
            queue: Mutex::default(),
            work: Notify::new(),
            segments: Mutex::new(segments),
            making: Mutex::default(),
            logs: Mutex::default(),
            upkeep: Notify::new(),
            poison: OnceLock::new(),
            on_poison: Mutex::default(),
            full: AtomicBool::new(false),
            spare_bytes: AtomicU64::new(spare_bytes),
            roll: AtomicBool::new(false),
            retire_before: AtomicU64::new(0),
            wiped: AtomicU64::new(0),
            reseal_before: AtomicU64::new(0),
            unmarked: AtomicBool::new(false),
            synced: AtomicU64::new(synced),
            counters: Counters::default(),
            scrub: Mutex::default(),
            damage: Mutex::default(),
        }
    }

    /// Hands records in; they are written in the order of the calls. After the log has failed or was closed, every
    /// completion is called at once with the error.
    pub(crate) fn submit(&self, items: impl IntoIterator<Item = Item>) {
        let refused = {
            let mut queue = self.queue.lock();
            if !queue.closed {
                let was_empty = queue.items.is_empty();
                queue.items.extend(items);
                let wake = was_empty && !queue.items.is_empty();
                drop(queue);
                if wake {
                    self.work.notify_one();
                }
                return;
            }
            items
        };
        let outcome = Err(self.poisoned().unwrap_or_else(|| Arc::new(Error::Stopped)));
        refused
            .into_iter()
            .for_each(|item| item.done.tell(&outcome));
    }

    /// Reads the body of a record that was written: `body_bytes` long at `position`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when what stands there is not that record, [`Error::WrongKey`] when it does not open.
    pub(crate) fn read(&self, position: u64, body_bytes: u32) -> Result<Bytes, Error> {
        let (file, path, offset, rest) = {
            let segments = self.segments.lock();
            let Some(segment) = segments.at(position) else {
                let what = format!("no segment holds position {position}");
                return Err(Error::Corrupt {
                    file: self.dir.clone(),
                    offset: 0,
                    what,
                });
            };
            let offset = position - segment.base;
            assert!(
                offset < segment.capacity,
                "what a segment holds is in its file"
            );
            (
                Arc::clone(&segment.file),
                segment.path.clone(),
                offset,
                segment.capacity - offset,
            )
        };
        let sealing = match self.layout.cipher {
            Some(_) => Sealing::OVERHEAD_BYTES,
            None => 0,
        };
        // A record from before encryption was turned on is shorter, and may be the last in the file.
        let length = (HEADER_BYTES + body_bytes as usize + sealing)
            .min(usize::try_from(rest).unwrap_or(usize::MAX));
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset)
            .map_err(|source| Error::io("reading the log", &path, source))?;
        let record = match record::decode(&bytes, self.log as u32, position) {
            Ok(record) => record,
            Err(what) => {
                return Err(Error::Corrupt {
                    file: path,
                    offset,
                    what: what.to_owned(),
                });
            }
        };
        let form = record.header.form;
        if form == Form::Plain {
            let length = record.body.len();
            return Ok(Bytes::from(bytes).slice(HEADER_BYTES..HEADER_BYTES + length));
        }
        let context = record.header.context();
        let cipher = self.layout.cipher.as_deref();
        let opened = cipher.and_then(|cipher| cipher.open(form, position, &context, record.body));
        opened
            .map(|opened| Bytes::from(opened.body))
            .ok_or(Error::WrongKey { file: path, offset })
    }

    /// The failure after which nothing is written any more.
    pub(crate) fn poisoned(&self) -> Option<Arc<Error>> {
        self.poison.get().cloned()
    }

    /// Calls `tell` once the log has failed: now, if it has.
    pub(crate) fn when_poisoned(&self, tell: impl Fn(&Arc<Error>) + Send + 'static) {
        let mut listeners = self.on_poison.lock();
        match self.poison.get() {
            Some(error) => tell(error),
            None => listeners.push(Box::new(tell)),
        }
    }

    /// Nothing is written from now on, and everything that waits is told so.
    pub(crate) fn poison_with(&self, error: Error) {
        let error = self
            .poison
            .get_or_init(|| Arc::new(Error::Poisoned(Arc::new(error))))
            .clone();
        tracing::error!("{error}");
        for item in self.close() {
            item.done.tell(&Err(Arc::clone(&error)));
        }
        let listeners = std::mem::take(&mut *self.on_poison.lock());
        listeners.iter().for_each(|listener| listener(&error));
        self.upkeep.notify_one();
    }

    /// Takes no more records; returns those that were not taken by the writer yet.
    fn close(&self) -> Vec<Item> {
        let mut queue = self.queue.lock();
        queue.closed = true;
        std::mem::take(&mut queue.items)
    }

    /// Lets the writer finish what waits and end.
    pub(crate) fn shut_down(&self) {
        self.queue.lock().closed = true;
        self.work.notify_one();
        self.upkeep.notify_one();
    }

    /// Notes how far the log has come.
    pub(crate) fn note_end(&self, is_durable: bool) {
        let position = self.synced.load(Ordering::Acquire);
        let sequence = self.segments.lock().used.back().map(|last| last.sequence);
        let Some(sequence) = sequence else {
            return;
        };
        let note = End {
            log: self.log,
            sequence,
            position,
        };
        end::write(&self.disk, &self.dir, note, is_durable);
    }

    /// True when nothing more is taken.
    pub(crate) fn closed(&self) -> bool {
        self.queue.lock().closed
    }

    /// True when no record waits to be written.
    pub(crate) fn idle(&self) -> bool {
        self.queue.lock().items.is_empty()
    }
}

/// Where the next batch goes.
pub(crate) struct Tail {
    pub(crate) base: u64,
    pub(crate) capacity: u64,
    pub(crate) file: Arc<dyn File>,
    pub(crate) path: PathBuf,
    /// Offset in the file at which the next batch starts.
    pub(crate) offset: u64,
    /// crc of the last record.
    pub(crate) chain: u32,
}

impl Tail {
    pub(crate) fn position(&self) -> u64 {
        self.base + self.offset
    }
}

/// Writes batches until the log is shut down or poisoned.
pub(crate) async fn run(wal: Arc<Wal>, mut tail: Tail) {
    // The first record of each life is random: nothing that a crash left of an earlier life's un-synced tail continues it.
    let boot = record::boot_body(wal.boots, random::u64());
    let draft = Draft {
        kind: Kind::Mark,
        group: 0,
        head: Head::default(),
        payload: boot,
    };
    let mut waiting = VecDeque::from([Item {
        draft,
        of: None,
        done: Done::Nobody,
    }]);
    let mut frames = Frames::default();
    loop {
        let closed = {
            let mut queue = wal.queue.lock();
            waiting.extend(queue.items.drain(..));
            queue.closed
        };
        if waiting.is_empty() {
            if closed {
                wal.note_end(true);
                return;
            }
            wal.work.notified().await;
            continue;
        }
        let batch = next_batch(&mut waiting);
        let mut outcome = commit(&wal, &mut tail, &mut frames, &batch).await;
        if wal.poisoned().is_some() {
            outcome = Err(Error::Stopped);
        }
        if let Err(error) = outcome {
            wal.poison_with(error);
            let error = Err(wal.poisoned().unwrap_or_else(|| Arc::new(Error::Stopped)));
            batch
                .into_iter()
                .chain(waiting.drain(..))
                .for_each(|item| item.done.tell(&error));
            return;
        }
        note_places(&wal, &tail, &batch, &frames);
        batch.into_iter().for_each(|item| item.done.tell(&Ok(())));
    }
}

/// Everything that waits, up to the length of a batch.
fn next_batch(waiting: &mut VecDeque<Item>) -> Vec<Item> {
    let mut bytes = 0;
    let fits = waiting.iter().take_while(|item| {
        let first = bytes == 0;
        bytes += record::framed_bytes(item.draft.body_bytes());
        first || bytes <= BATCH_BYTES_MAX
    });
    let count = fits.count();
    assert!(count > 0, "what waits is at least one record");
    waiting.drain(..count).collect()
}

/// Writes one batch and syncs it. Moves on to the next segment first where the batch does not fit.
async fn commit(
    wal: &Wal,
    tail: &mut Tail,
    frames: &mut Frames,
    batch: &[Item],
) -> Result<(), Error> {
    let sealing = match wal.layout.cipher {
        Some(_) => Sealing::OVERHEAD_BYTES as u64,
        None => 0,
    };
    let framed = |item: &Item| record::framed_bytes(item.draft.body_bytes() + sealing);
    let bytes: u64 = batch
        .iter()
        .map(framed)
        .sum::<u64>()
        .next_multiple_of(BATCH_ALIGN);
    // Looked at first: left set where the batch does not fit either, it would have nobody to act on it.
    let roll = wal.roll.swap(false, Ordering::AcqRel);
    let fresh = roll || tail.offset + bytes > tail.capacity;
    let header = if fresh {
        let header = advance(wal, tail, bytes).await?;
        if !roll {
            super::keeper::grow(wal, tail.capacity);
        }
        Some(header)
    } else {
        None
    };
    frames.encode(wal, tail, batch);
    assert!(
        frames.bytes <= bytes && tail.offset + frames.bytes <= tail.capacity,
        "the room that was made is enough"
    );
    if let Some(header) = &header {
        frames.open_segment(header);
    }
    let from = if fresh { 0 } else { tail.offset };
    let begun = time::Instant::now();
    frames
        .write(&tail.file, from, batch)
        .map_err(|source| Error::io("writing the log", &tail.path, source))?;
    if halyard_runtime::planted("ack-before-sync") {
        let file = Arc::clone(&tail.file);
        drop(halyard_runtime::task::spawn(async move {
            time::sleep(Duration::from_millis(20)).await;
            file.sync().ok();
        }));
    } else {
        tail.file
            .sync()
            .map_err(|source| Error::io("syncing the log", &tail.path, source))?;
    }
    let cost = tail.file.sync_cost();
    if !cost.is_zero() {
        time::sleep(cost).await;
    }
    tail.offset += frames.bytes;
    tail.chain = frames.chain;
    let before = wal.synced.swap(tail.position(), Ordering::AcqRel);
    assert!(before < tail.position(), "what is on disk only grows");
    let marked = matches!(batch, [item] if item.draft.kind == Kind::Mark);
    if !wal.unmarked.swap(!marked, Ordering::AcqRel) && !marked {
        wal.upkeep.notify_one();
    }
    let took = time::Instant::now() - begun;
    wal.counters.batch(batch.len() as u64, frames.bytes, took);
    Ok(())
}

/// Makes the spare the segment that takes the batches; returns its header, to be written before the first of them.
async fn advance(wal: &Wal, tail: &mut Tail, bytes: u64) -> Result<segment::Header, Error> {
    let needed = HEADER_BLOCK + bytes;
    let base = tail.position();
    assert!(
        base.is_multiple_of(BATCH_ALIGN),
        "a segment starts where a batch may"
    );
    let header = loop {
        if let Some(segment) = wal.segments.lock().begin(base, needed) {
            let header = segment::Header {
                version: wal.layout.version(),
                log: wal.log,
                node: wal.node.0,
                sequence: segment.sequence,
                base,
                chain: tail.chain,
                salt: random::u64(),
                sectors: segment::sectors(segment.capacity),
                boots: wal.boots,
            };
            *tail = Tail {
                base,
                capacity: segment.capacity,
                file: Arc::clone(&segment.file),
                path: segment.path.clone(),
                offset: HEADER_BLOCK,
                chain: header.crc(),
            };
            // Before anything in it can be acknowledged: a file of this number is no spare any more.
            let note = End {
                log: wal.log,
                sequence: header.sequence,
                position: base,
            };
            end::write(&wal.disk, &wal.dir, note, true);
            break header;
        }
        match super::keeper::make_room(wal, needed) {
            Err(error) if error.passes() && !wal.closed() => {
                // Nothing has failed yet: what waits goes on waiting until there is space, or a file can be made.
                wal.full.store(true, Ordering::Release);
                time::sleep(NO_ROOM_RETRY).await;
            }
            made => made?,
        }
    };
    wal.upkeep.notify_one();
    Ok(header)
}

/// Notes where the batch's records stand, for readers and for letting segments go.
fn note_places(wal: &Wal, tail: &Tail, batch: &[Item], frames: &Frames) {
    let mut segments = wal.segments.lock();
    let segments = &mut *segments;
    let last = segments.used.back_mut();
    let last = last.expect("the batch went to a segment");
    assert!(
        last.base == tail.base && last.end < tail.position(),
        "the batch is the last of the last segment"
    );
    assert_eq!(
        batch.len(),
        frames.positions.len(),
        "each record has its place"
    );
    last.end = tail.position();
    for (item, position) in batch.iter().zip(&frames.positions) {
        let group = item.draft.group;
        match item.draft.kind {
            Kind::Normal | Kind::Blank | Kind::Membership => {
                let Some((log, Some(index))) = &item.of else {
                    continue;
                };
                let last = segments.used.back_mut();
                let last = last.expect("the batch went to a segment");
                let end = last.entries.entry(group).or_default();
                *end = (*end).max(index + 1);
                segments.groups.entry(group).or_default();
                if let Some(slot) = log.state.lock().slot_mut(*index) {
                    slot.position = *position;
                }
            }
            Kind::Checkpoint => {
                let marks = segments.groups.entry(group).or_default();
                assert!(
                    marks.checkpoint < *position,
                    "a newer checkpoint stands behind an older one"
                );
                marks.checkpoint = *position;
                if let Some((_, Some(start))) = &item.of {
                    marks.start = marks.start.max(*start);
                    wal.upkeep.notify_one();
                }
            }
            Kind::Truncate => {
                if let Some((_, Some(index))) = &item.of {
                    segments.void_from(group, *index);
                    wal.upkeep.notify_one();
                }
            }
            Kind::Vote => {
                segments.groups.entry(group).or_default();
            }
            Kind::Drop => {
                segments.groups.remove(&group);
                wal.upkeep.notify_one();
            }
            Kind::Mark => {
                if let Some(start) = record::start_of(&item.draft.payload) {
                    segments.start = segments.start.max(start);
                    wal.upkeep.notify_one();
                }
            }
        }
    }
}
