//! What models cost (contract engine 4).

use crate::config::{CostsConfig, ModelPrice};
use crate::llm::Usage;

/// USD per million tokens: prefix of the model's name, input, output, cached input, and the vendor's prefix under which
/// gateways list it too.
type Row = (&'static str, f64, f64, f64, &'static str);

/// Contract engine 4. An operator's entry of the same prefix replaces a row.
#[rustfmt::skip]
const BUILT_IN: &[Row] = &[
    ("claude-opus-4", 15.0, 75.0, 1.50, "anthropic/"),
    ("claude-3-opus", 15.0, 75.0, 1.50, "anthropic/"),
    ("claude-sonnet-4", 3.0, 15.0, 0.30, "anthropic/"),
    ("claude-3-7-sonnet", 3.0, 15.0, 0.30, "anthropic/"),
    ("claude-3-5-sonnet", 3.0, 15.0, 0.30, "anthropic/"),
    ("claude-3-sonnet", 3.0, 15.0, 0.30, ""),
    ("claude-3-5-haiku", 0.80, 4.0, 0.08, "anthropic/"),
    ("claude-3-haiku", 0.25, 1.25, 0.03, "anthropic/"),
    ("gpt-4.1-nano", 0.10, 0.40, 0.025, "openai/"),
    ("gpt-4.1-mini", 0.40, 1.60, 0.10, "openai/"),
    ("gpt-4.1", 2.0, 8.0, 0.50, "openai/"),
    ("gpt-4o-mini", 0.15, 0.60, 0.075, "openai/"),
    ("gpt-4o", 2.50, 10.0, 1.25, "openai/"),
    ("o4-mini", 1.10, 4.40, 0.275, "openai/"),
    ("o3-mini", 1.10, 4.40, 0.275, "openai/"),
    ("o1-mini", 1.10, 4.40, 0.275, "openai/"),
    ("o3", 2.0, 8.0, 0.50, "openai/"),
    ("o1", 15.0, 60.0, 7.50, "openai/"),
    ("gemini-2.5-pro", 1.25, 10.0, 0.3125, "google/"),
    ("gemini-2.5-flash", 0.15, 0.60, 0.0375, "google/"),
    ("gemini-2.0-flash", 0.10, 0.40, 0.025, "google/"),
    ("gemini-1.5-pro", 1.25, 5.0, 0.3125, "google/"),
    ("gemini-1.5-flash", 0.075, 0.30, 0.01875, "google/"),
    ("meta-llama/llama-4", 0.20, 0.80, 0.0, ""),
    ("meta-llama/llama-3.3", 0.10, 0.30, 0.0, ""),
    ("meta-llama/llama-3.1-405b", 2.0, 6.0, 0.0, ""),
    ("meta-llama/llama-3.1-70b", 0.40, 0.40, 0.0, ""),
    ("meta-llama/llama-3.1-8b", 0.05, 0.08, 0.0, ""),
    ("mistralai/mistral-large", 2.0, 6.0, 0.0, ""),
    ("mistralai/mistral-medium", 2.7, 8.1, 0.0, ""),
    ("mistralai/mistral-small", 0.20, 0.60, 0.0, ""),
    ("mistralai/mixtral-8x22b", 0.90, 0.90, 0.0, ""),
    ("mistralai/mixtral-8x7b", 0.24, 0.24, 0.0, ""),
    ("deepseek/deepseek-r1", 0.55, 2.19, 0.14, ""),
    ("deepseek/deepseek-chat", 0.14, 0.28, 0.014, ""),
];

/// What a model costs, USD per million tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    pub input: f64,
    pub output: f64,
    /// 0 means the price of `input`.
    pub cached_input: f64,
    pub source: PriceSource,
}

/// Where a price comes from; its name is that of the `pricing` column and of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriceSource {
    /// The provider named the price of the call.
    Provider,
    /// The table, the operator's entries included.
    Registry,
    /// `default_rate_per_1k_tokens`.
    Fallback,
    Unknown,
    /// Nobody sends a bill.
    Free,
}

impl PriceSource {
    pub fn name(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Registry => "registry",
            Self::Fallback => "fallback",
            Self::Unknown => "unknown",
            Self::Free => "free",
        }
    }
}

