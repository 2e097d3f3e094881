//! The client: handshake, list of tools, calls (MCP 2025-11-25; contract engine 8.2). Transports are below it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use serde_json::{Value, json};

use super::content::{Outcome, outcome};
use super::inbox::{Inbox, Limit, Waiting};
use super::mask::cut;
use super::{McpError, TransportKind, rpc};
use crate::limits;
use crate::rt::Cancel;

/// The revisions that we speak, the preferred one first.
pub const PROTOCOLS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

/// Carries messages. Sending never waits for the server: what cannot go out at once is queued, up to a bound.
pub(super) trait Transport: Send + Sync {
    /// Sends one message. `call`: it is a request, and its answer belongs there.
    fn send(&self, message: Vec<u8>, call: Option<(u64, &Arc<Waiting>)>) -> Result<(), McpError>;

    /// Nobody waits for the answer to that request any more.
    fn abandon(&self, _call: u64) {}

    /// The handshake settled on this revision. Sends the notice that says so; it goes before all that follows.
    fn agreed(&self, _protocol: &'static str, initialized: Vec<u8>) -> Result<(), McpError> {
        self.send(initialized, None)
    }

    /// Begins to end the connection. Never waits.
    fn close(&self);

    /// Waits until nothing of it is left, a child process for instance; false when it takes longer than `timeout`.
    fn wait_ended(&self, timeout: Duration) -> bool;

    fn kind(&self) -> TransportKind;
}

/// A tool as its server describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolDef {
    pub name: String,
    pub description: String,
    /// An object schema; the empty one when the server's is missing or none.
    pub schema: Value,
}

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
pub struct CallLimit {
    /// Without an answer or a sign of progress.
    pub idle: Duration,
    pub deadline: Instant,
}

/// An open connection to a tool server, after the handshake. Closed when dropped.
pub struct Client {
    inbox: Arc<Inbox>,
    transport: Box<dyn Transport>,
    has_tools: bool,
}

impl Client {
    /// Makes the handshake. Blocks up to `timeout`, and ends at once when cancelled.
    pub(super) fn open(
        transport: Box<dyn Transport>,
        inbox: Arc<Inbox>,
        timeout: Duration,
        cancel: &Cancel,
    ) -> Result<Self, McpError> {
        let mut client = Self { inbox, transport, has_tools: false };
        let params = json!({
            "protocolVersion": PROTOCOLS[0],
            "capabilities": {"roots": {"listChanged": true}},
            "clientInfo": {"name": "holt", "title": "Holt", "version": env!("CARGO_PKG_VERSION")},
        });
        let limit = CallLimit { idle: timeout, deadline: Instant::now() + timeout };
        let answer = client.request("initialize", params, limit, cancel)?;
        let version = answer.get("protocolVersion").and_then(Value::as_str).unwrap_or("");
        let Some(protocol) = PROTOCOLS.into_iter().find(|known| *known == version) else {
            let reason = format!("it speaks version {:?}; Holt speaks {}", cut(version, 40), PROTOCOLS.join(", "));
            return Err(McpError::Protocol { reason });
        };
        client.has_tools = answer.get("capabilities").and_then(|all| all.get("tools")).is_some_and(Value::is_object);
        client.transport.agreed(protocol, rpc::notice("notifications/initialized", None))?;
        Ok(client)
    }

    /// Every tool of the server, all pages of them. Blocks up to `timeout`.
    pub fn list_tools(&self, timeout: Duration, cancel: &Cancel) -> Result<Vec<ToolDef>, McpError> {
        let mut tools = Vec::new();
        if !self.has_tools {
            return Ok(tools);
        }
        let deadline = Instant::now() + timeout;
        let mut cursor: Option<String> = None;
        for _ in 0..limits::MCP_PAGES_MAX {
            let params = cursor.as_ref().map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
            let answer = self.request("tools/list", params, CallLimit { idle: timeout, deadline }, cancel)?;
            let Some(page) = answer.get("tools").and_then(Value::as_array) else {
                return Err(McpError::Protocol { reason: "its list of tools is no list".to_owned() });
            };
            tools.extend(page.iter().filter_map(tool_def));
            let next = answer.get("nextCursor").and_then(Value::as_str).filter(|next| !next.is_empty());
            if tools.len() >= limits::MCP_TOOLS_MAX || next.is_none() || next == cursor.as_deref() {
                break;
            }
            cursor = next.map(str::to_owned);
        }
        tools.truncate(limits::MCP_TOOLS_MAX);
        Ok(tools)
    }

