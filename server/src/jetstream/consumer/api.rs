//! `CONSUMER.*` requests.

use std::sync::Arc;

use crate::jetstream::api::Request;
use crate::jetstream::service::JetStream;

/// The answer; `None` is silence.
pub async fn answer(_service: &Arc<JetStream>, _request: &Request) -> Option<Vec<u8>> {
    None
}
