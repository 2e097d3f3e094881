//! Which models there are, by provider, and what is known of them (contract engine 9.4).
//!
//! Threads: one `models-<provider>` per provider that is being asked. Its time is bounded by [`ASK_MAX`]; then it is
//! cancelled, and ends within its connect time-out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use super::factory::Providers;
use super::{LlmError, Message, Meter, ModelDetail, Phase, Provider, Request, Role, Router, Sink};
use crate::limits;
use crate::rt::{Cancel, Threads, lock};

/// How long a list counts (contract engine 9.4).
const LIST_AGE: Duration = Duration::from_secs(5 * 60);
/// How long all providers together may take: somebody waits for the list.
const ASK_MAX: Duration = Duration::from_secs(10);
/// How long a trial call may take: somebody waits for it.
const TRY_MAX: Duration = Duration::from_secs(30);
/// Askers at once; a slow provider must not gather threads.
const ASKERS_MAX: usize = 32;

/// Beginnings of the names of models that can call tools, without the vendor (contract engine 9.4, and what runs at
/// home).
#[rustfmt::skip]
const WITH_TOOLS: &[&str] = &[
    "claude-3", "claude-sonnet-", "claude-opus-", "claude-haiku-", "gpt-3.5-turbo", "gpt-4", "gpt-5", "gpt-oss",
    "o1", "o3", "o4", "gemini-", "mistral", "llama3.1", "llama3.2", "llama3.3", "llama-3", "llama-4", "qwen2.5", "qwen3",
];

/// The models of one provider.
#[derive(Debug)]
pub struct Listing {
    pub provider: String,
    /// Nobody sends a bill for its calls.
    pub is_free: bool,
    pub models: Vec<ModelDetail>,
}

/// Asks providers for their models, and remembers what they said.
pub struct Catalog {
    /// Guarded by the mutex: who is asked. Nothing is taken under it.
    providers: Mutex<Providers>,
    threads: Threads,
    /// Guarded by the mutex: lists by provider, and when they came.
    lists: Mutex<HashMap<String, (Instant, Arc<Listing>)>>,
}

impl Catalog {
    pub fn new(providers: Providers) -> Self {
        Self { providers: Mutex::new(providers), threads: Threads::new(), lists: Mutex::default() }
    }

    /// Asks these from now on; what the others said is forgotten.
    pub fn set_providers(&self, providers: Providers) {
        *lock(&self.providers) = providers;
        lock(&self.lists).clear();
    }

    /// Whether there is a provider of this name.
    pub fn has(&self, name: &str) -> bool {
        lock(&self.providers).find(name).is_ok()
    }

    /// Asks one provider one small question, on a thread of its own; of its first model when none is given. `then`
    /// hears how many milliseconds it took, and why it failed. Without a thread to be had, `then` is dropped.
    pub fn try_model(
        self: &Arc<Self>,
        name: String,
        model: Option<String>,
        meter: Box<dyn Meter + Send>,
        then: impl FnOnce(u64, Option<LlmError>) + Send + 'static,
    ) {
        let providers = lock(&self.providers).clone();
        let (cancel, begun) = (Cancel::new(), Instant::now());
        let (told_tx, told_rx) = bounded(1);
        let asking = cancel.clone();
        let asks = move || {
            // There is room for the one answer; nobody listens any more when it was late.
            let _ = told_tx.send(ask_once(providers, &name, model, meter.as_ref(), &asking));
        };
        let catalog = Arc::clone(self);
        let waits = move || {
            if let Err(error) = catalog.threads.spawn("models-ask", limits::WORKER_STACK_BYTES, asks) {
                log::error!("ask a model: {error}");
                return;
            }
            let told = told_rx.recv_timeout(TRY_MAX).unwrap_or_else(|_| {
                cancel.cancel();
                Err(LlmError::Timeout { phase: Phase::FirstByte, after: TRY_MAX })
            });
            let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            then(took, told.err());
        };
        if let Err(error) = self.threads.spawn("models-try", limits::WORKER_STACK_BYTES, waits) {
            log::error!("ask a model: {error}");
        }
    }

