//! The router over scripted providers.

use std::collections::VecDeque;

use super::*;
use crate::config::{Backoff, FallbackAction, FallbackRule, FallbackTrigger};
use crate::net::test_peer::{LONG, STACK_BYTES};
use crate::rt::{Threads, lock};
use std::sync::{Arc, Mutex};
use std::time::Instant;

type Told = Arc<Mutex<Vec<String>>>;

/// What a scripted call does.
#[derive(Clone)]
enum Does {
    Says(&'static str),
    Fails(LlmError),
    /// Gives out a piece, then fails.
    Breaks(&'static str, LlmError),
    /// Makes so many bytes of tool calls, then fails.
    Calls(usize, LlmError),
}

struct Scripted {
    name: &'static str,
    script: Mutex<VecDeque<Does>>,
    balance: Option<f64>,
    told: Told,
}

impl Provider for Scripted {
    fn name(&self) -> &str {
        self.name
    }

    fn is_free(&self) -> bool {
        self.name == "free"
    }

    fn complete(&self, request: Request<'_>, sink: &mut dyn Sink, _: &Cancel) -> Result<Completion, LlmError> {
        lock(&self.told).push(format!("{}/{}", self.name, request.model));
        match lock(&self.script).pop_front().expect("one step per call") {
            Does::Says(text) => {
                sink.text(text);
                Ok(Completion { text: text.to_owned(), ..Completion::default() })
            }
            Does::Fails(error) => Err(error),
            Does::Breaks(text, error) => {
                sink.text(text);
                Err(error)
            }
            Does::Calls(n_bytes, error) => {
                sink.hidden(n_bytes);
                Err(error)
            }
        }
    }

    fn models(&self, _: &Cancel) -> Result<Vec<String>, LlmError> {
        Ok(Vec::new())
    }

    fn balance(&self, _: &Cancel) -> Result<Option<f64>, LlmError> {
        lock(&self.told).push(format!("{} balance", self.name));
        Ok(self.balance)
    }
}

/// Writes down what it hears; refuses what is not free when it is `poor`.
struct Book {
    told: Told,
    poor: bool,
}

impl Meter for Book {
    fn reserve(&self, call: &MeteredCall<'_>) -> Result<i64, LlmError> {
        if self.poor && !call.is_free {
            lock(&self.told).push(format!("refused {}", call.model));
            return Err(LlmError::Budget { message: "no money".into() });
        }
        lock(&self.told).push("reserved".to_owned());
        Ok(1)
    }

    fn settle(&self, _: i64, used: Option<&Completion>) {
        let used = used.map_or_else(
            || "nothing".to_owned(),
            |used| {
                assert_eq!(used.usage.input_tokens, 0, "the meter knows the prompt");
                used.usage.output_tokens.to_string()
            },
        );
        lock(&self.told).push(format!("settled {used}"));
    }
}

struct Page(Told);

impl Sink for Page {
    fn text(&mut self, piece: &str) {
        lock(&self.0).push(format!("says {piece}"));
    }

    fn thinking(&mut self, _: &str) {}

    fn rollback(&mut self) {
        lock(&self.0).push("rollback".to_owned());
    }
}

struct Setting {
    router: Router,
    told: Told,
    poor: bool,
}

impl Setting {
    fn new(rules: Vec<FallbackRule>, scripts: [&[Does]; 3]) -> Self {
        let told = Told::default();
        let mut providers: Vec<Arc<dyn Provider>> = Vec::new();
        for (name, script) in ["first", "second", "free"].into_iter().zip(scripts) {
            let script = Mutex::new(script.iter().cloned().collect());
            let balance = (name == "first").then_some(2.0);
            providers.push(Arc::new(Scripted { name, script, balance, told: Arc::clone(&told) }));
        }
        let router = Router::new(Providers::of(providers), "first", "big", rules).unwrap();
        Self { router: router.with_step(Duration::ZERO), told, poor: false }
    }

    fn ask(&self) -> Result<(String, String, String), LlmError> {
        self.ask_with(&Cancel::new())
    }

    fn ask_with(&self, cancel: &Cancel) -> Result<(String, String, String), LlmError> {
        let book = Book { told: Arc::clone(&self.told), poor: self.poor };
        let messages = [Message::text(Role::User, "hi")];
        let request = Request { model: "ignored", messages: &messages, tools: &[], stream: true };
        let answered = self.router.complete(request, &book, &mut Page(Arc::clone(&self.told)), cancel)?;
        Ok((answered.provider, answered.model, answered.completion.text))
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.told))
    }
}

fn status(status: u16) -> LlmError {
    LlmError::Status { status, message: String::new(), retry_after: None }
}

fn cut() -> LlmError {
    LlmError::Cut { cause: "gone".into() }
}