impl Price {
    /// What a call costs, in USD.
    pub fn cost(&self, usage: &Usage) -> f64 {
        let cached = if self.cached_input > 0.0 { self.cached_input } else { self.input };
        let millionths = tokens(usage.input_tokens) * self.input
            + tokens(usage.output_tokens) * self.output
            + tokens(usage.cached_tokens) * cached;
        millionths / 1e6
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of tokens are far below 2^53")]
fn tokens(count: u64) -> f64 {
    count as f64
}

/// The prices that are known.
#[derive(Clone, Debug, Default)]
pub struct PriceTable {
    /// The operator's, by prefix.
    own: Vec<(String, ModelPrice)>,
    /// USD per thousand tokens of any other model; 0 is none.
    fallback: f64,
}

impl PriceTable {
    /// The built-in table under the operator's entries.
    pub fn new(config: &CostsConfig) -> Self {
        let own = config.model_prices.iter().map(|(prefix, price)| (prefix.clone(), *price)).collect();
        Self { own, fallback: config.default_rate_per_1k_tokens }
    }

    /// The price of a model in the table: the entry with the longest prefix of its name; the exact name is the longest
    /// there can be. None when there is none, also if a fallback rate is configured.
    pub fn lookup(&self, model: &str) -> Option<Price> {
        let own = self.own.iter().filter(|(prefix, _)| model.starts_with(prefix.as_str()));
        let own = own.max_by_key(|(prefix, _)| prefix.len());
        let built_in = BUILT_IN.iter().filter_map(|row| {
            let bare = model.strip_prefix(row.4).filter(|_| !row.4.is_empty());
            let length = match bare {
                Some(bare) if bare.starts_with(row.0) => row.4.len() + row.0.len(),
                _ if model.starts_with(row.0) => row.0.len(),
                _ => return None,
            };
            Some((length, row))
        });
        let built_in = built_in.max_by_key(|(length, _)| *length);
        let (input, output, cached_input) = match (own, built_in) {
            (None, None) => return None,
            (Some((prefix, own)), built_in) if built_in.is_none_or(|(length, _)| prefix.len() >= length) => {
                (own.input, own.output, own.cached_input)
            }
            (_, Some((_, row))) => (row.1, row.2, row.3),
            (Some((_, own)), None) => (own.input, own.output, own.cached_input),
        };
        Some(Price { input, output, cached_input, source: PriceSource::Registry })
    }

    /// The price that a call is accounted with: the table's, else the fallback rate. None when neither is known.
    pub fn price(&self, model: &str) -> Option<Price> {
        let fallback = (self.fallback > 0.0).then_some(self.fallback * 1000.0);
        let flat = |rate| Price { input: rate, output: rate, cached_input: rate, source: PriceSource::Fallback };
        self.lookup(model).or_else(|| fallback.map(flat))
    }

    /// USD per thousand tokens of models without a price; 0 is none.
    pub fn fallback_rate(&self) -> f64 {
        self.fallback
    }

    /// What the operator says, by the beginning of models' names.
    pub fn own(&self) -> &[(String, ModelPrice)] {
        &self.own
    }

    /// How many entries the operator made.
    pub fn n_own(&self) -> usize {
        self.own.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&str, f64)], fallback: f64) -> PriceTable {
        let model_prices = entries
            .iter()
            .map(|(prefix, input)| {
                ((*prefix).to_owned(), ModelPrice { input: *input, output: *input, cached_input: 0.0 })
            })
            .collect();
        PriceTable::new(&CostsConfig { model_prices, default_rate_per_1k_tokens: fallback, ..CostsConfig::default() })
    }

    #[test]
    fn the_longest_prefix_names_the_price() {
        let table = table(&[], 0.0);
        let check = |model: &str, expected: Option<(f64, f64)>| {
            assert_eq!(table.lookup(model).map(|price| (price.input, price.output)), expected, "{model}");
        };
        check("claude-sonnet-4-20250514", Some((3.0, 15.0)));
        check("anthropic/claude-sonnet-4-20250514", Some((3.0, 15.0)));
        check("claude-3-sonnet-20240229", Some((3.0, 15.0)));
        check("anthropic/claude-3-sonnet-20240229", None);
        check("gpt-4.1", Some((2.0, 8.0)));
        check("gpt-4.1-mini-2025", Some((0.40, 1.60)));
        check("openai/gpt-4.1-nano", Some((0.10, 0.40)));
        check("o1-mini", Some((1.10, 4.40)));
        check("o1-preview", Some((15.0, 60.0)));
        check("o3", Some((2.0, 8.0)));
        check("google/gemini-2.5-flash-lite", Some((0.15, 0.60)));
        check("gemini-2.5-pro", Some((1.25, 10.0)));
        check("meta-llama/llama-3.1-8b-instruct", Some((0.05, 0.08)));
        check("deepseek/deepseek-chat-v3", Some((0.14, 0.28)));
        check("llama3.2", None);
        check("", None);
    }

    #[test]
    fn operators_have_the_last_word() {
        let table = table(&[("gpt-4o", 7.0), ("my-", 1.0), ("my-big", 2.0), ("claude", 9.0)], 0.5);
        let input = |model: &str| table.price(model).map(|price| (price.input, price.source.name()));
        assert_eq!(input("gpt-4o-2024"), Some((7.0, "registry")));
        assert_eq!(input("gpt-4o-mini"), Some((0.15, "registry")), "a longer built-in prefix stands");
        assert_eq!(input("openai/gpt-4o"), Some((2.5, "registry")), "another prefix");
        assert_eq!(input("my-big-model"), Some((2.0, "registry")));
        assert_eq!(input("my-small-model"), Some((1.0, "registry")));
        assert_eq!(input("claude-x"), Some((9.0, "registry")));
        assert_eq!(input("else"), Some((500.0, "fallback")));
        assert_eq!((table.lookup("else"), table.n_own()), (None, 4));
    }

    #[test]
    fn costs_follow_the_formula() {
        let usage = Usage { input_tokens: 1000, output_tokens: 500, cached_tokens: 200, cost_usd: None };
        let price = |cached_input| Price { input: 3.0, output: 15.0, cached_input, source: PriceSource::Registry };
        assert!((price(0.3).cost(&usage) - 0.010_56).abs() < 1e-12);
        assert!((price(0.0).cost(&usage) - 0.011_1).abs() < 1e-12, "without a price cached tokens cost what others do");
        let flat = table(&[], 0.01).price("x").unwrap();
        assert!((flat.cost(&usage) - 0.017).abs() < 1e-12);
    }
}
