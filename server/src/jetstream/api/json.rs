//! Request bodies: JSON, read as Go's `encoding/json` reads it, which is what clients were tested against.
//!
//! Names of fields are the same in any case of letters, the last of several wins, `null` leaves a field as it is, and what is
//! no UTF-8 becomes U+FFFD. A field that nobody knows is refused, so that a misspelt one is noticed; a server that is not
//! `strict` passes it over. Reading is linear in the length of the body.

use halyard_net::json::{cleaned, is_same_name};
use serde::de::value::{BorrowedStrDeserializer, Error, StrDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::Value;

use super::errors::{ApiError, table};

/// What is said of a body that ends too early, in the peer's words.
const TOO_SHORT: &str = "unexpected end of JSON input";

/// A body that is a JSON object, or says nothing.
#[derive(Debug)]
pub struct Object(Vec<(String, Node)>);

impl Object {
    /// Reads a body. An empty one and `null` are the empty object, and several objects one after the other are as one.
    ///
    /// # Errors
    /// 10025 with what is wrong.
    pub fn read(body: &[u8]) -> Result<Self, ApiError> {
        let body = cleaned(body);
        let mut all = Vec::new();
        for node in serde_json::Deserializer::from_slice(&body).into_iter() {
            all.extend(Self::of(node)?.0);
        }
        Ok(Self(all))
    }

    /// Reads a body that must be one object, or `null`, and nothing behind it.
    ///
    /// # Errors
    /// 10025 with what is wrong.
    pub fn read_one(body: &[u8]) -> Result<Self, ApiError> {
        Self::of(serde_json::from_slice(&cleaned(body)))
    }

    fn of(node: Result<Node, serde_json::Error>) -> Result<Self, ApiError> {
        match node {
            Ok(Node::Fields(fields)) => Ok(Self(fields)),
            Ok(Node::Null) => Ok(Self(Vec::new())),
            Ok(_) => Err(refused("not an object")),
            Err(error) if error.is_eof() => Err(table::INVALID_JSON.with(TOO_SHORT)),
            Err(error) => Err(table::INVALID_JSON.with(error)),
        }
    }

    /// The fields as a value of this type.
    ///
    /// # Errors
    /// 10025: a field is of another type, or with `strict` nobody knows it.
    pub fn to<T: DeserializeOwned>(&self, strict: bool) -> Result<T, ApiError> {
        let fields = Fields {
            fields: &self.0,
            strict,
        };
        T::deserialize(fields).map_err(refused)
    }

    /// Takes a field out, by any case of its letters.
    ///
    /// # Errors
    /// 10025: it is of another type.
    pub fn take<T: DeserializeOwned + Default>(&mut self, name: &str) -> Result<T, ApiError> {
        let mut found = None;
        self.0.retain_mut(|(key, node)| {
            let same = is_same_name(key, name);
            if same {
                found = Some(std::mem::replace(node, Node::Null));
            }
            !same
        });
        match found {
            Some(node) => T::deserialize(Reader {
                node: &node,
                strict: true,
            })
            .map_err(refused),
            None => Ok(T::default()),
        }
    }
}

/// Reads a request body; an empty one is an empty object. Without `strict`, unknown fields are passed over.
///
/// # Errors
/// 10025 with what is wrong.
pub fn parse<T: DeserializeOwned>(body: &[u8], strict: bool) -> Result<T, ApiError> {
    Object::read(body)?.to(strict)
}

/// [`parse`] for requests that need no body: what does not look like an object or a list is passed over.
///
/// # Errors
/// 10025 with what is wrong.
pub fn parse_optional<T: DeserializeOwned + Default>(
    body: &[u8],
    strict: bool,
) -> Result<T, ApiError> {
    match body.trim_ascii().first() {
        Some(b'{' | b'[') => parse(body, strict),
        _ => Ok(T::default()),
    }
}

/// [`parse`] for requests that are one object and never strict: unknown fields are passed over, an empty body is refused.
///
/// # Errors
/// 10025 with what is wrong.
pub fn parse_one<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    Object::read_one(body)?.to(false)
}