fn rule(trigger: FallbackTrigger, action: FallbackAction) -> FallbackRule {
    FallbackRule { trigger, action }
}

fn to_provider(provider: &str, model: Option<&str>) -> FallbackAction {
    FallbackAction::SwitchProvider { provider: provider.into(), model: model.map(Into::into) }
}

fn to_model(model: &str) -> FallbackAction {
    FallbackAction::SwitchModel { model: model.into() }
}

fn wait(max_retries: u32, backoff: Backoff) -> FallbackAction {
    FallbackAction::WaitAndRetry { max_retries, backoff }
}

use FallbackTrigger::{Error as OnError, RateLimit};

fn answer(provider: &str, model: &str, text: &str) -> Result<(String, String, String), LlmError> {
    Ok((provider.into(), model.into(), text.into()))
}

#[test]
fn a_failed_call_goes_to_the_next_that_fits() {
    let check = |rules: Vec<FallbackRule>, scripts: [&[Does]; 3], expected| {
        assert_eq!(Setting::new(rules, scripts).ask(), expected);
    };
    let ok = &[Does::Says("ok")][..];
    check(vec![], [ok, &[], &[]], answer("first", "big", "ok"));
    check(vec![], [&[Does::Fails(cut())], &[], &[]], Err(cut()));
    let switch = || vec![rule(OnError, to_provider("second", None))];
    for error in [cut(), status(500), status(403), status(529), LlmError::Connect { cause: "no".into() }] {
        check(switch(), [&[Does::Fails(error)], ok, &[]], answer("second", "big", "ok"));
    }
    for error in [status(400), status(401), status(402), status(404), status(422), status(429)] {
        check(switch(), [&[Does::Fails(error.clone())], &[], &[]], Err(error));
    }
    for error in [LlmError::Cancelled, LlmError::Config { cause: "no key".into() }] {
        check(switch(), [&[Does::Fails(error.clone())], &[], &[]], Err(error));
    }
    // Each rule looks at the latest error, in order, and the last error is what is told.
    let chain = || {
        vec![
            rule(RateLimit, to_model("small")),
            rule(OnError, to_provider("second", Some("other"))),
            rule(OnError, to_model("tiny")),
        ]
    };
    let limited = &[Does::Fails(status(429)), Does::Fails(cut())][..];
    check(chain(), [limited, ok, &[]], answer("second", "other", "ok"));
    check(chain(), [limited, &[Does::Fails(status(503)), Does::Says("ok")], &[]], answer("second", "tiny", "ok"));
    check(chain(), [limited, &[Does::Fails(status(401))], &[]], Err(status(401)));
    // A rule that leads back to where the call failed is no new try.
    check(vec![rule(OnError, to_provider("first", None))], [&[Does::Fails(cut())], &[], &[]], Err(cut()));
    check(vec![rule(OnError, to_provider("gone", None))], [&[Does::Fails(cut())], &[], &[]], Err(cut()));
}

#[test]
fn retries_end_with_success_their_count_or_another_kind_of_error() {
    let check = |rules: Vec<FallbackRule>, script: &[Does], n_calls: usize, good: bool| {
        let setting = Setting::new(rules, [script, &[], &[]]);
        assert_eq!(setting.ask().is_ok(), good);
        assert_eq!(setting.told().iter().filter(|line| *line == "first/big").count(), n_calls);
    };
    let limited = || Does::Fails(status(429));
    for backoff in [Backoff::Constant, Backoff::Exponential] {
        let rules = || vec![rule(RateLimit, wait(3, backoff))];
        check(rules(), &[limited(), Does::Says("ok")], 2, true);
        check(rules(), &[limited(), limited(), limited(), Does::Says("ok")], 4, true);
        check(rules(), &[limited(), limited(), limited(), limited()], 4, false);
        check(rules(), &[limited(), Does::Fails(cut())], 2, false);
        check(rules(), &[Does::Fails(cut())], 1, false);
    }
    let rules = || vec![rule(OnError, wait(2, Backoff::Constant))];
    check(rules(), &[Does::Fails(cut()), Does::Fails(status(500)), Does::Says("ok")], 3, true);
    check(rules(), &[Does::Fails(cut()), limited()], 2, false);
}

