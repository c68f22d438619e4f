//! Walks and counts of filters over the subject index, against a scan of all names.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Model = BTreeMap<Vec<u8>, (u64, u64)>;

const FILTERS: [&str; 22] = [
    ">", "*", "*.*", "*.>", "*.*.>", "*.*.*", "a.>", "a.*", "a.*.>", "a.*.*", "a.*.c", "a.*.c.>",
    "*.b", "*.b.>", "*.b.c", "*.*.c", "a.b.*", "a.b.>", "a", "a.b.c", "a-b.*", "b.*.*.a",
];

/// Names of one to four tokens; some have an empty token, and some sort between a name and what is below it.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        12 => prop::sample::select(vec!["a", "b", "c", "a-b", "b!", "c/d", "aa", "z"]),
        1 => Just(""),
    ];
    prop::collection::vec(token, 1..5).prop_map(|tokens| tokens.join(".").into_bytes())
}

fn matches(model: &Model, filter: &Filter) -> Vec<Vec<u8>> {
    let names = model.keys().filter(|name| filter.matches(name));
    names.cloned().collect()
}

fn names(index: &Subjects, walk: Matching<'_>) -> Vec<Vec<u8>> {
    walk.map(|subject| index.name(subject).to_vec()).collect()
}

fn compare(index: &Subjects, model: &Model) {
    index.check().unwrap();
    for text in FILTERS {
        let filter = Filter::parse(text.as_bytes()).unwrap();
        let want = matches(model, &filter);
        assert_eq!(names(index, index.matching(&filter)), want, "{text}");
        let counted = Counted {
            subjects: want.len() as u64,
            messages: want.iter().map(|name| model[name].0).sum(),
        };
        assert_eq!(index.count(&filter), counted, "{text}");
        for count in [0, 1, want.len() / 2, want.len(), want.len() + 1] {
            let mut walk = index.matching(&filter);
            assert_eq!(walk.pass(count as u64), count <= want.len(), "{text}");
            let rest = want.get(count..).unwrap_or_default();
            assert_eq!(names(index, walk), rest, "{text} after {count}");
        }
        for after in model.keys().step_by(1 + model.len() / 8) {
            let mut walk = index.matching(&filter);
            walk.pass_name(after);
            let rest: Vec<_> = want.iter().filter(|name| *name > after).cloned().collect();
            let after = String::from_utf8_lossy(after);
            assert_eq!(names(index, walk), rest, "{text} after {after}");
        }
        let newest = model.values().map(|(_, last)| *last).max().unwrap_or(0);
        for since in [1, newest / 2, newest, newest + 1] {
            let have = names(index, index.matching_since(&filter, since));
            let mut must = want.iter().filter(|name| model[*name].1 >= since);
            assert!(must.all(|name| have.contains(name)), "{text}");
            assert!(have.iter().all(|name| want.contains(name)), "{text}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn walks_find_what_a_scan_finds(ops in prop::collection::vec((any::<u8>(), name()), 1..300)) {
        let (mut index, mut model) = (Subjects::default(), Model::new());
        for (at, (kind, name)) in ops.into_iter().enumerate() {
            let seq = at as u64 + 1;
            if kind < 160 {
                index.add(&name, seq).unwrap();
                let entry = model.entry(name).or_insert((0, 0));
                *entry = (entry.0 + 1, seq);
            } else if let Some((messages, _)) = model.remove(&name) {
                index.subtract(index.find(&name).unwrap(), messages as u32);
            }
        }
        compare(&index, &model);
    }
}

/// Many chunks, so that whole ones are counted by their sums and walks search among them.
#[test]
fn walks_over_many_chunks() {
    let (mut index, mut model) = (Subjects::default(), Model::new());
    for step in 0..30_000u64 {
        let number = step * 7919 % 9001;
        let name = match number % 9 {
            0 => format!("a.{number}.c"),
            1 => format!("a.{number}.c.d"),
            2 => format!("b.{}", number % 100),
            3 => format!("b.b.{number}.a"),
            _ => format!("a.{number}"),
        };
        index.add(name.as_bytes(), step + 1).unwrap();
        let entry = model.entry(name.into_bytes()).or_insert((0, 0));
        *entry = (entry.0 + 1, step + 1);
    }
    assert!(index.order.len() > 12);
    compare(&index, &model);
    let gone: Vec<_> = model.keys().step_by(3).cloned().collect();
    for name in gone {
        let (messages, _) = model.remove(&name).unwrap();
        index.subtract(index.find(&name).unwrap(), messages as u32);
    }
    index.add(b"a.6.", 40_000).unwrap();
    model.insert(b"a.6.".to_vec(), (1, 40_000));
    compare(&index, &model);
}
