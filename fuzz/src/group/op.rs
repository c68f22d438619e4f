//! What happens to the machine, and the shapes of what clients send.

use bolero::TypeGenerator;
use serde_json::{Map, Value, json};

use crate::number::Number;

/// One step.
#[derive(Clone, Debug, TypeGenerator)]
#[expect(missing_docs, reason = "the fields are those of the requests")]
pub enum Op {
    Create {
        stream: u8,
        config: StreamShape,
    },
    Update {
        stream: u8,
        config: StreamShape,
    },
    Delete {
        stream: u8,
    },
    Publish {
        stream: u8,
        subject: u8,
        headers: Vec<Header>,
        body: u8,
    },
    Purge {
        stream: u8,
        filter: u8,
        below: Number,
        keep: Number,
    },
    MessageDelete {
        stream: u8,
        seq: Number,
        erase: bool,
    },
    Consumer {
        stream: u8,
        name: u8,
        action: u8,
        config: ConsumerShape,
    },
    ConsumerDelete {
        stream: u8,
        consumer: u8,
    },
    Pull {
        stream: u8,
        consumer: u8,
        grants: Vec<(Number, Number)>,
    },
    Ack {
        stream: u8,
        consumer: u8,
        /// Which of those that wait; another number otherwise.
        pending: Option<u8>,
        seq: Number,
        consumer_seq: Number,
        verb: u8,
        delay: Number,
    },
    Progress {
        stream: u8,
        consumer: u8,
        consumer_seq: Number,
        stream_seq: Number,
    },
    Pause {
        stream: u8,
        consumer: u8,
        until: Number,
    },
    Restore {
        stream: u8,
        config: StreamShape,
        backup: Backup,
    },
    Erased {
        up_to: Number,
    },
    /// The leader's clock moves by so much, then a tick.
    Tick(Number),
    /// The leader's clock is that.
    Clock(Number),
    Flush,
    Maintain,
    Restart,
    /// Everything is asked that can be asked of a stream.
    Read {
        stream: u8,
        seq: Number,
        time: Number,
    },
    /// A command of any bytes.
    Raw {
        kind: u8,
        stream: u8,
        body: Vec<u8>,
    },
}

/// The fields of a stream's configuration in which numbers stand, and some that change what they do.
#[derive(Clone, Debug, TypeGenerator)]
pub struct StreamShape {
    pub subjects: u8,
    pub retention: u8,
    pub discard: bool,
    pub flags: u16,
    /// Which of the numbers are there: with all of them hardly any configuration is legal.
    pub which: (u8, u8),
    pub first_seq: Option<Number>,
    pub max_msgs: Option<Number>,
    pub max_bytes: Option<Number>,
    pub max_age: Option<Number>,
    pub per_subject: Option<Number>,
    pub max_msg_size: Option<Number>,
    pub duplicate_window: Option<Number>,
    pub max_consumers: Option<Number>,
    pub marker_ttl: Option<Number>,
}

/// The same of a consumer.
#[derive(Clone, Debug, TypeGenerator)]
pub struct ConsumerShape {
    pub deliver_policy: u8,
    pub ack_policy: u8,
    pub filter: u8,
    pub push: bool,
    /// As of a stream.
    pub which: (u8, u8),
    pub opt_start_seq: Option<Number>,
    pub opt_start_time: Option<Number>,
    pub ack_wait: Option<Number>,
    pub max_deliver: Option<Number>,
    pub max_ack_pending: Option<Number>,
    pub backoff: Vec<Number>,
    pub pause_until: Option<Number>,
    pub inactive_threshold: Option<Number>,
}

/// One header of a message.
#[derive(Clone, Debug, TypeGenerator)]
pub enum Header {
    MsgId(u8),
    ExpectedLast(Number),
    ExpectedLastSubject(Number),
    ExpectedSubject(u8),
    Rollup(bool),
    Ttl(Number),
    TtlNever,
    Batch { id: u8, seq: u8, commit: u8 },
    BatchSeq(Number),
}

/// A backup, as an archive may state it.
#[derive(Clone, Debug, TypeGenerator)]
pub struct Backup {
    pub first_seq: Number,
    pub last_seq: Number,
    pub messages: Vec<(Number, Number, u8, Option<Header>)>,
    pub deleted: Vec<Number>,
    pub consumers: Vec<(ConsumerShape, ConsumerState)>,
}

/// How far a consumer of a backup got.
#[derive(Clone, Debug, TypeGenerator)]
pub struct ConsumerState {
    pub delivered: (Number, Number),
    pub floor: (Number, Number),
    pub pending: Vec<(Number, Number, Number)>,
    pub redelivered: Vec<(Number, Number)>,
    pub first: Vec<Number>,
    pub next: Number,
}

/// Subjects that messages have.
pub(super) const SUBJECTS: [&str; 4] = ["a", "a.b", "a.c", "b.c"];
/// Filters over them.
pub(super) const FILTERS: [&str; 6] = ["", "a.*", "a.b", "a.>", "*.c", "none"];

/// One of a few.
pub(super) fn pick<T: Copy>(all: &[T], number: u8) -> T {
    all.get(usize::from(number) % all.len())
        .copied()
        .unwrap_or(all[0])
}

/// Puts the one or two that are chosen.
fn put(map: &mut Map<String, Value>, which: (u8, u8), all: &[(&str, Option<Number>)]) {
    let chosen = [which.0, which.1].map(|one| usize::from(one) % all.len());
    for (at, (name, number)) in all.iter().enumerate() {
        if let Some(number) = number.filter(|_| chosen.contains(&at)) {
            map.insert((*name).to_owned(), number.i64().into());
        }
    }
}

