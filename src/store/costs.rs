//! What calls of models cost: a row for each, reserved before the call and settled after it (contract engine 4).

use std::sync::Arc;

use rusqlite::{Row, params};

use crate::rt::clock;
use crate::store::{Db, StoreError};

const INSERT: &str =
    "INSERT INTO llm_calls(created_at, day, turn_id, conversation_id, agent, identity, provider, model,
    input_tokens, output_tokens, cached_tokens, cost_usd, pricing, state)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
const SETTLE: &str = "UPDATE llm_calls SET input_tokens = ?2, output_tokens = ?3, cached_tokens = ?4, cost_usd = ?5,
    pricing = ?6, state = 'settled' WHERE id = ?1 AND state = 'reserved'";
const REMOVE: &str = "DELETE FROM llm_calls WHERE id = ?1 AND state = 'reserved'";
/// What stays open after a crash was probably billed.
const SETTLE_OPEN: &str = "UPDATE llm_calls SET state = 'settled' WHERE state = 'reserved'";
const OLD_EXISTS: &str = "SELECT EXISTS(SELECT 1 FROM llm_calls WHERE day < ?1 AND state = 'settled')";
const OLD_LAST: &str = "SELECT coalesce(max(id), 0) FROM llm_calls";
/// Sums stay what they are by conversation, agent, identity and model; a conversation that was deleted loses its name.
const OLD_SUM: &str = "INSERT INTO llm_calls(created_at, day, conversation_id, agent, identity, provider, model,
      input_tokens, output_tokens, cached_tokens, cost_usd, calls, pricing, state)
    SELECT max(created_at), max(day), coalesce((SELECT id FROM conversations WHERE id = conversation_id), '') AS kept,
      agent, identity, provider, model, sum(input_tokens), sum(output_tokens), sum(cached_tokens), sum(cost_usd),
      sum(calls), pricing, 'old'
    FROM llm_calls WHERE id <= ?2 AND day < ?1 AND state IN ('settled', 'old')
    GROUP BY kept, agent, identity, provider, model, pricing";
const OLD_DELETE: &str = "DELETE FROM llm_calls WHERE id <= ?2 AND day < ?1 AND state IN ('settled', 'old')";

/// Tokens and price of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CallFigures {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cached_tokens: u64,
    pub cost_usd: f64,
    /// `provider`, `registry`, `fallback`, `unknown` or `free`.
    pub pricing: &'static str,
}

/// One call of a model, as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct CallRow<'a> {
    /// `YYYY-MM-DD` in the configured time zone.
    pub day: &'a str,
    pub turn_id: i64,
    pub conversation_id: &'a str,
    pub agent: &'a str,
    pub identity: &'a str,
    pub provider: &'a str,
    pub model: &'a str,
    pub figures: CallFigures,
}

/// Whose calls are summed up.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    Conversation(&'a str),
    Agent(&'a str),
    Identity(&'a str),
    Everybody,
}

/// By what a report puts calls together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    Conversation,
    Agent,
    Identity,
    Model,
    Day,
}

/// A line of a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// What they have in common; for [`GroupBy::Model`] the provider stands in `second`.
    pub name: String,
    pub second: String,
    pub cost_usd: f64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cached_tokens: u64,
    pub calls: u64,
    pub conversations: u64,
    /// Number of calls by how they were priced.
    pub pricing: Vec<(String, u64)>,
}

/// What a report is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    pub agent: Option<&'a str>,
    pub conversation: Option<&'a str>,
    /// The first day; empty is from the beginning.
    pub from_day: &'a str,
}

/// The calls in `holt.db`.
pub struct CostStore {
    db: Arc<Db>,
}

impl CostStore {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// Stores a call before it is made, with estimated figures; its id. Durable when this returns.
    pub fn reserve(&self, row: &CallRow<'_>) -> Result<i64, StoreError> {
        self.insert(row, "reserved")
    }

    /// Stores a call that was made without a reservation.
    pub fn add(&self, row: &CallRow<'_>) -> Result<(), StoreError> {
        self.insert(row, "settled").map(|_| ())
    }

