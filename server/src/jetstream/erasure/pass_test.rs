//! Passes over a node that is played by the test.

use super::*;

const WITHIN: Duration = Duration::from_secs(60);

/// A node with two groups; what an action asks for happens when the test says so.
struct Played {
    eraser: Eraser,
    sight: Sight,
    now: Instant,
    orders: Vec<Action>,
}

impl Played {
    fn new() -> Self {
        let mut eraser = Eraser::new(WITHIN);
        eraser.is_up();
        let look = Look {
            applied: 10,
            durable: 10,
            flushes: 1,
            ..Look::default()
        };
        Self {
            eraser,
            sight: Sight {
                groups: vec![look, look],
                ..Sight::default()
            },
            now: Instant::now(),
            orders: Vec::new(),
        }
    }

    fn group(&mut self, group: usize) -> &mut Look {
        self.sight.groups.get_mut(group).expect("one of two")
    }

    /// An entry erases something in a group.
    fn ask(&mut self, group: usize) -> u64 {
        let look = self.group(group);
        look.applied += 1;
        look.asked = Some(look.applied);
        look.applied
    }

    /// Time passes, then there is a look.
    fn after(&mut self, wait: Duration) -> Vec<Action> {
        self.now += wait;
        self.orders = self.eraser.step(self.now, &self.sight);
        self.orders.clone()
    }

    fn at_once(&mut self) -> Vec<Action> {
        self.after(Duration::from_millis(20))
    }

    /// Flushes what was ordered, up to what is applied.
    fn flush(&mut self) {
        for order in self.orders.clone() {
            if let Action::Flush(group, entry) = order {
                let look = self.group(group);
                assert!(look.applied >= entry);
                look.durable = look.applied;
                look.flushes += 1;
            }
        }
    }
}

const HALF: Duration = Duration::from_secs(30);

#[test]
fn an_idle_node_is_left_alone() {
    let mut node = Played::new();
    for _ in 0..5 {
        assert_eq!(node.after(WITHIN), []);
        assert_eq!(node.eraser.sleeps(node.now, POLL), None);
    }
}

const POLL: Duration = Duration::from_millis(20);

#[test]
fn a_pass_goes_step_by_step_and_is_shared() {
    let mut node = Played::new();
    node.ask(0);
    assert_eq!(node.at_once(), []);
    assert_eq!(node.eraser.stage(0, &node.sight.groups[0]), Stage::Waiting);
    let last = node.ask(0);
    assert_eq!(node.after(HALF - Duration::from_secs(1)), []);
    assert_eq!(node.after(Duration::from_secs(1)), [Action::RetireLog]);
    assert_eq!(node.eraser.stage(0, &node.sight.groups[0]), Stage::Flush);

    // The log has entries of the meta group and of the other group, too.
    node.sight.holders = vec![(0, last), (1, 10)];
    node.sight.holds_meta = true;
    node.group(1).durable = 7;
    let orders = [
        Action::FlushMeta,
        Action::Flush(0, last),
        Action::Flush(1, 10),
    ];
    assert_eq!(node.at_once(), orders);
    node.flush();
    (node.sight.holders, node.sight.holds_meta) = (Vec::new(), false);
    node.group(0).left.segments = 2;
    assert_eq!(node.at_once(), [Action::Rewrite(0, 2)]);
    assert_eq!(node.eraser.flush_of(0), Some(2));
    assert_eq!(node.eraser.flush_of(1), None);
    assert_eq!(node.eraser.stage(0, &node.sight.groups[0]), Stage::Segments);
    node.group(0).left = ErasureProgress {
        files: 1,
        ..ErasureProgress::default()
    };
    assert_eq!(node.at_once(), [Action::Rewrite(0, 2)]);
    assert_eq!(node.eraser.stage(0, &node.sight.groups[0]), Stage::Files);
    node.group(0).left = ErasureProgress::default();
    assert_eq!(node.at_once(), [Action::Rewrite(0, 2)]);
    assert_eq!(node.eraser.stage(0, &node.sight.groups[0]), Stage::Log);
    node.sight.is_log_retired = true;
    let orders = [Action::Rewrite(0, 2), Action::Confirm(0, last)];
    assert_eq!(node.at_once(), orders);
    node.group(0).asked = None;
    assert_eq!(node.at_once(), []);
    assert_eq!(node.eraser.passes(), 1);
    assert_eq!(node.eraser.sleeps(node.now, POLL), None);
}

