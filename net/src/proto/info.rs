//! INFO: what a server says of itself, first thing on a connection and again when it changes.

use serde::{Deserialize, Serialize};

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The JSON of INFO; empty, false and zero fields that the real server leaves out are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    /// Unique for each start of a server.
    pub server_id: String,
    /// Configured, or the id.
    pub server_name: String,
    /// The level of the NATS server that tools may expect.
    pub version: String,
    /// Protocol level: 1 = asynchronous INFO.
    pub proto: i32,
    /// Shown by tools.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub git_commit: String,
    /// Shown by tools: what the server was built with.
    pub go: String,
    /// This product and its version, beside the level in `version`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub halyard: String,
    /// Where the client listener is bound.
    pub host: String,
    /// Where the client listener is bound.
    pub port: u16,
    /// Header blocks are supported.
    pub headers: bool,
    /// CONNECT must carry credentials.
    #[serde(skip_serializing_if = "is_false")]
    pub auth_required: bool,
    /// The client must go on in TLS.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_required: bool,
    /// The client must show a certificate.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_verify: bool,
    /// The client may go on in TLS.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_available: bool,
    /// Largest header block plus payload, in bytes.
    pub max_payload: i64,
    /// JetStream is on.
    #[serde(skip_serializing_if = "is_false")]
    pub jetstream: bool,
    /// This connection's number.
    #[serde(skip_serializing_if = "is_zero")]
    pub client_id: u64,
    /// The client's address as the server sees it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_ip: String,
    /// To be signed by clients that prove a key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nonce: String,
    /// The cluster's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// The cluster's name was made up.
    #[serde(skip_serializing_if = "is_false")]
    pub cluster_dynamic: bool,
    /// The JetStream domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Where else a client may connect, as `host:port`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connect_urls: Vec<String>,
    /// The same for WebSocket clients.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ws_connect_urls: Vec<String>,
    /// Lame duck mode: go somewhere else.
    #[serde(rename = "ldm", skip_serializing_if = "is_false")]
    pub lame_duck: bool,
    /// Sent in answer to a client's first PING: the connection's account stands in the fields below.
    #[serde(skip_serializing_if = "is_false")]
    pub connect_info: bool,
    /// The account that the connection is bound to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_account: String,
    /// That account is the system account.
    #[serde(skip_serializing_if = "is_false")]
    pub acc_is_sys: bool,
    /// Level of the JetStream API.
    #[serde(skip_serializing_if = "is_zero")]
    pub api_lvl: u64,
    /// Curve key for encrypted authentication callouts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub xkey: String,
}

impl Info {
    /// As JSON, ready for [`super::encoder::info`].
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data always encodes")
    }

    /// From the bytes behind `INFO`.
    ///
    /// # Errors
    /// Not a JSON object of the expected types.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_is_left_out() {
        let info = Info {
            server_id: "N1".into(),
            max_payload: 5,
            ..Info::default()
        };
        let json = String::from_utf8(info.to_json()).unwrap();
        assert_eq!(
            json,
            r#"{"server_id":"N1","server_name":"","version":"","proto":0,"go":"","host":"","port":0,"headers":false,"max_payload":5}"#
        );
        assert_eq!(Info::from_json(json.as_bytes()).unwrap(), info);
    }

    #[test]
    fn fields_of_other_servers_are_ignored() {
        let info = Info::from_json(br#"{"server_id":"x","new_thing":{"a":[1]}}"#).unwrap();
        assert_eq!(info.server_id, "x");
    }
}
