//! Subject filters: tokens separated by dots, `*` for any one token, `>` for one or more tokens at the end.
//!
//! A filter is parsed once. Its literal prefix is what the subject index uses to look at a range instead of everything.

use bytes::Bytes;

use crate::limits::FILTER_BYTES_MAX;
use crate::subjects::Depth;

/// The bytes are no filter: empty, an empty token, `>` before the end, or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a subject filter")]
pub struct FilterError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// No wildcard: exactly one subject.
    Literal,
    /// Literal tokens, then `>`: every subject that starts with the prefix and goes on.
    Prefix,
    /// Some `*`: token by token.
    Tokens,
}

/// One parsed subject filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    text: Bytes,
    /// Bytes before the first wildcard token, its dot included; all bytes of a literal.
    prefix_len: usize,
    shape: Shape,
    /// With which number of tokens a subject that starts with the prefix matches, if that decides.
    depth: Option<Depth>,
}

impl Filter {
    /// Parses a filter.
    ///
    /// # Errors
    /// [`FilterError`] when it is empty, has an empty token, or `>` is not its last token.
    pub fn parse(text: &[u8]) -> Result<Self, FilterError> {
        if text.is_empty() || text.len() > FILTER_BYTES_MAX {
            return Err(FilterError);
        }
        let mut prefix_len = None;
        let mut offset = 0;
        let mut shape = Shape::Literal;
        let mut ended = false;
        for token in text.split(|&byte| byte == b'.') {
            if token.is_empty() || ended {
                return Err(FilterError);
            }
            match token {
                b">" => {
                    ended = true;
                    if prefix_len.is_none() {
                        shape = Shape::Prefix;
                        prefix_len = Some(offset);
                    }
                }
                b"*" => {
                    shape = Shape::Tokens;
                    prefix_len.get_or_insert(offset);
                }
                _ => {}
            }
            offset += token.len() + 1;
        }
        let depth = prefix_len.and_then(|prefix_len| depth_of(text, prefix_len));
        Ok(Self {
            text: Bytes::copy_from_slice(text),
            prefix_len: prefix_len.unwrap_or(text.len()),
            shape,
            depth,
        })
    }

    /// The filter's text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// The one subject that it matches, if it has no wildcard.
    #[must_use]
    pub fn literal(&self) -> Option<&[u8]> {
        (self.shape == Shape::Literal).then_some(&*self.text)
    }

    /// Whether it is `>`.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.shape == Shape::Prefix && self.prefix_len == 0
    }

    /// What every matching subject starts with.
    pub(crate) fn prefix(&self) -> &[u8] {
        let prefix = self.text.get(..self.prefix_len);
        prefix.expect("the prefix is a part of the filter")
    }

    /// How many tokens a subject that starts with [`Filter::prefix`] needs to match, if nothing else is asked of it.
    pub(crate) fn depth(&self) -> Option<Depth> {
        self.depth
    }

    /// Whether some subject could match both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (tokens(&self.text), tokens(&other.text));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(b">"), Some(_)) | (Some(_), Some(b">")) => return true,
                (Some(our), Some(their)) if our == their || our == b"*" || their == b"*" => {}
                _ => return false,
            }
        }
    }

    /// Writes into `out` a name after `name` before which nothing matches; `false` when the very next may. `name` starts
    /// with the prefix and does not match.
    pub(crate) fn next_candidate(&self, name: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        if self.shape != Shape::Tokens {
            return false;
        }
        let mut offset = self.prefix_len;
        debug_assert!(
            name.starts_with(self.prefix()),
            "names are asked for below the prefix"
        );
        let behind = self.text.get(self.prefix_len..);
        for want in tokens(behind.expect("the prefix is a part of the filter")) {
            // Names that go on where this one ends may come after others: no stretch is known to hold no match.
            let Some(rest) = name.get(offset..) else {
                return false;
            };
            let token = tokens(rest).next().unwrap_or_default();
            if want == b">" || (want == b"*" && token.is_empty()) {
                return false;
            }
            if want != b"*" && want != token {
                if rest < want {
                    out.extend_from_slice(name.get(..offset).unwrap_or_default());
                    out.extend_from_slice(want);
                    return true;
                }
                if rest.starts_with(want) && rest.get(want.len()) < Some(&b'.') {
                    out.extend_from_slice(name.get(..offset).unwrap_or_default());
                    out.extend_from_slice(want);
                    out.push(b'.');
                    return true;
                }
                break;
            }
            offset += token.len() + 1;
        }
        // Nothing else below the token before `offset` matches: '/' is the byte after '.'.
        out.extend_from_slice(name.get(..offset.saturating_sub(1)).unwrap_or_default());
        out.push(b'.' + 1);
        true
    }

    /// Whether the subject matches.
    #[must_use]
    pub fn matches(&self, subject: &[u8]) -> bool {
        match self.shape {
            Shape::Literal => subject == &*self.text,
            Shape::Prefix => subject.len() > self.prefix_len && subject.starts_with(self.prefix()),
            Shape::Tokens => {
                let prefix = self.prefix();
                match (
                    subject.strip_prefix(prefix),
                    self.text.get(self.prefix_len..),
                ) {
                    (Some(subject), Some(filter)) => tokens_match(filter, subject),
                    _ => false,
                }
            }
        }
    }
}

fn tokens(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'.')
}

