//! `/routez`, `/gatewayz`, `/leafz`: connections with other servers. There are none yet.

use serde::Serialize;

use super::state::{Answer, State, json};
use super::text::Time;

#[derive(Serialize)]
struct Routez {
    server_id: String,
    server_name: String,
    now: Time,
    num_routes: u64,
    routes: [(); 0],
}

pub(super) fn routez(state: &State) -> Answer {
    let info = state.front.info();
    json(&Routez {
        server_id: info.server_id,
        server_name: info.server_name,
        now: State::now(),
        num_routes: 0,
        routes: [],
    })
}

#[derive(Serialize)]
struct Gatewayz {
    server_id: String,
    now: Time,
    outbound_gateways: Empty,
    inbound_gateways: Empty,
}

/// `{}`
#[derive(Serialize)]
pub(super) struct Empty {}

pub(super) fn gatewayz(state: &State) -> Answer {
    json(&Gatewayz {
        server_id: state.server_id(),
        now: State::now(),
        outbound_gateways: Empty {},
        inbound_gateways: Empty {},
    })
}

#[derive(Serialize)]
struct Leafz {
    server_id: String,
    now: Time,
    leafnodes: u64,
    leafs: [(); 0],
}

pub(super) fn leafz(state: &State) -> Answer {
    json(&Leafz {
        server_id: state.server_id(),
        now: State::now(),
        leafnodes: 0,
        leafs: [],
    })
}
