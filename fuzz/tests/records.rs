//! Damaged and hostile records of a group and of its consumers, under sound checksums: reading ends in a value or an error, and
//! a machine that opened over them goes on, whatever they say.

use std::time::Duration;

use bolero::TypeGenerator;
use halyard_fuzz::group::{Op, World};
use halyard_server::jetstream::consumer::{Command, Consumer, Restored};
use halyard_server::jetstream::stream::dedupe::Dedupe;

/// What was there, what is changed of it, and what happens then.
#[derive(Clone, Debug, TypeGenerator)]
struct Life {
    before: Vec<Op>,
    changes: Vec<(u8, u16, u8)>,
    others: Vec<(Vec<u8>, Vec<u8>)>,
    after: Vec<Op>,
}

#[test]
fn records() {
    bolero::check!()
        .with_iterations(200)
        .with_shrink_time(Duration::from_secs(10))
        .with_type::<Life>()
        .for_each(|life| {
            let mut world = World::default();
            for op in &life.before {
                world.step(op);
            }
            if world.tamper(&life.changes, &life.others) {
                for op in life.after.iter().chain(&[Op::Flush]) {
                    world.endure(op);
                }
            }
        });
}

#[test]
fn consumer_records() {
    bolero::check!()
        .with_iterations(20_000)
        .for_each(|bytes: &[u8]| {
            if let Ok(consumer) = Consumer::decode(1, bytes) {
                let again = consumer.encode();
                assert_eq!(Consumer::decode(1, &again).as_ref(), Ok(&consumer));
            }
            if let Ok(restored) = Restored::decode(bytes) {
                assert_eq!(
                    Restored::decode(&restored.to_bytes()).as_ref(),
                    Ok(&restored)
                );
            }
            if let Ok(command) = Command::decode(bytes) {
                assert_eq!(Command::decode(&command.to_bytes()).as_ref(), Ok(&command));
            }
            let mut ids = Dedupe::new(1_000_000_000);
            if ids.load(7, bytes) {
                assert!(ids.len() <= bytes.len());
            }
        });
}
