//! What calls of models cost, and whether the next one may be made (contract engine 4, http-api 4.5, W-36).
//!
//! Every call is reserved before it is made and settled after it: [`Budgets`] checks all limits that concern it at once,
//! against what was spent and what other calls have set aside, and writes a row. The sums survive a restart; a call
//! that a crash left open counts as made, at its estimate. No threads of its own.

mod budget;
#[cfg(test)]
mod budget_tests;
mod ledger;
mod meter;
mod money;
pub mod prices;
mod report;
mod rules;
mod tool;

pub use budget::{Budgets, Settings};
pub use meter::{Notice, Spender, Totals, TurnMeter};
pub use prices::{Price, PriceTable};
pub use report::{CostReport, LimitState, day_of, series};
pub use tool::cost_tool;
