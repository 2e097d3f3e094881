//! `set_fallback`: what happens when a call of the agent's model fails (contract engine 8.7, 9.5), until the next start.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::{Backoff, FallbackAction, FallbackRule, FallbackTrigger};
use crate::llm::{Router, ToolSpec};
use crate::tools::arguments::{Arguments, object};
use crate::tools::{Tool, ToolContext, ToolError};

/// More rules than anybody can follow.
const RULES_MAX: usize = 20;
/// As in the configuration: more would keep a turn for hours.
const RETRIES_MAX: usize = 100;

const FIELDS: &[&str] = &["trigger", "action", "provider", "model", "threshold", "max_retries", "backoff"];

/// Replaces the rules of one agent.
pub(super) struct SetFallback {
    spec: ToolSpec,
    router: Arc<Router>,
}

impl SetFallback {
    pub(super) fn new(router: Arc<Router>) -> Self {
        let rule = json!({"type": "object", "required": ["trigger", "action"], "additionalProperties": false,
        "properties": {
            "trigger": {"type": "string", "enum": ["error", "rate_limit", "low_funds"]},
            "action": {"type": "string", "enum": ["switch_provider", "switch_model", "wait_and_retry"]},
            "provider": {"type": "string", "description": "for switch_provider"},
            "model": {"type": "string", "description": "for switch_model, and for another provider"},
            "threshold": {"type": "number", "description": "USD, for low_funds"},
            "max_retries": {"type": "integer", "minimum": 1, "maximum": RETRIES_MAX},
            "backoff": {"type": "string", "enum": ["exponential", "constant"]},
        }});
        Self {
            spec: ToolSpec {
                name: super::SET_FALLBACK.to_owned(),
                description: "Replaces the rules for what happens when a call of your model fails. They are tried in \
                    their order and are forgotten when the hub starts again; an empty list removes all."
                    .to_owned(),
                parameters: object(
                    &json!({"rules": {"type": "array", "maxItems": RULES_MAX, "items": rule}}),
                    &["rules"],
                ),
            },
            router,
        }
    }

    fn rule(&self, value: &Value) -> Result<FallbackRule, String> {
        if !value.is_object() {
            return Err("must be an object".to_owned());
        }
        let fields = Arguments::of(value, FIELDS).map_err(|error| error.message)?;
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or("").trim().to_owned();
        let given =
            |name: &str| Some(text(name)).filter(|text| !text.is_empty()).ok_or_else(|| format!("needs {name:?}"));
        let trigger = match text("trigger").as_str() {
            "error" => FallbackTrigger::Error,
            "rate_limit" => FallbackTrigger::RateLimit,
            "low_funds" => {
                let threshold = fields.get("threshold").and_then(Value::as_f64).filter(|usd| *usd > 0.0);
                FallbackTrigger::LowFunds { threshold: threshold.ok_or("needs \"threshold\", more than 0")? }
            }
            _ => return Err("trigger must be error, rate_limit or low_funds".to_owned()),
        };
        let action = match text("action").as_str() {
            "switch_provider" => {
                let provider = given("provider")?;
                let known: Vec<&str> = self.router.providers().iter().map(|known| known.name()).collect();
                if !known.contains(&provider.as_str()) {
                    return Err(format!("provider must be one that is set up: {}", known.join(", ")));
                }
                FallbackAction::SwitchProvider { provider, model: given("model").ok() }
            }
            "switch_model" => FallbackAction::SwitchModel { model: given("model")? },
            "wait_and_retry" => {
                let retries = fields.number("max_retries", 3, 1, RETRIES_MAX).map_err(|error| error.message)?;
                FallbackAction::WaitAndRetry {
                    max_retries: u32::try_from(retries).unwrap_or(1),
                    backoff: match text("backoff").as_str() {
                        "" | "exponential" => Backoff::Exponential,
                        "constant" => Backoff::Constant,
                        _ => return Err("backoff must be exponential or constant".to_owned()),
                    },
                }
            }
            _ => return Err("action must be switch_provider, switch_model or wait_and_retry".to_owned()),
        };
        Ok(FallbackRule { trigger, action })
    }
}

impl Tool for SetFallback {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn read_only(&self) -> bool {
        false
    }

    fn call(&self, arguments: &Value, _: &ToolContext<'_>) -> Result<String, ToolError> {
        let arguments = Arguments::of(arguments, &["rules"])?;
        let list = arguments.get("rules").and_then(Value::as_array).filter(|list| list.len() <= RULES_MAX);
        let list =
            list.ok_or_else(|| ToolError::new(format!("\"rules\" must be a list of at most {RULES_MAX} rules")))?;
        let rules: Result<Vec<FallbackRule>, ToolError> = list
            .iter()
            .enumerate()
            .map(|(at, value)| self.rule(value).map_err(|reason| ToolError::new(format!("rules[{at}]: {reason}"))))
            .collect();
        let rules = rules?;
        let count = rules.len();
        // All of them are good, or none counts.
        self.router.set_rules(rules);
        Ok(json!({"ok": true, "rules": count}).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::Providers;
    use crate::llm::local::{LocalProvider, NAME};
    use crate::rt::Cancel;
    use std::time::Instant;

    #[test]
    fn rules_are_replaced_all_or_none() {
        let providers = Providers::of(vec![Arc::new(LocalProvider)]);
        let router = Arc::new(Router::new(providers, NAME, NAME, Vec::new()).unwrap());
        let tool = SetFallback::new(Arc::clone(&router));
        let cancel = Cancel::new();
        let context =
            ToolContext { agent: "a", session_id: "s", identity: "i", deadline: Instant::now(), cancel: &cancel };
        let set = |rules: Value| tool.call(&json!({ "rules": rules }), &context).map_err(|error| error.message);
        let good = json!([{"trigger": "error", "action": "switch_provider", "provider": NAME},
            {"trigger": "rate_limit", "action": "wait_and_retry", "max_retries": 2, "backoff": "constant"},
            {"trigger": "low_funds", "threshold": 1.5, "action": "switch_model", "model": "m"}]);
        assert_eq!(set(good).as_deref(), Ok(r#"{"ok":true,"rules":3}"#));
        assert_eq!(router.rules().len(), 3);
        for (rules, part) in [
            (
                json!([{"trigger": "error", "action": "switch_model", "model": "m"}, {"trigger": "x"}]),
                "rules[1]: trigger",
            ),
            (json!([{"trigger": "error", "action": "switch_provider", "provider": "nobody"}]), "set up: local"),
            (json!([{"trigger": "error", "action": "switch_model"}]), "needs \"model\""),
            (json!([{"trigger": "low_funds", "action": "switch_model", "model": "m"}]), "threshold"),
            (json!([{"trigger": "error", "action": "wait_and_retry", "max_retries": 0}]), "from 1 to 100"),
            (json!([{"trigger": "error", "action": "wait_and_retry", "backoff": "x"}]), "backoff"),
            (json!([{"trigger": "error", "action": "dance"}]), "action must be"),
            (json!([{"trigger": "error", "action": "switch_model", "model": "m", "x": 1}]), "unknown argument \"x\""),
            (json!([5]), "must be an object"),
            (json!("none"), "must be a list"),
        ] {
            let error = set(rules.clone()).unwrap_err();
            assert!(error.contains(part), "{rules}: {error}");
        }
        assert_eq!(router.rules().len(), 3, "a bad rule changes nothing");
        assert!(set(json!([])).is_ok() && router.rules().is_empty());
    }
}
