//! Hostile clients of streams: whatever passes the doors of the API, and whatever bytes a log entry holds, a group's machine
//! goes on: nothing panics, no stream halts, a restart decides the same, and so does a replica.

use std::time::Duration;

use bolero::TypeGenerator;
use halyard_fuzz::group::{Op, World};

/// What is done.
#[derive(Clone, Debug, TypeGenerator)]
struct Life(Vec<Op>);

#[test]
fn group_machine() {
    bolero::check!()
        .with_iterations(400)
        .with_shrink_time(Duration::from_secs(10))
        .with_type::<Life>()
        .for_each(|Life(ops)| {
            let mut world = World::default();
            for op in ops {
                world.step(op);
            }
            world.step(&Op::Flush);
            world.step(&Op::Restart);
        });
}
