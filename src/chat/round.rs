//! One round of tool calls: what each needs, and parking the turn when somebody has to decide first.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::agents::Agent;
use crate::chat::approvals::arguments_hash;
use crate::chat::event::ChatEvent;
use crate::chat::turn::{TurnError, TurnRun};
use crate::config::Tier;
use crate::limits;
use crate::llm::{Completion, ToolCall};
use crate::rt::{clock, json};
use crate::store::approvals::NewApproval;
use crate::store::parked::CallRow;
use crate::store::random_hex;
use crate::store::rules::RuleScope;
use crate::tools::{Tool, ToolSet};

/// What stands between a call and its execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    /// Changes nothing, or the tier allows it.
    Free,
    /// A rule allows it.
    Rule(RuleScope),
    /// Somebody has to be asked.
    Ask,
    /// Somebody has allowed it.
    Approved,
    /// Nobody has: what the model is told.
    Denied(&'static str),
    /// It makes no sense: what the model is told.
    Refused(String),
}

/// One call.
pub(super) struct Call {
    pub(super) call: ToolCall,
    pub(super) permission: Permission,
    pub(super) tool: Option<Arc<dyn Tool>>,
    pub(super) arguments: Value,
    pub(super) approval_id: Option<String>,
    /// What was shown when it was asked for.
    shown: Option<String>,
}

/// What the model asked for at once.
pub(super) struct Round {
    pub(super) number: u32,
    /// Its text beside the calls.
    pub(super) said: String,
    pub(super) calls: Vec<Call>,
}

/// How often each call was made in this turn.
pub(super) type Repeats = HashMap<(String, String), u32>;

impl Round {
    /// A round as the model asked for it.
    pub(super) fn plan(
        run: &TurnRun<'_>,
        agent: &Agent,
        tools: &ToolSet,
        number: u32,
        completion: Completion,
        repeats: &mut Repeats,
    ) -> Result<Self, TurnError> {
        let mut calls = Vec::with_capacity(completion.tool_calls.len());
        for call in completion.tool_calls.into_iter().take(limits::TOOL_CALLS_MAX) {
            let mut planned = check(tools, call);
            let seen = repeats.entry((planned.call.name.clone(), planned.call.arguments.clone())).or_default();
            *seen += 1;
            if *seen > limits::TOOL_REPEATS_MAX {
                let text = "this very call was made before in this turn; use its result";
                planned.permission = Permission::Refused(text.to_owned());
            }
            if planned.permission == Permission::Ask {
                planned.permission = permission(run, agent, &planned)?;
            }
            calls.push(planned);
        }
        Ok(Self { number, said: completion.text, calls })
    }

    /// A parked round after its decisions. Nothing is allowed here that was not allowed before: what was free must still
    /// be free, what a rule or somebody allowed must still be that tool of that server.
    pub(super) fn resume(tier: Tier, tools: &ToolSet, rows: Vec<CallRow>) -> Self {
        let mut round = Self { number: 1, said: String::new(), calls: Vec::with_capacity(rows.len()) };
        for row in rows {
            round.number = row.round;
            let mut call = check(tools, ToolCall { id: row.tool_id, name: row.tool, arguments: row.arguments });
            if row.position == 0 {
                round.said = row.said;
            }
            let same = call.tool.as_ref().is_some_and(|tool| tool.server() == row.server);
            let free = tier == Tier::Autonomous || call.permission == Permission::Free;
            call.permission = match (row.permission.as_str(), row.status.as_str()) {
                ("refused", _) => Permission::Refused(row.refusal),
                ("ask", "denied") => Permission::Denied("The user denied this tool call. It was not made."),
                ("ask", "approved") if same && arguments_hash(&call.call.arguments) == row.arguments_hash => {
                    Permission::Approved
                }
                ("ask", "pending" | "expired" | "") => {
                    Permission::Denied("Nobody allowed this tool call in time. It was not made.")
                }
                ("free", _) if same && free => Permission::Free,
                (scope, _) if same && RuleScope::parse(scope).is_some() => {
                    RuleScope::parse(scope).map_or(Permission::Ask, Permission::Rule)
                }
                _ => Permission::Refused("the tool is no longer the one that was allowed; nothing was done".to_owned()),
            };
            call.approval_id = row.approval_id;
            call.shown = Some(row.shown);
            round.calls.push(call);
        }
        round
    }

