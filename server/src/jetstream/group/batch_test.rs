//! Atomic batches that come to nothing, and what is told of them.

use super::command::{self, Kind};
use super::machine_test::{Bench, S, SECOND, subjects, tell};
use crate::jetstream::config::StreamConfig;
use crate::jetstream::consumer::effect::{Abandoned, Effect};
use crate::jetstream::limits::BATCH_MESSAGES_MAX;

#[test]
fn a_batch_that_is_given_up_says_why() {
    let mut bench = Bench::with(StreamConfig {
        allow_atomic: true,
        max_msg_size: 90,
        ..subjects(&["s"])
    });
    let member = |bench: &mut Bench, seq: Option<&str>, more: &[(&str, &str)], size: usize| {
        let mut block = "NATS/1.0\r\nNats-Batch-Id: B\r\n".to_owned();
        for (name, value) in seq
            .map(|seq| ("Nats-Batch-Sequence", seq))
            .iter()
            .chain(more)
        {
            block += &format!("{name}: {value}\r\n");
        }
        block += "\r\n";
        let applied = bench.apply(|batch| {
            command::put_publish(batch, S, b"s", block.as_bytes(), &vec![0; size]);
            1
        });
        let why = applied.effects.iter().map(|(_, effect)| match effect {
            Effect::BatchAbandoned { batch, why } => {
                assert_eq!(&**batch, b"B");
                *why
            }
            other => panic!("{other:?}"),
        });
        (why.collect::<Vec<_>>(), tell(&applied.replies[0]))
    };
    let plain = |bench: &mut Bench, seq: &str| member(bench, Some(seq), &[], 1);
    let staged = (vec![], "Staged".to_owned());
    let incomplete = |why: Vec<Abandoned>| {
        let text = "10176 atomic publish batch is incomplete".to_owned();
        (why, text)
    };
    assert_eq!(plain(&mut bench, "7"), incomplete(vec![]));
    for gap in ["0", "1", "3", "1001"] {
        assert_eq!(plain(&mut bench, "1"), staged);
        let lost = plain(&mut bench, gap);
        assert_eq!(lost, incomplete(vec![Abandoned::Incomplete]), "{gap}");
        assert_eq!(plain(&mut bench, "2"), incomplete(vec![]), "{gap}");
    }
    // What is no member at all, or too large, may be sent once more.
    assert_eq!(plain(&mut bench, "1"), staged);
    let (why, said) = member(&mut bench, None, &[], 1);
    assert_eq!(
        (why, said.as_str()),
        (vec![], "10175 atomic publish sequence is missing")
    );
    let (why, said) = member(&mut bench, Some("2"), &[], 91);
    assert_eq!(why, []);
    assert!(said.starts_with("10054 "), "{said}");
    assert_eq!(plain(&mut bench, "2"), staged);
    let (why, said) = member(&mut bench, Some("3"), &[("Nats-Batch-Commit", "7")], 1);
    assert_eq!(
        (why, said.as_str()),
        (vec![], "10200 atomic publish batch commit is invalid")
    );
    assert_eq!(plain(&mut bench, "3"), incomplete(vec![]));
    assert_eq!(plain(&mut bench, "1"), staged);
    let (why, _) = member(
        &mut bench,
        Some("2"),
        &[("Nats-Required-Api-Level", "99")],
        1,
    );
    assert_eq!(why, [Abandoned::Unsupported]);
    for seq in 1..=BATCH_MESSAGES_MAX {
        assert_eq!(plain(&mut bench, &seq.to_string()), staged);
    }
    let (why, said) = plain(&mut bench, "1001");
    assert_eq!(
        (why, said.get(..6)),
        (vec![Abandoned::Large], Some("10199 "))
    );
    assert_eq!(plain(&mut bench, "1"), staged);
    bench.now += 11 * SECOND;
    let applied = bench.apply(|batch| {
        command::put(batch, Kind::Tick, S, &[]);
        1
    });
    let why = Abandoned::Timeout;
    let batch = b"B".as_slice().into();
    assert_eq!(
        applied.effects,
        [(S, Effect::BatchAbandoned { batch, why })]
    );
    assert!(bench.sequences().is_empty());
}
