//! Model providers and what is asked of them by default (contract 4.4; W-27). Changes count from the next call on.

use serde_json::{Value, json};

use crate::api::agents_change::told;
use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::fields::{Fields, setting};
use crate::api::login::{json_line, ok};
use crate::api::message::Reply;
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::api::server_settings::{names, store};
use crate::config::{Config, ProviderKind, edit};
use crate::costs::Spender;
use crate::rt::clock;

/// The fixed names, in the contract's order.
const FIXED: [&str; 4] = ["anthropic", "openrouter", "openai", "ollama"];

/// All providers: the fixed ones, then those of `[[llm.providers]]`. Never a key.
pub(super) fn list(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let config = ctx.deps.settings.current();
    let llm = &config.llm;
    let mut shapes: Vec<Value> = FIXED.iter().map(|name| shape(&config, name, None)).collect();
    let named = llm.providers.iter().filter(|one| one.kind != ProviderKind::Local && !FIXED.contains(&&*one.name));
    shapes.extend(named.map(|one| shape(&config, &one.name, Some(one.kind))));
    Ok(ok(&json!({
        "default_provider": llm.default_provider, "default_model": llm.default_model,
        "cost_limit_soft": llm.cost_limit_soft, "cost_limit_hard": llm.cost_limit_hard, "providers": shapes,
    })))
}

fn shape(config: &Config, name: &str, kind: Option<ProviderKind>) -> Value {
    let found = config.llm.providers.iter().find(|one| one.name == name);
    let is_set = found.is_some_and(|one| one.api_key.is_some());
    let mut shape = json!({"name": name, "enabled": found.is_some(), "api_key_set": is_set});
    // One without a key is not set up, but its address may be there.
    let typed = |key: &str| config.tree.get(&format!("llm.{name}.{key}")).and_then(Value::as_str);
    let base_url = found.and_then(|one| one.base_url.as_deref()).or_else(|| typed("base_url"));
    if let Some(url) = base_url.filter(|url| !url.is_empty() && name != "openrouter") {
        shape["base_url"] = json!(url);
    }
    let organization = found.and_then(|one| one.organization.as_deref()).or_else(|| typed("organization"));
    if let Some(organization) = organization.filter(|text| !text.is_empty()) {
        shape["organization"] = json!(organization);
    }
    if let Some(kind) = kind {
        shape["type"] = json!(match kind {
            ProviderKind::Anthropic => "anthropic",
            ProviderKind::OpenRouter => "openrouter",
            ProviderKind::Ollama => "ollama",
            ProviderKind::OpenAi | ProviderKind::Local => "openai",
        });
    }
    shape
}

/// Changes one provider's key, address or organization.
pub(super) fn change_provider(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let name = call.params.get("name");
    let config = ctx.deps.settings.current();
    let named = config.llm.providers.iter().find(|one| one.name == name && one.name != "local");
    let is_fixed = FIXED.contains(&name);
    if !is_fixed && named.is_none() {
        let text = "unknown provider: must be one of anthropic, openrouter, openai, ollama";
        return Err(ApiError::bad_request(text));
    }
    let fields = Fields::of(&call.req.body)?;
    let mut wishes: Vec<(&str, Value)> = Vec::new();
    if let Some(key) = fields.text("api_key")? {
        let sealed = if key.is_empty() { Value::Null } else { json!(ctx.deps.settings.sealed(key)?) };
        wishes.push(("api_key", sealed));
    }
    if let Some(url) = fields.text("base_url")? {
        if !url.is_empty() && !is_url(url) {
            return Err(ApiError::bad_request("invalid base_url: must be a valid URL with scheme and host"));
        }
        wishes.push(("base_url", setting(url)));
    }
    if let Some(organization) = fields.text("organization")? {
        if !organization.is_empty() && named.map_or(name != "openai", |one| one.kind != ProviderKind::OpenAi) {
            return Err(ApiError::bad_request("organization is only supported for the openai provider"));
        }
        wishes.push(("organization", setting(organization)));
    }
    let changed = if is_fixed {
        let wishes: Vec<(String, Value)> =
            wishes.iter().map(|(key, value)| (format!("llm.{name}.{key}"), value.clone())).collect();
        store(ctx, &wishes.iter().map(|(key, value)| (key.as_str(), value.clone())).collect::<Vec<_>>())?
    } else {
        let mut write = |doc: &mut edit::Document| {
            wishes
                .iter()
                .try_for_each(|(key, value)| edit::set_in_list(doc, "llm.providers", name, key, value).map(drop))
        };
        ctx.deps.settings.change(&mut write)?
    };
    note(ctx, call, "llm.provider", name, &names(&wishes));
    Ok(ok(&told(json!({"status": "updated"}), &changed)))
}

