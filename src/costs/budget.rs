//! The budgets of the hub: prices, limits, and what was spent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use jiff::tz::TimeZone;

use crate::config::{Config, CostsConfig, Limit};
use crate::costs::ledger::{Ledger, Refusal};
use crate::costs::meter::{Spender, Totals, TurnMeter};
use crate::costs::money::{Nanos, nanos};
use crate::costs::prices::PriceTable;
use crate::costs::report::day_of;
use crate::costs::rules::{Bound, Rules};
use crate::llm::LlmError;
use crate::rt::{clock, lock};
use crate::store::costs::CallRow;
use crate::store::{CostStore, Db, StoreError};

/// What [`Budgets`] are made of.
pub struct Settings {
    pub costs: CostsConfig,
    /// Of one conversation, unless its agent has limits of its own.
    pub conversation: Limit,
    /// By agent: soft and hard limit of one conversation; None is the general one.
    pub agents: HashMap<String, (Option<f64>, Option<f64>)>,
    /// Where days and months begin.
    pub zone: TimeZone,
}

impl Settings {
    pub fn from_config(config: &Config) -> Self {
        let limits = |agent: &crate::config::AgentConfig| (agent.cost_limit_soft, agent.cost_limit_hard);
        Self {
            costs: config.costs.clone(),
            conversation: Limit { soft: config.llm.cost_limit_soft, hard: config.llm.cost_limit_hard },
            agents: config.agents.iter().map(|agent| (agent.name.clone(), limits(agent))).collect(),
            // The configuration has checked the name.
            zone: TimeZone::get(&config.api.timezone).unwrap_or(TimeZone::UTC),
        }
    }
}

/// Reserves, settles and reports. A lock is never held over the disk.
pub struct Budgets {
    // Set at construction.
    pub(super) store: CostStore,
    /// Guarded by this mutex: prices, and where days begin. Nothing is taken under it.
    basis: Mutex<Basis>,
    /// Grows with every change of what reports show.
    version: AtomicU64,
    /// Ids of calls that cost nothing count down from here.
    next_free_id: AtomicI64,
    /// Guarded by this mutex: the limits in force. Nothing is taken under it.
    pub(super) rules: Mutex<Rules>,
    /// Guarded by this mutex: what is spent and set aside. Nothing is taken under it.
    ledger: Mutex<Ledger>,
}

/// What costs are counted by.
#[derive(Clone)]
struct Basis {
    prices: Arc<PriceTable>,
    zone: TimeZone,
}

/// What a configuration says, as it is kept.
fn taken_apart(settings: Settings) -> (Basis, Rules) {
    let basis = Basis { prices: Arc::new(PriceTable::new(&settings.costs)), zone: settings.zone };
    let rules = Rules {
        conversation: settings.conversation,
        own: settings.agents,
        all: settings.costs.all,
        agents: settings.costs.agents,
        keys: settings.costs.keys,
    };
    (basis, rules)
}

impl Budgets {
    /// Budgets over an open database. Calls that a crash left open count as made from here on, at their estimate: the
    /// provider may have billed them. Blocks on the disk.
    pub fn new(db: Arc<Db>, settings: Settings) -> Result<Self, StoreError> {
        let store = CostStore::new(db);
        let open = store.settle_open()?;
        if open > 0 {
            log::warn!("{open} calls of models were cut short by the last stop: they count at their estimated cost");
        }
        let (basis, rules) = taken_apart(settings);
        Ok(Self {
            store,
            basis: Mutex::new(basis),
            version: AtomicU64::new(1),
            next_free_id: AtomicI64::new(-1),
            rules: Mutex::new(rules),
            ledger: Mutex::new(Ledger::default()),
        })
    }

    /// The meter of one turn; what earlier runs of the turn used counts in its totals. Blocks on the disk.
    pub fn meter(self: &Arc<Self>, spender: Spender) -> TurnMeter {
        let (tokens, cost_usd) = self.store.of_turn(spender.turn_id).unwrap_or_else(|error| {
            log::warn!("read what turn {} has cost so far: {error}", spender.turn_id);
            (0, 0.0)
        });
        TurnMeter::new(Arc::clone(self), spender, Totals { tokens, cost_usd })
    }

    /// Other limits and prices, from the next call on (W-36). What is spent stays spent.
    pub fn set(&self, settings: Settings) {
        let (basis, rules) = taken_apart(settings);
        *lock(&self.basis) = basis;
        *lock(&self.rules) = rules;
        self.changed();
    }

