//! What agents changed about themselves, and taking it back (Holt's own).

use serde_json::{Value, json};

use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::login::{decode, ok};
use crate::api::message::Reply;
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::limits;
use crate::rt::clock;
use crate::rt::fields::typed;
use crate::store::StoreError;
use crate::store::journal::ChangeRow;

#[derive(Default)]
struct UndoBody {
    force: bool,
}

typed!(UndoBody { force });

/// Changes, of one agent if it is named, the newest first; `next` is the value of `before` that brings older ones.
pub(super) fn list(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let agent = call.req.query_param("agent").unwrap_or_default();
    let before = call.req.query_param("before").filter(|text| !text.is_empty());
    let before = before.map_or(Ok(i64::MAX), |text| text.parse());
    let before = before.map_err(|_| ApiError::bad_request("before must be a whole number"))?;
    let rows = ctx.deps.journal.store().list(&agent, before)?;
    let mut answer = json!({"entries": rows.iter().map(shape).collect::<Vec<_>>()});
    if i64::try_from(rows.len()) == Ok(limits::JOURNAL_LISTED) {
        answer["next"] = json!(rows.last().map(|row| row.id));
    }
    Ok(ok(&answer))
}

/// One change with the texts before and after.
pub(super) fn get(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let row = ctx.deps.journal.store().get(id(call)?).map_err(missing)?;
    let mut shape = shape(&row);
    shape["before"] = json!(row.before);
    shape["after"] = json!(row.after);
    Ok(ok(&shape))
}

/// Puts back what was there before.
pub(super) fn undo(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let id = id(call)?;
    let body: UndoBody = match call.req.body.as_slice() {
        [] => UndoBody::default(),
        bytes => decode(bytes, "invalid JSON: force must be true or false")?,
    };
    let by = call.caller.as_ref().map(|caller| caller.caller().identity).unwrap_or_default();
    let row = ctx.deps.journal.undo(id, body.force, &by)?;
    let target = format!("{}/{}", row.agent, row.target);
    note(ctx, call, &format!("{}.undo", row.kind), &target, if body.force { "forced" } else { "" });
    let row = ctx.deps.journal.store().get(id).map_err(missing)?;
    Ok(ok(&shape(&row)))
}

fn id(call: &Call<'_>) -> Result<i64, ApiError> {
    call.params.get("id").parse().map_err(|_| missing(StoreError::NotFound))
}

fn missing(error: StoreError) -> ApiError {
    match error {
        StoreError::NotFound => ApiError::not_found("journal entry not found"),
        other => other.into(),
    }
}

fn shape(row: &ChangeRow) -> Value {
    let mut shape = json!({
        "id": row.id,
        "agent": row.agent,
        "kind": row.kind,
        "target": row.target,
        "action": match &row.before {
            None => "create",
            Some(_) if row.kind == "schedule" && row.after.is_empty() => "delete",
            Some(_) => "update",
        },
        "conversation_id": row.conversation_id,
        "created_at": clock::rfc3339(row.created_at),
    });
    if let Some(at) = row.undone_at {
        shape["undone_at"] = json!(clock::rfc3339(at));
        shape["undone_by"] = json!(row.undone_by);
    }
    shape
}