/// The depth of a filter that has only wildcards after its literal prefix.
fn depth_of(text: &[u8], prefix_len: usize) -> Option<Depth> {
    let (prefix, rest) = text.split_at_checked(prefix_len)?;
    let literal = tokens(prefix).count() as u32 - 1;
    if rest == b">" {
        return Some(Depth::Any);
    }
    let is_open = rest.ends_with(b">");
    let count = tokens(rest).count() as u32;
    tokens(rest)
        .all(|token| token == b"*" || token == b">")
        .then_some(match is_open {
            true => Depth::AtLeast(literal + count),
            false => Depth::Exactly(literal + count),
        })
}

fn tokens_match(filter: &[u8], subject: &[u8]) -> bool {
    let mut have = subject.split(|&byte| byte == b'.');
    for want in filter.split(|&byte| byte == b'.') {
        let Some(token) = have.next() else {
            return false;
        };
        match want {
            b">" => return !(token.is_empty() && subject.is_empty()),
            b"*" if !token.is_empty() => {}
            _ if want == token && want != b"*" => {}
            _ => return false,
        }
    }
    have.next().is_none()
}

/// A set of filters. A subject matches when any of them does; the empty set matches every subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    filters: Vec<Filter>,
    /// Some subject could match two of them.
    has_overlap: bool,
}

impl Filters {
    /// Every subject.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Those filters; none is every subject.
    #[must_use]
    pub fn new(filters: Vec<Filter>) -> Self {
        let pairs = filters
            .iter()
            .enumerate()
            .flat_map(|(at, one)| filters.iter().take(at).map(move |other| (one, other)));
        let has_overlap = pairs.into_iter().any(|(one, other)| one.overlaps(other));
        Self {
            filters,
            has_overlap,
        }
    }

    /// Parses each text.
    ///
    /// # Errors
    /// [`FilterError`] for the first that is no filter.
    pub fn parse<T: AsRef<[u8]>>(texts: &[T]) -> Result<Self, FilterError> {
        let filters = texts
            .iter()
            .map(|text| Filter::parse(text.as_ref()))
            .collect::<Result<_, _>>()?;
        Ok(Self::new(filters))
    }

    /// Whether some subject could match two of the filters, so that their matches do not add up.
    pub(crate) fn has_overlap(&self) -> bool {
        self.has_overlap
    }

    /// Whether any filter matches.
    #[must_use]
    pub fn matches(&self, subject: &[u8]) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| filter.matches(subject))
    }

    /// Whether every subject matches by construction.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.filters.is_empty() || self.filters.iter().any(Filter::is_everything)
    }

    /// The filters, in the order given.
    #[must_use]
    pub fn as_slice(&self) -> &[Filter] {
        &self.filters
    }

    /// The one subject that can match, if there is only one filter and it is literal.
    pub(crate) fn single_literal(&self) -> Option<&[u8]> {
        match self.filters.as_slice() {
            [only] => only.literal(),
            _ => None,
        }
    }

    /// Whether a filter before number `index` matches too: keeps unions from counting a subject twice.
    pub(crate) fn matched_before(&self, index: usize, subject: &[u8]) -> bool {
        self.filters
            .iter()
            .take(index)
            .any(|filter| filter.matches(subject))
    }
}

impl From<Filter> for Filters {
    fn from(filter: Filter) -> Self {
        Self::new(vec![filter])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(filter: &str, subject: &str) -> bool {
        let want: Vec<_> = filter.split('.').collect();
        let have: Vec<_> = subject.split('.').collect();
        for (at, token) in want.iter().enumerate() {
            if *token == ">" {
                return have.len() > at;
            }
            if at >= have.len() || (*token != "*" && *token != have[at]) {
                return false;
            }
        }
        want.len() == have.len()
    }

    #[test]
    fn refuses_what_is_no_filter() {
        for text in ["", ".", "a.", ".a", "a..b", "a.>.b", ">.a"] {
            assert!(Filter::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(
            Filter::parse(b"a.>b").is_ok(),
            "only a token of its own is a wildcard"
        );
    }

    #[test]
    fn matches_as_the_naive_one_does() {
        let tokens = ["a", "bb", "*", ">"];
        let mut filters = vec![String::new()];
        let mut all = Vec::new();
        for _ in 0..4 {
            filters = filters
                .iter()
                .flat_map(|f| {
                    tokens.map(|t| {
                        if f.is_empty() {
                            t.to_owned()
                        } else {
                            format!("{f}.{t}")
                        }
                    })
                })
                .collect();
            all.extend(filters.clone());
        }
        let subjects: Vec<_> = all
            .iter()
            .filter(|f| !f.contains(['*', '>']))
            .cloned()
            .collect();
        let mut checked = 0;
        for text in &all {
            let Ok(filter) = Filter::parse(text.as_bytes()) else {
                continue;
            };
            for subject in &subjects {
                assert_eq!(
                    filter.matches(subject.as_bytes()),
                    naive(text, subject),
                    "{text} {subject}"
                );
                if filter.matches(subject.as_bytes()) {
                    assert!(subject.as_bytes().starts_with(filter.prefix()));
                }
                checked += 1;
            }
        }
        assert!(checked > 3000);
        let filters: Vec<_> = all
            .iter()
            .filter_map(|text| Filter::parse(text.as_bytes()).ok())
            .collect();
        for (at, one) in filters.iter().enumerate() {
            for other in filters.iter().skip(at % 7).step_by(7) {
                let both = subjects.iter().map(String::as_bytes);
                let shared = both
                    .clone()
                    .any(|name| one.matches(name) && other.matches(name));
                assert_eq!(one.overlaps(other), shared, "{one:?} {other:?}");
            }
        }
    }
}
