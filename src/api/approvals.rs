//! Requests for approval and auto-approve rules (contract 10.2).

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use crate::api::error::ApiError;
use crate::api::login::{decode, json_line, ok};
use crate::api::message::Reply;
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::audit::{Entry, Outcome};
use crate::auth::{AuthError, Identity};
use crate::chat::Approvals;
use crate::chat::approvals::{Removed, too_late};
use crate::rt::clock;
use crate::rt::fields::typed;
use crate::rt::text::cut;
use crate::store::approvals::{ApprovalRow, Decided, Decision};
use crate::store::rules::{NewRule, RuleRow, RuleScope};

/// Longest name of a channel that is quoted.
const CHANNEL_BYTES_MAX: usize = 32;

#[derive(Serialize)]
struct ApprovalShape<'a> {
    id: &'a str,
    agent_name: &'a str,
    kind: &'a str,
    status: &'a str,
    summary: &'a str,
    payload: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    callback_data: &'a str,
    external_id: &'a str,
    adapter_name: &'a str,
    conversation_id: &'a str,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolved_at: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    resolved_by: &'a str,
    // Holt's own.
    #[serde(skip_serializing_if = "str::is_empty")]
    tool: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    server: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    tool_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    decided_by: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    note: &'a str,
}

#[derive(Serialize)]
struct RuleShape<'a> {
    id: &'a str,
    agent_name: &'a str,
    tool_name: &'a str,
    scope: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    conversation_id: &'a str,
    created_at: String,
    created_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

#[derive(Default)]
struct RuleBody {
    agent: String,
    tool: String,
    scope: String,
    conversation_id: String,
    /// Holt's own: the tool server that is meant; empty for built-in tools.
    server: Option<String>,
}

typed!(RuleBody { agent, tool, scope, conversation_id, server });

/// Requests, newest first, of one status or of all.
pub(super) fn list(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let status = call.req.query_param("status").unwrap_or_default();
    if !matches!(status.as_str(), "" | "pending" | "approved" | "denied" | "expired") {
        return Err(ApiError::bad_request(
            "invalid status: must be one of pending, approved, denied, expired (or empty for all)",
        ));
    }
    let rows = approvals(ctx)?.list(&status)?;
    Ok(Reply::Full(json_line(200, &rows.iter().map(shape).collect::<Vec<_>>())))
}

/// One request.
pub(super) fn get(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let row = approvals(ctx)?.get(call.params.get("id"))?.ok_or_else(|| ApiError::not_found("not found"))?;
    Ok(Reply::Full(json_line(200, &shape(&row))))
}

/// Approves; `auto_approve=session|permanent` makes a rule of it.
pub(super) fn approve(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let rule = call.req.query_param("auto_approve").and_then(|scope| RuleScope::parse(&scope));
    decide(ctx, call, true, rule)
}

/// Denies.
pub(super) fn deny(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    decide(ctx, call, false, None)
}

fn decide(ctx: &Ctx, call: &Call<'_>, approve: bool, rule: Option<RuleScope>) -> Result<Reply, ApiError> {
    let identity = caller(call)?.caller().identity;
    let source = ctx.origins.client_address(&call.req.headers, call.req.peer.ip());
    let decision = Decision { approve, by: "api", identity: &identity, source: &source, rule };
    match approvals(ctx)?.decide(call.params.get("id"), &decision)? {
        Decided::Done(row, _) => Ok(Reply::Full(json_line(200, &shape(&row)))),
        Decided::NotFound => Err(ApiError::not_found("not found")),
        Decided::Already(row) => Err(ApiError::new(409, "already_resolved", too_late(&row))),
    }
}

#[derive(Default)]
struct ButtonBody {
    channel: String,
    approve: bool,
    token: String,
}

typed!(ButtonBody { channel, approve, token });

/// Decides from a notification: the token of its button is the credential ([`crate::notify::Dispatcher::may_decide`]).
pub(super) fn button(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let id = call.params.get("id");
    let body: ButtonBody = decode(&call.req.body, "invalid JSON")?;
    let source = ctx.origins.client_address(&call.req.headers, call.req.peer.ip());
    let identity = format!("button:{}", cut(&body.channel, CHANNEL_BYTES_MAX));
    if !ctx.deps.notify.may_decide(&body.channel, id, body.approve, &body.token) {
        ctx.deps.audit.record_repeatable(&Entry {
            actor: &identity,
            target: id,
            source: &source,
            detail: "its token is not valid",
            result: Outcome::Denied,
            ..Entry::ok("approval.button")
        });
        return Err(ApiError::new(403, "bad_button", "this button is not valid; decide on the hub's page"));
    }
    let decision = Decision { approve: body.approve, by: "button", identity: &identity, source: &source, rule: None };
    match approvals(ctx)?.decide(id, &decision)? {
        Decided::Done(row, _) => Ok(Reply::Full(json_line(200, &json!({"id": row.id, "status": row.status})))),
        Decided::NotFound => Err(ApiError::not_found("not found")),
        Decided::Already(row) => Err(ApiError::new(409, "already_resolved", too_late(&row))),
    }
}

