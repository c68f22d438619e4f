//! The grammar of subjects and filters, over bytes.
//!
//! A subject is tokens joined by `.`. A filter may hold the wildcards `*` (exactly one token) and, as its last token,
//! `>` (one or more tokens). A wildcard is a token of its own: `foo*` is an ordinary token. Nothing here allocates.

/// Separates tokens.
pub const SEPARATOR: u8 = b'.';
/// The wildcard for one token.
pub const ANY_TOKEN: &[u8] = b"*";
/// The wildcard for all tokens to come, at least one.
pub const ANY_TAIL: &[u8] = b">";

/// Tokens that a subject or filter may have: as many as fit into a line of the protocol of the usual length. Walks of
/// the trie are as deep as filters are long, so this bounds their stack.
pub const TOKENS_MAX: usize = 2048;
/// Bytes that a subject or filter may have: what formats and counters of the store take.
pub const BYTES_MAX: usize = u16::MAX as usize;

/// The tokens of a subject or filter, empty ones included.
pub fn tokens(subject: &[u8]) -> impl Iterator<Item = &[u8]> {
    subject.split(|byte| *byte == SEPARATOR)
}

/// The first token and what stands behind its separator, if anything does.
#[must_use]
pub fn split_first(subject: &[u8]) -> (&[u8], Option<&[u8]>) {
    subject
        .iter()
        .position(|byte| *byte == SEPARATOR)
        .and_then(|at| subject.split_at_checked(at))
        .map_or((subject, None), |(first, rest)| (first, rest.get(1..)))
}

/// Whether some token is empty; no filter matches such a subject.
#[must_use]
pub fn has_empty_token(subject: &[u8]) -> bool {
    let mut before = SEPARATOR;
    for &byte in subject {
        if byte == SEPARATOR && before == SEPARATOR {
            return true;
        }
        before = byte;
    }
    before == SEPARATOR
}