    /// Whether somebody has to decide before this round can run.
    pub(super) fn must_ask(&self) -> bool {
        self.calls.iter().any(|call| call.permission == Permission::Ask)
    }

    /// Stores the round with its requests, parks the turn, and only then asks: no decision can come too early.
    pub(super) fn park(&mut self, run: &TurnRun<'_>) -> Result<(), TurnError> {
        let mut rows = Vec::with_capacity(self.calls.len());
        let mut asked: Vec<(usize, String, String, String, String)> = Vec::new();
        for (index, call) in self.calls.iter_mut().enumerate() {
            if call.permission == Permission::Ask {
                let id = random_hex::<8>()?;
                call.approval_id = Some(id.clone());
                let shown = shown_arguments(call);
                asked.push((index, id, summary(&call.call.name, &shown), shown, arguments_hash(&call.call.arguments)));
            }
            let (permission, refusal) = match &call.permission {
                Permission::Free => ("free", ""),
                Permission::Rule(scope) => (scope.as_str(), ""),
                Permission::Refused(text) => ("refused", text.as_str()),
                Permission::Ask | Permission::Approved | Permission::Denied(_) => ("ask", ""),
            };
            rows.push(CallRow {
                shown: shown_arguments(call),
                permission: permission.to_owned(),
                refusal: refusal.to_owned(),
                turn_id: run.turn.id,
                position: u32::try_from(index).unwrap_or(u32::MAX),
                round: self.number,
                tool_id: call.call.id.clone(),
                tool: call.call.name.clone(),
                server: server_of(call).to_owned(),
                arguments: call.call.arguments.clone(),
                said: if index == 0 { self.said.clone() } else { String::new() },
                approval_id: call.approval_id.clone(),
                ..CallRow::default()
            });
        }
        let ttl = i64::try_from(run.inner.settings().approval_ttl.as_millis()).unwrap_or(i64::MAX);
        let expires_at = clock::unix_ms().saturating_add(ttl);
        let requests: Vec<NewApproval<'_>> = asked
            .iter()
            .map(|(index, id, summary, shown, hash)| NewApproval {
                id,
                agent: &run.turn.agent,
                summary,
                arguments: shown,
                adapter: &run.turn.origin,
                conversation_id: &run.turn.conversation_id,
                expires_at,
                turn_id: run.turn.id,
                tool_id: &self.calls[*index].call.id,
                tool: &self.calls[*index].call.name,
                server: server_of(&self.calls[*index]),
                arguments_hash: hash,
            })
            .collect();
        run.inner.parked.park(run.turn.id, &rows, &requests)?;
        for (index, id, summary, ..) in asked {
            let call = &self.calls[index].call;
            run.inner.approvals.announce(&id);
            run.emit(&ChatEvent::ToolApproval {
                tool: call.name.clone(),
                round: self.number,
                tool_id: call.id.clone(),
                text: summary,
                approval_id: Some(id),
            })?;
        }
        Ok(())
    }
}

/// The call with its tool and arguments, or why there is none; [`Permission::Ask`] for what may act.
fn check(tools: &ToolSet, call: ToolCall) -> Call {
    let tool = tools.find(&call.name).cloned();
    let mut arguments = Value::Null;
    let permission = match &tool {
        None => Permission::Refused(format!("there is no tool named {:?} here", call.name)),
        Some(tool) => match parse_arguments(&call.arguments) {
            Err(text) => Permission::Refused(text.to_owned()),
            Ok(value) => {
                arguments = value;
                if tool.is_free(&arguments) { Permission::Free } else { Permission::Ask }
            }
        },
    };
    Call { call, permission, tool, arguments, approval_id: None, shown: None }
}