/// Changes what is asked by default, and the limits of a conversation.
pub(super) fn change(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let config = ctx.deps.settings.current();
    let fields = Fields::of(&call.req.body)?;
    let mut wishes: Vec<(&str, Value)> = Vec::new();
    if let Some(provider) = fields.text("default_provider")? {
        let is_known = FIXED.contains(&provider) || config.llm.providers.iter().any(|one| one.name == provider);
        if !provider.is_empty() && !is_known {
            let text = "invalid default_provider: must be one of anthropic, openrouter, openai, ollama";
            return Err(ApiError::bad_request(text));
        }
        wishes.push(("llm.default_provider", setting(provider)));
    }
    if let Some(model) = fields.text("default_model")? {
        wishes.push(("llm.default_model", setting(model)));
    }
    for (field, key) in [("cost_limit_soft", "llm.cost_limit_soft"), ("cost_limit_hard", "llm.cost_limit_hard")] {
        if let Some(limit) = fields.number(field)? {
            if limit < 0.0 {
                return Err(ApiError::bad_request(format!("{field} must be >= 0")));
            }
            wishes.push((key, json!(limit)));
        }
    }
    let changed = store(ctx, &wishes)?;
    note(ctx, call, "llm.change", &names(&wishes), "");
    Ok(ok(&told(json!({"status": "updated"}), &changed)))
}

/// Asks a provider one small question, and says how that went. The call is counted like any other.
pub(super) fn test(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let name = call.params.get("name");
    let missing = || ApiError::new(503, "not_configured", "model listing not available");
    let catalog = ctx.deps.model_lister.as_ref().ok_or_else(missing)?;
    let budgets = ctx.deps.cost_tracker.as_ref().ok_or_else(missing)?;
    if !catalog.has(name) {
        return Err(ApiError::not_found(format!("provider {name} is not set up")));
    }
    let config = ctx.deps.settings.current();
    let fields = Fields::of(if call.req.body.is_empty() { b"{}" } else { &call.req.body })?;
    // Whatever is asked of it anyway; else the first that it has.
    let default = (config.llm.default_provider == name).then(|| config.llm.default_model.clone());
    let agents = config.agents.iter().filter(|agent| agent.provider == name).map(|agent| agent.model.clone());
    let given = fields.text("model")?.map(str::to_owned);
    let model = given.into_iter().chain(default).chain(agents).find(|model| !model.is_empty());
    if catalog.is_busy() {
        let busy = ApiError::new(503, "busy", "too many providers are being asked; try again");
        return Err(busy.with_header("Retry-After", "5"));
    }
    let identity = call.caller.as_ref().map(|caller| caller.caller().identity).unwrap_or_default();
    let meter = budgets.meter(Spender {
        // No turn: a number below zero that no other call has.
        turn_id: -clock::unix_ms(),
        conversation_id: format!("llm-test:{name}"),
        agent: String::new(),
        identity,
    });
    note(ctx, call, "llm.test", name, "");
    let (catalog, name) = (std::sync::Arc::clone(catalog), name.to_owned());
    Ok(Reply::Later(Box::new(move |responder| {
        catalog.try_model(name, model, Box::new(meter), move |took, error| {
            let shape = match error {
                None => json!({"ok": true, "latency_ms": took}),
                Some(error) => json!({"ok": false, "error": error.public().1, "latency_ms": took}),
            };
            responder.respond(json_line(200, &shape));
        });
    })))
}

/// Refuses a change that would have no effect: a variable or an option has the last word.
pub(super) fn check_decided(config: &Config, key: &str) -> Result<(), ApiError> {
    match config.tree.decided_by(key) {
        None => Ok(()),
        Some(name) => {
            let text = format!("{key} is set by {name}, which wins over the configuration file; change it there");
            Err(ApiError::new(409, "set_elsewhere", text))
        }
    }
}

/// Whether a text is a scheme, `://` and a host.
pub(super) fn is_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    is_scheme && !rest.is_empty() && !rest.starts_with(['/', '?', '#', ':']) && !rest.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_scheme_and_a_host() {
        for (text, good) in [
            ("https://a.example", true),
            ("http://127.0.0.1:1/v1", true),
            ("a.example", false),
            ("https://", false),
            ("https:///x", false),
            ("://x", false),
            ("http://a b", false),
            ("http://:80", false),
        ] {
            assert_eq!(is_url(text), good, "{text}");
        }
    }
}