    fn insert(&self, row: &CallRow<'_>, state: &str) -> Result<i64, StoreError> {
        self.db.write(|tx| {
            let figures = &row.figures;
            tx.prepare_cached(INSERT)?.execute(params![
                clock::unix_ms(),
                row.day,
                row.turn_id,
                row.conversation_id,
                row.agent,
                row.identity,
                row.provider,
                row.model,
                count(figures.input_tokens),
                count(figures.output_tokens),
                count(figures.cached_tokens),
                figures.cost_usd,
                figures.pricing,
                state
            ])?;
            Ok(tx.last_insert_rowid())
        })
    }

    /// Replaces the estimate of a reservation by what was used.
    pub fn settle(&self, id: i64, figures: &CallFigures) -> Result<(), StoreError> {
        self.db.write(|tx| {
            tx.prepare_cached(SETTLE)?.execute(params![
                id,
                count(figures.input_tokens),
                count(figures.output_tokens),
                count(figures.cached_tokens),
                figures.cost_usd,
                figures.pricing
            ])?;
            Ok(())
        })
    }

    /// Takes a reservation back: the call was never made.
    pub fn remove(&self, id: i64) -> Result<(), StoreError> {
        self.db.write(|tx| {
            tx.prepare_cached(REMOVE)?.execute([id])?;
            Ok(())
        })
    }

    /// Reservations that a crash left open count as settled at their estimate; how many.
    pub fn settle_open(&self) -> Result<usize, StoreError> {
        let open = "SELECT EXISTS(SELECT 1 FROM llm_calls WHERE state = 'reserved')";
        if !self.db.read(|conn| Ok(conn.query_row(open, [], |row| row.get::<_, bool>(0))?))? {
            return Ok(0);
        }
        self.db.write(|tx| Ok(tx.execute(SETTLE_OPEN, [])?))
    }

    /// What was spent, in USD, on the days that begin with `period` (`2026-01-02`, `2026-01`, or empty for ever);
    /// open reservations do not count.
    pub fn spent(&self, whose: Whose<'_>, period: &str) -> Result<f64, StoreError> {
        let (column, name) = match whose {
            Whose::Conversation(name) => ("conversation_id", name),
            Whose::Agent(name) => ("agent", name),
            Whose::Identity(name) => ("identity", name),
            Whose::Everybody => ("''", ""),
        };
        // `~` sorts behind every digit: the range that an index on the day can use.
        let sql = format!(
            "SELECT coalesce(sum(cost_usd), 0.0) FROM llm_calls
             WHERE {column} = ?1 AND day >= ?2 AND day < ?2 || '~' AND state <> 'reserved'"
        );
        self.db.read(|conn| Ok(conn.prepare_cached(&sql)?.query_row([name, period], |row| row.get(0))?))
    }