    /// The lists of all providers, or of one, if all of them are fresh. Never blocks.
    pub fn fresh(&self, only: Option<&str>) -> Option<Vec<Arc<Listing>>> {
        let wanted = self.wanted(only);
        let lists = lock(&self.lists);
        wanted.iter().map(|provider| fresh(&lists, provider.name())).collect()
    }

    /// Whether so much is being asked that more should wait.
    pub fn is_busy(&self) -> bool {
        self.threads.len() >= ASKERS_MAX
    }

    /// The same from another thread once they are there; a provider that fails or is late is left out with a warning.
    /// Without a thread to be had, `then` is dropped.
    pub fn ask(self: &Arc<Self>, only: Option<String>, then: impl FnOnce(Vec<Arc<Listing>>) + Send + 'static) {
        let catalog = Arc::clone(self);
        let asks = move || then(catalog.listings(only.as_deref()));
        if let Err(error) = self.threads.spawn("models", limits::WORKER_STACK_BYTES, asks) {
            log::error!("ask for models: {error}");
        }
    }

    fn wanted(&self, only: Option<&str>) -> Vec<Arc<dyn Provider>> {
        let providers = lock(&self.providers).clone();
        providers.iter().filter(|provider| only.is_none_or(|only| provider.name() == only)).cloned().collect()
    }

    /// Asks those whose lists are old, all at once.
    fn listings(&self, only: Option<&str>) -> Vec<Arc<Listing>> {
        let deadline = Instant::now() + ASK_MAX;
        let wanted = self.wanted(only);
        let cancel: HashMap<&str, Cancel> = {
            let lists = lock(&self.lists);
            let old = wanted.iter().filter(|provider| fresh(&lists, provider.name()).is_none());
            old.map(|provider| (provider.name(), Cancel::new())).collect()
        };
        let (told_tx, told_rx) = bounded(cancel.len());
        let mut waiting = 0;
        for provider in &wanted {
            let Some(cancel) = cancel.get(provider.name()) else { continue };
            waiting += usize::from(self.spawn(provider, cancel, told_tx.clone()));
        }
        for _ in 0..waiting {
            let Ok((name, result)) = told_rx.recv_deadline(deadline) else { break };
            match result {
                Ok(listing) => {
                    lock(&self.lists).insert(name, (Instant::now(), Arc::new(listing)));
                }
                Err(error) => log::warn!("ask {name} for its models: {error}"),
            }
        }
        // What is late ends now; its answer goes nowhere.
        cancel.values().for_each(Cancel::cancel);
        let lists = lock(&self.lists);
        wanted.iter().filter_map(|provider| fresh(&lists, provider.name())).collect()
    }

    fn spawn(
        &self,
        provider: &Arc<dyn Provider>,
        cancel: &Cancel,
        told_tx: Sender<(String, Result<Listing, LlmError>)>,
    ) -> bool {
        let (provider, cancel) = (Arc::clone(provider), cancel.clone());
        let name = provider.name().to_owned();
        let asks = move || {
            let name = provider.name().to_owned();
            let result = list(provider.as_ref(), &cancel);
            if cancel.is_set() {
                log::warn!("ask {name} for its models: no answer in {} s", ASK_MAX.as_secs());
            }
            // There is room for all; nobody listens any more when it was late.
            let _ = told_tx.send((name, result));
        };
        let spawned = self.threads.spawn(&format!("models-{name}"), limits::WORKER_STACK_BYTES, asks);
        if let Err(error) = &spawned {
            log::warn!("ask {name} for its models: {error}");
        }
        spawned.is_ok()
    }
}

fn ask_once(
    providers: Providers,
    name: &str,
    model: Option<String>,
    meter: &dyn Meter,
    cancel: &Cancel,
) -> Result<(), LlmError> {
    let model = match model {
        Some(model) => model,
        None => providers.find(name)?.models(cancel)?.into_iter().next().unwrap_or_default(),
    };
    let messages = [Message::text(Role::User, "Answer with the word ok.")];
    let request = Request { model: "", messages: &messages, tools: &[], stream: true };
    Router::new(providers, name, &model, Vec::new())?.complete(request, meter, &mut Unseen, cancel).map(drop)
}

/// Nobody watches the answer being made.
struct Unseen;