    /// What models cost.
    pub fn prices(&self) -> Arc<PriceTable> {
        Arc::clone(&lock(&self.basis).prices)
    }

    /// Where days and months begin.
    pub fn zone(&self) -> TimeZone {
        lock(&self.basis).zone.clone()
    }

    /// The limits of a conversation whose agent has none of its own; from the next call on (W-36).
    pub fn set_conversation_limits(&self, limit: Limit) {
        lock(&self.rules).conversation = limit;
        self.changed();
    }

    /// See [`Budgets::set_conversation_limits`].
    pub fn conversation_limits(&self) -> Limit {
        lock(&self.rules).conversation
    }

    /// Changes whenever a report would.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Tokens that an identity has used on a day; 0 when it cannot be read. Blocks on the disk.
    pub fn tokens_today(&self, identity: &str, day: &str) -> u64 {
        self.store.tokens(identity, day).unwrap_or_else(|error| {
            log::warn!("read the tokens of {identity}: {error}");
            0
        })
    }

    /// Today in the configured time zone: `YYYY-MM-DD`.
    pub fn today(&self) -> String {
        day_of(clock::unix_ms(), &self.zone())
    }

    /// Puts rows together that are too old to be told apart. Blocks on the disk.
    pub fn put_old_together(&self) -> Result<(), StoreError> {
        let oldest = clock::unix_ms() - crate::limits::COST_ROW_DAYS * 24 * 3600 * 1000;
        if self.store.put_together(&day_of(oldest, &self.zone()))? {
            self.changed();
        }
        Ok(())
    }

    /// The limits that concern a spender on a day.
    pub(super) fn bounds(&self, spender: &Spender, day: &str) -> Vec<Bound> {
        lock(&self.rules).bounds(spender, day)
    }

    pub(super) fn free_id(&self) -> i64 {
        self.next_free_id.fetch_sub(1, Ordering::Relaxed)
    }

    /// Sets the amount aside in memory and stores the call; its id. Nothing is set aside unless both succeed.
    pub(super) fn reserve(&self, bounds: &[Bound], row: &CallRow<'_>, estimate: Nanos) -> Result<i64, LlmError> {
        loop {
            self.load(bounds).map_err(unrecorded)?;
            let result = lock(&self.ledger).reserve(bounds, estimate);
            match result {
                Ok(()) => break,
                Err(Refusal::NotLoaded) => {}
                Err(Refusal::Over { bound, spent, reserved }) => {
                    return Err(LlmError::Budget { message: bounds[bound].refusal(spent, reserved, estimate) });
                }
            }
        }
        let stored = self.store.reserve(row);
        if stored.is_err() {
            lock(&self.ledger).settle(bounds, estimate, 0);
        }
        stored.map_err(unrecorded)
    }

    /// Books what a call has cost, in the database first: an account that is read meanwhile has it already.
    pub(super) fn settle(
        &self,
        bounds: &[Bound],
        estimate: Nanos,
        cost: Nanos,
        store: impl FnOnce(&CostStore) -> Result<(), StoreError>,
    ) -> Vec<(usize, u8, Nanos)> {
        if let Err(error) = store(&self.store) {
            log::error!("record what a call has cost: {error}; after a restart its estimate counts");
        }
        let news = lock(&self.ledger).settle(bounds, estimate, cost);
        self.changed();
        news
    }

    pub(super) fn is_soft_reached(&self, bounds: &[Bound]) -> bool {
        lock(&self.ledger).is_soft_reached(bounds)
    }

    fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Reads the sums that are not in memory yet.
    fn load(&self, bounds: &[Bound]) -> Result<(), StoreError> {
        loop {
            let (missing, evictions) = lock(&self.ledger).missing(bounds);
            if missing.is_empty() {
                return Ok(());
            }
            let mut read = Vec::with_capacity(missing.len());
            for at in missing {
                let account = &bounds[at].account;
                read.push((at, nanos(self.store.spent(account.whose(), &account.days)?)));
            }
            if lock(&self.ledger).load(bounds, &read, evictions) {
                return Ok(());
            }
        }
    }
}

/// A call whose cost cannot be recorded is not made.
fn unrecorded(error: StoreError) -> LlmError {
    let message = match error {
        StoreError::Full => {
            "The call was not made: its cost could not be recorded because the hub's disk is full. Free some space and \
             send the message again."
        }
        error => {
            log::error!("record a call of a model: {error}");
            "The call was not made: its cost could not be recorded. The hub's log has the details."
        }
    };
    LlmError::Budget { message: message.to_owned() }
}
