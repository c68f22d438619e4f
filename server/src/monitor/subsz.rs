//! `/subsz`: interest, in numbers and on demand one by one.

use std::sync::Arc;

use serde::Serialize;

use super::connz::SubDetail;
use super::query::{BadQuery, Query};
use super::state::{Answer, State, json};
use super::text::Time;
use crate::broker::{Account, InterestCounters, Subscription, subject};

#[derive(Serialize)]
struct Subsz {
    server_id: String,
    now: Time,
    #[serde(flatten)]
    statistics: Statistics,
    total: usize,
    offset: usize,
    limit: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list: Vec<SubDetail>,
}

/// How interest is used. Routes are cached by publishers, not centrally, so there is no size of the cache and no fan-out.
#[derive(Serialize, Default)]
pub(super) struct Statistics {
    num_subscriptions: u64,
    num_cache: u64,
    num_inserts: u64,
    num_removes: u64,
    num_matches: u64,
    cache_hit_rate: f64,
    max_fanout: u64,
    avg_fanout: f64,
}

impl Statistics {
    pub(super) fn sum<'a>(accounts: impl IntoIterator<Item = &'a Arc<Account>>) -> Self {
        let mut sum = InterestCounters::default();
        for account in accounts {
            let counters = account.counters();
            sum.subscriptions += counters.subscriptions;
            sum.inserts += counters.inserts;
            sum.removes += counters.removes;
            sum.matches += counters.matches;
            sum.cache_hits += counters.cache_hits;
        }
        let hit_rate = if sum.matches == 0 {
            0.0
        } else {
            sum.cache_hits as f64 / sum.matches as f64
        };
        Self {
            num_subscriptions: sum.subscriptions,
            num_inserts: sum.inserts,
            num_removes: sum.removes,
            num_matches: sum.matches,
            cache_hit_rate: hit_rate,
            ..Self::default()
        }
    }
}

pub(super) fn answer(state: &State, query: &Query<'_>) -> Result<Answer, BadQuery> {
    let page = query.page()?;
    let test = query.text("test");
    if !test.is_empty() && !subject::is_valid_literal(test.as_bytes()) {
        return Err(BadQuery(format!(
            "invalid test subject, must be valid publish subject: {test}"
        )));
    }
    let wanted = query.text("acc");
    let mut accounts = state.front.broker.accounts();
    accounts.retain(|account| wanted.is_empty() || account.name() == wanted);
    let mut list = Vec::new();
    if query.bool("subs")? {
        for account in &accounts {
            let found: Vec<Arc<Subscription>> = match test {
                "" => account.subscriptions(),
                _ => account.matching(test.as_bytes()),
            };
            list.extend(found.iter().map(|one| SubDetail::new(account.name(), one)));
        }
    }
    Ok(json(&Subsz {
        server_id: state.server_id(),
        now: State::now(),
        statistics: Statistics::sum(&accounts),
        total: list.len(),
        offset: page.offset,
        limit: page.limit,
        subscriptions_list: page.take(list),
    }))
}
