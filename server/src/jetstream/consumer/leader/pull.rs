//! A pull request: what it may say, and what is left of it while it waits.

use std::time::Duration;

use bytes::Bytes;
use halyard_runtime::time::Instant;
use serde::Deserialize;

use crate::broker::ClientId;
use crate::jetstream::api::json;
use crate::jetstream::consumer::check::GoDuration;
use crate::jetstream::consumer::command::Grant;
use crate::jetstream::consumer::config::ConsumerConfig;

/// The body of a request. Unknown fields are ignored, as the peer does here.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
struct Body {
    batch: i64,
    expires: i64,
    max_bytes: i64,
    no_wait: bool,
    idle_heartbeat: i64,
    /// For consumers with priority groups alone, which there are none of here; read so that another type is refused.
    group: String,
    id: String,
    min_pending: i64,
    min_ack_pending: i64,
    /// Says something only among the members of such a group.
    priority: i64,
}

/// A waiting request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whose it is.
    pub client: Option<ClientId>,
    /// Where the messages go.
    pub reply: Bytes,
    /// What it asked for less what it got. One that asks for nothing, or less, gets one message.
    pub batch: i64,
    /// Bytes that it may still get; 0 and less are no limit.
    pub max_bytes: i64,
    /// When it ends.
    pub expires: Option<Instant>,
    /// It does not wait: it ends when nothing is there.
    pub no_wait: bool,
    /// It got a message.
    pub was_served: bool,
    /// How many commands with answers the consumer had submitted when it came, those included that were about to be: what
    /// a client has said before it asks counts before it is served.
    pub after: u64,
    /// How often it wants a sign of life.
    pub heartbeat: Option<Duration>,
    /// When the next one is due.
    pub next_heartbeat: Option<Instant>,
}

impl Request {
    /// Reads a request, and checks it against the consumer's caps.
    ///
    /// # Errors
    /// The status that the client gets at once.
    pub fn parse(
        body: &[u8],
        reply: Bytes,
        config: &ConsumerConfig,
        now: Instant,
    ) -> Result<Self, String> {
        let body = read(body)?;
        if body.idle_heartbeat > 0 && body.idle_heartbeat > body.expires / 2 {
            return Err("400 Bad Request - heartbeat value too large".to_owned());
        }
        if config.max_batch > 0 && body.batch > config.max_batch {
            return Err(format!(
                "409 Exceeded MaxRequestBatch of {}",
                config.max_batch
            ));
        }
        if config.max_expires > 0 && body.expires > config.max_expires {
            let cap = GoDuration(config.max_expires);
            return Err(format!("409 Exceeded MaxRequestExpires of {cap}"));
        }
        if config.max_bytes > 0 && body.max_bytes > config.max_bytes {
            return Err(format!(
                "409 Exceeded MaxRequestMaxBytes of {}",
                config.max_bytes
            ));
        }
        check_priority(&body)?;
        let heartbeat = duration(body.idle_heartbeat);
        Ok(Self {
            client: None,
            reply,
            batch: body.batch,
            max_bytes: body.max_bytes,
            // A time in the past ends it at once.
            expires: match body.expires {
                0 => None,
                nanos => Some(now + duration(nanos).unwrap_or(Duration::ZERO)),
            },
            no_wait: body.no_wait,
            was_served: false,
            after: 0,
            heartbeat,
            next_heartbeat: heartbeat.map(|every| now + every),
        })
    }

    /// What the machine may select for it.
    pub fn grant(&self) -> Grant {
        Grant {
            batch: u32::try_from(self.batch.max(1)).unwrap_or(u32::MAX),
            max_bytes: u64::try_from(self.max_bytes).unwrap_or(0),
        }
    }

    /// Something was sent to it.
    pub fn heard(&mut self, now: Instant) {
        self.next_heartbeat = self.heartbeat.map(|every| now + every);
    }

