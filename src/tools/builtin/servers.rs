//! `tool_list`, `tool_add`, `tool_remove`, `tool_restart`: an agent looks after tool servers (contract engine 8.7).
//!
//! A change waits for servers, so it runs on a thread of `tools::servers`; the turn waits for it, but no longer than
//! its call may take, and not when it is cancelled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{bounded, select};
use serde_json::{Value, json};

use crate::audit::{AuditLog, Entry, Outcome};
use crate::config::ToolServerConfig;
use crate::llm::ToolSpec;
use crate::tools::arguments::{Arguments, object};
use crate::tools::servers::{ChangeError, Status, ToolServers, audit_detail};
use crate::tools::{Tool, ToolContext, ToolError};

const ADD_FIELDS: &[&str] = &["name", "transport", "command", "args", "url", "env", "headers", "request_timeout_secs"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    List,
    Add,
    Remove,
    Restart,
}

/// What the tools work with.
#[derive(Clone)]
pub struct ServerAdmin {
    pub servers: ToolServers,
    pub audit: Arc<AuditLog>,
}

struct ServerTool {
    spec: ToolSpec,
    action: Action,
    admin: ServerAdmin,
}

/// Records what becomes of tokens that are given back to the login servers that made them.
pub fn record_revocations(servers: &ToolServers, audit: &Arc<AuditLog>) {
    let audit = Arc::clone(audit);
    servers.on_revoked(move |name, said| {
        let (result, detail) = match said {
            Ok(true) => (Outcome::Ok, "revoked at its login server".to_owned()),
            Ok(false) => (Outcome::Ok, "forgotten; its login server takes no tokens back".to_owned()),
            Err(why) => (Outcome::Failed, format!("forgotten, not revoked at its login server: {why}")),
        };
        audit.record(&Entry { target: name, detail: &detail, result, ..Entry::ok("tool_server.token_revoke") });
    });
}

/// The four tools, in the order they are offered.
pub(super) fn server_tools(admin: &ServerAdmin) -> Vec<Arc<dyn Tool>> {
    let text = |description: &str| json!({"type": "string", "description": description});
    let texts = |description: &str| json!({"type": "object", "additionalProperties": {"type": "string"}, "description": description});
    let name = json!({"name": text("name of the tool server")});
    let add = json!({
        "name": text("letters, digits, - and _"),
        "transport": {"type": "string", "enum": ["stdio", "sse"], "description": "a program (stdio), or a server over HTTP (sse)"},
        "command": text("the program, for stdio"),
        "args": {"type": "array", "items": {"type": "string"}},
        "url": text("the address, for sse; secrets do not belong here: write ${NAME} and give the value in env"),
        "env": texts("variables of the program, or values of placeholders"),
        "headers": texts("header lines, for sse"),
        "request_timeout_secs": {"type": "integer", "minimum": 0},
    });
    let table = [
        (Action::List, "tool_list", "Lists the tool servers with their tools and how they are.", json!({}), &[][..]),
        (
            Action::Add,
            "tool_add",
            "Adds a tool server (MCP) for all agents; it must start, and stays after a restart of the hub.",
            add,
            &["name"],
        ),
        (Action::Remove, "tool_remove", "Ends a tool server and removes it for good.", name.clone(), &["name"]),
        (Action::Restart, "tool_restart", "Ends a tool server and starts it again.", name, &["name"]),
    ];
    table
        .into_iter()
        .map(|(action, name, description, properties, required)| {
            let spec = ToolSpec {
                name: name.to_owned(),
                description: description.to_owned(),
                parameters: object(&properties, required),
            };
            Arc::new(ServerTool { spec, action, admin: admin.clone() }) as Arc<dyn Tool>
        })
        .collect()
}

impl Tool for ServerTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn read_only(&self) -> bool {
        self.action == Action::List
    }

    fn secret_arguments(&self) -> &[&'static str] {
        if self.action == Action::Add { &["env", "headers"] } else { &[] }
    }

    fn call(&self, arguments: &Value, context: &ToolContext<'_>) -> Result<String, ToolError> {
        let known = if self.action == Action::Add { ADD_FIELDS } else { &["name"] };
        let arguments = Arguments::of(arguments, if self.action == Action::List { &[] } else { known })?;
        if self.action == Action::List {
            let list: Vec<Value> = self.admin.servers.list().iter().map(shape).collect();
            return Ok(Value::from(list).to_string());
        }
        let name = arguments.text("name")?.to_owned();
        let target = name.clone();
        let known = self.admin.servers.get(&name);
        let command = known.map_or_else(String::new, |status| status.config.command);
        let done = |status: Status| shape(&status);
        match self.action {
            Action::Add => {
                let config = config(&arguments)?;
                change_servers(
                    &self.admin,
                    context,
                    "tool_server.add",
                    &target,
                    config.command.clone(),
                    move |servers| servers.add(&name, config).map(done),
                )
            }
            Action::Remove => {
                change_servers(&self.admin, context, "tool_server.remove", &target, command, move |servers| {
                    servers.remove(&name).map(|()| json!({"ok": true}))
                })
            }
            Action::Restart | Action::List => {
                change_servers(&self.admin, context, "tool_server.restart", &target, command, move |servers| {
                    servers.restart(&name).map(done)
                })
            }
        }
    }
}