/// Whether this may be subscribed to: no empty token, no white space, `>` only at the end, at most [`BYTES_MAX`] bytes
/// and [`TOKENS_MAX`] tokens.
#[must_use]
pub fn is_valid_filter(filter: &[u8]) -> bool {
    if filter.len() > BYTES_MAX {
        return false;
    }
    let mut rest = Some(filter);
    let mut count = 0;
    while let Some(subject) = rest {
        let (token, behind) = split_first(subject);
        count += 1;
        if token.is_empty() || count > TOKENS_MAX || (token == ANY_TAIL && behind.is_some()) {
            return false;
        }
        if token
            .iter()
            .any(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
        {
            return false;
        }
        rest = behind;
    }
    true
}

/// Whether no token is a wildcard.
#[must_use]
pub fn is_literal(subject: &[u8]) -> bool {
    // Most subjects hold neither character at all; only then are the tokens looked at.
    if !subject.iter().any(|byte| matches!(byte, b'*' | b'>')) {
        return true;
    }
    tokens(subject).all(|token| token != ANY_TOKEN && token != ANY_TAIL)
}

/// Whether this is a valid subject to publish to: a valid filter without wildcards.
#[must_use]
pub fn is_valid_literal(subject: &[u8]) -> bool {
    is_valid_filter(subject) && is_literal(subject)
}

/// Whether `filter` matches `subject`. Wildcards in `subject` stand for themselves.
#[must_use]
pub fn matches(filter: &[u8], subject: &[u8]) -> bool {
    if has_empty_token(subject) {
        return false;
    }
    let mut subject = Some(subject);
    for wanted in tokens(filter) {
        let Some(rest) = subject else { return false };
        if wanted == ANY_TAIL {
            return true;
        }
        let (token, behind) = split_first(rest);
        if wanted != ANY_TOKEN && wanted != token {
            return false;
        }
        subject = behind;
    }
    subject.is_none()
}

/// Whether everything that `inner` matches is matched by `outer`, too.
#[must_use]
pub fn covers(outer: &[u8], inner: &[u8]) -> bool {
    let mut inner = Some(inner);
    for wanted in tokens(outer) {
        let Some(rest) = inner else { return false };
        if wanted == ANY_TAIL {
            return true;
        }
        let (token, behind) = split_first(rest);
        if token == ANY_TAIL || (wanted != ANY_TOKEN && wanted != token) {
            return false;
        }
        inner = behind;
    }
    inner.is_none()
}

/// Whether some subject is matched by both filters.
#[must_use]
pub fn overlaps(left: &[u8], right: &[u8]) -> bool {
    let (mut left, mut right) = (Some(left), Some(right));
    loop {
        let (Some(l), Some(r)) = (left, right) else {
            return left.is_none() && right.is_none();
        };
        let (l_token, l_rest) = split_first(l);
        let (r_token, r_rest) = split_first(r);
        if l_token == ANY_TAIL || r_token == ANY_TAIL {
            return true;
        }
        if l_token != ANY_TOKEN && r_token != ANY_TOKEN && l_token != r_token {
            return false;
        }
        (left, right) = (l_rest, r_rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_clients_may_use() {
        for good in [
            "a", "a.b", "*", ">", "a.*", "a.>", "*.*.>", "a*", "a.b>", "$SYS.x",
        ] {
            assert!(is_valid_filter(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ".", "a.", ".a", "a..b", "a.>.b", ">.a", "a b", "a\tb", "a\r",
        ] {
            assert!(!is_valid_filter(bad.as_bytes()), "{bad}");
        }
        assert!(is_valid_literal(b"a.b*"));
        assert!(!is_valid_literal(b"a.*"));
        assert!(!is_valid_literal(b"a.>"));
    }

    #[test]
    fn matching() {
        for (filter, subject, expected) in [
            ("a", "a", true),
            ("a", "a.b", false),
            ("a.b", "a", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("a.>", "a", false),
            ("a.>", "a.b.c", true),
            (">", "a", true),
            (">", "", false),
            (">", "a..b", false),
            ("*.b", "a.b", true),
            ("a.*", "a.*", true),
            ("a.b", "a.*", false),
        ] {
            assert_eq!(
                matches(filter.as_bytes(), subject.as_bytes()),
                expected,
                "{filter} {subject}"
            );
        }
    }

    /// Every filter and subject of up to three tokens over a small alphabet: the algebra agrees with enumeration.
    #[test]
    fn algebra_agrees_with_enumeration() {
        let subjects = sequences(&["a", "b"], 4);
        let mut filters = sequences(&["a", "b", "*"], 3);
        for stem in sequences(&["a", "*"], 2) {
            filters.push(format!("{stem}.>"));
        }
        filters.push(">".to_owned());
        for left in &filters {
            for right in &filters {
                let (l, r) = (left.as_bytes(), right.as_bytes());
                let both = subjects
                    .iter()
                    .any(|s| matches(l, s.as_bytes()) && matches(r, s.as_bytes()));
                assert_eq!(overlaps(l, r), both, "{left} overlaps {right}");
                let all = subjects
                    .iter()
                    .all(|s| matches(l, s.as_bytes()) || !matches(r, s.as_bytes()));
                if covers(l, r) {
                    assert!(all, "{left} covers {right}");
                }
            }
            for subject in &subjects {
                let literal = covers(left.as_bytes(), subject.as_bytes());
                assert_eq!(
                    literal,
                    matches(left.as_bytes(), subject.as_bytes()),
                    "{left} {subject}"
                );
            }
        }
        assert!(covers(b"a.>", b"a.*") && covers(b"*.>", b"a.b.>") && !covers(b"a.*", b"a.>"));
    }

    fn sequences(tokens: &[&str], longest: usize) -> Vec<String> {
        let mut all: Vec<String> = tokens.iter().map(|t| (*t).to_owned()).collect();
        let mut last = all.clone();
        for _ in 1..longest {
            let stems = std::mem::take(&mut last);
            last = stems
                .iter()
                .flat_map(|stem| tokens.iter().map(move |t| format!("{stem}.{t}")))
                .collect();
            all.extend(last.iter().cloned());
        }
        all
    }
}