    /// Tokens and USD of the settled calls of a turn.
    pub fn of_turn(&self, turn_id: i64) -> Result<(u64, f64), StoreError> {
        let sql = "SELECT coalesce(sum(input_tokens + output_tokens + cached_tokens), 0), coalesce(sum(cost_usd), 0.0)
            FROM llm_calls WHERE turn_id = ?1 AND state <> 'reserved'";
        self.db.read(|conn| {
            let sums = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?));
            Ok(conn.prepare_cached(sql)?.query_row([turn_id], sums)?)
        })
    }

    /// Tokens of an identity on a day.
    pub fn tokens(&self, identity: &str, day: &str) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(sum(input_tokens + output_tokens + cached_tokens), 0) FROM llm_calls
            WHERE day = ?2 AND identity = ?1";
        self.db.read(|conn| {
            let sum: i64 = conn.prepare_cached(sql)?.query_row([identity, day], |row| row.get(0))?;
            Ok(sum.max(0).cast_unsigned())
        })
    }

    /// All settled calls put together; at most `lines_max` lines, the latest used first, days in their order.
    pub fn report(&self, by: GroupBy, filter: &Filter<'_>, lines_max: usize) -> Result<Vec<Group>, StoreError> {
        let (first, second) = match by {
            GroupBy::Conversation => ("conversation_id", "''"),
            GroupBy::Agent => ("agent", "''"),
            GroupBy::Identity => ("identity", "''"),
            GroupBy::Model => ("model", "provider"),
            GroupBy::Day => ("day", "''"),
        };
        let order = if by == GroupBy::Day { "ORDER BY 1" } else { "ORDER BY max(id) DESC" };
        let sql = format!(
            "SELECT {first}, {second}, sum(cost_usd), sum(input_tokens), sum(output_tokens), sum(cached_tokens),
               sum(calls), count(DISTINCT nullif(conversation_id, '')),
               sum(calls * (pricing = 'provider')), sum(calls * (pricing = 'registry')),
               sum(calls * (pricing = 'fallback')), sum(calls * (pricing = 'unknown')), sum(calls * (pricing = 'free'))
             FROM llm_calls
             WHERE state <> 'reserved' AND day >= ?1 AND (?2 IS NULL OR agent = ?2)
               AND (?3 IS NULL OR conversation_id = ?3) AND {first} <> ''
             GROUP BY 1, 2 {order} LIMIT ?4"
        );
        let lines_max = i64::try_from(lines_max).unwrap_or(i64::MAX);
        self.db.read(|conn| {
            let mut statement = conn.prepare_cached(&sql)?;
            let arguments = params![filter.from_day, filter.agent, filter.conversation, lines_max];
            let rows = statement.query_map(arguments, group)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Puts the calls of days before `day` together, a row for each conversation, agent, identity and model: sums stay
    /// what they are. Whether there was anything to do.
    pub fn put_together(&self, day: &str) -> Result<bool, StoreError> {
        if !self
            .db
            .read(|conn| Ok(conn.prepare_cached(OLD_EXISTS)?.query_row([day], |row| row.get::<_, bool>(0))?))?
        {
            return Ok(false);
        }
        self.db.write(|tx| {
            let last: i64 = tx.query_row(OLD_LAST, [], |row| row.get(0))?;
            tx.execute(OLD_SUM, params![day, last])?;
            tx.execute(OLD_DELETE, params![day, last])?;
            Ok(true)
        })
    }
}

/// SQLite counts with a sign.
fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn group(row: &Row<'_>) -> rusqlite::Result<Group> {
    let number = |index: usize| Ok::<u64, rusqlite::Error>(u64::try_from(row.get::<_, i64>(index)?).unwrap_or(0));
    let mut pricing = Vec::new();
    for (index, name) in (8..).zip(["provider", "registry", "fallback", "unknown", "free"]) {
        let calls = number(index)?;
        if calls > 0 {
            pricing.push((name.to_owned(), calls));
        }
    }
    Ok(Group {
        name: row.get(0)?,
        second: row.get(1)?,
        cost_usd: row.get(2)?,
        input_tokens: number(3)?,
        output_tokens: number(4)?,
        cached_tokens: number(5)?,
        calls: number(6)?,
        conversations: number(7)?,
        pricing,
    })
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "sums of halves and whole numbers are exact")]
mod tests {
    use super::*;

    fn row<'a>(day: &'a str, conversation_id: &'a str, agent: &'a str, cost_usd: f64) -> CallRow<'a> {
        let figures =
            CallFigures { input_tokens: 10, output_tokens: 5, cached_tokens: 1, cost_usd, pricing: "registry" };
        CallRow { day, turn_id: 7, conversation_id, agent, identity: "key:a", provider: "p", model: "m", figures }
    }

    fn store() -> CostStore {
        CostStore::new(Arc::new(Db::in_memory().unwrap()))
    }

    #[test]
    fn a_reservation_is_settled_removed_or_left_to_a_crash() {
        let store = store();
        let ids: Vec<i64> = (0..3).map(|_| store.reserve(&row("2026-01-02", "c", "a", 0.5)).unwrap()).collect();
        assert_eq!(store.spent(Whose::Everybody, "").unwrap(), 0.0);
        let used = CallFigures { input_tokens: 3, cost_usd: 0.25, pricing: "provider", ..CallFigures::default() };
        store.settle(ids[0], &used).unwrap();
        store.remove(ids[1]).unwrap();
        assert_eq!(store.of_turn(7).unwrap(), (3, 0.25));
        assert_eq!((store.settle_open().unwrap(), store.settle_open().unwrap()), (1, 0));
        assert_eq!(store.of_turn(7).unwrap(), (19, 0.75));
        // Settled is settled.
        store.settle(ids[0], &CallFigures { cost_usd: 9.0, ..used }).unwrap();
        store.remove(ids[0]).unwrap();
        assert_eq!(store.spent(Whose::Everybody, "").unwrap(), 0.75);
    }

    #[test]
    fn sums_are_by_whom_and_when() {
        let store = store();
        for (day, conversation, agent, cost) in [
            ("2026-01-31", "c", "a", 1.0),
            ("2026-02-01", "c", "a", 2.0),
            ("2026-02-02", "d", "b", 4.0),
            ("2026-02-02", "d", "a", 8.0),
        ] {
            store.add(&row(day, conversation, agent, cost)).unwrap();
        }
        let check = |whose: Whose<'_>, period: &str, expected: f64| {
            assert_eq!(store.spent(whose, period).unwrap(), expected, "{whose:?} {period}");
        };
        check(Whose::Everybody, "", 15.0);
        check(Whose::Everybody, "2026-02", 14.0);
        check(Whose::Everybody, "2026-02-02", 12.0);
        check(Whose::Conversation("c"), "", 3.0);
        check(Whose::Agent("a"), "2026-02-02", 8.0);
        check(Whose::Identity("key:a"), "2026-01", 1.0);
        check(Whose::Identity("key:b"), "", 0.0);
    }

    #[test]
    fn reports_put_calls_together() {
        let store = store();
        for (day, conversation, agent, cost) in
            [("2026-01-02", "c", "a", 1.0), ("2026-01-01", "d", "b", 2.0), ("2026-01-02", "c", "b", 4.0)]
        {
            store.add(&row(day, conversation, agent, cost)).unwrap();
        }
        let lines = |by: GroupBy, filter: &Filter<'_>| -> Vec<(String, f64, u64)> {
            let groups = store.report(by, filter, 10).unwrap();
            groups.into_iter().map(|group| (group.name, group.cost_usd, group.calls)).collect()
        };
        let line = |name: &str, cost: f64, calls: u64| (name.to_owned(), cost, calls);
        let all = Filter::default();
        assert_eq!(lines(GroupBy::Conversation, &all), [line("c", 5.0, 2), line("d", 2.0, 1)]);
        assert_eq!(lines(GroupBy::Agent, &all), [line("b", 6.0, 2), line("a", 1.0, 1)]);
        assert_eq!(lines(GroupBy::Day, &all), [line("2026-01-01", 2.0, 1), line("2026-01-02", 5.0, 2)]);
        let of_a = Filter { agent: Some("a"), ..Filter::default() };
        assert_eq!(lines(GroupBy::Conversation, &of_a), [line("c", 1.0, 1)]);
        let late = Filter { from_day: "2026-01-02", ..Filter::default() };
        assert_eq!(lines(GroupBy::Identity, &late), [line("key:a", 5.0, 2)]);
        let model = &store.report(GroupBy::Model, &all, 10).unwrap()[0];
        assert_eq!((model.name.as_str(), model.second.as_str(), model.conversations), ("m", "p", 2));
        assert_eq!(model.pricing, [("registry".to_owned(), 3)]);
    }

    #[test]
    fn old_rows_are_put_together_and_no_sum_shrinks() {
        let store = store();
        let known = "INSERT INTO conversations(id, adapter, external_id) VALUES ('c', 'api', 'c')";
        store.db.write(|tx| Ok(tx.execute(known, [])?)).unwrap();
        for (day, conversation) in
            [("2025-01-01", "c"), ("2025-01-02", "c"), ("2025-01-02", "deleted"), ("2026-01-02", "c")]
        {
            store.add(&row(day, conversation, "a", 1.0)).unwrap();
        }
        let open = store.reserve(&row("2025-01-02", "c", "a", 1.0)).unwrap();
        let rows = || {
            let sql = "SELECT count(*) FROM llm_calls";
            store.db.read(|conn| Ok(conn.query_row(sql, [], |row| row.get::<_, i64>(0))?)).unwrap()
        };
        assert!(store.put_together("2025-02-01").unwrap());
        assert!(!store.put_together("2025-02-01").unwrap());
        assert_eq!(rows(), 4);
        assert_eq!(store.spent(Whose::Conversation("c"), "").unwrap(), 3.0);
        assert_eq!(store.spent(Whose::Agent("a"), "").unwrap(), 4.0);
        let agent = &store.report(GroupBy::Agent, &Filter::default(), 9).unwrap()[0];
        assert_eq!((agent.calls, agent.input_tokens, agent.conversations), (4, 40, 1));
        // Later on everything old comes together again.
        store.settle(open, &CallFigures { cost_usd: 1.0, pricing: "registry", ..CallFigures::default() }).unwrap();
        assert!(store.put_together("2026-02-01").unwrap());
        assert_eq!((rows(), store.spent(Whose::Conversation("c"), "").unwrap()), (2, 4.0));
    }
}
