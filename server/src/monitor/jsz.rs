//! `/jsz` and the JetStream part of `/varz`.

use serde::Serialize;

use super::query::{BadQuery, Query};
use super::state::{Answer, State, json};
use super::text::Time;

/// The JetStream part of `/varz`; `{}` without JetStream.
#[derive(Serialize)]
pub(super) struct JetStreamVarz {}

impl JetStreamVarz {
    pub(super) fn new(_state: &State) -> Self {
        Self {}
    }
}

#[derive(Serialize)]
struct Disabled {
    memory: u64,
    storage: u64,
    reserved_memory: u64,
    reserved_storage: u64,
    accounts: u64,
    ha_assets: u64,
    server_id: String,
    now: Time,
    disabled: bool,
}

pub(super) fn answer(state: &State, query: &Query<'_>) -> Result<Answer, BadQuery> {
    let _page = query.page()?;
    Ok(json(&Disabled {
        memory: 0,
        storage: 0,
        reserved_memory: 0,
        reserved_storage: 0,
        accounts: 0,
        ha_assets: 0,
        server_id: state.server_id(),
        now: State::now(),
        disabled: true,
    }))
}
