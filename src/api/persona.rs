//! The persona of an agent (contract 4.2).

use serde::Deserialize;
use serde_json::json;

use crate::api::agents::agent_of;
use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::login::{decode, ok};
use crate::api::message::Reply;
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::rt::json::quoted;
use crate::skills::{PersonaError, Section};

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContentBody {
    content: String,
}

/// A section.
pub(super) fn get(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let agent = agent_of(ctx, call, "name")?;
    let section = section(call)?;
    let content = agent.skills.persona().read(section);
    let name = call.params.get("section");
    Ok(ok(&json!({"section": name, "content": content, "editable": true, "agent_mutable": true})))
}

/// Replaces a section.
pub(super) fn put(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let agent = agent_of(ctx, call, "name")?;
    let section = section(call)?;
    let body: ContentBody = decode(&call.req.body, "invalid JSON: the body must be an object with the text content")?;
    agent.skills.persona().write(section, &body.content).map_err(refused)?;
    note(ctx, call, "persona.update", &format!("{}/{}", agent.name, section.name()), "");
    Ok(ok(&json!({"agent": agent.name, "section": call.params.get("section"), "status": "updated"})))
}

fn refused(error: PersonaError) -> ApiError {
    match error {
        PersonaError::TooLong { .. } => error.into(),
        PersonaError::Io(_) => {
            let error = ApiError::from(error);
            ApiError { message: format!("saving persona section: {}", error.message), ..error }
        }
    }
}

fn section(call: &Call<'_>) -> Result<Section, ApiError> {
    let name = call.params.get("section");
    Section::parse(name).ok_or_else(|| {
        let name = quoted(name);
        ApiError::bad_request(format!("unknown section {name}, must be one of: identity, soul, user, memory"))
    })
}
