//! Logins at tool servers (contract 11.2): begun over the API, ended by a browser that comes back, shown, forgotten.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::audit;
use crate::api::error::ApiError;
use crate::api::login::{json_line, ok};
use crate::api::message::{Reply, Responder, Response, response};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::audit::{Entry, Outcome};
use crate::mcp::McpError;
use crate::mcp::oauth::{OAuthDeps, Pending};
use crate::rt::{clock, lock};
use crate::tools::servers::{ChangeError, LoginError, ToolServers};

/// Where authorization servers send browsers back to.
pub const CALLBACK_PATH: &str = "/api/v1/tools/oauth/callback";
/// The one script of the page that they see; its hash is in that page's policy.
const CALLBACK_SCRIPT: &str = "setTimeout(function(){window.close()},2000)";
/// Longest words of a login server that are shown.
const SHOWN_CHARS_MAX: usize = 300;

const CONNECT: &str = "tool_server.oauth_connect";
const CONNECTED: &str = "tool_server.oauth_connected";
const REVOKE: &str = "tool_server.oauth_revoke";

/// The lines of every answer, with a policy that lets the script of that page run.
pub(super) fn callback_headers(common: &[u8]) -> Vec<u8> {
    let script = STANDARD.encode(Sha256::digest(CALLBACK_SCRIPT.as_bytes()));
    let policy = format!("default-src 'none'; script-src 'sha256-{script}'");
    String::from_utf8_lossy(common).replace("default-src 'none'", &policy).into_bytes()
}

/// The logins that wait for a person.
pub(super) fn pending(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let all = deps(ctx)?.pending_mgr.list();
    let shape = |pending: &Pending| {
        json!({"id": pending.id, "tool_name": pending.tool, "auth_url": pending.auth_url,
            "created_at": clock::rfc3339(pending.created_at)})
    };
    Ok(ok(&Value::Array(all.iter().map(shape).collect())))
}

/// What is known of a server's token.
pub(super) fn token(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let summary = deps(ctx)?.token_store.summary(call.params.get("name"))?;
    let mut shape = json!({"has_token": summary.has_token, "needs_reauth": summary.needs_reauth});
    if let Some(at) = summary.expires_at {
        shape["expires_at"] = json!(clock::rfc3339(at));
    }
    if !summary.scopes.is_empty() {
        shape["scopes"] = json!(summary.scopes);
    }
    Ok(ok(&shape))
}

/// Begins a login; answers with the page that a person has to open.
pub(super) fn connect(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    deps(ctx)?;
    let name = call.params.get("name").to_owned();
    let known = ctx.tool_servers()?.get(&name).ok_or_else(|| ApiError::not_found("tool not found"))?;
    if known.login.is_none() {
        return Err(LoginError::NotOauth.into());
    }
    let who = Who::of(ctx, call);
    let own = ctx.clone();
    in_background(ctx, ApiError::into_response, move |servers| {
        let begun = servers.begin_login(&name, &who.actor);
        who.note(&own, CONNECT, &name, begun.as_ref().err());
        let pending = begun?;
        let shape = json!({"pending_id": pending.id, "auth_url": pending.auth_url, "status": "pending"});
        Ok(json_line(200, &shape))
    })
}

/// Forgets a server's token.
pub(super) fn forget(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    deps(ctx)?;
    let name = call.params.get("name").to_owned();
    let who = Who::of(ctx, call);
    let own = ctx.clone();
    in_background(ctx, ApiError::into_response, move |servers| {
        let forgotten = servers.forget_login(&name);
        who.note(&own, REVOKE, &name, forgotten.as_ref().err());
        forgotten?;
        Ok(json_line(200, &json!({"status": "revoked"})))
    })
}

