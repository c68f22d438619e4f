//! Which of many filters share a subject: a trie over their tokens, so that a thousand filters are not compared with a
//! thousand others.

use std::collections::BTreeMap;

use super::subject::{ANY_TAIL, ANY_TOKEN};

/// Nodes that questions to one set may look at beside one for each token; beyond it the answer is [`TooWide`]. Only filters
/// of which many begin with wildcards and as many with literals come near it.
const STEPS_MAX: usize = 2_000_000;

/// The filters overlap in too many ways to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many wildcards to be compared")]
pub struct TooWide;

#[derive(Debug, Default)]
struct Node<'a> {
    children: BTreeMap<&'a [u8], usize>,
    /// The first filter that ends here.
    end: Option<usize>,
    /// The first filter that ends here with `>`.
    tail: Option<usize>,
    /// The first two filters that go through here or end below: for `>`, which meets all of them.
    below: [Option<usize>; 2],
}

/// A set of valid filters, each with the place at which it was added.
#[derive(Debug)]
pub struct Overlaps<'a> {
    nodes: Vec<Node<'a>>,
    count: usize,
    steps: usize,
}

impl Default for Overlaps<'_> {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            count: 0,
            steps: 0,
        }
    }
}

impl<'a> Overlaps<'a> {
    /// Those filters.
    pub fn of(filters: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut all = Self::default();
        for filter in filters {
            all.add(filter);
        }
        all
    }

    /// Adds a filter.
    pub fn add(&mut self, filter: &'a [u8]) {
        let number = self.count;
        self.count += 1;
        let mut at = 0;
        for token in filter.split(|byte| *byte == b'.') {
            self.note_below(at, number);
            if token == ANY_TAIL {
                if let Some(node) = self.nodes.get_mut(at) {
                    node.tail.get_or_insert(number);
                }
                return;
            }
            let new = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else {
                return;
            };
            at = *node.children.entry(token).or_insert(new);
            if at == new {
                self.nodes.push(Node::default());
            }
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.end.get_or_insert(number);
        }
    }

    fn note_below(&mut self, at: usize, number: usize) {
        let below = self.nodes.get_mut(at).map(|node| &mut node.below);
        if let Some(free) = below.into_iter().flatten().find(|place| place.is_none()) {
            *free = Some(number);
        }
    }

    /// The first filter of the set, other than number `except`, that shares a subject with `filter`.
    ///
    /// # Errors
    /// [`TooWide`]: the questions so far have looked at too much.
    pub fn first(
        &mut self,
        filter: &[u8],
        except: Option<usize>,
    ) -> Result<Option<usize>, TooWide> {
        let mut found: Option<usize> = None;
        let mut meet = |number: Option<usize>| {
            if let Some(number) = number.filter(|number| Some(*number) != except) {
                found = Some(found.map_or(number, |known| known.min(number)));
            }
        };
        // The nodes that the tokens so far lead to.
        let (mut here, mut next) = (vec![0], Vec::new());
        let mut open = true;
        for token in filter.split(|byte| *byte == b'.') {
            self.steps += here.len().saturating_sub(1);
            for at in here.drain(..) {
                let Some(node) = self.nodes.get(at) else {
                    continue;
                };
                meet(node.tail);
                match token {
                    ANY_TAIL => node.below.iter().for_each(|number| meet(*number)),
                    ANY_TOKEN => {
                        self.steps += node.children.len();
                        next.extend(node.children.values());
                    }
                    _ => {
                        next.extend(node.children.get(token));
                        next.extend(node.children.get(ANY_TOKEN));
                    }
                }
            }
            if self.steps > STEPS_MAX {
                return Err(TooWide);
            }
            open = token != ANY_TAIL;
            std::mem::swap(&mut here, &mut next);
        }
        if open {
            for at in here {
                meet(self.nodes.get(at).and_then(|node| node.end));
            }
        }
        Ok(found)
    }
}

/// The first two of the filters that share a subject, by their places.
///
/// # Errors
/// [`TooWide`].
pub fn first_pair(filters: &[&[u8]]) -> Result<Option<(usize, usize)>, TooWide> {
    let mut all = Overlaps::of(filters.iter().copied());
    for (place, filter) in filters.iter().enumerate() {
        // Equal filters end in one node, which knows the first of them: the others meet that one.
        if let Some(other) = all.first(filter, Some(place))? {
            return Ok(Some((place.min(other), place.max(other))));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::broker::subject;

    fn naive(filters: &[&[u8]]) -> bool {
        filters.iter().enumerate().any(|(at, one)| {
            let others = filters.iter().skip(at + 1);
            others
                .into_iter()
                .any(|other| subject::overlaps(one, other))
        })
    }

    fn texts() -> impl Strategy<Value = Vec<String>> {
        let token = prop::sample::select(vec!["a", "b", "*", "c"]);
        let filter =
            (prop::collection::vec(token, 1..4), any::<bool>()).prop_map(|(mut tokens, tail)| {
                if tail {
                    tokens.push(">");
                }
                tokens.join(".")
            });
        prop::collection::vec(filter, 0..6)
    }

    proptest! {
        #[test]
        fn as_if_each_were_compared_with_each(texts in texts()) {
            let filters: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
            let found = first_pair(&filters).unwrap();
            prop_assert_eq!(found.is_some(), naive(&filters), "{:?}", texts);
            if let Some((one, other)) = found {
                prop_assert!(one != other && subject::overlaps(filters[one], filters[other]));
            }
        }

        #[test]
        fn a_filter_meets_what_it_overlaps(texts in texts(), one in texts()) {
            let mut all = Overlaps::of(texts.iter().map(String::as_bytes));
            for one in &one {
                let wanted = texts.iter().any(|text| subject::overlaps(text.as_bytes(), one.as_bytes()));
                prop_assert_eq!(all.first(one.as_bytes(), None).unwrap().is_some(), wanted);
            }
        }
    }

    #[test]
    fn many_filters_are_compared_in_little_time() {
        let texts: Vec<String> = (0..30_000).map(|n| format!("s.{n}.>")).collect();
        let filters: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
        assert_eq!(first_pair(&filters), Ok(None));
        let wide: Vec<String> = (0..5000)
            .flat_map(|n| [format!("t{n}.a"), format!("*.b{n}")])
            .collect();
        let filters: Vec<&[u8]> = wide.iter().map(String::as_bytes).collect();
        assert_eq!(first_pair(&filters), Err(TooWide));
    }
}
