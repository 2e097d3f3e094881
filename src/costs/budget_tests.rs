//! Budgets from reservation to settlement, over a database in memory or on a disk that a crash leaves behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::tz::{Offset, TimeZone};

use crate::config::{Allowance, CostsConfig, Limit, ModelPrice};
use crate::costs::{Budgets, Settings, Spender, Totals, TurnMeter};
use crate::llm::{Completion, LlmError, Message, Meter, MeteredCall, Request, Role, ToolSpec, Usage};
use crate::rt::{Threads, clock};
use crate::store::Db;

/// 350 bytes of prompt: 100 tokens. With the output estimate a call of `cheap` is set aside at 0.001124 USD.
const PROMPT: &str = "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggghhhhhhhhhhiiiiiiiiiijjjjjjjjjj\
    aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggghhhhhhhhhhiiiiiiiiiijjjjjjjjjj\
    aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggghhhhhhhhhhiiiiiiiiiijjjjjjjjjj\
    aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeee";

fn hard(hard: f64) -> Limit {
    Limit { soft: 0.0, hard }
}

fn daily(limit: Limit) -> Allowance {
    Allowance { daily: limit, ..Allowance::default() }
}

/// A zone where it is about noon: no test sees a day or a month end.
fn midday() -> TimeZone {
    let second_of_day = clock::unix_ms() / 1000 % (24 * 3600);
    let offset = i32::try_from(12 * 3600 - second_of_day).unwrap();
    TimeZone::fixed(Offset::from_seconds(offset).unwrap())
}

/// `cheap` costs a dollar per million tokens, `dear` a thousand.
fn settings(conversation: Limit) -> Settings {
    let flat = |usd: f64| ModelPrice { input: usd, output: usd, cached_input: 0.0 };
    let model_prices = BTreeMap::from([("cheap".to_owned(), flat(1.0)), ("dear".to_owned(), flat(1000.0))]);
    Settings {
        costs: CostsConfig { model_prices, ..CostsConfig::default() },
        conversation,
        agents: HashMap::new(),
        zone: midday(),
    }
}

fn budgets(settings: Settings) -> Arc<Budgets> {
    Arc::new(Budgets::new(Arc::new(Db::in_memory().unwrap()), settings).unwrap())
}

fn meter(budgets: &Arc<Budgets>, conversation: &str) -> TurnMeter {
    budgets.meter(Spender {
        turn_id: 1,
        conversation_id: conversation.to_owned(),
        agent: "a".to_owned(),
        identity: "key:laptop".to_owned(),
    })
}

fn reserve_as(meter: &TurnMeter, model: &str, is_free: bool) -> Result<i64, LlmError> {
    let messages = [Message::text(Role::User, PROMPT)];
    let request = Request { model, messages: &messages, tools: &[], stream: true };
    meter.reserve(&MeteredCall { provider: "p", is_free, model, request: &request })
}

fn reserve(meter: &TurnMeter, model: &str) -> Result<i64, LlmError> {
    reserve_as(meter, model, false)
}

fn refusal(result: Result<i64, LlmError>) -> String {
    match result {
        Err(LlmError::Budget { message }) => message,
        other => panic!("not refused: {other:?}"),
    }
}

fn used(input_tokens: u64, output_tokens: u64) -> Completion {
    Completion { usage: Usage { input_tokens, output_tokens, ..Usage::default() }, ..Completion::default() }
}

