//! What JSON of clients may be beside the standard, as Go's `encoding/json` takes it: names in any case, text that is none.

use std::borrow::Cow;

/// Whether a key means the field of this name: equal but for the case of letters, in Unicode's simple folding (of which
/// only two letters fold to ASCII).
#[must_use]
pub fn is_same_name(key: &str, name: &str) -> bool {
    let fold = |c: char| match c {
        'ſ' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(name.chars().map(fold))
}

/// The body with U+FFFD for every byte that is no UTF-8 and for every half of a surrogate pair that stands alone.
#[must_use]
pub fn cleaned(body: &[u8]) -> Cow<'_, [u8]> {
    if str::from_utf8(body).is_ok() && !body.windows(2).any(|pair| pair == b"\\u") {
        return Cow::Borrowed(body);
    }
    const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();
    let mut out = Vec::with_capacity(body.len() + 16);
    for chunk in body.utf8_chunks() {
        without_lone_surrogates(chunk.valid().as_bytes(), &mut out);
        chunk
            .invalid()
            .iter()
            .for_each(|_| out.extend_from_slice(REPLACEMENT));
    }
    Cow::Owned(out)
}

fn without_lone_surrogates(text: &[u8], out: &mut Vec<u8>) {
    let unit = |at: usize| -> Option<u32> {
        let escape = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(str::from_utf8(escape).ok()?, 16).ok()
    };
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if *byte != b'\\' {
            out.push(*byte);
            at += 1;
            continue;
        }
        let len = match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                out.extend_from_slice(b"\\ufffd");
                at += 6;
                continue;
            }
            Some(_) => 6,
            None => 2,
        };
        let end = (at + len).min(text.len());
        out.extend_from_slice(text.get(at..end).unwrap_or_default());
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fold_to_ascii() {
        for key in ["disk", "DISK", "di\u{17f}\u{212a}", "Dis\u{212a}"] {
            assert!(is_same_name(key, "disk"), "{key}");
        }
        assert!(!is_same_name("d\u{131}sk", "disk"));
    }

    #[test]
    fn halves_of_pairs_are_replaced() {
        let text = cleaned(br#"{"a":"\ud800x\ud83d\ude00\udc00"}"#);
        assert_eq!(&*text, br#"{"a":"\ufffdx\ud83d\ude00\ufffd"}"#);
        assert!(matches!(cleaned(b"{}"), Cow::Borrowed(_)));
    }
}