    /// When it wants to be looked at next.
    pub fn deadline(&self) -> Option<Instant> {
        match (self.expires, self.next_heartbeat) {
            (Some(end), Some(beat)) => Some(end.min(beat)),
            (end, beat) => end.or(beat),
        }
    }
}

/// What a request may say to a consumer without priority groups.
fn check_priority(body: &Body) -> Result<(), String> {
    let refused = if body.min_pending != 0 || body.min_ack_pending != 0 {
        "Not a Overflow Priority consumer"
    } else if !body.id.is_empty() {
        "Not a Pinned Client Priority consumer"
    } else if !(0..=9).contains(&body.priority) {
        "Priority must be between 0 and 9"
    } else {
        return Ok(());
    };
    Err(format!("400 Bad Request - {refused}"))
}

fn duration(nanos: i64) -> Option<Duration> {
    u64::try_from(nanos)
        .ok()
        .filter(|nanos| *nanos > 0)
        .map(Duration::from_nanos)
}

/// Empty, a bare number (anything else that is no object counts as 1), or JSON.
fn read(body: &[u8]) -> Result<Body, String> {
    let text = body.trim_ascii();
    if text.first() != Some(&b'{') {
        let batch = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(1);
        return Ok(Body {
            batch,
            ..Body::default()
        });
    }
    json::parse_one(text).map_err(|refusal| {
        let why = refusal.description.trim_start_matches("invalid JSON: ");
        format!("400 Bad Request - {why}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str, config: &ConsumerConfig) -> Result<Request, String> {
        let now = Instant::now();
        Request::parse(body.as_bytes(), Bytes::from_static(b"r"), config, now)
    }

    #[test]
    fn bodies_and_caps() {
        let config = ConsumerConfig {
            max_batch: 5,
            max_expires: 2_000_000_000,
            max_bytes: 100,
            ..Default::default()
        };
        assert_eq!(parse("", &config).unwrap().batch, 1);
        assert_eq!(parse("3", &config).unwrap().batch, 3);
        assert_eq!(parse("abc", &config).unwrap().batch, 1);
        let none = parse("{\"batch\":0,\"foo\":1}", &config).unwrap();
        assert_eq!((none.batch, none.grant().batch), (0, 1));
        let refused = [
            ("6", "409 Exceeded MaxRequestBatch of 5"),
            (
                "{\"expires\":3000000000}",
                "409 Exceeded MaxRequestExpires of 2s",
            ),
            (
                "{\"max_bytes\":300}",
                "409 Exceeded MaxRequestMaxBytes of 100",
            ),
            (
                "{\"batch\":",
                "400 Bad Request - unexpected end of JSON input",
            ),
            (
                "{\"idle_heartbeat\":5}",
                "400 Bad Request - heartbeat value too large",
            ),
            (
                "{\"expires\":9,\"idle_heartbeat\":5}",
                "400 Bad Request - heartbeat value too large",
            ),
        ];
        for (fields, status) in [
            ("{\"id\":\"x\"}", "Not a Pinned Client Priority consumer"),
            ("{\"min_pending\":1}", "Not a Overflow Priority consumer"),
            (
                "{\"min_ack_pending\":-1}",
                "Not a Overflow Priority consumer",
            ),
            (
                "{\"min_pending\":1,\"id\":\"x\"}",
                "Not a Overflow Priority consumer",
            ),
            ("{\"priority\":10}", "Priority must be between 0 and 9"),
            ("{\"priority\":-1}", "Priority must be between 0 and 9"),
        ] {
            assert_eq!(
                parse(fields, &config),
                Err(format!("400 Bad Request - {status}"))
            );
        }
        let ignored = "{\"priority\":9,\"group\":\"g\",\"id\":\"\",\"min_pending\":0}";
        assert!(parse(ignored, &config).is_ok());
        assert!(parse("{} {}", &config).is_err());
        for (body, status) in refused {
            assert_eq!(parse(body, &config), Err(status.to_owned()));
        }
    }
}