#[test]
fn what_comes_during_a_pass_waits_for_the_next_and_keeps_its_bound() {
    let mut node = Played::new();
    let first = node.ask(0);
    node.at_once();
    node.after(HALF);
    assert_eq!(node.orders, [Action::RetireLog]);
    let second = node.ask(0);
    assert_eq!(node.at_once(), [Action::Flush(0, first)]);
    node.flush();
    node.sight.is_log_retired = true;
    // The pass takes ten seconds.
    node.group(0).left.segments = 1;
    assert_eq!(node.after(Duration::from_secs(10)), [Action::Rewrite(0, 2)]);
    node.group(0).left.segments = 0;
    let orders = node.at_once();
    assert_eq!(orders.last(), Some(&Action::Confirm(0, first)));
    assert_eq!(node.eraser.sleeps(node.now, POLL), Some(POLL));
    // The second request is younger than the beginning of that pass: half a bound after it the next begins.
    assert_eq!(node.group(0).asked, Some(second));
    assert_eq!(node.after(Duration::from_secs(19)), []);
    assert_eq!(node.after(Duration::from_secs(1)), [Action::RetireLog]);
}

#[test]
fn nobody_waits_for_a_flush_of_what_no_store_hears_of() {
    let mut node = Played::new();
    node.eraser = Eraser::new(WITHIN);
    let last = node.ask(0);
    assert_eq!(node.at_once(), [Action::RetireLog]);
    // Behind the request stands the entry with which a new life begins: it has no payload, and is not applied.
    node.sight.holders = vec![(0, last + 1)];
    assert_eq!(node.at_once(), [Action::Flush(0, last)]);
    node.flush();
    node.sight.holders = vec![(0, last + 1)];
    assert_eq!(node.at_once(), [Action::Rewrite(0, 2)]);
}

#[test]
fn a_slow_pass_begins_earlier_the_next_time() {
    let mut node = Played::new();
    node.ask(0);
    node.at_once();
    node.after(HALF);
    node.at_once();
    node.flush();
    node.sight.is_log_retired = true;
    node.group(0).left.segments = 1;
    node.at_once();
    node.group(0).left.segments = 0;
    node.after(Duration::from_secs(25));
    node.group(0).asked = None;
    node.at_once();
    node.ask(0);
    node.at_once();
    // The last one took 25 seconds: twice that is left.
    assert_eq!(node.after(Duration::from_secs(9)), []);
    assert_eq!(node.after(Duration::from_secs(1)), [Action::RetireLog]);
}

#[test]
fn what_an_earlier_life_left_is_begun_at_once() {
    let mut node = Played::new();
    node.eraser = Eraser::new(WITHIN);
    node.ask(0);
    assert_eq!(node.at_once(), [Action::RetireLog]);
}

#[test]
fn damage_and_failure_are_not_confirmed_and_hold_nothing_up() {
    let mut node = Played::new();
    node.ask(0);
    node.ask(1);
    node.at_once();
    node.after(HALF);
    node.at_once();
    node.flush();
    node.sight.is_log_retired = true;
    node.group(0).left = ErasureProgress {
        segments: 1,
        damaged: 1,
        ..ErasureProgress::default()
    };
    let orders = node.at_once();
    assert_eq!(orders.last(), Some(&Action::Confirm(1, 11)));
    assert!(!orders.contains(&Action::Confirm(0, 11)));
    node.group(1).asked = None;
    // Tried again, at leisure.
    assert_eq!(node.after(HALF - Duration::from_secs(1)), []);
    assert_eq!(node.after(Duration::from_secs(1)), [Action::RetireLog]);
    node.group(0).has_failed = true;
    node.at_once();
    assert_eq!(node.at_once(), []);
    assert_eq!(node.eraser.sleeps(node.now, POLL), None);
}