#[test]
fn a_turn_is_told_what_all_its_calls_cost() {
    let budgets = budgets(settings(hard(1.0)));
    let first = meter(&budgets, "c");
    let id = reserve(&first, "cheap").unwrap();
    assert_eq!(first.totals(), Totals::default(), "an estimate is not a cost");
    first.settle(id, Some(&used(1000, 500)));
    let id = reserve(&first, "cheap").unwrap();
    let named = Usage { input_tokens: 10, cost_usd: Some(0.25), ..Usage::default() };
    first.settle(id, Some(&Completion { usage: named, ..Completion::default() }));
    first.settle(id, Some(&used(9, 9))); // once is enough
    let failed = reserve(&first, "cheap").unwrap();
    first.settle(failed, None);
    assert_eq!(first.totals(), Totals { tokens: 1510, cost_usd: 0.2515 });
    // The turn goes on after a restart: everything counts, and once.
    assert_eq!(meter(&budgets, "c").totals(), first.totals());
    let report = budgets.report(None, 1).unwrap();
    let session = &report.sessions[0];
    assert_eq!((session.calls, session.cost_usd), (2, 0.2515));
    assert_eq!(session.pricing, [("provider".to_owned(), 1), ("registry".to_owned(), 1)]);
    assert_eq!((report.by_agent[0].name.as_str(), report.by_identity[0].name.as_str()), ("a", "key:laptop"));
}

#[test]
fn a_conversation_ends_at_its_limit_and_another_goes_on() {
    let budgets = budgets(settings(Limit { soft: 0.5, hard: 1.0 }));
    let turn = meter(&budgets, "c");
    let id = reserve(&turn, "cheap").unwrap();
    turn.settle(id, Some(&used(500_000, 0)));
    assert!(!turn.soft_reached(), "the limit itself may be spent");
    let id = reserve(&turn, "cheap").unwrap();
    turn.settle(id, Some(&used(499_000, 0)));
    assert!(turn.soft_reached());
    assert_eq!(
        refusal(reserve(&turn, "cheap")),
        "The call was not made: it may cost about $0.0011, and $0.999 of the limit of $1.00 for this conversation is \
         spent. Begin a new conversation, or raise cost_limit_hard in [llm]."
    );
    assert!(reserve(&meter(&budgets, "d"), "cheap").is_ok());
    assert!(reserve_as(&turn, "cheap", true).is_ok(), "what is free is never refused");
    budgets.set_conversation_limits(hard(2.0));
    assert!(reserve(&turn, "cheap").is_ok(), "a raised limit counts at once");
}

#[test]
fn agents_keys_and_days_have_limits_of_their_own() {
    let mut with = settings(hard(1.0));
    with.agents.insert("a".to_owned(), (None, Some(0.0)));
    with.costs.all = daily(hard(4.0));
    with.costs.agents.insert("a".to_owned(), Allowance { total: hard(3.0), ..Allowance::default() });
    with.costs.keys.insert("laptop".to_owned(), Allowance { monthly: hard(2.0), ..Allowance::default() });
    let budgets = budgets(with);
    let spender = |agent: &str, identity: &str| Spender {
        turn_id: 1,
        conversation_id: "c".to_owned(),
        agent: agent.to_owned(),
        identity: identity.to_owned(),
    };
    let spend = |agent: &str, identity: &str, tokens: u64| {
        let meter = budgets.meter(spender(agent, identity));
        let id = reserve(&meter, "cheap")?;
        meter.settle(id, Some(&used(tokens, 0)));
        Ok(id)
    };
    spend("a", "key:laptop", 1_999_900).unwrap(); // no limit per conversation: the agent's own is off
    let text = refusal(spend("a", "key:laptop", 1));
    assert!(text.contains("the monthly limit of $2.00 for \"key:laptop\""), "{text}");
    assert!(text.ends_with("Wait until next month, or raise monthly_limit_hard in [costs.keys.\"laptop\"]."), "{text}");
    spend("a", "user:admin", 1_000_000).unwrap();
    let text = refusal(spend("a", "user:admin", 1));
    assert!(text.ends_with("or raise total_limit_hard in [costs.agents.\"a\"]."), "{text}");
    let text = refusal(spend("b", "user:admin", 1));
    assert!(text.contains("this conversation"), "{text}");
    let other = Spender { conversation_id: "d".to_owned(), ..spender("b", "user:admin") };
    let meter = budgets.meter(other);
    let id = reserve(&meter, "cheap").unwrap();
    meter.settle(id, Some(&used(999_000, 0)));
    let next = budgets.meter(Spender { conversation_id: "e".to_owned(), ..spender("b", "user:admin") });
    let text = refusal(reserve(&next, "cheap"));
    assert!(text.contains("the daily limit of $4.00 for everything together"), "{text}");
    let states = budgets.report(None, 1).unwrap().limits;
    let names: Vec<_> = states.iter().map(|state| (state.scope, state.name.as_str(), state.period)).collect();
    assert_eq!(names, [("all", "", "daily"), ("agent", "a", "total"), ("key", "key:laptop", "monthly")]);
    assert!((states[1].spent_usd - 2.9999).abs() < 1e-9);
}