/// Rules in force, of one agent or of all.
pub(super) fn rules(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let agent = call.req.query_param("agent").unwrap_or_default();
    let rules = approvals(ctx)?.rules(&agent)?;
    // Contract 10.2: `null` when there is none.
    let shapes = (!rules.is_empty()).then(|| rules.iter().map(rule_shape).collect::<Vec<_>>());
    Ok(Reply::Full(json_line(200, &shapes)))
}

/// Makes a rule; what waits for it is approved at once.
pub(super) fn add_rule(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let approvals = approvals(ctx)?;
    let body: RuleBody = decode(&call.req.body, "invalid JSON")?;
    if body.agent.trim().is_empty() || body.tool.trim().is_empty() {
        return Err(ApiError::bad_request("agent and tool are required"));
    }
    let scope = match body.scope.as_str() {
        "" => RuleScope::Permanent,
        name => {
            RuleScope::parse(name).ok_or_else(|| ApiError::bad_request("scope must be 'session' or 'permanent'"))?
        }
    };
    if scope == RuleScope::Session && body.conversation_id.is_empty() {
        return Err(ApiError::bad_request("conversation_id required for session scope"));
    }
    // Bound to the server that is named, else to the one that has the tool now, else to none: a server that comes later
    // must not find its tools allowed.
    let tool = ctx.deps.engine.agents().find(&body.agent).and_then(|agent| agent.tools().find(&body.tool).cloned());
    let identity = caller(call)?.caller().identity;
    let source = ctx.origins.client_address(&call.req.headers, call.req.peer.ip());
    let rule = approvals.add_rule(&NewRule {
        agent: &body.agent,
        tool: &body.tool,
        server: Some(body.server.as_deref().unwrap_or_else(|| tool.as_ref().map_or("", |tool| tool.server()))),
        scope,
        conversation_id: &body.conversation_id,
        created_by: "api",
        identity: &identity,
        source: &source,
    })?;
    Ok(Reply::Full(match scope {
        RuleScope::Session => json_line(
            201,
            &json!({"status": "created", "scope": "session", "id": rule.id, "expires_at": rule.expires_at.map(clock::rfc3339_s)}),
        ),
        RuleScope::Permanent => json_line(201, &rule_shape(&rule)),
    }))
}

/// Removes a rule.
pub(super) fn remove_rule(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let identity = caller(call)?.caller().identity;
    let source = ctx.origins.client_address(&call.req.headers, call.req.peer.ip());
    match approvals(ctx)?.remove_rule(call.params.get("id"), &identity, &source)? {
        Removed::Done => Ok(ok(&json!({"status": "deleted"}))),
        Removed::NotFound => Err(ApiError::not_found("not found")),
        Removed::Configured => Err(ApiError::new(
            409,
            "configured",
            "this rule stands in the configuration file: remove it there (auto_approve_tools)",
        )),
    }
}

fn approvals(ctx: &Ctx) -> Result<&Arc<Approvals>, ApiError> {
    let missing = || ApiError::new(503, "not_configured", "approvals not configured");
    ctx.deps.approvals.as_ref().ok_or_else(missing)
}

fn caller<'a>(call: &'a Call<'_>) -> Result<&'a Identity, ApiError> {
    Ok(call.caller.as_ref().ok_or(AuthError::Missing)?)
}

fn shape(row: &ApprovalRow) -> ApprovalShape<'_> {
    ApprovalShape {
        id: &row.id,
        agent_name: &row.agent,
        kind: &row.kind,
        status: &row.status,
        summary: &row.summary,
        payload: &row.payload,
        callback_data: &row.callback_data,
        external_id: &row.external_id,
        adapter_name: &row.adapter,
        conversation_id: &row.conversation_id,
        created_at: clock::rfc3339_s(row.created_at),
        expires_at: row.expires_at.map(clock::rfc3339),
        resolved_at: row.resolved_at.map(clock::rfc3339),
        resolved_by: &row.resolved_by,
        tool: &row.tool,
        server: &row.server,
        tool_id: &row.tool_id,
        decided_by: &row.decided_by,
        note: &row.note,
    }
}

fn rule_shape(rule: &RuleRow) -> RuleShape<'_> {
    RuleShape {
        id: &rule.id,
        agent_name: &rule.agent,
        tool_name: &rule.tool,
        scope: &rule.scope,
        conversation_id: &rule.conversation_id,
        created_at: clock::rfc3339_s(rule.created_at),
        created_by: &rule.created_by,
        expires_at: rule.expires_at.map(clock::rfc3339_s),
    }
}
