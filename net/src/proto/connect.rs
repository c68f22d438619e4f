//! CONNECT: what a client says of itself.
//!
//! Read as the real server reads it: keys in any case, unknown keys ignored, `null` leaves a field as it was, the last of
//! equal keys wins, ill-formed UTF-8 is repaired. A second CONNECT on a connection changes only the fields that it names.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::json;

/// The JSON of CONNECT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connect {
    /// `+OK` for every operation.
    pub verbose: bool,
    /// Check subjects of publications.
    pub pedantic: bool,
    /// Whether the client's own messages come back to its own subscriptions.
    pub echo: bool,
    /// The client wants TLS.
    pub tls_required: bool,
    /// The client understands header blocks.
    pub headers: bool,
    /// The client wants a 503 when nobody can answer its request.
    pub no_responders: bool,
    /// Protocol level: 0, or 1 = understands asynchronous INFO.
    pub protocol: i64,
    /// Name of the connection.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Language of the client library.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lang: String,
    /// Version of the client library.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Credentials, by name and password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Credentials, by name and password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pass: String,
    /// Credentials, by token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth_token: String,
    /// Credentials, by signed claim.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jwt: String,
    /// Credentials: the public key that signed the nonce.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nkey: String,
    /// The signed nonce.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sig: String,
    /// The nonce signed by a trusted proxy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub proxy_sig: String,
    /// Never allowed to clients; present = authorization violation (CVE-2022-24450).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub account: String,
    /// Never allowed to clients; true = authorization violation.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub new_account: bool,
    /// Used between servers only; inert here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_account: String,
}

impl Default for Connect {
    /// What is in force before CONNECT.
    fn default() -> Self {
        Self {
            verbose: true,
            pedantic: true,
            echo: true,
            tls_required: false,
            headers: false,
            no_responders: false,
            protocol: 0,
            name: String::new(),
            lang: String::new(),
            version: String::new(),
            user: String::new(),
            pass: String::new(),
            auth_token: String::new(),
            jwt: String::new(),
            nkey: String::new(),
            sig: String::new(),
            proxy_sig: String::new(),
            account: String::new(),
            new_account: false,
            remote_account: String::new(),
        }
    }
}

impl Connect {
    /// Takes over what the JSON names; on an error some fields may have changed (the connection is closed anyway).
    ///
    /// # Errors
    /// Not a JSON object, or a known field of the wrong type: a protocol violation.
    pub fn update(&mut self, body: &[u8]) -> Result<(), serde_json::Error> {
        let text = json::cleaned(body);
        let mut deserializer = serde_json::Deserializer::from_slice(&text);
        Fields(self).deserialize(&mut deserializer)?;
        deserializer.end()
    }

    /// As JSON, ready for [`super::encoder::connect`].
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data always encodes")
    }
}

/// Names of the fields that mean something.
const FIELDS: [&str; 22] = [
    "verbose",
    "pedantic",
    "echo",
    "tls_required",
    "headers",
    "no_responders",
    "protocol",
    "name",
    "lang",
    "version",
    "user",
    "pass",
    "auth_token",
    "jwt",
    "nkey",
    "sig",
    "proxy_sig",
    "account",
    "new_account",
    "remote_account",
    "import",
    "export",
];

/// Subjects that one server takes of another.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Permission {
    allow: Option<Vec<Option<String>>>,
    deny: Option<Vec<Option<String>>>,
}

/// Reads an object, or `null`, into an existing value.
struct Fields<'a>(&'a mut Connect);

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let to = self.0;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let known = FIELDS.iter().find(|name| json::is_same_name(&key, name));
            match known.copied().unwrap_or_default() {
                "verbose" => set(&mut map, &mut to.verbose)?,
                "pedantic" => set(&mut map, &mut to.pedantic)?,
                "echo" => set(&mut map, &mut to.echo)?,
                "tls_required" => set(&mut map, &mut to.tls_required)?,
                "headers" => set(&mut map, &mut to.headers)?,
                "no_responders" => set(&mut map, &mut to.no_responders)?,
                "protocol" => set(&mut map, &mut to.protocol)?,
                "name" => set(&mut map, &mut to.name)?,
                "lang" => set(&mut map, &mut to.lang)?,
                "version" => set(&mut map, &mut to.version)?,
                "user" => set(&mut map, &mut to.user)?,
                "pass" => set(&mut map, &mut to.pass)?,
                "auth_token" => set(&mut map, &mut to.auth_token)?,
                "jwt" => set(&mut map, &mut to.jwt)?,
                "nkey" => set(&mut map, &mut to.nkey)?,
                "sig" => set(&mut map, &mut to.sig)?,
                "proxy_sig" => set(&mut map, &mut to.proxy_sig)?,
                "account" => set(&mut map, &mut to.account)?,
                "new_account" => set(&mut map, &mut to.new_account)?,
                "remote_account" => set(&mut map, &mut to.remote_account)?,
                // Of servers; a client's must be of that shape all the same.
                "import" | "export" => set(&mut map, &mut Permission::default())?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

fn set<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut A,
    field: &mut T,
) -> Result<(), A::Error> {
    if let Some(value) = map.next_value::<Option<T>>()? {
        *field = value;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by experiment with the real server.
    #[test]
    fn reads_what_the_real_server_reads() {
        for (json, accepted) in [
            ("{}", true),
            ("null", true),
            ("  {}  ", true),
            (r#"{"VERBOSE":false}"#, true),
            (r#"{"verbose":null,"name":null,"protocol":null}"#, true),
            (r#"{"verbose":true,"verbose":false}"#, true),
            (r#"{"x":{"y":[1,2,{}]},"verbose":false}"#, true),
            (r#"{"name":"\ud800","\udc00":1}"#, true),
            (r#"{"import":null,"export":{"allow":["a"],"x":1}}"#, true),
            (r#"{"import":5}"#, false),
            (r#"{"export":{"deny":[5]}}"#, false),
            ("", false),
            ("[]", false),
            ("1", false),
            ("{foo}", false),
            ("{} x", false),
            (r#"{"verbose":"x"}"#, false),
            (r#"{"verbose":0}"#, false),
            (r#"{"protocol":1.5}"#, false),
            (r#"{"protocol":"1"}"#, false),
            (r#"{"name":5}"#, false),
        ] {
            assert_eq!(
                Connect::default().update(json.as_bytes()).is_ok(),
                accepted,
                "{json}"
            );
        }
        let mut connect = Connect::default();
        connect
            .update("{\"no_re\u{17f}ponders\":true}".as_bytes())
            .unwrap();
        assert!(connect.no_responders);
        connect
            .update(b"{\"name\":\"\xff\",\"verbose\":true,\"Verbose\":false}")
            .unwrap();
        assert_eq!(
            (connect.name.as_str(), connect.verbose),
            ("\u{fffd}", false)
        );
    }

    #[test]
    fn a_second_connect_changes_only_what_it_names() {
        let mut connect = Connect::default();
        connect
            .update(br#"{"verbose":false,"headers":true,"name":"a"}"#)
            .unwrap();
        connect.update(br#"{"name":"b","verbose":null}"#).unwrap();
        let expected = Connect {
            verbose: false,
            headers: true,
            name: "b".into(),
            ..Connect::default()
        };
        assert_eq!(connect, expected);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let connect = Connect {
            echo: false,
            protocol: 1,
            name: "a\"\n\u{1f980}".into(),
            user: "u".into(),
            pass: "p".into(),
            ..Connect::default()
        };
        let mut read = Connect::default();
        read.update(&connect.to_json()).unwrap();
        assert_eq!(read, connect);
    }
}
