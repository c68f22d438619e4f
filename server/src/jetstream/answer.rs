//! Answers of one applied entry: acknowledgements to publishers, results to callers, news to the consumers' leader.

use std::collections::BTreeSet;
use std::sync::Arc;

use halyard_engine::StreamId;

use super::api::errors::{ApiError, table};
use super::consumer::leader::Leader;
use super::group::{Applied, Reply};
use super::handle::{GroupHandle, StreamHandle};
use super::inbox::{Gathered, Waiter};
use crate::broker::Publish;
use crate::jetstream::plain;

/// Gives answers, keeping its buffers from entry to entry.
pub(super) struct Answers {
    group: Arc<GroupHandle>,
    /// The stream of the last publish: most batches are of one stream.
    last: Option<Arc<StreamHandle>>,
    body: Vec<u8>,
    stored: BTreeSet<StreamId>,
}

impl Answers {
    pub(super) fn new(group: Arc<GroupHandle>) -> Self {
        Self {
            group,
            last: None,
            body: Vec::with_capacity(256),
            stored: BTreeSet::new(),
        }
    }

    /// Pairs the replies of an entry with those who wait. Runs inside a flush scope.
    pub(super) fn give(
        &mut self,
        gathered: &mut Gathered,
        applied: Applied,
        leader: &mut Leader,
        tick_in_flight: &mut bool,
    ) {
        // First of all: whoever is answered may use the consumer at once.
        leader.effects(&applied.effects);
        let mut at = 0;
        let replies = std::mem::take(&mut gathered.replies);
        let mut outcomes = applied.replies.into_iter();
        for waiter in gathered.waiters.drain(..) {
            let outcome = outcomes.next().unwrap_or(Reply::Unknown);
            match waiter {
                Waiter::Publisher(stream, len) => {
                    let reply = replies.get(at..at + usize::from(len));
                    let reply = reply.expect("each publisher has its reply subject");
                    at += usize::from(len);
                    self.answer_publisher(stream, reply, &outcome);
                }
                Waiter::Call(caller) => {
                    // The caller may have given up.
                    caller.send(outcome).ok();
                }
                Waiter::Consumer(token) => leader.applied(token, outcome),
                Waiter::Tick => *tick_in_flight = false,
            }
        }
        gathered.replies = replies;
        self.last = None;
        for stream in std::mem::take(&mut self.stored) {
            leader.stored(stream);
        }
    }

    /// Nothing of the batch was written, and everybody is told.
    pub(super) fn refuse(
        &mut self,
        gathered: &mut Gathered,
        refusal: &ApiError,
        leader: &mut Leader,
    ) {
        let refuse = || Reply::Refused(Box::new(refusal.clone()));
        let replies = gathered.waiters.iter().map(|_| refuse()).collect();
        let effects = Vec::new();
        let mut tick = false;
        self.give(gathered, Applied { replies, effects }, leader, &mut tick);
    }

    fn answer_publisher(&mut self, stream: StreamId, reply: &[u8], outcome: &Reply) {
        if let Reply::Stored(_) | Reply::Batch { .. } = outcome {
            self.stored.insert(stream);
        }
        if reply.is_empty() {
            return;
        }
        if self.last.as_ref().is_none_or(|last| last.id() != stream) {
            self.last = self.group.stream(stream);
        }
        let Some(handle) = &self.last else {
            return;
        };
        self.body.clear();
        match outcome {
            Reply::Stored(seq) => put_ack(&mut self.body, handle.ack_prefix(), *seq, false),
            Reply::Duplicate(seq) => put_ack(&mut self.body, handle.ack_prefix(), *seq, true),
            Reply::Staged => {}
            Reply::Batch { last, count, id } => {
                put_ack(&mut self.body, handle.ack_prefix(), *last, false);
                self.body.pop();
                let id = String::from_utf8_lossy(id);
                let tail = format!(
                    ",\"batch\":{},\"count\":{count}}}",
                    serde_json::Value::from(&*id)
                );
                self.body.extend_from_slice(tail.as_bytes());
            }
            Reply::Refused(refusal) => put_refusal(&mut self.body, refusal, handle.name()),
            Reply::NoStream => put_refusal(
                &mut self.body,
                &table::STREAM_NOT_FOUND.error(),
                handle.name(),
            ),
            _ => return,
        }
        handle.account().publish(&Publish::new(reply, &self.body));
    }
}

/// `{"stream":"S","seq":7}`, or with `"duplicate": true`.
fn put_ack(body: &mut Vec<u8>, prefix: &[u8], seq: u64, duplicate: bool) {
    body.extend_from_slice(prefix);
    put_number(body, seq);
    body.extend_from_slice(if duplicate {
        b",\"duplicate\": true}"
    } else {
        b"}"
    });
}

/// `{"error":{...},"stream":"S","seq":0}`.
pub(super) fn put_refusal(body: &mut Vec<u8>, refusal: &ApiError, stream: &str) {
    #[derive(serde::Serialize)]
    struct Refused<'a> {
        error: &'a ApiError,
        stream: &'a str,
        seq: u64,
    }
    let answer = Refused {
        error: refusal,
        stream,
        seq: 0,
    };
    body.extend_from_slice(&plain::json(&answer));
}

/// Decimal digits.
fn put_number(body: &mut Vec<u8>, number: u64) {
    let mut digits = [0_u8; 20];
    let mut rest = number;
    let mut start = digits.len();
    for place in digits.iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
        start -= 1;
        if rest == 0 {
            break;
        }
    }
    body.extend_from_slice(digits.get(start..).expect("at most 20 digits"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_are_the_wires() {
        let mut body = Vec::new();
        put_ack(&mut body, br#"{"stream":"S","seq":"#, 1209, false);
        assert_eq!(body, br#"{"stream":"S","seq":1209}"#);
        body.clear();
        put_ack(&mut body, br#"{"stream":"S","seq":"#, 0, true);
        assert_eq!(body, br#"{"stream":"S","seq":0,"duplicate": true}"#);
        body.clear();
        put_number(&mut body, u64::MAX);
        assert_eq!(body, u64::MAX.to_string().as_bytes());
    }
}