/// Whether a body is empty, or an empty object.
#[must_use]
pub fn is_nothing(body: &[u8]) -> bool {
    body.is_empty()
        || body.trim_ascii_start().starts_with(b"{")
            && Object::read_one(body).is_ok_and(|object| object.0.is_empty())
}

/// [`parse`] of a value.
///
/// # Errors
/// 10025 with what is wrong.
pub fn from_value<T: DeserializeOwned>(value: Value, strict: bool) -> Result<T, ApiError> {
    match Node::deserialize(value) {
        Ok(node) => T::deserialize(Reader {
            node: &node,
            strict,
        })
        .map_err(refused),
        Err(error) => Err(table::INVALID_JSON.with(error)),
    }
}

fn refused(why: impl std::fmt::Display) -> ApiError {
    table::INVALID_JSON.with(format_args!("json: {why}"))
}

/// JSON with its fields in the order in which they came.
#[derive(Debug)]
enum Node {
    Null,
    Flag(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<Self>),
    Fields(Vec<(String, Self)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct AnyNode;
        impl<'de> Visitor<'de> for AnyNode {
            type Value = Node;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Flag(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Unsigned(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Signed(value))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Text(value.to_owned()))
            }
            fn visit_string<E>(self, value: String) -> Result<Node, E> {
                Ok(Node::Text(value))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Node::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    fields.push(entry);
                }
                Ok(Node::Fields(fields))
            }
        }
        from.deserialize_any(AnyNode)
    }
}

/// Reads a type out of a node. `null` is the zero of whatever is wanted.
#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    strict: bool,
}

impl<'a> Reader<'a> {
    const fn fields(self, fields: &'a [(String, Node)]) -> Fields<'a> {
        Fields {
            fields,
            strict: self.strict,
        }
    }

    fn items(self, items: &'a [Node]) -> Items<'a> {
        Items {
            items: items.iter(),
            strict: self.strict,
        }
    }
}

/// The methods that read a number: `null` is zero.
macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.node {
                Node::Null => visitor.visit_u64(0),
                // Negative zero is an integer.
                Node::Float(value) if *value == 0.0 && value.is_sign_negative() => visitor.visit_u64(0),
                _ => self.deserialize_any(visitor),
            }
        })*
    };
}

impl<'a> Deserializer<'a> for Reader<'a> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Null => visitor.visit_unit(),
            Node::Flag(value) => visitor.visit_bool(*value),
            Node::Unsigned(value) => visitor.visit_u64(*value),
            Node::Signed(value) => visitor.visit_i64(*value),
            Node::Float(value) => visitor.visit_f64(*value),
            Node::Text(value) => visitor.visit_borrowed_str(value),
            Node::List(items) => visitor.visit_seq(self.items(items)),
            Node::Fields(fields) => self.fields(fields).deserialize_any(visitor),
        }
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_bool<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Null => visitor.visit_bool(false),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Null => visitor.visit_borrowed_str(""),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Null => visitor.visit_seq(self.items(&[])),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Null => self.fields(&[]).deserialize_map(visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.node {
            Node::Null => self.fields(&[]).deserialize_struct(name, known, visitor),
            Node::Fields(fields) => self.fields(fields).deserialize_struct(name, known, visitor),
            // A list would be taken for the fields in their order.
            Node::List(_) => Err(de::Error::custom("an object is expected")),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.node {
            Node::Text(text) => {
                let text: StrDeserializer<'_, Error> = text.as_str().into_deserializer();
                visitor.visit_enum(text)
            }
            _ => Err(de::Error::custom("a name is expected")),
        }
    }

    forward_to_deserialize_any! {
        <V: Visitor<'a>>
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// The fields of an object, for a type that knows its own.
struct Fields<'a> {
    fields: &'a [(String, Node)],
    strict: bool,
}

impl<'a> Deserializer<'a> for Fields<'a> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        let pairs = self.fields.iter().map(|(key, node)| (key.as_str(), node));
        visitor.visit_map(Pairs::new(pairs, self.strict))
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut found: Vec<Option<&'a Node>> = vec![None; known.len()];
        for (key, node) in self.fields {
            let exact = known.iter().position(|name| name == key);
            let place = exact.or_else(|| known.iter().position(|name| is_same_name(key, name)));
            match place.and_then(|place| found.get_mut(place)) {
                // `null` leaves what a field of that name has said before.
                Some(Some(_)) if matches!(node, Node::Null) => {}
                Some(slot) => *slot = Some(node),
                None if self.strict => {
                    return Err(de::Error::custom(format_args!("unknown field \"{key}\"")));
                }
                None => {}
            }
        }
        let present = known
            .iter()
            .zip(found)
            .filter_map(|(name, node)| Some((*name, node?)));
        visitor.visit_map(Pairs::new(present, self.strict))
    }

    forward_to_deserialize_any! {
        <V: Visitor<'a>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Names and values of an object, one after the other.
struct Pairs<'a, I> {
    pairs: I,
    /// The value whose name was handed out last.
    value: &'a Node,
    strict: bool,
}