impl Sink for Unseen {
    fn text(&mut self, _piece: &str) {}

    fn thinking(&mut self, _piece: &str) {}
}

fn fresh(lists: &HashMap<String, (Instant, Arc<Listing>)>, name: &str) -> Option<Arc<Listing>> {
    lists.get(name).filter(|(at, _)| at.elapsed() < LIST_AGE).map(|(_, listing)| Arc::clone(listing))
}

fn list(provider: &dyn Provider, cancel: &Cancel) -> Result<Listing, LlmError> {
    let models = match provider.model_details(cancel)? {
        Some(details) => details,
        None => provider.models(cancel)?.into_iter().map(described).collect(),
    };
    Ok(Listing { provider: provider.name().to_owned(), is_free: provider.is_free(), models })
}

/// What a name alone tells.
fn described(id: String) -> ModelDetail {
    let bare = id.rsplit('/').next().unwrap_or(&id);
    let words = bare.split('-').filter(|word| !word.is_empty()).map(|word| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
    });
    ModelDetail {
        name: words.collect::<Vec<String>>().join(" "),
        input_per_mtok: None,
        output_per_mtok: None,
        supports_tools: bare == super::local::NAME || WITH_TOOLS.iter().any(|start| bare.starts_with(start)),
        id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::Completion;
    use crate::net::test_peer::LONG;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Listed {
        name: &'static str,
        models: Option<&'static [&'static str]>,
        asked: AtomicUsize,
    }

    impl Provider for Listed {
        fn name(&self) -> &str {
            self.name
        }
        fn complete(&self, _: Request<'_>, _: &mut dyn Sink, _: &Cancel) -> Result<Completion, LlmError> {
            Err(LlmError::Cancelled)
        }
        fn models(&self, _: &Cancel) -> Result<Vec<String>, LlmError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let models = self.models.ok_or(LlmError::Connect { cause: "gone".into() })?;
            Ok(models.iter().map(|model| (*model).to_owned()).collect())
        }
    }

    #[test]
    fn failing_providers_are_left_out_and_lists_remembered() {
        let listed = |name, models| Arc::new(Listed { name, models, asked: AtomicUsize::new(0) });
        let (good, bad) = (listed("good", Some(&["a", "b"][..])), listed("bad", None));
        let providers = Providers::of(vec![Arc::clone(&bad) as Arc<dyn Provider>, Arc::clone(&good) as _]);
        let catalog = Arc::new(Catalog::new(providers));
        let ask = |only: Option<&str>| {
            let (tx, rx) = bounded(1);
            catalog.ask(only.map(str::to_owned), move |lists| {
                let lists = lists.iter().map(|list| (list.provider.clone(), list.models.len()));
                tx.send(lists.collect::<Vec<_>>()).unwrap();
            });
            rx.recv_timeout(LONG).unwrap()
        };
        assert!(catalog.fresh(Some("good")).is_none());
        assert_eq!(ask(None), [("good".to_owned(), 2)]);
        assert_eq!(catalog.fresh(Some("good")).unwrap().len(), 1);
        assert!(catalog.fresh(None).is_none());
        assert_eq!(ask(None), [("good".to_owned(), 2)]);
        assert_eq!((good.asked.load(Ordering::SeqCst), bad.asked.load(Ordering::SeqCst)), (1, 2));
        assert_eq!(ask(Some("nobody")), []);
        assert_eq!(catalog.fresh(Some("nobody")).unwrap().len(), 0);
        assert!(catalog.threads.join_all(LONG).is_empty());
    }

    #[test]
    fn a_name_tells_something() {
        let check = |id: &str, name: &str, tools: bool| {
            let detail = described(id.to_owned());
            assert_eq!((detail.name.as_str(), detail.supports_tools), (name, tools), "{id}");
        };
        check("anthropic/claude-sonnet-4-20250514", "Claude Sonnet 4 20250514", true);
        check("gpt-4o-mini", "Gpt 4o Mini", true);
        check("llama3.2:3b", "Llama3.2:3b", true);
        check("text-embedding-3", "Text Embedding 3", false);
        check("local", "Local", true);
        check("", "", false);
    }
}
