//! `POST /api/v1/machines/{id}/sessions`: a look at a machine (inspect, diagnose) or a chat with it, as a turn of a
//! conversation: followed, resumed and cancelled like any other (contract agent-link 4.2 to 4.4).

use serde_json::{Map, Value, json};

use crate::agents::remote::{MACHINE_PREFIX, Operation};
use crate::api::chat::later;
use crate::api::error::ApiError;
use crate::api::login::{decode, json_line};
use crate::api::message::Reply;
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::auth::AuthError;
use crate::chat::engine::{Submit, Ticket, Work};
use crate::limits;
use crate::rt::fields::typed;

/// Bytes of a plugin's or a target's name.
const NAME_BYTES_MAX: usize = 256;
/// Bytes of what is known of the alerts: it goes into the machine's prompt.
const DESCRIPTIONS_BYTES_MAX: usize = 8 * 1024;

#[derive(Default)]
struct Body {
    kind: String,
    plugin: String,
    target: String,
    descriptions: String,
    message: String,
    session_id: String,
    message_id: Option<String>,
    user_name: String,
    /// The answer is the turn's, or after so many seconds that it runs.
    wait_secs: Option<u32>,
}

typed!(Body { kind: "type", plugin, target, descriptions, message, session_id, message_id, user_name, wait_secs });

/// Starts a session; 202 names the conversation to follow.
pub(super) fn start(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let caller = call.caller.as_ref().ok_or(AuthError::Missing)?.caller();
    let body: Body = decode(&call.req.body, "invalid JSON body")?;
    let operation = match Operation::from_name(&body.kind) {
        Some(operation) if operation != Operation::View => operation,
        _ => return Err(ApiError::bad_request("type must be inspect, diagnose or chat")),
    };
    let text = text_of(operation, &body)?;
    let params = params_of(operation, &body)?;
    let agent = format!("{MACHINE_PREFIX}{}", call.params.get("id"));
    let own = ctx.clone();
    let (wait, message_id) = (body.wait_secs, body.message_id.clone());
    let submit = move |ticket: Option<Box<dyn Ticket>>| {
        let session_id = Some(body.session_id.as_str()).filter(|id| !id.is_empty());
        let submit = Submit {
            session_id,
            agent: &agent,
            text: &text,
            user_name: &body.user_name,
            message_id: body.message_id.as_deref(),
            origin: "api",
            caller: &caller,
            work: Work { operation, params: &params },
        };
        own.deps.engine.submit(&submit, ticket)
    };
    if wait.is_some() {
        return Ok(later(wait, message_id, move |ticket| submit(Some(ticket))));
    }
    let submitted = submit(None)?;
    let session_id = submitted.session.stream().id().to_owned();
    Ok(Reply::Full(json_line(
        202,
        &json!({
            "session_id": session_id, "type": operation.name(), "after_seq": submitted.after_seq,
            "position": submitted.position,
        }),
    )))
}

/// What the conversation shows as the question.
fn text_of(operation: Operation, body: &Body) -> Result<String, ApiError> {
    if operation == Operation::Chat {
        if body.message.trim().is_empty() {
            return Err(ApiError::bad_request("message is required"));
        }
        if body.message.len() > limits::MESSAGE_BYTES_MAX {
            return Err(ApiError::bad_request("message exceeds maximum length of 32768 bytes"));
        }
        return Ok(body.message.clone());
    }
    let area = if body.plugin.is_empty() { "system" } else { &body.plugin };
    let mut text = format!("{} {area}", if operation == Operation::Inspect { "Inspect" } else { "Diagnose" });
    if !body.target.is_empty() {
        text.push_str(" (");
        text.push_str(&body.target);
        text.push(')');
    }
    if !body.descriptions.is_empty() {
        text.push_str(": ");
        text.push_str(&body.descriptions);
    }
    Ok(text)
}

/// What the machine is given: JSON, empty for chat.
fn params_of(operation: Operation, body: &Body) -> Result<String, ApiError> {
    if operation == Operation::Chat {
        return Ok(String::new());
    }
    let mut params = Map::new();
    params.insert("plugin".to_owned(), json!(if body.plugin.is_empty() { "system" } else { &body.plugin }));
    for (name, value, bytes_max) in [
        ("plugin", &body.plugin, NAME_BYTES_MAX),
        ("target", &body.target, NAME_BYTES_MAX),
        ("descriptions", &body.descriptions, DESCRIPTIONS_BYTES_MAX),
    ] {
        if value.len() > bytes_max || value.contains(|c: char| c.is_control() && c != '\n' && c != '\t') {
            let text = format!("{name} must have at most {bytes_max} bytes and no control characters");
            return Err(ApiError::bad_request(&text));
        }
        if !value.is_empty() {
            params.insert(name.to_owned(), json!(value));
        }
    }
    if operation == Operation::Inspect {
        params.remove("descriptions");
    }
    Ok(Value::Object(params).to_string())
}
