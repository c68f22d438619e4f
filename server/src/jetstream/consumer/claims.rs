//! Which consumers want which subjects: all filters of a stream's consumers, sorted, so that whether a new one overlaps another
//! is found by looking at its neighbours and not at everybody.
//!
//! The sorted texts are used as a trie over tokens: what begins with the same tokens stands together.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::command::ConsumerId;
use super::config::ConsumerConfig;

/// What a consumer without a filter wants.
const EVERYTHING: &str = ">";

/// The filters of consumers, with whose they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Claims(BTreeMap<Box<str>, BTreeSet<ConsumerId>>);

/// What a consumer wants.
fn wanted(config: &ConsumerConfig) -> impl Iterator<Item = &str> {
    let is_all = config.filters().next().is_none();
    config.filters().chain(is_all.then_some(EVERYTHING))
}

impl Claims {
    pub(super) fn add(&mut self, id: ConsumerId, config: &ConsumerConfig) {
        for filter in wanted(config) {
            self.0.entry(filter.into()).or_default().insert(id);
        }
    }

    pub(super) fn remove(&mut self, id: ConsumerId, config: &ConsumerConfig) {
        for filter in wanted(config) {
            if let Some(owners) = self.0.get_mut(filter) {
                owners.remove(&id);
                if owners.is_empty() {
                    self.0.remove(filter);
                }
            }
        }
    }

    /// Whether a consumer other than `own` wants a subject that one with this configuration would want.
    pub(super) fn clash(&self, config: &ConsumerConfig, own: ConsumerId) -> bool {
        wanted(config).any(|filter| self.meets(filter, own))
    }

    fn meets(&self, filter: &str, own: ConsumerId) -> bool {
        // Beginnings of filters that share a subject with the tokens so far; each ends with a dot.
        let mut here = vec![String::new()];
        let mut tokens = filter.split('.').peekable();
        while let Some(token) = tokens.next() {
            let is_last = tokens.peek().is_none();
            let mut next = Vec::new();
            for prefix in here {
                if self.is_others(&format!("{prefix}>"), own) {
                    return true;
                }
                let candidates = match token {
                    ">" if self
                        .below(&prefix)
                        .any(|(_, owners)| has_other(owners, own)) =>
                    {
                        return true;
                    }
                    ">" => continue,
                    "*" => self.children(&prefix),
                    _ => BTreeSet::from([format!("{prefix}{token}"), format!("{prefix}*")]),
                };
                for mut candidate in candidates {
                    if is_last && self.is_others(&candidate, own) {
                        return true;
                    }
                    candidate.push('.');
                    if !is_last && self.below(&candidate).next().is_some() {
                        next.push(candidate);
                    }
                }
            }
            here = next;
        }
        false
    }

    fn is_others(&self, filter: &str, own: ConsumerId) -> bool {
        self.0
            .get(filter)
            .is_some_and(|owners| has_other(owners, own))
    }

    /// The filters that begin so, with a dot at the end, or all.
    fn below(&self, prefix: &str) -> impl Iterator<Item = (&str, &BTreeSet<ConsumerId>)> {
        // What follows a dot in the order of bytes.
        let end = prefix.strip_suffix('.').map(|start| format!("{start}/"));
        let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.0.range::<str, _>((Bound::Included(prefix), end));
        found.map(|(filter, owners)| (&**filter, owners))
    }

    /// The prefix with each token that follows it in a filter.
    fn children(&self, prefix: &str) -> BTreeSet<String> {
        let child = |(filter, _): (&str, _)| {
            let rest = filter.get(prefix.len()..).unwrap_or_default();
            let token = rest.split('.').next().unwrap_or_default();
            format!("{prefix}{token}")
        };
        self.below(prefix).map(child).collect()
    }
}

fn has_other(owners: &BTreeSet<ConsumerId>, own: ConsumerId) -> bool {
    owners.iter().any(|owner| *owner != own)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::broker::subject;

    fn config(filters: &[String]) -> ConsumerConfig {
        ConsumerConfig {
            filter_subjects: filters.to_vec(),
            ..ConsumerConfig::default()
        }
    }

    fn filters() -> impl Strategy<Value = Vec<String>> {
        let token = prop::sample::select(vec!["a", "a-", "a/", "b", "*"]);
        let filter =
            (prop::collection::vec(token, 1..4), any::<bool>()).prop_map(|(mut tokens, tail)| {
                if tail {
                    tokens.push(">");
                }
                tokens.join(".")
            });
        prop::collection::vec(filter, 0..3)
    }

    proptest! {
        #[test]
        fn as_if_each_were_compared_with_each(
            all in prop::collection::vec(filters(), 0..5),
            gone in any::<prop::sample::Index>(),
            new in filters(),
            own in 1..6_u32,
        ) {
            let mut claims = Claims::default();
            let mut left: Vec<(ConsumerId, &Vec<String>)> = (1..).zip(&all).collect();
            for (id, filters) in &left {
                claims.add(*id, &config(filters));
            }
            if !left.is_empty() {
                let (id, filters) = left.remove(gone.index(left.len()));
                claims.remove(id, &config(filters));
            }
            let new = config(&new);
            let clash = left.iter().filter(|(id, _)| *id != own).any(|(_, filters)| {
                let theirs = config(filters);
                wanted(&new).any(|one| {
                    wanted(&theirs).any(|other| subject::overlaps(one.as_bytes(), other.as_bytes()))
                })
            });
            prop_assert_eq!(claims.clash(&new, own), clash);
            for (id, filters) in left {
                claims.remove(id, &config(filters));
            }
            prop_assert_eq!(claims, Claims::default());
        }
    }
}
