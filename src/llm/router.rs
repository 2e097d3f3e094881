//! Which provider and model answer, and what happens when they fail (contract engine 9.5). One router per agent.
//!
//! No threads of its own. A call blocks its thread through all tries and waits; cancelling ends it at once.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::factory::Providers;
use super::{Completion, LlmError, Meter, MeteredCall, Phase, Provider, Request, Sink, Usage};
use crate::config::{Backoff, FallbackAction, FallbackRule, FallbackTrigger};
use crate::metrics;
use crate::rt::{Cancel, lock};

/// The first wait between two tries.
const STEP: Duration = Duration::from_secs(1);
/// The longest wait between two tries, whatever the back-off or the provider says: somebody waits for the answer.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Bytes of a text per token, for what was streamed before the provider could count it.
const BYTES_PER_TOKEN: u64 = 4;

/// One agent's way to its models.
pub struct Router {
    providers: Providers,
    step: Duration,
    /// Guarded by the mutex: taken at the beginning of a call, so that a change counts from the next call on.
    plan: Mutex<Plan>,
}

#[derive(Clone)]
struct Plan {
    provider: String,
    model: String,
    rules: Arc<[FallbackRule]>,
}

/// A finished call, and who answered it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    pub completion: Completion,
    pub provider: String,
    /// The model that was asked for.
    pub model: String,
}

/// Whom the next try asks.
struct Target {
    provider: Arc<dyn Provider>,
    model: String,
}

/// What all tries of one call share.
struct Run<'a> {
    request: Request<'a>,
    meter: &'a dyn Meter,
    sink: &'a mut dyn Sink,
    cancel: &'a Cancel,
    /// Pieces of a failed try that were given out: void before the next one begins.
    stale: bool,
}

impl Router {
    /// A router over these providers. `provider` must be one of them.
    pub fn new(providers: Providers, provider: &str, model: &str, rules: Vec<FallbackRule>) -> Result<Self, LlmError> {
        providers.find(provider)?;
        let plan = Plan { provider: provider.to_owned(), model: model.to_owned(), rules: rules.into() };
        Ok(Self { providers, step: STEP, plan: Mutex::new(plan) })
    }

    #[cfg(test)]
    pub(super) fn with_step(mut self, step: Duration) -> Self {
        self.step = step;
        self
    }

    /// Name of the provider and model that are asked first.
    pub fn default_choice(&self) -> (String, String) {
        let plan = lock(&self.plan);
        (plan.provider.clone(), plan.model.clone())
    }

    /// Asks another provider and model first, from the next call on. Fails when the provider is not configured.
    pub fn set_default(&self, provider: &str, model: &str) -> Result<(), LlmError> {
        self.providers.find(provider)?;
        let mut plan = lock(&self.plan);
        provider.clone_into(&mut plan.provider);
        model.clone_into(&mut plan.model);
        Ok(())
    }

    /// The fallback rules in their order.
    pub fn rules(&self) -> Arc<[FallbackRule]> {
        Arc::clone(&lock(&self.plan).rules)
    }

    /// Replaces the fallback rules from the next call on; in memory only.
    pub fn set_rules(&self, rules: Vec<FallbackRule>) {
        lock(&self.plan).rules = rules.into();
    }

    /// All providers that a rule may name.
    pub fn providers(&self) -> &Providers {
        &self.providers
    }

    /// Makes one call, through as many tries as the rules allow; `request.model` is replaced. Every try is reserved
    /// and settled with `meter`. Blocks until it is answered, has failed for good, or is cancelled.
    ///
    /// Before a try that follows another which already gave out pieces, [`Sink::rollback`] is called. The error is
    /// that of the last try.
    pub fn complete(
        &self,
        request: Request<'_>,
        meter: &dyn Meter,
        sink: &mut dyn Sink,
        cancel: &Cancel,
    ) -> Result<Answered, LlmError> {
        let plan = lock(&self.plan).clone();
        let mut target = Target { provider: Arc::clone(self.providers.find(&plan.provider)?), model: plan.model };
        self.spare_funds(&plan.rules, &mut target, cancel);
        let mut run = Run { request, meter, sink, cancel, stale: false };
        let mut error = match run.attempt(&target) {
            Ok(completion) => return Ok(target.answered(completion)),
            Err(error) => error,
        };
        for rule in plan.rules.iter() {
            if cancel.is_set() {
                return Err(LlmError::Cancelled);
            }
            if !fits(rule.trigger, &error) {
                continue;
            }
            let result = match &rule.action {
                FallbackAction::WaitAndRetry { max_retries, backoff } => {
                    self.retry(&mut run, &target, rule.trigger, (*max_retries, *backoff), error)
                }
                action => match self.switched(action, &target) {
                    Ok(next) if next.is(&target) => Err(error),
                    Ok(next) => {
                        log::warn!("{target} failed, {next} is asked instead: {error}");
                        target = next;
                        run.attempt(&target)
                    }
                    Err(cause) => {
                        log::warn!("a fallback rule cannot be followed: {cause}");
                        Err(error)
                    }
                },
            };
            match result {
                Ok(completion) => return Ok(target.answered(completion)),
                Err(latest) => error = latest,
            }
        }
        Err(error)
    }

