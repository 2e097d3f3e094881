//! Skills of agents (contract 5.1; W-32), and the files beside them.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::agents::Agent;
use crate::api::agents::agent_of;
use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::login::{decode, json_line, ok};
use crate::api::message::{Reply, no_content};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::rt::json::quoted;
use crate::skills::{Allowance, NewSkill, SkillEdit, SkillError, SkillInfo};

const INVALID: &str = "invalid JSON: the body must be an object of texts and lists of texts";

/// `null` and absent are the same.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SkillBody {
    name: String,
    description: Option<String>,
    version: Option<String>,
    triggers: Option<Vec<String>>,
    body: Option<String>,
    /// Of a file.
    content: Option<String>,
}

/// Skills of all agents.
pub(super) fn list(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let mut shapes = Vec::new();
    for agent in ctx.deps.engine.agents().iter() {
        for mut shape in shapes_of(agent) {
            shape["agent"] = json!(agent.name);
            shapes.push(shape);
        }
    }
    Ok(ok(&Value::Array(shapes)))
}

/// Skills of one agent.
pub(super) fn list_of(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let agent = agent_of(ctx, call, "agent").map_err(|_| ApiError::not_found("agent not found"))?;
    Ok(ok(&Value::Array(shapes_of(&agent))))
}

/// One skill with its body.
pub(super) fn get(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let agent = agent_of(ctx, call, "agent")?;
    let skill = agent.skills.find(call.params.get("name")).ok_or_else(|| missing(call))?;
    let mut shape = json!({
        "name": skill.info.name,
        "description": skill.info.description,
        "version": skill.info.version,
        "triggers": if skill.info.triggers.is_empty() { Value::Null } else { json!(skill.info.triggers) },
        "body": skill.body,
        "agent": agent.name,
    });
    add_own(&mut shape, &agent, &skill.info);
    Ok(ok(&shape))
}

/// Makes a skill.
pub(super) fn create(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let agent = agent_of(ctx, call, "agent")?;
    let body: SkillBody = decode(&call.req.body, INVALID)?;
    let name = body.name;
    if name.trim().is_empty() {
        return Err(ApiError::bad_request("name is required"));
    }
    let new = NewSkill {
        name: name.clone(),
        description: body.description.unwrap_or_default(),
        version: body.version.unwrap_or_default(),
        triggers: body.triggers.unwrap_or_default(),
        body: body.body.unwrap_or_default(),
    };
    agent.skills.create(new, Allowance::PEOPLE).map_err(|error| refused("creating skill", error))?;
    note(ctx, call, "skill.create", &format!("{}/{name}", agent.name), "");
    Ok(Reply::Full(json_line(201, &json!({"name": name, "agent": agent.name, "status": "created"}))))
}

/// Changes what the body names.
pub(super) fn update(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let agent = agent_of(ctx, call, "agent")?;
    let name = call.params.get("name");
    let body: SkillBody = decode(&call.req.body, INVALID)?;
    let edit =
        SkillEdit { description: body.description, version: body.version, triggers: body.triggers, body: body.body };
    agent.skills.update(name, edit, Allowance::PEOPLE).map_err(|error| refused("updating skill", error))?;
    note(ctx, call, "skill.update", &format!("{}/{name}", agent.name), "");
    Ok(ok(&json!({"name": name, "agent": agent.name, "status": "updated"})))
}

/// Removes a skill of the agent's own.
pub(super) fn delete(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let agent = agent_of(ctx, call, "agent")?;
    let name = call.params.get("name");
    agent.skills.delete(name).map_err(|error| refused("deleting skill", error))?;
    note(ctx, call, "skill.delete", &format!("{}/{name}", agent.name), "");
    Ok(Reply::Full(no_content()))
}

/// The files beside a skill.
pub(super) fn files(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let agent = agent_of(ctx, call, "agent")?;
    let files = agent.skills.files(call.params.get("name")).map_err(|error| refused("listing files", error))?;
    let shape = |(path, bytes): (String, u64)| json!({"path": path, "size_bytes": bytes});
    Ok(ok(&json!({"files": files.into_iter().map(shape).collect::<Vec<_>>()})))
}

/// One of them.
pub(super) fn file(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let agent = agent_of(ctx, call, "agent")?;
    let (name, path) = (call.params.get("name"), call.params.get("path"));
    let content = agent.skills.file(name, path).map_err(|error| refused("reading file", error))?;
    Ok(ok(&json!({"path": path, "content": content})))
}

/// Writes one of them.
pub(super) fn put_file(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let agent = agent_of(ctx, call, "agent")?;
    let (name, path) = (call.params.get("name"), call.params.get("path"));
    let body: SkillBody = decode(&call.req.body, INVALID)?;
    let content = body.content.ok_or_else(|| ApiError::bad_request("content is required"))?;
    agent.skills.put_file(name, path, &content).map_err(|error| refused("writing file", error))?;
    note(ctx, call, "skill.update", &format!("{}/{name}", agent.name), path);
    Ok(ok(&json!({"path": path, "status": "updated"})))
}

/// Removes one of them.
pub(super) fn delete_file(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let agent = agent_of(ctx, call, "agent")?;
    let (name, path) = (call.params.get("name"), call.params.get("path"));
    agent.skills.delete_file(name, path).map_err(|error| refused("deleting file", error))?;
    note(ctx, call, "skill.update", &format!("{}/{name}", agent.name), path);
    Ok(Reply::Full(no_content()))
}

/// The skills of an agent as lists show them: empty keys are left out.
pub(super) fn shapes_of(agent: &Agent) -> Vec<Value> {
    let shape = |skill: &SkillInfo| {
        let mut shape = Map::new();
        shape.insert("name".into(), json!(skill.name));
        for (key, text) in [("description", &skill.description), ("version", &skill.version)] {
            if !text.is_empty() {
                shape.insert(key.into(), json!(text));
            }
        }
        if !skill.triggers.is_empty() {
            shape.insert("triggers".into(), json!(skill.triggers));
        }
        let mut shape = Value::Object(shape);
        add_own(&mut shape, agent, skill);
        shape
    };
    agent.skills.list().iter().map(|skill| shape(skill)).collect()
}

/// Holt's own: whether others have it too, and why it is not used now.
fn add_own(shape: &mut Value, agent: &Agent, skill: &SkillInfo) {
    if skill.is_shared {
        shape["shared"] = json!(true);
    }
    if !skill.required_tools.is_empty() {
        let tools = agent.tools();
        if let Some(tool) = skill.missing_tool(&|name| tools.find(name).is_some()) {
            shape["missing_tool"] = json!(tool);
        }
    }
}

fn missing(call: &Call<'_>) -> ApiError {
    ApiError::not_found(format!("skill {} not found", quoted(call.params.get("name"))))
}

/// The disk's failures begin as the contract words them; their causes are in the log.
fn refused(step: &str, error: SkillError) -> ApiError {
    let is_disk = matches!(error, SkillError::Io(_));
    let mut error = ApiError::from(error);
    if is_disk {
        error.message = format!("{step}: {}", error.message);
    }
    error
}
