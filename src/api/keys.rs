//! API keys (contract 3.5).

use serde::Serialize;

use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::login::{decode, json_line};
use crate::api::message::{Reply, Response, no_content};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::auth::validate_key_input;
use crate::rt::clock;
use crate::rt::fields::typed;
use crate::rt::json::quoted;
use crate::store::{ApiKeyRecord, StoreError};

#[derive(Default)]
struct KeyBody {
    name: String,
    scopes: Vec<String>,
}

typed!(KeyBody { name, scopes });

#[derive(Serialize)]
struct KeyShape<'a> {
    id: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    scopes: &'a [String],
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<bool>,
}

/// All keys, newest first.
pub(super) fn list(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let keys = ctx.key_store()?;
    keys.flush_touched()?;
    let records = keys.list()?;
    let shapes: Vec<KeyShape<'_>> = records
        .iter()
        .map(|record| KeyShape {
            id: &record.id,
            name: &record.name,
            key: None,
            scopes: &record.scopes,
            created_at: clock::rfc3339(record.created_at),
            last_used_at: record.last_used_at.map(clock::rfc3339),
            revoked: Some(record.revoked),
        })
        .collect();
    Ok(Reply::Full(json_line(200, &shapes)))
}

/// A new key; its plaintext is shown once.
pub(super) fn create(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let keys = ctx.key_store()?;
    let body: KeyBody = decode(&call.req.body, "invalid JSON body")?;
    validate_key_input(&body.name, &body.scopes).map_err(ApiError::bad_request)?;
    let (record, plaintext) = keys.create(&body.name, &body.scopes)?;
    note(ctx, call, "key.create", &record.id, &detail(&record));
    Ok(Reply::Full(created(201, &record, &plaintext)))
}

/// Revokes: counts from the next request on, and closes the key's sockets.
pub(super) fn revoke(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let id = call.params.get("id");
    ctx.key_store()?.revoke(id).map_err(|error| missing(error, "key not found or already revoked"))?;
    note(ctx, call, "key.revoke", id, "");
    Ok(Reply::Full(no_content()))
}

/// Removes a revoked key for good.
pub(super) fn delete(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let id = call.params.get("id");
    ctx.key_store()?.delete(id).map_err(|error| missing(error, "key not found or still active"))?;
    note(ctx, call, "key.delete", id, "");
    Ok(Reply::Full(no_content()))
}

/// Replaces a key by one with the same name and scopes.
pub(super) fn rotate(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let id = call.params.get("id");
    let rotated = ctx.key_store()?.rotate(id).map_err(|error| missing(error, "key not found or already revoked"))?;
    note(ctx, call, "key.rotate", id, &format!("new id {}", rotated.0.id));
    Ok(Reply::Full(created(200, &rotated.0, &rotated.1)))
}

/// The shape of a new key, plaintext included.
pub(super) fn created(status: u16, record: &ApiKeyRecord, plaintext: &str) -> Response {
    let shape = KeyShape {
        id: &record.id,
        name: &record.name,
        key: Some(plaintext),
        scopes: &record.scopes,
        created_at: clock::rfc3339(record.created_at),
        last_used_at: None,
        revoked: None,
    };
    json_line(status, &shape)
}

fn missing(error: StoreError, text: &'static str) -> ApiError {
    match error {
        StoreError::NotFound => ApiError::not_found(text),
        other => other.into(),
    }
}

/// What the log says of a new key.
pub(super) fn detail(record: &ApiKeyRecord) -> String {
    format!("{} scopes {}", quoted(&record.name), record.scopes.join(","))
}