impl<'a, I: Iterator<Item = (&'a str, &'a Node)>> Pairs<'a, I> {
    const fn new(pairs: I, strict: bool) -> Self {
        let value = &Node::Null;
        Self {
            pairs,
            value,
            strict,
        }
    }
}

impl<'a, I: Iterator<Item = (&'a str, &'a Node)>> MapAccess<'a> for Pairs<'a, I> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'a>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((name, node)) = self.pairs.next() else {
            return Ok(None);
        };
        self.value = node;
        seed.deserialize(BorrowedStrDeserializer::new(name))
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Reader {
            node: self.value,
            strict: self.strict,
        })
    }
}

struct Items<'a> {
    items: std::slice::Iter<'a, Node>,
    strict: bool,
}

impl<'a> SeqAccess<'a> for Items<'a> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'a>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let strict = self.strict;
        let item = self.items.next();
        item.map(|node| seed.deserialize(Reader { node, strict }))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Asked {
        seq: u64,
        inner: Inner,
        tags: Vec<String>,
        metadata: BTreeMap<String, String>,
        kind: Kind,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Inner {
        name: String,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        #[default]
        One,
        Two,
    }

    fn read(body: &[u8]) -> Asked {
        parse(body, true).unwrap()
    }

    #[test]
    fn unknown_fields_are_refused_or_passed_over() {
        let body = br#"{"seq": 7, "bogus": 1, "inner": {"name": "x", "other": [1]}}"#;
        let refusal = parse::<Asked>(body, true).unwrap_err();
        assert_eq!(refusal.err_code, 10025);
        let wanted = "invalid JSON: json: unknown field \"bogus\"";
        assert_eq!(refusal.description, wanted);
        let asked: Asked = parse(body, false).unwrap();
        assert_eq!((asked.seq, asked.inner.name.as_str()), (7, "x"));
    }

    #[test]
    fn many_unknown_fields_cost_no_more_than_their_bytes() {
        let fields: Vec<String> = (0..100_000).map(|n| format!("\"f{n}\":{n}")).collect();
        let body = format!("{{{},\"seq\":3}}", fields.join(","));
        assert_eq!(parse::<Asked>(body.as_bytes(), false).unwrap().seq, 3);
    }

    #[test]
    fn names_are_the_same_in_any_case_and_the_last_wins() {
        assert_eq!(read(br#"{"SEQ": 7}"#).seq, 7);
        assert_eq!(read(br#"{"seq": 7, "Seq": 8}"#).seq, 8);
        assert_eq!(read(br#"{"seq": 7, "Seq": null}"#).seq, 7);
        assert_eq!(read(r#"{"ſeq": 7, "TAGS": ["a"]}"#.as_bytes()).tags, ["a"]);
        let mut object = Object::read(br#"{"Pedantic": true, "seq": 1}"#).unwrap();
        assert!(object.take::<bool>("pedantic").unwrap());
        assert_eq!(object.to::<Asked>(true).unwrap().seq, 1);
        assert_eq!(
            Object::read(br#"{"pedantic": 1}"#)
                .unwrap()
                .take::<bool>("pedantic")
                .unwrap_err()
                .err_code,
            10025
        );
    }

    #[test]
    fn null_is_the_zero_of_its_type() {
        let asked = read(br#"{"seq":null,"inner":null,"tags":[null,"a"],"metadata":{"k":null}}"#);
        assert_eq!(asked.tags, ["", "a"]);
        assert_eq!(asked.metadata["k"], "");
        assert_eq!(asked.seq, 0);
    }

    #[test]
    fn what_is_no_text_is_replaced() {
        let name = |body: &[u8]| read(body).inner.name;
        assert_eq!(
            name(b"{\"inner\":{\"name\":\"a\xff\xfeb\"}}"),
            "a\u{fffd}\u{fffd}b"
        );
        assert_eq!(name(br#"{"inner":{"name":"\ud800x"}}"#), "\u{fffd}x");
        assert_eq!(
            name(br#"{"inner":{"name":"\udc00\ud83d\ude00"}}"#),
            "\u{fffd}\u{1f600}"
        );
        assert_eq!(name(br#"{"inner":{"name":"\\ud800"}}"#), "\\ud800");
        assert_eq!(name(br#"{"inner":{"name":"\u00e9"}}"#), "é");
        assert_eq!(
            parse::<Asked>(br#"{"inner":{"name":"\ud8"}}"#, true)
                .unwrap_err()
                .err_code,
            10025
        );
    }

    #[test]
    fn nothing_has_several_spellings() {
        for body in [&b""[..], b"{}", b" { } "] {
            assert!(is_nothing(body), "{body:?}");
        }
        for body in [
            &b"x"[..],
            b" ",
            b"[]",
            b"0",
            b"null",
            b"{} {}",
            br#"{"a":1}"#,
        ] {
            assert!(!is_nothing(body), "{body:?}");
        }
        assert_eq!(read(b""), Asked::default());
        for body in [&b""[..], b"x", b"5", b"null"] {
            assert_eq!(parse_optional::<Asked>(body, true), Ok(Asked::default()));
        }
        assert!(parse_optional::<Asked>(b"[]", true).is_err());
    }

    #[test]
    fn several_objects_are_as_one_where_a_request_may_be_read_as_a_stream() {
        let asked = read(br#"{"seq": 7} {"tags": ["a"]}"#);
        assert_eq!((asked.seq, asked.tags.len()), (7, 1));
        assert_eq!(parse_one::<Asked>(br#"{"seq": 7, "x": 1}"#).unwrap().seq, 7);
        for body in [&b""[..], b"{} {}", b"{}x", b"[]"] {
            assert!(parse_one::<Asked>(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn other_types_are_refused() {
        for body in [
            &b"{nonsense"[..],
            br#"{"seq": "x"}"#,
            br#"{"seq": 1.0}"#,
            br#"{"seq": -1}"#,
            br#"{"seq": 18446744073709551616}"#,
            br#"{"kind": "three"}"#,
            br#"{"kind": null}"#,
            br#"{"kind": 1}"#,
            br#"{"tags": {}}"#,
            br#"{"inner": []}"#,
            br#"{"inner": ["x"]}"#,
            b"[]",
            b"{} x",
            b"{}x",
        ] {
            let refusal = parse::<Asked>(body, false).unwrap_err();
            assert_eq!(refusal.err_code, 10025, "{}", String::from_utf8_lossy(body));
        }
        assert_eq!(read(br#"{"seq": -0, "kind": "two"}"#).kind, Kind::Two);
    }
}
