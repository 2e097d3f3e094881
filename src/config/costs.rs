//! `[costs]`: prices, and how much may be spent (contract engine 4, 10.2; the limits beside `[llm]` are Holt's own).

use std::collections::{BTreeMap, HashMap};

use super::error::ConfigError;
use super::json::typed;
use super::llm::check_cost;
use super::raw::Typed;

/// Two bounds in USD; 0 is off. Beyond `soft` a turn runs no more tools; a call that would go beyond `hard` is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limit {
    pub soft: f64,
    pub hard: f64,
}

/// How much may be spent in a day and in a month of the configured time zone, and ever.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Allowance {
    pub daily: Limit,
    pub monthly: Limit,
    pub total: Limit,
}

/// USD per million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ModelPrice {
    pub input: f64,
    pub output: f64,
    /// 0 means the price of `input`.
    pub cached_input: f64,
}

/// `[costs]`.
#[derive(Clone, Debug, Default)]
pub struct CostsConfig {
    /// USD per thousand tokens of models without a price; 0: their price is unknown.
    pub default_rate_per_1k_tokens: f64,
    /// By the beginning of the model's name.
    pub model_prices: BTreeMap<String, ModelPrice>,
    /// For everything together.
    pub all: Allowance,
    /// By agent.
    pub agents: BTreeMap<String, Allowance>,
    /// By key name, or by a whole identity such as `user:admin`.
    pub keys: BTreeMap<String, Allowance>,
}

#[derive(Default)]
pub(super) struct RawCosts {
    default_rate_per_1k_tokens: f64,
    model_prices: HashMap<String, RawPrice>,
    daily_limit_soft: f64,
    daily_limit_hard: f64,
    monthly_limit_soft: f64,
    monthly_limit_hard: f64,
    total_limit_soft: f64,
    total_limit_hard: f64,
    agents: HashMap<String, RawAllowance>,
    keys: HashMap<String, RawAllowance>,
}

typed!(RawCosts {
    default_rate_per_1k_tokens,
    model_prices,
    daily_limit_soft,
    daily_limit_hard,
    monthly_limit_soft,
    monthly_limit_hard,
    total_limit_soft,
    total_limit_hard,
    agents,
    keys
});

#[derive(Default)]
struct RawPrice {
    input: f64,
    output: f64,
    cached_input: f64,
}

typed!(RawPrice { input, output, cached_input });

#[derive(Default)]
struct RawAllowance {
    daily_limit_soft: f64,
    daily_limit_hard: f64,
    monthly_limit_soft: f64,
    monthly_limit_hard: f64,
    total_limit_soft: f64,
    total_limit_hard: f64,
}

typed!(RawAllowance {
    daily_limit_soft,
    daily_limit_hard,
    monthly_limit_soft,
    monthly_limit_hard,
    total_limit_soft,
    total_limit_hard
});

/// The names of the agents are known: limits for others are probably typing errors.
pub(super) fn costs(typed: &mut Typed) -> Result<CostsConfig, ConfigError> {
    let raw = &typed.raw.costs;
    check_cost(typed, "costs.default_rate_per_1k_tokens", raw.default_rate_per_1k_tokens)?;
    let mut model_prices = BTreeMap::new();
    for (prefix, price) in &raw.model_prices {
        let key = |field: &str| format!("costs.model_prices.{prefix:?}.{field}");
        check_cost(typed, &key("input"), price.input)?;
        check_cost(typed, &key("output"), price.output)?;
        check_cost(typed, &key("cached_input"), price.cached_input)?;
        let price = ModelPrice { input: price.input, output: price.output, cached_input: price.cached_input };
        model_prices.insert(prefix.clone(), price);
    }
    let all = RawAllowance {
        daily_limit_soft: raw.daily_limit_soft,
        daily_limit_hard: raw.daily_limit_hard,
        monthly_limit_soft: raw.monthly_limit_soft,
        monthly_limit_hard: raw.monthly_limit_hard,
        total_limit_soft: raw.total_limit_soft,
        total_limit_hard: raw.total_limit_hard,
    };
    let config = CostsConfig {
        default_rate_per_1k_tokens: raw.default_rate_per_1k_tokens,
        model_prices,
        all: allowance(typed, "costs", &all)?,
        agents: allowances(typed, "costs.agents", &raw.agents)?,
        keys: allowances(typed, "costs.keys", &raw.keys)?,
    };
    let is_agent = |name: &str| {
        typed.raw.agents.iter().any(|agent| agent.name == name) || (typed.raw.agents.is_empty() && name == "default")
    };
    let unknown = config.agents.keys().filter(|name| !is_agent(name));
    let warnings: Vec<String> =
        unknown.map(|name| format!("costs.agents.{name}: there is no agent of this name")).collect();
    typed.warnings.extend(warnings);
    Ok(config)
}

fn allowances(
    typed: &Typed,
    key: &str,
    raw: &HashMap<String, RawAllowance>,
) -> Result<BTreeMap<String, Allowance>, ConfigError> {
    let mut allowances = BTreeMap::new();
    for (name, raw) in raw {
        allowances.insert(name.clone(), allowance(typed, &format!("{key}.{name:?}"), raw)?);
    }
    Ok(allowances)
}

fn allowance(typed: &Typed, key: &str, raw: &RawAllowance) -> Result<Allowance, ConfigError> {
    let limit = |period: &str, soft: f64, hard: f64| {
        let name = |kind: &str| format!("{key}.{period}_limit_{kind}");
        check_cost(typed, &name("soft"), soft)?;
        check_cost(typed, &name("hard"), hard)?;
        if hard > 0.0 && soft > hard {
            let reason = format!("must not be above the hard limit of {hard}, got {soft}");
            return Err(typed.bad(&name("soft"), reason));
        }
        Ok(Limit { soft, hard })
    };
    Ok(Allowance {
        daily: limit("daily", raw.daily_limit_soft, raw.daily_limit_hard)?,
        monthly: limit("monthly", raw.monthly_limit_soft, raw.monthly_limit_hard)?,
        total: limit("total", raw.total_limit_soft, raw.total_limit_hard)?,
    })
}
