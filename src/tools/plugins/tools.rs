//! `plugin_list`, `plugin_add`, `plugin_remove`: an agent looks after plugins (contract engine 8.7).

use std::sync::Arc;

use serde_json::{Value, json};

use super::{PluginStatus, Plugins, audit_command};
use crate::config::PluginConfig;
use crate::llm::ToolSpec;
use crate::tools::arguments::{Arguments, object};
use crate::tools::builtin::{ServerAdmin, change_servers};
use crate::tools::servers::ChangeError;
use crate::tools::{Tool, ToolContext, ToolError};

const FIELDS: &[&str] =
    &["name", "type", "command", "image", "args", "env", "capabilities", "memory_limit", "cpu_limit", "network"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    List,
    Add,
    Remove,
}

struct PluginTool {
    spec: ToolSpec,
    action: Action,
    admin: ServerAdmin,
    plugins: Arc<Plugins>,
}

/// The three tools, in the order they are offered.
pub fn plugin_tools(admin: &ServerAdmin, plugins: &Arc<Plugins>) -> Vec<Arc<dyn Tool>> {
    let text = |description: &str| json!({"type": "string", "description": description});
    let texts = json!({"type": "array", "items": {"type": "string"}});
    let add = json!({
        "name": text("letters, digits, - and _"),
        "type": {"type": "string", "enum": ["subprocess", "docker"]},
        "command": text("the program"), "image": text("for docker"), "args": texts,
        "env": {"type": "object", "additionalProperties": {"type": "string"}},
        "capabilities": {"type": "array", "items": {"type": "string"}, "description": "[\"tools\"] starts it"},
        "memory_limit": text("such as 256m"), "cpu_limit": text("such as 0.5"), "network": text("none when empty"),
    });
    let table = [
        (
            Action::List,
            "plugin_list",
            "Lists the plugins: tool servers that are programs or images.",
            json!({}),
            &[][..],
        ),
        (Action::Add, "plugin_add", "Adds a plugin for all agents.", add, &["name", "type"]),
        (Action::Remove, "plugin_remove", "Ends and removes a plugin.", json!({"name": text("its name")}), &["name"]),
    ];
    let tool = |(action, name, description, properties, required): (Action, &str, &str, Value, &[&str])| {
        let parameters = object(&properties, required);
        let spec = ToolSpec { name: name.to_owned(), description: description.to_owned(), parameters };
        Arc::new(PluginTool { spec, action, admin: admin.clone(), plugins: Arc::clone(plugins) }) as Arc<dyn Tool>
    };
    table.into_iter().map(tool).collect()
}

impl Tool for PluginTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn read_only(&self) -> bool {
        self.action == Action::List
    }

    fn secret_arguments(&self) -> &[&'static str] {
        if self.action == Action::Add { &["env"] } else { &[] }
    }

    fn call(&self, arguments: &Value, context: &ToolContext<'_>) -> Result<String, ToolError> {
        let plugins = Arc::clone(&self.plugins);
        match self.action {
            Action::List => {
                Arguments::of(arguments, &[])?;
                Ok(Value::from(plugins.list().iter().map(shape).collect::<Vec<_>>()).to_string())
            }
            Action::Add => {
                let arguments = Arguments::of(arguments, FIELDS)?;
                let name = arguments.text("name")?.to_owned();
                let config = config(&arguments)?;
                let (target, command) = (name.clone(), audit_command(&config));
                let add = move || plugins.add(&name, config).map(|status| shape(&status));
                change_servers(&self.admin, context, "plugin.add", &target, command, move |_| add())
            }
            Action::Remove => {
                let name = Arguments::of(arguments, &["name"])?.text("name")?.to_owned();
                let target = name.clone();
                let missing = || ChangeError::Invalid("there is no plugin of this name".to_owned());
                let remove = move || if plugins.remove(&name)? { Ok(json!({"ok": true})) } else { Err(missing()) };
                change_servers(&self.admin, context, "plugin.remove", &target, String::new(), move |_| remove())
            }
        }
    }
}

/// A plugin as a model chose it.
fn config(arguments: &Arguments<'_>) -> Result<PluginConfig, ToolError> {
    let wrong = |name: &str, what: &str| ToolError::new(format!("argument {name:?} must be {what}"));
    let text = |name: &str| match arguments.get(name) {
        None => Ok(String::new()),
        Some(value) => value.as_str().map(|text| text.trim().to_owned()).ok_or_else(|| wrong(name, "a text")),
    };
    let texts = |name: &str| -> Result<Vec<String>, ToolError> {
        let Some(value) = arguments.get(name) else { return Ok(Vec::new()) };
        let list = value.as_array().and_then(|list| list.iter().map(|item| Some(item.as_str()?.to_owned())).collect());
        list.ok_or_else(|| wrong(name, "a list of texts"))
    };
    let env = match arguments.get("env") {
        None => Some(std::collections::BTreeMap::new()),
        Some(value) => value.as_object().and_then(|object| {
            let mut env = std::collections::BTreeMap::new();
            for (name, value) in object {
                env.insert(name.clone(), value.as_str()?.to_owned());
            }
            Some(env)
        }),
    };
    Ok(PluginConfig {
        kind: text("type")?,
        command: text("command")?,
        args: texts("args")?,
        env: env.ok_or_else(|| wrong("env", "an object of texts"))?,
        image: text("image")?,
        capabilities: texts("capabilities")?,
        memory_limit: text("memory_limit")?,
        cpu_limit: text("cpu_limit")?,
        network: text("network")?,
        volumes: Vec::new(),
        untrusted: true,
    })
}

/// A plugin without what may be secret: no variables, no arguments.
fn shape(status: &PluginStatus) -> Value {
    let PluginStatus { name, config, tool_names, is_connected } = status;
    json!({
        "name": name, "type": config.kind, "command": config.command, "image": config.image,
        "capabilities": config.capabilities, "tool_names": tool_names,
        "status": if *is_connected { "connected" } else { "stopped" },
    })
}