#[test]
fn an_unknown_price_is_refused_while_there_is_a_limit() {
    let limited = budgets(settings(hard(1.0)));
    let text = refusal(reserve(&meter(&limited, "c"), "strange\"model"));
    for hint in ["[costs.model_prices.\"strange\\\"model\"]", "default_rate_per_1k_tokens", "free = true"] {
        assert!(text.contains(hint), "{text}");
    }
    assert!(reserve_as(&meter(&limited, "c"), "strange", true).is_ok());
    let unlimited = budgets(settings(Limit::default()));
    let turn = meter(&unlimited, "c");
    turn.settle(reserve(&turn, "strange").unwrap(), Some(&used(5, 5)));
    assert_eq!(unlimited.report(None, 1).unwrap().sessions[0].pricing, [("unknown".to_owned(), 1)]);
    let mut flat = settings(hard(1.0));
    flat.costs.default_rate_per_1k_tokens = 0.01;
    let turn = meter(&budgets(flat), "c");
    turn.settle(reserve(&turn, "strange").unwrap(), Some(&used(1500, 500)));
    assert!((turn.totals().cost_usd - 0.02).abs() < 1e-12);
}

#[test]
fn a_provider_that_does_not_count_is_estimated() {
    let budgets = budgets(settings(hard(1.0)));
    let turn = meter(&budgets, "c");
    let text = "x".repeat(700);
    turn.settle(reserve(&turn, "cheap").unwrap(), Some(&Completion { text: text.clone(), ..Completion::default() }));
    assert_eq!(turn.totals().tokens, 300);
    let free = reserve_as(&turn, "local", true).unwrap();
    turn.settle(free, Some(&Completion { text, ..Completion::default() }));
    let counted = reserve_as(&turn, "llama", true).unwrap();
    turn.settle(counted, Some(&used(40, 2)));
    assert_eq!(turn.totals().tokens, 342);
    // Cut off: what came was guessed, and the prompt is known here.
    turn.settle(reserve(&turn, "cheap").unwrap(), Some(&used(0, 50)));
    assert_eq!(turn.totals().tokens, 492);
    turn.settle(reserve(&turn, "cheap").unwrap(), Some(&used(0, 0)));
    assert_eq!(turn.totals().tokens, 592);
    let schema = serde_json::json!({"type": "object", "description": "x".repeat(700)});
    let tools = [ToolSpec { name: "look".into(), description: "y".repeat(350), parameters: schema }];
    let messages = [Message::text(Role::User, PROMPT)];
    let request = Request { model: "cheap", messages: &messages, tools: &tools, stream: true };
    let call = MeteredCall { provider: "p", is_free: false, model: "cheap", request: &request };
    turn.settle(turn.reserve(&call).unwrap(), Some(&used(0, 1)));
    assert!(turn.totals().tokens > 592 + 400, "tools are read, too: {}", turn.totals().tokens);
    let models: Vec<_> = budgets.report(None, 1).unwrap().by_model.into_iter().map(|group| group.name).collect();
    assert_eq!(models, ["cheap", "llama"], "free calls are counted where there is something to count");
}

#[test]
fn what_a_crash_leaves_open_counts_as_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("holt.db");
    let open = || Arc::new(Budgets::new(Arc::new(Db::open(&path).unwrap()), settings(hard(2.0))).unwrap());
    let budgets = open();
    let turn = meter(&budgets, "c");
    turn.settle(reserve(&turn, "dear").unwrap(), Some(&used(500, 0)));
    reserve(&turn, "dear").unwrap();
    std::mem::forget(turn); // the process is gone, and nobody settles
    let again = open();
    let turn = meter(&again, "c");
    assert_eq!(turn.totals(), Totals { tokens: 1624, cost_usd: 1.624 });
    assert!(refusal(reserve(&turn, "dear")).contains("$1.624 of the limit of $2.00"));
}

