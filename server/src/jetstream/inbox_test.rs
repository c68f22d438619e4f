//! The proposal queue: shares, order, bounds and who is woken.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use halyard_runtime::time::Timestamp;

use super::super::group::command::{Batch, Command};
use super::super::limits::{INBOX_BYTES_MAX, TURN_BYTES};
use super::*;
use crate::broker::{FlushScope, Origin, Publisher};

const NO_LIMIT: usize = usize::MAX;

fn inbox() -> Arc<Inbox> {
    Inbox::new(Admission::new(1 << 30))
}

fn put(inbox: &Arc<Inbox>, stream: u64, client: u64, payload: &[u8]) -> Result<(), Full> {
    let subject = format!("s{stream}.c{client}");
    let publisher = Publisher::new(ClientId(client));
    let message = Publish::new(subject.as_bytes(), payload)
        .with_reply(Some(b"r"))
        .with_origin(Origin::Client(&publisher));
    inbox.publish(StreamId(stream), &message, true)
}

/// Stream, subject and length of each message of the next entry.
fn next(inbox: &Inbox) -> Vec<(u64, String, usize)> {
    let Some(mut batch) = inbox.take(None, NO_LIMIT) else {
        return Vec::new();
    };
    assert_eq!(batch.replies.len(), batch.waiters.len(), "one letter each");
    let promised = batch.entry_bytes();
    let entry = batch.seal(Timestamp::EPOCH);
    assert_eq!(entry.len(), promised);
    let read = Batch::open(&entry).expect("a batch");
    let of = |command| match command {
        Ok(Command::Publish(publish)) => {
            let subject = String::from_utf8_lossy(publish.subject()).into_owned();
            (publish.stream.0, subject, publish.size())
        }
        other => panic!("a publish was put, not {other:?}"),
    };
    read.map(of).collect()
}

fn flood(inbox: &Arc<Inbox>, clients: std::ops::RangeInclusive<u64>, rounds: usize, bytes: usize) {
    let payload = vec![0; bytes];
    for _ in 0..rounds {
        for client in clients.clone() {
            put(inbox, 1, client, &payload).expect("room");
        }
    }
}

#[test]
fn behind_a_flood_others_are_next() {
    let inbox = inbox();
    flood(&inbox, 1..=20, 2, 1 << 20);
    put(&inbox, 2, 50, b"small").expect("never refused");
    put(&inbox, 1, 60, b"small too").expect("never refused");
    next(&inbox);
    let second: Vec<String> = (0..2)
        .flat_map(|_| next(&inbox))
        .map(|(_, who, _)| who)
        .collect();
    assert!(
        second.contains(&"s2.c50".to_owned()),
        "another stream: {second:?}"
    );
    let all: Vec<String> = (0..6)
        .flat_map(|_| next(&inbox))
        .map(|(_, who, _)| who)
        .collect();
    let before = second.iter().chain(&all).position(|who| who == "s1.c60");
    assert!(
        before.is_some_and(|before| before < 8),
        "the same stream: {second:?} {all:?}"
    );
}

#[test]
fn one_connection_stays_in_order() {
    let inbox = inbox();
    let mut expected = Vec::new();
    for length in 0..300 {
        put(&inbox, 1, 7, &vec![0; 20_000 + length]).expect("room");
        put(&inbox, 1, 8, &vec![0; 20_000 + length]).expect("room");
        expected.push(20_000 + length);
    }
    let mut taken = Vec::new();
    loop {
        let batch = next(&inbox);
        if batch.is_empty() {
            break;
        }
        taken.extend(batch);
    }
    for who in ["s1.c7", "s1.c8"] {
        let of = taken.iter().filter(|(_, subject, _)| subject == who);
        let lengths: Vec<usize> = of.map(|(_, _, length)| *length).collect();
        assert_eq!(lengths, expected);
    }
    assert_eq!(inbox.waiting(), 0);
}