/// Makes a change on a thread of its own, under the name of the agent, and waits for it as long as the call may take.
pub fn change_servers(
    admin: &ServerAdmin,
    context: &ToolContext<'_>,
    action: &'static str,
    target: &str,
    command: String,
    make: impl FnOnce(&ToolServers) -> Result<Value, ChangeError> + Send + 'static,
) -> Result<String, ToolError> {
    let (done_tx, done_rx) = bounded(1);
    let (audit, actor, target) = (Arc::clone(&admin.audit), format!("agent:{}", context.agent), target.to_owned());
    let begun = admin.servers.in_background(move |servers| {
        let result = make(servers);
        // Also when the turn no longer waits: what was done, or tried, is recorded.
        let (outcome, detail) = match &result {
            Ok(_) => (Outcome::Ok, String::new()),
            Err(error) => (Outcome::Failed, audit_detail(error.reason(), &command)),
        };
        let entry = Entry { actor: &actor, target: &target, result: outcome, detail: &detail, ..Entry::ok(action) };
        audit.record(&entry);
        // The turn may have given up; then nobody wants to know.
        let _ = done_tx.send(result.map_err(|error| ToolError::new(error.to_string())));
    });
    begun.map_err(|error| ToolError::new(error.to_string()))?;
    let (cancel_tx, cancel_rx) = bounded(1);
    context.cancel.set_hook(move || {
        let _ = cancel_tx.try_send(()); // full: it is cancelled already
    });
    let left = context.deadline.saturating_duration_since(Instant::now());
    let result = select! {
        recv(done_rx) -> result => result.unwrap_or_else(|_| Err(ToolError::new("the change failed"))),
        recv(cancel_rx) -> _ => Err(ToolError::new("cancelled; the change may still be made: see tool_list")),
        default(left) => Err(ToolError::new("this takes longer than a call may: see tool_list")),
    };
    context.cancel.clear_hook();
    result.map(|value| value.to_string())
}

/// A server as a model chose it: its address is not an operator's (decisions, row "SSRF").
fn config(arguments: &Arguments<'_>) -> Result<ToolServerConfig, ToolError> {
    let text = |name: &str| match arguments.get(name) {
        None => Ok(String::new()),
        Some(value) => value.as_str().map(|text| text.trim().to_owned()).ok_or_else(|| wrong(name, "a text")),
    };
    let pairs = |name: &str| -> Result<BTreeMap<String, String>, ToolError> {
        let Some(value) = arguments.get(name) else { return Ok(BTreeMap::new()) };
        let object = value.as_object().ok_or_else(|| wrong(name, "an object of texts"))?;
        let mut pairs = BTreeMap::new();
        for (key, value) in object {
            let value = value.as_str().ok_or_else(|| wrong(name, "an object of texts"))?;
            pairs.insert(key.clone(), value.to_owned());
        }
        Ok(pairs)
    };
    let args = match arguments.get("args") {
        None => Vec::new(),
        Some(value) => {
            let list = value.as_array().ok_or_else(|| wrong("args", "a list of texts"))?;
            let item = |item: &Value| item.as_str().map(str::to_owned).ok_or_else(|| wrong("args", "a list of texts"));
            list.iter().map(item).collect::<Result<_, _>>()?
        }
    };
    let timeout = arguments.number("request_timeout_secs", 0, 0, 3600)?;
    Ok(ToolServerConfig {
        transport: text("transport")?,
        command: text("command")?,
        args,
        env: pairs("env")?,
        url: text("url")?,
        untrusted: true,
        headers: pairs("headers")?,
        request_timeout_secs: i64::try_from(timeout).unwrap_or(0),
        ..ToolServerConfig::default()
    })
}

fn wrong(name: &str, what: &str) -> ToolError {
    ToolError::new(format!("argument {name:?} must be {what}"))
}

/// A server without what may be secret: no variables, no headers, no arguments.
fn shape(status: &Status) -> Value {
    json!({
        "name": status.name, "status": status.status, "transport": status.transport, "url": status.url,
        "command": status.config.command, "tool_names": status.tool_names, "last_error": status.last_error,
    })
}
