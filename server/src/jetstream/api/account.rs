//! `INFO`: what an account uses and may use.

use std::sync::Arc;

use super::errors::ApiError;
use super::request::Request;
use super::types::{AccountInfo, AccountLimits, reply};
use crate::jetstream::service::JetStream;

pub(super) async fn info(service: &Arc<JetStream>, request: &Request) -> Vec<u8> {
    service.caught_up().await;
    let usage = service.usage(&request.account);
    let outcome = match request.check_level() {
        Err(refusal) => Err::<AccountInfo, ApiError>(refusal),
        Ok(()) => Ok(AccountInfo {
            memory: usage.memory,
            storage: usage.storage,
            reserved_memory: usage.reserved_memory,
            reserved_storage: usage.reserved_storage,
            streams: usage.streams,
            consumers: usage.consumers,
            limits: AccountLimits {
                max_memory: -1,
                max_storage: -1,
                max_streams: -1,
                max_consumers: -1,
                max_ack_pending: -1,
                memory_max_stream_bytes: -1,
                storage_max_stream_bytes: -1,
                max_bytes_required: false,
            },
            domain: service.domain().map(ToOwned::to_owned),
            api: service.counters().snapshot(),
        }),
    };
    reply("account_info", &outcome)
}