#[test]
fn a_meter_that_ends_early_settles_what_is_open() {
    let budgets = budgets(settings(hard(2.0)));
    let turn = meter(&budgets, "c");
    reserve(&turn, "dear").unwrap();
    let text = refusal(reserve(&turn, "dear"));
    assert!(
        text.contains("$0.00 of the limit of $2.00 for this conversation is spent, $1.124 more is set aside"),
        "{text}"
    );
    drop(turn);
    let text = refusal(reserve(&meter(&budgets, "c"), "dear"));
    assert!(text.contains("$1.124 of the limit of $2.00") && !text.contains("set aside"), "{text}");
}

#[test]
fn shares_of_a_hard_limit_are_announced_once() {
    let mut with = settings(hard(1.0));
    with.costs.all = daily(hard(4.0));
    let budgets = budgets(with);
    let spend = |conversation: &str, tokens: u64| {
        let turn = meter(&budgets, conversation);
        turn.settle(reserve(&turn, "cheap").unwrap(), Some(&used(tokens, 0)));
        let notices = turn.take_notices();
        assert!(turn.take_notices().is_empty());
        notices.into_iter().map(|notice| (notice.percent, notice.scope, notice.message)).collect::<Vec<_>>()
    };
    let half = "50 % of the limit of $1.00 for this conversation is spent: $0.50 so far.";
    assert_eq!(spend("c", 500_000), [(50, "conversation", half.to_owned())]);
    assert_eq!(spend("c", 100), []);
    let kinds = |news: Vec<(u8, &'static str, String)>| -> Vec<(u8, &'static str)> {
        news.into_iter().map(|(percent, scope, _)| (percent, scope)).collect()
    };
    assert_eq!(kinds(spend("d", 1_500_000)), [(100, "conversation"), (50, "all")]);
    assert_eq!(kinds(spend("c", 490_000)), [(80, "conversation")]);
}

#[test]
fn many_threads_never_overspend_one_limit() {
    let dir = tempfile::tempdir().unwrap();
    let db = Arc::new(Db::open(&dir.path().join("holt.db")).unwrap());
    let mut with = settings(Limit::default());
    with.costs.all = daily(hard(20.0));
    let budgets = Arc::new(Budgets::new(db, with).unwrap());
    let (made, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let threads = Threads::new();
    for number in 0..8_u64 {
        let (budgets, made, refused) = (Arc::clone(&budgets), Arc::clone(&made), Arc::clone(&refused));
        let work = move || {
            for round in 0..20 {
                let turn = meter(&budgets, &format!("c{number}"));
                // Each call costs at most what was set aside for it: 1.124 USD.
                let spent = 1 + (number * 7919 + round * 104_729) % 1124;
                match reserve(&turn, "dear") {
                    Ok(id) if spent % 5 == 0 => turn.settle(id, None),
                    Ok(id) => {
                        made.fetch_add(1, Ordering::Relaxed);
                        turn.settle(id, Some(&used(spent, 0)));
                    }
                    Err(LlmError::Budget { .. }) => {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        threads.spawn("spender", 256 * 1024, work).unwrap();
    }
    assert!(threads.join_all(std::time::Duration::from_secs(60)).is_empty());
    let report = budgets.report(None, 1).unwrap();
    assert!(report.global_usd <= 20.0 && report.global_usd > 20.0 - 2.0 * 1.124, "{}", report.global_usd);
    assert!(refused.load(Ordering::Relaxed) > 0);
    let calls: u64 = report.sessions.iter().map(|group| group.calls).sum();
    assert_eq!(usize::try_from(calls).unwrap(), made.load(Ordering::Relaxed));
    let today: f64 = report.by_day.iter().map(|group| group.cost_usd).sum();
    assert!((today - report.global_usd).abs() < 1e-9);
}
