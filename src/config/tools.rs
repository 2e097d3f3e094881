//! `[tools.<name>]`, `[mcp]` and `max_tools` (contract engine 8.1, 10.2): from typed to validated, and back into the
//! file.

use std::collections::BTreeMap;
use std::time::Duration;

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::check::{number, time};
use super::edit::put;
use super::error::ConfigError;
use super::json::{FromJson, typed};
use super::plugins::{SecurityConfig, security};
use super::raw::Typed;
use super::writer::implicit_table;
use crate::limits;
use crate::rt::json::quoted;

const RESTART_ATTEMPTS_MAX: u32 = 3;
const RESTART_COOLDOWN: Duration = Duration::from_secs(5 * 60);
/// Longest name of a tool server: it stands in names of tools, which models bound.
const NAME_BYTES_MAX: usize = 64;

/// One tool server, as it was typed: references to variables are not replaced yet. `Debug` hides the secrets.
#[derive(Clone, Default, PartialEq)]
pub struct ToolServerConfig {
    /// Empty or `stdio`: a program; `sse`: a server reached over HTTP.
    pub transport: String,
    pub command: String,
    pub args: Vec<String>,
    /// For a program its variables, for a remote server the values of placeholders.
    pub env: BTreeMap<String, String>,
    pub url: String,
    pub headers: BTreeMap<String, String>,
    /// Seconds; 0 is the value of `[mcp]`.
    pub request_timeout_secs: i64,
    /// Empty or `oauth`.
    pub auth: String,
    pub client_id: String,
    pub client_secret: String,
    pub scopes: Vec<String>,
    pub allow_loopback: bool,
    /// Switched off by an operator. Holt's own.
    pub disabled: bool,
    /// A model chose it: its address must be public, and it sees no variable of the hub. Holt's own.
    pub untrusted: bool,
    /// Tools that agents are not offered, by the server's own names. Holt's own.
    pub disabled_tools: Vec<String>,
    /// Whose server it is. In no file.
    pub part_of: PartOf,
}

/// What a tool server belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PartOf {
    /// `[tools]`.
    #[default]
    Tools,
    /// A plugin that is a program: it may have to be signed.
    Program,
    /// A plugin that docker runs.
    Image,
    /// `[browser]`, which docker runs.
    Browser,
}

impl FromJson for PartOf {
    fn take(&mut self, _: serde_json::Value) -> bool {
        false
    }
}

typed!(ToolServerConfig {
    transport,
    command,
    args,
    env,
    url,
    headers,
    request_timeout_secs,
    auth,
    client_id,
    client_secret,
    scopes,
    allow_loopback,
    disabled,
    untrusted,
    disabled_tools,
    part_of
});

impl std::fmt::Debug for ToolServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ToolServerConfig")
            .field("transport", &self.transport)
            .field("command", &self.command)
            .field("env", &self.env.keys())
            .field("headers", &self.headers.keys())
            .finish_non_exhaustive()
    }
}

/// `[mcp]` and `max_tools`.
#[derive(Clone, Debug)]
pub struct McpConfig {
    /// A call without an answer or a sign of progress.
    pub request_timeout: Duration,
    /// Whether servers are looked after: checked, and started again when they failed.
    pub auto_restart: bool,
    pub restart_attempts_max: u32,
    /// So long in good health, and earlier failures are forgotten.
    pub restart_cooldown: Duration,
    /// If not empty, only these hosts: names, `*.example.com`.
    pub url_allowlist: Vec<String>,
    /// Tool servers and plugins that may be added at run time.
    pub servers_max: usize,
    /// Whose programs may run as plugins.
    pub security: SecurityConfig,
}

impl Default for McpConfig {
    fn default() -> Self {
        Self {
            request_timeout: limits::MCP_REQUEST_TIMEOUT,
            auto_restart: true,
            restart_attempts_max: RESTART_ATTEMPTS_MAX,
            restart_cooldown: RESTART_COOLDOWN,
            url_allowlist: Vec::new(),
            servers_max: limits::TOOL_SERVERS_MAX,
            security: SecurityConfig::default(),
        }
    }
}

impl ToolServerConfig {
    /// Docker runs it, and gets its variables as options: `-e NAME` stands for `-e NAME=value`.
    pub fn is_container(&self) -> bool {
        matches!(self.part_of, PartOf::Image | PartOf::Browser)
    }

    /// Reached over HTTP, not a program.
    pub fn is_remote(&self) -> bool {
        self.transport == "sse"
    }

