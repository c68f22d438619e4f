//! Request bodies: JSON, read strictly. A field that nobody knows is refused, so that a misspelt one is noticed.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::errors::{ApiError, table};

/// Reads a request body; an empty one is an empty object.
///
/// `null` is an absent field, as the clients mean it. Without `strict`, unknown fields are passed over.
///
/// # Errors
/// 10025 with what is wrong.
pub fn parse<T: DeserializeOwned>(body: &[u8], strict: bool) -> Result<T, ApiError> {
    from_value(value(body)?, strict)
}

/// The body as a JSON value without nulls.
///
/// # Errors
/// 10025: it is not JSON.
pub fn value(body: &[u8]) -> Result<Value, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    let mut value: Value =
        serde_json::from_slice(body).map_err(|error| table::INVALID_JSON.with(error))?;
    // Clients that have nothing to say serialise their nothing.
    if value.is_null() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    if !value.is_object() {
        return Err(table::INVALID_JSON.with("json: not an object"));
    }
    drop_nulls(&mut value);
    Ok(value)
}

/// Whether a body says nothing, however a client writes that.
#[must_use]
pub fn is_nothing(body: &[u8]) -> bool {
    value(body).is_ok_and(|value| value.as_object().is_some_and(serde_json::Map::is_empty))
}

/// [`parse`] of a value.
///
/// # Errors
/// 10025 with what is wrong.
pub fn from_value<T: DeserializeOwned>(mut value: Value, strict: bool) -> Result<T, ApiError> {
    loop {
        let error = match T::deserialize(&value) {
            Ok(request) => return Ok(request),
            Err(error) => error.to_string(),
        };
        let unknown = error
            .strip_prefix("unknown field `")
            .and_then(|rest| rest.split('`').next());
        match unknown {
            Some(field) if strict => {
                return Err(table::INVALID_JSON.with(format!("json: unknown field \"{field}\"")));
            }
            Some(field) if remove(&mut value, field) => {}
            _ => return Err(table::INVALID_JSON.with(format!("json: {error}"))),
        }
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Removes a field where it is found first in a list, and wherever it is in an object; whether it was there.
fn remove(value: &mut Value, field: &str) -> bool {
    match value {
        Value::Object(fields) => {
            let found = fields.remove(field).is_some();
            fields
                .values_mut()
                .fold(found, |found, inner| remove(inner, field) || found)
        }
        Value::Array(items) => items.iter_mut().any(|inner| remove(inner, field)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Asked {
        seq: u64,
        inner: Inner,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Inner {
        name: String,
    }

    #[test]
    fn unknown_fields_are_refused_or_passed_over() {
        let body = br#"{"seq": 7, "bogus": 1, "inner": {"name": "x", "other": [1]}}"#;
        let refusal = parse::<Asked>(body, true).unwrap_err();
        assert_eq!(refusal.err_code, 10025);
        assert!(
            refusal
                .description
                .starts_with("invalid JSON: json: unknown field \""),
            "{refusal}"
        );
        let asked: Asked = parse(body, false).unwrap();
        assert_eq!((asked.seq, asked.inner.name.as_str()), (7, "x"));
    }

    #[test]
    fn nothing_has_several_spellings() {
        for body in [&b""[..], b" ", b"{}", b"null"] {
            assert!(is_nothing(body), "{body:?}");
        }
        for body in [&b"x"[..], b"[]", b"0", br#"{"a":1}"#] {
            assert!(!is_nothing(body), "{body:?}");
        }
    }

    #[test]
    fn empty_and_null_are_absent() {
        assert_eq!(parse::<Asked>(b"", true).unwrap(), Asked::default());
        assert_eq!(
            parse::<Asked>(br#"{"seq": null, "inner": null}"#, true).unwrap(),
            Asked::default()
        );
        assert_eq!(
            parse::<Asked>(b"{nonsense", true).unwrap_err().err_code,
            10025
        );
        assert_eq!(
            parse::<Asked>(br#"{"seq": "x"}"#, true)
                .unwrap_err()
                .err_code,
            10025
        );
        assert_eq!(parse::<Asked>(b"[]", false).unwrap_err().err_code, 10025);
    }
}