    /// Follows the first `low_funds` rule whose threshold the account is below. A balance that cannot be had fits none.
    fn spare_funds(&self, rules: &[FallbackRule], target: &mut Target, cancel: &Cancel) {
        let mut thresholds = rules.iter().filter_map(|rule| match rule.trigger {
            FallbackTrigger::LowFunds { threshold } => Some((threshold, &rule.action)),
            _ => None,
        });
        let Some(first) = thresholds.next() else { return };
        let Some(balance) = self.providers.balance(&target.provider, cancel) else { return };
        let found = std::iter::once(first).chain(thresholds).find(|(threshold, _)| balance < *threshold);
        let Some((threshold, action)) = found else { return };
        match self.switched(action, target) {
            Ok(next) => {
                log::warn!("{balance} USD are left for {target}, below {threshold}: {next} is asked");
                *target = next;
            }
            Err(cause) => log::warn!("a fallback rule cannot be followed: {cause}"),
        }
    }

    /// Where an action leads. Waiting leads nowhere.
    fn switched(&self, action: &FallbackAction, from: &Target) -> Result<Target, LlmError> {
        let (provider, model) = match action {
            FallbackAction::SwitchProvider { provider, model } => (self.providers.find(provider)?, model.as_ref()),
            FallbackAction::SwitchModel { model } => (&from.provider, Some(model)),
            FallbackAction::WaitAndRetry { .. } => (&from.provider, None),
        };
        let model = model.unwrap_or(&from.model).clone();
        Ok(Target { provider: Arc::clone(provider), model })
    }

    /// Asks the same again: at once, then after growing waits; a provider that names a time gets it.
    fn retry(
        &self,
        run: &mut Run<'_>,
        target: &Target,
        trigger: FallbackTrigger,
        (max_retries, backoff): (u32, Backoff),
        mut error: LlmError,
    ) -> Result<Completion, LlmError> {
        // A budget that refused a call refuses its twin.
        if matches!(error, LlmError::Budget { .. }) {
            return Err(error);
        }
        for attempt in 0..max_retries {
            let grown = match backoff {
                _ if attempt == 0 => Duration::ZERO,
                Backoff::Constant => self.step,
                Backoff::Exponential => self.step.saturating_mul(1 << attempt.min(16)),
            };
            let asked = match &error {
                LlmError::Status { retry_after: Some(after), .. } => *after,
                _ => Duration::ZERO,
            };
            let wait = grown.max(asked).min(WAIT_MAX);
            log::warn!("{target} failed, it is asked again in {} s: {error}", wait.as_secs_f32());
            sleep(wait, run.cancel)?;
            error = match run.attempt(target) {
                Ok(completion) => return Ok(completion),
                Err(error) => error,
            };
            if !fits(trigger, &error) || matches!(error, LlmError::Budget { .. }) {
                break;
            }
        }
        Err(error)
    }
}

/// Waits; [`LlmError::Cancelled`] as soon as that happens.
fn sleep(wait: Duration, cancel: &Cancel) -> Result<(), LlmError> {
    let (woken_tx, woken_rx) = bounded(1);
    cancel.set_hook(move || {
        // Full means that it was woken already.
        let _ = woken_tx.try_send(());
    });
    if !wait.is_zero() {
        let _ = woken_rx.recv_timeout(wait); // both ends of the wait are told apart by the flag
    }
    cancel.clear_hook();
    if cancel.is_set() { Err(LlmError::Cancelled) } else { Ok(()) }
}

/// Whether a rule of this trigger applies after this error.
fn fits(trigger: FallbackTrigger, error: &LlmError) -> bool {
    match trigger {
        FallbackTrigger::LowFunds { .. } => false,
        FallbackTrigger::RateLimit => matches!(error, LlmError::Status { status: 429, .. }),
        FallbackTrigger::Error => match error {
            LlmError::Status { status, .. } => !matches!(status, 400 | 401 | 402 | 404 | 422 | 429),
            // Somebody cheaper may be within the limit.
            LlmError::Budget { .. } => true,
            LlmError::Connect { .. }
            | LlmError::Timeout { .. }
            | LlmError::Cut { .. }
            | LlmError::Decode { .. }
            | LlmError::TooLarge { .. } => true,
            LlmError::Cancelled | LlmError::Config { .. } => false,
        },
    }
}