    /// Whether it could be started; key and reason otherwise. The same rules for file and API (W-27).
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let fail = |key, reason: &str| Err((key, reason.to_owned()));
        match self.transport.as_str() {
            "" | "stdio" if self.command.is_empty() => {
                return fail("command", "command is required for stdio transport");
            }
            "sse" if self.url.is_empty() => return fail("url", "url is required for sse transport"),
            "" | "stdio" | "sse" => {}
            other => return Err(("transport", format!("unsupported transport {}", quoted(other)))),
        }
        if self.is_remote() {
            if !self.command.is_empty() || !self.args.is_empty() {
                return fail("command", "command and args work only with transport \"stdio\"");
            }
            // The rest of the address is judged when it is used: it may hold placeholders.
            let url = self.url.to_ascii_lowercase();
            if !url.starts_with("http://") && !url.starts_with("https://") && !url.starts_with("${") {
                return fail("url", "url must begin with http:// or https://");
            }
        } else {
            if !self.url.is_empty() || !self.headers.is_empty() {
                return fail("url", "url and headers work only with transport \"sse\"");
            }
            if !self.auth.is_empty() {
                return fail("auth", "auth works only with transport \"sse\"");
            }
        }
        if !["", "oauth"].contains(&self.auth.as_str()) {
            return Err(("auth", format!("auth must be \"\" or \"oauth\", got {}", quoted(&self.auth))));
        }
        if self.client_id.is_empty() != self.client_secret.is_empty() {
            return fail("client_id", "client_id needs client_secret, and the other way round");
        }
        if self.auth.is_empty() && (!self.client_id.is_empty() || !self.scopes.is_empty()) {
            return fail("auth", "auth must be \"oauth\" when client_id or scopes are given");
        }
        if self.env.keys().any(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return fail("env", "env holds a name that no variable can have");
        }
        let texts = self.env.values().chain(&self.args).chain([&self.command]);
        if texts.into_iter().any(|text| text.contains('\0')) {
            return fail("env", "command, args and env must not hold NUL");
        }
        if !(0..=24 * 3600).contains(&self.request_timeout_secs) {
            return fail("request_timeout_secs", "request_timeout_secs must be from 0 (the default) to 86400");
        }
        Ok(())
    }
}

/// Whether a name can be given to a server (contract engine 8.1).
pub fn check_tool_server_name(name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !starts || !name.bytes().all(is_plain) {
        return Err(format!("name {} must be alphanumeric with hyphens or underscores", quoted(name)));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("name {} must be at most {NAME_BYTES_MAX} letters long", quoted(name)));
    }
    Ok(())
}

pub(super) fn tools(typed: &Typed) -> Result<BTreeMap<String, ToolServerConfig>, ConfigError> {
    for (name, tool) in &typed.raw.tools {
        check_tool_server_name(name).map_err(|reason| typed.bad(&format!("tools.{name}"), reason))?;
        tool.check().map_err(|(key, reason)| typed.bad(&format!("tools.{name}.{key}"), reason))?;
    }
    Ok(typed.raw.tools.clone())
}

pub(super) fn mcp(typed: &Typed) -> Result<McpConfig, ConfigError> {
    let (raw, defaults) = (&typed.raw.mcp, McpConfig::default());
    let timeout_s = number(typed, "mcp.request_timeout_secs", raw.request_timeout_secs.unwrap_or(0), 0, 24 * 3600_u64)?;
    let attempts = raw.max_restart_attempts.unwrap_or(i64::from(RESTART_ATTEMPTS_MAX));
    let cooldown = raw.restart_cooldown.as_deref();
    let servers_max = number(typed, "max_tools", typed.raw.max_tools.unwrap_or(0), 0, 10_000_usize)?;
    Ok(McpConfig {
        request_timeout: if timeout_s == 0 { defaults.request_timeout } else { Duration::from_secs(timeout_s) },
        auto_restart: raw.auto_restart.unwrap_or(true),
        restart_attempts_max: number(typed, "mcp.max_restart_attempts", attempts, 0, 1_000_000_u32)?,
        restart_cooldown: time(typed, "mcp.restart_cooldown", cooldown, defaults.restart_cooldown)?,
        url_allowlist: raw.url_allowlist.clone(),
        servers_max: if servers_max == 0 { defaults.servers_max } else { servers_max },
        security: security(typed),
    })
}

/// Writes `[tools.<name>]`: keys that are empty are left out, everything else in the document stays.
pub fn write_tool_server(doc: &mut DocumentMut, name: &str, tool: &ToolServerConfig) -> Result<(), ConfigError> {
    let wrong = |what: &str| ConfigError::Edit { path: std::path::PathBuf::new(), reason: what.to_owned() };
    let tools = tools_table(doc).ok_or_else(|| wrong("tools: must be a table"))?;
    let entry = tools.entry(name).or_insert_with(|| Item::Table(Table::new()));
    let table = entry.as_table_like_mut().ok_or_else(|| wrong("tools: must hold tables only"))?;
    let text = |text: &str| (!text.is_empty()).then(|| Item::Value(Value::from(text)));
    let texts =
        |texts: &[String]| (!texts.is_empty()).then(|| Item::Value(Value::Array(texts.iter().collect::<Array>())));
    let map = |map: &BTreeMap<String, String>| {
        (!map.is_empty()).then(|| Item::Value(Value::InlineTable(map.iter().collect::<InlineTable>())))
    };
    let flag = |flag: bool| flag.then(|| Item::Value(Value::from(true)));
    let seconds = (tool.request_timeout_secs != 0).then(|| Item::Value(Value::from(tool.request_timeout_secs)));
    put(table, "transport", text(&tool.transport));
    put(table, "command", text(&tool.command));
    put(table, "args", texts(&tool.args));
    put(table, "env", map(&tool.env));
    put(table, "url", text(&tool.url));
    put(table, "headers", map(&tool.headers));
    put(table, "request_timeout_secs", seconds);
    put(table, "auth", text(&tool.auth));
    put(table, "client_id", text(&tool.client_id));
    put(table, "client_secret", text(&tool.client_secret));
    put(table, "scopes", texts(&tool.scopes));
    put(table, "allow_loopback", flag(tool.allow_loopback));
    put(table, "disabled", flag(tool.disabled));
    put(table, "untrusted", flag(tool.untrusted));
    put(table, "disabled_tools", texts(&tool.disabled_tools));
    Ok(())
}