/// Takes a browser back from a login server. Anybody may come here: only a state that we gave out counts.
pub(super) fn callback(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let Some(deps) = &ctx.deps.oauth else { return Ok(Reply::Full(failed("OAuth support is not configured"))) };
    let parameter = |name: &str| call.req.query_param(name).filter(|value| !value.is_empty());
    let (code, state, error) = (parameter("code"), parameter("state"), parameter("error"));
    let source = ctx.origins.client_address(&call.req.headers, call.req.peer.ip());
    // It counts once, also when the answer is no.
    let pending = state.as_deref().and_then(|state| deps.pending_mgr.take(state));
    let (Some(code), Some(_)) = (code, state) else {
        if let Some(pending) = &pending {
            Who { actor: pending.actor.clone(), source }.denied(ctx, CONNECTED, &pending.tool, "denied");
        }
        let text = match error {
            Some(error) => {
                let description = parameter("error_description").unwrap_or_default();
                format!("Authorization denied: {} — {}", shown(&error), shown(&description))
            }
            None => "Missing code or state parameter".to_owned(),
        };
        return Ok(Reply::Full(failed(&text)));
    };
    let Some(pending) = pending else {
        audit::refused(ctx, CONNECTED, &source, "unknown or used state");
        return Ok(Reply::Full(failed(FAILED)));
    };
    let issuer = parameter("iss");
    let own = ctx.clone();
    let who = Who { actor: pending.actor.clone(), source };
    in_background(
        ctx,
        |_| failed(FAILED),
        move |servers| {
            let ended = servers.end_login(&pending, &code, issuer.as_deref());
            who.note(&own, CONNECTED, &pending.tool, ended.as_ref().err());
            if let Err(error) = &ended {
                log::warn!("tool server {}: login: {error}", pending.tool);
            }
            ended.map_err(ApiError::from)?;
            Ok(page(200, "Authorization Successful", "<p>Holt is connected. This window closes by itself.</p>"))
        },
    )
}

const FAILED: &str = "Authorization failed. Please close this window and try again from the dashboard.";

/// Who did something, for the audit log.
struct Who {
    actor: String,
    source: String,
}

impl Who {
    fn of(ctx: &Ctx, call: &Call<'_>) -> Self {
        Self {
            actor: call.caller.as_ref().map(|caller| caller.caller().identity).unwrap_or_default(),
            source: ctx.origins.client_address(&call.req.headers, call.req.peer.ip()),
        }
    }

    fn note(&self, ctx: &Ctx, action: &str, target: &str, error: Option<&LoginError>) {
        let (actor, source) = (&*self.actor, &*self.source);
        let detail = error.map(ToString::to_string).unwrap_or_default();
        let result = if error.is_some() { Outcome::Failed } else { Outcome::Ok };
        log::info!("{action} {target} by {actor} from {source}: {}", result.as_str());
        ctx.deps.audit.record(&Entry { actor, target, source, result, detail: &detail, ..Entry::ok(action) });
    }

    fn denied(&self, ctx: &Ctx, action: &str, target: &str, detail: &str) {
        let (actor, source) = (&*self.actor, &*self.source);
        let result = Outcome::Denied;
        ctx.deps.audit.record(&Entry { actor, target, source, result, detail, ..Entry::ok(action) });
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        let text = error.to_string();
        match error {
            LoginError::Change(ChangeError::NotFound { .. }) => Self::not_found("tool not found"),
            LoginError::Change(error) => error.into(),
            LoginError::NotOauth => Self::bad_request(text),
            LoginError::Missing => Self::new(503, "not_configured", text),
            LoginError::Failed(McpError::Timeout { .. }) => {
                let text = "Timed out waiting for OAuth flow to start. Check tool configuration.";
                Self::new(504, "oauth_timeout", text)
            }
            LoginError::Failed(_) => Self::new(502, "oauth_failed", text),
            LoginError::Exchange(_) => Self::new(400, "oauth_failed", FAILED),
            LoginError::Store(error) => error.into(),
        }
    }
}

fn deps(ctx: &Ctx) -> Result<&OAuthDeps, ApiError> {
    ctx.deps.oauth.as_ref().ok_or_else(|| LoginError::Missing.into())
}

/// Answers from a thread of the tool servers'.
fn in_background(
    ctx: &Ctx,
    refuse: fn(ApiError) -> Response,
    work: impl FnOnce(&ToolServers) -> Result<Response, ApiError> + Send + 'static,
) -> Result<Reply, ApiError> {
    let servers = ctx.tool_servers()?.clone();
    Ok(Reply::Later(Box::new(move |responder: Responder| {
        // The responder must not be lost when there is no thread for it.
        let slot = Arc::new(Mutex::new(Some(responder)));
        let taken = Arc::clone(&slot);
        let begun = servers.in_background(move |servers| {
            let answer = work(servers).unwrap_or_else(refuse);
            if let Some(responder) = lock(&taken).take() {
                responder.respond(answer);
            }
        });
        if let Err(error) = begun
            && let Some(responder) = lock(&slot).take()
        {
            responder.respond(refuse(error.into()));
        }
    })))
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect()
}

fn failed(message: &str) -> Response {
    let escaped = message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    page(400, "Authorization Failed", &format!("<p><code>{escaped}</code></p>"))
}

fn page(status: u16, title: &str, body: &str) -> Response {
    let script = if status == 200 { ["<script>", CALLBACK_SCRIPT, "</script>"].concat() } else { String::new() };
    let text = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\
         <body><h1>{title}</h1>{body}{script}</body></html>\n"
    );
    response(status, "text/html; charset=utf-8", text.into_bytes())
}