fn permission(run: &TurnRun<'_>, agent: &Agent, call: &Call) -> Result<Permission, TurnError> {
    let Some(tool) = &call.tool else { return Ok(Permission::Ask) };
    match agent.tier {
        Tier::Autonomous if !tool.always_asks() => return Ok(Permission::Free),
        Tier::Restricted => return Ok(Permission::Refused("this agent may not do that".to_owned())),
        Tier::Autonomous | Tier::Supervised => {}
    }
    let session = &run.turn.conversation_id;
    let rule = run.inner.approvals.rule_for(&agent.name, session, &**tool)?;
    Ok(rule.map_or(Permission::Ask, Permission::Rule))
}

fn parse_arguments(text: &str) -> Result<Value, &'static str> {
    let value = match text.trim() {
        "" => Value::Object(serde_json::Map::new()),
        text => serde_json::from_str(text).map_err(|_| "the arguments are not valid JSON")?,
    };
    if value.is_object() { Ok(value) } else { Err("the arguments must be a JSON object") }
}

fn server_of(call: &Call) -> &str {
    call.tool.as_ref().map_or("", |tool| tool.server())
}

/// The raw arguments as others may see them: secrets masked where the tool takes any.
pub(super) fn shown_arguments(call: &Call) -> String {
    if let Some(shown) = &call.shown {
        return shown.clone();
    }
    let secret = call.tool.as_ref().map_or(&[][..], |tool| tool.secret_arguments());
    if !secret.is_empty() && call.arguments.is_null() {
        return "(not valid JSON)".to_owned(); // nobody knows where in it the secrets are
    }
    if !secret.iter().any(|key| call.arguments.get(key).is_some()) {
        let raw = call.call.arguments.trim();
        return if raw.is_empty() { "{}".to_owned() } else { raw.to_owned() };
    }
    let mut shown = call.arguments.clone();
    for key in secret {
        if let Some(value) = shown.get_mut(key) {
            mask(value);
        }
    }
    shown.to_string()
}

/// Every text in it becomes `***`; keys stay, so that people see what is set.
fn mask(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(mask),
        Value::Array(list) => list.iter_mut().for_each(mask),
        Value::Null | Value::Bool(_) => {}
        Value::Number(_) | Value::String(_) => *value = Value::String("***".to_owned()),
    }
}

/// Contract engine 3.2. The event shows the beginning of very long arguments; the request holds all of them.
pub(super) fn summary(tool: &str, arguments: &str) -> String {
    let mut end = arguments.len().min(limits::APPROVAL_SUMMARY_BYTES_MAX);
    while !arguments.is_char_boundary(end) {
        end -= 1;
    }
    let more = if end < arguments.len() { " … (cut: the request has all of it)" } else { "" };
    format!("Execute tool {} with args: {}{more}", json::quoted(tool), &arguments[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_those_of_the_contract() {
        assert_eq!(summary("kv_get", r#"{"key":"a"}"#), r#"Execute tool "kv_get" with args: {"key":"a"}"#);
        let long = summary("t", &format!("{{\"a\":\"{}\"}}", "é".repeat(limits::APPROVAL_SUMMARY_BYTES_MAX)));
        assert!(long.len() < limits::APPROVAL_SUMMARY_BYTES_MAX + 100 && long.contains("cut"));
    }

    #[test]
    fn secrets_are_masked_and_keys_stay() {
        let mut value = serde_json::json!({"TOKEN": "s3cret", "list": ["a", 1, true], "none": null});
        mask(&mut value);
        assert_eq!(value, serde_json::json!({"TOKEN": "***", "list": ["***", "***", true], "none": null}));
    }
}