fn tools_table(doc: &mut DocumentMut) -> Option<&mut dyn TableLike> {
    doc.entry("tools").or_insert_with(implicit_table).as_table_like_mut()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigWriter;

    fn program() -> ToolServerConfig {
        ToolServerConfig { command: "npx".into(), args: vec!["-y".into(), "server".into()], ..Default::default() }
    }

    fn remote(config: &mut ToolServerConfig) {
        *config = ToolServerConfig { transport: "sse".into(), url: "https://e.com/mcp".into(), ..Default::default() };
    }

    #[test]
    fn what_could_not_start_is_refused_with_a_reason() {
        let check = |change: fn(&mut ToolServerConfig), expected: &str| {
            let mut config = program();
            change(&mut config);
            let found = config.check().err().map_or_else(String::new, |(_, reason)| reason);
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{found}: not {expected:?}");
        };
        check(|_| {}, "");
        check(remote, "");
        check(|c| c.command.clear(), "command is required for stdio transport");
        check(|c| c.transport = "tcp".into(), "unsupported transport \"tcp\"");
        check(|c| c.url = "https://x".into(), "only with transport \"sse\"");
        check(|c| c.auth = "oauth".into(), "only with transport \"sse\"");
        check(|c| c.request_timeout_secs = -1, "request_timeout_secs");
        check(|c| drop(c.env.insert("A=B".into(), String::new())), "no variable");
        check(|c| (remote(c), c.url.clear()).0, "url is required for sse transport");
        check(|c| (remote(c), c.url = "file:///etc/passwd".into()).0, "http");
        check(|c| (remote(c), c.command = "x".into()).0, "only with transport \"stdio\"");
        check(|c| (remote(c), c.auth = "basic".into()).0, "auth must be");
        check(|c| (remote(c), c.client_id = "x".into()).0, "needs client_secret");
        check(|c| (remote(c), c.scopes = vec!["x".into()]).0, "must be \"oauth\"");
    }

    #[test]
    fn names_are_plain() {
        for (name, good) in [("a", true), ("A-1_b", true), ("", false), ("-a", false), ("a.b", false), ("ä", false)] {
            assert_eq!(check_tool_server_name(name).is_ok(), good, "{name}");
        }
        assert!(check_tool_server_name(&"a".repeat(65)).is_err());
    }

    #[test]
    fn the_file_keeps_its_comments_and_holds_what_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let writer = ConfigWriter::new(dir.path().join("holt.toml"));
        let before = "# top\n[tools.a] # mine\ncommand = \"npx\" # runs\nargs = ['-y',   'server']\ntransport = \"stdio\"\n\n[tools.a.env]\n# secret\nX = \"$Y\"\n\n[log]\nlevel = \"info\"\n";
        std::fs::write(writer.path(), before).unwrap();
        let mut a = program();
        a.env.insert("X".into(), "$Y".into());
        a.transport = "stdio".into();
        writer.edit(|doc| write_tool_server(doc, "a", &a)).unwrap();
        assert_eq!(std::fs::read_to_string(writer.path()).unwrap(), before, "nothing changed");
        a.command = "uvx".into();
        a.transport.clear();
        a.disabled_tools = vec!["t".into()];
        writer.edit(|doc| write_tool_server(doc, "a", &a)).unwrap();
        let text = std::fs::read_to_string(writer.path()).unwrap();
        assert!(text.contains("command = \"uvx\" # runs") && text.contains("# secret") && !text.contains("transport"));
        let mut b = ToolServerConfig { transport: "sse".into(), url: "https://e.com".into(), ..Default::default() };
        b.headers.insert("Authorization".into(), "Bearer ${T}".into());
        writer.edit(|doc| write_tool_server(doc, "b", &b)).unwrap();
        let read = |name: &str| {
            let doc: DocumentMut = std::fs::read_to_string(writer.path()).unwrap().parse().unwrap();
            let table = crate::config::json::of_table(doc["tools"][name].as_table().unwrap());
            let mut config = ToolServerConfig::default();
            assert!(crate::config::json::FromJson::take(&mut config, table));
            config
        };
        assert_eq!((read("a"), read("b")), (a, b));
        for name in ["a", "never there"] {
            writer.edit(|doc| crate::config::edit::set_at(doc, &["tools", name], &serde_json::Value::Null)).unwrap();
        }
        let text = std::fs::read_to_string(writer.path()).unwrap();
        assert!(!text.contains("tools.a") && text.contains("[tools.b]") && text.contains("[log]"), "{text}");
    }
}
