//! Conversations (contract 6.1; additions "REST"; W-14, W-18, W-22).

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::login::{json_line, ok};
use crate::api::message::{Reply, json_response, no_content};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::auth::AuthError;
use crate::limits;
use crate::rt::{clock, json as wire, lock};
use crate::store::conversations::ConversationRow;

/// The list as it was rendered, and what it was rendered from.
#[derive(Default)]
pub(super) struct SessionsList {
    /// Of the database.
    generation: u64,
    /// The conversations in which something runs.
    live: BTreeSet<Arc<str>>,
    /// Empty before the first time.
    body: Arc<[u8]>,
}

#[derive(Serialize)]
struct ConversationShape<'a> {
    id: &'a str,
    adapter: &'a str,
    external_id: &'a str,
    created_at: String,
    message_count: i64,
    title: &'a str,
    agent: &'a str,
    last_activity: String,
    /// A turn runs or waits.
    live: bool,
}

#[derive(Serialize)]
struct MessageShape<'a> {
    role: &'a str,
    content: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    tokens_used: i64,
    created_at: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// All conversations, newest first. Rendered once per state of the database and of what runs.
pub(super) fn list(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let live = ctx.deps.engine.live_sessions();
    let generation = ctx.deps.db.generation()?;
    let cached = {
        let list = lock(&ctx.sessions_list);
        let is_same = list.generation == generation && list.live == live;
        (is_same && !list.body.is_empty()).then(|| Arc::clone(&list.body))
    };
    let body = match cached {
        Some(body) => body,
        None => {
            let rows = ctx.deps.engine.conversations().list()?;
            let shapes: Vec<ConversationShape<'_>> =
                rows.iter().map(|row| shape(row, live.contains(row.id.as_str()))).collect();
            let mut body = wire::to_vec(&shapes);
            body.push(b'\n');
            let body: Arc<[u8]> = body.into();
            *lock(&ctx.sessions_list) = SessionsList { generation, live, body: Arc::clone(&body) };
            body
        }
    };
    Ok(Reply::Full(json_response(200, body.to_vec())))
}

/// One conversation, with where its stream stands.
pub(super) fn get(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let id = call.params.get("id");
    let Some(row) = ctx.deps.engine.conversations().get(id)? else {
        // Without the right to read everything, an unknown one and a foreign one look the same.
        return Err(if reads_all(call) { ApiError::not_found("session not found") } else { AuthError::Scope.into() });
    };
    check_readable(call, &row.owner)?;
    let session = ctx.deps.engine.session(id)?;
    let shape = shape(&row, session.is_live());
    Ok(ok(&json!({
        "id": shape.id, "adapter": shape.adapter, "external_id": shape.external_id, "title": shape.title,
        "agent": shape.agent, "created_at": shape.created_at, "last_activity": shape.last_activity,
        "message_count": shape.message_count, "epoch": ctx.deps.engine.streams().epoch,
        "last_seq": session.stream().last_seq(), "live": shape.live,
    })))
}

/// The newest 200 messages, oldest of them first; `[]` for an unknown conversation.
pub(super) fn messages(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let id = call.params.get("id");
    let conversations = ctx.deps.engine.conversations();
    match conversations.owner(id)? {
        Some(owner) => check_readable(call, &owner)?,
        None if reads_all(call) => {}
        None => return Err(AuthError::Scope.into()),
    }
    let rows = conversations.messages(id, i64::MAX, limits::MESSAGES_LISTED_MAX)?;
    let shapes: Vec<MessageShape<'_>> = rows
        .iter()
        .map(|row| MessageShape {
            role: &row.role,
            content: &row.content,
            tokens_used: row.tokens_used,
            created_at: clock::rfc3339_s(row.created_at),
        })
        .collect();
    Ok(Reply::Full(json_line(200, &shapes)))
}

/// Deletes a conversation and whatever runs in it; an unknown one is fine.
pub(super) fn delete(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let id = call.params.get("id");
    if crate::chat::engine::check_session_id(id).is_ok() && ctx.deps.engine.delete(id)? {
        note(ctx, call, "conversation.delete", id, "");
    }
    Ok(Reply::Full(no_content()))
}

/// Cancels the running turn: 202, and its terminal frame follows.
pub(super) fn stop(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let caller = call.caller.as_ref().map(crate::auth::Identity::caller).ok_or(AuthError::Missing)?;
    ctx.deps.engine.cancel(call.params.get("id"), &caller)?;
    Ok(Reply::Full(json_line(202, &json!({"status": "stopping"}))))
}

fn reads_all(call: &Call<'_>) -> bool {
    call.caller.as_ref().is_some_and(|caller| caller.caller().reads_all)
}

fn check_readable(call: &Call<'_>, owner: &str) -> Result<(), ApiError> {
    match &call.caller {
        Some(caller) if caller.caller().may_read(owner) => Ok(()),
        _ => Err(AuthError::Scope.into()),
    }
}

fn shape(row: &ConversationRow, live: bool) -> ConversationShape<'_> {
    ConversationShape {
        id: &row.id,
        adapter: &row.adapter,
        external_id: &row.external_id,
        created_at: clock::rfc3339_s(row.created_at),
        message_count: row.message_count,
        title: &row.title,
        agent: &row.agent,
        last_activity: clock::rfc3339_s(row.last_at.max(row.created_at)),
        live,
    }
}