#[test]
fn what_is_refused_is_the_flood() {
    let inbox = inbox();
    let payload = vec![0; 1 << 20];
    let mut refused = 0;
    for _ in 0..2 * INBOX_BYTES_MAX / payload.len() {
        refused += usize::from(put(&inbox, 1, 1, &payload).is_err());
    }
    assert!(refused > 0, "a bound");
    assert!(inbox.waiting() < INBOX_BYTES_MAX + (8 << 20));
    put(&inbox, 2, 2, &payload).expect("another stream");
    put(&inbox, 1, 3, &payload).expect("another connection");
    assert!(put(&inbox, 1, 1, &payload).is_err());
}

#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_flooding_connection_pauses_until_its_messages_have_gone() {
    let inbox = inbox();
    flood(&inbox, 1..=1, 2, 1 << 20);
    let scope = FlushScope::new();
    put(&inbox, 2, 5, b"small").expect("room");
    assert_eq!(scope.finish().pressure, Pressure::Low, "not a flood");
    let scope = FlushScope::new();
    flood(&inbox, 1..=1, 2, 1 << 20);
    let pressed = scope.finish();
    assert_eq!(pressed.pressure, Pressure::Full);
    let [(_, crowd)] = &pressed.sinks[..] else {
        panic!("one sink");
    };
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    assert!(crowd.is_pressed(&waker));
    let mut entries = 0;
    while bell.0.load(Ordering::Relaxed) == 0 {
        assert!(!next(&inbox).is_empty(), "it is woken before all has gone");
        entries += 1;
    }
    assert!(entries > 1);
    assert!(!crowd.is_pressed(&waker));
}

#[test]
fn a_closed_inbox_lets_its_connections_go() {
    let inbox = inbox();
    let scope = FlushScope::new();
    flood(&inbox, 1..=1, 5, 1 << 20);
    let pressed = scope.finish();
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    assert!(
        pressed
            .sinks
            .iter()
            .all(|(_, sink)| sink.is_pressed(&waker))
    );
    inbox.close();
    assert_eq!(bell.0.load(Ordering::Relaxed), 1);
    assert_eq!(put(&inbox, 1, 1, b"x"), Err(Full));
}

#[test]
fn marks_wait_for_their_stream_only() {
    let inbox = inbox();
    flood(&inbox, 1..=2, 4, 1 << 20);
    put(&inbox, 2, 5, b"small").expect("room");
    let mut of_all = Box::pin(inbox.caught_up(None));
    let mut of_small = Box::pin(inbox.caught_up(Some(StreamId(2))));
    let mut cx = std::task::Context::from_waker(Waker::noop());
    assert!(of_all.as_mut().poll(&mut cx).is_pending());
    assert!(of_small.as_mut().poll(&mut cx).is_pending());
    let mut taken = 0;
    while of_small.as_mut().poll(&mut cx).is_pending() {
        assert!(inbox.take(None, NO_LIMIT).is_some());
        taken += 1;
    }
    assert!(taken <= 3, "{taken}");
    assert!(
        of_all.as_mut().poll(&mut cx).is_pending(),
        "the flood waits"
    );
    while inbox.take(None, NO_LIMIT).is_some() {}
    assert!(of_all.as_mut().poll(&mut cx).is_ready());
}

#[test]
fn a_batch_of_many_parts_gives_up_its_messages() {
    let inbox = inbox();
    flood(&inbox, 1..=4, 2, TURN_BYTES * 20);
    next(&inbox);
    inbox.submit(Kind::Tick, StreamId(0), &[], Waiter::Tick);
    let mut batch = inbox.take(None, NO_LIMIT).expect("a batch");
    assert!(batch.has_messages());
    let messages = batch.take_messages();
    assert!(messages.has_messages() && !batch.has_messages());
    assert_eq!(batch.waiters.len(), 1);
    assert_eq!(messages.waiters.len(), messages.replies.len());
}

#[test]
fn an_entry_is_no_longer_than_its_room() {
    let inbox = inbox();
    flood(&inbox, 1..=4, 2, 1 << 20);
    next(&inbox);
    inbox.submit(Kind::Tick, StreamId(0), &[], Waiter::Tick);
    let batch = inbox.take(None, 1000).expect("the tick");
    assert_eq!((batch.waiters.len(), batch.has_messages()), (1, false));
    assert!(inbox.take(None, 1000).is_none());
    assert!(!inbox.poll_filled(Waker::noop(), 1000));
    assert!(inbox.poll_filled(Waker::noop(), NO_LIMIT));
}
