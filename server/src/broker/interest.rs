//! Who wants what: a trie of subscriptions by the tokens of their filters.
//!
//! Matching walks at most the nodes that exist for the subject's tokens: the literal child, the `*` child, and the `>`
//! list of each. The order of a match follows from the order of subscribing and the names of groups alone: the maps are
//! only ever looked up. Walks are recursive, and so is dropping the trie: [`subject::TOKENS_MAX`] bounds their depth.

use std::collections::HashMap;
use std::sync::Arc;

use super::hash::Keyed;
use super::route::{Entries, Route};
use super::subject::{self, ANY_TAIL, ANY_TOKEN};
use super::subscription::Subscription;

/// The trie.
pub(crate) struct Interest {
    keyed: Keyed,
    root: Node,
    count: usize,
}

/// The nodes below one, by their token.
type Children = HashMap<Box<[u8]>, Node, Keyed>;

#[derive(Default)]
struct Node {
    children: Option<Box<Children>>,
    any_token: Option<Box<Self>>,
    any_tail: Option<Box<Entries>>,
    here: Option<Box<Entries>>,
}

impl Interest {
    pub(crate) fn new(keyed: Keyed) -> Self {
        Self {
            keyed,
            root: Node::default(),
            count: 0,
        }
    }

    /// Subscriptions held.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Adds a subscription. Ids must rise from one call to the next.
    pub(crate) fn insert(&mut self, subscription: &Arc<Subscription>) {
        let keyed = &self.keyed;
        let mut node = &mut self.root;
        let mut tail = false;
        for token in subject::tokens(subscription.filter()) {
            assert!(!tail, "valid filters have `>` at the end only");
            match token {
                ANY_TAIL => tail = true,
                ANY_TOKEN => node = node.any_token.get_or_insert_default(),
                literal => node = node.child_or_insert(literal, keyed),
            }
        }
        let entries = if tail {
            &mut node.any_tail
        } else {
            &mut node.here
        };
        entries.get_or_insert_default().insert(subscription);
        self.count += 1;
    }

    /// Takes a subscription out; whether it was there.
    pub(crate) fn remove(&mut self, subscription: &Subscription) -> bool {
        let removed = remove_below(&mut self.root, Some(subscription.filter()), subscription);
        if removed {
            assert!(self.count > 0, "what was removed had been counted");
            self.count -= 1;
        }
        removed
    }

    /// Adds to `route` everybody whose filter matches `subject`.
    pub(crate) fn collect(&self, subject: &[u8], route: &mut Route) {
        if !subject::has_empty_token(subject) {
            self.root.visit(subject, &mut |entries| {
                route.extend_from(entries);
                true
            });
        }
    }

    /// Whether some filter matches `subject`.
    pub(crate) fn any(&self, subject: &[u8]) -> bool {
        !subject::has_empty_token(subject) && !self.root.visit(subject, &mut |_| false)
    }

    /// Shows every subscription, in no particular order.
    pub(crate) fn for_each(&self, visit: &mut dyn FnMut(&Arc<Subscription>)) {
        self.root.for_each(visit);
    }
}

/// Removes from the node that `rest` leads to, and prunes what has become empty on the way back.
fn remove_below(node: &mut Node, rest: Option<&[u8]>, subscription: &Subscription) -> bool {
    let Some(rest) = rest else {
        return remove_entry(&mut node.here, subscription);
    };
    let (token, behind) = subject::split_first(rest);
    match token {
        ANY_TAIL => remove_entry(&mut node.any_tail, subscription),
        ANY_TOKEN => {
            let Some(child) = node.any_token.as_deref_mut() else {
                return false;
            };
            let removed = remove_below(child, behind, subscription);
            if child.is_empty() {
                node.any_token = None;
            }
            removed
        }
        literal => {
            let Some(children) = node.children.as_deref_mut() else {
                return false;
            };
            let Some(child) = children.get_mut(literal) else {
                return false;
            };
            let removed = remove_below(child, behind, subscription);
            if child.is_empty() {
                children.remove(literal);
                if children.is_empty() {
                    node.children = None;
                } else if children.capacity() > 64 && children.len() < children.capacity() / 8 {
                    children.shrink_to(children.capacity() / 4);
                }
            }
            removed
        }
    }
}

fn remove_entry(entries: &mut Option<Box<Entries>>, subscription: &Subscription) -> bool {
    let Some(held) = entries.as_deref_mut() else {
        return false;
    };
    let removed = held.remove(subscription);
    if held.is_empty() {
        *entries = None;
    }
    removed
}

impl Node {
    fn child_or_insert(&mut self, token: &[u8], keyed: &Keyed) -> &mut Self {
        let children = self
            .children
            .get_or_insert_with(|| Box::new(HashMap::with_hasher(keyed.clone())));
        // Two lookups for a new token only: `entry` would copy the token each time.
        if !children.contains_key(token) {
            children.insert(token.into(), Self::default());
        }
        children
            .get_mut(token)
            .expect("it is there or was just inserted")
    }

    const fn is_empty(&self) -> bool {
        self.children.is_none()
            && self.any_token.is_none()
            && self.any_tail.is_none()
            && self.here.is_none()
    }

    /// Shows the entries that match `rest`, until `found` returns false; whether it never did.
    fn visit(&self, rest: &[u8], found: &mut dyn FnMut(&Entries) -> bool) -> bool {
        if self
            .any_tail
            .as_deref()
            .is_some_and(|entries| !found(entries))
        {
            return false;
        }
        let (token, behind) = subject::split_first(rest);
        let literal = self
            .children
            .as_deref()
            .and_then(|children| children.get(token));
        for child in [literal, self.any_token.as_deref()].into_iter().flatten() {
            let more = match behind {
                Some(behind) => child.visit(behind, found),
                None => child.here.as_deref().is_none_or(&mut *found),
            };
            if !more {
                return false;
            }
        }
        true
    }

    fn for_each(&self, visit: &mut dyn FnMut(&Arc<Subscription>)) {
        for entries in [self.here.as_deref(), self.any_tail.as_deref()]
            .into_iter()
            .flatten()
        {
            entries.for_each(visit);
        }
        let literal = self.children.iter().flat_map(|children| children.values());
        for child in literal.chain(self.any_token.as_deref()) {
            child.for_each(visit);
        }
    }
}