impl Target {
    fn is(&self, other: &Self) -> bool {
        self.provider.name() == other.provider.name() && self.model == other.model
    }

    fn answered(&self, completion: Completion) -> Answered {
        Answered { completion, provider: self.provider.name().to_owned(), model: self.model.clone() }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.provider.name(), self.model)
    }
}

impl Run<'_> {
    /// One try: reserved, made, settled.
    fn attempt(&mut self, target: &Target) -> Result<Completion, LlmError> {
        let request = Request { model: &target.model, ..self.request };
        let provider = &target.provider;
        let call = MeteredCall {
            provider: provider.name(),
            is_free: provider.is_free(),
            model: &target.model,
            request: &request,
        };
        let mut reserved = Reserved { meter: self.meter, id: Some(self.meter.reserve(&call)?) };
        if std::mem::take(&mut self.stale) {
            self.sink.rollback();
        }
        let mut heard = Heard { sink: &mut *self.sink, n_bytes: 0, n_hidden: 0, usage: Usage::default() };
        let (labels, started) = ([provider.name(), target.model.as_str()], Instant::now());
        let result = provider.complete(request, &mut heard, self.cancel);
        metrics::LLM_SECONDS.observe(&labels, started.elapsed().as_secs_f64());
        if result.as_ref().is_err_and(|error| !matches!(error, LlmError::Cancelled)) {
            metrics::LLM_ERRORS.add(&labels, 1.0);
        }
        let (n_bytes, n_hidden, usage) = (heard.n_bytes, heard.n_hidden, heard.usage);
        let n_made = n_bytes + n_hidden;
        match &result {
            Ok(completion) => reserved.settle(Some(completion)),
            Err(error) if n_made == 0 && usage == Usage::default() && was_refused(error) => reserved.settle(None),
            // What was given out before the cut has its price, and so has a prompt that was read in silence.
            Err(_) => {
                let usage = known(usage, n_made);
                reserved.settle(Some(&Completion { usage, ..Completion::default() }));
            }
        }
        self.stale = result.is_err() && n_bytes > 0;
        result
    }
}

/// Whether a call failed before the provider took it on: nobody sends a bill for it.
fn was_refused(error: &LlmError) -> bool {
    match error {
        LlmError::Connect { .. }
        | LlmError::Config { .. }
        | LlmError::Budget { .. }
        | LlmError::Status { .. }
        | LlmError::Timeout { phase: Phase::Connect, .. } => true,
        LlmError::Timeout { .. }
        | LlmError::Cancelled
        | LlmError::Cut { .. }
        | LlmError::Decode { .. }
        | LlmError::TooLarge { .. } => false,
    }
}

/// The tokens of an answer that was cut off: counted where the provider did, else guessed from the bytes. Those of a
/// prompt that nobody counted stay 0: its meter has an estimate of the whole of it.
fn known(mut usage: Usage, n_bytes: u64) -> Usage {
    usage.output_tokens = usage.output_tokens.max(n_bytes / BYTES_PER_TOKEN);
    usage
}

/// A reservation that is settled once. After a panic it stays open, and its meter counts it at its estimate.
struct Reserved<'a> {
    meter: &'a dyn Meter,
    id: Option<i64>,
}

impl Reserved<'_> {
    fn settle(&mut self, used: Option<&Completion>) {
        if let Some(id) = self.id.take() {
            self.meter.settle(id, used);
        }
    }
}

/// Passes pieces on and counts them.
struct Heard<'a> {
    sink: &'a mut dyn Sink,
    n_bytes: u64,
    n_hidden: u64,
    usage: Usage,
}

impl Sink for Heard<'_> {
    fn text(&mut self, piece: &str) {
        self.n_bytes += piece.len() as u64;
        self.sink.text(piece);
    }

    fn thinking(&mut self, piece: &str) {
        self.n_bytes += piece.len() as u64;
        self.sink.thinking(piece);
    }

    fn rollback(&mut self) {
        self.sink.rollback();
    }

    fn hidden(&mut self, n_bytes: usize) {
        self.n_hidden += n_bytes as u64;
        self.sink.hidden(n_bytes);
    }

    fn usage(&mut self, usage: &Usage) {
        self.usage = *usage;
        self.sink.usage(usage);
    }
}