impl StreamShape {
    /// The configuration as a request has it.
    #[must_use]
    pub fn json(&self, name: &str) -> Value {
        let flag = |bit: u16| self.flags & (1 << bit) != 0;
        let all: &[&str] = match self.subjects % 3 {
            0 => &[">"],
            1 => &["a.>", "a", "b.*"],
            _ => &["a.*"],
        };
        let Value::Object(mut map) = json!({
            "name": name,
            "subjects": all.iter().map(|one| format!("{name}.{one}")).collect::<Vec<_>>(),
            "retention": pick(&["limits", "interest", "workqueue"], self.retention),
            "discard": if self.discard { "new" } else { "old" },
            "allow_rollup_hdrs": flag(0),
            "allow_msg_ttl": flag(1),
            "allow_atomic": flag(2),
            "discard_new_per_subject": flag(3) && flag(12) && self.discard,
            "deny_delete": flag(4) && flag(5),
            "deny_purge": flag(6) && flag(7),
            "sealed": flag(8) && flag(9) && flag(10),
            "compression": if flag(11) { "s2" } else { "none" },
        }) else {
            return Value::Null;
        };
        if let Some(first) = self.first_seq {
            map.insert("first_seq".to_owned(), first.u64().into());
        }
        let numbers = [
            ("max_msgs", self.max_msgs),
            ("max_bytes", self.max_bytes),
            ("max_age", self.max_age),
            ("max_msgs_per_subject", self.per_subject),
            ("max_msg_size", self.max_msg_size),
            ("duplicate_window", self.duplicate_window),
            ("max_consumers", self.max_consumers),
            ("subject_delete_marker_ttl", self.marker_ttl),
        ];
        put(&mut map, self.which, &numbers);
        Value::Object(map)
    }
}

impl ConsumerShape {
    /// The configuration as a request has it.
    #[must_use]
    pub fn json(&self, stream: &str, name: &str) -> Value {
        let policies = [
            "all",
            "last",
            "new",
            "by_start_sequence",
            "by_start_time",
            "last_per_subject",
        ];
        let Value::Object(mut map) = json!({
            "name": name,
            "durable_name": name,
            "deliver_policy": pick(&policies, self.deliver_policy),
            "ack_policy": pick(&["explicit", "all", "none"], self.ack_policy),
            "backoff": self.backoff.iter().take(usize::from(self.which.0 % 3)).map(|wait| wait.i64()).collect::<Vec<_>>(),
        }) else {
            return Value::Null;
        };
        let filter = pick(&FILTERS, self.filter);
        if !filter.is_empty() {
            map.insert(
                "filter_subject".to_owned(),
                format!("{stream}.{filter}").into(),
            );
        }
        if self.push {
            map.insert("deliver_subject".to_owned(), "to".into());
        }
        let starts = pick(&policies, self.deliver_policy);
        if let Some(seq) = self.opt_start_seq.filter(|_| starts == "by_start_sequence") {
            map.insert("opt_start_seq".to_owned(), seq.u64().into());
        }
        let time = |number: Number| {
            use halyard_server::jetstream::api::timestamp;
            timestamp::format(halyard_runtime::time::Timestamp::from_nanos(number.i64()))
        };
        let start_time = self.opt_start_time.filter(|_| starts == "by_start_time");
        for (name, number) in [
            ("opt_start_time", start_time),
            ("pause_until", self.pause_until),
        ] {
            if let Some(number) = number {
                map.insert(name.to_owned(), time(number).into());
            }
        }
        let numbers = [
            ("ack_wait", self.ack_wait),
            ("max_deliver", self.max_deliver),
            ("max_ack_pending", self.max_ack_pending),
            ("inactive_threshold", self.inactive_threshold),
        ];
        put(&mut map, self.which, &numbers);
        Value::Object(map)
    }
}

impl Header {
    /// Its lines.
    pub(super) fn write(&self, stream: &str, block: &mut String) {
        use std::fmt::Write as _;
        let written = match self {
            Self::MsgId(id) => write!(block, "Nats-Msg-Id: {}\r\n", id % 4),
            Self::ExpectedLast(seq) => {
                write!(block, "Nats-Expected-Last-Sequence: {}\r\n", seq.u64())
            }
            Self::ExpectedLastSubject(seq) => {
                write!(
                    block,
                    "Nats-Expected-Last-Subject-Sequence: {}\r\n",
                    seq.u64()
                )
            }
            Self::ExpectedSubject(filter) => {
                let filter = pick(&FILTERS, *filter);
                write!(
                    block,
                    "Nats-Expected-Last-Subject-Sequence-Subject: {stream}.{filter}\r\n"
                )
            }
            Self::Rollup(all) => {
                let what = if *all { "all" } else { "sub" };
                write!(block, "Nats-Rollup: {what}\r\n")
            }
            Self::Ttl(seconds) => write!(block, "Nats-TTL: {}\r\n", seconds.u64()),
            Self::TtlNever => write!(block, "Nats-TTL: never\r\n"),
            Self::Batch { id, seq, commit } => {
                let commit = match commit % 4 {
                    0 => "Nats-Batch-Commit: 1\r\n",
                    1 => "Nats-Batch-Commit: eob\r\n",
                    _ => "",
                };
                write!(
                    block,
                    "Nats-Batch-Id: {}\r\nNats-Batch-Sequence: {}\r\n{commit}",
                    id % 2,
                    seq % 8,
                )
            }
            Self::BatchSeq(seq) => write!(
                block,
                "Nats-Batch-Id: 1\r\nNats-Batch-Sequence: {}\r\n",
                seq.u64()
            ),
        };
        written.expect("a string takes everything");
    }
}