    /// Calls a tool. Blocks until it answered, failed, ran out of time or was cancelled; in the last two cases the
    /// server is told, and a late answer is ignored.
    pub fn call_tool(
        &self,
        name: &str,
        arguments: &Value,
        limit: CallLimit,
        cancel: &Cancel,
    ) -> Result<Outcome, McpError> {
        let params = json!({"name": name, "arguments": arguments});
        let result = self.request("tools/call", params, limit, cancel)?;
        let mut outcome = outcome(&result);
        if outcome.is_error {
            outcome.text = self.inbox.mask.apply(&outcome.text);
        }
        Ok(outcome)
    }

    /// Asks for a sign of life; any answer is one.
    pub fn ping(&self, timeout: Duration, cancel: &Cancel) -> Result<(), McpError> {
        let limit = CallLimit { idle: timeout, deadline: Instant::now() + timeout };
        match self.request("ping", json!({}), limit, cancel) {
            Ok(_) | Err(McpError::Rpc { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Rings when the connection ended, may be broken, or the server's tools changed; see [`Client::closed`],
    /// [`Client::take_suspected`] and [`Client::take_tools_changed`].
    pub fn bell(&self) -> &Receiver<()> {
        self.inbox.bell()
    }

    /// Why the connection is over, if it is.
    pub fn closed(&self) -> Option<McpError> {
        self.inbox.closed()
    }

    /// Whether the server said that its tools changed since this was last asked.
    pub fn take_tools_changed(&self) -> bool {
        self.inbox.take_tools_changed()
    }

    /// Whether a call failed, since this was last asked, in a way that the whole connection may be the cause of.
    pub fn take_suspected(&self) -> bool {
        self.inbox.take_suspected()
    }

    /// Whether a call waits for its answer.
    pub fn is_busy(&self) -> bool {
        self.inbox.is_busy()
    }

    pub fn kind(&self) -> TransportKind {
        self.transport.kind()
    }

    /// Ends the connection; calls that wait fail at once. Never waits.
    pub fn close(&self) {
        self.inbox.close(McpError::Gone { detail: "closed by the hub".to_owned() });
        self.transport.close();
    }

    /// Waits until a closed connection is gone with all that belongs to it; false when that takes longer.
    pub fn wait_ended(&self, timeout: Duration) -> bool {
        self.transport.wait_ended(timeout)
    }

    fn request(
        &self,
        method: &'static str,
        params: Value,
        limit: CallLimit,
        cancel: &Cancel,
    ) -> Result<Value, McpError> {
        if cancel.is_set() {
            return Err(McpError::Cancelled);
        }
        let (id, waiting) = self.inbox.begin()?;
        let mut params = params;
        if method == "tools/call" {
            params["_meta"] = json!({"progressToken": id});
        }
        if let Err(error) = self.transport.send(rpc::request(id, method, &params), Some((id, &waiting))) {
            self.inbox.forget(id);
            // The reason that the connection ended says more than a broken pipe.
            return Err(self.inbox.closed().unwrap_or(error));
        }
        let begun = Instant::now();
        let woken = Arc::clone(&waiting);
        cancel.set_hook(move || woken.wake());
        let wait = Limit { idle: limit.idle, deadline: limit.deadline };
        let result = waiting.wait(wait, || cancel.is_set());
        cancel.clear_hook();
        if let Some(result) = result {
            return result;
        }
        self.inbox.forget(id);
        let (error, reason) = if cancel.is_set() {
            (McpError::Cancelled, "cancelled by the user")
        } else {
            (McpError::Timeout { what: method, after: begun.elapsed() }, "timed out")
        };
        self.transport.abandon(id);
        // The handshake cannot be cancelled (MCP "Cancellation").
        if method != "initialize" {
            let params = json!({"requestId": id, "reason": reason});
            // A server that cannot be told is about to be noticed as gone.
            let _ = self.transport.send(rpc::notice("notifications/cancelled", Some(params)), None);
        }
        Err(error)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}

/// None for what cannot be called.
fn tool_def(value: &Value) -> Option<ToolDef> {
    let name = value.get("name")?.as_str().filter(|name| !name.is_empty() && name.len() <= 256)?;
    let described = value.get("description").and_then(Value::as_str);
    let titled = || value.get("title").and_then(Value::as_str);
    let description = cut(described.or_else(titled).unwrap_or(""), limits::MCP_DESCRIPTION_BYTES_MAX);
    let schema = value.get("inputSchema").filter(|schema| {
        schema.get("type").and_then(Value::as_str) == Some("object")
            && schema.to_string().len() <= limits::MCP_SCHEMA_BYTES_MAX
    });
    let schema = schema.cloned().unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    Some(ToolDef { name: name.to_owned(), description: description.to_owned(), schema })
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
