//! The options of an endpoint: what stands behind the `?` of its address.

use std::borrow::Cow;

/// An option that cannot be understood; the text is what nats-server answers with status 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadQuery(pub(super) String);

/// The options of one request. Unknown ones are ignored, as everywhere on the web.
#[derive(Debug, Default)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).collect())
    }

    /// The value of an option; empty if it is not there.
    pub(super) fn text(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// Truth; false if it is not there.
    pub(super) fn bool(&self, name: &str) -> Result<bool, BadQuery> {
        match self.text(name) {
            "" | "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
            other => Err(BadQuery(format!(
                "Error decoding boolean for '{name}': strconv.ParseBool: parsing \"{other}\": invalid syntax"
            ))),
        }
    }

    /// A whole number; 0 if it is not there. What is negative counts as 0.
    pub(super) fn count(&self, name: &str) -> Result<usize, BadQuery> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(0);
        }
        let number: i64 = text.parse().map_err(|_| {
            BadQuery(format!(
                "Error decoding int for '{name}': strconv.Atoi: parsing \"{text}\": invalid syntax"
            ))
        })?;
        Ok(usize::try_from(number).unwrap_or(0))
    }

    /// The number of a connection; `None` if it is not there.
    pub(super) fn id(&self, name: &str) -> Result<Option<u64>, BadQuery> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(|id| Some(id).filter(|id| *id > 0)).map_err(|_| {
            BadQuery(format!(
                "Error decoding uint64 for '{name}': strconv.ParseUint: parsing \"{text}\": invalid syntax"
            ))
        })
    }

    /// `offset` and `limit`; the latter is 1024 unless something else is asked for.
    pub(super) fn page(&self) -> Result<Page, BadQuery> {
        let limit = self.count("limit")?;
        Ok(Page {
            offset: self.count("offset")?,
            limit: if limit == 0 { LIMIT } else { limit },
        })
    }
}

/// Entries of one answer, unless something else is asked for.
const LIMIT: usize = 1024;

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) offset: usize,
    pub(super) limit: usize,
}

impl Page {
    pub(super) fn take<T>(self, list: Vec<T>) -> Vec<T> {
        list.into_iter()
            .skip(self.offset)
            .take(self.limit)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_errors_as_nats_has_them() {
        let query = Query::parse("subs=detail&auth=1&limit=5&offset=-2&acc=%24G&x&a+b=c%2");
        assert_eq!(query.text("subs"), "detail");
        assert_eq!(query.text("acc"), "$G");
        assert_eq!(query.text("a b"), "c%2");
        assert_eq!(query.bool("auth"), Ok(true));
        assert_eq!(query.bool("none"), Ok(false));
        assert_eq!(
            query.page(),
            Ok(Page {
                offset: 0,
                limit: 5
            })
        );
        let error = query.bool("subs").unwrap_err().to_string();
        let expected = "Error decoding boolean for 'subs': strconv.ParseBool: parsing \"detail\": invalid syntax";
        assert_eq!(error, expected);
        let error = Query::parse("limit=x")
            .count("limit")
            .unwrap_err()
            .to_string();
        let expected =
            "Error decoding int for 'limit': strconv.Atoi: parsing \"x\": invalid syntax";
        assert_eq!(error, expected);
    }
}
