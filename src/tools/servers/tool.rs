//! A tool of a server, as agents call it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::llm::ToolSpec;
use crate::mcp::{CallLimit, Client, McpError};
use crate::rt::json::quoted;
use crate::tools::{Tool, ToolContext, ToolError};

/// Bound to one connection: when that ends, calls fail at once, and the next round of the turn sees its successor.
pub(super) struct ServerTool {
    /// The name in it is the offered one.
    pub(super) spec: ToolSpec,
    pub(super) server: String,
    /// What the server calls it.
    pub(super) remote_name: String,
    pub(super) client: Arc<Client>,
    /// A call without an answer or a sign of progress.
    pub(super) timeout: Duration,
}

impl Tool for ServerTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    /// What a server says about its own tools is not trusted.
    fn read_only(&self) -> bool {
        false
    }

    fn server(&self) -> &str {
        &self.server
    }

    fn own_name(&self) -> &str {
        &self.remote_name
    }

    fn timeout(&self) -> Duration {
        self.timeout * crate::limits::MCP_PROGRESS_FACTOR
    }

    fn call(&self, arguments: &Value, context: &ToolContext<'_>) -> Result<String, ToolError> {
        let limit = CallLimit { idle: self.timeout, deadline: context.deadline };
        match self.client.call_tool(&self.remote_name, arguments, limit, context.cancel) {
            Ok(outcome) if outcome.is_error => {
                Err(ToolError::new(format!("tool {} returned error: {}", quoted(&self.spec.name), outcome.text)))
            }
            Ok(outcome) => Ok(outcome.text),
            Err(McpError::Timeout { after, .. }) => {
                Err(ToolError::new(format!("tool execution timed out after {}s", after.as_secs())))
            }
            Err(error @ McpError::Rpc { .. }) => {
                Err(ToolError::new(format!("tool {} returned error: {error}", quoted(&self.spec.name))))
            }
            Err(error) => Err(ToolError::new(format!("tool server {}: {error}", quoted(&self.server)))),
        }
    }
}