#[test]
fn every_try_is_reserved_and_settled_and_void_pieces_are_taken_back() {
    let rules = vec![rule(OnError, wait(1, Backoff::Constant)), rule(OnError, to_provider("second", None))];
    let setting =
        Setting::new(rules, [&[Does::Breaks("eight by", cut()), Does::Fails(status(500))], &[Does::Says("ok")], &[]]);
    assert_eq!(setting.ask(), answer("second", "big", "ok"));
    let expected = [
        "reserved",
        "first/big",
        "says eight by",
        "settled 2",
        "reserved",
        "rollback",
        "first/big",
        "settled nothing",
        "reserved",
        "second/big",
        "says ok",
        "settled 0",
    ];
    assert_eq!(setting.told(), expected);
    // Nothing follows: what was said stays.
    let setting = Setting::new(vec![], [&[Does::Breaks("half", cut())], &[], &[]]);
    assert_eq!(setting.ask(), Err(cut()));
    assert_eq!(setting.told(), ["reserved", "first/big", "says half", "settled 1"]);
    // Arguments of tool calls are paid for, but were not shown: nothing is taken back.
    let rules = vec![rule(OnError, wait(1, Backoff::Constant))];
    let setting = Setting::new(rules, [&[Does::Calls(400, cut()), Does::Says("ok")], &[], &[]]);
    assert_eq!(setting.ask(), answer("first", "big", "ok"));
    let expected = ["reserved", "first/big", "settled 100", "reserved", "first/big", "says ok", "settled 0"];
    assert_eq!(setting.told(), expected);
}

#[test]
fn a_budget_leads_to_somebody_cheaper_but_never_to_the_same_again() {
    let rules = vec![rule(OnError, wait(5, Backoff::Constant)), rule(OnError, to_provider("free", Some("own")))];
    let mut setting = Setting::new(rules, [&[], &[], &[Does::Says("ok")]]);
    setting.poor = true;
    assert_eq!(setting.ask(), answer("free", "own", "ok"));
    assert_eq!(setting.told(), ["refused big", "reserved", "free/own", "says ok", "settled 0"]);
    let mut setting = Setting::new(vec![], [&[], &[], &[]]);
    setting.poor = true;
    assert_eq!(setting.ask(), Err(LlmError::Budget { message: "no money".into() }));
}

#[test]
fn low_funds_choose_before_the_call_and_the_balance_is_remembered() {
    let low = |threshold: f64, action| rule(FallbackTrigger::LowFunds { threshold }, action);
    let says = [Does::Says("a"), Does::Says("b")];
    let rules = vec![low(1.0, to_model("never")), low(5.0, to_provider("free", Some("own"))), low(9.0, to_model("x"))];
    let setting = Setting::new(rules, [&[], &[], &says]);
    assert_eq!(setting.ask(), answer("free", "own", "a"));
    assert_eq!(setting.ask(), answer("free", "own", "b"));
    assert_eq!(setting.told().iter().filter(|line| *line == "first balance").count(), 1);
    let setting = Setting::new(vec![low(2.0, to_model("x"))], [&says, &[], &[]]);
    assert_eq!(setting.ask(), answer("first", "big", "a"));
    // An unknown balance fits no rule.
    let setting = Setting::new(vec![low(100.0, to_model("x"))], [&[], &says, &[]]);
    setting.router.set_default("second", "m").unwrap();
    assert_eq!(setting.ask(), answer("second", "m", "a"));
}

#[test]
fn rules_and_default_change_while_it_runs() {
    let says = [Does::Fails(cut()), Does::Says("a")];
    let setting = Setting::new(vec![], [&says, &[Does::Says("b")], &[]]);
    assert_eq!(setting.ask(), Err(cut()));
    setting.router.set_rules(vec![rule(OnError, to_model("x"))]);
    assert_eq!(setting.router.rules().len(), 1);
    assert_eq!(setting.ask(), answer("first", "big", "a"));
    setting.router.set_default("second", "m").unwrap();
    assert_eq!(setting.router.default_choice(), ("second".to_owned(), "m".to_owned()));
    assert_eq!(setting.ask(), answer("second", "m", "b"));
    assert!(matches!(setting.router.set_default("gone", "m"), Err(LlmError::Config { .. })));
    assert!(Router::new(setting.router.providers().clone(), "gone", "m", vec![]).is_err());
}

#[test]
fn cancelling_ends_a_wait_at_once() {
    let limited = LlmError::Status { status: 429, message: String::new(), retry_after: Some(LONG) };
    let setting = Setting::new(vec![rule(RateLimit, wait(3, Backoff::Constant))], [&[Does::Fails(limited)], &[], &[]]);
    let cancel = Cancel::new();
    let (other, threads, told) = (cancel.clone(), Threads::new(), Arc::clone(&setting.told));
    threads
        .spawn("cancels", STACK_BYTES, move || {
            // The wait begins after the only call; cancelling a moment before it is as good.
            while !lock(&told).iter().any(|line| line.starts_with("settled")) {
                std::thread::yield_now();
            }
            other.cancel();
        })
        .unwrap();
    let started = Instant::now();
    assert_eq!(setting.ask_with(&cancel), Err(LlmError::Cancelled));
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(threads.join_all(LONG).is_empty());
}
