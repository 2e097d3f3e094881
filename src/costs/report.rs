//! What was spent, by whom, on what and when (contract http-api 4.5, W-36).

use std::collections::HashMap;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::config::Limit;
use crate::costs::budget::Budgets;
use crate::limits;
use crate::rt::{clock, lock};
use crate::store::costs::{Filter, Group, GroupBy, Whose};
use crate::store::{CostStore, StoreError};

/// A limit of `[costs]`, and how much of it is spent in the current period.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitState {
    /// `agent`, `key` or `all`.
    pub scope: &'static str,
    /// The agent or identity; empty for `all`.
    pub name: String,
    /// `daily`, `monthly` or `total`.
    pub period: &'static str,
    /// USD; 0 is off.
    pub soft_usd: f64,
    pub hard_usd: f64,
    pub spent_usd: f64,
}

/// All figures of the costs route. Sums are over everything that was ever stored, unless they say otherwise.
#[derive(Clone, Debug, Default)]
pub struct CostReport {
    pub global_usd: f64,
    /// Of one conversation.
    pub conversation: Limit,
    /// USD by conversation, the latest used first; bounded by [`limits::COST_LINES_MAX`] like the other lists.
    pub session_costs: Vec<(String, f64)>,
    /// These and those below only of the agent that was asked for.
    pub sessions: Vec<Group>,
    pub by_agent: Vec<Group>,
    pub by_identity: Vec<Group>,
    pub by_model: Vec<Group>,
    /// Every day of the series, the last is today.
    pub by_day: Vec<Group>,
    pub limits: Vec<LimitState>,
    pub fallback_rate: f64,
    pub n_own_prices: usize,
}

impl Budgets {
    /// The figures of everything, or of one agent, with a series of `days` days (at least 1, at most
    /// [`limits::COST_DAYS_MAX`]). Blocks on the disk.
    pub fn report(&self, agent: Option<&str>, days: u32) -> Result<CostReport, StoreError> {
        let (store, all) = (&self.store, limits::COST_LINES_MAX);
        let filter = Filter { agent, ..Filter::default() };
        let everything = store.report(GroupBy::Conversation, &Filter::default(), all)?;
        let session_costs = everything.iter().map(|group| (group.name.clone(), group.cost_usd)).collect();
        let sessions = match agent {
            None => everything,
            Some(_) => store.report(GroupBy::Conversation, &filter, all)?,
        };
        Ok(CostReport {
            global_usd: store.spent(Whose::Everybody, "")?,
            conversation: self.conversation_limits(),
            session_costs,
            sessions,
            by_agent: store.report(GroupBy::Agent, &filter, all)?,
            by_identity: store.report(GroupBy::Identity, &filter, all)?,
            by_model: store.report(GroupBy::Model, &filter, all)?,
            by_day: series(store, agent, days, &self.zone())?,
            limits: self.limit_states()?,
            fallback_rate: self.prices().fallback_rate(),
            n_own_prices: self.prices().n_own(),
        })
    }

    /// What an agent may know: USD of all that it spent, and of one conversation with it. Blocks on the disk.
    pub fn summary(&self, agent: &str, conversation: &str) -> Result<(f64, f64), StoreError> {
        let filter = Filter { agent: Some(agent), conversation: Some(conversation), from_day: "" };
        let own = self.store.report(GroupBy::Conversation, &filter, 1)?;
        Ok((self.store.spent(Whose::Agent(agent), "")?, own.first().map_or(0.0, |group| group.cost_usd)))
    }

    /// The limits of one conversation with that agent.
    pub fn conversation_limits_of(&self, agent: &str) -> Limit {
        lock(&self.rules).conversation(agent)
    }

    fn limit_states(&self) -> Result<Vec<LimitState>, StoreError> {
        let bounds = lock(&self.rules).all_bounds(&self.today());
        let state = |bound: &crate::costs::rules::Bound| {
            let account = &bound.account;
            Ok(LimitState {
                scope: account.scope.name(),
                name: account.name.clone(),
                period: account.period.name(),
                soft_usd: bound.limit.soft,
                hard_usd: bound.limit.hard,
                spent_usd: self.store.spent(account.whose(), &account.days)?,
            })
        };
        bounds.iter().map(state).collect()
    }
}

/// A line for each of the last days, also those without a call; of one agent, or of all. Blocks on the disk.
pub fn series(store: &CostStore, agent: Option<&str>, days: u32, zone: &TimeZone) -> Result<Vec<Group>, StoreError> {
    let today = Timestamp::from_millisecond(clock::unix_ms()).unwrap_or(Timestamp::UNIX_EPOCH);
    let today = today.to_zoned(zone.clone()).date();
    let days = i64::from(days.clamp(1, limits::COST_DAYS_MAX));
    // Before the year 1970 there is nothing to show.
    let names: Vec<String> =
        (0..days).rev().filter_map(|back| Some(today.checked_sub(back.days()).ok()?.to_string())).collect();
    let filter = Filter { agent, from_day: names.first().map_or("", String::as_str), ..Filter::default() };
    let found = store.report(GroupBy::Day, &filter, usize::MAX)?;
    let mut found: HashMap<String, Group> = found.into_iter().map(|group| (group.name.clone(), group)).collect();
    Ok(names
        .into_iter()
        .map(|name| found.remove(&name).unwrap_or_else(|| Group { name, ..Group::default() }))
        .collect())
}

/// The day of a moment (milliseconds since 1970) in a time zone: `YYYY-MM-DD`.
pub fn day_of(unix_ms: i64, zone: &TimeZone) -> String {
    let time = Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned(zone.clone()).date().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_where_people_live() {
        let at = 1_767_312_000_000; // 2026-01-02 00:00 UTC
        for (zone, expected) in
            [("UTC", "2026-01-02"), ("America/New_York", "2026-01-01"), ("Pacific/Auckland", "2026-01-02")]
        {
            let zone = TimeZone::get(zone).unwrap();
            assert_eq!(day_of(at, &zone), expected);
        }
        assert_eq!(day_of(at - 1, &TimeZone::UTC), "2026-01-01");
    }
}
